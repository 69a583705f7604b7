//! The agent under test, built from this workspace, and its commands on a machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::base::PACKAGE;
use crate::cache::sha256;
use crate::guest;

const JAR: &str = "origin.test/systems-engineer-interview-1.0.0.jar";

/// The release build of `glovo-bootstrap`, made up to date once per process.
pub fn agent() -> Result<&'static Path> {
    static AGENT: OnceLock<PathBuf> = OnceLock::new();
    if AGENT.get().is_none() {
        let _ = AGENT.set(build()?);
    }
    Ok(AGENT.get().expect("just set"))
}

/// Returns the agent as `deploy` takes it for machines: static. A dynamic one, of a development build, is copied into this
/// directory with the name of its loader at the end of the file, where `deploy` does not look.
pub fn deployable_agent(directory: &Path) -> Result<PathBuf> {
    const INTERPRETER: u64 = 3;
    let mut bytes = std::fs::read(agent()?)?;
    let number = |bytes: &[u8], at: usize, size: usize| {
        bytes[at..at + size].iter().rev().fold(0, |number: u64, byte| number << 8 | u64::from(*byte))
    };
    let (table, size, count) = (number(&bytes, 32, 8), number(&bytes, 54, 2), number(&bytes, 56, 2));
    let headers = (0..count).map(|n| usize::try_from(table + n * size).expect("an offset of this file"));
    let Some(header) = headers.into_iter().find(|header| number(&bytes, *header, 4) == INTERPRETER) else {
        return Ok(agent()?.to_owned());
    };
    let at = usize::try_from(number(&bytes, header + 8, 8))?;
    let name = bytes[at..at + usize::try_from(number(&bytes, header + 32, 8))?].to_vec();
    let end = (bytes.len() as u64).to_le_bytes();
    bytes[header + 8..header + 16].copy_from_slice(&end);
    bytes[at + 1..at + name.len() - 1].make_ascii_uppercase();
    bytes.extend(name);
    let path = directory.join("glovo-bootstrap");
    std::fs::write(&path, bytes)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(path)
}

/// The static binaries that `packaging/build-static` has made, at least one.
pub fn static_binaries() -> Result<Vec<PathBuf>> {
    let directory = Path::new(PACKAGE).join("../../target/static");
    let files = std::fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let binaries: Vec<PathBuf> =
        files.filter(|file| file.extension().is_none() && !file.ends_with("SHA256SUMS")).collect();
    ensure!(!binaries.is_empty(), "no binary in target/static: packaging/build-static makes them");
    Ok(binaries)
}

fn build() -> Result<PathBuf> {
    if let Some(binary) = std::env::var_os("GLOVO_MACHINE_AGENT") {
        return Ok(binary.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // A test's cargo sets variables of its package. With them, ring and all that needs it would be built anew.
    for (name, _) in
        std::env::vars().filter(|(name, _)| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|of| name.starts_with(of)))
    {
        build.env_remove(name);
    }
    let build = build
        .args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "glovo-bootstrap",
            "--message-format",
            "json-render-diagnostics",
        ])
        .current_dir(PACKAGE)
        .stderr(Stdio::inherit())
        .output()
        .context("cargo")?;
    ensure!(build.status.success(), "the agent does not build");
    let messages = String::from_utf8(build.stdout)?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| Some(message.get("executable")?.as_str()?.into()))
        .next_back()
        .context("cargo named no executable")
}

/// Returns the values of the built-in steps' variables in the world of this base, each as `name=value`.
pub(crate) fn variables(base: &Path, swap_path: &str) -> Result<Vec<String>> {
    let jar = base.join("www").join(JAR);
    let files = Path::new(PACKAGE).join("../../steps/files");
    let variables = [
        format!("jar_url=http://{JAR}"),
        format!("jar_sha256={}", sha256(&jar)?),
        "config_bucket=glovo-config".into(),
        format!("nginx_site_sha256={}", sha256(&files.join("nginx-default"))?),
        format!("unit_sha256={}", sha256(&files.join("glovo-app.service"))?),
        format!("swap_path={swap_path}"),
        "swap_size=128MiB".into(),
    ];
    Ok(variables.into())
}

/// The user-data of a whole bootstrap of a stock image.
pub(crate) fn bootstrap(base: &Path, swap_path: &str) -> Result<String> {
    let variables = variables(base, swap_path)?;
    let set = variables.iter().flat_map(|variable| ["--set", variable]);
    user_data("s3://glovo-config/glovo-bootstrap", &["--"].into_iter().chain(set).collect::<Vec<_>>())
}

/// Returns the output of `glovo-bootstrap user-data` for the agent under test at this URL.
pub fn user_data(url: &str, options: &[&str]) -> Result<String> {
    let agent = agent()?;
    guest::output(Command::new(agent).args(["user-data", url, "--agent"]).arg(agent).args(options))?.success()
}
