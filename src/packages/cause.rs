//! The cause of a package manager's failure, found in its output. Its exit code is the same for every failure.

use std::borrow::Cow;

use crate::error::Fault;

/// The cause of a failure of a package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A run was interrupted. A command of the package manager repairs it.
    Interrupted,
    /// Another process took a lock between this program's check and the package manager's. A retry waits for it.
    Locked,
    /// A mirror did not answer, or answered with a server error. A later retry may succeed.
    Network,
    /// The lists are older than the mirror, or the mirror is being updated. An update of the lists may help.
    Stale,
    /// The lists do not have a package. An update of the lists may help.
    Unknown,
    /// This machine's clock is wrong. It may be set soon.
    Clock,
    /// An index has expired, or this machine's clock is ahead.
    Expired,
    /// A mirror's certificate is not trusted, or this machine's clock is wrong.
    Certificate,
    /// A retry cannot help.
    Permanent,
}

impl Cause {
    /// Returns whether the failure is temporary.
    pub(crate) fn is_transient(self) -> bool {
        matches!(self, Self::Locked | Self::Network | Self::Stale | Self::Clock)
    }
}

/// The causes of one package manager.
#[derive(Debug)]
pub(crate) struct CauseTable {
    /// The causes, their texts in the output, and their hints. The first row with a match counts.
    pub(crate) rows: &'static [(Cause, &'static [&'static str], &'static str)],
    /// Returns a better hint for a line, with what the line names.
    pub(crate) advice: fn(&str) -> Option<String>,
    /// Returns the lines of the package manager itself, without those of the packages' scripts.
    pub(crate) own_lines: fn(&str) -> Vec<&str>,
}

impl CauseTable {
    /// Returns the diagnosis of an output.
    pub(crate) fn diagnosis<'a>(&self, output: &'a str) -> Diagnosis<'a> {
        let own_lines = (self.own_lines)(output);
        for (cause, texts, hint) in self.rows {
            if let Some(line) = own_lines.iter().find(|line| texts.iter().any(|text| line.contains(text))) {
                let hint = (self.advice)(line).map_or(Cow::Borrowed(*hint), Cow::Owned);
                return Diagnosis { cause: *cause, line, hint: Some(hint) };
            }
        }
        Diagnosis { cause: Cause::Permanent, line: output.lines().last().unwrap_or_default(), hint: None }
    }
}

/// The cause of a failure and its hint.
#[derive(Debug)]
pub(crate) struct Diagnosis<'a> {
    /// The cause.
    pub(crate) cause: Cause,
    /// The line of the output that shows the cause; the last line if the cause is not known.
    pub(crate) line: &'a str,
    /// The hint, if the cause is known.
    pub(crate) hint: Option<Cow<'static, str>>,
}

impl Diagnosis<'_> {
    /// Replaces the hint.
    pub(crate) fn advise(&mut self, hint: String) {
        self.hint = Some(hint.into());
    }

    /// Returns a fault with this cause's class and hint.
    pub(crate) fn fault(&self, message: String) -> Fault {
        let fault = Fault::new(message);
        let fault = if self.cause.is_transient() { fault.transient() } else { fault };
        match &self.hint {
            Some(hint) => fault.hint(hint.as_ref()),
            None => fault,
        }
    }
}
