//! A machine that sends its logs, a collector with an `OpenSearch`, and the wire between them.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Wire, certificates, give, install};
use crate::base::PACKAGE;
use crate::step::converge;
use crate::{Machine, Options};

/// The longest time without a new line.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(90);

/// The sender's forward, with the default size of its queue, and its service.
pub const FORWARD: &str = r#"
[[resource]]
kind = "log_forward"
name = "app"
match = { units = ["app.service"], tags = ["app", "glovo-bootstrap"] }
target = "172.31.0.1:20514"
protocol = "relp"
queue = "256MiB"
fields = { build = "42", instance = "{{ instance.id }}", zone = "{{ instance.availability_zone }}" }

[resource.tls]
ca = "/etc/pki/logs/ca.pem"
certificate = "/etc/pki/logs/sender.test.pem"
key = "/etc/pki/logs/sender.test.key"
peer = "collector.test"

[[resource]]
kind = "service"
name = "log-forward-app.service"
enabled = true
running = true
restart_on = ["/etc/rsyslog.d/app.forward"]
"#;

/// An application that prints a stack trace, or some thousand lines per second, when it is asked to, and a last line when it
/// is stopped.
const APP: &str = r#"#!/bin/sh
trap 'echo lastwords; exit 0' TERM
trap 'printf "%s\n" "Exception in thread \"main\" java.lang.IllegalStateException: no" "	at app.Main.run(Main.java:3)" "	at app.Main.main(Main.java:9)" "Caused by: java.io.IOException: gone" "	... 2 more"' USR1
trap 'n=0; while [ $n -lt LINES ]; do seq -f "burst %.0f" $n $((n + 499)); n=$((n + 500)); sleep 0.1; done' USR2
echo started
while :; do sleep 0.1; done
"#;
const UNIT: &str = "[Service]\nExecStart=/usr/local/bin/app\n";

/// Returns a text of a record; empty if it has none.
pub fn text<'a>(record: &'a Value, field: &str) -> &'a str {
    record[field].as_str().unwrap_or_default()
}

/// Returns the number of lines that the application prints at 5,000 per second: `GLOVO_LOG_LINES`, a multiple of 500.
pub fn burst() -> u64 {
    std::env::var("GLOVO_LOG_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(5000)
}

/// A sender, a collector with an `OpenSearch`, and the wire between them.
pub struct Pair {
    pub sender: Machine,
    pub collector: Machine,
    pub wire: Wire,
}

impl Pair {
    /// Boots both. The sender's application is `app.service`, and its forward is `app`, with a queue of this size.
    pub fn boot(queue: &str) -> Result<Pair> {
        Pair::boot_with(Options::default(), queue)
    }

    /// Boots both, the sender with these options.
    pub fn boot_with(options: Options, queue: &str) -> Result<Pair> {
        let (sender, collector) = (Machine::boot(options)?, Machine::boot(Options::default())?);
        let pki = sender.directory().join("pki");
        certificates(&pki, &["sender.test", "collector.test"])?;
        for machine in [&sender, &collector] {
            install(machine)?;
            give(machine, &pki)?;
        }
        collector.sh("systemd-run --quiet --unit osmem osmem-server -addr 127.0.0.1:9200 -no-stdin-watch -no-ja; \
             until curl -fs 127.0.0.1:9200 > /dev/null; do sleep 0.1; done")?;
        let manifest = Path::new(PACKAGE).join("../../packaging/log-collector/collector.toml");
        fs::copy(manifest, collector.path("/root/collector.toml"))?;
        let wire = Wire::new(sender.world(), collector.world(), 20514)?;
        let pair = Pair { sender, collector, wire };
        pair.collect("run")?;
        fs::write(pair.sender.path("/usr/local/bin/app"), APP.replace("LINES", &burst().to_string()))?;
        fs::write(pair.sender.path("/etc/systemd/system/app.service"), UNIT)?;
        pair.sender.sh("chmod 755 /usr/local/bin/app")?;
        let forward = FORWARD.replace("256MiB", queue);
        converge(&pair.sender, &forward, &["log_forward app: create", "service log-forward-app.service: start"])?;
        pair.sender.sh("systemctl start app")?;
        Ok(pair)
    }

    /// Runs the collector's manifest, without its packages.
    pub fn collect(&self, verb: &str) -> Result<String> {
        let mut arguments = vec![verb, "--steps", "/root/collector.toml", "collector", "opensearch"];
        for variable in [
            "opensearch_url=http://127.0.0.1:9200",
            "tls_ca=/etc/pki/logs/ca.pem",
            "tls_certificate=/etc/pki/logs/collector.test.pem",
            "tls_key=/etc/pki/logs/collector.test.key",
        ] {
            arguments.extend(["--set", variable]);
        }
        self.collector.agent(&arguments)?.success()
    }

    /// Returns the records that a search finds.
    pub fn search(&self, query: &str) -> Result<Vec<Value>> {
        let url = format!("http://127.0.0.1:9200/logs-*/_search?size=10000&q={query}");
        let answer = self.collector.exec(&["curl", "--silent", &url])?.stdout;
        let answer: Value = serde_json::from_str(&answer).context(answer)?;
        Ok(answer["hits"]["hits"].as_array().into_iter().flatten().map(|hit| hit["_source"].clone()).collect())
    }

    /// Returns the messages of all records that a query finds, in pages by their sequence: a search has a limit.
    pub fn messages(&self, query: &str, count: usize) -> Result<Vec<String>> {
        let mut messages = vec![];
        for first in (0..).step_by(5000).take(100) {
            let page = self.search(&format!("{query}+AND+sequence:%5B{first}+TO+{}%5D", first + 4999))?;
            messages.extend(page.iter().map(|record| text(record, "message").to_owned()));
            if messages.len() >= count {
                break;
            }
        }
        Ok(messages)
    }

    /// Returns the number of records that a query finds.
    pub fn count(&self, query: &str) -> Result<u64> {
        let url = format!("http://127.0.0.1:9200/logs-*/_count?q={query}");
        let answer = self.collector.exec(&["curl", "--silent", &url])?.stdout;
        let count: Value = serde_json::from_str(&answer).context(answer.clone())?;
        count["count"].as_u64().context(answer)
    }

    /// Waits until there are exactly as many records.
    pub fn wait_for_count(&self, query: &str, count: u64) -> Result<()> {
        let ask = || self.count(query);
        let mut last = (ask()?, Instant::now());
        while last.0 < count {
            sleep(Duration::from_millis(300));
            let now = ask()?;
            if now > last.0 {
                last = (now, Instant::now());
            }
            ensure!(last.1.elapsed() < ARRIVAL_TIMEOUT, "{now} of {count} for {query}");
        }
        sleep(Duration::from_secs(2));
        ensure!(ask()? == count, "{} instead of {count} for {query}", ask()?);
        Ok(())
    }

    /// Waits until a search finds as many records.
    pub fn wait_for(&self, query: &str, count: usize) -> Result<Vec<Value>> {
        let start = Instant::now();
        loop {
            let found = self.search(query)?;
            if found.len() >= count {
                return Ok(found);
            }
            let log = || self.sender.sh("journalctl -n 20 -t rsyslogd -t log_forward; ls -l /var/lib/rsyslog/app");
            ensure!(start.elapsed() < ARRIVAL_TIMEOUT, "{} of {count} for {query}: {}", found.len(), log()?);
            sleep(Duration::from_millis(300));
        }
    }
}
