//! The kinds about packages on a machine whose only package manager is dnf.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use machine::made::{Made, REPOSITORY, machine, made, publish, repository, rpm};
use machine::step::{agent, converge, expect, refused, run};
use machine::{Fault, Machine, Options, Release};

/// Signs the index of the test's repository with a new key, which is at `/root/key`.
fn sign_index(machine: &Machine) -> Result<()> {
    let index = machine.path(&format!("{REPOSITORY}/repodata/repomd.xml"));
    let script = "export GNUPGHOME=$1/gnupg; mkdir -m 700 $GNUPGHOME; gpg --batch --quiet --passphrase '' --quick-generate-key \
                  made@machine.test rsa2048 sign never; gpg --batch --armor --export made@machine.test > $3; \
                  gpg --batch --armor --detach-sign --output $2.asc $2; gpgconf --kill all";
    let mut sign = Command::new("sh");
    _ = sign.args(["-euc", script, "sh"]).arg(machine.directory()).arg(index).arg(machine.path("/root/key"));
    let signed = sign.output()?;
    ensure!(signed.status.success(), "{signed:?}");
    Ok(())
}

fn package(fields: &str) -> String {
    format!("[[resource]]\nkind = \"package\"\n{fields}\n")
}

/// Returns what rpm says of a package.
fn state(machine: &Machine, name: &str) -> Result<String> {
    Ok(machine.exec(&["rpm", "-q", name])?.stdout)
}

#[test]
fn packages_are_installed_by_names_of_this_family() -> Result<()> {
    let provider = Made { fields: "Provides: made-virtual", ..made("Provider_x", "1.0") };
    let machine = machine(&[
        made("Made_App", "1.0"),
        made("made-old", "1.0"),
        made("made-old", "1.2"),
        made("made-old", "2.0"),
        made("made-wild", "1.9"),
        made("made-wild", "1.10"),
        made("made-wild", "2.0"),
        provider,
    ])?;
    let all = package(
        "names = [\"Made_App.noarch\", \"made-old=1.2\", \"made-wild=1.*\", \"Provider_x\", \"glovo-test-hello=2.0-1.amzn2023\"]",
    );
    expect(
        &run(&machine, &all)?,
        0,
        &["install Made_App.noarch, made-old=1.2, made-wild=1.*, Provider_x, glovo-test-hello=2.0-1.amzn2023"],
    );
    for (name, version) in [("Made_App", "1.0"), ("made-old", "1.2"), ("made-wild", "1.10")] {
        let state = state(&machine, name)?;
        ensure!(state == format!("{name}-{version}-1.test.noarch\n"), "{state}");
    }
    // What an installed package provides is enough. Nothing is started when nothing differs.
    _ = machine.sh("rm /usr/bin/dnf /usr/bin/rpm")?;
    let again = all + &package("names = [\"made-virtual\"]");
    expect(&run(&machine, &again)?, 0, &["converged: 0 changes"]);
    let other = package("names = [\"made-old=1.0\"]");
    expect(&agent(&machine, "plan", &other)?, 0, &["install made-old=1.0 (now 1.2-1.test)"]);
    Ok(())
}

#[test]
fn a_version_is_changed_in_both_directions() -> Result<()> {
    let machine = machine(&[made("app", "1.0"), made("app", "1.2"), made("app", "2.0")])?;
    converge(&machine, &package("names = [\"app=1.2\"]"), &["install app=1.2"])?;
    converge(&machine, &package("names = [\"app=2.*\"]"), &["install app=2.0-1.test (declared 2.*, now 1.2-1.test)"])?;
    refused(
        &machine,
        &package("names = [\"app=1.*\"]"),
        &["app=1.* would downgrade app from 2.0-1.test to 1.2-1.test"],
    )?;
    converge(&machine, &package("names = [\"app=1.0\"]"), &["install app=1.0 (now 2.0-1.test)"])
}

