//! The kind `archive`.

mod unpack;

use std::fmt;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Change, Finding, Kind, Resource,
    file::origin::{foresee, is_expected},
    ownership::{Ids, NameOrNumber, differences, ids_of, owner},
};
use crate::{
    archive::ArchiveLimits,
    error::Fault,
    fetch::{pull::Download, source::Sources},
    host::{
        root::{FileStatus, FileType, Ownership, tree::no_exchange, way::Writers},
        tree::{TreeNote, Trees, some_of},
    },
    system::{Fact, Mode, System, places::Claim},
    value::{AbsPath, ByteSize, FileMode, Sha256},
};

/// The most members that `max_members` allows. A note of a million members has up to 200 MB.
const MOST_MEMBERS: u64 = 1_000_000;
/// File systems without the exchange of two names, by statfs(2): NFS, SMB (two), CIFS, 9p, AFS, FUSE.
const WITHOUT_EXCHANGE: [i64; 7] = [0x6969, 0x517b, 0xfe53_4d42, 0xff53_4d42, 0x0102_1997, 0x5346_414f, 0x6573_5546];

/// A directory with the content of a tar, tar.gz, tar.xz, tar.zst or zip; its first bytes decide, not its name. The complete
/// new directory takes the place of the old one in a single step. If a file was edited or removed, all are unpacked again.
/// An added file is an error, and is never removed. The old directory goes when the services of `restart_on` have
/// restarted. Refused are members that lead out of the directory, devices and set-id bits; mount points; and file systems
/// without the exchange, such as NFS.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnpackedArchive {
    /// The path of the directory. Missing parents are made with mode 0755.
    path: AbsPath,
    /// The source of the archive, as in a `file`: a URL, a list of URLs, or a table by architecture.
    source: Sources,
    /// SHA-256 of the archive, or a table by architecture.
    sha256: Sha256,
    /// The number of leading components to remove from each member's path, as `tar --strip-components` does. Default: 0.
    #[serde(default)]
    strip: usize,
    /// The owner of all files, by name or by number, such as `1500`. The archive's owners do not count. Default: root.
    owner: Option<NameOrNumber>,
    /// The group, by name or by number. Default: the owner's primary group.
    group: Option<NameOrNumber>,
    /// The permission bits of the directory itself. Its members have the archive's, but only the owner may write. Default: 0755.
    mode: Option<FileMode>,
    /// The paths in it that the application writes, such as `["data"]`. They move into each new directory, and only the first
    /// one comes from the archive. Default: none.
    #[serde(default)]
    keep: Vec<KeptPath>,
    /// The most members. Default: 100000; at most 1000000.
    max_members: Option<u64>,
    /// The most bytes that the members may have together, such as `"10GiB"`. Default: 4GiB.
    max_size: Option<ByteSize>,
}

/// A path below an archive's directory, such as `data` or `etc/local.conf`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct KeptPath(String);

impl TryFrom<String> for KeptPath {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let path: AbsPath = format!("/{}", text.trim_end_matches('/')).parse()?;
        anyhow::ensure!(!path.leaf().is_empty(), "`{text}` is not a path below the directory, such as `data`");
        Ok(Self(path.as_str()[1..].to_owned()))
    }
}

impl fmt::Display for KeptPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Kind for UnpackedArchive {
    const NAME: &'static str = "archive";
    const EXAMPLE: &'static str = r#"kind = "archive"
path = "/opt/prometheus-2.53.0"
source = "https://artifacts.example.com/prometheus-2.53.0.linux-amd64.tar.gz"
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
strip = 1"#;
}

impl Resource for UnpackedArchive {
    fn title(&self) -> String {
        self.path.to_string()
    }

    fn owned_path(&self) -> Option<&AbsPath> {
        Some(&self.path)
    }

    fn kept_paths(&self) -> Option<Vec<AbsPath>> {
        Some(self.keep.iter().filter_map(|kept| format!("{}/{kept}", self.path).parse().ok()).collect())
    }

    fn needed_files(&self) -> Vec<(&'static str, &AbsPath)> {
        self.source.local().map(|path| ("source", path)).into_iter().collect()
    }

    fn owner(&self) -> Option<&str> {
        Some(self.owner.as_ref().map_or("root", NameOrNumber::as_str))
    }

