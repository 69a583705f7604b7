//! Deploying a new build with two slots.

use nix::sys::signal::Signal;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    operator::Operator,
    tape::{Meeting, Turn, changes, of, shares},
    world::{BLUE, GREEN, group_name},
};

/// The user-data of both slots, as literals in the template, without the frame that signals.
fn user_data(template: &str) -> Vec<String> {
    let literals = template.lines().filter_map(|line| line.trim().strip_prefix("Fn::Base64: "));
    let texts = literals.map(|literal| serde_json::from_str::<String>(literal).unwrap());
    texts.map(|text| text.split("END-").nth(1).map_or(text.clone(), |own| own[64 + 2..].to_owned())).collect()
}

#[test]
fn a_new_stack_is_made_with_blue_filled_and_all_traffic_on_it() {
    let operator = Operator::new();
    let _ = operator
        .deploy(&["create-stack", "--yes"], &[("BUILD_NUMBER", "7"), ("KP", "ann")])
        .expect(0)
        .says("CREATE_COMPLETE")
        .says("every serving target runs build 7");
    let calls = operator.calls();
    assert_eq!(changes(&calls), ["CreateChangeSet", "ExecuteChangeSet"]);
    let made = of(&calls, "CreateChangeSet")[0];
    assert_eq!(made.get("ChangeSetType"), "CREATE");
    assert_eq!(made.get("Capabilities.member.1"), "CAPABILITY_IAM");
    for (name, value) in [
        ("VpcId", "vpc-1"),
        ("Subnets", "subnet-a,subnet-b"),
        ("BlueVersionId", "7"),
        ("BlueAMIId", "ami-24"),
        ("BlueRootDeviceName", "/dev/sda1"),
        ("BlueInstanceType", "t3.micro"),
        ("BlueKeyName", "ann"),
        ("BlueMinSize", "1"),
        ("BlueDesiredCapacity", "2"),
        ("BlueMaxSize", "3"),
        ("BlueWeight", "100"),
    ] {
        assert_eq!(made.parameter(name), Some(value), "{name}");
    }
    assert_eq!((operator.parameter("GreenVersionId").as_str(), operator.parameter("GreenWeight").as_str()), ("", "0"));
    assert_eq!(user_data(made.get("TemplateBody")), ["#!/bin/sh\necho content 1\n", ""]);
}

#[test]
fn a_new_build_takes_the_traffic_in_steps_and_keeps_the_old() {
    let operator = Operator::serving();
    // The alarms have added one since.
    operator.world(|world| world.groups.get_mut("Blue").unwrap().resize("Blue", "1", "3", ""));
    operator.content("2");
    let _ =
        operator.update("2").expect(0).says("every serving target runs build 2").says("blue (build 1) keeps 1 machine");
    let calls = operator.calls();
    assert_eq!(
        changes(&calls),
        [
            "UpdateStack",
            "CreateChangeSet",
            "ExecuteChangeSet",
            "PutScheduledUpdateGroupAction",
            "PutScheduledUpdateGroupAction",
            "UpdateAutoScalingGroup",
            "ModifyListener",
            "ModifyListener",
            "ModifyListener",
            "UpdateAutoScalingGroup",
            "DeleteScheduledAction",
            "UpdateAutoScalingGroup",
            "DeleteScheduledAction",
            "UpdateStack"
        ]
    );
    let caught_up = of(&calls, "UpdateStack")[0];
    let said = ["BlueDesiredCapacity", "BlueWeight"].map(|name| caught_up.parameter(name));
    assert_eq!(said, [Some("3"), Some("100")], "if filling fails, blue is not to lose a machine");
    let filled = of(&calls, "CreateChangeSet")[0];
    for (name, value) in [
        ("GreenVersionId", "2"),
        ("GreenWeight", "0"),
        ("GreenDesiredCapacity", "3"),
        ("GreenMinSize", "3"),
        ("GreenMaxSize", "3"),
        ("BlueWeight", "100"),
        ("BlueDesiredCapacity", "3"),
    ] {
        assert_eq!(filled.parameter(name), Some(value), "{name}");
    }
    for name in ["BlueVersionId", "BlueAMIId", "BlueInstanceType", "BlueMinSize"] {
        assert_eq!(filled.parameter(name), None, "{name} stays");
    }
    let contents = user_data(filled.get("TemplateBody"));
    assert_eq!(contents, ["#!/bin/sh\necho content 1\n", "#!/bin/sh\necho content 2\n"]);
    assert_eq!(shares(&calls), [["90", "10"], ["50", "50"], ["0", "100"]]);
    let resized = of(&calls, "UpdateAutoScalingGroup").into_iter();
    let sizes = resized.map(|call| ["AutoScalingGroupName", "MinSize", "DesiredCapacity"].map(|name| call.get(name)));
    let (green, blue) = (group_name("Green"), group_name("Blue"));
    assert_eq!(
        sizes.collect::<Vec<_>>(),
        [[&blue, "3", ""], [&green, "1", ""], [&blue, "1", "1"]],
        "both are held at 3 until green serves"
    );
    let followed = of(&calls, "UpdateStack")[1];
    assert_eq!(followed.get("UsePreviousTemplate"), "true");
    for (name, value) in
        [("BlueWeight", "0"), ("GreenWeight", "100"), ("BlueDesiredCapacity", "1"), ("GreenDesiredCapacity", "3")]
    {
        assert_eq!(followed.parameter(name), Some(value), "{name}");
    }
    let _ = operator.deploy(&["drift"], &[]).expect(0).says("no drift");
}

