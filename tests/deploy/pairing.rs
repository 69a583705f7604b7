//! A stack keeps the strategy that created it: another one is refused before anything changes.

use crate::{
    operator::Operator,
    refreshing,
    tape::{Turn, changes},
    weighted_dns,
};

/// Checks that a stack refuses each other strategy under this name, and that the error names its own.
fn keeps(operator: &Operator, name: &str, stack: &str, own: &str) {
    let strategies = ["blue-green", "compatible", "instance-refresh", "weighted-dns"];
    for strategy in strategies.into_iter().filter(|strategy| *strategy != own) {
        for verb in ["create-stack", "update-stack", "plan", "status", "rollback"] {
            let mut arguments = vec![verb, "--strategy", strategy, "--stack", name];
            if verb.ends_with("-stack") {
                arguments.push("--yes");
            }
            let refused = operator.deploy(&arguments, &[("BUILD_NUMBER", "2"), ("DNSRECORD", "app.example.com")]);
            let _ = refused
                .expect(2)
                .says(&format!("the stack {stack} has the strategy {own}, not {strategy}"))
                .says(&format!("hint: pass --strategy {own} --stack glovo-app;"));
        }
    }
    assert!(changes(&operator.calls()).is_empty(), "{own}");
}

#[test]
fn a_stack_refuses_each_strategy_but_its_own() {
    keeps(&Operator::serving(), "glovo-app", "glovo-app", "blue-green");
    keeps(&refreshing::serving(), "glovo-app", "glovo-app", "instance-refresh");
    for name in ["glovo-app", "glovo-app-blue"] {
        keeps(&weighted_dns::serving(), name, "glovo-app-blue", "weighted-dns");
    }
    let compatible = Operator::compatible();
    let create = ["create-stack", "--yes", "--strategy", "compatible"];
    let _ = compatible.deploy(&create, &[("BUILD_NUMBER", "1")]).expect(0);
    drop(compatible.calls());
    keeps(&compatible, "glovo-app", "glovo-app", "compatible");
}

#[test]
fn a_stack_that_deploy_has_not_made_is_no_other_strategy() {
    let operator = Operator::serving();
    operator.world(|world| world.parameters.retain(|name, _| !name.ends_with("VersionId")));
    let status = ["status", "--strategy", "weighted-dns"];
    let _ = operator.deploy(&status, &[]).expect(1).says("stack glovo-app does not exist");
}

#[test]
fn an_operator_who_may_not_see_other_names_can_deploy() {
    let operator = Operator::new();
    let denied = || Turn::Refusal(403, "AccessDenied", "not authorized");
    operator.tape.script("DescribeStacks", [Turn::Usual, denied(), denied()]);
    let told = operator.deploy(&["create-stack", "--yes"], &[]).expect(0);
    let _ = told.says("every serving target runs build 1");
}
