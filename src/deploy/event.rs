//! An event of a stack: what became of one of its resources, and why.

use serde::Serialize;

use crate::aws::answer::Element;

/// The type of a stack among the types of resources.
pub(super) const STACK_TYPE: &str = "AWS::CloudFormation::Stack";
/// The type of an Auto Scaling group among the types of resources.
pub(super) const GROUP_TYPE: &str = "AWS::AutoScaling::AutoScalingGroup";

/// An event, in CloudFormation's words.
#[derive(Debug, Clone, Serialize)]
pub struct StackEvent {
    /// Unique id.
    pub id: String,
    /// Time, in RFC 3339.
    pub time: String,
    /// The resource's name in the template.
    pub resource: String,
    /// The resource's type.
    pub kind: String,
    /// The resource's new status.
    pub status: String,
    /// Why it has this status; often empty.
    pub reason: String,
    /// The resource's id in AWS.
    pub physical: String,
    /// The id of the operation; empty if CloudFormation does not tell it.
    pub operation: String,
}

impl StackEvent {
    /// Reads a member of `StackEvents` in an answer of `DescribeStackEvents`.
    pub(super) fn read(element: &Element) -> Self {
        let text = |name| element.text(name).to_owned();
        Self {
            id: text("EventId"),
            time: text("Timestamp"),
            resource: text("LogicalResourceId"),
            kind: text("ResourceType"),
            status: text("ResourceStatus"),
            reason: text("ResourceStatusReason"),
            physical: text("PhysicalResourceId"),
            operation: text("OperationId"),
        }
    }

    /// Returns whether an operation on the whole stack starts with this event.
    pub(super) fn is_start(&self) -> bool {
        self.kind == STACK_TYPE
            && ["CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS"].contains(&self.status.as_str())
            && self.physical.contains(&self.resource)
    }

    /// Returns whether the resource is being worked on.
    pub(super) fn is_in_progress(&self) -> bool {
        self.status.ends_with("_IN_PROGRESS")
    }

    /// Returns whether the resource failed by itself: a failure that another failure caused does not count.
    pub(super) fn is_failure(&self) -> bool {
        let is_consequence =
            self.reason.contains("cancelled") || self.reason.starts_with("The following resource(s) failed");
        self.status.ends_with("_FAILED") && !is_consequence
    }

    /// Returns the machine that signalled success with this event.
    pub(super) fn success_of(&self) -> Option<&str> {
        self.reason.strip_prefix("Received SUCCESS signal with UniqueId ")
    }

    /// Returns the machine that signalled failure with this event, and what its signal says besides.
    pub(super) fn failure_of(&self) -> Option<(&str, &str)> {
        let signal = self.reason.strip_prefix("Received FAILURE signal with UniqueId ")?.trim();
        let (machine, words) = signal.split_once(' ').unwrap_or((signal, ""));
        machine.starts_with("i-").then_some((machine, words))
    }
}
