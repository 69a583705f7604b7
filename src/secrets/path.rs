//! All parameters below a path of AWS Systems Manager's Parameter Store.
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParametersByPath.html>

use std::fmt;

use anyhow::{Result, bail, ensure};

use super::SecretValue;
use crate::{
    aws::{answer::Element, query::Call, refusal::Refusal, service::SSM},
    error::Fault,
    value::printable,
};

/// The most parameters below a path.
const MAX_PARAMETERS: usize = 1000;
/// The most pages of an answer. A page may be empty.
const MAX_PAGES: usize = 1000;

/// A path of parameters: `/app/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterPath(String);

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredParameter {
    /// Its name, which begins with the path.
    pub name: String,
    /// Its value.
    pub value: ParameterContent,
}

/// The value of a parameter by the parameter's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParameterContent {
    /// That of a `String`.
    Text(String),
    /// That of a `StringList`.
    List(Vec<String>),
    /// That of a `SecureString`; `None` unless it was decrypted.
    Secret(Option<SecretValue>),
}

impl ParameterPath {
    /// Returns the path of a URL `ssm:///path/`; `None` if the text is something else.
    ///
    /// # Errors
    /// If the path is invalid.
    pub fn named(url: &str) -> Result<Option<Self>> {
        let Some(path) = url.strip_prefix("ssm://") else { return Ok(None) };
        printable(path)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "/_.-".contains(c);
        let is_path = path.len() > 2 && path.starts_with('/') && path.ends_with('/') && !path.contains("//");
        if !(is_path && path.chars().all(plain)) {
            let fault = Fault::new(format!("{url} is not a path of parameters"));
            return Err(fault.hint("write it with a slash at both ends: ssm:///app/").into());
        }
        Ok(Some(Self(path.into())))
    }

    /// Returns the path, which begins and ends with a slash.
    pub fn path(&self) -> &str {
        &self.0
    }

    /// Returns the name of a parameter's variable: the rest of the parameter's name, with `_` for each slash.
    pub fn variable(&self, name: &str) -> String {
        name.strip_prefix(&*self.0).unwrap_or(name).replace('/', "_")
    }

    /// Reads the parameters below the path. `call` makes a call.
    pub(super) fn read(&self, decrypts: bool, call: impl Fn(Call) -> Result<Element>) -> Result<Vec<StoredParameter>> {
        let mut found = vec![];
        let mut token = String::new();
        for _ in 0..MAX_PAGES {
            let mut request = Call::new(&SSM, "GetParametersByPath").with("Path", &self.0).with_json("Recursive", true);
            if decrypts {
                request = request.with_json("WithDecryption", true);
            }
            if !token.is_empty() {
                request = request.with("NextToken", &token);
            }
            let answer = call(request).map_err(|error| self.explain(error))?;
            found.extend(answer.list("Parameters").map(|parameter| read(parameter, decrypts)));
            ensure!(found.len() <= MAX_PARAMETERS, "there are more than {MAX_PARAMETERS} parameters below {}", self.0);
            answer.text("NextToken").clone_into(&mut token);
            if token.is_empty() {
                if found.is_empty() {
                    return Err(self.is_empty().into());
                }
                found.sort_by(|one: &StoredParameter, other| one.name.cmp(&other.name));
                return Ok(found);
            }
        }
        bail!("the answer has more than {MAX_PAGES} pages")
    }

    fn is_empty(&self) -> Fault {
        let path = &self.0;
        Fault::new(format!("there is no parameter below {path} in this account and region")).hint(format!(
            "correct the path, or store one: aws ssm put-parameter --type String --name {path}NAME --value VALUE"
        ))
    }

    /// Returns a refusal in the words of a path.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let Some(refusal) = Refusal::of(&error) else { return error };
        let path = &self.0;
        let fault = match refusal.code.as_str() {
            "InvalidKeyId" => Fault::new(format!("the key of a parameter below {path} does not decrypt it"))
                .hint("allow kms:Decrypt on the key in the role's policy, and see that the key is enabled"),
            "AccessDeniedException" if refusal.message.contains("kms:") || refusal.message.contains("ciphertext") => {
                Fault::new(format!("the role may list the parameters below {path}, but not decrypt them"))
                    .hint("allow kms:Decrypt on their key, in the role's policy and in the key's")
            }
            "AccessDeniedException" => Fault::new(format!("the role may not read the parameters below {path}"))
                .hint(format!("allow ssm:GetParametersByPath on arn:{}:ssm:*:*:parameter{path}*", refusal.partition)),
            _ => return error,
        };
        fault.caused_by(error).into()
    }
}

fn read(parameter: &Element, decrypts: bool) -> StoredParameter {
    let (name, value) = (parameter.text("Name").to_owned(), parameter.text("Value"));
    let value = match parameter.text("Type") {
        "String" => ParameterContent::Text(value.into()),
        "StringList" => ParameterContent::List(value.split(',').map(Into::into).collect()),
        // A type that is not known yet is treated as the most careful one.
        _ => ParameterContent::Secret(decrypts.then(|| SecretValue::new(format!("ssm://{name}"), value.into()))),
    };
    StoredParameter { name, value }
}

/// The URL.
impl fmt::Display for ParameterPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ssm://{}", self.0)
    }
}
