//! The texts of an rsyslogd of its own that forwards records of the journal: its configuration, in rsyslog's language, and
//! its unit.

use std::fmt::Write;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::value::AbsPath;

/// The configuration without what a resource declares.
const CONFIGURATION: &str = include_str!("rsyslog/forward.conf");
/// The lines that belong to the line before them: the frames of a Java stack trace, and its causes.
const CONTINUATION: &str = "^([[:space:]]|Caused by: )";
/// The id of journald's records that say how many lines a rate limit has dropped; journald's `SD_MESSAGE_JOURNAL_DROPPED`.
const JOURNAL_DROPPED: &str = "a596d6fe7bfa4994828e72309e95d61e";
/// The least bytes of a record in the queue. The bound of the queue is in bytes, but rsyslogd also wants one in records.
const SHORT_RECORD_BYTES: u64 = 600;

/// The records that may be on their way over RELP, and those that are taken from the queue at a time. librelp holds back what
/// it sends until the end of a batch. If a batch were larger than the window, each window would wait 200 ms for the kernel
/// (tcp(7), `TCP_CORK`).
const RELP_WINDOW: &str = "32";
/// The records that another transport takes from the queue at a time: one bulk request.
const BATCH: &str = "1024";

/// Returns a text between double quotes of rsyslog's language, without the quotes.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Starts rsyslogd with the id of the last run. The first start reads the journal from the start of that run, so that its
/// own records are sent too: the id is the time of its start, in microseconds as hexadecimal digits, and a pid. rsyslogd
/// begins after the record at the cursor that it finds in its state file.
const START: &str = r#"run=$(sed -n "s/^  .run_id.: .\([0-9a-f-]*\).*/\1/p" /var/lib/glovo-bootstrap/summary.json)
export GLOVO_RUN_ID="$run"
began=${run%-*}
at="@$((0x${began:-0} / 1000000))"
state=SPOOL/journal
[ -e $state ] || cursor=$(journalctl -q --until="$at" -n 1 -o export | sed -n s/^__CURSOR=//p)
[ -z "$cursor" ] || echo "$cursor" > $state
exec rsyslogd -n -iNONE -f CONFIGURATION"#;

/// The drop-in of a service whose records are forwarded.
///
/// systemd ignores an interval of 0. journald drops the records beyond the limit, before rsyslogd sees them.
pub const RATE_LIMIT: &str =
    "# Written by glovo-bootstrap.\n[Service]\nLogRateLimitIntervalSec=1s\nLogRateLimitBurst=20000\n";

/// How records are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// RELP, whose receiver acknowledges each record.
    Relp,
    /// Syslog over TCP.
    Tcp,
    /// The bulk API of `OpenSearch` and Elasticsearch.
    Elasticsearch,
}

impl Transport {
    fn module(self) -> &'static str {
        match self {
            Self::Relp => "omrelp",
            Self::Tcp => "builtin:omfwd",
            Self::Elasticsearch => "omelasticsearch",
        }
    }
}

/// The files for TLS, in PEM.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardTls {
    /// The authorities that sign the target's certificate.
    pub ca: AbsPath,
    /// The machine's certificate.
    pub certificate: Option<AbsPath>,
    /// Its key.
    pub key: Option<AbsPath>,
    /// The name in the target's certificate.
    pub peer: Option<String>,
}

/// A forward, without what its texts do not need.
#[derive(Debug)]
pub struct Forward<'a> {
    /// Its name: letters, digits, `_` and `-`.
    pub name: &'a str,
    /// The path of its configuration.
    pub path: &'a AbsPath,
    /// The directory of its queue.
    pub spool: &'a AbsPath,
    /// The units whose records are sent.
    pub units: Vec<&'a str>,
    /// The tags of other records that are sent.
    pub tags: &'a [String],
    /// The URL of the target, for [`Transport::Elasticsearch`].
    pub url: &'a str,
    /// The target's host and port, for the others.
    pub host_and_port: Option<(&'a str, u16)>,
    /// How records are sent.
    pub transport: Transport,
    /// The files for TLS.
    pub tls: Option<&'a ForwardTls>,
    /// The user name and the password.
    pub login: Option<(&'a str, &'a str)>,
    /// The first part of the name of an index.
    pub index: &'a str,
    /// The fields of each record.
    pub fields: Vec<(&'a str, &'a str)>,
    /// Limits the queue.
    pub queue_bytes: u64,
    /// The regular expression of lines that belong to the line before them.
    pub continuation: Option<&'a str>,
}

