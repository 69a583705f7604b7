//! glovo-bootstrap turns a fresh EC2 machine into a serving one.
//!
//! Data flows one way, and each room is named for what happens in it:
//!
//! ```text
//! command line → manifest (text → steps) → plan (what differs) → changes (applied in order) → report
//! ```
//!
//! [`cli`] holds the command line's types, [`commands`] puts the rooms together, [`manifest`] turns
//! texts into steps or says all that is wrong with them, [`resource`] holds the kinds of things that
//! can be declared, [`engine`] plans each, makes the changes and plans again, [`system`] is the only
//! door to the machine, [`report`] keeps what a run did, [`view`] shows it while it happens, [`visible`]
//! makes visible what others wrote in it, [`redaction`] takes secrets out of it, [`error`] turns what
//! went wrong into words, a hint and an exit code, and [`signal`] what becomes of a run into words for
//! those who wait for it. [`user_data`] writes what leads
//! a new machine here, and [`deploy`] brings it into a stack of AWS CloudFormation.

#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

pub mod cli;
pub mod commands;
pub mod credentials;
pub mod deploy;
pub mod engine;
pub mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod manifest;
pub mod redaction;
pub mod report;
pub mod resource;
pub mod seal;
pub mod signal;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the only door to the machine")]
pub mod system;
pub mod user_data;
pub mod value;
pub mod view;
pub mod visible;
