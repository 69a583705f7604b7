//! Users and groups, read from the root's own `/etc/passwd` and `/etc/group`: an image's accounts are not
//! the host's, and a static binary has no NSS.

use anyhow::Result;

use super::root::Root;

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
        let users = passwd.lines().filter_map(|line| {
            let [name, _, uid, gid, _, home, shell] = fields(line)?;
            Some(User {
                name: name.into(),
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                home: home.into(),
                shell: shell.into(),
            })
        });
        let groups = group.lines().filter_map(|line| {
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
}

fn fields<const N: usize>(line: &str) -> Option<[&str; N]> {
    // `+`/`-` lines are NIS compat entries, not accounts.
    let fields: Vec<&str> = line.split(':').collect();
    fields.try_into().ok().filter(|fields: &[&str; N]| !fields[0].is_empty() && !fields[0].starts_with(['+', '-', '#']))
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
