//! Disks that udev finds: attached while the machine runs, mounted at boot, missing at boot.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use machine::{Vm, VmOptions};

const VOLUME: &str = "vol0123456789abcdef0";

const STEPS: &str = r#"
name = "disks"

[[resource]]
kind = "filesystem"
device = "/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_vol0123456789abcdef0"
type = "ext4"
label = "data"
wait = "20m"

[[resource]]
kind = "mount"
path = "/srv/data"
what = "label:data"
type = "ext4"
required_by = ["writer"]
wait = "20s"

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

const STOCK: &str = r#"
name = "stock"

[[resource]]
kind = "filesystem"
device = "label:stock"
type = "xfs"

[[resource]]
kind = "mount"
path = "/srv/stock"
what = "label:stock"
type = "xfs"
"#;

const EBS: &str = r#"
name = "ebs"

[[resource]]
kind = "filesystem"
device = "ebs:vol-0123456789abcdef0"
type = "ext4"
wait = "0s"
"#;

fn digest(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(file).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn a_late_disk_is_made_mounted_and_no_boot_waits_for_it() -> Result<()> {
    let mut vm = Vm::boot(VmOptions { memory: 512, ..VmOptions::default() })?;
    vm.fetch_agent()?;
    for (name, steps) in [("steps", STEPS), ("stock", STOCK), ("ebs", EBS)] {
        vm.world().publish(&format!("origin.test/{name}.toml"), steps);
        vm.sh(&format!("curl -fsS -o /root/{name}.toml http://origin.test/{name}.toml"))?;
    }
    let blank = vm.directory().join("blank.img");
    File::create(&blank)?.set_len(1 << 30)?;
    let process = vm.start_process(&["glovo-bootstrap", "run", "--steps", "/root/steps.toml"])?;
    let start = Instant::now();
    let waits = "grep -q 'wait up to' /var/lib/glovo-bootstrap/report.json";
    while vm.exec(&["sh", "-c", waits])?.code != 0 {
        ensure!(start.elapsed() < Duration::from_secs(600), "the run does not wait");
        sleep(Duration::from_millis(200));
    }
    ensure!(vm.ended(&process)?.is_none(), "the run did not wait");
    vm.attach(&blank, VOLUME)?;
    let run = loop {
        if let Some(ended) = vm.ended(&process)? {
            break ended;
        }
        sleep(Duration::from_millis(200));
    };
    run.success().context("the run that waited")?;
    assert_eq!(vm.sh("findmnt -no FSTYPE,LABEL /srv/data; ls /srv/data")?, "ext4   data\nlost+found\nwritten\n");
    let again = vm.agent(&["run", "--steps", "/root/steps.toml"])?.success()?;
    ensure!(again.contains("converged: 0 changes"), "{again}");
    // qemu has a model of its own. With EC2's, the volume is found by its id.
    let model = "echo 'Amazon Elastic Block Store' > /run/model; mount --bind /run/model /sys/class/nvme/nvme0/model";
    vm.sh(model)?;
    let ebs = vm.agent(&["run", "--steps", "/root/ebs.toml"])?.success()?;
    ensure!(ebs.contains("converged: 0 changes"), "{ebs}");

    // A disk with content: one that is kept, and one that is refused.
    let stock = vm.directory().join("stock.img");
    File::create(&stock)?.set_len(320 << 20)?;
    let made = Command::new("mkfs.xfs").args(["-q", "-L", "stock"]).arg(&stock).status()?;
    ensure!(made.success(), "mkfs.xfs");
    vm.attach(&stock, "vol0123456789abcdef1")?;
    vm.agent(&["run", "--steps", "/root/stock.toml"])?.success()?;
    let full = vm.directory().join("full.img");
    File::create(&full)?.set_len(128 << 20)?;
    let table = "printf '\\200\\0\\2\\0\\203\\0\\0\\0\\0\\010\\0\\0\\0\\0\\1\\0' | dd of=$0 bs=1 seek=446 conv=notrunc;
        printf '\\125\\252' | dd of=$0 bs=1 seek=510 conv=notrunc";
    ensure!(Command::new("sh").args(["-euc", table]).arg(&full).status()?.success(), "dd");
    let before = digest(&full)?;
    vm.attach(&full, "vol0123456789abcdef2")?;
    let link = "/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_vol0123456789abcdef2";
    vm.sh(&format!("sed 's|label:stock|{link}|' /root/stock.toml > /root/full.toml"))?;
    let refused = vm.agent(&["run", "--steps", "/root/full.toml"])?;
    let said = format!("{}{}", refused.stdout, refused.stderr);
    ensure!(refused.code == 1 && said.contains("partition"), "{said}");

    vm.reboot()?;
    assert_eq!(vm.sh("findmnt -no FSTYPE /srv/data; systemctl is-active writer")?, "ext4\nactive\n");
    assert_eq!(vm.sh("findmnt -no FSTYPE /srv/stock")?, "xfs\n");
    for name in ["steps", "stock"] {
        let left = vm.agent(&["plan", "--detailed-exitcode", "--steps", &format!("/root/{name}.toml")])?;
        ensure!(left.code == 0, "{name}: {}{}", left.stdout, left.stderr);
    }
    vm.power_off()?;
    assert_eq!(digest(&full)?, before);

    // Without its disks, the machine boots, and no service writes to the root disk instead.
    vm.power_on()?;
    vm.wait_until_booted()?;
    assert_eq!(vm.sh("ls -A /srv/data; systemctl is-active writer || true")?, "inactive\n");
    Ok(())
}
