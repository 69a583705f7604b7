//! A run from its start to its exit code: the loop over the steps, the report, the machine's lock, the supervisor.

pub mod engine;
pub mod lock;
pub mod reboot;
pub mod report;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "starts this program itself, once more")]
pub mod supervisor;
