//! What a run costs that has nothing to do: medians on a converged machine, beside a bash script that checks the same and
//! beside the floors under both.
//!
//!     cargo run --package machine --bin bench-second-run [ROUNDS]

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use machine::{Machine, Options, Tree, Upper};

/// Of each command in turn, so that a noisy moment meets all of them.
const ROUNDS: &str = "25";
/// Times `NAME=COMMAND` arguments, the first being the number of rounds: `microseconds NAME` for each that has a name.
const STOPWATCH: &str = r#"
    rounds=$1; shift
    for ((round = 0; round < rounds; round++)); do
        for named; do
            read -ra command <<< "${named#*=}"
            start=$EPOCHREALTIME
            "${command[@]}" > /dev/null || { echo "$named failed" >&2; exit 1; }
            end=$EPOCHREALTIME
            [ -z "${named%%=*}" ] || echo "$((${end/./} - ${start/./})) ${named%%=*}"
        done
    done
"#;

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).unwrap_or_else(|| ROUNDS.into());
    let mut machine = Machine::boot(Options { tree: Tree::Converged, upper: Upper::Disk, ..Options::default() })?;
    machine.wait_until_serving()?;
    let agent = "/usr/local/bin/glovo-bootstrap run";
    let built_in = format!("{agent} --set {}", machine.variables()?.join(" --set "));
    let thousand = format!("{agent} --steps /root/thousand-files.toml");
    fs::write(machine.path("/root/thousand-files.toml"), machine::step_of_files("/srv/files", 1000))?;
    machine.sh(&format!("mkdir /srv/files; {built_in}; {thousand}"))?;
    let files = "/var/www/glovo-app/*.jar /etc/nginx/sites-enabled/default /etc/systemd/system/glovo-app.service";
    machine.sh(&format!("sha256sum {files} > /root/sums"))?;
    let guards = include_str!("guards.sh").replace("SWAP_FILE", &machine.swap_path());
    fs::write(machine.path("/root/guards.sh"), guards)?;

    let commands = [
        format!("(a) built-in steps, in place={built_in}"),
        "    systemctl show alone=systemctl show --property ActiveState -- glovo-app.service nginx.service".into(),
        "    a process that does nothing=/bin/true".into(),
        format!("(b) 1,000 files, in place={thousand}"),
        "    cat of them all=find /srv/files -type f -exec cat {} +".into(),
        "(c) bash with guards=bash /root/guards.sh".into(),
        // The next run reads the report of the last one, and that of a thousand files is long.
        format!("={built_in}"),
    ];
    let stopwatch = ["bash", "-c", STOPWATCH, "stopwatch", &rounds];
    let arguments: Vec<&str> = stopwatch.into_iter().chain(commands.iter().map(String::as_str)).collect();
    let mut times: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for line in machine.exec(&arguments)?.success()?.lines() {
        let (microseconds, name) = line.split_once(' ').context("a time and a name")?;
        times.entry(name.into()).or_default().push(microseconds.parse()?);
    }
    println!("medians of {rounds} rounds (quickest … slowest), in milliseconds");
    for name in commands.iter().filter_map(|command| command.split('=').next()).filter(|name| !name.is_empty()) {
        let times = times.get_mut(name).context("no times")?;
        times.sort_unstable();
        let milliseconds = |index: usize| f64::from(times[index]) / 1000.0;
        let (median, last) = (milliseconds(times.len() / 2), times.len() - 1);
        println!("{name:34} {median:7.1}  ({:.1} … {:.1})", milliseconds(0), milliseconds(last));
    }
    Ok(())
}
