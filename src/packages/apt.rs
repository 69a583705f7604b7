//! Running apt-get and dpkg: without questions, with waits for their locks, and with retries of temporary failures.

mod archives;
mod cause;
mod choice;
pub mod dpkg;
mod file;
mod hold;
mod installation;
mod lists;
mod lock;
mod name;
mod policy;
mod reboot;
mod removal;
mod sources;
mod space;
mod transaction;
mod upgrade;
mod version;

use anyhow::Result;

use self::{
    dpkg::{DpkgStatus, PackageState},
    policy::ServicesHeld,
};
use super::{
    manager::{
        Choice, ImageTraces, Installation, InstalledPackage, Lack, PackageChange, PackageManager, PasswordFiles,
        Repair, Update, UpgradeRequest, Upgrades,
    },
    name::PackageName,
    proxy,
    tools::{Tools, failed},
};
use crate::{
    host::{
        Host,
        command::{Finished, Program},
    },
    redaction::forms::netrc_password,
    system::System,
    value::AbsPath,
};

/// The variables that make an installation unattended.
///
/// Packages ask no questions (debconf(7)). apt shows no changelogs. Changed configuration files are kept (ucf(1)).
/// needrestart(1) restarts no services.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("DEBIAN_PRIORITY", "critical"),
    ("APT_LISTCHANGES_FRONTEND", "none"),
    ("UCF_FORCE_CONFFOLD", "1"),
    ("NEEDRESTART_SUSPEND", "1"),
];
/// Makes dpkg keep an edited configuration file, and replace an unedited one with the package's; dpkg(1).
const KEEP_CONFIGURATION: [&str; 2] = ["--force-confdef", "--force-confold"];

const TOOLS: Tools = Tools {
    program: "apt-get",
    written: &["/var/lib/dpkg", "/var/cache/apt/archives", "/usr/bin"],
    causes: &cause::TABLE,
    wait: lock::wait,
};

/// The key belongs to the self-signed test certificate of the package ssl-cert.
const TRACES: ImageTraces = ImageTraces {
    of_machine: &[("the failed sources of this machine's last apt-get update", &[lists::STATE_FILE])],
    passwords: &[PasswordFiles { patterns: &["/etc/apt/auth.conf", "/etc/apt/auth.conf.d/*"], find: netrc_password }],
    harmless_keys: &["/etc/ssl/private/ssl-cert-snakeoil.key"],
};

/// apt-get with dpkg.
#[derive(Debug)]
pub struct Apt;

impl PackageManager for Apt {
    fn name(&self) -> &'static str {
        "apt"
    }

    fn distributions(&self) -> &'static [&'static str] {
        &["Debian", "Ubuntu"]
    }

    fn distribution_ids(&self) -> &'static [&'static str] {
        &["debian", "ubuntu"]
    }

    fn databases(&self) -> &'static [&'static str] {
        &[dpkg::STATUS]
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
        let status = host.read_once(DpkgStatus::read)?;
        let Some(package) = status.package(&name.name, name.architecture.as_deref()) else {
            let bare = name.architecture.is_none() && name.version.is_none();
            return Ok((!bare || !status.is_provided(&name.name)).then_some(Lack::Package(None)));
        };
        Ok(match package.state {
            state if package.reinstall || state == PackageState::HalfInstalled => {
                Some(Lack::Unpacking(state.to_string()))
            }
            _ if !name::fits(name, &package.version) => Some(Lack::Package(Some(package.version.clone()))),
            PackageState::Installed => None,
            _ => Some(Lack::Configuration),
        })
    }

    fn installed(&self, host: &Host, name: &PackageName) -> Result<Option<InstalledPackage>> {
        let status = host.read_once(DpkgStatus::read)?;
        let package = status.package(&name.name, name.architecture.as_deref());
        Ok(package.map(|package| InstalledPackage { version: package.version.clone(), is_held: package.is_held }))
    }

    fn choice(&self, system: &System, package: &PackageName, update: Update) -> Result<Option<Choice>> {
        choice::of(system, package, update)
    }

    fn repairs(&self, host: &Host, is_installing: bool) -> Result<Vec<Repair>> {
        let status = host.read_once(DpkgStatus::read)?;
        let mut repairs = vec![];
        if policy::is_left_behind(host.root())? {
            let summary = "remove the policy-rc.d that a killed installation left".into();
            repairs.push(Repair { summary, brings_packages: false, make: sweep_policy });
        }
        if host.root().status(&file::place())?.is_some() {
            let summary = "remove the package file that a killed installation left".into();
            repairs.push(Repair { summary, brings_packages: false, make: file::sweep });
        }
        // dpkg and apt configure all of these before an installation, also packages that no resource declares.
        let unconfigured = if is_installing { status.unconfigured() } else { vec![] };
        if status.is_interrupted() || !unconfigured.is_empty() {
            repairs.push(Repair { summary: dpkg::to_finish(&unconfigured), brings_packages: true, make: finish });
        }
        Ok(repairs)
    }

    fn install(&self, system: &System, installation: &Installation) -> Result<()> {
        installation::install(system, installation, None)
    }

    fn file_place(&self) -> AbsPath {
        file::place()
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

    fn hold(&self, system: &System, packages: &[PackageName], is_held: bool) -> Result<()> {
        hold::hold(system, packages, is_held)
    }

    fn release_command(&self, package: &str) -> String {
        hold::release_command(package)
    }

    fn reboot_reasons(&self, host: &Host) -> Result<Vec<String>> {
        reboot::reasons(host)
    }
}

