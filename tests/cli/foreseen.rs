//! `plan` refuses what `run` would refuse, with the same words and the same exit code.

use crate::{
    sandbox::Sandbox,
    server::{Reply, Server},
};

fn file(path: &str, fields: &str) -> String {
    format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\n{fields}\n")
}

#[track_caller]
fn refused(sandbox: &Sandbox, resources: &str, code: i32, words: &str) {
    let manifest = sandbox.manifest(resources);
    for command in ["plan", "run"] {
        let _ = sandbox.run(&[command, "--steps", &manifest]).expect(code).says(words);
    }
}

#[test]
fn a_source_that_is_missing_or_another_one_is_foreseen() {
    let sandbox = Sandbox::new();
    let (path, source) = (sandbox.at("f"), sandbox.at("source"));
    for template in ["", "template = true\n"] {
        let missing = file(&path, &format!("{template}source = \"file://{source}\""));
        refused(&sandbox, &missing, 1, &format!("{source} does not exist"));
    }
    let _ = sandbox.write("source", "bytes");
    let pinned = file(&path, &format!("source = \"file://{source}\"\nsha256 = \"{}\"", "0".repeat(64)));
    let words =
        "the sha256 of the 5 bytes is 277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9, not 0000";
    refused(&sandbox, &pinned, 1, words);
    let _ = sandbox.write("f", "other");
    refused(&sandbox, &pinned, 1, words);
}

#[test]
fn a_source_that_an_earlier_change_brings_is_expected() {
    let sandbox = Sandbox::new();
    let (path, source) = (sandbox.at("f"), sandbox.at("source"));
    let copy = file(&path, &format!("source = \"file://{source}\""));
    let resources = file(&source, "content = \"new\"") + &copy;
    for (now, copied) in [(None, None), (Some("old"), None), (Some("old"), Some("old")), (None, Some("old"))] {
        for (name, bytes) in [("source", now), ("f", copied)] {
            let _ = std::fs::remove_file(sandbox.at(name));
            if let Some(bytes) = bytes {
                let _ = sandbox.write(name, bytes);
            }
        }
        let manifest = sandbox.manifest(&resources);
        let _ = sandbox.run(&["plan", "--steps", &manifest]).expect(0).says("2 changes pending");
        let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0).says("converged: 2 changes");
    }
}

#[test]
fn a_validator_that_is_not_installed_is_foreseen() {
    let sandbox = Sandbox::new();
    let program = sandbox.at("program");
    for name in ["no-such-program", &*program] {
        let checked = file(&sandbox.at("f"), &format!("content = \"\"\nvalidate = [\"{name}\", \"{{}}\"]"));
        refused(&sandbox, &checked, 1, &format!("the program `{name}` is not installed"));
    }
    let brought = file(&program, "content = \"#!/bin/sh\\n\"\nmode = \"0755\"")
        + &file(&sandbox.at("f"), &format!("content = \"\"\nvalidate = [\"{program}\", \"{{}}\"]"));
    let manifest = sandbox.manifest(&brought);
    let _ = sandbox.run(&["plan", "--steps", &manifest]).expect(0);
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0);
}

#[test]
fn a_source_that_the_plan_was_refused_is_an_error() {
    let sandbox = Sandbox::new();
    let server = Server::start(|_| Reply::new(404, ""));
    let path = sandbox.write("f", "now");
    let pinned = file(&path, &format!("source = \"{}\"\nsha256 = \"{}\"", server.url("/x"), "0".repeat(64)));
    refused(&sandbox, &pinned, 1, "the server answered 404");
}
