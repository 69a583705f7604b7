//! The kind `http_check`.

use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use super::{Change, Finding, Kind, Resource, wait::CheckDeadline};
use crate::{
    error::Fault,
    net::probe::{ProbeAnswer, ProbeRequest},
    redaction,
    system::{Fact, System},
    value::{AbsPath, Span, spoken},
    visible,
};

/// Limits the size of a file of certificates.
const MAX_CA_BYTES: u64 = 1 << 20;
/// Limits the characters of an unexpected body that a message shows.
const MAX_SHOWN_CHARACTERS: usize = 80;

/// An HTTP answer of the application. If the answer differs, the run asks again until the deadline, or until a service that
/// the run has started ends. Redirects are not followed. At the deadline, the run exits with 75 if there is no answer, and
/// with 1 if there is a wrong one. Without systemd, as in many containers, it is deferred.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// The URL, which is requested with GET.
    url: String,
    /// The expected status, or a list of those that are right, such as `[200, 401]`. Default: 200.
    #[serde(default)]
    status: Statuses,
    /// The expected header fields, each with its exact value.
    #[serde(default)]
    header: BTreeMap<String, String>,
    /// A text that the first 64 KiB of the body must contain.
    body: Option<String>,
    /// A file with the only certificates to trust, in PEM form. Default: those of the machine.
    ca: Option<AbsPath>,
    /// How long to wait for the answer. `0s` asks once. Default: 60s.
    #[serde(default = "minute")]
    deadline: Span,
}

/// The statuses that are right.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
enum Statuses {
    One(u16),
    Several(Vec<u16>),
}

// An untagged enum of serde does not say what was found instead.
impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StatusOrList;
        impl<'de> de::Visitor<'de> for StatusOrList {
            type Value = Statuses;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 100 to 599, or a list of them")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Statuses, E> {
                let status = u16::try_from(number).map(Statuses::One);
                status.map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<Statuses, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(list)).map(Statuses::Several)
            }
        }
        deserializer.deserialize_any(StatusOrList)
    }
}

impl Default for Statuses {
    fn default() -> Self {
        Self::One(200)
    }
}

impl Statuses {
    fn all(&self) -> &[u16] {
        match self {
            Self::One(status) => std::slice::from_ref(status),
            Self::Several(statuses) => statuses,
        }
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.all().iter().map(u16::to_string).collect();
        f.write_str(&texts.join(" or "))
    }
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
        } else if let Err(error) = reqwest::Url::parse(&self.url) {
            findings.push(Finding::new("url", format!("not a valid URL: {error}")));
        }
        if self.status.all().is_empty() {
            findings.push(Finding::new("status", "the list of statuses is empty"));
        }
        for status in self.status.all().iter().filter(|status| !(100..600).contains(*status)) {
            findings.push(Finding::new("status", format!("{status} is not an HTTP status")));
        }
        if self.ca.is_some() && !self.url.starts_with("https://") {
            findings.push(Finding::new("ca", "`ca` needs an https URL"));
        }
        findings
    }

    fn needed_files(&self) -> Vec<(&'static str, &AbsPath)> {
        self.ca.iter().map(|path| ("ca", path)).collect()
    }

    fn prepare(&self, system: &System) {
        // An earlier step may install certificates of the machine, which a client of https reads once.
        if system.is_serving() && self.url.starts_with("http:") {
            system.fetcher.prepare_probe();
        }
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let expected = self.expected();
        if !system.is_serving() {
            return Ok(vec![Change::deferred(format!("expect {expected} (deferred: {})", system.why_not_live()))]);
        }
        self.check_ca(system)?;
        let wait = CheckDeadline::begin(self.deadline.0);
        let Some(wrong) = self.ask(system, wait.first_limit()) else { return Ok(vec![]) };
        let (summary, check) = (format!("wait for {expected} (now: {wrong})"), self.clone());
        Ok(vec![Change::new(summary, move |system| check.wait(system, wait, wrong))])
    }
}

