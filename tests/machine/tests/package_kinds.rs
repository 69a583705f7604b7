//! The kinds `package`, `package_file` and `upgrade` on real machines: removal, holds, versions, files and upgrades.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use machine::{Machine, Options, Output};

/// A machine with package lists.
fn machine() -> Result<Machine> {
    let machine = Machine::boot(Options::default())?;
    machine.sh("apt-get -qq update")?;
    Ok(machine)
}

fn agent(machine: &Machine, command: &str, resources: &str) -> Result<Output> {
    fs::write(machine.path("/root/manifest.toml"), format!("name = \"step\"\n{resources}"))?;
    machine.agent(&[command, "--steps", "/root/manifest.toml"])
}

fn run(machine: &Machine, resources: &str) -> Result<Output> {
    agent(machine, "run", resources)
}

/// Plans, runs, and runs again without a change.
fn converge(machine: &Machine, resources: &str, words: &[&str]) -> Result<()> {
    expect(&agent(machine, "plan", resources)?, 0, words);
    expect(&run(machine, resources)?, 0, words);
    expect(&run(machine, resources)?, 0, &["converged: 0 changes"]);
    Ok(())
}

/// Plan and run refuse it with these words.
fn refused(machine: &Machine, resources: &str, words: &[&str]) -> Result<()> {
    expect(&agent(machine, "plan", resources)?, 1, words);
    expect(&run(machine, resources)?, 1, words);
    Ok(())
}

fn package(fields: &str) -> String {
    format!("[[resource]]\nkind = \"package\"\n{fields}\n")
}

#[track_caller]
fn expect(output: &Output, code: i32, words: &[&str]) {
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, code, "{said}");
    for words in words {
        assert!(said.contains(words), "missing: {words}\n{said}");
    }
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
    // apt itself refuses these two.
    let words = ["planning the removal failed", "glovo-test-vital : Depends: glovo-test-below"];
    refused(&machine, &absent("glovo-test-below"), &words)?;
    refused(&machine, &absent("libc6"), &["planning the removal failed"])
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
