//! Swap files in an image: they hold what was in the memory of the build machine's programs, also secrets.

use std::collections::BTreeSet;

use anyhow::Result;

use super::credentials::FoundCredential;
use crate::{
    host::{
        Host,
        root::{FileType, MAX_TEXT_BYTES},
    },
    resource::swap::{is_active, is_entry},
    value::AbsPath,
};

/// Removes the swap files that the manifest declares, with their lines in `/etc/fstab`, and reports each to `tell`: a run
/// at boot makes new ones. Returns the others: those in use, and those that only `/etc/fstab` names.
pub fn remove(host: &Host, declared: &BTreeSet<AbsPath>, mut tell: impl FnMut(String)) -> Result<Vec<FoundCredential>> {
    let root = host.root();
    let mut found = vec![];
    for path in declared.iter().cloned().chain(entries(host)?).collect::<BTreeSet<_>>() {
        if root.status(&path)?.is_none_or(|status| status.file_type != FileType::Regular) {
            continue;
        }
        let what = if root.is_host() && is_active(root, &path)? {
            "a swap file in use, with the memory of programs (turn it off: swapoff)"
        } else if declared.contains(&path) {
            remove_entry(host, &path)?;
            root.remove(&path)?;
            tell(format!("remove {path} (a swap file, with the memory of programs)"));
            continue;
        } else {
            "a swap file, with the memory of programs"
        };
        found.push(FoundCredential { path, line: 1, what });
    }
    Ok(found)
}

/// Returns the swap files of `/etc/fstab`. A partition, by its device or label, is not one.
fn entries(host: &Host) -> Result<Vec<AbsPath>> {
    let fstab = host.root().read_text(&"/etc/fstab".into())?;
    let paths = fstab.lines().filter_map(|line| line.split_whitespace().next()?.parse::<AbsPath>().ok());
    Ok(paths.filter(|path| fstab.lines().any(|line| is_entry(line, path))).collect())
}

fn remove_entry(host: &Host, path: &AbsPath) -> Result<()> {
    let fstab = AbsPath::from("/etc/fstab");
    let Some(status) = host.root().status(&fstab)? else { return Ok(()) };
    let bytes = host.root().read(&fstab, MAX_TEXT_BYTES)?.unwrap_or_default();
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let left: Vec<u8> =
        lines.filter(|line| !is_entry(&String::from_utf8_lossy(line), path)).flatten().copied().collect();
    if left == bytes { Ok(()) } else { host.root().write(&fstab, status.ownership, &left) }
}
