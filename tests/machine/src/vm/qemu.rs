//! One qemu process: a machine that is on.

use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::VmOptions;
use super::channel::Channel;
use crate::world::World;

/// EC2's instances say so in their firmware, and by such a UUID; cloud-init looks there.
const EC2: [&str; 4] = [
    "type=0,vendor=Amazon EC2,version=1.0",
    "type=1,manufacturer=Amazon EC2,product=t3.small,serial=ec2e1916-9099-7caf-fd21-012345abcdef,uuid=ec2e1916-9099-7caf-fd21-012345abcdef",
    // As Nitro: the id that the metadata service says, too.
    "type=2,manufacturer=Amazon EC2,asset=i-0123456789abcdef0",
    "type=3,manufacturer=Amazon EC2,asset=Amazon EC2",
];

/// The slots for disks that are attached to a running machine.
const SLOTS: usize = 3;

pub(super) struct Qemu {
    process: Child,
    monitor: Mutex<Channel>,
    agent: Mutex<Channel>,
    /// The number of disks that were attached.
    attached: AtomicUsize,
}

impl Qemu {
    /// Switches the machine on whose files are in `dir`; `snapshot` has it go on from there instead of booting.
    pub(super) fn start(
        world: &World,
        dir: &Path,
        images: &Path,
        options: &VmOptions,
        snapshot: Option<&str>,
    ) -> Result<Qemu> {
        let file = |name: &str| dir.join(name).display().to_string();
        let cloud_init = if options.user_data.is_some() { "" } else { "cloud-init=disabled" };
        let selinux = if options.enforcing { "security=selinux selinux=1 enforcing=1" } else { "" };
        let kernel = format!(
            "root=/dev/vda rw rootfstype={} console=ttyS0 net.ifnames=0 quiet {cloud_init} {selinux} {}",
            options.filesystem, options.kernel
        );
        // The machine ends with this process, also if it is killed.
        let mut qemu = world.command("setpriv");
        qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"])
            // Emulation needs no KVM. "max" has the vector instructions that make TLS and zstd fast.
            .args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"])
            .args(["-m", &options.memory.to_string(), "-rtc", &format!("base={}", options.clock)])
            .args(["-kernel", &images.join("vmlinuz").display().to_string()])
            .args(["-initrd", &images.join("initrd").display().to_string(), "-append", kernel.trim()])
            .args(["-chardev", &format!("file,id=console,path={},append=on", file("console.log"))])
            .args(["-serial", "chardev:console"])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", file("monitor"))])
            .args(["-chardev", &format!("socket,id=agent,path={},server=on,wait=off", file("agent"))])
            .args(["-device", "virtio-serial-pci"])
            .args(["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"])
            // For power cuts; see Vm::cut_power.
            .args(["-drive", &format!("file={},if=none,id=root,cache=unsafe,discard=unmap", file("root.qcow2"))])
            .args(["-device", "virtio-blk-pci,drive=root"])
            .args(["-netdev", "tap,id=vpc,ifname=vpc,script=no,downscript=no"])
            .args(["-device", "virtio-net-pci,netdev=vpc,mac=02:00:ac:1f:00:0a,romfile="])
            .args(["-device", "virtio-rng-pci"])
            .args((1..=SLOTS).flat_map(|slot| {
                ["-device".to_owned(), format!("pcie-root-port,id=slot{slot},chassis={slot},slot={slot}")]
            }));
        if options.ec2 {
            qemu.args(EC2.iter().flat_map(|strings| ["-smbios", strings]));
        }
        if let Some(snapshot) = snapshot {
            qemu.args(["-loadvm", snapshot]);
        }
        for socket in ["monitor", "agent"] {
            _ = std::fs::remove_file(dir.join(socket));
        }
        let mut process = qemu.stdin(Stdio::null()).spawn().context("qemu-system-x86_64")?;
        let mut connect = |name: &str| loop {
            match Channel::connect(&dir.join(name)) {
                Ok(channel) => return Ok(channel),
                Err(error) => ensure!(process.try_wait()?.is_none(), "qemu does not start ({error})"),
            }
            sleep(Duration::from_millis(20));
        };
        let (mut monitor, agent) = (connect("monitor")?, connect("agent")?);
        monitor.call("qmp_capabilities", &json!({}), Instant::now() + Duration::from_secs(60))?;
        Ok(Qemu { process, monitor: monitor.into(), agent: agent.into(), attached: AtomicUsize::new(0) })
    }

    pub(super) fn agent(&self) -> MutexGuard<'_, Channel> {
        self.agent.lock().expect("no panic in a conversation")
    }

    /// Gives qemu a command of its monitor for people, such as `savevm`. Those say nothing unless they fail.
    pub(super) fn monitor(&self, line: &str) -> Result<()> {
        let mut monitor = self.monitor.lock().expect("no panic in a conversation");
        let deadline = Instant::now() + Duration::from_secs(60);
        let said = monitor.call("human-monitor-command", &json!({ "command-line": line }), deadline)?;
        ensure!(said == "", "{line}: {said}");
        Ok(())
    }

    /// Attaches an NVMe disk with a serial number to the running machine.
    pub(super) fn attach(&self, image: &Path, serial: &str) -> Result<()> {
        let slot = self.attached.fetch_add(1, Ordering::Relaxed) + 1;
        ensure!(slot <= SLOTS, "the machine has {SLOTS} slots");
        let mut monitor = self.monitor.lock().expect("no panic in a conversation");
        let deadline = Instant::now() + Duration::from_secs(60);
        let file = json!({ "driver": "file", "filename": image });
        monitor.call("blockdev-add", &json!({ "driver": "raw", "node-name": serial, "file": file }), deadline)?;
        let bus = format!("slot{slot}");
        let disk =
            json!({ "driver": "nvme", "id": format!("disk{slot}"), "bus": bus, "drive": serial, "serial": serial });
        monitor.call("device_add", &disk, deadline)?;
        Ok(())
    }

    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.process.try_wait()?)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}
