//! Transactions of dnf that died: the next run sees and repairs them.

use std::fs;

use anyhow::{Result, ensure};
use machine::Machine;
use machine::made::{Made, REPOSITORY, machine, made, package, publish, state};
use machine::step::{converge, expect, run};

/// Starts dnf, and kills it in the script of a package.
fn killed_in_post(machine: &Machine, command: &str) -> Result<()> {
    _ = machine.sh(&format!(
        "rm -f /run/ran; touch /run/hang; systemd-run --quiet --collect --unit=dying {command}; \
         until [ -e /run/hangs ]; do sleep 0.1; done; systemctl kill --signal=KILL dying; \
         while systemctl --quiet is-active dying; do sleep 0.1; done; rm -f /run/hang /run/hangs"
    ))?;
    Ok(())
}

/// Hangs once, if asked to, and then leaves a mark.
const POST: &str = "if [ -e /run/hang ]; then touch /run/hangs; sleep 1000; fi\necho $1 >> /run/ran";

#[test]
fn a_transaction_that_died_is_seen_and_repaired() -> Result<()> {
    let dependency = Made { post: POST, ..made("dependency", "1.0") };
    let app = Made { fields: "Requires: dependency", post: POST, ..made("app", "1.0") };
    let machine = machine(&[dependency, app])?;
    // dnf by hand dies in the script of the declared package's dependency.
    killed_in_post(&machine, "dnf -y install dependency")?;
    ensure!(state(&machine, "dependency")?.starts_with("dependency-1.0"), "rpm calls it installed");
    let declared = package("names = [\"dependency\"]");
    converge(&machine, &declared, &["reinstall dependency (its installation was interrupted)"])?;
    ensure!(machine.sh("cat /run/ran")? == "2\n", "its script ran once");
    // An upgrade that dies leaves two versions.
    publish(&machine, &[Made { post: POST, ..made("dependency", "2.0") }])?;
    killed_in_post(&machine, "dnf -y upgrade --refresh dependency")?;
    ensure!(state(&machine, "dependency")?.lines().count() == 2);
    converge(&machine, &declared, &["remove the old versions of dependency, which an interrupted upgrade left"])?;
    ensure!(state(&machine, "dependency")? == "dependency-2.0-1.test.noarch\n");
    ensure!(machine.sh("cat /run/ran")?.lines().count() == 1, "its script ran once");
    // This program's own dnf dies with a package that only a dependency brings.
    _ = machine.sh("rpm -e dependency")?;
    fs::write(machine.path("/root/app.toml"), format!("name = \"step\"\n{}", package("names = [\"app\"]")))?;
    killed_in_post(&machine, "/usr/local/bin/glovo-bootstrap run --steps /root/app.toml")?;
    converge(&machine, &package("names = [\"app\"]"), &["reinstall dependency, whose installation was interrupted"])?;
    ensure!(machine.sh("cat /run/ran")?.lines().count() == 2, "both scripts ran once");
    // Meanwhile the repository has lost the version.
    _ = machine.sh("rpm -e app dependency")?;
    killed_in_post(&machine, "/usr/local/bin/glovo-bootstrap run --steps /root/app.toml")?;
    _ = machine.sh(&format!("rm {REPOSITORY}/dependency-*"))?;
    publish(&machine, &[])?;
    _ = machine.sh("dnf makecache --refresh")?;
    expect(
        &run(&machine, &package("names = [\"app\"]"))?,
        1,
        &["the repositories no longer have it", "dnf remove dep"],
    );
    publish(&machine, &[Made { post: POST, ..made("dependency", "3.0") }])?;
    _ = machine.sh("dnf makecache --refresh")?;
    converge(&machine, &package("names = [\"app\"]"), &["reinstall dependency, whose installation was interrupted"])
}

#[test]
fn a_removal_that_died_is_finished_or_undone() -> Result<()> {
    let postun = format!("%postun\n{POST}");
    let machine = machine(&[Made { fields: &postun, ..made("app", "1.0") }])?;
    let (present, absent) = (package("names = [\"app\"]"), package("names = [\"app\"]\nabsent = true"));
    converge(&machine, &present, &["install app"])?;
    let dies = |command: &str| -> Result<()> {
        killed_in_post(&machine, command)?;
        let files = machine.sh("ls /usr/share/made/app 2> /dev/null || :")?;
        ensure!(files.is_empty() && state(&machine, "app")?.starts_with("app-1.0"), "rpm calls it installed");
        Ok(())
    };
    dies("dnf -y remove app")?;
    converge(&machine, &present, &["reinstall app (its removal was interrupted)"])?;
    _ = machine.sh("cat /usr/share/made/app")?;
    dies("dnf -y remove app")?;
    converge(&machine, &absent, &["remove app 1.0-1.test"])?;
    ensure!(state(&machine, "app")?.contains("not installed"));
    converge(&machine, &present, &["install app"])?;
    // This program's own dnf dies.
    fs::write(machine.path("/root/app.toml"), format!("name = \"step\"\n{absent}"))?;
    dies("/usr/local/bin/glovo-bootstrap run --steps /root/app.toml")?;
    converge(&machine, &absent, &["remove app 1.0-1.test"])
}
