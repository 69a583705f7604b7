//! The directory `examples`: each manifest is valid and can be planned as it is written, and each page begins with a
//! command that works.

use std::{fs, process::Command};

use crate::sandbox::{Finished, Sandbox};

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// The program on this host, where the packages are that a plan looks up. It is started where the pages' paths begin.
fn run(arguments: &[&str]) -> Finished {
    let mut program = Command::new(env!("CARGO_BIN_EXE_glovo-bootstrap"));
    let _ = program.args(arguments).current_dir(REPOSITORY).env_remove("GLOVO_BOOTSTRAP_STEPS");
    Finished::from(program.output().unwrap())
}

/// The names of the examples.
fn examples() -> Vec<String> {
    let entries = fs::read_dir(format!("{REPOSITORY}/examples")).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<_> = entries
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn every_example_is_planned_as_it_is_written() {
    let names = examples();
    assert_eq!(names, ["deploy", "go", "jar", "node", "python", "static-site", "worker", "world"]);
    for name in names.iter().filter(|name| *name != "deploy" && *name != "world") {
        let steps = format!("examples/{name}/manifest.toml");
        let _ = run(&["validate", "--steps", &steps]).expect(0);
        let plan = run(&["plan", "--json", "--steps", &steps]);
        let report: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap_or_else(|_| panic!("{plan:?}"));
        assert_eq!(report["outcome"], "pending", "{name}: {report:#}");
    }
}

#[test]
fn every_page_of_an_example_begins_with_a_command_that_works() {
    let mut pages: Vec<_> = examples().iter().map(|name| format!("examples/{name}/README.md")).collect();
    pages.push("examples/README.md".into());
    for page in pages {
        let text = fs::read_to_string(format!("{REPOSITORY}/{page}")).unwrap();
        let command = text.split("```sh\n").nth(1).and_then(|rest| rest.lines().next()).unwrap();
        let sandbox = Sandbox::new();
        let command = command.replace("/tmp/rendered", &sandbox.at("rendered"));
        let arguments: Vec<&str> = command.strip_prefix("glovo-bootstrap ").unwrap().split(' ').collect();
        let finished = run(&arguments);
        assert_eq!(finished.code, Some(0), "{page}: {command}: {finished:?}");
    }
}
