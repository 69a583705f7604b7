//! Sources of secrets: the URLs that parameters, secrets of Secrets Manager and secrets of Vault are named by.

use std::{fmt, str::FromStr};

use anyhow::{Context, Result, bail, ensure};
use schemars::JsonSchema;
use serde::Deserialize;

use super::printable;

/// A place that a secret comes from, written as a URL: `ssm:///app/db_password` (optionally `?version=7` or `?label=live`),
/// `secretsmanager://NAME-or-ARN` (optionally `?version=ID` or `?stage=AWSPREVIOUS`), `vault://MOUNT/PATH#KEY` (optionally
/// `?version=3`). `#KEY` at the end picks one field of a JSON object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct SecretSource {
    /// The store, and the secret's name in it.
    pub place: SecretPlace,
    /// The field of the secret, which is then a JSON object.
    pub key: Option<String>,
    /// As written.
    url: String,
}

/// A secret of a store. It may have several fields.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretPlace {
    /// A parameter of AWS Systems Manager's Parameter Store.
    Parameter {
        /// Its name, `/app/db_password`, or its ARN.
        name: String,
        /// Its version or label; the newest version without one.
        selector: Option<String>,
    },
    /// A secret of AWS Secrets Manager.
    SecretsManager {
        /// Its name or ARN.
        id: String,
        /// Its version.
        version: Option<SecretVersion>,
    },
    /// A secret of a KV engine of Vault or `OpenBao`.
    Vault {
        /// The mount and the path in it, as in `vault kv get`.
        path: String,
        /// Its version; the newest one without.
        version: Option<u64>,
    },
}

/// A version of a secret of Secrets Manager.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretVersion {
    /// By its identifier.
    Id(String),
    /// By the staging label that is attached to it, such as `AWSPREVIOUS`.
    Stage(String),
}

impl SecretPlace {
    /// Returns the scheme of its store.
    pub fn store(&self) -> &'static str {
        match self {
            Self::Parameter { .. } => "ssm",
            Self::SecretsManager { .. } => "secretsmanager",
            Self::Vault { .. } => "vault",
        }
    }
}

impl SecretSource {
    /// Returns whether a URL has the scheme of a store of secrets.
    pub fn is_one(url: &str) -> bool {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        ["ssm", "secretsmanager", "vault"].contains(&scheme)
    }
}

impl FromStr for SecretSource {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> Result<Self> {
        printable(url)?;
        let (scheme, rest) =
            url.split_once("://").context("a secret's source is a URL, such as ssm:///app/password")?;
        let (rest, key) = match rest.split_once('#') {
            Some((_, "")) => bail!("`#` is followed by the name of a field, as in {scheme}://NAME#password"),
            Some((rest, key)) => (rest, Some(key.to_owned())),
            None => (rest, None),
        };
        let (name, query) = rest.split_once('?').map_or((rest, None), |(name, query)| (name, Some(query)));
        let option = query.map(|query| query.split_once('=').unwrap_or((query, "")));
        if let Some((option, "")) = option {
            bail!("`?{option}` has no value");
        }
        ensure!(!name.is_empty(), "the URL of a secret has its name: {scheme}://NAME");
        let place = match scheme {
            "ssm" => parameter(name, option)?,
            "secretsmanager" => secrets_manager(name, option)?,
            "vault" => vault(name, option, key.as_deref())?,
            _ => bail!("`{scheme}` is no store of secrets: use ssm, secretsmanager or vault"),
        };
        Ok(Self { place, key, url: url.into() })
    }
}

/// Returns whether a text is the ARN of something of this service: `arn:PARTITION:SERVICE:REGION:ACCOUNT:KIND…`.
fn is_arn_of(text: &str, service: &str, kind: &str) -> bool {
    let fields: Vec<&str> = text.splitn(6, ':').collect();
    matches!(fields[..], ["arn", _, named, _, _, name] if named == service && name.len() > kind.len() && name.starts_with(kind))
}

