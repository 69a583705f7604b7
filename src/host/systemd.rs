//! systemd units: their state by one `systemctl show` for all, their changes by `systemctl`.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use nix::time::{ClockId, clock_gettime};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Host,
    command::{Program, with_tail},
};
use crate::{
    error::Fault,
    value::{AbsPath, quoted, spoken},
};

/// The properties asked for, org.freedesktop.systemd1(5).
const PROPERTIES: &str = "Id,Names,LoadState,LoadError,ActiveState,ActiveEnterTimestampMonotonic,SubState,\
    InactiveExitTimestamp,InactiveExitTimestampMonotonic,UnitFileState,NeedDaemonReload,NRestarts,InvocationID,Job,Result,\
    ConditionTimestampMonotonic";
/// Where unit files are, systemd.unit(5), the first one winning.
const UNIT_PATH: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The endings of unit files.
const UNIT_TYPES: [&str; 9] = ["service", "socket", "timer", "target", "path", "mount", "automount", "swap", "slice"];
/// What systemd says of a unit that it can't load (`bus_unit_validate_load_state`, src/core/dbus-unit.c).
const REFUSALS: [&str; 2] = ["has a bad unit file setting", "failed to load properly"];

/// How long reading the journal may take for an error's last lines.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The state of a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    properties: BTreeMap<String, String>,
}

/// The states of all units asked for so far.
pub type Units = Rc<BTreeMap<String, Unit>>;

impl Unit {
    /// A property; empty where systemd doesn't know it.
    pub fn get(&self, property: &str) -> &str {
        self.properties.get(property).map_or("", String::as_str)
    }

    /// `loaded`, `not-found`, `masked`, `bad-setting`, `error`.
    pub fn load_state(&self) -> &str {
        self.get("LoadState")
    }

    /// Whether it runs, or has run and stays active.
    pub fn is_active(&self) -> bool {
        matches!(self.get("ActiveState"), "active" | "reloading" | "refreshing")
    }

    /// Whether it runs, or systemd will start it without being asked again.
    pub fn is_up_or_will_be(&self) -> bool {
        self.has_job() || !matches!(self.get("ActiveState"), "" | "inactive" | "failed")
    }

    /// Whether systemd gave up on it.
    pub fn is_failed(&self) -> bool {
        self.get("ActiveState") == "failed"
    }

    /// Whether it starts at boot, or has no say in that (`static`, `generated`).
    pub fn is_enabled(&self) -> bool {
        matches!(self.get("UnitFileState"), "enabled" | "static" | "alias" | "indirect" | "generated")
    }

    /// Whether its file on the disk is newer than what systemd has in memory.
    pub fn needs_reload(&self) -> bool {
        self.get("NeedDaemonReload") == "yes"
    }

    /// Whether a job for it is queued.
    pub fn has_job(&self) -> bool {
        !matches!(self.get("Job"), "" | "0")
    }

    /// How often systemd restarted it by itself.
    pub fn restarts(&self) -> u64 {
        self.get("NRestarts").parse().unwrap_or_default()
    }

    /// Whether systemd has ended it and waits to start it again by itself.
    fn awaits_restart(&self) -> bool {
        self.get("SubState").contains("auto-restart")
    }

    /// Whether it does not run, and systemd starts it again and again.
    pub fn is_in_restart_loop(&self) -> bool {
        !self.is_active() && (self.awaits_restart() || (self.restarts() > 0 && self.get("ActiveState") == "activating"))
    }

    /// Which start of the unit this is: systemd gives each one an id of its own.
    fn invocation(&self) -> &str {
        self.get("InvocationID")
    }

    /// Whether this start has ended, and systemd has made or will make another one by itself.
    fn has_replaced(&self, invocation: &str) -> bool {
        self.awaits_restart() || self.invocation() != invocation
    }

    /// Whether it neither runs nor is about to: it gave up, or simply left.
    fn has_ended(&self) -> bool {
        self.is_failed() || (self.get("ActiveState") == "inactive" && !self.has_job())
    }

    /// Whether systemd has tried to start it since it knows of it: its conditions are looked at each time.
    fn was_tried(&self) -> bool {
        !matches!(self.get("ConditionTimestampMonotonic"), "" | "0")
    }

    /// How long ago it became active.
    pub fn active_for(&self) -> Result<Duration> {
        self.since("ActiveEnterTimestampMonotonic")
    }

