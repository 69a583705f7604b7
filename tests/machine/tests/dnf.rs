//! The machine whose only package manager is dnf: its repositories are signed and checked, its packages work, and the
//! agent's kinds that install nothing converge on it.

use anyhow::{Context, Result, ensure};
use machine::{Fault, Machine, Options, Output, Release};

fn machine() -> Result<Machine> {
    Machine::boot(Options { release: Release::Amazon, ..Options::default() })
}

fn dnf(machine: &Machine, arguments: &[&str]) -> Result<Output> {
    machine.exec(&[&["dnf", "-y", "--setopt=install_weak_deps=0"], arguments].concat())
}

/// Adds a repository of `rpm.test`, which checks the index and the packages with this key.
fn add_repository(machine: &Machine, name: &str, key: &str) -> Result<()> {
    let text = format!(
        "[{name}]\nname={name}\nbaseurl=http://rpm.test/{name}/\ngpgcheck=1\nrepo_gpgcheck=1\n\
         gpgkey=http://rpm.test/{key}\nskip_if_unavailable=0\n"
    );
    Ok(std::fs::write(machine.path(&format!("/etc/yum.repos.d/{name}.repo")), text)?)
}

/// The command must fail with these words, and must not install this package.
fn refuses(machine: &Machine, package: &str, arguments: &[&str], words: &str) -> Result<()> {
    let output = dnf(machine, &[arguments, &["install", package]].concat())?;
    let text = [output.stdout.as_str(), &output.stderr].concat();
    ensure!(output.code == 1 && text.contains(words), "exit code {}\n{text}", output.code);
    ensure!(machine.exec(&["rpm", "-q", package])?.code == 1, "{package} is installed");
    Ok(())
}

#[test]
fn dnf_installs_from_signed_repositories() -> Result<()> {
    let machine = machine()?;
    add_repository(&machine, "stable", "key.asc")?;
    dnf(&machine, &["install", "glovo-test-needs", "glovo-test-extra", "GlovoTest_Name"])?.success()?;
    let installed = machine.sh("cat /usr/share/glovo-test-hello/greeting /usr/share/glovo-test-extra/greeting")?;
    ensure!(installed == "hello 2.0\nextra\n", "{installed}");
    Ok(())
}

#[test]
fn a_locked_release_offers_no_upgrade() -> Result<()> {
    let machine = machine()?;
    dnf(&machine, &["install", "glovo-test-hello", "glovo-test-epoch"])?.success()?;
    let installed = || machine.sh("rpm -q --qf '%{evr} ' glovo-test-hello glovo-test-epoch");
    for (release, expected) in [
        (&[][..], "2.0-1.amzn2023 1:2.0~rc1-1.amzn2023 "),
        (&["--releasever=2023.10.20260105"], "3.0-1.amzn2023 1:2.0-1.amzn2023 "),
    ] {
        dnf(&machine, &[release, &["upgrade"]].concat())?.success()?;
        ensure!(installed()? == expected, "{release:?}: {}", installed()?);
    }
    Ok(())
}

#[test]
fn dnf_refuses_what_the_key_did_not_sign() -> Result<()> {
    let machine = machine()?;
    for (name, key, words) in [
        ("unsigned-package", "key.asc", "glovo-test-extra-1.0-1.amzn2023.noarch.rpm is not signed"),
        ("other-package", "key.asc", "Import of key(s) didn't help, wrong key(s)?"),
        ("damaged-package", "key.asc", "Problem opening package glovo-test-extra-1.0-1.amzn2023.noarch.rpm"),
        ("unsigned-index", "key.asc", "GPG verification is enabled, but GPG signature is not available"),
        ("other-index", "key.asc", "repomd.xml GPG signature verification error: Bad GPG signature"),
        ("tampered-index", "key.asc", "repomd.xml GPG signature verification error: Bad GPG signature"),
        ("tampered-list", "key.asc", "checksum doesn't match"),
        ("expired", "expired.asc", "repomd.xml GPG signature verification error: Bad GPG signature"),
    ] {
        add_repository(&machine, name, key)?;
        refuses(&machine, "glovo-test-extra", &[&format!("--repo={name}")], words).context(name)?;
    }
    Ok(())
}

#[test]
fn dnf_fails_when_the_repository_does() -> Result<()> {
    let machine = machine()?;
    add_repository(&machine, "stable", "key.asc")?;
    for (file, fault, words) in [
        ("repomd.xml", Fault::Drop, "Curl error (52)"),
        ("rpm", Fault::status(404), "Status code: 404"),
        ("rpm", Fault::Corrupt, "checksum doesn't match"),
    ] {
        machine.world().fault(&format!("^GET rpm.test/stable/.*{file}$"), 100, fault);
        refuses(&machine, "glovo-test-extra", &["--repo=stable"], words)?;
        machine.world().clear_faults();
    }
    Ok(())
}

