//! `steps list`, `show`, `new`, `export` and `kinds`.

use std::path::Path;

use anyhow::{Context, Result};
use nix::unistd::{getegid, geteuid};

use super::{
    find, invalid, open,
    record::{self, Told},
};
use crate::{
    cli::{self, Steps},
    diagnostic::did_you_mean,
    error::Fault,
    host::root::{FileType, Ownership, Root},
    manifest::{built_in, schema},
    system::Mode,
    value::{AbsPath, quoted},
    view::{say, say_document},
    visible::Shown,
};

pub(super) fn execute(command: Steps) -> Result<u8> {
    match command {
        Steps::List { manifest } => {
            for (name, description, _) in outline(manifest)? {
                say(format!("{name:24} {description}"));
            }
        }
        Steps::Show { step, manifest } => {
            let outline = outline(manifest)?;
            let Some((_, _, text)) = outline.iter().find(|(name, _, _)| *name == step) else {
                let names = outline.iter().map(|(name, _, _)| name.as_str());
                let hint = did_you_mean(&step, names).unwrap_or_else(|| "glovo-bootstrap steps list".into());
                return Err(Fault::new(format!("there is no step `{step}`")).invalid().hint(hint).into());
            };
            say_document(text.trim_end());
        }
        Steps::New { directory } => new(&directory)?,
        Steps::Export { directory } => _ = write(&directory, built_in::FILES)?,
        Steps::Kinds { kind } => {
            say(Shown::lines(schema::manual(kind.as_deref()).unwrap_or_default().trim_end()));
        }
    }
    Ok(0)
}

/// Returns name, description and text of each step, without resolving variables.
fn outline(manifest: cli::ManifestArgs) -> Result<Vec<(String, String, String)>> {
    let system = open(Path::new("/"), Mode::Plan, None)?;
    let manifest = record::complete(&system, manifest, Told::InALine)?;
    let (texts, _) = find(&system, manifest.steps.as_deref())?;
    let mut outline = vec![];
    for text in texts.steps {
        let table: toml::Table = text.text.parse().with_context(|| text.name.clone()).map_err(invalid)?;
        let field =
            |table: &toml::Table, name| table.get(name).and_then(toml::Value::as_str).unwrap_or_default().to_owned();
        match table.get("step").and_then(toml::Value::as_array) {
            None => outline.push((field(&table, "name"), field(&table, "description"), text.text)),
            Some(steps) => {
                for step in steps.iter().filter_map(toml::Value::as_table) {
                    let written = toml::to_string(step).context("writing TOML")?;
                    outline.push((field(step, "name"), field(step, "description"), written));
                }
            }
        }
    }
    Ok(outline)
}

/// Writes the manifest for a service of one's own, and says what to type next.
fn new(directory: &Path) -> Result<()> {
    let target = write(directory, built_in::OWN_SERVICE)?;
    let steps = quoted(target.as_str());
    say("It is a small web service that works as it is. Edit the files to make it yours, then type:");
    say(format!("  glovo-bootstrap validate --steps {steps}     (checks them, on any machine)"));
    say(format!("  sudo glovo-bootstrap plan --steps {steps}    (on the machine: shows what a run would change)"));
    say(format!("  sudo glovo-bootstrap run --steps {steps}     (on the machine: makes these changes)"));
    Ok(())
}

/// Writes files into a directory that is empty or does not exist yet; returns its path.
fn write(directory: &Path, files: &[(&str, &str)]) -> Result<AbsPath> {
    let absolute = std::path::absolute(directory).with_context(|| format!("{}", directory.display()))?;
    let target: AbsPath = absolute.to_str().with_context(|| format!("{} is not UTF-8", absolute.display()))?.parse()?;
    let host = Root::open(Path::new("/"))?;
    let is_free = match host.status(&target)? {
        None => true,
        Some(status) => status.file_type == FileType::Directory && host.list(&target)?.is_empty(),
    };
    if !is_free {
        let hint = "name a directory that does not exist yet, or an empty one";
        return Err(Fault::new(format!("{target} is not an empty directory; nothing was written"))
            .hint(hint)
            .invalid()
            .into());
    }
    let ours = Ownership { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode: 0o644 };
    for (name, text) in files {
        let path: AbsPath = format!("{target}/{name}").parse()?;
        if let Some(parent) = path.parent() {
            host.make_directories(&parent, 0o755)?;
        }
        host.write(&path, ours, text.as_bytes())?;
    }
    say(format!("wrote {} files to {target}", files.len()));
    Ok(target)
}
