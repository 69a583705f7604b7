//! What a company's account demands of a stack: tags, a role of CloudFormation, protection from its deletion.

use crate::{
    operator::Operator,
    permissions::TEMPLATES,
    tape::{Turn, changes, of, shares},
};

const ROLE: &str = "arn:aws:iam::123456789012:role/cloudformation";

#[test]
fn tags_and_a_service_role_are_those_of_the_stack() {
    let operator = Operator::new();
    let settings = format!("service_role = \"{ROLE}\"\n[tag]\nteam = \"pay\"\n\"cost-centre\" = \"7=7\"\n");
    let _ = operator.sandbox.write("deploy.toml", settings);
    let _ = operator.deploy(&["create-stack", "--yes", "--tag", "team=shop"], &[]).expect(0);
    let calls = operator.calls();
    let create = of(&calls, "CreateChangeSet")[0];
    let tag = |n: u8| [create.get(&format!("Tags.member.{n}.Key")), create.get(&format!("Tags.member.{n}.Value"))];
    assert_eq!([tag(1), tag(2)], [["cost-centre", "7=7"], ["team", "shop"]]);
    assert_eq!(create.get("RoleARN"), ROLE);
}

#[test]
fn without_them_a_stack_keeps_its_own() {
    let operator = Operator::serving();
    operator.content("2");
    let _ = operator.update("2").expect(0);
    let calls = operator.calls();
    let ours = ["CreateChangeSet", "UpdateStack"].map(|operation| of(&calls, operation)).concat();
    assert!(ours.len() > 1, "{calls:?}");
    for call in ours {
        assert_eq!((call.get("RoleARN"), call.get("Tags.member.1.Key")), ("", ""), "{call:?}");
    }
}

#[test]
fn what_cannot_be_a_role_or_a_tag_is_refused() {
    let long = format!("a={}", "b".repeat(257));
    for (flag, value, words) in [
        ("--service-role", "cloudformation", "`cloudformation` is not a role"),
        ("--service-role", "arn:aws:iam::123456789012:user/ann", "is not a role"),
        ("--tag", "team", "`--tag team` has no `=`"),
        ("--tag", "=pay", "`=pay` is not a tag"),
        // EC2 does not start machines with such a name, because their tags are in their metadata.
        ("--tag", "cost centre=7", "`cost centre=7` is not a tag"),
        ("--tag", "a/b=7", "`a/b=7` is not a tag"),
        ("--tag", "aws:team=pay", "`aws:team=pay` is not a tag"),
        ("--tag", &long, "is not a tag"),
    ] {
        let operator = Operator::new();
        let _ = operator.deploy(&["create-stack", "--yes", flag, value], &[]).expect(2).says(words);
        assert!(changes(&operator.calls()).is_empty(), "{flag} {value}");
    }
}

#[test]
fn the_scheme_of_a_balancer_with_target_groups_stays() {
    let operator = Operator::new();
    let deploy = |verb, scheme| operator.deploy(&[verb, "--yes", "--parameter", scheme], &[("BUILD_NUMBER", "1")]);
    let _ = deploy("create-stack", "Scheme=internal").expect(0);
    let _ = deploy("update-stack", "Scheme=internal").expect(0);
    drop(operator.calls());
    let refused = operator.deploy(&["plan", "--parameter", "Scheme=internet-facing"], &[]).expect(2);
    let _ = refused.says("the balancer of stack glovo-app is internal, and stays so").says("deploy a new stack");
    assert!(changes(&operator.calls()).is_empty());
}

#[test]
fn a_protected_stack_is_named_and_not_deleted() {
    let operator = Operator::new();
    let _ = operator.sandbox.write("deploy.toml", "termination_protection = true\n");
    let _ = operator.deploy(&["plan"], &[]).expect(0).says("glovo-app gets termination protection");
    let create = operator.deploy(&["create-stack", "--yes"], &[]).expect(0);
    let _ = create.says("glovo-app gets termination protection").says("glovo-app has termination protection now");
    let calls = operator.calls();
    assert_eq!(of(&calls, "UpdateTerminationProtection")[0].get("EnableTerminationProtection"), "true");
    // Only the protection changes.
    let planned = operator.deploy(&["plan", "--termination-protection", "false"], &[]).expect(0);
    assert!(!planned.says("glovo-app loses its termination protection").stdout.contains("as declared"));
    // Without the setting, it stays.
    let _ = operator.sandbox.write("deploy.toml", "");
    let _ = operator.deploy(&["plan"], &[]).expect(0).says("glovo-app has termination protection");
    let _ = operator.deploy(&["status"], &[]).expect(0).says("2026-11-24T20:00:00Z, with termination protection");
    let _ = operator.deploy(&["status", "--json"], &[]).expect(0).says(r#""protected":["glovo-app"]"#);
    let allow =
        "aws cloudformation update-termination-protection --no-enable-termination-protection --stack-name glovo-app";
    let _ = operator
        .deploy(&["delete-stack", "--yes"], &[])
        .expect(2)
        .says("the stack glovo-app has termination protection; nothing was deleted")
        .says(allow);
    assert!(operator.calls().iter().all(|call| !["DeleteStack", "ExecuteChangeSet"].contains(&&*call.operation)));
    let off = ["update-stack", "--yes", "--termination-protection", "false"];
    let _ = operator.deploy(&off, &[]).expect(0).says("has lost its termination protection");
    let _ = operator.deploy(&["delete-stack", "--yes"], &[]).expect(0);
}

#[test]
fn a_refused_protection_holds_up_no_build() {
    let operator = Operator::serving();
    operator.content("2");
    operator.tape.script("UpdateTerminationProtection", [Turn::Refusal(403, "AccessDenied", "not authorized")]);
    let update = ["update-stack", "--yes", "--pause", "0s", "--termination-protection", "true"];
    let refused = operator.deploy(&update, &[("BUILD_NUMBER", "2")]).expect(1);
    let _ = refused
        .says("every serving target runs build 2")
        .says("the stack glovo-app is complete, but did not get its termination protection");
    assert_eq!(shares(&operator.calls()).last(), Some(&["0", "100"]));
    let again = operator.deploy(&update, &[("BUILD_NUMBER", "2")]).expect(0);
    let _ = again.says("glovo-app has termination protection now");
}

#[test]
fn the_access_logs_of_each_balancer_go_where_parameters_say() {
    for template in TEMPLATES {
        let is_classic = template.contains("AWS::ElasticLoadBalancing::LoadBalancer");
        let letter = if is_classic { "[A-Za-z0-9._-]" } else { "[A-Za-z0-9!_.'()-]" };
        // Elastic Load Balancing forbids this word in a prefix.
        let pattern = format!("\n    AllowedPattern: (?!.*AWSLogs)({letter}+(/{letter}+)*)?\n");
        assert!(template.contains(&pattern), "{pattern}");
        for line in
            ["AccessLogBucket:", "AccessLogPrefix:", "HasAccessLogs: !Not [!Equals [!Ref AccessLogBucket, \"\"]]"]
        {
            assert!(template.contains(&format!("\n  {line}")), "{line}");
        }
    }
    let operator = Operator::new();
    let logs = ["--parameter", "AccessLogBucket=logs", "--parameter", "AccessLogPrefix=web/app"];
    let _ = operator.deploy(&[&["create-stack", "--yes"], &logs[..]].concat(), &[]).expect(0);
    let values = ["AccessLogBucket", "AccessLogPrefix"].map(|name| operator.parameter(name));
    assert_eq!(values, ["logs", "web/app"]);
}
