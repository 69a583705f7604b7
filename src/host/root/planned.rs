//! The links of a plan. Every walk finds them as if they had been made, so that a plan reads what a run would read.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::Result;

use super::{
    Root,
    walk::{Reached, Walk, WalkEnd, WalkPurpose},
};
use crate::value::AbsPath;

/// The targets of planned links, by the paths of the links without other links.
pub(super) type Targets = BTreeMap<PathBuf, OsString>;

/// The planned links of a root and of its copies. A run has none.
#[derive(Debug, Default, Clone)]
pub(super) struct PlannedLinks(Arc<RwLock<Arc<Targets>>>);

impl PlannedLinks {
    /// Returns all of them.
    pub(super) fn targets(&self) -> Arc<Targets> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn change(&self, change: impl FnOnce(&mut Targets)) {
        change(Arc::make_mut(&mut self.0.write().unwrap_or_else(PoisonError::into_inner)));
    }
}

impl Root {
    /// Makes every walk follow a link that a run would make or point elsewhere.
    pub fn plan_link(&self, path: &AbsPath, target: &str) {
        self.planned.change(|targets| _ = targets.insert(path.as_str().into(), target.into()));
        self.forget();
    }

    /// Forgets a planned link, because a run would remove it.
    pub fn plan_no_link(&self, path: &AbsPath) {
        if self.planned.targets().contains_key(Path::new(path.as_str())) {
            self.planned.change(|targets| _ = targets.remove(Path::new(path.as_str())));
            self.forget();
        }
    }

    /// Returns the target of the planned link at a path; `None` if there is none.
    pub(super) fn planned_target(&self, path: &AbsPath) -> Option<OsString> {
        if self.planned.is_empty() {
            return None;
        }
        self.planned.targets().get(Path::new(self.real(path).as_str())).cloned()
    }

    /// Returns a path without the links of its directory, which may not exist yet. A path on which a walk fails stays as it
    /// is: what writes or reads there reports the error.
    pub fn real(&self, path: &AbsPath) -> AbsPath {
        self.try_real(path).ok().flatten().unwrap_or_else(|| path.clone())
    }

    fn try_real(&self, path: &AbsPath) -> Result<Option<AbsPath>> {
        let Some(directory) = path.directory() else { return Ok(None) };
        let Reached { path: mut real, end, .. } =
            Walk::new(self, Path::new(directory), WalkPurpose::Inspect).run(self)?;
        match end {
            WalkEnd::Directory => {}
            WalkEnd::File(name) => real.push(name),
            WalkEnd::Missing(names) => real.extend(names.iter().filter(|name| !name.is_empty())),
        }
        real.push(path.leaf());
        Ok(real.to_str().and_then(|real| real.parse().ok()))
    }
}

/// A planned link below a directory that does not exist yet.
pub(super) struct LinkBelow {
    /// The directories above it that do not exist.
    pub(super) directories: Vec<PathBuf>,
    pub(super) link: PathBuf,
    /// Where the whole path leads.
    pub(super) leads_to: PathBuf,
}

/// Finds the first planned link among the missing components of a path, which follow each other in a directory.
pub(super) fn among_missing<'p>(
    targets: &Targets,
    directory: &Path,
    missing: impl Iterator<Item = &'p OsStr>,
) -> Option<LinkBelow> {
    let (mut link, mut directories) = (directory.to_owned(), vec![]);
    let mut missing = missing.filter(|component| !component.is_empty() && *component != ".");
    let target = loop {
        link.push(missing.next().filter(|component| *component != "..")?);
        match targets.get(&link) {
            Some(target) => break target,
            None => directories.push(link.clone()),
        }
    };
    // A walk cannot go up from a directory that does not exist.
    let (mut leads_to, mut target) = (link.parent()?.to_owned(), Path::new(target));
    while let Ok(rest) = target.strip_prefix("..") {
        target = rest;
        _ = leads_to.pop();
    }
    leads_to.push(target);
    leads_to.extend(missing);
    Some(LinkBelow { directories, link, leads_to })
}

#[cfg(test)]
mod tests {
    use crate::host::scratch::Scratch;

    #[test]
    fn a_walk_follows_planned_links() {
        let tree = Scratch::of(&[("/srv/app-1/file", ""), ("/srv/app-2/other", "")]);
        tree.link("app-2", "/srv/app");
        let root = tree.root();
        let exists = |path: &'static str| root.status(&path.into()).unwrap().is_some();
        assert!(exists("/srv/app/other"));
        root.plan_link(&"/srv/app".into(), "app-1");
        assert!(exists("/srv/app/file") && !exists("/srv/app/other"));
        // The directories of the next link do not exist.
        root.plan_link(&"/srv/new/below/up".into(), "../../app/.");
        assert!(exists("/srv/new/below/up/file"));
        assert_eq!(root.real(&"/srv/new/below/up/x/y".into()).as_str(), "/srv/app-1/x/y");
        assert_eq!(root.resolve(&"/srv/app".into()).unwrap().as_str(), "/srv/app-1");
        root.plan_no_link(&"/srv/app".into());
        assert!(exists("/srv/app/other"));
        root.plan_link(&"/srv/app-2".into(), "app");
        assert!(root.status(&"/srv/app/other".into()).is_err(), "a loop");
    }
}
