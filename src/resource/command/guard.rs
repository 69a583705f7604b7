//! The guard of a command: a path that exists, or a program that only reads.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::unistd::geteuid;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{GuardedCommand, of_program, shown, surroundings::Surroundings};
use crate::{
    error::Fault,
    host::{
        command::{describe, with_tail},
        root::way::Owner,
    },
    resource::Finding,
    system::{Fact, System},
    value::{AbsPath, Argv, quoted},
};

/// Limits the time of a guard: it only looks.
const GUARD_TIMEOUT: Duration = Duration::from_mins(1);
/// The exit code of a guard that does not hold.
const DOES_NOT_HOLD: i32 = 1;
/// The text of EROFS in the C library's messages; Go, Node and others write it in lower case.
const READ_ONLY: &str = "read-only file system";
/// The directories that are empty for a guard.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// When a command must not run.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Guard {
    /// A path that must exist: a file, a directory, or a link to one.
    exists: Option<AbsPath>,
    /// A program that must exit with 0.
    argv: Option<Argv>,
    /// A text that the program's standard output must contain.
    stdout: Option<String>,
}

/// The result of a guard.
#[derive(Debug)]
pub(super) enum GuardState {
    /// The command must not run.
    Holds,
    /// It must run.
    Fails {
        /// The reason, as a part of a sentence.
        why: String,
        /// The last lines of the guard's output.
        tail: String,
    },
}

impl GuardState {
    fn fails(why: impl Into<String>) -> Self {
        Self::Fails { why: why.into(), tail: String::new() }
    }
}

impl Guard {
    /// Returns the faults of its declaration.
    pub(super) fn check(&self, cwd: Option<&AbsPath>) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self.argv.iter().filter_map(|argv| of_program("unless", argv)).collect();
        let mut fault = |message: &str, hint: &str| findings.push(Finding::new("unless", message).hint(hint));
        if self.exists.is_some() == self.argv.is_some() {
            fault(
                "a guard has either `exists` or `argv`",
                "unless = { exists = \"/path\" }, or { argv = [\"program\"] }",
            );
        }
        if self.stdout.is_some() && self.argv.is_none() {
            fault("`stdout` needs `argv`", "name the program that prints it: argv = [\"program\", \"--version\"]");
        }
        if self.stdout.as_deref() == Some("") {
            fault("every output contains the empty `stdout`", "leave it out, or name a text");
        }
        let is_hidden =
            |path: &str| TEMPORARY.iter().any(|hidden| format!("{path}/").starts_with(&format!("{hidden}/")));
        if let Some(argv) = &self.argv {
            if is_hidden(&argv.0[0]) {
                fault("/tmp and /var/tmp are empty for a guard", "put the program into another directory");
            }
            if let Some(cwd) = cwd.filter(|cwd| is_hidden(cwd.as_str())) {
                let message = format!("`cwd` is {cwd}, but /tmp and /var/tmp are empty for a guard");
                fault(&message, "name another directory");
            }
        }
        findings
    }

    /// Checks the machine.
    ///
    /// # Errors
    /// If the machine does not tell whether the guard holds.
    pub(super) fn check_now(&self, system: &System, command: &GuardedCommand) -> Result<GuardState> {
        match (&self.exists, &self.argv) {
            (Some(path), _) => {
                let accounts = system.host.accounts()?;
                let user = command.user.as_ref().and_then(|name| accounts.user(name.as_str()));
                // In a plan, the path is as the earlier changes leave it.
                let is_removed = system.is_removed(path);
                let is_there = system.expects(&Fact::Path(path.clone()))
                    || (!is_removed && exists(system, path, user.map(|user| user.uid))?);
                Ok(if is_there { GuardState::Holds } else { GuardState::fails(format!("{path} does not exist")) })
            }
            (None, Some(argv)) => match Surroundings::of(command, system)? {
                Some(surroundings) => self.ask(system, argv, &surroundings),
                None => Ok(GuardState::fails("its user or its directory does not exist yet")),
            },
            (None, None) => Ok(GuardState::fails("it has no guard")),
        }
    }

    /// Runs the program.
    fn ask(&self, system: &System, argv: &Argv, surroundings: &Surroundings) -> Result<GuardState> {
        _ = system.check_executable(&argv.0[0])?;
        if !system.host.has_program(&argv.0[0]) {
            return Ok(GuardState::fails(format!("the program {} is not installed", quoted(&argv.0[0]))));
        }
        system.host.check_program_owners(&argv.0[0], surroundings.ids().0)?;
        if !geteuid().is_root() {
            let fault = Fault::new(format!("only root can start the guard {}", shown(argv)));
            return Err(fault.hint("run it as root: sudo glovo-bootstrap plan").into());
        }
        let program = surroundings.program(argv, true);
        let began = Instant::now();
        let what = format!("the guard {}", shown(argv));
        let asked = system.host.stop.deadlines.within(Some(GUARD_TIMEOUT), &what, || system.host.run(&program));
        let finished = asked.map_err(|error| {
            if began.elapsed() < GUARD_TIMEOUT {
                return error.context(what.clone());
            }
            let fault = Fault::new(format!("{what} did not end")).caused_by(error);
            fault.hint("let it end within a minute, or check a path: unless = { exists = \"/path\" }").into()
        })?;
        let status = describe(finished.status);
        match finished.status.code() {
            Some(0) => Ok(match &self.stdout {
                Some(text) if !finished.stdout.contains(text) => {
                    GuardState::Fails { why: format!("{} does not print {:?}", shown(argv), text), tail: finished.tail }
                }
                _ => GuardState::Holds,
            }),
            Some(DOES_NOT_HOLD) if !finished.tail.to_lowercase().contains(READ_ONLY) => {
                Ok(GuardState::Fails { why: format!("{} ends with {status}", shown(argv)), tail: finished.tail })
            }
            Some(DOES_NOT_HOLD) => {
                let message = with_tail(format!("{what} tried to write, but a guard can only read"), &finished.tail);
                Err(Fault::new(message).hint("name a program that only looks; turn off its caches and logs").into())
            }
            _ => {
                let message = with_tail(
                    format!("{what} ended with {status}; 0 means that it holds, 1 that it does not"),
                    &finished.tail,
                );
                Err(Fault::new(message).hint("fix the guard, which its output explains, or its `argv`").into())
            }
        }
    }
}

