//! Packages that a test makes, and their repository, on a machine whose only package manager is dnf.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::{Machine, Options, Release};

/// Where the packages of a test are.
pub const REPOSITORY: &str = "/srv/made";

/// A machine with a repository of its own, and the packages in it.
pub fn machine(packages: &[Made<'_>]) -> Result<Machine> {
    let machine = Machine::boot(Options { release: Release::Amazon, ..Options::default() })?;
    fs::create_dir_all(machine.path(REPOSITORY))?;
    publish(&machine, packages)?;
    repository(&machine, &format!("baseurl=file://{REPOSITORY}\ngpgcheck=0"))?;
    Ok(machine)
}

/// Writes the file of the test's repository.
pub fn repository(machine: &Machine, fields: &str) -> Result<()> {
    Ok(fs::write(machine.path("/etc/yum.repos.d/made.repo"), format!("[made]\nname=made\nenabled=1\n{fields}\n"))?)
}

/// A package made for a test.
#[derive(Clone, Copy)]
pub struct Made<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// More lines of its preamble.
    pub fields: &'a str,
    /// Its script after the installation.
    pub post: &'a str,
}

/// A package with no more than a name and a version.
pub const fn made<'a>(name: &'a str, version: &'a str) -> Made<'a> {
    Made { name, version, fields: "", post: "" }
}

/// Builds a package's file into a directory of the machine, and returns its path on the machine.
pub fn rpm(machine: &Machine, directory: &str, made: Made<'_>) -> Result<String> {
    let Made { name, version, fields, post } = made;
    let top = machine.directory().join(format!("rpm-{name}-{version}"));
    fs::create_dir_all(&top)?;
    let post = if post.is_empty() { String::new() } else { format!("%post\n{post}\n") };
    let spec = format!(
        "Name: {name}\nVersion: {version}\nRelease: 1.test\nSummary: made for a test\nLicense: none\nBuildArch: noarch\n\
         {fields}\n%description\nmade\n{post}%install\nmkdir -p %{{buildroot}}/usr/share/made %{{buildroot}}/etc/made\n\
         echo {version} > %{{buildroot}}/usr/share/made/{name}\necho {version} > %{{buildroot}}/etc/made/{name}.conf\n\
         %files\n/usr/share/made/{name}\n%config(noreplace) /etc/made/{name}.conf\n"
    );
    fs::write(top.join("made.spec"), spec)?;
    let into = machine.path(directory);
    let built = Command::new("rpmbuild")
        .args(["-bb", "--quiet", "--define", &format!("_topdir {}", top.display())])
        .args(["--define", &format!("_rpmdir {}", into.display())])
        .args(["--define", "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm"])
        .arg(top.join("made.spec"))
        .output()?;
    ensure!(built.status.success(), "{built:?}");
    Ok(format!("{directory}/{name}-{version}-1.test.noarch.rpm"))
}

/// Adds packages to the test's repository.
pub fn publish(machine: &Machine, packages: &[Made<'_>]) -> Result<()> {
    for made in packages {
        _ = rpm(machine, REPOSITORY, *made)?;
    }
    let indexed =
        Command::new("createrepo_c").args(["--quiet", "--no-database"]).arg(machine.path(REPOSITORY)).output()?;
    ensure!(indexed.status.success(), "{indexed:?}");
    Ok(())
}

/// Returns a resource of these packages.
pub fn package(fields: &str) -> String {
    format!("[[resource]]\nkind = \"package\"\n{fields}\n")
}

/// Returns what rpm says of a package.
pub fn state(machine: &Machine, name: &str) -> Result<String> {
    Ok(machine.exec(&["rpm", "-q", name])?.stdout)
}
