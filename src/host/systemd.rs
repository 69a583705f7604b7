//! systemd units. systemd tells the states of all units together ([`show`]); `systemctl` changes them.

pub mod escape;
mod mask;
mod reload;
mod show;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use nix::time::{ClockId, clock_gettime};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use self::show::SystemBus;
use super::{
    Host,
    command::{Program, with_tail},
};
use crate::{
    error::Fault,
    value::{AbsPath, quoted, spoken},
};

/// The directories of unit files, systemd.unit(5). The first one with a file counts.
const UNIT_PATH: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The suffixes of unit files.
const UNIT_TYPES: [&str; 9] = ["service", "socket", "timer", "target", "path", "mount", "automount", "swap", "slice"];
/// systemd's messages for a unit that it cannot load (`bus_unit_validate_load_state`, src/core/dbus-unit.c).
const REFUSALS: [&str; 2] = ["has a bad unit file setting", "failed to load properly"];

/// Limits the time for reading the journal for an error's last lines.
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How far the two times of a start may be apart although no clock was set: one has whole seconds.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(1500);

/// The state of a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    properties: BTreeMap<String, String>,
}

/// The states of all watched units.
pub type Units = Rc<BTreeMap<String, Unit>>;

impl Unit {
    /// Returns a property; empty if systemd does not know it.
    pub fn get(&self, property: &str) -> &str {
        self.properties.get(property).map_or("", String::as_str)
    }

    /// Returns its load state: `loaded`, `not-found`, `masked`, `bad-setting` or `error`.
    pub fn load_state(&self) -> &str {
        self.get("LoadState")
    }

    /// Returns whether it is active: it runs, or has run and stays active.
    pub fn is_active(&self) -> bool {
        matches!(self.get("ActiveState"), "active" | "reloading" | "refreshing")
    }

    /// Returns whether it runs, or whether systemd will start it without another command.
    pub fn is_up_or_will_be(&self) -> bool {
        self.has_job() || !matches!(self.get("ActiveState"), "" | "inactive" | "failed")
    }

    /// Returns whether it has failed and systemd does not restart it.
    pub fn is_failed(&self) -> bool {
        self.get("ActiveState") == "failed"
    }

    /// Returns whether it is enabled, or cannot be enabled (`static`, `generated`).
    pub fn is_enabled(&self) -> bool {
        matches!(self.get("UnitFileState"), "enabled" | "static" | "alias" | "indirect" | "generated")
    }

    /// Returns whether its file on the disk is newer than systemd's copy in memory.
    pub fn needs_reload(&self) -> bool {
        self.get("NeedDaemonReload") == "yes"
    }

    /// Returns whether a job for it is queued.
    pub fn has_job(&self) -> bool {
        !matches!(self.get("Job"), "" | "0")
    }

    /// Returns the number of automatic restarts.
    pub fn restarts(&self) -> u64 {
        self.get("NRestarts").parse().unwrap_or_default()
    }

    /// Returns whether systemd waits before an automatic restart.
    fn awaits_restart(&self) -> bool {
        self.get("SubState").contains("auto-restart")
    }

    /// Returns whether it does not run and systemd restarts it repeatedly.
    pub fn is_in_restart_loop(&self) -> bool {
        !self.is_active() && (self.awaits_restart() || (self.restarts() > 0 && self.get("ActiveState") == "activating"))
    }

    /// Returns the id of its last start. systemd gives each start a new id.
    fn invocation(&self) -> &str {
        self.get("InvocationID")
    }

    /// Returns whether systemd has replaced this start with an automatic restart, or will do so.
    fn has_replaced(&self, invocation: &str) -> bool {
        self.awaits_restart() || self.invocation() != invocation
    }

    /// Returns whether it has ended and no start is queued.
    fn has_ended(&self) -> bool {
        self.is_failed() || (self.get("ActiveState") == "inactive" && !self.has_job())
    }

    /// Returns whether systemd has tried to start it since it loaded it. Each start checks the unit's conditions.
    fn was_tried(&self) -> bool {
        !matches!(self.get("ConditionTimestampMonotonic"), "" | "0")
    }

    /// Returns the time since it became active.
    pub fn active_for(&self) -> Result<Duration> {
        self.since("ActiveEnterTimestampMonotonic")
    }

