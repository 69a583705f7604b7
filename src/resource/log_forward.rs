//! The kind `log_forward`.

use std::{collections::BTreeMap, fmt};

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Change, Finding, Kind, Resource,
    file::File,
    mount::units::{UnitFile, drop_ins_of_services, removals},
    service::UnitName,
};
use crate::{
    host::root::way::Owner,
    rsyslog::{Forward, ForwardTls, RATE_LIMIT, Transport},
    system::{Fact, System, places::Claim},
    value::{AbsPath, ByteSize, Sha256, printable},
};

/// The directory of the configurations. The distributions' own rsyslogd reads only `*.conf` there.
const DIRECTORY: &str = "/etc/rsyslog.d";
/// The directory of the queues. SELinux lets rsyslogd write there.
const SPOOLS: &str = "/var/lib/rsyslog";
/// The smallest queue: it has at least two files of 8 MiB.
const MIN_QUEUE_BYTES: u64 = 16 << 20;
/// The tag of what a forwarder writes to the journal.
const NOTICE_TAG: &str = "log_forward";
/// The fields that each record has anyway.
const OWN_FIELDS: [&str; 10] =
    ["dropped", "host", "id", "message", "pid", "run_id", "sequence", "severity", "tag", "unit"];

/// Sends records of the journal to a log collector or an `OpenSearch`, each with the declared fields. An rsyslogd of its own
/// reads the journal, and keeps in a bounded queue on disk what the target does not take yet. Programs that log never wait
/// for it. The lines of a stack trace become one record. The configuration is `/etc/rsyslog.d/NAME.forward`: `rsyslogd -N1`
/// must accept it before it replaces the present one. The unit is `log-forward-NAME.service`. Declare its packages before
/// this resource, and its `service` after it, with `restart_on = ["/etc/rsyslog.d/NAME.forward"]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogForward {
    /// The name of the configuration and of the unit, such as `app`.
    name: ForwardName,
    /// The records that are sent: `{ units = ["app.service"], tags = ["app"] }`. `units` has what units print, and what
    /// systemd says about them. A tag is the identifier that a program gives to the journal, as `logger --tag` does.
    #[serde(rename = "match")]
    records: RecordChoice,
    /// Where they are sent: `HOST:PORT`, and for `elasticsearch` a URL such as `https://logs.example.com:9200`.
    target: String,
    /// `relp`: the collector acknowledges each record. `tcp`: records can be lost when a connection breaks. `elasticsearch`:
    /// the bulk API of `OpenSearch` or Elasticsearch, without a collector; records that it refuses are lost.
    protocol: Transport,
    /// The files for TLS, in PEM: `{ ca = "…", certificate = "…", key = "…", peer = "…" }`. `relp` and `tcp` need all of
    /// them but `peer`. `peer` is the name in the target's certificate. Default: `relp` and `tcp` are unencrypted, and
    /// `peer` is the target's host.
    tls: Option<ForwardTls>,
    /// The user name for `elasticsearch`.
    user: Option<String>,
    /// The password for `elasticsearch`. The configuration is a secret then: it is not written to an image, but at boot.
    /// The target must be an https URL.
    password: Option<Password>,
    /// The first part of the index's name for `elasticsearch`; the day follows, as in `logs-2026-11-28`. Default: `logs`.
    #[serde(default)]
    index: IndexName,
    /// Fields of each record, such as `{ build = "{{ app_version }}", instance = "{{ instance.id }}" }`. A record keeps the
    /// values of its time. Each also has `@timestamp`, `message`, `unit`, `tag`, `pid`, `host`, `severity`, the `run_id` of
    /// the last run before the forwarder's start, `sequence`, which counts from that start, and a unique `id`.
    #[serde(default)]
    fields: BTreeMap<FieldName, String>,
    /// Limits the queue on disk, such as `1GiB`; at least 16MiB. When it or its disk is full, new records are dropped,
    /// counted and reported in the journal and at the target. Default: 256MiB.
    #[serde(default = "default_queue")]
    queue: ByteSize,
    /// A POSIX extended regular expression. A matching line belongs to the line before it. Default: lines that begin with
    /// white space or `Caused by: `, as in a Java stack trace.
    continuation: Option<String>,
}

