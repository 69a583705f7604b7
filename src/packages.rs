//! Package managers: apt with dpkg's status and the OpenPGP reader for the keys of repositories.

pub mod apt;
pub mod dpkg;
pub mod openpgp;
