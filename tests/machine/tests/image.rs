//! Images, of a tree and of a build instance. A run makes all changes that need no boot and reports the others as
//! deferred. Each machine that boots the image makes exactly the deferred changes.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use machine::{Machine, Options, SweptDirectory, Tree, pristine_tree};
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
fn an_image_is_prepared_and_its_machine_does_the_rest() -> Result<()> {
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

    let sealed = baking.bootstrap(&["bake", "--root", IMAGE, "--seal"])?.success()?;
    ensure!(sealed.contains("converged: 0 changes, 4 deferred") && sealed.contains("no credentials found"), "{sealed}");
    let left = sealed.split_once("left to the boot:").context(sealed.clone())?.1;
    let named: Vec<_> = left.lines().filter_map(|line| line.strip_prefix("step ")?.strip_suffix(':')).collect();
    assert_eq!(named, steps_with(&baked, true));
    assert_eq!(traces(&baking)?, before);

    let tree = SweptDirectory::new()?;
    copy(&baking.path(IMAGE), &tree.path)?;
    drop(baking);
    let first = Machine::boot(Options { tree: Tree::At(tree.path.clone()), ..Options::default() })?;
    let second = Machine::boot(Options { tree: Tree::At(tree.path.clone()), ..Options::default() })?;
    assert_ne!(machine_id(&first)?, machine_id(&second)?);
    does_the_rest(&first)?;
    does_the_rest(&second)
}

fn machine_id(machine: &Machine) -> Result<String> {
    let id = machine.sh("cat /etc/machine-id")?.trim().to_owned();
    ensure!(id.len() == 32, "{id:?} is no machine-id");
    Ok(id)
}

/// Which starts of the services these are.
fn starts(machine: &Machine) -> Result<String> {
    machine.sh("systemctl show --property InvocationID --value nginx glovo-app")
}

/// A machine that has booted a sealed image takes nothing for done, does what was deferred and that alone, and serves.
fn does_the_rest(machine: &Machine) -> Result<()> {
    let status = machine.agent(&["status"])?;
    ensure!(status.code == 1 && status.stderr.contains("no run has left a report"), "{status:?}");
    // systemd has started the services, and with what they are to be started with.
    let deferred = ["enable_swap", "verify"];
    let plan = machine.bootstrap(&["plan", "--json"])?.success()?;
    let plan: Value = serde_json::from_str(&plan).context(plan)?;
    let pending = steps_with(&plan, false);
    ensure!(pending.iter().all(|step| deferred.contains(step)), "more than what was deferred: {pending:?}");
    let before = starts(machine)?;
    machine.bootstrap(&["run"])?.success()?;
    let booted = report(machine, "/")?;
    let changed = steps_with(&booted, false);
    ensure!(changed.iter().all(|step| deferred.contains(step)), "more than what was deferred: {changed:?}");
    assert_eq!(starts(machine)?, before, "a service was restarted for nothing");
    ensure!(machine.sh("swapon --show --noheadings")?.contains(&machine.swap_path()), "no swap");
    let curl = machine.world().command("curl").args(["-sSI", "http://172.31.0.10/"]).output()?;
    let head = String::from_utf8(curl.stdout)?.to_lowercase();
    ensure!(head.contains(" 200 ") && head.contains("x-glovo-systems-engineer-candidate: 1"), "{head}");

    machine.bootstrap(&["run"])?.success()?;
    assert_eq!(report(machine, "/")?["outcome"], "unchanged");
    Ok(())
}

#[test]
fn a_build_instance_starts_nothing_and_boots_as_another_machine() -> Result<()> {
    let mut machine = Machine::boot(Options::default())?;
    // A container keeps no random seed of its own.
    machine.sh(
        "echo ls > /root/.bash_history; mkdir -p /var/lib/cloud/instances/i-build; echo > /var/lib/systemd/random-seed",
    )?;
    let built = machine_id(&machine)?;
    let swaps = machine.sh("cat /proc/swaps")?;
    let sealed = machine.bootstrap(&["bake", "--seal"])?.success()?;
    for removed in ["/root/.bash_history", "/var/lib/cloud/instances", "/var/lib/systemd/random-seed"] {
        ensure!(sealed.contains(&format!("  - remove {removed} (")), "{removed}\n{sealed}");
    }
    ensure!(sealed.contains("  - empty /etc/machine-id (") && sealed.contains("no credentials found"), "{sealed}");
    ensure!(sealed.contains("  - service nginx.service: start (deferred"), "{sealed}");
    for service in ["nginx", "glovo-app"] {
        assert_eq!(machine.exec(&["systemctl", "is-active", service])?.stdout.trim(), "inactive");
        assert_eq!(machine.exec(&["systemctl", "is-enabled", service])?.stdout.trim(), "enabled");
    }
    assert_eq!(machine.sh("cat /proc/swaps")?, swaps);
    assert_eq!(machine.sh("cat /etc/machine-id; find /var/lib/glovo-bootstrap -name '*.json' -size +64k")?, "");
    let again = machine.bootstrap(&["bake", "--seal"])?.success()?;
    ensure!(again.contains("converged: 0 changes, ") && again.contains("sealed: nothing to remove"), "{again}");

    machine.power_off()?;
    machine.power_on()?;
    machine.wait_until_booted()?;
    assert_ne!(machine_id(&machine)?, built);
    does_the_rest(&machine)
}

#[test]
fn the_image_of_a_running_instance_takes_nothing_for_done() -> Result<()> {
    let mut instance = Machine::boot(Options { tree: Tree::Converged, ..Options::default() })?;
    instance.power_off()?;
    let tree = SweptDirectory::new()?;
    copy(&instance.path("/"), &tree.path)?;
    let site = tree.path.join(instance.nginx_site().trim_start_matches('/'));
    drop(instance);
    // Without a firmware the machine-id is all that tells machines apart. As a run that was cut off would have left it,
    // nginx starts with another site than the one that it is known to have been started with.
    fs::write(tree.path.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n")?;
    fs::write(&site, format!("{}# changed\n", fs::read_to_string(&site)?))?;
    let fstab = fs::read_to_string(tree.path.join("etc/fstab"))?;
    let without_swap: Vec<_> = fstab.lines().filter(|line| !line.contains("swap")).collect();
    fs::write(tree.path.join("etc/fstab"), without_swap.join("\n") + "\n")?;

    let copy = Machine::boot(Options { tree: Tree::At(tree.path.clone()), ..Options::default() })?;
    for arguments in [&["status"][..], &["status", "--json"], &["status", "--wait"]] {
        let status = copy.agent(arguments)?;
        ensure!(status.code == 1 && status.stderr.contains("the last report is of another machine"), "{status:?}");
    }
    let before = starts(&copy)?;
    let said = copy.bootstrap(&["run"])?.success()?;
    let after = starts(&copy)?;
    let restarted = |service: usize| before.split("\n\n").nth(service) != after.split("\n\n").nth(service);
    ensure!(
        restarted(0) && said.contains("nginx.service: restart: the files of its last start are not known"),
        "{said}"
    );
    ensure!(!restarted(1), "glovo-app was restarted, though it has started with what is there:\n{said}");
    assert_eq!(copy.agent(&["status"])?.code, 0);
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
