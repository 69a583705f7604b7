//! The kind `http_check`.

use std::{
    collections::BTreeMap,
    fmt,
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

/// The longest pause between two requests. The first pauses are shorter.
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// From this pause on, the states of the services are checked as well, because that needs a process.
const MIN_PAUSE_FOR_UNITS: Duration = Duration::from_millis(100);

/// An HTTP answer of the application. If the answer differs, the run asks again until the deadline, or until a service that
/// the run has started ends. Redirects are not followed. At the deadline, the run exits with 75 if there is no answer, and
/// with 1 if there is a wrong one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// The URL, which is requested with GET.
    url: String,
    /// The expected status. Default: 200.
    #[serde(default = "ok")]
    status: u16,
    /// The expected header fields, each with its exact value.
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
            return Ok(vec![Change::deferred(format!("expect {expected} (deferred: {})", system.why_not_live()))]);
        }
        let Some(wrong) = self.ask(system) else { return Ok(vec![]) };
        let again = Self { url: self.url.clone(), header: self.header.clone(), ..*self };
        Ok(vec![Change::new(format!("wait for {expected} (now: {wrong})"), move |system| again.wait(system))])
    }
}

impl HttpCheck {
    fn expected(&self) -> String {
        let headers: String = self.header.iter().map(|(name, value)| format!(", {name}: {value}")).collect();
        format!("{}{headers}", self.status)
    }

    /// Returns the difference between the answer and the expected one; `None` if there is none.
    fn ask(&self, system: &System) -> Option<Wrong> {
        let answer = match system.fetcher.probe(&system.host, &self.url) {
            Ok(answer) => answer,
            Err(error) => return Some(Wrong::NoAnswer(format!("{error:#}"))),
        };
        if answer.status != self.status {
            return Some(Wrong::Answer(format!("status {}", answer.status)));
        }
        let wrong = self.header.iter().find_map(|(name, value)| {
            let mut got =
                answer.headers.iter().filter(|(got, _)| got.eq_ignore_ascii_case(name)).map(|(_, value)| value);
            match got.next() {
                Some(first) if first == value || got.any(|other| other == value) => None,
                Some(other) => Some(format!("{name} is {}", other.escape_debug())),
                None => Some(format!("no header {name}")),
            }
        });
        wrong.map(Wrong::Answer)
    }

    fn wait(&self, system: &System) -> Result<()> {
        let end = Instant::now() + self.deadline.0;
        let mut pause = Duration::from_millis(20);
        while let Some(wrong) = self.ask(system) {
            if Instant::now() >= end {
                return Err(self.late(system, &wrong).into());
            }
            if pause >= MIN_PAUSE_FOR_UNITS {
                system.host.check_started()?;
            }
            system.host.progress(&format!("{}: {wrong}", self.title()));
            system.host.stop.wait(pause)?;
            pause = (pause * 3 / 2).min(MAX_PAUSE);
        }
        Ok(())
    }

    /// Returns the fault at the deadline.
    ///
    /// It is a temporary failure only if there is no answer: the application may still be starting.
    fn late(&self, system: &System, wrong: &Wrong) -> Fault {
        let (title, expected, deadline) = (self.title(), self.expected(), spoken(self.deadline.0));
        let url = title.replace('\'', "%27");
        let fault = Fault::new(format!("{title} did not answer {expected} within {deadline}: {wrong}")).hint(format!(
            "find the cause: curl -i '{url}'; systemctl --failed; journalctl -e; then run again: {}",
            system.host.run_command()
        ));
        match wrong {
            Wrong::NoAnswer(_) => fault.transient(),
            Wrong::Answer(_) => fault,
        }
    }
}

/// The difference between an answer and the expected one.
#[derive(Debug)]
enum Wrong {
    /// No answer; the reason.
    NoAnswer(String),
    /// Another answer.
    Answer(String),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NoAnswer(why) | Self::Answer(why)) = self;
        f.write_str(why)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
    };

    use super::*;
    use crate::{error::exit_code, stop::Interrupt, system::Mode};

    /// Waits for an answer that never comes. The deadline passes at once.
    fn wait(port: u16, fields: &str) -> (u8, String) {
        let text = format!("url = \"http://127.0.0.1:{port}/\"\ndeadline = \"0s\"\n{fields}");
        let check: HttpCheck = toml::from_str(&text).unwrap();
        let system = System::open("/".as_ref(), Mode::Run, Interrupt::default()).unwrap();
        let error = check.wait(&system).unwrap_err();
        (exit_code(&error), error.to_string())
    }

    #[test]
    fn a_wrong_answer_is_permanent_and_silence_is_temporary() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            for mut stream in listener.incoming().take(2).map_while(Result::ok) {
                let reader = BufReader::new(stream.try_clone().unwrap());
                _ = reader.lines().map_while(Result::ok).take_while(|line| !line.is_empty()).count();
                _ = stream.write_all(b"HTTP/1.1 503 No\r\nconnection: close\r\nx-a: 1\r\ncontent-length: 0\r\n\r\n");
            }
        });
        let (code, error) = wait(port, "");
        assert_eq!(code, 1, "{error}");
        assert!(error.ends_with("did not answer 200 within 0 ms: status 503"), "{error}");
        let (code, error) = wait(port, "status = 503\nheader = { X-A = \"2\" }");
        assert!(code == 1 && error.ends_with("X-A is 1"), "{code}: {error}");
        server.join().unwrap();
        // The listener is closed: the port refuses connections.
        let (code, error) = wait(port, "");
        assert_eq!(code, 75, "{error}");
    }
}
