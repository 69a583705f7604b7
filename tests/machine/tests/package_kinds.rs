//! The kinds `package`, `package_file` and `upgrade` on real machines: removal, holds, versions, files and upgrades.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use machine::step::{agent, converge, expect, refused, run};
use machine::{Machine, Options, Signer};

/// A machine with package lists.
fn machine() -> Result<Machine> {
    let machine = Machine::boot(Options::default())?;
    machine.sh("apt-get -qq update")?;
    Ok(machine)
}

fn package(fields: &str) -> String {
    format!("[[resource]]\nkind = \"package\"\n{fields}\n")
}

/// Returns the state and the version of a package, empty if dpkg does not know it.
fn state(machine: &Machine, name: &str) -> Result<String> {
    Ok(machine.exec(&["dpkg-query", "--show", "--showformat=${Status} ${Version}", name])?.stdout)
}

/// Makes a package file on the machine.
fn deb(machine: &Machine, name: &str, version: &str, fields: &str) -> Result<String> {
    let root = machine.directory().join(format!("{name}_{version}"));
    fs::create_dir_all(root.join("DEBIAN"))?;
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: test <root@machine.test>\n\
         Description: made for a test\n{fields}"
    );
    fs::write(root.join("DEBIAN/control"), control)?;
    let path = format!("/root/{name}_{version}_all.deb");
    let built = Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Zgzip", "--build"])
        .arg(&root)
        .arg(machine.path(&path))
        .output()?;
    ensure!(built.status.success(), "{built:?}");
    Ok(path)
}

/// Makes a package file and installs it.
fn install(machine: &Machine, name: &str, version: &str, fields: &str) -> Result<()> {
    let path = deb(machine, name, version, fields)?;
    machine.sh(&format!("dpkg --install {path}"))?;
    Ok(())
}

#[test]
fn an_absent_package_is_removed_and_its_configuration_stays() -> Result<()> {
    let machine = machine()?;
    let both = package("names = [\"glovo-test-conffile\", \"glovo-test-service\"]");
    expect(&run(&machine, &both)?, 0, &["converged: 1 change"]);
    machine.sh("systemctl start glovo-test-service")?;
    let absent =
        package("names = [\"glovo-test-conffile\", \"glovo-test-service\", \"glovo-test-extra\"]\nabsent = true");
    converge(&machine, &absent, &["remove glovo-test-conffile 2.0, glovo-test-service 1.0"])?;
    assert_eq!(state(&machine, "glovo-test-conffile")?, "deinstall ok config-files 2.0");
    machine.sh(
        "test -e /etc/glovo-test-conffile.conf; ! systemctl is-active glovo-test-service; ! ls /usr/sbin/policy-rc.d",
    )?;
    // Installed by hand, it is drift.
    machine.sh("apt-get -qq -y install glovo-test-service > /dev/null")?;
    converge(&machine, &absent, &["remove glovo-test-service 1.0"])
}

#[test]
fn a_removal_names_all_packages_that_it_takes() -> Result<()> {
    let machine = machine()?;
    machine.sh("apt-get -qq -y install glovo-test-hello > /dev/null")?;
    install(&machine, "glovo-test-needs", "1.0", "Depends: glovo-test-hello\n")?;
    install(&machine, "glovo-test-above", "1.0", "Depends: glovo-test-needs\n")?;
    let absent = package("names = [\"glovo-test-hello\"]\nabsent = true");
    // Another resource needs one of them.
    let contradiction = absent.clone() + &package("names = [\"glovo-test-above\"]");
    refused(
        &machine,
        &contradiction,
        &["the removal would also remove glovo-test-above, which another resource declares"],
    )?;
    // One of them is held.
    machine.sh("apt-mark hold glovo-test-needs")?;
    refused(
        &machine,
        &absent,
        &["the removal would remove glovo-test-needs, but it is held", "apt-mark unhold glovo-test-needs"],
    )?;
    machine
        .sh("apt-mark unhold glovo-test-needs; dpkg-query --show glovo-test-hello glovo-test-needs glovo-test-above")?;
    converge(
        &machine,
        &absent,
        &["remove glovo-test-hello 2.0; also remove, because they need it, glovo-test-above 1.0, glovo-test-needs 1.0"],
    )?;
    machine.sh("! dpkg-query --show glovo-test-needs 2> /dev/null")?;
    Ok(())
}

