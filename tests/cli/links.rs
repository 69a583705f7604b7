//! One path with two names, because of a symbolic link: of the manifest, of the machine, or of a plan.

use std::{fs, os::unix::fs::symlink};

use crate::sandbox::{Finished, Sandbox};

fn file(path: &str, content: &str) -> String {
    format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"{content}\\n\"\n")
}

fn of_path(kind: &str, path: &str, more: &str) -> String {
    format!("[[resource]]\nkind = \"{kind}\"\npath = \"{path}\"\n{more}\n")
}

fn link(path: &str, target: &str) -> String {
    of_path("link", path, &format!("target = \"{target}\""))
}

fn archive(path: &str, more: &str) -> String {
    let sha256 = "0".repeat(64);
    of_path("archive", path, &format!("source = \"https://a/b\"\nsha256 = \"{sha256}\"\n{more}"))
}

/// Returns the resources without those of machines where `role` has another value.
fn only(role: &str, resource: &str) -> String {
    format!("{resource}where = {{ role = \"{role}\" }}\n")
}

fn command(sandbox: &Sandbox, name: &str, resources: &str) -> Finished {
    sandbox.run(&[name, "--steps", &sandbox.manifest(resources)])
}

/// Checks that `validate`, `plan` and `run` refuse the manifest, and name the place of both resources.
#[track_caller]
fn invalid(resources: &str, words: &str) {
    let sandbox = Sandbox::new();
    for name in ["validate", "plan", "run"] {
        let refused = command(&sandbox, name, resources).expect(2).says(words);
        assert!(refused.stderr.matches("manifest.toml:").count() >= 2, "{}", refused.stderr);
    }
}

#[test]
fn nothing_is_declared_below_a_file() {
    let words = "/srv/a/b is below file /srv/a, which is no directory";
    invalid(&(file("/srv/a", "x") + &file("/srv/a/b", "x")), words);
    invalid(&(of_path("directory", "/srv/a/b", "") + &file("/srv/a", "x")), words);
    invalid(&(file("/srv/a", "x") + &archive("/srv/a/b", "")), words);
    invalid(&(file("/srv/a", "x") + &link("/srv/a/b", "c")), words);
    let linked = of_path("directory", "/opt/b", "") + &link("/opt/a", "b") + &file("/opt/b/x", "x");
    invalid(&(linked + &file("/opt/a/x/y", "x")), "/opt/b/x/y is below file /opt/b/x");
    let sandbox = Sandbox::new();
    let others = only("a", &file("/srv/a", "x")) + &only("b", &file("/srv/a/b", "x"));
    let manifest = sandbox.write("m.toml", format!("[variables]\nrole = \"a\"\n[[step]]\nname = \"s\"\n{others}"));
    let text = fs::read_to_string(&manifest).unwrap().replace("[[resource]]", "[[step.resource]]");
    fs::write(&manifest, text).unwrap();
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(0);
}

#[test]
fn a_declared_link_leads_into_an_archive() {
    let linked = link("/opt/app", "app-1") + &file("/opt/app/extra.conf", "x");
    let words = "/opt/app-1/extra.conf is in /opt/app-1, which an archive replaces as a whole";
    invalid(&(archive("/opt/app-1", "") + &linked), words);
    invalid(&(archive("/opt/app-1", "") + &linked.replace("\"app-1\"", "\"/opt/app-1\"")), words);
    let sandbox = Sandbox::new();
    let kept = archive("/opt/app-1", "keep = [\"extra.conf\"]") + &linked;
    let _ = command(&sandbox, "validate", &kept).expect(0);
    let _ = command(&sandbox, "validate", &(archive("/opt/app-2", "") + &linked)).expect(0);
}

