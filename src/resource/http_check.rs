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

/// The longest pause between two requests; the first ones come quicker.
const PAUSE: Duration = Duration::from_millis(500);
/// From pauses of this length on, the services are looked at as well: that takes a process.
const LOOK: Duration = Duration::from_millis(100);

/// An answer that the application gives. If it isn't given yet, the run waits for it, up to the deadline,
/// or until a service that the run has started ends. A redirect is an answer, not followed. If there is no answer at the
/// deadline, the run exits with 75; if there is a wrong one, with 1.
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

    /// What is wrong with the answer, or `None`.
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
            if pause >= LOOK {
                system.host.check_started()?;
            }
            system.host.progress(&format!("{}: {wrong}", self.title()));
            system.host.stop.wait(pause)?;
            pause = (pause * 3 / 2).min(PAUSE);
        }
        Ok(())
    }

    /// An application that does not answer may still be starting. One that answers has started: asking it again changes
    /// nothing.
    fn late(&self, system: &System, wrong: &Wrong) -> Fault {
        let (title, expected, deadline) = (self.title(), self.expected(), spoken(self.deadline.0));
        let url = title.replace('\'', "%27");
        let fault = Fault::new(format!("{title} did not answer {expected} within {deadline}: {wrong}"))
            .hint(format!("curl -i '{url}'; systemctl --failed; journalctl -e; then {}", system.host.run_command()));
        match wrong {
            Wrong::NoAnswer(_) => fault.transient(),
            Wrong::Answer(_) => fault,
        }
    }
}

/// Why an answer is not the expected one.
#[derive(Debug)]
enum Wrong {
    /// There is none.
    NoAnswer(String),
    /// It is another.
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

    /// Waits for an answer that is never given; the deadline is over at once.
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