/// Finishes an interrupted run of dpkg.
///
/// It configures the unpacked packages. apt installs their missing dependencies.
fn finish(system: &System) -> Result<()> {
    TOOLS.check_writable(system)?;
    lock::wait(system)?;
    let finished = run_held(system, &silent(["dpkg", "--configure", "--pending"]).args(KEEP_CONFIGURATION))?;
    if finished.tail.contains("dependency problems") {
        installation::prepare(system, &fix_command(&archives::PRINT))?;
        let fix = fix_command(&[]);
        let run = || run_held(system, &fix).map(judge);
        return TOOLS.persevere(system, "installing missing dependencies", run, |_| Ok(false));
    }
    // dpkg also fails for a package that must be unpacked again (`reinstreq`); another change does that.
    if finished.status.success() || DpkgStatus::read(system.root())?.is_finished() {
        return Ok(());
    }
    Err(failed("configuring packages", &TOOLS.diagnose(system, &finished), &finished).into())
}

/// Removes the `policy-rc.d` that a killed installation left.
fn sweep_policy(system: &System) -> Result<()> {
    lock::wait(system)?;
    policy::sweep(system.root())
}

/// Downloads the indexes of one sources file and keeps them.
///
/// apt checks their signatures. Success means that the repository exists and that the key of the file signed it.
pub fn verify(system: &System, sources: &AbsPath) -> Result<()> {
    let command = update_command().args([
        &format!("-oDir::Etc::sourcelist={sources}"),
        "-oDir::Etc::sourceparts=-",
        // Keep the indexes of the other sources and the cache that apt has made of them.
        "-oAPT::Get::List-Cleanup=false",
        "-oDir::Cache::pkgcache=",
        "-oDir::Cache::srcpkgcache=",
    ]);
    TOOLS.persevere(system, "verifying the repository", || system.host.run(&command).map(judge), |_| Ok(false))
}

fn update_command() -> Program {
    apt_get("update")
        .args([
            // Package descriptions are two fifths of an update's bytes and a tenth of a cold installation's time.
            "-oAcquire::Languages=none",
            // Make a failed download an error. By default apt warns and uses the old index.
            "-oAPT::Update::Error-Mode=any",
        ])
        .reporting()
}

fn fix_command(options: &[&str]) -> Program {
    apt_get("install").args(options.iter().copied()).arg("--fix-broken").args(keep_configuration())
}

