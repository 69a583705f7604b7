//! Documents of `--json`: each has the version of its schema, and distinct words for distinct outcomes.

use serde_json::Value;

use crate::sandbox::{Finished, Sandbox};

fn document(finished: &Finished) -> Value {
    let text = &finished.stdout;
    assert!(text.trim_start_matches(['{', '\n', ' ']).starts_with("\"schema_version\": 1,"), "{text}");
    serde_json::from_str(text).unwrap()
}

#[test]
fn every_document_says_the_version_of_its_schema() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("file", "bytes");
    let manifest = sandbox
        .manifest(&format!("[[resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"x\"\n", sandbox.at("new")));
    let _ = document(&sandbox.run(&["plan", "--json", "--steps", &manifest]).expect(0));
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0);
    let _ = document(&sandbox.run(&["status", "--json"]).expect(0));
    let url = format!("file://{file}");
    let _ = document(&sandbox.run(&["fetch", "--json", "--output-dir", &sandbox.at("out"), &url]).expect(0));
}

#[test]
fn a_pending_change_is_not_called_changed() {
    let sandbox = Sandbox::new();
    let manifest = sandbox
        .manifest(&format!("[[resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"x\"\n", sandbox.at("new")));
    let outcomes = |report: &Value| {
        let step = &report["steps"][0];
        [&report["outcome"], &step["outcome"], &step["resources"][0]["outcome"]]
            .map(|outcome| outcome.as_str().unwrap().to_owned())
    };
    let plan = || document(&sandbox.run(&["plan", "--json", "--steps", &manifest]).expect(0));
    assert_eq!(outcomes(&plan()), ["pending"; 3]);
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0);
    assert_eq!(outcomes(&sandbox.report()), ["changed"; 3]);
    assert_eq!(outcomes(&plan()), ["unchanged"; 3]);
}

#[test]
fn an_invalid_manifest_gives_a_document_with_each_fault() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.manifest("[[resource]]\nkind = \"fiel\"\n[[resource]]\nkind = \"link\"\npath = \"/x\"\n");
    let plan = document(&sandbox.run(&["plan", "--json", "--steps", &manifest]).expect(2).says("invalid manifest"));
    assert_eq!((&plan["outcome"], &plan["exit_code"]), (&"invalid".into(), &2.into()));
    let faults = plan["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 2, "{plan:#}");
    assert_eq!(faults[0]["place"], format!("{manifest}:3:8"));
    assert_eq!(faults[0]["hint"], "did you mean `file`?");
    assert!(plan["error"]["causes"][0].as_str().unwrap().contains("2 faults"), "{plan:#}");

    let missing = document(&sandbox.run(&["plan", "--json", "--steps", &sandbox.at("missing")]).expect(2));
    assert_eq!((&missing["outcome"], &missing["faults"]), (&"failed".into(), &Value::Array(vec![])));
}

#[test]
fn times_of_a_report_are_whole_seconds() {
    let sandbox = Sandbox::new();
    let _ = sandbox.run_resources("").expect(0);
    let report = sandbox.report();
    for field in ["started", "ended"] {
        let time = report[field].as_str().unwrap();
        assert!(time.len() == "2026-11-24T10:20:30Z".len() && time.ends_with('Z'), "{field}: {time}");
    }
}
