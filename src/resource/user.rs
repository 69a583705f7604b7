//! The kind `user`.

mod attributes;
mod home;
mod ssh_keys;

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;

use self::attributes::{Expiry, PasswordHash};
use super::{Change, Finding, Kind, Resource, account_change::account_change, ownership::AccountName};
use crate::{
    error::Fault,
    host::{
        account_changes::{GSHADOW, SHADOW, Shadow},
        accounts,
        authorized_keys::SshKey,
        command::Program,
    },
    system::{Fact, System},
    value::{AbsPath, quoted},
};

/// A user with a primary group of the same name. For an existing user, another shell is set and missing supplementary
/// groups are added; no group is removed. Another home or uid is an error: a run never moves a home and never changes the
/// owner of files. A user is declared once on each machine.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Login name.
    name: AccountName,
    /// Whether its id comes from the range of system users. Such a user gets no home directory and cannot log in.
    /// Default: false.
    #[serde(default)]
    system: bool,
    /// Home directory. A missing one is made, with the files of `/etc/skel` and the mode `HOME_MODE` of `/etc/login.defs`. A
    /// system user gets none. An existing user with an id of the system's range gets one only if `home` is declared.
    /// `/nonexistent` is never made. Default: `/home/NAME`.
    home: Option<AbsPath>,
    /// Login shell. Default: /usr/sbin/nologin for a new system user, else the distribution's.
    shell: Option<AbsPath>,
    /// Supplementary groups.
    #[serde(default)]
    groups: Vec<AccountName>,
    /// Numeric id. Default: the next free one.
    uid: Option<u32>,
    /// The comment, usually a full name, such as `Ada Lovelace`. Default: unchanged.
    comment: Option<String>,
    /// The first day on which the user cannot log in, such as `2027-01-31`, or `never`. Default: unchanged.
    expires: Option<Expiry>,
    /// The hash of the password: yescrypt (`$y$`) or SHA-512 (`$6$`). `!` and `*` match no password. Use a secret variable:
    /// passwords can be tried against a hash. An image does not get the hash; the boot sets it. Default: unchanged.
    password_hash: Option<PasswordHash>,
    /// Lines of `~/.ssh/authorized_keys`: a public key of sshd(8), with options before it if needed. Missing keys are
    /// added. A key with other options than declared gets the declared ones. The directory gets mode 0700 and the file
    /// 0600. Default: unchanged.
    ssh_keys: Option<Vec<SshKey>>,
    /// Whether all other keys are removed from `~/.ssh/authorized_keys`. sshd also reads `~/.ssh/authorized_keys2`: it must
    /// be empty or missing then. Default: false.
    #[serde(default)]
    exclusive_ssh_keys: bool,
}

impl Kind for User {
    const NAME: &'static str = "user";
    const EXAMPLE: &'static str = r#"kind = "user"
name = "glovo-app"
system = true
home = "/var/www/glovo-app"
shell = "/usr/sbin/nologin""#;
}

impl Resource for User {
    fn can_wait_for_secret(&self, system: &System) -> Result<bool> {
        Ok(system.host.accounts()?.user(self.name.as_str()).is_some())
    }

    fn secret_fields(&self) -> &'static [&'static str] {
        &["password_hash"]
    }

    fn private_bytes(&self) -> Option<Vec<u8>> {
        self.password_hash.as_ref().map(PasswordHash::bytes)
    }

    fn title(&self) -> String {
        self.name.to_string()
    }

    fn check(&self) -> Vec<Finding> {
        // chown(2) does not change the owner for this value.
        let is_none = self.uid == Some(u32::MAX);
        let uid = is_none.then(|| Finding::new("uid", format!("{} is not a uid", u32::MAX)));
        let twice = self.key_declared_twice().map(|key| {
            Finding::new("ssh_keys", format!("the key {} is declared twice", key.fingerprint()))
                .hint("remove one of them")
        });
        let alone = (self.exclusive_ssh_keys && self.ssh_keys.is_none()).then(|| {
            Finding::new("exclusive_ssh_keys", "`exclusive_ssh_keys` needs `ssh_keys`")
                .hint("to remove all keys, set ssh_keys = []")
        });
        [uid, twice, alone, self.fault_of_comment(), self.fault_of_password()].into_iter().flatten().collect()
    }

    fn owned_things(&self) -> Vec<(&'static str, String)> {
        let account = ("name", format!("user {}", self.name));
        if self.ssh_keys.is_none() {
            return vec![account];
        }
        let home = match (&self.home, self.name.as_str()) {
            (Some(home), _) => home.to_string(),
            (None, "root") => "/root".to_owned(),
            (None, name) => format!("/home/{name}"),
        };
        let keys = ["", "/authorized_keys"].map(|file| ("ssh_keys", format!("{home}/.ssh{file}")));
        keys.into_iter().chain([account]).collect()
    }

    fn owned_id(&self) -> Option<String> {
        self.uid.map(|id| format!("uid {id}"))
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let accounts = system.host.accounts()?;
        for group in &self.groups {
            let expected = system.expects(&Fact::Group(group.to_string())) || system.expects(&Fact::Packages);
            if accounts.group(group.as_str()).is_none() && !expected {
                return Err(Fault::new(format!("the group {group} does not exist"))
                    .hint("declare a `group` resource for it in an earlier step, and run that step first")
                    .into());
            }
        }
        match accounts.user(self.name.as_str()) {
            None => self.create(system, &accounts),
            Some(user) => self.update(system, &accounts, user),
        }
    }
}

