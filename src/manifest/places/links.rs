//! Declared links: where they lead the paths of other resources.

use std::collections::{BTreeMap, HashMap};

use super::Declaration;
use crate::{diagnostic::Diagnostic, manifest::scope::Scope, value::AbsPath};

/// A path without declared links.
pub(super) struct LinkedPath {
    /// Where the links lead.
    pub(super) path: AbsPath,
    /// The machines that have the resource and the links.
    pub(super) scope: Scope,
    /// The index of the last declared one of the links.
    pub(super) last_link: usize,
}

/// A link that leads the paths below it elsewhere.
struct DeclaredLink {
    index: usize,
    target: String,
    scope: Scope,
}

/// The declared links by their paths.
#[derive(Default)]
struct DeclaredLinks(HashMap<String, Vec<DeclaredLink>>);

impl DeclaredLinks {
    /// Returns where the links lead a path of the machines in a scope; `None` if none of them is on the way. `is_whole` also
    /// follows a link at the path itself.
    ///
    /// # Errors
    /// The index of a link if there are too many on the way, as in a loop.
    fn lead(&self, path: &AbsPath, scope: &Scope, is_whole: bool) -> Result<Option<LinkedPath>, usize> {
        // The first link on the way is at a part of the path as it is written.
        let mut way = path.ancestors().chain(is_whole.then_some(path.as_str()));
        if self.0.is_empty() || !way.any(|at| self.0.contains_key(at)) {
            return Ok(None);
        }
        let (mut scope, mut last) = (scope.clone(), None);
        let target = |at: &str| {
            let mut known = self.0.get(at)?.iter().filter(|link| !link.scope.excludes(&scope));
            let link = known.next()?;
            // Only a machine can tell which of two it has.
            if known.next().is_some() {
                return None;
            }
            scope = scope.and(&link.scope);
            last = last.max(Some(link.index));
            Some(link.target.clone())
        };
        let path = if is_whole { path.fully_real(target) } else { path.real(target) };
        match (path, last) {
            (_, None) => Ok(None),
            (Some(path), Some(last_link)) => Ok(Some(LinkedPath { path, scope, last_link })),
            (None, Some(last)) => Err(last),
        }
    }
}

/// Notes where declared links lead each declared path. Returns the faults of paths that lead nowhere.
pub(in crate::manifest) fn follow(declarations: &mut [Declaration<'_>]) -> Vec<Diagnostic> {
    let mut links = DeclaredLinks::default();
    for (index, one) in declarations.iter().enumerate() {
        let (Some(path), Some(target)) = (&one.path, &one.link) else { continue };
        // A link below another one is declared after it.
        let linked = links.lead(path, &one.scope, false).ok().flatten();
        let at = linked.map_or_else(|| path.to_string(), |linked| linked.path.into());
        let link = DeclaredLink { index, target: target.clone(), scope: one.scope.clone() };
        links.0.entry(at).or_default().push(link);
    }
    if links.0.is_empty() {
        return vec![];
    }
    let mut loops = vec![];
    for (index, one) in declarations.iter_mut().enumerate() {
        let read = one.files.iter().chain(one.needed.iter().map(|(_, file, _)| file));
        let linked = read.map(|file| links.lead(file, &one.scope, true).ok().flatten());
        one.linked_files = linked.map(|linked| linked.map(|linked| linked.path)).collect();
        let Some(path) = &one.path else { continue };
        match links.lead(path, &one.scope, false) {
            Ok(linked) => one.linked = linked,
            Err(link) => loops.push((index, link)),
        }
    }
    let fault = |(index, link): (usize, usize)| {
        let (one, link) = (&declarations[index], &declarations[link]);
        let hint = format!("correct the targets: {} is declared at {}", link.shown, link.place());
        one.fault(format!("{} leads through too many symbolic links", one.shown), Some(hint))
    };
    loops.into_iter().map(fault).collect()
}

/// Returns the faults of two resources that manage one path by two names, because of a declared link.
pub(in crate::manifest) fn managers(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    if declarations.iter().all(|one| one.linked.is_none()) {
        return vec![];
    }
    let (mut faults, mut known) = (vec![], BTreeMap::<&str, Vec<(&Declaration<'_>, &Scope)>>::new());
    for one in declarations {
        for (path, scope) in one.places() {
            let same = known.entry(path.as_str()).or_default();
            // Two of one name are refused where they are read.
            let is_other = |first: &Declaration<'_>| first.path != one.path;
            if let Some((first, _)) = same.iter().find(|(first, other)| is_other(first) && !other.excludes(scope)) {
                let written = one.path.iter().chain(&first.path).find(|written| *written != path).unwrap_or(path);
                let message = format!("two resources manage {path}, to which {written} leads");
                faults.push(one.fault(message, Some(format!("the first one is at {}", first.place()))));
            }
            same.push((one, scope));
        }
    }
    faults
}
