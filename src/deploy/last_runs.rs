//! What the machines say of their last runs, for `deploy status`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::failure::MachineObjects;
use crate::{
    error::{self, Class},
    notify::block::Block,
    redaction,
    run::report::last_run::LastRun,
    system::System,
    view::{complain, count},
};

/// The most characters of a text in a machine's object that are shown.
const MAX_CHARACTERS: usize = 80;

/// What a machine says of its last run.
#[derive(Debug)]
enum MachineRun {
    /// How its last run ended, with the error of a failure.
    Ended(Box<LastRun>, Option<String>),
    /// Its object does not exist, or says nothing of a run.
    Unreported,
    /// Its object could not be read.
    Unread,
}

/// What the machines say, by their ids.
#[derive(Debug, Default)]
pub(super) struct LastRuns {
    runs: BTreeMap<String, MachineRun>,
    /// The first error of the bucket.
    fault: Option<anyhow::Error>,
}

impl MachineRun {
    /// Reads an object, which may hold any text.
    fn read(text: Option<String>) -> Self {
        let text = text.unwrap_or_default();
        let Some(last) = LastRun::find(&text) else { return Self::Unreported };
        let error = Block::find(&text).and_then(|block| block.headline());
        let shown = |text: String| redaction::line(&text).chars().take(MAX_CHARACTERS).collect::<String>();
        let (build, step) = (last.build.map(shown), last.step.map(shown));
        let last = LastRun { version: shown(last.version), ended: shown(last.ended), build, step, ..last };
        Self::Ended(Box::new(last), error)
    }
}

impl LastRuns {
    /// Reads the object of a machine, unless it is known. A bucket that did not answer is not asked again.
    pub(super) fn ask(&mut self, system: &System, objects: &MachineObjects, machine: &str) {
        if self.runs.contains_key(machine) {
            return;
        }
        let is_silent = self.fault.as_ref().is_some_and(|error| error::class(error) != Class::Permanent);
        let run = if is_silent { Ok(MachineRun::Unread) } else { objects.text(system, machine).map(MachineRun::read) };
        let run = run.unwrap_or_else(|error| {
            // That of a bucket without an answer says more than the refusal of one object.
            if self.fault.is_none() || error::class(&error) != Class::Permanent {
                self.fault = Some(error);
            }
            MachineRun::Unread
        });
        _ = self.runs.insert(machine.to_owned(), run);
    }

    /// Says in one line why some objects could not be read.
    pub(super) fn complain(&self) {
        if let Some(error) = &self.fault {
            let unread = self.runs.values().filter(|run| matches!(run, MachineRun::Unread)).count();
            complain(format!("the last run of {} cannot be read: {error:#}", count(unread, "machine")));
        }
    }

    /// Returns what a machine says, in words; `None` without a bucket.
    pub(super) fn words(&self, machine: &str, now: OffsetDateTime) -> Option<String> {
        Some(match self.runs.get(machine)? {
            MachineRun::Ended(last, error) => {
                let (ended, version) = (age(&last.ended, now), &last.version);
                format!("last run {ended}: {}, version {version}", outcome(last, error.as_deref()))
            }
            MachineRun::Unreported => "no report of a run".into(),
            MachineRun::Unread => "its last run is not known".into(),
        })
    }

    /// Returns what a machine says, for a program; `None` without a bucket.
    pub(super) fn json(&self, machine: &str) -> Option<Value> {
        Some(match self.runs.get(machine)? {
            MachineRun::Ended(last, error) => {
                let mut value = json!(last);
                value["error"] = json!(error);
                value
            }
            MachineRun::Unreported | MachineRun::Unread => Value::Null,
        })
    }
}

/// Returns how a run ended, in words.
fn outcome(last: &LastRun, error: Option<&str>) -> String {
    if last.exit_code != 0 || error.is_some() {
        let step = last.step.as_ref().map(|step| format!(" in step {step}")).unwrap_or_default();
        let error = error.map(|error| format!(": {error}")).unwrap_or_default();
        return format!("failed{step}, exit code {}{error}", last.exit_code);
    }
    match last.drift {
        None => format!("converged with {}", count(last.changes, "change")),
        Some(0) => "converged, no drift".into(),
        Some(drift) => format!("converged, drift corrected with {}", count(drift, "change")),
    }
}

/// Returns how long ago a time was. The clock of a machine may be a little ahead.
fn age(ended: &str, now: OffsetDateTime) -> String {
    let Ok(ended) = OffsetDateTime::parse(ended, &Rfc3339) else { return "at an unknown time".into() };
    match (now - ended).whole_seconds().max(0) {
        seconds @ 0..60 => format!("{seconds} s ago"),
        seconds @ 60..3_600 => format!("{} min ago", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> OffsetDateTime {
        OffsetDateTime::parse("2026-11-24T20:00:00Z", &Rfc3339).unwrap()
    }

    fn words(object: &str) -> String {
        let runs = BTreeMap::from([("i-1".into(), MachineRun::read(Some(object.into())))]);
        LastRuns { runs, fault: None }.words("i-1", now()).unwrap()
    }

    #[test]
    fn the_age_of_a_run_is_said_in_one_unit() {
        for (ended, said) in [
            ("2026-11-24T19:59:18Z", "42 s ago"),
            ("2026-11-24T20:59:18+01:00", "42 s ago"),
            ("2026-11-24T19:00:01Z", "59 min ago"),
            ("2026-11-22T20:00:01Z", "47 h ago"),
            ("2026-11-22T20:00:00Z", "2 days ago"),
            ("2026-11-24T20:00:09Z", "0 s ago"),
            ("yesterday", "at an unknown time"),
        ] {
            assert_eq!(age(ended, now()), said, "{ended}");
        }
    }

    #[test]
    fn a_machine_says_how_its_last_run_ended() {
        let run =
            |rest: &str| format!(r#"{{"version":"0.1.0","ended":"2026-11-24T19:00:00Z","outcome":"changed",{rest}}}"#);
        let block = "-----BEGIN GLOVO-BOOTSTRAP FAILURE-----\nerror: create\ncaused by: a\ncaused by: 404\n\
                     -----END GLOVO-BOOTSTRAP FAILURE-----\n";
        for (object, said) in [
            (run(r#""exit_code":0,"changes":3"#), "converged with 3 changes, version 0.1.0"),
            (run(r#""exit_code":0,"changes":0,"drift":0"#), "converged, no drift, version 0.1.0"),
            (run(r#""exit_code":0,"changes":1,"drift":1"#), "converged, drift corrected with 1 change, version 0.1.0"),
            (
                block.to_owned() + &run(r#""exit_code":1,"changes":1,"step":"web""#),
                "failed in step web, exit code 1: create: 404, version 0.1.0",
            ),
        ] {
            assert_eq!(words(&object), format!("last run 1 h ago: {said}"));
        }
        for nothing in ["", block, "{}", "null"] {
            assert_eq!(words(nothing), "no report of a run", "{nothing:?}");
        }
    }

    #[test]
    fn a_hostile_object_is_short_and_plain() {
        let text = format!("\\u001b]52;c;aGk=\\u0007\\u202e{}", "x".repeat(9_000));
        let fields = ["version", "build", "ended", "step"].map(|name| format!("\"{name}\":\"{text}\""));
        let said = words(&format!("{{{},\"outcome\":\"failed\",\"exit_code\":255,\"changes\":9}}", fields.join(",")));
        assert!(said.len() < 400 && said.chars().all(|c| c.is_ascii() && !c.is_ascii_control()), "{said:?}");
    }
}
