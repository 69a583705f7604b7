//! A machine's life and its end, however it comes: nothing stays behind on this machine.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use machine::{Machine, Options, SweptDirectory, Tree, pristine_tree};

#[test]
fn written_data_survives_power_off_and_abort() -> Result<()> {
    let mut machine = Machine::boot(Options::default())?;
    machine.sh("echo first > /root/written")?;
    machine.power_off()?;
    machine.power_on()?;
    machine.wait_until_booted()?;
    machine.sh("grep first /root/written; echo second > /root/written")?;
    machine.abort()?;
    assert_eq!(fs::read_to_string(machine.path("/root/written"))?, "second\n");
    machine.power_on()?;
    machine.wait_until_booted()
}

#[test]
fn every_requested_file_system_exists_and_ext4_can_swap() -> Result<()> {
    let machine = Machine::boot(Options { disks: vec!["ext4", "xfs", "btrfs"], ..Options::default() })?;
    for disk in ["ext4", "xfs", "btrfs"] {
        assert_eq!(machine.sh(&format!("findmnt -no FSTYPE /mnt/{disk}"))?.trim(), disk);
    }
    machine.sh("fallocate -l 16M /mnt/ext4/s; chmod 600 /mnt/ext4/s; mkswap -q /mnt/ext4/s; swapon /mnt/ext4/s")?;
    Ok(())
}

#[test]
fn a_converged_machine_serves_from_the_start() -> Result<()> {
    let machine = Machine::boot(Options { tree: Tree::Converged, ..Options::default() })?;
    machine.sh("systemctl is-active nginx glovo-app")?;
    Ok(())
}

#[test]
fn any_tree_can_be_booted() -> Result<()> {
    let copy = SweptDirectory::new()?;
    let mut cp = Command::new("cp");
    cp.args(["--archive", "--no-target-directory"]).args([&pristine_tree()?, &copy.path]);
    ensure!(cp.status()?.success());
    fs::write(copy.path.join("root/mark"), "of the copy")?;
    let machine = Machine::boot(Options { tree: Tree::At(copy.path.clone()), ..Options::default() })?;
    assert_eq!(machine.sh("cat /root/mark")?, "of the copy");
    Ok(())
}

#[test]
fn a_command_on_a_machine_has_the_usual_descriptors() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    assert_eq!(machine.sh("ulimit -Sn")?.trim(), "1024");
    Ok(())
}

#[test]
fn a_killed_harness_leaves_nothing() -> Result<()> {
    let mut harness = harness_that_swaps_on("of-a-killed-harness")?;
    harness.kill()?;
    harness.wait()?;
    let start = Instant::now();
    while leftovers(&harness, "of-a-killed-harness")? {
        ensure!(start.elapsed() < Duration::from_secs(10), "there are leftovers");
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn what_a_killed_holder_leaves_is_swept_by_the_next_machine() -> Result<()> {
    let mut harness = harness_that_swaps_on("of-a-killed-holder")?;
    let holder = process_with_arguments(&["unshare", &machine_of(&harness)])?;
    ensure!(Command::new("kill").args(["-KILL", &holder]).status()?.success());
    harness.kill()?;
    harness.wait()?;
    while process_with_arguments(&["container.sh", "hold", &machine_of(&harness)]).is_ok() {
        sleep(Duration::from_millis(10));
    }
    assert!(leftovers(&harness, "of-a-killed-holder")?);
    drop(Machine::boot(Options::default())?);
    assert!(!leftovers(&harness, "of-a-killed-holder")?);
    Ok(())
}

/// Another process with a machine, which swaps to a file of this name.
fn harness_that_swaps_on(name: &str) -> Result<Child> {
    let mut harness = Command::new(env!("CARGO_BIN_EXE_machine"))
        .arg("shell")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let file = format!("/mnt/ext4/{name}");
    let script = format!("fallocate -l 16M {file}; chmod 600 {file}; mkswap -q {file}; swapon {file}; echo on");
    writeln!(harness.stdin.as_ref().context("piped")?, "{script}")?;
    let mut lines = BufReader::new(harness.stdout.take().context("piped")?).lines();
    ensure!(lines.any(|line| line.is_ok_and(|line| line == "on")), "no swap");
    assert!(leftovers(&harness, name)?);
    Ok(harness)
}

/// The name of that process's first machine.
fn machine_of(harness: &Child) -> String {
    format!("machines/{}-1", harness.id())
}

/// Is anything of that machine still there: swap, a loop device, a process, a directory?
fn leftovers(harness: &Child, swap: &str) -> Result<bool> {
    let name = machine_of(harness);
    let loops = Command::new("losetup").arg("--list").output()?.stdout;
    Ok(fs::read_to_string("/proc/swaps")?.contains(swap)
        || String::from_utf8(loops)?.contains(&format!("{name}/"))
        || process_with_arguments(&[&name]).is_ok()
        || fs::read_to_string("/proc/self/mountinfo")?.contains(&name))
}

fn process_with_arguments(parts: &[&str]) -> Result<String> {
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if parts.iter().all(|part| String::from_utf8_lossy(&line).contains(part)) {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    anyhow::bail!("no process with {parts:?}")
}
