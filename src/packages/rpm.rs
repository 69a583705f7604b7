//! The package database of rpm and dnf's history, read without a process, a lock or a library.

pub mod database;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod header;
pub mod history;
pub mod pages;
pub mod snapshot;
pub mod sqlite;
pub mod version;
mod wal;

#[cfg(test)]
mod tests;
