//! Alarms of CloudWatch that return the traffic.

use crate::{
    operator::Operator,
    sandbox::Finished,
    tape::{Turn, changes, names, of, shares},
    world::BLUE,
};

/// Returns an operator that serves build 1, with an alarm that says this to one look after the other.
fn with_alarm(name: &'static str, rows: &[(&'static str, &'static str)]) -> Operator {
    let operator = Operator::serving();
    operator.content("2");
    operator.world(|world| {
        let _ = world.alarms.insert(name, rows.iter().copied().collect());
    });
    operator
}

fn update(operator: &Operator, alarm: &str) -> Finished {
    let at_once = ["update-stack", "--yes", "--pause", "0s", "--alarm", alarm];
    operator.deploy(&at_once, &[("BUILD_NUMBER", "2")])
}

const OK: (&str, &str) = ("OK", "");

#[test]
fn an_alarm_at_half_of_the_traffic_returns_it() {
    // Before anything is changed, before any traffic, at 10 %, at 50 %.
    let operator = with_alarm("errors", &[OK, OK, OK, ("ALARM", "7 answers with 5xx")]);
    let _ = update(&operator, "errors")
        .expect(1)
        .says("alarm errors is in the state ALARM: 7 answers with 5xx: the traffic returns to blue (build 1)")
        .says("the new build does not take over: all traffic is on blue (build 1)");
    let calls = operator.calls();
    assert_eq!(shares(&calls), [["90", "10"], ["50", "50"], ["100", "0"]]);
    let last = names(&calls).into_iter().skip_while(|name| *name != "ModifyListener").skip(1);
    let looks = last.skip_while(|name| *name != "ModifyListener").filter(|name| *name == "DescribeAlarms").count();
    assert_eq!(looks, 1, "users are back after the first look that shows the alarm");
}

#[test]
fn an_alarm_with_all_the_traffic_returns_it() {
    let operator = with_alarm("all-errors", &[OK, OK, OK, OK, ("ALARM", "slow")]);
    let _ = update(&operator, "all-errors").expect(1).says("all traffic is on blue (build 1)");
    assert_eq!(shares(&operator.calls()), [["90", "10"], ["50", "50"], ["0", "100"], ["100", "0"]]);
    assert_eq!(operator.world(|world| world.weights[BLUE].clone()), "100");
}

#[test]
fn an_alarm_before_the_first_share_gives_none() {
    let operator = with_alarm("errors", &[OK, ("ALARM", "slow")]);
    let _ = update(&operator, "errors").expect(1).says("alarm errors is in the state ALARM: slow");
    assert_eq!(shares(&operator.calls()), [[""; 2]; 0]);
}

#[test]
fn alarms_are_looked_at_before_anything_changes() {
    let operator = with_alarm("errors", &[("ALARM", "slow")]);
    let _ = update(&operator, "errors").expect(2).says("alarm errors is in the state ALARM: slow (to deploy without");
    let _ = update(&operator, "missing").expect(2).says("alarm missing does not exist in this account and region");
    operator.tape.script("DescribeAlarms", [Turn::Refusal(403, "AccessDenied", "no")]);
    let _ = update(&operator, "errors").expect(2).says("allow cloudwatch:DescribeAlarms in the caller's IAM policy");
    assert!(changes(&operator.calls()).is_empty());
    let _ = operator.sandbox.write("deploy.toml", "alarm = [\"errors\"]\n");
    let _ = operator.update("2").expect(2).says("alarm errors is in the state ALARM");
    let _ = update(&operator, "").expect(0);
    assert!(of(&operator.calls(), "DescribeAlarms").len() < 2);
}

#[test]
fn an_alarm_without_data_or_answer_says_nothing() {
    let operator = with_alarm("errors", &[("INSUFFICIENT_DATA", "no data")]);
    let silent = (0..3).map(|_| Turn::Usual).chain((0..6).map(|_| Turn::Refusal(400, "Throttling", "Rate exceeded")));
    operator.tape.script("DescribeAlarms", silent);
    let hasty = ["update-stack", "--yes", "--pause", "0s", "--patience", "0s", "--alarm", "errors"];
    let told = operator.deploy(&hasty, &[("BUILD_NUMBER", "2")]).expect(0);
    assert!(told.stderr.contains("CloudWatch does not answer, still trying"), "{}", told.stderr);
    assert_eq!(shares(&operator.calls()), [["90", "10"], ["50", "50"], ["0", "100"]]);
}

#[test]
fn the_reason_of_an_alarm_has_no_effect_on_a_terminal() {
    let operator = with_alarm("errors", &[OK, OK, ("ALARM", "a\u{9b}2Jb\u{202e}c\nforged: line")]);
    let told = update(&operator, "errors").expect(1);
    for text in [&told.stdout, &told.stderr] {
        assert!(!text.contains(['\u{9b}', '\u{202e}']) && !text.contains("\nforged"), "{text:?}");
    }
}