    /// Returns when its start began; `None` if systemd does not show it in UTC.
    ///
    /// A later change has a later time, also if the clock was set since. Where the clock was not set, it is that moment by
    /// the present clock. Else it is the earlier one of that and of the clock's time then, which has whole seconds.
    pub fn started(&self) -> Result<Option<SystemTime>> {
        let by_clock_now = SystemTime::now() - self.since("InactiveExitTimestampMonotonic")?;
        let mut words = self.get("InactiveExitTimestamp").split(' ').skip(1);
        let (Some(date), Some(time), Some("UTC")) = (words.next(), words.next(), words.next()) else { return Ok(None) };
        let by_clock_then = OffsetDateTime::parse(&format!("{date}T{time}Z"), &Rfc3339).ok().map(SystemTime::from);
        let was_set =
            |then: SystemTime| by_clock_now.duration_since(then).map_or(true, |apart| apart > CLOCK_TOLERANCE);
        Ok(by_clock_then.map(|then| if was_set(then) { then.min(by_clock_now) } else { by_clock_now }))
    }

    fn since(&self, timestamp: &str) -> Result<Duration> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("reading the clock")?;
        let since = self.get(timestamp).parse().unwrap_or_default();
        Ok(Duration::from(now).saturating_sub(Duration::from_micros(since)))
    }
}

/// Returns the possible paths of a unit's file and of its template's, in the order of precedence.
pub fn unit_files(name: &str) -> impl Iterator<Item = AbsPath> {
    let template = name.split_once('@').and_then(|(prefix, instance)| {
        let (instance, ending) = instance.rsplit_once('.')?;
        (!instance.is_empty()).then(|| format!("{prefix}@.{ending}"))
    });
    let names = std::iter::once(name.to_owned()).chain(template);
    names.flat_map(|name| UNIT_PATH.iter().filter_map(move |directory| AbsPath::from(*directory).join(&name).ok()))
}

/// The watched units and their known states.
#[derive(Debug, Default)]
pub(super) struct KnownUnits {
    watched: BTreeSet<String>,
    /// The units that this run has started, each with its last known invocation.
    started: BTreeMap<String, String>,
    /// The states since the last change.
    shown: Option<Units>,
    bus: SystemBus,
}

impl KnownUnits {
    /// Forgets the states. Every change calls this.
    pub(super) fn forget(&mut self) {
        self.shown = None;
        self.bus.forget_answers();
    }
}

impl Host {
    /// Returns whether systemd reads a unit from this path.
    pub fn is_unit_file(&self, path: &AbsPath) -> bool {
        let ending = path.leaf().rsplit_once('.').map(|(_, ending)| ending);
        ending.is_some_and(|ending| UNIT_TYPES.contains(&ending)) && unit_files(path.leaf()).any(|file| file == *path)
    }

