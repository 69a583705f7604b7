//! One machine: its life from power on to power off, and what a test does with it in between.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::base::{Release, base};
use crate::cache::Entry;
use crate::guest::{self, Output};
use crate::world::World;
use crate::{agent, converged, place};

/// How long a machine may take to boot or to shut down.
const BOOT_TIMEOUT: Duration = Duration::from_secs(180);
/// The exit code of systemd-nspawn if the machine reboots.
const REBOOT: i32 = 133;

/// The options of a machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is installed on it.
    pub release: Release,
    pub tree: Tree,
    pub upper: Upper,
    /// The user-data for cloud-init at the first boot. Without it, cloud-init is off and the boot is quick.
    pub user_data: Option<UserData>,
    /// File systems, each on a disk of its own, mounted at `/mnt/NAME`: `ext4` (swap works there), `xfs`, `btrfs`.
    pub disks: Vec<&'static str>,
}

/// The tree that a machine starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// A pristine machine of the release.
    Fresh,
    /// A machine on which the agent has run already. Its swap file is on `/mnt/ext4`.
    Converged,
    /// Any tree of a Debian with systemd. It is not written to.
    At(PathBuf),
}

/// The user-data that cloud-init gets from the metadata service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserData {
    /// Download the agent from `s3://glovo-config/glovo-bootstrap`, and bootstrap.
    Bootstrap,
    /// This script, or another format of cloud-init.
    Text(String),
}

/// The place of a machine's writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// Memory: quick, but syncing costs nothing there.
    Tmpfs,
    /// The disk of this machine: for measurements.
    Disk,
    /// An ext4 file system of its own: a test can read all its blocks, see [`Machine::block_images`].
    Image,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            release: Release::default(),
            tree: Tree::Fresh,
            upper: Upper::Tmpfs,
            user_data: None,
            disks: vec!["ext4"],
        }
    }
}

/// A machine and its world; cleared away when dropped.
pub struct Machine {
    release: Release,
    world: World,
    dir: PathBuf,
    /// Process 1 of the namespaces that hold the machine's mounts; see `container.sh`.
    holder: Child,
    /// The converged tree under the machine, if it is one.
    _layer: Option<Entry>,
    nspawn: Option<Child>,
    leader: u32,
}

impl Machine {
    /// Sets a machine up, switches it on and waits until it has booted, user-data included; a converged one serves.
    pub fn boot(options: Options) -> Result<Machine> {
        let converged = options.tree == Tree::Converged;
        let mut machine = Machine::new(options)?;
        machine.power_on()?;
        machine.wait_until_booted()?;
        if converged {
            machine.wait_until_serving()?;
        }
        Ok(machine)
    }

