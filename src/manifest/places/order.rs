//! Checks of the declared order. A wrong order is a warning: the first run fails, or a second one changes the machine again.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Declaration;
use crate::{
    diagnostic::{Diagnostic, Place},
    value::AbsPath,
};

/// Returns a warning for each file that a resource reads, but that is declared later. The first run would read the file that
/// the machine has then, and a second one would find another file.
pub(in crate::manifest) fn late_files(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    let read: HashSet<&str> =
        declarations.iter().flat_map(Declaration::read_paths).map(|(path, _)| path.as_str()).collect();
    if read.is_empty() {
        return vec![];
    }
    let mut makers = HashMap::<&str, Vec<usize>>::new();
    let mut trees = HashMap::<&str, Vec<usize>>::new();
    for (index, one) in declarations.iter().enumerate() {
        let made = one.made.iter().chain(one.places().map(|(path, _)| path)).map(AbsPath::as_str);
        made.filter(|path| read.contains(path)).for_each(|path| makers.entry(path).or_default().push(index));
        one.places().filter(|_| one.fills).for_each(|(path, _)| trees.entry(path.as_str()).or_default().push(index));
    }
    let mut warnings = vec![];
    for (index, reader) in declarations.iter().enumerate() {
        for (path, (text, span)) in reader.read_paths() {
            let exact = makers.get(path.as_str()).into_iter().flatten();
            let above = path.ancestors().filter_map(|above| trees.get(above)).flatten();
            let others = exact.chain(above).filter(|maker| **maker != index);
            let mut others = others.filter(|maker| !declarations[**maker].scope.excludes(&reader.scope)).copied();
            let Some(first) = others.next() else { continue };
            let Some(late) = others.chain([first]).min().filter(|first| *first > index) else { continue };
            let late = &declarations[late];
            let message = format!("{path} is declared after {}, which reads it", reader.shown);
            let hint = Some(format!("move {} up: it is declared at {}", late.shown, late.place()));
            warnings.push(Diagnostic { message, place: Some(Place::new(text, span)), hint });
        }
    }
    warnings
}

/// Returns a warning for each resource below a link that is declared later. The first run would make it where the link
/// leads then.
pub(in crate::manifest) fn late_links(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    let mut warnings = vec![];
    for (index, declaration) in declarations.iter().enumerate() {
        let Some(linked) = declaration.linked.as_ref().filter(|linked| linked.last_link > index) else { continue };
        let late = &declarations[linked.last_link];
        let message = format!("{} is declared after a resource below it", late.shown);
        let hint = format!("move {} up: it is declared at {}", late.shown, late.place());
        warnings.push(declaration.fault(message, Some(hint)));
    }
    warnings
}

/// Returns a warning for each resource in a directory that is declared later. On a machine without this directory, a
/// run would refuse the resource.
pub(in crate::manifest) fn late_directories(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    let directories = declarations.iter().enumerate().filter(|(_, declaration)| declaration.writers.is_some());
    let directories = directories.flat_map(|(index, one)| one.places().map(move |(path, _)| (index, path)));
    let (mut declared_at, mut made_at) = (BTreeMap::new(), BTreeMap::new());
    for (index, path) in directories {
        _ = declared_at.insert(path.as_str(), index);
        // A directory that is declared in it makes it, too.
        for made in path.ancestors().chain([path.as_str()]) {
            _ = made_at.entry(made).or_insert(index);
        }
    }
    let mut warnings = vec![];
    for (index, declaration) in
        declarations.iter().enumerate().filter(|(_, one)| one.writers.is_none() && !one.is_absent)
    {
        let late = declaration.places().filter_map(|(path, _)| path.directory()).find_map(|directory| {
            let late = declared_at.get(directory)?;
            (made_at.get(directory)? > &index).then_some((directory, *late))
        });
        if let Some((directory, late)) = late {
            let message = format!("the directory {directory} is declared after a resource in it");
            let hint = format!("move the directory up: it is declared at {}", declarations[late].place());
            warnings.push(declaration.fault(message, Some(hint)));
        }
    }
    warnings
}

/// Returns a warning for each mount of a device whose file system is declared later. On a blank device, a run would fail.
pub(in crate::manifest) fn late_file_systems(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    let mut warnings = vec![];
    for (index, mount) in declarations.iter().enumerate() {
        let Some(device) = &mount.mounted else { continue };
        let makes = |one: &&Declaration<'_>| one.formatted.contains(device) && !one.scope.excludes(&mount.scope);
        let (before, after) = declarations.split_at(index);
        if let (None, Some(late)) = (before.iter().find(makes), after.iter().find(makes)) {
            let message = format!("the file system of {device} is declared after its mount");
            let hint = format!("move the file system up: it is declared at {}", late.place());
            warnings.push(mount.fault(message, Some(hint)));
        }
    }
    warnings
}

/// Returns a warning for each resource at a mount point or below it that is declared before the mount. The first run would
/// make it on the disk under the mount point, and a later one on the mounted file system.
pub(in crate::manifest) fn early_for_mounts(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    let mut warnings = vec![];
    for (index, mount) in declarations.iter().enumerate() {
        let Some(point) = &mount.mount_point else { continue };
        let is_at = |path: &AbsPath| path == point || path.ancestors().any(|above| above == point.as_str());
        for early in declarations[..index].iter().filter(|one| !one.is_absent && !one.scope.excludes(&mount.scope)) {
            let Some(path) = early.path.as_ref().filter(|path| is_at(path)) else { continue };
            let message = format!("{path} is declared before the mount at {point}, which hides it");
            let hint = format!("move the mount up: it is declared at {}", mount.place());
            warnings.push(early.fault(message, Some(hint)));
        }
    }
    warnings
}
