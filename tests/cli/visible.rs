//! Foreign text in the output, the log and the report: its control characters have no effect.

use std::{
    fs,
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

use crate::{
    sandbox::{Finished, Sandbox},
    server::{Reply, Server},
    service,
    standin::Machine,
};

/// Control characters that set the clipboard, clear the screen (C1), reverse the line, and delete.
const HOSTILE: &str = "a\x1b]52;c;ZXZpbA==\x07b\u{9b}2Jc\u{202e}d\x7fe\u{2066}f";
/// The same text as it may be shown.
const SHOWN: &str = "a\\x1b]52;c;ZXZpbA==\\x07b\\u{9b}2Jc\\u{202e}d\\x7fe\\u{2066}f";
/// The part that a name in a manifest may contain. TOML and this program refuse other control characters there.
const TURNED: &str = "a\u{202e}b\u{2066}c";

fn is_instruction(c: char) -> bool {
    c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[track_caller]
fn check(what: &str, text: &str) {
    assert!(!text.contains(is_instruction), "{what} reaches a terminal raw: {text:?}");
}

/// Checks that the output has no raw control characters. Returns it.
#[track_caller]
fn harmless(finished: Finished) -> Finished {
    check("standard output", &finished.stdout);
    check("standard error", &finished.stderr);
    finished
}

fn run(sandbox: &Sandbox, arguments: &[&str]) -> Finished {
    harmless(sandbox.run(arguments))
}

/// The report, where no value either holds anything raw: other programs print what they find in it.
#[track_caller]
fn check_report(sandbox: &Sandbox) {
    fn values(value: &serde_json::Value) {
        match value {
            serde_json::Value::String(text) => check("the report", text),
            serde_json::Value::Array(list) => list.iter().for_each(values),
            serde_json::Value::Object(map) => map.values().for_each(values),
            _ => {}
        }
    }
    values(&sandbox.report());
    let _ = run(sandbox, &["status"]).says(SHOWN);
    let json = run(sandbox, &["status", "--json"]).stdout;
    values(&serde_json::from_str(&json).unwrap());
}

#[test]
fn a_diff_and_a_link_target_are_made_visible() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.at("file"), format!("{HOSTILE}\nold\n")).unwrap();
    symlink(HOSTILE, sandbox.at("link")).unwrap();
    let manifest = sandbox.manifest(&format!(
        "[[resource]]\nkind = \"file\"\npath = \"{0}/file\"\ncontent = \"new\\n\"\n\
         [[resource]]\nkind = \"link\"\npath = \"{0}/link\"\ntarget = \"there\"\n",
        sandbox.path.display()
    ));
    let plan = run(&sandbox, &["plan", "--steps", &manifest]).expect(0).says(&format!("-{SHOWN}"));
    assert!(plan.stdout.matches(SHOWN).count() >= 2, "{}", plan.stdout);
    let json = run(&sandbox, &["plan", "--json", "--steps", &manifest]).expect(0).stdout;
    let plan: serde_json::Value = serde_json::from_str(&json).unwrap();
    let diff = plan["steps"][0]["resources"][0]["changes"][0]["diff"].as_str().unwrap();
    check("a diff in JSON", diff);
    let _ = run(&sandbox, &["run", "--steps", &manifest]).expect(0).says(SHOWN);
    check_report(&sandbox);
}

#[test]
fn what_a_program_prints_is_made_visible() {
    let sandbox = Sandbox::new();
    let script = sandbox.write("validate", format!("printf '%s\\n' '{HOSTILE}' >&2\nexit 1\n"));
    let resources = format!(
        "[[resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"new\"\nvalidate = [\"sh\", \"{script}\", \"{{}}\"]\n",
        sandbox.at("file")
    );
    let manifest = sandbox.manifest(&resources);
    let _ = run(&sandbox, &["run", "--steps", &manifest]).expect(1).says(&format!("| {SHOWN}"));
    check_report(&sandbox);
}

#[test]
fn the_journal_of_a_service_is_made_visible() {
    let machine = Machine::new();
    machine.write("etc/words", format!("{HOSTILE}\n"));
    let declared = service::app(&service::unit("cat /etc/words; exit 1", ""), service::RUNNING);
    let _ = harmless(machine.run(&declared)).expect(1).says(&format!("| {SHOWN}"));
}