#[test]
fn an_installation_that_fails_tells_its_cause() -> Result<()> {
    let machine = machine(&[
        Made { fields: "Requires: nowhere >= 3", ..made("broken", "1.0") },
        made("loser", "1.0"),
        Made { fields: "Conflicts: loser", ..made("winner", "1.0") },
        Made { fields: "Obsoletes: loser < 2", ..made("heir", "1.0") },
        Made { fields: "%posttrans\nseq 5000", post: "echo 'useradd: no'\nexit 3", ..made("badpost", "1.0") },
        Made { fields: "%pre\necho 'useradd: no'\nexit 4", ..made("badpre", "1.0") },
    ])?;
    expect(
        &run(&machine, &package("names = [\"nosuch\"]"))?,
        1,
        &["No match for argument: nosuch", "correct the name"],
    );
    let wild = package("names = [\"heir=9.*\"]");
    expect(&run(&machine, &wild)?, 1, &["no version fits to heir=9.*: the package lists have 1.0-1.test"]);
    expect(
        &run(&machine, &package("names = [\"broken\"]"))?,
        1,
        &["nothing provides nowhere >= 3", "declare the repository"],
    );
    expect(
        &run(&machine, &package("names = [\"badpre\"]"))?,
        1,
        &["useradd: no", "scriptlet failed", "output of the package's script"],
    );
    expect(
        &run(&machine, &package("names = [\"badpost\"]"))?,
        0,
        &["the script post(badpost-1.0-1.test.noarch) failed", "the script said: useradd: no"],
    );
    expect(&run(&machine, &package("names = [\"loser\"]"))?, 1, &["dnf has installed another package for loser"]);
    _ = machine.sh("rpm -e heir; dnf -y --exclude=heir install loser")?;
    let both = package("names = [\"loser\"]") + &package("names = [\"winner\"]");
    expect(&run(&machine, &both)?, 1, &["protected packages: loser"]);
    let both = package("names = [\"loser\"]") + &package("names = [\"heir\"]");
    expect(&run(&machine, &both)?, 1, &["protected packages: loser"]);
    expect(&run(&machine, &package("names = [\"heir\"]"))?, 0, &["the installation removed loser"]);
    Ok(())
}

#[test]
fn a_machine_that_dnf_cannot_work_on_is_told() -> Result<()> {
    let machine = machine(&[made("app", "1.0")])?;
    let app = package("names = [\"app\"]");
    for directory in ["/var/lib/rpm", "/var/lib/dnf", "/var/cache/dnf", "/var/log"] {
        _ = machine.sh(&format!("mount --bind {directory} {directory}; mount -o remount,bind,ro {directory}"))?;
        expect(&run(&machine, &app)?, 1, &[&format!("the file system of {directory} is mounted read-only")]);
        _ = machine.sh(&format!("umount {directory}"))?;
    }
    for (option, words) in [("assumeno=1", "remove `assumeno`"), ("tsflags=test", "but app is not installed")] {
        _ = machine.sh(&format!("cp /etc/dnf/dnf.conf /root; echo {option} >> /etc/dnf/dnf.conf"))?;
        expect(&run(&machine, &app)?, 1, &[words]);
        _ = machine.sh("mv /root/dnf.conf /etc/dnf/dnf.conf")?;
    }
    _ = machine.sh("mkdir -p /var/lib/dnf; rm -f /var/lib/dnf/history*; touch /var/lib/dnf/history.sqlite")?;
    expect(&agent(&machine, "plan", &app)?, 0, &["install app"]);
    _ = machine.sh("echo garbage of more than a hundred bytes > /var/lib/dnf/history.sqlite")?;
    refused(&machine, &package("names = [\"dnf\"]"), &["dnf's history cannot be read", "move it aside"])?;
    _ = machine.sh("truncate -s 50000 /var/lib/rpm/rpmdb.sqlite")?;
    refused(&machine, &app, &["the database of rpm cannot be read", "rpm --verifydb"])
}

