//! What a person sees of a run: lines on a terminal or in a log, or records in the journal.

pub mod downloads;

use std::{
    cell::RefCell,
    io::{self, IsTerminal, Write},
    rc::Rc,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::{
    engine::Observer,
    error, redaction,
    report::{ChangeReport, DownloadReport, Outcome, Report, StepReport},
    system::{Mode, output},
    value::spoken,
};

/// Prints to standard output. A closed terminal or a full pipe must not end a run, so errors are dropped
/// (and `println!` is not used: it panics).
pub fn say(text: &str) {
    output::print(io::stdout(), &format!("{text}\n"), None);
}

/// The bars that are on the terminal: what else is printed goes above them.
static BARS: Mutex<Option<MultiProgress>> = Mutex::new(None);

/// Prints an error to standard error, in the same spirit.
pub fn complain(text: &str) {
    let text = redaction::shown(text);
    let write = || output::print(io::stderr(), &text, Some(output::STUCK));
    let bars = BARS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match bars {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}

/// Standard error for log lines.
#[derive(Debug)]
pub struct Complaints;

impl Write for Complaints {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        complain(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The view that fits where the output goes.
pub fn choose(mode: Mode) -> Rc<RefCell<dyn Observer>> {
    if mode == Mode::Run && crate::system::host::is_stderr_the_journal() {
        Rc::new(RefCell::new(Journal { step: String::new() }))
    } else {
        Rc::new(RefCell::new(Lines::new(mode)))
    }
}

/// Lines. On a terminal with a live line below them that shows what is going on.
struct Lines {
    mode: Mode,
    live: Option<ProgressBar>,
    colour: bool,
    began: Instant,
}

impl Lines {
    fn new(mode: Mode) -> Self {
        let live = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { mode, live, colour: is_colourful(), began: Instant::now() }
    }

    /// A plan waits for its reader; a run goes on.
    fn say(&self, text: &str) {
        let patience = if self.mode == Mode::Run { Some(output::STUCK) } else { None };
        output::print(io::stdout(), &format!("{text}\n"), patience);
    }

    fn line(&self, text: &str) {
        match &self.live {
            Some(bar) => bar.suspend(|| self.say(text)),
            None => self.say(text),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        paint(self.colour, code, text)
    }

    fn diff(&self, diff: &str) {
        for line in diff.lines() {
            let code = match line.as_bytes().first() {
                Some(b'+') => "32",
                Some(b'-') => "31",
                Some(b'@') => "36",
                _ => "0",
            };
            self.line(&format!("      {}", self.paint(code, line)));
        }
    }
}

impl Observer for Lines {
    fn step_begins(&mut self, index: usize, total: usize, name: &str) {
        if let Some(bar) = &self.live {
            bar.set_message(format!("step {}/{total} {name}", index + 1));
        }
    }

    fn change(&mut self, resource: &str, change: &ChangeReport) {
        let (mark, colour) = if change.deferred { ("-", "33") } else { ("+", "32") };
        self.line(&format!("  {} {resource}: {}", self.paint(colour, mark), change.summary));
        if let Some(diff) = &change.diff {
            self.diff(diff);
        }
        self.progress(&format!("{resource}: {}", change.summary));
    }

    fn downloads(&mut self, _resource: &str, downloads: &[DownloadReport]) {
        if let Some(sum) = DownloadReport::sum(downloads) {
            self.line(&format!("    fetched {sum}"));
        }
    }

    fn warning(&mut self, _resource: &str, warning: &str) {
        self.line(&format!("    {} {warning}", self.paint("33", "warning:")));
    }

    fn progress(&mut self, line: &str) {
        if let Some(bar) = &self.live {
            bar.set_message(line.chars().filter(|c| !c.is_control()).collect::<String>());
        }
    }

    fn failure(&mut self, resource: &str, error: &anyhow::Error, again: bool) {
        let again = if again { " (it is tried again)" } else { "" };
        let text = error::render(error);
        let text = redaction::shown(&text);
        let head = self.paint("31", &format!("  ! {resource}: failed{again}"));
        self.line(&format!("{head}\n    {}", text.trim_end().replace('\n', "\n    ")));
    }

    fn step_ends(&mut self, index: usize, total: usize, step: &StepReport) {
        let deferred =
            step.resources.iter().flat_map(|resource| &resource.changes).filter(|change| change.deferred).count();
        let changes = step.resources.iter().flat_map(|resource| &resource.changes).count() - deferred;
        let words = match (step.outcome, self.mode) {
            (Outcome::Failed, _) => self.paint("31", "failed"),
            (Outcome::Changed, Mode::Run) => self.paint("32", &count(changes, "change")),
            (Outcome::Changed, Mode::Plan) => self.paint("33", &format!("{} pending", count(changes, "change"))),
            _ if deferred > 0 => self.paint("33", &format!("{deferred} deferred")),
            _ => "nothing to change".into(),
        };
        let time = spoken(Duration::from_millis(step.milliseconds));
        self.line(&format!("step {}/{total} {}: {words} ({time})", index + 1, self.paint("1", &step.name)));
    }

    fn ends(&mut self, report: &Report) {
        if let Some(bar) = self.live.take() {
            bar.finish_and_clear();
        }
        self.say(&summary(report, self.mode, self.began.elapsed()));
    }
}

/// Whether standard output shows colours, and the user wants them.
fn is_colourful() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn paint(colour: bool, code: &str, text: &str) -> String {
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Text in a colour (the parameters of ANSI's SGR), where standard output shows colours.
pub fn coloured(code: &str, text: &str) -> String {
    paint(is_colourful(), code, text)
}

/// `1 change`, `2 changes`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The last line of a run or plan.
fn summary(report: &Report, mode: Mode, elapsed: Duration) -> String {
    let changes = count(report.changes(false), "change");
    let deferred = match report.changes(true) {
        0 => String::new(),
        number => format!(", {number} deferred"),
    };
    let not_run: Vec<&str> =
        report.steps.iter().filter(|step| step.outcome == Outcome::NotRun).map(|step| step.name.as_str()).collect();
    let time = spoken(elapsed);
    let mut text = match (mode, report.outcome) {
        (Mode::Plan, Outcome::Failed) => format!("plan failed: {changes} pending, and the errors above"),
        (Mode::Plan, _) => format!("plan: {changes} pending{deferred}"),
        (Mode::Run, Outcome::Failed) => format!("failed after {changes}{deferred} in {time}"),
        (Mode::Run, _) => format!("converged: {changes}{deferred} in {time}"),
    };
    if !not_run.is_empty() {
        text.push_str(&format!("\nnot run: {}", not_run.join(", ")));
    }
    for note in &report.notes {
        text.push_str(&format!("\nnote: {note}"));
    }
    text
}

/// Records in the journal, with the step, resource and change as fields of their own.
struct Journal {
    step: String,
}

impl Observer for Journal {
    fn step_begins(&mut self, _index: usize, _total: usize, name: &str) {
        self.step = name.into();
    }

    fn change(&mut self, resource: &str, change: &ChangeReport) {
        tracing::info!(
            step = self.step,
            resource,
            change = change.summary,
            deferred = change.deferred,
            "{resource}: {}",
            change.summary
        );
    }

    fn downloads(&mut self, resource: &str, downloads: &[DownloadReport]) {
        for download in downloads {
            let DownloadReport { source, bytes, began, wanted, ended, .. } = download;
            tracing::info!(
                step = self.step,
                resource,
                source,
                bytes,
                began,
                wanted,
                ended,
                "{resource}: fetched {download}"
            );
        }
    }

    fn warning(&mut self, resource: &str, warning: &str) {
        tracing::warn!(step = self.step, resource, "{resource}: {warning}");
    }

    fn progress(&mut self, line: &str) {
        tracing::debug!(step = self.step, "{line}");
    }

    fn failure(&mut self, resource: &str, error: &anyhow::Error, again: bool) {
        tracing::error!(
            step = self.step,
            resource,
            again,
            "{resource}: {}",
            redaction::shown(&error::render(error)).trim_end()
        );
    }

    fn step_ends(&mut self, index: usize, total: usize, step: &StepReport) {
        let outcome = format!("{:?}", step.outcome).to_lowercase();
        tracing::info!(
            step = step.name,
            outcome,
            milliseconds = step.milliseconds,
            "step {}/{total} {}: {outcome}",
            index + 1,
            step.name
        );
    }

    fn ends(&mut self, report: &Report) {
        let text = summary(report, Mode::Run, Duration::from_millis(report.milliseconds));
        tracing::info!(
            run_id = report.run_id,
            milliseconds = report.milliseconds,
            exit_code = report.exit_code,
            "{text}"
        );
    }
}

/// Nothing: for a plan printed as JSON.
pub struct Silent;

impl Observer for Silent {
    fn step_begins(&mut self, _index: usize, _total: usize, _name: &str) {}
    fn change(&mut self, _resource: &str, _change: &ChangeReport) {}
    fn downloads(&mut self, _resource: &str, _downloads: &[DownloadReport]) {}
    fn warning(&mut self, _resource: &str, _warning: &str) {}
    fn progress(&mut self, _line: &str) {}
    fn failure(&mut self, _resource: &str, _error: &anyhow::Error, _again: bool) {}
    fn step_ends(&mut self, _index: usize, _total: usize, _step: &StepReport) {}
    fn ends(&mut self, _report: &Report) {}
}
