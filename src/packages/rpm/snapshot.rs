//! Reading a database that other processes may change at the same time, without a lock.
//!
//! rpm and dnf take their locks without waiting or for a limited time. A lock of this program, even a shared one of
//! `.rpm.lock`, could make a transaction of theirs fail. So this program takes none, and finds out afterwards whether it
//! read one state:
//!
//! - SQLite changes a database file in WAL mode only at a checkpoint, and every change sets the file's time.
//! - It only adds to a write-ahead log until a checkpoint has moved all of its pages. Then it begins the log again with
//!   another header; <https://www.sqlite.org/fileformat2.html#wal_file_format>, "salts".
//!
//! With the same database file and the same header of the log before and after, the pages are those of one commit. A change
//! counter alone would not show a checkpoint: in WAL mode SQLite does not count every transaction.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::{
    pages::{ReadAt, SizedFile},
    sqlite::Sqlite,
    wal,
};
use crate::{
    error::{self, Class, Fault},
    host::root::{FileStatus, Root},
    value::AbsPath,
};

/// Limits the attempts to read one state. A checkpoint takes less than the pauses between them.
const MAX_ATTEMPTS: u32 = 100;
/// The time that a change must be past. The kernel's clock for the times of files ticks every ten milliseconds or more
/// often, and two changes in one tick have the same time.
const TICK: Duration = Duration::from_millis(20);
/// The start of a rollback journal; <https://www.sqlite.org/fileformat2.html#the_rollback_journal>.
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// Reads one state of a database; `None` if it does not exist.
///
/// `take` is called again if the database changed meanwhile.
///
/// # Errors
/// If the database is damaged. A temporary failure if other processes change it all the time, or if a process ended in the
/// middle of a transaction with a rollback journal.
pub fn read<T>(root: &Root, path: &AbsPath, take: impl Fn(&Sqlite) -> Result<T>) -> Result<Option<T>> {
    for _ in 0..MAX_ATTEMPTS {
        let Some((database, before)) = open(root, path)? else { return Ok(None) };
        let wal = open(root, &beside(path, "-wal")?)?.map(|(wal, _)| wal);
        let header = wal.as_ref().and_then(wal_header);
        let taken = refuse_journal(root, path).and_then(|()| {
            let sqlite = Sqlite::open(&database, wal.as_ref().map(|wal| wal as &dyn ReadAt))?;
            take(&sqlite)
        });
        let after = root.status(path)?.map(|status| status.identity);
        let header_after = open(root, &beside(path, "-wal")?)?.and_then(|(wal, _)| wal_header(&wal));
        if after == Some(before.identity) && is_past(&before, SystemTime::now()) && header == header_after {
            return taken.with_context(|| format!("reading {path}")).map(Some);
        }
        pause();
    }
    Err(Fault::new(format!("other processes change {path} all the time")).transient().into())
}

/// Returns the error for a database that is damaged, with a hint unless it has one.
pub fn unreadable(error: anyhow::Error, what: &str, hint: &str) -> anyhow::Error {
    if error::hint(&error).is_some() || error::class(&error) != Class::Permanent {
        return error;
    }
    error.context(Fault::new(format!("{what} cannot be read")).hint(hint))
}

fn open(root: &Root, path: &AbsPath) -> Result<Option<(SizedFile, FileStatus)>> {
    let opened = root.open_file(path)?;
    Ok(opened.map(|(file, status)| (SizedFile { file, size: status.size }, status)))
}

/// Returns whether each further change gives a file another time.
pub(super) fn is_past(status: &FileStatus, now: SystemTime) -> bool {
    let age = now.duration_since(status.changed).or_else(|_| status.changed.duration_since(now));
    age.is_ok_and(|age| age > TICK)
}

/// Returns the header of a log; `None` if the log is empty.
fn wal_header(wal: &SizedFile) -> Option<[u8; wal::HEADER_BYTES]> {
    let mut header = [0; wal::HEADER_BYTES];
    wal.read_at(&mut header, 0).ok().map(|()| header)
}

/// Fails if a rollback journal says that a transaction did not finish.
///
/// rpm and dnf write such journals only for the moment in which they choose the mode of a new database. This program
/// cannot know whether their process is still alive, so it does not apply them.
fn refuse_journal(root: &Root, path: &AbsPath) -> Result<()> {
    let journal = beside(path, "-journal")?;
    let mut start = JOURNAL_MAGIC.map(|_| 0);
    let Some((file, _)) = open(root, &journal)? else { return Ok(()) };
    if file.read_at(&mut start, 0).is_err() || start != JOURNAL_MAGIC {
        return Ok(());
    }
    let message = format!("a transaction did not finish: {journal} has the changes to undo");
    Err(Fault::new(message).hint("let rpm undo them: rpm --initdb").transient().into())
}

fn beside(path: &AbsPath, suffix: &str) -> Result<AbsPath> {
    format!("{path}{suffix}").parse()
}

#[expect(clippy::disallowed_methods, reason = "two seconds in all, and no wait of a step")]
fn pause() {
    std::thread::sleep(TICK);
}
