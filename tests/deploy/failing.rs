//! Deploys that fail, and deploys without changes.

use crate::{
    operator::Operator,
    tape::{Turn, changes, of, shares},
    world::{BLUE, Event, GREEN, Group, Scene},
};

const GROUP: &str = "AWS::AutoScaling::AutoScalingGroup";
const SIGNAL: &str = "Received FAILURE signal with UniqueId i-0123456789abcdef0 copy_http_resources";
const CANCELLED: &str = "Resource creation cancelled";
const UNSATISFIED: &str =
    "Received 1 FAILURE signal(s) out of 2. Unable to satisfy 100% MinSuccessfulInstancesPercent requirement";
/// The console of a machine: lines of the kernel and a login around and between those of the agent.
const CONSOLE: &str = "\
[    0.000000] Linux version 5.4.0-1103-aws\r
[   12.345678] IPv6: ADDRCONF(NETDEV_CHANGE): eth0: link becomes ready\r
-----BEGIN GLOVO-BOOTSTRAP FAILURE-----\r
instance: i-0123456789abcdef0\r
build: 2\r
[   13.000001] random: crng init done\r
step: copy_http_resources\r
resource: download /var/www/glovo-app/app.jar\r
error: fetching https://jars.example.com/app-2.jar\r
caused by: the server answered 404 Not Found\r
hint: check the URL, or that the file was uploaded\r
-----END GLOVO-BOOTSTRAP FAILURE-----\r
\r
Ubuntu 18.04 LTS ip-172-31-0-10 ttyS0\r
";

/// Lets the machines of the new slot signal a failure, and CloudFormation roll the stack back.
fn failure() -> [Scene; 2] {
    let events: Vec<Event> = vec![
        ("GreenGroup", GROUP, "CREATE_IN_PROGRESS", ""),
        ("GreenGroup", GROUP, "CREATE_IN_PROGRESS", SIGNAL),
        ("GlovoAppScaleUpPolicyGreen", "AWS::AutoScaling::ScalingPolicy", "CREATE_FAILED", CANCELLED),
        ("GreenGroup", GROUP, "CREATE_FAILED", UNSATISFIED),
    ];
    [Scene("UPDATE_ROLLBACK_IN_PROGRESS", events), Scene("UPDATE_ROLLBACK_COMPLETE", vec![])]
}

#[test]
fn what_the_machines_are_at_is_told_while_they_are_waited_for() {
    let operator = Operator::serving();
    operator.content("2");
    operator.world(|world| {
        let idle = || std::iter::repeat_n(Scene("UPDATE_IN_PROGRESS", vec![]), 9);
        let waiting = |events: Vec<Event>| std::iter::once(Scene("UPDATE_IN_PROGRESS", events)).chain(idle());
        let signal = "Received SUCCESS signal with UniqueId i-new-1";
        world.plot = waiting(vec![("GreenGroup", GROUP, "CREATE_IN_PROGRESS", "")])
            .chain(waiting(vec![("GreenGroup", GROUP, "CREATE_IN_PROGRESS", signal)]))
            .chain(failure())
            .collect();
        world.console = "[ 9.0] cloud-init[9]: step 2/8 enable_swap: 1 change (800 ms)\r\n".into();
        let machines = ["i-new-1", "i-new-2"].map(|id| (id.to_owned(), "2".to_owned()));
        let _ = world.groups.insert(
            "Green",
            Group { min: 1, desired: 2, max: 3, machines: machines.into(), scheduled: None, replaced: 0 },
        );
    });
    let said = operator.update("2").expect(1);
    for (words, times) in [
        ("machine i-new-1: step 2/8 enable_swap", 1),
        ("machine i-new-2: step 2/8 enable_swap", 1),
        ("machine i-new-1: signalled", 1),
        ("machine i-new-2: signalled", 0),
    ] {
        assert_eq!(said.stdout.matches(words).count(), times, "{words} in {}", said.stdout);
    }
}

