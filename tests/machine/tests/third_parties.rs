//! Repositories of third parties that fail, on a machine that needs nothing of them, or something.

use anyhow::Result;
use machine::step::expect;
use machine::{Fault, Machine, Options, Output, Signer};

const HELLO: &str = "[[resource]]\nkind = \"package\"\nnames = [\"glovo-test-hello\"]\n";

/// A machine whose image has lists, and a third party's repository with a package of its own.
fn machine() -> Result<(Machine, Signer)> {
    let machine = Machine::boot(Options::default())?;
    let third = Signer::new(machine.directory(), "third")?;
    third.publish(machine.world(), "third.test", "glovo-test-third", "1.0")?;
    std::fs::write(machine.path("/usr/share/keyrings/third.gpg"), &third.key)?;
    let source = "deb [signed-by=/usr/share/keyrings/third.gpg] http://third.test stable main\n";
    std::fs::write(machine.path("/etc/apt/sources.list.d/third.list"), source)?;
    machine.sh("apt-get -qq update")?;
    // So old that each installation updates them.
    machine.sh("find /var/lib/apt/lists -type f ! -name lock -print0 | xargs -0 touch --date=2020-01-01; touch /etc/apt/sources.list")?;
    Ok((machine, third))
}

fn run(machine: &Machine, resources: &str) -> Result<Output> {
    std::fs::write(machine.path("/root/manifest.toml"), format!("name = \"step\"\n{resources}"))?;
    machine.agent(&["run", "--steps", "/root/manifest.toml"])
}

fn package(name: &str) -> String {
    HELLO.replace("glovo-test-hello", name)
}

/// The installation goes on, and output, status and report have the warning.
#[track_caller]
fn expect_warning(machine: &Machine, output: &Output, words: &str) -> Result<()> {
    let warning = "warning: the repository http://third.test could not be updated; nothing is installed from it: ";
    expect(output, 0, &[warning, words, "converged: 1 change"]);
    let status = machine.agent(&["status"])?;
    expect(&status, 0, &[warning, words]);
    let report: serde_json::Value = serde_json::from_str(&machine.agent(&["status", "--json"])?.stdout)?;
    let said = report["steps"][0]["resources"][0]["warnings"][0].as_str().unwrap_or_default().to_owned();
    assert!(said.starts_with("the repository http://third.test could not be updated"), "{said}");
    assert!(said.contains(words), "{said}");
    Ok(())
}

#[test]
fn a_third_partys_dead_repository_is_a_warning() -> Result<()> {
    let (machine, _) = machine()?;
    machine.world().fault("third.test", usize::MAX, Fault::status(503));
    expect_warning(&machine, &run(&machine, HELLO)?, "503")?;
    // Its name is gone: that of the company, a year after it was bought.
    machine.sh(
        "dpkg --purge glovo-test-hello > /dev/null; sed -i s/third.test/gone.test/ /etc/apt/sources.list.d/third.list",
    )?;
    expect(&run(&machine, HELLO)?, 0, &["warning: the repository http://gone.test could not be updated"]);
    Ok(())
}

#[test]
fn a_third_partys_rotated_key_is_a_warning() -> Result<()> {
    let (machine, _) = machine()?;
    let other = Signer::new(machine.directory(), "other")?;
    other.publish(machine.world(), "third.test", "glovo-test-third", "2.0")?;
    expect_warning(&machine, &run(&machine, HELLO)?, "NO_PUBKEY")
}

