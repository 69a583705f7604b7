//! A run from its start to its exit code: the loop over the steps, the report, the machine's lock, the supervisor.

pub mod engine;
pub mod lock;
pub mod one_path;
pub mod reboot;
pub mod report;
pub mod selection;
pub mod supervisor;
pub mod warm_pool;
