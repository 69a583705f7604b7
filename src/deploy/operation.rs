//! Failures that CloudFormation tells only with its operation: early validation and hooks.
//!
//! `DescribeStackEvents` does not have them. Some regions, emulators and policies do not have `DescribeEvents`.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeEvents.html>

use anyhow::Result;

use crate::{
    aws::{answer::Element, query::Call, service::CLOUDFORMATION},
    system::System,
};

/// The most pages of events that are read.
const MAX_PAGES: usize = 10;

/// Returns the failures of making a change set, by its ARN, each in one line. Returns none if CloudFormation does not tell.
pub(super) fn failures_of_change_set(system: &System, id: &str) -> Vec<String> {
    failures(system, "ChangeSetName", id)
}

/// Returns the failures of an operation, each in one line. Returns none if CloudFormation does not tell.
pub(super) fn failures_of(system: &System, operation: &str) -> Vec<String> {
    if operation.is_empty() { vec![] } else { failures(system, "OperationId", operation) }
}

fn failures(system: &System, name: &str, id: &str) -> Vec<String> {
    ask(system, name, id).unwrap_or_else(|error| {
        tracing::debug!("CloudFormation does not tell the events of {id}: {error:#}");
        vec![]
    })
}

fn ask(system: &System, name: &str, id: &str) -> Result<Vec<String>> {
    let (mut found, mut next) = (vec![], String::new());
    for _ in 0..MAX_PAGES {
        let call = Call::new(&CLOUDFORMATION, "DescribeEvents").with(name, id).with("Filters.FailedEvents", "true");
        let answer = system.aws(if next.is_empty() { call } else { call.with("NextToken", &next) })?;
        let told = answer.list("DescribeEventsResult/OperationEvents").filter_map(sentence);
        for sentence in told {
            if !found.contains(&sentence) {
                found.push(sentence);
            }
        }
        answer.text("DescribeEventsResult/NextToken").clone_into(&mut next);
        if next.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// Returns a failed validation or hook in words. A stack's own events have the other failures.
fn sentence(event: &Element) -> Option<String> {
    let text = |name| event.text(name);
    let resource = match text("LogicalResourceId") {
        "" => "the stack",
        resource => resource,
    };
    let fails = |mode: &str| event.text(mode) != "WARN";
    match text("EventType") {
        "VALIDATION_ERROR" if fails("ValidationFailureMode") => {
            let path = match text("ValidationPath") {
                "" => String::new(),
                path => format!(" at {path}"),
            };
            Some(format!("{resource}{path}: {}", text("ValidationStatusReason")))
        }
        "HOOK_INVOCATION_ERROR" if fails("HookFailureMode") => {
            Some(format!("the hook {} refuses {resource}: {}", text("HookType"), text("HookStatusReason")))
        }
        _ => None,
    }
}
