//! The kinds about packages on a machine whose only package manager is dnf.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use machine::made::{Made, REPOSITORY, machine, made, package, publish, repository, rpm, state};
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
    refused(&machine, &other, &["the program `dnf` is missing", "install dnf, or limit this resource"])?;
    refused(&machine, &package("names = [\"tree:amd64\"]"), &["for dnf, write tree.x86_64"])
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
fn an_edited_configuration_file_stays_and_the_new_is_beside_it() -> Result<()> {
    let machine = machine(&[made("app", "1.0"), made("app", "2.0")])?;
    converge(&machine, &package("names = [\"app=1.0\"]"), &["install app=1.0"])?;
    _ = machine.sh("echo mine > /etc/made/app.conf")?;
    converge(&machine, &package("names = [\"app=2.0\"]"), &["install app=2.0"])?;
    let files = machine.sh("cat /etc/made/app.conf /etc/made/app.conf.rpmnew /usr/share/made/app")?;
    ensure!(files == "mine\n2.0\n2.0\n", "{files}");
    Ok(())
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
        &["No match for argument: nosuch", "declare its repository before it", "showduplicates 'nosuch*'"],
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
    // rpm calls it installed. Later runs still tell, also those of other packages, until it is installed again.
    let told =
        ["note: the script post(badpost-1.0-1.test.noarch) failed", "dnf reinstall badpost", "said: useradd: no"];
    for resources in [package("names = [\"badpost\"]"), package("names = [\"tree\"]")] {
        expect(&run(&machine, &resources)?, 0, &told);
        expect(&agent(&machine, "plan", &resources)?, 0, &told);
        expect(&machine.agent(&["status"])?, 0, &told);
    }
    // The time of an installation has seconds.
    _ = machine.sh("sleep 1; dnf -y reinstall badpost")?;
    let silent = run(&machine, &package("names = [\"badpost\"]"))?.success()?;
    ensure!(!silent.contains("badpost("), "{silent}");
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
    expect(
        &run(&machine, &app)?,
        1,
        &[
            "app-1.0-1.test.noarch.rpm of the repository made (/etc/yum.repos.d/made.repo) is not signed",
            "use signed packages",
        ],
    );
    repository(&machine, &format!("baseurl=file://{REPOSITORY}\ngpgcheck=0\nrepo_gpgcheck=1\n{amazon}"))?;
    expect(&run(&machine, &app)?, 1, &["GPG signature is not available", "use a repository with a signed index"]);
    sign_index(&machine)?;
    expect(&run(&machine, &app)?, 1, &["Bad GPG signature", "add no key from the repository's server"]);
    repository(
        &machine,
        &format!("baseurl=file://{REPOSITORY}\ngpgcheck=0\nrepo_gpgcheck=1\ngpgkey=file:///root/key"),
    )?;
    converge(&machine, &app, &["install app"])?;
    _ = machine.sh(&format!("rpm -e app; rm -r /var/cache/dnf; echo ' ' >> {REPOSITORY}/repodata/repomd.xml"))?;
    expect(&run(&machine, &app)?, 1, &["Bad GPG signature", "add no key from the repository's server"]);
    repository(&machine, "baseurl=file:///srv/none\ngpgcheck=0")?;
    expect(&run(&machine, &app)?, 1, &["there is no repository at this address"]);
    // A repository that may be skipped is told too.
    repository(&machine, "baseurl=file:///srv/none\ngpgcheck=0\nskip_if_unavailable=1")?;
    expect(&run(&machine, &app)?, 1, &["there is no repository at this address"]);
    let other = package("names = [\"glovo-test-hello\"]");
    expect(&run(&machine, &other)?, 0, &["the repository made (/etc/yum.repos.d/made.repo) could not be updated"]);
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
    is_told(machine, &resource, lock)?;
    _ = machine
        .sh("systemctl kill --signal=KILL holder; while systemctl --quiet is-active holder; do sleep 0.1; done")?;
    expect(&run(machine, &resource)?, 0, &[&format!("install {name}")]);
    Ok(())
}

/// A run in the background tells the wait in the journal and in `status`, and is stopped.
fn is_told(machine: &Machine, resource: &str, lock: &str) -> Result<()> {
    fs::write(machine.path("/root/manifest.toml"), format!("name = \"step\"\n{resource}"))?;
    _ = machine.sh(&format!(
        "systemd-run --quiet --collect --unit=waiting /usr/local/bin/glovo-bootstrap run --steps /root/manifest.toml
         until journalctl --unit=waiting --output=cat | grep 'to release {lock}, for up to'; do sleep 0.1; done
         glovo-bootstrap status > /run/status || [ $? = 4 ]; grep 'waiting for pid .* to release {lock}' /run/status
         systemctl stop waiting; [ ! -e /var/lib/glovo-bootstrap/waiting.json ]"
    ))?;
    Ok(())
}

