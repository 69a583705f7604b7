//! The kind `service`.

mod inputs;
mod mask;
mod reload;

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Change, Finding, Kind, Resource};
use crate::{
    error::Fault,
    host::{
        command::Program,
        declared::validate,
        systemd::{Unit, unit_files},
    },
    system::{Fact, Mode, System},
    value::{AbsPath, Argv, Span, printable, quoted},
};

/// Limits the time of a start if the resource has no `timeout`. It is systemd's own default.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// The directory in which manifests put unit files.
const UNITS: &str = "/etc/systemd/system";

/// The state of a systemd unit. A run restarts it only if a file of `restart_on` differs from its last good start, also if
/// an earlier run changed the file and ended before the restart. The same holds for a reload and `reload_on`. If the
/// validator fails, or the restart or reload of a running service, the run restores the earlier versions of these files
/// and of the unit file, and the service continues with them. Another service that was restarted with one of these files
/// is restarted again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The unit, such as `nginx.service`. A name without a suffix is a service. Of a template `app@.service`, name an
    /// instance, such as `app@1`.
    name: UnitName,
    /// Whether it starts at boot. Default: unchanged.
    enabled: Option<bool>,
    /// Whether it runs now. Default: unchanged.
    running: Option<bool>,
    /// Whether it is masked: systemd then starts it neither at boot nor for another unit. `true` masks it in
    /// `/etc/systemd/system`, also before its package is installed, and stops it. `false` removes a mask. Default:
    /// unchanged.
    masked: Option<bool>,
    /// The files that it reads at its start, also its unit file. The directory of an `archive` is one of them, too.
    #[serde(default)]
    restart_on: Vec<AbsPath>,
    /// Those of `restart_on` that another resource gives to it. They may come and go.
    #[serde(skip)]
    given: Vec<AbsPath>,
    /// The files that it also reads at a reload, such as `/etc/nginx/nginx.conf`. If only these have changed, it is
    /// reloaded and keeps its process. Its unit must have `ExecReload=`.
    #[serde(default)]
    reload_on: Vec<AbsPath>,
    /// A command that must succeed before it is started, restarted or reloaded.
    validate: Option<Argv>,
    /// The time that it must stay active without a restart to count as started. If an `http_check` waits for the service,
    /// `0s` is enough, because the check also fails when the service ends. Default: 2s.
    #[serde(default = "two_seconds")]
    stable: Span,
    /// Whether it is also started while Auto Scaling prepares the machine for a warm pool. For a
    /// service that takes no work by itself, such as a container engine that later commands need. Default: false.
    #[serde(default)]
    warm: bool,
}

fn two_seconds() -> Span {
    Span(Duration::from_secs(2))
}

/// The full name of a unit by the rules of systemd.unit(5).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct UnitName(String);

impl TryFrom<String> for UnitName {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        printable(&name)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        ensure!(
            !name.is_empty() && !name.starts_with(['-', '.']) && name.chars().all(allowed) && name.len() < 256,
            "`{name}` is not the name of a unit"
        );
        let types = ["service", "socket", "timer", "target", "path", "mount", "swap"];
        let known = name.rsplit_once('.').is_some_and(|(_, ending)| types.contains(&ending));
        Ok(Self(if known { name } else { format!("{name}.service") }))
    }
}

impl UnitName {
    /// Returns the name with its suffix.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Kind for Service {
    const NAME: &'static str = "service";
    const EXAMPLE: &'static str = r#"kind = "service"
name = "nginx.service"
enabled = true
running = true
reload_on = ["/etc/nginx/sites-enabled/default"]
validate = ["nginx", "-t"]
stable = "5s""#;
}

impl Resource for Service {
    fn title(&self) -> String {
        self.name.0.clone()
    }

    fn unit(&self) -> Option<&str> {
        Some(&self.name.0)
    }

    fn files(&self) -> Vec<AbsPath> {
        self.files()
    }

    fn service(&self) -> Option<&Service> {
        Some(self)
    }

    fn restart_on_files_of(&mut self, service: &str, files: &[AbsPath]) {
        if self.name.0 != service || self.running != Some(true) {
            return;
        }
        let is_new = |file: &&AbsPath| !self.restart_on.contains(file) && !self.reload_on.contains(file);
        let new: Vec<_> = files.iter().filter(is_new).cloned().collect();
        self.restart_on.extend_from_slice(&new);
        self.given.extend(new);
    }

    fn owned_things(&self) -> Vec<(&'static str, String)> {
        if self.masked == Some(true) { vec![("masked", self.place_of_mask())] } else { vec![] }
    }

