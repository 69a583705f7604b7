//! `install` and `uninstall`: units, manual pages and completions for a program that user-data has put in place.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap_complete::Shell;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::{Reading, load, open, record};
use crate::{
    cli,
    error::Fault,
    host::{
        command::Program,
        root::{FileType, Ownership, Root, trusted::Trusted},
        state,
    },
    manifest::vault::CONVERGE_TIMER,
    manual,
    run::lock::MachineLock,
    system::{Mode, System},
    value::{AbsPath, Sha256, quoted},
    view::{count, say},
};

/// Where user-data puts the program: root's alone, as what units start must be.
const PROGRAM: &str = "/usr/local/bin/glovo-bootstrap";
/// Where a package puts it, and so what the units name.
const PACKAGED: &str = "/usr/bin/glovo-bootstrap";
/// The state file that says what was installed.
const FILE: &str = "installed.json";
/// The start of the paths of manual pages.
const PAGES: &str = "/usr/local/share/man/man1/glovo-bootstrap";
/// The directories that may be there before `install`, hier(7). Without a record, they are kept.
const SHARED: [&str; 5] =
    ["/usr/local", "/usr/local/lib", "/usr/local/share", "/usr/local/share/man", "/usr/local/share/man/man1"];
/// The units to disable before their files go.
const UNITS: [&str; 2] = ["glovo-bootstrap.service", CONVERGE_TIMER];
/// Owner and mode of every file.
const OWNERSHIP: Ownership = Ownership { uid: 0, gid: 0, mode: 0o644 };
/// More than any of the files has.
const MAX_FILE_BYTES: u64 = 16 << 20;

macro_rules! units {
    ($($directory:literal: $name:literal),* $(,)?) => {
        [$((concat!("/usr/local/lib/systemd/", $directory, "/", $name), include_str!(concat!("../../packaging/systemd/", $name)))),*]
    };
}

/// What `install` has put in place.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Installed {
    /// Each file with the digests that ours may have: two while a newer version is written over an older one.
    files: BTreeMap<AbsPath, Vec<Sha256>>,
    /// The directories that were made for them, each after its parent.
    directories: Vec<AbsPath>,
}

/// The files, each with its bytes. Each ends with a mark.
fn files() -> Result<BTreeMap<AbsPath, Vec<u8>>> {
    let units = units![
        "system": "glovo-bootstrap.service",
        "system": "glovo-bootstrap-converge.service",
        "system": "glovo-bootstrap-converge.timer",
        "system-preset": "80-glovo-bootstrap.preset",
    ];
    let units = units.map(|(path, text)| (path.to_owned(), text.replace(PACKAGED, PROGRAM).into_bytes()));
    let completions = [
        (Shell::Bash, "bash-completion/completions/glovo-bootstrap"),
        (Shell::Zsh, "zsh/site-functions/_glovo-bootstrap"),
        (Shell::Fish, "fish/vendor_completions.d/glovo-bootstrap.fish"),
    ];
    let completions =
        completions.map(|(shell, path)| (format!("/usr/local/share/{path}"), manual::completions(shell).into_bytes()));
    let pages = manual::pages()?.into_iter().map(|(name, page)| (format!("/usr/local/share/man/man1/{name}"), page));
    let files = units.into_iter().chain(completions).chain(pages);
    files.map(|(path, bytes)| Ok((path.parse()?, [&bytes[..], mark(&path, &bytes).as_bytes()].concat()))).collect()
}

/// Returns the last line of a file. It says that `install` has written the lines above, if the record is damaged.
fn mark(path: &str, bytes: &[u8]) -> String {
    let comment = if path.starts_with(PAGES) { ".\\\"" } else { "#" };
    format!("{comment} written by glovo-bootstrap install, sha256 {}\n", Sha256::of(bytes))
}

