//! Running apt-get and dpkg: never asking, waiting for their locks, trying again where that can help.

mod archives;
mod cause;
pub mod dpkg;
mod lists;
mod lock;
mod policy;
mod sources;
mod space;

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub use self::sources::DECLARED;
use self::{
    cause::{Cause, Diagnosis},
    dpkg::{State, Status},
    policy::ServicesHeld,
};
use super::{
    manager::{Installation, Lack, PackageManager, Repair, Update},
    name::PackageName,
};
use crate::{
    error::Fault,
    host::{
        Host,
        command::{Finished, Program, with_tail},
    },
    net::proxy::proxies,
    system::System,
    value::AbsPath,
};

/// Nobody is there to answer: packages ask no questions (debconf(7)), no pager shows changelogs, changed
/// configuration files are kept (ucf(1)), and services are not restarted behind our back (needrestart(1)).
const ENVIRONMENT: [(&str, &str); 5] = [
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("DEBIAN_PRIORITY", "critical"),
    ("APT_LISTCHANGES_FRONTEND", "none"),
    ("UCF_FORCE_CONFFOLD", "1"),
    ("NEEDRESTART_SUSPEND", "1"),
];
/// A configuration file that was edited stays as it is, an unedited one becomes the package's; dpkg(1).
const KEEP_CONFIGURATION: [&str; 2] = ["--force-confdef", "--force-confold"];

/// How often a cause that may pass is given the time to; each attempt has three of apt's own.
const ATTEMPTS: u32 = 4;

/// apt-get with dpkg.
#[derive(Debug)]
pub struct Apt;

impl PackageManager for Apt {
    fn distributions(&self) -> &'static str {
        "Debian or Ubuntu"
    }

    fn database(&self) -> &'static str {
        dpkg::STATUS
    }

    fn lack(&self, host: &Host, name: &PackageName) -> Result<Option<Lack>> {
        let status = host.read_once(Status::read)?;
        let Some(package) = status.package(&name.name, name.architecture.as_deref()) else {
            let bare = name.architecture.is_none() && name.version.is_none();
            return Ok((!bare || !status.is_provided(&name.name)).then_some(Lack::Package(None)));
        };
        Ok(match package.state {
            state if package.reinstall || state == State::HalfInstalled => Some(Lack::Unpacking(state.to_string())),
            _ if name.version.as_ref().is_some_and(|version| *version != package.version) => {
                Some(Lack::Package(Some(package.version.clone())))
            }
            State::Installed => None,
            _ => Some(Lack::Configuration),
        })
    }

    fn repairs(&self, host: &Host, is_installing: bool) -> Result<Vec<Repair>> {
        let status = host.read_once(Status::read)?;
        let mut repairs = vec![];
        if policy::is_left_behind(host.root())? {
            let summary = "remove the policy-rc.d of an installation that was killed".into();
            repairs.push(Repair { summary, brings_packages: false, make: sweep_policy });
        }
        // Of what is not declared, dpkg and apt would insist on the same.
        let unconfigured = if is_installing { status.unconfigured() } else { vec![] };
        if status.is_interrupted() || !unconfigured.is_empty() {
            repairs.push(Repair { summary: dpkg::to_finish(&unconfigured), brings_packages: true, make: finish });
        }
        Ok(repairs)
    }

    fn install(&self, system: &System, installation: &Installation) -> Result<()> {
        install(system, installation)
    }
}

fn install(system: &System, installation: &Installation) -> Result<()> {
    check_writable(system)?;
    // Whoever holds the locks at a machine's first boot may be updating the lists.
    lock::wait(system)?;
    let mut may_update = installation.update != Update::Never;
    let print = install_command(installation, &archives::PRINT);
    if installation.update == Update::Always
        || may_update
            && (lists::needs_update(system.root(), SystemTime::now())? || lists::lack_what_is_needed(system, &print)?)
    {
        lists::update(system, &print)?;
    }
    prepare(system, &print)?;
    let command = install_command(installation, &[]);
    persevere(
        system,
        "installing packages",
        || run_held(system, &command).map(judge),
        |cause| match cause {
            Cause::Interrupted => finish(system).map(|()| true),
            Cause::Stale | Cause::Unknown if may_update => {
                may_update = false;
                lists::update(system, &print).map(|()| true)
            }
            _ => Ok(false),
        },
    )
}

/// Sees whether an installation fits on the disk, and fetches its archives. `print` is its command with
/// [`archives::PRINT`].
fn prepare(system: &System, print: &Program) -> Result<()> {
    let printed = system.host.run(print)?;
    // What is wrong the installation itself will say, and mend.
    if !printed.status.success() {
        return Ok(());
    }
    space::check(system, &printed)?;
    archives::fetch(system, &printed)
}

