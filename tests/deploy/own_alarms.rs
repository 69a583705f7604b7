//! Alarms that each slot has in its stack.

use crate::{
    operator::Operator,
    rolling_out::left_at,
    sandbox::Finished,
    tape::{changes, of, shares},
};

const GREEN: &str = "glovo-app-GreenErrorAlarm";
const BLUE: &str = "glovo-app-BlueErrorAlarm";
const OK: (&str, &str) = ("OK", "");
const ALARM: (&str, &str) = ("ALARM", "11 answers with 5xx");

/// Has an alarm say this to one look after the other.
fn set(operator: &Operator, name: &'static str, rows: &[(&'static str, &'static str)]) {
    operator.world(|world| _ = world.alarms.insert(name, rows.iter().copied().collect()));
}

fn update(operator: &Operator, more: &[&str]) -> Finished {
    let at_once = ["update-stack", "--yes", "--pause", "0s", "--parameter", "MaxErrors=10"];
    operator.deploy(&[&at_once, more].concat(), &[("BUILD_NUMBER", "2")])
}

/// Returns an operator that serves build 1, and whose next build has an alarm.
fn serving() -> Operator {
    let operator = Operator::serving();
    operator.content("2");
    operator
}

#[test]
fn the_slot_s_own_alarm_returns_the_traffic() {
    let operator = serving();
    // Before any traffic, at 10 %, at 50 %.
    set(&operator, GREEN, &[OK, OK, ALARM]);
    let _ = update(&operator, &[])
        .expect(1)
        .says("alarm glovo-app-GreenErrorAlarm is in the state ALARM: 11 answers with 5xx: the traffic returns to blue")
        .says("the new build does not take over: all traffic is on blue (build 1)");
    let calls = operator.calls();
    assert_eq!(shares(&calls), [["90", "10"], ["50", "50"], ["100", "0"]]);
    assert!(of(&calls, "DescribeAlarms").iter().all(|call| !call.list("AlarmNames.member").contains(&BLUE)));
}

#[test]
fn both_own_alarms_are_looked_at_up_to_the_end() {
    let operator = serving();
    set(&operator, "glovo-app-GreenResponseTimeAlarm", &[OK, OK, OK, ALARM]);
    let _ = update(&operator, &["--parameter", "MaxResponseTime=0.5"]).expect(1).says("all traffic is on blue");
    let calls = operator.calls();
    assert_eq!(shares(&calls), [["90", "10"], ["50", "50"], ["0", "100"], ["100", "0"]]);
    let asked = of(&calls, "DescribeAlarms")[0].list("AlarmNames.member");
    assert_eq!(asked, [GREEN, "glovo-app-GreenResponseTimeAlarm"]);
}

#[test]
fn an_own_alarm_of_an_earlier_build_delays_the_first_share() {
    let operator = serving();
    set(&operator, GREEN, &[ALARM, ALARM, OK]);
    let _ = update(&operator, &[])
        .expect(0)
        .says("waiting, because green (build 2) receives no traffic yet: alarm glovo-app-GreenErrorAlarm is in")
        .says("every serving target runs build 2");
    let operator = serving();
    set(&operator, GREEN, &[ALARM]);
    let _ = update(&operator, &["--health-timeout", "0s"]).expect(1).says("is in the state ALARM");
    assert_eq!(shares(&operator.calls()), [[""; 2]; 0]);
}

#[test]
fn the_alarm_of_the_build_that_serves_stops_no_repair() {
    let operator = serving();
    set(&operator, BLUE, &[ALARM]);
    let _ = update(&operator, &[]).expect(0).says("every serving target runs build 2");
}

#[test]
fn an_empty_name_leaves_the_own_alarms_out() {
    let operator = serving();
    set(&operator, GREEN, &[ALARM]);
    let _ = update(&operator, &["--alarm", ""]).expect(0).says("every serving target runs build 2");
    // Only `status` shows them.
    let calls = operator.calls();
    let first = calls.iter().position(|call| call.operation == "DescribeAlarms").unwrap();
    assert!(changes(&calls[first..]).is_empty());
}

#[test]
fn the_same_command_returns_the_traffic_if_the_own_alarm_rings() {
    let operator = left_at("50", "50");
    operator.world(|world| _ = world.parameters.insert("MaxErrors".into(), "10".into()));
    set(&operator, GREEN, &[ALARM]);
    let _ = update(&operator, &[]).expect(1).says("all traffic is on blue (build 1)");
    assert_eq!(shares(&operator.calls()), [["100", "0"]]);
    // Without traffic, the alarm tells of what was. When it is quiet, the build gets its chance.
    set(&operator, GREEN, &[ALARM, ALARM, OK]);
    let _ = update(&operator, &[]).expect(0).says("every serving target runs build 2");
}

#[test]
fn status_names_the_own_alarms() {
    let operator = serving();
    let _ = update(&operator, &[]).expect(0);
    set(&operator, GREEN, &[ALARM]);
    let shown = operator.deploy(&["status"], &[]).expect(0);
    let _ = shown
        .says("alarm glovo-app-GreenErrorAlarm  ALARM: 11 answers with 5xx")
        .says("alarm glovo-app-BlueErrorAlarm  OK\n");
    let shown = operator.deploy(&["status", "--json"], &[]).expect(0);
    let _ = shown.says(r#"{"name":"glovo-app-GreenErrorAlarm","state":"ALARM","reason":"11 answers with 5xx"}"#);
    let silent = (0..2).map(|_| crate::tape::Turn::Refusal(403, "AccessDenied", "no"));
    operator.tape.script("DescribeAlarms", silent);
    let _ = operator.deploy(&["status"], &[]).expect(0).says("CloudWatch does not tell the alarms of blue (build 1)");
}

#[test]
fn the_template_of_one_group_has_no_own_alarms() {
    let operator = Operator::compatible();
    let arguments = ["create-stack", "--yes", "--strategy", "compatible", "--parameter", "MaxErrors=10"];
    let _ = operator.deploy(&arguments, &[]).expect(2).says("the strategy compatible has no parameter MaxErrors");
}
