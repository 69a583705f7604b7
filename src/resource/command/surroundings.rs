//! The environment of a command and of its guard: user, directory, variables and umask.

use anyhow::Result;

use super::{GuardedCommand, program};
use crate::{
    error::Fault,
    host::{
        command::Program,
        launch::Launch,
        root::{FileType, identity::UserIdentity},
    },
    resource::ownership,
    system::{Fact, System},
    value::{AbsPath, Argv},
};

/// The umask of a command that declares none.
const UMASK: u32 = 0o022;

/// What a command and its guard are started with.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    launch: Launch,
    user: Option<UserIdentity>,
    variables: Vec<(String, String)>,
}

impl Surroundings {
    /// Returns a command's environment; `None` if an earlier planned change makes its user or its directory.
    ///
    /// # Errors
    /// If neither the machine nor an earlier change has them.
    pub(super) fn of(command: &GuardedCommand, system: &System) -> Result<Option<Self>> {
        let cwd = command.cwd.clone().unwrap_or_else(|| "/".into());
        let mut variables = vec![];
        let mut user = None;
        if let Some(name) = &command.user {
            let Some((uid, _)) = ownership::ids(system, Some(&name.into()), None)? else { return Ok(None) };
            let accounts = system.host.accounts()?;
            let home = accounts.user(name.as_str()).map_or_else(|| "/".into(), |account| account.home.clone());
            user = Some(UserIdentity::of(uid, &accounts));
            for (variable, value) in [("HOME", home.as_str()), ("USER", name.as_str()), ("LOGNAME", name.as_str())] {
                variables.push((variable.to_owned(), value.to_owned()));
            }
        }
        if !is_directory(system, &cwd)? {
            if system.expects(&Fact::Path(cwd.clone())) || system.expects(&Fact::Packages) {
                return Ok(None);
            }
            let hint = format!("declare it: kind = \"directory\", path = \"{cwd}\"");
            return Err(Fault::new(format!("the directory {cwd} of `cwd` does not exist")).hint(hint).into());
        }
        variables.extend(command.environment.iter().map(|(name, value)| (name.clone(), value.clone())));
        let umask = command.umask.map_or(UMASK, |umask| umask.0);
        Ok(Some(Self { launch: Launch::new(cwd.as_str(), umask, user.as_ref()), user, variables }))
    }

    /// Returns a program that is started with it. A guard sees read-only file systems.
    pub(super) fn program(&self, argv: &Argv, is_guard: bool) -> Program {
        let launch = if is_guard { self.launch.clone().read_only() } else { self.launch.clone() };
        let variables = self.variables.iter();
        variables.fold(program(argv).launched(launch), |program, (name, value)| program.env(name.clone(), value))
    }

    /// Returns the numeric ids of its user.
    pub(super) fn ids(&self) -> (u32, u32) {
        self.user.as_ref().map_or((0, 0), |user| (user.uid, user.gid))
    }
}

fn is_directory(system: &System, path: &AbsPath) -> Result<bool> {
    let status = system.root().status(&system.root().resolve(path)?)?;
    Ok(status.is_some_and(|status| status.file_type == FileType::Directory))
}
