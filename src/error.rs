//! Errors for a person at 3 a.m.: what was attempted, why it failed, what to do next.
//!
//! The code uses [`anyhow`] with context. Where an error carries more than its words (a hint, or a
//! meaning for the exit code), a [`Fault`] stands in its chain. This is the one place that turns an
//! error into an exit code and a hint.

use std::fmt;

use crate::{redaction, visible};

/// What an error means for whoever started the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Class {
    /// Trying again changes nothing: exit 1.
    #[default]
    Permanent,
    /// The cause may pass (a lock, a 503, a network that is not up): exit 75 (`EX_TEMPFAIL`).
    Transient,
    /// The command line or the manifest is wrong and nothing was touched: exit 2.
    Invalid,
    /// Another run holds the machine's lock: exit 4.
    Locked,
    /// Signal number `n` ended the run: exit 128 + n.
    Interrupted(i32),
}

/// An error with a hint and a class. Its message says what failed, lower-case and without a full stop.
#[derive(Debug, Default)]
pub struct Fault {
    message: String,
    hint: Option<String>,
    class: Class,
    are_causes_shown: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Fault {
    /// A permanent fault without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What to do next, if that was said.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Says what the fault means for the exit code.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// Shorthand for [`Class::Transient`].
    #[must_use]
    pub fn transient(self) -> Self {
        self.class(Class::Transient)
    }

    /// Shorthand for [`Class::Invalid`].
    #[must_use]
    pub fn invalid(self) -> Self {
        self.class(Class::Invalid)
    }

    /// Says that its causes are on the screen already: [`render`] leaves them out.
    #[must_use]
    pub fn causes_were_shown(mut self) -> Self {
        self.are_causes_shown = true;
        self
    }

    /// Keeps the error that led to this one, printed as `caused by`.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<anyhow::Error>) -> Self {
        // This conversion alone keeps the type, so that a Fault below is still found in the chain.
        self.source = Some(source.into().reallocate_into_boxed_dyn_error_without_backtrace());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

fn faults(error: &anyhow::Error) -> impl Iterator<Item = &Fault> {
    // One that was given as context is no error of its own in the chain; anyhow alone finds it.
    error.downcast_ref().into_iter().chain(error.chain().filter_map(|cause| cause.downcast_ref()))
}

/// The class of an error: that of the first [`Fault`] in its chain that is not simply permanent.
pub fn class(error: &anyhow::Error) -> Class {
    faults(error).map(|fault| fault.class).find(|class| *class != Class::Permanent).unwrap_or_default()
}

/// The hint nearest to the top of an error's chain.
pub fn hint(error: &anyhow::Error) -> Option<&str> {
    faults(error).find_map(|fault| fault.hint.as_deref())
}

/// The process's exit code for an error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match class(error) {
        Class::Permanent => 1,
        Class::Transient => 75,
        Class::Invalid => 2,
        Class::Locked => 4,
        Class::Interrupted(signal) => 128u8.saturating_add(u8::try_from(signal).unwrap_or(u8::MAX)),
    }
}

/// An error as the user reads it: `error:`, a `caused by:` line for each cause, and `hint:`. What others wrote in it is
/// visible, and stands indented behind the first line of what quotes it.
pub fn render(error: &anyhow::Error) -> String {
    use fmt::Write;
    let mut text = String::new();
    let mut part = |name: &str, words: &str| {
        _ = writeln!(text, "{name}: {}", visible::lines(&redaction::shown(words)).replace('\n', "\n  "));
    };
    for (index, cause) in error.chain().enumerate() {
        part(if index == 0 { "error" } else { "caused by" }, &cause.to_string());
        if cause.downcast_ref::<Fault>().is_some_and(|fault| fault.are_causes_shown) {
            break;
        }
    }
    if let Some(hint) = hint(error) {
        part("hint", hint);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn hint_and_class_are_found_below_plain_context() {
        let error =
            Err::<(), _>(Fault::new("lock is held").hint("wait").transient()).context("installing nginx").unwrap_err();
        assert_eq!((class(&error), hint(&error), exit_code(&error)), (Class::Transient, Some("wait"), 75));
        assert_eq!(render(&error), "error: installing nginx\ncaused by: lock is held\nhint: wait\n");
    }

    #[test]
    fn a_permanent_fault_on_top_does_not_hide_the_interruption_below() {
        let below = Fault::new("stopped").class(Class::Interrupted(15));
        let error = anyhow::Error::from(Fault::new("apt-get failed").caused_by(below));
        assert_eq!(exit_code(&error), 143);
        let error = anyhow::anyhow!("timed out").context(Fault::new("lock is held").hint("wait")).context("installing");
        assert_eq!(hint(&error), Some("wait"));
        let below = anyhow::Error::from(Fault::new("full").hint("make room")).context("writing");
        let error = anyhow::Error::from(Fault::new("not installed").invalid().caused_by(below));
        assert_eq!((hint(&error), error.chain().count()), (Some("make room"), 3));
    }
}
