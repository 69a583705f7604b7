//! `kill -9` in the middle of a run that writes secrets: they are in private places only, and the next run clears away.
//!
//! At some system calls, spread evenly over those that change something; `GLOVO_KILL_POINTS` asks for more of them.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};
use machine::Options;

use crate::search::is_in_memory;
use crate::stage::{Stage, is_declared};

const POINTS: usize = 12;
const STEPS: &str = "run files service";
/// The system calls that change what a killed run leaves.
const CALLS: [&str; 14] = [
    "clone3",
    "copy_file_range",
    "fchmod",
    "fchown",
    "fdatasync",
    "fsync",
    "ftruncate",
    "linkat",
    "mkdirat",
    "mount",
    "openat",
    "renameat",
    "unlinkat",
    "write",
];
/// Restores the machine from before a run.
const UNDO: &str = "systemctl stop canary.service 2> /dev/null || :
    umount /run/glovo-bootstrap/* 2> /dev/null || :
    rm -rf /run/glovo-bootstrap /var/lib/glovo-bootstrap /run/canary/* /etc/systemd/system/canary.service
    cd /etc/canary; rm -f managed below vaultfile download object local .[a-z]*
    rm -f /etc/apt/auth.conf.d/* /etc/apt/auth.conf.d/.[a-z]*; userdel canary 2> /dev/null || :";
/// Where a run writes.
const DIRECTORIES: &str = "etc root run tmp var dev/shm home srv opt usr/local mnt";

#[test]
fn a_killed_run_leaves_secrets_in_private_files_only() -> Result<()> {
    let number = match std::env::var("GLOVO_KILL_POINTS") {
        Ok(number) => number.parse().context("GLOVO_KILL_POINTS")?,
        Err(_) => POINTS,
    };
    let stage = Stage::new(Options::default())?;
    let (mut left, mut killed, mut failures) = (BTreeMap::new(), 0, vec![]);
    let points = points(&stage, number)?;
    for (call, nth) in &points {
        match kill_at(&stage, call, *nth, &mut left) {
            Ok(reached) => killed += usize::from(reached),
            Err(error) => failures.push(format!("{call} number {nth}: {error:#}")),
        }
    }
    println!("{} points, {killed} of them reached; left until the next run: {left:?}", points.len());
    ensure!(killed + failures.len() > points.len() * 8 / 10, "strace did not kill");
    ensure!(failures.is_empty(), "{} points failed:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

/// Returns calls of an undisturbed run, spread evenly.
fn points(stage: &Stage, number: usize) -> Result<Vec<(String, usize)>> {
    stage.machine.sh(UNDO)?;
    trace(stage, &[])?.success()?;
    let trace = stage.machine.sh("cat /root/kill.trace")?;
    let (mut counts, mut all) = (HashMap::new(), vec![]);
    for call in trace.lines().filter_map(|line| line.split_once('(')).map(|(call, _)| call) {
        let nth = counts.entry(call).and_modify(|count| *count += 1).or_insert(1);
        if CALLS.contains(&call) {
            all.push((call.to_owned(), *nth));
        }
    }
    let chosen = number.min(all.len());
    Ok((0..chosen).map(|index| all[index * all.len() / chosen].clone()).collect())
}

fn trace(stage: &Stage, arguments: &[&str]) -> Result<machine::Output> {
    // Without the bytes that are written: they would be a find in strace's own file.
    stage.under(&[&["strace", "-q", "-s", "0", "-o", "/root/kill.trace"], arguments].concat(), STEPS)
}

/// One round: undo, kill, look, run, look. Counts the files that a killed run leaves. Returns whether it was killed.
fn kill_at(stage: &Stage, call: &str, nth: usize, left: &mut BTreeMap<String, usize>) -> Result<bool> {
    stage.machine.sh(UNDO).context("undo")?;
    let inject = format!("inject={call}:signal=KILL:when={nth}");
    trace(stage, &["-e", &format!("trace={call}"), "-e", &inject])?;
    let killed = stage.machine.sh("tail -n 1 /root/kill.trace")?.contains("killed by SIGKILL");
    for (path, hit) in stage.files_with_secrets(DIRECTORIES)? {
        if is_in_memory(&path) || is_declared(hit.name, &path) {
            continue;
        }
        // A file that is about to get its name: beside it, and private.
        let (directory, name) = path.rsplit_once('/').context("a path")?;
        let place = name.strip_prefix('.').and_then(|name| name.split('.').next()).unwrap_or_default();
        let is_staged = directory == "/var/lib/glovo-bootstrap/staging"
            || is_declared(hit.name, &format!("{directory}/{place}"))
            || is_declared(hit.name, &format!("{directory}/{place}.conf"));
        let status = stage.machine.sh(&format!("stat -c '%a %u' '{path}'"))?;
        ensure!(is_staged && status == "600 0\n", "after the kill, {hit:?} in {path}, {status}");
        *left.entry(path).or_insert(0) += 1;
    }
    stage.agent(STEPS)?.success().context("the next run")?;
    for (path, hit) in stage.files_with_secrets(DIRECTORIES)? {
        ensure!(is_in_memory(&path) || is_declared(hit.name, &path), "after the next run, {hit:?} in {path}");
    }
    let orphans =
        stage.machine.sh("find /etc /run/glovo-bootstrap /var/lib/glovo-bootstrap -name '*.glovo-bootstrap'
        find /run/glovo-bootstrap -path '*command*' -type f")?;
    ensure!(orphans.is_empty(), "left behind: {orphans}");
    stage.machine.sh("systemctl is-active canary.service").context("the service")?;
    Ok(killed)
}
