//! The variables of a manifest with the operator's values: of files, of buckets, of Parameter Store, of the command line.

use std::{collections::BTreeMap, rc::Rc};

use anyhow::Result;

use super::unreadable;
use crate::{
    cli,
    diagnostic::{Diagnostic, Faults},
    error::{self, Fault},
    manifest::{
        self, Manifest,
        location::{secret_value, variables_text},
        texts::Texts,
    },
    resource::Template,
    secrets::path::{ParameterContent, ParameterPath, StoredParameter},
    system::{Mode, Phase, System, check_fact},
    value::distribution::family_of,
    variables::{OfEachInstance, StoredSecret, Variables, is_fact, value::Value},
};

/// The longest template that is searched for variables.
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;

/// Returns the variables of a manifest with the operator's values, and their faults. Unless `asks`, the facts of the
/// machine are unknown.
pub(super) fn variables_of(
    system: &Rc<System>,
    arguments: &cli::ManifestArgs,
    texts: &Texts,
    asks: bool,
) -> Result<(Variables, Faults)> {
    let machine = system.clone();
    let mut variables = Variables::new(move |name| {
        let ask = || if asks { machine.fact(name) } else { check_fact(name).and(Err(OfEachInstance.into())) };
        is_fact(name).then(ask)
    });
    let machine = system.clone();
    variables = variables.with_stores(move |secret| {
        machine.leave_to_instances()?;
        if asks { machine.stored_text(secret) } else { Err(OfEachInstance.into()) }
    });
    if arguments.lacks_variables {
        variables.miss_a_source();
    }
    let mut faults = texts.variables.as_ref().map(|text| variables.declare_all(text)).unwrap_or_default();
    for named in &arguments.variables {
        // A query may hold a secret.
        let shown = named.split('?').next().unwrap_or_default();
        let invalid = |error| unreadable(&format!("the variables of {shown}"), error);
        match ParameterPath::named(named).map_err(invalid)? {
            Some(path) => give_parameters(system, &mut variables, &path, asks).map_err(invalid)?,
            None => faults.extend(variables.give_all(&variables_text(system, named).map_err(invalid)?)),
        }
    }
    let is_live_run = system.mode() == Mode::Run && system.root().is_host();
    let usage = "write --set NAME=VALUE (a command that this program shows leaves values out: they may be secrets)";
    let misused = |message: String| (message, Some(usage.to_owned()));
    for assignment in &arguments.set {
        let set = match assignment.split_once('=') {
            Some((name, value)) if is_fact(name) && !is_live_run => {
                let suppose = |()| suppose(&mut variables, &arguments.set, name, value);
                check_fact(name)
                    .map(suppose)
                    .map_err(|error| (format!("{error:#}"), error::hint(&error).map(Into::into)))
            }
            Some((name, value)) => variables.give(name, value).map_err(misused),
            None => Err(misused(format!("`--set {assignment}` has no `=`"))),
        };
        if let Err((message, hint)) = set {
            faults.add(|| Diagnostic { message, place: None, hint });
        }
    }
    faults.extend(give_secret_files(&mut variables, arguments)?);
    Ok((variables, faults))
}

/// Gives the parameters below a path. An image gets no secret, and a validation needs none: they stay unknown there.
///
/// # Errors
/// If the store refuses or does not answer, or if a name cannot be a variable's.
fn give_parameters(system: &System, variables: &mut Variables, path: &ParameterPath, asks: bool) -> Result<()> {
    let decrypts = asks && system.leave_to_instances().is_ok();
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    for StoredParameter { name, value } in system.parameters_below(path, decrypts)? {
        let variable = path.variable(&name);
        if let Some(other) = given.insert(variable.clone(), name.clone()) {
            let message = format!("the parameters {other} and {name} would both be the variable `{variable}`");
            return Err(Fault::new(message).hint("rename or delete one of them").into());
        }
        let url = format!("ssm://{name}");
        let result = match value {
            ParameterContent::Text(text) => variables.give_parameter(&variable, Value::Text(text), url),
            ParameterContent::List(texts) => variables.give_parameter(&variable, Value::List(texts), url),
            ParameterContent::Secret(value) => {
                let text = value.as_ref().map(|value| value.text()).transpose()?;
                let secret = StoredSecret { source: url.parse()?, is_base64: false };
                variables.give_stored(&variable, secret, text)
            }
        };
        if let Err(why) = result {
            let hint = "rename the parameter, or move it to another path";
            return Err(Fault::new(format!("the parameter {name} cannot be a variable: {why}")).hint(hint).into());
        }
    }
    Ok(())
}

