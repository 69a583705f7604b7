//! The loop with resources that follow a script, on an empty tree.

use std::collections::VecDeque;

use super::*;
use crate::{
    host::scratch::Scratch, manifest::secrets::NamedSecrets, resource::Resource, stop::Interrupt, value::AbsPath,
};

/// A resource that follows a script. Each plan takes the next part; after the last part nothing differs.
#[derive(Debug)]
struct Scripted {
    name: &'static str,
    script: RefCell<VecDeque<Part>>,
    log: Log,
}

type Log = Rc<RefCell<Vec<String>>>;

#[derive(Debug, Clone, Copy)]
enum Part {
    /// A change that is made.
    Change,
    /// A change that fails.
    Broken(Class),
    /// A change that fails while a signal arrives.
    Stopped,
    /// A change that must wait.
    Deferred,
    /// The plan itself fails.
    Unreadable(Class),
}

impl Resource for Scripted {
    fn title(&self) -> String {
        self.name.into()
    }

    fn plan(&self, _system: &System) -> Result<Vec<Change>> {
        self.log.borrow_mut().push(format!("plan {}", self.name));
        let Some(part) = self.script.borrow_mut().pop_front() else { return Ok(vec![]) };
        let (log, name) = (self.log.clone(), self.name);
        let made = move || log.borrow_mut().push(format!("make {name}"));
        Ok(vec![match part {
            Part::Change => Change::new("change it", move |_| {
                made();
                Ok(())
            }),
            Part::Broken(class) => Change::new("change it", move |_| {
                made();
                Err(Fault::new("broken").class(class).into())
            }),
            Part::Stopped => Change::new("change it", move |system| {
                made();
                system.host.stop.interrupt.raise(15);
                Err(Fault::new("broken").into())
            }),
            Part::Deferred => Change::deferred("change it"),
            Part::Unreadable(class) => return Err(Fault::new("unreadable").class(class).into()),
        }])
    }

    fn owned_path(&self) -> Option<&AbsPath> {
        None
    }
}

#[derive(Default)]
struct Recorder(Vec<String>);

impl Observer for Recorder {
    fn step_begins(&mut self, _index: usize, _total: usize, _name: &str) {}
    fn not_here(&mut self, _resource: Option<&str>, _why: &str) {}
    fn change(&mut self, _resource: &str, _change: &ChangeReport) {}
    fn downloads(&mut self, _resource: &str, _downloads: &[DownloadReport]) {}
    fn warning(&mut self, _resource: &str, _warning: &str) {}
    fn progress(&mut self, _line: &str) {}
    fn waits(&mut self, _line: &str) {}
    fn failure(&mut self, resource: &str, _declared_at: &str, _error: &anyhow::Error, again: bool) {
        self.0.push(format!("{resource} again: {again}"));
    }
    fn step_ends(&mut self, _index: usize, _total: usize, _step: &StepReport) {}
    fn ends(&mut self, _report: &Report) {}
}

/// A manifest under construction, and its tree.
struct ScriptedRun {
    manifest: Manifest,
    log: Log,
    tree: Scratch,
}

impl ScriptedRun {
    fn new() -> Self {
        Self {
            manifest: Manifest { steps: vec![], warnings: vec![], secrets: NamedSecrets::default() },
            log: Log::default(),
            tree: Scratch::new(),
        }
    }

    fn step(mut self, name: &str) -> Self {
        let step = Step {
            name: name.into(),
            description: String::new(),
            timeout: None,
            not_here: None,
            reboot: false,
            resources: vec![],
        };
        self.manifest.steps.push(step);
        self
    }

    fn resource(mut self, name: &'static str, script: &[Part]) -> Self {
        let script = RefCell::new(script.iter().copied().collect());
        let resource = Box::new(Scripted { name, script, log: self.log.clone() });
        let declared = Declared {
            kind: "link",
            place: "steps.toml:1".into(),
            retries: 0,
            timeout: None,
            not_here: None,
            resource,
        };
        self.manifest.steps.last_mut().unwrap().resources.push(declared);
        self
    }

    fn last(&mut self) -> &mut Declared {
        self.manifest.steps.last_mut().unwrap().resources.last_mut().unwrap()
    }

    fn run(&self, mode: Mode) -> (Report, Vec<String>) {
        let system = System::open(self.tree.path(), mode, Interrupt::default()).unwrap();
        let recorder = Rc::new(RefCell::new(Recorder::default()));
        let report = run(&self.manifest, &Selection::default(), &system, recorder.clone()).unwrap();
        let seen = recorder.borrow().0.clone();
        (report, seen)
    }

    fn log(&self) -> Vec<String> {
        self.log.borrow().clone()
    }
}

fn outcomes(report: &Report) -> Vec<Outcome> {
    report.steps.iter().map(|step| step.outcome).collect()
}

fn causes(report: &Report) -> String {
    let resources = report.steps.iter().flat_map(|step| &step.resources);
    resources.filter_map(|resource| resource.error.as_ref()).flat_map(|error| error.causes.clone()).collect()
}

