//! The states of a stack, what each means, and the next safe step.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html>

use std::borrow::Cow;

/// What can be done with a stack in some state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It can be deployed to.
    Ready,
    /// Something is going on; it has to be waited for.
    Busy,
    /// Somebody has to do something first.
    Stuck,
    /// There is none, or none that holds anything.
    Absent,
}

/// A state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackState {
    /// CloudFormation's name for it.
    pub name: Cow<'static, str>,
    /// What can be done.
    pub condition: Condition,
    /// Whether the last thing that was tried with the stack failed.
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
    state(
        "REVIEW_IN_PROGRESS",
        Condition::Absent,
        false,
        "only a change set was made, the stack holds nothing",
        CREATE,
    ),
    state("CREATE_IN_PROGRESS", Condition::Busy, false, "it is being created", WATCH),
    state("CREATE_COMPLETE", Condition::Ready, false, "it was created, and nothing has changed it since", UPDATE),
    state(
        "CREATE_FAILED",
        Condition::Stuck,
        true,
        "creating it failed, and what was made by then is still there (rollback was switched off)",
        DELETE,
    ),
    state("ROLLBACK_IN_PROGRESS", Condition::Busy, true, "creating it failed, what was made is being removed", WATCH),
    state(
        "ROLLBACK_COMPLETE",
        Condition::Stuck,
        true,
        "creating it failed and all was removed: an empty stack that can only be deleted",
        DELETE,
    ),
    state(
        "ROLLBACK_FAILED",
        Condition::Stuck,
        true,
        "creating it failed, and removing what was made failed too: see which resources are left and why",
        DELETE,
    ),
    state("DELETE_IN_PROGRESS", Condition::Busy, false, "it is being deleted", WATCH),
    state("DELETE_COMPLETE", Condition::Absent, false, "it was deleted", CREATE),
    state(
        "DELETE_FAILED",
        Condition::Stuck,
        true,
        "deleting it failed: what is left is in use by something else, see its events for what",
        DELETE,
    ),
    state("UPDATE_IN_PROGRESS", Condition::Busy, false, "it is being updated", WATCH),
    state(
        "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
        Condition::Busy,
        false,
        "it was updated, what the update replaced is being removed",
        WATCH,
    ),
    state("UPDATE_COMPLETE", Condition::Ready, false, "the last update is in force", UPDATE),
    state(
        "UPDATE_FAILED",
        Condition::Stuck,
        true,
        "the last update failed, and half of it is in force (rollback was switched off)",
        "aws cloudformation rollback-stack --stack-name STACK",
    ),
    state(
        "UPDATE_ROLLBACK_IN_PROGRESS",
        Condition::Busy,
        true,
        "the last update failed, the stack goes back to what it was before",
        WATCH,
    ),
    state(
        "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS",
        Condition::Busy,
        true,
        "the last update failed and is undone, what it had made is being removed",
        WATCH,
    ),
    state(
        "UPDATE_ROLLBACK_COMPLETE",
        Condition::Ready,
        true,
        "the last update failed and was undone: what was before it is in force",
        UPDATE,
    ),
    state(
        "UPDATE_ROLLBACK_FAILED",
        Condition::Stuck,
        true,
        "the last update failed, and undoing it failed too: mend what its events name, then let it go on",
        UNSTICK,
    ),
    state("IMPORT_IN_PROGRESS", Condition::Busy, false, "resources are being imported into it", WATCH),
    state("IMPORT_COMPLETE", Condition::Ready, false, "resources were imported into it", UPDATE),
    state("IMPORT_ROLLBACK_IN_PROGRESS", Condition::Busy, true, "an import failed and is being undone", WATCH),
    state("IMPORT_ROLLBACK_COMPLETE", Condition::Ready, true, "an import failed and was undone", UPDATE),
    state(
        "IMPORT_ROLLBACK_FAILED",
        Condition::Stuck,
        true,
        "an import failed, and undoing it failed too: mend what its events name, then let it go on",
        UNSTICK,
    ),
];

impl StackState {
    /// The state of this name. One that is not known is waited for if it is in progress, else nothing is done with it.
    pub fn of(name: &str) -> Self {
        if let Some(known) = STATES.iter().find(|state| state.name == name) {
            return known.clone();
        }
        let (condition, next) = if name.ends_with("_IN_PROGRESS") {
            (Condition::Busy, WATCH)
        } else {
            (Condition::Stuck, "see the stack in the AWS console")
        };
        Self {
            name: name.to_owned().into(),
            condition,
            failed: name.contains("FAILED") || name.contains("ROLLBACK"),
            meaning: "this program does not know it",
            next,
        }
    }

    /// The next step, for a stack of this name that this program finds by these arguments.
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