#[test]
fn the_next_build_goes_into_the_slot_that_was_kept() {
    let operator = Operator::serving_twice();
    operator.content("3");
    let _ = operator.update("3").expect(0).says("every serving target runs build 3");
    let calls = operator.calls();
    let filled = of(&calls, "CreateChangeSet")[0];
    assert_eq!((filled.parameter("BlueVersionId"), filled.parameter("BlueDesiredCapacity")), (Some("3"), Some("2")));
    assert_eq!((filled.parameter("GreenVersionId"), filled.parameter("GreenWeight")), (None, Some("100")));
    let contents = user_data(filled.get("TemplateBody"));
    assert_eq!(contents, ["#!/bin/sh\necho content 3\n", "#!/bin/sh\necho content 2\n"]);
    assert_eq!(shares(&calls), [["10", "90"], ["50", "50"], ["100", "0"]]);
}

#[test]
fn other_shares_can_be_had() {
    let operator = Operator::serving();
    operator.content("2");
    let once = ["update-stack", "--yes", "--shift", "100"];
    let _ = operator.deploy(&once, &[("BUILD_NUMBER", "2")]).expect(0);
    assert_eq!(shares(&operator.calls()), [["0", "100"]]);
}

#[test]
fn machines_that_never_become_healthy_get_no_traffic() {
    let operator = Operator::serving();
    operator.content("2");
    operator.health("Green", [vec!["initial", "initial"], vec!["healthy", "unhealthy"]]);
    let _ = operator
        .deploy(&["update-stack", "--yes", "--health-timeout", "1s"], &[("BUILD_NUMBER", "2")])
        .expect(1)
        .says("machine i-green20: initial")
        .says("machine i-green21: unhealthy")
        .says("all traffic is on blue (build 1)")
        .says("1 of 2 machines are healthy after 1");
    assert_eq!(changes(&operator.calls()), ["CreateChangeSet", "ExecuteChangeSet", "PutScheduledUpdateGroupAction"]);
    assert_eq!(operator.world(|world| world.weights[BLUE].clone()), "100");
}