#[test]
fn a_mirror_that_fails_is_no_missing_version() -> Result<()> {
    let machine = machine(&[])?;
    let url = "baseurl=http://user:hunter2@rpm.test/stable\ngpgcheck=0";
    repository(&machine, url)?;
    machine.world().fault("^GET rpm.test/stable/", 1000, Fault::status(503));
    for name in ["glovo-test-extra=1.*", "glovo-test-extra"] {
        let failed = run(&machine, &package(&format!("names = [\"{name}\"]")))?;
        expect(
            &failed,
            75,
            &["Status code: 503 for http://user:***@rpm.test/stable", "wait for the overloaded mirror"],
        );
        ensure!(!format!("{failed:?}").contains("hunter2"), "{failed:?}");
    }
    machine.world().clear_faults();
    converge(&machine, &package("names = [\"glovo-test-extra=1.*\"]"), &["install glovo-test-extra=1.*"])
}

#[test]
fn an_untrusted_repository_is_refused_with_its_cause() -> Result<()> {
    let machine = machine(&[made("app", "1.0")])?;
    let app = package("names = [\"app\"]");
    repository(&machine, &format!("baseurl=file://{REPOSITORY}\ngpgcheck=1"))?;
    expect(&run(&machine, &app)?, 1, &["Problem repository: [made]", "declare the key"]);
    let amazon = "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-amazon-linux-2023";
    repository(&machine, &format!("baseurl=file://{REPOSITORY}\ngpgcheck=1\n{amazon}"))?;
    expect(&run(&machine, &app)?, 1, &["app-1.0-1.test.noarch.rpm is not signed", "use signed packages"]);
    repository(&machine, &format!("baseurl=file://{REPOSITORY}\ngpgcheck=0\nrepo_gpgcheck=1\n{amazon}"))?;
    expect(&run(&machine, &app)?, 1, &["GPG signature is not available", "use a repository with a signed index"]);
    sign_index(&machine)?;
    expect(&run(&machine, &app)?, 1, &["Bad GPG signature", "declare the key that signs the repository"]);
    repository(
        &machine,
        &format!("baseurl=file://{REPOSITORY}\ngpgcheck=0\nrepo_gpgcheck=1\ngpgkey=file:///root/key"),
    )?;
    converge(&machine, &app, &["install app"])?;
    _ = machine.sh(&format!("rpm -e app; rm -r /var/cache/dnf; echo ' ' >> {REPOSITORY}/repodata/repomd.xml"))?;
    expect(&run(&machine, &app)?, 1, &["Bad GPG signature", "declare the key that signs the repository"]);
    repository(&machine, "baseurl=file:///srv/none\ngpgcheck=0")?;
    expect(&run(&machine, &app)?, 1, &["there is no repository at this address"]);
    // A repository that may be skipped is told too.
    repository(&machine, "baseurl=file:///srv/none\ngpgcheck=0\nskip_if_unavailable=1")?;
    expect(&run(&machine, &app)?, 1, &["there is no repository at this address"]);
    let other = package("names = [\"glovo-test-hello\"]");
    expect(&run(&machine, &other)?, 0, &["the lists of made could not be updated"]);
    ensure!(state(&machine, "app")?.contains("not installed"));
    Ok(())
}

#[test]
fn locks_are_waited_for_and_their_holders_are_named() -> Result<()> {
    let machine = machine(&[made("app", "1.0"), made("other", "1.0"), made("third", "1.0"), made("fourth", "1.0")])?;
    let lock = "import fcntl, time; file = open('/var/lib/rpm/.rpm.lock', 'r+'); \
                fcntl.lockf(file, fcntl.LOCK_EX); open('/run/held', 'w'); time.sleep(600)";
    is_waited_for(
        &machine,
        "app",
        &format!("python3 -c \"{lock}\""),
        "/var/lib/rpm/.rpm.lock",
        "(/usr/bin/python3 -c import",
    )?;
    for (name, file) in [("other", "/var/lib/dnf/rpmdb_lock.pid"), ("third", "/var/cache/dnf/metadata_lock.pid")] {
        let dnf = format!("bash -c 'echo -n $$$$ > {file}; touch /run/held; exec -a dnf-automatic sleep 600'");
        is_waited_for(&machine, name, &dnf, file, "(dnf-automatic 600)")?;
    }
    // The pid of a process that has nothing to do with dnf: dnf alone would wait for its end.
    _ = machine.sh("echo -n 1 > /var/lib/dnf/rpmdb_lock.pid; echo -n 4194305 > /var/cache/dnf/metadata_lock.pid")?;
    expect(&run(&machine, &package("names = [\"fourth\"]"))?, 0, &["install fourth"]);
    Ok(())
}