#[test]
fn a_package_that_the_system_needs_is_never_removed() -> Result<()> {
    let machine = machine()?;
    let absent = |name: &str| package(&format!("names = [\"{name}\"]\nabsent = true"));
    for name in ["dpkg", "bash"] {
        let message = format!("the removal would remove {name}, but the system cannot work without it");
        refused(&machine, &absent(name), &[&message])?;
    }
    install(&machine, "glovo-test-vital", "1.0", "Essential: yes\nDepends: glovo-test-below\n").unwrap_err();
    machine.sh("dpkg --install --force-depends /root/glovo-test-vital_1.0_all.deb")?;
    install(&machine, "glovo-test-below", "1.0", "")?;
    // Debian 12's apt and later ones refuse these two themselves.
    refused(&machine, &absent("glovo-test-below"), &["the removal", "glovo-test-vital"])?;
    refused(&machine, &absent("libc6"), &["the removal"])?;
    // The running kernel stays, another one may go.
    let running = format!("linux-image-{}", machine.sh("uname --kernel-release")?.trim());
    for kernel in [&*running, "linux-image-0.0.1-other"] {
        install(&machine, kernel, "1.0", "")?;
    }
    refused(&machine, &absent(&running), &["which has the running kernel", "boot another kernel before"])?;
    converge(&machine, &absent("linux-image-0.0.1-other"), &["remove linux-image-0.0.1-other 1.0"])
}

#[test]
fn an_installation_that_removes_packages_says_so() -> Result<()> {
    let machine = machine()?;
    install(&machine, "glovo-test-rival", "1.0", "Conflicts: glovo-test-hello\n")?;
    let hello = package("names = [\"glovo-test-hello\"]");
    let both = hello.clone() + &package("names = [\"glovo-test-rival\"]");
    let message = "the installation would remove glovo-test-rival, which this manifest declares as installed";
    expect(&run(&machine, &both)?, 1, &[message]);
    expect(&run(&machine, &hello)?, 0, &["warning: the installation removed glovo-test-rival", "converged: 1 change"]);
    Ok(())
}

#[test]
fn a_held_package_stays_held_also_while_it_changes() -> Result<()> {
    let machine = machine()?;
    let held = |version: &str| package(&format!("names = [\"glovo-test-conffile={version}\"]\nhold = true"));
    converge(&machine, &held("1.0"), &["install glovo-test-conffile=1.0", "hold glovo-test-conffile"])?;
    assert_eq!(state(&machine, "glovo-test-conffile")?, "hold ok installed 1.0");
    machine.sh("apt-get -qq -y upgrade; apt-get -qq -y dist-upgrade")?;
    assert_eq!(state(&machine, "glovo-test-conffile")?, "hold ok installed 1.0");
    // Without `hold`, the hold is the machine's own.
    let bare = package("names = [\"glovo-test-conffile=2.0\"]");
    let words =
        ["glovo-test-conffile is held at version 1.0, but 2.0 is declared", "apt-mark unhold glovo-test-conffile"];
    refused(&machine, &bare, &words)?;
    converge(&machine, &held("2.0"), &["install glovo-test-conffile=2.0 (now 1.0)"])?;
    assert_eq!(state(&machine, "glovo-test-conffile")?, "hold ok installed 2.0");
    // Released by hand, and by the manifest.
    machine.sh("apt-mark unhold glovo-test-conffile")?;
    converge(&machine, &held("2.0"), &["hold glovo-test-conffile"])?;
    let released = package("names = [\"glovo-test-conffile=1.0\"]\nhold = false");
    let words = ["release glovo-test-conffile from the hold", "install glovo-test-conffile=1.0 (now 2.0)"];
    converge(&machine, &released, &words)?;
    assert_eq!(state(&machine, "glovo-test-conffile")?, "install ok installed 1.0");
    Ok(())
}

#[test]
fn a_version_with_a_wildcard_is_chosen_and_named() -> Result<()> {
    let machine = machine()?;
    let wildcard = |pattern: &str| package(&format!("names = [\"glovo-test-conffile={pattern}\"]"));
    converge(&machine, &wildcard("1.*"), &["install glovo-test-conffile=1.0 (declared 1.*)"])?;
    // An upgrade by hand is drift, but a wildcard never downgrades.
    machine.sh("apt-get -qq -y install glovo-test-conffile > /dev/null")?;
    let words = [
        "glovo-test-conffile=1.* would downgrade glovo-test-conffile from 2.0 to 1.0",
        "declare the exact version: glovo-test-conffile=1.0",
    ];
    refused(&machine, &wildcard("1.*"), &words)?;
    converge(&machine, &wildcard("1.0"), &["install glovo-test-conffile=1.0 (now 2.0)"])?;
    // Old lists are updated before the choice.
    machine.sh("touch /etc/apt/sources.list")?;
    let words = ["install glovo-test-conffile=2* (2.0, unless the updated package lists have a better one, now 1.0)"];
    converge(&machine, &wildcard("2*"), &words)?;
    let none = run(&machine, &wildcard("3.*"))?;
    expect(&none, 1, &["no version fits to glovo-test-conffile=3.*: the package lists have 2.0, 1.0"]);
    Ok(())
}

