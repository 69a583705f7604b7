//! The kind `host` on a booted machine with cloud-init, which sets another name at each boot.

use anyhow::{Result, ensure};
use machine::{Machine, Options, UserData};

const MANIFEST: &str = r#"
name = "host"

[[resource]]
kind = "host"
hostname = "web-1"
timezone = "Europe/Madrid"
locale = "C.UTF-8"
"#;

/// A machine that cloud-init has booted, with the agent and this manifest.
fn machine() -> Result<Machine> {
    let options = Options { user_data: Some(UserData::Text("#!/bin/sh\ntrue\n".into())), ..Options::default() };
    let machine = Machine::boot(options)?;
    let agent = "/usr/local/bin/glovo-bootstrap";
    machine.sh(&format!("curl -fsS -o {agent} http://origin.test/glovo-bootstrap; chmod 755 {agent}"))?;
    std::fs::write(machine.path("/root/host.toml"), MANIFEST)?;
    Ok(machine)
}

fn agent(machine: &Machine, verb: &[&str]) -> Result<machine::Output> {
    machine.agent(&[verb, &["--steps", "/root/host.toml"]].concat())
}

#[test]
fn cloud_init_keeps_the_declared_name_at_boot() -> Result<()> {
    let mut machine = machine()?;
    let before = machine.sh("hostname")?;
    ensure!(before != "web-1\n", "{before}");
    agent(&machine, &["run"])?.success()?;
    for boot in ["first", "second", "third"] {
        let found = machine
            .sh("hostname; cat /etc/hostname; getent hosts web-1; date +%Z; . /etc/default/locale; echo $LANG")?;
        ensure!(found.starts_with("web-1\nweb-1\n127.0.1.1"), "{boot}: {found}");
        ensure!(found.contains("\nCE") && found.ends_with("\nC.UTF-8\n"), "{boot}: {found}");
        let plan = agent(&machine, &["plan", "--detailed-exitcode"])?;
        ensure!(plan.code == 0, "{boot}: {plan:?}");
        machine.reboot()?;
    }
    let names = machine
        .sh("hostnamectl --static hostname 2> /dev/null || hostnamectl --static; timedatectl show -p Timezone")?;
    ensure!(names == "web-1\nTimezone=Europe/Madrid\n", "{names}");
    Ok(())
}

#[test]
fn each_drift_is_named_and_fixed_alone() -> Result<()> {
    let machine = machine()?;
    agent(&machine, &["run"])?.success()?;
    for (by_hand, change) in [
        ("hostname other", "set web-1 in the kernel (now other)"),
        ("echo other > /etc/hostname", "set web-1 in /etc/hostname (now other)"),
        ("sed -i /web-1/d /etc/hosts", "add web-1 to /etc/hosts, so that it resolves"),
        (
            "rm /etc/cloud/cloud.cfg.d/99-glovo-bootstrap-hostname.cfg",
            "write /etc/cloud/cloud.cfg.d/99-glovo-bootstrap-hostname.cfg, so that cloud-init keeps the name",
        ),
        ("ln -sf /usr/share/zoneinfo/UTC /etc/localtime", "set Europe/Madrid in /etc/localtime (now UTC)"),
        ("echo LANG=POSIX > /etc/default/locale", "set LANG=C.UTF-8 in /etc/default/locale (now POSIX)"),
    ] {
        machine.sh(by_hand)?;
        let change = format!("host web-1, Europe/Madrid, C.UTF-8: {change}");
        let plan = agent(&machine, &["plan", "--json", "--detailed-exitcode"])?;
        ensure!(plan.changes()? == [change.clone()] && plan.code == 3, "{by_hand}: {:#?}", plan.changes()?);
        agent(&machine, &["run"])?.success()?;
        let left = agent(&machine, &["plan", "--detailed-exitcode"])?;
        ensure!(left.code == 0, "{by_hand}: {left:?}");
    }
    Ok(())
}