#[test]
fn a_machine_without_the_program_is_quoted_from_its_console() {
    let operator = Operator::serving();
    operator.content("2");
    operator.world(|world| {
        let idle = || std::iter::repeat_n(Scene("UPDATE_IN_PROGRESS", vec![]), 9);
        let unsatisfied = "Received 0 SUCCESS signal(s) out of 2. Unable to satisfy 100% MinSuccessfulInstancesPercent";
        let failed = vec![("GreenGroup", GROUP, "CREATE_FAILED", unsatisfied)];
        world.plot =
            std::iter::once(Scene("UPDATE_IN_PROGRESS", vec![("GreenGroup", GROUP, "CREATE_IN_PROGRESS", "")]))
                .chain(idle())
                .chain([Scene("UPDATE_ROLLBACK_IN_PROGRESS", failed), Scene("UPDATE_ROLLBACK_COMPLETE", vec![])])
                .collect();
        world.console =
            "[ 9.0] up\r\nglovo-bootstrap: https://b.s3.test/agent: HTTP Error 403: Forbidden AccessDenied\r\n".into();
        let machines = [("i-new-1".to_owned(), "2".to_owned())].into();
        let _ =
            world.groups.insert("Green", Group { min: 1, desired: 2, max: 3, machines, scheduled: None, replaced: 0 });
    });
    let said = operator.update("2").expect(1);
    let words = "i-new-1: glovo-bootstrap: https://b.s3.test/agent: HTTP Error 403: Forbidden AccessDenied";
    assert_eq!(said.stdout.matches(words).count(), 1, "{}", said.stdout);
}

#[test]
fn a_machines_block_follows_its_failure_and_traffic_stays() {
    let operator = Operator::serving();
    operator.content("2");
    operator.world(|world| {
        world.plot = failure().into();
        world.console = CONSOLE.into();
    });
    let failed = operator
        .update("2")
        .expect(1)
        .says("the stack glovo-app is UPDATE_ROLLBACK_COMPLETE")
        .says("caused by: GreenGroup (CREATE_FAILED): Received 1 FAILURE signal(s) out of 2");
    let at = |words: &str| failed.stdout.find(words).unwrap_or_else(|| panic!("missing: {words}\n{}", failed.stdout));
    let own = [
        SIGNAL,
        "step: copy_http_resources",
        "error: fetching https://jars.example.com/app-2.jar",
        "caused by: the server answered 404 Not Found",
        "hint: check the URL, or that the file was uploaded",
        UNSATISFIED,
    ];
    assert!(own.map(at).is_sorted(), "{}", failed.stdout);
    assert!(!failed.stdout.contains("crng init done"), "the kernel's words: {}", failed.stdout);
    let calls = operator.calls();
    assert!(shares(&calls).is_empty(), "no weight is moved");
    assert_eq!(changes(&calls), ["CreateChangeSet", "ExecuteChangeSet"]);
    assert_eq!(of(&calls, "GetConsoleOutput")[0].get("InstanceId"), "i-0123456789abcdef0");
    assert_eq!(operator.world(|world| [BLUE, GREEN].map(|slot| world.weights[slot].clone())), ["100", "0"]);
}

#[test]
fn a_console_that_shows_the_failure_late_is_read_again() {
    // The first number: shown while the stack rolls back. The second: shown after its end.
    for empty in [1, 4] {
        let operator = Operator::serving();
        operator.content("2");
        operator.world(|world| {
            world.plot = failure().into();
            world.console = CONSOLE.into();
            world.empty_consoles = empty;
        });
        let failed = operator.update("2").expect(1).says("error: fetching https://jars.example.com/app-2.jar");
        assert!(!failed.stdout.contains("shows no failure yet"), "{}", failed.stdout);
        let block = failed.stdout.matches("step: copy_http_resources").count();
        assert_eq!(block, 1, "{}", failed.stdout);
    }
}

#[test]
fn a_machine_that_has_written_nothing_is_named() {
    let operator = Operator::serving();
    operator.content("2");
    operator.world(|world| world.plot = failure().into());
    let _ = operator.update("2").expect(1).says("i-0123456789abcdef0: its console output shows no failure yet");
}