#[test]
fn a_killed_dpkg_is_finished_before_a_removal() -> Result<()> {
    let machine = machine()?;
    // What dpkg did since it last wrote its record is only in its journal, of which apt knows nothing.
    machine.sh(
        "printf 'Package: glovo-test-torn\nStatus: install ok half-configured\nArchitecture: all\nVersion: 1.0\n\
         Maintainer: x\nDescription: x\n' > /var/lib/dpkg/updates/0000
         touch /var/lib/dpkg/info/glovo-test-torn.list",
    )?;
    let absent = package("names = [\"glovo-test-torn\"]\nabsent = true");
    converge(&machine, &absent, &["finish the interrupted dpkg run", "remove glovo-test-torn 1.0"])
}

#[test]
fn a_package_file_of_another_architecture_is_refused() -> Result<()> {
    let machine = machine()?;
    let path = deb(&machine, "glovo-test-agent", "1.4", "")?;
    let other = "/root/other.deb";
    machine.sh(&format!(
        "dpkg-deb --raw-extract {path} /root/d; sed -i 's/^Architecture:.*/Architecture: s390x/' /root/d/DEBIAN/control; \
         dpkg-deb --root-owner-group --build /root/d {other}"
    ))?;
    let source = format!("file://{other}");
    let message = "the package file holds glovo-test-agent 1.4 for s390x, but glovo-test-agent 1.4 for";
    refused(&machine, &package_file("glovo-test-agent", "1.4", &source, ""), &[message])
}

/// The resource of a package file.
fn package_file(name: &str, version: &str, source: &str, fields: &str) -> String {
    format!(
        "[[resource]]\nkind = \"package_file\"\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{source}\"\n{fields}\n"
    )
}

/// Publishes a file of the machine at this address, and returns the fields of its source.
fn published(machine: &Machine, address: &str, path: &str) -> Result<(String, String)> {
    machine.world().publish(address, fs::read(machine.path(path))?);
    let digest = machine.sh(&format!("sha256sum {path} | cut -c 1-64"))?;
    Ok((format!("http://{address}"), format!("sha256 = \"{}\"", digest.trim())))
}

#[test]
fn a_package_file_is_installed_with_its_dependencies() -> Result<()> {
    let machine = machine()?;
    let path = deb(&machine, "glovo-test-agent", "1:1.4.0-1", "Depends: glovo-test-hello\n")?;
    let (source, digest) = published(&machine, "origin.test/agent.deb", &path)?;
    let agent = package_file("glovo-test-agent", "1:1.4.0-1", &source, &digest);
    let install = "package_file glovo-test-agent: install 1:1.4.0-1 from http://origin.test/agent.deb";
    converge(&machine, &agent, &[install])?;
    machine
        .sh("dpkg-query --show glovo-test-agent glovo-test-hello; ! ls /var/cache/apt/archives/glovo-bootstrap.deb")?;
    let downloads = || machine.world().requests().iter().filter(|request| request.path.ends_with("agent.deb")).count();
    let before = downloads();
    // Nothing is downloaded while it is there.
    expect(&run(&machine, &agent)?, 0, &["converged: 0 changes"]);
    assert_eq!(downloads(), before);
    machine.sh("dpkg --remove glovo-test-agent")?;
    converge(&machine, &agent, &[install])?;
    // Another version by hand: a declared version is exact.
    install_file(&machine, "glovo-test-agent", "1:2.0")?;
    converge(&machine, &agent, &["install 1:1.4.0-1 (now 1:2.0) from"])?;
    machine.sh("apt-mark hold glovo-test-agent; dpkg --install /root/glovo-test-agent_1:2.0_all.deb; apt-mark hold glovo-test-agent")?;
    refused(&machine, &agent, &["glovo-test-agent is held at version 1:2.0, but 1:1.4.0-1 is declared"])?;
    // A file that a killed run has left.
    machine.sh("apt-mark unhold glovo-test-agent; touch /var/cache/apt/archives/glovo-bootstrap.deb")?;
    converge(&machine, &agent, &["remove the package file that a killed installation left"])
}

