//! Running dnf: without questions, with waits for its locks, and with retries of temporary failures.
//!
//! The state comes from rpm's database and dnf's history, without a process. This is written for dnf 4. Installations also
//! use only what dnf 5 has, but no test has run with it.

mod cause;
mod choice;
mod file;
mod hold;
mod installation;
mod interrupted;
mod lists;
mod lock;
mod name;
mod reboot;
mod removal;
pub mod repository;
mod scripts;
mod sources;
mod transaction;
mod upgrade;

use anyhow::Result;

use super::{
    manager::{
        Choice, ImageTraces, Installation, InstalledPackage, Lack, PackageChange, PackageManager, PasswordFiles,
        Repair, Update, UpgradeRequest, Upgrades,
    },
    name::PackageName,
    proxy,
    rpm::database::{RpmDatabase, RpmPackage, RpmProvides},
    tools::Tools,
};
use crate::{
    host::{Host, command::Program},
    system::System,
    value::AbsPath,
};

const TOOLS: Tools = Tools {
    program: "dnf",
    written: &["/var/lib/rpm", "/var/lib/dnf", "/var/cache/dnf", "/var/log", "/usr/bin"],
    causes: &cause::TABLE,
    wait: lock::wait,
};

const TRACES: ImageTraces = ImageTraces {
    of_machine: &[("the age of this machine, which dnf counts", &["/var/lib/dnf/repos/*/countme"])],
    passwords: &[PasswordFiles {
        patterns: &["/etc/yum.repos.d/*.repo", "/etc/dnf/dnf.conf"],
        find: repository_password,
    }],
    harmless_keys: &[],
};

/// dnf with rpm.
#[derive(Debug)]
pub struct Dnf;

impl PackageManager for Dnf {
    fn name(&self) -> &'static str {
        "dnf"
    }

    fn distributions(&self) -> &'static [&'static str] {
        &["Amazon Linux 2023", "RHEL", "Fedora"]
    }

    fn distribution_ids(&self) -> &'static [&'static str] {
        &["amzn", "fedora", "rhel", "centos", "rocky", "almalinux", "ol"]
    }

    fn old_images(&self) -> &'static [&'static str] {
        // Their databases have an older format. The names are those that Amazon and Red Hat give.
        &["amzn-ami-", "amzn2-", "RHEL-6", "RHEL-7", "RHEL-8"]
    }

    fn databases(&self) -> &'static [&'static str] {
        // The last two are older formats. Reading them fails with their names.
        &[
            "/var/lib/rpm/rpmdb.sqlite",
            "/usr/lib/sysimage/rpm/rpmdb.sqlite",
            "/var/lib/rpm/Packages",
            "/var/lib/rpm/Packages.db",
        ]
    }

    fn read_name(&self, text: &str) -> Result<PackageName> {
        name::read(text)
    }

    fn name_pattern(&self) -> &'static str {
        name::PATTERN
    }

    fn traces(&self) -> ImageTraces {
        TRACES
    }

    fn check_tools(&self, system: &System) -> Result<()> {
        TOOLS.check_writable(system)
    }

    fn lack(&self, host: &Host, name: &PackageName) -> Result<Option<Lack>> {
        lack(host, name)
    }

    fn installed(&self, host: &Host, name: &PackageName) -> Result<Option<InstalledPackage>> {
        let database = host.read_once(RpmDatabase::read)?;
        let Some(package) = database.package(&name.name, name.architecture.as_deref()) else { return Ok(None) };
        Ok(Some(InstalledPackage { version: package.evr(), is_held: hold::is_held(host.root(), &name.name)? }))
    }

    fn choice(&self, system: &System, package: &PackageName, update: Update) -> Result<Option<Choice>> {
        choice::of(system, package, update)
    }

    fn repairs(&self, host: &Host, _: bool) -> Result<Vec<Repair>> {
        let mut repairs = interrupted::repairs(host)?;
        if host.root().status(&file::PLACE.into())?.is_some() {
            let summary = "remove the package file that a killed installation left".into();
            repairs.insert(0, Repair { summary, brings_packages: false, make: file::sweep });
        }
        Ok(repairs)
    }

    fn install(&self, system: &System, installation: &Installation) -> Result<()> {
        installation::install(system, installation, None)
    }

    fn file_place(&self) -> AbsPath {
        file::PLACE.into()
    }

    fn check_file(&self, system: &System, path: &AbsPath, package: &PackageName) -> Result<()> {
        file::check(system, path, package)
    }

    fn install_file(&self, system: &System, package: &PackageName, reinstall: bool) -> Result<()> {
        file::install(system, package, reinstall)
    }

    fn upgrades(&self, system: &System, request: &UpgradeRequest) -> Result<Upgrades> {
        upgrade::planned(system, request)
    }

    fn upgrade(&self, system: &System, request: &UpgradeRequest) -> Result<()> {
        upgrade::upgrade(system, request)
    }

    fn removal(&self, system: &System, packages: &[PackageName]) -> Result<Vec<PackageChange>> {
        removal::planned(system, packages)
    }

    fn remove(&self, system: &System, packages: &[PackageName], planned: &[PackageChange]) -> Result<()> {
        removal::remove(system, packages, planned)
    }

    fn check_hold(&self, system: &System, coming: &[PackageName]) -> Result<Option<&'static str>> {
        hold::check(system, coming)
    }

    fn hold(&self, system: &System, packages: &[PackageName], is_held: bool) -> Result<()> {
        hold::hold(system, packages, is_held)
    }

    fn release_command(&self, package: &str) -> String {
        hold::release_command(package)
    }

    fn has_releases(&self) -> bool {
        true
    }

    fn open_warnings(&self, host: &Host) -> Result<Vec<String>> {
        scripts::warnings(host)
    }

    fn reboot_reasons(&self, host: &Host) -> Result<Vec<String>> {
        reboot::reasons(host)
    }
}