#[test]
fn a_difference_after_the_changes_is_a_failure() {
    let script = ScriptedRun::new().step("a").resource("x", &[Part::Change, Part::Change]);
    let (report, _) = script.run(Mode::Run);
    assert_eq!((report.exit_code, report.outcome), (Some(1), Outcome::Failed));
    assert_eq!(causes(&report), "did not converge: after the changes it would still change it");
    assert_eq!(script.log(), ["plan x", "make x", "plan x"]);
}

#[test]
fn a_deferred_rest_counts_as_converged() {
    let script = ScriptedRun::new().step("a").resource("x", &[Part::Change, Part::Deferred]);
    let (report, _) = script.run(Mode::Run);
    assert_eq!((report.exit_code, report.outcome), (Some(0), Outcome::Changed));
}

#[test]
fn nothing_behind_a_failure_is_changed() {
    for failure in [Part::Broken(Class::Permanent), Part::Unreadable(Class::Transient)] {
        let script = ScriptedRun::new().step("a").resource("x", &[failure]).resource("y", &[Part::Change]);
        let script = script.step("b").resource("z", &[Part::Change]);
        let (report, seen) = script.run(Mode::Run);
        assert!(!script.log().iter().any(|line| line.ends_with('y') || line.ends_with('z')), "{:?}", script.log());
        assert_eq!(outcomes(&report), [Outcome::Failed, Outcome::NotRun]);
        assert_eq!((report.steps[0].resources.len(), seen), (1, vec!["link x again: false".to_owned()]));
    }
}

#[test]
fn a_plan_looks_behind_a_failure_and_keeps_its_first_code() {
    let script = ScriptedRun::new().step("a");
    let script = script.resource("x", &[Part::Unreadable(Class::Transient)]);
    let script = script.resource("y", &[Part::Unreadable(Class::Permanent)]);
    let script = script.step("b").resource("z", &[Part::Unreadable(Class::Permanent)]).step("c").resource("w", &[]);
    let (report, _) = script.run(Mode::Plan);
    assert_eq!(script.log(), ["plan x", "plan y", "plan z", "plan w"]);
    assert_eq!(report.exit_code, Some(75));
    assert_eq!(outcomes(&report), [Outcome::Failed, Outcome::Failed, Outcome::Unchanged]);
}

#[test]
fn the_deadlines_of_step_and_resource_hold() {
    let mut script = ScriptedRun::new().step("a").resource("x", &[Part::Change]);
    script.manifest.steps[0].timeout = Some(Duration::ZERO);
    let (report, _) = script.run(Mode::Run);
    assert_eq!((report.exit_code, causes(&report).as_str()), (Some(75), "step a timed out after 0 ms"));
    assert_eq!(script.log(), [""; 0]);

    let mut script = ScriptedRun::new().step("a").resource("x", &[Part::Change]);
    script.last().timeout = Some(Duration::ZERO);
    let (report, _) = script.run(Mode::Run);
    assert_eq!((report.exit_code, causes(&report).as_str()), (Some(75), "link x timed out after 0 ms"));

    let script = ScriptedRun::new().step("a").resource("x", &[Part::Change]);
    assert_eq!(script.run(Mode::Run).0.exit_code, Some(0));
}

#[test]
fn an_interrupted_change_is_not_tried_again() {
    // A failure by a signal, and another failure while a signal arrives.
    for (failure, outcome) in
        [(Part::Broken(Class::Interrupted(15)), Outcome::Stopped), (Part::Stopped, Outcome::Failed)]
    {
        let mut script = ScriptedRun::new().step("a").resource("x", &[failure, Part::Change]);
        script.last().retries = 3;
        let (report, seen) = script.run(Mode::Run);
        assert_eq!((report.outcome, report.steps[0].resources[0].attempts), (outcome, 1));
        assert_eq!((script.log(), seen), (vec!["plan x".into(), "make x".into()], vec!["link x again: false".into()]));
    }
}

#[test]
fn a_plan_tries_nothing_again() {
    let mut script = ScriptedRun::new().step("a").resource("x", &[Part::Unreadable(Class::Transient)]);
    script.last().retries = 3;
    let (report, _) = script.run(Mode::Plan);
    assert_eq!((report.exit_code, script.log()), (Some(75), vec!["plan x".to_owned()]));
}

#[test]
fn only_a_changed_resource_is_called_changed() {
    for (mode, part, outcome) in [
        (Mode::Run, Some(Part::Change), Outcome::Changed),
        (Mode::Plan, Some(Part::Change), Outcome::Pending),
        (Mode::Run, Some(Part::Deferred), Outcome::Unchanged),
        (Mode::Run, None, Outcome::Unchanged),
    ] {
        let parts: Vec<Part> = part.into_iter().collect();
        let script = ScriptedRun::new().step("a").resource("x", &parts).step("b").resource("y", &[]);
        let (report, _) = script.run(mode);
        assert_eq!((report.exit_code, report.outcome), (Some(0), outcome), "{mode:?} {part:?}");
        assert_eq!(outcomes(&report), [outcome, Outcome::Unchanged]);
        assert_eq!(report.steps[0].resources[0].outcome, outcome);
        let kept = Report::read(&System::open(script.tree.path(), Mode::Plan, Interrupt::default()).unwrap()).unwrap();
        assert_eq!(kept.map(|kept| kept.outcome), (mode == Mode::Run).then_some(outcome));
    }
}
