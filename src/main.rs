//! The binary: parse, set up logging, dispatch, exit code.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    process::ExitCode,
};

#[cfg(target_env = "musl")]
use dlmalloc::GlobalDlmalloc;
use glovo_bootstrap::{
    cli::Cli,
    commands, environment, error,
    host::{facts::is_stderr_the_journal, journal::Journal, launch::Launch, process},
    run::supervisor::{self, RunMessage},
    view::{self, journal::JournalPlace},
    visible::Shown,
};
use tracing::{Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt};

/// zig's malloc, which the static binary would have, copies a growing buffer byte by byte.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: GlobalDlmalloc = GlobalDlmalloc;

fn main() -> ExitCode {
    process::isolate(supervisor::adopt());
    if let Some(code) = Launch::execute_if_asked() {
        return ExitCode::from(code);
    }
    let cli = Cli::read();
    // A panic's message is printed like any other: without secrets and above the bars. Printing it cannot panic.
    std::panic::set_hook(Box::new(|panic| {
        let trace = Backtrace::capture();
        let trace = if trace.status() == BacktraceStatus::Captured { trace.to_string() } else { String::new() };
        view::complain(Shown::lines(&format!("{panic}\n{trace}")));
    }));
    let is_unattended = cli.as_ref().is_ok_and(|cli| cli.command.is_unattended()) || supervisor::is_supervised();
    set_up_logging(cli.as_ref().is_ok_and(|cli| cli.output.verbose), is_unattended);
    let cli = match cli {
        Ok(cli) => {
            view::set_colour(cli.output.color);
            cli
        }
        Err(usage) => return ExitCode::from(commands::refuse(&usage)),
    };
    match commands::execute(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            supervisor::tell(&RunMessage::of(&error));
            view::complain_of(&error);
            ExitCode::from(error::exit_code(&error))
        }
    }
}

/// Sets up logging: records with fields to the journal under systemd, otherwise lines to standard error; both for an
/// unattended run elsewhere, which is user-data's.
///
/// Without `--verbose`, only warnings and errors are lines. Other crates log requests and answers at debug level.
/// These hold tokens and key ids, so no setting shows them.
fn set_up_logging(verbose: bool, is_unattended: bool) {
    let is_output = is_stderr_the_journal();
    let journal = (is_output || is_unattended).then(|| Journal::open().ok()).flatten();
    let records = from(Level::WARN, if verbose { Level::DEBUG } else { Level::INFO });
    if let Some(journal) = journal {
        view::journal::set_place(if is_output { JournalPlace::Output } else { JournalPlace::Beside });
        let registry = tracing_subscriber::registry().with(journal.with_filter(records));
        if is_output { registry.init() } else { registry.with(lines(verbose)).init() }
    } else {
        tracing_subscriber::registry().with(lines(verbose)).init();
    }
}

/// Returns a filter with one level for other crates, and another one for this program.
fn from(other: Level, ours: Level) -> Targets {
    Targets::new().with_default(other).with_target("glovo_bootstrap", ours)
}

/// Returns the layer that prints lines to standard error.
fn lines<S: Subscriber + for<'a> LookupSpan<'a>>(verbose: bool) -> impl Layer<S> {
    let asked = environment::value(environment::LOG).and_then(|targets| targets.parse().ok());
    let usual = if verbose { from(Level::WARN, Level::DEBUG) } else { from(Level::ERROR, Level::WARN) };
    let most = from(Level::INFO, Level::TRACE).with_target(view::journal::TARGET, LevelFilter::OFF);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| view::Complaints)
        .with_target(false)
        .without_time()
        .with_ansi(false);
    lines.with_filter(asked.unwrap_or(usual)).with_filter(most)
}