/// A run waits for a lock that a process holds, and goes on when it is free. The pid file stays as the process left it.
fn is_waited_for(machine: &Machine, name: &str, holder: &str, lock: &str, command: &str) -> Result<()> {
    _ = machine.sh(&format!(
        "rm -f /run/held; systemd-run --quiet --collect --unit=holder {holder}; until [ -e /run/held ]; do sleep 0.1; done"
    ))?;
    let resource = package(&format!("names = [\"{name}\"]"));
    let words = [&*format!("{lock} is held by pid "), command];
    expect(&run(machine, &format!("timeout = \"1s\"\n{resource}"))?, 75, &words);
    _ = machine
        .sh("systemctl kill --signal=KILL holder; while systemctl --quiet is-active holder; do sleep 0.1; done")?;
    expect(&run(machine, &resource)?, 0, &[&format!("install {name}")]);
    Ok(())
}

#[test]
fn an_absent_package_is_removed_with_what_needs_it() -> Result<()> {
    let needs = Made { fields: "Requires: library", ..made("app", "1.0") };
    let machine = machine(&[made("library", "1.0"), needs, made("keep", "1.0")])?;
    converge(&machine, &package("names = [\"app\", \"keep\"]"), &["install app, keep"])?;
    let absent = package("names = [\"library\"]\nabsent = true");
    refused(
        &machine,
        &(absent.clone() + &package("names = [\"app\"]")),
        &["the removal would also remove app, which another resource declares"],
    )?;
    converge(&machine, &absent, &["remove library 1.0-1.test; also remove, because they need it, app 1.0-1.test"])?;
    ensure!(state(&machine, "keep")?.starts_with("keep-1.0"));
    // A dependency that no other package needs stays.
    _ = machine.sh("dnf -y install app")?;
    converge(&machine, &package("names = [\"app\"]\nabsent = true"), &["remove app 1.0-1.test"])?;
    ensure!(state(&machine, "library")?.starts_with("library-1.0"));
    refused(
        &machine,
        &package("names = [\"dnf\"]\nabsent = true"),
        &["remove dnf, but the system cannot work without it"],
    )?;
    fs::write(machine.path("/etc/dnf/protected.d/keep.conf"), "keep\n")?;
    refused(
        &machine,
        &package("names = [\"keep\"]\nabsent = true"),
        &["remove keep, but the system cannot work without it"],
    )
}

#[test]
fn a_hold_needs_the_plugin_and_is_its_list() -> Result<()> {
    let machine = machine(&[made("app", "1.0"), made("app", "2.0")])?;
    let held = package("names = [\"app=1.0\"]\nhold = true");
    expect(&run(&machine, &held)?, 1, &["plugin versionlock", "dnf install 'dnf-command(versionlock)'"]);
    // The plugin itself is no package of Debian 12's dnf; its list is what counts here.
    _ = machine.sh("mkdir -p /usr/lib/python3/dist-packages/dnf-plugins; touch /usr/lib/python3/dist-packages/dnf-plugins/versionlock.py")?;
    _ = machine.sh("cp /etc/dnf/dnf.conf /root; echo plugins=False >> /etc/dnf/dnf.conf")?;
    expect(&run(&machine, &held)?, 1, &["plugin versionlock, which is missing or disabled"]);
    _ = machine.sh("mv /root/dnf.conf /etc/dnf/dnf.conf")?;
    converge(&machine, &held, &["hold app"])?;
    let list = machine.sh("cat /etc/dnf/plugins/versionlock.list")?;
    ensure!(list == "app-0:1.0-1.test.*\n", "{list}");
    refused(&machine, &package("names = [\"app=2.0\"]"), &["app is held at version 1.0-1.test, but 2.0 is declared"])?;
    refused(&machine, &package("names = [\"app\"]\nabsent = true"), &["it is held", "dnf versionlock delete app"])?;
    converge(&machine, &package("names = [\"app=2.0\"]\nhold = true"), &["install app=2.0 (now 1.0-1.test)"])?;
    converge(&machine, &package("names = [\"app\"]\nhold = false"), &["release app from the hold"])?;
    let list = machine.sh("cat /etc/dnf/plugins/versionlock.list")?;
    ensure!(list.is_empty(), "{list}");
    Ok(())
}

