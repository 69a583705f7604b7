//! A fuzz target: any bytes as a database of rpm and as one of dnf's history.

#![allow(clippy::missing_panics_doc, reason = "a panic is the answer of a target")]

use super::{
    database, history,
    pages::{ReadAt, number},
    sqlite::Sqlite,
};

/// Reads a database and its log; the first two bytes are the number of units of 512 bytes of the database.
pub fn rpm_database(input: &[u8]) {
    let Some((units, rest)) = input.split_at_checked(2) else { return };
    let (database, log) = rest.split_at((number(units) as usize * 512).min(rest.len()));
    read(database, (!log.is_empty()).then_some(log));
}

/// Reads the tables that this program reads. What is read of a damaged database does not matter, but it has an end.
pub fn read(database: &[u8], log: Option<&[u8]>) {
    let log = log.as_ref().map(|log| log as &dyn ReadAt);
    let Ok(sqlite) = Sqlite::open(&database, log) else { return };
    _ = database::packages(&sqlite);
    _ = database::providers(&sqlite);
    _ = history::read(&sqlite);
    for (table, column) in [("Packages", "blob"), ("all", "bytes")] {
        _ = sqlite.rows(table, |row| {
            let mut blob = row.blob(column)?;
            let size = blob.size();
            assert_eq!(blob.up_to(size)?.len(), size);
            Ok(())
        });
    }
    _ = sqlite.rows("t", |row| row.text("text").map(|_| ()));
}
