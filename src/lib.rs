//! glovo-bootstrap turns a fresh EC2 machine into a serving one.
//!
//! Data flows in one direction. Each module is named for its task:
//!
//! ```text
//! command line → manifest (text → steps) → plan (what differs) → changes (applied in order) → report
//! ```
//!
//! | module | content |
//! | --- | --- |
//! | [`cli`], [`commands`] | the command line's types; one function for each subcommand |
//! | [`view`] | the only module that prints or asks |
//! | [`manual`] | manual pages and the shells' completions, made from the command line's types |
//! | [`deploy`], [`user_data`] | deploying to an AWS CloudFormation stack; user-data for new machines |
//! | [`run`] | a run from its start to its exit code: the loop over the steps, the report, the lock, the supervisor |
//! | [`notify`], [`image`] | reporting the outcome to AWS; support for images |
//! | [`first_boot`] | the first boot of an instance without cloud-init |
//! | [`resource`] | the kinds, one file each: how each one finds differences and plans changes |
//! | [`manifest`] | parsing manifests into steps, or into a list of all their faults |
//! | [`system`] | the context of a kind: the machine, downloads, and the planned results of earlier resources |
//! | [`packages`] | package managers and the keys of repositories |
//! | [`fetch`], [`aws`], [`net`] | downloads; AWS; HTTP clients, TLS and the one retry loop |
//! | [`vault`] | values of `HashiCorp` Vault and `OpenBao` |
//! | [`archive`] | the members of a tar or zip, checked before anything is written |
//! | [`host`] | the only door to the machine: files, programs, accounts, services, facts |
//! | [`rsyslog`] | the configuration of an rsyslogd that forwards records |
//! | [`stop`], [`environment`] | signals and deadlines; every environment variable that is read |
//! | [`redaction`], [`visible`], [`error`], [`value`] | removing secrets, escaping foreign text, faults, typed values |

#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

pub mod archive;
pub mod aws;
pub mod cli;
pub mod commands;
pub mod deploy;
pub mod diagnostic;
pub mod environment;
pub mod error;
pub mod fetch;
pub mod first_boot;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the only door to the machine")]
pub mod host;
pub mod image;
pub mod manifest;
pub mod manual;
pub mod net;
pub mod notify;
pub mod packages;
pub mod redaction;
pub mod resource;
pub mod rsyslog;
pub mod run;
pub mod secrets;
pub mod stop;
pub mod system;
pub mod user_data;
pub mod value;
pub mod variables;
pub mod vault;
pub mod view;
pub mod visible;