/// Ends what an interrupted run of dpkg left: configures what is unpacked, and lets apt install what that
/// lacks.
fn finish(system: &System) -> Result<()> {
    check_writable(system)?;
    lock::wait(system)?;
    let finished = run_held(system, &silent(["dpkg", "--configure", "--pending"]).args(KEEP_CONFIGURATION))?;
    if finished.tail.contains("dependency problems") {
        prepare(system, &fix_command(&archives::PRINT))?;
        let fix = fix_command(&[]);
        let run = || run_held(system, &fix).map(judge);
        return persevere(system, "installing missing dependencies", run, |_| Ok(false));
    }
    // dpkg also fails for a package that only unpacking it again helps (`reinstreq`): that is another change.
    if finished.status.success() || Status::read(system.root())?.is_finished() {
        return Ok(());
    }
    Err(failed("configuring packages", &diagnose(system, &finished), &finished).into())
}

/// Removes the `policy-rc.d` of an installation that was killed.
fn sweep_policy(system: &System) -> Result<()> {
    lock::wait(system)?;
    policy::sweep(system.root())
}

/// Fetches the indexes of one sources file alone and keeps them. apt checks their signatures, so that
/// success means: there is a repository, signed by the key that the file names.
pub fn verify(system: &System, sources: &AbsPath) -> Result<()> {
    let command = update_command().args([
        &format!("-oDir::Etc::sourcelist={sources}"),
        "-oDir::Etc::sourceparts=-",
        // The other sources' indexes stay, and so does the cache made of them.
        "-oAPT::Get::List-Cleanup=false",
        "-oDir::Cache::pkgcache=",
        "-oDir::Cache::srcpkgcache=",
    ]);
    persevere(system, "verifying the repository", || system.host.run(&command).map(judge), |_| Ok(false))
}

fn update_command() -> Program {
    apt_get("update")
        .args([
            // Descriptions for people: two fifths of an update's bytes, a tenth of a cold installation's time.
            "-oAcquire::Languages=none",
            // An index that can't be fetched is an error, not a warning that the old one is used.
            "-oAPT::Update::Error-Mode=any",
        ])
        .reporting()
}

fn install_command(installation: &Installation, options: &[&str]) -> Program {
    let mut command = apt_get("install")
        .args(options.iter().copied())
        .arg(format!("-oAPT::Install-Recommends={}", installation.recommends))
        .args(keep_configuration())
        .arg(format!("-oDPkg::Post-Invoke::={}", policy::SWEEP));
    if installation.reinstall {
        command = command.arg("--reinstall");
    }
    if installation.names.iter().any(|name| name.version.is_some()) {
        // An older version is only ever asked for by its number.
        command = command.arg("--allow-downgrades");
    }
    command.arg("--").args(installation.names.iter().map(ToString::to_string))
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

/// A program that asks nothing, and goes through the proxies that downloads go through.
fn silent<const N: usize>(argv: [&str; N]) -> Program {
    let proxies = proxies().variables();
    let variables = ENVIRONMENT.iter().map(|(name, value)| (*name, (*value).to_owned())).chain(proxies);
    variables.fold(Program::new(argv), |command, (name, value)| command.env(name, value))
}

/// Runs a program that configures packages; their services are not started.
fn run_held(system: &System, command: &Program) -> Result<Finished> {
    let _held = ServicesHeld::new(system)?;
    system.host.run(&command.clone().env(policy::VARIABLE, "1").reporting())
}

/// A run of apt-get or dpkg, if it has failed.
fn judge(finished: Finished) -> Result<(), Finished> {
    // Before apt 2.1.8, `Error-Mode=any` is unknown and a failed download a warning.
    let failed = !finished.status.success() || finished.tail.contains("W: Failed to fetch");
    if failed { Err(finished) } else { Ok(()) }
}

/// Runs a command until it succeeds or fails for a reason that will not pass. `mend` may remove the cause
/// of a failure, and then says so.
fn persevere(
    system: &System,
    what: &str,
    run: impl Fn() -> Result<Result<(), Finished>>,
    mut mend: impl FnMut(Cause) -> Result<bool>,
) -> Result<()> {
    for attempt in 1.. {
        lock::wait(system)?;
        let Err(finished) = run()? else { break };
        let diagnosis = diagnose(system, &finished);
        let error = failed(what, &diagnosis, &finished);
        if attempt == ATTEMPTS {
            return Err(error).with_context(|| format!("gave up after {ATTEMPTS} attempts"));
        }
        if mend(diagnosis.cause)? {
            continue;
        }
        if !diagnosis.cause.is_transient() {
            return Err(error.into());
        }
        tracing::warn!(attempt, "{what}: {}", diagnosis.line.trim());
        system.host.progress(&format!("{what}: trying again (attempt {} of {ATTEMPTS})", attempt + 1));
        system.host.stop.wait(backoff(attempt))?;
    }
    Ok(())
}

/// 2, 4, 8 seconds, give or take a half: many machines that start together must not come back together.
fn backoff(attempt: u32) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(1 << attempt).mul_f64(0.5 + f64::from(now.subsec_micros()) / 1e6)
}

