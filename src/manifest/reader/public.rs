//! Secrets in fields that other users of the machine can read.

use std::ops::Range;

use toml::{Spanned, de::DeTable};

use super::{Reader, substitution::Unknown};
use crate::{
    diagnostic::{Diagnostic, Place, Text},
    resource::Resource,
};

impl Reader<'_> {
    /// Reports secrets of stores in a step's own fields, which are shown and recorded.
    pub(super) fn secrets_of_step(&mut self, text: &Text, step: &DeTable<'_>, unknown: &Unknown) {
        for (field, variable) in
            unknown.secrets.iter().filter(|(_, variable)| self.variables.is_certainly_secret(variable))
        {
            let Some(span) = step.get(field.as_str()).map(Spanned::span) else { continue };
            let message = format!("`{field}` holds the secret `{variable}`, which the output would show");
            let hint = "write it without a secret".to_owned();
            self.faults.add(|| Diagnostic { message, place: Some(Place::new(text, &span)), hint: Some(hint) });
        }
    }

    /// Reports secret variables in fields that other users can read: in the process list, or in a file. A variable of the
    /// operator's files may be no secret, so only those of stores are refused in a file.
    pub(super) fn secrets_for_others(
        &mut self,
        text: &Text,
        resource: &dyn Resource,
        span_of: &dyn Fn(&str) -> Range<usize>,
        unknown: &Unknown,
    ) {
        for (field, variable) in &unknown.secrets {
            let (message, hint) = if resource.public_fields().contains(&field.as_str()) {
                let message =
                    format!("`{field}` holds the secret variable `{variable}`, which the process list would show");
                let hint = format!(
                    "pass it with stdin = \"{{{{ {variable} }}}}\" or `credentials`; if it is no secret, set it with --set or in \
                     the manifest's variables"
                );
                (message, hint)
            } else if self.variables.is_certainly_secret(variable)
                && !resource.secret_fields().contains(&field.as_str())
            {
                let message = |why: &str| format!("`{field}` holds the secret `{variable}`, which {why}");
                match resource.place_of_secrets() {
                    Some((why, hint)) => (message(why), hint.to_owned()),
                    None => (message("other users could read"), hint(resource, field, variable)),
                }
            } else {
                continue;
            };
            self.report(text, &span_of(field), message, Some(hint));
        }
    }
}

fn hint(resource: &dyn Resource, field: &str, variable: &str) -> String {
    match resource.secret_fields() {
        [] if field == "content" => "let only its owner read the file: secret = true".into(),
        [] => format!("write the secret to a file of its own: content = \"{{{{ {variable} }}}}\", secret = true"),
        fields => format!("a secret may be in: {}", fields.join(", ")),
    }
}
