//! Whole bootstraps side by side, each on a fresh machine on the disk: the agent, a bash script, and the floor.
//!
//!     cargo run --release -p machine --bin bench-bootstrap [ROUNDS] [own]
//!
//! Prints medians and ratios of wall time and of the whole machine's CPU time, for the cold run and for the second one.
//! With `own`, the archives are compressed as Debian does it, with xz.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use machine::{Machine, Options, Upper};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike},
};

/// How many second runs are measured on each machine: they are short.
const SECOND_RUNS: usize = 10;

/// Seconds of one run.
#[derive(Clone, Copy)]
struct Figure {
    wall: f64,
    cpu: f64,
}

#[derive(Default)]
struct Contender {
    cold: Vec<Figure>,
    second: Vec<Figure>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: bench-bootstrap [ROUNDS] [own]";
    let rounds = arguments.first().map_or(Ok(5), |rounds| rounds.parse()).context(usage)?;
    let own = match arguments.get(1).map(String::as_str) {
        None => false,
        Some("own") => true,
        Some(_) => bail!(usage),
    };
    let (mut agent, mut bash, mut floor) = (Contender::default(), Contender::default(), Contender::default());
    // They take turns, so that a change of the host's speed affects all three.
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        bootstrap(&mut agent, own, |machine| machine.bootstrap(&["run"])?.success())?;
        bootstrap(&mut bash, own, |machine| machine.sh(&script(machine, "bootstrap.sh")?))?;
        let machine = boot(own)?;
        let script = script(&machine, "floor.sh")?;
        floor.cold.push(measure(&machine, || machine.sh(&script))?);
    }
    println!("{rounds} rounds, medians in seconds; a ratio is the median of the rounds' ratios");
    row("cold run: agent", &agent.cold, &[("bash", &bash.cold), ("floor", &floor.cold)]);
    row("cold run: bash", &bash.cold, &[("floor", &floor.cold)]);
    row("cold run: floor (apt-get)", &floor.cold, &[]);
    row("second run: agent", &agent.second, &[("bash", &bash.second)]);
    row("second run: bash", &bash.second, &[]);
    Ok(())
}

fn boot(own: bool) -> Result<Machine> {
    let machine = Machine::boot(Options { upper: Upper::Disk, ..Options::default() })?;
    if own {
        _ = machine.sh("sed -i '1s,/debian ,/own ,' /etc/apt/sources.list; grep -q /own /etc/apt/sources.list")?;
    }
    Ok(machine)
}

fn bootstrap(contender: &mut Contender, own: bool, run: impl Fn(&Machine) -> Result<String>) -> Result<()> {
    let machine = boot(own)?;
    contender.cold.push(measure(&machine, || run(&machine))?);
    let curl = machine.world().command("curl").args(["--fail", "--silent", "http://172.31.0.10/"]).output()?;
    ensure!(curl.status.success(), "the machine does not serve");
    for _ in 0..SECOND_RUNS {
        contender.second.push(measure(&machine, || run(&machine))?);
    }
    Ok(())
}

/// A script beside this file, with the variables of the built-in steps in front.
fn script(machine: &Machine, name: &str) -> Result<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench").join(name))?;
    let variables: String = machine.variables()?.iter().map(|variable| format!("export {variable}\n")).collect();
    let path = machine.path("/root/script");
    std::fs::write(&path, format!("#!/bin/bash\nexport app_version=1.0.0\n{variables}{text}"))?;
    Ok("exec bash /root/script".into())
}

fn measure(machine: &Machine, run: impl Fn() -> Result<String>) -> Result<Figure> {
    let (cpu, start) = (cpu_seconds(machine)?, Instant::now());
    _ = run()?;
    Ok(Figure { wall: start.elapsed().as_secs_f64(), cpu: cpu_seconds(machine)? - cpu })
}

/// CPU time of all that a run sets in motion: what we entered the machine with and waited for, and its services, which
/// are in the machine's control group.
fn cpu_seconds(machine: &Machine) -> Result<f64> {
    let ours = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
    let stat = machine.sh("cat /sys/fs/cgroup/cpu.stat")?;
    let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("no usage_usec in cpu.stat")?;
    Ok(usage.trim().parse::<f64>()? / 1e6 + seconds(ours.user_time()) + seconds(ours.system_time()))
}

fn row(name: &str, figures: &[Figure], others: &[(&str, &Vec<Figure>)]) {
    let of = |figures: &[Figure], value: fn(&Figure) -> f64| median(figures.iter().map(value).collect());
    let mut line = format!("{name:28} wall {:8.3}  cpu {:8.3}", of(figures, |f| f.wall), of(figures, |f| f.cpu));
    for (other, theirs) in others {
        let ratio = |value: fn(&Figure) -> f64| {
            median(figures.iter().zip(theirs.iter()).map(|(ours, theirs)| value(ours) / value(theirs)).collect())
        };
        line += &format!("   {:.3}× wall, {:.3}× cpu of {other}", ratio(|f| f.wall), ratio(|f| f.cpu));
    }
    println!("{line}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
