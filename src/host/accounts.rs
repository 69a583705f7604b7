//! Users and groups, read from `/etc/passwd` and `/etc/group`.
//!
//! getpwnam(3) would not do: an image's accounts are not the host's, and a static binary has no NSS.

/// One line of `/etc/passwd`, passwd(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserAccount {
    /// Login name.
    pub name: String,
    /// Numeric user id.
    pub uid: u32,
    /// Numeric id of the primary group.
    pub gid: u32,
    /// The comment field (GECOS).
    pub comment: String,
    /// Home directory.
    pub home: String,
    /// Login shell; empty means `/bin/sh`.
    pub shell: String,
}

/// One line of `/etc/group`, group(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupAccount {
    /// Group name.
    pub name: String,
    /// Numeric group id.
    pub gid: u32,
    /// Names of the users that have it as a supplementary group.
    pub members: Vec<String>,
}

/// The users and groups of a root file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    users: Vec<UserAccount>,
    groups: Vec<GroupAccount>,
}

impl Accounts {
    /// Parses both texts. Invalid lines are ignored, as by the C library.
    pub fn parse(passwd: &str, group: &str) -> Self {
        let users = passwd.split('\n').filter_map(|line| {
            let [name, _, uid, gid, comment, home, shell] = fields(line)?;
            Some(UserAccount {
                name: name.into(),
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                comment: comment.into(),
                home: home.into(),
                shell: shell.into(),
            })
        });
        let groups = group.split('\n').filter_map(|line| {
            let [name, _, gid, members] = fields(line)?;
            let members = members.split(',').filter(|member| !member.is_empty()).map(Into::into).collect();
            Some(GroupAccount { name: name.into(), gid: gid.parse().ok()?, members })
        });
        Self { users: users.collect(), groups: groups.collect() }
    }

    /// Returns the user with a name.
    pub fn user(&self, name: &str) -> Option<&UserAccount> {
        self.users.iter().find(|user| user.name == name)
    }

    /// Returns the user with an id.
    pub fn user_by_id(&self, uid: u32) -> Option<&UserAccount> {
        self.users.iter().find(|user| user.uid == uid)
    }

    /// Returns the group with a name.
    pub fn group(&self, name: &str) -> Option<&GroupAccount> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// Returns the group with an id.
    pub fn group_by_id(&self, gid: u32) -> Option<&GroupAccount> {
        self.groups.iter().find(|group| group.gid == gid)
    }

    /// Returns the numeric ids of a user's supplementary groups.
    pub fn groups_of(&self, name: &str) -> Vec<u32> {
        let has = |group: &&GroupAccount| group.members.iter().any(|member| member == name);
        self.groups.iter().filter(has).map(|group| group.gid).collect()
    }

    /// Returns whether a group has no other members than root and one user.
    ///
    /// The groups that useradd makes together with a user are private.
    pub fn is_private(&self, gid: u32, uid: u32) -> bool {
        let is_other = |user: &UserAccount| user.uid != 0 && user.uid != uid;
        let Some(group) = self.group_by_id(gid) else { return false };
        let mut members = group.members.iter().map(|name| self.user(name));
        members.all(|member| member.is_some_and(|user| !is_other(user)))
            && !self.users.iter().any(|user| user.gid == gid && is_other(user))
    }
}

fn fields<const N: usize>(line: &str) -> Option<[&str; N]> {
    // Lines with `+` or `-` are NIS entries, not accounts.
    let fields: Vec<&str> = line.split(':').collect();
    fields.try_into().ok().filter(|fields: &[&str; N]| !fields[0].is_empty() && !fields[0].starts_with(['+', '-', '#']))
}

/// Checks that other lines hide no account. The input is a passwd, a NUL, a group.
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
    // One more line adds one account and does not change the others.
    let more = Accounts::parse(&format!("{passwd}\nmore:x:1:2::/:\n"), &format!("{group}\nmore:x:1:\n"));
    assert_eq!(more.users[..accounts.users.len()], accounts.users);
    assert_eq!((more.users.len(), more.groups.len()), (accounts.users.len() + 1, accounts.groups.len() + 1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_accounts_are_ignored() {
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
