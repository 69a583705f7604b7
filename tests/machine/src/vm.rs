//! One virtual machine: its own kernel, firmware that says EC2, a disk and a power switch.

mod channel;
mod image;
mod phases;
mod qemu;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::base::{Release, base};
use crate::cache::Entry;
use crate::guest::{self, LOGIN, Output};
use crate::machine::UserData;
use crate::world::World;
use crate::{agent, place};
pub use image::{complete_tree, partitioned_disk, root_disk, stock_tree};
use qemu::Qemu;

/// How long a command or a boot may take in an emulated machine.
const STEP_TIMEOUT: Duration = Duration::from_secs(1800);
const SWAP: &str = "/swapfile";

/// The options of a virtual machine.
#[derive(Clone, Debug)]
pub struct VmOptions {
    pub release: Release,
    /// The root disk's file system: `ext4`, `xfs` or `btrfs`.
    pub filesystem: &'static str,
    /// A root disk made by [`root_disk`] instead of the stock one. It is not written to.
    pub disk: Option<PathBuf>,
    /// The user-data for cloud-init at the first boot. Without it, cloud-init is off and the boot is quicker.
    pub user_data: Option<UserData>,
    /// The memory in MiB.
    pub memory: u32,
    /// More parameters for the kernel.
    pub kernel: &'static str,
    /// The time of the clock at power-on, written as for qemu's `-rtc base`.
    pub clock: &'static str,
    /// Whether the firmware says that this is an EC2 instance.
    pub ec2: bool,
    /// Whether the kernel enforces SELinux's policy, which is Debian's. The file system must be ext4.
    pub enforcing: bool,
}

impl Default for VmOptions {
    fn default() -> VmOptions {
        VmOptions {
            release: Release::default(),
            filesystem: "ext4",
            disk: None,
            user_data: None,
            memory: 1024,
            kernel: "",
            clock: "utc",
            ec2: true,
            enforcing: false,
        }
    }
}

/// A virtual machine and its world; cleared away when dropped. It must be dropped by the thread that made it: it ends
/// with that.
pub struct Vm {
    qemu: Option<Qemu>,
    options: VmOptions,
    images: Entry,
    base: PathBuf,
    dhcp: Child,
    world: World,
    dir: PathBuf,
    _lock: File,
}

/// A command that runs in the machine.
pub struct Process(Value);

impl Vm {
    /// Sets a machine up, switches it on and waits until it has booted, user-data included.
    pub fn boot(options: VmOptions) -> Result<Vm> {
        let mut vm = Vm::new(options)?;
        vm.power_on()?;
        vm.wait_until_booted()?;
        Ok(vm)
    }

    /// Sets a machine up, but leaves it off. The world has the agent, the machine has not.
    pub fn new(options: VmOptions) -> Result<Vm> {
        let agent = fs::read(agent::agent()?)?;
        let base = base(options.release)?;
        let images =
            if options.enforcing { image::enforcing(options.release)? } else { image::images(options.release)? };
        let (dir, sweeping) = place::new()?;
        let lock = File::open(&dir)?;
        lock.lock()?;
        drop(sweeping);

        let user_data = match &options.user_data {
            None => None,
            Some(UserData::Bootstrap) => Some(agent::bootstrap(&base, SWAP)?),
            Some(UserData::Text(text)) => Some(text.clone()),
        };
        let world = World::start(&base, &dir, user_data)?;
        world.store("glovo-config/glovo-bootstrap", &agent)?;
        world.publish("origin.test/glovo-bootstrap", agent);
        let stock = images.path.join(options.filesystem);
        let disk = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .arg(options.disk.as_ref().unwrap_or(&stock))
            .arg(dir.join("root.qcow2"))
            .status()
            .context("qemu-img")?;
        ensure!(disk.success(), "no disk");
        let dhcp = network(&world)?;
        Ok(Vm { qemu: None, options, images, base, dhcp, world, dir, _lock: lock })
    }

    /// Switches the machine on.
    pub fn power_on(&mut self) -> Result<()> {
        self.start(None)
    }

    /// Switches the machine on in the state of a snapshot.
    pub fn restore(&mut self, snapshot: &str) -> Result<()> {
        self.start(Some(snapshot))?;
        self.wait_for_agent()
    }