fn install_file(machine: &Machine, name: &str, version: &str) -> Result<()> {
    install(machine, name, version, "")
}

#[test]
fn a_package_file_with_another_package_is_not_installed() -> Result<()> {
    let machine = machine()?;
    let path = deb(&machine, "glovo-test-agent", "1.4", "")?;
    let (source, digest) = published(&machine, "origin.test/agent.deb", &path)?;
    let architecture = machine.sh("dpkg --print-architecture")?;
    let architecture = architecture.trim();
    for (name, version) in [("glovo-test-agent", "1.5"), ("glovo-test-other", "1.4")] {
        let message = format!(
            "the package file holds glovo-test-agent 1.4 for all, but {name} {version} for {architecture} is declared"
        );
        expect(&run(&machine, &package_file(name, version, &source, &digest))?, 1, &[&message, "correct `name`"]);
        // A file of this machine is looked into by the plan.
        refused(&machine, &package_file(name, version, &format!("file://{path}"), ""), &[&message])?;
    }
    machine.sh("head -c 1000 /dev/urandom > /root/no.deb")?;
    refused(&machine, &package_file("no", "1.0", "file:///root/no.deb", ""), &["reading the package file"])?;
    refused(&machine, &package_file("no", "1.0", "file:///root/none.deb", ""), &["/root/none.deb"])?;
    let other = "sha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"";
    expect(&run(&machine, &package_file("glovo-test-agent", "1.4", &source, other))?, 1, &["the sha256 of the"]);
    machine
        .sh("! dpkg-query --show glovo-test-agent 2> /dev/null; ! ls /var/cache/apt/archives/glovo-bootstrap.deb")?;
    Ok(())
}

#[test]
fn a_package_file_starts_no_service_and_keeps_configuration() -> Result<()> {
    let machine = machine()?;
    machine.sh("cd /root; apt-get -qq download glovo-test-service glovo-test-conffile=1.0 glovo-test-conffile=2.0")?;
    let service = package_file("glovo-test-service", "1.0", "file:///root/glovo-test-service_1.0_all.deb", "");
    converge(&machine, &service, &["install 1.0 from file:///root/glovo-test-service_1.0_all.deb"])?;
    assert_eq!(machine.exec(&["systemctl", "is-active", "glovo-test-service"])?.stdout, "inactive\n");
    machine.sh("! ls /usr/sbin/policy-rc.d 2> /dev/null")?;
    let conffile = |version: &str| {
        let source = format!("file:///root/glovo-test-conffile_{version}_all.deb");
        package_file("glovo-test-conffile", version, &source, "")
    };
    converge(&machine, &conffile("1.0"), &["install 1.0"])?;
    machine.sh("echo mine > /etc/glovo-test-conffile.conf")?;
    converge(&machine, &conffile("2.0"), &["install 2.0 (now 1.0)"])?;
    assert_eq!(machine.sh("cat /etc/glovo-test-conffile.conf")?, "mine\n");
    Ok(())
}

/// The resource of an upgrade on a booted machine.
fn upgrade(scope: &str, fields: &str) -> String {
    format!("[[resource]]\nkind = \"upgrade\"\nscope = \"{scope}\"\nphase = \"boot\"\n{fields}\n")
}

#[test]
fn installed_packages_are_upgraded_but_not_what_is_kept() -> Result<()> {
    let machine = machine()?;
    let old = "apt-get -qq -y --allow-downgrades install glovo-test-hello=1.0 glovo-test-conffile=1.0 > /dev/null";
    machine.sh(old)?;
    let all = upgrade("all", "");
    let both = "upgrade 2 packages: glovo-test-conffile 2.0 (now 1.0), glovo-test-hello 2.0 (now 1.0)";
    // By a plan's list, each package has a line.
    expect(&agent(&machine, "plan", &all)?, 0, &[both, "-glovo-test-hello 1.0\n", "+glovo-test-hello 2.0\n"]);
    converge(&machine, &all, &[both])?;
    let hello = "upgrade 1 package: glovo-test-hello 2.0 (now 1.0)";
    for kept in [
        upgrade("all", "hold = [\"glovo-test-conffile\"]"),
        package("names = [\"glovo-test-conffile=1.0\"]") + &all,
        package("names = [\"glovo-test-conffile=1.*\"]") + &all,
        package("names = [\"glovo-test-conffile=1.0\"]\nhold = true") + &all,
    ] {
        machine.sh(old)?;
        converge(&machine, &kept, &[hello])?;
        assert!(state(&machine, "glovo-test-conffile")?.ends_with(" installed 1.0"));
    }
    machine.sh(&format!("apt-mark unhold glovo-test-conffile; {old}; apt-mark hold glovo-test-conffile"))?;
    converge(&machine, &all, &[hello])?;
    machine.sh("! ls /run/glovo-bootstrap-upgrade.preferences")?;
    Ok(())
}