/// Returns the change that adds the line which a killed useradd or groupadd has not written.
pub(super) fn complete(system: &System, shadow: Shadow, name: &str) -> Result<Option<Change>> {
    if !system.host.lacks(shadow, name)? {
        return Ok(None);
    }
    let command = Program::new([shadow.converter]);
    account_change(system, format!("add it to {}", shadow.path), command).map(Some)
}

impl User {
    fn create(&self, system: &System, accounts: &accounts::Accounts) -> Result<Vec<Change>> {
        if let Some(taken) = self.uid.and_then(|uid| accounts.user_by_id(uid)) {
            return Err(Fault::new(format!("uid {} belongs to user {}", taken.uid, taken.name))
                .hint("declare another uid, or leave `uid` out")
                .into());
        }
        let mut command = Program::new(["useradd"]);
        if self.system {
            command = command.arg("--system");
        }
        command = command.arg(if self.has_home() { "--create-home" } else { "--no-create-home" });
        // An existing group of that name becomes the primary one; useradd --user-group would refuse it.
        command = match accounts.group(self.name.as_str()) {
            Some(group) => command.args(["--gid", &group.gid.to_string()]),
            None => command.arg("--user-group"),
        };
        if let Some(uid) = self.uid {
            command = command.args(["--uid", &uid.to_string()]);
        }
        if let Some(home) = &self.home {
            command = command.args(["--home-dir", home.as_str()]);
        }
        match &self.shell {
            Some(shell) => command = command.args(["--shell", shell.as_str()]),
            None if self.system => command = command.args(["--shell", "/usr/sbin/nologin"]),
            None => {}
        }
        if !self.groups.is_empty() {
            command = command.args(["--groups", &self.group_list(|_| true)]);
        }
        if let Some(comment) = &self.comment {
            command = command.args(["--comment", comment]);
        }
        if let Some(expires) = &self.expires {
            // useradd reads a date in the machine's time zone, and rounds it to a day.
            command = command.args(["--expiredate", expires.argument()]).env("TZ", "UTC");
            self.warn_of_expiry(system);
        }
        let summary = if self.system { "create system user" } else { "create user" };
        let change = account_change(system, summary, command.arg(self.name.as_str()))?
            .brings([Fact::User(self.name.to_string()), Fact::Group(self.name.to_string())]);
        let mut changes = vec![change.brings(self.facts_of_new_home(system)?)];
        changes.extend(self.plan_first_password(system)?);
        changes.extend(self.plan_keys_of_new(system, &self.home_to_come()?)?);
        Ok(changes)
    }