    fn check(&self) -> Vec<Finding> {
        if let Some((prefix, ending)) = self.name.0.split_once("@.") {
            let message = format!("{} is a template, which systemd neither starts nor stops", self.name.0);
            let hint = format!("name an instance of it, such as `{prefix}@1.{ending}`");
            return vec![Finding::new("name", message).hint(hint)];
        }
        if self.masked == Some(true) {
            return self.fields_of_started_units();
        }
        if self.enabled.is_none() && self.running.is_none() && self.masked.is_none() {
            return vec![Finding::new("name", "the service declares none of `enabled`, `running` and `masked`")];
        }
        if self.running != Some(true) && !self.restart_on.is_empty() {
            return vec![Finding::new("restart_on", "`restart_on` needs running = true")];
        }
        self.faults_of_reload_on().into_iter().collect()
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let changes = self.plan_now(system)?;
        if !self.is_held(system)? {
            return Ok(changes);
        }
        let why = system.why_not_live();
        let wait = |change: Change| Change::deferred(format!("{} (deferred: {why})", change.summary));
        Ok(changes.into_iter().map(|change| if change.is_deferred() { change } else { wait(change) }).collect())
    }
}

impl Service {
    /// Returns whether its start waits, because the machine enters a warm pool. It is not enabled then either: a reboot would
    /// start it. One that runs already is treated as always.
    fn is_held(&self, system: &System) -> Result<bool> {
        let starts = self.running == Some(true) || self.enabled == Some(true);
        Ok(system.is_warmed()
            && system.is_live()
            && starts
            && !self.warm
            && !system.host.unit(&self.name.0)?.is_up_or_will_be())
    }

    fn plan_now(&self, system: &System) -> Result<Vec<Change>> {
        self.check_files(system)?;
        match self.masked {
            Some(true) => return self.plan_mask(system),
            Some(false) => {
                if let Some(changes) = self.plan_unmask(system)? {
                    return Ok(changes);
                }
            }
            None => {}
        }
        if !system.is_live() {
            return self.plan_offline(system);
        }
        let unit = system.host.unit(&self.name.0)?;
        if unit.load_state() != "loaded" && !self.is_coming(system) {
            return self.plan_unloaded(system, &unit);
        }
        if unit.load_state() == "loaded" {
            self.check_reloadable(&unit)?;
        }
        let enablement = self.enablement(unit.is_enabled());
        let state = match self.running {
            Some(true) => self.start_or_restart(system, &unit)?,
            Some(false) if unit.is_up_or_will_be() => Some(self.stop()),
            Some(false) | None => None,
        };
        if let (Mode::Plan, Some(_), Some(true), Some(argv)) = (system.mode(), &state, self.running, &self.validate) {
            system.check_program(&argv.0[0], 0)?;
        }
        if unit.needs_reload() {
            return Ok(enablement.or_else(|| Some(read_again())).into_iter().chain(state).collect());
        }
        // Enable after the start: systemd then reads all unit files again, while the service becomes ready.
        Ok(state.into_iter().chain(enablement).collect())
    }

    /// Fails if a path of `restart_on` or `reload_on` is a directory of no archive. Warns if it does not exist: it may be mistyped.
    fn check_files(&self, system: &System) -> Result<()> {
        for (field, path) in self.read_files().filter(|(_, path)| !self.given.contains(path)) {
            let status = system.root().status(&system.root().resolve(path)?)?;
            if status.is_none() && !system.may_come(path) && !system.expects(&Fact::Absent(path.clone())) {
                system.warn(format!("`{field}` names {path}, which does not exist and no earlier resource declares"));
            }
            if system.is_plain_directory(path)? {
                let fault = Fault::new(format!("`{field}` names {path}, which is a directory"));
                return Err(fault.hint("list the files in it").into());
            }
        }
        Ok(())
    }

    fn plan_offline(&self, system: &System) -> Result<Vec<Change>> {
        let is_enabled = system.host.is_enabled_offline(&self.name.0)?;
        if !self.is_off(is_enabled) && system.host.mask_of(&self.name.0)?.is_some() {
            return Err(self.masked());
        }
        if system.host.unit_file(&self.name.0)?.is_none() && !self.is_coming(system) {
            if self.usual_files().any(|path| system.expects(&Fact::AtBoot(path))) {
                return Ok(vec![Change::deferred("ensure at boot (deferred: its unit file is left to the boot)")]);
            }
            return if self.is_off(is_enabled) { Ok(vec![]) } else { Err(self.not_loaded(&Unit::default())) };
        }
        let mut changes: Vec<Change> = self.enablement(is_enabled).into_iter().collect();
        if !changes.is_empty() {
            system.check_program_exists("systemctl")?;
        }
        if self.running == Some(true) {
            changes.push(Change::deferred(format!("start (deferred: {})", system.why_not_live())));
        }
        Ok(changes)
    }

