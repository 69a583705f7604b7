//! The view of downloads: progress bars, then a table.

use std::{sync::PoisonError, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{BARS, DEFAULT_COLUMNS, coloured, columns, complain, count, is_live, label, no_bars, say};
use crate::{
    error,
    fetch::batch::{DeliveryEvent, Underway},
    system::System,
    value::{ByteSize, spoken},
    visible::Shown,
};

/// How many files have a line of their own. The first line sums up all files.
const MAX_LINES: usize = 8;
/// How often the first line is drawn if nothing arrives.
const TICK: Duration = Duration::from_millis(120);

const WAITING: &str = "{spinner} {elapsed} {wide_msg}";
/// Leaves room for a name on a terminal of 80 columns.
const KNOWN: &str =
    "[{bar:10}] {percent:>3}% of {binary_total_bytes:<11} {binary_bytes_per_sec:>13} {eta:>4} left  {wide_msg}";
const UNKNOWN: &str = "{spinner:20} {binary_bytes:<11} {binary_bytes_per_sec:>13}            {wide_msg}";
/// For narrower terminals: without a bar, to leave room for the name.
const KNOWN_NARROW: &str = "{percent:>3}% {binary_bytes_per_sec:>13}  {wide_msg}";
const UNKNOWN_NARROW: &str = "{spinner:4} {binary_bytes_per_sec:>13}  {wide_msg}";

/// Progress bars on a terminal: one for all files, and one each for some current downloads. Nothing elsewhere.
pub struct Bars(Option<Live>);

struct Live {
    all: MultiProgress,
    total: ProgressBar,
    lines: Vec<Line>,
    files: Vec<Expected>,
    finished: usize,
    failed: usize,
    has_begun: bool,
}

/// A file's bar.
struct Line {
    bar: ProgressBar,
    index: usize,
    is_new: bool,
}

struct Expected {
    name: String,
    size: Option<u64>,
    done: u64,
}

impl Bars {
    /// Shows a spinner until the downloads begin.
    #[expect(clippy::new_without_default, reason = "it appears on the terminal")]
    pub fn new() -> Self {
        if !is_live() {
            return Self(None);
        }
        let all = MultiProgress::new();
        *BARS.lock().unwrap_or_else(PoisonError::into_inner) = Some(all.clone());
        let total = all.add(ProgressBar::new_spinner());
        style(&total, WAITING);
        total.enable_steady_tick(TICK);
        Self(Some(Live { all, total, lines: vec![], files: vec![], finished: 0, failed: 0, has_begun: false }))
    }

    /// Shows the progress lines of a system.
    pub fn show_progress_of(&self, system: &System) {
        if let Self(Some(live)) = self {
            let total = live.total.clone();
            system.host.on_progress(move |line| label(&total, line));
        }
    }

    /// Adds a file to the expected ones, with its size if it is known.
    pub fn expect(&mut self, name: &str, size: Option<u64>) {
        if let Self(Some(live)) = self {
            live.files.push(Expected { name: name.to_owned(), size, done: 0 });
        }
    }

    /// Replaces the spinner by bars: the downloads begin.
    pub fn begin(&mut self) {
        if let Self(Some(live)) = self {
            live.total.reset();
            live.update(&[]);
        }
    }

    /// Shows an event.
    pub fn observe(&mut self, event: &DeliveryEvent<'_>) {
        let Self(Some(live)) = self else { return };
        match event {
            DeliveryEvent::Underway(underway) => live.update(underway),
            DeliveryEvent::Done { index, result } => {
                live.finished += 1;
                live.failed += usize::from(result.is_err());
                let file = &mut live.files[*index];
                // A failed download receives no more bytes.
                file.done = result.as_ref().map_or(0, |delivery| delivery.size);
                file.size = Some(file.done);
            }
        }
    }

    /// Removes the bars.
    pub fn end(&mut self) {
        if let Self(Some(live)) = self {
            live.lines.iter().for_each(|line| line.bar.finish_and_clear());
            live.total.finish_and_clear();
            _ = live.all.clear();
            no_bars();
        }
        self.0 = None;
    }
}

/// Removes the bars after an error too.
impl Drop for Bars {
    fn drop(&mut self) {
        self.end();
    }
}

impl Live {
    fn update(&mut self, underway: &[Underway]) {
        for Underway { index, done, total } in underway {
            let file = &mut self.files[*index];
            file.done = *done;
            file.size = total.or(file.size);
        }
        self.show_total(underway.len());
        if !self.has_begun && !underway.is_empty() {
            // Bytes of an earlier, resumed download would distort the rate.
            self.total.reset_eta();
            self.has_begun = true;
        }
        self.show_files(underway);
    }

    fn show_total(&self, underway: usize) {
        let known: Vec<u64> = self.files.iter().filter_map(|file| file.size).collect();
        let sum: u64 = known.iter().sum();
        if sum == 0 {
            style(&self.total, unknown_style());
        } else {
            style(&self.total, known_style());
            // Files of unknown size are assumed to have the average size.
            let (known, unknown) = (known.len() as u64, (self.files.len() - known.len()) as u64);
            self.total.set_length(sum + sum / known * unknown);
        }
        self.total.set_position(self.files.iter().map(|file| file.done).sum());
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        let hidden = underway.saturating_sub(MAX_LINES);
        let hidden = if hidden > 0 { format!(", {hidden} more under way") } else { String::new() };
        label(&self.total, format!("{} of {}{failed}{hidden}", self.finished, count(self.files.len(), "file")));
    }

    /// Shows the current downloads. A file keeps its line; a new file takes the line of a finished one.
    fn show_files(&mut self, underway: &[Underway]) {
        let mut new =
            underway.iter().map(|file| file.index).filter(|index| !self.lines.iter().any(|line| line.index == *index));
        let mut new: Vec<usize> = new.by_ref().take(MAX_LINES).collect();
        new.reverse();
        for mut line in std::mem::take(&mut self.lines) {
            if !underway.iter().any(|file| file.index == line.index) {
                let Some(next) = new.pop() else {
                    line.bar.finish_and_clear();
                    self.all.remove(&line.bar);
                    continue;
                };
                line = Line { index: next, is_new: true, ..line };
                line.bar.reset();
            }
            self.lines.push(line);
        }
        while self.lines.len() < MAX_LINES
            && let Some(index) = new.pop()
        {
            self.lines.push(Line { bar: self.all.add(ProgressBar::no_length()), index, is_new: true });
        }
        for Line { bar, index, is_new } in &mut self.lines {
            let file = &self.files[*index];
            match file.size.filter(|size| *size > 0) {
                Some(size) => {
                    style(bar, known_style());
                    bar.set_length(size);
                }
                None => style(bar, unknown_style()),
            }
            label(bar, &file.name);
            bar.set_position(file.done);
            if std::mem::take(is_new) {
                // The download may have begun without a line, so its rate counts from now on.
                bar.reset_eta();
            }
        }
    }
}

fn known_style() -> &'static str {
    if columns() < DEFAULT_COLUMNS { KNOWN_NARROW } else { KNOWN }
}

