//! The view of a run: lines on a terminal or in a log, or records in the journal.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    below_all_else, coloured, count, is_live,
    journal::{self, JournalLines, JournalPlace},
    label, no_bars, say_within,
};
use crate::{
    error::{self, Class},
    host::output,
    run::{
        engine::Observer,
        report::{ChangeReport, DownloadReport, Outcome, RebootReport, Report, StepReport},
    },
    stop::signal_of,
    system::Mode,
    value::spoken,
    visible::Shown,
};

/// Returns the view for the current output: the journal, lines, or both.
pub fn choose(mode: Mode) -> Rc<RefCell<dyn Observer>> {
    let lines = || Lines::new(mode);
    match journal::place().filter(|_| mode == Mode::Run) {
        Some(JournalPlace::Output) => Rc::new(RefCell::new(JournalLines::default())),
        Some(JournalPlace::Beside) => Rc::new(RefCell::new(Both(lines(), JournalLines::default()))),
        None => Rc::new(RefCell::new(lines())),
    }
}

/// The view in lines. On a terminal, a live line below them shows the current activity.
struct Lines {
    mode: Mode,
    live: Option<ProgressBar>,
    began: Instant,
    /// `step 2/8 enable_swap`
    step: String,
    /// Whether the step's heading is printed already.
    has_heading: bool,
}

