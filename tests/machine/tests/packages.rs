//! The packages of `packaging/build-packages`: what they bring, what they leave, and what their units do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use machine::{Machine, Options, Release, UserData};

const UNITS: &str = "glovo-bootstrap.service glovo-bootstrap-converge.timer";

/// The packages with this ending, at least one.
fn packages(ending: &str) -> Result<Vec<PathBuf>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/packages");
    let files = fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let packages: Vec<PathBuf> = files.filter(|file| file.to_string_lossy().ends_with(ending)).collect();
    ensure!(!packages.is_empty(), "no {ending} in target/packages: packaging/build-packages makes them");
    Ok(packages)
}

/// A machine with the package, which has done nothing yet.
fn installed(options: Options) -> Result<Machine> {
    let machine = Machine::boot(options)?;
    let [package] = &packages("_amd64.deb")?[..] else { anyhow::bail!("more than one version in target/packages") };
    fs::copy(package, machine.path("/root/package.deb"))?;
    machine.sh("dpkg --install /root/package.deb")?;
    Ok(machine)
}

/// Declares the step of all tests here.
fn declare(machine: &Machine, resources: &str) -> Result<()> {
    fs::create_dir_all(machine.path("/etc/glovo-bootstrap/steps"))?;
    let step = format!("name = \"declared\"\n{resources}");
    fs::write(machine.path("/etc/glovo-bootstrap/steps/declared.toml"), step).context("steps")
}

fn file(path: &str) -> String {
    format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"declared\"\n")
}

fn check(deadline: &str) -> String {
    format!("[[resource]]\nkind = \"http_check\"\nurl = \"http://origin.test/go\"\ndeadline = \"{deadline}\"\n")
}

fn property(machine: &Machine, name: &str) -> Result<String> {
    Ok(machine.sh(&format!("systemctl show --value --property={name} glovo-bootstrap.service"))?.trim().to_owned())
}

