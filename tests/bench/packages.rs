//! The download of the built-in steps' packages: an agent, another one, and plain apt-get, side by side.
//!
//!     cargo run --release -p machine --bin bench-packages OTHER_AGENT [ROUNDS [DELAY_MS]]
//!
//! Prints medians and ratios of wall time from the installation's begin to the start of dpkg, which does nothing here.
//! The delay is added to the way from the mirror to the machine.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use machine::{Machine, Options, Upper};

const MANIFEST: &str =
    "name = \"packages\"\n[[resource]]\nkind = \"package\"\nnames = [\"nginx\", \"default-jre-headless\"]\n";
/// Whom the product and its floor run: an installation that ends where dpkg would begin.
const NO_DPKG: &str = "Dir::Bin::dpkg \"/bin/true\";\n";
/// Microseconds of a command whose archives are not there.
const STOPWATCH: &str = "
    apt-get clean; sync
    start=$EPOCHREALTIME
    $1 > /root/output 2>&1
    end=$EPOCHREALTIME
    (set -- /var/cache/apt/archives/*.deb; [ $# -gt 20 ]) || { cat /root/output >&2; exit 1; }
    echo $((${end/./} - ${start/./}))";
const APT_GET: &str = "apt-get -qq -y -oAPT::Install-Recommends=false install nginx default-jre-headless";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let other = arguments.next().context("usage: bench-packages OTHER_AGENT [ROUNDS [DELAY_MS]]")?;
    let rounds: usize = arguments.next().map_or(Ok(10), |rounds| rounds.parse())?;
    let delay: u32 = arguments.next().map_or(Ok(0), |delay| delay.parse())?;

    let machine = Machine::boot(Options { upper: Upper::Disk, ..Options::default() })?;
    std::fs::write(machine.path("/root/packages.toml"), MANIFEST)?;
    _ = std::fs::copy(&other, machine.path("/root/other"))?;
    _ = machine.sh("apt-get -qq update")?;
    std::fs::write(machine.path("/etc/apt/apt.conf.d/99no-dpkg"), NO_DPKG)?;
    let mut line = (delay > 0).then(|| lengthen(&machine, delay)).transpose()?;

    let run = |agent: &str| format!("{agent} run --steps /root/packages.toml");
    let commands = [run("glovo-bootstrap"), run("/root/other"), APT_GET.into()];
    let mut times = [const { Vec::new() }; 3];
    // They take turns, so that a change of the host's speed affects all three.
    for _ in 0..rounds {
        for (command, times) in commands.iter().zip(&mut times) {
            let microseconds = machine.exec(&["bash", "-c", STOPWATCH, "stopwatch", command])?.success()?;
            times.push(microseconds.trim().parse::<f64>()? / 1e6);
        }
    }
    if let Some(line) = &mut line {
        // It ends when its standard input ends.
        drop(line.stdin.take());
        _ = line.wait()?;
    }

    println!("{rounds} rounds, {delay} ms added; medians in seconds; a ratio is the median of the rounds' ratios");
    let [ours, ..] = &times;
    for (name, times) in ["agent", "other agent", "apt-get"].iter().zip(&times) {
        let ratios = ours.iter().zip(times).map(|(ours, theirs)| ours / theirs).collect();
        println!("{name:12} {:6.3}   agent: {:.3}×", median(times.clone()), median(ratios));
    }
    Ok(())
}

fn lengthen(machine: &Machine, delay: u32) -> Result<Child> {
    let mut line = machine
        .world()
        .command("python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/delay.py"))
        .arg(delay.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    _ = BufReader::new(line.stdout.take().context("piped")?).read_line(&mut said)?;
    ensure!(said == "ready\n", "the delay line is not ready");
    Ok(line)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
