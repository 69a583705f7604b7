//! Changes of users and groups by the programs of the shadow suite, after their locks are free.

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::{
    Host,
    command::Program,
    file_lock::{self, Held},
    root::Root,
};
use crate::{error::Fault, value::AbsPath};

/// What lckpwdf(3) locks, for the shadow suite and systemd-sysusers alike.
const PASSWORD_LOCK: &str = "/etc/.pwd.lock";
/// The files in `/etc` that the shadow suite has a lock for, each `NAME.lock`.
const LOCKED: [&str; 6] = ["passwd", "group", "shadow", "gshadow", "subuid", "subgid"];
/// The exit code of groupadd(8) and useradd(8) where there is one of that name.
const ALREADY_THERE: i32 = 9;

/// The file beside `/etc/passwd` or `/etc/group` in which the passwords are. Not every machine has it.
#[derive(Debug, Clone, Copy)]
pub struct Shadow {
    /// Where it is.
    pub path: &'static str,
    /// The program, pwconv(8), that writes the lines which it lacks.
    pub converter: &'static str,
}

/// shadow(5).
pub const SHADOW: Shadow = Shadow { path: "/etc/shadow", converter: "pwconv" };
/// gshadow(5).
pub const GSHADOW: Shadow = Shadow { path: "/etc/gshadow", converter: "grpconv" };

impl Host {
    /// Whether there is such a file without a line of that name. Where only root may read it, it is taken for complete.
    pub fn lacks(&self, shadow: Shadow, name: &str) -> Result<bool> {
        let bytes = match self.root().read(&shadow.path.into(), 64 << 20) {
            Err(error) if error.downcast_ref() == Some(&Errno::EACCES) => None,
            read => read?,
        };
        let Some(bytes) = bytes else { return Ok(false) };
        // As the name was read: one that is not UTF-8 looks the same in both files.
        let text = String::from_utf8_lossy(&bytes);
        Ok(!text.split('\n').any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'))))
    }

    /// Runs a program of the shadow suite, after looking for what makes it fail with unclear words.
    pub fn change_accounts(&self, command: &Program) -> Result<()> {
        let passwd = AbsPath::from("/etc/passwd");
        if self.root().file_system(&passwd)?.read_only {
            return Err(Fault::new("/etc is on a file system that is mounted read-only")
                .hint("mount -o remount,rw \"$(findmnt -no TARGET -T /etc)\"")
                .into());
        }
        file_lock::wait(self, "the accounts' locks", find_lock)?;
        let finished = self.run(command).context("changing accounts")?;
        // What a killed run had started may have made it while we waited; the plan that follows looks at it.
        if finished.code() == ALREADY_THERE { Ok(()) } else { finished.check(command).context("changing accounts") }
    }
}

/// The first lock of the accounts that is held.
fn find_lock(root: &Root) -> Result<Option<Held>> {
    if let Some(held) = file_lock::find(root, &PASSWORD_LOCK.into())? {
        return Ok(Some(held));
    }
    let mut held = LOCKED.iter().map(|name| find_pid_file(root, &format!("/etc/{name}.lock").parse()?));
    held.find_map(Result::transpose).transpose()
}

/// A lock file of the shadow suite holds its owner's pid and a NUL. The suite itself removes one whose owner is
/// gone, but never one with anything else in it, be it a pid and a newline.
fn find_pid_file(root: &Root, path: &AbsPath) -> Result<Option<Held>> {
    let Some(bytes) = root.read(path, 4096)? else { return Ok(None) };
    let Ok(pid) = String::from_utf8_lossy(&bytes).trim_end_matches('\0').parse() else {
        return Err(Fault::new(format!("{path} locks the accounts, and does not say for whom"))
            .hint(format!("a tool died while it changed accounts: rm {path}"))
            .into());
    };
    Ok(file_lock::process(pid).map(|holder| Held { path: path.clone(), holder }))
}
