//! Defaults with a meaning of their own: the value of another variable, and a switch.

use super::{
    Variables, is_fact, is_name,
    placeholder::{Why, only_placeholder},
    setting::Setting,
    value::Value,
};

/// The most variables that lead to each other.
const MAX_STEPS: usize = 8;
/// The values of a switch.
const SWITCH: [&str; 2] = ["on", "off"];

impl Variables {
    /// Returns the variable or the fact whose value a variable has: itself, unless its default is exactly one placeholder.
    ///
    /// # Errors
    /// If the defaults lead back to the variable.
    pub(super) fn followed<'n>(&'n self, name: &'n str) -> Result<&'n str, Why> {
        let mut last = name;
        for _ in 0..MAX_STEPS {
            match self.leads_to(last) {
                Some(next) => last = next,
                None => return Ok(last),
            }
        }
        Err(Why::Circle)
    }

    /// Returns the variable or the fact that the default of a variable names alone.
    pub(super) fn leads_to(&self, name: &str) -> Option<&str> {
        let other = only_placeholder(self.default_of(name)?)?;
        (is_fact(other) || self.declared.contains_key(other) || self.given.contains_key(other)).then_some(other)
    }

    /// Returns the name that a variable's default has alone in braces, and that no variable has.
    pub(super) fn leads_nowhere(&self, name: &str) -> Option<&str> {
        let other = only_placeholder(self.default_of(name)?)?;
        (is_name(other) && self.leads_to(name).is_none()).then_some(other)
    }

    /// Returns why a value cannot be that of a variable whose default is `on` or `off`.
    pub fn fault_of_switch(&self, name: &str, value: &str) -> Option<String> {
        let Some(Setting::Everywhere(Value::Text(default))) = self.declared.get(name) else { return None };
        let is_switch = SWITCH.contains(&&**default) && !SWITCH.contains(&value);
        is_switch.then(|| format!("variable `{name}` is neither `on` nor `off`"))
    }

    /// Returns the text of a variable's default, unless the operator gives a value.
    fn default_of(&self, name: &str) -> Option<&str> {
        match self.declared.get(name).filter(|_| !self.given.contains_key(name))? {
            Setting::Everywhere(Value::Text(text)) => Some(text),
            _ => None,
        }
    }
}