    /// Returns the plan for a unit that systemd has not loaded.
    ///
    /// systemd may have read an older file. Then it reads the file again first.
    fn plan_unloaded(&self, system: &System, unit: &Unit) -> Result<Vec<Change>> {
        if !unit.is_up_or_will_be() && self.is_off(unit.is_enabled()) {
            return Ok(vec![]);
        }
        let is_new = || {
            Ok::<_, anyhow::Error>(unit.load_state() == "not-found" && system.host.unit_file(&self.name.0)?.is_some())
        };
        if !unit.needs_reload() && !is_new()? {
            return Err(self.refused(system, unit));
        }
        let mut changes = vec![read_again()];
        let service = self.clone();
        match (self.running, unit.is_active()) {
            (Some(true), true) => changes.push(Change::new("restart", move |system| service.start(system, "restart"))),
            (Some(true), false) => changes.push(Change::new("start", move |system| service.start(system, "start"))),
            (Some(false), _) if unit.is_up_or_will_be() => changes.push(self.stop()),
            _ => {}
        }
        changes.extend(self.enablement(unit.is_enabled()));
        Ok(changes)
    }

    /// Returns whether it is declared only as stopped or disabled, so that it need not exist.
    fn is_off(&self, is_enabled: bool) -> bool {
        self.running != Some(true) && self.enabled != Some(true) && (self.enabled.is_none() || !is_enabled)
    }

    fn enablement(&self, is_enabled: bool) -> Option<Change> {
        let wanted = self.enabled.filter(|wanted| *wanted != is_enabled)?;
        let name = self.name.0.clone();
        let summary = if wanted { "enable at boot" } else { "disable at boot" };
        Some(Change::new(summary, move |system| system.host.set_enabled(&name, wanted)))
    }

    fn start_or_restart(&self, system: &System, unit: &Unit) -> Result<Option<Change>> {
        let service = self.clone();
        if !unit.is_active() {
            if unit.has_job() && system.host.waits_for_us(&self.name.0)? {
                return Ok(Some(Change::deferred(
                    "start (deferred: systemd starts it when the unit of this run has ended)",
                )));
            }
            let restart = |why: String| Change::new(why, move |system: &System| service.start(system, "restart"));
            if unit.is_in_restart_loop() {
                // A start would only wait for the next automatic restart, and then fail.
                return Ok(Some(restart(format!("restart (it is in a restart loop: {})", unit.get("Result")))));
            }
            let is_starting = unit.get("ActiveState") == "activating";
            let files: Vec<AbsPath> = self.read_files().map(|(_, path)| path.clone()).collect();
            if let Some(why) = if is_starting { self.reason_to_read_again(system, unit, &files)? } else { None } {
                return Ok(Some(restart(format!("restart: {why}"))));
            }
            let summary = match unit.get("ActiveState") {
                "failed" => format!("start (it has failed: {})", unit.get("Result")),
                "activating" => "wait for its start".to_owned(),
                _ => "start".to_owned(),
            };
            let service = self.clone();
            return Ok(Some(Change::new(summary, move |system| service.start(system, "start"))));
        }
        let reload = self.plan_reload(system, unit)?;
        if let Some(why) = self.reason_to_read_again(system, unit, &self.restart_on)? {
            return Ok(Some(Change::new(format!("restart: {why}"), move |system| service.start(system, "restart"))));
        }
        if reload.is_some() {
            return Ok(reload);
        }
        if unit.restarts() > 0 && unit.active_for()? < self.stable.0 {
            let summary = format!("wait until it stays up (systemd has restarted it, {} so far)", unit.restarts());
            return Ok(Some(Change::new(summary, move |system| service.stay_up(system))));
        }
        Ok(None)
    }

    /// Returns the reason why the running service has not read these files as they are; `None` if it has.
    fn reason_to_read_again(&self, system: &System, unit: &Unit, files: &[AbsPath]) -> Result<Option<String>> {
        if files.is_empty() {
            return Ok(None);
        }
        let unknown =
            |path: &&AbsPath| system.expects(&Fact::Path((*path).clone())) && system.expected_digest(path).is_none();
        if let Some(path) = files.iter().find(unknown) {
            return Ok(Some(format!("{path} will be new")));
        }
        for path in files.iter().filter(|path| system.is_removed(path)) {
            if system.root().status(path)?.is_some() {
                return Ok(Some(format!("{path} will be removed")));
            }
        }
        match self.changed_since_start(system)? {
            Some(changed) => {
                let changed: Vec<&str> =
                    changed.iter().filter(|path| files.contains(path)).map(AbsPath::as_str).collect();
                Ok(match &changed[..] {
                    [] => None,
                    [one] => Some(format!("{one} has changed since its start")),
                    several => Some(format!("{} have changed since its start", several.join(", "))),
                })
            }
            None if has_read_all(system, unit, files)? => Ok(None),
            None => Ok(Some("the files of its last start are not known".into())),
        }
    }

