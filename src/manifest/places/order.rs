//! Checks of the declared order. A wrong order is a warning: the first run fails, or a second one changes the machine again.

use std::collections::BTreeMap;

use super::Declaration;
use crate::{diagnostic::Diagnostic, value::AbsPath};

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
