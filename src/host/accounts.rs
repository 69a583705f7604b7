//! Users and groups, read from the root's own `/etc/passwd` and `/etc/group`: an image's accounts are not
//! the host's, and a static binary has no NSS.

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

/// One line of `/etc/passwd`, passwd(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Numeric user id.
    pub uid: u32,
    /// Numeric id of the primary group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
    /// Login shell; empty means `/bin/sh`.
    pub shell: String,
}

/// One line of `/etc/group`, group(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Group name.
    pub name: String,
    /// Numeric group id.
    pub gid: u32,
    /// Names of the users that have it as a supplementary group.
    pub members: Vec<String>,
}

/// The accounts of a root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

impl Accounts {
    /// Reads both files. A line that is none is passed over, as the C library does.
    pub fn read(root: &Root) -> Result<Self> {
        Ok(Self::parse(&root.read_text(&"/etc/passwd".into())?, &root.read_text(&"/etc/group".into())?))
    }

    /// Reads both texts.
    pub fn parse(passwd: &str, group: &str) -> Self {
        let users = passwd.split('\n').filter_map(|line| {
            let [name, _, uid, gid, _, home, shell] = fields(line)?;
            Some(User {
                name: name.into(),
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                home: home.into(),
                shell: shell.into(),
            })
        });
        let groups = group.split('\n').filter_map(|line| {
            let [name, _, gid, members] = fields(line)?;
            let members = members.split(',').filter(|member| !member.is_empty()).map(Into::into).collect();
            Some(Group { name: name.into(), gid: gid.parse().ok()?, members })
        });
        Self { users: users.collect(), groups: groups.collect() }
    }

    /// The user of that name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// The user with that id.
    pub fn user_by_id(&self, uid: u32) -> Option<&User> {
        self.users.iter().find(|user| user.uid == uid)
    }

    /// The group of that name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// The group with that id.
    pub fn group_by_id(&self, gid: u32) -> Option<&Group> {
        self.groups.iter().find(|group| group.gid == gid)
    }

    /// The numeric ids of the supplementary groups of a user.
    pub fn groups_of(&self, name: &str) -> Vec<u32> {
        let has = |group: &&Group| group.members.iter().any(|member| member == name);
        self.groups.iter().filter(has).map(|group| group.gid).collect()
    }

    /// Whether a group is known to have no other account in it than root and this user's: so are the groups that useradd
    /// makes together with a user.
    pub fn is_private(&self, gid: u32, uid: u32) -> bool {
        let is_other = |user: &User| user.uid != 0 && user.uid != uid;
        let Some(group) = self.group_by_id(gid) else { return false };
        let mut members = group.members.iter().map(|name| self.user(name));
        members.all(|member| member.is_some_and(|user| !is_other(user)))
            && !self.users.iter().any(|user| user.gid == gid && is_other(user))
    }
}

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

fn fields<const N: usize>(line: &str) -> Option<[&str; N]> {
    // `+`/`-` lines are NIS compat entries, not accounts.
    let fields: Vec<&str> = line.split(':').collect();
    fields.try_into().ok().filter(|fields: &[&str; N]| !fields[0].is_empty() && !fields[0].starts_with(['+', '-', '#']))
}

/// Accounts are found by what their lines say, whatever the other lines are: a passwd, a NUL, a group.
#[cfg(any(test, fuzzing))]
#[allow(clippy::missing_panics_doc, reason = "a panic is the answer of a target")]
pub fn fuzz(input: &[u8]) {
    let (passwd, group) = input.split_at(input.iter().position(|byte| *byte == 0).unwrap_or(input.len()));
    let (passwd, group) = (String::from_utf8_lossy(passwd), String::from_utf8_lossy(group));
    let accounts = Accounts::parse(&passwd, &group);
    for user in &accounts.users {
        assert!(!user.name.is_empty() && !user.name.contains([':', '\n']));
        assert!(accounts.user(&user.name).is_some());
        assert_eq!(accounts.user_by_id(user.uid).map(|found| found.uid), Some(user.uid));
    }
    for group in &accounts.groups {
        assert!(!group.name.is_empty() && !group.name.contains([':', '\n']));
        assert!(group.members.iter().all(|member| !member.is_empty() && !member.contains([',', ':'])));
        assert_eq!(accounts.group_by_id(group.gid).map(|found| found.gid), Some(group.gid));
    }
    // A line more is an account more, and the others are as they were.
    let more = Accounts::parse(&format!("{passwd}\nmore:x:1:2::/:\n"), &format!("{group}\nmore:x:1:\n"));
    assert_eq!(more.users[..accounts.users.len()], accounts.users);
    assert_eq!((more.users.len(), more.groups.len()), (accounts.users.len() + 1, accounts.groups.len() + 1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_accounts_are_passed_over() {
        let accounts = Accounts::parse(
            "root:x:0:0:root:/root:/bin/bash\n+nis::::::\nbroken:x:zero:0:::\n\nshort:x:1\napp:x:999:998::/nonexistent:\n",
            "root:x:0:\nadm:x:4:app,ubuntu\n",
        );
        assert_eq!(accounts.user("app").unwrap().gid, 998);
        assert_eq!(accounts.user_by_id(0).unwrap().shell, "/bin/bash");
        assert!(accounts.user("broken").is_none() && accounts.user("short").is_none());
        assert_eq!(accounts.group("adm").unwrap().members, ["app", "ubuntu"]);
    }
}
