//! The options of a mount, mount(8).

use std::fmt;

/// The options of each mount that the kernel shows in mountinfo, and their opposites.
const FLAGS: [(&str, &str); 7] = [
    ("ro", "rw"),
    ("nosuid", "suid"),
    ("nodev", "dev"),
    ("noexec", "exec"),
    ("noatime", "atime"),
    ("nodiratime", "diratime"),
    ("nosymfollow", "symfollow"),
];
/// The options that only mount(8) or systemd read.
const OF_USERSPACE: [&str; 6] = ["nofail", "_netdev", "bind", "defaults", "auto", "noauto"];

/// The options of a mount, in the order of the declaration.
#[derive(Debug, Clone)]
pub struct MountOptions(Vec<String>);

impl MountOptions {
    /// Returns declared options with our own ones after them.
    pub fn new(declared: &str, own: &[&str]) -> Self {
        let mut options: Vec<String> =
            declared.split(',').map(str::to_owned).filter(|option| !option.is_empty()).collect();
        options.retain(|option| !own.contains(&option.as_str()));
        options.extend(own.iter().map(|option| (*option).to_owned()));
        Self(options)
    }

    /// Returns whether an option is declared.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|option| option == name)
    }

    /// Returns the last one of two opposite options.
    fn chosen(&self, one: &str, other: &str) -> Option<bool> {
        self.0.iter().rev().find(|option| *option == one || *option == other).map(|option| option == one)
    }

    /// Returns the options that a mount has not as declared. One that is not declared has the kernel's default, but for a
    /// bind mount, which has that of its source.
    pub fn differences(&self, now: &[String], is_bind: bool) -> Vec<&'static str> {
        let is_set = |name: &str| now.iter().any(|option| option == name);
        let mut wrong = vec![];
        for (set, unset) in FLAGS {
            let Some(wanted) = self.chosen(set, unset).or((!is_bind).then_some(false)) else { continue };
            if wanted != is_set(set) {
                wrong.push(if wanted { set } else { unset });
            }
        }
        wrong
    }

    /// Returns all options for a remount, with the default of each one that is not declared: mount(8) would keep it. A bind
    /// mount keeps what it has from its source.
    pub fn of_remount(&self, is_bind: bool) -> String {
        let is_read = |option: &&String| !OF_USERSPACE.contains(&option.as_str());
        let declared = self.0.iter().filter(is_read).map(String::as_str);
        if is_bind {
            return std::iter::once("bind").chain(declared).collect::<Vec<_>>().join(",");
        }
        let missing = FLAGS.iter().filter(|(set, unset)| self.chosen(set, unset).is_none());
        let defaults = missing.filter_map(|(_, unset)| match *unset {
            // The first one takes `noatime` away for mount(8), the second one for the kernel.
            "atime" => Some("atime,relatime"),
            "diratime" | "symfollow" => None,
            unset => Some(unset),
        });
        defaults.chain(declared).collect::<Vec<_>>().join(",")
    }
}

impl fmt::Display for MountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(',').map(Into::into).collect()
    }

    #[test]
    fn a_mount_has_the_declared_options_and_defaults() {
        for (declared, now, wrong) in [
            ("", "rw,relatime", &[][..]),
            ("noatime", "rw,noatime", &[]),
            ("noatime", "rw,relatime", &["noatime"]),
            ("", "ro,nosuid,relatime", &["rw", "suid"]),
            ("ro", "rw,relatime", &["ro"]),
            ("noexec,exec", "rw,noexec", &["exec"]),
            ("nodev,data=journal", "rw,nodev,relatime", &[]),
        ] {
            assert_eq!(
                MountOptions::new(declared, &["nofail"]).differences(&words(now), false),
                wrong,
                "{declared} {now}"
            );
        }
        assert!(MountOptions::new("", &["bind"]).differences(&words("ro,nosuid"), true).is_empty());
        assert_eq!(MountOptions::new("ro", &["bind"]).differences(&words("rw,nosuid"), true), ["ro"]);
    }

    #[test]
    fn a_remount_names_also_the_defaults() {
        let options = MountOptions::new("noatime,nofail,commit=30", &["nofail"]);
        assert_eq!(options.to_string(), "noatime,commit=30,nofail");
        assert_eq!(options.of_remount(false), "rw,suid,dev,exec,noatime,commit=30");
        assert_eq!(MountOptions::new("ro", &["bind"]).of_remount(true), "bind,ro");
    }
}