#[test]
fn a_machine_that_fails_under_traffic_sends_all_of_it_back() {
    let operator = Operator::serving();
    operator.content("2");
    let healthy = || vec!["healthy", "healthy"];
    // Before any traffic, at 10 %, at 50 %.
    operator.health("Green", [healthy(), healthy(), vec!["healthy", "unhealthy"]]);
    let _ = operator
        .update("2")
        .expect(1)
        .says("green (build 2) receives 50 % of the traffic")
        .says("all traffic is on blue (build 1)")
        .says("only 1 of 2 machines stayed healthy");
    let calls = operator.calls();
    assert_eq!(shares(&calls), [["90", "10"], ["50", "50"], ["100", "0"]]);
    let blue = operator.world(|world| world.groups["Blue"].clone());
    assert_eq!((blue.min, blue.desired, blue.scheduled), (1, 2, None), "blue keeps its machines, and may shrink again");
    assert_eq!(operator.world(|world| world.weights[GREEN].clone()), "0");
}

#[test]
fn the_same_command_continues_after_a_detachment() {
    let operator = Operator::serving();
    operator.content("2");
    let (meeting, turn) = Meeting::new();
    operator.tape.script("ModifyListener", [Turn::Usual, turn]);
    let running = operator.start(&["update-stack", "--yes", "--pause", "50ms"], &[("BUILD_NUMBER", "2")]);
    meeting.then(|| running.signal(Signal::SIGINT));
    let _ = running
        .finish()
        .expect(130)
        .says("to continue, run the same command again; to roll back: glovo-bootstrap deploy rollback --build 1");
    assert_eq!(shares(&operator.calls()), [["90", "10"], ["50", "50"]]);
    let told = operator.update("2").expect(0);
    let _ = told
        .says("green already runs this build; continuing with 2 machines")
        .says("every serving target runs build 2");
    let calls = operator.calls();
    assert_eq!(shares(&calls), [["0", "100"]]);
    let brought = of(&calls, "CreateChangeSet")[0];
    assert_eq!((brought.parameter("GreenWeight"), brought.parameter("GreenVersionId")), (Some("50"), None));
}

/// With build 2 in green, left at this share of the traffic.
pub fn left_at(green: &str, blue: &str) -> Operator {
    let operator = Operator::serving_twice();
    operator.world(|world| {
        for (slot, targets, share) in [("Blue", BLUE, blue), ("Green", GREEN, green)] {
            let _ = world.weights.insert(targets.to_owned(), share.to_owned());
            let _ = world.parameters.insert(format!("{slot}Weight"), share.to_owned());
        }
    });
    operator
}

#[test]
fn users_are_taken_from_a_build_that_was_left_and_got_sick() {
    let operator = left_at("50", "50");
    operator.health("Green", [vec!["healthy", "unhealthy"]]);
    let _ = operator
        .deploy(&["update-stack", "--yes", "--health-timeout", "2s"], &[("BUILD_NUMBER", "2")])
        .expect(1)
        .says("all traffic is on blue (build 1)");
    let calls = operator.calls();
    assert_eq!(shares(&calls), [["100", "0"]]);
    assert_eq!(of(&calls, "DescribeTargetHealth").len(), 3, "one look at each slot, and one for the load");
}

#[test]
fn a_slot_that_has_shrunk_grows_before_it_gets_more_traffic() {
    let operator = left_at("10", "90");
    operator.world(|world| {
        world.groups.get_mut("Blue").unwrap().resize("Blue", "1", "2", "");
        // The parameters differ from the live state.
        for name in ["BlueDesiredCapacity", "GreenDesiredCapacity", "GreenMinSize"] {
            let _ = world.parameters.insert(name.into(), "2".into());
        }
        world.groups.get_mut("Green").unwrap().resize("Green", "1", "1", "");
    });
    let _ = operator.update("2").expect(0).says("green (build 2) grows to 2 machines, as many as blue has");
    let calls = operator.calls();
    assert_eq!(changes(&calls)[..2], ["CreateChangeSet", "DeleteChangeSet"], "nothing is to be made");
    let grown = changes(&calls)[2..4].to_vec();
    assert_eq!(grown, ["PutScheduledUpdateGroupAction", "UpdateAutoScalingGroup"], "before any traffic");
    assert_eq!(of(&calls, "UpdateAutoScalingGroup")[0].get("DesiredCapacity"), "2");
}