/// Returns whether `install` of any version has written a file, and nothing has changed it.
fn is_marked(path: &AbsPath, bytes: &[u8]) -> bool {
    let start = bytes.trim_ascii_end().iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    bytes[start..] == *mark(path.as_str(), &bytes[..start]).as_bytes()
}

/// Puts the files in place, and records the manifest if one is named.
pub(super) fn install(manifest: &cli::ManifestArgs) -> Result<u8> {
    check_caller("install")?;
    let system = open(Path::new("/"), Mode::Run, None)?;
    if manifest.steps.as_deref() == Some("-") {
        let fault = Fault::new("a manifest from standard input cannot be recorded: units read it again at each run");
        return Err(fault.hint("write it to a file below /etc/glovo-bootstrap, and name that").invalid().into());
    }
    if manifest.steps.is_some() {
        _ = load(&system, &record::of_later_runs(&system, manifest)?, &Reading::Check)?;
    } else if manifest.has_variables() {
        let fault = Fault::new("variables are recorded together with their manifest, but --steps is missing");
        return Err(fault.hint("add --steps PATH, or --steps built-in").invalid().into());
    }
    let _lock = MachineLock::take(system.root())?;
    let number = put(&system, &|line| say(line))?;
    if system.is_live() {
        // Also without a change: an earlier `install` may have ended before this.
        system.host.daemon_reload()?;
    }
    if manifest.steps.is_some() {
        let is_whole = record::keep(&system, &mut manifest.clone(), record::INSTALL, None)?;
        say(if is_whole {
            "recorded the manifest and its variables"
        } else {
            "recorded the manifest; values that may be secrets are not recorded"
        });
    }
    say(match number {
        0 => "already installed: 0 changes".into(),
        _ => format!("installed: {}", count(number, "change")),
    });
    say("to run at each boot: systemctl enable glovo-bootstrap.service");
    say("to run every hour: systemctl enable --now glovo-bootstrap-converge.timer");
    Ok(0)
}

/// Writes the files that differ; returns how many. `tell` gets a line for each of them.
pub(super) fn put(system: &System, tell: &dyn Fn(String)) -> Result<usize> {
    let root = system.root();
    let mut installed = read(root)?.unwrap_or_default();
    let mut files_with_states = vec![];
    for (path, bytes) in files()? {
        let state = FileState::of(root, &installed, &path, Sha256::of(&bytes))?;
        files_with_states.push((path, bytes, state));
    }
    refuse_foreign(&files_with_states)?;
    let (others, ours): (Vec<_>, Vec<_>) =
        files_with_states.into_iter().partition(|(_, _, state)| *state == FileState::OfOthers);
    // Recorded before it is done, so that `uninstall` finds all of it whenever this process ends.
    for (path, bytes, _) in &ours {
        let (digests, digest) = (installed.files.entry(path.clone()).or_default(), Sha256::of(bytes));
        if !digests.contains(&digest) {
            digests.push(digest);
        }
        for directory in missing_directories(root, path)? {
            if !installed.directories.contains(&directory) {
                installed.directories.push(directory);
            }
        }
    }
    state::write(root, FILE, &installed)?;
    for (path, ..) in &others {
        tell(format!("= {path} was there already: `uninstall` will keep it"));
    }
    let differing: Vec<_> = ours.iter().filter(|(_, _, state)| *state == FileState::Differs).collect();
    for (path, bytes, _) in &differing {
        if let Some(parent) = path.parent() {
            root.make_directories(&parent, 0o755)?;
        }
        root.write(path, OWNERSHIP, bytes)?;
        tell(format!("+ write {path}"));
    }
    let is_present = |path: &&AbsPath| ours.iter().any(|(ours, ..)| ours == *path);
    let stale: Vec<AbsPath> = installed.files.keys().filter(|path| !is_present(path)).cloned().collect();
    for path in &stale {
        remove(root, &mut installed, path, tell)?;
    }
    for (path, bytes, _) in &ours {
        _ = installed.files.insert(path.clone(), vec![Sha256::of(bytes)]);
    }
    state::write(root, FILE, &installed)?;
    Ok(differing.len() + stale.len())
}

