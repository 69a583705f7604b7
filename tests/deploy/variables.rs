//! The variables that machines read at each run: what the role may read for them, and what is refused.

use crate::{
    operator::Operator,
    role::{deploy, file_of},
    sandbox::Finished,
    tape::{Turn, changes, of},
};

const ACCOUNT: &str = "eu-central-1:123456789012";
/// Steps with a variable that the steps do not set, and with a secret.
const STEPS: &str = "
[[resource]]
kind = \"file\"
path = \"/etc/a\"
content = \"{{ host }}\"
[[resource]]
kind = \"file\"
path = \"/etc/b\"
content = \"{{ db_password }}\"
secret = true
";
const OBJECT: &str = "/config/app.toml";
const VALUES: &str = "host = \"db\"\ndb_password = { secret = \"ssm:///app/db\" }\n";

/// Returns an operator with a plain parameter and a secret below `/app/prod/`, and with an object of variables.
fn operator() -> Operator {
    let operator = Operator::new();
    operator.world(|world| {
        world.stores.parameters.extend([("/app/prod/host", ""), ("/app/prod/db/password", "alias/app")]);
        let _ = world.objects.insert(OBJECT.into(), VALUES.into());
    });
    operator
}

fn create(operator: &Operator, variables: &[&str]) -> Finished {
    let variables: Vec<&str> = variables.iter().flat_map(|source| ["--variables", source]).collect();
    deploy(operator, "create-stack", "1", STEPS, &variables)
}

/// Checks that machines cannot be made with this source, and that all calls were reads.
fn refused(operator: &Operator, source: &str) -> Finished {
    drop(operator.calls());
    let refused = create(operator, &[source]).expect(2);
    assert!(changes(&operator.calls()).is_empty(), "{refused:?}");
    refused
}

fn template(operator: &Operator) -> String {
    operator.world(|world| world.template.clone())
}

#[test]
fn the_role_may_read_exactly_the_path_of_the_variables() {
    for (strategy, prefix) in [("blue-green", "Blue"), ("compatible", ""), ("weighted-dns", "")] {
        let operator = if strategy == "weighted-dns" { Operator::of_two_stacks() } else { Operator::new() };
        operator.world(|world| {
            world.stores.parameters.extend([("/app/prod/host", ""), ("/app/prod/db/password", "alias/app")]);
        });
        let more = ["--strategy", strategy, "--variables", "ssm:///app/prod/"];
        let _ = deploy(&operator, "plan", "1", STEPS, &more)
            .expect(0)
            .says("\nthe machines read variables from ssm:///app/prod/ (db_password, host)\n");
        let calls = operator.calls();
        let given = |name: &str| of(&calls, "CreateChangeSet")[0].parameter(&format!("{prefix}{name}"));
        assert_eq!(given("VariableArns"), Some(&*format!("arn:aws:ssm:{ACCOUNT}:parameter/app/prod/*")), "{strategy}");
        assert_eq!(given("VariableKeyArns"), Some(&*format!("arn:aws:kms:{ACCOUNT}:key/app-key")), "{strategy}");
        // Who reads the path needs no permission for each secret below it.
        assert_eq!((given("SecretArns"), given("SecretKeyArns")), (Some(""), Some("")), "{strategy}");
    }
}

#[test]
fn machines_read_the_variables_at_each_run() {
    let operator = operator();
    let _ = create(&operator, &["ssm:///app/prod/"]).expect(0);
    let template = template(&operator);
    assert!(template.contains(" --variables ssm:///app/prod/ "), "{template}");
    assert!(!template.contains("value of /app/prod/host"), "{template}");
}

#[test]
fn the_role_may_read_exactly_the_object_of_the_variables() {
    let operator = operator();
    let source = "s3:/".to_owned() + OBJECT;
    let _ = create(&operator, &[&source]).expect(0).says(&format!("the machines read variables from {source}\n"));
    assert_eq!(operator.parameter("BlueVariableArns"), "arn:aws:s3:::config/app.toml");
    assert_eq!(operator.parameter("BlueVariableKeyArns"), "");
    // A secret that the object names is read by its own permission.
    assert_eq!(operator.parameter("BlueSecretArns"), format!("arn:aws:ssm:{ACCOUNT}:parameter/app/db"));
}

#[test]
fn the_role_may_use_the_operators_own_key_of_the_object() {
    let operator = operator();
    operator.world(|world| {
        world.encryption = "x-amz-server-side-encryption: aws:kms\r\n\
             x-amz-server-side-encryption-aws-kms-key-id: arn:aws:kms:eu-central-1:123456789012:key/app\r\n";
    });
    let _ = create(&operator, &["s3://config/app.toml"]).expect(0);
    assert_eq!(operator.parameter("BlueVariableKeyArns"), format!("arn:aws:kms:{ACCOUNT}:key/app-key"));
    // With a bucket key, the condition of the permission compares the bucket.
    assert_eq!(operator.parameter("BlueVariableArns"), "arn:aws:s3:::config,arn:aws:s3:::config/app.toml");
    operator.world(|world| {
        world.encryption = "x-amz-server-side-encryption: aws:kms\r\n\
             x-amz-server-side-encryption-aws-kms-key-id: arn:aws:kms:eu-central-1:123456789012:key/made-by-aws\r\n";
    });
    let _ = deploy(&operator, "update-stack", "2", STEPS, &["--variables", "s3://config/app.toml"]).expect(0);
    assert_eq!(operator.parameter("GreenVariableKeyArns"), "", "the key of AWS needs no permission");
    assert_eq!(operator.parameter("GreenVariableArns"), "arn:aws:s3:::config/app.toml");
}