/// Returns the difference between a declared package and the machine.
fn lack(host: &Host, name: &PackageName) -> Result<Option<Lack>> {
    let database = host.read_once(RpmDatabase::read)?;
    let is_of_architecture = |package: &&RpmPackage| {
        name.architecture.as_ref().is_none_or(|architecture| *architecture == package.architecture)
    };
    let instances: Vec<_> = database.instances(&name.name).iter().filter(is_of_architecture).collect();
    let Some(newest) = instances.last() else {
        let bare = name.architecture.is_none() && name.version.is_none();
        let is_provided = bare && host.read_once(RpmProvides::read)?.provider(&name.name).is_some();
        return Ok((!is_provided).then_some(Lack::Package(None)));
    };
    // Of a kernel, several versions may be installed.
    let Some(fitting) = instances.iter().rev().find(|package| name::fits(name, package)) else {
        return Ok(Some(Lack::Package(Some(newest.evr()))));
    };
    let died = interrupted::of(host)?.what_died(fitting);
    Ok(died.map(|what| Lack::Unpacking(format!("its {what} was interrupted"))))
}

/// Returns a program that asks no questions and uses the same proxies as downloads.
fn silent<const N: usize>(argv: [&str; N]) -> Program {
    proxy::variables().into_iter().fold(Program::new(argv), |command, (name, value)| command.env(name, value))
}

/// Returns the position of the first password in a repository's file; dnf.conf(5).
fn repository_password(text: &str) -> Option<usize> {
    let mut position = 0;
    for line in text.split_inclusive('\n') {
        if let Some((key, value)) = line.split_once('=')
            && ["password", "proxy_password"].contains(&key.trim())
            && !value.trim().is_empty()
        {
            return Some(position + key.len() + 1);
        }
        position += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_repository_is_found() {
        let text = "[app]\nusername = a\npassword = secret\n";
        assert_eq!(repository_password(text), Some(text.find(" secret").unwrap()));
        assert_eq!(repository_password("[app]\n# password\npassword =\n"), None);
    }
}
