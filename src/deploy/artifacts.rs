//! The files that a deploy uploads, under keys with their digests, and the user-data that makes machines download them.
//!
//! A machine that is added months later downloads the same bytes: a key's content never changes.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use flate2::{Compression, write::GzEncoder};

use super::{
    settings::{DeploySettings, missing, name_of},
    variables::{VariableSource, is_file, text_of},
};
use crate::{
    aws::{instance_object::InstanceObjects, s3::upload::Upload},
    error::{self, Fault},
    fetch::{pin::pinned, source::Source},
    host::root::trusted::Trusted,
    manifest::texts::Texts,
    notify::verdict::Hook,
    system::System,
    user_data::{self, Agent},
    value::{AbsPath, Sha256},
};

/// The largest file that is uploaded. S3 takes up to 5 GiB in one call, but this program holds the file in memory.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// First bytes of a program for Linux. <https://refspecs.linuxfoundation.org/elf/>
const ELF: &[u8] = b"\x7fELF";
/// Files that the built-in steps take from the configuration bucket: variable of the digest, key, content.
const CONFIGURATION: [(&str, &str, &[u8]); 2] = [
    ("nginx_site", "nginx/default", include_bytes!("../../steps/files/nginx-default")),
    ("unit", "systemd/glovo-app.service", include_bytes!("../../steps/files/glovo-app.service")),
];

/// The variable with the bucket of these files, and the prefix of their keys.
const CONFIG_BUCKET: &str = "config_bucket";
/// The variable of the build's number. It is set for steps that use it.
const BUILD_VARIABLE: &str = "build_number";
/// The most bytes of the names of a stack and of its resource.
const MAX_NAMES_BYTES: usize = 140;
/// The words for settings with several faults.
pub const REFUSED: &str = "these settings cannot be deployed; nothing was changed";

/// What machines need.
#[derive(Debug, Default)]
pub struct Artifacts {
    /// Objects that must be in the bucket.
    pub uploads: Vec<Upload>,
    /// Where the machines find the program.
    agent: Option<Agent>,
    /// The program's architecture, as EC2 calls it.
    pub architecture: Option<&'static str>,
    /// Arguments of `run`.
    arguments: Vec<String>,
    /// How long the first run may take; `None` as the program decides.
    pub run_limit: Option<Duration>,
    /// The sources of the machines' variables.
    pub variable_sources: Vec<VariableSource>,
    /// The operator's own user-data.
    given: Option<String>,
}

impl Artifacts {
    /// Collects them without uploading.
    ///
    /// # Errors
    /// All faults of the settings at once.
    pub fn collect(settings: &DeploySettings, stack: &str, texts: Option<&Texts>) -> Result<Self> {
        let (artifacts, faults) = Self::collect_all(settings, stack, texts);
        error::together(Fault::new(REFUSED).invalid(), faults).map(|()| artifacts)
    }

    /// Collects what can be collected, and the faults of the rest.
    pub fn collect_all(settings: &DeploySettings, stack: &str, texts: Option<&Texts>) -> (Self, Vec<anyhow::Error>) {
        let (mut artifacts, mut faults) = (Self::default(), vec![]);
        if let Some(path) = &settings.cloud_init_path {
            match own_user_data(path) {
                Ok(text) => artifacts.given = Some(text),
                Err(error) => faults.push(error),
            }
            return (artifacts, faults);
        }
        let declared = Store::of(settings, stack);
        if let Some(failures) = declared.as_ref().and_then(Store::failures) {
            artifacts.arguments.extend(["--failures".into(), failures.to_string()]);
        }
        if settings.converges() {
            artifacts.arguments.push("--converge".into());
        }
        let store = declared.unwrap_or_else(|| {
            faults.extend(lacks_bucket(settings, texts));
            // The other faults are found with any bucket.
            Store { bucket: "BUCKET".into(), prefix: stack.to_owned() }
        });
        let mut note = |done: Result<()>| faults.extend(done.err());
        note(artifacts.add_agent(settings, &store));
        if let Some(texts) = texts {
            note(artifacts.add_steps(texts, &store));
        }
        for named in &settings.variables {
            note(artifacts.add_variables(named, &store));
        }
        let mut files = vec![];
        for pair in &settings.file {
            let (name, path) = pair.split_once('=').unwrap_or_default();
            match read(path).with_context(|| format!("the file {name}")) {
                Ok((path, bytes)) => files.push((name, path.leaf().to_owned(), bytes)),
                Err(error) => note(Err(error)),
            }
        }
        artifacts.add_files(settings, &store, texts, files);
        if names(texts, BUILD_VARIABLE) && !settings.set.iter().any(|pair| name_of(pair) == BUILD_VARIABLE) {
            artifacts.arguments.extend(["--set".into(), format!("{BUILD_VARIABLE}={}", settings.build())]);
        }
        for pair in &settings.set {
            artifacts.arguments.extend(["--set".into(), pair.clone()]);
        }
        note(artifacts.check_names());
        (artifacts, faults)
    }

