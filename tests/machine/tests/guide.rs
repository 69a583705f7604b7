//! The pages that bring a newcomer to a running service: their manifests and commands, as typed, on a fresh machine.

#[allow(dead_code, reason = "shared with tests/cli")]
#[path = "../../cli/book.rs"]
mod book;

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use book::Page;
use machine::{Machine, Options, Release};

/// Runs what a page marks for a machine, on one of this release; returns how many commands there were.
fn follow(path: &str, release: Release) -> Result<usize> {
    let page = Page::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), path);
    let machine = Machine::boot(Options { release, ..Options::default() })?;
    let (mut commands, mut output) = (0, String::new());
    for block in page.blocks() {
        let line = block.line;
        if let Some(name) = block.file().filter(|_| block.is("toml manifest")) {
            fs::write(machine.path(&format!("/root/{name}")), block.manifest())?;
        } else if block.is("sh machine") {
            // A machine under test is root's, and has no sudo.
            let script = format!("sudo() {{ \"$@\"; }}\ncd /root\n{}", block.text);
            let ended = machine.exec(&["sh", "-euc", &script])?;
            output = ended.stdout + &ended.stderr;
            let expected = block.option("exit").map_or(Ok(0), str::parse)?;
            ensure!(ended.code == expected, "{path}:{line}: exit code {}\n{output}", ended.code);
            commands += 1;
        } else if block.is("text output") && commands > 0 {
            let missing = block.missing_from(&output);
            ensure!(missing.is_empty(), "{path}:{line}: not printed: {missing:#?}\n{output}");
        }
    }
    Ok(commands)
}

#[test]
fn a_service_of_ones_own_runs_by_the_guide_alone() -> Result<()> {
    ensure!(follow("docs/guide/first-service.md", Release::Bookworm)? > 6);
    Ok(())
}

#[test]
fn the_guide_is_right_on_a_machine_with_dnf() -> Result<()> {
    ensure!(follow("docs/guide/first-service.md", Release::Amazon)? > 6);
    Ok(())
}

#[test]
fn the_first_manifest_of_the_readme_serves() -> Result<()> {
    ensure!(follow("README.md", Release::Bookworm)? > 0);
    Ok(())
}

#[test]
fn the_first_manifest_of_the_readme_serves_with_dnf() -> Result<()> {
    ensure!(follow("README.md", Release::Amazon)? > 0);
    Ok(())
}
