//! The owner, group and mode of the kinds `directory` and `file`.

use std::{fmt, sync::LazyLock};

use anyhow::{Result, ensure};
use nix::unistd::geteuid;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Fact, Mode, System};
use crate::{
    error::Fault,
    host::root::{FileStatus, Ownership, way::Owner},
    value::AbsPath,
};

/// The name of a user or group: a lower-case letter or `_`, then lower-case letters, digits, `_` and `-`; at most 32
/// characters. `useradd` also accepts `ümlaut` and `123`, but other tools read `123` as a uid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(extend("pattern" = "^[a-z_][a-z0-9_-]{0,31}$"))]
pub struct AccountName(String);

impl AccountName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AccountName {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let rest = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte));
        ensure!(
            first && rest && name.len() <= 32,
            "`{}` is not the name of an account: use a lower-case letter or `_`, then letters, digits, `_` and `-`; at most 32",
            name.escape_debug()
        );
        Ok(Self(name))
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The owner or group of a path: the name of an account, or its number, such as `1500`. A number needs no account. It is a
/// string, as a mode is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(extend("pattern" = "^([a-z_][a-z0-9_-]{0,31}|0|[1-9][0-9]{0,9})$"))]
pub struct NameOrNumber(String);

impl NameOrNumber {
    /// Returns the name or number as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn id(&self) -> Option<u32> {
        self.0.parse().ok()
    }
}

impl TryFrom<String> for NameOrNumber {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return AccountName::try_from(text).map(|name| Self(name.0));
        }
        // chown(2) does not change the owner for the highest value.
        let is_id = text.parse().is_ok_and(|id: u32| id != u32::MAX && id.to_string() == text);
        ensure!(is_id, "`{text}` is not the number of an account: use 0 to {}, without leading zeros", u32::MAX - 1);
        Ok(Self(text))
    }
}

impl From<&AccountName> for NameOrNumber {
    fn from(name: &AccountName) -> Self {
        Self(name.0.clone())
    }
}

/// Returns the user that runs this program. It is asked once, because a plan needs it for each resource.
fn caller() -> u32 {
    static CALLER: LazyLock<u32> = LazyLock::new(|| geteuid().as_raw());
    *CALLER
}

/// Returns the declared owner; root if none is declared.
pub fn owner(system: &System, owner: Option<&NameOrNumber>) -> Result<Owner> {
    let Some(name) = owner else {
        // Only root runs the steps on a machine, but each user may plan them.
        let is_plan_of_machine = system.mode() == Mode::Plan && system.root().is_host();
        return Ok(Owner::Id(if is_plan_of_machine { 0 } else { caller() }));
    };
    if let Some(uid) = name.id() {
        return Ok(Owner::Id(uid));
    }
    let accounts = system.host.accounts()?;
    Ok(accounts.user(name.as_str()).map_or_else(|| Owner::Name(name.0.clone()), |user| Owner::Id(user.uid)))
}

/// Numeric ids of the declared owner and group; `None` in a plan whose earlier changes create the account.
pub type Ids = Option<(u32, u32)>;

/// Looks up the owner and the group.
///
/// The default owner is root; in an image's tree, the user that runs this program. The default group is the owner's
/// primary group.
pub fn ids(system: &System, name: Option<&NameOrNumber>, group: Option<&NameOrNumber>) -> Result<Ids> {
    ids_of(system, &owner(system, name)?, group)
}

/// Looks up the group, for an owner that is known.
pub fn ids_of(system: &System, owner: &Owner, group: Option<&NameOrNumber>) -> Result<Ids> {
    let accounts = system.host.accounts()?;
    let owner = match owner {
        Owner::Id(uid) => Some((*uid, accounts.user_by_id(*uid).map_or(*uid, |user| user.gid))),
        Owner::Name(name) if system.expects(&Fact::User(name.clone())) || system.expects(&Fact::Packages) => None,
        Owner::Name(name) => return Err(missing("user", name)),
    };
    let group = match group {
        None => owner.map(|(_, gid)| gid),
        Some(name) => match accounts.group(name.as_str()) {
            _ if name.id().is_some() => name.id(),
            Some(group) => Some(group.gid),
            None if system.expects(&Fact::Group(name.0.clone())) || system.expects(&Fact::Packages) => None,
            None => return Err(missing("group", name.as_str())),
        },
    };
    Ok(owner.zip(group).map(|((uid, _), gid)| (uid, gid)))
}

fn missing(what: &str, name: &str) -> anyhow::Error {
    Fault::new(format!("the {what} {name} does not exist"))
        .hint(format!("declare a `{what}` resource for it in an earlier step, and run that step first"))
        .into()
}

/// Returns an owner in words: `glovo-app:glovo-app`.
pub fn words(system: &System, uid: u32, gid: u32) -> Result<String> {
    let accounts = system.host.accounts()?;
    let user = accounts.user_by_id(uid).map_or_else(|| uid.to_string(), |user| user.name.clone());
    let group = accounts.group_by_id(gid).map_or_else(|| gid.to_string(), |group| group.name.clone());
    Ok(format!("{user}:{group}"))
}

/// Returns the differences between the present and the declared ownership: `owner app:app (now root:root)`.
pub fn differences(system: &System, now: Ownership, ids: Ids, mode: Option<u32>) -> Result<Vec<String>> {
    let mut differences = vec![];
    match ids {
        None => differences.push("the owner that an earlier change makes".into()),
        Some((uid, gid)) if (uid, gid) != (now.uid, now.gid) => {
            let (wanted, is) = (words(system, uid, gid)?, words(system, now.uid, now.gid)?);
            differences.push(format!("owner {wanted} (now {is})"));
        }
        Some(_) => {}
    }
    if let Some(mode) = mode.filter(|mode| *mode != now.mode) {
        differences.push(format!("mode {mode:04o} (now {:04o})", now.mode));
    }
    Ok(differences)
}

/// Returns the [`differences`] of a file or directory, and that of its SELinux label.
pub fn attributes(
    system: &System,
    path: &AbsPath,
    status: &FileStatus,
    ids: Ids,
    mode: Option<u32>,
) -> Result<Vec<String>> {
    let mut found = differences(system, status.ownership, ids, mode)?;
    found.extend(system.root().label_difference(path, status.file_type)?);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_an_account_is_plain() {
        for (good, id) in [("0", Some(0)), ("1500", Some(1500)), ("4294967294", Some(u32::MAX - 1)), ("app", None)] {
            assert_eq!(NameOrNumber::try_from(good.to_owned()).unwrap().id(), id, "{good}");
        }
        for bad in ["", "01", "4294967295", "99999999999", "-1", "+1", "1a", "1 ", "١"] {
            assert!(NameOrNumber::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn account_names_are_strict() {
        for good in ["glovo-app", "_apt", "a1", "www-data"] {
            assert!(AccountName::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "123", "ümlaut", "-a", "a b", "a\nb", "a:b", "Root", &"a".repeat(33)] {
            assert!(AccountName::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
