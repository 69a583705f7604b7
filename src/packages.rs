//! Package managers. Each family is one folder and one line in `families!`.

mod cause;
pub mod manager;
pub mod name;
pub mod openpgp;
mod proxy;
pub mod rpm;
pub mod signing_key;
mod tools;

use anyhow::{Result, bail};

use self::{manager::Family, name::PackageName};
use crate::{error::Fault, host::Host};

/// The first line of a repository's file that a manifest declares.
pub const DECLARED: &str = "# Written by glovo-bootstrap: change its manifest instead.";

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
    dnf::Dnf,
    #[cfg(test)]
    tests::MadeUp,
}

/// Returns the package manager of a machine or image.
///
/// # Errors
/// If it has none of the supported ones.
pub fn of(host: &Host) -> Result<Family> {
    if let Some(family) = find(host)? {
        return Ok(family);
    }
    let missing: Vec<_> = FAMILIES.iter().filter_map(|family| family.databases().first().copied()).collect();
    let distributions: Vec<_> = FAMILIES.iter().flat_map(|family| family.distributions()).copied().collect();
    let (missing, distributions) = (listed(&missing, "and"), listed(&distributions, "or"));
    let message = format!("{missing} are missing: this is not a {distributions} system");
    Err(Fault::new(message).hint("leave out this resource here, or limit it to other machines with `where`").into())
}

/// Returns words as a list: `a, b and c`.
fn listed(words: &[&str], last: &str) -> String {
    match words {
        [others @ .., word] if !others.is_empty() => format!("{} {last} {word}", others.join(", ")),
        _ => words.join(", "),
    }
}

/// Returns the release of the running kernel, as uname(2) does; `None` for an image. It is empty if /proc is unreadable.
fn running_kernel(host: &Host) -> Option<String> {
    let release = || host.root().read_text(&"/proc/sys/kernel/osrelease".into()).unwrap_or_default();
    host.root().is_host().then(|| release().trim().to_owned())
}

/// Returns the warnings of earlier runs that still hold.
pub fn open_warnings(host: &Host) -> Result<Vec<String>> {
    find(host)?.map_or_else(|| Ok(vec![]), |family| family.open_warnings(host))
}

/// Returns the reasons why the machine needs a reboot; `None` if it has no package manager that can say so.
pub fn reboot_reasons(host: &Host) -> Result<Option<Vec<String>>> {
    find(host)?.map(|family| family.reboot_reasons(host)).transpose()
}

/// Returns the family of a machine or image. With the databases of two, os-release(5) says which one counts.
fn find(host: &Host) -> Result<Option<Family>> {
    let mut found: Vec<Family> = vec![];
    for family in FAMILIES {
        if manager::is_of(*family, host.root())? {
            found.push(*family);
        }
    }
    let distribution = if found.len() > 1 { host.fact("distribution").unwrap_or_default() } else { String::new() };
    let own = found.iter().find(|family| family.distribution_ids().contains(&&*distribution));
    Ok(own.or(found.first()).copied())
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
    bail!(reasons.join("; "))
}

/// Returns the pattern of the names that a family accepts, for editors.
fn name_pattern() -> String {
    FAMILIES.iter().map(|family| family.name_pattern()).collect::<Vec<_>>().join("|")
}
