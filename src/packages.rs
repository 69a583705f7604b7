//! Package managers. Each family is one folder and one line in `families!`.

pub mod manager;
pub mod name;
pub mod openpgp;
pub mod rpm;

use anyhow::{Result, bail};

use self::{manager::Family, name::PackageName};
use crate::{error::Fault, host::Host};

/// Declares the folder of each family, and the table of all of them.
macro_rules! families {
    ($($(#[$when:meta])* $folder:ident::$family:ident,)*) => {
        $($(#[$when])* pub mod $folder;)*

        /// The families of package managers that this program supports.
        pub static FAMILIES: &[Family] = &[$($(#[$when])* &$folder::$family),*];
    };
}

families! {
    apt::Apt,
    #[cfg(test)]
    tests::MadeUp,
}

/// Returns the package manager of a machine or image.
///
/// # Errors
/// If it has none of the supported ones.
pub fn of(host: &Host) -> Result<Family> {
    for family in FAMILIES {
        if manager::is_of(*family, host.root())? {
            return Ok(*family);
        }
    }
    let missing: Vec<_> = FAMILIES.iter().map(|family| family.database()).collect();
    let are = if missing.len() == 1 { "is" } else { "are" };
    let distributions: Vec<_> = FAMILIES.iter().map(|family| family.distributions()).collect();
    let message =
        format!("{} {are} missing: this is not a {} system", missing.join(" and "), distributions.join(" or "));
    Err(Fault::new(message).hint("leave out this resource here, or limit it to other machines with `where`").into())
}

/// Returns the reasons why the machine needs a reboot; `None` if it has no package manager that can say so.
pub fn reboot_reasons(host: &Host) -> Result<Option<Vec<String>>> {
    for family in FAMILIES {
        if manager::is_of(*family, host.root())? {
            return family.reboot_reasons(host).map(Some);
        }
    }
    Ok(None)
}

/// Returns a package's name as the first family reads it that accepts it.
fn read_name(text: &str) -> Result<PackageName> {
    let mut reasons = vec![];
    for family in FAMILIES {
        match family.read_name(text) {
            Ok(name) => return Ok(name),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    reasons.dedup();
    bail!(reasons.join("; "))
}

/// Returns the pattern of the names that a family accepts, for editors.
fn name_pattern() -> String {
    FAMILIES.iter().map(|family| family.name_pattern()).collect::<Vec<_>>().join("|")
}
