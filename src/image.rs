//! Support for images: mounts for programs that run in an image's tree, the seal, the search for credentials.

pub mod credentials;
pub mod mounts;
pub mod seal;
pub mod swap;
