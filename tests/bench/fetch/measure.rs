//! What one download takes. A process of its own starts the client and waits for it, because the kernel adds up the
//! figures of a process's children, and never forgets the largest of them.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::json;

/// Of a client and all processes it has started and waited for.
#[derive(Clone, Copy)]
pub struct Figure {
    /// Seconds from start to exit.
    pub wall: f64,
    /// Seconds of CPU, user and system.
    pub cpu: f64,
    /// The most memory that one of them held, in MiB.
    pub memory: f64,
}

impl Figure {
    /// From what `run` has printed.
    pub fn parse(text: &str) -> Result<Figure> {
        let value: serde_json::Value = serde_json::from_str(text)?;
        let field = |name| value[name].as_f64().context("no figure");
        Ok(Figure { wall: field("wall")?, cpu: field("cpu")?, memory: field("memory")? })
    }
}

/// Runs the command and prints its figure. What the client prints goes to standard error.
pub fn run(command: &[String]) -> Result<()> {
    let (program, arguments) = command.split_first().context("measure COMMAND…")?;
    let start = Instant::now();
    let status = Command::new(program).args(arguments).stdout(std::io::stderr()).status().context(program.clone())?;
    let wall = start.elapsed().as_secs_f64();
    ensure!(status.success(), "{program}: {status}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu = (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6;
    println!("{}", json!({ "wall": wall, "cpu": cpu, "memory": usage.max_rss() as f64 / 1024.0 }));
    Ok(())
}