impl Forward<'_> {
    /// Returns the configuration of its rsyslogd.
    pub fn configuration(&self) -> String {
        let mut fields = String::new();
        for (name, value) in &self.fields {
            _ = writeln!(fields, "set $!doc!{} = \"{}\";", name, escaped(value));
        }
        // One pass, so that no declared text is taken for a part.
        let mut pieces = CONFIGURATION.split("<<");
        let mut text = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (part, rest) = piece.split_once(">>").unwrap_or((piece, ""));
            text += &match part {
                "SPOOL" => self.spool.to_string(),
                "GLOBAL" => self.network_stream(),
                "BATCH" => if self.transport == Transport::Relp { RELP_WINDOW } else { BATCH }.to_owned(),
                "MODULE" => self.transport.module().to_owned(),
                "INDEX" => self.index.to_owned(),
                "ACTION" => self.action(),
                "QUEUE" => self.queue_bytes.to_string(),
                "RECORDS" => (self.queue_bytes / SHORT_RECORD_BYTES).to_string(),
                "MATCH" => self.condition(),
                "NAME" => self.name.to_owned(),
                "CONTINUATION" => escaped(self.continuation.unwrap_or(CONTINUATION)),
                _ => fields.clone(),
            };
            text += rest;
        }
        text
    }

    /// Returns the condition of the records that it sends.
    ///
    /// Any program can set the fields without `_`. What systemd says about a unit has its pid, as in `journalctl --unit`.
    fn condition(&self) -> String {
        let of_unit = |unit: &&str| {
            let unit = escaped(unit);
            format!(
                "$!_SYSTEMD_UNIT == \"{unit}\" or ($!_PID == \"1\" and $!UNIT == \"{unit}\") or \
                 ($!_TRANSPORT == \"driver\" and $!MESSAGE_ID == \"{JOURNAL_DROPPED}\" and $msg contains \" {unit}\")"
            )
        };
        let of_tag = |tag: &String| format!("$!SYSLOG_IDENTIFIER == \"{}\"", escaped(tag));
        let conditions = self.units.iter().map(of_unit).chain(self.tags.iter().map(of_tag));
        conditions.collect::<Vec<_>>().join(" or ")
    }

    /// Returns the global parameters of a TLS stream of omfwd.
    fn network_stream(&self) -> String {
        let Some(tls) = self.tls.filter(|_| self.transport == Transport::Tcp) else { return String::new() };
        let mut text = format!(" defaultNetstreamDriver=\"gtls\" defaultNetstreamDriverCAFile=\"{}\"", tls.ca);
        if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
            _ = write!(
                text,
                " defaultNetstreamDriverCertFile=\"{certificate}\" defaultNetstreamDriverKeyFile=\"{key}\""
            );
        }
        text
    }

    /// Returns the parameters of the action that sends.
    fn action(&self) -> String {
        let (host, port) = self.host_and_port.unwrap_or_default();
        let to = format!("target=\"{host}\" port=\"{port}\" template=\"line\"");
        let peer = self.tls.and_then(|tls| tls.peer.as_deref()).unwrap_or(host);
        match (self.transport, self.tls) {
            (Transport::Relp, None) => format!("type=\"omrelp\" windowSize=\"{RELP_WINDOW}\" {to}"),
            (Transport::Relp, Some(_)) => format!(
                "type=\"omrelp\" windowSize=\"{RELP_WINDOW}\" {to} tls=\"on\" tls.authMode=\"name\" tls.permittedPeer=[\"{peer}\"]{}",
                self.certificates("tls.caCert", "tls.myCert", "tls.myPrivKey")
            ),
            (Transport::Tcp, None) => format!("type=\"omfwd\" protocol=\"tcp\" {to}"),
            (Transport::Tcp, Some(_)) => format!(
                "type=\"omfwd\" protocol=\"tcp\" {to} streamDriverMode=\"1\" streamDriverAuthMode=\"x509/name\" \
                 streamDriverPermittedPeers=\"{peer}\""
            ),
            (Transport::Elasticsearch, _) => {
                let mut action = format!(
                    "type=\"omelasticsearch\" server=\"{}\" template=\"document\" searchIndex=\"index\" \
                     dynSearchIndex=\"on\" searchType=\"\" bulkmode=\"on\" bulkid=\"id\" dynbulkid=\"on\" \
                     retryfailures=\"on\" retryruleset=\"again\"{}",
                    self.url,
                    self.certificates("tls.cacert", "tls.mycert", "tls.myprivkey")
                );
                if let Some((user, password)) = self.login {
                    _ = write!(action, " uid=\"{}\" pwd=\"{}\"", escaped(user), escaped(password));
                }
                action
            }
        }
    }

    fn certificates(&self, ca: &str, certificate: &str, key: &str) -> String {
        let Some(tls) = self.tls else { return String::new() };
        let files = [(ca, Some(&tls.ca)), (certificate, tls.certificate.as_ref()), (key, tls.key.as_ref())];
        let given = files.into_iter().filter_map(|(name, path)| Some(format!(" {name}=\"{}\"", path?)));
        given.collect()
    }

    /// Returns the text of its unit.
    ///
    /// It is stopped after the units that it reads, and has two seconds for their last lines. SIGKILL ends it: at SIGTERM,
    /// rsyslogd loses the records that it could not send yet, but the queue on disk is whole at any time.
    pub fn unit(&self) -> String {
        let before = if self.units.is_empty() { String::new() } else { format!("Before={}\n", self.units.join(" ")) };
        let script = START.replace("SPOOL", self.spool.as_str()).replace("CONFIGURATION", self.path.as_str());
        let script = script.replace('\\', r"\\").replace('$', "$$").replace('%', "%%").replace('\n', "; ");
        format!(
            "# Written by glovo-bootstrap.\n\
             [Unit]\n\
             Description=Forwards log records ({name})\n\
             {before}StartLimitIntervalSec=0\n\n\
             [Service]\n\
             Type=notify\n\
             ExecStart=/bin/sh -c '{script}'\n\
             ExecStop=/bin/sleep 2\n\
             KillSignal=SIGKILL\n\
             SuccessExitStatus=SIGKILL\n\
             Restart=always\n\
             RestartSec=1s\n\
             TimeoutStartSec=15s\n\
             StandardOutput=null\n\
             LogRateLimitIntervalSec=1min\n\
             LogRateLimitBurst=100\n\
             Nice=5\n\n\
             [Install]\n\
             WantedBy=multi-user.target\n",
            name = self.name,
        )
    }
}
