//! The kind `command`.

mod guard;
mod surroundings;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use schemars::JsonSchema;
use serde::Deserialize;

use self::{
    guard::{Guard, GuardState},
    surroundings::Surroundings,
};
use super::{Change, Finding, Kind, Resource, ownership::AccountName};
use crate::{
    error::Fault,
    host::{
        command::{Finished, Program, describe, with_tail},
        launch::NotStarted,
        root::Ownership,
    },
    system::{
        Fact, Phase, System,
        command_record::{self, CommandRecord, Unfinished},
    },
    value::{AbsPath, Argv, FileMode, quoted},
};

/// Limits the characters of a command line in a sentence of a plan.
const MAX_SHOWN_CHARS: usize = 160;
/// The exit codes from here on mean that a program could not be started, as of chroot(1) and env(1).
const FIRST_RESERVED_EXIT_CODE: u8 = 125;
/// The shells whose `-c` holds a script.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "zsh", "ksh", "busybox"];

/// A program that a run starts, the way out if no other kind fits. It needs a guard: `unless` says when it must not run,
/// `run_on` names the files whose changes run it again. After it has succeeded, the guard is checked again: if `unless` still
/// does not hold, the run fails. A program that was cut off or has failed is run again, also if its guard holds, so it must
/// be able to continue its own work. No shell reads its arguments. `["/bin/sh", "-euc", "…"]` starts one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardedCommand {
    /// Its name, such as `aws-cli`. No other command has it.
    name: CommandName,
    /// The program and its arguments: an absolute path, or a name in /usr/local/sbin, /usr/local/bin, /usr/sbin, /usr/bin,
    /// /sbin or /bin. No user other than root and `user` may be able to replace the program. No secret may be in them, because
    /// every user can read them in the process list.
    argv: Argv,
    /// When it must not run: `{ exists = "/path" }`, if a path exists; `{ argv = ["aws", "--version"] }`, if a program exits
    /// with 0; with `stdout = "2.15"` its standard output must contain this text too. `plan` starts this program too. So it
    /// can only read: file systems are read-only for it, and /tmp is empty. Exit code 1 and a missing program mean that the
    /// guard does not hold. Another exit code is an error. A link of another user is not followed.
    unless: Option<Guard>,
    /// Files whose bytes must be those of its last good run, such as `["/etc/app.conf"]`, or directories of an `archive`. Without `unless`, this is only a
    /// record of that run: use it for reactions such as `update-ca-certificates`, which may run once too often.
    #[serde(default)]
    run_on: Vec<AbsPath>,
    /// The exit codes of success, from 0 to 124. Default: `[0]`.
    #[serde(default = "zero")]
    ok: Vec<u8>,
    /// The user whose rights it has, with the user's groups; also its guard. Default: root.
    user: Option<AccountName>,
    /// Its working directory, also of its guard. Default: /.
    cwd: Option<AbsPath>,
    /// Environment variables, such as `{ NODE_ENV = "production" }`, also of its guard. `PATH`, `HOME`, `USER`, `LOGNAME` and
    /// `LC_ALL` are set; others are not inherited. No secret may be in them.
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// Secrets, each with a name: `{ token = "{{ token }}" }`. They are files in the directory `$CREDENTIALS_DIRECTORY`, which
    /// only its user can read, and are removed after it has ended. In an image, the command is left to the boot.
    #[serde(default)]
    credentials: BTreeMap<String, String>,
    /// Its standard input, such as `"{{ password }}\n"`. Default: empty.
    stdin: Option<String>,
    /// Its umask, also of its guard. Default: 0022.
    umask: Option<FileMode>,
}

fn zero() -> Vec<u8> {
    vec![0]
}

/// The name of a command.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(extend("pattern" = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
struct CommandName(String);

impl TryFrom<String> for CommandName {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        let shown = name.escape_debug();
        ensure!(
            is_plain_name(&name),
            "`{shown}` is not the name of a command: use letters, digits, `.`, `_` and `-`; at most 64"
        );
        Ok(Self(name))
    }
}

fn is_plain_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.bytes().all(is_plain)
}

impl Kind for GuardedCommand {
    const NAME: &'static str = "command";
    const EXAMPLE: &'static str = r#"kind = "command"
name = "aws-cli"
argv = ["/opt/awscli/aws/install", "--update"]
unless = { argv = ["/usr/local/bin/aws", "--version"], stdout = "aws-cli/2.15" }
run_on = ["/opt/awscli/aws/dist/aws"]"#;
}

impl Resource for GuardedCommand {
    fn title(&self) -> String {
        self.name.0.clone()
    }

    fn owned_things(&self) -> Vec<(&'static str, String)> {
        vec![("name", format!("{} {}", Self::NAME, self.name.0))]
    }

