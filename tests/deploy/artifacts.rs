//! The files that a deploy uploads, and the user-data that names them.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{
    operator::Operator,
    tape::{names, of},
};

const NO_USER_DATA: (&str, &str) = ("CLOUD_INIT_PATH", "");

fn strs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn machines_get_keys_and_digests_of_the_program_and_files() {
    let operator = Operator::new();
    let create = operator.with_agent(&["create-stack", "--yes"]);
    let _ = operator.deploy(&strs(&create), &[NO_USER_DATA]).expect(0).says("uploaded s3://artifacts/glovo-app/agent/");
    let calls = operator.calls();
    let agent = Sha256::digest(std::fs::read(operator.sandbox.at("agent")).unwrap());
    let agent: String = agent.iter().map(|byte| format!("{byte:02x}")).collect();
    let objects = operator.world(|world| world.objects.clone());
    let leaves: Vec<&str> = objects.keys().filter_map(|path| path.split('/').next_back()).collect();
    assert_eq!(leaves, ["glovo-bootstrap", "default", "glovo-app.service"]);
    assert!(
        objects.contains_key(&format!("/artifacts/glovo-app/agent/{agent}/glovo-bootstrap")),
        "{:?}",
        objects.keys()
    );
    let made = of(&calls, "CreateChangeSet")[0];
    let template = made.get("TemplateBody");
    for words in [
        &*format!("glovo-app/agent/{agent}/glovo-bootstrap"),
        "--signal glovo-app/BlueGroup",
        "--failures s3://artifacts/glovo-app.failures",
        "--set jar_url=https://jars.example.com/app.jar",
        "--set config_bucket=artifacts/glovo-app/config/",
        "--set build_number=1",
        "--set nginx_site_sha256=",
        "--set unit_sha256=",
    ] {
        assert!(template.contains(words), "missing: {words}\n{template}");
    }
    assert!(!template.contains("X-Amz-Signature"), "a signed URL would expire before the last scale-out");
    assert_eq!(made.parameter("ArtifactBucket"), Some("artifacts"));
    assert_eq!(made.parameter("ArtifactPrefix"), Some("glovo-app"));
    let at = |operation| names(&calls).iter().rposition(|name| *name == operation).unwrap();
    assert!(at("PutObject") < at("ExecuteChangeSet"), "before the first machine asks for it");
}

#[test]
fn what_is_in_the_bucket_already_is_not_sent_again() {
    let operator = Operator::new();
    let create = operator.with_agent(&["create-stack", "--yes"]);
    let _ = operator.deploy(&strs(&create), &[NO_USER_DATA]).expect(0);
    drop(operator.calls());
    let same = operator.with_agent(&["update-stack", "--yes"]);
    let _ = operator.deploy(&strs(&same), &[NO_USER_DATA]).expect(0).says("no changes");
    let other = operator.with_agent(&["update-stack", "--yes", "--pause", "0s", "--set", "app_version=2.0.0"]);
    let variables = [NO_USER_DATA, ("BUILD_NUMBER", "2")];
    let _ = operator.deploy(&strs(&other), &variables).expect(0).says("already there: s3://artifacts/glovo-app/agent/");
    assert!(of(&operator.calls(), "PutObject").is_empty());
}

#[test]
fn own_steps_get_the_build_number_if_they_use_it() {
    for (target, is_given) in [("/{{ build_number }}", true), ("/x", false)] {
        let operator = Operator::new();
        let steps = format!("name = \"a\"\n[[resource]]\nkind = \"link\"\npath = \"/opt/a\"\ntarget = \"{target}\"\n");
        let steps = operator.sandbox.write("steps/10-a.toml", steps);
        let create = operator.with_agent(&["create-stack", "--yes", "--steps", &steps]);
        let create: Vec<&str> = strs(&create).into_iter().take_while(|argument| *argument != "--set").collect();
        let _ = operator.deploy(&create, &[NO_USER_DATA, ("BUILD_NUMBER", "7")]).expect(0);
        let template = of(&operator.calls(), "CreateChangeSet")[0].get("TemplateBody").to_owned();
        assert_eq!(template.contains("--set build_number=7"), is_given, "{template}");
    }
}