fn package_file(version: &str, path: &str) -> String {
    format!(
        "[[resource]]\nkind = \"package_file\"\nname = \"agent\"\nversion = \"{version}\"\nsource = \"file://{path}\"\n"
    )
}

#[test]
fn a_package_file_is_checked_and_installed() -> Result<()> {
    let machine = machine(&[made("library", "1.0")])?;
    let new = Made { fields: "Requires: library\nEpoch: 1", ..made("agent", "2.0") };
    let (new, old) = (rpm(&machine, "/root", new)?, rpm(&machine, "/root", made("agent", "1.0"))?);
    // rpm reads a text file as a list of packages.
    fs::write(machine.path("/root/list.rpm"), format!("{old}\n"))?;
    refused(&machine, &package_file("1.0-1.test", "/root/list.rpm"), &["the package file is not an rpm"])?;
    let words = ["the package file holds agent 1:2.0-1.test for noarch, but agent 2.1-1.test is declared"];
    refused(&machine, &package_file("2.1-1.test", &new), &words)?;
    converge(&machine, &package_file("1:2.0-1.test", &new), &["install 1:2.0-1.test from"])?;
    ensure!(state(&machine, "library")?.starts_with("library-1.0"));
    converge(&machine, &package_file("1.0-1.test", &old), &["install 1.0-1.test (now 1:2.0-1.test) from"])?;
    ensure!(state(&machine, "agent")? == "agent-1.0-1.test.noarch\n");
    // What a kill leaves.
    _ = machine.sh("cp /root/agent-1.0-1.test.noarch.rpm /var/cache/glovo-bootstrap.rpm")?;
    converge(&machine, &package_file("1.0-1.test", &old), &["remove the package file that a killed installation left"])
}

fn upgrade(fields: &str) -> String {
    format!("phase = \"boot\"\n[[resource]]\nkind = \"upgrade\"\n{fields}\n")
}

#[test]
fn a_new_release_is_an_upgrade_of_its_own() -> Result<()> {
    let machine = Machine::boot(Options { release: Release::Amazon, ..Options::default() })?;
    _ = machine.sh("dnf -y install glovo-test-hello glovo-test-epoch")?;
    expect(&run(&machine, &upgrade("scope = \"all\""))?, 0, &["converged: 0 changes"]);
    let release = upgrade("scope = \"all\"\nrelease = \"2023.10.20260105\"");
    converge(&machine, &release, &["update the package lists of release 2023.10.20260105"])?;
    let state = || machine.sh("rpm -q --qf '%{evr} ' glovo-test-hello glovo-test-epoch");
    ensure!(state()? == "3.0-1.amzn2023 1:2.0-1.amzn2023 ", "{}", state()?);
    // The package of the release is what tells a machine's release. Then nothing is started.
    let system = rpm(&machine, "/root", made("system-release", "2023.10.20260105"))?;
    _ = machine.sh(&format!(
        "rpm -e --justdb --nodeps system-release; rpm -i --justdb --nodeps {system}; rm /usr/bin/dnf /usr/bin/rpm"
    ))?;
    expect(&run(&machine, &release)?, 0, &["converged: 0 changes"]);
    expect(&agent(&machine, "plan", &release.replace("10.2026", "9.2025"))?, 0, &[]);
    Ok(())
}

