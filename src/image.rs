//! What only an image needs: mounts for the programs of a tree, the seal, the search for credentials left behind.

pub mod credentials;
pub mod mounts;
pub mod seal;