#[test]
fn a_declared_link_gives_a_path_two_names() {
    let two = of_path("directory", "/opt/app-1", "") + &link("/opt/app", "app-1") + &file("/opt/app/x", "one");
    let words = "two resources manage /opt/app-1/x, to which /opt/app/x leads";
    invalid(&(two.clone() + &file("/opt/app-1/x", "one")), words);
    invalid(&(two.clone() + &of_path("absent", "/opt/app-1/x", "")), words);
    let sandbox = Sandbox::new();
    let _ = command(&sandbox, "validate", &(two + &file("/opt/app-1/y", "one"))).expect(0);
    // A link leads only the machines that have it.
    let steps = "[variables]\nrole = \"a\"\n[[step]]\nname = \"s\"\n".to_owned()
        + &only("a", &link("/opt/app", "app-1"))
        + &file("/opt/app/x", "one");
    for (role, code) in [("a", 2), ("b", 0)] {
        let steps = steps.clone() + &only(role, &file("/opt/app-1/x", "one"));
        let manifest = sandbox.write("m.toml", steps.replace("[[resource]]", "[[step.resource]]"));
        let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(code);
    }
}

#[test]
fn a_loop_of_declared_links_leads_nowhere() {
    let loops = link("/srv/a", "b") + &link("/srv/b", "a");
    invalid(&(loops.clone() + &file("/srv/a/f", "x")), "file /srv/a/f leads through too many symbolic links");
    let _ = command(&Sandbox::new(), "validate", &loops).expect(0);
}

#[test]
fn a_link_that_is_declared_too_late_is_told() {
    let sandbox = Sandbox::new();
    let late = file("/srv/app/f", "x") + &link("/srv/app", "app-1");
    let told = command(&sandbox, "validate", &late).expect(0);
    let told = told.says("warning: link /srv/app is declared after a resource below it").says("manifest.toml:4:8");
    let _ = told.says("hint: move link /srv/app up: it is declared at ").says("manifest.toml:8:8");
    let right = command(&sandbox, "validate", &(link("/srv/app", "app-1") + &file("/srv/app/f", "x"))).expect(0);
    assert_eq!(right.stderr, "");
}

/// Checks that `plan` and `run` refuse the manifest before anything is changed, and name both places.
#[track_caller]
fn refused_here(sandbox: &Sandbox, resources: &str, words: &str) {
    let _ = command(sandbox, "validate", resources).expect(0);
    for name in ["plan", "run"] {
        let refused = command(sandbox, name, resources).expect(2).says(words);
        assert!(refused.stderr.matches("manifest.toml:").count() >= 2, "{}", refused.stderr);
    }
}

#[test]
fn a_link_of_the_machine_gives_a_path_two_names() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.at("usr/bin")).unwrap();
    symlink("usr/bin", sandbox.at("bin")).unwrap();
    let (one, other) = (sandbox.at("bin/foo"), sandbox.at("usr/bin/foo"));
    let words = format!("two resources manage {other} on this machine, because {one} leads there");
    for content in ["one", "two"] {
        refused_here(&sandbox, &(file(&one, "one") + &file(&other, content)), &words);
    }
    refused_here(&sandbox, &(file(&one, "one") + &of_path("absent", &other, "")), &words);
    refused_here(&sandbox, &(of_path("absent", &other, "") + &file(&one, "one")), &words);
    let of_mode = |path: &str, mode: &str| of_path("directory", path, &format!("mode = \"{mode}\""));
    refused_here(&sandbox, &(of_mode(&one, "0755") + &of_mode(&other, "0750")), &words);
    assert!(!fs::exists(&other).unwrap());
    let below = file(&other, "one") + &file(&format!("{one}/x"), "one");
    refused_here(&sandbox, &below, &format!("{other}/x is below file {other} on this machine"));
    let inside = archive(&sandbox.at("usr"), "") + &file(&one, "one");
    let words = format!("{other} is in {}, which an archive replaces as a whole", sandbox.at("usr"));
    refused_here(&sandbox, &inside, &words);
    // The declared link leads elsewhere than the machine's.
    let moved = of_path("directory", &sandbox.at("sbin"), "") + &link(&sandbox.at("bin"), "sbin");
    let moved = moved + &file(&one, "one") + &file(&other, "two");
    let _ = command(&sandbox, "run", &moved).expect(0).says("converged: 4 changes");
    let _ = command(&sandbox, "run", &moved).expect(0).says("converged: 0 changes");
}

