//! A machine that its run reboots: it boots once, and its one signal comes from the resumed run.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use machine::made::{made, rpm};
use machine::{Fault, Machine, Options, Release, UserData};

const MANIFEST: &str = r#"
[[step]]
name = "upgrade"
reboot = "if-required"
[[step.resource]]
kind = "file"
path = "/etc/upgraded"
content = "1\n"

[[step]]
name = "serve"
[[step.resource]]
kind = "file"
path = "/etc/served"
content = "1\n"
"#;
const SIGNAL: &str = "GET cloudformation.eu-central-1.amazonaws.com/?Action=SignalResource&";
const AGENT: &str = "/usr/local/bin/glovo-bootstrap";

/// The mark of Debian's packages.
const MARK: &str = "echo libc6 > /run/reboot-required.pkgs; touch /run/reboot-required";
/// The same at each boot.
const MARK_AT_BOOT: &str = "f /run/reboot-required\nf /run/reboot-required.pkgs - - - - libc6\n";
/// Two kernels. With dnf, only a kernel that is newer than the running one requires a reboot.
const KERNELS: &str = "rpm --install --justdb --replacefiles --nodeps /root/kernel-*.rpm";
/// At each boot, the machine seems to run the first of these kernels. If there are more, the next boot has the next one.
const BOOTED_KERNEL: &str = "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n[Service]\nType=oneshot\n\
    ExecStart=sh -euc 'set -- /etc/kernels/*; mount --bind $1 /proc/sys/kernel/osrelease; [ $# = 1 ] || rm $1'\n";

/// Makes a reboot required; `helps` says whether it is not after one. Returns the shell command that the user-data runs.
fn require(machine: &Machine, helps: bool) -> Result<&'static str> {
    if Release::default() != Release::Amazon {
        if !helps {
            fs::write(machine.path("/etc/tmpfiles.d/reboot.conf"), MARK_AT_BOOT)?;
        }
        return Ok(MARK);
    }
    fs::create_dir(machine.path("/etc/kernels"))?;
    for version in ["6.1.1", "6.1.2"] {
        _ = rpm(machine, "/root", made("kernel", version))?;
        if helps || version == "6.1.1" {
            let release = format!("{version}-1.test.noarch\n");
            fs::write(machine.path(&format!("/etc/kernels/{version}")), release)?;
        }
    }
    let units = machine.path("/etc/systemd/system");
    fs::create_dir_all(units.join("sysinit.target.wants"))?;
    fs::write(units.join("kernel.service"), BOOTED_KERNEL)?;
    symlink("../kernel.service", units.join("sysinit.target.wants/kernel.service"))?;
    Ok(KERNELS)
}

/// A machine whose user-data runs the steps while a package requires a reboot. It is down, and boots again.
fn rebooted(helps: bool) -> Result<Machine> {
    let user_data = format!(
        "#!/bin/sh\ncurl -fsS -o {AGENT} http://origin.test/glovo-bootstrap; chmod 755 {AGENT}
         sh /etc/require
         exec {AGENT} run --record --steps /etc/steps.toml --signal app/Group\n"
    );
    let mut machine = Machine::new(Options { user_data: Some(UserData::Text(user_data)), ..Options::default() })?;
    fs::write(machine.path("/etc/steps.toml"), MANIFEST)?;
    let endpoint = "AWS_ENDPOINT_URL_CLOUDFORMATION=http://cloudformation.eu-central-1.amazonaws.com";
    let environment = format!("[Manager]\nDefaultEnvironment={endpoint}\n");
    fs::write(machine.path("/etc/systemd/system.conf.d/cloudformation.conf"), environment)?;
    fs::write(machine.path("/etc/require"), require(&machine, helps)?)?;
    machine.world().fault("^GET cloudformation", 9, Fault::status(200));
    machine.power_on()?;
    machine.follow_reboot()?;
    machine.exec(&[AGENT, "status", "--wait"])?;
    machine.sh(
        "while systemctl is-active --quiet glovo-bootstrap || systemctl list-jobs | grep -q glovo; do sleep 0.1; done",
    )?;
    Ok(machine)
}

/// Returns the statuses that CloudFormation was told.
fn signals(machine: &Machine) -> Vec<String> {
    let lines = machine.world().requests().into_iter().map(|request| request.line());
    let signals = lines.filter_map(|line| line.strip_prefix(SIGNAL).map(str::to_owned));
    signals
        .filter_map(|line| line.split('&').find_map(|part| part.strip_prefix("Status=").map(str::to_owned)))
        .collect()
}

#[test]
fn a_run_of_user_data_reboots_once_and_signals_once() -> Result<()> {
    let mut machine = rebooted(true)?;
    let journal = machine.sh("journalctl --unit glovo-bootstrap --output cat --no-pager")?;
    ensure!(signals(&machine) == ["SUCCESS"], "{:?}\n{journal}", signals(&machine));
    ensure!(journal.contains("resuming the run after the reboot of step upgrade"), "{journal}");
    machine.sh("cat /etc/upgraded /etc/served")?;
    let status = machine.agent(&["status"])?;
    ensure!(status.code == 0 && status.stdout.contains("converged"), "{status:?}");
    // The unit was not enabled before.
    let enabled = machine.exec(&["systemctl", "is-enabled", "glovo-bootstrap"])?;
    ensure!(enabled.stdout == "disabled\n", "{enabled:?}");
    machine.reboot()?;
    ensure!(machine.agent(&["run"])?.success()?.contains("0 changes"), "a second run changes nothing");
    assert_eq!(signals(&machine), ["SUCCESS"]);
    Ok(())
}

#[test]
fn a_reboot_that_does_not_help_fails_the_stack_once() -> Result<()> {
    let mut machine = rebooted(false)?;
    let journal = machine.sh("journalctl --unit glovo-bootstrap --output cat --no-pager")?;
    ensure!(signals(&machine) == ["FAILURE"], "{:?}\n{journal}", signals(&machine));
    ensure!(journal.contains("after the reboot, the machine still needs a reboot"), "{journal}");
    ensure!(machine.agent(&["status"])?.code == 1, "{journal}");
    // Neither a run by hand nor another boot reboots it again.
    let boot = machine.sh("cat /proc/sys/kernel/random/boot_id")?;
    let run = machine.agent(&["run"])?;
    ensure!(run.code == 1, "{run:?}");
    assert_eq!(machine.sh("cat /proc/sys/kernel/random/boot_id")?, boot);
    machine.reboot()?;
    ensure!(machine.agent(&["run"])?.code == 1, "still required");
    assert_eq!(signals(&machine), ["FAILURE"]);
    Ok(())
}
