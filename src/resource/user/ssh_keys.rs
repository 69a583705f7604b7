//! The keys with which a user logs in.

use std::collections::BTreeSet;

use anyhow::Result;

use super::User;
use crate::{
    error::Fault,
    host::{
        authorized_keys::{MergedKeys, SshKey, merge},
        root::{FileType, way::Owner},
    },
    resource::{Change, Resource, directory::Directory, file::File},
    system::{Fact, System, places::Claim},
    value::{AbsPath, FileMode, quoted},
};

/// Limits the size of the file. A line has about 600 bytes.
const MAX_BYTES: u64 = 4 << 20;

impl User {
    /// Returns a key that is declared twice.
    pub(super) fn key_declared_twice(&self) -> Option<&SshKey> {
        let mut seen = BTreeSet::new();
        self.ssh_keys.iter().flatten().find(|key| key.blob().is_some_and(|blob| !seen.insert(blob)))
    }

    /// Returns the change that gives the keys to a user that an earlier change of this resource makes.
    pub(super) fn plan_keys_of_new(&self, system: &System, home: &AbsPath) -> Result<Option<Change>> {
        let Some(keys) = &self.ssh_keys else { return Ok(None) };
        let (directory, path) = (home.join(".ssh")?, home.join(".ssh/authorized_keys")?);
        if keys.is_empty() && system.root().status(&directory)?.is_none() {
            return Ok(None);
        }
        let status = system.root().status(&system.root().resolve(home)?)?;
        let is_there = status.is_some() || system.expects(&Fact::Path(home.clone()));
        if status.is_some_and(|status| status.file_type != FileType::Directory) || (!self.has_home() && !is_there) {
            return Err(self.homeless(home));
        }
        // useradd leaves an existing directory to its owner.
        let others = status.map(|status| status.ownership.uid).filter(|uid| *uid != 0 && Some(*uid) != self.uid);
        if let Some(uid) = others.filter(|_| !system.expects(&Fact::Path(home.clone()))) {
            let fault =
                Fault::new(format!("user {} would not own its home directory: {home} belongs to uid {uid}", self.name));
            let away = quoted(home.as_str());
            return Err(fault
                .hint(format!("declare `uid = {uid}` for this user, or move the directory away: mv {away} {away}.old"))
                .into());
        }
        if is_there {
            let owner = self.uid.map_or_else(|| Owner::Name(self.name.to_string()), Owner::Id);
            drop(system.check_place(Claim {
                path: &directory,
                owner: Some(&owner),
                gid: None,
                makes_parents: false,
            })?);
            system.check_may_change(&directory, &[Fact::Path(directory.clone())])?;
        }
        let (_, merged) = self.merged(system, &path, keys)?;
        let words = match &merged.differences[..] {
            [] => "give them to the user".to_owned(),
            differences => differences.join(", "),
        };
        let (user, home) = (self.clone(), home.clone());
        Ok(Some(Change::new(format!("{path}: {words}"), move |system| user.write_keys(system, &home))))
    }

    /// Returns the changes of the keys of an existing user.
    pub(super) fn plan_keys(&self, system: &System, home: &AbsPath) -> Result<Vec<Change>> {
        let Some(keys) = &self.ssh_keys else { return Ok(vec![]) };
        let (directory, path) = (home.join(".ssh")?, home.join(".ssh/authorized_keys")?);
        if keys.is_empty() && system.root().status(&directory)?.is_none() {
            return Ok(vec![]);
        }
        let is_home = system.root().status(&system.root().resolve(home)?)?;
        if is_home.is_none_or(|status| status.file_type != FileType::Directory)
            && !system.expects(&Fact::Path(home.clone()))
        {
            return Err(self.homeless(home));
        }
        let mut changes = Directory::private(directory.clone(), &self.name).plan(system)?;
        for change in &mut changes {
            change.summary = format!("{directory}: {}", change.summary);
        }
        let (now, merged) = self.merged(system, &path, keys)?;
        if now.is_none() && merged.differences.is_empty() {
            return Ok(changes);
        }
        let summary = merged.differences.join(", ");
        if system.root().status(&directory)?.is_none() {
            system.check_may_change(&directory, &[Fact::Path(directory.clone())])?;
            let (user, home) = (self.clone(), home.clone());
            let made = changes.into_iter().flat_map(|change| change.brings);
            let change = Change::new(format!("{path}: {summary}"), move |system| user.write_keys(system, &home));
            return Ok(vec![change.brings(made).brings([Fact::Path(path)])]);
        }
        let content = now.filter(|_| merged.differences.is_empty()).unwrap_or(merged.content);
        // The directory gets its mode before the file.
        let is_private = changes.is_empty();
        for mut change in File::of_user(path.clone(), content, &self.name, FileMode(0o600)).plan(system)? {
            if is_private {
                system.check_may_change(&path, &change.brings)?;
            }
            change.summary = match summary.as_str() {
                "" => format!("{path}: {}", change.summary),
                _ => format!("{path}: {summary}"),
            };
            changes.push(change);
        }
        Ok(changes)
    }

    /// Returns the content of the file of keys, if it exists, and the new content.
    fn merged(&self, system: &System, path: &AbsPath, keys: &[SshKey]) -> Result<(Option<Vec<u8>>, MergedKeys)> {
        let now = match system.root().status(path)? {
            Some(status) if status.file_type == FileType::Link => {
                return Err(Fault::new(format!("{path} is a symbolic link"))
                    .hint(format!("look at its target, then remove the link: rm {}", quoted(path.as_str())))
                    .into());
            }
            Some(_) => system.root().read(path, MAX_BYTES)?,
            None => None,
        };
        if self.exclusive_ssh_keys {
            check_second_file(system, path)?;
        }
        let merged = merge(now.as_deref().unwrap_or_default(), keys, self.exclusive_ssh_keys)?;
        Ok((now, merged))
    }

    /// Makes `.ssh` and writes the keys.
    fn write_keys(&self, system: &System, home: &AbsPath) -> Result<()> {
        for change in Directory::private(home.join(".ssh")?, &self.name).plan(system)? {
            change.action.map_or(Ok(()), |make| make(system))?;
        }
        system.forget();
        for change in self.plan_keys(system, home)? {
            change.action.map_or(Ok(()), |make| make(system))?;
        }
        Ok(())
    }

    fn homeless(&self, home: &AbsPath) -> anyhow::Error {
        Fault::new(format!("user {} has no home directory for its SSH keys: {home} does not exist", self.name))
            .hint(format!(
                "declare it before the user, with `uid` of the user as its owner: kind = \"directory\", path = \"{home}\", \
                 owner = \"{}\"",
                self.uid.map_or_else(|| "UID".to_owned(), |uid| uid.to_string())
            ))
            .into()
    }
}

/// Fails if `authorized_keys2` holds something. Unless sshd's configuration says otherwise, it accepts those keys, too:
/// `sshd_config(5)`, `AuthorizedKeysFile`.
fn check_second_file(system: &System, first: &AbsPath) -> Result<()> {
    let second: AbsPath = format!("{first}2").parse()?;
    match system.root().status(&second)? {
        Some(status) if status.size > 0 && !system.is_removed(&second) => {
            Err(Fault::new(format!("the keys are not exclusive: sshd accepts the keys in {second}, too"))
                .hint(format!("declare kind = \"absent\" with path = \"{second}\" in an earlier step"))
                .into())
        }
        _ => Ok(()),
    }
}
