//! A stack keeps the strategy that created it: another one is refused before anything changes.

use crate::{operator::Operator, refreshing, tape::changes, weighted_dns};

/// Checks that a stack of this name refuses each other strategy, and that the error names its own.
fn keeps(operator: &Operator, stack: &str, own: &str) {
    for strategy in ["blue-green", "compatible", "instance-refresh", "weighted-dns"] {
        // The strategy weighted-dns looks for the stacks NAME-blue and NAME-green, which do not exist for a stack NAME.
        if strategy == own || (strategy == "weighted-dns" && stack == "glovo-app") {
            continue;
        }
        for verb in ["update-stack", "plan", "status", "rollback"] {
            let mut arguments = vec![verb, "--strategy", strategy, "--stack", stack];
            if verb == "update-stack" {
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
    keeps(&Operator::serving(), "glovo-app", "blue-green");
    keeps(&refreshing::serving(), "glovo-app", "instance-refresh");
    keeps(&weighted_dns::serving(), "glovo-app-blue", "weighted-dns");
    let compatible = Operator::compatible();
    let create = ["create-stack", "--yes", "--strategy", "compatible"];
    let _ = compatible.deploy(&create, &[("BUILD_NUMBER", "1")]).expect(0);
    drop(compatible.calls());
    keeps(&compatible, "glovo-app", "compatible");
}
