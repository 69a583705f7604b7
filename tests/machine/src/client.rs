//! A client of a machine: it asks again and again, and notes each answer.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::world::World;

/// Asks every 50 ms. An answer is a line; `-` stands for none.
const SCRIPT: &str = "
import sys, time, urllib.request
while True:
    try:
        answer = urllib.request.urlopen(sys.argv[1], timeout=1).read().decode().strip()
    except OSError:
        answer = '-'
    print(answer, flush=True)
    time.sleep(0.05)
";
/// The pause between two questions.
pub const PAUSE: Duration = Duration::from_millis(50);

/// A running client, which ends when dropped.
pub struct Client {
    process: Child,
    log: PathBuf,
}

impl Client {
    /// Starts a client of a URL in a world's network; its answers go into `dir`.
    pub fn start(world: &World, url: &str, dir: &Path) -> Result<Client> {
        let log = dir.join("answers");
        let mut python = world.command("setpriv");
        let python = python
            .args(["--pdeathsig", "KILL", "python3", "-Ic", SCRIPT, url])
            .stdin(Stdio::null())
            .stdout(File::create(&log)?);
        Ok(Client { process: python.spawn()?, log })
    }

    /// Returns the answers so far.
    pub fn answers(&self) -> Result<Vec<String>> {
        Ok(fs::read_to_string(&self.log)?.lines().map(str::to_owned).collect())
    }

    /// Waits until a question is answered like this.
    pub fn wait_for(&self, answer: &str) -> Result<()> {
        let start = Instant::now();
        while self.answers()?.last().is_none_or(|last| last != answer) {
            ensure!(start.elapsed() < Duration::from_secs(60), "no `{answer}`: {:?}", self.answers()?.last());
            sleep(PAUSE);
        }
        Ok(())
    }

    /// Returns how many questions had no answer.
    pub fn unanswered(&self) -> Result<usize> {
        Ok(self.answers()?.iter().filter(|answer| *answer == "-").count())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
