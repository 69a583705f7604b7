//! Errors for an engineer at 3 a.m.: what failed, why, and what to do next.
//!
//! The code uses [`anyhow`] with context. An error with a hint or a class has a [`Fault`] in its chain. Only this file
//! turns an error into an exit code and a hint.

use std::fmt;

use crate::{redaction, visible};

/// The class of an error, which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Class {
    /// A retry fails in the same way: exit 1.
    #[default]
    Permanent,
    /// A temporary failure (a lock, a 503, a network that is not up): exit 75 (`EX_TEMPFAIL`).
    Transient,
    /// The command line or the manifest is wrong; nothing was changed: exit 2.
    Invalid,
    /// Another run holds the machine's lock: exit 4.
    Locked,
    /// The operator has to log in to AWS: exit 77 (`EX_NOPERM`).
    LoggedOut,
    /// Signal number `n` ended the run: exit 128 + n.
    Interrupted(i32),
}

/// An error with a hint and a class. Its message names the failure, in lower case and without a full stop.
#[derive(Debug, Default)]
pub struct Fault {
    message: String,
    hint: Option<String>,
    class: Class,
    are_causes_shown: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Fault {
    /// Makes a permanent fault without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// Sets the hint: what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns the hint.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Sets the class.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// Sets [`Class::Transient`].
    #[must_use]
    pub fn transient(self) -> Self {
        self.class(Class::Transient)
    }

    /// Sets [`Class::Invalid`].
    #[must_use]
    pub fn invalid(self) -> Self {
        self.class(Class::Invalid)
    }

    /// Sets [`Class::LoggedOut`].
    #[must_use]
    pub fn logged_out(self) -> Self {
        self.class(Class::LoggedOut)
    }

    /// Makes [`render`] leave out the causes, because they were printed before.
    #[must_use]
    pub fn causes_were_shown(mut self) -> Self {
        self.are_causes_shown = true;
        self
    }

    /// Sets the cause, which is printed as `caused by`.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<anyhow::Error>) -> Self {
        // Only this conversion keeps the type, so that a Fault below is still found in the chain.
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
    // A fault that was added as context is not in the chain itself; only anyhow's downcast finds it.
    error.downcast_ref().into_iter().chain(error.chain().filter_map(|cause| cause.downcast_ref()))
}

/// Returns the class of an error: that of the first [`Fault`] in its chain that is not permanent.
pub fn class(error: &anyhow::Error) -> Class {
    faults(error).map(|fault| fault.class).find(|class| *class != Class::Permanent).unwrap_or_default()
}

/// Returns the first hint in an error's chain.
pub fn hint(error: &anyhow::Error) -> Option<&str> {
    faults(error).find_map(|fault| fault.hint.as_deref())
}

/// Returns the process's exit code for an error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match class(error) {
        Class::Permanent => 1,
        Class::Transient => 75,
        Class::Invalid => 2,
        Class::Locked => 4,
        Class::LoggedOut => 77,
        Class::Interrupted(signal) => 128u8.saturating_add(u8::try_from(signal).unwrap_or(u8::MAX)),
    }
}

/// Returns an error as the user reads it: `error:`, a `caused by:` line for each cause, and `hint:`.
///
/// Further lines of a text are indented. Control characters are escaped.
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

/// Fails with several errors as `sum` with a list of them all, if there are any. An error that is not the input's, such as a
/// temporary failure or an interruption, stands for all.
pub fn together(sum: Fault, mut errors: Vec<anyhow::Error>) -> anyhow::Result<()> {
    let is_of_input = |error: &anyhow::Error| matches!(class(error), Class::Permanent | Class::Invalid);
    if let Some(other) = errors.iter().position(|error| !is_of_input(error)) {
        return Err(errors.swap_remove(other));
    }
    if errors.len() < 2 {
        return errors.pop().map_or(Ok(()), Err);
    }
    let list: String = errors.iter().map(|error| format!("\n  - {}", line(error))).collect();
    Err(Fault { message: sum.message.clone() + &list, ..sum }.into())
}

/// Returns an error with its causes and its hint in one line.
fn line(error: &anyhow::Error) -> String {
    let are_shown = |cause: &&(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<Fault>().is_some_and(|fault| fault.are_causes_shown)
    };
    let count = error.chain().position(|cause| are_shown(&cause)).map_or(usize::MAX, |index| index + 1);
    let causes: Vec<String> = error.chain().take(count).map(ToString::to_string).collect();
    let hint = hint(error).map(|hint| format!(" ({hint})")).unwrap_or_default();
    causes.join(": ") + &hint
}

/// Returns an error with the words, the hint and the class of another one, which several resources share.
pub fn again(error: &anyhow::Error) -> anyhow::Error {
    let mut causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    let mut fault = Fault::new(causes.pop().unwrap_or_default()).class(class(error));
    fault.hint = hint(error).map(Into::into);
    causes.into_iter().rev().fold(fault.into(), anyhow::Error::context)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

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
