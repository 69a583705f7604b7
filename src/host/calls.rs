//! System calls for files that are repeated if a signal interrupts them (`EINTR`).
//!
//! The functions are nix's, with nix's names. Signals interrupt calls mostly on FUSE and NFS. No other failure is
//! repeated: after an `EIO` of fsync(2) the kernel treats the pages as clean.

use std::{
    ffi::OsString,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
};

use nix::{
    NixPath, Result,
    dir::Dir,
    errno::Errno,
    fcntl::{self, AtFlags, FallocateFlags, OFlag},
    sys::{
        stat::{self, FileStat, Mode},
        statfs::{self, Statfs},
        statvfs::{self, Statvfs},
        time::TimeSpec,
    },
    unistd::{self, AccessFlags, Gid, Uid, UnlinkatFlags},
};
use rustix::fs::{RenameFlags, XattrFlags};

/// Repeats a call until no signal interrupts it.
pub fn repeat<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Repeats a call of the standard library until no signal interrupts it.
fn repeat_io<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Opens a path below a directory: openat(2).
pub fn openat(dir: impl AsFd, path: &(impl NixPath + ?Sized), flags: OFlag, mode: Mode) -> Result<OwnedFd> {
    repeat(|| fcntl::openat(&dir, path, flags, mode))
}

/// Reads a symbolic link: readlinkat(2).
pub fn readlinkat(dir: impl AsFd, path: &(impl NixPath + ?Sized)) -> Result<OsString> {
    repeat(|| fcntl::readlinkat(&dir, path))
}

/// Renames a file: renameat(2).
pub fn renameat(
    old_dir: impl AsFd,
    old: &(impl NixPath + ?Sized),
    new_dir: impl AsFd,
    new: &(impl NixPath + ?Sized),
) -> Result<()> {
    repeat(|| fcntl::renameat(&old_dir, old, &new_dir, new))
}

/// Renames a file with flags, such as those that exchange two names: renameat2(2).
pub fn renameat_with(old_dir: impl AsFd, old: &str, new_dir: impl AsFd, new: &str, flags: RenameFlags) -> Result<()> {
    repeat(|| rustix::fs::renameat_with(&old_dir, old, &new_dir, new, flags).map_err(errno))
}

/// Reads an attribute of an open file: fgetxattr(2).
pub fn fgetxattr(file: impl AsFd, name: &str) -> Result<Vec<u8>> {
    attribute(|buffer| rustix::fs::fgetxattr(&file, name, buffer))
}

/// Reads an attribute of a path, of which the last component is not followed: lgetxattr(2).
pub fn lgetxattr(path: &str, name: &str) -> Result<Vec<u8>> {
    attribute(|buffer| rustix::fs::lgetxattr(path, name, buffer))
}

/// Sets an attribute of an open file: fsetxattr(2).
pub fn fsetxattr(file: impl AsFd, name: &str, value: &[u8]) -> Result<()> {
    repeat(|| rustix::fs::fsetxattr(&file, name, value, XattrFlags::empty()).map_err(errno))
}

/// Sets an attribute of a path, of which the last component is not followed: lsetxattr(2).
pub fn lsetxattr(path: &str, name: &str, value: &[u8]) -> Result<()> {
    repeat(|| rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).map_err(errno))
}