fn wait_for(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !done()? {
        ensure!(start.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn lintian_has_nothing_to_say() -> Result<()> {
    let said = Command::new("lintian").args(["--fail-on", "error,warning"]).args(packages(".deb")?).output()?;
    ensure!(said.status.success() && said.stdout.is_empty(), "{}", String::from_utf8_lossy(&said.stdout));
    Ok(())
}

#[test]
fn an_installed_package_does_nothing_by_itself() -> Result<()> {
    let machine = installed(Options::default())?;
    machine.sh("/usr/bin/glovo-bootstrap --version; ! systemctl is-enabled glovo-bootstrap.service")?;
    // As the first boot of an image does for all units.
    machine.sh(&format!("systemctl preset {UNITS}; ! systemctl is-enabled {UNITS}"))?;
    // Without steps, a start is no run.
    machine.sh("systemctl start glovo-bootstrap.service")?;
    assert_eq!(property(&machine, "ConditionResult")?, "no");
    ensure!(!machine.path("/var/lib/glovo-bootstrap").exists());
    let files = machine.sh("dpkg --listfiles glovo-bootstrap")?;
    for file in [
        "/usr/share/man/man1/glovo-bootstrap.1.gz",
        "/usr/share/man/man1/glovo-bootstrap-steps-show.1.gz",
        "/usr/share/bash-completion/completions/glovo-bootstrap",
        "/usr/share/zsh/vendor-completions/_glovo-bootstrap",
        "/usr/share/fish/vendor_completions.d/glovo-bootstrap.fish",
        "/etc/glovo-bootstrap/README",
    ] {
        ensure!(files.lines().any(|line| line == file), "{file} is not among\n{files}");
    }
    machine.sh("bash -c '. /usr/share/bash-completion/completions/glovo-bootstrap && complete -p glovo-bootstrap'")?;
    let verified = machine.exec(&["sh", "-c", &format!("systemd-analyze verify --man=no {UNITS} 2>&1")])?;
    ensure!(verified.code == 0 && verified.stdout.is_empty(), "{verified:?}");
    Ok(())
}

#[test]
fn it_is_upgraded_removed_and_purged() -> Result<()> {
    let machine = installed(Options::default())?;
    declare(&machine, &file("/root/declared"))?;
    machine.sh(&format!("systemctl enable --now {UNITS}; grep declared /root/declared"))?;
    machine.sh("echo edited >> /etc/glovo-bootstrap/README")?;
    machine.sh(
        "dpkg-deb --raw-extract /root/package.deb /root/next; sed -i 's/^Version: .*/Version: 9/' /root/next/DEBIAN/control; \
         dpkg-deb --build /root/next /root/next.deb; dpkg --install /root/next.deb",
    )?;
    machine.sh(&format!("systemctl is-enabled {UNITS}; systemctl is-active glovo-bootstrap-converge.timer"))?;
    machine.sh("grep edited /etc/glovo-bootstrap/README")?;

    machine.sh("dpkg --remove glovo-bootstrap; ! test -e /usr/bin/glovo-bootstrap")?;
    machine.sh(&format!("! systemctl is-active {UNITS}; test -e /etc/glovo-bootstrap/README"))?;
    machine.sh("dpkg --purge glovo-bootstrap")?;
    // The steps are the operator's. Nothing else is left, and nothing of what the steps have made is gone.
    let left = "find / -xdev -name '*glovo-bootstrap*' ! -path '/root/*' ! -path /usr/local/bin/glovo-bootstrap";
    assert_eq!(machine.sh(left)?.trim(), "/etc/glovo-bootstrap");
    machine.sh("ls /etc/glovo-bootstrap/steps/declared.toml /root/declared; ! test -e /etc/glovo-bootstrap/README")?;
    Ok(())
}

#[test]
fn a_run_cut_off_by_a_shutdown_is_finished_at_the_next_boot() -> Result<()> {
    // cloud-init is on: its last stage is ordered after multi-user.target, which waits for this unit.
    let user_data = Some(UserData::Text("#!/bin/sh\ntouch /root/user-data\n".into()));
    let mut machine = installed(Options { user_data, ..Options::default() })?;
    declare(&machine, &[file("/root/first"), check("1h"), file("/root/last")].concat())?;
    machine.sh("systemctl enable glovo-bootstrap.service; systemctl start --no-block glovo-bootstrap.service")?;
    wait_for("the run to be half done", || Ok(machine.path("/root/first").exists()))?;
    machine.power_off()?;
    ensure!(!machine.path("/root/last").exists());
    machine.world().publish("origin.test/go", "");
    machine.power_on()?;
    machine.wait_until_booted()?;
    machine.sh("grep declared /root/last; /usr/bin/glovo-bootstrap status")?;
    assert_eq!(property(&machine, "Result")?, "success");
    machine.sh("! journalctl --boot | grep -i 'ordering cycle'; systemctl is-active multi-user.target")?;
    Ok(())
}

#[test]
fn a_temporary_failure_is_tried_again_but_not_for_ever() -> Result<()> {
    let machine = installed(Options::default())?;
    machine.sh(
        "mkdir /etc/systemd/system/glovo-bootstrap.service.d; systemctl daemon-reload
         printf '[Service]\nRestartSec=0\n' > /etc/systemd/system/glovo-bootstrap.service.d/quick.conf; systemctl daemon-reload",
    )?;
    // Silence is temporary; a wrong answer is not.
    declare(&machine, &check("1s").replace("http://origin.test/go", "http://127.0.0.1:1/"))?;
    machine.sh("systemctl start --no-block glovo-bootstrap.service")?;
    wait_for("systemd to give up", || Ok(property(&machine, "ActiveState")? == "failed"))?;
    assert_eq!(property(&machine, "ExecMainStatus")?, "75");
    let ends = "journalctl --output=cat --unit=glovo-bootstrap.service | grep -c 'code=exited, status=75'";
    assert_eq!(machine.sh(ends)?.trim(), "5");

    machine.sh("systemctl reset-failed glovo-bootstrap.service; mkdir /root/directory")?;
    declare(&machine, &file("/root/directory"))?;
    let start = machine.exec(&["systemctl", "start", "glovo-bootstrap.service"])?;
    ensure!(start.code != 0, "{start:?}");
    assert_eq!((property(&machine, "ExecMainStatus")?.as_str(), property(&machine, "NRestarts")?.as_str()), ("1", "0"));
    Ok(())
}

#[test]
fn rpmlint_says_only_what_is_meant_so() -> Result<()> {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/rpm/rpmlint.toml");
    let said = Command::new("rpmlint").arg("--config").arg(config).args(packages(".rpm")?).output()?;
    let text = String::from_utf8_lossy(&said.stdout);
    ensure!(said.status.success() && text.contains(" 0 errors, 0 warnings"), "{text}");
    Ok(())
}

/// A machine whose only package manager is dnf.
fn machine_with_dnf() -> Result<Machine> {
    let machine = Machine::boot(Options { release: Release::Amazon, ..Options::default() })?;
    let [package] = &packages(".x86_64.rpm")?[..] else { anyhow::bail!("more than one version in target/packages") };
    fs::copy(package, machine.path("/root/package.rpm"))?;
    Ok(machine)
}

#[test]
fn an_installed_rpm_does_nothing_by_itself() -> Result<()> {
    let machine = machine_with_dnf()?;
    machine.sh("dnf -y install /root/package.rpm; /usr/bin/glovo-bootstrap --version; rpm --verify glovo-bootstrap")?;
    machine.sh(&format!("! systemctl is-enabled {UNITS}; systemctl preset {UNITS}; ! systemctl is-enabled {UNITS}"))?;
    machine.sh("systemctl start glovo-bootstrap.service")?;
    assert_eq!(property(&machine, "ConditionResult")?, "no");
    ensure!(!machine.path("/var/lib/glovo-bootstrap").exists());
    let files = machine.sh("rpm --query --list glovo-bootstrap")?;
    for file in [
        "/usr/share/man/man1/glovo-bootstrap.1.gz",
        "/usr/share/bash-completion/completions/glovo-bootstrap",
        "/usr/share/zsh/site-functions/_glovo-bootstrap",
        "/usr/share/fish/vendor_completions.d/glovo-bootstrap.fish",
        "/etc/glovo-bootstrap/README",
    ] {
        ensure!(files.lines().any(|line| line == file), "{file} is not among\n{files}");
    }
    let verified = machine.exec(&["sh", "-c", &format!("systemd-analyze verify --man=no {UNITS} 2>&1")])?;
    ensure!(verified.code == 0 && verified.stdout.is_empty(), "{verified:?}");
    Ok(())
}

/// Puts an earlier version of the package, with the same scripts, at `/root/earlier.rpm`.
fn build_earlier_rpm(machine: &Machine) -> Result<()> {
    let script = r#"
        package=$2/package.rpm
        script() { rpm --query --package --queryformat "%{$1}" "$package"; }
        cat > earlier.spec << END
Name: glovo-bootstrap
Version: 0.0.1
Release: 1
Summary: An earlier version
License: MIT OR Apache-2.0
%description
%{summary}.
%install
mkdir -p %{buildroot}/etc/glovo-bootstrap %{buildroot}/usr/lib/systemd
echo earlier > %{buildroot}/etc/glovo-bootstrap/README
cp -r "$1" %{buildroot}/usr/lib/systemd/system
rm %{buildroot}/usr/lib/systemd/system/*.preset
%preun
$(script PREUN)
%postun
$(script POSTUN)
%files
%config(noreplace) /etc/glovo-bootstrap/README
/usr/lib/systemd/system/*
END
        rpmbuild --quiet --define "_topdir $PWD/build" --target x86_64 -bb earlier.spec
        cp build/RPMS/x86_64/*.rpm "$2"/earlier.rpm"#;
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
    let build = machine.directory().join("earlier");
    fs::create_dir(&build)?;
    let mut bash = Command::new("bash");
    let bash = bash.args(["-euc", script, "bash"]).arg(units).arg(machine.path("/root")).current_dir(build);
    let output = bash.output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

#[test]
fn an_rpm_is_upgraded_and_removed() -> Result<()> {
    let machine = machine_with_dnf()?;
    build_earlier_rpm(&machine)?;
    machine.sh("dnf -y install /root/earlier.rpm")?;
    declare(&machine, &file("/root/declared"))?;
    machine.sh(&format!("echo edited >> /etc/glovo-bootstrap/README; systemctl enable {UNITS}"))?;
    machine.sh("systemctl start glovo-bootstrap-converge.timer")?;
    machine.sh("dnf -y upgrade /root/package.rpm; rpm --query glovo-bootstrap | grep -v 0.0.1")?;
    machine.sh(&format!("systemctl is-enabled {UNITS}; systemctl is-active glovo-bootstrap-converge.timer"))?;
    machine
        .sh("grep edited /etc/glovo-bootstrap/README; systemctl start glovo-bootstrap; grep declared /root/declared")?;

    machine.sh("dnf -y remove glovo-bootstrap; ! test -e /usr/bin/glovo-bootstrap")?;
    machine.sh(&format!("! systemctl is-active {UNITS}; ! systemctl is-enabled {UNITS}"))?;
    // The steps are the operator's, and rpm keeps a configuration file that was edited.
    let left = "find /etc /usr -xdev -name '*glovo-bootstrap*' ! -path /usr/local/bin/glovo-bootstrap";
    assert_eq!(machine.sh(left)?.trim(), "/etc/glovo-bootstrap");
    machine.sh("ls /etc/glovo-bootstrap/steps/declared.toml /root/declared /etc/glovo-bootstrap/README.rpmsave")?;
    Ok(())
}