    /// When its start began: what was changed later has a later time, also if the clock was set since. It is the earlier
    /// one of what the clock showed then, in whole seconds, and of that moment by the clock as it goes now.
    pub fn started(&self) -> Result<Option<SystemTime>> {
        let by_clock_now = SystemTime::now() - self.since("InactiveExitTimestampMonotonic")?;
        let mut words = self.get("InactiveExitTimestamp").split(' ').skip(1);
        let (Some(date), Some(time), Some("UTC")) = (words.next(), words.next(), words.next()) else { return Ok(None) };
        let by_clock_then = OffsetDateTime::parse(&format!("{date}T{time}Z"), &Rfc3339).ok().map(SystemTime::from);
        Ok(by_clock_then.map(|then| then.min(by_clock_now)))
    }

    fn since(&self, timestamp: &str) -> Result<Duration> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("reading the clock")?;
        let since = self.get(timestamp).parse().unwrap_or_default();
        Ok(Duration::from(now).saturating_sub(Duration::from_micros(since)))
    }
}

/// The paths where a unit's file may be, the first one winning: its own, or its template's.
pub fn unit_files(name: &str) -> impl Iterator<Item = AbsPath> {
    let template = name.split_once('@').and_then(|(prefix, instance)| {
        let (instance, ending) = instance.rsplit_once('.')?;
        (!instance.is_empty()).then(|| format!("{prefix}@.{ending}"))
    });
    let names = std::iter::once(name.to_owned()).chain(template);
    names.flat_map(|name| UNIT_PATH.iter().filter_map(move |directory| AbsPath::from(*directory).join(&name).ok()))
}

/// What is known of units, and which ones are asked about.
#[derive(Debug, Default)]
pub(super) struct KnownUnits {
    watched: BTreeSet<String>,
    /// The units that this run has started, each with the invocation that is known of.
    started: BTreeMap<String, String>,
    /// As systemd has shown them since the last change.
    shown: Option<Units>,
}

impl KnownUnits {
    /// Has systemd asked again: a change was made.
    pub(super) fn forget(&mut self) {
        self.shown = None;
    }
}

impl Host {
    /// Whether systemd reads a unit from this path.
    pub fn is_unit_file(&self, path: &AbsPath) -> bool {
        let ending = path.leaf().rsplit_once('.').map(|(_, ending)| ending);
        ending.is_some_and(|ending| UNIT_TYPES.contains(&ending)) && unit_files(path.leaf()).any(|file| file == *path)
    }