#[test]
fn a_package_of_a_failed_third_party_is_not_installed() -> Result<()> {
    let (machine, third) = machine()?;
    // The lists of an earlier update are there, and name it.
    machine.world().fault("third.test.*InRelease", usize::MAX, Fault::status(503));
    let stale = run(&machine, &package("glovo-test-third"))?;
    expect(&stale, 75, &["glovo-test-third_1.0_all.deb is in a repository that could not be updated", "503"]);
    // A newer version there than in the distribution's own, likewise.
    machine.world().clear_faults();
    third.publish(machine.world(), "third.test", "glovo-test-hello", "3.0")?;
    machine.sh("apt-get -qq update; touch /etc/apt/sources.list")?;
    let other = Signer::new(machine.directory(), "other")?;
    other.publish(machine.world(), "third.test", "glovo-test-hello", "4.0")?;
    let rotated = run(&machine, HELLO)?;
    expect(&rotated, 1, &["glovo-test-hello_3.0_all.deb is in a repository that could not be updated", "NO_PUBKEY"]);
    let said = format!("{}{}", rotated.stdout, rotated.stderr);
    assert!(!said.contains("apt_repository"), "the manifest has none: {said}");
    machine.sh("! dpkg-query --show glovo-test-hello glovo-test-third 2> /dev/null")?;
    // In no list at all: both facts are said.
    machine.sh("rm /var/lib/apt/lists/third*")?;
    let unknown = run(&machine, &package("glovo-test-third"))?;
    expect(&unknown, 1, &["Unable to locate package glovo-test-third", "NO_PUBKEY"]);
    Ok(())
}

#[test]
fn a_cached_archive_of_a_failed_third_party_is_not_installed() -> Result<()> {
    let (machine, _) = machine()?;
    machine.sh(
        "apt-get -qq --yes --download-only install glovo-test-third && ls /var/cache/apt/archives/glovo-test-third_*",
    )?;
    machine.world().fault("third.test.*InRelease", usize::MAX, Fault::status(503));
    let needed = "glovo-test-third_1.0_all.deb is in a repository that could not be updated";
    expect(&run(&machine, &package("glovo-test-third"))?, 75, &[needed, "503"]);
    machine.sh("! dpkg-query --show glovo-test-third 2> /dev/null")?;
    Ok(())
}

#[test]
fn a_later_installation_knows_of_a_third_party_that_failed() -> Result<()> {
    let (machine, _) = machine()?;
    machine.world().fault("third.test.*InRelease", usize::MAX, Fault::status(503));
    let both = HELLO.to_owned() + &package("glovo-test-third");
    let needed = "glovo-test-third_1.0_all.deb is in a repository that could not be updated";
    expect(&run(&machine, &both)?, 75, &[needed, "503"]);
    expect(&run(&machine, &both)?, 75, &[needed, "503"]);
    machine.sh("dpkg-query --show glovo-test-hello && ! dpkg-query --show glovo-test-third 2> /dev/null")?;
    machine.world().clear_faults();
    expect(&run(&machine, &both)?, 0, &["converged: 1 change"]);
    Ok(())
}

#[test]
fn a_blocked_security_archive_installs_nothing() -> Result<()> {
    let (machine, _) = machine()?;
    machine.world().fault("third.test", usize::MAX, Fault::status(503));
    machine.world().fault("debian-security.*InRelease", usize::MAX, Fault::status(403));
    expect(&run(&machine, HELLO)?, 1, &["403", "the mirror refuses"]);
    // Though apt has touched its lists meanwhile, they are no newer.
    expect(&run(&machine, HELLO)?, 1, &["403", "the mirror refuses"]);
    machine.sh("! dpkg-query --show glovo-test-hello 2> /dev/null")?;
    Ok(())
}

#[test]
fn a_declared_repository_that_fails_is_a_failure() -> Result<()> {
    let (machine, _) = machine()?;
    let repository = "[[resource]]\nkind = \"apt_repository\"\nname = \"extra\"\nuris = [\"http://apt.test\"]\n\
                      suites = [\"stable\"]\ncomponents = [\"main\"]\nkey = \"/root/key.asc\"\n";
    let digest = machine.sh("curl -fsS http://apt.test/key.asc | tee /root/key.asc | sha256sum")?;
    let digest = digest.split_whitespace().next().unwrap_or_default();
    let repository = format!("{repository}key_sha256 = \"{digest}\"\n");
    expect(&run(&machine, &repository)?, 0, &["converged: 1 change"]);
    machine.world().fault("apt.test.*InRelease", usize::MAX, Fault::status(503));
    machine.sh("touch /etc/apt/sources.list")?;
    expect(&run(&machine, &(repository + HELLO))?, 75, &["503", "gave up after"]);
    Ok(())
}