    fn start(&mut self, snapshot: Option<&str>) -> Result<()> {
        ensure!(self.qemu.is_none(), "the machine is on");
        let images = &self.images.path;
        self.qemu = Some(Qemu::start(&self.world, &self.dir, images, &self.options, snapshot)?);
        Ok(())
    }

    /// Saves the state of the running machine, memory and disk, under a name.
    pub fn snapshot(&self, name: &str) -> Result<()> {
        self.qemu()?.monitor(&format!("savevm {name}"))
    }

    /// Attaches an image to the running machine as an NVMe disk with a serial number. It stays until the power goes off.
    pub fn attach(&self, image: &Path, serial: &str) -> Result<()> {
        self.qemu()?.attach(image, serial)
    }

    /// Returns a directory for a test's own files, which is removed with the machine.
    pub fn directory(&self) -> &Path {
        &self.dir
    }

    /// Waits until commands can be run, which is before user-data is.
    pub fn wait_for_agent(&self) -> Result<()> {
        let listens = self.qemu()?.agent().sync(Instant::now() + STEP_TIMEOUT);
        listens.with_context(|| format!("the console says:\n{}", self.console()))
    }

    /// Waits until the machine has started all its units. user-data has ended then.
    pub fn wait_until_booted(&self) -> Result<()> {
        self.wait_for_agent()?;
        let state = self.exec(&["systemctl", "is-system-running", "--wait"])?.stdout;
        // A "degraded" machine has booted; tests examine the failed units.
        ensure!(matches!(state.trim(), "running" | "degraded"), "{state}; the console says:\n{}", self.console());
        Ok(())
    }