fn failed(what: &str, diagnosis: &Diagnosis<'_>, finished: &Finished) -> Fault {
    diagnosis.fault(with_tail(format!("{what} failed with exit code {}", finished.code()), &finished.tail))
}

/// What a failure tells, and what the machine knows about it.
fn diagnose<'a>(system: &System, finished: &'a Finished) -> Diagnosis<'a> {
    let mut diagnosis = Diagnosis::of(&finished.tail);
    if diagnosis.cause == Cause::Expired && !is_clock_synchronized(system) {
        diagnosis.cause = Cause::Clock;
    }
    if diagnosis.cause == Cause::Clock {
        let clock = now();
        diagnosis.advise(format!("set this machine's clock, which says {clock}; see what sets it: timedatectl status"));
    }
    if diagnosis.cause == Cause::Network
        && let Some(proxy) = proxies().named_in(diagnosis.line)
    {
        diagnosis.advise(format!("check that the proxy {proxy} answers, which http_proxy or https_proxy names"));
    }
    diagnosis
}

/// Whether something keeps the clock right, as far as systemd knows; adjtimex(2).
fn is_clock_synchronized(system: &System) -> bool {
    let asked = Program::new(["timedatectl", "show", "--property=NTPSynchronized", "--value"]);
    system.host.run(&asked).map_or(true, |finished| finished.stdout.trim() != "no")
}

fn now() -> String {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or_else(|_| OffsetDateTime::now_utc());
    now.format(&Rfc3339).unwrap_or_default()
}

/// Said in words before apt would say it in a dozen lines.
fn check_writable(system: &System) -> Result<()> {
    if !system.host.has_program("apt-get") {
        return Err(Fault::new("the program `apt-get` is not installed: packages can't be installed here").into());
    }
    for path in ["/var/lib/dpkg/status", "/var/cache/apt/archives", "/usr/bin"] {
        if system.root().file_system(&path.into())?.read_only {
            return Err(Fault::new(format!("the file system of {path} is mounted read-only"))
                .hint(format!("mount -o remount,rw \"$(findmnt -no TARGET -T {path})\""))
                .into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, os::unix::process::ExitStatusExt, process::ExitStatus};

    use super::*;
    use crate::{stop::Interrupt, system::Mode};

    fn system() -> System {
        System::open(&std::env::temp_dir(), Mode::Run, Interrupt::default()).unwrap()
    }

    fn ended(code: i32, output: &str) -> Result<(), Finished> {
        judge(Finished { status: ExitStatus::from_raw(code << 8), stdout: String::new(), tail: output.into() })
    }

    const STALE: &str = "E: Failed to fetch http://x/n.deb  404  Not Found [IP: 10.0.0.1 80]";

    #[test]
    fn a_cause_that_was_mended_is_tried_again_at_once() {
        let (runs, mends) = (Cell::new(0), Cell::new(0));
        let run = || {
            runs.set(runs.get() + 1);
            Ok(if mends.get() == 0 { ended(100, STALE) } else { ended(0, "") })
        };
        let mend = |cause| {
            mends.set(mends.get() + 1);
            Ok(cause == Cause::Stale)
        };
        persevere(&system(), "testing", run, mend).unwrap();
        assert_eq!((runs.get(), mends.get()), (2, 1));
    }

    #[test]
    fn what_stays_is_tried_once_and_what_may_pass_is_tried_until_it_is_enough() {
        let runs = Cell::new(0);
        let run = |output: &'static str| {
            runs.set(runs.get() + 1);
            Ok(ended(100, output))
        };
        let error =
            persevere(&system(), "testing", || run("E: Unable to locate package x"), |_| Ok(false)).unwrap_err();
        assert_eq!((runs.take(), crate::error::exit_code(&error)), (1, 1));
        assert_eq!(error.to_string(), "testing failed with exit code 100\n| E: Unable to locate package x");
        let error = persevere(&system(), "testing", || run(STALE), |_| Ok(true)).unwrap_err();
        assert_eq!((runs.take(), crate::error::exit_code(&error)), (4, 75), "mended in vain");
        assert_eq!(error.to_string(), "gave up after 4 attempts");
    }

    #[test]
    fn a_warning_of_an_old_apt_that_an_index_is_missing_is_a_failure() {
        let output = "W: Failed to fetch http://x/InRelease  403  Forbidden [IP: 10.0.0.1 80]";
        assert!(persevere(&system(), "testing", || Ok(ended(0, output)), |_| Ok(false)).is_err());
    }

    #[test]
    fn a_version_allows_a_downgrade_and_nothing_else_does() {
        let command = |name: &str| {
            let names = vec![name.parse().unwrap()];
            let installation = Installation { names, reinstall: false, update: Update::IfNeeded, recommends: false };
            format!("{:?}", install_command(&installation, &[]))
        };
        assert!(command("nginx=1.0").contains("--allow-downgrades"));
        assert!(!command("nginx").contains("--allow-downgrades"));
        assert!(command("nginx").contains(r#""--", "nginx"]"#));
        assert!(!command("nginx").contains("allow-unauthenticated"));
    }
}
