//! The policies of an operator and of CloudFormation, and what they are for: the operations that the tests have recorded, and
//! the resources of the templates.

use std::collections::BTreeSet;

const POLICY: &str = include_str!("../../cloudformation/operator-policy.json");
const SERVICE_ROLE_POLICY: &str = include_str!("../../cloudformation/service-role-policy.json");
pub const TEMPLATES: [&str; 4] = [
    include_str!("../../cloudformation/autoscaling.yml"),
    include_str!("../../cloudformation/compatible.yml"),
    include_str!("../../cloudformation/instance-refresh.yml"),
    include_str!("../../cloudformation/weighted-dns.yml"),
];
/// Type of a resource, and a permission that it needs.
const HANDLERS: &str = include_str!("handlers.tsv");
/// Service, operation and action, written by `tests/deploy/requests`.
const OPERATIONS: &str = include_str!("operations.tsv");

#[test]
fn the_operators_policy_allows_what_deploy_calls_and_no_more() {
    let recorded =
        OPERATIONS.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').nth(2).unwrap());
    // The caller of these is the source of a role, who is not the operator yet.
    let needed: BTreeSet<&str> = recorded.filter(|action| !action.starts_with("sts:AssumeRole")).collect();
    let allowed = actions(POLICY);
    assert_eq!(allowed.iter().map(String::as_str).collect::<BTreeSet<_>>(), needed);
    assert_eq!(allowed.len(), needed.len(), "an action is allowed twice: {allowed:?}");
}

/// Returns the actions that a policy allows, in their order.
fn actions(policy: &str) -> Vec<String> {
    let policy: serde_json::Value = serde_json::from_str(policy).unwrap();
    let of = |statement: &serde_json::Value| match &statement["Action"] {
        serde_json::Value::Array(actions) => actions.clone(),
        action => vec![action.clone()],
    };
    let all = policy["Statement"].as_array().unwrap().iter().flat_map(of);
    all.map(|action| action.as_str().unwrap().to_owned()).collect()
}

/// Returns the types of the resources in a template.
fn types(template: &str) -> impl Iterator<Item = &str> {
    let resources = template.split("\nResources:\n").nth(1).unwrap().split("\nOutputs:\n").next().unwrap();
    resources.lines().filter_map(|line| line.strip_prefix("    Type: "))
}

#[test]
fn the_service_role_may_do_what_the_templates_need_and_no_more() {
    let rows = HANDLERS.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once('\t').unwrap());
    let rows: Vec<(&str, &str)> = rows.collect();
    let known: BTreeSet<&str> = rows.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(TEMPLATES.into_iter().flat_map(types).collect::<BTreeSet<_>>(), known);
    let allowed = actions(SERVICE_ROLE_POLICY);
    let matches = |action: &str, needed: &str| match action.strip_suffix('*') {
        Some(beginning) => needed.starts_with(beginning),
        None => action == needed,
    };
    for (kind, needed) in &rows {
        assert_eq!(allowed.iter().filter(|action| matches(action, needed)).count(), 1, "{needed} for {kind}");
    }
    for action in &allowed {
        assert!(rows.iter().any(|(_, needed)| matches(action, needed)), "no resource needs {action}");
    }
}

#[test]
fn each_policy_fits_into_a_managed_one() {
    for policy in [POLICY, SERVICE_ROLE_POLICY] {
        // https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html, without white space
        let characters = policy.chars().filter(|c| !c.is_whitespace()).count();
        assert!(characters <= 6144, "{characters}");
    }
}