impl Lines {
    fn new(mode: Mode) -> Self {
        let live = is_live().then(|| {
            let bar = below_all_else(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { mode, live, began: Instant::now(), step: String::new(), has_heading: false }
    }

    /// Prints a text. A plan waits for a slow reader; a run drops the text and continues.
    fn say(&self, text: impl Into<Shown>) {
        say_within((self.mode == Mode::Run).then_some(output::READER_TIMEOUT), text);
    }

    fn line(&self, text: impl Into<Shown>) {
        match &self.live {
            Some(bar) => bar.suspend(|| self.say(text)),
            None => self.say(text),
        }
    }

    /// Prints a line of the current step below the step's heading. A step without such lines gets no heading.
    fn line_of_step(&mut self, text: impl Into<Shown>) {
        if !std::mem::replace(&mut self.has_heading, true) {
            self.line(coloured("1", &self.step));
        }
        self.line(text);
    }

    fn diff(&mut self, diff: &str) {
        for line in diff.lines() {
            let code = match line.as_bytes().first() {
                Some(b'+') => "32",
                Some(b'-') => "31",
                Some(b'@') => "36",
                _ => "0",
            };
            self.line_of_step(Shown::from("      ") + coloured(code, line));
        }
    }
}

impl Observer for Lines {
    fn step_begins(&mut self, index: usize, total: usize, name: &str) {
        self.step = format!("step {}/{total} {name}", index + 1);
        self.has_heading = false;
        if let Some(bar) = &self.live {
            label(bar, &self.step);
        }
    }

    fn not_here(&mut self, resource: Option<&str>, why: &str) {
        match resource {
            Some(resource) => self.line_of_step(format!("    {resource}: not here: {why}")),
            None => self.line(coloured("1", &self.step) + format!(": not here: {why}")),
        }
    }

    fn change(&mut self, resource: &str, change: &ChangeReport) {
        let (mark, colour) = if change.deferred { ("-", "33") } else { ("+", "32") };
        self.line_of_step(Shown::from("  ") + coloured(colour, mark) + format!(" {resource}: {}", change.summary));
        if let Some(diff) = &change.diff {
            self.diff(diff);
        }
        self.progress(&format!("{resource}: {}", change.summary));
    }

    fn downloads(&mut self, _resource: &str, downloads: &[DownloadReport]) {
        if let Some(sum) = DownloadReport::sum(downloads) {
            self.line_of_step(format!("    downloaded {sum}"));
        }
    }

    fn warning(&mut self, _resource: &str, warning: &str) {
        self.line_of_step(Shown::from("    ") + coloured("33", "warning:") + " " + warning);
    }

    fn progress(&mut self, line: &str) {
        if let Some(bar) = &self.live {
            label(bar, format!("{}: {line}", self.step));
        }
    }

    fn waits(&mut self, line: &str) {
        // The live line of a terminal shows it already.
        if self.live.is_none() {
            self.line_of_step(format!("    {line}"));
        }
    }

    fn failure(&mut self, resource: &str, declared_at: &str, error: &anyhow::Error, again: bool) {
        let how = match (error::class(error), again) {
            (Class::Interrupted(_), _) => "stopped",
            (_, true) => "failed, trying again",
            (_, false) => "failed",
        };
        let head = coloured("31", &format!("  ! {resource}: {how}")) + format!(" (declared at {declared_at})");
        let text = error::render(error).trim_end().replace('\n', "\n    ");
        self.line_of_step(head + Shown::lines("\n    ") + Shown::lines(&text));
    }

    fn step_ends(&mut self, _index: usize, _total: usize, step: &StepReport) {
        let (changes, deferred) = (step.changes(false), step.changes(true));
        let words = match step.outcome {
            Outcome::Failed => coloured("31", "failed"),
            Outcome::Stopped => coloured("31", "stopped"),
            Outcome::Changed => coloured("32", &count(changes, "change")),
            Outcome::Pending => coloured("33", &format!("{} pending", count(changes, "change"))),
            _ if deferred > 0 => coloured("33", &format!("{deferred} deferred")),
            _ => "nothing to change".into(),
        };
        let time = spoken(Duration::from_millis(step.milliseconds));
        self.line(coloured("1", &self.step) + ": " + words + format!(" ({time})"));
    }

    fn ends(&mut self, report: &Report) {
        if let Some(bar) = self.live.take() {
            bar.finish_and_clear();
            no_bars();
        }
        self.say(Shown::lines(&summary(report, self.mode, self.began.elapsed())));
    }
}

/// Returns the last lines of a run or plan.
pub(super) fn summary(report: &Report, mode: Mode, elapsed: Duration) -> String {
    let changes = count(report.changes(false), "change");
    let deferred = match report.changes(true) {
        0 => String::new(),
        number => format!(", {number} deferred"),
    };
    let not_run: Vec<&str> =
        report.steps.iter().filter(|step| step.outcome == Outcome::NotRun).map(|step| step.name.as_str()).collect();
    let time = spoken(elapsed);
    let mut text = match (mode, report.outcome) {
        (_, Outcome::Stopped) => {
            let signal = report.exit_code.and_then(signal_of).unwrap_or("a signal");
            format!("stopped by {signal} after {changes}{deferred} in {time}")
        }
        (Mode::Plan, Outcome::Failed) => format!("plan failed: {changes} pending, and the errors above"),
        (Mode::Plan, _) => format!("plan: {changes} pending{deferred}"),
        (Mode::Run, Outcome::Rebooting) => {
            let reboot = report.reboot.as_ref().map(RebootReport::in_words).unwrap_or_default();
            format!("{changes}{deferred} in {time}; {reboot}")
        }
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

/// Two views of one run.
struct Both<A, B>(A, B);

impl<A: Observer, B: Observer> Observer for Both<A, B> {
    fn step_begins(&mut self, index: usize, total: usize, name: &str) {
        self.0.step_begins(index, total, name);
        self.1.step_begins(index, total, name);
    }

    fn not_here(&mut self, resource: Option<&str>, why: &str) {
        self.0.not_here(resource, why);
        self.1.not_here(resource, why);
    }

    fn change(&mut self, resource: &str, change: &ChangeReport) {
        self.0.change(resource, change);
        self.1.change(resource, change);
    }

    fn downloads(&mut self, resource: &str, downloads: &[DownloadReport]) {
        self.0.downloads(resource, downloads);
        self.1.downloads(resource, downloads);
    }

    fn warning(&mut self, resource: &str, warning: &str) {
        self.0.warning(resource, warning);
        self.1.warning(resource, warning);
    }

    fn progress(&mut self, line: &str) {
        self.0.progress(line);
        self.1.progress(line);
    }

    fn waits(&mut self, line: &str) {
        self.0.waits(line);
        self.1.waits(line);
    }

    fn failure(&mut self, resource: &str, declared_at: &str, error: &anyhow::Error, again: bool) {
        self.0.failure(resource, declared_at, error, again);
        self.1.failure(resource, declared_at, error, again);
    }

    fn step_ends(&mut self, index: usize, total: usize, step: &StepReport) {
        self.0.step_ends(index, total, step);
        self.1.step_ends(index, total, step);
    }

    fn ends(&mut self, report: &Report) {
        self.0.ends(report);
        self.1.ends(report);
    }
}

/// A view that shows nothing, for a plan printed as JSON.
pub struct Silent;

impl Observer for Silent {
    fn step_begins(&mut self, _index: usize, _total: usize, _name: &str) {}
    fn not_here(&mut self, _resource: Option<&str>, _why: &str) {}
    fn change(&mut self, _resource: &str, _change: &ChangeReport) {}
    fn downloads(&mut self, _resource: &str, _downloads: &[DownloadReport]) {}
    fn warning(&mut self, _resource: &str, _warning: &str) {}
    fn progress(&mut self, _line: &str) {}
    fn waits(&mut self, _line: &str) {}
    fn failure(&mut self, _resource: &str, _declared_at: &str, _error: &anyhow::Error, _again: bool) {}
    fn step_ends(&mut self, _index: usize, _total: usize, _step: &StepReport) {}
    fn ends(&mut self, _report: &Report) {}
}
