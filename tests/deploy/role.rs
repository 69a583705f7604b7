//! What the machines' role may read: exactly the secrets that the steps name.

use crate::{
    operator::Operator,
    sandbox::Finished,
    tape::{Turn, changes, of},
    world::World,
};

const ACCOUNT: &str = "eu-central-1:123456789012";
/// Steps with a secret of each store, and each place of a manifest that names one.
const STEPS: &str = "
[variables]
token = { secret = \"ssm:///app/token\" }
[[resource]]
kind = \"credential\"
name = \"db\"
source = \"ssm:///app/db\"
[[resource]]
kind = \"file\"
path = \"/etc/{{ instance.id }}\"
source = \"secretsmanager://prod/notes#key\"
[[resource]]
kind = \"file\"
path = \"/etc/token\"
content = \"{{ token }}\"
secret = true
[[resource]]
kind = \"file\"
path = \"/etc/vault\"
source = \"vault://kv/notes#key\"
";

/// Returns steps with a secret in a file.
pub fn file_of(source: &str) -> String {
    format!("[[resource]]\nkind = \"file\"\npath = \"/etc/secret\"\nsource = \"{source}\"\n")
}

/// Runs a verb of `deploy` with the program and these steps.
pub fn deploy(operator: &Operator, verb: &str, build: &str, steps: &str, more: &[&str]) -> Finished {
    let (variables, resources) = steps.split_at(steps.find("[[resource]]").unwrap());
    let resources = resources.replace("[[resource]]", "[[step.resource]]");
    let steps = format!("{variables}[[step]]\nname = \"secrets\"\n{resources}");
    let steps = operator.sandbox.write("steps.toml", steps);
    let agrees: &[&str] = if verb == "plan" { &[] } else { &["--yes", "--pause", "0s"] };
    let arguments = operator.with_agent(&[&[verb, "--steps", &steps], agrees, more].concat());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    operator.deploy(&arguments, &[("CLOUD_INIT_PATH", ""), ("BUILD_NUMBER", build), ("DNSRECORD", "app.example.com")])
}

/// Returns the output for a stack that cannot be made with these steps. Checks that all calls were reads.
fn refused(alter: impl FnOnce(&mut World), steps: &str) -> Finished {
    let operator = Operator::new();
    operator.world(alter);
    let refused = deploy(&operator, "create-stack", "1", steps, &[]).expect(2);
    let calls = operator.calls();
    assert!(changes(&calls).is_empty(), "{calls:?}");
    refused.says("these settings cannot be deployed; nothing was changed")
}

fn as_it_is(_: &mut World) {}

fn parameter(name: &str) -> String {
    format!("arn:aws:ssm:{ACCOUNT}:parameter/{name}")
}

#[test]
fn the_role_may_read_exactly_the_secrets_that_the_steps_name() {
    for (strategy, prefix) in [("blue-green", "Blue"), ("compatible", ""), ("weighted-dns", "")] {
        let operator = if strategy == "weighted-dns" { Operator::of_two_stacks() } else { Operator::new() };
        let _ = deploy(&operator, "plan", "1", STEPS, &["--strategy", strategy]).expect(0);
        let calls = operator.calls();
        let given = |name: &str| of(&calls, "CreateChangeSet")[0].parameter(&format!("{prefix}{name}"));
        let arns = [
            format!("arn:aws:secretsmanager:{ACCOUNT}:secret:prod/notes-??????"),
            parameter("app/db"),
            parameter("app/token"),
        ];
        assert_eq!(given("SecretArns"), Some(&*arns.join(",")), "{strategy}");
        let key = format!("arn:aws:kms:{ACCOUNT}:key/app-key");
        assert_eq!(given("SecretKeyArns"), Some(&*key), "{strategy}");
    }
}

#[test]
fn the_operator_s_machine_reads_no_value() {
    let operator = Operator::new();
    let _ = deploy(&operator, "create-stack", "1", STEPS, &[]).expect(0);
    let calls = operator.calls();
    assert_eq!(of(&calls, "DescribeParameters").len(), 4, "two pages for each parameter");
    assert_eq!((of(&calls, "DescribeSecret").len(), of(&calls, "DescribeKey").len()), (1, 1));
    let is_value = |name: &str| name.starts_with("GetParameter") || name.starts_with("GetSecret");
    let read: Vec<_> = calls.iter().filter(|call| is_value(&call.operation)).map(|call| &call.body).collect();
    // The image's parameter is Canonical's, and public.
    let image = r#"{"Name":"/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"}"#;
    assert_eq!(read, [image.as_bytes()]);
}

#[test]
fn plan_names_the_secrets_and_what_it_cannot_name() {
    let operator = Operator::new();
    let steps = STEPS.to_owned() + &file_of("ssm:///{{ instance.region }}/db");
    let _ = deploy(&operator, "plan", "1", &steps, &[])
        .expect(0)
        .says("\nthe machines' role may read ssm:///app/db, ssm:///app/token, secretsmanager://prod/notes#key\n")
        .says("note: the machines' role may not read ssm:///{{ instance.region }}/db: only the machine knows its name");
    let _ = deploy(&operator, "plan", "1", &file_of("ssm:///app/db"), &["--json"])
        .expect(0)
        .says("the machines' role may read ssm:///app/db\"}");
}

#[test]
fn a_name_by_distribution_is_each_distribution_s_name() {
    let operator = Operator::new();
    let names = "[variables]\nname = { debian = \"/app/db\", rhel = \"plain\" }\n";
    let created = deploy(&operator, "create-stack", "1", &(names.to_owned() + &file_of("ssm://{{ name }}")), &[]);
    assert!(!created.expect(0).stdout.contains("may not read"));
    assert_eq!(operator.parameter("BlueSecretArns"), [parameter("app/db"), parameter("plain")].join(","));
}

#[test]
fn each_slot_keeps_the_secrets_of_its_build() {
    let operator = Operator::new();
    let _ = deploy(&operator, "create-stack", "1", &file_of("ssm:///app/db"), &[]).expect(0);
    let _ = deploy(&operator, "update-stack", "2", &file_of("ssm:///app/token"), &[]).expect(0);
    assert_eq!(operator.parameter("BlueSecretArns"), parameter("app/db"));
    assert_eq!(operator.parameter("GreenSecretArns"), parameter("app/token"));
    assert_eq!(operator.parameter("GreenSecretKeyArns"), "", "the key of AWS needs no permission");
}

#[test]
fn a_secret_that_does_not_exist_is_refused() {
    let _ = refused(as_it_is, &file_of("ssm:///app/other"))
        .says("ssm:///app/other: there is no parameter /app/other in this account and region (to store it: aws ssm");
    let _ = refused(as_it_is, &file_of("secretsmanager://prod/other")).says(
        "secretsmanager://prod/other: there is no secret prod/other in this account and region (to store it: aws",
    );
    let _ = refused(as_it_is, &file_of("ssm:///app/db?version=4"))
        .says("ssm:///app/db?version=4: the newest version of the parameter is 3");
    for source in ["secretsmanager://prod/notes?version=other", "secretsmanager://prod/notes?stage=AWSPREVIOUS"] {
        let _ = refused(as_it_is, &file_of(source)).says(&format!("{source}: the secret has no such version"));
    }
    let _ = refused(|world| world.stores.stages = vec![], &file_of("secretsmanager://prod/notes"))
        .says("secretsmanager://prod/notes: the secret has no value yet");
}

#[test]
fn a_secret_that_machines_could_not_read_is_refused() {
    let _ = refused(|world| world.stores.is_deleted = true, &file_of("secretsmanager://prod/notes")).says(
        "the secret is marked for deletion (to keep it: aws secretsmanager restore-secret --secret-id prod/notes)",
    );
    let _ = refused(|world| world.stores.key_state = "PendingDeletion", &file_of("ssm:///app/db"))
        .says("ssm:///app/db: the state of its key alias/app is PendingDeletion, not Enabled");
    let elsewhere = "ssm://arn:aws:ssm:eu-west-1:123456789012:parameter/app/db";
    let _ = refused(as_it_is, &file_of(elsewhere)).says("it is in eu-west-1, but the stack is in eu-central-1");
}

#[test]
fn a_written_arn_is_allowed_as_it_is_or_completed() {
    let complete = format!("arn:aws:secretsmanager:{ACCOUNT}:secret:prod/mail-AbCdEf");
    let partial = format!("arn:aws:secretsmanager:{ACCOUNT}:secret:prod/mail");
    let foreign = "arn:aws:ssm:eu-central-1:999999999999:parameter/shared/db";
    for (source, arn) in [
        (format!("secretsmanager://{complete}"), complete.clone()),
        (format!("secretsmanager://{partial}"), format!("{partial}-??????")),
        (format!("ssm://{}", parameter("app/db")), parameter("app/db")),
        (format!("ssm://{foreign}"), foreign.to_owned()),
        ("ssm:///aws/service/a".to_owned(), "arn:aws:ssm:eu-central-1::parameter/aws/service/a".to_owned()),
    ] {
        let operator = Operator::new();
        let created = deploy(&operator, "create-stack", "1", &file_of(&source), &[]).expect(0);
        assert_eq!(operator.parameter("BlueSecretArns"), arn, "{source}");
        let is_foreign = source.contains(foreign);
        assert_eq!(created.stdout.contains("is not checked: it belongs to account 999999999999"), is_foreign);
    }
}

#[test]
fn a_caller_who_may_not_look_can_still_deploy() {
    let operator = Operator::new();
    let _ = deploy(&operator, "create-stack", "1", &file_of("ssm:///app/db"), &[]).expect(0);
    let key = operator.parameter("BlueSecretKeyArns");
    assert!(key.ends_with("key/app-key"), "{key}");
    for (operation, action) in [("DescribeParameters", "ssm:DescribeParameters"), ("DescribeKey", "kms:DescribeKey")] {
        operator.tape.script(operation, [Turn::Refusal(400, "AccessDeniedException", "not authorized")]);
        let planned = deploy(&operator, "update-stack", "1", &file_of("ssm:///app/db"), &[]).expect(0);
        let _ = planned.says("note: ssm:///app/db").says(&format!("allow {action} in the caller's IAM policy"));
        assert_eq!(operator.parameter("BlueSecretKeyArns"), key, "what was allowed stays so");
    }
    operator.tape.script("DescribeSecret", [Turn::Refusal(400, "AccessDeniedException", "not authorized")]);
    let _ = deploy(&operator, "update-stack", "2", &file_of("secretsmanager://prod/mail"), &[])
        .expect(0)
        .says("allow secretsmanager:DescribeSecret in the caller's IAM policy");
    let arn = format!("arn:aws:secretsmanager:{ACCOUNT}:secret:prod/mail-??????");
    assert_eq!(operator.parameter("GreenSecretArns"), arn);
}

#[test]
fn more_secrets_than_a_role_can_name_are_refused() {
    let file = |n| file_of(&format!("ssm:///aws/service/{n:040}")).replace("/etc/secret", &format!("/etc/{n}"));
    let many: String = (0..60).map(file).collect();
    let _ = refused(as_it_is, &many)
        .says("the ARNs of secrets and variables have 5")
        .says("one secret can have several fields");
}

#[test]
fn own_user_data_names_no_secret() {
    let operator = Operator::serving();
    assert_eq!(operator.parameter("BlueSecretArns"), "");
}

#[test]
fn the_role_may_read_the_credentials_of_an_environment() {
    let steps = |credentials: &str| {
        format!("[[resource]]\nkind = \"environment\"\nname = \"notes\"\ncredentials = {credentials}\n")
    };
    for credentials in ["{ db = \"ssm:///app/db\" }", "[\"db=ssm:///app/db\"]"] {
        let operator = Operator::new();
        let _ = deploy(&operator, "plan", "1", &steps(credentials), &[]).expect(0);
        let calls = operator.calls();
        let given = of(&calls, "CreateChangeSet")[0].parameter("BlueSecretArns");
        assert_eq!(given, Some(&*parameter("app/db")), "{credentials}");
    }
    let _ = refused(as_it_is, &steps("[\"db=ssm:///app/none\"]")).says("app/none");
}