/// Returns whether a label or an identifier of a version has only characters that those of AWS have.
fn is_label(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// Reads the name of a parameter.
/// <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html>
fn parameter(name: &str, option: Option<(&str, &str)>) -> Result<SecretPlace> {
    let is_arn = name.starts_with("arn:");
    ensure!(
        is_arn || name.starts_with('/') || !name.contains('/'),
        "the name of a parameter with a path begins with a slash: ssm:///{name}"
    );
    ensure!(!name.ends_with('/'), "`{name}` is a path of parameters, not a parameter");
    ensure!(!is_arn || is_arn_of(name, "ssm", "parameter/"), "`{name}` is not the ARN of a parameter");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_.-".contains(c) || (is_arn && c == ':');
    ensure!(
        name.chars().all(plain),
        "`{name}` is not the name of a parameter: it has letters, digits, `/`, `_`, `.` and `-`; a version is ?version=7"
    );
    let selector = match option {
        None => None,
        Some(("version", number)) => {
            ensure!(
                number.parse::<u64>().is_ok_and(|number| number > 0),
                "`{number}` is not a version: it is a number"
            );
            Some(number.to_owned())
        }
        Some(("label", label)) => {
            ensure!(is_label(label), "`{label}` is not a label: it has letters, digits, `_`, `.` and `-`");
            Some(label.to_owned())
        }
        Some((other, _)) => bail!("`?{other}` is no option of a parameter: use ?version=NUMBER or ?label=LABEL"),
    };
    Ok(SecretPlace::Parameter { name: name.into(), selector })
}

/// Reads the name or the ARN of a secret of Secrets Manager. The ARNs of secrets are listed with commas between them.
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html>
fn secrets_manager(id: &str, option: Option<(&str, &str)>) -> Result<SecretPlace> {
    let is_arn = id.starts_with("arn:");
    ensure!(!is_arn || is_arn_of(id, "secretsmanager", "secret:"), "`{id}` is not the ARN of a secret");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-".contains(c) || (is_arn && c == ':');
    ensure!(
        id.chars().all(plain),
        "`{id}` is not the name of a secret: it has letters, digits, `/`, `_`, `+`, `=`, `.`, `@` and `-`"
    );
    Ok(SecretPlace::SecretsManager { id: id.into(), version: secret_version(option)? })
}

fn secret_version(option: Option<(&str, &str)>) -> Result<Option<SecretVersion>> {
    if let Some((_, version)) = option {
        ensure!(is_label(version), "`{version}` is not a version: it has letters, digits, `_`, `.` and `-`");
    }
    Ok(match option {
        None => None,
        Some(("version", id)) => Some(SecretVersion::Id(id.into())),
        Some(("stage", stage)) => Some(SecretVersion::Stage(stage.into())),
        Some((other, _)) => bail!("`?{other}` is no option of a secret: use ?version=ID or ?stage=LABEL"),
    })
}

fn vault(path: &str, option: Option<(&str, &str)>, key: Option<&str>) -> Result<SecretPlace> {
    let path = path.trim_matches('/');
    let is_proper = |part: &str| !part.is_empty() && part != "." && part != "..";
    ensure!(
        path.contains('/') && path.split('/').all(is_proper),
        "the source of Vault's secret is vault://MOUNT/PATH#KEY"
    );
    ensure!(key.is_some(), "a secret of Vault is a table: name the key, vault://{path}#KEY");
    let version = match option {
        None => None,
        Some(("version", number)) => {
            let number = number.parse().ok().filter(|number| *number > 0);
            Some(number.context("the version of a secret of Vault is a number, as in ?version=3")?)
        }
        Some((other, _)) => bail!("`?{other}` is no option of a secret of Vault: use ?version=NUMBER"),
    };
    Ok(SecretPlace::Vault { path: path.into(), version })
}

impl TryFrom<String> for SecretSource {
    type Error = anyhow::Error;

    fn try_from(url: String) -> Result<Self> {
        url.parse()
    }
}

/// The URL as written. A secret's name is no secret.
impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> (SecretPlace, Option<String>) {
        let source: SecretSource = url.parse().unwrap();
        assert_eq!(source.to_string(), url);
        (source.place, source.key)
    }

    #[test]
    fn a_url_names_the_store_the_version_and_the_field() {
        let parameter = |name: &str, selector: Option<&str>| SecretPlace::Parameter {
            name: name.into(),
            selector: selector.map(Into::into),
        };
        assert_eq!(read("ssm:///app/db"), (parameter("/app/db", None), None));
        assert_eq!(read("ssm://db?version=7"), (parameter("db", Some("7")), None));
        assert_eq!(read("ssm:///app/all?label=live#db"), (parameter("/app/all", Some("live")), Some("db".into())));
        let arn = "arn:aws:ssm:eu-west-1:1:parameter/app/db";
        assert_eq!(read(&format!("ssm://{arn}")), (parameter(arn, None), None));
        let secret = |version| SecretPlace::SecretsManager { id: "prod/db".into(), version };
        assert_eq!(read("secretsmanager://prod/db#password"), (secret(None), Some("password".into())));
        let stage = SecretVersion::Stage("AWSPREVIOUS".into());
        assert_eq!(read("secretsmanager://prod/db?stage=AWSPREVIOUS"), (secret(Some(stage)), None));
        let arn = "arn:aws:secretsmanager:eu-west-1:1:secret:prod/db_1+2=@.x-AbCdEf";
        let secret = SecretPlace::SecretsManager { id: arn.into(), version: None };
        assert_eq!(read(&format!("secretsmanager://{arn}")), (secret, None));
        let vault = SecretPlace::Vault { path: "kv/app".into(), version: Some(3) };
        assert_eq!(read("vault://kv/app?version=3#db"), (vault, Some("db".into())));
    }

    #[test]
    fn a_faulty_url_says_how_it_is_written() {
        let refused = |url: &str| url.parse::<SecretSource>().unwrap_err().to_string();
        assert!(refused("ssm://app/db").contains("ssm:///app/db"));
        assert!(refused("ssm:///app/db:7").contains("?version=7"));
        assert!(refused("ssm:///app/").contains("a path of parameters"));
        assert!(refused("ssm:///a?version=x").contains("is a number"));
        assert!(refused("ssm:///a#").contains("the name of a field"));
        assert!(refused("ssm:///a?label=a b").contains("is not a label"));
        assert!(refused("ssm://arn:aws:ssm:eu-west-1").contains("is not the ARN of a parameter"));
        for name in ["*", "a b,c;rm", "a,b", "prod/ä", "a:b"] {
            let refused = refused(&format!("secretsmanager://{name}"));
            assert!(refused.contains(&format!("`{name}` is not the name of a secret")), "{refused}");
        }
        assert!(
            refused("secretsmanager://arn:aws:secretsmanager:eu-west-1:1:x").contains("is not the ARN of a secret")
        );
        assert!(refused("secretsmanager://a?stage=a,b").contains("is not a version"));
        assert!(refused("secretsmanager://a?label=x").contains("?stage=LABEL"));
        assert!(refused("secretsmanager://a?stage").contains("no value"));
        assert!(refused("vault://kv/app").contains("name the key"));
        assert!(refused("vault://kv#key").contains("vault://MOUNT/PATH#KEY"));
        assert!(refused("vault://kv/../sys/x#key").contains("vault://MOUNT/PATH#KEY"));
        assert!(refused("ftp://a").contains("no store of secrets"));
    }
}
