//! `deploy`: executes the verbs on one or two stacks.

use std::{path::Path, rc::Rc};

use anyhow::{Context, Result};
use nix::unistd::{getegid, geteuid};

use super::{Reading, invalid, load, suppose, variables_of};
use crate::{
    aws::account::AwsSettings,
    cli::{self, DeployVerb},
    deploy::{Deploy, ManagersOn, artifacts::Artifacts, shape::Strategy},
    error::Fault,
    host::root::{Ownership, Root, trusted::Trusted},
    manifest::{self, built_in, location::Location, texts::Texts},
    net::settings::NetworkSettings,
    packages::manager::Family,
    stop::Interrupt,
    system::{Mode, Phase, System},
    value::AbsPath,
    view::say,
};

pub(super) fn execute(arguments: cli::DeployArguments) -> Result<u8> {
    let verb = arguments.verb;
    check_name(&arguments.stack)?;
    let (settings, file) = arguments.settings.with_file(arguments.settings_file.as_ref())?;
    let strategy = Strategy::named(settings.strategy.as_deref())?;
    let mut system = System::open(Path::new("/"), Mode::Plan, Interrupt::install()?)?;
    let chosen = AwsSettings {
        profile: settings.profile.clone(),
        region: settings.region.clone(),
        bucket_owner: settings.bucket_owner.clone(),
    };
    system.connect(NetworkSettings::default(), chosen);
    let mut deploy = Deploy {
        system,
        settings,
        strategy,
        texts: None,
        package_managers: Box::new(|_| Ok(vec![])),
        stack: arguments.stack,
        poll: arguments.poll.0,
        json: arguments.json,
        yes: arguments.yes,
    };
    if let Some(file) = file {
        deploy.say(&format!("settings: {file}"));
    }
    if matches!(verb, DeployVerb::CreateStack | DeployVerb::UpdateStack | DeployVerb::Plan | DeployVerb::Render) {
        (deploy.texts, deploy.package_managers) = texts(&deploy)?;
    }
    match verb {
        DeployVerb::Watch => deploy.watch().map(|()| 0),
        DeployVerb::Diagnose => each(deploy, Deploy::diagnose),
        DeployVerb::Drift => each(deploy, Deploy::drift),
        DeployVerb::History => each(deploy, |deploy| deploy.history().map(|()| 0)),
        DeployVerb::DeleteStack => each(deploy, |deploy| deploy.delete().map(|()| 0)),
        _ => {
            // These verbs need both slots, even if the user names the stack of one slot.
            let name = deploy.name().to_owned();
            deploy.stack = name;
            match verb {
                DeployVerb::CreateStack => deploy.execute(true).map(|()| 0),
                DeployVerb::UpdateStack => deploy.execute(false).map(|()| 0),
                DeployVerb::Plan => deploy.plan().map(|()| 0),
                DeployVerb::Status => deploy.status(),
                DeployVerb::Rollback => deploy.roll_back(arguments.build).map(|()| 0),
                _ => render(&deploy, &arguments.output_dir).map(|()| 0),
            }
        }
    }
}

/// Acts on each of the selected stacks; returns the highest exit code.
fn each(mut deploy: Deploy, act: impl Fn(&Deploy) -> Result<u8>) -> Result<u8> {
    let mut code = 0;
    for stack in deploy.stacks()? {
        deploy.stack = stack;
        code = code.max(act(&deploy)?);
    }
    Ok(code)
}

/// Fails if CloudFormation would refuse the name. An ARN does not fit into user-data and keys.
fn check_name(name: &str) -> Result<()> {
    let is_name = name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if is_name {
        return Ok(());
    }
    Err(Fault::new(format!("`{name}` is not a valid stack name"))
        .hint("use letters, digits and hyphens, a letter first, at most 128 characters")
        .invalid()
        .into())
}

/// Returns the operator's own steps, if any, and the package managers that the steps need. The steps are checked as far as
/// possible without a machine.
fn texts(deploy: &Deploy) -> Result<(Option<Texts>, ManagersOn)> {
    if deploy.settings.cloud_init_path.is_some() {
        return Ok((None, Box::new(|_| Ok(vec![]))));
    }
    let system = Rc::new(System::open(Path::new("/"), Mode::Plan, deploy.system.host.stop.interrupt.clone())?);
    let texts = match &deploy.settings.steps {
        Some(steps) => {
            let location = Location::choose(Some(steps)).map_err(invalid)?;
            location.check_owners(Trusted::open).map_err(invalid)?;
            Some(location.read(&system).map_err(invalid)?)
        }
        None => None,
    };
    let artifacts = Artifacts::collect(&deploy.settings, deploy.name(), texts.as_ref())?;
    let arguments = cli::ManifestArgs {
        steps: Some(deploy.settings.steps.clone().unwrap_or_else(|| "built-in".to_owned())),
        set: artifacts.variables().map(str::to_owned).collect(),
        variables: vec![],
    };
    _ = load(&system, &arguments, &Reading::Check)?;
    let steps = texts.clone().unwrap_or_else(built_in::texts);
    let managers = move |distribution: &str| managers_on(&system, &arguments, &steps, distribution);
    Ok((texts, Box::new(managers)))
}

/// Returns for each resource that needs a package manager on a distribution those that it can work with.
///
/// # Errors
/// The fault that the steps have on this distribution.
fn managers_on(
    system: &Rc<System>,
    arguments: &cli::ManifestArgs,
    steps: &Texts,
    distribution: &str,
) -> Result<Vec<Vec<Family>>, String> {
    let (mut variables, _) = variables_of(system, arguments, steps, false).map_err(|error| format!("{error:#}"))?;
    suppose(&mut variables, &arguments.set, "host.distribution", distribution);
    let manifest = manifest::parse(&steps.steps, &mut variables, Phase::Boot, &mut |_| true);
    let manifest =
        manifest.map_err(|faults| faults.shown().first().map_or_else(String::new, |fault| fault.message.clone()))?;
    let resources = manifest.steps.iter().flat_map(|step| &step.resources);
    Ok(resources.filter_map(|declared| declared.resource.package_managers()).collect())
}

/// Writes template and user-data to files.
fn render(deploy: &Deploy, directory: &Path) -> Result<()> {
    let (template, user_data, uploads) = deploy.render()?;
    let absolute = std::path::absolute(directory).with_context(|| format!("{}", directory.display()))?;
    let target: AbsPath = absolute.to_str().with_context(|| format!("{} is not UTF-8", absolute.display()))?.parse()?;
    let host = Root::open(Path::new("/"))?;
    host.make_directories(&target, 0o755)?;
    let ours = Ownership { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode: 0o644 };
    for (name, text) in [("template.yml", template), ("user-data", user_data)] {
        let path = target.join(name)?;
        host.write(&path, ours, text.as_bytes()).map_err(invalid)?;
        say(format!("wrote {path}"));
    }
    for upload in &uploads {
        say(format!("deploy will upload s3://{}/{} ({} bytes)", upload.bucket, upload.key, upload.body.len()));
    }
    Ok(())
}