#[test]
fn the_next_build_can_be_deployed_after_one_that_failed() {
    let operator = Operator::serving();
    operator.content("2");
    operator.world(|world| world.plot = failure().into());
    let _ = operator.update("2").expect(1);
    // The stack is unchanged, so the same number is free.
    let _ = operator.update("2").expect(0).says("every serving target runs build 2");
}

#[test]
fn a_rolled_back_stack_is_not_deleted_automatically() {
    let operator = Operator::new();
    let create = ["create-stack", "--yes"];
    operator.world(|world| {
        world.plot = vec![
            Scene("ROLLBACK_IN_PROGRESS", vec![("Balancer", "AWS::EC2::X", "CREATE_FAILED", "no such thing")]),
            Scene("ROLLBACK_COMPLETE", vec![]),
        ];
    });
    let hint = "hint: glovo-bootstrap deploy delete-stack --stack glovo-app";
    let _ = operator
        .deploy(&create, &[])
        .expect(1)
        .says("caused by: Balancer (CREATE_FAILED): no such thing")
        .says("the stack glovo-app is ROLLBACK_COMPLETE")
        .says(hint);
    let _ = operator.deploy(&create, &[]).expect(1).says("ROLLBACK_COMPLETE").says(hint);
    assert_eq!(changes(&operator.calls()), ["CreateChangeSet", "ExecuteChangeSet"]);
    let _ = operator.deploy(&["delete-stack", "--yes"], &[]).expect(0).says("the stack glovo-app is deleted");
    let _ = operator.deploy(&create, &[]).expect(0).says("every serving target runs build 1");
}

#[test]
fn no_changes_are_no_failure() {
    let operator = Operator::serving();
    for refuses in [false, true] {
        operator.world(|world| world.refuses_unchanged = refuses);
        let _ = operator.update("1").expect(0).says("no changes: glovo-app is as declared");
        let calls = operator.calls();
        let left: &[&str] = if refuses { &["CreateChangeSet"] } else { &["CreateChangeSet", "DeleteChangeSet"] };
        assert_eq!(changes(&calls), left, "nothing is left behind");
    }
}

/// An operator whose blue slot, with build 1, is to shrink in a quarter of an hour.
fn after_a_deploy() -> Operator {
    let operator = Operator::serving();
    operator.content("2");
    let _ = operator.deploy(&["update-stack", "--yes", "--pause", "0s"], &[("BUILD_NUMBER", "2")]).expect(0);
    assert!(operator.world(|world| world.groups["Blue"].scheduled.is_some()));
    operator.content("3");
    drop(operator.calls());
    operator
}

#[test]
fn a_cancellation_that_fails_leaves_no_change_set() {
    let operator = after_a_deploy();
    let throttled = (0..6).map(|_| Turn::Refusal(400, "Throttling", "Rate exceeded"));
    operator.tape.script("DeleteScheduledAction", throttled);
    let _ = operator.deploy(&["update-stack", "--yes", "--patience", "0s"], &[("BUILD_NUMBER", "3")]).expect(75);
    let calls = operator.calls();
    assert_eq!(changes(&calls).last(), Some(&"DeleteChangeSet"), "{:?}", changes(&calls));
    assert!(of(&calls, "ExecuteChangeSet").is_empty());
}

#[test]
fn a_fill_that_does_not_begin_lets_the_idle_slot_shrink() {
    let operator = after_a_deploy();
    operator.tape.script("ExecuteChangeSet", [Turn::Refusal(403, "AccessDenied", "no")]);
    let _ = operator
        .deploy(&["update-stack", "--yes"], &[("BUILD_NUMBER", "3")])
        .expect(1)
        .says("blue (build 1) keeps 2 machines for 15 min 00 s, then 1, for deploy rollback");
    let calls = operator.calls();
    assert_eq!(changes(&calls).last(), Some(&"PutScheduledUpdateGroupAction"), "{:?}", changes(&calls));
    assert!(operator.world(|world| world.groups["Blue"].scheduled.is_some()));
}
