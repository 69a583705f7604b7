//! `fetch`: downloads many files at once.

mod wanted;

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use self::wanted::{Wanted, What};
use crate::{
    aws::{
        account::AwsSettings,
        s3::listing::{Listed, Prefix},
    },
    cli,
    error::{self, Class, Fault},
    fetch::{
        batch::{Delivery, DeliveryEvent, Order, prepare_directory},
        names::relative_path,
        source::Source,
    },
    host::root::is_full,
    net::settings::NetworkSettings,
    run::report::ErrorReport,
    stop::Interrupt,
    system::{Mode, System},
    value::{AbsPath, Sha256, Span},
    view::{
        complain, complain_of,
        downloads::{self, Bars, DownloadStatus, Row, complain_of_all},
        say, say_json,
    },
    visible,
};

/// Downloads the files. Returns 0 if all are complete, 1 if not, 128 + n after signal n.
pub(super) fn execute(arguments: cli::Fetch) -> Result<u8> {
    fetch(arguments).or_else(|error| {
        if let Class::Interrupted(_) = error::class(&error) {
            return Err(error);
        }
        complain_of(&error);
        Ok(1)
    })
}

fn fetch(arguments: cli::Fetch) -> Result<u8> {
    // Signals are not caught yet, so Ctrl-C ends the process while it reads from a terminal.
    let wanted = wanted::all(&arguments)?;
    let interrupt = Interrupt::install()?;
    let mut system = System::open(Path::new("/"), Mode::Run, interrupt.clone())?;
    let caller = super::person(interrupt);
    let chosen = AwsSettings { profile: arguments.profile, caller, ..AwsSettings::default() };
    system.connect(NetworkSettings::default(), chosen);
    let directory = absolute(&std::env::current_dir().context("the current directory")?, &arguments.output_dir)?;
    let began = Instant::now();
    let bars = Bars::new();
    bars.show_progress_of(&system);
    let files = system.host.stop.deadlines.within(arguments.timeout.map(|Span(limit)| limit), "fetch", || {
        let mut files = expand(&system, wanted)?;
        skip_all_but_the_last(&mut files);
        pin(&mut files, &arguments.sha256)?;
        place(&system, &mut files, &directory)?;
        deliver(&system, &mut files, arguments.jobs.map(usize::from), bars)?;
        anyhow::Ok(files)
    })?;
    let failures: Vec<&anyhow::Error> = files.iter().filter_map(WantedFile::error).collect();
    if arguments.json {
        let files: Vec<FileReport<'_>> = files.iter().map(FileReport::from).collect();
        say_json(&serde_json::json!({ "files": files }))?;
        complain_of_all(&failures);
    } else {
        downloads::show(&files.iter().map(Row::from).collect::<Vec<_>>());
        // The errors follow the table, so that they stay visible on a terminal.
        complain_of_all(&failures);
        say(summary(&files, began.elapsed()));
    }
    Ok(u8::from(!failures.is_empty()))
}

/// A source with its digest, if one is declared.
#[derive(Debug)]
struct Pinned {
    source: Source,
    sha256: Option<Sha256>,
}

/// A file to download.
#[derive(Debug)]
struct WantedFile {
    /// Its URL without the query string, or the URL of a prefix that could not be listed.
    url: String,
    /// `None` if a prefix could not be listed, or a key is no valid name.
    wanted: Option<Pinned>,
    /// Its path below the output directory.
    name: String,
    path: Option<AbsPath>,
    /// From the listing of a prefix.
    size: Option<u64>,
    outcome: Option<FileOutcome>,
}

#[derive(Debug)]
enum FileOutcome {
    Fetched(Delivery),
    AlreadyThere(u64),
    Skipped,
    Failed(anyhow::Error),
}

impl WantedFile {
    fn of(download: Pinned, name: String, size: Option<u64>) -> Self {
        let url = download.source.to_string();
        Self { url, wanted: Some(download), name, path: None, size, outcome: None }
    }

    fn failed(url: String, error: anyhow::Error) -> Self {
        Self { name: url.clone(), url, wanted: None, path: None, size: None, outcome: Some(FileOutcome::Failed(error)) }
    }

    fn error(&self) -> Option<&anyhow::Error> {
        match &self.outcome {
            Some(FileOutcome::Failed(error)) => Some(error),
            _ => None,
        }
    }
}

/// Returns a typed path as an absolute one. Links are not resolved here: the root does that safely.
pub(super) fn absolute(current: &Path, path: &Path) -> Result<AbsPath> {
    let mut absolute = PathBuf::new();
    for component in current.join(path).components() {
        match component {
            Component::ParentDir => _ = absolute.pop(),
            Component::CurDir => {}
            component => absolute.push(component),
        }
    }
    absolute.to_str().with_context(|| format!("{} is not UTF-8", absolute.display()))?.parse()
}