    /// Returns whether an earlier planned change may install the unit.
    fn is_coming(&self, system: &System) -> bool {
        system.expects(&Fact::Packages) || self.usual_files().any(|path| system.expects(&Fact::Path(path)))
    }

    /// Returns the paths where a manifest puts the unit's file or its template's.
    fn usual_files(&self) -> impl Iterator<Item = AbsPath> {
        unit_files(&self.name.0).filter(|path| path.parent().is_some_and(|directory| directory.as_str() == UNITS))
    }

    fn not_loaded(&self, unit: &Unit) -> anyhow::Error {
        let name = &self.name.0;
        let fault = match unit.load_state() {
            "masked" => return self.masked(),
            "bad-setting" | "error" => Fault::new(format!("systemd cannot load {name}: {}", unit.get("LoadError")))
                .hint(format!("find the fault in its file: systemd-analyze verify {}", quoted(name))),
            _ => Fault::new(format!("the unit {name} does not exist")).hint(
                "declare its package or file in an earlier resource, and run that one first; if that has phase = \"boot\", set phase = \"boot\" \
                 here too",
            ),
        };
        fault.into()
    }

    fn masked(&self) -> anyhow::Error {
        let name = &self.name.0;
        Fault::new(format!("{name} is masked"))
            .hint(format!("declare `masked = false`, or unmask it: systemctl unmask {}", quoted(name)))
            .into()
    }

    fn stop(&self) -> Change {
        let service = self.clone();
        Change::new("stop", move |system| service.settle(system, "stop"))
    }

    /// Runs the validator before a start, restart or reload.
    fn validate(&self, system: &System, done: &str) -> Result<()> {
        let Some(argv) = &self.validate else { return Ok(()) };
        validate(&system.host, &Program::new(argv.0.iter().cloned()))
            .inspect_err(|_| system.note_refusal(&self.name.0, false))
            .with_context(|| format!("{} was not {done}: its validator failed", self.name.0))
    }

    fn start(&self, system: &System, verb: &str) -> Result<()> {
        let unit = system.host.unit(&self.name.0)?;
        if unit.load_state() != "loaded" {
            return Err(self.refused(system, &unit));
        }
        self.validate(system, &format!("{verb}ed"))?;
        // Read the files before the start, so that a change during the start counts as one.
        let inputs = self.inputs(system)?;
        let serves = Self::serves(&unit)?;
        self.settle(system, verb).inspect_err(|_| {
            if serves {
                system.note_refusal(&self.name.0, true);
            }
        })?;
        system.note_start(&self.name.0, serves);
        self.remember(system, &inputs)
    }

    /// Returns the error of a unit that systemd does not load. If its file is the cause, the refusal is recorded.
    fn refused(&self, system: &System, unit: &Unit) -> anyhow::Error {
        if matches!(unit.load_state(), "bad-setting" | "error") {
            system.note_refusal(&self.name.0, false);
        }
        self.not_loaded(unit)
    }

    /// Waits until the running service is stable. If it ends before, it is restarted.
    fn stay_up(&self, system: &System) -> Result<()> {
        if system.host.stays_up(&self.name.0, self.stable.0)? { Ok(()) } else { self.start(system, "restart") }
    }

    fn settle(&self, system: &System, verb: &str) -> Result<()> {
        // A declared timeout is in force as well. The shorter one counts.
        system.host.settle(verb, &self.name.0, self.stable.0, START_TIMEOUT + self.stable.0)
    }
}

fn read_again() -> Change {
    Change::new("read unit files again (daemon-reload)", |system| system.host.daemon_reload())
}

/// Returns whether a unit was started after the last change of these files, but not by this program.
///
/// That is so if systemd started it at the boot of an image.
fn has_read_all(system: &System, unit: &Unit, files: &[AbsPath]) -> Result<bool> {
    let Some(started) = unit.started()? else { return Ok(false) };
    for path in files {
        let file = system.root().resolve(path)?;
        for path in [path, &file] {
            if system.expected_digest(path).is_some() || last_change(system, path)? >= started {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Returns when a file was changed last; of one that is missing, when its nearest directory was.
///
/// A removal changes that directory.
fn last_change(system: &System, path: &AbsPath) -> Result<SystemTime> {
    let mut path = path.clone();
    loop {
        if let Some(status) = system.root().status(&path)? {
            return Ok(status.changed);
        }
        path = path.parent().with_context(|| format!("{path} is missing"))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_name_holds_no_directive() {
        assert_eq!(UnitName::try_from("nginx".to_owned()).unwrap().0, "nginx.service");
        assert_eq!(UnitName::try_from("app@1.socket".to_owned()).unwrap().0, "app@1.socket");
        for bad in ["", "-x", "a b", "a/b", "a\nExecStart=", "a\x1b[1m", ".service"] {
            assert!(UnitName::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
