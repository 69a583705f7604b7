//! What the variables of a manifest say, but probably should not.

use super::{
    Variables, is_fact,
    placeholder::{Piece, pieces},
};
use crate::diagnostic::{Diagnostic, did_you_mean};

impl Variables {
    /// What the operator gives and no string has asked for.
    pub fn unused(&self) -> Vec<Diagnostic> {
        let used = self.used.borrow();
        let may_be_unused = |name: &str| is_fact(name) || self.parameters.contains_key(name);
        let unused = self.given.keys().filter(|name| !used.contains(*name) && !may_be_unused(name));
        let warning = |name: &String| Diagnostic {
            message: format!("no step and no template uses the variable `{name}`"),
            place: self.place(name).cloned(),
            hint: did_you_mean(name, used.iter().map(String::as_str)),
        };
        unused.map(warning).collect()
    }

    /// Values that hold the name of another variable in braces, as a template does: they stay as they are written.
    pub fn nested(&self) -> Vec<Diagnostic> {
        let is_declared = |name: &&String| !self.given.contains_key(*name);
        let values = self.given.iter().chain(self.declared.iter().filter(|(name, _)| is_declared(name)));
        let nested = values.filter_map(|(name, value)| {
            if self.leads_to(name).is_some() {
                return None;
            }
            if let Some(unknown) = self.leads_nowhere(name) {
                return Some(Diagnostic {
                    message: format!("the default of `{name}` is no variable's value: `{unknown}` is not set"),
                    place: self.place(name).cloned(),
                    hint: Some(
                        did_you_mean(unknown, self.names())
                            .unwrap_or_else(|| format!("for the text itself, write \"{{{{{{{{ {unknown} }}}}\"")),
                    ),
                });
            }
            let inner = value.texts().flat_map(|text| pieces(text)).find_map(|piece| match piece {
                Piece::Placeholder(inner, _) if is_fact(inner) || self.names().any(|known| known == inner) => {
                    Some(inner)
                }
                _ => None,
            })?;
            Some(Diagnostic {
                message: format!(
                    "`{{{{ {inner} }}}}` in the value of `{name}` is not replaced: only steps and templates are"
                ),
                place: self.place(name).cloned(),
                hint: Some(format!("write `{{{{ {inner} }}}}` beside `{{{{ {name} }}}}`, where that is used")),
            })
        });
        nested.collect()
    }
}
