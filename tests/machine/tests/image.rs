//! `--root`: what can be done to an image is done, what must wait until it boots is said to be deferred, and is all that
//! is left to do then.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use machine::{Machine, Options, Tree, pristine_tree};
use serde_json::Value;

const IMAGE: &str = "/image";

/// A machine that bakes an image: a pristine Debian under [`IMAGE`].
fn baking_machine() -> Result<Machine> {
    let machine = Machine::boot(Options::default())?;
    copy(&pristine_tree()?, &machine.path(IMAGE))?;
    Ok(machine)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").args(["--archive", "--no-target-directory"]).args([from, to]).status()?;
    ensure!(status.success(), "copying {}: {status}", from.display());
    Ok(())
}

/// A directory that is gone when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// The last run's report, as `status` prints it.
fn report(machine: &Machine, root: &str) -> Result<Value> {
    let report = machine.agent(&["status", "--json", "--root", root])?.success()?;
    serde_json::from_str(&report).context("the report")
}

/// The names of the steps in which something was changed, or was deferred.
fn steps_with(report: &Value, deferred: bool) -> Vec<&str> {
    let is = |change: &Value| change["deferred"].as_bool().unwrap_or_default() == deferred;
    let any = |step: &&Value| list(&step["resources"]).iter().any(|resource| list(&resource["changes"]).iter().any(is));
    list(&report["steps"]).iter().filter(any).filter_map(|step| step["name"].as_str()).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// What a run in an image could leave on the machine that bakes it: mounts, processes, swap.
fn traces(machine: &Machine) -> Result<String> {
    machine.sh(&format!(
        "cut -d' ' -f5 /proc/1/mountinfo; cat /proc/mounts; grep -c {0} /proc/swaps || true
        for process in /proc/[0-9]*; do [ \"$(readlink $process/root)\" = / ] || echo $process; done",
        machine.swap_path()
    ))
}

#[test]
fn an_image_is_made_ready_and_a_machine_that_boots_it_does_the_rest() -> Result<()> {
    let baking = baking_machine()?;
    let before = traces(&baking)?;
    baking.bootstrap(&["run", "--root", IMAGE])?.success()?;
    let baked = report(&baking, IMAGE)?;
    let done = [
        "install_dependencies",
        "provision_app_directory",
        "copy_http_resources",
        "copy_s3_resources",
        "create_glovo-app_user",
        "start_servers",
    ];
    assert_eq!(steps_with(&baked, false), done);
    assert_eq!(steps_with(&baked, true), ["enable_swap", "start_servers", "verify"]);
    for service in ["nginx", "glovo-app"] {
        let link = format!("{IMAGE}/etc/systemd/system/multi-user.target.wants/{service}.service");
        ensure!(baking.path(&link).is_symlink(), "{service} is not enabled");
    }
    assert_eq!(traces(&baking)?, before);
    assert!(!baking.path(&format!("{IMAGE}/usr/sbin/policy-rc.d")).exists());

    baking.bootstrap(&["run", "--root", IMAGE])?.success()?;
    let again = report(&baking, IMAGE)?;
    assert_eq!(steps_with(&again, false), [""; 0]);
    assert_eq!(steps_with(&again, true), steps_with(&baked, true));
    assert_eq!(traces(&baking)?, before);

    let tree = Scratch(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("image-{}", std::process::id())));
    copy(&baking.path(IMAGE), &tree.0)?;
    drop(baking);
    let machine = Machine::boot(Options { tree: Tree::At(tree.0.clone()), ..Options::default() })?;
    machine.bootstrap(&["run"])?.success()?;
    let booted = report(&machine, "/")?;
    let deferred = ["enable_swap", "start_servers", "verify"];
    let changed = steps_with(&booted, false);
    ensure!(changed.iter().all(|step| deferred.contains(step)), "more than what was deferred: {changed:?}");
    ensure!(machine.sh("swapon --show --noheadings")?.contains(&machine.swap_path()), "no swap");
    let curl = machine.world().command("curl").args(["-sSI", "http://172.31.0.10/"]).output()?;
    let head = String::from_utf8(curl.stdout)?.to_lowercase();
    ensure!(head.contains(" 200 ") && head.contains("x-glovo-systems-engineer-candidate: 1"), "{head}");

    machine.bootstrap(&["run"])?.success()?;
    assert_eq!(report(&machine, "/")?["outcome"], "unchanged");
    Ok(())
}

const SERVICE: &str = r#"
name = "service"
[[resource]]
kind = "file"
path = "/etc/systemd/system/beat.service"
content = """
[Service]
ExecStart=sleep infinity
[Install]
WantedBy=multi-user.target
"""
[[resource]]
kind = "service"
name = "beat"
enabled = true
running = true
"#;

#[test]
fn without_systemd_a_service_is_enabled_and_its_start_deferred() -> Result<()> {
    let machine = baking_machine()?;
    fs::write(machine.path(&format!("{IMAGE}/root/service.toml")), SERVICE)?;
    fs::copy(
        machine.path("/usr/local/bin/glovo-bootstrap"),
        machine.path(&format!("{IMAGE}/usr/local/bin/glovo-bootstrap")),
    )?;
    let run = format!(
        "unshare --mount --pid --fork chroot {IMAGE} sh -euc \
        'mount -t proc proc /proc; [ ! -e /run/systemd/system ]; glovo-bootstrap run --steps /root/service.toml'"
    );
    let said = machine.sh(&run)?;
    ensure!(said.contains("beat.service: enable at boot"), "{said}");
    ensure!(said.contains("beat.service: start (deferred"), "{said}");
    ensure!(machine.path(&format!("{IMAGE}/etc/systemd/system/multi-user.target.wants/beat.service")).is_symlink());
    let again = machine.sh(&run)?;
    ensure!(again.contains("converged: 0 changes, 1 deferred"), "{again}");
    assert!(machine.exec(&["pgrep", "-f", "sleep infinity"])?.stdout.is_empty());
    Ok(())
}
