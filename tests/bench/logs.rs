//! Measures `logger` on a machine with a forwarder beside the same machine without it, and how fast the records arrive.
//!
//!   bench-logs [ROUNDS [CALLS [LINES]]]
//!
//! A round calls `logger` so many times without the forwarder, and then with it, while the collector is there; while it is
//! away; and while the forwarder is stopped by SIGSTOP. The rounds are interleaved, and a ratio is within one round.

use std::time::Instant;

use anyhow::{Context, Result};
use machine::logs::Pair;

/// Prints the median and the longest time of calls of `logger`, in microseconds.
const CALLS: &str = r#"
import subprocess, sys, time
times = []
for number in range(int(sys.argv[1])):
    begin = time.monotonic_ns()
    subprocess.run(["logger", "--tag", "app", f"call {number}"], check=True)
    times.append((time.monotonic_ns() - begin) // 1000)
times.sort()
print(times[len(times) // 2], times[-1])
"#;

/// The cases after the one without a forwarder: what begins and what ends each.
const CASES: [(&str, &str, &str); 3] = [
    ("with it", "true", "true"),
    ("the collector away", "collector: systemctl stop log-collector", "collector: systemctl start log-collector"),
    (
        "the forwarder stopped by SIGSTOP",
        "systemctl kill --signal=STOP log-forward-app",
        "systemctl kill --signal=CONT log-forward-app",
    ),
];

fn main() -> Result<()> {
    let arguments: Vec<u64> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let number = |index: usize, usual: u64| arguments.get(index).copied().unwrap_or(usual);
    let (rounds, calls, lines) = (number(0, 5), number(1, 300), number(2, 20_000));
    let pair = Pair::boot("256MiB")?;
    std::fs::write(pair.sender.path("/root/calls.py"), CALLS)?;
    let measure = || -> Result<(u64, u64)> {
        let said = pair.sender.sh(&format!("python3 /root/calls.py {calls}"))?;
        let (median, longest) = said.trim().split_once(' ').context("two numbers")?;
        Ok((median.parse()?, longest.parse()?))
    };
    let on_its_machine = |script: &str| match script.strip_prefix("collector: ") {
        Some(script) => pair.collector.sh(script),
        None => pair.sender.sh(script),
    };
    println!("| round | case | median | longest | ratio of medians |\n| --- | --- | --- | --- | --- |");
    let mut ratios = CASES.map(|_| vec![]);
    for round in 1..=rounds {
        pair.sender.sh("systemctl stop log-forward-app")?;
        let (without, longest) = measure()?;
        println!("| {round} | without a forwarder | {without} µs | {longest} µs | |");
        pair.sender.sh("systemctl start log-forward-app")?;
        for ((case, begin, end), ratios) in CASES.into_iter().zip(&mut ratios) {
            on_its_machine(begin)?;
            let (median, longest) = measure()?;
            on_its_machine(end)?;
            #[expect(clippy::cast_precision_loss, reason = "microseconds")]
            let ratio = median as f64 / without as f64;
            println!("| {round} | {case} | {median} µs | {longest} µs | {ratio:.2} |");
            ratios.push(ratio);
        }
    }
    for ((case, _, _), ratios) in CASES.into_iter().zip(&mut ratios) {
        ratios.sort_by(f64::total_cmp);
        println!("{case}: median of {rounds} ratios: {:.2}", ratios[ratios.len() / 2]);
    }
    let begin = Instant::now();
    pair.sender.sh(&format!("seq -f 'drain %.0f' {lines} | logger --tag app"))?;
    pair.wait_for_count("message:drain", lines)?;
    // `wait_for_count` looks for surplus records for 2 s.
    let seconds = begin.elapsed().as_secs_f64() - 2.0;
    #[expect(clippy::cast_precision_loss, reason = "a number of lines")]
    let rate = lines as f64 / seconds;
    println!("{lines} lines arrived in {seconds:.1} s: {rate:.0} per second");
    Ok(())
}
