//! The machine: its files, programs, accounts, services and facts. Nothing outside this room opens a file of it.

pub mod accounts;
pub mod calls;
pub mod command;
pub mod console;
pub mod ec2;
pub mod facts;
pub mod file_lock;
pub mod journal;
pub mod output;
pub mod process;
pub mod root;
pub mod state;
pub mod systemd;
