//! The machine whose only package manager is dnf, without the agent: its repositories are signed and checked.

use anyhow::{Result, ensure};
use machine::{Machine, Options, Release};

fn machine() -> Result<Machine> {
    Machine::boot(Options { release: Release::Amazon, ..Options::default() })
}

#[test]
fn dnf_installs_from_the_signed_repository() -> Result<()> {
    let machine = machine()?;
    machine.exec(&["dnf", "-y", "install", "glovo-test-hello"])?.success()?;
    let installed = machine.sh("cat /usr/share/glovo-test-hello/greeting; rpm -q glovo-test-hello")?;
    ensure!(installed == "hello 2.0\nglovo-test-hello-2.0-1.amzn2023.noarch\n", "{installed}");
    Ok(())
}

#[test]
fn the_machine_has_no_apt_and_no_dpkg() -> Result<()> {
    let machine = machine()?;
    for program in ["apt", "apt-get", "dpkg", "dpkg-query", "adduser", "invoke-rc.d", "deb-systemd-helper"] {
        let found = machine.exec(&["sh", "-c", &format!("command -v {program}")])?;
        ensure!(found.code != 0, "{found:?}");
    }
    let left = machine.sh("ls -d /var/lib/dpkg /etc/apt /var/lib/apt /etc/debian_version 2> /dev/null || :")?;
    ensure!(left.is_empty(), "{left}");
    let failed = machine.sh("systemctl --failed --plain --no-legend; . /etc/os-release; echo $ID $VERSION_ID")?;
    ensure!(failed == "amzn 2023\n", "{failed}");
    let owner =
        machine.sh("rpm -qf --qf '%{name}\n' /usr/bin/bash /etc/system-release; rpm -q --whatprovides /bin/sh")?;
    ensure!(owner.starts_with("bash\nsystem-release\nbash-"), "{owner}");
    Ok(())
}
