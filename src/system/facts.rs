//! The facts that the planned changes will establish, so that later resources of a plan know them.
//!
//! Each is kept by its path without links, also without those that the plan makes.

use std::{collections::BTreeSet, path::Path};

use anyhow::Result;

use super::{Mode, System};
use crate::{
    host::root::{
        FileType,
        way::{Owner, Writers},
    },
    value::{AbsPath, Sha256},
};

/// A fact that a planned change will establish. In a plan, a resource that needs it is a pending change, not an error.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// A user with this name exists.
    User(String),
    /// A group with this name exists.
    Group(String),
    /// A file, link or directory exists at this path.
    Path(AbsPath),
    /// A symbolic link with this target exists at this path.
    Link(AbsPath, String),
    /// Nothing exists at this path.
    Absent(AbsPath),
    /// The file at this path has this mode.
    Mode(AbsPath, u32),
    /// A file with this digest exists at this path.
    Bytes(AbsPath, Sha256),
    /// The directory at this path comes from an archive, with any files in it.
    Tree(AbsPath),
    /// A file system is mounted at this path, with any files in it. An image does not have them.
    Mount(AbsPath),
    /// A directory with this owner, these writers and this mode exists at this path, which has no links.
    Directory(AbsPath, Owner, Writers, u32),
    /// The boot, and not this run, makes the file at this path.
    AtBoot(AbsPath),
    /// The path of an earlier resource that makes no change here: its plan has failed, or it is for other machines.
    Unplanned(AbsPath),
    /// The device of this name or node has a file system of this type.
    FileSystem(String, &'static str),
    /// Packages are installed, and with them any files, users and units.
    Packages,
    /// The package of this name is installed.
    Package(String),
}

impl System {
    /// Adds facts that the planned changes will establish.
    ///
    /// Of two facts that contradict each other, the later one stays.
    pub fn expect(&self, facts: impl IntoIterator<Item = Fact>) {
        *self.survey.borrow_mut() = None;
        for fact in facts {
            let fact = self.real_fact(fact);
            let mut expected = self.expected.borrow_mut();
            match &fact {
                Fact::Path(path) => _ = expected.remove(&Fact::Absent(path.clone())),
                Fact::Link(path, target) => {
                    self.root().plan_link(path, target);
                    self.host.forget();
                }
                Fact::Absent(path) => {
                    self.root().plan_no_link(path);
                    expected.retain(|known| match known {
                        Fact::Path(known)
                        | Fact::Bytes(known, _)
                        | Fact::Mode(known, _)
                        | Fact::Directory(known, ..) => known != path,
                        _ => true,
                    });
                }
                Fact::Mode(path, _) => {
                    expected.retain(|known| !matches!(known, Fact::Mode(known, _) if known == path));
                }
                Fact::Directory(path, ..) => {
                    expected.retain(|known| !matches!(known, Fact::Directory(known, ..) if known == path));
                }
                _ => {}
            }
            _ = expected.insert(fact);
        }
    }

    /// Returns a fact with its path as it is without links, so that another name of the path finds it.
    fn real_fact(&self, fact: Fact) -> Fact {
        let real = |path: AbsPath| self.root().real(&path);
        match fact {
            Fact::Path(path) => Fact::Path(real(path)),
            Fact::Link(path, target) => Fact::Link(real(path), target),
            Fact::Absent(path) => Fact::Absent(real(path)),
            Fact::Bytes(path, digest) => Fact::Bytes(real(path), digest),
            Fact::Tree(path) => Fact::Tree(real(path)),
            Fact::Mount(path) => Fact::Mount(real(path)),
            Fact::Mode(path, mode) => Fact::Mode(real(path), mode),
            Fact::Directory(path, owner, writers, mode) => Fact::Directory(real(path), owner, writers, mode),
            Fact::AtBoot(path) => Fact::AtBoot(real(path)),
            Fact::Unplanned(path) => Fact::Unplanned(real(path)),
            Fact::User(_) | Fact::Group(_) | Fact::FileSystem(..) | Fact::Packages | Fact::Package(_) => fact,
        }
    }

    /// Returns whether an earlier planned change leaves nothing at a path.
    pub fn is_removed(&self, path: &AbsPath) -> bool {
        self.mode == Mode::Plan && self.expects(&Fact::Absent(path.clone()))
    }

    /// Returns the names in a directory; in a plan, after the earlier planned changes.
    pub fn names_in(&self, directory: &AbsPath) -> Result<BTreeSet<String>> {
        let mut names: BTreeSet<String> = self.root().list(directory)?.into_iter().collect();
        if self.mode == Mode::Run {
            return Ok(names);
        }
        let real = self.root().real(directory);
        for fact in self.expected.borrow().iter() {
            match fact {
                Fact::Path(path) if path.directory() == Some(real.as_str()) => {
                    _ = names.insert(path.leaf().to_owned());
                }
                Fact::Absent(path) if path.directory() == Some(real.as_str()) => _ = names.remove(path.leaf()),
                _ => {}
            }
        }
        Ok(names)
    }

