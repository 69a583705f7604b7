//! A machine's signal to CloudFormation, and its failure block on the console.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use machine::{Fault, Machine, Options, Output, Tree};

const ENDPOINT: &str = "AWS_ENDPOINT_URL_CLOUDFORMATION=http://cloudformation.eu-central-1.amazonaws.com";
const SIGNAL: &str = "GET cloudformation.eu-central-1.amazonaws.com/?Action=SignalResource&";

/// The built-in steps, and these variables instead of the world's own.
fn run(machine: &Machine, variables: &[&str]) -> Result<Output> {
    let set = [machine.variables()?, variables.iter().map(ToString::to_string).collect()].concat();
    let set = set.iter().flat_map(|variable| ["--set", variable]);
    let run = ["env", ENDPOINT, "glovo-bootstrap", "run", "--signal", "app/Group"];
    machine.exec(&run.into_iter().chain(set).collect::<Vec<_>>())
}

/// What CloudFormation was told so far.
fn signals(machine: &Machine) -> Vec<String> {
    let lines = machine.world().requests().into_iter().map(|request| request.line());
    lines.filter_map(|line| line.strip_prefix(SIGNAL).map(str::to_owned)).collect()
}

#[test]
fn a_serving_machine_signals_success_a_failed_one_says_why() -> Result<()> {
    let machine = Machine::boot(Options { tree: Tree::Converged, ..Options::default() })?;
    let busy = || machine.world().fault("^GET cloudformation", 1, Fault::status(503));
    let taken = || machine.world().fault("^GET cloudformation", 1, Fault::status(200));
    busy();
    taken();
    let said = run(&machine, &[])?.success()?;
    ensure!(said.contains("signalled SUCCESS to app/Group as i-0123456789abcdef0"), "{said}");
    let told = "ContentType=JSON&LogicalResourceId=Group&StackName=app";
    let success = format!("{told}&Status=SUCCESS&UniqueId=i-0123456789abcdef0&Version=2010-05-15");
    assert_eq!(signals(&machine), [success.clone(), success]);

    taken();
    let digest = format!("jar_sha256={:064}", 0);
    let run = run(&machine, &["app_version=2", "jar_url=http://origin.test/none.jar?signature=canary", &digest])?;
    ensure!(run.code == 1, "{run:?}");
    let failure = "Status=FAILURE&UniqueId=i-0123456789abcdef0%20copy_http_resources&Version=2010-05-15";
    assert_eq!(signals(&machine)[2..], [format!("{told}&{failure}")]);
    // It comes through a terminal and systemd-nspawn.
    let start = Instant::now();
    let block = loop {
        let console = fs::read_to_string(machine.console())?;
        let begin = console.find("-----BEGIN GLOVO-BOOTSTRAP FAILURE-----").unwrap_or(console.len());
        let block = console[begin..].replace('\r', "");
        if block.contains("-----END GLOVO-BOOTSTRAP FAILURE-----") {
            break block;
        }
        ensure!(start.elapsed() < Duration::from_secs(10), "the console says `{console}`, and {run:?}");
        sleep(Duration::from_millis(20));
    };
    for line in
        ["step: copy_http_resources", "instance: i-0123456789abcdef0", "caused by: the server answered 404 Not Found"]
    {
        ensure!(block.lines().any(|said| said == line), "no `{line}` in\n{block}");
    }
    ensure!(!block.contains("canary"), "{block}");
    Ok(())
}
