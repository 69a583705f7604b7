//! A run that finds everything in place changes nothing, starts no process and flushes nothing.

use std::fs;

use anyhow::{Result, ensure};
use machine::{Machine, Options, Release, Tree, Upper, step_of_files};

/// What a run of the agent with these arguments starts and flushes, itself left out; it must change nothing.
fn starts(machine: &Machine, arguments: &[&str]) -> Result<Vec<String>> {
    let calls = "--trace=execve,fsync,fdatasync,sync,syncfs,sync_file_range";
    let strace = ["strace", "--follow-forks", calls, "--successful-only", "--signal=none", "--output", "/root/calls"];
    let agent = strace.iter().chain(&["/usr/local/bin/glovo-bootstrap"]).chain(arguments);
    let run = machine.exec(&agent.copied().collect::<Vec<_>>())?.success()?;
    ensure!(run.contains("converged: 0 changes"), "{run}");
    let calls = fs::read_to_string(machine.path("/root/calls"))?;
    Ok(calls.lines().filter(|line| !line.contains("+++")).skip(1).map(str::to_owned).collect())
}

fn built_in_steps_start_nothing(machine: &Machine) -> Result<()> {
    let variables = machine.variables()?;
    let run = ["run"].into_iter().chain(variables.iter().flat_map(|variable| ["--set", variable]));
    assert_eq!(starts(machine, &run.collect::<Vec<_>>())?, [""; 0]);
    Ok(())
}

#[test]
fn the_built_in_steps_start_nothing() -> Result<()> {
    they_start_nothing(Release::default())
}

#[test]
fn on_a_machine_with_dnf_they_start_neither_dnf_nor_rpm() -> Result<()> {
    they_start_nothing(Release::Amazon)
}

fn they_start_nothing(release: Release) -> Result<()> {
    let options = Options { release, tree: Tree::Converged, upper: Upper::Disk, ..Options::default() };
    let mut machine = Machine::boot(options)?;
    machine.wait_until_serving()?;
    built_in_steps_start_nothing(&machine)?;
    machine.reboot()?;
    machine.wait_until_serving()?;
    built_in_steps_start_nothing(&machine)
}

#[test]
fn a_thousand_files_start_nothing() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    fs::write(machine.path("/root/files.toml"), step_of_files("/srv/files", 1000))?;
    let run = ["run", "--steps", "/root/files.toml"];
    machine.sh("mkdir /srv/files")?;
    machine.agent(&run)?.success()?;
    assert_eq!(machine.sh("cat /srv/files/999.conf; ls -A /srv/files | wc -l")?, "number 999\n1000\n");
    assert_eq!(starts(&machine, &run)?, [""; 0]);
    Ok(())
}
