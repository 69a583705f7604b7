//! The outcome of a run in the terms of CloudFormation and Auto Scaling, and the names of the receivers.
//!
//! [`super::send`] sends it.

use std::{fmt, str::FromStr};

use anyhow::{Result, ensure};

/// The receiver of a signal, `STACK/RESOURCE`: a stack's name or id, and the logical id of the resource that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalTarget {
    /// The stack's name or id (an ARN, which holds slashes).
    pub stack: String,
    /// The resource's logical id in the template.
    pub resource: String,
}

impl FromStr for SignalTarget {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (stack, resource) = text.rsplit_once('/').unwrap_or_default();
        // https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/resources-section-structure.html
        let is_id = !resource.is_empty() && resource.chars().all(|c| c.is_ascii_alphanumeric());
        let is_stack = |c: char| c.is_ascii_alphanumeric() || "-:/".contains(c);
        ensure!(
            is_id && !stack.is_empty() && stack.chars().all(is_stack),
            "`{text}` is not STACK/RESOURCE, such as glovo-app/Group"
        );
        Ok(Self { stack: stack.into(), resource: resource.into() })
    }
}

impl fmt::Display for SignalTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stack, self.resource)
    }
}

/// A lifecycle hook that keeps an instance out of its group until its run has converged: `GROUP/HOOK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The Auto Scaling group's name.
    pub group: String,
    /// The hook's name, which may hold slashes.
    pub name: String,
}

impl FromStr for Hook {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (group, name) = text.split_once('/').unwrap_or_default();
        ensure!(!group.is_empty() && !name.is_empty(), "`{text}` is not GROUP/HOOK");
        Ok(Self { group: group.into(), name: name.into() })
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.name)
    }
}

/// The outcome of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All steps converged.
    Success,
    /// Something failed.
    Failure {
        /// The step, if one failed.
        step: Option<String>,
        /// The kind of failure, if not an error of the step: `panic`, `SIGKILL`, `deadline` …
        how: Option<String>,
    },
}

impl Verdict {
    /// Returns the outcome in CloudFormation's terms.
    pub fn status(&self) -> &'static str {
        if *self == Self::Success { "SUCCESS" } else { "FAILURE" }
    }

    /// Returns the outcome in Auto Scaling's terms. Auto Scaling replaces an abandoned instance.
    pub fn lifecycle_result(&self) -> &'static str {
        if *self == Self::Success { "CONTINUE" } else { "ABANDON" }
    }

    /// Returns the signal's `UniqueId`: the instance's id, and after a failure its step and kind.
    ///
    /// At most 64 characters:
    /// <https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_SignalResource.html>
    pub fn unique_id(&self, instance: &str) -> String {
        const MAX_CHARACTERS: usize = 64;
        let Self::Failure { step, how } = self else { return instance.to_owned() };
        let how = how.as_ref().map(|how| format!(" {how}")).unwrap_or_default();
        let step = step.as_ref().map(|step| format!(" {step}")).unwrap_or_default();
        let room = MAX_CHARACTERS.saturating_sub(instance.chars().count() + how.chars().count());
        let step: String = step.chars().take(room).collect();
        format!("{instance}{}{how}", step.trim_end()).chars().take(MAX_CHARACTERS).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_stack_and_a_logical_id() {
        let arn = "arn:aws:cloudformation:eu-central-1:123456789012:stack/app/7d2e3dd0-f5f3-11e7-93f5-50a686e4bb4a";
        for (text, stack) in [("app/Group", "app".to_owned()), (&format!("{arn}/Group"), arn.to_owned())] {
            let target: SignalTarget = text.parse().unwrap();
            assert_eq!((&target.stack, &*target.resource, target.to_string()), (&stack, "Group", text.to_owned()));
        }
        for wrong in ["", "app", "/Group", "app/", "app/My-Group", "a b/Group", "app?/Group", "a\n/Group"] {
            assert!(wrong.parse::<SignalTarget>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_failures_id_says_where_and_how_in_64_characters() {
        let id = |step: Option<&str>, how: Option<&str>| {
            let verdict = Verdict::Failure { step: step.map(Into::into), how: how.map(Into::into) };
            verdict.unique_id("i-0123456789abcdef0")
        };
        assert_eq!(Verdict::Success.unique_id("i-0123456789abcdef0"), "i-0123456789abcdef0");
        assert_eq!(id(Some("copy_http_resources"), None), "i-0123456789abcdef0 copy_http_resources");
        assert_eq!(id(Some("verify"), Some("deadline")), "i-0123456789abcdef0 verify deadline");
        assert_eq!(id(None, Some("panic")), "i-0123456789abcdef0 panic");
        assert_eq!(id(None, None), "i-0123456789abcdef0");
        let long = id(Some(&"é".repeat(100)), Some("SIGKILL"));
        assert_eq!((long.chars().count(), long.ends_with("éé SIGKILL")), (64, true));
    }
}
