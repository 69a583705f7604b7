//! The check that no two resources manage one path of this machine by two names, as `/bin/x` and `/usr/bin/x`.
//!
//! `validate` follows the links of the manifest. Those of the machine are known only here.

use std::{cell::RefCell, collections::HashMap};

use anyhow::Result;

use crate::{
    error::Fault,
    host::root::Root,
    manifest::{Declared, Manifest},
    system::System,
    value::AbsPath,
};

/// Fails if the links of this machine lead two resources to one path, or a resource into an archive or below a file.
///
/// It reads the directories of the declared paths, each once.
///
/// # Errors
/// The places of both resources.
pub fn check(manifest: &Manifest, system: &System) -> Result<()> {
    let steps = manifest.steps.iter().filter(|step| step.not_here.is_none());
    let here = steps.flat_map(|step| &step.resources).filter(|declared| declared.not_here.is_none());
    let here: Vec<_> = here.filter_map(|declared| Some((declared, declared.resource.owned_path()?))).collect();
    let links = Links::new(system.root(), &here);
    // Each declared path was compared as written before. Without a link, there is nothing new. Neighbours have one directory.
    let mut last = None;
    let mut directories = here.iter().filter_map(|(_, path)| path.directory());
    if !directories.any(|directory| last.replace(directory) != Some(directory) && links.are_in(directory)) {
        return Ok(());
    }
    let mut known = HashMap::<AbsPath, &Declared>::new();
    let real: Vec<_> = here.iter().filter_map(|(declared, path)| Some((*declared, *path, links.real(path)?))).collect();
    for (declared, written, real) in &real {
        if let Some(first) = known.insert(real.clone(), declared) {
            let other = first.resource.owned_path().filter(|_| *written == real).unwrap_or(written);
            let message = format!("two resources manage {real} on this machine, because {other} leads there");
            return Err(refused(message, [first, declared]));
        }
    }
    real.iter().try_for_each(|(declared, _, real)| check_above(declared, real, &known))
}

/// Fails if a resource is below a file, or in the directory of an archive that does not keep its path.
fn check_above(declared: &Declared, path: &AbsPath, known: &HashMap<AbsPath, &Declared>) -> Result<()> {
    for above in std::iter::successors(path.parent(), AbsPath::parent) {
        let Some(other) = known.get(&above) else { continue };
        let (Some(written), resource) = (other.resource.owned_path(), &other.resource) else { continue };
        let is_directory = resource.writers().is_some() || resource.removes_its_path();
        if !is_directory && resource.link_target().is_none() {
            let message = format!("{path} is below {} on this machine, which is no directory", other.title());
            return Err(refused(message, [other, declared]));
        }
        let Some(kept) = resource.kept_paths() else { continue };
        let rest = |kept: &AbsPath| kept.as_str()[written.as_str().len()..].to_owned();
        let inside = &path.as_str()[above.as_str().len()..];
        let is_kept =
            |kept: String| inside.strip_prefix(&*kept).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if !kept.iter().map(rest).any(is_kept) {
            let message = format!("{path} is in {above}, which an archive replaces as a whole");
            return Err(refused(message, [other, declared]));
        }
    }
    Ok(())
}

fn refused(message: String, [one, other]: [&Declared; 2]) -> anyhow::Error {
    let hint = format!("keep only one of the two, or declare another path: {} and {}", one.place, other.place);
    Fault::new(message).hint(hint).invalid().into()
}

/// The links of the machine after the run: those that are declared, and those of its directories.
struct Links<'r> {
    root: &'r Root,
    /// The known targets; `None` for a path without a link.
    known: RefCell<HashMap<String, Option<String>>>,
}

impl<'r> Links<'r> {
    fn new(root: &'r Root, here: &[(&Declared, &AbsPath)]) -> Self {
        let links = Self { root, known: RefCell::default() };
        for (declared, path) in here {
            let Some(target) = declared.resource.link_target() else { continue };
            // A link below another one is declared after it.
            let at = links.real(path).unwrap_or_else(|| (*path).clone());
            _ = links.known.borrow_mut().insert(at.into(), Some(target.to_owned()));
        }
        links
    }

    /// Returns the target of the link at a path. What cannot be read is no link here: its resource reports the error.
    fn target(&self, at: &str) -> Option<String> {
        if let Some(known) = self.known.borrow().get(at) {
            return known.clone();
        }
        let target = at.parse().ok().and_then(|at| self.root.read_link(&at).ok().flatten());
        let target = target.and_then(|target| target.into_string().ok());
        _ = self.known.borrow_mut().insert(at.to_owned(), target.clone());
        target
    }

    /// Returns whether a link is on the way to a directory, or at it.
    fn are_in(&self, directory: &str) -> bool {
        let ends = directory.match_indices('/').map(|(at, _)| at).skip(1).chain([directory.len()]);
        directory != "/" && ends.into_iter().any(|end| self.target(&directory[..end]).is_some())
    }

    /// Returns a path without the links of its directory; `None` if they are a loop.
    fn real(&self, path: &AbsPath) -> Option<AbsPath> {
        path.real(|at| self.target(at))
    }
}
