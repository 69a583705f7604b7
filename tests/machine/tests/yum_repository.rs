//! The kind `yum_repository` on a machine whose only package manager is dnf.

use std::fs;

use anyhow::{Context, Result, ensure};
use machine::step::{agent, converge, expect, refused, run};
use machine::{Machine, Options, Release};

const EXTRA: &str = "[[resource]]\nkind = \"package\"\nnames = [\"glovo-test-extra\"]\n";
const FILE: &str = "/etc/yum.repos.d/extra.repo";
const KEY: &str = "/etc/pki/rpm-gpg/extra.asc";

fn machine() -> Result<Machine> {
    Machine::boot(Options { release: Release::Amazon, ..Options::default() })
}

/// Declares a repository of `rpm.test` under the name `extra`, with a key of that host and its digest.
fn repository(machine: &Machine, name: &str, key: &str, fields: &str) -> Result<String> {
    let digest = machine.sh(&format!("curl -fsS http://rpm.test/{key} | sha256sum"))?;
    let digest = digest.split_whitespace().next().unwrap_or_default();
    Ok(format!(
        "[[resource]]\nkind = \"yum_repository\"\nname = \"extra\"\nbaseurl = [\"http://rpm.test/{name}/\"]\n\
         key = \"http://rpm.test/{key}\"\nkey_sha256 = \"{digest}\"\n{fields}\n"
    ))
}

/// Fails if a file of a repository or of its trial is there.
fn nothing_is_left(machine: &Machine) -> Result<()> {
    _ = machine.sh(&format!("! ls -d {FILE} {KEY} /run/glovo-bootstrap-extra* 2> /dev/null"))?;
    Ok(())
}

#[test]
fn a_repository_is_added_and_its_packages_are_installed() -> Result<()> {
    let machine = machine()?;
    let stable = repository(&machine, "stable", "key.asc", "priority = 20\nexclude = [\"kernel*\"]")?;
    expect(&agent(&machine, "plan", &stable)?, 0, &["yum_repository extra: add http://rpm.test/stable/"]);
    nothing_is_left(&machine)?;
    converge(&machine, &(stable.clone() + EXTRA), &["add http://rpm.test/stable/", "install glovo-test-extra"])?;
    _ = machine.sh("rpm -q glovo-test-extra; ! ls -d /run/glovo-bootstrap-extra* 2> /dev/null")?;
    let text = fs::read_to_string(machine.path(FILE))?;
    for line in ["[extra]", "gpgcheck=1", "repo_gpgcheck=1", "gpgkey=file:///etc/pki/rpm-gpg/extra.asc", "priority=20"]
    {
        ensure!(text.lines().any(|other| other == line), "{line} is missing:\n{text}");
    }
    // Nothing is started when nothing differs.
    _ = machine.sh("mv /usr/bin/dnf /usr/bin/dnf.away; mv /usr/bin/rpm /usr/bin/rpm.away")?;
    expect(&run(&machine, &(stable.clone() + EXTRA))?, 0, &["converged: 0 changes"]);
    _ = machine.sh("mv /usr/bin/dnf.away /usr/bin/dnf; mv /usr/bin/rpm.away /usr/bin/rpm")?;
    for (drift, words) in [
        (format!("sed -i s/^gpgcheck=1/gpgcheck=0/ {FILE}"), "change to http://rpm.test/stable/"),
        (format!("rm {FILE}"), "add http://rpm.test/stable/"),
        (format!("rm {KEY}"), "replace the key by http://rpm.test/key.asc"),
        (format!("curl -fsS http://rpm.test/expired.asc > {KEY}"), "replace the key by http://rpm.test/key.asc"),
        (format!("chmod 666 {FILE}"), "add http://rpm.test/stable/"),
    ] {
        _ = machine.sh(&drift)?;
        converge(&machine, &stable, &[words]).context(drift)?;
    }
    // The key of another repository under the same name was trusted before.
    let other = repository(&machine, "other-index", "key.asc", "")?;
    expect(&run(&machine, &other)?, 1, &["Bad GPG signature"]);
    ensure!(fs::read_to_string(machine.path(FILE))? == text, "the repository in place stays");
    Ok(())
}

