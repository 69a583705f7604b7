//! Files that decide what is deployed belong to the caller or root, and no other user may write to them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use crate::{operator::Operator, tape::changes};

/// Another user of this machine.
const OTHER: u32 = 1234;

/// Returns the arguments of a deploy whose files are all in the sandbox, and these files.
fn arguments(operator: &Operator) -> (Vec<String>, [String; 5]) {
    let sandbox = &operator.sandbox;
    let settings = sandbox.write("own/settings.toml", "bucket = \"artifacts\"\n");
    let step = "name = \"one\"\n[[resource]]\nkind = \"link\"\npath = \"/l\"\ntarget = \"x\"\n";
    let steps = sandbox.write("own/steps/10-one.toml", step);
    let file = sandbox.write("own/jar", "jar");
    let arguments = operator.with_agent(&["plan", "--settings-file", &settings, "--steps", &sandbox.at("own/steps")]);
    let arguments = [arguments, vec!["--file".into(), format!("logo={file}")]].concat();
    (arguments, [settings, steps, file, sandbox.at("agent"), sandbox.at("user-data")])
}

#[test]
fn files_of_another_user_are_not_deployed() {
    let operator = Operator::new();
    let (arguments, files) = arguments(&operator);
    let plan = |words: Option<&str>, file: &str| {
        let is_user_data = file.ends_with("user-data");
        let arguments: Vec<&str> =
            if is_user_data { vec!["plan"] } else { arguments.iter().map(String::as_str).collect() };
        let variables = if is_user_data { &[][..] } else { &[("CLOUD_INIT_PATH", "")] };
        let finished = operator.deploy(&arguments, variables);
        match words {
            None => drop(finished.expect(0)),
            Some(words) => {
                drop(finished.expect(2).says(words).says(file));
                assert!(changes(&operator.calls()).is_empty(), "{file}: nothing is changed");
            }
        }
    };
    for file in &files {
        plan(None, file);
        drop(operator.calls());
        chown(file, Some(OTHER), None).unwrap();
        plan(Some("belongs to uid 1234, not to root"), file);
        chown(file, Some(0), None).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
        plan(Some("other users may write to"), file);
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    // A user that can write to a directory of the path can replace the files in it.
    let directory = operator.sandbox.at("own");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    plan(Some("other users may write to"), &directory);
}

#[test]
fn a_settings_file_of_the_current_directory_is_named() {
    let operator = Operator::new();
    let file = operator.sandbox.write("deploy.toml", "instance_type = \"t3.small\"\n");
    let _ = operator.deploy(&["plan"], &[]).expect(0).says(&format!("settings: {file}"));
    let json = operator.deploy(&["plan", "--json"], &[]).expect(0).stdout;
    assert!(json.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{json}");
    chown(&file, Some(OTHER), None).unwrap();
    drop(operator.calls());
    let _ = operator.deploy(&["plan"], &[]).expect(2).says("deploy.toml belongs to uid 1234, not to root");
    assert!(operator.calls().is_empty() && Path::new(&file).exists());
}
