//! Downloads side by side: `glovo-bootstrap fetch`, its peers, and the floors.
//!
//!     tests/bench/fetch/needs && cargo run --release -p machine --bin bench-fetch -- [OPTION…]
//!
//!     --rounds N       rounds of each cell, all peers in turn (3)
//!     --only TEXT      only cells whose name contains this: 1x1GiB-http-0ms, s3, 20ms-disk … (may be repeated)
//!     --peers A,B      only these peers
//!     --agent FILE     the agent to measure, instead of the release build of this workspace
//!     --picture FILE   where the picture goes (nowhere)
//!
//! Servers and client are in network namespaces of this run's own; the delay is added between them. The figures of every
//! round go to target/bench-fetch.json.

mod cells;
mod delay;
mod measure;
mod peers;
mod picture;
mod report;
mod s3;
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use cells::Cell;
use peers::{OURS, Peer};
use report::{Results, Series};
use world::World;

/// The delay added to the round trip of the far cells.
const DELAY: Duration = Duration::from_millis(20);
/// A peer that takes longer, in seconds, gets no further round of the cell.
const MAX_SECONDS: f64 = 20.0;

struct Options {
    rounds: usize,
    only: Vec<String>,
    peers: Vec<String>,
    agent: Option<PathBuf>,
    picture: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        // The bench starts this inside its world.
        ["measure", ..] => measure::run(&arguments[1..]),
        ["serve", dir, port] => s3::run(Path::new(dir), port.parse()?),
        ["delay", milliseconds] => delay::run(Duration::from_millis(milliseconds.parse()?)),
        _ => bench(options(&words)?),
    }
}

fn options(words: &[&str]) -> Result<Options> {
    let mut options = Options { rounds: 3, only: Vec::new(), peers: Vec::new(), agent: None, picture: None };
    for pair in words.chunks(2) {
        match *pair {
            ["--rounds", rounds] => options.rounds = rounds.parse().context("--rounds")?,
            ["--only", cell] => options.only.push(cell.into()),
            ["--peers", peers] => options.peers = peers.split(',').map(str::to_owned).collect(),
            ["--agent", file] => options.agent = Some(file.into()),
            ["--picture", file] => options.picture = Some(file.into()),
            _ => bail!("see the head of tests/bench/fetch/main.rs for the options; not understood: {}", pair.join(" ")),
        }
    }
    Ok(options)
}

fn bench(options: Options) -> Result<()> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bench = package.join("../bench/fetch").canonicalize()?;
    let target = package.join("../../target").canonicalize()?;
    let agent = match options.agent {
        Some(agent) => agent.canonicalize().with_context(|| agent.display().to_string())?,
        None => machine::agent()?.to_owned(),
    };
    let mut cells = Cell::all();
    if !options.only.is_empty() {
        cells.retain(|cell| options.only.iter().any(|part| cell.name().contains(part)));
    }
    ensure!(!cells.is_empty(), "no cell of that name");

    let mut peers = peers::peers(&agent, &target.join("bench/venv"));
    if !options.peers.is_empty() {
        peers.retain(|peer| peer.floor || options.peers.iter().any(|name| name == peer.name));
    }
    for Peer { name, about, .. } in &peers {
        println!("{name:<16} {}", about.as_deref().unwrap_or("not available"));
    }
    peers.retain(|peer| peer.about.is_some());

    let dir = target.join("bench").join(format!("world-{}", std::process::id()));
    let world = World::start(dir, &bench, &cells, DELAY)?;
    let [near, far] = world.round_trips()?;
    println!(
        "round trip {near:.2} ms, with the delay {far:.2} ms; load {}",
        fs::read_to_string("/proc/loadavg")?.trim()
    );
    ensure!(far >= DELAY.as_secs_f64() * 1000.0, "the delay is not there");

    let rounds = options.rounds;
    println!("{rounds} rounds, medians; × is the median of the rounds' ratios to {OURS}");
    let about: Value = peers.iter().map(|peer| (peer.name.to_owned(), json!(peer.about))).collect();
    let mut done = Vec::new();
    for cell in &cells {
        let series = peers.iter().map(|peer| Series { peer, rounds: Vec::new(), failure: None }).collect();
        let mut results = Results { cell, series };
        for round in 0..rounds {
            eprintln!("{}: round {} of {rounds}", cell.name(), round + 1);
            measure_round(&world, &mut results, round);
        }
        print!("{}", results.table());
        done.push(results);
        // The results so far, in case this run is stopped.
        let cells: Vec<Value> = done.iter().map(Results::json).collect();
        let json = json!({ "peers": about, "round_trip_ms": [near, far], "cells": cells });
        fs::write(target.join("bench-fetch.json"), serde_json::to_string_pretty(&json)? + "\n")?;
        if let Some(picture) = &options.picture {
            fs::write(picture, picture::svg(&done)?)?;
        }
    }
    Ok(())
}

/// All peers once, each round beginning with another one.
fn measure_round(world: &World, results: &mut Results, round: usize) {
    let count = results.series.len();
    for index in 0..count {
        let series = &mut results.series[(index + round) % count];
        let slow = series.rounds.iter().flatten().any(|figure| figure.wall > MAX_SECONDS);
        let figure = if slow || series.failure.is_some() {
            None
        } else {
            world.measure(series.peer, results.cell).unwrap_or_else(|error| {
                eprintln!("{} failed: {error:#}", series.peer.name);
                series.failure = Some(format!("{error:#}"));
                None
            })
        };
        series.rounds.push(figure);
    }
}