    fn add_agent(&mut self, settings: &DeploySettings, store: &Store) -> Result<()> {
        if settings.baked {
            self.agent = Some(Agent::Baked);
            return Ok(());
        }
        let bytes = program(settings)?;
        self.architecture = Some(architecture(&bytes)?);
        let (upload, digest) = store.upload("agent", "glovo-bootstrap", bytes);
        self.agent = Some(Agent::Fetched(source(&upload), digest));
        self.uploads.push(upload);
        Ok(())
    }

    fn add_steps(&mut self, texts: &Texts, store: &Store) -> Result<()> {
        let (upload, digest) = store.upload("steps", "steps.tar.gz", pack(texts)?);
        self.arguments.extend(["--steps".into(), pinned(&source(&upload), digest)]);
        self.uploads.push(upload);
        Ok(())
    }

    /// Fails if a variable has two values, of which the machines would take the last one.
    fn check_names(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        let twice: BTreeSet<&str> = self.variables().map(name_of).filter(|name| !names.insert(*name)).collect();
        let (noun, verb) = if twice.len() == 1 { ("variable", "is") } else { ("variables", "are") };
        let list = twice.iter().copied().collect::<Vec<_>>().join(", ");
        ensure!(
            twice.is_empty(),
            Fault::new(format!("the {noun} {list} {verb} set twice"))
                .hint("remove them from --set (`set`), or the file from --file (`file`), which sets NAME_url and NAME_sha256")
                .invalid()
        );
        Ok(())
    }

    /// Adds a source of variables. A file of this machine is uploaded.
    fn add_variables(&mut self, named: &str, store: &Store) -> Result<()> {
        let (url, source) = if is_file(named) {
            let (path, bytes) = read(named).with_context(|| format!("the variables {named}"))?;
            let source = VariableSource::of_file(path.as_str(), &text_of(named, bytes.clone())?)?;
            let (upload, digest) = store.upload("variables", path.leaf(), bytes);
            let url = pinned(&self::source(&upload), digest);
            self.uploads.push(upload);
            (url, source)
        } else {
            let fault = || {
                let shown = named.split('?').next().unwrap_or_default();
                Fault::new(format!("--variables {shown} cannot be deployed; nothing was changed")).invalid()
            };
            (named.to_owned(), VariableSource::of_url(named).with_context(fault)?)
        };
        self.arguments.extend(["--variables".into(), url]);
        self.variable_sources.push(source);
        Ok(())
    }

