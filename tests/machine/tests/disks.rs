//! Disks on a booted machine: what `filesystem` makes is mounted by systemd, and drift of a mount is named and fixed.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use machine::{Machine, Options, Output};

/// A loop device. The kernel detaches it when the last process closes it, also if this one is killed.
struct Loop {
    path: String,
    _open: File,
}

impl Loop {
    fn attach(image: &Path) -> Result<Loop> {
        let attached = Command::new("losetup").args(["--find", "--show"]).arg(image).output()?;
        ensure!(attached.status.success(), "losetup: {}", String::from_utf8_lossy(&attached.stderr));
        let path = String::from_utf8(attached.stdout)?.trim().to_owned();
        let open = File::open(&path)?;
        ensure!(Command::new("losetup").args(["--detach", &path]).status()?.success(), "losetup --detach {path}");
        Ok(Loop { path, _open: open })
    }

    /// Makes the node of the device in a machine, which has a `/dev` of its own.
    fn show(&self, machine: &Machine, path: &str) -> Result<()> {
        let minor = self.path.trim_start_matches("/dev/loop");
        machine.sh(&format!("mknod -m 600 {path} b 7 {minor}"))?;
        Ok(())
    }
}

const STEPS: &str = r#"
name = "disks"

[[resource]]
kind = "filesystem"
device = "/dev/data"
type = "ext4"
label = "data"

[[resource]]
kind = "mount"
path = "/srv/data"
what = "/dev/data"
type = "ext4"
options = "noatime"
required_by = ["writer"]

[[resource]]
kind = "mount"
path = "/srv/again"
what = "/srv/data"
type = "bind"
options = "ro"

[[resource]]
kind = "file"
path = "/etc/systemd/system/writer.service"
content = """
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/touch /srv/data/written
[Install]
WantedBy=multi-user.target
"""

[[resource]]
kind = "service"
name = "writer"
enabled = true
running = true
"#;

/// A change by hand, and the changes that fix it.
const DRIFTS: [(&str, &[&str]); 6] = [
    (
        "systemctl stop writer srv-again.mount srv-data.mount",
        &["mount /srv/data: mount /dev/data", "mount /srv/again: mount /srv/data", "service writer.service: start"],
    ),
    (
        "mount -o remount,atime,relatime,nosuid /srv/data",
        &["mount /srv/data: remount with rw,suid,dev,exec,noatime (now rw,nosuid,relatime)"],
    ),
    ("mount -o remount,bind,rw /srv/again", &["mount /srv/again: remount with bind,ro (now rw,noatime)"]),
    (
        "sed -i s/noatime,// /etc/systemd/system/srv-data.mount",
        &[
            "mount /srv/data: remount with rw,suid,dev,exec,noatime (now rw,noatime)",
            "mount /srv/data: write /etc/systemd/system/srv-data.mount",
            "mount /srv/data: read unit files again (daemon-reload)",
        ],
    ),
    (
        "rm /etc/systemd/system/writer.service.d/*; systemctl daemon-reload",
        &[
            "mount /srv/data: create /etc/systemd/system/writer.service.d/50-glovo-bootstrap-srv-data.conf",
            "mount /srv/data: read unit files again (daemon-reload)",
        ],
    ),
    ("systemctl --quiet disable srv-data.mount", &["mount /srv/data: mount at boot"]),
];

#[test]
fn a_disk_is_made_mounted_and_its_drift_is_fixed() -> Result<()> {
    let mut machine = Machine::boot(Options::default())?;
    let image = machine.directory().join("data.img");
    File::create(&image)?.set_len(64 << 20)?;
    let disk = Loop::attach(&image)?;
    disk.show(&machine, "/dev/data")?;
    fs::write(machine.path("/root/disks.toml"), STEPS)?;
    let agent = |machine: &Machine, arguments: &[&str]| -> Result<Output> {
        machine.agent(&[arguments, &["--steps", "/root/disks.toml"]].concat())
    };
    agent(&machine, &["run"])?.success()?;
    assert_eq!(machine.sh("findmnt -no FSTYPE,LABEL /srv/data; ls /srv/again")?, "ext4   data\nlost+found\nwritten\n");
    let requires = machine.sh("systemctl show --value --property RequiresMountsFor writer")?;
    ensure!(requires.contains("/srv/data"), "{requires}");
    let pending = |machine: &Machine| agent(machine, &["plan", "--json", "--detailed-exitcode"]);
    assert_eq!(pending(&machine)?.changes()?, [""; 0]);
    for (by_hand, changes) in DRIFTS {
        let fix = || {
            machine.sh(by_hand)?;
            let planned = pending(&machine)?.changes()?;
            ensure!(planned == changes, "planned: {planned:#?}");
            agent(&machine, &["run"])?.success()?;
            let made = machine.agent(&["status", "--json"])?.changes()?;
            ensure!(made == changes, "made: {made:#?}");
            let left = pending(&machine)?.changes()?;
            ensure!(left.is_empty(), "left: {left:#?}");
            Ok(())
        };
        fix().with_context(|| by_hand)?;
    }

    // At boot, systemd mounts it. A container's /dev is new then, so the first boot is one without the disk.
    machine.reboot()?;
    assert_eq!(machine.sh("ls -A /srv/data; systemctl is-active writer || true")?, "inactive\n");
    disk.show(&machine, "/dev/data")?;
    agent(&machine, &["run"])?.success()?;
    assert_eq!(machine.sh("ls -A /srv/data")?, "lost+found\nwritten\n");
    machine.sh("systemctl stop writer srv-again.mount srv-data.mount")?;
    Ok(())
}
