//! The machine under test: a real Debian (systemd, cloud-init) in a container or on virtual hardware, in an EC2-like
//! world of its own. `Release::Amazon` is the same with dnf in place of apt.
//!
//! ```text
//!   Base      built once for each release and cached: the pristine tree, the archives, the application    base/build, amazon/build
//!     ├ Machine   an overlay on that tree, booted by systemd-nspawn                                       src/container.sh
//!     └ Vm        a disk with that tree and a kernel (vm/build), booted by qemu                           src/vm.rs
//!         └ World     either's network namespace: metadata service, S3, origin, archives, names           src/world.rs
//! ```
//!
//! Every machine has its own world, so any number run at once, and nothing in them can reach anything else. Dropping a
//! machine clears away all of it; so does the end of the process, however it comes: what a killed one leaves on the disk,
//! the next one sweeps.

mod agent;
mod archive;
mod baked;
mod base;
mod cache;
mod client;
mod converged;
mod emulator;
mod guest;
pub mod logs;
mod machine;
pub mod made;
mod manifest;
mod openbao;
mod place;
mod stand_in;
pub mod step;
mod vm;
mod world;

pub use agent::{agent, deployable_agent, static_binaries, user_data};
pub use archive::Signer;
pub use baked::Baked;
pub use base::{Release, pristine_tree};
pub use client::Client;
pub use emulator::Emulator;
pub use guest::Output;
pub use machine::{Machine, Options, Tree, Upper, UserData};
pub use manifest::step_of_files;
pub use openbao::OpenBao;
pub use place::SweptDirectory;
pub use stand_in::StandIn;
pub use vm::{Process, Vm, VmOptions, complete_tree, partitioned_disk, root_disk, stock_tree};
pub use world::{AWS_ENVIRONMENT, Fault, Request, SECRETS, World};
