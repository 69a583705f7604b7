//! The machine under test: a real Debian 12 (systemd, cloud-init) in a container, in an EC2-like world of its own.
//!
//! ```text
//!   Base      built once and cached: the pristine tree, the archives, the application        base/build
//!     └ Machine   an overlay on that tree, booted by systemd-nspawn                          src/container.sh
//!         └ World     its network namespace: metadata service, S3, origin, archives, names   src/world.rs
//! ```
//!
//! Every machine has its own world, so any number run at once, and nothing in them can reach anything else. Dropping a
//! machine clears away all of it; so does the end of the process, however it comes.

mod agent;
mod base;
mod cache;
mod converged;
mod guest;
mod machine;
mod manifest;
mod world;

pub use agent::{agent, static_binaries};
pub use base::pristine_tree;
pub use guest::Output;
pub use machine::{Machine, Options, Tree, Upper, UserData};
pub use manifest::step_of_files;
pub use world::{AWS_ENVIRONMENT, Fault, Request, SECRETS, World};
