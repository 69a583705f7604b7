//! glovo-bootstrap turns a fresh EC2 machine into a serving one.
//!
//! Data flows one way, and each room is named for what happens in it:
//!
//! ```text
//! command line → manifest (text → steps) → plan (what differs) → changes (applied in order) → report
//! ```
//!
//! | room | what is in it |
//! | --- | --- |
//! | [`cli`], [`commands`] | the command line's types; each subcommand puts the rooms below together |
//! | [`view`] | the only room that prints or asks |
//! | [`deploy`], [`user_data`] | the operator's side: a stack of AWS CloudFormation, and what leads a new machine here |
//! | [`run`] | a run from its start to its exit code: the loop over the steps, the report, the lock, the supervisor |
//! | [`notify`], [`image`] | the outcome in words for AWS and the console; what only an image needs |
//! | [`resource`] | the kinds, one file each: what differs, and the changes that make it so |
//! | [`manifest`] | texts become steps, or every diagnostic of them |
//! | [`system`] | what a kind works with: the machine, downloads, and what a plan knows of earlier resources |
//! | [`packages`] | apt, dpkg and the keys of repositories |
//! | [`fetch`], [`aws`], [`net`] | downloads; AWS; HTTP clients, TLS and the one retry loop |
//! | [`host`] | the only door to the machine: files, programs, accounts, services, facts |
//! | [`stop`], [`environment`] | signals and deadlines; every environment variable that is read |
//! | [`redaction`], [`visible`], [`error`], [`value`] | secrets left out, foreign text made visible, faults, typed values |

#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

pub mod aws;
pub mod cli;
pub mod commands;
pub mod deploy;
pub mod diagnostic;
pub mod environment;
pub mod error;
pub mod fetch;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the only door to the machine")]
pub mod host;
pub mod image;
pub mod manifest;
pub mod net;
pub mod notify;
pub mod packages;
pub mod redaction;
pub mod resource;
pub mod run;
pub mod stop;
pub mod system;
pub mod user_data;
pub mod value;
pub mod variables;
pub mod view;
pub mod visible;