/// Removes what is recorded.
pub(super) fn uninstall() -> Result<u8> {
    check_caller("uninstall")?;
    let system = open(Path::new("/"), Mode::Run, None)?;
    let root = system.root();
    let _lock = MachineLock::take(root)?;
    let Some(mut installed) = read(root)? else {
        say("nothing is installed: 0 changes");
        return Ok(0);
    };
    if system.is_live() {
        // A unit of the same name elsewhere, such as a package's, is not ours.
        let is_ours = |name: &&str| {
            system.host.unit_file(name).is_ok_and(|file| file.is_some_and(|file| installed.files.contains_key(&file)))
        };
        let names = UNITS.into_iter().filter(is_ours);
        for name in names {
            _ = system.host.run_checked(&Program::new(["systemctl", "--quiet", "disable", "--now", name]))?;
        }
    }
    let paths: Vec<AbsPath> = installed.files.keys().cloned().collect();
    for path in &paths {
        remove(root, &mut installed, path, &|line| say(line))?;
    }
    for directory in installed.directories.iter().rev() {
        if root.remove_empty_directory(directory)? {
            say(format!("- remove {directory}"));
        }
    }
    if system.is_live() {
        system.host.daemon_reload()?;
    }
    // At the end, so that after a cut-off the same command does the rest.
    root.remove(&state::path(FILE)?)?;
    say("uninstalled");
    say(format!("left in place: {PROGRAM}, /etc/glovo-bootstrap, {}", state::DIRECTORY));
    Ok(0)
}

/// The state of a file before `install`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileState {
    /// It is ours, and as it should be.
    Same,
    /// It is as it should be, but something else has put it there.
    OfOthers,
    /// It does not exist, or an earlier `install` has written it.
    Differs,
    /// An earlier `install` has written it, and something else has changed it.
    Changed,
    /// Something else has written other bytes.
    Foreign,
}

impl FileState {
    /// Returns the state of the file at a path that should have this digest.
    fn of(root: &Root, installed: &Installed, path: &AbsPath, wanted: Sha256) -> Result<Self> {
        let Some(status) = root.status(path)? else { return Ok(Self::Differs) };
        let (found, known) = (found(root, path)?, installed.files.get(path));
        let is_same = found == Some(wanted) && status.ownership == OWNERSHIP;
        Ok(match (found, known) {
            (_, None) if is_same => Self::OfOthers,
            (_, Some(_)) if is_same => Self::Same,
            (Some(found), Some(known)) if found == wanted || known.contains(&found) => Self::Differs,
            (_, Some(_)) => Self::Changed,
            (_, None) => Self::Foreign,
        })
    }
}

/// Fails if there are files that `install` must not write. The error names all of them.
fn refuse_foreign(files: &[(AbsPath, Vec<u8>, FileState)]) -> Result<()> {
    let (mut whys, mut moves) = (vec![], String::new());
    for (path, _, state) in files {
        whys.push(match state {
            FileState::Changed => format!("{path} was changed after `install` had written it"),
            FileState::Foreign => format!("{path} exists, and `install` has not written it"),
            FileState::Same | FileState::OfOthers | FileState::Differs => continue,
        });
        moves += &format!("mv {path} {path}.old && ");
    }
    if whys.is_empty() {
        return Ok(());
    }
    let what = if whys.len() == 1 { "it" } else { "them" };
    let hint = format!("to replace {what}: {moves}glovo-bootstrap install");
    Err(Fault::new(format!("{}; nothing was installed", whys.join("; "))).hint(hint).into())
}

