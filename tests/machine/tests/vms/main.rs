//! Tests that need a kernel and a disk of their own. Each boots for a minute or several, every
//! instruction being emulated: `vm/all` runs them.

mod baked;
mod clock;
mod disks;
mod enforcing;
mod firmware;
mod first_boot;
mod power;
mod releases;
mod swap;