#[test]
fn a_repository_that_cannot_be_trusted_is_refused() -> Result<()> {
    let machine = machine()?;
    for (name, key, code, words) in [
        (
            "unsigned-index",
            "key.asc",
            1,
            &["GPG signature is not available", "use a repository with a signed index"][..],
        ),
        ("other-index", "key.asc", 1, &["Bad GPG signature", "add no key from the repository's server"]),
        ("tampered-index", "key.asc", 1, &["Bad GPG signature", "the index was changed on the way"]),
        ("tampered-list", "key.asc", 75, &["checksum doesn't match", "gave up after 4 attempts"]),
        ("expired", "expired.asc", 1, &["refusing the key from http://rpm.test/expired.asc", "expired at 2020-12-31"]),
        ("stable", "expired.asc", 1, &["expired at 2020-12-31"]),
        ("nowhere", "key.asc", 1, &["there is no repository at this address"]),
    ] {
        let declared = repository(&machine, name, key, "")? + EXTRA;
        expect(&run(&machine, &declared)?, code, words);
        nothing_is_left(&machine).context(name)?;
    }
    let stable = repository(&machine, "stable", "key.asc", "")?;
    let wrong = stable.replace("http://rpm.test/key.asc", "http://rpm.test/expired.asc");
    expect(&run(&machine, &wrong)?, 1, &["the sha256 of the 945 bytes is"]);
    nothing_is_left(&machine)?;
    for (name, words) in [
        ("unsigned-package", "noarch.rpm of the repository extra (/etc/yum.repos.d/extra.repo) is not signed"),
        ("other-package", "Import of key(s) didn't help, wrong key(s)?"),
        ("damaged-package", "Problem opening package glovo-test-extra-1.0-1.amzn2023.noarch.rpm"),
    ] {
        let declared = repository(&machine, name, "key.asc", "")? + EXTRA;
        expect(&run(&machine, &declared)?, 1, &[words]);
        _ = machine.sh(&format!("rm {FILE} {KEY}; ! rpm -q glovo-test-extra"))?;
    }
    fs::write(machine.path("/etc/yum.repos.d/alone.repo"), "[extra]\nname=x\nbaseurl=file:///x\n")?;
    refused(&machine, &stable, &["/etc/yum.repos.d/alone.repo has a repository with the id extra already"])
}

#[test]
fn an_index_without_a_signature_is_allowed_by_a_word() -> Result<()> {
    let machine = machine()?;
    // The repository is on the machine, because http does not protect an unsigned index.
    _ = machine.sh("mkdir -p /srv/extra/repodata; cd /srv/extra; base=http://rpm.test/unsigned-index
         curl -fsSO $base/glovo-test-extra-1.0-1.amzn2023.noarch.rpm
         curl -fsS $base/repodata/repomd.xml -o repodata/repomd.xml
         for file in $(grep -o 'repodata/[^\"]*' repodata/repomd.xml); do curl -fsS $base/$file -o $file; done")?;
    let local = repository(&machine, "x", "key.asc", "")?.replace("http://rpm.test/x/", "file:///srv/extra");
    expect(&run(&machine, &local)?, 1, &["GPG signature is not available"]);
    converge(&machine, &(local + "repo_gpgcheck = false\n" + EXTRA), &["install glovo-test-extra"])?;
    _ = machine.sh(&format!("grep -qx repo_gpgcheck=0 {FILE}; grep -qx gpgcheck=1 {FILE}"))?;
    Ok(())
}

#[test]
fn a_url_with_a_secret_is_only_in_a_private_file() -> Result<()> {
    let machine = machine()?;
    _ = machine.sh("mkdir -p /srv/canary-7461; printf 'place = \"canary-7461\"\\n' > /root/secret.toml; chmod 600 /root/secret.toml
         cd /srv/canary-7461; mkdir repodata; base=http://rpm.test/stable
         for file in repomd.xml repomd.xml.asc; do curl -fsS $base/repodata/$file -o repodata/$file; done
         for file in $(grep -o 'repodata/[^\"]*' repodata/repomd.xml); do curl -fsS $base/$file -o $file; done")?;
    let declared = repository(&machine, "x", "key.asc", "")?.replace("http://rpm.test/x/", "file:///srv/{{ place }}/");
    fs::write(machine.path("/root/manifest.toml"), format!("name = \"step\"\n{declared}"))?;
    let run = || machine.agent(&["run", "--variables", "/root/secret.toml", "--steps", "/root/manifest.toml"]);
    let first = run()?;
    expect(&first, 0, &["yum_repository extra: add file:///srv/"]);
    ensure!(!format!("{first:?}").contains("canary-7461"), "{first:?}");
    let mode = machine.sh(&format!("stat -c '%a %U' {FILE}; grep -c canary-7461 {FILE}"))?;
    ensure!(mode == "600 root\n1\n", "{mode}");
    expect(&run()?, 0, &["converged: 0 changes"]);
    Ok(())
}

#[test]
fn a_password_is_only_in_a_private_file() -> Result<()> {
    let machine = machine()?;
    let declared = repository(&machine, "x", "key.asc", "username = \"app\"\npassword = \"canary-7461\"")?
        .replace("http://rpm.test/x/", "file:///srv/extra");
    _ = machine.sh(
        "curl -fsS http://rpm.test/stable/ -o /dev/null || :; mkdir -p /srv/extra/repodata; cd /srv/extra
         base=http://rpm.test/stable
         for file in repomd.xml repomd.xml.asc; do curl -fsS $base/repodata/$file -o repodata/$file; done
         for file in $(grep -o 'repodata/[^\"]*' repodata/repomd.xml); do curl -fsS $base/$file -o $file; done",
    )?;
    converge(&machine, &declared, &["add file:///srv/extra"])?;
    let said = machine.sh(&format!(
        "stat -c '%a %U' {FILE}; grep -c canary-7461 {FILE}
         grep -rl canary-7461 /var/log /var/lib/glovo-bootstrap /run /var/lib/dnf 2> /dev/null || :"
    ))?;
    ensure!(said == "600 root\n1\n", "{said}");
    Ok(())
}
