//! `plan` refuses what `run` would refuse, with the same words and the same exit code.

use crate::{
    sandbox::{Finished, Sandbox},
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

#[test]
fn a_source_that_is_a_link_is_foreseen() {
    let sandbox = Sandbox::new();
    let _ = sandbox.write("real", "bytes");
    std::os::unix::fs::symlink("real", sandbox.at("current")).unwrap();
    let copy = file(&sandbox.at("f"), &format!("source = \"file://{}\"", sandbox.at("current")));
    let words = format!("{} is a symbolic link, and a file is needed here", sandbox.at("current"));
    refused(&sandbox, &copy, 1, &words);
}

#[test]
fn a_template_that_cannot_be_filled_in_is_foreseen() {
    let sandbox = Sandbox::new();
    let filled = file(&sandbox.at("f"), &format!("source = \"file://{}\"\ntemplate = true", sandbox.at("template")));
    let first = file(&sandbox.at("first"), "content = \"\"");
    let long = vec![b' '; 300 << 10];
    for (template, words) in [
        (&b"{{ nowhere }}"[..], "variable `nowhere` is not set"),
        (b"{{ nowhere", "`{{` without `}}`"),
        (b"M\xfcller", "is not a text"),
        (&long, "is too long for a template"),
    ] {
        let _ = sandbox.write("template", template);
        refused(&sandbox, &filled, 1, words);
        let manifest = sandbox.manifest(&(first.clone() + &filled));
        let _ = sandbox.run(&["plan", "--steps", &manifest]).expect(1).says(words);
    }
}

#[test]
fn a_program_that_cannot_be_executed_is_foreseen() {
    let sandbox = Sandbox::new();
    let program = sandbox.at("program");
    let checked = file(&sandbox.at("f"), &format!("content = \"\"\nvalidate = [\"{program}\", \"{{}}\"]"));
    let words = format!("the program {program} is not executable: its mode is 0644");
    let brought = file(&program, "content = \"#!/bin/sh\\n\"") + &checked;
    let _ = sandbox.run(&["plan", "--steps", &sandbox.manifest(&brought)]).expect(1).says(&words);
    let _ = sandbox.write("program", "#!/bin/sh\n");
    refused(&sandbox, &checked, 1, &words);
    std::fs::remove_file(&program).unwrap();
    std::fs::create_dir(&program).unwrap();
    refused(&sandbox, &checked, 1, "is not a program: it is no regular file");
}

#[test]
fn a_file_that_is_a_mount_point_is_foreseen() {
    let sandbox = Sandbox::new();
    let (path, other) = (sandbox.write("f", "a"), sandbox.write("other", "b"));
    let manifest = sandbox.manifest(&file(&path, "content = \"new\""));
    for verb in ["plan", "run"] {
        let script = "mount --bind \"$1\" \"$2\"; shift 2; exec \"$@\"";
        let mut command = sandbox.shell(script);
        let _ = command.args([&*other, &path, env!("CARGO_BIN_EXE_glovo-bootstrap"), verb, "--steps", &manifest]);
        let said = Finished::from(command.output().unwrap()).expect(1);
        let _ = said.says("is a mount point, and the file there cannot be replaced").says("umount ");
    }
    assert_eq!(std::fs::read_to_string(other).unwrap(), "b");
}

#[test]
fn a_mistyped_variable_in_a_default_is_told() {
    let sandbox = Sandbox::new();
    let variables = "[variables]\nversion = \"1.4\"\nbuild = \"{{ versoin }}\"\n[[step]]\nname = \"s\"\n";
    let resource = file(&sandbox.at("f"), "content = \"{{ build }}\"").replace("[[resource]]", "[[step.resource]]");
    let manifest = sandbox.write("m.toml", format!("{variables}{resource}"));
    for verb in ["validate", "plan", "run"] {
        let told = sandbox.run(&[verb, "--steps", &manifest]).expect(0);
        let _ = told
            .says("the default of `build` is no variable's value: `versoin` is not set")
            .says("did you mean `version`?");
    }
}

#[test]
fn a_timeout_of_zero_is_refused() {
    let sandbox = Sandbox::new();
    refused(&sandbox, &file(&sandbox.at("f"), "content = \"\"\ntimeout = \"0s\""), 2, "`timeout` is 0");
}

#[test]
fn a_fault_of_a_secret_file_does_not_show_its_line() {
    let sandbox = Sandbox::new();
    for fields in [
        "encoding = \"base64\"\ncontent = \"hunter-22 canary\"",
        "content = \"hunter-22\"\nsource = \"file:///x\"",
        "content = [\"hunter-22\"]",
        "content = \"hunter-22 {{ nowhere }}\"",
    ] {
        let manifest = sandbox.manifest(&file("/srv/f", &format!("{fields}\nsecret = true")));
        let refused = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says("manifest.toml:");
        assert!(!(refused.stdout + &refused.stderr).contains("hunter-22"), "{fields}");
    }
}