    fn writers(&self) -> Option<Writers> {
        let group = self.group.as_ref().map(NameOrNumber::as_str);
        let is_shared = || group.is_some_and(|group| !["root", "0"].contains(&group) && Some(group) != self.owner());
        Some(Writers::of(self.top_mode(), true, is_shared))
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = Finding::of_name(&self.path).into_iter().collect();
        if self.path.parent().is_none() {
            findings.push(Finding::new("path", "`/` cannot be the directory of an archive"));
        }
        for (index, kept) in self.keep.iter().enumerate() {
            let is_in = |other: &KeptPath| kept.0.strip_prefix(&other.0).is_some_and(|rest| rest.starts_with('/'));
            if self.keep[..index].contains(kept) || self.keep.iter().any(is_in) {
                let finding = Finding::new("keep", format!("`{kept}` is kept twice"));
                findings.push(finding.hint("remove it: a kept directory is kept with all that is in it"));
            }
        }
        if self.max_members.is_some_and(|most| most == 0 || most > MOST_MEMBERS) {
            findings.push(Finding::new("max_members", format!("the most members are 1 to {MOST_MEMBERS}")));
        }
        findings
    }

    fn prefetch(&self, system: &System) -> Option<Download> {
        let is_there = || {
            let is_directory = system.root().status(&self.path).ok()??.file_type == FileType::Directory;
            Some(is_directory && system.host.tree_head(&self.path).ok()??.archive == self.sha256)
        };
        (self.source.local().is_none() && is_there() != Some(true)).then(|| self.download())
    }

    fn version_to_come(&self, _system: &System) -> Result<Option<String>> {
        Ok(Some(format!("{} {:?}", self.sha256, self.strip)))
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let status = system.root().status(&self.path)?;
        let owner = owner(system, self.owner.as_ref())?;
        let ids = ids_of(system, &owner, self.group.as_ref())?;
        let claim = Claim { path: &self.path, owner: Some(&owner), gid: ids.map(|(_, gid)| gid), makes_parents: true };
        let place = system.check_place(claim)?;
        self.check_replaceable(system, status.as_ref())?;
        let mut trees = system.host.trees(&self.path)?;
        let mut changes = vec![];
        if trees.is_unfinished && !system.is_leaving(&self.path) {
            let (path, kept) = (self.path.clone(), self.kept());
            system.host.check_kept(&path, &trees, &kept)?;
            changes.push(Change::new("complete what an earlier run began", move |system| {
                system.host.move_kept(&path, &kept)?;
                system.leave_tree(path, kept);
                Ok(())
            }));
        }
        let Some(difference) = self.difference(system, status.as_ref(), &mut trees, ids)? else { return Ok(changes) };
        if system.mode() == Mode::Plan {
            self.foresee(system)?;
        }
        let generation = trees.present.map_or(0, |note| note.generation) + 1;
        let archive = self.clone();
        let install = move |system: &System| {
            let (uid, gid) = ids.unwrap_or_default();
            archive.install(system, Ownership { uid, gid, mode: archive.top_mode() }, generation)
        };
        let writers = self.writers_of(system, ids)?;
        let above = std::iter::successors(Some(self.path.clone()), AbsPath::parent).map(Fact::Path);
        let facts = [
            Fact::Tree(self.path.clone()),
            Fact::Bytes(self.path.clone(), TreeNote::digest_of(self.sha256, self.strip, generation)),
            Fact::Directory(place.path, owner, writers, self.top_mode()),
        ];
        changes.push(Change::new(format!("{difference} from {}", self.source), install).brings(above).brings(facts));
        Ok(changes)
    }
}

impl UnpackedArchive {
    fn top_mode(&self) -> u32 {
        self.mode.map_or(0o755, |mode| mode.0)
    }

    fn kept(&self) -> Vec<String> {
        self.keep.iter().map(|kept| kept.0.clone()).collect()
    }

    fn limits(&self) -> ArchiveLimits {
        let ArchiveLimits { members, bytes } = ArchiveLimits::default();
        let bytes = self.max_size.map_or(bytes, |size| size.0);
        ArchiveLimits { members: self.max_members.unwrap_or(members), bytes }
    }

    fn download(&self) -> Download {
        Download::new(self.source.clone(), Some(self.sha256))
    }