/// Gives the values of `--set-secret-file`. Returns the faults.
fn give_secret_files(variables: &mut Variables, arguments: &cli::ManifestArgs) -> Result<Faults> {
    let mut faults = Faults::default();
    let from_stdin = arguments.set_secret_file.iter().filter(|assignment| assignment.ends_with("=-")).count();
    if from_stdin + usize::from(arguments.steps.as_deref() == Some("-")) > 1 {
        let fault = Fault::new("standard input is named twice, but it can be read only once");
        return Err(fault.hint("write all but one of them to a file").invalid().into());
    }
    for assignment in &arguments.set_secret_file {
        let set = match assignment.split_once('=') {
            Some((name, file)) => {
                let invalid = |error| unreadable(&format!("the secret file of the variable `{name}`"), error);
                variables.give_private(name, &secret_value(file).map_err(invalid)?)
            }
            None => Err(format!("`--set-secret-file {assignment}` has no `=`")),
        };
        if let Err(message) = set {
            faults.add(|| Diagnostic { message, place: None, hint: Some("--set-secret-file NAME=FILE".into()) });
        }
    }
    Ok(faults)
}

/// Sets a fact. A distribution also decides about its family, unless that is given, too.
pub(super) fn suppose(variables: &mut Variables, given: &[String], fact: &str, value: &str) {
    variables.suppose(fact, value);
    if fact == "host.distribution" && !given.iter().any(|given| given.starts_with("host.family=")) {
        variables.suppose("host.family", family_of(value).unwrap_or(value));
    }
}

/// Reads a manifest as the machines of each distribution do that its variables name. Adds their warnings. Returns the
/// faults.
pub(super) fn read_everywhere(texts: &Texts, variables: &mut Variables, manifest: &mut Manifest) -> Faults {
    let mut faults = Faults::default();
    let distributions = variables.distributions();
    if !distributions.is_empty() {
        // Facts that are unknown with the distribution.
        manifest.secrets.unknown.clear();
    }
    for distribution in distributions {
        suppose(variables, &[], "host.distribution", &distribution);
        match manifest::parse(&texts.steps, variables, Phase::Boot, &mut |_| true) {
            Ok(read) => {
                let new = |warning: &Diagnostic| !manifest.warnings.contains(warning);
                let new: Vec<_> = read.warnings.into_iter().filter(new).collect();
                manifest.warnings.extend(new);
                manifest.secrets.known.extend(read.secrets.known);
                manifest.secrets.unknown.extend(read.secrets.unknown);
            }
            Err(found) => {
                let new = |fault: &&Diagnostic| !faults.shown().contains(fault);
                let new: Vec<_> = found.shown().iter().filter(new).cloned().collect();
                for fault in new {
                    faults.add(|| fault);
                }
            }
        }
        variables.forget("host.distribution");
        variables.forget("host.family");
    }
    faults
}

/// Returns a warning for each variable that nothing uses; none if a template that may use it cannot be read now.
pub(super) fn unused(system: &System, manifest: &Manifest, variables: &Variables) -> Vec<Diagnostic> {
    for declared in manifest.steps.iter().flat_map(|step| &step.resources) {
        match declared.resource.template() {
            None => {}
            Some(Template::Elsewhere) => return vec![],
            Some(Template::Local(path)) => match system.root().read(path, MAX_TEMPLATE_BYTES) {
                Ok(Some(text)) => variables.note_template(&String::from_utf8_lossy(&text)),
                _ => return vec![],
            },
        }
    }
    variables.unused()
}
