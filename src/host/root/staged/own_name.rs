//! A file under its own name before it is published, for validators that read the name.

use anyhow::Result;
use nix::{errno::Errno, fcntl::OFlag, sys::stat::Mode as Bits, unistd::UnlinkatFlags};

use super::{FileStatus, Staged, explain_write, geteuid};
use crate::{
    error::Fault,
    host::calls::{fstat, mkdirat, openat, renameat, unlinkat},
    value::{AbsPath, quoted},
};

impl Staged {
    /// Runs `check` while the file has its own name, in a directory beside its path that only root may enter.
    ///
    /// # Errors
    /// Those of `check`, or if the directory cannot be made.
    pub fn under_own_name<T>(&mut self, check: impl FnOnce(&AbsPath) -> Result<T>) -> Result<T> {
        let (directory, leaf) = (format!("{}.d", self.name), self.path.leaf());
        let explain = |errno| explain_write(errno, &self.path);
        let private = self.parent.act(|fd| {
            match mkdirat(fd, directory.as_str(), Bits::S_IRWXU) {
                // A killed run may have left it. Its owner is checked below.
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            openat(fd, directory.as_str(), flags, Bits::empty())
        });
        let private = private.map_err(explain)?;
        let ownership = FileStatus::new(&fstat(&private).map_err(explain)?).ownership;
        let ours = self.user().map_or_else(|| geteuid().as_raw(), |user| user.uid);
        if ownership.uid != ours || ownership.mode & 0o077 != 0 {
            let parent = self.path.parent().unwrap_or_else(|| AbsPath::from("/"));
            let planted = parent.join(&directory)?;
            let message = format!(
                "{planted} is not this program's own: it belongs to uid {} and has mode {:04o}",
                ownership.uid, ownership.mode
            );
            let hint = format!("check its content, then remove it: rm -r {}", quoted(planted.as_str()));
            return Err(Fault::new(message).hint(hint).into());
        }
        let there = self.parent.act(|fd| renameat(fd, self.name.as_str(), &private, leaf));
        there.map_err(explain)?;
        let parent = self.path.parent().unwrap_or_else(|| AbsPath::from("/"));
        let result = parent.join(&directory).and_then(|directory| directory.join(leaf)).and_then(|path| check(&path));
        let back = self.parent.act(|fd| {
            renameat(&private, leaf, fd, self.name.as_str())?;
            unlinkat(fd, directory.as_str(), UnlinkatFlags::RemoveDir).or(Ok(()))
        });
        back.map_err(explain)?;
        result
    }
}