#[test]
fn a_third_build_does_not_replace_machines_that_have_users() {
    let operator = left_at("10", "90");
    operator.content("3");
    let told = operator.update("3").expect(4);
    let _ = told
        .says("green (build 2) receives 10 % of the traffic: another deploy is running or was interrupted")
        .says("to roll back: glovo-bootstrap deploy rollback --build 1 --stack glovo-app");
    assert!(changes(&operator.calls()).is_empty());
}

#[test]
fn it_stops_if_another_operator_moves_the_traffic() {
    let operator = Operator::serving();
    operator.content("2");
    let (meeting, turn) = Meeting::new();
    // Before any traffic, then at 10 %.
    operator.tape.script("DescribeTargetHealth", [Turn::Usual, turn]);
    let running = operator.start(&["update-stack", "--yes", "--pause", "0s"], &[("BUILD_NUMBER", "2")]);
    meeting.then(|| {
        operator.world(|world| {
            world.weights = [(BLUE.to_owned(), "100".to_owned()), (GREEN.to_owned(), "0".to_owned())].into();
        });
    });
    let told = running.finish().expect(4);
    let _ = told.says("another deploy is moving the traffic: green (build 2) receives 0 %, not 10 %");
    assert_eq!(shares(&operator.calls()), [["90", "10"]]);
}

#[test]
fn a_rollback_during_the_last_watch_is_not_undone() {
    let operator = Operator::serving();
    operator.content("2");
    let (meeting, turn) = Meeting::new();
    // Before any traffic, then with all of it.
    operator.tape.script("DescribeTargetHealth", [Turn::Usual, turn]);
    let running =
        operator.start(&["update-stack", "--yes", "--pause", "0s", "--shift", "100"], &[("BUILD_NUMBER", "2")]);
    meeting.then(|| {
        operator.world(|world| {
            world.weights = [(BLUE.to_owned(), "100".to_owned()), (GREEN.to_owned(), "0".to_owned())].into();
        });
    });
    let told = running.finish().expect(4);
    let _ = told.says("another deploy is moving the traffic: green (build 2) receives 0 %, not 100 %");
    let calls = operator.calls();
    assert_eq!(changes(&calls).last(), Some(&"ModifyListener"), "{:?}", changes(&calls));
    assert_eq!(operator.world(|world| world.weights[BLUE].clone()), "100");
}

#[test]
fn a_running_deploy_does_not_undo_a_rollback() {
    // The deploy is watching 10 %: at its look at the machines, then at the one at the alarms.
    for (operation, turns, state) in [("DescribeTargetHealth", 1, "OK"), ("DescribeAlarms", 2, "ALARM")] {
        let operator = Operator::serving();
        operator.content("2");
        let rows = [("OK", ""), ("OK", ""), (state, "slow")];
        operator.world(|world| {
            let _ = world.alarms.insert("errors", rows.into());
        });
        let (meeting, turn) = Meeting::new();
        operator.tape.script(operation, (0..turns).map(|_| Turn::Usual).chain([turn]));
        let arguments = ["update-stack", "--yes", "--pause", "0s", "--alarm", "errors"];
        let running = operator.start(&arguments, &[("BUILD_NUMBER", "2")]);
        meeting.then(|| {
            let _ = operator.deploy(&["rollback", "--now"], &[]).expect(0);
            drop(operator.calls());
        });
        let told = running.finish().expect(4);
        let _ = told.says("another deploy is moving the traffic: green (build 2) receives 0 %, not 10 %");
        assert_eq!(changes(&operator.calls()), [""; 0], "{operation}");
        assert_eq!(operator.world(|world| world.weights[BLUE].clone()), "100");
    }
}

#[test]
fn a_rollback_is_noticed_in_the_midst_of_a_watch() {
    let operator = Operator::serving();
    operator.content("2");
    let (meeting, turn) = Meeting::new();
    operator.tape.script("DescribeTargetHealth", [Turn::Usual, turn]);
    let running = operator.start(&["update-stack", "--yes", "--pause", "2s"], &[("BUILD_NUMBER", "2")]);
    meeting.then(|| {
        let _ = operator.deploy(&["rollback", "--now"], &[]).expect(0);
        operator.world(|world| world.groups.get_mut("Green").unwrap().resize("Green", "1", "2", ""));
        drop(operator.calls());
    });
    let _ = running.finish().expect(4);
    assert!(of(&operator.calls(), "DescribeTargetHealth").is_empty(), "it ends at its next look");
}