fn unknown_style() -> &'static str {
    if columns() < DEFAULT_COLUMNS { UNKNOWN_NARROW } else { UNKNOWN }
}

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

/// How a download ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DownloadStatus {
    /// It is complete.
    Fetched,
    /// A file with the requested digest already existed.
    AlreadyThere,
    /// A later download has the same name.
    Skipped,
    /// It failed.
    Failed,
}

/// A line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// How it ended.
    pub status: DownloadStatus,
    /// In bytes.
    pub size: Option<u64>,
    /// How long it took.
    pub time: Option<Duration>,
    /// Bytes that an earlier, interrupted download left.
    pub resumed: u64,
    /// The name of the file.
    pub name: &'a str,
}

/// Prints the table in one go.
pub fn show(rows: &[Row<'_>]) {
    if let Some((first, others)) = rows.split_first() {
        say(others.iter().fold(line(first), |table, row| table + Shown::lines("\n") + line(row)));
    }
}

/// Returns a line of the table: status, size, time, name.
fn line(row: &Row<'_>) -> Shown {
    let (word, code) = match row.status {
        DownloadStatus::Fetched => ("fetched", "32"),
        DownloadStatus::AlreadyThere => ("already there", "32"),
        DownloadStatus::Skipped => ("skipped", "33"),
        DownloadStatus::Failed => ("failed", "31"),
    };
    let size = row.size.map(|size| ByteSize(size).to_string()).unwrap_or_default();
    let time = row.time.map(spoken).unwrap_or_default();
    let resumed = if row.resumed > 0 { format!(" ({} from before)", ByteSize(row.resumed)) } else { String::new() };
    coloured(code, &format!("{word:13}")) + format!("  {size:>11}  {time:>12}  {}{resumed}", row.name)
}

/// Prints errors to standard error, grouped by their causes.
pub fn complain_of_all(errors: &[&anyhow::Error]) {
    let text = failures(errors);
    if !text.is_empty() {
        complain(Shown::lines(text.trim_end()));
    }
}

fn failures(errors: &[&anyhow::Error]) -> String {
    let mut groups: Vec<(String, Vec<&anyhow::Error>)> = vec![];
    for error in errors {
        let text = error::render(error);
        // The first line names the download, the others say why it failed.
        let causes = text.split_once('\n').map_or("", |(_, causes)| causes);
        match groups.iter_mut().find(|(known, _)| known == causes && !causes.is_empty()) {
            Some((_, group)) => group.push(error),
            None => groups.push((causes.to_owned(), vec![error])),
        }
    }
    let mut text = String::new();
    for (causes, group) in groups {
        for error in group.iter().take(3) {
            text.push_str(&format!("error: {error}\n"));
        }
        if group.len() > 3 {
            text.push_str(&format!("error: and {} more like these\n", group.len() - 3));
        }
        text.push_str(&causes);
    }
    text
}

/// Returns a summary: `3 files, 1.3 GiB in 12.3 s (105 MiB/s)`.
pub fn sum(files: usize, bytes: u64, elapsed: Duration) -> String {
    let rate = u128::from(bytes) * 1000 / elapsed.as_millis().max(1);
    let rate = ByteSize(u64::try_from(rate).unwrap_or(u64::MAX));
    format!("{}, {} in {} ({rate}/s)", count(files, "file"), ByteSize(bytes), spoken(elapsed))
}
