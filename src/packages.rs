//! Package managers: each family has one folder and one line in [`FAMILIES`].

pub mod apt;
pub mod manager;
pub mod name;
pub mod openpgp;

use anyhow::Result;

use self::manager::PackageManager;
use crate::{error::Fault, host::Host};

/// The families of package managers that this program supports.
static FAMILIES: &[&dyn PackageManager] = &[&apt::Apt];

/// Returns the package manager of a machine or image.
///
/// # Errors
/// If it has none of the supported ones.
pub fn of(host: &Host) -> Result<&'static dyn PackageManager> {
    for family in FAMILIES {
        if manager::is_of(*family, host.root())? {
            return Ok(*family);
        }
    }
    let missing: Vec<_> = FAMILIES.iter().map(|family| family.database()).collect();
    let distributions: Vec<_> = FAMILIES.iter().map(|family| family.distributions()).collect();
    let message = format!("{} is missing: this is not a {} system", missing.join(", "), distributions.join(", "));
    Err(Fault::new(message).hint("leave out the resources of kind \"package\" here").into())
}
