//! Writes the manual pages and the shells' completions into a directory: `cargo run --example manual DIRECTORY`.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap_complete::Shell;
use glovo_bootstrap::manual;

#[expect(clippy::disallowed_methods, reason = "a tool of the build, not the program")]
fn main() -> Result<()> {
    let directory: PathBuf = std::env::args_os().nth(1).context("usage: manual DIRECTORY")?.into();
    for (name, page) in manual::pages()? {
        fs::write(directory.join(name), page)?;
    }
    for (shell, name) in
        [(Shell::Bash, "glovo-bootstrap.bash"), (Shell::Zsh, "_glovo-bootstrap"), (Shell::Fish, "glovo-bootstrap.fish")]
    {
        fs::write(directory.join(name), manual::completions(shell))?;
    }
    Ok(())
}
