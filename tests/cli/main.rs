//! Black-box tests through the binary, on this host's kernel. They need root: namespaces and owners are real.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

// The worked example of a kind has the paths that it would have in the library.
use glovo_bootstrap::{host, resource, system};

mod absent;
mod architectures;
mod archive;
mod archive_formats;
mod archive_kill;
mod bake;
mod book;
mod bootstraps;
mod checks;
mod command;
mod command_image;
mod conditions;
mod demo;
mod disks;
mod distributions;
mod downloads;
mod errno;
mod examples;
mod facts;
mod fetch;
mod filesystem;
mod foreseen;
mod host_settings;
mod install;
mod json;
mod kill;
mod kind_example;
mod labels;
mod limits;
mod login;
mod machine_variables;
mod manifest;
mod mask;
mod metadata;
mod mount;
mod output;
mod own_service;
mod ownership;
mod package;
mod pages;
mod places;
mod put_back;
mod reboot;
mod record;
#[path = "../../packaging/reference.rs"]
mod reference;
mod reload;
mod report;
mod rooms;
mod rpm_database;
mod run;
mod sandbox;
mod schema;
mod seams;
mod secrets;
mod selinux_boolean;
#[allow(dead_code, reason = "shared with tests/deploy")]
mod server;
mod service;
mod signal;
mod standin;
mod summary;
mod swap;
mod sysctl;
mod terminal;
mod tree;
mod trust;
mod typed;
mod user;
mod user_data;
mod verified;
mod visible;
mod warnings;
mod words;
