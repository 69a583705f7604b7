//! Black-box tests through the binary, on this host's kernel. They need root: namespaces and owners are real.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

mod bake;
mod downloads;
mod errno;
mod facts;
mod fetch;
mod kill;
mod limits;
mod manifest;
mod metadata;
mod output;
mod pages;
mod places;
mod put_back;
mod record;
mod report;
mod run;
mod sandbox;
mod schema;
mod secrets;
#[allow(dead_code, reason = "shared with tests/deploy")]
mod server;
mod service;
mod signal;
mod standin;
mod swap;
mod terminal;
mod trust;
mod user;
mod user_data;
mod verified;
mod visible;