/// Reads an attribute that is at most as long as a label may be: 4 KiB, the kernel's page.
fn attribute(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> Result<Vec<u8>> {
    let mut value = vec![0; 4096];
    let length = repeat(|| read(&mut value).map_err(errno))?;
    value.truncate(length);
    Ok(value)
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// Adds a name to a file: linkat(2).
pub fn linkat(old_dir: impl AsFd, old: &str, new_dir: impl AsFd, new: &str) -> Result<()> {
    repeat(|| unistd::linkat(&old_dir, old, &new_dir, new, AtFlags::empty()))
}

/// Sets owner and group of a path that is no link to follow: fchownat(2).
pub fn fchownat(dir: impl AsFd, path: &str, owner: Uid, group: Gid) -> Result<()> {
    repeat(|| unistd::fchownat(&dir, path, Some(owner), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW))
}

/// Sets the times of an open file's last access and modification: futimens(3).
pub fn futimens(file: impl AsFd, time: &TimeSpec) -> Result<()> {
    repeat(|| stat::futimens(&file, time, time))
}

/// Allocates the blocks of a file: fallocate(2).
pub fn fallocate(file: impl AsFd, mode: FallocateFlags, offset: i64, length: i64) -> Result<()> {
    repeat(|| fcntl::fallocate(&file, mode, offset, length))
}

/// Reads the status of an open file: fstat(2).
pub fn fstat(file: impl AsFd) -> Result<FileStat> {
    repeat(|| stat::fstat(&file))
}

/// Reads the status of a path below a directory: fstatat(2).
pub fn fstatat(dir: impl AsFd, path: &(impl NixPath + ?Sized), flags: AtFlags) -> Result<FileStat> {
    repeat(|| stat::fstatat(&dir, path, flags))
}

/// Asks whether this process may use a path below a directory: faccessat(2).
pub fn faccessat(dir: impl AsFd, path: &(impl NixPath + ?Sized), mode: AccessFlags, flags: AtFlags) -> Result<()> {
    repeat(|| unistd::faccessat(&dir, path, mode, flags))
}

/// Sets permission bits: fchmod(2).
pub fn fchmod(file: impl AsFd, mode: Mode) -> Result<()> {
    repeat(|| stat::fchmod(&file, mode))
}

/// Makes a directory: mkdirat(2).
pub fn mkdirat(dir: impl AsFd, path: &(impl NixPath + ?Sized), mode: Mode) -> Result<()> {
    repeat(|| stat::mkdirat(&dir, path, mode))
}

/// Reads the type and the size of a file system: fstatfs(2).
pub fn fstatfs(file: impl AsFd) -> Result<Statfs> {
    repeat(|| statfs::fstatfs(&file))
}

/// Reads the flags of a file system: fstatvfs(3).
pub fn fstatvfs(file: impl AsFd) -> Result<Statvfs> {
    repeat(|| statvfs::fstatvfs(&file))
}

/// Sets owner and group: fchown(2).
pub fn fchown(file: impl AsFd, owner: Option<Uid>, group: Option<Gid>) -> Result<()> {
    repeat(|| unistd::fchown(&file, owner, group))
}

/// Flushes a file to the disk: fsync(2).
pub fn fsync(file: impl AsFd) -> Result<()> {
    repeat(|| unistd::fsync(&file))
}

/// Flushes a file system to the disk: syncfs(2).
pub fn syncfs(file: impl AsFd) -> Result<()> {
    repeat(|| unistd::syncfs(&file))
}

/// Makes a symbolic link: symlinkat(2).
pub fn symlinkat(target: &(impl NixPath + ?Sized), dir: impl AsFd, path: &(impl NixPath + ?Sized)) -> Result<()> {
    repeat(|| unistd::symlinkat(target, &dir, path))
}

/// Removes a name: unlinkat(2).
pub fn unlinkat(dir: impl AsFd, path: &(impl NixPath + ?Sized), flags: UnlinkatFlags) -> Result<()> {
    repeat(|| unistd::unlinkat(&dir, path, flags))
}

/// Lists the names in a directory, sorted.
pub fn list(directory: impl AsFd) -> Result<Vec<String>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // fdopendir(3) looks at the descriptor, and closes it if that fails.
    let mut directory = repeat(|| Dir::from_fd(openat(&directory, ".", flags, Mode::empty())?))?;
    let mut names = vec![];
    for entry in directory.iter() {
        match entry {
            Ok(entry) => names.push(entry.file_name().to_string_lossy().into_owned()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    names.retain(|name| !matches!(name.as_str(), "." | ".."));
    names.sort();
    Ok(names)
}

/// Reads some bytes: read(2).
pub fn read(mut file: impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    repeat_io(|| file.read(buffer))
}

/// Reads some bytes at an offset: pread(2).
pub fn read_at(file: &impl FileExt, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    repeat_io(|| file.read_at(buffer, offset))
}

/// Fills a buffer with the bytes at an offset.
///
/// # Errors
/// If there are fewer bytes.
pub fn read_exact_at(file: &impl FileExt, mut buffer: &mut [u8], mut at: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let read = read_at(file, buffer, at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[read..];
        at += read as u64;
    }
    Ok(())
}

/// Resolves all links in a path of the host: realpath(3).
pub fn canonicalize(path: &Path) -> io::Result<PathBuf> {
    repeat_io(|| std::fs::canonicalize(path))
}

/// Returns the status of a child that has ended: waitpid(2).
pub fn try_wait(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    repeat_io(|| child.try_wait())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_call_is_repeated_and_a_failed_one_is_not() {
        let mut results = vec![Err(Errno::EIO), Ok(()), Err(Errno::EINTR), Err(Errno::EINTR)];
        assert_eq!(repeat(|| results.pop().unwrap()), Ok(()));
        assert_eq!(repeat(|| results.pop().unwrap()), Err(Errno::EIO));
    }
}
