//! Output for people: the only module that writes to standard output and standard error.
//!
//! It prints only [`Shown`] texts, so [`crate::visible`] has escaped foreign text before.

pub mod downloads;
pub mod journal;
pub mod run;
pub mod timeline;

use std::{
    io::{self, IsTerminal, Write},
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use indicatif::{MultiProgress, ProgressBar};
use serde::Serialize;

use crate::{environment, error, host::output, visible::Shown};

/// The width of a terminal that does not report its width.
const DEFAULT_COLUMNS: u16 = 80;

/// When output has colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Colour {
    /// On a terminal, unless the environment says `NO_COLOR` or `TERM=dumb`.
    #[default]
    Auto,
    /// Always, even in files and pipes.
    Always,
    /// Never.
    Never,
}

/// The command line's choice of colours.
static COLOUR: OnceLock<Colour> = OnceLock::new();
/// Whether standard output shows colours. Each line asks.
static SHOWS_COLOURS: OnceLock<bool> = OnceLock::new();

/// Sets when output has colours. Only the first call has an effect.
pub fn set_colour(colour: Colour) {
    _ = COLOUR.set(colour);
}

/// Prints one or more lines to standard output.
///
/// Errors are ignored, because a closed terminal or pipe must not end a run. `println!` would panic.
pub fn say(text: impl Into<Shown>) {
    say_within(None, text);
}

/// Prints like [`say`], but drops the text if no reader takes it for so long.
fn say_within(patience: Option<Duration>, text: impl Into<Shown>) {
    output::print(standard_output(), (text.into() + Shown::lines("\n")).as_str(), patience);
}

/// The version of all documents that `--json` prints. It rises when a field goes or changes its meaning, not when a field
/// is added.
const SCHEMA_VERSION: u32 = 1;

/// A document as `--json` prints it.
#[derive(Serialize)]
struct Document<'a, T> {
    schema_version: u32,
    #[serde(flatten)]
    value: &'a T,
}

/// Prints an object as JSON to standard output, with the version of its schema: a document on several lines.
pub fn say_json(value: &impl Serialize) -> Result<()> {
    let document = Document { schema_version: SCHEMA_VERSION, value };
    say(Shown::json(&serde_json::to_string_pretty(&document).context("writing JSON")?));
    Ok(())
}

/// Prints a value as JSON on one line, for programs that read line by line.
pub fn say_json_line(value: &impl Serialize) -> Result<()> {
    let document = Document { schema_version: SCHEMA_VERSION, value };
    say(Shown::json(&serde_json::to_string(&document).context("writing JSON")?));
    Ok(())
}

/// Prints a text for a file or a program: unchanged, but escaped on a terminal.
pub fn say_document(text: &str) {
    if standard_output().is_terminal() {
        return say(Shown::lines(text));
    }
    output::print(standard_output(), &format!("{text}\n"), None);
}

#[expect(clippy::disallowed_methods, reason = "what it gets is visible")]
fn standard_output() -> io::Stdout {
    io::stdout()
}

#[expect(clippy::disallowed_methods, reason = "what it gets is visible")]
fn standard_error() -> io::Stderr {
    io::stderr()
}

/// The progress bars on the terminal. Other output goes above them.
static BARS: Mutex<Option<MultiProgress>> = Mutex::new(None);

/// Puts a progress bar on the terminal, below all later output.
fn below_all_else(bar: ProgressBar) -> ProgressBar {
    let all = MultiProgress::new();
    *BARS.lock().unwrap_or_else(PoisonError::into_inner) = Some(all.clone());
    all.add(bar)
}

/// Forgets the progress bars: the terminal shows none now.
fn no_bars() {
    *BARS.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Prints one or more lines to standard error. Errors are ignored, as in [`say`].
pub fn complain(text: impl Into<Shown>) {
    let text = text.into();
    journal::repeat(&text);
    above_bars(&(text + Shown::lines("\n")));
}

/// Prints an error with its causes and its hint to standard error.
pub fn complain_of(error: &anyhow::Error) {
    complain(Shown::lines(error::render(error).trim_end()));
}

/// Prints a question to standard error. The user types the answer on the same line.
pub fn ask(question: &str) {
    above_bars(&(Shown::from(question) + " "));
}

fn above_bars(text: &Shown) {
    let bars = BARS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let write = || output::print(standard_error(), text.as_str(), Some(output::READER_TIMEOUT));
    match bars {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}

/// A writer of log lines to standard error.
#[derive(Debug)]
pub struct Complaints;

impl Write for Complaints {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        above_bars(&Shown::lines(&String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns whether standard error is a terminal that can redraw a line.
fn is_live() -> bool {
    standard_error().is_terminal() && !is_dumb()
}

/// Returns the width of standard error's terminal, in columns.
fn columns() -> u16 {
    terminal_size::terminal_size_of(standard_error()).map_or(DEFAULT_COLUMNS, |(width, _)| width.0)
}

fn is_dumb() -> bool {
    environment::value(environment::TERM).is_some_and(|term| term == "dumb")
}

/// Sets the text beside a bar.
#[expect(clippy::disallowed_methods, reason = "what it gets is visible")]
fn label(bar: &ProgressBar, text: impl Into<Shown>) {
    bar.set_message(text.into().as_str().to_owned());
}

/// Returns whether to print colours: standard output shows them, and the user wants them (<https://no-color.org>).
fn is_colourful() -> bool {
    match COLOUR.get().copied().unwrap_or_default() {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => *SHOWS_COLOURS.get_or_init(|| {
            let is_refused = environment::value(environment::NO_COLOR).is_some();
            standard_output().is_terminal() && !is_refused && !is_dumb()
        }),
    }
}

/// Returns a line in a colour, if output has colours. `code` holds the parameters of ANSI's SGR.
pub fn coloured(code: &'static str, text: &str) -> Shown {
    if is_colourful() { Shown::painted(code, text) } else { text.into() }
}

/// Returns a number with its noun: `1 change`, `2 changes`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