#[test]
fn the_same_command_watches_the_last_share_again() {
    let operator = Operator::serving();
    operator.content("2");
    let (meeting, turn) = Meeting::new();
    operator.tape.script("DescribeTargetHealth", [Turn::Usual, turn]);
    let long = ["update-stack", "--yes", "--shift", "100", "--pause", "0s", "--watch", "1h"];
    let running = operator.start(&long, &[("BUILD_NUMBER", "2")]);
    meeting.then(|| running.signal(Signal::SIGINT));
    let _ = running.finish().expect(130).says("green (build 2) receives 100 % of the traffic");
    drop(operator.calls());
    let healthy = || vec!["healthy", "healthy"];
    operator.health("Green", [healthy(), vec!["healthy", "unhealthy"]]);
    let _ = operator.update("2").expect(1).says("only 1 of 2 machines stayed healthy").says("all traffic is on blue");
    assert_eq!(shares(&operator.calls()), [["100", "0"]]);
}

#[test]
fn it_continues_where_the_new_build_has_most_of_the_traffic() {
    let operator = left_at("90", "10");
    let _ =
        operator.update("2").expect(0).says("green already runs this build").says("every serving target runs build 2");
    assert_eq!(shares(&operator.calls()), [["0", "100"]]);
}

#[test]
fn a_build_that_was_left_gets_its_machines_before_the_traffic() {
    let operator = Operator::serving_twice();
    let _ = operator.deploy(&["rollback"], &[]).expect(0);
    drop(operator.calls());
    let _ = operator.update("2").expect(0).says("every serving target runs build 2");
    let calls = operator.calls();
    assert_eq!(of(&calls, "CreateChangeSet")[0].parameter("GreenDesiredCapacity"), Some("2"));
    assert_eq!(shares(&calls), [["90", "10"], ["50", "50"], ["0", "100"]]);
}

#[test]
fn machines_that_get_healthy_late_take_over_without_new_ones() {
    let operator = Operator::serving();
    operator.content("2");
    operator.health("Green", [vec!["healthy", "unhealthy"]]);
    let update = ["update-stack", "--yes", "--pause", "0s", "--health-timeout", "1s"];
    let _ = operator.deploy(&update, &[("BUILD_NUMBER", "2")]).expect(1);
    operator.world(|world| world.health.clear());
    drop(operator.calls());
    let _ = operator.update("2").expect(0).says("every serving target runs build 2");
    let calls = operator.calls();
    assert!(of(&calls, "ExecuteChangeSet").is_empty());
    assert_eq!(shares(&calls), [["90", "10"], ["50", "50"], ["0", "100"]]);
}

#[test]
fn a_largest_size_below_what_serves_now_is_refused() {
    let operator = Operator::serving();
    operator.world(|world| world.groups.get_mut("Blue").unwrap().resize("Blue", "1", "4", ""));
    operator.content("2");
    let _ = operator
        .deploy(&["update-stack", "--yes"], &[("BUILD_NUMBER", "2"), ("MAXSIZE", "3")])
        .expect(2)
        .says("4 machines are serving, but MAXSIZE=3 allows fewer");
    assert!(changes(&operator.calls()).is_empty());
}

#[test]
fn a_sick_machine_at_all_traffic_sends_it_back() {
    let operator = Operator::serving();
    operator.content("2");
    let healthy = || vec!["healthy", "healthy"];
    operator.health("Green", [healthy(), healthy(), healthy(), vec!["healthy", "unhealthy"]]);
    let _ = operator.update("2").expect(1).says("all traffic is on blue (build 1)");
    assert_eq!(shares(&operator.calls()), [["90", "10"], ["50", "50"], ["0", "100"], ["100", "0"]]);
    assert_eq!(operator.tape.highest_load(), 50);
}