fn default_queue() -> ByteSize {
    ByteSize(256 << 20)
}

/// The name of a forward, with the paths of its configuration and of its queue.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("pattern" = "^[a-z0-9][a-z0-9_-]{0,63}$"))]
struct ForwardName {
    text: String,
    path: AbsPath,
    spool: AbsPath,
    unit: String,
}

impl TryFrom<String> for ForwardName {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        check_word(&text, "a forward")?;
        let path = AbsPath::from(DIRECTORY).join(&format!("{text}.forward"))?;
        let spool = AbsPath::from(SPOOLS).join(&text)?;
        Ok(Self { unit: format!("log-forward-{text}.service"), text, path, spool })
    }
}

/// The name of a field of a record.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
struct FieldName(String);

impl TryFrom<String> for FieldName {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        check_word(&name, "a field")?;
        ensure!(!name.contains('-') && !OWN_FIELDS.contains(&&*name), "`{name}` cannot be the name of a field");
        Ok(Self(name))
    }
}

/// The first part of the name of an index.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
struct IndexName(String);

impl Default for IndexName {
    fn default() -> Self {
        Self("logs".into())
    }
}

impl TryFrom<String> for IndexName {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        check_word(&name, "an index").map(|()| Self(name))
    }
}

fn check_word(word: &str, of: &str) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    ensure!(
        word.starts_with(is_plain) && word.len() <= 64 && word.chars().all(|c| is_plain(c) || "_-".contains(c)),
        "`{}` is not the name of {of}: use lower-case letters, digits, `_` and `-`",
        word.escape_debug()
    );
    Ok(())
}

/// The records that a forward sends.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RecordChoice {
    /// Units, by what they print and what systemd says about them.
    #[serde(default)]
    units: Vec<UnitName>,
    /// Identifiers of programs.
    #[serde(default)]
    tags: Vec<String>,
}

/// A password, which no log shows.
#[derive(Deserialize, JsonSchema)]
struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

impl Kind for LogForward {
    const NAME: &'static str = "log_forward";
    const EXAMPLE: &'static str = r#"kind = "log_forward"
name = "app"
match = { units = ["app.service"] }
target = "logs.example.com:20514"
protocol = "relp"
tls = { ca = "/etc/app/ca.pem", certificate = "/etc/app/machine.pem", key = "/etc/app/machine.key" }
fields = { build = "1.4.2" }
queue = "512MiB""#;
}

impl Resource for LogForward {
    fn title(&self) -> String {
        self.name.text.clone()
    }

    fn owned_path(&self) -> Option<&AbsPath> {
        Some(&self.name.path)
    }

    fn made_paths(&self) -> Vec<AbsPath> {
        let files = self.unit_files();
        std::iter::once(self.name.path.clone()).chain(files.iter().filter_map(|file| file.full_path().ok())).collect()
    }

    fn owned_things(&self) -> Vec<(&'static str, String)> {
        vec![("name", format!("the unit {}", self.name.unit))]
    }

    fn services_after(&self) -> Vec<&str> {
        let units = self.records.units.iter().map(UnitName::as_str);
        units.chain([&*self.name.unit]).collect()
    }