    /// Returns the unit of a drop-in; `None` if the drop-in is for several units.
    pub fn unit_of_drop_in<'a>(&self, path: &'a AbsPath) -> Option<&'a str> {
        let (directory, leaf) = path.as_str().rsplit_once('/')?;
        let (units, name) = directory.strip_suffix(".d")?.rsplit_once('/')?;
        let (stem, ending) = name.rsplit_once('.')?;
        // `app-.service.d` is for all units whose names begin with `app-`.
        let is_one = !stem.is_empty() && !stem.ends_with('-') && UNIT_TYPES.contains(&ending);
        (is_one && leaf.ends_with(".conf") && UNIT_PATH.contains(&units)).then_some(name)
    }

    /// Fails if systemd would refuse to load a unit file.
    ///
    /// systemd's warnings are no failure. A program that is not installed yet is none either, though
    /// `systemd-analyze verify` reports it.
    pub fn verify_unit(&self, path: &AbsPath, is_secret: bool) -> Result<()> {
        let verify = Program::new(["systemd-analyze", "verify", "--man=no", path.as_str()]);
        let said = self.run(&if is_secret { verify.private() } else { verify })?.tail;
        // systemd-analyze verifies a template under the name of an instance.
        let name = path.leaf().split_inclusive('@').next().unwrap_or_default();
        let unit = format!("Unit {name}");
        let refuses = |line: &str| line.contains(&unit) && REFUSALS.iter().any(|refusal| line.contains(refusal));
        if !said.lines().any(refuses) {
            return Ok(());
        }
        let message = "`systemd-analyze verify` refuses it".to_owned();
        Err(Fault::new(if is_secret { message } else { with_tail(message, &said) }).into())
    }

    /// Adds units to watch, so that one question reads the states of all of them.
    pub fn watch_units(&self, names: impl IntoIterator<Item = String>) {
        self.units.borrow_mut().watched.extend(names);
    }

    /// Returns the state of a unit. It is kept until the next change.
    pub fn unit(&self, name: &str) -> Result<Unit> {
        self.watch_units([name.to_owned()]);
        let known = self.units.borrow().shown.clone().filter(|units| units.contains_key(name));
        let units = if let Some(units) = known {
            units
        } else {
            let watched = self.units.borrow().watched.clone();
            let units = Rc::new(self.show(&watched)?);
            self.units.borrow_mut().shown = Some(units.clone());
            units
        };
        Ok(units.get(name).cloned().unwrap_or_default())
    }

    /// Returns the path of a unit's file, if it exists.
    pub fn unit_file(&self, name: &str) -> Result<Option<AbsPath>> {
        for path in unit_files(name) {
            if self.root().status(&path)?.is_some() {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Returns whether links enable a unit. This works for an image, where systemd does not run.
    pub fn is_enabled_offline(&self, name: &str) -> Result<bool> {
        let etc = AbsPath::from("/etc/systemd/system");
        for directory in self.root().list(&etc)? {
            if (directory.ends_with(".wants") || directory.ends_with(".requires"))
                && self.root().status(&etc.join(&directory)?.join(name)?)?.is_some()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Starts, restarts or stops a unit and waits until its state is stable.
    ///
    /// `systemctl` does not wait for the job (`--no-block`). The job may be ordered after the unit of this process
    /// (cloud-final.service, and units with `After=multi-user.target`), which ends only with this process. Such a job
    /// stays queued; see [`Host::waits_for_us`].
    pub fn settle(&self, verb: &str, name: &str, stable: Duration, patience: Duration) -> Result<()> {
        let mut unit = self.unit(name)?;
        if verb != "stop" && unit.was_tried() {
            // Earlier starts, failed or not, count for the start limit.
            _ = self.run(&Program::new(["systemctl", "reset-failed", name]))?;
        }
        tracing::debug!("{verb} {name} (deadline: {})", self.stop.deadlines.in_words());
        _ = self.run_checked(&Program::new(["systemctl", verb, "--no-block", name]))?;
        let end = Instant::now() + patience;
        // An automatic restart that was due before belongs to an earlier start. Only the end of this start counts.
        let mut ours = None;
        let mut active_since = None;
        let mut pause = Duration::from_millis(20);
        loop {
            unit = self.fresh_unit(name).map_err(|stopped| stopped.context(self.still(name, &unit)))?;
            // Before this job is done, the state may still be that of the earlier start.
            let flaps = verb != "stop"
                && !unit.has_job()
                && unit.has_replaced(ours.get_or_insert_with(|| unit.invocation().to_owned()));
            // A unit that fails while it stops has stopped.
            if verb != "stop" && unit.is_failed() || flaps {
                return Err(self.failed(name, &unit));
            }
            match (verb == "stop", unit.is_active(), unit.has_job()) {
                (true, false, false) => {
                    _ = self.units.borrow_mut().started.remove(name);
                    return Ok(());
                }
                (false, true, false) => {
                    let since: Instant = *active_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= stable {
                        _ = self.units.borrow_mut().started.insert(name.to_owned(), unit.invocation().to_owned());
                        return Ok(());
                    }
                }
                (false, false, true) if pause >= Duration::from_millis(200) && self.waits_for_us(name)? => {
                    return Ok(());
                }
                // It ran to its end: a oneshot without RemainAfterExit, or a service that exited.
                (false, false, false) if unit.has_ended() => return Err(self.failed(name, &unit)),
                _ => {}
            }
            if Instant::now() >= end {
                let waited = Fault::new(format!("gave up after {}", spoken(patience)));
                return Err(waited.hint(format!("see its state: systemctl status {}", quoted(name))))
                    .context(self.still(name, &unit));
            }
            self.progress(&format!("{name}: {} ({})", unit.get("ActiveState"), unit.get("SubState")));
            self.stop.wait(pause).map_err(|stopped| stopped.context(self.still(name, &unit)))?;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// Waits until a unit has run for `stable`. Returns false if it ends or restarts before.
    pub fn stays_up(&self, name: &str, stable: Duration) -> Result<bool> {
        let first = self.fresh_unit(name)?;
        let mut unit = first.clone();
        while unit.is_active() && unit.invocation() == first.invocation() {
            let left = stable.saturating_sub(unit.active_for()?);
            if left.is_zero() {
                return Ok(true);
            }
            self.progress(&format!("{name}: waiting until it stays up"));
            self.stop.wait(left.min(Duration::from_millis(200)))?;
            unit = self.fresh_unit(name)?;
        }
        Ok(false)
    }

    /// Returns whether this run has started a unit.
    pub fn has_started(&self, name: &str) -> bool {
        self.units.borrow().started.contains_key(name)
    }

    /// Fails if a unit that this run has started no longer runs, or if systemd has restarted it.
    ///
    /// A check that waits for the unit's service can then end at once. The error has the last lines of the unit's
    /// journal. A restart is reported once. If the run has started no unit, this starts no process.
    pub fn check_started(&self) -> Result<()> {
        let names: BTreeSet<String> = self.units.borrow().started.keys().cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        for (name, unit) in self.show(&names)? {
            let known = self.units.borrow_mut().started.insert(name.clone(), unit.invocation().to_owned());
            if unit.has_ended() || known.is_some_and(|known| unit.has_replaced(&known)) {
                return Err(self.failed(&name, &unit));
            }
        }
        Ok(())
    }

    fn fresh_unit(&self, name: &str) -> Result<Unit> {
        let names = BTreeSet::from([name.to_owned()]);
        Ok(self.show(&names)?.remove(name).unwrap_or_default())
    }

    fn failed(&self, name: &str, unit: &Unit) -> anyhow::Error {
        let message = match unit.get("Result") {
            "" | "success" => format!("{name} ended soon after its start"),
            result => format!("{name} failed ({result})"),
        };
        Fault::new(with_tail(message, &self.journal(name)))
            .hint(format!("read its log: journalctl -u {}; then run again: {}", quoted(name), self.run_command()))
            .into()
    }

    fn still(&self, name: &str, unit: &Unit) -> String {
        let state = format!("{name} is still {} ({})", unit.get("ActiveState"), unit.get("SubState"));
        with_tail(state, &self.journal(name))
    }

    /// Returns the last lines that a unit wrote to the journal.
    fn journal(&self, name: &str) -> String {
        let command = Program::new([
            "journalctl",
            "--no-pager",
            "--quiet",
            "--boot",
            "--lines=10",
            "--output=cat",
            "--unit",
            name,
        ]);
        // The lines are only for the message. The error is the unit's failure, also after a deadline.
        let finished = self.stop.deadlines.instead(JOURNAL_TIMEOUT, "reading the journal", || self.run(&command));
        finished.map(|finished| finished.stdout).unwrap_or_default()
    }

    /// Returns whether a queued job can begin only after the unit of this process has ended.
    pub fn waits_for_us(&self, name: &str) -> Result<bool> {
        let Some(ours) = self.own_unit()? else { return Ok(false) };
        let jobs = self.run_checked(&Program::new([
            "systemctl",
            "list-jobs",
            "--no-legend",
            "--plain",
            "--full",
            "--no-pager",
        ]))?;
        let queued: BTreeSet<&str> = jobs.stdout.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        if !queued.contains(ours.as_str()) || !queued.contains(name) {
            return Ok(false);
        }
        // Follow `After=` only through units with a job: the others delay no job.
        let mut seen = BTreeSet::from([name.to_owned()]);
        let mut frontier = vec![name.to_owned()];
        while !frontier.is_empty() {
            let command = Program::new(["systemctl", "show", "--property", "After", "--value", "--"]).args(&frontier);
            let after = self.run_checked(&command)?.stdout;
            frontier = after.split_whitespace().filter(|unit| queued.contains(unit)).map(str::to_owned).collect();
            if frontier.contains(&ours) {
                return Ok(true);
            }
            frontier.retain(|unit| seen.insert(unit.clone()));
        }
        Ok(false)
    }

    /// Returns the unit of this process, by its control group: the unified one, or systemd's own in a mixed hierarchy.
    fn own_unit(&self) -> Result<Option<String>> {
        let cgroups = self.root().read_text(&"/proc/self/cgroup".into())?;
        let mut paths = cgroups.lines().filter_map(|line| {
            line.strip_prefix("0::").or_else(|| line.split_once(":name=systemd:").map(|(_, path)| path))
        });
        Ok(paths.find_map(|path| path.rsplit('/').find(|part| part.ends_with(".service"))).map(str::to_owned))
    }

    /// Makes systemd read unit files again.
    pub fn daemon_reload(&self) -> Result<()> {
        _ = self.run_checked(&Program::new(["systemctl", "daemon-reload"]))?;
        Ok(())
    }

    /// Enables or disables a unit: with systemd on a machine, with links in an image.
    ///
    /// A running systemd keeps the states of unit files in memory, and reads the files again with this.
    pub fn set_enabled(&self, name: &str, enabled: bool) -> Result<()> {
        let verb = if enabled { "enable" } else { "disable" };
        let finished = self.run_checked(&Program::new(["systemctl", "--quiet", verb, name]))?;
        if finished.tail.contains("no installation config") {
            bail!(
                Fault::new(format!("cannot enable {name}: its unit file has no [Install] section"))
                    .hint("add an [Install] section with WantedBy=multi-user.target to the unit file")
            );
        }
        Ok(())
    }
}
