//! The binary: parse, set up logging, dispatch, exit code.

use std::process::ExitCode;

use glovo_bootstrap::{cli::Cli, commands, error, system::host::is_stderr_the_journal, view};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

fn main() -> ExitCode {
    let cli = Cli::read();
    set_up_logging(cli.verbose);
    match commands::execute(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            view::complain(&error::render(&error));
            ExitCode::from(error::exit_code(&error))
        }
    }
}

/// Under systemd, records with fields go to the journal; elsewhere lines go to standard error, few
/// unless asked for. The SDK's own debug lines name credentials' places, never their values; they
/// stay off all the same unless the environment names them.
fn set_up_logging(verbose: bool) {
    let level = if verbose { "warn,glovo_bootstrap=debug" } else { "error,glovo_bootstrap=warn" };
    let registry = tracing_subscriber::registry();
    if is_stderr_the_journal()
        && let Ok(journal) = tracing_journald::layer()
    {
        let filter = EnvFilter::new(if verbose { "warn,glovo_bootstrap=debug" } else { "warn,glovo_bootstrap=info" });
        registry.with(filter).with(journal.with_field_prefix(Some("GLOVO".into()))).init();
        return;
    }
    let filter = EnvFilter::try_from_env("GLOVO_BOOTSTRAP_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| view::Complaints)
        .with_target(false)
        .without_time()
        .with_ansi(false);
    registry.with(filter).with(lines).init();
}
