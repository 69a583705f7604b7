//! The kind `tree`.

mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::work::Work;
use super::{
    Change, Finding, Kind, Resource,
    directory::Directory,
    file::File,
    ownership::{Ids, NameOrNumber, attributes, ids, owner},
};
use crate::{
    aws::s3::listing::{Listed, Prefix},
    error::Fault,
    fetch::names::relative_path,
    host::{
        root::{
            FileType, Ownership, check_name,
            way::{Owner, Writers},
        },
        state,
    },
    system::{Fact, System, places::Claim},
    value::{AbsPath, ByteSize, FileMode, Sha256, quoted},
    visible,
};

/// Limits the number of files, because each run compares all of them.
const MAX_FILES: usize = 10_000;

/// A directory with the files below an S3 prefix. A file is downloaded if it is missing, if its source has another `ETag`, or
/// if the file has changed since. A file of an earlier listing that is gone from the source is removed, unless it was
/// changed here. Files that the source never had stay. A file of the source that another resource manages is an error.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefixTree {
    /// The directory. It is made if it is missing.
    path: AbsPath,
    /// The source, such as `s3://bucket/site/`: the files are the objects whose keys begin with `site/`. It must have at
    /// least one. At most 10000.
    source: TreeSource,
    /// The owner of all files, by name or by number. Default: root. Below a user's directory it must be that user.
    owner: Option<NameOrNumber>,
    /// Their group, by name or by number. Default: the owner's primary group.
    group: Option<NameOrNumber>,
    /// The permission bits of the files. Directories get `x` where files have `r`. Default: 0644.
    mode: Option<FileMode>,
    /// The most bytes that all files may have together. Default: 1GiB.
    #[serde(default = "default_size")]
    max_size: ByteSize,
}

fn default_size() -> ByteSize {
    ByteSize(1 << 30)
}

/// The prefix of a tree's objects.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(extend("pattern" = "^s3://[^/]+/(.*/)?$"))]
struct TreeSource(#[schemars(with = "String")] Prefix);

impl TryFrom<String> for TreeSource {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse().map(Self)
    }
}

impl fmt::Display for TreeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The record of the files that this program has written.
#[derive(Debug, Default, Serialize, Deserialize)]
struct PrefixNote {
    /// By their paths below the directory.
    files: BTreeMap<String, Written>,
}

/// A file that this program has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    /// The URL of its object.
    source: String,
    etag: String,
    sha256: Sha256,
}

impl PrefixNote {
    fn read(system: &System, path: &AbsPath) -> Self {
        state::read(system.root(), &Self::name(path)).unwrap_or_default()
    }

    fn write(&self, system: &System, path: &AbsPath) -> Result<()> {
        state::write(system.root(), &Self::name(path), self)
    }

    fn name(path: &AbsPath) -> String {
        format!("tree-{}.json", &Sha256::of(path.as_str().as_bytes()).to_string()[..32])
    }
}

impl Kind for PrefixTree {
    const NAME: &'static str = "tree";
    const EXAMPLE: &'static str = r#"kind = "tree"
path = "/var/www/site"
source = "s3://glovo-artifacts/site/42/"
owner = "root"
mode = "0644""#;
}

impl Resource for PrefixTree {
    fn title(&self) -> String {
        self.path.to_string()
    }

    fn owned_path(&self) -> Option<&AbsPath> {
        Some(&self.path)
    }

    fn fills(&self) -> bool {
        true
    }

    fn owner(&self) -> Option<&str> {
        self.owner.as_ref().map(NameOrNumber::as_str)
    }

    fn writers(&self) -> Option<Writers> {
        self.directory(self.path.clone()).writers()
    }