#[test]
fn an_upgrade_leaves_declared_versions_alone() -> Result<()> {
    let names = ["app", "pinned", "kept", "safe"];
    let machine = machine(&names.map(|name| made(name, "1.0")))?;
    converge(&machine, &package("names = [\"app\", \"pinned=1.*\", \"kept\", \"safe\"]"), &["install"])?;
    publish(&machine, &names.map(|name| made(name, "2.0")))?;
    publish(&machine, &[made("pinned", "1.5")])?;
    let advisory = "<?xml version=\"1.0\"?><updates><update from=\"a\" status=\"final\" type=\"security\" version=\"1\"><id>A-1</id>\
         <title>t</title><issued date=\"2026-01-01 00:00:00\"/><severity>Important</severity><summary>s</summary>\
         <description>d</description><pkglist><collection><name>c</name>\
         <package name=\"safe\" version=\"2.0\" release=\"1.test\" epoch=\"0\" arch=\"noarch\" src=\"x\">\
         <filename>safe-2.0-1.test.noarch.rpm</filename></package></collection></pkglist></update></updates>";
    let file = machine.directory().join("updateinfo.xml");
    fs::write(&file, advisory)?;
    let added =
        Command::new("modifyrepo_c").arg(&file).arg(machine.path(&format!("{REPOSITORY}/repodata"))).output()?;
    ensure!(added.status.success(), "{added:?}");
    _ = machine.sh("dnf makecache --refresh")?;
    converge(&machine, &upgrade("scope = \"security\""), &["upgrade 1 package: safe 2.0-1.test (now 1.0-1.test)"])?;
    let all = upgrade("scope = \"all\"\nhold = [\"kept\"]") + &package("names = [\"pinned=1.*\"]");
    expect(
        &agent(&machine, "plan", &all)?,
        0,
        &["upgrade 2 packages: ", "app 2.0-1.test (now 1.0-1.test)", "pinned 1.5-1.test"],
    );
    converge(&machine, &all, &["upgrade 2 packages: "])?;
    ensure!(state(&machine, "kept")? == "kept-1.0-1.test.noarch\n");
    _ = machine.sh("rm -r /var/cache/dnf")?;
    expect(&run(&machine, &upgrade("scope = \"all\""))?, 0, &["update the package lists, and install the upgrades"]);
    ensure!(state(&machine, "kept")? == "kept-2.0-1.test.noarch\n");
    Ok(())
}

#[test]
fn an_upgrade_does_what_a_declaration_leaves() -> Result<()> {
    let heir = Made { fields: "Obsoletes: loser < 2\nProvides: loser = 2", ..made("heir", "1.0") };
    let machine = machine(&[made("app", "1.0"), made("loser", "1.0")])?;
    let declared = package("names = [\"app\", \"loser\"]");
    converge(&machine, &declared, &["install"])?;
    publish(&machine, &[made("app", "2.0"), heir])?;
    let made = fs::read_to_string(machine.path("/etc/yum.repos.d/made.repo"))?;
    _ = machine.sh("dnf makecache --refresh")?;
    // A repository without lists.
    fs::write(machine.path("/etc/yum.repos.d/new.repo"), made.replace("made]", "new]"))?;
    let all = upgrade("scope = \"all\"") + &declared;
    expect(&agent(&machine, "plan", &all)?, 0, &["update the package lists, and install the upgrades"]);
    expect(&run(&machine, &all)?, 0, &["converged: 1 change"]);
    ensure!(state(&machine, "app")?.starts_with("app-2.0") && state(&machine, "loser")?.starts_with("loser-1.0"));
    expect(&run(&machine, &all)?, 0, &["heir is left out: it would replace loser", "converged: 0 changes"]);
    Ok(())
}

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