    /// Fails if the path has something that cannot be exchanged with a directory.
    fn check_replaceable(&self, system: &System, status: Option<&FileStatus>) -> Result<()> {
        let path = &self.path;
        let fault = match status.map(|status| status.file_type) {
            Some(FileType::Link) => {
                let target = system.root().resolve(path)?;
                Fault::new(format!("{path} is a symbolic link to {target}"))
                    .hint(format!("declare {target}, or another path and a `link` to it"))
            }
            Some(FileType::Regular | FileType::Special) => Fault::new(format!("{path} exists and is not a directory"))
                .hint("move it away, or declare another path"),
            Some(FileType::Directory) => {
                system.host.check_no_mounts(path)?;
                return self.check_exchange(system, path);
            }
            None => {
                let parents = std::iter::successors(path.parent(), AbsPath::parent);
                for parent in parents {
                    if system.root().status(&parent)?.is_some() {
                        return self.check_exchange(system, &parent.join("x")?);
                    }
                }
                return Ok(());
            }
        };
        Err(fault.into())
    }

    /// Fails if the file system of a path cannot exchange two directories.
    fn check_exchange(&self, system: &System, path: &AbsPath) -> Result<()> {
        let magic = system.root().file_system(path)?.magic;
        #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the type depends on the platform")]
        let magic = magic.0 as i64 & 0xffff_ffff;
        if WITHOUT_EXCHANGE.contains(&magic) { Err(no_exchange(&self.path).into()) } else { Ok(()) }
    }

    /// Returns the difference between the directory and the archive; `None` if there is none.
    fn difference(
        &self,
        system: &System,
        status: Option<&FileStatus>,
        trees: &mut Trees,
        ids: Ids,
    ) -> Result<Option<String>> {
        let unpack = format!("unpack sha256 {}", short(self.sha256));
        let (Some(status), Some(note)) = (status, &trees.present) else {
            self.check_empty(system)?;
            return Ok(Some(unpack));
        };
        let comparison = system.host.compare_tree(&self.path, note, &self.kept())?;
        if !comparison.unknown.is_empty() {
            return Err(self.unknown(&comparison.unknown, "the archive has not brought"));
        }
        let mut now = Ownership { uid: note.uid, gid: note.gid, mode: status.ownership.mode };
        let mut others = differences(system, now, ids, Some(self.top_mode()))?;
        if others.is_empty() {
            (now.uid, now.gid) = (status.ownership.uid, status.ownership.gid);
            others = differences(system, now, ids, None)?;
        }
        others.extend(system.root().label_difference(&self.path, FileType::Directory)?);
        if note.strip != self.strip {
            others.push(format!("strip = {} (now {})", self.strip, note.strip));
        }
        let others = if others.is_empty() { String::new() } else { format!(", with {}", others.join(", ")) };
        if note.archive != self.sha256 {
            return Ok(Some(format!("{unpack}, in place of sha256 {}{others}", short(note.archive))));
        }
        if !comparison.differences.is_empty() {
            return Ok(Some(format!("unpack again{others}: {};", some_of(&comparison.differences))));
        }
        if !others.is_empty() {
            return Ok(Some(format!("unpack again{others}")));
        }
        if system.mode() == Mode::Run {
            trees.remember(&system.host, &self.path, &comparison)?;
        }
        Ok(None)
    }

    /// Fails if the directory has files, but no archive has brought it.
    fn check_empty(&self, system: &System) -> Result<()> {
        let mut names = system.root().list(&self.path)?;
        names.retain(|name| !self.keep.iter().any(|kept| kept.0 == *name));
        if names.is_empty() { Ok(()) } else { Err(self.unknown(&names, "no archive has brought")) }
    }

    fn unknown(&self, names: &[String], how: &str) -> anyhow::Error {
        let fault = Fault::new(format!("{} has files that {how}: {}", self.path, some_of(names)));
        fault.hint(format!("move them away, or name them in `keep`: keep = [{:?}]", names[0])).into()
    }

    /// Returns the users that may write to the directory.
    fn writers_of(&self, system: &System, ids: Ids) -> Result<Writers> {
        let accounts = system.host.accounts()?;
        Ok(Writers::of(self.top_mode(), true, || match ids {
            Some((uid, gid)) => gid != 0 && !accounts.is_private(gid, uid),
            None => self.group.is_some(),
        }))
    }

    /// Fails if the archive is a file of this machine that a run could not unpack.
    fn foresee(&self, system: &System) -> Result<()> {
        let Some(path) = self.source.local() else { return Ok(()) };
        foresee(system, path, Some(self.sha256))?;
        if is_expected(system, path) {
            return Ok(());
        }
        let Some((file, _)) = system.root().open_file(path)? else { return Ok(()) };
        self.try_out(system, &file).with_context(|| format!("reading {path}"))
    }
}

fn short(digest: Sha256) -> String {
    let mut text = digest.to_string();
    text.truncate(12);
    text + "…"
}