#[test]
fn a_planted_report_is_made_visible() {
    let sandbox = Sandbox::new();
    let _ = sandbox.run_resources("").expect(0);
    let mut report = sandbox.report();
    report["steps"][0]["name"] = HOSTILE.into();
    report["started"] = HOSTILE.into();
    report["machine"] = "image".into();
    report["steps"][0]["resources"] = serde_json::json!([{
        "resource": HOSTILE, "outcome": "failed", "milliseconds": 1, "attempts": 1,
        "changes": [{ "summary": HOSTILE }, { "summary": "two\nconverged in 1 s" }],
        "error": { "causes": [HOSTILE], "hint": HOSTILE },
    }]);
    let plant =
        |report: &serde_json::Value| sandbox.write("tree/var/lib/glovo-bootstrap/report.json", report.to_string());
    let _ = plant(&report);
    let root = sandbox.at("tree");
    let status = run(&sandbox, &["status", "--root", &root]).says(SHOWN);
    assert!(!status.stdout.contains("\nconverged"), "a line was forged: {}", status.stdout);
    let json = run(&sandbox, &["status", "--json", "--root", &root]).stdout;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["started"], HOSTILE);
    report["machine"] = format!("i-{HOSTILE}").into();
    let _ = plant(&report);
    let _ = run(&sandbox, &["status", "--root", &root]).expect(1).says(&format!("i-{SHOWN}"));
}

#[test]
fn names_in_a_manifest_are_made_visible() {
    let sandbox = Sandbox::new();
    let escape = "\\u001b]52;c;ZXZpbA==\\u0007\\u009b2J\\u202e";
    for manifest in [
        format!("name = \"{escape}\"\n"),
        format!("name = \"a\"\n\"{escape}\" = 1\n"),
        format!("name = \"a\"\n[[resource]]\nkind = \"{escape}\"\n"),
        format!("name = \"a\"\n[[resource]]\nkind = \"link\"\npath = \"/{escape}\"\ntarget = \"{{{{ {TURNED} }}}}\"\n"),
        format!("name = \"a\"\nphase = \"{escape}\" # {TURNED}\n"),
    ] {
        let path = sandbox.write(&format!("{TURNED}.toml"), manifest);
        let _ = run(&sandbox, &["validate", "--steps", &path]).expect(2).says("a\\u{202e}b\\u{2066}c.toml");
        let _ = run(&sandbox, &["steps", "list", "--steps", &path]);
    }
    let path = sandbox.write("good.toml", format!("name = \"a\"\ndescription = \"{escape}\"\n"));
    let _ = run(&sandbox, &["steps", "list", "--steps", &path]).expect(0).says("\\x1b]52;c;ZXZpbA==\\x07\\u{9b}2J");
    let set = format!("{TURNED}=1");
    let _ = run(&sandbox, &["validate", "--steps", &path, "--set", &set]).expect(2).says("\\u{202e}");
}

#[test]
fn names_in_an_archive_are_made_visible() {
    let sandbox = Sandbox::new();
    let member = format!("{HOSTILE}.toml");
    let _ = sandbox.write(&format!("steps/{member}"), "name = 1\n");
    let archive = sandbox.at("steps.tar.gz");
    let tar = Command::new("tar").args(["-czf", &archive, "-C", &sandbox.at("steps"), &member]).status().unwrap();
    assert!(tar.success());
    let pin = glovo_bootstrap::value::Sha256::of(&fs::read(&archive).unwrap());
    let url = format!("file://{archive}#sha256={pin}");
    let _ = run(&sandbox, &["validate", "--steps", &url]).expect(2).says(&format!("{SHOWN}.toml:1:8"));
}

#[test]
fn names_of_downloads_are_made_visible() {
    let sandbox = Sandbox::new();
    let server = Server::start(|request| match request.target.as_str() {
        "/moved" => Reply { headers: "location: http://127.0.0.1:1/\u{9b}2J\u{202e}\r\n", ..Reply::new(302, "") },
        _ => Reply::ok("content"),
    });
    let directory = format!("{}/{TURNED}", sandbox.path.display());
    let there = sandbox.write("there", "content");
    for (url, code) in [
        (server.url("/%E2%80%AEgpj.exe"), 0),
        (server.url("/%1B%5D52%3Bc%3Bx%07"), 1),
        (server.url("/%C2%9B2J"), 1),
        (server.url("/moved"), 1),
        (format!("file://{there}{TURNED}"), 1),
        (format!("gopher://{HOSTILE}"), 1),
    ] {
        for json in [&[][..], &["--json"]] {
            let mut command = sandbox.command(&[&["fetch", &url, "-o", &directory], json].concat());
            let _ = harmless(Finished::from(command.stdin(Stdio::null()).output().unwrap()).expect(code));
        }
    }
    let (url, pin) = (server.url("/x"), format!("{HOSTILE}={}", "0".repeat(64)));
    let _ = run(&sandbox, &["fetch", &url, "--sha256", &pin, "-o", &directory]).expect(1).says(SHOWN);
    let list = sandbox.write("list", format!("{} {HOSTILE}\n", server.url("/x")));
    let _ = run(&sandbox, &["fetch", "--input", &list, "-o", &directory]).expect(1);
}
