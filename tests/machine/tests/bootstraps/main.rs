//! The real bootstraps of `examples/world`, on machines whose origins are stand-ins: a case converges, a second run changes
//! nothing, `plan` names each effect that is removed by hand and nothing else, and a run brings all of them back.

mod by_hand;
mod cases;
mod origins;
mod recipes;

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use machine::{Machine, Options};
use serde_json::Value;

use by_hand::ByHand;
use cases::{APPLICATIONS, BUILDS, Case, SYSTEM};

const WORLD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/world");

#[test]
fn bootstraps_of_applications_converge_and_drift_is_seen() -> Result<()> {
    all(&APPLICATIONS)
}

#[test]
fn bootstraps_of_builds_converge_and_drift_is_seen() -> Result<()> {
    all(&BUILDS)
}

#[test]
fn bootstraps_of_the_system_converge_and_drift_is_seen() -> Result<()> {
    all(&SYSTEM)
}

/// Runs the cases one after the other on one machine.
fn all(cases: &[Case]) -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    let variables = origins::publish(&machine)?;
    for case in cases {
        converges(&machine, case, &variables).with_context(|| format!("the case {}", case.id))?;
    }
    Ok(())
}

fn converges(machine: &Machine, case: &Case, variables: &[String]) -> Result<()> {
    let manifest = format!("{WORLD}/{}.toml", case.id);
    let steps = format!("/root/{}.toml", case.id);
    let text = fs::read_to_string(&manifest).context(manifest)?;
    fs::write(machine.path(&steps), &text)?;
    machine.sh(case.image)?;
    let has =
        |variable: &&str| variable.split_once('=').is_some_and(|(name, _)| text.contains(&format!("\n{name} = ")));
    let of_case = variables.iter().map(String::as_str).chain(origins::repository(case.id)).filter(has);
    let set = of_case.flat_map(|variable| ["--set", variable]);
    let options: Vec<&str> = ["--steps", &steps, "--variables", origins::SECRETS].into_iter().chain(set).collect();
    let run = || machine.agent(&[&["run"][..], &options].concat());

    ensure!(run()?.success()?.contains("converged: "));
    let second = run()?.success()?;
    ensure!(second.contains("converged: 0 changes"), "{second}");

    let plan = || -> Result<Vec<(String, bool)>> {
        let plan = machine.agent(&[&["plan", "--json"][..], &options].concat())?;
        outcomes(&plan.stdout).with_context(|| format!("{plan:?}"))
    };
    let declared = plan()?;
    ensure!(declared.iter().all(|(_, is_pending)| !is_pending), "{declared:#?}");
    let mut named = BTreeSet::new();
    // From the last one on: what needs an effect is named before it.
    for (resource, _) in declared.iter().rev() {
        let Some(ByHand { remove, restore }) = by_hand::of(resource, case.by_hand) else { continue };
        machine.sh(&remove)?;
        let pending = plan()?.into_iter().filter_map(|(name, is_pending)| is_pending.then_some(name));
        let pending: BTreeSet<String> = pending.filter(|name| !by_hand::is_check(name)).collect();
        let new: Vec<&String> = pending.difference(&named).filter(|name| !by_hand::goes_with(name, resource)).collect();
        ensure!(new == [resource], "after `{remove}`, plan names {new:#?}, not {resource} alone");
        if restore.is_empty() {
            named = pending;
        } else {
            machine.sh(&restore)?;
        }
    }
    run()?.success().context("after everything was removed by hand")?;
    let last = run()?.success()?;
    ensure!(last.contains("converged: 0 changes"), "{last}");
    Ok(())
}

/// The resources of a plan, in their order, and whether something is to be done there.
fn outcomes(plan: &str) -> Result<Vec<(String, bool)>> {
    let report: Value = serde_json::from_str(plan)?;
    let steps = report["steps"].as_array().context("no steps")?;
    let resources = steps.iter().filter_map(|step| step["resources"].as_array()).flatten();
    let outcome = |resource: &Value| {
        let name = resource["resource"].as_str().context("no resource")?.to_owned();
        Ok((name, resource["outcome"] != "unchanged"))
    };
    resources.map(outcome).collect()
}
