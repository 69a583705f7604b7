//! The outcome of a run in words for CloudFormation, Auto Scaling and the console, and the calls that send it.

pub mod block;
pub mod send;
pub mod verdict;
