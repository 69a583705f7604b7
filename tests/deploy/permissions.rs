//! The policy of an operator, and the operations that the tests have recorded.

use std::collections::BTreeSet;

const POLICY: &str = include_str!("../../cloudformation/operator-policy.json");
/// Service, operation and action, written by `tests/deploy/requests`.
const OPERATIONS: &str = include_str!("operations.tsv");

#[test]
fn the_operators_policy_allows_what_deploy_calls_and_no_more() {
    let recorded =
        OPERATIONS.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').nth(2).unwrap());
    // The caller of these is the source of a role, who is not the operator yet.
    let needed: BTreeSet<&str> = recorded.filter(|action| !action.starts_with("sts:AssumeRole")).collect();
    let policy: serde_json::Value = serde_json::from_str(POLICY).unwrap();
    let mut allowed = vec![];
    for statement in policy["Statement"].as_array().unwrap() {
        match &statement["Action"] {
            serde_json::Value::Array(actions) => allowed.extend(actions.iter().map(|action| action.as_str().unwrap())),
            action => allowed.push(action.as_str().unwrap()),
        }
    }
    assert_eq!(allowed.iter().copied().collect::<BTreeSet<_>>(), needed);
    assert_eq!(allowed.len(), needed.len(), "an action is allowed twice: {allowed:?}");
}
