//! The agent downloads packages from simple sources; apt downloads the others, and those that the agent could not.

use std::collections::BTreeSet;

use anyhow::Result;
use machine::{Fault, Machine, Options};

/// With what they depend on, as many as are worth it.
const PACKAGES: &str = "\"nginx\", \"tree\", \"glovo-test-hello\"";

/// Installs packages in a machine whose lists are there, without asking them of dpkg again.
fn install(machine: &Machine, packages: &str) -> Result<()> {
    let resource = format!("[[resource]]\nkind = \"package\"\nnames = [{packages}]\n");
    std::fs::write(machine.path("/root/manifest.toml"), format!("name = \"step\"\n{resource}"))?;
    let run = machine.agent(&["run", "--verbose", "--steps", "/root/manifest.toml"])?;
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    Ok(())
}

fn machine() -> Result<Machine> {
    let machine = Machine::boot(Options::default())?;
    machine.sh("apt-get -qq update")?;
    Ok(machine)
}

/// The packages that were requested from the mirrors.
fn asked(machine: &Machine, who: &str) -> BTreeSet<String> {
    let requests = machine.world().requests();
    let of_them = requests.iter().filter(|request| request.agent.starts_with(who) && request.path.ends_with(".deb"));
    let name =
        |path: &str| path.rsplit('/').next().unwrap_or_default().split('_').next().unwrap_or_default().to_owned();
    of_them.map(|request| name(&request.path)).collect()
}

const AGENT: &str = "glovo-bootstrap/";
const APT: &str = "Debian APT-HTTP/";
const ALL: [&str; 4] = ["glovo-test-hello", "nginx", "nginx-common", "tree"];

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn many_packages_are_fetched_by_the_agent_and_few_by_apt() -> Result<()> {
    let machine = machine()?;
    install(&machine, PACKAGES)?;
    assert_eq!((asked(&machine, AGENT), asked(&machine, APT)), (names(&ALL), names(&[])));
    // As apt leaves them.
    let archives =
        machine.sh("cd /var/cache/apt/archives; stat --format '%U:%G %a %h' *.deb | sort | uniq -c; ls -A")?;
    assert!(archives.trim_start().starts_with("4 root:root 644 1\n"), "{archives}");
    assert!(!archives.contains(".glovo-bootstrap"), "{archives}");

    install(&machine, "\"glovo-test-conffile\"")?;
    assert_eq!(asked(&machine, APT), names(&["glovo-test-conffile"]));
    Ok(())
}

#[test]
fn apt_downloads_the_archives_that_the_agent_cannot() -> Result<()> {
    let faults = [("missing", Fault::status(404), 1), ("corrupt", Fault::Corrupt, 2)];
    for (what, fault, times) in faults {
        let machine = machine()?;
        machine.world().fault("GET deb.debian.org/debian/pool/tree_", times, fault);
        install(&machine, PACKAGES)?;
        assert_eq!(asked(&machine, AGENT), names(&ALL), "{what}");
        assert!(asked(&machine, APT).contains("tree"), "{what}");
        machine.sh("tree --version; dpkg --verify tree; ! ls -A /var/cache/apt/archives | grep glovo-bootstrap")?;
    }
    Ok(())
}

#[test]
fn an_archive_that_a_power_cut_has_torn_is_not_installed() -> Result<()> {
    let machine = machine()?;
    // Of the right name and size, which is all that apt looks at.
    machine.sh("cd /var/cache/apt/archives; apt-get -qq download tree
         size=$(stat --format %s tree_*.deb); truncate --size 0 tree_*.deb; truncate --size $size tree_*.deb")?;
    install(&machine, "\"tree\"")?;
    machine.sh("tree --version; dpkg-deb --info /var/cache/apt/archives/tree_*.deb")?;
    Ok(())
}

#[test]
fn a_source_that_only_apt_can_read_is_left_to_apt() -> Result<()> {
    let settings = [
        "echo 'Acquire::http::Proxy \"DIRECT\";' > /etc/apt/apt.conf.d/99proxy",
        "echo 'machine other.test login me password secret' > /etc/apt/auth.conf.d/other.conf",
    ];
    for setting in settings {
        let machine = machine()?;
        machine.sh(setting)?;
        install(&machine, PACKAGES)?;
        assert_eq!((asked(&machine, AGENT), asked(&machine, APT)), (names(&[]), names(&ALL)), "{setting}");
    }

    // A medium beside a mirror.
    let machine = machine()?;
    machine.sh("mkdir -p /srv/medium /srv/tree/DEBIAN; cd /srv/medium
         printf '%s\\n' 'Package: glovo-test-medium' 'Version: 1.0' 'Architecture: all' 'Maintainer: x <x@test>' 'Description: x' \
             > /srv/tree/DEBIAN/control
         dpkg-deb --build /srv/tree x.deb > /dev/null
         { dpkg-deb --field x.deb; echo 'Filename: x.deb'; stat --format 'Size: %s' x.deb
           echo \"SHA256: $(sha256sum x.deb | cut -d' ' -f1)\"; } > Packages
         echo 'deb [trusted=yes] copy:/srv/medium ./' > /etc/apt/sources.list.d/medium.list; apt-get -qq update")?;
    install(&machine, &format!("{PACKAGES}, \"glovo-test-medium\""))?;
    assert_eq!((asked(&machine, AGENT), asked(&machine, APT)), (names(&ALL), names(&[])));
    Ok(())
}
