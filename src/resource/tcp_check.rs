//! The kind `tcp_check`.

use std::time::Duration;

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Change, Finding, Kind, Resource, wait::CheckDeadline};
use crate::{
    error::Fault,
    system::System,
    value::{Span, quoted, spoken},
};

/// A server that accepts TCP connections, such as a database. The run connects until the deadline, or until a service that
/// it has started ends. Nothing is sent. At the deadline, the run exits with 75. Without systemd, as in many
/// containers, it is deferred.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {
    /// The server: `HOST:PORT`, such as `127.0.0.1:5432`, `db.internal:5432` or `[::1]:6379`.
    address: String,
    /// How long to wait for a connection. `0s` tries once. Default: 60s.
    #[serde(default = "minute")]
    deadline: Span,
}

fn minute() -> Span {
    Span(Duration::from_mins(1))
}

impl Kind for TcpCheck {
    const NAME: &'static str = "tcp_check";
    const EXAMPLE: &'static str = r#"kind = "tcp_check"
address = "127.0.0.1:5432"
deadline = "60s""#;
}

impl Resource for TcpCheck {
    fn title(&self) -> String {
        self.address.clone()
    }

    fn check(&self) -> Vec<Finding> {
        if self.parts().is_some() {
            return vec![];
        }
        let message = format!("`{}` is not HOST:PORT", self.address.escape_debug());
        vec![Finding::new("address", message).hint("such as 127.0.0.1:5432, db.internal:5432 or [::1]:6379")]
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        if !system.is_serving() {
            return Ok(vec![Change::deferred(format!("connect (deferred: {})", system.why_not_live()))]);
        }
        let wait = CheckDeadline::begin(self.deadline.0);
        let Some(wrong) = self.ask(system, wait.first_limit()) else { return Ok(vec![]) };
        let (summary, check) = (format!("wait for a connection (now: {wrong})"), self.clone());
        Ok(vec![Change::new(summary, move |system| check.wait(system, wait, wrong))])
    }
}

impl TcpCheck {
    /// Returns the host without brackets and the port; `None` if the address is none.
    fn parts(&self) -> Option<(&str, u16)> {
        let (host, port) = self.address.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let is_valid = match inner {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(is_name),
        };
        is_valid.then_some((inner.unwrap_or(host), port))
    }

    /// Connects. Returns the reason why there is no connection; `None` if there is one.
    fn ask(&self, system: &System, limit: Duration) -> Option<String> {
        let (host, port) = self.parts()?;
        system.fetcher.connect(&system.host, host, port, limit).err().map(|error| format!("{error:#}"))
    }

    fn wait(&self, system: &System, wait: CheckDeadline, wrong: String) -> Result<()> {
        let ask = |system: &System, limit| self.ask(system, limit);
        let Some(wrong) = wait.until_right(system, &self.address, wrong, ask)? else { return Ok(()) };
        let (address, deadline) = (&self.address, spoken(self.deadline.0));
        let hint = format!(
            "find the cause: ss --listening --tcp --numeric; systemctl --failed; getent hosts {}; then run again: {}",
            quoted(self.parts().map_or("", |(host, _)| host)),
            system.host.run_command()
        );
        Err(Fault::new(format!("{address} accepted no connection within {deadline}: {wrong}"))
            .hint(hint)
            .transient()
            .into())
    }
}