/// Checks that `plan` foresees the changes of `run`, and that a second run changes nothing.
#[track_caller]
fn planned_exactly(sandbox: &Sandbox, resources: &str, changes: usize) {
    let plan = command(sandbox, "plan", resources).expect(0).says(&format!("plan: {changes} change"));
    let ran = command(sandbox, "run", resources).expect(0).says(&format!("converged: {changes} change"));
    let changes =
        |text: &str| -> Vec<String> { text.lines().filter(|line| line.starts_with("  + ")).map(Into::into).collect() };
    assert_eq!(changes(&plan.stdout), changes(&ran.stdout));
    let _ = command(sandbox, "run", resources).expect(0).says("converged: 0 changes");
}

#[test]
fn a_plan_follows_its_links() {
    let sandbox = Sandbox::new();
    let at = |name: &str| sandbox.at(name);
    let tree = of_path("directory", &at("app-1/conf"), "") + &link(&at("app"), "app-1");
    planned_exactly(&sandbox, &(tree + &file(&at("app/conf/f"), "x")), 3);
    // A link below a planned directory, with a relative and an absolute target.
    let tree =
        of_path("directory", &at("new/bin"), "") + &link(&at("new/up"), "../app-1") + &link(&at("abs"), &at("new"));
    planned_exactly(&sandbox, &(tree + &file(&at("abs/up/conf/g"), "x") + &file(&at("abs/bin/h"), "x")), 5);
    // What reads a planned file finds it by the other name.
    let made = of_path("directory", &at("v2"), "") + &file(&at("v2/original"), "x") + &link(&at("v"), "v2");
    let copy = of_path("file", &at("copy"), &format!("source = \"file://{}\"", at("v/original")));
    planned_exactly(&sandbox, &(made + &copy), 4);
}

#[test]
fn a_plan_follows_a_link_to_its_new_target() {
    let sandbox = Sandbox::new();
    let at = |name: &str| sandbox.at(name);
    let _ = (sandbox.write("r1/f", "x\n"), sandbox.write("r2/f", "y\n"), sandbox.write("r2/gone", ""));
    symlink("r1", at("cur")).unwrap();
    let of_three = link(&at("cur"), "r2") + &file(&at("cur/f"), "x") + &of_path("absent", &at("cur/gone"), "");
    planned_exactly(&sandbox, &of_three, 3);
    assert_eq!(fs::read_to_string(at("r2/f")).unwrap(), "x\n");
    assert_eq!(fs::read_to_string(at("r1/f")).unwrap(), "x\n");
}

#[test]
fn a_plan_refuses_links_that_lead_nowhere() {
    let sandbox = Sandbox::new();
    let at = |name: &str| sandbox.at(name);
    fs::create_dir(at("r1")).unwrap();
    symlink("r1", at("cur")).unwrap();
    symlink("two", at("one")).unwrap();
    let words = format!("the directory {}, to which {} leads, does not exist", at("r2"), at("cur"));
    let planned = command(&sandbox, "plan", &(link(&at("cur"), "r2") + &file(&at("cur/f"), "x")));
    let _ = planned.expect(1).says(&words);
    let ran = command(&sandbox, "run", &(link(&at("cur"), "r2") + &file(&at("cur/f"), "x")));
    let _ = ran.expect(1).says(&words);
    // A loop of a declared link and of the machine's.
    let looped = link(&at("two"), "one") + &file(&at("two/f"), "x");
    for name in ["plan", "run"] {
        let _ = command(&sandbox, name, &looped).expect(1).says("too many levels of symbolic links");
    }
}

#[test]
fn a_link_with_an_unknown_target_may_lead_to_a_directory() {
    let sandbox = Sandbox::new();
    let link = "[[resource]]\nkind = \"link\"\npath = \"/opt/app/current\"\ntarget = \"releases/{{ instance.ami }}\"\n";
    let below = "[[resource]]\nkind = \"file\"\npath = \"/opt/app/current/.env\"\ncontent = \"x\"\nphase = \"boot\"\n";
    let manifest = sandbox.manifest(&format!("{link}{below}"));
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(0);
}
