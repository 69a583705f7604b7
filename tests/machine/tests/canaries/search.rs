//! The search for secrets: in files, in all blocks of the disks, in logs and reports, in the process list.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, spawn};

use anyhow::{Context, Result, ensure};

use crate::stage::{Stage, canaries, declared_files, is_declared, is_in_memory_alone};
use crate::words::{Hit, found, patterns};

/// The directories of credentials, which are in memory: the program's two, and systemd's for services.
const IN_MEMORY: [&str; 3] =
    ["/run/glovo-bootstrap/credentials/", "/run/glovo-bootstrap/commands/", "/run/credentials/"];
/// The servers' logs. They have requests, not answers.
const SERVERS: [&str; 3] = ["requests.jsonl", "emulator.log", "openbao/log"];
/// What the machine says and keeps of its runs.
const OUTPUTS: [&str; 5] = [
    "journalctl --no-pager --all --output=export",
    "glovo-bootstrap status",
    "glovo-bootstrap status --json",
    "systemctl show '*'",
    "find /var/lib/glovo-bootstrap -type f -exec cat {} +",
];

impl Stage {
    /// Fails if a secret is where none may be.
    pub fn secrets_are_in_their_places_only(&self) -> Result<()> {
        let files = self.files_with_secrets("*")?;
        for (path, hit) in &files {
            ensure!(is_in_memory(path) || is_declared(hit.name, path), "{hit:?} in the file {path}");
        }
        // The search finds what it looks for.
        for (name, path) in declared_files() {
            let is_found = files.iter().any(|(found, hit)| found == path && hit.name == name);
            ensure!(is_found, "{name} is not in {path}");
        }
        for (block, hit) in self.blocks_with_secrets()? {
            ensure!(!is_in_memory_alone(hit.name), "{hit:?} in {block}");
        }
        let patterns = patterns(&canaries());
        for command in OUTPUTS {
            is_clean(command, &self.machine.sh(command)?, &patterns)?;
        }
        for verb in ["plan", "plan --json", "validate"] {
            let verb = self.agent(verb)?;
            is_clean("a plan", &format!("{}{}", verb.stdout, verb.stderr), &patterns)?;
        }
        is_clean("the console", &text(&self.machine.console())?, &patterns)?;
        for log in SERVERS {
            is_clean(log, &text(&self.machine.directory().join(log))?, &patterns)?;
        }
        Ok(())
    }

    /// Fails if a block that belongs to no file has a secret after the first run, such as that of a temporary copy.
    pub fn no_block_has_a_copy(&self) -> Result<()> {
        self.machine.sh("sync")?;
        for image in self.machine.block_images()? {
            for (hit, count) in occurrences(&image)? {
                let files = declared_files().into_iter().filter(|(name, _)| *name == hit.name).count();
                ensure!(hit.form == "plain" && count == files, "{hit:?} {count} times, but in {files} files");
            }
        }
        Ok(())
    }

    /// Returns the files below these directories of `/` that have a secret in any form, also those in memory.
    pub fn files_with_secrets(&self, directories: &str) -> Result<Vec<(String, Hit)>> {
        let script = format!(
            "cd /; grep --recursive --files-with-matches --no-messages --text --fixed-strings --file=/dev/stdin \
             --exclude-dir=proc --exclude-dir=sys --devices=skip -- {directories} || :"
        );
        let mut command = self.machine.command(&["sh", "-euc", &script]);
        let files = fed(&mut command, &texts())?;
        let mut hits = vec![];
        for path in files.lines().map(|path| format!("/{path}")) {
            let content = self.machine.exec(&["cat", &path])?.stdout;
            hits.extend(found(&content, &patterns(&canaries())).into_iter().map(|hit| (path.clone(), hit)));
        }
        Ok(hits)
    }

    /// Returns the images of disks that have a secret in any block, also in a free one.
    fn blocks_with_secrets(&self) -> Result<Vec<(String, Hit)>> {
        self.machine.sh("sync")?;
        let mut hits = vec![];
        for image in self.machine.block_images()? {
            hits.extend(occurrences(&image)?.into_keys().map(|hit| (image.display().to_string(), hit)));
        }
        Ok(hits)
    }
}

/// Returns whether a file is on a file system for credentials, which is in memory and never swapped.
pub fn is_in_memory(path: &str) -> bool {
    IN_MEMORY.iter().any(|directory| path.starts_with(directory))
}

/// Returns how often each form of a secret stands in a file of this machine, which may be large.
pub fn occurrences(file: &Path) -> Result<BTreeMap<Hit, usize>> {
    let mut grep = Command::new("grep");
    grep.args(["--only-matching", "--no-filename", "--text", "--fixed-strings", "--file=/dev/stdin"]).arg(file);
    let patterns = patterns(&canaries());
    let mut counts = BTreeMap::new();
    for line in fed(&mut grep, &texts())?.lines() {
        let hit = patterns.iter().find(|hit| hit.text == line).context(line.to_owned())?;
        *counts.entry(hit.clone()).or_insert(0) += 1;
    }
    Ok(counts)
}

/// Fails if a text has a secret.
pub fn is_clean(what: &str, text: &str, patterns: &[Hit]) -> Result<()> {
    let hits = found(text, patterns);
    let line = text.lines().find(|line| !found(line, patterns).is_empty()).unwrap_or_default();
    ensure!(hits.is_empty(), "{hits:?} in {what}: {line}");
    Ok(())
}

/// All forms of all secrets, one a line.
fn texts() -> String {
    patterns(&canaries()).into_iter().map(|hit| hit.text + "\n").collect()
}

/// Runs a command with this input; grep's exit code 1 means that nothing was found.
fn fed(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("piped")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let code = output.status.code().unwrap_or(2);
    ensure!(code < 2, "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn text(path: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path).with_context(|| path.display().to_string())?).into_owned())
}

/// Looks into the arguments and the environment of all processes of this machine, until it is stopped.
pub struct Sampler {
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

impl Sampler {
    pub fn start() -> Sampler {
        let stopped = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stopped);
        let thread = spawn(move || {
            let (patterns, mut rounds, mut hits) = (patterns(&canaries()), 0, vec![]);
            while !is_stopped.load(Ordering::Relaxed) {
                for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
                    for file in ["cmdline", "environ"] {
                        let path = process.path().join(file);
                        // A process that has ended is no longer there.
                        let Ok(bytes) = fs::read(&path) else { continue };
                        let text = String::from_utf8_lossy(&bytes);
                        hits.extend(found(&text, &patterns).into_iter().map(|hit| format!("{hit:?} in {text:?}")));
                    }
                }
                rounds += 1;
            }
            (rounds, hits)
        });
        Sampler { stopped, thread }
    }

    /// Fails if a process had a secret. Returns how often all processes were looked at.
    pub fn stop(self) -> Result<usize> {
        self.stopped.store(true, Ordering::Relaxed);
        let (rounds, hits) = self.thread.join().expect("no panic");
        ensure!(hits.is_empty(), "{hits:?}");
        Ok(rounds)
    }
}
