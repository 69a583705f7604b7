//! Writes the manual pages and the shells' completions into a directory: `cargo run --example manual DIRECTORY`.
//! It is an example, so that the shipped binary does not contain it.

use clap_complete::Shell;
use glovo_bootstrap::cli::Cli;

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).ok_or_else(|| std::io::Error::other("usage: manual DIRECTORY"))?;
    clap_mangen::generate_to(Cli::command_line(), &directory)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        _ = clap_complete::generate_to(shell, &mut Cli::command_line(), "glovo-bootstrap", &directory)?;
    }
    Ok(())
}