/// Returns whether a path exists.
///
/// # Errors
/// If a link leads into a directory that another user may write to. That user would decide about the command.
fn exists(system: &System, path: &AbsPath, user: Option<u32>) -> Result<bool> {
    let root = system.root();
    let is_trusted = |uid: u32| uid == 0 || uid == geteuid().as_raw() || Some(uid) == user;
    let owner = |path: &AbsPath| Ok::<_, anyhow::Error>(root.status(path)?.map(|status| status.ownership.uid));
    let found = root.follow(path, |link| match owner(link)? {
        Some(uid) if !is_trusted(uid) => Err(not_followed(path, link, None)),
        _ => Ok(()),
    })?;
    let file_owner = owner(&found)?;
    let directory = found.parent().unwrap_or_else(|| AbsPath::from("/"));
    if found == *path && !has_link(system, &directory)? {
        return Ok(file_owner.is_some());
    }
    let way = root.survey(&directory, &|_| None).map_err(|error| not_followed(path, &found, Some(error)))?.way;
    let is_of_another = match way.user() {
        Some(Owner::Id(uid)) => !is_trusted(*uid),
        Some(Owner::Name(_)) => true,
        None => false,
    };
    if is_of_another || file_owner.is_some_and(|uid| !is_trusted(uid)) {
        return Err(not_followed(path, &found, None));
    }
    Ok(file_owner.is_some())
}

/// Returns whether a directory or one above it is a link.
fn has_link(system: &System, directory: &AbsPath) -> Result<bool> {
    for path in directory.ancestors().chain([directory.as_str()]) {
        if system.root().read_link(&path.parse()?)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn not_followed(path: &AbsPath, target: &AbsPath, cause: Option<anyhow::Error>) -> anyhow::Error {
    let fault = Fault::new(format!("{path} leads to {target}, where another user may write"));
    let fault = fault.hint(format!("name the path itself: unless = {{ exists = \"{target}\" }}"));
    match cause {
        Some(cause) => fault.caused_by(cause).into(),
        None => fault.into(),
    }
}