#[test]
fn a_file_of_variables_is_uploaded_with_its_digest() {
    let operator = operator();
    let file = operator.sandbox.write("values.toml", VALUES);
    let _ = create(&operator, &[&file]).expect(0).says(&format!("from {file} (db_password, host)\n"));
    let objects = operator.world(|world| world.objects.clone());
    let key = objects.keys().find(|key| key.contains("/glovo-app/variables/")).expect("an object");
    assert_eq!(objects[key], VALUES.as_bytes());
    let digest = key.split('/').nth(4).unwrap();
    assert!(template(&operator).contains(&format!(" --variables s3:/{key}#sha256={digest} ")), "{key}");
    assert_eq!(operator.parameter("BlueVariableArns"), "", "it is below the prefix of the artifacts");

    let file = operator.sandbox.write("values.toml", "host = \"db\"\ndb_password = \"canary\"\n");
    let refused = refused(&operator, &file).says("values.toml holds the secret `db_password`");
    assert!(!format!("{refused:?}").contains("canary"), "{refused:?}");
    let _ = refused.says("db_password = { secret = \"ssm:///PATH/db_password\" }");
}

#[test]
fn several_sources_may_stand_in_the_settings_file() {
    let operator = operator();
    let _ = operator.sandbox.write("deploy.toml", format!("variables = ['ssm:///app/prod/', 's3:/{OBJECT}']\n"));
    let _ = create(&operator, &[]).expect(0);
    let path = format!("arn:aws:ssm:{ACCOUNT}:parameter/app/prod/*");
    assert_eq!(operator.parameter("BlueVariableArns"), format!("arn:aws:s3:::config/app.toml,{path}"));
    let _ = operator.sandbox.write("deploy.toml", "variables = 'ssm:///app/prod/'\n");
    let _ = deploy(&operator, "update-stack", "2", STEPS, &[]).expect(0);
    assert_eq!(operator.parameter("GreenVariableArns"), path);
    assert!(operator.parameter("BlueVariableArns").starts_with("arn:aws:s3:::"), "each slot keeps its build's");
}

#[test]
fn variables_that_machines_could_not_read_are_refused() {
    let operator = operator();
    let _ = refused(&operator, "ssm:///app/none/").says("there is no parameter below /app/none/ in this account");
    let _ = refused(&operator, "s3://config/none.toml").says("the bucket config has no object none.toml");
    let _ = refused(&operator, "ssm:///app").says("write it with a slash at both ends");
    let _ = refused(&operator, "s3://config/a*.toml").says("the machines' role cannot name the object a*.toml");
    let _ = refused(&operator, "https://h/v.toml?signature=canary").says("its query or its password may be a secret");
    let _ = refused(&operator, "https://h/v.toml").says("variables from an https URL must be pinned");
    operator.world(|world| world.stores.parameters.extend([("/app/odd/a-b", "")]));
    let _ = refused(&operator, "ssm:///app/odd/").says("the parameter /app/odd/a-b cannot be a variable");
    // Another variable is missing still.
    let _ = deploy(&operator, "create-stack", "1", &file_of("ssm:///{{ name }}"), &["--variables", "ssm:///app/prod/"])
        .expect(2)
        .says("variable `name` is not set");
    operator.world(|world| world.stores.key_state = "PendingDeletion");
    let _ = refused(&operator, "ssm:///app/prod/").says("ssm:///app/prod/: the state of its key alias/app is Pending");
}

#[test]
fn who_may_not_read_variables_can_still_deploy() {
    let operator = operator();
    operator.tape.script("GetParametersByPath", [Turn::Refusal(400, "AccessDeniedException", "not authorized")]);
    operator.tape.script("DescribeParameters", [Turn::Refusal(400, "AccessDeniedException", "not authorized")]);
    let _ = create(&operator, &["ssm:///app/prod/"])
        .expect(0)
        .says("note: the steps are checked without the variables of ssm:///app/prod/: allow ssm:GetParametersByPath")
        .says("note: ssm:///app/prod/ is not checked: allow ssm:DescribeParameters in the caller's IAM policy")
        .says("the machines read variables from ssm:///app/prod/\n");
    assert_eq!(operator.parameter("BlueVariableArns"), format!("arn:aws:ssm:{ACCOUNT}:parameter/app/prod/*"));
}

#[test]
fn render_asks_no_store_for_variables() {
    let operator = operator();
    let steps = operator.sandbox.write("step.toml", format!("name = \"step\"{STEPS}"));
    let output = operator.sandbox.at("rendered");
    let arguments = operator.with_agent(&["render", "--steps", &steps, "--output-dir", &output]);
    let mut arguments: Vec<&str> =
        arguments.iter().map(String::as_str).take_while(|argument| *argument != "--set").collect();
    arguments.extend(["--variables", "ssm:///app/prod/"]);
    let _ = operator.deploy(&arguments, &[("CLOUD_INIT_PATH", "")]).expect(0);
    let user_data = std::fs::read_to_string(format!("{output}/user-data")).unwrap();
    assert!(user_data.contains("--variables ssm:///app/prod/"), "{user_data}");
    assert!(operator.calls().is_empty());
}
