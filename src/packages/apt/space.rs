//! The check that the packages of an installation fit on the disk. A full disk makes dpkg leave half a package.

use anyhow::Result;

use super::archives;
use crate::{error::Fault, host::command::Finished, system::System, value::ByteSize};

/// A directory on the file system that nearly all packages are unpacked to.
const UNPACKED: &str = "/usr/bin";
/// The words around apt's estimate of the size of the unpacked packages.
const AFTER: (&str, &str) = ("After this operation, ", " of additional disk space will be used.");

/// Fails if there is too little space for the missing archives or for the unpacked packages.
///
/// `printed` is the output of the installation's command with `archives::PRINT`.
pub(crate) fn check(system: &System, printed: &Finished) -> Result<()> {
    let root = system.root();
    let archives = archives::missing_bytes(root, printed);
    let unpacked = unpacked_bytes(&printed.stdout);
    let [of_archives, of_unpacked] =
        [archives::DIRECTORY, UNPACKED].map(|path| root.file_system(&format!("{path}/x").parse()?));
    let (of_archives, of_unpacked) = (of_archives?, of_unpacked?);
    if of_archives.device == of_unpacked.device {
        return fits(UNPACKED, archives + unpacked, of_unpacked.free_to_root);
    }
    fits(archives::DIRECTORY, archives, of_archives.free_to_root)?;
    fits(UNPACKED, unpacked, of_unpacked.free_to_root)
}

fn fits(path: &str, need: u64, free: u64) -> Result<()> {
    if need <= free {
        return Ok(());
    }
    let (need, free) = (ByteSize(need), ByteSize(free));
    Err(Fault::new(format!(
        "the file system of {path} is too full: the packages need {need}, but only {free} are free"
    ))
    .hint("enlarge the volume, or free space; to see what takes it: du -xh --max-depth=3 / | sort -h | tail -n 20")
    .into())
}

/// Returns apt's estimate of the bytes of the unpacked packages; 0 if it prints none or if space becomes free.
fn unpacked_bytes(output: &str) -> u64 {
    let size = |line: &str| {
        let (number, unit) = line.strip_prefix(AFTER.0)?.strip_suffix(AFTER.1)?.split_once(' ')?;
        let number: f64 = number.replace(',', "").parse().ok()?;
        let unit = match unit {
            "B" => 1.0,
            "kB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            _ => return None,
        };
        let bytes = number * unit;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate within the bounds")]
        (0.0..1e15).contains(&bytes).then_some(bytes as u64)
    };
    output.lines().find_map(size).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_that_apt_estimates_is_read() {
        let read =
            |size: &str| unpacked_bytes(&format!("Need to get 1 kB of archives.\n{}{size}{}\n'x'", AFTER.0, AFTER.1));
        assert_eq!(
            [read("1709 kB"), read("250 MB"), read("0 B"), read("1.5 GB")],
            [1_709_000, 250_000_000, 0, 1_500_000_000]
        );
        assert_eq!([read(""), read("x MB"), read("1 XB"), read("-1 MB"), read("inf GB"), read("NaN B")], [0; 6]);
        assert_eq!(unpacked_bytes("After this operation, 12 MB disk space will be freed."), 0);
    }

    #[test]
    fn a_full_file_system_is_reported_with_both_sizes() {
        assert!(fits("/usr", 1 << 20, 1 << 20).is_ok());
        let error = fits("/usr", 2 << 20, 1 << 20).unwrap_err().to_string();
        assert_eq!(error, "the file system of /usr is too full: the packages need 2 MiB, but only 1 MiB are free");
    }
}