#[test]
fn an_absent_package_is_removed_with_what_needs_it() -> Result<()> {
    let needs = Made { fields: "Requires: library", ..made("app", "1.0") };
    let vital = Made { fields: "Requires: library", ..made("setup", "1.0") };
    let machine = machine(&[made("library", "1.0"), needs, vital, made("keep", "1.0")])?;
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
    // No file in /etc/dnf/protected.d names these.
    for name in ["systemd", "glibc", "bash", "rpm", "coreutils", "system-release"] {
        let message = format!("the removal would remove {name}, but the system cannot work without it");
        refused(&machine, &package(&format!("names = [\"{name}\"]\nabsent = true")), &[&message])?;
    }
    // The same for one that only needs the removed package.
    _ = machine.sh("dnf -y install setup")?;
    refused(&machine, &absent, &["the removal would remove setup, but the system cannot work without it"])?;
    // The machine seems to run the kernel of this package, and then its own.
    let kernel = rpm(&machine, "/root", made("kernel", "6.1.1"))?;
    _ = machine.sh(&format!(
        "rpm --install --justdb --force-debian {kernel}; echo 6.1.1-1.test.noarch > /run/release
         mount --bind /run/release /proc/sys/kernel/osrelease"
    ))?;
    let absent = package("names = [\"kernel\"]\nabsent = true");
    refused(&machine, &absent, &["remove kernel, which has the running kernel"])?;
    _ = machine.sh("umount /proc/sys/kernel/osrelease")?;
    converge(&machine, &absent, &["remove kernel 6.1.1-1.test"])?;
    fs::write(machine.path("/etc/dnf/protected.d/keep.conf"), "keep\n")?;
    refused(
        &machine,
        &package("names = [\"keep\"]\nabsent = true"),
        &["remove keep, but the system cannot work without it"],
    )
}

#[test]
fn a_hold_needs_the_plugin_and_is_its_list() -> Result<()> {
    let machine = machine(&[made("app", "1.0"), made("app", "2.0"), made("other", "1.0")])?;
    let held = package("names = [\"app=1.0\"]\nhold = true");
    let words = ["plugin versionlock, which is missing", "names = [\"python3-dnf-plugin-versionlock\"]"];
    refused(&machine, &held, &words)?;
    ensure!(state(&machine, "app")?.contains("not installed"), "the run was refused before any change");
    // Another package does not bring the plugin.
    let other = package("names = [\"other\"]");
    expect(&agent(&machine, "plan", &(other + &held))?, 1, &words);
    _ = machine.sh("touch /usr/bin/dnf5; chmod 755 /usr/bin/dnf5")?;
    refused(&machine, &held, &["holding packages is not supported on a machine with dnf5 yet"])?;
    _ = machine.sh("rm /usr/bin/dnf5")?;
    let plugin = "names = [\"python3-dnf-plugin-versionlock\"]";
    let both = package(plugin) + &held;
    let after = "hold app, after python3-dnf-plugin-versionlock is installed";
    expect(&agent(&machine, "plan", &both)?, 0, &[after]);
    expect(&agent(&machine, "plan", &package(&format!("{plugin}\nhold = true")))?, 0, &["hold python3-dnf-plugin"]);
    converge(&machine, &both, &["install python3-dnf-plugin-versionlock", "install app=1.0", "hold app"])?;
    // dnf itself obeys the hold.
    _ = machine.sh("dnf -y upgrade app")?;
    ensure!(state(&machine, "app")? == "app-1.0-1.test.noarch\n");
    _ = machine.sh("cp /etc/dnf/dnf.conf /root; echo plugins=False >> /etc/dnf/dnf.conf")?;
    refused(&machine, &held, &["plugin versionlock, which /etc/dnf/dnf.conf turns off", "set `plugins = 1`"])?;
    _ = machine.sh("mv /root/dnf.conf /etc/dnf/dnf.conf")?;
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
    expect(&agent(&machine, "plan", &release)?, 0, &["update the package lists of release 2023.10.20260105"]);
    expect(&run(&machine, &release)?, 0, &["upgrade 2 packages: "]);
    expect(&run(&machine, &release)?, 0, &["converged: 0 changes"]);
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
    expect(&run(&machine, &upgrade("scope = \"all\""))?, 0, &["upgrade 2 packages: kept 2.0-1.test"]);
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