    /// Adds the declared files, each with its variable, name and content, and the configuration of the built-in steps.
    fn add_files(
        &mut self,
        settings: &DeploySettings,
        store: &Store,
        texts: Option<&Texts>,
        mut files: Vec<(&str, String, Vec<u8>)>,
    ) {
        let mut set = |name: &str, value: String| self.arguments.extend(["--set".into(), format!("{name}={value}")]);
        if needs_configuration(settings, texts) {
            let content = CONFIGURATION.map(|(name, key, built_in)| {
                let own = files.iter().find(|(file, ..)| *file == name).map(|(.., bytes)| bytes.clone());
                (name, key, own.unwrap_or_else(|| built_in.to_vec()))
            });
            let all: Vec<u8> = content.iter().flat_map(|(.., bytes)| Sha256::of(bytes).0).collect();
            let directory = format!("{}/config/{}", store.prefix, Sha256::of(&all));
            for (name, key, body) in content {
                let variable = format!("{name}_sha256");
                if names(texts, &variable) {
                    set(&variable, Sha256::of(&body).to_string());
                }
                self.uploads.push(Upload { bucket: store.bucket.clone(), key: format!("{directory}/{key}"), body });
            }
            set(CONFIG_BUCKET, format!("{}/{directory}", store.bucket));
            files.retain(|(file, ..)| !CONFIGURATION.iter().any(|(name, ..)| name == file));
        }
        for (name, leaf, body) in files {
            let (upload, digest) = store.upload("files", &leaf, body);
            set(&format!("{name}_url"), source(&upload).to_string());
            set(&format!("{name}_sha256"), digest.to_string());
            self.uploads.push(upload);
        }
    }

    /// Returns the variables of the steps, as `NAME=VALUE`.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.arguments.windows(2).filter(|pair| pair[0] == "--set").map(|pair| pair[1].as_str())
    }

    /// Returns a line that says when the machines run the steps, or what becomes of the operator's own user-data.
    pub fn runs(&self, max_bytes: usize) -> &'static str {
        if let Some(text) = &self.given {
            if has_room_for_signal(text, max_bytes) {
                "\nthe machines run your user-data once, and signal its exit code"
            } else {
                "\nyour user-data must signal by itself (cfn-signal), or CloudFormation undoes the change after SignalTimeout: it is \
                 no script that begins with #!, or it is too long for a signal"
            }
        } else if self.arguments.iter().any(|argument| argument == "--converge") {
            "\nthe machines run the steps again at each boot and every hour"
        } else {
            "\nthe machines run the steps once (converge = false)"
        }
    }

    /// Whether the machines run this program and so signal what became of them.
    pub fn signals(&self) -> bool {
        self.given.is_none()
    }

    /// Returns user-data of at most so many bytes for machines that tell this target their outcome. A longer one is returned,
    /// too: the caller knows what to do about it.
    ///
    /// # Errors
    /// If the operator's own user-data is to complete a lifecycle hook.
    pub fn user_data(&self, target: &OutcomeTarget, max_bytes: usize) -> Result<String> {
        let OutcomeTarget { stack, resource, hook } = target;
        match (&self.given, &self.agent) {
            (Some(_), _) if hook.is_some() => Err(Fault::new(
                "with this strategy, cloud_init_path cannot be used: the machines must complete a lifecycle hook",
            )
            .hint("put the script into a step: the kind `command` runs it; or use --strategy blue-green")
            .invalid()
            .into()),
            (Some(text), _) if has_room_for_signal(text, max_bytes) => Ok(user_data::signalling(text, stack, resource)),
            (Some(text), _) => Ok(text.clone()),
            (None, Some(agent)) => {
                let mut arguments = vec!["--signal".into(), format!("{stack}/{resource}")];
                if let Some(hook) = hook {
                    arguments.extend(["--lifecycle-hook".into(), hook.to_string()]);
                }
                if let Some(limit) = self.run_limit {
                    arguments.extend(["--signal-within".into(), format!("{}s", limit.as_secs())]);
                }
                arguments.extend(self.arguments.iter().cloned());
                let script = user_data::script(agent, &arguments, Some((stack, resource)))?;
                if script.len() <= max_bytes { Ok(script) } else { user_data::script(agent, &arguments, None) }
            }
            (None, None) => Ok(String::new()),
        }
    }

    /// Uploads objects that the bucket lacks, and says which.
    pub fn upload(&mut self, system: &System, say: impl Fn(&str)) -> Result<()> {
        for upload in std::mem::take(&mut self.uploads) {
            let what = format!("s3://{}/{} ({} bytes)", upload.bucket, upload.key, upload.body.len());
            let is_new = system.aws.upload(&system.host, upload)?;
            say(&format!("{} {what}", if is_new { "uploaded" } else { "already there:" }));
        }
        Ok(())
    }
}