#[test]
fn the_same_command_finishes_what_stopped_at_all_traffic() {
    let operator = Operator::serving();
    operator.content("2");
    // The first one pins blue.
    operator.tape.script("UpdateAutoScalingGroup", [Turn::Usual, Turn::Refusal(403, "AccessDenied", "no")]);
    let _ = operator
        .update("2")
        .expect(1)
        .says("the deploy stopped; stack glovo-app: green (build 2) receives 100 % of the traffic")
        .says("to continue, run the same command again; to roll back: glovo-bootstrap deploy rollback --build 1");
    let _ = operator.update("2").expect(0).says("every serving target runs build 2");
    let groups =
        operator.world(|world| ["Blue", "Green"].map(|slot| (world.groups[slot].min, world.groups[slot].desired)));
    assert_eq!(groups, [(1, 1), (1, 2)]);
    assert_eq!(operator.parameter("GreenWeight"), "100");
    drop(operator.calls());
    let _ = operator.update("2").expect(0).says("no changes");
}

#[test]
fn release_ends_what_an_abandoned_deploy_has_pinned() {
    let operator = Operator::serving();
    operator.content("2");
    operator.tape.script("ModifyListener", [Turn::Usual, Turn::Refusal(403, "AccessDenied", "no")]);
    let _ = operator.update("2").expect(1).says("green (build 2) receives 10 % of the traffic");
    let pinned = operator.world(|world| ["Blue", "Green"].map(|slot| world.groups[slot].min));
    assert_eq!(pinned, [2, 2]);
    let _ = operator
        .deploy(&["release"], &[])
        .expect(0)
        .says("green (build 2) receives 10 % of the traffic, and may shrink");
    let free = operator
        .world(|world| ["Blue", "Green"].map(|slot| (world.groups[slot].min, world.groups[slot].scheduled.clone())));
    assert_eq!(free, [(1, None), (1, None)]);
}

#[test]
fn a_pin_lasts_longer_than_all_the_shares() {
    let operator = Operator::serving();
    operator.content("2");
    operator.tape.script("ModifyListener", [Turn::Refusal(403, "AccessDenied", "no")]);
    let began = OffsetDateTime::now_utc();
    let shares = "5,10,20,30,40,50,60,70,80,90,100";
    let long =
        ["update-stack", "--yes", "--shift", shares, "--pause", "1h", "--health-timeout", "30m", "--watch", "3h"];
    let _ = operator.deploy(&long, &[("BUILD_NUMBER", "2")]).expect(1);
    let calls = operator.calls();
    let pins = of(&calls, "PutScheduledUpdateGroupAction");
    assert_eq!(pins.len(), 2);
    for pin in pins {
        let end = OffsetDateTime::parse(pin.get("StartTime"), &Rfc3339).unwrap();
        // The time until the machines are healthy, the shares, the watch, and the way back.
        assert!(end > began + Duration::hours(1 + 10 + 3), "{end}");
    }
}

#[test]
fn two_sick_builds_leave_the_traffic_and_say_so() {
    let operator = Operator::serving();
    operator.content("2");
    operator.health("Green", [vec!["healthy", "healthy"], vec!["healthy", "unhealthy"]]);
    operator.health("Blue", [vec!["unhealthy", "unhealthy"]]);
    let told = operator
        .update("2")
        .expect(1)
        .says(
            "no machine of blue (build 1) is healthy, so the traffic stays where it is: green (build 2) receives 10 %",
        )
        .says("once a machine of blue (build 1) is healthy: glovo-bootstrap deploy rollback --now --build 1")
        .says("to give green (build 2) all traffic instead: glovo-bootstrap deploy rollback --now --build 2")
        .says("only 1 of 2 machines stayed healthy");
    assert!(!told.stderr.contains("no traffic was moved"), "{}", told.stderr);
    assert_eq!(shares(&operator.calls()), [["90", "10"]]);
}