    /// Returns the digest of the file that an earlier planned change writes to a path.
    pub fn expected_digest(&self, path: &AbsPath) -> Option<Sha256> {
        let expected = self.expected.borrow();
        let path = if expected.is_empty() { return None } else { self.root().real(path) };
        expected.iter().find_map(|fact| match fact {
            Fact::Bytes(at, digest) if *at == path => Some(*digest),
            _ => None,
        })
    }

    /// Returns the digest of the file that a path leads to; in a plan, after the earlier planned changes. The directory of
    /// an archive has a digest, too.
    pub fn digest(&self, path: &AbsPath) -> Result<Option<Sha256>> {
        let file = self.root().resolve(path)?;
        let expected = self.expected_digest(path).or_else(|| self.expected_digest(&file));
        if expected.is_none() && (self.is_removed(path) || self.is_removed(&file)) {
            return Ok(None);
        }
        if expected.is_none()
            && self.root().status(&file)?.is_some_and(|status| status.file_type == FileType::Directory)
        {
            // Its archive's digest stands for a directory. Without one, reading it as a file fails.
            if let Some(digest) = self.host.tree_digest(&file)? {
                return Ok(Some(digest));
            }
        }
        expected.map_or_else(|| self.host.digest(&file), |digest| Ok(Some(digest)))
    }

    /// Returns whether a path leads to a directory that no archive brings. It has no digest.
    pub fn is_plain_directory(&self, path: &AbsPath) -> Result<bool> {
        let at = self.root().resolve(path)?;
        let is_directory = self.root().status(&at)?.is_some_and(|status| status.file_type == FileType::Directory);
        Ok(is_directory && !self.expects(&Fact::Tree(at.clone())) && self.host.tree_digest(&at)?.is_none())
    }

    /// Returns the first file of these, and its mode after the earlier planned changes.
    pub(super) fn expected_mode(&self, is_it: impl Fn(&AbsPath) -> bool) -> Option<(AbsPath, u32)> {
        self.expected.borrow().iter().find_map(|fact| match fact {
            Fact::Mode(path, mode) if is_it(path) => Some((path.clone(), *mode)),
            _ => None,
        })
    }

    /// Returns the owner, the writers and the mode of a directory after an earlier planned change.
    pub(super) fn expected_directory(&self, path: &Path) -> Option<(Owner, Writers, u32)> {
        self.expected.borrow().iter().find_map(|fact| match fact {
            Fact::Directory(at, owner, writers, mode) if Path::new(at.as_str()) == path => {
                Some((owner.clone(), *writers, *mode))
            }
            _ => None,
        })
    }

    /// Returns whether an earlier planned change establishes a fact.
    pub fn expects(&self, fact: &Fact) -> bool {
        !self.expected.borrow().is_empty() && self.has(&self.real_fact(fact.clone()))
    }

    /// Returns whether an earlier planned change establishes a fact, whose path has no links.
    pub(super) fn has(&self, fact: &Fact) -> bool {
        let expected = self.expected.borrow();
        let has_any_files =
            |fact: &Fact, at: &str| matches!(fact, Fact::Tree(path) | Fact::Mount(path) if path.as_str() == at);
        let may_exist =
            |path: &AbsPath| path.ancestors().any(|above| expected.iter().any(|fact| has_any_files(fact, above)));
        expected.contains(fact) || matches!(fact, Fact::Path(path) if may_exist(path))
    }

    /// Returns whether an earlier resource may make a path, now or later.
    pub fn may_come(&self, path: &AbsPath) -> bool {
        let facts = [Fact::Path, Fact::AtBoot, Fact::Unplanned].map(|fact| fact(path.clone()));
        self.expects(&Fact::Packages) || facts.iter().any(|fact| self.expects(fact))
    }

    /// Returns the mount point at a path of an image or above it. The image does not have what the boot mounts there.
    pub fn mounted_at_boot(&self, path: &AbsPath) -> Option<AbsPath> {
        let expected = self.expected.borrow();
        if expected.is_empty() || !self.is_image() {
            return None;
        }
        let path = self.root().real(path);
        let is_at = |mount: &AbsPath| path == *mount || path.ancestors().any(|above| above == mount.as_str());
        let mut mounts =
            expected.iter().filter_map(|fact| if let Fact::Mount(mount) = fact { Some(mount) } else { None });
        mounts.find(|mount| is_at(mount)).cloned()
    }
}
