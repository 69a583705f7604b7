//! The commands that errors name.

use crate::{operator::Operator, tape::Turn};

#[test]
fn a_command_to_type_names_the_account_that_was_named() {
    let operator = Operator::serving();
    operator.content("2");
    let _ = operator.sandbox.write("config", "[profile shop]\n");
    let credentials = "[shop]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = x\n";
    let _ = operator.sandbox.write("credentials", credentials);
    let _ = operator.sandbox.write("our shop.toml", "stack = \"glovo-app\"\n");
    operator.tape.script("ModifyListener", [Turn::Usual, Turn::Refusal(403, "AccessDenied", "no")]);
    let arguments = ["update-stack", "--yes", "--pause", "0s", "--profile", "shop", "--region", "eu-west-1"];
    let arguments = [&arguments[..], &["--settings-file", "our shop.toml"]].concat();
    let mut command = operator.command(&arguments, &[("BUILD_NUMBER", "2")]);
    let _ = command.env("AWS_CONFIG_FILE", operator.sandbox.at("config"));
    let _ = command.env("AWS_SHARED_CREDENTIALS_FILE", operator.sandbox.at("credentials"));
    let told = crate::sandbox::Finished::from(command.output().unwrap()).expect(1);
    let given = "--stack glovo-app --settings-file 'our shop.toml' --profile shop --region eu-west-1";
    let _ = told.says(&format!("to roll back: glovo-bootstrap deploy rollback --build 1 {given}"));
}

#[test]
fn a_command_of_the_aws_cli_names_the_account_too() {
    let operator = Operator::serving();
    operator.world(|world| world.state = "UPDATE_ROLLBACK_FAILED");
    let _ = operator
        .deploy(&["diagnose", "--region", "eu-west-1"], &[])
        .expect(1)
        .says("next: aws cloudformation continue-update-rollback --stack-name glovo-app --region eu-west-1");
}