fn apt_get(operation: &str) -> Program {
    silent(["apt-get", "--yes", "--quiet", operation]).args([
        // No terminal of its own for dpkg: a maintainer script that hangs must be in the group that we stop.
        "-oDpkg::Use-Pty=false",
        "-oDPkg::Lock::Timeout=60",
        "-oAcquire::Retries=3",
        // Whatever an image's apt.conf says.
        "-oAPT::Get::AllowUnauthenticated=false",
        "-oAcquire::AllowInsecureRepositories=false",
    ])
}

/// [`KEEP_CONFIGURATION`] as apt-get hands it on to dpkg.
fn keep_configuration() -> [String; 2] {
    KEEP_CONFIGURATION.map(|option| format!("-oDpkg::Options::={option}"))
}

/// Returns a program that asks no questions and uses the same proxies as downloads.
fn silent<const N: usize>(argv: [&str; N]) -> Program {
    let variables = ENVIRONMENT.iter().map(|(name, value)| (*name, (*value).to_owned())).chain(proxy::variables());
    variables.fold(Program::new(argv), |command, (name, value)| command.env(name, value))
}

/// Runs a program that configures packages. Their services do not start.
fn run_held(system: &System, command: &Program) -> Result<Finished> {
    let _held = ServicesHeld::new(system)?;
    system.host.run(&command.clone().env(policy::VARIABLE, "1").reporting())
}

/// Returns a run of apt-get or dpkg as `Err` if it has failed.
fn judge(finished: Finished) -> Result<(), Finished> {
    // apt before 2.1.8 does not know `Error-Mode=any`: it exits with 0 and warns of a failed download.
    let failed = !finished.status.success() || finished.tail.contains("W: Failed to fetch");
    if failed { Err(finished) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, os::unix::process::ExitStatusExt, process::ExitStatus};

    use super::*;
    use crate::{packages::cause::Cause, stop::Interrupt, system::Mode};

    fn system() -> System {
        System::open(&std::env::temp_dir(), Mode::Run, Interrupt::default()).unwrap()
    }

    fn ended(code: i32, output: &str) -> Result<(), Finished> {
        judge(Finished {
            status: ExitStatus::from_raw(code << 8),
            stdout: String::new(),
            tail: output.into(),
            has_left_processes: false,
        })
    }

    const STALE: &str = "E: Failed to fetch http://x/n.deb  404  Not Found [IP: 10.0.0.1 80]";

    #[test]
    fn a_command_whose_cause_was_fixed_is_run_again_at_once() {
        let (runs, fixes) = (Cell::new(0), Cell::new(0));
        let run = || {
            runs.set(runs.get() + 1);
            Ok(if fixes.get() == 0 { ended(100, STALE) } else { ended(0, "") })
        };
        let fix = |cause| {
            fixes.set(fixes.get() + 1);
            Ok(cause == Cause::Stale)
        };
        TOOLS.persevere(&system(), "testing", run, fix).unwrap();
        assert_eq!((runs.get(), fixes.get()), (2, 1));
    }

    #[test]
    fn permanent_failures_are_not_retried_temporary_ones_are() {
        let runs = Cell::new(0);
        let run = |output: &'static str| {
            runs.set(runs.get() + 1);
            Ok(ended(100, output))
        };
        let error =
            TOOLS.persevere(&system(), "testing", || run("E: Unable to locate package x"), |_| Ok(false)).unwrap_err();
        assert_eq!((runs.take(), crate::error::exit_code(&error)), (1, 1));
        assert_eq!(error.to_string(), "testing failed with exit code 100\n| E: Unable to locate package x");
        let error = TOOLS.persevere(&system(), "testing", || run(STALE), |_| Ok(true)).unwrap_err();
        assert_eq!((runs.take(), crate::error::exit_code(&error)), (4, 75), "a fix that did not help");
        assert_eq!(error.to_string(), "gave up after 4 attempts");
    }

    #[test]
    fn a_failed_download_is_a_failure_though_apt_exits_with_0() {
        let output = "W: Failed to fetch http://x/InRelease  403  Forbidden [IP: 10.0.0.1 80]";
        assert!(TOOLS.persevere(&system(), "testing", || Ok(ended(0, output)), |_| Ok(false)).is_err());
    }
}
