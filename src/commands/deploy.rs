//! `deploy`: executes the verbs on one or two stacks.

use std::{path::Path, rc::Rc, time::Duration};

use anyhow::{Context, Result};
use nix::unistd::{getegid, geteuid};

use super::{
    Reading, invalid, load,
    variables::{suppose, variables_of},
};
use crate::{
    aws::{account::AwsSettings, refusal::Refusal},
    cli::{self, DeployVerb},
    deploy::{
        Deploy, ManagersOn, RepeatedFlags,
        artifacts::{self, Artifacts},
        settings::SETTINGS_FILE,
        shape::Strategy,
    },
    error::{self, Class, Fault},
    host::root::{Ownership, Root, trusted::Trusted},
    manifest::{
        self, built_in,
        location::{Location, is_url, variables_text},
        secrets::NamedSecrets,
        texts::Texts,
    },
    net::settings::NetworkSettings,
    packages::manager::Family,
    run::report::ErrorReport,
    secrets::path::ParameterPath,
    stop::Interrupt,
    system::{Mode, Phase, System},
    value::{AbsPath, quoted},
    view::{complain, say, say_json_line},
};

/// How long a call is repeated after the first change, by default: without an answer, users stay where they are.
const CHANGE_PATIENCE: Duration = Duration::from_mins(5);

/// Executes a verb. With `--json`, an error is also a document on standard output, the last one.
pub(super) fn execute(arguments: cli::DeployArguments) -> Result<u8> {
    let json = arguments.json;
    let done = execute_verb(arguments);
    if let (true, Err(error)) = (json, &done) {
        let told = serde_json::json!({ "error": ErrorReport::new(error), "exit_code": error::exit_code(error) });
        _ = say_json_line(&told);
    }
    done
}

fn execute_verb(arguments: cli::DeployArguments) -> Result<u8> {
    let verb = arguments.verb;
    let repeated = repeated(&arguments);
    let (settings, file) = arguments.settings.with_file(arguments.settings_file.as_ref())?;
    check_name(settings.stack())?;
    let strategy = Strategy::named(settings.strategy.as_deref())?;
    let interrupt = Interrupt::install()?;
    let mut system = System::open(Path::new("/"), Mode::Plan, interrupt.clone())?;
    let chosen = AwsSettings {
        profile: settings.profile.clone(),
        region: settings.region.clone(),
        bucket_owner: settings.bucket_owner.clone(),
        caller: super::person(interrupt),
    };
    let patience = settings.patience.map_or(CHANGE_PATIENCE, |time| time.0);
    system.connect(NetworkSettings::patient_for(patience), chosen.clone());
    // Until something is changed, a person wants to know sooner.
    system.aws.be_brief();
    let stack = settings.stack().to_owned();
    let mut deploy = Deploy {
        system,
        settings,
        strategy,
        texts: None,
        package_managers: Box::new(|_| Ok(vec![])),
        secrets: NamedSecrets::default(),
        stack,
        repeated,
        poll: arguments.poll.0,
        json: arguments.json,
        yes: arguments.yes,
    };
    match file {
        Some(file) => deploy.say(&format!("settings: {file}; stack: {}", deploy.stack)),
        // Output for programs is the same with and without a file.
        None if deploy.json => {}
        None => {
            let here = std::env::current_dir().unwrap_or_default();
            complain(format!("settings: no {SETTINGS_FILE} in {}; stack: {}", here.display(), deploy.stack));
        }
    }
    if matches!(verb, DeployVerb::CreateStack | DeployVerb::UpdateStack | DeployVerb::Plan | DeployVerb::Render) {
        (deploy.texts, deploy.package_managers, deploy.secrets) = texts(&deploy, chosen, verb != DeployVerb::Render)?;
    }
    act(deploy, verb, &arguments.way_back, &arguments.output_dir)
}

/// Executes a verb on the stacks that it is about.
fn act(mut deploy: Deploy, verb: DeployVerb, way: &cli::RollbackArguments, output_dir: &Path) -> Result<u8> {
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
                DeployVerb::Rollback => deploy.roll_back(way.build, way.now, !way.now && !way.no_probe).map(|()| 0),
                DeployVerb::Release => deploy.release().map(|()| 0),
                _ => render(&deploy, output_dir).map(|()| 0),
            }
        }
    }
}

