//! `steps new`: a manifest for the user's own service.

use std::fs;

use crate::sandbox::Sandbox;

#[test]
fn new_steps_are_valid_as_written() {
    let sandbox = Sandbox::new();
    let directory = sandbox.at("my service");
    let written = sandbox.run(&["steps", "new", &directory]).expect(0);
    let _ = written.says(&format!("wrote 5 files to {directory}"));
    let valid = sandbox.run(&["validate", "--steps", &directory]).expect(0);
    let _ = valid.says("valid, 4 steps with 8 resources");
    let listed = sandbox.run(&["steps", "list", "--steps", &directory]).expect(0).stdout;
    let names: Vec<_> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["packages", "files", "service", "check"]);
}

#[test]
fn new_steps_say_what_to_type_next() {
    let sandbox = Sandbox::new();
    let directory = sandbox.at("my service");
    let said = sandbox.run(&["steps", "new", &directory]).expect(0).stdout;
    let commands: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("  ")?.split("  ").next()).collect();
    let quoted = format!("'{directory}'");
    let expected = ["glovo-bootstrap validate", "sudo glovo-bootstrap plan", "sudo glovo-bootstrap run"];
    assert_eq!(commands, expected.map(|command| format!("{command} --steps {quoted}")));
    // The first one as a shell reads it.
    let shell = commands[0].replacen("glovo-bootstrap", env!("CARGO_BIN_EXE_glovo-bootstrap"), 1);
    assert!(sandbox.shell(&shell).output().unwrap().status.success(), "{shell}");
}

#[test]
fn new_steps_overwrite_nothing() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("full/notes", "mine");
    fs::create_dir(sandbox.at("empty")).unwrap();
    for (name, code) in [("full", 2), ("full/notes", 2), ("empty", 0), ("empty", 2)] {
        let finished = sandbox.run(&["steps", "new", &sandbox.at(name)]).expect(code);
        if code != 0 {
            let words = format!("{} is not an empty directory; nothing was written", sandbox.at(name));
            let _ = finished.says(&words).says("hint: name a directory that does not exist yet");
        }
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "mine");
    assert_eq!(fs::read_dir(sandbox.at("full")).unwrap().count(), 1);
    let _ = sandbox.run(&["steps", "new"]).expect(2);
}