/// What waits for the outcome of a machine's first run.
pub struct OutcomeTarget {
    /// The stack's name.
    pub stack: String,
    /// The resource in its template.
    pub resource: String,
    /// The lifecycle hook that keeps the machine out of its group until then, if there is one.
    pub hook: Option<Hook>,
}

/// Where artifacts go.
pub struct Store {
    /// The bucket.
    pub bucket: String,
    /// Prefix of their keys, without a slash at the end.
    pub prefix: String,
}

impl Store {
    /// Returns the declared one, if any.
    pub fn of(settings: &DeploySettings, stack: &str) -> Option<Self> {
        let prefix = settings.prefix.as_deref().unwrap_or(stack).trim_matches('/').to_owned();
        settings.bucket.clone().map(|bucket| Self { bucket, prefix })
    }

    /// Returns where the machines upload their failures: a prefix beside that of the artifacts, which machines may read. `None`
    /// without a prefix.
    pub fn failures(&self) -> Option<InstanceObjects> {
        let Self { bucket, prefix } = self;
        let objects = || InstanceObjects { bucket: bucket.clone(), prefix: format!("{prefix}.failures") };
        (!prefix.is_empty()).then(objects)
    }

    /// Returns an object and its digest.
    pub fn upload(&self, folder: &str, name: &str, body: Vec<u8>) -> (Upload, Sha256) {
        let digest = Sha256::of(&body);
        let key = format!("{}/{folder}/{digest}/{name}", self.prefix);
        (Upload { bucket: self.bucket.clone(), key, body }, digest)
    }
}

fn source(upload: &Upload) -> Source {
    Source::S3 { bucket: upload.bucket.clone(), key: upload.key.clone(), version: None }
}

/// Returns whether a text is a script, and leaves room for the frame that signals its exit code.
fn has_room_for_signal(text: &str, max_bytes: usize) -> bool {
    text.starts_with("#!") && user_data::signalling(text, "", "").len() + MAX_NAMES_BYTES <= max_bytes
}

/// Returns whether the steps name a variable; the built-in ones name all of theirs.
fn names(texts: Option<&Texts>, variable: &str) -> bool {
    texts.is_none_or(|texts| texts.steps.iter().chain(&texts.variables).any(|text| text.text.contains(variable)))
}

/// Returns whether machines take the configuration of the built-in steps from the bucket of the artifacts.
fn needs_configuration(settings: &DeploySettings, texts: Option<&Texts>) -> bool {
    names(texts, CONFIG_BUCKET) && !settings.set.iter().any(|pair| name_of(pair) == CONFIG_BUCKET)
}

/// Returns the fault that a bucket is missing; nothing if none is needed.
fn lacks_bucket(settings: &DeploySettings, texts: Option<&Texts>) -> Option<anyhow::Error> {
    let needed = [
        (!settings.baked, "the program"),
        (texts.is_some(), "the steps"),
        (settings.variables.iter().any(|named| is_file(named)), "the variables"),
        (!settings.file.is_empty(), "the files"),
        (needs_configuration(settings, texts), "the configuration of the built-in steps"),
    ];
    let needed: Vec<&str> = needed.into_iter().filter(|(needs, _)| *needs).map(|(_, what)| what).collect();
    let fault = || Fault::new(format!("no bucket is given, from which the machines download {}", needed.join(", ")));
    let hint = "pass --bucket BUCKET, or write bucket = \"BUCKET\" into deploy.toml";
    (!needed.is_empty()).then(|| fault().hint(hint).invalid().into())
}

