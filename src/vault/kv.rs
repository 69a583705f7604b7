//! Reading a secret of the key-value engine, version 1 or 2.
//! <https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2>

use std::{error::Error, fmt};

use serde_json::{Map, Value};

use super::{
    client::{Hidden, VaultCall, VaultClient, VaultReply, encoded},
    path::VaultPath,
};
use crate::{
    error::Fault,
    net::retry::Failure,
    value::{changes_digits, quoted},
};

/// The most names of keys that an error shows.
const MAX_SHOWN_KEYS: usize = 10;

/// A secret: a table of keys and values. It has no `Debug`.
pub(super) struct KvSecret {
    fields: Map<String, Value>,
    /// The version; `None` for the engine's version 1, which keeps none.
    pub(super) version: Option<u64>,
}

/// The error that Vault does not accept the token: it has expired, or it was revoked.
#[derive(Debug)]
pub(super) struct TokenRefused;

impl fmt::Display for TokenRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault does not accept the token: it has expired, or it was revoked")
    }
}

impl Error for TokenRefused {}

/// The place of a secret: the mount of its engine and the path below it.
struct KvPlace {
    mount: String,
    below: String,
    is_versioned: bool,
}

impl KvPlace {
    /// Returns the path that a policy must allow, and that is read.
    fn read_path(&self) -> String {
        if self.is_versioned {
            format!("{}/data/{}", self.mount, self.below)
        } else {
            format!("{}/{}", self.mount, self.below)
        }
    }

    /// `-mount=secret app/db`, as the commands of `vault kv` take it.
    fn arguments(&self) -> String {
        format!("-mount={} {}", quoted(&self.mount), quoted(&self.below))
    }
}

/// Reads a secret once.
///
/// # Errors
/// [`TokenRefused`] is among the causes if another token may succeed.
pub(super) async fn read(client: &VaultClient, token: &Hidden, path: &VaultPath) -> Result<KvSecret, Failure> {
    let place = find(client, token, path).await?;
    if let (Some(version), false) = (path.version, place.is_versioned) {
        let fault = Fault::new(format!("{} keeps no versions, but version {version} is declared", place.mount));
        let mount = quoted(&place.mount);
        let hint = format!("remove `?version={version}`, or upgrade: vault kv enable-versioning {mount}");
        return Err(Failure::Permanent(fault.hint(hint)));
    }
    let query = path.version.map(|version| format!("?version={version}")).unwrap_or_default();
    let target = encoded(&place.read_path()) + &query;
    let mut reply = client.ask(VaultCall::get(&target, token)).await?;
    match reply.status {
        403 => Err(denied(client, token, &place.read_path(), reply).await),
        404 => Err(Failure::Permanent(missing(path, &place, &reply))),
        _ if !reply.is_success() => Err(Failure::Permanent(
            Fault::new(format!("Vault refuses to read {}", place.read_path())).caused_by(Fault::new(reply.words())),
        )),
        _ if place.is_versioned => {
            let version = reply.body["data"]["metadata"]["version"].as_u64();
            secret(reply.body["data"]["data"].take(), version, &place)
        }
        _ => secret(reply.body["data"].take(), None, &place),
    }
}

fn secret(data: Value, version: Option<u64>, place: &KvPlace) -> Result<KvSecret, Failure> {
    match data {
        Value::Object(fields) if place.is_versioned == version.is_some() => Ok(KvSecret { fields, version }),
        _ => Err(Failure::Permanent(Fault::new(format!("Vault's answer for {} is not a secret", place.read_path())))),
    }
}

/// Asks Vault for the engine at a path, as its own command line does. Each token may ask that has access to the mount.
async fn find(client: &VaultClient, token: &Hidden, path: &VaultPath) -> Result<KvPlace, Failure> {
    let target = format!("sys/internal/ui/mounts/{}", encoded(&path.path));
    let reply = client.ask(VaultCall::get(&target, token)).await?;
    match reply.status {
        403 => return Err(no_mount(client, token, path, &reply).await),
        404 => return Err(Failure::Permanent(reply.no_namespace())),
        _ if !reply.is_success() => {
            let fault = Fault::new(format!("Vault does not tell which engine is at {}", path.path));
            return Err(Failure::Permanent(fault.caused_by(Fault::new(reply.words()))));
        }
        _ => {}
    }
    let data = &reply.body["data"];
    let mount = data["path"].as_str().unwrap_or_default();
    let (mount, below) = split(&path.path, mount).ok_or_else(|| {
        Failure::Permanent(
            Fault::new(format!("{} is a mount and not a secret", path.path))
                .hint(format!("list its secrets: vault kv list {}", quoted(&path.path))),
        )
    })?;
    match data["type"].as_str().unwrap_or_default() {
        "kv" | "generic" => {}
        engine => {
            let fault = Fault::new(format!("the engine at {mount} is `{engine}`: only key-value engines are read"));
            let hint = "copy the value into a key-value engine: a lease would end after the run";
            return Err(Failure::Permanent(fault.hint(hint)));
        }
    }
    let is_versioned = data["options"]["version"].as_str() == Some("2");
    Ok(KvPlace { mount: mount.into(), below: below.into(), is_versioned })
}