    fn check(&self) -> Vec<Finding> {
        Finding::of_name(&self.path).into_iter().collect()
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let owner = owner(system, self.owner.as_ref())?;
        let ids = ids(system, self.owner.as_ref(), self.group.as_ref())?;
        let mut changes = self.directory(self.path.clone()).plan(system)?;
        let note = PrefixNote::read(system, &self.path);
        let mut work = Work::default();
        let mut files = BTreeMap::new();
        for (name, listed) in self.listed(system)? {
            let file = TreeFile { path: self.path_of(&name)?, source: self.url(&listed), listed };
            self.look_at(system, &mut work, &note, &name, &file, (&owner, ids))?;
            _ = files.insert(name, file);
        }
        for directory in directories(files.keys()) {
            let path = self.path_of(&directory)?;
            if system.root().status(&path)?.is_some() && !system.is_declared(&path) {
                changes.extend(
                    self.directory(path)
                        .plan(system)?
                        .into_iter()
                        .map(|change| Change { summary: format!("{directory}/: {}", change.summary), ..change }),
                );
            }
        }
        for (name, written) in note.files.iter().filter(|(name, _)| !files.contains_key(*name)) {
            let path = self.path_of(name)?;
            match system.root().status(&path)? {
                Some(status) if status.file_type == FileType::Regular => {
                    if system.host.digest(&path)? == Some(written.sha256) {
                        let claim = Claim { path: &path, owner: None, gid: None, makes_parents: true };
                        _ = system.check_place(claim)?;
                        system.check_may_change(&path, &[Fact::Absent(path.clone())])?;
                        work.removed.push(name.clone());
                    } else {
                        system.warn(format!("{name} is gone from the source, but was changed here: it stays"));
                    }
                }
                _ => {}
            }
        }
        self.warn_of_others(system, &files, &note)?;
        changes.extend(work.changes(self, files, ids));
        Ok(changes)
    }
}

/// A file of a tree.
#[derive(Debug, Clone)]
struct TreeFile {
    path: AbsPath,
    /// The URL of its object.
    source: String,
    listed: Listed,
}

impl PrefixTree {
    fn mode(&self) -> u32 {
        self.mode.map_or(0o644, |mode| mode.0)
    }

    /// Returns the declaration of its directory, or of one below.
    fn directory(&self, path: AbsPath) -> Directory {
        Directory::of(path, self.owner.clone(), self.group.clone(), FileMode(self.directory_mode()))
    }

    fn directory_mode(&self) -> u32 {
        (self.mode() & 0o777) | ((self.mode() & 0o444) >> 2)
    }

    fn path_of(&self, name: &str) -> Result<AbsPath> {
        format!("{}/{name}", self.path.as_str().trim_end_matches('/')).parse()
    }

    fn url(&self, listed: &Listed) -> String {
        format!("s3://{}/{}", self.source.0.bucket, listed.key)
    }

    /// Returns the files of the source by their paths below the directory.
    fn listed(&self, system: &System) -> Result<BTreeMap<String, Listed>> {
        let prefix = &self.source.0;
        let mut files = BTreeMap::new();
        // Consoles create an empty object of such a name to show a directory.
        let objects = system.aws.list(&system.host, prefix)?.into_iter().filter(|object| !object.key.ends_with('/'));
        for object in objects {
            let name = relative_path(&object.key, &prefix.prefix).with_context(|| {
                let url = self.url(&object);
                format!("{} cannot be a file below a directory", visible::line(&url))
            })?;
            _ = files.insert(name, object);
        }
        let bytes: u64 = files.values().map(|object| object.size).sum();
        if files.is_empty() {
            // A typing mistake must not remove all files.
            let fault = Fault::new(format!("there are no objects below {prefix}"));
            return Err(fault.hint("check the bucket and the prefix").into());
        }
        if files.len() > MAX_FILES {
            let fault = Fault::new(format!("{prefix} has {} objects; a tree has at most {MAX_FILES}", files.len()));
            return Err(fault.hint("declare several trees with longer prefixes").into());
        }
        if bytes > self.max_size.0 {
            let message = format!("the objects below {prefix} have {}, more than {}", ByteSize(bytes), self.max_size);
            return Err(Fault::new(message).hint(format!("set max_size = \"{}\" or more", ByteSize(bytes))).into());
        }
        if let Some(both) = directories(files.keys()).into_iter().find(|directory| files.contains_key(directory)) {
            let message = format!("{prefix}{both} would be a file and a directory");
            return Err(Fault::new(message).hint("rename one of the objects").into());
        }
        Ok(files)
    }

