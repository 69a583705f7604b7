//! `user-data`: prints the script with which a machine downloads the agent and runs it.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;

use crate::{
    cli::{self, Cli, Command},
    error::Fault,
    fetch::pin::split_pin,
    host::root::{Root, host_path},
    notify::verdict::SignalTarget,
    user_data::{self, Agent},
    value::Sha256,
    view::say_document,
};

/// The largest agent file to hash; the agent itself is much smaller.
const MAX_AGENT_BYTES: u64 = 256 << 20;

pub(super) fn execute(arguments: &cli::UserData) -> Result<u8> {
    let text = render(arguments).map_err(|error| Fault::new("no user-data").invalid().caused_by(error))?;
    say_document(text.trim_end());
    Ok(0)
}

fn render(arguments: &cli::UserData) -> Result<String> {
    let signal = signal_of(&arguments.run)?;
    let agent = match &arguments.url {
        None => Agent::Baked,
        Some(url) => pinned(url, arguments.agent.as_deref())?,
    };
    let signal = signal.as_ref().map(|target| (&*target.stack, &*target.resource));
    match arguments.format {
        cli::UserDataFormat::Script => user_data::script(&agent, &arguments.run, signal),
        cli::UserDataFormat::CloudConfig => user_data::cloud_config(&agent, &arguments.run, signal),
    }
}

/// Returns the resource that the run will signal. Refuses arguments that the machine's `run` would refuse.
fn signal_of(arguments: &[String]) -> Result<Option<SignalTarget>> {
    let line = ["glovo-bootstrap", "run"].into_iter().chain(arguments.iter().map(String::as_str));
    let error = match Cli::try_parse_from(line) {
        Ok(Cli { command: Command::Run(run), .. }) => {
            return check_secret_files(&run.manifest).map(|()| run.signal.signal);
        }
        Ok(_) => return Ok(None),
        Err(error) => error,
    };
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let fault = Fault::new("`run` does not accept these arguments").hint("glovo-bootstrap run --help");
    Err(fault.caused_by(anyhow!(first.trim_start_matches("error: ").to_owned())).into())
}

/// Refuses secrets of files, which the machine does not have. Its later runs would not have them either.
fn check_secret_files(arguments: &cli::ManifestArgs) -> Result<()> {
    let Some(assignment) = arguments.set_secret_file.first() else { return Ok(()) };
    let name = assignment.split('=').next().unwrap_or_default();
    let fault = Fault::new("`--set-secret-file` is not for user-data: the machine does not have the file");
    let hint = format!("name the secret's store in the manifest: {name} = {{ secret = \"ssm:///PATH\" }}");
    Err(fault.hint(hint).into())
}

fn pinned(url: &str, file: Option<&str>) -> Result<Agent> {
    let (url, pin) = split_pin(url)?;
    let of_file = file.map(digest).transpose()?;
    if let (Some(pin), Some(of_file)) = (pin, of_file) {
        ensure!(pin == of_file, "the file's sha256 is {of_file}; the URL is pinned to {pin}");
    }
    let source = url.parse()?;
    let hint = "append #sha256=HEX to the URL, or pass --agent FILE to use the digest of a file";
    let sha256 = pin.or(of_file).ok_or_else(|| Fault::new(format!("{source} has no digest")).hint(hint))?;
    Ok(Agent::Fetched(source, sha256))
}

fn digest(file: &str) -> Result<Sha256> {
    let path = host_path(file)?;
    let bytes =
        Root::open(Path::new("/"))?.read(&path, MAX_AGENT_BYTES)?.with_context(|| format!("{path} does not exist"))?;
    Ok(Sha256::of(&bytes))
}