    /// Waits until the application answers through nginx: systemd takes a JVM for started before it listens.
    pub fn wait_until_serving(&self) -> Result<()> {
        let start = Instant::now();
        let mut curl = self.world.command("curl");
        curl.args(["--fail", "--silent", "http://172.31.0.10/"]);
        while guest::output(&mut curl)?.code != 0 {
            ensure!(start.elapsed() < STEP_TIMEOUT, "it does not serve; the console says:\n{}", self.console());
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Cuts the machine's power.
    ///
    /// What the guest has flushed is on its disk then; what it has written since may be lost, as from a disk with a cache.
    /// That is qcow2's doing: a cluster that is new in the file, as all are after a snapshot, is noted as the disk's in
    /// qemu's memory alone until the guest flushes. `cache=unsafe` only spares the syncs of this machine's own disk, whose
    /// power is not cut.
    pub fn cut_power(&mut self) {
        self.qemu = None;
    }

    /// Reboots, as `systemctl reboot` does, and waits for the boot.
    pub fn reboot(&mut self) -> Result<()> {
        const BOOT: &str = "/proc/sys/kernel/random/boot_id";
        let before = self.sh(&format!("cat {BOOT}"))?;
        self.start_process(&["systemctl", "reboot"])?;
        let start = Instant::now();
        loop {
            self.wait_for_agent()?;
            // A machine that shuts down may not answer.
            let now = self.exec_within(&["cat", BOOT], Duration::from_secs(5));
            if now.is_ok_and(|now| now.code == 0 && now.stdout != before) {
                return self.wait_until_booted();
            }
            ensure!(start.elapsed() < STEP_TIMEOUT, "it did not reboot; the console says:\n{}", self.console());
        }
    }

    /// Shuts the machine down in an orderly way. It can be switched on again.
    pub fn power_off(&mut self) -> Result<()> {
        self.start_process(&["systemctl", "poweroff"])?;
        let start = Instant::now();
        while self.qemu.as_mut().context("the machine is off")?.ended()?.is_none() {
            ensure!(start.elapsed() < STEP_TIMEOUT, "it does not go down; the console says:\n{}", self.console());
            sleep(Duration::from_millis(20));
        }
        self.qemu = None;
        Ok(())
    }

    /// Runs a command in the machine.
    pub fn exec(&self, arguments: &[&str]) -> Result<Output> {
        self.exec_within(arguments, STEP_TIMEOUT)
    }

    fn exec_within(&self, arguments: &[&str], patience: Duration) -> Result<Output> {
        let deadline = Instant::now() + patience;
        let process = self.start_process(arguments)?;
        loop {
            if let Some(output) = self.ended(&process)? {
                return Ok(output);
            }
            if Instant::now() > deadline {
                bail!("{arguments:?} takes more than {patience:?}; the console says:\n{}", self.console());
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// Starts a command in the machine, and does not wait for its end.
    pub fn start_process(&self, arguments: &[&str]) -> Result<Process> {
        let arguments = [&LOGIN[1..], arguments].concat();
        let command = json!({ "path": LOGIN[0], "arg": arguments, "capture-output": true });
        Ok(Process(self.ask_agent("guest-exec", &command)?["pid"].take()))
    }

    /// Returns the output and the end of a command, if it has ended.
    pub fn ended(&self, process: &Process) -> Result<Option<Output>> {
        let status = self.ask_agent("guest-exec-status", &json!({ "pid": process.0 }))?;
        if status["exited"] != true {
            return Ok(None);
        }
        let number = |name: &str| status[name].as_i64().and_then(|number| i32::try_from(number).ok());
        let text = |name: &str| {
            let bytes = BASE64_STANDARD.decode(status[name].as_str().unwrap_or_default())?;
            Ok::<_, anyhow::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        let code = number("exitcode").or(number("signal").map(|signal| 128 + signal)).context("no exit code")?;
        Ok(Some(Output { code, stdout: text("out-data")?, stderr: text("err-data")? }))
    }

    fn ask_agent(&self, command: &str, arguments: &Value) -> Result<Value> {
        self.qemu()?.agent().call(command, arguments, Instant::now() + Duration::from_secs(60))
    }

    /// Runs a shell script in the machine that must succeed, and returns what it printed.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.exec(&["sh", "-euc", script])?.success().context(script.to_owned())
    }

    /// Fetches the agent, in the place of user-data.
    pub fn fetch_agent(&self) -> Result<()> {
        self.sh("cd /usr/local/bin; curl -fsSO http://origin.test/glovo-bootstrap; chmod 755 glovo-bootstrap")?;
        Ok(())
    }

    /// Runs the agent in the machine.
    pub fn agent(&self, arguments: &[&str]) -> Result<Output> {
        self.exec(&[&["/usr/local/bin/glovo-bootstrap"], arguments].concat())
    }

    /// Runs the agent with all variables that the built-in steps need here.
    pub fn bootstrap(&self, arguments: &[&str]) -> Result<Output> {
        let variables = self.variables()?;
        let variables = variables.iter().flat_map(|variable| ["--set", variable]);
        self.agent(&arguments.iter().copied().chain(variables).collect::<Vec<_>>())
    }

    /// The values that the built-in steps' variables have here, each as `name=value`.
    pub fn variables(&self) -> Result<Vec<String>> {
        agent::variables(&self.base, SWAP)
    }

    /// The machine's surroundings: requests, faults, what is served.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Returns the console output of the machine so far, of all boots.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("console.log")).unwrap_or_default()).into_owned()
    }

    fn qemu(&self) -> Result<&Qemu> {
        self.qemu.as_ref().context("the machine is off")
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.qemu = None;
        _ = self.dhcp.kill();
        _ = self.dhcp.wait();
        _ = fs::remove_dir_all(&self.dir);
    }
}

/// The machine's cable into the world, and the subnet's DHCP server.
fn network(world: &World) -> Result<Child> {
    let mut ip = world.command("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn()?;
    let commands = "tuntap add dev vpc mode tap\naddress add 172.31.0.1/20 dev vpc\nlink set vpc up\n";
    ip.stdin.take().expect("piped").write_all(commands.as_bytes())?;
    ensure!(ip.wait()?.success(), "no network");
    let mut dhcp = world.command("setpriv");
    dhcp.args(["--pdeathsig", "KILL", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root"])
        .args(["--port=0", "--interface=vpc", "--bind-interfaces", "--no-ping", "--leasefile-ro", "--pid-file="])
        .args(["--log-facility=/dev/null", "--dhcp-authoritative"])
        .args(["--dhcp-range=172.31.0.10,172.31.0.10,255.255.240.0", "--dhcp-option=option:router,172.31.0.1"])
        .arg("--dhcp-option=option:dns-server,172.31.0.1");
    dhcp.stdin(Stdio::null()).spawn().context("dnsmasq")
}