    /// Adds what differs between a file and its object.
    fn look_at(
        &self,
        system: &System,
        work: &mut Work,
        note: &PrefixNote,
        name: &str,
        file: &TreeFile,
        (owner, ids): (&Owner, Ids),
    ) -> Result<()> {
        let path = &file.path;
        let gid = ids.map(|(_, gid)| gid);
        let is_a_users =
            system.check_place(Claim { path, owner: Some(owner), gid, makes_parents: true })?.user.is_some();
        if system.is_declared(path) {
            let message = format!("{} is {path}, which another resource manages", file.source);
            return Err(Fault::new(message).hint("remove the object, or the other resource").into());
        }
        if let Some(other) = system.filled_above(path).filter(|other| *other != self.path) {
            let message = format!("{} would be in {other}, which another resource manages", file.source);
            return Err(Fault::new(message).hint("remove the object, or the other resource").into());
        }
        let Some(status) = system.root().status(path)? else {
            work.downloaded.push((name.to_owned(), "new"));
            return Ok(());
        };
        match status.file_type {
            FileType::Regular => {}
            FileType::Link => {
                work.downloaded.push((name.to_owned(), "a symbolic link now"));
                return Ok(());
            }
            FileType::Directory | FileType::Special => {
                let fault = Fault::new(format!("{path} exists and is not a file"));
                return Err(fault.hint(format!("move it away: mv {0} {0}.old", quoted(path.as_str()))).into());
            }
        }
        let known = note.files.get(name).filter(|known| known.source == file.source);
        let ownership = attributes(system, path, &status, ids, Some(self.mode()))?;
        let why = match known {
            None => Some("of an unknown source now"),
            Some(known) if Some(&known.etag) != file.listed.etag.as_ref() => Some("other ETag"),
            Some(known) if system.host.digest(path)? != Some(known.sha256) => Some("changed here"),
            Some(_) if File::must_be_new(&status.ownership, (ids, self.mode()), is_a_users) => {
                Some("other owner or mode")
            }
            Some(_) => None,
        };
        match why {
            Some(why) => {
                system.check_may_change(path, &[Fact::Path(path.clone())])?;
                work.downloaded.push((name.to_owned(), why));
            }
            None if ownership.is_empty() => {}
            None => work.owned.push((name.to_owned(), ownership.join(", "))),
        }
        Ok(())
    }

    /// Warns of the files in the tree's directories that neither the source nor another resource has.
    fn warn_of_others(&self, system: &System, files: &BTreeMap<String, TreeFile>, note: &PrefixNote) -> Result<()> {
        let known = directories(files.keys().chain(note.files.keys()));
        let mut others = vec![];
        for directory in known.iter().map(String::as_str).chain([""]) {
            let path = if directory.is_empty() { self.path.clone() } else { self.path_of(directory)? };
            if system.root().status(&path)?.is_none_or(|status| status.file_type != FileType::Directory) {
                continue;
            }
            for leaf in system.root().list(&path)? {
                let name = if directory.is_empty() { leaf.clone() } else { format!("{directory}/{leaf}") };
                let is_ours = files.contains_key(&name) || note.files.contains_key(&name) || known.contains(&name);
                let is_temporary = check_name(&leaf).is_err();
                if !is_ours && !is_temporary && !path.join(&leaf).is_ok_and(|path| system.is_declared(&path)) {
                    others.push(name);
                }
            }
        }
        if !others.is_empty() {
            system
                .warn(format!("not of the source, and left as it is: {}", work::shown(others.iter().map(Into::into))));
        }
        Ok(())
    }

    /// Returns the owner and the mode of a file.
    fn ownership(&self, ids: Ids) -> Ownership {
        let (uid, gid) = ids.unwrap_or_default();
        Ownership { uid, gid, mode: self.mode() }
    }
}

/// Returns the directories above these files, without the tree's own.
fn directories<'a>(names: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
    let mut directories = BTreeSet::new();
    for name in names {
        directories.extend(name.match_indices('/').map(|(at, _)| name[..at].to_owned()));
    }
    directories
}