    /// Sets a machine up, but leaves it off. The agent is in place, unless user-data is to fetch it.
    pub fn new(options: Options) -> Result<Machine> {
        let base = base(options.release)?;
        let agent = agent::agent()?;
        let layer = if options.tree == Tree::Converged { Some(converged::layer(options.release)?) } else { None };
        let mut lower = match &options.tree {
            Tree::At(tree) => tree.into(),
            _ => base.join("tree").into_os_string(),
        };

        let (dir, sweeping) = place::new()?;
        if let Some(layer) = &layer {
            run(Command::new("cp").arg("--sparse=always").arg(layer.path.join("ext4.img")).arg(&dir))?;
            lower = [layer.path.join("changes").as_os_str(), &lower].join(":".as_ref());
        }
        let user_data = match options.user_data {
            None => None,
            Some(UserData::Bootstrap) => Some(agent::bootstrap(&base, &swap_path(&dir))?),
            Some(UserData::Text(text)) => Some(text),
        };
        let cloud_init = user_data.is_some();
        let world = World::start(&base, &dir, user_data)?;
        let mut holder = world
            .command("unshare")
            .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "bash"])
            .arg(place::container_script())
            .arg("hold")
            .arg(&dir)
            .arg(lower)
            .arg(match options.upper {
                Upper::Tmpfs => "tmpfs",
                Upper::Disk => "disk",
                Upper::Image => "image",
            })
            .args(&options.disks)
            // Ctrl-C on a terminal must reach only the harness, because the holder cleans up.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let ready = first_line(holder.stdout.take().expect("piped"))?;
        let release = options.release;
        let machine = Machine { release, world, dir, holder, _layer: layer, nspawn: None, leader: 0 };
        ensure!(ready == "ready", "container.sh could not set the machine up");
        drop(sweeping);

        // All processes that systemd starts get this environment, also user-data.
        fs::create_dir_all(machine.path("/etc/systemd/system.conf.d"))?;
        let environment = format!("[Manager]\nDefaultEnvironment={}\n", guest::WITHOUT_FIRMWARE);
        fs::write(machine.path("/etc/systemd/system.conf.d/without-firmware.conf"), environment)?;
        if options.tree == Tree::Converged {
            converged::rename_swap(&machine)?;
        }
        if cloud_init {
            let agent = fs::read(agent)?;
            machine.world.store("glovo-config/glovo-bootstrap", &agent)?;
            machine.world.publish("origin.test/glovo-bootstrap", agent);
        } else {
            fs::create_dir_all(machine.path("/etc/cloud"))?;
            fs::write(machine.path("/etc/cloud/cloud-init.disabled"), "")?;
            fs::copy(agent, machine.path("/usr/local/bin/glovo-bootstrap"))?;
        }
        Ok(machine)
    }

    /// Switches the machine on; returns as soon as its systemd runs.
    pub fn power_on(&mut self) -> Result<()> {
        ensure!(self.nspawn.is_none(), "the machine is on");
        let console = File::options().create(true).append(true).open(self.console())?;
        let holder = PathBuf::from(format!("/proc/{}", self.holder.id()));
        let nspawn = Command::new("nsenter")
            .args(["--target", &self.holder.id().to_string(), "--net", "--mount"])
            .arg(format!("--pid={}", holder.join("ns/pid_for_children").display()))
            .args(["bash", &place::container_script(), "boot"])
            .arg(&self.dir)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()?;
        self.nspawn = Some(nspawn);
        let cgroup = fs::read_to_string(self.dir.join("cgroup"))?;
        let init =
            holder.join("root").join(cgroup.trim().trim_start_matches('/')).join("payload/init.scope/cgroup.procs");
        self.wait_for("systemd to start", |machine| {
            let processes = fs::read_to_string(&init).unwrap_or_default();
            machine.leader = processes.lines().next().and_then(|line| line.parse().ok()).unwrap_or_default();
            Ok(machine.leader != 0)
        })
    }

    /// Waits until the machine has started all its units. user-data has ended then.
    pub fn wait_until_booted(&mut self) -> Result<()> {
        self.wait_for("the machine to boot", |machine| {
            let state = machine.exec(&["timeout", "10", "systemctl", "is-system-running", "--wait"])?.stdout;
            // A "degraded" machine has booted; tests examine the failed units.
            Ok(matches!(state.trim(), "running" | "degraded"))
        })
    }

    /// Waits until the application answers through nginx: systemd takes a JVM for started before it listens.
    pub fn wait_until_serving(&mut self) -> Result<()> {
        self.wait_for("the application to answer", |machine| {
            let mut curl = machine.world.command("curl");
            Ok(guest::output(curl.args(["--fail", "--silent", "http://172.31.0.10/"]))?.code == 0)
        })
    }

    /// Reboots, as `systemctl reboot` does, and waits for the boot.
    pub fn reboot(&mut self) -> Result<()> {
        self.exec(&["systemctl", "reboot"])?;
        self.follow_reboot()
    }

    /// Waits until the machine, which something on it reboots, is down and has booted again.
    pub fn follow_reboot(&mut self) -> Result<()> {
        let status = self.wait_until_off()?;
        ensure!(status.code() == Some(REBOOT), "the machine did not ask to be switched on again: {status}");
        self.power_on()?;
        self.wait_until_booted()
    }

    /// Shuts the machine down in an orderly way. It can be switched on again.
    pub fn power_off(&mut self) -> Result<()> {
        self.exec(&["systemctl", "poweroff"])?;
        let status = self.wait_until_off()?;
        ensure!(status.success(), "the machine did not go down well: {status}");
        Ok(())
    }

    /// Kills every process of the machine at once. This is no power cut: written data stays in this kernel's cache.
    pub fn abort(&mut self) -> Result<()> {
        if let Some(mut nspawn) = self.nspawn.take() {
            // The leader is process 1 of the machine's namespace; all other processes end with it.
            guest::output(&mut guest::kill(self.leader))?.success()?;
            nspawn.wait()?;
        }
        Ok(())
    }

    /// Runs a command in the machine.
    pub fn exec(&self, arguments: &[&str]) -> Result<Output> {
        guest::output(&mut self.command(arguments))
    }

    /// Runs a shell script in the machine that must succeed, and returns what it printed.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.exec(&["sh", "-euc", script])?.success().context(script.to_owned())
    }

    /// Runs the agent in the machine.
    pub fn agent(&self, arguments: &[&str]) -> Result<Output> {
        self.exec(&[&["/usr/local/bin/glovo-bootstrap"], arguments].concat())
    }

    /// Runs the agent with all variables that the built-in steps need here: `bootstrap(&["run", "enable_swap"])`.
    pub fn bootstrap(&self, arguments: &[&str]) -> Result<Output> {
        let variables = self.variables()?;
        let variables = variables.iter().flat_map(|variable| ["--set", variable]);
        self.agent(&arguments.iter().copied().chain(variables).collect::<Vec<_>>())
    }

    /// The values that the built-in steps' variables have on this machine, each as `name=value`.
    pub fn variables(&self) -> Result<Vec<String>> {
        agent::variables(&base(self.release)?, &self.swap_path())
    }

    /// Returns the path of the nginx site that the built-in steps write here.
    pub fn nginx_site(&self) -> &'static str {
        match self.release {
            Release::Amazon => "/etc/nginx/conf.d/glovo-app.conf",
            _ => "/etc/nginx/sites-enabled/default",
        }
    }

    /// Returns the path of the machine's swap file. It is on a disk, because no kernel swaps to an overlay. No other
    /// machine uses its name, because all share `/proc/swaps`.
    pub fn swap_path(&self) -> String {
        swap_path(&self.dir)
    }

    /// Returns a command that runs in the machine, for uses that `exec` does not offer: input, a terminal, streamed
    /// output.
    pub fn command(&self, arguments: &[&str]) -> Command {
        guest::command(self.leader, arguments)
    }

    /// Returns the path of a machine's file for this process. No link of the path may be absolute.
    pub fn path(&self, path: &str) -> PathBuf {
        let root = format!("/proc/{}/root{}/root", self.holder.id(), self.dir.display());
        Path::new(&root).join(path.trim_start_matches('/'))
    }

    /// The machine's surroundings: requests, faults, what is served.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Returns a directory for a test's own files, which is removed with the machine.
    pub fn directory(&self) -> &Path {
        &self.dir
    }

    /// Returns the console output of the machine.
    pub fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    /// Returns the images of the file systems that the machine writes to, with their free blocks: that of [`Upper::Image`],
    /// and its disks. What the machine has written is in them after a sync.
    pub fn block_images(&self) -> Result<Vec<PathBuf>> {
        let files = fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        let is_image = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "img" || kind == "raw");
        Ok(files.into_iter().filter(is_image).collect())
    }

    /// Returns the upper directory of the overlay, with everything written on this machine so far.
    pub(crate) fn changes(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}/upper/changes", self.holder.id(), self.dir.display()))
    }

    /// Returns the mount point of one of its disks.
    pub(crate) fn disk(&self, filesystem: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}/mnt/{filesystem}", self.holder.id(), self.dir.display()))
    }

    /// Returns the image of one of its disks.
    pub(crate) fn image(&self, filesystem: &str) -> PathBuf {
        self.dir.join(format!("{filesystem}.img"))
    }

    fn wait_until_off(&mut self) -> Result<ExitStatus> {
        let mut status = None;
        self.wait_for("the machine to go down", |machine| {
            status = machine.nspawn.as_mut().context("the machine is off")?.try_wait()?;
            Ok(status.is_some())
        })?;
        self.nspawn = None;
        status.context("no status")
    }

    fn wait_for(&mut self, what: &str, mut done: impl FnMut(&mut Machine) -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !done(self)? {
            let ended = match &mut self.nspawn {
                Some(nspawn) => nspawn.try_wait()?,
                None => None,
            };
            if ended.is_some() || start.elapsed() > BOOT_TIMEOUT {
                let console = fs::read_to_string(self.console()).unwrap_or_default();
                bail!("waited in vain for {what} ({ended:?}); the console says:\n{console}");
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The holder ends when its input ends; see container.sh.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
        if let Some(mut nspawn) = self.nspawn.take() {
            let _ = nspawn.wait();
        }
    }
}

fn swap_path(dir: &Path) -> String {
    format!("/mnt/ext4/swap-{}", dir.file_name().unwrap_or_default().display())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn first_line(stdout: ChildStdout) -> Result<String> {
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}
