//! One field of a secret that is a JSON object.

use anyhow::Result;
use serde_json::Value;

use super::SecretValue;
use crate::{diagnostic::did_you_mean, error::Fault, value::changes_digits};

/// The most names of fields in an error.
const MAX_NAMES: usize = 10;

/// Returns the field of a secret.
///
/// # Errors
/// If the secret is not a JSON object, or has no such field. Its values are not in the error.
pub(super) fn of(document: &SecretValue, key: &str) -> Result<SecretValue> {
    let parsed = serde_json::from_slice(document.bytes());
    let Ok(Value::Object(mut fields)) = parsed else {
        let fault = Fault::new(format!("`#{key}` names a field, but the secret is not a JSON object"));
        return Err(fault.hint(format!("leave out `#{key}`, or store an object: {{\"{key}\": \"…\"}}")).into());
    };
    let text = match fields.remove(key) {
        Some(value) if changes_digits(&value) => {
            let fault = Fault::new(format!("the digits of the number in the field `{key}` would change"));
            return Err(fault.hint("store the number as a string, in double quotes").into());
        }
        Some(Value::String(text)) => text,
        Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
        Some(_) => {
            return Err(Fault::new(format!("the field `{key}` is not a string, a number, true or false")).into());
        }
        None => {
            let names = fields.keys().map(String::as_str);
            let list = || match fields.len() {
                0 => "the secret has no field".to_owned(),
                count => {
                    let more = if count > MAX_NAMES { " …" } else { "" };
                    let names: Vec<_> = names.clone().take(MAX_NAMES).collect();
                    format!("its fields are: {}{more}", names.join(", "))
                }
            };
            let hint = did_you_mean(key, names.clone()).unwrap_or_else(list);
            return Err(Fault::new(format!("the secret has no field `{key}`")).hint(hint).into());
        }
    };
    Ok(SecretValue::new(format!("{}#{key}", document.name()), text.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error;

    #[test]
    fn a_field_is_picked_and_a_missing_one_shows_no_value() {
        let document = SecretValue::new("ssm:///a", br#"{"user": "app", "password": "hunter22", "port": 5432}"#.into());
        assert_eq!(of(&document, "password").unwrap().bytes(), b"hunter22");
        assert_eq!(of(&document, "port").unwrap().bytes(), b"5432");
        let error = of(&document, "pasword").unwrap_err();
        assert_eq!(error::render(&error), "error: the secret has no field `pasword`\nhint: did you mean `password`?\n");
        let error = of(&document, "certificate").unwrap_err();
        assert_eq!(error::hint(&error), Some("its fields are: user, password, port"));
        // The parser of JSON keeps neither the last zero nor more than 64 bits.
        let document = SecretValue::new("ssm:///c", br#"{"rate": 1.10, "id": 123456789012345678901234567890}"#.into());
        for key in ["rate", "id"] {
            let error = of(&document, key).unwrap_err();
            let words = format!("error: the digits of the number in the field `{key}` would change\n");
            assert_eq!(error::render(&error), words + "hint: store the number as a string, in double quotes\n");
        }
        let plain = SecretValue::new("ssm:///b", b"hunter23".into());
        let rendered = error::render(&of(&plain, "password").unwrap_err());
        assert!(rendered.contains("not a JSON object") && !rendered.contains("hunter23"), "{rendered}");
    }
}
