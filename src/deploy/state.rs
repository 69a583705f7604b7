//! The states of a stack, what each means, and the next safe step.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html>

use std::borrow::Cow;

/// What can be done with a stack in some state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It can be deployed to.
    Ready,
    /// An operation is running; wait for it.
    Busy,
    /// The operator must act first.
    Stuck,
    /// It does not exist, or holds nothing.
    Absent,
}

/// A state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackState {
    /// CloudFormation's name for it.
    pub name: Cow<'static, str>,
    /// What can be done.
    pub condition: Condition,
    /// Whether the last operation on the stack failed.
    pub failed: bool,
    /// What it means.
    pub meaning: &'static str,
    /// What to do next. `STACK` stands for the stack's name.
    pub next: &'static str,
}

const CREATE: &str = "glovo-bootstrap deploy create-stack --stack STACK";
const UPDATE: &str = "glovo-bootstrap deploy update-stack --stack STACK";
const WATCH: &str = "glovo-bootstrap deploy watch --stack STACK";
const DELETE: &str = "glovo-bootstrap deploy delete-stack --stack STACK";
const UNSTICK: &str = "aws cloudformation continue-update-rollback --stack-name STACK";

const fn state(
    name: &'static str,
    condition: Condition,
    failed: bool,
    meaning: &'static str,
    next: &'static str,
) -> StackState {
    StackState { name: Cow::Borrowed(name), condition, failed, meaning, next }
}

/// All of them.
pub const STATES: [StackState; 23] = [
    state("REVIEW_IN_PROGRESS", Condition::Absent, false, "only a change set exists; the stack holds nothing", CREATE),
    state("CREATE_IN_PROGRESS", Condition::Busy, false, "it is being created", WATCH),
    state("CREATE_COMPLETE", Condition::Ready, false, "it was created and has not been updated since", UPDATE),
    state(
        "CREATE_FAILED",
        Condition::Stuck,
        true,
        "creating it failed; its resources are still there (rollback was disabled)",
        DELETE,
    ),
    state(
        "ROLLBACK_IN_PROGRESS",
        Condition::Busy,
        true,
        "creating it failed; CloudFormation is removing its resources",
        WATCH,
    ),
    state(
        "ROLLBACK_COMPLETE",
        Condition::Stuck,
        true,
        "creating it failed and its resources are removed; this empty stack can only be deleted",
        DELETE,
    ),
    state(
        "ROLLBACK_FAILED",
        Condition::Stuck,
        true,
        "creating it failed, and removing its resources failed too; see which are left and why",
        DELETE,
    ),
    state("DELETE_IN_PROGRESS", Condition::Busy, false, "it is being deleted", WATCH),
    state("DELETE_COMPLETE", Condition::Absent, false, "it was deleted", CREATE),
    state(
        "DELETE_FAILED",
        Condition::Stuck,
        true,
        "deleting it failed; see its events for what still uses the remaining resources",
        DELETE,
    ),
    state("UPDATE_IN_PROGRESS", Condition::Busy, false, "it is being updated", WATCH),
    state(
        "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
        Condition::Busy,
        false,
        "it was updated; CloudFormation is removing what the update replaced",
        WATCH,
    ),
    state("UPDATE_COMPLETE", Condition::Ready, false, "the last update succeeded", UPDATE),
    state(
        "UPDATE_FAILED",
        Condition::Stuck,
        true,
        "the last update failed and is applied in part (rollback was disabled)",
        "aws cloudformation rollback-stack --stack-name STACK",
    ),
    state(
        "UPDATE_ROLLBACK_IN_PROGRESS",
        Condition::Busy,
        true,
        "the last update failed; CloudFormation is rolling it back",
        WATCH,
    ),
    state(
        "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS",
        Condition::Busy,
        true,
        "the last update failed and is rolled back; CloudFormation is removing what it created",
        WATCH,
    ),
    state(
        "UPDATE_ROLLBACK_COMPLETE",
        Condition::Ready,
        true,
        "the last update failed and was rolled back; the previous state is in force",
        UPDATE,
    ),
    state(
        "UPDATE_ROLLBACK_FAILED",
        Condition::Stuck,
        true,
        "the last update failed, and so did its rollback; fix the cause shown in its events, then continue the rollback",
        UNSTICK,
    ),
    state("IMPORT_IN_PROGRESS", Condition::Busy, false, "resources are being imported into it", WATCH),
    state("IMPORT_COMPLETE", Condition::Ready, false, "resources were imported into it", UPDATE),
    state(
        "IMPORT_ROLLBACK_IN_PROGRESS",
        Condition::Busy,
        true,
        "an import failed; CloudFormation is rolling it back",
        WATCH,
    ),
    state("IMPORT_ROLLBACK_COMPLETE", Condition::Ready, true, "an import failed and was rolled back", UPDATE),
    state(
        "IMPORT_ROLLBACK_FAILED",
        Condition::Stuck,
        true,
        "an import failed, and so did its rollback; fix the cause shown in its events, then continue the rollback",
        UNSTICK,
    ),
];

impl StackState {
    /// Returns the state of this name. An unknown state is waited for if it is in progress, else left alone.
    pub fn of(name: &str) -> Self {
        if let Some(known) = STATES.iter().find(|state| state.name == name) {
            return known.clone();
        }
        let (condition, next) = if name.ends_with("_IN_PROGRESS") {
            (Condition::Busy, WATCH)
        } else {
            (Condition::Stuck, "look at the stack in the AWS console")
        };
        Self {
            name: name.to_owned().into(),
            condition,
            failed: name.contains("FAILED") || name.contains("ROLLBACK"),
            meaning: "this program does not know this state",
            next,
        }
    }

    /// Returns the next command for a stack of this name that these arguments select.
    pub fn next_for(&self, stack: &str, arguments: &str) -> String {
        self.next.replace("--stack STACK", arguments).replace("STACK", stack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_is_not_known_is_left_alone() {
        assert_eq!(StackState::of("RESHAPE_IN_PROGRESS").condition, Condition::Busy);
        assert_eq!(StackState::of("RESHAPE_FAILED").condition, Condition::Stuck);
        assert_eq!(StackState::of("RESHAPE_FAILED").name, "RESHAPE_FAILED");
        assert!(StackState::of("RESHAPE_ROLLBACK_COMPLETE").failed);
    }

    #[test]
    fn what_is_in_progress_is_busy() {
        for state in STATES.iter().filter(|state| state.name != "REVIEW_IN_PROGRESS") {
            assert_eq!(state.condition == Condition::Busy, state.name.ends_with("_IN_PROGRESS"), "{}", state.name);
        }
    }
}
