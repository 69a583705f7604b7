//! The demonstration: a bare machine boots, bootstraps itself from its user-data, serves, and a second run changes
//! nothing. `demo --keep` and `demo shell` end in a shell in the machine. With `--family rpm`, dnf is its only package
//! manager.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use machine::{Machine, Options, Release, UserData};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (verb, release) = match arguments[..] {
        [ref verb @ .., "--family", "rpm"] => (verb, Release::Amazon),
        ref verb => (verb, Release::default()),
    };
    match *verb {
        [] => demo(release, false),
        ["--keep"] => demo(release, true),
        ["shell"] => shell(&Machine::boot(Options { release, ..Options::default() })?),
        _ => bail!("usage: demo [--keep | shell] [--family rpm]"),
    }
}

fn demo(release: Release, keep: bool) -> Result<()> {
    let user_data = Some(UserData::Bootstrap);
    let mut machine = Machine::new(Options { release, user_data, ..Options::default() })?;
    let name = if release == Release::Amazon { "machine in the shape of Amazon Linux 2023" } else { "Debian" };
    title(&format!("A bare {name} boots; its user-data:"));
    print!("{}", machine.world().user_data().unwrap_or_default());
    let start = Instant::now();
    machine.power_on()?;

    title("What the machine says:");
    follow_user_data(&machine)?;
    machine.wait_until_booted()?;
    println!("{:.1} s from power on", start.elapsed().as_secs_f32());
    machine.exec(&["cloud-init", "status"])?.success().context("the user-data failed")?;

    title("What a client sees, and after the empty line what the application saw:");
    let curl = machine.world().command("curl").args(["-si", "http://172.31.0.10/any/path"]).output()?;
    let answer = String::from_utf8_lossy(&curl.stdout);
    print!("{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    for (who, text) in [("the client", head), ("the application", body)] {
        let header = "x-glovo-systems-engineer-candidate: 1";
        ensure!(text.to_lowercase().contains(header), "{who} did not see {header}");
    }

    title("The run, step by step (glovo-bootstrap status):");
    print!("{}", machine.agent(&["status"])?.success()?);

    title("The boot as a picture (glovo-bootstrap status --timeline -):");
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/boot.svg");
    fs::write(&picture, machine.agent(&["status", "--timeline", "-"])?.success()?)?;
    println!("{}", picture.canonicalize()?.display());

    title("The same once more:");
    print!("{}", machine.bootstrap(&["run"])?.success()?);

    if keep {
        shell(&machine)?;
    }
    title("Power off");
    machine.power_off()
}

/// Prints what user-data prints, as it comes, until it has ended.
fn follow_user_data(machine: &Machine) -> Result<()> {
    let mut tail = machine
        .command(&["sh", "-c", "tail --pid=$$ -n +1 -F /var/log/cloud-init-output.log 2>/dev/null & exec cloud-init status --wait > /dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(tail.stdout.take().expect("piped")).lines();
    let final_stage =
        |line: &std::io::Result<String>| line.as_ref().is_ok_and(|line| line.contains("running 'modules:final'"));
    for line in lines.skip_while(|line| !final_stage(line)).skip(1) {
        println!("  {}", line?);
    }
    tail.wait()?;
    Ok(())
}

fn shell(machine: &Machine) -> Result<()> {
    title("A shell in the machine; leave it, and the machine is gone");
    machine.command(&["bash", "--login"]).status()?;
    Ok(())
}

fn title(text: &str) {
    println!("\n== {text}");
}