#[test]
fn own_steps_and_files_are_uploaded_too() {
    let operator = Operator::new();
    let steps = "name = \"a\"\n[[resource]]\nkind = \"file\"\npath = \"/opt/a\"\nsource = \"{{ a_url }}\"\nsha256 = \"{{ a_sha256 }}\"\n";
    let steps = operator.sandbox.write("steps/10-a.toml", steps);
    let steps = Path::new(&steps).parent().unwrap().to_str().unwrap().to_owned();
    let _ = operator.sandbox.write("steps/variables.toml", "");
    let file = operator.sandbox.write("a.bin", "content of a");
    let file = format!("a={file}");
    let create = operator.with_agent(&["create-stack", "--yes", "--steps", &steps, "--file", &file]);
    // These are not variables of the built-in steps.
    let create: Vec<&str> = strs(&create).into_iter().take_while(|argument| *argument != "--set").collect();
    let _ = operator.deploy(&create, &[NO_USER_DATA]).expect(0);
    let objects = operator.world(|world| world.objects.clone());
    assert!(objects.values().any(|body| body == b"content of a"));
    assert!(objects.keys().any(|path| path.ends_with("/steps.tar.gz")), "{:?}", objects.keys());
    let template = operator.world(|world| world.template.clone());
    assert!(template.contains("--steps ") && template.contains("#sha256="), "{template}");
    assert!(template.contains("--set a_url=s3://artifacts/glovo-app/files/"), "{template}");
}

#[test]
fn every_request_names_the_account_that_must_own_the_bucket() {
    let owner = "123456789012";
    let operator = Operator::new();
    let create = operator.with_agent(&["create-stack", "--yes", "--bucket-owner", owner]);
    let created = operator.deploy(&strs(&create), &[NO_USER_DATA]).expect(0);
    assert!(!created.stdout.contains("note: bucket"), "{created:?}");
    let calls = operator.calls();
    let asked: Vec<_> =
        ["HeadBucket", "HeadObject", "PutObject"].into_iter().flat_map(|name| of(&calls, name)).collect();
    assert!(asked.len() > 6 && asked.iter().all(|call| call.get("Owner") == owner), "{asked:?}");

    let operator = Operator::new();
    operator.world(|world| world.bucket_owner = "999999999999");
    let create = operator.with_agent(&["create-stack", "--yes"]);
    let _ = operator.sandbox.write("deploy.toml", format!("bucket_owner = \"{owner}\"\n"));
    let refused = operator.deploy(&strs(&create), &[NO_USER_DATA]).expect(1);
    let _ = refused.says("or the bucket does not belong to account 123456789012 (--bucket-owner)");
    assert!(operator.world(|world| world.objects.is_empty()));
    let odd = operator.with_agent(&["create-stack", "--yes", "--bucket-owner", "me"]);
    let _ = operator.deploy(&strs(&odd), &[NO_USER_DATA]).expect(2).says("`me` is not an AWS account");
}

#[test]
fn the_first_deploy_names_the_account_of_the_bucket() {
    for (owner, words) in [
        ("123456789012", "belongs to this account; write bucket_owner"),
        ("999999999999", "may belong to another account than 123456789012"),
    ] {
        let operator = Operator::new();
        operator.world(|world| world.bucket_owner = owner);
        for (command, times) in [("plan", 1), ("create-stack", 1), ("update-stack", 0)] {
            let yes: &[&str] = if command == "plan" { &[] } else { &["--yes"] };
            let arguments = operator.with_agent(&[&[command], yes].concat());
            let told = operator.deploy(&strs(&arguments), &[NO_USER_DATA]).expect(0).stdout;
            assert_eq!(told.matches(&format!("note: bucket artifacts {words}")).count(), times, "{command}: {told}");
        }
    }
}
