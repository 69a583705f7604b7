//! Reporting the outcome of a run to CloudFormation, Auto Scaling and the console.

pub mod block;
pub mod send;
pub mod verdict;
