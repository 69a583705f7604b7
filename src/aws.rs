//! AWS: its metadata service, its query calls, its S3, and the account's credentials.

pub mod answer;
pub mod metadata;
pub mod query;
pub mod s3;
pub mod sdk;
