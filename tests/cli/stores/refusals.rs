//! Refusals of a store where nothing is there yet: each in its own words, and never an empty file.

use std::fs;

use serde_json::{Value, json};

use super::{CANARY, Stores};
use crate::sandbox::Finished;

fn refusal(kind: &str, message: &str) -> (u16, Value) {
    (400, json!({ "__type": kind, "message": message }))
}

#[test]
fn no_refusal_leaves_an_empty_file() {
    let parameter =
        |value: &str| (200_u16, json!({ "Parameter": { "Name": "/app/db", "Value": value, "Version": 1 } }));
    let secret = |value: &str| (200_u16, json!({ "SecretString": value, "VersionId": "v-1" }));
    let object = json!({ "user": CANARY, "empty": "" }).to_string();
    let denied = refusal("AccessDeniedException", "User: arn:aws:sts::1:assumed-role/web/i-1 is not authorized");
    let busy = refusal("ThrottlingException", "Rate exceeded");
    let stores = Stores::new();
    for (store, answer) in [("ssm:///app/db", &parameter as &dyn Fn(&str) -> _), ("secretsmanager://db", &secret)] {
        let missing = if store.starts_with("ssm") { "ParameterNotFound" } else { "ResourceNotFoundException" };
        for (key, (status, body), code, words) in [
            ("", denied.clone(), 1, "the role may not read the "),
            ("", refusal(missing, ""), 1, "in this account and region"),
            ("", answer(""), 1, "the secret is empty"),
            ("", (200, json!({})), 1, "the answer has no value of the "),
            ("#password", answer(&object), 1, "the secret has no field `password`"),
            ("#empty", answer(&object), 1, "the secret is empty"),
            ("#password", answer(CANARY), 1, "names a field, but the secret is not a JSON object"),
            ("", busy.clone(), 75, "timed out"),
        ] {
            let name = store.split_once("://").unwrap().1;
            stores.answer(name, status, body);
            let (path, manifest) = stores.file(&format!("{store}{key}"), "timeout = \"1s\"\n");
            let _ = stores.command("plan", &manifest);
            let _ = stores.run(&manifest).expect(code).says(words);
            assert!(!fs::exists(&path).unwrap(), "{words}");
            let directory = stores.machine.sandbox.path.join("");
            let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
            let left: Vec<_> = names.filter(|name| name.to_string_lossy().contains("secret")).collect();
            assert!(left.is_empty(), "{words}: {left:?}");
        }
    }
}

#[test]
fn an_absent_metadata_service_is_no_refusal() {
    let stores = Stores::new();
    stores.parameter("/app/db", CANARY, 1);
    let (path, manifest) = stores.file("ssm:///app/db", "timeout = \"1s\"\n");
    let manifest = stores.machine.sandbox.write("manifest.toml", manifest);
    let run = || {
        let mut command = stores.machine.sandbox.command(&["run", "--steps", &manifest]);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            let _ = command.env_remove(name);
        }
        // Neither credentials nor a region are chosen, so both are the instance's. Nothing listens at this address.
        let _ = command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1");
        let _ = command.env("AWS_ENDPOINT_URL", stores.server.url("")).env("HOME", &stores.machine.sandbox.path);
        Finished::from(command.output().unwrap())
    };
    let _ = run().expect(75).says("reach the instance metadata service");
    assert!(!fs::exists(&path).unwrap());
    fs::write(&path, "canary-earlier").unwrap();
    let _ = run().expect(0).says("keeps its present content").says("reach the instance metadata service");
    assert_eq!(fs::read_to_string(&path).unwrap(), "canary-earlier");
    assert_eq!(stores.server.requests().len(), 0);
}
