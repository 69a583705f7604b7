//! Runs of a package manager's programs: with waits for their locks, and with retries of temporary failures.

use std::time::Duration;

use anyhow::{Context, Result};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::cause::{Cause, CauseTable, Diagnosis};
use crate::{
    error::Fault,
    host::command::{Finished, Program, with_tail},
    net::{proxy::proxies, retry::spread},
    redaction,
    system::{Fact, System},
};

/// Limits the attempts after temporary failures. In each attempt, the package manager itself tries every download
/// several times.
const MAX_ATTEMPTS: u32 = 4;

/// What all runs of one package manager have in common.
#[derive(Debug)]
pub(crate) struct Tools {
    /// Its program.
    pub(crate) program: &'static str,
    /// The directories that it writes to.
    pub(crate) written: &'static [&'static str],
    /// The causes of its failures.
    pub(crate) causes: &'static CauseTable,
    /// Waits until its locks are free.
    pub(crate) wait: fn(&System) -> Result<()>,
}

impl Tools {
    /// Runs a command again until it succeeds or until its failure is permanent.
    ///
    /// `fix` may remove the cause of a failure, and returns whether it did.
    ///
    /// This is not [`crate::net::retry::Attempts`], which makes network requests in a runtime. An attempt here is a
    /// child process. It waits for locks first, and may be followed by a fix. Failed requests of this process do not
    /// limit it.
    pub(crate) fn persevere(
        &self,
        system: &System,
        what: &str,
        run: impl Fn() -> Result<Result<(), Finished>>,
        mut fix: impl FnMut(Cause) -> Result<bool>,
    ) -> Result<()> {
        for attempt in 1.. {
            (self.wait)(system)?;
            let Err(finished) = run()? else { break };
            let diagnosis = self.diagnose(system, &finished);
            let error = failed(what, &diagnosis, &finished);
            if attempt == MAX_ATTEMPTS {
                return Err(error).with_context(|| format!("gave up after {MAX_ATTEMPTS} attempts"));
            }
            if fix(diagnosis.cause)? {
                continue;
            }
            if !diagnosis.cause.is_transient() {
                return Err(error.into());
            }
            tracing::warn!(attempt, "{what}: {}", redaction::printed(diagnosis.line.trim()));
            system.host.progress(&format!("{what}: trying again (attempt {} of {MAX_ATTEMPTS})", attempt + 1));
            system.host.stop.wait(spread(Duration::from_secs(1 << attempt), Duration::MAX))?;
        }
        Ok(())
    }

    /// Returns the diagnosis of a failure, from its output and from the machine's clock and proxies.
    pub(crate) fn diagnose<'a>(&self, system: &System, finished: &'a Finished) -> Diagnosis<'a> {
        let mut diagnosis = self.causes.diagnosis(&finished.tail);
        if matches!(diagnosis.cause, Cause::Expired | Cause::Certificate) && !is_clock_synchronized(system) {
            diagnosis.cause = Cause::Clock;
        }
        if diagnosis.cause == Cause::Clock {
            let clock = now();
            diagnosis.advise(format!(
                "set this machine's clock, which shows {clock}; to see what sets it: timedatectl status"
            ));
        }
        if diagnosis.cause == Cause::Network
            && let Some(proxy) = proxies().named_in(diagnosis.line)
        {
            diagnosis.advise(format!("check that the proxy {proxy} answers; http_proxy or https_proxy names it"));
        }
        diagnosis
    }

    /// Fails if the program is missing or one of its directories is read-only. In a plan, an earlier change may bring the
    /// program.
    ///
    /// The program's own error for this has a dozen lines.
    pub(crate) fn check_writable(&self, system: &System) -> Result<()> {
        if !system.host.has_program(self.program) && !system.expects(&Fact::Packages) {
            let message = format!("cannot install packages: the program `{}` is missing", self.program);
            let hint = format!("install {}, or limit this resource to other machines with `where`", self.program);
            return Err(Fault::new(message).hint(hint).into());
        }
        let root = system.root();
        for path in self.written {
            let directory = root.resolve(&(*path).into())?;
            // A directory that does not exist is made in its parent.
            let mut place = directory.join("any")?;
            while let Some(parent) = place.parent()
                && root.status(&parent)?.is_none()
            {
                place = parent;
            }
            if root.file_system(&place)?.read_only {
                return Err(Fault::new(format!("the file system of {path} is mounted read-only"))
                    .hint(format!("make it writable: mount -o remount,rw \"$(findmnt -no TARGET -T {path})\""))
                    .into());
            }
        }
        Ok(())
    }
}

/// Returns the error for a failed run.
pub(crate) fn failed(what: &str, diagnosis: &Diagnosis<'_>, finished: &Finished) -> Fault {
    diagnosis.fault(with_tail(format!("{what} failed with exit code {}", finished.code()), &finished.tail))
}

/// Returns whether the clock is synchronized (adjtimex(2)); true if systemd cannot tell.
fn is_clock_synchronized(system: &System) -> bool {
    let asked = Program::new(["timedatectl", "show", "--property=NTPSynchronized", "--value"]);
    system.host.run(&asked).map_or(true, |finished| finished.stdout.trim() != "no")
}

fn now() -> String {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or_else(|_| OffsetDateTime::now_utc());
    now.format(&Rfc3339).unwrap_or_default()
}