/// Returns the flags that choose account and settings file. What deploy.toml says, a command in a message reads there again.
fn repeated(arguments: &cli::DeployArguments) -> RepeatedFlags {
    let flag = |name, value: Option<&str>| match value {
        Some(value) if !value.is_empty() => format!(" --{name} {}", quoted(value)),
        _ => String::new(),
    };
    let settings = &arguments.settings;
    let file = arguments.settings_file.as_ref().map(|file| file.to_string_lossy());
    RepeatedFlags {
        account: flag("profile", settings.profile.as_deref()) + &flag("region", settings.region.as_deref()),
        file: flag("settings-file", file.as_deref()),
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

/// Returns the operator's own steps, if any, and the package managers and the secrets that the steps need. The steps are
/// checked as far as possible without a machine. `asks` tells whether stores may be asked for variables.
fn texts(deploy: &Deploy, chosen: AwsSettings, asks: bool) -> Result<(Option<Texts>, ManagersOn, NamedSecrets)> {
    let settings = &deploy.settings;
    if settings.cloud_init_path.is_some() {
        return Ok((None, Box::new(|_| Ok(vec![])), NamedSecrets::default()));
    }
    let mut system = System::open(Path::new("/"), Mode::Plan, deploy.system.host.stop.interrupt.clone())?;
    // A bucket of variables may belong to another account than the one of the artifacts.
    system.connect(NetworkSettings::default(), AwsSettings { bucket_owner: None, ..chosen });
    let system = Rc::new(system);
    let texts = match &settings.steps {
        Some(steps) => {
            let location = Location::choose(Some(steps)).map_err(invalid)?;
            location.check_owners(Trusted::open).map_err(invalid)?;
            Some(location.read(&system).map_err(invalid)?)
        }
        None => None,
    };
    let (artifacts, mut faults) = Artifacts::collect_all(settings, deploy.name(), texts.as_ref());
    faults.extend(settings.check().err());
    let (variables, lacks_variables) = match readable_variables(deploy, &system, asks) {
        Ok(read) => read,
        Err(error) if faults.is_empty() => return Err(error),
        // A file that is missing is among the faults already.
        Err(_) => (vec![], true),
    };
    let arguments = cli::ManifestArgs {
        steps: Some(settings.steps.clone().unwrap_or_else(|| "built-in".to_owned())),
        set: artifacts.variables().map(str::to_owned).collect(),
        variables,
        lacks_variables,
        ..cli::ManifestArgs::default()
    };
    let converge = settings.converges();
    let loaded = load(&system, &arguments, &Reading::Deploy { converge });
    let manifest = loaded.map_err(|error| faults.push(error)).ok();
    error::together(Fault::new(artifacts::REFUSED).invalid(), faults)?;
    let (manifest, _) = manifest.context("the steps cannot be read")?;
    for step in manifest.steps.iter().filter(|step| step.reboot && converge) {
        let note = "may reboot a serving machine in any of its hourly runs (to run the steps once: --converge false)";
        deploy.say(&format!("note: step {} {note}", step.name));
    }
    let steps = texts.clone().unwrap_or_else(built_in::texts);
    let managers = move |distribution: &str| managers_on(&system, &arguments, &steps, distribution);
    Ok((texts, Box::new(managers), manifest.secrets))
}

/// Returns the sources of the machines' variables that the operator can read, and whether there are others.
///
/// # Errors
/// If machines could not read a source either.
fn readable_variables(deploy: &Deploy, system: &System, asks: bool) -> Result<(Vec<String>, bool)> {
    let is_denied = |refusal: &Refusal| refusal.code == "AccessDeniedException" && refusal.is_lasting();
    let (mut readable, mut lacks_variables) = (vec![], false);
    for named in &deploy.settings.variables {
        if is_url(named) && !asks {
            lacks_variables = true;
            continue;
        }
        let fault = || Fault::new(format!("the variables of {named} cannot be read; nothing was changed")).invalid();
        let read = match ParameterPath::named(named)? {
            Some(path) => system.parameters_below(&path, false).map(drop),
            None => variables_text(system, named).map(drop),
        };
        match read {
            Ok(()) => readable.push(named.clone()),
            Err(error) if Refusal::of(&error).is_some_and(is_denied) => {
                lacks_variables = true;
                let allow = "allow ssm:GetParametersByPath in the caller's IAM policy";
                deploy.say(&format!("note: the steps are checked without the variables of {named}: {allow}"));
            }
            Err(error) if error::class(&error) == Class::Permanent => return Err(error.context(fault())),
            Err(error) => return Err(error),
        }
    }
    Ok((readable, lacks_variables))
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
