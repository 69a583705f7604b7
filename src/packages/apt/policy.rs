//! A package's service is not started by its installation, but by the `service` resource once its
//! configuration is there: `/usr/sbin/policy-rc.d` says so (invoke-rc.d(8), deb-systemd-invoke(1p)).

use anyhow::Result;

use crate::{
    host::root::{FileType, Ownership, Root},
    system::System,
    value::AbsPath,
};

/// Where invoke-rc.d(8) and deb-systemd-invoke(1p) look.
const PATH: &str = "/usr/sbin/policy-rc.d";
/// In the environment of the apt that we start, and so of its maintainer scripts.
pub(crate) const VARIABLE: &str = "GLOVO_BOOTSTRAP_INSTALLS";
/// The line by which our script is known, whichever release wrote it.
const MARK: &str = "# glovo-bootstrap:";
/// It speaks only to what we install, by an environment variable: if we are killed and it stays behind, it
/// forbids nothing to anybody. Exit 101 is "action forbidden", 0 "action allowed". A service that runs may be
/// restarted when its package is upgraded; in an image systemctl would say yes to everything.
const SCRIPT: &str = "\
#!/bin/sh
# glovo-bootstrap: what it installs is not started before it is configured. May be removed at any time.
[ -n \"$GLOVO_BOOTSTRAP_INSTALLS\" ] || exit 0
[ -d /run/systemd/system ] && systemctl --quiet is-active \"$1\" && exit 0
exit 101
";
/// What apt runs when dpkg has ended, also if we are killed meanwhile.
pub(crate) const SWEEP: &str =
    "if grep -qs '^# glovo-bootstrap:' /usr/sbin/policy-rc.d; then rm -f /usr/sbin/policy-rc.d; fi";
/// Longer scripts aren't ours.
const LIMIT: u64 = 64 << 10;

/// Keeps services from being started until it is dropped.
pub(crate) struct ServicesHeld<'a>(&'a System);

impl<'a> ServicesHeld<'a> {
    /// Puts the script there, unless somebody else's is: that one then decides.
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
            tracing::warn!(%error, "{PATH} was not removed; it forbids nothing to others");
        }
    }
}

/// Whether our script is there; outside an installation: left by a run that was killed.
pub(crate) fn is_left_behind(root: &Root) -> Result<bool> {
    let path = AbsPath::from(PATH);
    match root.status(&path)? {
        Some(status) if status.file_type == FileType::Regular && status.size < LIMIT => {
            Ok(root.read_text(&path).is_ok_and(|text| text.lines().any(|line| line.starts_with(MARK))))
        }
        _ => Ok(false),
    }
}

/// Removes our script, and nobody else's.
pub(crate) fn sweep(root: &Root) -> Result<()> {
    if is_left_behind(root)? { root.remove(&PATH.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{host::command::Program, stop::Interrupt, system::Mode};

    #[test]
    fn the_script_forbids_starts_to_our_own_installation_only() {
        let system = System::open(Path::new("/"), Mode::Run, Interrupt::default()).unwrap();
        let asked = Program::new(["sh", "-c", SCRIPT, PATH, "no-such-unit", "start"]);
        assert_eq!(system.host.run(&asked).unwrap().code(), 0);
        assert_eq!(system.host.run(&asked.env(VARIABLE, "1")).unwrap().code(), 101);
        assert!(SCRIPT.contains(&format!("${VARIABLE}")) && SCRIPT.lines().any(|line| line.starts_with(MARK)));
        assert!(SWEEP.contains(&format!("'^{MARK}' {PATH};")));
    }
}
