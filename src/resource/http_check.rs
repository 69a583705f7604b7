//! The kind `http_check`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Change, Finding, Kind, Resource};
use crate::{
    error::Fault,
    system::System,
    value::{Span, spoken},
};

/// The longest pause between two requests; the first ones come quicker.
const PAUSE: Duration = Duration::from_millis(500);
/// From pauses of this length on, the services are looked at as well: that takes a process.
const LOOK: Duration = Duration::from_millis(100);

/// An answer that the application gives. If it isn't given yet, the run waits for it, up to the deadline,
/// or until a service that the run has started ends. A redirect is an answer, not followed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// What is asked, by GET.
    url: String,
    /// The status expected. Default: 200.
    #[serde(default = "ok")]
    status: u16,
    /// Header fields expected, each with its exact value.
    #[serde(default)]
    header: BTreeMap<String, String>,
    /// How long to wait for the answer. Default: 60s.
    #[serde(default = "minute")]
    deadline: Span,
}

fn ok() -> u16 {
    200
}

fn minute() -> Span {
    Span(Duration::from_mins(1))
}

impl Kind for HttpCheck {
    const NAME: &'static str = "http_check";
    const EXAMPLE: &'static str = r#"kind = "http_check"
url = "http://127.0.0.1/"
status = 200
header = { X-Glovo-Systems-Engineer-Candidate = "1" }
deadline = "60s""#;
}

impl Resource for HttpCheck {
    fn title(&self) -> String {
        self.url.split(['?', '#']).next().unwrap_or_default().to_owned()
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = vec![];
        if !(self.url.starts_with("http://") || self.url.starts_with("https://")) {
            findings.push(Finding::new("url", format!("`{}` is not an http or https URL", self.url.escape_debug())));
        }
        if !(100..600).contains(&self.status) {
            findings.push(Finding::new("status", format!("{} is not an HTTP status", self.status)));
        }
        findings
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let expected = self.expected();
        if !system.is_live() {
            return Ok(vec![Change::deferred(format!("expect {expected} (deferred: nothing is started in an image)"))]);
        }
        let Some(fault) = self.ask(system) else { return Ok(vec![]) };
        let again = Self { url: self.url.clone(), header: self.header.clone(), ..*self };
        Ok(vec![Change::new(format!("wait for {expected} (now: {fault})"), move |system| again.wait(system))])
    }
}

impl HttpCheck {
    fn expected(&self) -> String {
        let headers: String = self.header.iter().map(|(name, value)| format!(", {name}: {value}")).collect();
        format!("{}{headers}", self.status)
    }

    /// What the answer lacks, or `None`.
    fn ask(&self, system: &System) -> Option<String> {
        let answer = match system.probe(&self.url) {
            Ok(answer) => answer,
            Err(error) => return Some(format!("{error:#}")),
        };
        if answer.status != self.status {
            return Some(format!("status {}", answer.status));
        }
        self.header.iter().find_map(|(name, value)| {
            let mut got =
                answer.headers.iter().filter(|(got, _)| got.eq_ignore_ascii_case(name)).map(|(_, value)| value);
            match got.next() {
                Some(first) if first == value || got.any(|other| other == value) => None,
                Some(other) => Some(format!("{name} is {}", other.escape_debug())),
                None => Some(format!("no header {name}")),
            }
        })
    }

    fn wait(&self, system: &System) -> Result<()> {
        let end = Instant::now() + self.deadline.0;
        let mut pause = Duration::from_millis(20);
        while let Some(fault) = self.ask(system) {
            if Instant::now() >= end {
                let message = format!(
                    "{} did not answer {} within {}: {fault}",
                    self.title(),
                    self.expected(),
                    spoken(self.deadline.0)
                );
                return Err(Fault::new(message)
                    .hint("look at what should answer: systemctl status, journalctl -u, curl -i; then `glovo-bootstrap run` again")
                    .transient()
                    .into());
            }
            if pause >= LOOK {
                system.check_started()?;
            }
            system.progress(&format!("{}: {fault}", self.title()));
            system.wait(pause)?;
            pause = (pause * 3 / 2).min(PAUSE);
        }
        Ok(())
    }
}
