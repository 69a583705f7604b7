//! A file under its own name before it is published: some programs judge a file by its name.

use anyhow::Result;
use nix::{errno::Errno, fcntl::OFlag, sys::stat::Mode as Bits, unistd::UnlinkatFlags};

use super::{Staged, Status, explain_write, geteuid};
use crate::{
    system::calls::{fstat, mkdirat, openat, renameat, unlinkat},
    value::AbsPath,
};

impl Staged {
    /// Runs `check` while the file has its own name, in a directory beside its path that nobody else may enter.
    ///
    /// # Errors
    /// As `check`, or if the directory can't be made.
    pub fn under_own_name<T>(&mut self, check: impl FnOnce(&AbsPath) -> Result<T>) -> Result<T> {
        let directory = format!("{}.d", self.name);
        let explain = |errno| explain_write(errno, &self.path);
        match mkdirat(&*self.parent, directory.as_str(), Bits::S_IRWXU) {
            // A killed run has left it: whose it is, is looked at below.
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(explain(errno)),
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let private = openat(&*self.parent, directory.as_str(), flags, Bits::empty()).map_err(explain)?;
        let ownership = Status::new(&fstat(&private).map_err(explain)?).ownership;
        if ownership.uid != geteuid().as_raw() || ownership.mode & 0o077 != 0 {
            return Err(explain(Errno::EEXIST));
        }
        let leaf = self.path.leaf();
        renameat(&*self.parent, self.name.as_str(), &private, leaf).map_err(explain)?;
        let parent = self.path.parent().unwrap_or_else(|| AbsPath::from("/"));
        let result = parent.join(&directory).and_then(|directory| directory.join(leaf)).and_then(|path| check(&path));
        renameat(&private, leaf, &*self.parent, self.name.as_str()).map_err(explain)?;
        _ = unlinkat(&*self.parent, directory.as_str(), UnlinkatFlags::RemoveDir);
        result
    }
}
