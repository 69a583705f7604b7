//! Databases that rpm and SQLite made, whole, damaged and changed meanwhile; tests/rpm/make-fixtures makes them.

use std::{cell::Cell, time::Duration};

use anyhow::Result;

use super::{
    database::{DATABASES, RpmDatabase, RpmPackage, RpmProvides},
    history::{self, HISTORY},
    pages::ReadAt,
    snapshot,
    sqlite::Sqlite,
};
use crate::{error, host::scratch::Scratch};

const PACKAGES: &[u8] = include_bytes!("../../../tests/rpm/rpmdb.sqlite");
const VALUES: &[u8] = include_bytes!("../../../tests/rpm/values.sqlite");
const LOGGED: &[u8] = include_bytes!("../../../tests/rpm/log.sqlite");
const LOG: &[u8] = include_bytes!("../../../tests/rpm/log.sqlite-wal");
const UNFINISHED: &[u8] = include_bytes!("../../../tests/rpm/history.sqlite");
/// The bytes of a page of all of them.
const PAGE: usize = 512;
/// The bytes of a page in a log.
const FRAME: usize = 24 + PAGE;

/// A row of values.sqlite: its id, and the values of the columns number, text, bytes and later.
type RowValues = (i64, i64, String, Vec<u8>, Option<i64>);

fn values(database: &[u8]) -> Result<Vec<RowValues>> {
    let mut rows = vec![];
    Sqlite::open(&database, None)?.rows("all", |row| {
        let mut blob = row.blob("bytes")?;
        let size = blob.size();
        let bytes = blob.up_to(size)?.to_vec();
        rows.push((row.id, row.integer("number")?, row.text("text")?, bytes, row.integer("later").ok()));
        Ok(())
    })?;
    Ok(rows)
}

/// Returns the ids and texts of log.sqlite's table.
fn texts(database: &[u8], log: Option<&[u8]>) -> Result<Vec<(i64, String)>> {
    let mut rows = vec![];
    let log = log.as_ref().map(|log| log as &dyn ReadAt);
    Sqlite::open(&database, log)?.rows("t", |row| {
        rows.push((row.id, row.text("text")?.chars().take(3).collect()));
        Ok(())
    })?;
    Ok(rows)
}

fn text_of(rows: &[(i64, String)]) -> String {
    rows.iter().map(|(id, text)| format!("{id} {text} ")).collect::<String>().trim_end().to_owned()
}

