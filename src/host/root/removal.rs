//! The removal of trees, also below directories of other users, and the renaming of damaged files.

use anyhow::{Context, Result};
use nix::errno::Errno;
use std::os::fd::AsRawFd;

use super::{FileType, Root, UnlinkatFlags, WalkPurpose, explain_write, renameat, unlinkat};
use crate::value::AbsPath;

impl Root {
    /// Removes a file, a link or a directory with its content. Returns whether it existed.
    ///
    /// The path may lead through directories of other users, such as their homes. From the first one of them on, no link
    /// is followed, so that a user cannot make root remove another user's file. A link's target is never removed.
    pub fn purge(&self, path: &AbsPath) -> Result<bool> {
        let Some(parent) = self.parent(path, WalkPurpose::Inspect)? else { return Ok(false) };
        let removed = match self.to_inspect().status(path)? {
            None => return Ok(false),
            // This function of the standard library also follows no links and uses descriptors.
            Some(status) if status.file_type == FileType::Directory => {
                std::fs::remove_dir_all(format!("/proc/self/fd/{}/{}", parent.fd.as_raw_fd(), path.leaf()))
                    .with_context(|| format!("removing {path}"))
            }
            Some(_) => match unlinkat(&*parent.fd, path.leaf(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => Ok(()),
                Err(errno) => Err(explain_write(errno, path)),
            },
        };
        self.forget();
        removed?;
        parent.flush().with_context(|| format!("flushing the directory of {path}"))?;
        Ok(true)
    }

    /// Removes a directory if it is empty. Returns whether it did.
    pub fn remove_empty_directory(&self, path: &AbsPath) -> Result<bool> {
        if self.status(path)?.is_none_or(|status| status.file_type != FileType::Directory) {
            return Ok(false);
        }
        let parent = self.place_to_write(path, None)?;
        let removed = parent.act(|fd| unlinkat(fd, path.leaf(), UnlinkatFlags::RemoveDir));
        self.forget();
        match removed {
            Ok(()) => Ok(true),
            Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
            Err(errno) => Err(explain_write(errno, path)),
        }
    }

    /// Renames a file to `PATH.damaged`, which replaces an earlier one. Returns the new path.
    pub fn set_aside(&self, path: &AbsPath) -> Result<AbsPath> {
        let aside: AbsPath = format!("{path}.damaged").parse()?;
        _ = self.purge(&aside)?;
        let parent = self.place_to_write(path, None)?;
        let renamed = parent.act(|fd| renameat(fd, path.leaf(), fd, aside.leaf()));
        renamed.map_err(|errno| explain_write(errno, path))?;
        parent.flush().with_context(|| format!("flushing the directory of {path}"))?;
        Ok(aside)
    }

    /// Renames a file in its directory, durably. Another file of the new name is replaced.
    pub fn rename_beside(&self, from: &AbsPath, to: &AbsPath) -> Result<()> {
        let parent = self.place_to_write(from, None)?;
        let renamed = parent.act(|fd| renameat(fd, from.leaf(), fd, to.leaf()));
        renamed.map_err(|errno| explain_write(errno, to))?;
        parent.flush().with_context(|| format!("flushing the directory of {to}"))
    }

    /// Returns the paths that match a pattern.
    ///
    /// `*` stands for any characters of one component, `~` for the homes `/root` and `/home/*`.
    pub fn matching(&self, pattern: &str) -> Result<Vec<AbsPath>> {
        let mut found = vec![];
        for pattern in homes(pattern) {
            let mut paths = vec![AbsPath::from("/")];
            for component in pattern.split('/').filter(|component| !component.is_empty()) {
                let mut deeper = vec![];
                for path in paths {
                    if !component.contains('*') {
                        deeper.push(path.join(component)?);
                        continue;
                    }
                    let names = self.list(&path)?.into_iter().filter(|name| is_like(component, name));
                    // `AbsPath` refuses some names, such as those with an escape sequence.
                    deeper.extend(names.filter_map(|name| path.join(&name).ok()));
                }
                paths = deeper;
            }
            for path in paths {
                if self.status(&path)?.is_some() {
                    found.push(path);
                }
            }
        }
        Ok(found)
    }
}

/// Returns whether a path matches a pattern of [`Root::matching`].
pub fn is_match(pattern: &str, path: &AbsPath) -> bool {
    homes(pattern).any(|pattern| {
        let (mut wanted, mut found) = (pattern.split('/'), path.as_str().split('/'));
        loop {
            match (wanted.next(), found.next()) {
                (None, None) => return true,
                (Some(wanted), Some(found)) if is_like(wanted, found) => {}
                _ => return false,
            }
        }
    })
}

fn homes(pattern: &str) -> impl Iterator<Item = String> {
    let homes = if pattern.starts_with('~') { &["/root", "/home/*"][..] } else { &[""] };
    homes.iter().map(move |home| format!("{home}{}", pattern.trim_start_matches('~')))
}

/// Returns whether a name matches one component of a pattern.
fn is_like(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').collect::<Vec<_>>();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::host::scratch::Scratch;

    #[test]
    fn patterns_match_component_by_component() {
        for (pattern, path) in [
            ("/a/*.log*", "/a/x.log.1"),
            ("/a/*", "/a/.hidden"),
            ("~/.*_history", "/root/.bash_history"),
            ("~/.*_history", "/home/admin/.python_history"),
            ("/etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_rsa_key"),
        ] {
            assert!(is_match(pattern, &path.to_owned().try_into().unwrap()), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("/a/*", "/a/b/c"),
            ("/a/*", "/a"),
            ("~/.netrc", "/srv/.netrc"),
            ("/etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_rsa_key.pub"),
            ("/a/x*x", "/a/x"),
        ] {
            assert!(!is_match(pattern, &path.to_owned().try_into().unwrap()), "{pattern} {path}");
        }
    }

    #[test]
    fn a_removed_tree_leaves_the_targets_of_its_links() {
        let tree = Scratch::new();
        tree.make_directory("/var/lib/cloud/instances/i-1/sem");
        tree.make_directory("/kept");
        tree.write("/kept/file", "");
        symlink("/kept", tree.at("/var/lib/cloud/instances/i-1/link")).unwrap();
        symlink("/var/lib/cloud/instances/i-1", tree.at("/var/lib/cloud/instance")).unwrap();
        for path in ["/var/lib/cloud/instance", "/var/lib/cloud/instances"] {
            assert!(tree.root().purge(&path.into()).unwrap());
            assert!(!tree.root().purge(&path.into()).unwrap());
        }
        assert!(tree.has("/kept/file"));
        assert_eq!(tree.names("/var/lib/cloud"), [""; 0]);
        assert!(!tree.root().purge(&"/none/at/all".into()).unwrap());
    }

    #[test]
    fn a_user_cannot_make_root_remove_another_users_file() {
        let tree = Scratch::new();
        tree.make_directory("/home/mallory");
        tree.make_directory("/etc/ssh");
        tree.write("/etc/ssh/authorized_keys", "");
        symlink("/etc/ssh", tree.at("/home/mallory/.ssh")).unwrap();
        std::os::unix::fs::chown(tree.at("/home/mallory"), Some(65534), Some(65534)).unwrap();
        assert!(!tree.root().purge(&"/home/mallory/.ssh/authorized_keys".into()).unwrap());
        assert!(tree.has("/etc/ssh/authorized_keys"));
        // The user's own files are removed, though this program would not write there.
        tree.write("/home/mallory/.bash_history", "");
        assert!(tree.root().purge(&"/home/mallory/.bash_history".into()).unwrap());
        assert_eq!(tree.root().matching("~/.ssh").unwrap().len(), 1);
    }
}
