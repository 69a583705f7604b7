//! `status` of a user that may not read the report: the summary beside it.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::sandbox::{Finished, Sandbox};

const DIRECTORY: &str = "var-lib/glovo-bootstrap";

/// Runs `status` as an unprivileged user.
fn status(sandbox: &Sandbox, arguments: &str) -> Finished {
    // That user cannot reach the program's own path.
    let script = format!(
        "cp \"$1\" /var/lib/program; exec setpriv --reuid=65534 --regid=65534 --clear-groups /var/lib/program status {arguments}"
    );
    let mut command = sandbox.shell(&script);
    Finished::from(command.arg(env!("CARGO_BIN_EXE_glovo-bootstrap")).output().unwrap())
}

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    fs::set_permissions(&sandbox.path, fs::Permissions::from_mode(0o755)).unwrap();
    sandbox
}

/// A manifest with a secret in each place that a report has: a path, a validator's output, a variable.
fn failing(sandbox: &Sandbox) -> String {
    let path = sandbox.at("canary-path");
    let resources = format!(
        "[[resource]]\nkind = \"directory\"\npath = \"{path}\"\n[[resource]]\nkind = \"file\"\npath = \"{path}/f\"\n\
         content = \"canary-content\"\nvalidate = [\"sh\", \"-c\", \"echo canary-output; exit 1\", \"{{}}\"]\n"
    );
    sandbox.manifest(&resources)
}

#[test]
fn a_plain_user_sees_how_the_last_run_ended() {
    let sandbox = sandbox();
    let manifest = failing(&sandbox);
    let _ = sandbox.run(&["run", "--steps", &manifest, "--set", "name=canary-value"]).expect(1);
    let said = status(&sandbox, "").expect(1).says("step  failed").says("ended with exit code 1");
    let said = said.says("left out, because only root may read it").says("sudo glovo-bootstrap status");
    let json = status(&sandbox, "--json").expect(1).stdout;
    assert!(!format!("{said:?}{json}").contains("canary"), "{said:?}{json}");
    let summary: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&summary["outcome"], &summary["steps"][0]["changes"]), (&"failed".into(), &1.into()), "{summary:#}");
    assert_eq!(summary["left_out"][1], "again");
    assert_eq!(summary["schema_version"], 1);
    let _ = status(&sandbox, "--wait").expect(1).says("hint: sudo glovo-bootstrap status --wait");

    let _ = sandbox.run_resources("").expect(0);
    let _ = status(&sandbox, "").expect(0).says("converged in ");
}

#[test]
fn all_but_the_summary_stays_private() {
    let sandbox = sandbox();
    let _ = sandbox.run(&["run", "--record", "--steps", &failing(&sandbox)]).expect(1);
    let directory = sandbox.at(DIRECTORY);
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&directory), 0o711);
    let mut names = vec![];
    for entry in fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let expected = match name.as_str() {
            "summary.json" => 0o644,
            "runs" => 0o700,
            _ => 0o600,
        };
        assert_eq!(mode(&format!("{directory}/{name}")), expected, "{name}");
        names.push(name);
    }
    for name in ["report.json", "manifest.json", "lock", "summary.json"] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
}

#[test]
fn a_directory_of_an_earlier_version_is_opened_for_the_summary() {
    let sandbox = sandbox();
    fs::create_dir_all(sandbox.at(DIRECTORY)).unwrap();
    fs::set_permissions(sandbox.at(DIRECTORY), fs::Permissions::from_mode(0o700)).unwrap();
    let refused = status(&sandbox, "").expect(1).says("only root can read the report of the last run");
    let _ = refused.says("hint: sudo glovo-bootstrap status");
    let _ = sandbox.run_resources("").expect(0);
    let _ = status(&sandbox, "").expect(0);
}

#[test]
fn a_summary_of_another_machine_is_not_shown() {
    let sandbox = sandbox();
    let _ = sandbox.run_resources("").expect(0);
    let path = sandbox.at(&format!("{DIRECTORY}/summary.json"));
    let mut summary: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    summary["machine"] = "i-0123456789abcdef0".into();
    fs::write(&path, summary.to_string()).unwrap();
    let _ = status(&sandbox, "").expect(1).says("only root can read the report of the last run");
}

#[test]
fn an_old_summary_is_not_shown_as_that_of_a_later_run() {
    let sandbox = sandbox();
    let directory = |name: &str| {
        let path = sandbox.at(name);
        sandbox.manifest(&format!("[[resource]]\nkind = \"directory\"\npath = \"{path}\"\n"))
    };
    let _ = sandbox.run(&["run", "--steps", &directory("first")]).expect(0);
    let manifest = directory("second");
    // Each write of the summary fails; the report, every second one of these calls, does not.
    let strace = "exec strace -q -o /dev/null -e inject=renameat,renameat2:error=EIO:when=1+2 \"$@\"";
    let mut command = sandbox.shell(strace);
    let command = command.args([env!("CARGO_BIN_EXE_glovo-bootstrap"), "run", "--steps", &manifest]);
    let _ = Finished::from(command.output().unwrap()).expect(0).says("converged: 1 change");
    assert_eq!(sandbox.report()["outcome"], "changed");
    let _ = status(&sandbox, "").expect(1).says("only root can read the report of the last run");
}

#[test]
fn a_run_that_was_cut_off_is_not_taken_for_a_running_one() {
    let sandbox = sandbox();
    let _ = sandbox.run_resources("").expect(0);
    let path = sandbox.at(&format!("{DIRECTORY}/summary.json"));
    let mut summary: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    summary["exit_code"] = serde_json::Value::Null;
    summary["pid"] = std::process::id().into();
    fs::write(&path, summary.to_string()).unwrap();
    let _ = status(&sandbox, "").expect(1).says("cut off before its end");
}
