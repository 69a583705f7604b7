//! Runs of some resources, as one step, on a machine; and what the output must say.

use std::fs;

use anyhow::Result;

use crate::{Machine, Output};

/// Runs a verb with one step of these resources.
pub fn agent(machine: &Machine, command: &str, resources: &str) -> Result<Output> {
    fs::write(machine.path("/root/manifest.toml"), format!("name = \"step\"\n{resources}"))?;
    machine.agent(&[command, "--steps", "/root/manifest.toml"])
}

/// Runs `run` with them.
pub fn run(machine: &Machine, resources: &str) -> Result<Output> {
    agent(machine, "run", resources)
}

/// Plans, runs, and runs again without a change.
pub fn converge(machine: &Machine, resources: &str, words: &[&str]) -> Result<()> {
    expect(&agent(machine, "plan", resources)?, 0, words);
    expect(&run(machine, resources)?, 0, words);
    expect(&run(machine, resources)?, 0, &["converged: 0 changes"]);
    Ok(())
}

/// Plan and run refuse it with these words.
pub fn refused(machine: &Machine, resources: &str, words: &[&str]) -> Result<()> {
    expect(&agent(machine, "plan", resources)?, 1, words);
    expect(&run(machine, resources)?, 1, words);
    Ok(())
}

/// Fails unless a run has this exit code and says these words.
#[track_caller]
pub fn expect(output: &Output, code: i32, words: &[&str]) {
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, code, "{said}");
    for words in words {
        assert!(said.contains(words), "missing: {words}\n{said}");
    }
}
