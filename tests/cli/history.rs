//! `status` of earlier runs, and the picture of a run.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::sandbox::{Finished, Sandbox};

fn runs(sandbox: &Sandbox) -> Vec<serde_json::Value> {
    let list = sandbox.run(&["status", "--list", "--json"]).expect(0).stdout;
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    list["runs"].as_array().unwrap().clone()
}

/// A manifest with one file of this content, which a validator refuses if it is `bad`.
fn file(sandbox: &Sandbox, content: &str) -> String {
    let path = sandbox.at("file");
    format!(
        "[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"{content}\"\nvalidate = [\"grep\", \"-v\", \"bad\", \"{{}}\"]\n"
    )
}

#[test]
fn runs_that_changed_something_or_failed_are_listed() {
    let sandbox = Sandbox::new();
    let _ = sandbox.run(&["status", "--list"]).expect(0).says("no earlier run is kept");
    let _ = sandbox.run_resources(&file(&sandbox, "one")).expect(0);
    let _ = sandbox.run_resources(&file(&sandbox, "one")).expect(0).says("0 changes");
    let _ = sandbox.run_resources(&file(&sandbox, "bad")).expect(1);
    let said = sandbox.run(&["status", "--list"]).expect(0).says("failed with exit code 1 in step").says("1 change");
    assert_eq!(said.stdout.lines().count(), 2, "{said:?}");
    let runs = runs(&sandbox);
    let id = |index: usize| runs[index]["run_id"].as_str().unwrap();
    assert!(id(0) > id(1), "the newest first");
    let _ = sandbox.run(&["status", "--run", id(0)]).expect(1).says("failed with exit code 1");
    let _ = sandbox.run(&["status", "--run", id(1)]).expect(0).says("converged").says("file").says(id(1));

    let _ =
        sandbox.run(&["status", "--run", "x"]).expect(2).says("no run whose id begins with x").says("status --list");
    let _ = sandbox.run(&["status", "--run", ""]).expect(2).says("several runs");
    let _ = sandbox.run(&["status", "--run", "x", "--wait"]).expect(2);
}

#[test]
fn the_first_run_and_the_newest_are_kept() {
    let sandbox = Sandbox::new();
    let _ = sandbox.run_resources(&file(&sandbox, "first")).expect(0);
    let first = runs(&sandbox)[0]["run_id"].clone();
    for number in 0..22 {
        let _ = sandbox.run_resources(&file(&sandbox, &number.to_string())).expect(0);
    }
    let runs = runs(&sandbox);
    assert_eq!((runs.len(), &runs[19]["run_id"]), (20, &first));
    let kept = sandbox.at("var-lib/glovo-bootstrap/runs");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o7777, 0o700);
    // A damaged report is left out.
    fs::write(format!("{kept}/{}", first.as_str().unwrap()), "{").unwrap();
    assert_eq!(sandbox.run(&["status", "--list"]).expect(0).stdout.lines().count(), 19);
}

#[test]
fn the_next_run_removes_what_a_killed_one_has_left() {
    let sandbox = Sandbox::new();
    let _ = sandbox.run_resources(&file(&sandbox, "one")).expect(0);
    let left = sandbox.write("var-lib/glovo-bootstrap/runs/.1-1.glovo-bootstrap", "{");
    let _ = sandbox.run_resources(&file(&sandbox, "one")).expect(0);
    assert!(!fs::exists(&left).unwrap());
    assert_eq!(runs(&sandbox).len(), 1);
}

#[test]
fn a_run_is_drawn_as_svg_and_as_html() {
    let sandbox = Sandbox::new();
    let _ = sandbox.run(&["status", "--timeline", "-"]).expect(1).says("no run has left a report");
    let _ = sandbox.run_resources(&file(&sandbox, "bad")).expect(1);
    let (svg, html) = (sandbox.at("boot.svg"), sandbox.at("boot.html"));
    let _ = sandbox.run(&["status", "--timeline", &svg]).expect(0).says(&format!("drawn: {svg}"));
    let _ = sandbox.run(&["status", "--timeline", &html]).expect(0);
    let printed = sandbox.run(&["status", "--timeline", "-"]).expect(0).stdout;
    let written = fs::read_to_string(&svg).unwrap();
    assert_eq!(printed, written);
    assert!(written.contains("failed with exit code 1") && written.starts_with("<svg"), "{written}");
    assert!(fs::read_to_string(&html).unwrap().contains(&written));
    assert_eq!(fs::metadata(&svg).unwrap().permissions().mode() & 0o7777, 0o600);
    let _ = sandbox.run(&["status", "--timeline", "boot.png"]).expect(2).says(".svg or .html");
    let id = runs(&sandbox)[0]["run_id"].as_str().unwrap().to_owned();
    assert_eq!(sandbox.run(&["status", "--run", &id, "--timeline", "-"]).expect(0).stdout, printed);
}

#[test]
fn a_link_at_the_pictures_place_is_replaced_and_not_followed() {
    let sandbox = Sandbox::new();
    let _ = sandbox.run_resources(&file(&sandbox, "one")).expect(0);
    let (victim, link) = (sandbox.write("victim", "kept"), sandbox.at("picture.svg"));
    std::os::unix::fs::symlink(&victim, &link).unwrap();
    let _ = sandbox.run(&["status", "--timeline", &link]).expect(0);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "kept");
    assert!(fs::symlink_metadata(&link).unwrap().is_file());
}

#[test]
fn a_plain_user_is_told_that_only_root_may_read_earlier_runs() {
    let sandbox = Sandbox::new();
    fs::set_permissions(&sandbox.path, fs::Permissions::from_mode(0o755)).unwrap();
    let _ = sandbox.run_resources(&file(&sandbox, "one")).expect(0);
    let script = "cp \"$1\" /var/lib/program; exec setpriv --reuid=65534 --regid=65534 --clear-groups /var/lib/program status --list";
    let mut command = sandbox.shell(script);
    let ended = Finished::from(command.arg(env!("CARGO_BIN_EXE_glovo-bootstrap")).output().unwrap());
    let _ = ended.expect(1).says("only root can read the reports of earlier runs").says("sudo");
}

#[test]
fn a_run_that_was_cut_off_is_listed() {
    let sandbox = Sandbox::new();
    let _ = sandbox.run_resources(&file(&sandbox, "one")).expect(0);
    let path = sandbox.at("var-lib/glovo-bootstrap/report.json");
    let mut report = sandbox.report();
    report["outcome"] = "running".into();
    report["exit_code"] = serde_json::Value::Null;
    report["run_id"] = "0-cut".into();
    fs::write(&path, report.to_string()).unwrap();
    let _ = sandbox.run_resources(&file(&sandbox, "one")).expect(0);
    let _ = sandbox.run(&["status", "--list"]).expect(0).says("0-cut").says("cut off");
}