    fn secret_fields(&self) -> &'static [&'static str] {
        &["password"]
    }

    fn private_bytes(&self) -> Option<Vec<u8>> {
        self.password.as_ref().map(|password| password.0.clone().into_bytes())
    }

    fn secret(&self) -> Option<&AbsPath> {
        self.password.as_ref().map(|_| &self.name.path)
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = vec![];
        if self.records.units.is_empty() && self.records.tags.is_empty() {
            let hint = "name at least one: match = { units = [\"app.service\"] }";
            findings.push(Finding::new("match", "no unit and no tag is declared").hint(hint));
        }
        if self.records.tags.iter().any(|tag| tag.is_empty() || printable(tag).is_err()) {
            findings.push(Finding::new("match", "a tag is empty or has a control character"));
        }
        findings.extend(self.records_without_sense());
        if self.fields.values().any(|value| printable(value).is_err()) {
            findings.push(Finding::new("fields", "a value has a control character"));
        }
        if self.queue.0 < MIN_QUEUE_BYTES {
            findings.push(Finding::new("queue", format!("a queue has at least {}", ByteSize(MIN_QUEUE_BYTES))));
        }
        if self.continuation.as_ref().is_some_and(|pattern| pattern.is_empty() || printable(pattern).is_err()) {
            let message = "the expression is empty or has a control character";
            findings.push(Finding::new("continuation", message).hint("write a tab as [[:blank:]]"));
        }
        findings.extend(self.faults_of_target());
        findings.extend(self.faults_of_credentials());
        findings
    }

    fn version_to_come(&self, _system: &System) -> Result<Option<String>> {
        Ok(Some(Sha256::of(self.forward().configuration().as_bytes()).to_string()))
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let validator = ["rsyslogd", "-N1", "-f", "{}"].map(Into::into).into();
        let file = File::of_text(self.name.path.clone(), self.forward().configuration());
        let mut changes = vec![];
        // rsyslogd refuses a configuration whose directory does not exist.
        let spool = self.name.spool.clone();
        let claim = Claim { path: &spool, owner: Some(&Owner::Id(0)), gid: Some(0), makes_parents: true };
        _ = system.check_place(claim)?;
        if system.root().status(&spool)?.is_none() {
            let fact = Fact::Path(spool.clone());
            let make = move |system: &System| system.root().make_directories(&spool, 0o700);
            changes.push(Change::new(format!("create {}", self.name.spool), make).brings([fact]));
        }
        changes.extend(file.checked_by(validator, self.password.is_some()).plan(system)?);
        let present = drop_ins_of_services(&self.name_of_drop_in(), system)?;
        let declared = self.made_paths();
        for file in self.unit_files() {
            changes.extend(file.plan(system)?);
        }
        // A service that is no longer matched gets its own limit back.
        changes.extend(removals(present.into_iter().filter(|path| !declared.contains(path)), system)?);
        Ok(changes)
    }
}

