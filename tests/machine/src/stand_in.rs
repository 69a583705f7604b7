//! Packages that stand in for those of the world: of the same names, with small programs in them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;

/// A package that a test makes.
#[derive(Clone, Debug, Default)]
pub struct StandIn {
    name: String,
    version: String,
    /// Path, permission bits and text of each file.
    files: Vec<(String, u32, String)>,
    directories: Vec<String>,
    script: String,
}

impl StandIn {
    /// Makes an empty package. Its version is later than those that other packages of Debian break.
    pub fn new(name: &str) -> StandIn {
        StandIn { name: name.into(), version: "99".into(), ..StandIn::default() }
    }

    #[must_use]
    pub fn version(mut self, version: &str) -> StandIn {
        self.version = version.into();
        self
    }

    #[must_use]
    pub fn file(mut self, path: &str, text: &str) -> StandIn {
        self.files.push((path.into(), 0o644, text.into()));
        self
    }

    #[must_use]
    pub fn directory(mut self, path: &str) -> StandIn {
        self.directories.push(path.into());
        self
    }

    /// Adds a shell script that is a program.
    #[must_use]
    pub fn program(mut self, path: &str, script: &str) -> StandIn {
        self.files.push((path.into(), 0o755, format!("#!/bin/sh\n{script}\n")));
        self
    }

    /// Adds a service that runs this command.
    #[must_use]
    pub fn service(self, unit: &str, command: &str) -> StandIn {
        self.unit(unit, &format!("ExecStart={command}"))
    }

    /// Adds a unit with these lines in its section `[Service]`.
    #[must_use]
    pub fn unit(self, unit: &str, lines: &str) -> StandIn {
        let text = format!(
            "[Unit]\nDescription=Stands in for {unit}\n[Service]\n{lines}\n[Install]\nWantedBy=multi-user.target\n"
        );
        self.file(&format!("/usr/lib/systemd/system/{unit}"), &text)
    }

    /// Adds a system user with a group, which the installation makes.
    #[must_use]
    pub fn user(mut self, name: &str) -> StandIn {
        self.script += &format!("adduser --system --group --quiet --no-create-home --home /nonexistent {name}\n");
        self
    }

    /// Adds a line to the script that ends the installation.
    #[must_use]
    pub fn script(mut self, line: &str) -> StandIn {
        self.script += line;
        self.script.push('\n');
        self
    }

    /// Writes what `dpkg-deb` packs.
    pub(crate) fn write(&self, place: &Path) -> Result<()> {
        let root = place.join(&self.name);
        let control = format!(
            "Package: {}\nVersion: {}\nArchitecture: all\nMaintainer: machine under test <root@machine.test>\n\
             Description: stands in for {}\n",
            self.name, self.version, self.name
        );
        for directory in &self.directories {
            fs::create_dir_all(root.join(directory.trim_start_matches('/')))?;
        }
        let mut files = self.files.clone();
        files.push(("DEBIAN/control".into(), 0o644, control));
        if !self.script.is_empty() {
            files.push(("DEBIAN/postinst".into(), 0o755, format!("#!/bin/sh\nset -e\n{}", self.script)));
        }
        for (path, mode, text) in &files {
            let path = root.join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap_or(&root))?;
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
        }
        Ok(())
    }
}
