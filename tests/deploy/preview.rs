//! `plan`: what will change, before it does.

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    operator::Operator,
    tape::{changes, of},
    world::{text, xml},
};

/// A change of a resource as `DescribeChangeSet` tells it.
fn change(action: &str, name: &str, kind: &str, replacement: &str, details: &str) -> String {
    let head = text("Action", action) + &text("LogicalResourceId", name) + &text("ResourceType", kind);
    let change = head + &text("Replacement", replacement) + &xml("Details", details);
    xml("member", &(text("Type", "Resource") + &xml("ResourceChange", &change)))
}

fn property(path: &str, recreation: &str, values: Option<(&str, &str)>) -> String {
    let target = text("Attribute", "Properties") + &text("Name", "x") + &text("Path", path);
    let values = values.map(|(before, after)| text("BeforeValue", before) + &text("AfterValue", after));
    xml("member", &xml("Target", &(target + &text("RequiresRecreation", recreation) + &values.unwrap_or_default())))
}

fn details() -> String {
    let scripts = ["#!/bin/sh\necho content 1\nexit\n", "#!/bin/sh\necho content 2\nexit\n"];
    let [before, after] = scripts.map(|script| BASE64_STANDARD.encode(script));
    let template = property("/Properties/LaunchTemplateData/UserData", "Never", Some((&before, &after)))
        + &property("/Properties/LaunchTemplateData/ImageId", "Never", Some(("ami-1", "ami-2")));
    let size = property("/Properties/MaxSize", "Never", Some(("3", "5")));
    change("Modify", "GreenLaunchTemplate", "AWS::EC2::LaunchTemplate", "False", &template)
        // One property, two causes.
        + &change("Modify", "GreenGroup", "AWS::AutoScaling::AutoScalingGroup", "Conditional", &(size.clone() + &size))
        + &change("Modify", "Balancer", "AWS::X::Balancer", "True", &property("/Properties/Name", "Always", None))
        + &change("Add", "GreenAlarm", "AWS::CloudWatch::Alarm", "", "")
        + &change("Remove", "OldAlarm", "AWS::CloudWatch::Alarm", "", "")
}

#[test]
fn plan_shows_each_property_before_and_after() {
    let operator = Operator::serving();
    operator.content("2");
    operator.world(|world| world.changes = details());
    let told = operator.deploy(&["plan"], &[("BUILD_NUMBER", "2"), ("INSTANCETYPE", "t3.small")]).expect(0);
    for words in [
        "build 1 → 2: green is filled with 2 machines",
        "no downtime",
        "parameter GreenVersionId: (none) → 2",
        "parameter GreenInstanceType: t3.micro → t3.small",
        "~ GreenLaunchTemplate (AWS::EC2::LaunchTemplate)\n",
        "/Properties/LaunchTemplateData/ImageId: ami-1 → ami-2",
        "/Properties/LaunchTemplateData/UserData:\n",
        "-echo content 1\n",
        "+echo content 2\n",
        "~ GreenGroup (AWS::AutoScaling::AutoScalingGroup)  may be replaced",
        "/Properties/MaxSize: 3 → 5",
        "~ Balancer (AWS::X::Balancer)  is replaced",
        "/Properties/Name  (replaces it)",
        "+ GreenAlarm (AWS::CloudWatch::Alarm)",
        "- OldAlarm (AWS::CloudWatch::Alarm)",
    ] {
        assert!(told.stdout.contains(words), "missing: {words}\n{}", told.stdout);
    }
    assert_eq!(told.stdout.matches("/Properties/MaxSize").count(), 1, "told once");
    let calls = operator.calls();
    assert_eq!(changes(&calls), ["CreateChangeSet", "DeleteChangeSet"]);
    assert_eq!(of(&calls, "DescribeChangeSet")[0].get("IncludePropertyValues"), "true");
    assert_eq!(operator.parameter("GreenVersionId"), "");
}

#[test]
fn plan_tells_programs_the_same() {
    let operator = Operator::serving();
    operator.content("2");
    operator.world(|world| world.changes = details());
    let told = operator.deploy(&["plan", "--json"], &[("BUILD_NUMBER", "2")]).expect(0);
    let lines: Vec<serde_json::Value> = told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let changes = lines.iter().find_map(|line| line.get("changes")).unwrap();
    assert_eq!(changes[1]["resource"], "GreenGroup");
    let first = &changes[1]["properties"][0];
    assert_eq!(
        (&first["path"], &first["before"], &first["after"]),
        (&"/Properties/MaxSize".into(), &"3".into(), &"5".into())
    );
}

#[test]
fn plan_of_a_new_stack_leaves_none() {
    let operator = Operator::new();
    let _ = operator.deploy(&["plan"], &[]).expect(0).says("build 1: a new stack with 2 machines");
    assert_eq!(changes(&operator.calls()), ["CreateChangeSet", "DeleteChangeSet", "DeleteStack"]);
    assert_eq!(operator.world(|world| world.state), "");
}

#[test]
fn plan_of_what_is_so_says_that_nothing_changes() {
    let operator = Operator::serving();
    let _ = operator.deploy(&["plan"], &[("BUILD_NUMBER", "1")]).expect(0).says("no changes: glovo-app is as declared");
}

const LATER: &str = "{{changeSet:KNOWN_AFTER_APPLY}}";

/// A group whose launch template gets a new version, which the template's update policy answers with a new group.
fn new_version() -> String {
    let version = property("/Properties/LaunchTemplate/Version", "Conditionally", Some(("1", LATER)));
    let inside = format!("{{\"Arn\":\"arn:1\",\"Id\":\"{LATER}\"}}");
    let profile = property("/Properties/IamInstanceProfile", "Never", Some(("{}", &inside)));
    change("Modify", "GreenGroup", "AWS::AutoScaling::AutoScalingGroup", "Conditional", &version)
        + &change("Modify", "GreenLaunchTemplate", "AWS::EC2::LaunchTemplate", "False", &profile)
}

#[test]
fn plan_says_that_a_group_is_replaced_and_what_is_not_known_yet() {
    let operator = Operator::serving();
    operator.content("2");
    operator.world(|world| world.changes = new_version());
    let told = operator.deploy(&["plan"], &[("BUILD_NUMBER", "2")]).expect(0);
    for words in [
        "~ GreenGroup (AWS::AutoScaling::AutoScalingGroup)  is replaced: a new group with new machines\n",
        "/Properties/LaunchTemplate/Version: 1 → (known after the update)",
        r#"/Properties/IamInstanceProfile: {} → {"Arn":"arn:1","Id":"(known after the update)"}"#,
    ] {
        assert!(told.stdout.contains(words), "missing: {words}\n{}", told.stdout);
    }
    assert!(!told.stdout.contains("KNOWN_AFTER_APPLY"), "{}", told.stdout);
    let told = operator.deploy(&["plan", "--json"], &[("BUILD_NUMBER", "2")]).expect(0);
    let lines: Vec<serde_json::Value> = told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let changes = lines.iter().find_map(|line| line.get("changes")).unwrap();
    assert_eq!(changes[0]["replacement"], "True");
    let version = &changes[0]["properties"][0];
    assert_eq!((&version["after"], &version["known_after_update"]), (&serde_json::Value::Null, &true.into()));
    assert_eq!(changes[1]["replacement"], "False");
}