/// Returns each requested file, including those below prefixes. A prefix that cannot be listed counts as failed.
fn expand(system: &System, wanted: Vec<Wanted>) -> Result<Vec<WantedFile>> {
    let mut files = vec![];
    for Wanted { what, sha256 } in wanted {
        let prefix = match what {
            What::One(source, name) => {
                files.push(WantedFile::of(Pinned { source, sha256 }, name, None));
                continue;
            }
            What::Below(prefix) => prefix,
        };
        let listed = system.aws.list(&system.host, &prefix);
        system.host.stop.check()?;
        match listed {
            Ok(objects) if objects.is_empty() => {
                let fault = Fault::new(format!("there are no objects below {prefix}"));
                files
                    .push(WantedFile::failed(prefix.to_string(), fault.hint("check the bucket and the prefix").into()));
            }
            // Consoles create an empty object of such a name to show a directory.
            Ok(objects) => files.extend(
                objects.into_iter().filter(|object| !object.key.ends_with('/')).map(|object| below(&prefix, object)),
            ),
            Err(error) => files.push(WantedFile::failed(prefix.to_string(), error)),
        }
    }
    Ok(files)
}

/// An object below a prefix.
fn below(prefix: &Prefix, Listed { key, size, .. }: Listed) -> WantedFile {
    let name = relative_path(&key, &prefix.prefix);
    let source = Source::S3 { bucket: prefix.bucket.clone(), key, version: None };
    match name {
        Ok(name) => WantedFile::of(Pinned { source, sha256: None }, name, Some(size)),
        Err(error) => {
            let url = visible::line(&source.to_string()).into_owned();
            WantedFile::failed(url.clone(), error.context(format!("{url} cannot be a file below a directory")))
        }
    }
}

/// Keeps only the last of several files with the same name.
fn skip_all_but_the_last(files: &mut [WantedFile]) {
    let mut last: HashMap<String, usize> = HashMap::new();
    for index in (0..files.len()).rev() {
        if files[index].outcome.is_some() {
            continue;
        }
        match last.get(&files[index].name) {
            None => _ = last.insert(files[index].name.clone(), index),
            Some(winner) => {
                let winner = files[*winner].url.clone();
                let file = &mut files[index];
                let why = if winner == file.url {
                    format!("{winner} is named twice; it is downloaded once")
                } else {
                    format!("{} is skipped: the later {winner} has the same name {}", file.url, file.name)
                };
                complain(why);
                file.outcome = Some(FileOutcome::Skipped);
            }
        }
    }
}

/// Applies each `--sha256 [NAME=]HEX`.
fn pin(files: &mut [WantedFile], pins: &[String]) -> Result<()> {
    let open = files.iter().filter(|file| file.outcome.is_none()).count();
    for text in pins {
        let (name, hex) = match text.rsplit_once('=') {
            Some((name, hex)) => (Some(name), hex),
            None => (None, text.as_str()),
        };
        let sha256: Sha256 = hex.parse().with_context(|| format!("--sha256 {text}"))?;
        let mut named =
            files.iter_mut().filter(|file| file.outcome.is_none() && name.is_none_or(|name| name == file.name));
        let Some(download) = named.next().and_then(|file| file.wanted.as_mut()) else {
            let what = name.map_or_else(|| "there is no file".into(), |name| format!("no file is named {name}"));
            bail!(Fault::new(format!("--sha256 {text}: {what}; nothing was downloaded")));
        };
        if name.is_none() && open > 1 {
            let fault =
                Fault::new(format!("--sha256 {text} does not name one of the {open} files; nothing was downloaded"));
            bail!(fault.hint("name the file: --sha256 NAME=HEX"));
        }
        let source = &download.source;
        if download.sha256.is_some_and(|other| other != sha256) {
            bail!(Fault::new(format!("{source} cannot have two digests; nothing was downloaded")));
        }
        download.sha256 = Some(sha256);
    }
    Ok(())
}

/// Sets each file's path, and finds the files that exist already.
fn place(system: &System, files: &mut [WantedFile], directory: &AbsPath) -> Result<()> {
    let mut open = files.iter_mut().filter(|file| file.outcome.is_none()).peekable();
    if open.peek().is_some() {
        prepare_directory(&system.host, directory).map_err(|error| {
            let fault = Fault::new(format!("cannot write files into {directory}; nothing was downloaded"));
            // For a full file system, the cause below has its own hint.
            let is_full = is_full(&error);
            let fault = fault.caused_by(error);
            if is_full { fault } else { fault.hint("name another directory: --output-dir DIR") }
        })?;
    }
    for file in open {
        let path: AbsPath = match format!("{}/{}", directory.as_str().trim_end_matches('/'), file.name).parse() {
            Ok(path) => path,
            Err(error) => {
                file.outcome = Some(FileOutcome::Failed(error));
                continue;
            }
        };
        let expected = file.wanted.as_ref().and_then(|download| download.sha256);
        if expected.is_some() {
            // A file that cannot be read is downloaded. If it cannot be replaced, that download fails.
            system.host.progress(&format!("reading {path}"));
            let there = system.host.digest(&path);
            system.host.stop.check()?;
            if matches!(there, Ok(digest) if digest == expected) {
                let size = system.root().status(&path)?.map_or(0, |status| status.size);
                file.outcome = Some(FileOutcome::AlreadyThere(size));
            }
        }
        file.path = Some(path);
    }
    Ok(())
}