impl LogForward {
    fn forward(&self) -> Forward<'_> {
        Forward {
            name: &self.name.text,
            path: &self.name.path,
            spool: &self.name.spool,
            units: self.records.units.iter().map(UnitName::as_str).collect(),
            tags: &self.records.tags,
            url: &self.target,
            host_and_port: self.host_and_port(),
            transport: self.protocol,
            tls: self.tls.as_ref(),
            login: self.user.as_deref().zip(self.password.as_ref().map(|password| &*password.0)),
            index: &self.index.0,
            fields: self.fields.iter().map(|(name, value)| (&*name.0, &**value)).collect(),
            queue_bytes: self.queue.0,
            continuation: self.continuation.as_deref(),
        }
    }

    fn name_of_drop_in(&self) -> String {
        format!("log-forward-{}", self.name.text)
    }

    /// Returns its unit, and a drop-in of each service that it reads.
    fn unit_files(&self) -> Vec<UnitFile> {
        let services = self.records.units.iter().map(UnitName::as_str).filter(|unit| unit.ends_with(".service"));
        let drop_ins = services.map(|service| UnitFile::drop_in(service, &self.name_of_drop_in(), RATE_LIMIT.into()));
        std::iter::once(UnitFile::new(self.name.unit.clone(), self.forward().unit())).chain(drop_ins).collect()
    }

    /// Returns the faults of units and tags that have no records, or those of the forwarder itself.
    fn records_without_sense(&self) -> Vec<Finding> {
        let mut findings = vec![];
        for unit in self.records.units.iter().map(UnitName::as_str) {
            if let Some((prefix, ending)) = unit.split_once("@.") {
                let message = format!("{unit} is a template, which logs nothing");
                let hint = format!("name each instance of it, such as `{prefix}@1.{ending}`");
                findings.push(Finding::new("match", message).hint(hint));
            }
            if unit == self.name.unit {
                let message = format!("{unit} is the forwarder itself");
                findings.push(Finding::new("match", message).hint("let another log_forward send its records"));
            }
        }
        if self.records.tags.iter().any(|tag| tag == NOTICE_TAG) {
            let message = format!("the tag {NOTICE_TAG} is that of the forwarder's own notices");
            let hint = "leave it out: the target is told of dropped lines in any case";
            findings.push(Finding::new("match", message).hint(hint));
        }
        findings
    }

    /// Returns the host and the port of a target that is no URL.
    fn host_and_port(&self) -> Option<(&str, u16)> {
        let (host, port) = self.target.rsplit_once(':')?;
        let is_of_host = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!host.is_empty() && host.chars().all(is_of_host)).then_some((host, port))
    }

    fn faults_of_target(&self) -> Option<Finding> {
        if self.protocol != Transport::Elasticsearch {
            let hint = "write it as in target = \"logs.example.com:20514\"";
            let is_wrong = self.host_and_port().is_none();
            return is_wrong.then(|| Finding::new("target", "the target is not HOST:PORT").hint(hint));
        }
        let is_of_url = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        let host = self.target.strip_prefix("https://").or_else(|| self.target.strip_prefix("http://"));
        let is_url = host.is_some_and(|host| !host.is_empty() && host.chars().all(is_of_url));
        let hint = "write scheme, host and port: target = \"https://logs.example.com:9200\"";
        (!is_url).then(|| Finding::new("target", "the target is not a URL without a path").hint(hint))
    }

    fn faults_of_credentials(&self) -> Vec<Finding> {
        let mut findings = vec![];
        let is_https = self.target.starts_with("https://");
        if let Some(tls) = &self.tls {
            let texts = [Some(&tls.ca), tls.certificate.as_ref(), tls.key.as_ref()].into_iter().flatten();
            let texts = texts.map(AbsPath::as_str).chain(tls.peer.as_deref());
            if texts.into_iter().any(|text| text.is_empty() || text.contains(['"', '\\', '$'])) {
                findings.push(Finding::new("tls", "a path or the peer has a quote, `\\` or `$`"));
            }
            if tls.certificate.is_some() != tls.key.is_some() {
                findings.push(Finding::new("tls", "`certificate` and `key` belong together"));
            } else if self.protocol != Transport::Elasticsearch && tls.key.is_none() {
                findings.push(Finding::new("tls", "`relp` and `tcp` with TLS need `certificate` and `key`"));
            }
            if self.protocol == Transport::Elasticsearch && !is_https {
                findings.push(Finding::new("tls", "`tls` needs an https URL as the target"));
            }
        }
        let password = self.password.as_ref().map(|password| &password.0);
        if self.user.iter().chain(password).any(|text| text.is_empty() || printable(text).is_err()) {
            findings.push(Finding::new("user", "`user` or `password` is empty or has a control character"));
        }
        if self.user.is_some() != self.password.is_some() {
            findings.push(Finding::new("user", "`user` and `password` belong together"));
        } else if self.password.is_some() && self.protocol != Transport::Elasticsearch {
            findings.push(Finding::new("password", "only `elasticsearch` has a user and a password"));
        } else if self.password.is_some() && !is_https {
            let message = "others in the network could read the password over http";
            findings.push(Finding::new("password", message).hint("use an https URL"));
        }
        findings
    }
}