#[test]
fn scripts_of_packages_fail_as_rpm_lets_them() -> Result<()> {
    let machine = machine()?;
    refuses(&machine, "glovo-test-refuses", &[], "Error in PREIN scriptlet in rpm package glovo-test-refuses")?;
    refuses(&machine, "glovo-test-lacks", &[], "nothing provides glovo-test-nowhere")?;
    // dnf takes this one for installed.
    let broken = dnf(&machine, &["install", "glovo-test-broken"])?;
    ensure!(broken.stderr.contains("Error in POSTIN scriptlet in rpm package glovo-test-broken"), "{broken:?}");
    machine.sh("rpm -q glovo-test-broken; [ ! -e /var/lib/glovo-test-broken.configured ]")?;
    machine.sh("touch /etc/glovo-test-broken.fixed")?;
    dnf(&machine, &["reinstall", "glovo-test-broken"])?.success()?;
    machine.sh("[ -e /var/lib/glovo-test-broken.configured ]")?;
    Ok(())
}

#[test]
fn presets_enable_a_service_and_nothing_starts_it() -> Result<()> {
    let machine = machine()?;
    dnf(&machine, &["install", "glovo-test-service", "glovo-test-preset"])?.success()?;
    let state = |verb| machine.sh(&format!("systemctl {verb} glovo-test-service glovo-test-preset || :"));
    ensure!(state("is-enabled")? == "disabled\nenabled\n", "{}", state("is-enabled")?);
    ensure!(state("is-active")? == "inactive\ninactive\n", "{}", state("is-active")?);
    Ok(())
}

#[test]
fn nginx_and_java_run() -> Result<()> {
    let machine = machine()?;
    dnf(&machine, &["install", "nginx", "java-21-amazon-corretto-headless"])?.success()?;
    machine.sh("java -version 2>&1 | grep -q OpenJDK")?;
    machine.sh("echo 'location /more { return 204; }' > /etc/nginx/default.d/more.conf
         echo 'server { listen 81; return 204; }' > /etc/nginx/conf.d/more.conf
         systemctl start nginx
         curl -fsS http://127.0.0.1/more; curl -fsS http://127.0.0.1:81/")?;
    let page = machine.sh("curl -fsS http://127.0.0.1/; stat -c %U /var/lib/nginx")?;
    ensure!(page == "<h1>nginx</h1>\nnginx\n", "{page}");
    Ok(())
}

#[test]
fn the_machine_has_no_apt_and_no_dpkg() -> Result<()> {
    let machine = machine()?;
    for program in ["apt", "apt-get", "dpkg", "dpkg-query", "adduser", "invoke-rc.d", "deb-systemd-helper"] {
        let found = machine.exec(&["sh", "-c", &format!("command -v {program}")])?;
        ensure!(found.code != 0, "{found:?}");
    }
    let left = machine.sh("ls -d /var/lib/dpkg /etc/apt /var/lib/apt /etc/debian_version 2> /dev/null || :")?;
    ensure!(left.is_empty(), "{left}");
    let system = machine.sh("systemctl --failed --plain --no-legend; . /etc/os-release; echo $ID $VERSION_ID")?;
    ensure!(system == "amzn 2023\n", "{system}");
    let owners =
        machine.sh("rpm -qf --qf '%{name}\\n' /usr/bin/bash /etc/system-release; rpm -q --whatprovides /bin/sh")?;
    ensure!(owners.starts_with("bash\nsystem-release\nbash-"), "{owners}");
    Ok(())
}

const MANIFEST: &str = r#"
name = "neutral"

[[resource]]
kind = "group"
name = "deployers"

[[resource]]
kind = "user"
name = "deployer"
groups = ["deployers"]

[[resource]]
kind = "directory"
path = "/srv/app"
mode = "750"
owner = "deployer"

[[resource]]
kind = "file"
path = "/srv/settings"
content = "answer = 42\n"
group = "deployers"

[[resource]]
kind = "link"
path = "/etc/app"
target = "/srv/app"

[[resource]]
kind = "file"
path = "/etc/systemd/system/sleeper.service"
content = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"

[[resource]]
kind = "service"
name = "sleeper"
enabled = true
running = true

[[resource]]
kind = "swap"
path = "SWAP"
size = "32MiB"
"#;

#[test]
fn kinds_without_packages_converge() -> Result<()> {
    let machine = machine()?;
    std::fs::write(machine.path("/root/neutral.toml"), MANIFEST.replace("SWAP", &machine.swap_path()))?;
    let run = || machine.agent(&["run", "--steps", "/root/neutral.toml"])?.success();
    run()?;
    let found = machine
        .sh("id -nG deployer; stat -Lc '%a %U' /etc/app; cat /srv/settings; systemctl is-active sleeper
         grep -c swap- /etc/fstab")?;
    ensure!(found == "deployer deployers\n750 deployer\nanswer = 42\nactive\n1\n", "{found}");
    let second = run()?;
    ensure!(second.contains("converged: 0 changes"), "{second}");
    Ok(())
}