    fn can_wait_for_secret(&self, system: &System) -> Result<bool> {
        Ok(self.reason(system)?.is_none())
    }

    fn secret_fields(&self) -> &'static [&'static str] {
        &["credentials", "stdin"]
    }

    fn public_fields(&self) -> &'static [&'static str] {
        &["argv", "environment", "unless"]
    }

    fn files(&self) -> Vec<AbsPath> {
        self.run_on.clone()
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = vec![];
        if self.unless.is_none() && self.run_on.is_empty() {
            let hint = "say when it must not run: unless = { exists = \"/path\" } or unless = { argv = [\"program\"] }; or name \
                        the files whose changes run it: run_on = [\"/path\"]";
            findings.push(Finding::new("argv", "a command needs `unless` or `run_on`").hint(hint));
        }
        findings.extend(of_program("argv", &self.argv));
        findings.extend(self.unless.iter().flat_map(|guard| guard.check(self.cwd.as_ref())));
        if self.ok.is_empty() || self.ok.iter().any(|code| *code >= FIRST_RESERVED_EXIT_CODE) {
            let finding = Finding::new("ok", "`ok` is a list of exit codes from 0 to 124");
            findings.push(finding.hint("leave it out if only 0 is success"));
        }
        let is_variable = |name: &str| {
            !name.starts_with(|c: char| c.is_ascii_digit())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        for name in self.environment.keys().filter(|name| name.is_empty() || !is_variable(name)) {
            let message = format!("`{}` is not the name of an environment variable", name.escape_debug());
            findings.push(Finding::new("environment", message).hint("use letters, digits and `_`"));
        }
        for name in self.credentials.keys().filter(|name| !is_plain_name(name)) {
            let message = format!("`{}` is not the name of a credential", name.escape_debug());
            findings
                .push(Finding::new("credentials", message).hint("use letters, digits, `.`, `_` and `-`; at most 64"));
        }
        if self.umask.is_some_and(|umask| umask.0 > 0o777) {
            findings.push(Finding::new("umask", "a umask is at most 0777"));
        }
        findings
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        self.check_files(system)?;
        let Some(why) = self.reason(system)? else { return Ok(vec![]) };
        if !self.credentials.is_empty() && system.phase() == Phase::Bake {
            return Ok(vec![Change::deferred("run at boot (deferred: a secret does not go into an image)")]);
        }
        let surroundings = Surroundings::of(self, system)?;
        match (surroundings, &self.user) {
            (Some(surroundings), _) => system.check_program(&self.argv.0[0], surroundings.ids().0)?,
            (None, None) => system.check_program(&self.argv.0[0], 0)?,
            // The id of its user is not known yet.
            (None, Some(_)) => system.check_program_exists(&self.argv.0[0])?,
        }
        let command = self.clone();
        let what = if is_script(&self.argv) { "the shell script " } else { "" };
        let summary = format!("run {what}{}, because {why}", shown(&self.argv));
        // As with packages, later resources cannot know what it will make.
        Ok(vec![Change::new(summary, move |system| command.execute(system)).brings([Fact::Packages])])
    }
}