/// Reads the record of the installed files, if there is one. A damaged one is made again from the marks of the files.
fn read(root: &Root) -> Result<Option<Installed>> {
    let error = match state::load(root, FILE) {
        Ok(installed) => return Ok(installed),
        Err(error) => error,
    };
    say(format!("the record of the installed files was damaged: {error:#}; the marks in the files replace it"));
    let mut installed = Installed::default();
    let own = files()?.into_keys();
    for path in own.chain(root.matching(&format!("{PAGES}*"))?) {
        let Some(bytes) = content(root, &path)?.filter(|bytes| is_marked(&path, bytes)) else { continue };
        let ancestors =
            path.ancestors().filter(|directory| !SHARED.contains(directory) && directory.starts_with(SHARED[0]));
        for directory in ancestors {
            let directory: AbsPath = directory.parse()?;
            if !installed.directories.contains(&directory) {
                installed.directories.push(directory);
            }
        }
        _ = installed.files.insert(path, vec![Sha256::of(&bytes)]);
    }
    Ok(Some(installed))
}

/// Removes a file that is still as `install` has written it; keeps one that was edited.
fn remove(root: &Root, installed: &mut Installed, path: &AbsPath, tell: &dyn Fn(String)) -> Result<()> {
    let known = installed.files.remove(path).unwrap_or_default();
    match found(root, path)? {
        Some(digest) if known.contains(&digest) => {
            root.remove(path)?;
            tell(format!("- remove {path}"));
        }
        _ if root.status(path)?.is_some() => {
            tell(format!("kept {path}: it was changed after `install` had written it"));
        }
        _ => {}
    }
    Ok(())
}

/// Returns the digest of the regular file at a path; `None` if there is none.
fn found(root: &Root, path: &AbsPath) -> Result<Option<Sha256>> {
    Ok(content(root, path)?.map(|bytes| Sha256::of(&bytes)))
}

/// Returns the bytes of the regular file at a path; `None` if there is none.
fn content(root: &Root, path: &AbsPath) -> Result<Option<Vec<u8>>> {
    match root.status(path)? {
        Some(status) if status.file_type == FileType::Regular && status.size <= MAX_FILE_BYTES => {
            root.read(path, MAX_FILE_BYTES)
        }
        _ => Ok(None),
    }
}

/// The directories above a path that do not exist, outermost first.
fn missing_directories(root: &Root, path: &AbsPath) -> Result<Vec<AbsPath>> {
    let mut missing = vec![];
    let mut directory = path.parent();
    while let Some(above) = directory {
        if root.status(&above)?.is_some() {
            break;
        }
        directory = above.parent();
        missing.insert(0, above);
    }
    Ok(missing)
}

/// Returns whether this program came with a package, which has the units, too.
pub(super) fn is_packaged() -> Result<bool> {
    Ok(own_path()?.as_os_str() == PACKAGED)
}

fn own_path() -> Result<PathBuf> {
    std::env::current_exe().context("asking which program this is")
}

/// Fails unless root runs the program from where user-data puts it. A unit must not start what a user could replace.
pub(super) fn check_caller(verb: &str) -> Result<()> {
    let program = own_path()?;
    let program = program.to_string_lossy();
    let fault = if !geteuid().is_root() {
        Fault::new(format!("`{verb}` is for root")).hint(format!("sudo glovo-bootstrap {verb}"))
    } else if program == PACKAGED {
        Fault::new("this program came with a package, which has units, manual pages and completions already")
            .hint("systemctl enable glovo-bootstrap.service")
    } else if program != PROGRAM {
        Fault::new(format!("this program is at {program}, but its systemd units start {PROGRAM}"))
            .hint(format!("install -m 755 {} {PROGRAM} && {PROGRAM} {verb}", quoted(&program)))
    } else {
        // Fails if another user could replace it.
        _ = Trusted::open_for_unit(Path::new(PROGRAM))?.with_context(|| format!("{PROGRAM} does not exist"))?;
        return Ok(());
    };
    Err(fault.invalid().into())
}
