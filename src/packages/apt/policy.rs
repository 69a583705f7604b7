//! A script that keeps an installation from starting services (invoke-rc.d(8), deb-systemd-invoke(1p)).
//!
//! The `service` resource starts them later, when their configuration is in place.

use anyhow::Result;

use crate::{
    host::root::{FileType, Ownership, Root},
    system::System,
    value::AbsPath,
};

/// The path of the script that invoke-rc.d(8) and deb-systemd-invoke(1p) ask.
const PATH: &str = "/usr/sbin/policy-rc.d";
/// The variable in the environment of this program's apt, and so of its maintainer scripts.
pub(crate) const VARIABLE: &str = "GLOVO_BOOTSTRAP_INSTALLS";
/// The start of the line that marks this program's script, in all releases.
const MARK: &str = "# glovo-bootstrap:";
/// The script. Exit code 101 forbids the action, 0 allows it.
///
/// It forbids actions only in installations with [`VARIABLE`]. So a script that a killed run leaves has no effect on
/// other installations. An upgrade may restart a running service. In an image, `systemctl is-active` always succeeds,
/// so that it is asked only on a booted machine.
const SCRIPT: &str = "\
#!/bin/sh
# glovo-bootstrap: what it installs is not started before it is configured. May be removed at any time.
[ -n \"$GLOVO_BOOTSTRAP_INSTALLS\" ] || exit 0
[ -d /run/systemd/system ] && systemctl --quiet is-active \"$1\" && exit 0
exit 101
";
/// The command that apt runs after dpkg, also if this program was killed.
pub(crate) const SWEEP: &str =
    "if grep -qs '^# glovo-bootstrap:' /usr/sbin/policy-rc.d; then rm -f /usr/sbin/policy-rc.d; fi";
/// Limits the size of this program's script in any release.
const MAX_SCRIPT_BYTES: u64 = 64 << 10;

/// Keeps installations from starting services until it is dropped.
pub(crate) struct ServicesHeld<'a>(&'a System);

impl<'a> ServicesHeld<'a> {
    /// Writes the script, unless the machine has a script of its own.
    pub(crate) fn new(system: &'a System) -> Result<Self> {
        let root = system.root();
        if root.status(&PATH.into())?.is_none() || is_left_behind(root)? {
            root.write(&PATH.into(), Ownership { uid: 0, gid: 0, mode: 0o755 }, SCRIPT.as_bytes())?;
        }
        Ok(Self(system))
    }
}

impl Drop for ServicesHeld<'_> {
    fn drop(&mut self) {
        if let Err(error) = sweep(self.0.root()) {
            tracing::warn!(%error, "{PATH} was not removed; it has no effect on other installations");
        }
    }
}

/// Returns whether this program's script exists. Outside an installation, a killed run has left it.
pub(crate) fn is_left_behind(root: &Root) -> Result<bool> {
    let path = AbsPath::from(PATH);
    match root.status(&path)? {
        Some(status) if status.file_type == FileType::Regular && status.size < MAX_SCRIPT_BYTES => {
            Ok(root.read_text(&path).is_ok_and(|text| text.lines().any(|line| line.starts_with(MARK))))
        }
        _ => Ok(false),
    }
}

/// Removes this program's script, but no other one.
pub(crate) fn sweep(root: &Root) -> Result<()> {
    if is_left_behind(root)? { root.remove(&PATH.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{host::command::Program, stop::Interrupt, system::Mode};

    #[test]
    fn the_script_forbids_starts_only_in_our_own_installation() {
        let system = System::open(Path::new("/"), Mode::Run, Interrupt::default()).unwrap();
        let asked = Program::new(["sh", "-c", SCRIPT, PATH, "no-such-unit", "start"]);
        assert_eq!(system.host.run(&asked).unwrap().code(), 0);
        assert_eq!(system.host.run(&asked.env(VARIABLE, "1")).unwrap().code(), 101);
        assert!(SCRIPT.contains(&format!("${VARIABLE}")) && SCRIPT.lines().any(|line| line.starts_with(MARK)));
        assert!(SWEEP.contains(&format!("'^{MARK}' {PATH};")));
    }
}