    /// The unit that systemd reads this drop-in for, if it is one of a single unit.
    pub fn unit_of_drop_in<'a>(&self, path: &'a AbsPath) -> Option<&'a str> {
        let (directory, leaf) = path.as_str().rsplit_once('/')?;
        let (units, name) = directory.strip_suffix(".d")?.rsplit_once('/')?;
        let (stem, ending) = name.rsplit_once('.')?;
        // `app-.service.d` is for each unit whose name begins so.
        let is_one = !stem.is_empty() && !stem.ends_with('-') && UNIT_TYPES.contains(&ending);
        (is_one && leaf.ends_with(".conf") && UNIT_PATH.contains(&units)).then_some(name)
    }

    /// Fails if systemd would refuse to load this unit file. What it only warns of is no failure, and neither is what
    /// `systemd-analyze verify` misses on a machine that is not complete yet, such as the program to start.
    pub fn verify_unit(&self, path: &AbsPath, is_secret: bool) -> Result<()> {
        let verify = Program::new(["systemd-analyze", "verify", "--man=no", path.as_str()]);
        let said = self.run(&if is_secret { verify.private() } else { verify })?.tail;
        // A template is tried with an instance's name.
        let name = path.leaf().split_inclusive('@').next().unwrap_or_default();
        let unit = format!("Unit {name}");
        let refuses = |line: &str| line.contains(&unit) && REFUSALS.iter().any(|refusal| line.contains(refusal));
        if !said.lines().any(refuses) {
            return Ok(());
        }
        let message = "`systemd-analyze verify` refuses it".to_owned();
        Err(Fault::new(if is_secret { message } else { with_tail(message, &said) }).into())
    }

    /// Units that will be asked about, so that one process tells of all of them.
    pub fn watch_units(&self, names: impl IntoIterator<Item = String>) {
        self.units.borrow_mut().watched.extend(names);
    }

    /// The state of a unit, since the last change.
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

    fn show(&self, names: &BTreeSet<String>) -> Result<BTreeMap<String, Unit>> {
        let command = Program::new(["systemctl", "show", "--no-pager", "--property", PROPERTIES, "--"]).args(names);
        let command = command.env("TZ", "UTC");
        let shown = self.run_checked(&command).context("asking systemd for the state of units")?;
        // One block for each name, in the order of the arguments, with an empty line between.
        let blocks = shown.stdout.trim_end().split("\n\n").map(parse);
        Ok(names.iter().cloned().zip(blocks).collect())
    }

    /// The path of a unit's file, where there is one.
    pub fn unit_file(&self, name: &str) -> Result<Option<AbsPath>> {
        for path in unit_files(name) {
            if self.root().status(&path)?.is_some() {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Whether a unit is wanted at boot, as the links say: for an image, where systemd doesn't run.
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

    /// Starts, restarts or stops a unit and waits until it stays so.
    ///
    /// The job is queued without waiting for it (`--no-block`), because it may be ordered after the very
    /// unit that runs us, which ends only when we do (cloud-final.service, and units with
    /// `After=multi-user.target`). Such a job is left queued; see [`Host::waits_for_us`].
    pub fn settle(&self, verb: &str, name: &str, stable: Duration, patience: Duration) -> Result<()> {
        let mut unit = self.unit(name)?;
        if verb != "stop" && unit.was_tried() {
            // Earlier starts, failed or not, would count against the start limit.
            _ = self.run(&Program::new(["systemctl", "reset-failed", name]))?;
        }
        _ = self.run_checked(&Program::new(["systemctl", verb, "--no-block", name]))?;
        let end = Instant::now() + patience;
        // A restart that was due before belongs to an earlier start: only what ends this one counts.
        let mut ours = None;
        let mut active_since = None;
        let mut pause = Duration::from_millis(20);
        loop {
            unit = self.fresh_unit(name).map_err(|stopped| stopped.context(self.still(name, &unit)))?;
            // Before our job is done, that may still be what it ends.
            let flaps = verb != "stop"
                && !unit.has_job()
                && unit.has_replaced(ours.get_or_insert_with(|| unit.invocation().to_owned()));
            // What fails as it is stopped is stopped.
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
                // It ran to its end: a oneshot that doesn't remain, or a service that simply left.
                (false, false, false) if unit.has_ended() => return Err(self.failed(name, &unit)),
                _ => {}
            }
            if Instant::now() >= end {
                let waited = Fault::new(format!("gave up after {}", spoken(patience)));
                return Err(waited.hint(format!("systemctl status {}", quoted(name)))).context(self.still(name, &unit));
            }
            self.progress(&format!("{name}: {} ({})", unit.get("ActiveState"), unit.get("SubState")));
            self.stop.wait(pause).map_err(|stopped| stopped.context(self.still(name, &unit)))?;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// Whether a unit that runs stays up until it has run for `stable`: it neither ends nor is started again.
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

    /// Whether this run has started a unit.
    pub fn has_started(&self, name: &str) -> bool {
        self.units.borrow().started.contains_key(name)
    }

    /// Fails, with its last words, if a unit that this run has started does not run any more, or runs only because
    /// systemd has started it again: whoever waits for what it serves waits in vain. A restart is told of once.
    /// Starts no process where the run has started no unit.
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
            .hint(format!("journalctl -u {}; then {}", quoted(name), self.run_command()))
            .into()
    }

    fn still(&self, name: &str, unit: &Unit) -> String {
        let state = format!("{name} is still {} ({})", unit.get("ActiveState"), unit.get("SubState"));
        with_tail(state, &self.journal(name))
    }

    /// The last lines that a unit wrote to the journal.
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
        // Only for the message: the unit's failure is the error to be reported, be it that time is over.
        let finished = self.stop.deadlines.instead(LAST_WORDS, "reading the journal", || self.run(&command));
        finished.map(|finished| finished.stdout).unwrap_or_default()
    }

    /// Whether a queued job can only begin when the unit that runs us has ended.
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
        // Follow `After=` through units that have a job themselves: only those hold others up.
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

    /// The unit that this process runs in, by its control group: the unified one, or systemd's own beside others.
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

    /// Enables or disables a unit: on a machine by its systemd, in an image by its links. A systemd that runs reads unit
    /// files again by that: it remembers what it once said of a unit.
    pub fn set_enabled(&self, name: &str, enabled: bool) -> Result<()> {
        let verb = if enabled { "enable" } else { "disable" };
        let finished = self.run_checked(&Program::new(["systemctl", "--quiet", verb, name]))?;
        if finished.tail.contains("no installation config") {
            bail!(
                Fault::new(format!("{name} can't be enabled: its file has no [Install] section"))
                    .hint("add WantedBy=multi-user.target to it")
            );
        }
        Ok(())
    }
}

fn parse(block: &str) -> Unit {
    let pairs = block.lines().filter_map(|line| line.split_once('='));
    Unit { properties: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
}
