//! The transactions that dnf began and did not finish.
//!
//! rpm calls a package installed before the package's scripts have run. After a crash only dnf's history shows that they
//! may not have. Facts: `libdnf/transaction/sql/create_tables.sql` and `Types.hpp` of libdnf.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;

use super::{database::RpmPackage, snapshot, sqlite::Sqlite};
use crate::host::root::Root;

/// The history of dnf 4.
pub const HISTORY: &str = "/var/lib/dnf/history.sqlite";

/// The state of a transaction or of a part of it that has not ended (`UNKNOWN`).
const BEGUN: i64 = 0;
/// The state of one that has succeeded (`DONE`).
const DONE: i64 = 1;
/// The actions that put a package on the system: install, downgrade, obsolete, upgrade, reinstall.
const ARRIVALS: [i64; 5] = [1, 2, 4, 6, 9];
/// The action that removes a package, and puts no other one in its place.
const REMOVE: i64 = 8;

/// A transaction without an end. It can also be one that runs now: look for its lock first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedTransaction {
    /// Its number in `dnf history`.
    pub id: i64,
    /// The time of its begin, in seconds since 1970.
    pub begun: i64,
    /// The arguments of its dnf.
    pub command_line: String,
    /// The packages that it was to put on the system, without those that a later transaction has put there.
    pub packages: Vec<UnfinishedPackage>,
    /// The packages that it was to remove, without those that a later transaction has put there or removed.
    pub removals: Vec<RpmPackage>,
}

/// A package of a transaction without an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedPackage {
    /// The package.
    pub package: RpmPackage,
    /// Whether dnf saw the end of its installation. Then only its script `%posttrans` may not have run.
    pub is_done: bool,
}

/// Returns the transactions without an end, oldest first; none if dnf has no history.
///
/// It says nothing about the database: a package that is not installed has to be installed, not repaired.
pub fn unfinished(root: &Root) -> Result<Vec<UnfinishedTransaction>> {
    let read = snapshot::read(root, &HISTORY.into(), read);
    let aside = "move it aside, so that dnf begins a new one: mkdir /root/history && mv /var/lib/dnf/history.sqlite* \
                 /root/history";
    Ok(read.map_err(|error| snapshot::unreadable(error, "dnf's history", aside))?.unwrap_or_default())
}

/// A package's part in a transaction.
struct TransactionPart {
    transaction: i64,
    item: i64,
    action: i64,
    state: i64,
}

pub(super) fn read(sqlite: &Sqlite) -> Result<Vec<UnfinishedTransaction>> {
    // dnf died when it made its history.
    if !sqlite.has_table("trans") {
        return Ok(vec![]);
    }
    let mut states = HashMap::new();
    let mut unfinished = BTreeMap::new();
    sqlite.rows("trans", |row| {
        let (id, state) = (row.id, row.integer("state")?);
        _ = states.insert(id, state);
        if state == BEGUN {
            let (begun, command_line) = (row.integer("dt_begin")?, row.text("cmdline")?);
            let transaction = UnfinishedTransaction { id, begun, command_line, packages: vec![], removals: vec![] };
            _ = unfinished.insert(id, transaction);
        }
        Ok(())
    })?;
    let Some(oldest) = unfinished.keys().next().copied() else { return Ok(vec![]) };
    let mut parts = vec![];
    sqlite.rows("trans_item", |row| {
        let transaction = row.integer("trans_id")?;
        if transaction >= oldest {
            let (item, action, state) = (row.integer("item_id")?, row.integer("action")?, row.integer("state")?);
            parts.push(TransactionPart { transaction, item, action, state });
        }
        Ok(())
    })?;
    let packages = packages(sqlite, &parts)?;
    for part in parts.iter().filter(|part| part.action == REMOVE || ARRIVALS.contains(&part.action)) {
        let Some(transaction) = unfinished.get_mut(&part.transaction) else { continue };
        let Some(package) = packages.get(&part.item) else { continue };
        let replaces = |later: &TransactionPart| {
            later.transaction > part.transaction
                && later.state == DONE
                && states.get(&later.transaction).is_some_and(|state| *state != BEGUN)
                && packages
                    .get(&later.item)
                    .is_some_and(|other| (&other.name, &other.architecture) == (&package.name, &package.architecture))
        };
        if parts.iter().any(replaces) {
            continue;
        }
        if part.action == REMOVE {
            transaction.removals.push(package.clone());
        } else {
            transaction.packages.push(UnfinishedPackage { package: package.clone(), is_done: part.state == DONE });
        }
    }
    Ok(unfinished.into_values().collect())
}

/// Returns the packages among the items of parts. Groups are items too.
fn packages(sqlite: &Sqlite, parts: &[TransactionPart]) -> Result<HashMap<i64, RpmPackage>> {
    let wanted: std::collections::HashSet<_> = parts.iter().map(|part| part.item).collect();
    let mut packages = HashMap::new();
    sqlite.rows("rpm", |row| {
        let item = row.integer("item_id")?;
        if wanted.contains(&item) {
            let package = RpmPackage {
                name: row.text("name")?,
                epoch: row.integer("epoch")?.try_into().unwrap_or_default(),
                version: row.text("version")?,
                release: row.text("release")?,
                architecture: row.text("arch")?,
            };
            _ = packages.insert(item, package);
        }
        Ok(())
    })?;
    Ok(packages)
}