impl HttpCheck {
    fn expected(&self) -> String {
        let headers: String = self.header.iter().map(|(name, value)| format!(", {name}: {value}")).collect();
        let body = self.body.as_ref().map(|body| format!(", a body with `{}`", visible::line(&redaction::shown(body))));
        format!("{}{headers}{}", self.status, body.unwrap_or_default())
    }

    /// Fails if the file of certificates does not exist and no earlier planned change makes it.
    fn check_ca(&self, system: &System) -> Result<()> {
        let Some(ca) = &self.ca else { return Ok(()) };
        if system.expects(&Fact::Path(ca.clone())) {
            return Ok(());
        }
        match self.certificates(system)? {
            None if system.expects(&Fact::Packages) => Ok(()),
            None => {
                let hint = "declare the file before this check";
                Err(Fault::new(format!("`ca` names {ca}, which does not exist")).hint(hint).into())
            }
            certificates => {
                let request = ProbeRequest { ca: certificates, ..ProbeRequest::new(&*self.url) };
                request.check().with_context(|| format!("reading the certificates in {ca}"))
            }
        }
    }

    fn certificates(&self, system: &System) -> Result<Option<Vec<u8>>> {
        let Some(ca) = &self.ca else { return Ok(None) };
        system.root().read(&system.root().resolve(ca)?, MAX_CA_BYTES)
    }

    fn probe(&self, system: &System, limit: Duration) -> Result<ProbeAnswer> {
        let request = ProbeRequest { ca: self.certificates(system)?, ..ProbeRequest::new(&*self.url) };
        system.fetcher.probe(&system.host, request, limit)
    }

    /// Returns the difference between the answer and the expected one; `None` if there is none.
    fn ask(&self, system: &System, limit: Duration) -> Option<Wrong> {
        let answer = match self.probe(system, limit) {
            Ok(answer) => answer,
            Err(error) => return Some(Wrong::NoAnswer(format!("{error:#}"))),
        };
        if !self.status.all().contains(&answer.status) {
            return Some(Wrong::Answer(format!("status {}", answer.status)));
        }
        if let Some(body) = &self.body
            && !answer.body.contains(body)
        {
            let shown: String = one_line(&answer.body).chars().take(MAX_SHOWN_CHARACTERS).collect();
            return Some(Wrong::Answer(format!("the body begins with `{shown}`")));
        }
        let wrong = self.header.iter().find_map(|(name, value)| {
            let mut got =
                answer.headers.iter().filter(|(got, _)| got.eq_ignore_ascii_case(name)).map(|(_, value)| value);
            match got.next() {
                Some(first) if first == value || got.any(|other| other == value) => None,
                Some(other) => Some(format!("{name} is {}", one_line(other))),
                None => Some(format!("no header {name}")),
            }
        });
        wrong.map(Wrong::Answer)
    }

    fn wait(&self, system: &System, wait: CheckDeadline, wrong: Wrong) -> Result<()> {
        self.check_ca(system)?;
        let ask = |system: &System, limit| self.ask(system, limit);
        match wait.until_right(system, &self.title(), wrong, ask)? {
            None => Ok(()),
            Some(wrong) => Err(self.late(system, &wrong).into()),
        }
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

/// Returns a part of an answer as one line. Secrets are removed first, because they are not found in an escaped or a cut text.
fn one_line(answered: &str) -> String {
    visible::line(&redaction::printed(answered)).into_owned()
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

    /// Waits for an answer that never comes. It asks once.
    fn wait(port: u16, fields: &str) -> (u8, String) {
        let text = format!("url = \"http://127.4.0.1:{port}/\"\ndeadline = \"0s\"\n{fields}");
        let check: HttpCheck = toml::from_str(&text).unwrap();
        let system = System::open("/".as_ref(), Mode::Run, Interrupt::default()).unwrap();
        let wait = CheckDeadline::begin(check.deadline.0);
        let wrong = check.ask(&system, wait.first_limit()).unwrap();
        let error = check.wait(&system, wait, wrong).unwrap_err();
        (exit_code(&error), error.to_string())
    }

    #[test]
    fn a_wrong_answer_is_permanent_and_silence_is_temporary() {
        // No other test listens at this address, so that the port stays closed at the end.
        let listener = TcpListener::bind("127.4.0.1:0").unwrap();
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