fn deliver(system: &System, files: &mut [WantedFile], jobs: Option<usize>, mut bars: Bars) -> Result<()> {
    let mut orders = vec![];
    let mut open = vec![];
    for file in files.iter_mut().filter(|file| file.outcome.is_none()) {
        if let (Some(download), Some(path)) = (&file.wanted, &file.path) {
            orders.push(Order {
                source: download.source.clone(),
                sha256: download.sha256,
                destination: path.clone(),
                ownership: None,
            });
            bars.expect(&file.name, file.size);
            open.push(file);
        }
    }
    let (total, mut arrived) = (orders.len(), 0);
    bars.begin();
    let delivered = system.fetcher.deliver(&system.host, orders, jobs, &mut |event| {
        arrived += usize::from(matches!(event, DeliveryEvent::Done { result: Ok(_), .. }));
        bars.observe(&event);
    });
    bars.end();
    let delivered = delivered.with_context(|| format!("{arrived} of {total} files are complete"))?;
    for (file, result) in open.into_iter().zip(delivered) {
        file.outcome = Some(result.map_or_else(FileOutcome::Failed, FileOutcome::Fetched));
    }
    Ok(())
}

/// `fetched 3 files, 1.3 GiB in 12.3 s (105 MiB/s); 1 failed`.
fn summary(files: &[WantedFile], elapsed: Duration) -> String {
    let rows: Vec<Row<'_>> = files.iter().map(Row::from).collect();
    let count = |status| rows.iter().filter(|row| row.status == status).count();
    let fetched = rows.iter().filter(|row| row.status == DownloadStatus::Fetched);
    // Resumed bytes took none of this time.
    let bytes = fetched.map(|row| row.size.unwrap_or_default().saturating_sub(row.resumed)).sum();
    let mut text = match count(DownloadStatus::Fetched) {
        0 => "fetched nothing".into(),
        files => format!("fetched {}", downloads::sum(files, bytes, elapsed)),
    };
    for (status, word) in [
        (DownloadStatus::AlreadyThere, "already there"),
        (DownloadStatus::Skipped, "skipped"),
        (DownloadStatus::Failed, "failed"),
    ] {
        if count(status) > 0 {
            text.push_str(&format!("; {} {word}", count(status)));
        }
    }
    text
}

impl<'a> From<&'a WantedFile> for Row<'a> {
    fn from(file: &'a WantedFile) -> Self {
        let row = |status, size, time, resumed| Row { status, size, time, resumed, name: &file.name };
        match &file.outcome {
            Some(FileOutcome::Fetched(it)) => row(DownloadStatus::Fetched, Some(it.size), Some(it.took), it.resumed),
            Some(FileOutcome::AlreadyThere(size)) => row(DownloadStatus::AlreadyThere, Some(*size), None, 0),
            Some(FileOutcome::Skipped) => row(DownloadStatus::Skipped, None, None, 0),
            Some(FileOutcome::Failed(_)) | None => row(DownloadStatus::Failed, None, None, 0),
        }
    }
}

/// A file in the JSON document.
#[derive(Debug, Serialize)]
struct FileReport<'a> {
    /// Its URL, without the query string.
    source: &'a str,
    path: Option<&'a str>,
    status: DownloadStatus,
    /// In bytes.
    size: Option<u64>,
    sha256: Option<Sha256>,
    seconds: Option<f64>,
    /// Bytes that an earlier, interrupted download left.
    resumed: u64,
    error: Option<ErrorReport>,
}

impl<'a> From<&'a WantedFile> for FileReport<'a> {
    fn from(file: &'a WantedFile) -> Self {
        let Row { status, size, time, resumed, .. } = file.into();
        let sha256 = match &file.outcome {
            Some(FileOutcome::Fetched(it)) => Some(it.sha256),
            Some(FileOutcome::AlreadyThere(_)) => file.wanted.as_ref().and_then(|download| download.sha256),
            _ => None,
        };
        Self {
            source: &file.url,
            path: file.path.as_ref().map(AbsPath::as_str),
            status,
            size,
            sha256,
            seconds: time.map(|time| time.as_secs_f64()),
            resumed,
            error: file.error().map(ErrorReport::new),
        }
    }
}
