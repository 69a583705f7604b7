//! Repositories that fail, on a machine whose only package manager is dnf; and what an upgrade says of them.

use std::fs;

use anyhow::{Result, ensure};
use machine::made::{REPOSITORY, machine, made, publish};
use machine::step::{agent, expect, run};
use machine::{Fault, Machine, Options, Release};

const APP: &str = "[[resource]]\nkind = \"package\"\nnames = [\"app\"]\n";
const EXTRA: &str = "[[resource]]\nkind = \"package\"\nnames = [\"glovo-test-extra\"]\n";
const UPGRADE: &str = "phase = \"boot\"\n[[resource]]\nkind = \"upgrade\"\nscope = \"all\"\n";
const NOWHERE: &str = "baseurl=http://rpm.test/nowhere";
const WARNING: &str =
    "warning: the repository third (/etc/yum.repos.d/third.repo) could not be updated; nothing is installed from it: ";

/// Writes the file of a third party's repository.
fn third(machine: &Machine, fields: &str) -> Result<()> {
    let text = format!("[third]\nname=third\ngpgcheck=0\n{fields}\n");
    Ok(fs::write(machine.path("/etc/yum.repos.d/third.repo"), text)?)
}

#[test]
fn a_dead_third_party_is_a_warning_for_dnf() -> Result<()> {
    let machine = machine(&[made("app", "1.0")])?;
    third(&machine, NOWHERE)?;
    let words = [WARNING, "it: Status code: 404 for http://rpm.test/nowhere/", "converged: 1 change"];
    expect(&run(&machine, APP)?, 0, &words);
    expect(&machine.agent(&["status"])?, 0, &[WARNING]);
    // No server answers.
    _ = machine.sh("rpm -e app")?;
    third(&machine, "baseurl=http://127.0.0.1:1/")?;
    expect(&run(&machine, APP)?, 0, &[WARNING, "it: Curl error (7)", "converged: 1 change"]);
    // An upgrade that needs nothing of it.
    third(&machine, NOWHERE)?;
    publish(&machine, &[made("app", "2.0")])?;
    expect(&run(&machine, UPGRADE)?, 0, &[WARNING, "upgrade 1 package: app 2.0-1.test (now 1.0-1.test)"]);
    expect(&run(&machine, UPGRADE)?, 0, &["converged: 0 changes"]);
    Ok(())
}

#[test]
fn a_dead_third_party_is_the_cause_of_what_is_missing() -> Result<()> {
    let machine = machine(&[made("app", "1.0")])?;
    third(&machine, NOWHERE)?;
    for name in ["glovo-test-extra", "glovo-test-extra=1.*"] {
        let failed = run(&machine, &EXTRA.replace("glovo-test-extra", name))?;
        expect(
            &failed,
            1,
            &["Status code: 404 for http://rpm.test/nowhere/", "there is no repository at this address"],
        );
        ensure!(!failed.stderr.contains("correct the name"), "{failed:?}");
    }
    // The working repository has the version since a moment.
    _ = machine.sh("dnf -y makecache --setopt=third.skip_if_unavailable=1")?;
    publish(&machine, &[made("app", "2.0")])?;
    expect(&run(&machine, &APP.replace("app", "app=2.0"))?, 0, &[WARNING, "converged: 1 change"]);
    // A failure of another kind keeps its own cause.
    _ = machine.sh(&format!("rpm -e app; rm {REPOSITORY}/app-2.0-1.test.noarch.rpm"))?;
    let failed = run(&machine, &APP.replace("app", "app=2.0"))?;
    ensure!(!failed.stderr.contains("there is no repository at this address"), "{failed:?}");
    // Its own file decides.
    third(&machine, &format!("{NOWHERE}\nskip_if_unavailable=0"))?;
    expect(&run(&machine, APP)?, 1, &["Failed to download metadata for repo 'third'"]);
    Ok(())
}

#[test]
fn the_distributions_own_repository_must_not_fail() -> Result<()> {
    let machine = machine(&[made("app", "1.0")])?;
    _ = machine.sh("rm -rf /var/cache/dnf/*")?;
    third(&machine, NOWHERE)?;
    machine.world().fault("^GET cdn.amazonlinux.com/", 1000, Fault::status(503));
    for resources in [APP, UPGRADE] {
        expect(&run(&machine, resources)?, 75, &["Status code: 503 for http://cdn.amazonlinux.com/", "gave up after"]);
    }
    machine.world().clear_faults();
    expect(&run(&machine, APP)?, 0, &["converged: 1 change"]);
    Ok(())
}

#[test]
fn a_run_names_the_upgrades_of_new_lists() -> Result<()> {
    let machine = Machine::boot(Options { release: Release::Amazon, ..Options::default() })?;
    _ = machine.sh("dnf -y install glovo-test-hello; rm -r /var/cache/dnf")?;
    expect(&agent(&machine, "plan", UPGRADE)?, 0, &["update the package lists, and install the upgrades"]);
    expect(&run(&machine, UPGRADE)?, 0, &["converged: 0 changes"]);
    let wrong = format!("{UPGRADE}release = \"2023.10.20991231\"\n");
    let words = ["the repositories have no release 2023.10.20991231", "to list the releases: dnf check-release-update"];
    expect(&run(&machine, &wrong)?, 1, &words);
    let release = format!("{UPGRADE}release = \"2023.10.20260105\"\n");
    expect(&agent(&machine, "plan", &release)?, 0, &["update the package lists of release 2023.10.20260105"]);
    let words = "upgrade 1 package: glovo-test-hello 3.0-1.amzn2023 (now ";
    expect(&run(&machine, &release)?, 0, &[words, "converged: 1 change"]);
    let report = machine.agent(&["status", "--json"])?.stdout;
    ensure!(report.contains(words), "{report}");
    expect(&run(&machine, &release)?, 0, &["converged: 0 changes"]);
    Ok(())
}