/// Returns the operator's own user-data.
fn own_user_data(path: &str) -> Result<String> {
    let text = String::from_utf8(read(path)?.1).with_context(|| format!("{path} is not UTF-8"))?;
    let (bytes, most) = (text.len(), user_data::MAX_USER_DATA_BYTES);
    ensure!(bytes <= most, Fault::new(format!("{path} has {bytes} bytes, and EC2 takes at most {most}")).invalid());
    Ok(text)
}

/// Returns a file's path without links, and its bytes.
///
/// # Errors
/// Also if a user other than the caller and root could have written it: machines will run it.
fn read(path: &str) -> Result<(AbsPath, Vec<u8>)> {
    let fault = || Fault::new(format!("{path} cannot be deployed; nothing was changed")).invalid();
    let found = Trusted::open(Path::new(path)).with_context(fault)?;
    let found = found.with_context(|| Fault::new(missing(path)).invalid())?;
    Ok((found.path().clone(), found.read(MAX_FILE_BYTES)?))
}

/// Returns the program for the machines.
fn program(settings: &DeploySettings) -> Result<Vec<u8>> {
    let own = std::env::current_exe().context("finding this program")?;
    let path = settings.agent.clone().unwrap_or_else(|| own.to_string_lossy().into_owned());
    let (_, bytes) = read(&path)?;
    let fault = |message: &str| {
        Fault::new(format!("{path} {message}"))
            .hint("pass --agent FILE with a static binary, as packaging/build-static builds it")
            .invalid()
    };
    ensure!(bytes.starts_with(ELF), fault("is not a Linux program"));
    // A program that needs a dynamic loader contains the loader's path.
    ensure!(!is_dynamic(&bytes), fault("is not static: it needs this machine's libraries"));
    Ok(bytes)
}

fn is_dynamic(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(4096)];
    head.windows(7).any(|window| window == b"/ld-lin") || head.windows(6).any(|window| window == b"ld.so.")
}

fn architecture(bytes: &[u8]) -> Result<&'static str> {
    match bytes.get(18..20) {
        Some([0x3e, 0]) => Ok("x86_64"),
        Some([0xb7, 0]) => Ok("arm64"),
        _ => Err(Fault::new("the program is for a processor that EC2 does not have")
            .hint("pass --agent FILE")
            .invalid()
            .into()),
    }
}

/// Packs the steps. The same steps make the same bytes: no times, no owners.
fn pack(texts: &Texts) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(vec![], Compression::best()));
    let leaf = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let steps = texts.steps.iter().map(|text| (leaf(&text.name), &text.text));
    let variables = texts.variables.iter().map(|text| ("variables.toml".to_owned(), &text.text));
    let vault = texts.vault.iter().map(|text| ("vault.toml".to_owned(), &text.text));
    for (name, text) in steps.chain(variables).chain(vault) {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append_data(&mut header, name, text.as_bytes()).context("packing the steps")?;
    }
    archive.into_inner().and_then(GzEncoder::finish).context("packing the steps")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Text;

    #[test]
    fn the_same_steps_make_the_same_bytes() {
        let text = |name: &str| Text::new(format!("/a/{name}"), "name = \"a\"\n");
        let texts = Texts {
            steps: vec![text("10-a.toml"), text("20-b.toml")],
            variables: Some(text("variables.toml")),
            ..Texts::default()
        };
        let packed = pack(&texts).unwrap();
        assert_eq!(packed, pack(&texts).unwrap());
        assert_eq!(packed[4..8], [0; 4], "the time in gzip's header");
    }

    #[test]
    fn a_program_s_processor_is_seen() {
        let mut program = vec![0; 64];
        program[..4].copy_from_slice(ELF);
        program[18] = 0xb7;
        assert_eq!(architecture(&program).unwrap(), "arm64");
        program[18] = 3;
        assert!(architecture(&program).is_err());
        program[40..47].copy_from_slice(b"/ld-lin");
        assert!(is_dynamic(&program));
    }
}