impl GuardedCommand {
    /// Fails if a path of `run_on` is a directory of no archive. Warns if it does not exist, because it may be mistyped.
    fn check_files(&self, system: &System) -> Result<()> {
        for path in &self.run_on {
            let status = system.root().status(&system.root().resolve(path)?)?;
            match status {
                Some(_) if system.is_plain_directory(path)? => {
                    let fault = Fault::new(format!("`run_on` names {path}, which is a directory"));
                    return Err(fault.hint("list the files in it").into());
                }
                None if !system.may_come(path) => {
                    system
                        .warn(format!("`run_on` names {path}, which does not exist and no earlier resource declares"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Returns why it must run; `None` if it must not.
    fn reason(&self, system: &System) -> Result<Option<String>> {
        let record = CommandRecord::load(system, &self.name.0);
        match record.unfinished {
            Some(Unfinished::CutOff) => return Ok(Some("its last run was cut off".into())),
            Some(Unfinished::Failed(how)) => return Ok(Some(format!("its last run failed with {how}"))),
            None => {}
        }
        if let Some(changed) = command_record::changed(system, &self.run_on, record.inputs.as_ref())? {
            return Ok(Some(changed));
        }
        match &self.unless {
            None => Ok(None),
            Some(guard) => match guard.check_now(system, self)? {
                GuardState::Holds => Ok(None),
                GuardState::Fails { why, .. } => Ok(Some(why)),
            },
        }
    }

    /// Starts it, and checks the guard afterwards.
    fn execute(&self, system: &System) -> Result<()> {
        let inputs = command_record::inputs(system, &self.run_on)?;
        let surroundings = Surroundings::of(self, system)?.context("its user or its directory does not exist")?;
        system.host.check_program_owners(&self.argv.0[0], surroundings.ids().0)?;
        let credentials = self.write_credentials(system, &surroundings)?;
        let mut program = surroundings.program(&self.argv, false).stdin(self.stdin.clone()).reporting();
        if let Some(directory) = &credentials {
            program = program.env("CREDENTIALS_DIRECTORY", directory.as_str());
        }
        let mut record = CommandRecord::load(system, &self.name.0);
        let before = record.unfinished.replace(Unfinished::CutOff);
        let finished = record.save(system, &self.name.0).and_then(|()| system.host.run(&program));
        if let Some(directory) = &credentials {
            _ = system.root().purge(directory)?;
        }
        if finished.as_ref().is_err_and(anyhow::Error::is::<NotStarted>) {
            record.unfinished = before;
            record.save(system, &self.name.0)?;
        }
        let finished = finished?;
        if !self.is_good(&finished) {
            record.unfinished = Some(Unfinished::Failed(describe(finished.status)));
            record.save(system, &self.name.0)?;
            return Err(self.failed(system, &finished));
        }
        record.unfinished = None;
        record.inputs = (!self.run_on.is_empty()).then_some(inputs);
        record.save(system, &self.name.0)?;
        if finished.has_left_processes {
            system.warn(
                "it has left processes running; they end with the unit of this run: declare a daemon as a `service`"
                    .into(),
            );
        }
        system.forget();
        self.confirm(system)
    }

    /// Fails if the guard does not hold after a good run.
    fn confirm(&self, system: &System) -> Result<()> {
        let Some(guard) = &self.unless else { return Ok(()) };
        let GuardState::Fails { why, tail } = guard.check_now(system, self)? else { return Ok(()) };
        let message = with_tail(format!("did not converge: the command succeeded, but {why}"), &tail);
        let hint = "correct `unless`, so that it describes what the command makes, or correct the command";
        Err(Fault::new(message).hint(hint).into())
    }

    fn is_good(&self, finished: &Finished) -> bool {
        finished.status.code().is_some_and(|code| self.ok.iter().any(|ok| i32::from(*ok) == code))
    }

    fn failed(&self, system: &System, finished: &Finished) -> anyhow::Error {
        let message = format!("{} failed with {}", shown(&self.argv), describe(finished.status));
        let hint = format!("fix the cause, which its output shows; then run again: {}", system.host.run_command());
        Fault::new(with_tail(message, &finished.tail)).hint(hint).into()
    }

    /// Writes its credentials into a directory that only its user can read; returns the directory.
    fn write_credentials(&self, system: &System, surroundings: &Surroundings) -> Result<Option<AbsPath>> {
        if self.credentials.is_empty() {
            return Ok(None);
        }
        let directory = system.host.command_memory()?.join(&command_record::stem(&self.name.0))?;
        let (uid, gid) = surroundings.ids();
        let root = system.root();
        _ = root.purge(&directory)?;
        root.make_directory(&directory, Ownership { uid, gid, mode: 0o700 })?;
        for (name, secret) in &self.credentials {
            root.write(&directory.join(name)?, Ownership { uid, gid, mode: 0o400 }, secret.as_bytes())?;
        }
        Ok(Some(directory))
    }
}

/// Returns the finding about a program that neither is absolute nor a bare name.
fn of_program(field: &'static str, argv: &Argv) -> Option<Finding> {
    let program = &argv.0[0];
    if program.parse::<AbsPath>().is_ok() || !program.contains('/') && !matches!(program.as_str(), "." | "..") {
        return None;
    }
    let finding = Finding::new(field, format!("`{}` is not the absolute path of a program", program.escape_debug()));
    Some(finding.hint("write the path from / on, or only the program's name"))
}

/// Returns a command line for a sentence.
fn shown(argv: &Argv) -> String {
    let words: Vec<String> = argv.0.iter().map(|word| quoted(word)).collect();
    let mut line = words.join(" ").replace('\n', " ");
    if let Some((end, _)) = line.char_indices().nth(MAX_SHOWN_CHARS) {
        line.truncate(end);
        line.push('…');
    }
    format!("`{line}`")
}

/// Returns whether it is an inline script of a shell.
fn is_script(argv: &Argv) -> bool {
    let name = argv.0[0].rsplit('/').next().unwrap_or_default();
    let is_option = |word: &&String| word.starts_with('-') && !word.starts_with("--") && word.contains('c');
    SHELLS.contains(&name) && argv.0[1..].iter().any(|word| is_option(&word))
}

/// Returns a program of a command or of its guard.
fn program(argv: &Argv) -> Program {
    Program::new(argv.0.iter().cloned())
}
