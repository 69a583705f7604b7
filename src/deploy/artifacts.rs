//! The files that a deploy uploads, under keys with their digests, and the user-data that makes machines download them.
//!
//! A machine that is added months later downloads the same bytes: a key's content never changes.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::{Compression, write::GzEncoder};

use super::settings::DeploySettings;
use crate::{
    aws::s3::upload::Upload,
    error::Fault,
    fetch::{pin::pinned, source::Source},
    host::root::trusted::Trusted,
    manifest::texts::Texts,
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
    /// The operator's own user-data.
    given: Option<String>,
}

impl Artifacts {
    /// Collects them without uploading.
    pub fn collect(settings: &DeploySettings, stack: &str, texts: Option<&Texts>) -> Result<Self> {
        let mut artifacts = Self::default();
        if let Some(path) = &settings.cloud_init_path {
            let text = String::from_utf8(read(path)?.1).with_context(|| format!("{path} is not UTF-8"))?;
            ensure!(
                text.len() <= user_data::MAX_USER_DATA_BYTES,
                Fault::new(format!(
                    "{path} has {} bytes, and EC2 takes at most {}",
                    text.len(),
                    user_data::MAX_USER_DATA_BYTES
                ))
                .invalid()
            );
            artifacts.given = Some(text);
            return Ok(artifacts);
        }
        let store = Store::of(settings, stack);
        if settings.baked {
            artifacts.agent = Some(Agent::Baked);
        } else {
            let store = store.as_ref().with_context(|| {
                Fault::new("the machines cannot download this program: no bucket is given for it")
                    .hint("pass --bucket BUCKET, or --baked if the AMI holds the program, or set CLOUD_INIT_PATH=FILE to your own user-data")
                    .invalid()
            })?;
            let bytes = program(settings)?;
            artifacts.architecture = Some(architecture(&bytes)?);
            let (upload, digest) = store.upload("agent", "glovo-bootstrap", bytes);
            artifacts.agent = Some(Agent::Fetched(source(&upload), digest));
            artifacts.uploads.push(upload);
        }
        if let Some(texts) = texts {
            let store = store.as_ref().context("--steps needs --bucket BUCKET")?;
            let (upload, digest) = store.upload("steps", "steps.tar.gz", pack(texts)?);
            artifacts.arguments.extend(["--steps".into(), pinned(&source(&upload), digest)]);
            artifacts.uploads.push(upload);
        }
        artifacts.add_files(settings, store.as_ref(), texts.is_none())?;
        for pair in &settings.set {
            artifacts.arguments.extend(["--set".into(), pair.clone()]);
        }
        Ok(artifacts)
    }

    /// Adds the declared files, and the configuration of the built-in steps.
    fn add_files(&mut self, settings: &DeploySettings, store: Option<&Store>, is_built_in: bool) -> Result<()> {
        let mut set = |name: &str, value: String| self.arguments.extend(["--set".into(), format!("{name}={value}")]);
        let mut files = vec![];
        for pair in &settings.file {
            let (name, path) = pair.split_once('=').unwrap_or_default();
            let (path, bytes) = read(path).with_context(|| format!("the file {name}"))?;
            files.push((name, path.leaf().to_owned(), bytes));
        }
        let Some(store) = store else {
            ensure!(files.is_empty(), Fault::new("--file needs a bucket").hint("pass --bucket BUCKET").invalid());
            return Ok(());
        };
        let is_given =
            |name: &str| settings.set.iter().any(|pair| pair.split_once('=').is_some_and(|(n, _)| n == name));
        if is_built_in && !is_given("config_bucket") {
            let content = CONFIGURATION.map(|(name, key, built_in)| {
                let own = files.iter().find(|(file, ..)| *file == name).map(|(.., bytes)| bytes.clone());
                (name, key, own.unwrap_or_else(|| built_in.to_vec()))
            });
            let all: Vec<u8> = content.iter().flat_map(|(.., bytes)| Sha256::of(bytes).0).collect();
            let directory = format!("{}/config/{}", store.prefix, Sha256::of(&all));
            for (name, key, body) in content {
                set(&format!("{name}_sha256"), Sha256::of(&body).to_string());
                self.uploads.push(Upload { bucket: store.bucket.clone(), key: format!("{directory}/{key}"), body });
            }
            set("config_bucket", format!("{}/{directory}", store.bucket));
            files.retain(|(file, ..)| !CONFIGURATION.iter().any(|(name, ..)| name == file));
        }
        for (name, leaf, body) in files {
            let (upload, digest) = store.upload("files", &leaf, body);
            set(&format!("{name}_url"), source(&upload).to_string());
            set(&format!("{name}_sha256"), digest.to_string());
            self.uploads.push(upload);
        }
        Ok(())
    }

    /// Returns the variables of the steps, as `NAME=VALUE`.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.arguments.windows(2).filter(|pair| pair[0] == "--set").map(|pair| pair[1].as_str())
    }

    /// Whether the machines run this program and so signal what became of them.
    pub fn signals(&self) -> bool {
        self.given.is_none()
    }

    /// Returns user-data for machines that signal for this resource of the stack.
    pub fn user_data(&self, stack: &str, resource: &str) -> Result<String> {
        match (&self.given, &self.agent) {
            (Some(text), _) => Ok(text.clone()),
            (None, Some(agent)) => {
                let mut arguments = vec!["--signal".into(), format!("{stack}/{resource}")];
                arguments.extend(self.arguments.iter().cloned());
                user_data::script(agent, &arguments)
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

/// Returns a file's path without links, and its bytes.
///
/// # Errors
/// Also if a user other than the caller and root could have written it: machines will run it.
fn read(path: &str) -> Result<(AbsPath, Vec<u8>)> {
    let fault = || Fault::new(format!("{path} cannot be deployed; nothing was changed")).invalid();
    let found = Trusted::open(Path::new(path)).with_context(fault)?;
    let found = found.with_context(|| format!("{path} does not exist"))?;
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
    ensure!(settings.agent.is_some() || !is_dynamic(&bytes), fault("is not static: it needs this machine's libraries"));
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
    for (name, text) in steps.chain(variables) {
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
            ignored: vec![],
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
