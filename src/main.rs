//! The binary: parse, set up logging, dispatch, exit code.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    process::ExitCode,
};

use glovo_bootstrap::{
    cli::Cli,
    commands, environment, error,
    host::{facts::is_stderr_the_journal, journal::Journal, launch::Launch, process},
    run::supervisor::{self, RunMessage},
    view,
    visible::Shown,
};
use tracing::Level;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

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
    set_up_logging(cli.as_ref().is_ok_and(|cli| cli.verbose));
    let cli = match cli {
        Ok(cli) => {
            view::set_colour(cli.color);
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

/// Sets up logging: records with fields to the journal under systemd, otherwise lines to standard error.
///
/// Without `--verbose`, only warnings and errors are lines. Other crates log requests and answers at debug level.
/// These hold tokens and key ids, so no setting shows them.
fn set_up_logging(verbose: bool) {
    let registry = tracing_subscriber::registry();
    let from = |other: Level, ours: Level| Targets::new().with_default(other).with_target("glovo_bootstrap", ours);
    if is_stderr_the_journal()
        && let Ok(journal) = Journal::open()
    {
        let filter = from(Level::WARN, if verbose { Level::DEBUG } else { Level::INFO });
        registry.with(filter).with(journal).init();
        return;
    }
    let asked = environment::value(environment::LOG).and_then(|targets| targets.parse().ok());
    let usual = if verbose { from(Level::WARN, Level::DEBUG) } else { from(Level::ERROR, Level::WARN) };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| view::Complaints)
        .with_target(false)
        .without_time()
        .with_ansi(false);
    registry.with(asked.unwrap_or(usual)).with(from(Level::INFO, Level::TRACE)).with(lines).init();
}