#[test]
fn a_booted_machine_upgrades_only_if_the_phase_is_written() -> Result<()> {
    let machine = machine()?;
    machine.sh("apt-get -qq -y install glovo-test-hello=1.0 > /dev/null")?;
    let bare = upgrade("all", "").replace("phase = \"boot\"\n", "");
    expect(
        &run(&machine, &bare)?,
        0,
        &["converged: 0 changes", "not here: a booted machine upgrades only with phase = \"boot\""],
    );
    fs::write(machine.path("/root/manifest.toml"), format!("name = \"step\"\n{bare}"))?;
    let bake = |arguments: &[&str]| {
        machine.agent(&[&["run", "--phase", "bake", "--steps", "/root/manifest.toml"], arguments].concat())
    };
    expect(&bake(&[])?, 0, &["upgrade 1 package: glovo-test-hello 2.0 (now 1.0)"]);
    expect(&bake(&[])?, 0, &["converged: 0 changes"]);
    Ok(())
}

#[test]
fn old_package_lists_are_updated_before_an_upgrade() -> Result<()> {
    let machine = machine()?;
    machine.sh("apt-get -qq -y install glovo-test-hello=1.0 > /dev/null; touch /etc/apt/sources.list")?;
    let words = "update the package lists, and install the upgrades that they have then; now: upgrade 1 package: glovo-test-hello 2.0";
    expect(&agent(&machine, "plan", &upgrade("all", ""))?, 0, &[words]);
    expect(&run(&machine, &upgrade("all", ""))?, 0, &["upgrade all: upgrade 1 package: glovo-test-hello 2.0"]);
    machine.sh("touch /etc/apt/sources.list")?;
    let words = "update the package lists, and install the upgrades that they have then";
    expect(&agent(&machine, "plan", &upgrade("all", ""))?, 0, &[words]);
    expect(&run(&machine, &upgrade("all", ""))?, 0, &["converged: 0 changes"]);
    Ok(())
}

#[test]
fn a_security_upgrade_takes_only_what_the_security_suite_has() -> Result<()> {
    let machine = machine()?;
    machine.sh("apt-get -qq -y install glovo-test-hello=1.0 glovo-test-conffile=1.0 > /dev/null")?;
    converge(&machine, &upgrade("security", ""), &["0 changes"])?;
    let security = Signer::new(machine.directory(), "security")?;
    security.publish_in(machine.world(), "security.test", "bookworm-security", "glovo-test-conffile", "1.1")?;
    fs::write(machine.path("/usr/share/keyrings/security.gpg"), &security.key)?;
    let source = "deb [signed-by=/usr/share/keyrings/security.gpg] http://security.test bookworm-security main\n";
    fs::write(machine.path("/etc/apt/sources.list.d/security.list"), source)?;
    machine.sh("apt-get -qq update")?;
    converge(&machine, &upgrade("security", ""), &["upgrade 1 package: glovo-test-conffile 1.1 (now 1.0)"])?;
    // The machine's own preference for another repository makes no security upgrade of it.
    let preference = "Package: glovo-test-hello\nPin: version 2.0\nPin-Priority: 900\n";
    fs::write(machine.path("/etc/apt/preferences"), preference)?;
    converge(&machine, &upgrade("security", ""), &["0 changes"])?;
    assert_eq!(state(&machine, "glovo-test-hello")?, "install ok installed 1.0");
    converge(&machine, &upgrade("all", ""), &["glovo-test-conffile 2.0 (now 1.1), glovo-test-hello 2.0 (now 1.0)"])
}

#[test]
fn a_machine_that_needs_a_reboot_says_so() -> Result<()> {
    let machine = machine()?;
    machine.sh("apt-get -qq -y install glovo-test-hello=1.0 > /dev/null")?;
    machine.sh("touch /run/reboot-required; echo libc6 > /run/reboot-required.pkgs")?;
    let after = "[[resource]]\nkind = \"directory\"\npath = \"/srv/after\"\n";
    let output = run(&machine, &(upgrade("all", "") + after))?;
    let warning = "this machine needs a reboot: the package libc6 takes effect after a reboot";
    expect(&output, 0, &[warning]);
    assert_eq!(output.stderr.matches("needs a reboot").count() + output.stdout.matches("needs a reboot").count(), 1);
    Ok(())
}
