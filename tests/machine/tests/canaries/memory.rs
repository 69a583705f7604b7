//! The memory of a run that has read all secrets: it is not written to swap, and not into a core dump.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use machine::Options;

use crate::search::occurrences;
use crate::stage::Stage;

/// What stands in the memory of other processes and files, which are swapped.
const CONTROLS: [&str; 2] = ["qvcontrolofprocesslx", "qvcontroloffilelx"];
const PAGE_OUT: &str = include_str!("pageout.py");
/// Prints the processes of the program that have not become another one.
const PROCESSES: &str = "for process in /proc/[0-9]*; do
    [ \"$(readlink $process/exe)\" != /usr/local/bin/glovo-bootstrap ] || echo ${process#/proc/}; done";
/// All files in memory that have a secret now: those of credentials, and the standard input of the command.
const FILES: &str = "find /run/glovo-bootstrap -type f; echo /proc/$(cat /run/canary/waits)/fd/0";

#[test]
fn a_run_with_secrets_is_in_no_swap_and_no_core_dump() -> Result<()> {
    let stage = Stage::new(Options::default())?;
    stage.agent("run swap")?.success()?;
    let machine = &stage.machine;
    let mut run = stage.start_and_wait(&["prlimit", "--core=unlimited"])?;
    let processes = machine.sh(PROCESSES)?;

    let [of_process, of_file] = CONTROLS;
    machine.sh(&format!("echo {of_file} > /run/canary/control"))?;
    let script = "echo $$ > /run/canary/control.pid; exec sleep 1d";
    let mut control = machine.command(&["env", &format!("CONTROL={of_process}"), "sh", "-c", script]).spawn()?;
    while machine.exec(&["test", "-s", "/run/canary/control.pid"])?.code != 0 {
        ensure!(control.try_wait()?.is_none(), "the other process has ended");
    }
    let pid = machine.sh("cat /run/canary/control.pid")?;
    let files = machine.sh(FILES)?;
    ensure!(files.contains("credentials/parameter") && files.lines().count() >= 4, "{files}");
    let all = format!("{processes}{pid}{files}/run/canary/control");
    let image = machine.directory().join("ext4.img");
    // A page goes to the swap file in the background.
    for attempt in 0.. {
        page_out(&stage, &all)?;
        machine.sh("sync")?;
        let missing: Vec<_> = CONTROLS.iter().filter(|word| !has(&image, word)).collect();
        if missing.is_empty() {
            break;
        }
        ensure!(attempt < 100, "not swapped: {missing:?}");
    }
    let swapped = occurrences(&image)?;
    ensure!(swapped.is_empty(), "in the swap file: {swapped:?}");

    let limits = machine.sh(&format!("cat /proc/{}/limits", processes.trim()))?;
    let limit = limits.lines().find(|line| line.starts_with("Max core file size")).context(limits.clone())?;
    ensure!(limit.split_whitespace().nth(4) == Some("0"), "{limit}");
    machine.sh(&format!("kill -ABRT {}", processes.trim()))?;
    run.wait()?;
    // Where the kernel writes dumps beside the process, another process has one.
    if fs::read_to_string("/proc/sys/kernel/core_pattern")?.starts_with("core") {
        let script = "ulimit -c unlimited; mkdir -p /run/canary/dump; cd /run/canary/dump; sh -c 'kill -ABRT $$' || ls";
        ensure!(machine.sh(script)?.contains("core"), "no process writes a core dump here");
    }
    ensure!(machine.sh("ls / /root")?.lines().all(|name| !name.starts_with("core")), "a core dump");
    control.kill()?;
    control.wait()?;
    Ok(())
}

/// Asks the kernel to swap these processes and files out.
fn page_out(stage: &Stage, all: &str) -> Result<()> {
    let arguments: Vec<&str> = ["python3", "-"].into_iter().chain(all.split_whitespace()).collect();
    let mut python = stage.machine.command(&arguments).stdin(Stdio::piped()).spawn()?;
    python.stdin.take().context("piped")?.write_all(PAGE_OUT.as_bytes())?;
    ensure!(python.wait()?.success(), "pageout.py failed");
    Ok(())
}

fn has(image: &std::path::Path, word: &str) -> bool {
    Command::new("grep").args(["-qaF", word]).arg(image).status().is_ok_and(|status| status.success())
}
