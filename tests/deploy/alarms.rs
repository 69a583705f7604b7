//! Alarms of CloudWatch that return the traffic.

use crate::{
    operator::Operator,
    rolling_out::left_at,
    sandbox::Finished,
    tape::{Meeting, Turn, changes, names, of, shares},
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
    assert!(told.stderr.contains("AWS does not answer, still trying"), "{}", told.stderr);
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

#[test]
fn an_alarm_returns_all_the_traffic_to_fewer_machines() {
    let operator = with_alarm("errors", &[OK, OK, OK, ("ALARM", "slow")]);
    // A machine more would come too late.
    operator.health("Blue", [vec!["healthy", "healthy", "initial"]]);
    let (meeting, turn) = Meeting::new();
    operator.tape.script("DescribeAlarms", [Turn::Usual, Turn::Usual, Turn::Usual, turn]);
    let arguments = ["update-stack", "--yes", "--pause", "0s", "--alarm", "errors", "--health-timeout", "1s"];
    let running = operator.start(&arguments, &[("BUILD_NUMBER", "2")]);
    // At 50 %, the new build uses the processors up, and the group adds a machine.
    meeting.then(|| operator.world(|world| world.groups.get_mut("Green").unwrap().resize("Green", "2", "3", "")));
    let _ = running.finish().expect(1).says("all traffic is on blue (build 1)");
    assert_eq!(shares(&operator.calls()), [["90", "10"], ["50", "50"], ["100", "0"]]);
    assert_eq!(operator.tape.highest_load(), 50, "as before the deploy");
    let blue = operator.world(|world| world.groups["Blue"].clone());
    assert_eq!((blue.min, blue.scheduled), (1, None), "what serves may shrink again");
}

#[test]
fn an_alarm_returns_the_traffic_to_a_fleet_with_a_sick_machine() {
    let operator = with_alarm("errors", &[OK, OK, ("ALARM", "slow")]);
    operator.health("Blue", [vec!["healthy", "unhealthy"]]);
    let arguments = ["update-stack", "--yes", "--pause", "0s", "--alarm", "errors", "--health-timeout", "1s"];
    let _ = operator
        .deploy(&arguments, &[("BUILD_NUMBER", "2")])
        .expect(1)
        .says("the traffic returns to blue (build 1), which has 1 of 2 machines healthy, each with 2.0 times the load")
        .says("all traffic is on blue (build 1)");
    assert_eq!(shares(&operator.calls()), [["90", "10"], ["100", "0"]]);
}

/// With build 2 in green at this share of the traffic, and an alarm in the state ALARM.
fn ringing_at(green: &'static str, blue: &'static str) -> Operator {
    let operator = left_at(green, blue);
    operator.world(|world| {
        let _ = world.alarms.insert("errors", [("ALARM", "slow")].into());
    });
    operator
}

#[test]
fn the_same_command_returns_the_traffic_if_the_alarm_still_rings() {
    let operator = ringing_at("50", "50");
    let plan = ["plan", "--alarm", "errors"];
    let returns =
        "alarm errors is in the state ALARM: slow: update-stack would return the traffic to the previous build";
    let _ = operator.deploy(&plan, &[("BUILD_NUMBER", "2")]).expect(0).says(returns);
    assert!(changes(&operator.calls()).is_empty());
    let given = update(&operator, "errors").expect(1).says("all traffic is on blue (build 1)");
    let _ = given.says("errors is in the state").says("blue (build 1), with 1 machine for the load of 2");
    let calls = operator.calls();
    assert_eq!(changes(&calls).first(), Some(&"ModifyListener"), "users first");
    assert_eq!(shares(&calls), [["100", "0"]]);
    assert_eq!(operator.world(|world| world.groups["Blue"].machines.len()), 2, "as many as green has");
    // Without traffic on it, nothing needs to be returned.
    let _ = update(&operator, "errors").expect(2).says("errors is in the state ALARM: slow (to deploy without");
}

#[test]
fn a_slot_that_has_shrunk_gets_the_traffic_of_a_left_deploy_in_parts() {
    // All shares were moved, nothing was finished. The previous build has one machine.
    let operator = ringing_at("100", "0");
    operator.world(|world| {
        let _ = world.parameters.insert("GreenWeight".into(), "0".into());
        world.groups.get_mut("Green").unwrap().resize("Green", "1", "3", "");
    });
    let rows = [vec!["healthy"], vec!["healthy", "initial", "initial"], vec![]];
    operator.health("Blue", rows);
    let _ = update(&operator, "errors").expect(1).says("25 % of the traffic returns now");
    assert_eq!(shares(&operator.calls()), [["25", "75"], ["100", "0"]]);
}

#[test]
fn a_missing_alarm_does_not_return_the_traffic_of_a_left_deploy() {
    let operator = left_at("50", "50");
    let _ = update(&operator, "mispelt")
        .expect(2)
        .says("alarm mispelt does not exist in this account and region")
        .says("green (build 2) receives 50 % of the traffic; to roll back: glovo-bootstrap deploy rollback --build 1");
    assert!(changes(&operator.calls()).is_empty());
}

#[test]
fn an_alarm_that_is_deleted_meanwhile_returns_the_traffic() {
    let operator = with_alarm("errors", &[OK]);
    let (meeting, turn) = Meeting::new();
    operator.tape.script("DescribeAlarms", [Turn::Usual, Turn::Usual, turn]);
    let arguments = ["update-stack", "--yes", "--pause", "0s", "--alarm", "errors"];
    let running = operator.start(&arguments, &[("BUILD_NUMBER", "2")]);
    meeting.then(|| operator.world(|world| world.alarms.clear()));
    let _ = running.finish().expect(1).says("alarm errors no longer exists").says("all traffic is on blue");
    assert_eq!(shares(&operator.calls()), [["90", "10"], ["100", "0"]]);
}

#[test]
fn no_share_is_moved_before_cloudwatch_answers() {
    let operator = with_alarm("errors", &[OK, ("ALARM", "slow")]);
    let silent = std::iter::once(Turn::Usual).chain((0..6).map(|_| Turn::Refusal(400, "Throttling", "Rate exceeded")));
    operator.tape.script("DescribeAlarms", silent);
    let hasty = ["update-stack", "--yes", "--pause", "0s", "--patience", "0s", "--alarm", "errors"];
    let _ = operator.deploy(&hasty, &[("BUILD_NUMBER", "2")]).expect(1).says("errors is in the state ALARM: slow");
    assert_eq!(shares(&operator.calls()), [[""; 2]; 0]);
    assert_eq!(operator.world(|world| world.groups["Blue"].min), 1, "blue is not pinned for nothing");
}

#[test]
fn a_silent_cloudwatch_hides_no_sick_machine() {
    let operator = with_alarm("errors", &[OK]);
    let healthy = || vec!["healthy", "healthy"];
    // Before any traffic, then twice at 10 %.
    operator.health("Green", [healthy(), healthy(), vec!["healthy", "unhealthy"]]);
    let usual = [Turn::Usual, Turn::Usual].into_iter();
    let silent = usual.chain((0..99).map(|_| Turn::Refusal(400, "Throttling", "Rate exceeded")));
    operator.tape.script("DescribeAlarms", silent);
    let arguments = ["update-stack", "--yes", "--pause", "0s", "--patience", "40s", "--alarm", "errors"];
    let _ = operator.deploy(&arguments, &[("BUILD_NUMBER", "2")]).expect(1).says("only 1 of 2 machines stayed healthy");
    let calls = operator.calls();
    assert_eq!(shares(&calls), [["90", "10"], ["100", "0"]]);
    assert!(of(&calls, "DescribeAlarms").len() <= 2 + 5, "a look at the alarms ends after a few attempts");
}

#[test]
fn a_watch_that_is_shorter_than_an_alarm_s_period_is_noted() {
    let operator = with_alarm("errors", &[OK]);
    operator.world(|world| world.alarm_period = 60);
    let plan = |times: &[&str]| {
        operator.deploy(&[&["plan", "--alarm", "errors"], times].concat(), &[("BUILD_NUMBER", "2")]).expect(0)
    };
    let note = "note: alarm errors has a period of 1 min 00 s, but all traffic is watched for 30.0 s only";
    let _ = plan(&[]).says(note);
    assert!(!plan(&["--watch", "60s"]).stdout.contains("has a period of"));
    assert!(!plan(&["--pause", "2m"]).stdout.contains("has a period of"));
}
