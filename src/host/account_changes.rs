//! Changes of users and groups, by the programs of the shadow suite and under their locks.

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::{
    Host,
    command::Program,
    file_lock::{self, Held},
    root::Root,
};
use crate::{error::Fault, value::AbsPath};

/// The file that lckpwdf(3) locks, for the shadow suite and for systemd-sysusers.
const PASSWORD_LOCK: &str = "/etc/.pwd.lock";
/// The files in `/etc` that the shadow suite locks, each with `NAME.lock`.
const LOCKED: [&str; 6] = ["passwd", "group", "shadow", "gshadow", "subuid", "subgid"];
/// The exit code of groupadd(8) and useradd(8) if the name exists already.
const EXIT_CODE_EXISTS: i32 = 9;

/// The file with the passwords of `/etc/passwd` or `/etc/group`. Some machines have none.
#[derive(Debug, Clone, Copy)]
pub struct Shadow {
    /// Its path.
    pub path: &'static str,
    /// The program that adds its missing lines, pwconv(8).
    pub converter: &'static str,
}

/// shadow(5).
pub const SHADOW: Shadow = Shadow { path: "/etc/shadow", converter: "pwconv" };
/// gshadow(5).
pub const GSHADOW: Shadow = Shadow { path: "/etc/gshadow", converter: "grpconv" };

impl Host {
    /// Returns whether the file exists without a line for a name. A file that this process may not read counts as complete.
    pub fn lacks(&self, shadow: Shadow, name: &str) -> Result<bool> {
        let bytes = match self.root().read(&shadow.path.into(), 64 << 20) {
            Err(error) if error.downcast_ref() == Some(&Errno::EACCES) => None,
            read => read?,
        };
        let Some(bytes) = bytes else { return Ok(false) };
        // A name that is not UTF-8 is decoded in the same way in both files.
        let text = String::from_utf8_lossy(&bytes);
        Ok(!text.split('\n').any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'))))
    }

    /// Returns the fields of a user's line in `/etc/shadow`, shadow(5); no fields if the user has no line.
    ///
    /// Returns `None` if this process may not read the file.
    pub fn shadow_fields(&self, name: &str) -> Result<Option<Vec<String>>> {
        let bytes = match self.root().read(&SHADOW.path.into(), 64 << 20) {
            Err(error) if error.downcast_ref() == Some(&Errno::EACCES) => return Ok(None),
            read => read?,
        };
        let Some(bytes) = bytes else {
            return Err(Fault::new(format!("{} does not exist", SHADOW.path))
                .hint("make it from /etc/passwd: pwconv")
                .into());
        };
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.split('\n').map(|line| line.split(':'));
        let line = lines.find(|fields| fields.clone().next() == Some(name));
        Ok(Some(line.map(|fields| fields.map(Into::into).collect()).unwrap_or_default()))
    }

    /// Fails if the files of the accounts are on a read-only file system, or if one of them is immutable (chattr(1)).
    pub fn check_accounts_writable(&self) -> Result<()> {
        let passwd = AbsPath::from("/etc/passwd");
        if self.root().file_system(&passwd)?.read_only {
            return Err(Fault::new("the file system of /etc is mounted read-only")
                .hint("make it writable: mount -o remount,rw \"$(findmnt -no TARGET -T /etc)\"")
                .into());
        }
        LOCKED.iter().try_for_each(|name| self.root().check_writable(&format!("/etc/{name}").parse()?))
    }

    /// Runs a program of the shadow suite.
    ///
    /// It first checks the conditions for which the program has no clear message.
    pub fn change_accounts(&self, command: &Program) -> Result<()> {
        self.check_accounts_writable()?;
        file_lock::wait(self, "the accounts' locks", find_lock)?;
        let finished = self.run(command).context("changing accounts")?;
        // A program of a killed run may have made it during the wait. The next plan compares it.
        if finished.code() == EXIT_CODE_EXISTS { Ok(()) } else { finished.check(command).context("changing accounts") }
    }
}

/// Returns the first lock of the accounts that is held.
fn find_lock(root: &Root) -> Result<Option<Held>> {
    if let Some(held) = file_lock::find(root, &PASSWORD_LOCK.into())? {
        return Ok(Some(held));
    }
    let mut held = LOCKED.iter().map(|name| find_pid_file(root, &format!("/etc/{name}.lock").parse()?));
    held.find_map(Result::transpose).transpose()
}

/// Returns the holder of a lock file of the shadow suite, which has the holder's pid and a NUL.
///
/// The suite removes a lock file whose holder has ended. It never removes one with other content, such as a pid and a
/// newline.
fn find_pid_file(root: &Root, path: &AbsPath) -> Result<Option<Held>> {
    let Some(bytes) = root.read(path, 4096)? else { return Ok(None) };
    let Ok(pid) = String::from_utf8_lossy(&bytes).trim_end_matches('\0').parse() else {
        return Err(Fault::new(format!("{path} locks the accounts, but has no process id"))
            .hint(format!("if no program is changing accounts, remove the lock: rm {path}"))
            .into());
    };
    Ok(file_lock::process(pid).map(|holder| Held { path: path.clone(), holder }))
}