fn changed(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

fn refusal<T>(result: Result<T>) -> String {
    format!("{:#}", result.map(|_| ()).unwrap_err())
}

#[test]
fn all_values_of_a_table_are_read() {
    let numbers = [0, 1, -1, 127, -128, 32767, -8_388_608, 2_147_483_647, -140_737_488_355_328, i64::MAX, i64::MIN];
    let row = |id: usize| {
        let text = "tä".repeat(id % 7);
        let bytes = vec![u8::try_from(id).unwrap(); id];
        (i64::try_from(id).unwrap() * 3, numbers[id % numbers.len()], text, bytes, None)
    };
    // The rows from 30 to 90 were deleted.
    let kept = (1..90).filter(|id| !(10..=30).contains(id)).map(row);
    let long = (1000, 7, String::new(), vec![b'x'; 5000], Some(5));
    assert_eq!(values(VALUES).unwrap(), kept.chain([long]).collect::<Vec<_>>());
}

#[test]
fn what_is_not_such_a_database_is_refused() {
    let open = |bytes: &[u8]| refusal(Sqlite::open(&bytes, None));
    assert_eq!(open(b"SQLite"), "its header is cut off: reading beyond the end");
    assert_eq!(open(&[b'x'; 4096]), "it is not a SQLite database");
    assert_eq!(open(&VALUES[..99]), "page 1 does not exist");
    assert_eq!(open(&changed(VALUES, 16, &[2, 1])), "its pages have 513 bytes");
    assert_eq!(open(&changed(VALUES, 19, &[3])), "its file format 3 is newer than those of SQLite 3");
    assert_eq!(open(&changed(VALUES, 20, &[33])), "33 bytes of each page are reserved");
    assert_eq!(open(&changed(VALUES, 59, &[2])), "its texts are UTF-16");
    assert_eq!(open(&changed(VALUES, 59, &[4])), "its texts have the unknown encoding 4");
    let rows = |bytes: &[u8], table| refusal(Sqlite::open(&bytes, None).unwrap().rows(table, |_| Ok(())));
    assert_eq!(rows(VALUES, "none"), "it has no table none");
    assert_eq!(rows(b"", "all"), "it has no table all");
    let column = Sqlite::open(&VALUES, None).unwrap().rows("all", |row| row.integer("none").map(|_| ()));
    assert_eq!(refusal(column), "reading its table all: it has no column none");
    let column = Sqlite::open(&VALUES, None).unwrap().rows("all", |row| row.integer("text").map(|_| ()));
    assert_eq!(refusal(column), "reading its table all: text is not a number");
}

#[test]
fn pages_that_lead_in_a_circle_end() {
    // Page 2 is the root of the table. The number of its last page below it is at offset 8.
    let root = changed(VALUES, PAGE + 8, &2_u32.to_be_bytes());
    let refused = refusal(values(&root));
    assert!(
        ["its tree has more than 20 levels", "its pages are linked in a circle"]
            .iter()
            .any(|text| refused.ends_with(text)),
        "{refused}"
    );
    let beyond = changed(VALUES, PAGE + 8, &1000_u32.to_be_bytes());
    assert_eq!(refusal(values(&beyond)), "reading its table all: page 1000 does not exist");
    let index = changed(VALUES, PAGE, &[10]);
    assert_eq!(refusal(values(&index)), "reading its table all: page 2 is not a page of a table");
}

#[test]
fn no_changed_byte_makes_the_reader_panic() {
    for database in [VALUES, PACKAGES, UNFINISHED, LOGGED] {
        // Of each page, the first bytes and a few others.
        for at in (0..database.len()).filter(|at| at % PAGE < 16 || at % 37 == 0) {
            for with in [0, 0xff, database[at] ^ 0x80, database[at].wrapping_add(1)] {
                super::fuzz::read(&changed(database, at, &[with]), None);
            }
        }
        for length in (0..database.len()).step_by(37) {
            super::fuzz::read(&database[..length], None);
        }
    }
}

#[test]
fn commits_of_the_log_are_read_and_open_transactions_are_not() {
    let old = "1 old 2 old 3 old 4 old 5 old 6 old 7 old 8 old";
    assert_eq!(text_of(&texts(LOGGED, None).unwrap()), old);
    let read = |log: &[u8]| text_of(&texts(LOGGED, Some(log)).unwrap());
    let new = "1 old 2 old 3 old 4 old 5 new 6 new 7 new 8 new 9 add";
    assert_eq!(read(LOG), new);
    assert_eq!(read(b""), old);
    // The log as it is while it grows: after each frame, and in the middle of one.
    let seen: Vec<_> = (32..=LOG.len()).map(|end| read(&LOG[..end])).collect();
    let mut states = seen.clone();
    states.dedup();
    assert_eq!(states.len(), 3, "{states:#?}");
    assert!(states[1].ends_with("8 new") && states[2] == new, "{states:#?}");
    let ends = (32..=LOG.len()).filter(|end| (end - 32) % FRAME == 0).map(|end| &seen[end - 32]);
    let mut of_frames: Vec<_> = ends.cloned().collect();
    of_frames.dedup();
    assert_eq!(of_frames, states, "a frame counts when it is whole");
}

#[test]
fn a_damaged_log_ends_at_its_last_valid_commit() {
    let read = |log: &[u8]| text_of(&texts(LOGGED, Some(log)).unwrap());
    for (at, byte) in LOG.iter().enumerate() {
        let whole_frames = at.checked_sub(32).map_or(0, |at| at / FRAME);
        let expected = read(&LOG[..32 + whole_frames * FRAME]);
        assert_eq!(read(&changed(LOG, at, &[byte ^ 1])), expected, "byte {at}");
    }
    let empty = text_of(&texts(b"", Some(LOG)).unwrap_or_default());
    assert_eq!(empty, "", "a log without the pages of its database");
}

fn package(name: &str, epoch: u32, version: &str, release: &str) -> RpmPackage {
    let [name, version, release, architecture] = [name, version, release, "noarch"].map(str::to_owned);
    RpmPackage { name, epoch, version, release, architecture }
}

#[test]
fn packages_are_found_by_name_and_architecture() {
    for path in DATABASES {
        let tree = Scratch::new();
        tree.write(path, PACKAGES);
        let database = RpmDatabase::read(&tree.root()).unwrap();
        assert_eq!(database.iter().count(), 6);
        let nginx = package("nginx", 1, "1.26.3", "1.amzn2023.0.1");
        assert_eq!(database.package("nginx", None), Some(&nginx));
        assert_eq!(database.package("nginx", Some("noarch")).unwrap().evr(), "1:1.26.3-1.amzn2023.0.1");
        assert_eq!(database.package("nginx", Some("x86_64")), None);
        assert_eq!(database.package("webserver", None), None);
        assert_eq!(database.package("perl_x", None).unwrap().evr(), "1.0~rc1-1");
        let versions: Vec<_> = database.instances("kernel").iter().map(|kernel| kernel.version.as_str()).collect();
        assert_eq!(versions, ["6.1.9", "6.1.10"]);
        assert_eq!(database.package("kernel", None).unwrap().version, "6.1.10");
        assert_eq!(database.package("gpg-pubkey", None).unwrap().architecture, "");
        let provides = RpmProvides::read(&tree.root()).unwrap();
        assert_eq!(provides.provider("webserver"), Some("nginx"));
        assert_eq!(provides.provider("/bin/sh"), Some("bash"));
        assert_eq!((provides.provider("nginx"), provides.provider("none")), (None, None));
    }
}

#[test]
fn a_root_without_a_readable_database_is_refused() {
    let tree = Scratch::new();
    let error = RpmDatabase::read(&tree.root()).unwrap_err();
    let missing =
        "/var/lib/rpm/rpmdb.sqlite and /usr/lib/sysimage/rpm/rpmdb.sqlite are missing: this is not a system of rpm";
    assert_eq!(error.to_string(), missing);
    tree.write("/var/lib/rpm/Packages", b"");
    let error = RpmDatabase::read(&tree.root()).unwrap_err();
    let old = "/var/lib/rpm/Packages is a database of the format bdb; this program reads only rpm's sqlite";
    assert_eq!(error.to_string(), old);
    assert_eq!(error::hint(&error), Some("use Amazon Linux 2023, RHEL 9, Fedora 33 or a later one"));
    tree.write(DATABASES[0], &VALUES[..5000]);
    let error = refusal(RpmDatabase::read(&tree.root()));
    assert_eq!(
        error,
        "the database of rpm cannot be read: reading /var/lib/rpm/rpmdb.sqlite: it has no table Packages"
    );
}

#[test]
fn unfinished_transactions_name_their_packages() {
    let tree = Scratch::new();
    assert_eq!(history::unfinished(&tree.root()).unwrap(), []);
    tree.write(HISTORY, UNFINISHED);
    let unfinished = history::unfinished(&tree.root()).unwrap();
    let line = |transaction: &history::UnfinishedTransaction| {
        let removals = transaction.removals.iter().map(|package| format!(" -{}", package.name));
        let packages = transaction.packages.iter();
        let packages = packages.map(|item| {
            format!(" {}={}{}", item.package.name, item.package.evr(), if item.is_done { "!" } else { "" })
        });
        format!(
            "{} {} {}:{}",
            transaction.id,
            transaction.begun,
            transaction.command_line,
            packages.chain(removals).collect::<String>()
        )
    };
    let lines: Vec<_> = unfinished.iter().map(line).collect();
    // bash was installed again later, and so it is whole. The group is not to be installed.
    assert_eq!(
        lines,
        [
            "2 1700000002 install nginx kernel: nginx=1:1.0-1 nginx-core=1.0-1! kernel=1.0-1 -httpd",
            "5 1700000005 -y install httpd: httpd=1.0-1 nginx-core=1.0-1!",
        ]
    );
}

#[test]
fn a_database_that_changes_meanwhile_is_read_again() {
    let path = "/var/lib/rpm/rpmdb.sqlite";
    for change in [path, "/var/lib/rpm/rpmdb.sqlite-wal"] {
        let tree = Scratch::new();
        tree.write(path, LOGGED);
        tree.write("/var/lib/rpm/rpmdb.sqlite-wal", b"");
        // Now the files are old enough for one attempt.
        assert!(snapshot::read(&tree.root(), &path.into(), |_| Ok(())).unwrap().is_some());
        let calls = Cell::new(0);
        let read = snapshot::read(&tree.root(), &path.into(), |sqlite| {
            let mut count = 0;
            sqlite.rows("t", |_| {
                count += 1;
                Ok(())
            })?;
            calls.set(calls.get() + 1);
            if calls.get() == 1 {
                tree.write(change, if change == path { LOGGED } else { LOG });
            }
            Ok((calls.get(), count))
        });
        let (last, count) = read.unwrap().unwrap();
        assert!(last > 1, "the change of {change} was not seen");
        assert_eq!((last, count), (calls.get(), if change == path { 8 } else { 9 }));
    }
}

#[test]
fn an_unfinished_rollback_journal_is_a_temporary_failure() {
    let tree = Scratch::new();
    tree.write(DATABASES[0], PACKAGES);
    tree.write("/var/lib/rpm/rpmdb.sqlite-journal", [0; 512]);
    assert_eq!(RpmDatabase::read(&tree.root()).unwrap().iter().count(), 6, "a journal without a header is no journal");
    tree.write("/var/lib/rpm/rpmdb.sqlite-journal", [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7, 0]);
    let error = RpmDatabase::read(&tree.root()).unwrap_err();
    let text = "a transaction did not finish: /var/lib/rpm/rpmdb.sqlite-journal has the changes to undo";
    assert_eq!(error.root_cause().to_string(), text);
    assert_eq!(error::exit_code(&error), 75);
}

#[test]
fn a_change_is_past_when_the_clock_of_files_has_ticked() {
    let tree = Scratch::new();
    tree.write("/file", b"");
    let status = tree.root().status(&"/file".into()).unwrap().unwrap();
    let at = |millis: u64| snapshot::is_past(&status, status.changed + Duration::from_millis(millis));
    assert!(!at(0) && !at(20) && at(21) && at(5000));
    let before = |millis: u64| snapshot::is_past(&status, status.changed - Duration::from_millis(millis));
    assert!(!before(20) && before(21), "a clock that was set back shows old changes in the future");
}
