//! `bake`: a run that makes an image, and its seal.

use std::rc::Rc;

use anyhow::Result;

use crate::{
    cli::{self, Seal},
    error::Fault,
    first_boot::{self, KeptSettings, image::FirstBootBy, resolver},
    image::{
        credentials::{self, FoundCredential, is_allowed},
        seal::{self, OnRequest},
        swap,
    },
    manifest::Manifest,
    resource::{Kind, swap::Swap},
    run::report::Report,
    system::System,
    view::{count, say},
    visible::Shown,
};

pub(super) fn execute(
    system: &Rc<System>,
    manifest: &cli::ManifestArgs,
    selection: &cli::SelectionArgs,
    arguments: &Seal,
) -> Result<u8> {
    if arguments.seal {
        first_boot::image::refuse_other_way(&system.host, arguments.first_boot)?;
    }
    let (_lock, manifest, report) = super::run(system, manifest, selection, None)?;
    match report.exit_code {
        Some(0) => {}
        code => {
            if arguments.seal {
                say("not sealed: the run has failed");
            }
            return Ok(code.unwrap_or(1));
        }
    }
    if arguments.seal {
        if arguments.first_boot == FirstBootBy::Agent {
            let tell = |change: &str| say(format!("  + {change}"));
            let kept = kept(&manifest, &report);
            let prepared = first_boot::image::prepare(system, arguments.login_user.as_deref(), kept, &tell);
            prepared.inspect_err(|_| say("not sealed: the first boot could not be prepared"))?;
            say("first boot: by this program; cloud-init is disabled in this image");
        }
        seal_image(system, arguments, &manifest)?;
    }
    say(Shown::lines(&left_to_the_boot(&report)));
    Ok(0)
}

/// Returns what this bake has put into the image, and an instance keeps. A resource that is left to the boot does not count,
/// nor does a step that was not picked.
fn kept(manifest: &Manifest, report: &Report) -> KeptSettings {
    let has_run = |name: &str| report.steps.iter().any(|step| step.name == name && !step.resources.is_empty());
    let made = || manifest.steps.iter().filter(|step| has_run(&step.name)).flat_map(|step| &step.resources);
    let is_file = |file: &str| made().any(|made| made.resource.owned_path().is_some_and(|path| path.as_str() == file));
    let is_named = made().any(|made| made.resource.owned_things().iter().any(|(field, _)| *field == "hostname"));
    KeptSettings { hostname: is_named || is_file("/etc/hostname"), resolv_conf: is_file(resolver::FILE) }
}

fn seal_image(system: &System, arguments: &Seal, manifest: &Manifest) -> Result<()> {
    let declared = || manifest.steps.iter().flat_map(|step| &step.resources);
    let secrets: Vec<_> = declared().flat_map(|declared| declared.resource.secrets()).collect();
    let swap_files = declared().filter(|declared| declared.kind == Swap::NAME);
    let swap_files = swap_files.flat_map(|declared| declared.resource.made_paths()).collect();
    let mut changes = 0;
    // Without cloud-init, sshd would serve with the keys of the image on all its instances.
    let host_keys = arguments.on_request.host_keys || arguments.first_boot == FirstBootBy::Agent;
    seal::seal(&system.host, OnRequest { host_keys, ..arguments.on_request }, |change| {
        changes += 1;
        say(format!("  - {change}"));
    })?;
    // The report is of this machine, and must not be read on another.
    Report::remove(system)?;
    for (path, keys) in seal::authorized_keys(&system.host)? {
        let keys = count(keys, "key");
        say(format!("  note: {path} ({keys}) can log in to every instance; --authorized-keys removes it"));
    }
    let mut findings = seal::declared_secrets(&system.host, &secrets)?;
    let mut others = swap::remove(&system.host, &swap_files, |change| {
        changes += 1;
        say(format!("  - {change}"));
    })?;
    others.extend(seal::logins(&system.host, system.vault_files())?);
    others.extend(credentials::search(&system.host, &arguments.allow)?);
    for found in others {
        let is_known = findings.iter().any(|known| known.path == found.path && known.line == found.line);
        if !is_known && !secrets.contains(&&found.path) && !is_allowed(&arguments.allow, &found.path) {
            findings.push(found);
        }
    }
    for FoundCredential { path, line, what } in &findings {
        say(format!("  ! {path}:{line}: {what}"));
    }
    if !findings.is_empty() {
        let message = format!("the image would hold {}", count(findings.len(), "credential"));
        return Err(Fault::new(message)
            .hint("remove them and seal again; to keep a file in the image, pass --allow PATH")
            .into());
    }
    let changes = if changes == 0 { "nothing to remove".into() } else { count(changes, "change") };
    say(format!("sealed: {changes}, no credentials found"));
    Ok(())
}

/// Returns the deferred changes, which a machine that boots the image makes.
fn left_to_the_boot(report: &Report) -> String {
    let mut lines = vec![];
    for step in &report.steps {
        let resources = step.resources.iter();
        let deferred: Vec<String> = resources
            .flat_map(|resource| resource.changes.iter().map(|change| (&resource.resource, change)))
            .filter(|(_, change)| change.deferred)
            .map(|(resource, change)| format!("  - {resource}: {}", change.summary))
            .collect();
        if !deferred.is_empty() {
            lines.push(format!("step {}:", step.name));
            lines.extend(deferred);
        }
    }
    if lines.is_empty() {
        "left to the boot: nothing".into()
    } else {
        format!("left to the boot:\n{}", lines.join("\n"))
    }
}