/// Returns the parts of a path: the mount and the rest. The answer may name the namespace in front of the mount, which the
/// path may have or not.
fn split<'a>(path: &'a str, mount: &str) -> Option<(&'a str, &'a str)> {
    let mut mount = mount.trim_matches('/');
    loop {
        let rest = path.strip_prefix(mount).and_then(|rest| rest.strip_prefix('/')).filter(|rest| !rest.is_empty());
        if let (Some(rest), false) = (rest, mount.is_empty()) {
            return Some((&path[..mount.len()], rest));
        }
        mount = mount.split_once('/')?.1;
    }
}

/// Returns the policies of a token, in words; `None` if Vault does not accept it. A token may ask for itself unless it was
/// made without the default policy.
async fn policies(client: &VaultClient, token: &Hidden) -> Result<Option<String>, Failure> {
    let reply = client.ask(VaultCall::get("auth/token/lookup-self", token)).await?;
    if !reply.is_success() {
        return Ok(None);
    }
    let data = &reply.body["data"];
    let names = ["policies", "identity_policies"].into_iter().filter_map(|name| data[name].as_array()).flatten();
    Ok(Some(names.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")))
}

async fn denied(client: &VaultClient, token: &Hidden, read_path: &str, reply: VaultReply) -> Failure {
    let fault = Fault::new(format!("Vault denies reading {read_path}"));
    match policies(client, token).await {
        Err(failure) => failure,
        Ok(None) => Failure::Permanent(fault.caused_by(TokenRefused).hint(NEW_LOGIN)),
        Ok(Some(policies)) => {
            let hint = format!(
                "allow it in one of the token's policies ({policies}): \
                 path \"{read_path}\" {{ capabilities = [\"read\"] }}"
            );
            Failure::Permanent(fault.caused_by(Fault::new(reply.words())).hint(hint))
        }
    }
}

async fn no_mount(client: &VaultClient, token: &Hidden, path: &VaultPath, reply: &VaultReply) -> Failure {
    let fault = Fault::new(format!("Vault denies access to {}, or no engine is mounted there", path.path));
    match policies(client, token).await {
        Err(failure) => failure,
        Ok(None) => Failure::Permanent(fault.caused_by(TokenRefused).hint(NEW_LOGIN)),
        Ok(Some(policies)) => {
            let (mount, below) = path.path.split_once('/').unwrap_or((&path.path, ""));
            let hint = format!(
                "check the mounts: vault secrets list; then allow it in one of the token's policies ({policies}): \
                 path \"{mount}/data/{below}\" {{ capabilities = [\"read\"] }}; version 1 of the engine has no `data/`"
            );
            Failure::Permanent(fault.caused_by(Fault::new(reply.words())).hint(hint))
        }
    }
}

const NEW_LOGIN: &str = "log in anew: check `login`, and that the role's token_ttl is longer than a run";

/// Returns the fault of an answer 404. That of a deleted version has its metadata.
fn missing(path: &VaultPath, place: &KvPlace, reply: &VaultReply) -> Fault {
    let metadata = &reply.body["data"]["metadata"];
    let name = &path.path;
    if let Some(version) = metadata["version"].as_u64() {
        let arguments = place.arguments();
        if metadata["destroyed"].as_bool() == Some(true) {
            return Fault::new(format!("version {version} of {name} was destroyed"))
                .hint(format!("write a new version: vault kv put {arguments} {}=-", quoted(&path.key)));
        }
        let time = metadata["deletion_time"].as_str().unwrap_or_default();
        return Fault::new(format!("version {version} of {name} was deleted at {time}"))
            .hint(format!("restore it: vault kv undelete -versions={version} {arguments}"));
    }
    match path.version {
        Some(version) => Fault::new(format!("version {version} of {name} does not exist"))
            .hint(format!("list the versions: vault kv metadata get {}", place.arguments())),
        None => Fault::new(format!("{name} does not exist")).hint(format!(
            "write it: vault kv put {} {}=-",
            place.arguments(),
            path.key
        )),
    }
}

impl KvSecret {
    /// Returns the value of a key. A value that is not a string is its JSON, as `vault kv get -field` prints it.
    ///
    /// # Errors
    /// If there is no such key, or its value is empty.
    pub(super) fn value(&self, path: &VaultPath) -> Result<String, Fault> {
        let VaultPath { path: name, key, .. } = path;
        let value = match self.fields.get(key) {
            None => return Err(self.no_key(path)),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) => String::new(),
            Some(other) if changes_digits(other) => {
                let fault = Fault::new(format!("the digits of a number in the key `{key}` of {name} would change"));
                return Err(fault.hint("store the number as a string, in double quotes"));
            }
            Some(other) => other.to_string(),
        };
        if value.is_empty() {
            return Err(Fault::new(format!("the key `{key}` of {name} is empty")).hint(format!(
                "write a value: vault kv patch {} {}=-",
                quoted(name),
                quoted(key)
            )));
        }
        Ok(value)
    }

    fn no_key(&self, VaultPath { path, key, .. }: &VaultPath) -> Fault {
        let shown: Vec<_> = self.fields.keys().take(MAX_SHOWN_KEYS).map(|key| format!("`{key}`")).collect();
        let more = match self.fields.len() - shown.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let keys = match &shown[..] {
            [] => "it has no keys".into(),
            keys => format!("its keys are {}{more}", keys.join(", ")),
        };
        Fault::new(format!("{path} has no key `{key}`: {keys}")).hint("name one of its keys behind `#`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(key: &str) -> VaultPath {
        VaultPath { path: "secret/db".into(), key: key.into(), version: None }
    }

    #[test]
    fn a_path_is_split_behind_its_mount() {
        assert_eq!(split("secret/app/db", "secret/"), Some(("secret", "app/db")));
        assert_eq!(split("team/kv/app/db", "team/kv/"), Some(("team/kv", "app/db")));
        // The namespace of the token, which the path does not repeat.
        assert_eq!(split("kv/app", "team/kv/"), Some(("kv", "app")));
        assert_eq!(split("secrets/app", "secret/"), None);
        assert_eq!(split("secret", "secret/"), None);
    }

    #[test]
    fn a_wrong_key_is_told_with_at_most_ten_names() {
        let fields = (0..12).map(|n| (format!("k{n:02}"), Value::from("s3cret-value"))).collect();
        let secret = KvSecret { fields, version: Some(1) };
        let told = secret.value(&path("k")).unwrap_err().to_string();
        assert!(told.contains("`k00`") && told.contains("`k09` and 2 more") && !told.contains("k10"), "{told}");
        assert!(!told.contains("s3cret"), "{told}");
        let nothing = KvSecret { fields: Map::new(), version: None };
        let told = nothing.value(&path("k")).unwrap_err().to_string();
        assert_eq!(told, "secret/db has no key `k`: it has no keys");
    }

    #[test]
    fn a_value_is_never_empty_and_other_types_are_their_json() {
        let fields =
            serde_json::json!({ "n": 5432, "on": true, "t": { "a": [1] }, "none": null, "empty": "", "s": "x" });
        let Value::Object(fields) = fields else { unreachable!() };
        let secret = KvSecret { fields, version: None };
        let value = |key: &str| secret.value(&path(key));
        for (key, wanted) in [("n", "5432"), ("on", "true"), ("t", r#"{"a":[1]}"#), ("s", "x")] {
            assert_eq!(value(key).unwrap(), wanted);
        }
        let text = r#"{ "rate": 1.10, "ids": [1, { "id": 123456789012345678901234567890 }] }"#;
        let secret = KvSecret { fields: serde_json::from_str(text).unwrap(), version: None };
        for key in ["rate", "ids"] {
            let fault = secret.value(&path(key)).unwrap_err();
            assert!(
                fault.to_string().contains(&format!("number in the key `{key}` of secret/db would change")),
                "{fault}"
            );
        }
        let secret =
            KvSecret { fields: serde_json::from_str(r#"{ "none": null, "empty": "" }"#).unwrap(), version: None };
        let value = |key: &str| secret.value(&path(key));
        for key in ["none", "empty"] {
            let fault = value(key).unwrap_err();
            assert_eq!(fault.to_string(), format!("the key `{key}` of secret/db is empty"));
            assert_eq!(fault.advice(), Some(&*format!("write a value: vault kv patch secret/db {key}=-")));
        }
    }
}