    fn update(
        &self,
        system: &System,
        accounts: &accounts::Accounts,
        user: &accounts::UserAccount,
    ) -> Result<Vec<Change>> {
        let name = &self.name;
        if let Some(uid) = self.uid.filter(|uid| *uid != user.uid) {
            return Err(Fault::new(format!("user {name} has uid {}, not {uid}", user.uid))
                .hint("declare the id that it has, or change the id yourself: its files keep the old one")
                .into());
        }
        if let Some(home) = self.home.as_ref().filter(|home| home.as_str() != user.home.trim_end_matches('/')) {
            return Err(Fault::new(format!("user {name} has home {}, not {home}", user.home))
                .hint(format!(
                    "declare the home that it has, or move it: usermod --home {} --move-home {name}",
                    quoted(home.as_str())
                ))
                .into());
        }
        // useradd writes each file atomically, but a killed useradd leaves the later files without the new user.
        let mut changes: Vec<Change> = complete(system, SHADOW, name.as_str())?.into_iter().collect();
        if let Some(group) = accounts.group_by_id(user.gid) {
            changes.extend(complete(system, GSHADOW, &group.name)?);
        } else {
            let command = Program::new(["groupadd", "--gid", &user.gid.to_string(), name.as_str()]);
            let summary = format!("create its group, gid {}", user.gid);
            let change = account_change(system, summary, command)?;
            changes.push(change.brings([Fact::Group(name.to_string())]));
        }
        if let Some(shell) = self.shell.as_ref().filter(|shell| shell.as_str() != user.shell) {
            let command = Program::new(["usermod", "--shell", shell.as_str(), name.as_str()]);
            let summary =
                format!("set shell {shell} (now {})", if user.shell.is_empty() { "/bin/sh" } else { &user.shell });
            changes.push(account_change(system, summary, command)?);
        }
        let is_member = |group: &AccountName| {
            accounts
                .group(group.as_str())
                .is_some_and(|group| group.gid == user.gid || group.members.contains(&user.name))
        };
        let missing = self.group_list(|group| !is_member(group));
        if !missing.is_empty() {
            let command = Program::new(["usermod", "--append", "--groups", &missing, name.as_str()]);
            let change = account_change(system, format!("add to groups {missing}"), command)?;
            changes.push(change.brings([Fact::User(name.to_string())]));
        }
        changes.extend(self.plan_attributes(system, user)?);
        if let Some((change, home)) = self.plan_home(system, user)? {
            changes.push(change);
            changes.extend(self.plan_keys_of_new(system, &home)?);
        } else if self.ssh_keys.is_some() {
            changes.extend(self.plan_keys(system, &user.home.parse()?)?);
        }
        Ok(changes)
    }

    fn group_list(&self, filter: impl Fn(&AccountName) -> bool) -> String {
        let names: Vec<&str> = self.groups.iter().filter(|group| filter(group)).map(AccountName::as_str).collect();
        names.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::scratch::Scratch, resource::group::Group, stop::Interrupt, system::Mode};

    /// Returns the plans for user and group `app` in a tree that has only these files in `/etc`.
    fn plans<T: AsRef<[u8]>>(files: &[(&str, T)]) -> [Vec<String>; 2] {
        let tree = Scratch::new();
        tree.make_directory("/etc");
        for (file, text) in files {
            tree.write(&format!("/etc/{file}"), text);
        }
        for program in ["pwconv", "grpconv"] {
            let path = format!("/usr/sbin/{program}");
            tree.write(&path, "");
            tree.set_mode(&path, 0o755);
        }
        let system = System::open(tree.path(), Mode::Plan, Interrupt::default()).unwrap();
        let user: User = toml::from_str("name = \"app\"").unwrap();
        let group: Group = toml::from_str("name = \"app\"").unwrap();
        [user.plan(&system), group.plan(&system)]
            .map(|plan| plan.unwrap().into_iter().map(|change| change.summary).collect())
    }

    #[test]
    fn a_shadow_line_that_a_killed_useradd_left_out_is_added() {
        let passwd = ("passwd", "app:x:999:998::/nonexistent:/bin/sh\n");
        let group = ("group", "app:x:998:\n");
        let shadow = ("shadow", "root:*:1::::::\napp:!:1::::::\n");
        let lost_user = ("shadow", "root:*:1::::::\napple:!:1::::::");
        let gshadow = ("gshadow", "root:*::\napp:!::\n");
        let lost_group = ("gshadow", "root:*::app\n");
        let none: [String; 0] = [];
        assert_eq!(plans(&[passwd, group, shadow, gshadow]), [none.clone(), none.clone()]);
        assert_eq!(plans(&[passwd, group]), [none.clone(), none.clone()]);
        let [user, of_group] = plans(&[passwd, group, lost_user, lost_group]);
        assert_eq!(user, ["add it to /etc/shadow", "add it to /etc/gshadow"]);
        assert_eq!(of_group, ["add it to /etc/gshadow"]);
    }

    #[test]
    fn latin_1_in_the_files_of_accounts_is_no_difference() {
        let passwd = ("passwd", &b"m:x:1:1:M\xfcller:/m:/bin/sh\napp:x:999:998:\xc4pp:/nonexistent:/bin/sh\n"[..]);
        let files = [
            passwd,
            ("group", b"m\xfcller:x:998:\napp:x:997:m\xfcller\n"),
            ("shadow", b"app:!:1::::::\n"),
            ("gshadow", b"m\xfcller:!::\napp:!::m\xfcller\n"),
        ];
        assert_eq!(plans(&files), [[""; 0], [""; 0]]);
    }
}
