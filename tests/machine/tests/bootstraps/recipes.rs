//! The recipes of the book that need no vendor, run as they are written: each converges, and a second run changes nothing.

use std::fs;

use anyhow::{Context, Result, ensure};
use machine::{Machine, Options, Release};

use crate::origins;

const BOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");
/// The host of all files in the recipes, and the digests that stand there: of no byte, and of a line's end.
const ARTIFACTS: &str = "https://artifacts.example.com/";
const OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The fingerprint of the recipes' key.
const FINGERPRINT: &str = "2EE4 25D8 1B49 A538 6B85  06DD 9A9C 5A73 50E3 4DB2";

/// Not among them: kernel parameters, because a machine under test has the kernel of its host.
const RECIPES: [&str; 14] = [
    "A drop-in instead of an edited line",
    "Limits of a service",
    "Limits of logins",
    "A job at fixed times (cron)",
    "Old logs (logrotate)",
    "The size of the journal (journald)",
    "A rule for sudo",
    "A login by SSH key",
    "A site of your own instead of nginx's default site",
    "A service that must not run",
    "Containers (Docker Compose)",
    "A log agent",
    "A program that runs once",
    "A small binary file",
];

/// Those that have no name of one family, or have no effect on the other one.
const RECIPES_OF_BOTH_FAMILIES: [&str; 8] = [
    "Limits of a service",
    "Limits of logins",
    "The size of the journal (journald)",
    "A rule for sudo",
    "A site of your own instead of nginx's default site",
    "A service that must not run",
    "A program that runs once",
    "A small binary file",
];

/// Makes what the recipes take for granted: programs, units and groups.
const IMAGE: &str = r#"
program() { printf '#!/bin/sh\n%s\n' "$2" > "$1"; chmod 755 "$1"; }
apt-get -qq update; apt-get -qq -y install sshd-stand-in docker.io > /dev/null
mkdir -p /etc/app /etc/ssh/sshd_config.d /etc/sudoers.d /opt/app /srv/uploads
program /usr/sbin/sshd true
program /usr/sbin/visudo 'grep -q ALL $2'
program /opt/app/migrate '[ "$1" = --check ] && exec test -e /srv/migrated; touch /srv/migrated'
printf '[Service]\nExecStart=/bin/sleep infinity\n' > /etc/systemd/system/app.service
getent group sudo > /dev/null || groupadd sudo
getent passwd app > /dev/null || useradd app
chmod 1777 /srv
"#;

#[test]
fn recipes_for_the_system_converge() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    let _ = origins::publish(&machine)?;
    machine.sh(IMAGE)?;
    for recipe in RECIPES {
        for manifest in manifests("recipes.md", recipe)? {
            // Its unit has the name of an application that another recipe has limited.
            if recipe.starts_with("Containers") {
                machine.sh("systemctl stop app; rm -r /etc/systemd/system/app.service*; systemctl daemon-reload")?;
            }
            converges(&machine, recipe, &manifest)?;
        }
    }
    Ok(())
}

#[test]
fn recipes_for_software_converge() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    let _ = origins::publish(&machine)?;
    let server = "#!/usr/bin/python3\nimport http.server\n\
                  http.server.HTTPServer((\"\", 8080), http.server.SimpleHTTPRequestHandler).serve_forever()\n";
    let certificate = machine.sh(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=company 2> /dev/null",
    )?;
    let files = [
        ("A CA certificate", "company.crt", certificate.into_bytes()),
        ("A Go binary", "api-1.4.0-amd64", server.into()),
        ("A Node service in one file", "server-1.4.0.js", "setInterval(() => {}, 1000);\n".into()),
    ];
    for (recipe, name, bytes) in files {
        let digest = origins::sha256(&bytes);
        machine.world().publish(&format!("artifacts.test/{name}"), bytes);
        for manifest in manifests("recipes-software.md", recipe)? {
            let manifest = manifest.replace(ARTIFACTS, "http://artifacts.test/").replace(OF_NOTHING, &digest);
            converges(&machine, recipe, &manifest)?;
        }
    }

    let keys = origins::two_keys(&machine, "vendor.test/several")?;
    let digest = origins::sha256(&keys);
    machine.world().publish("vendor.test/several/keys.gpg", keys);
    let recipe = "A repository with several keys";
    for manifest in manifests("recipes-software.md", recipe)? {
        let manifest = manifest.replace("https://apt.example.com/debian", "http://vendor.test/several");
        let manifest = manifest.replace("https://apt.example.com/", "http://vendor.test/several/");
        converges(&machine, recipe, &manifest.replace(OF_NOTHING, &digest))?;
    }
    Ok(())
}

#[test]
fn recipes_converge_on_the_machine_with_dnf() -> Result<()> {
    let machine = Machine::boot(Options { release: Release::Amazon, ..Options::default() })?;
    let image: String =
        IMAGE.lines().filter(|line| !line.starts_with("apt-get")).map(|line| format!("{line}\n")).collect();
    machine.sh(&image)?;
    for recipe in RECIPES_OF_BOTH_FAMILIES {
        for manifest in manifests("recipes.md", recipe)? {
            converges(&machine, recipe, &manifest)?;
        }
    }

    machine.sh("mkdir -p /etc/pki/ca-trust/source/anchors; printf '#!/bin/sh\n' > /usr/bin/update-ca-trust; chmod 755 /usr/bin/update-ca-trust")?;
    machine.world().publish("artifacts.test/company.crt", "a certificate");
    let recipe = "A CA certificate";
    let certificate = manifests("recipes-software.md", recipe)?.pop().with_context(|| recipe)?;
    let certificate = certificate.replace(ARTIFACTS, "http://artifacts.test/");
    converges(&machine, recipe, &certificate.replace(OF_NOTHING, &origins::sha256(b"a certificate")))?;

    let recipe = "A repository for dnf";
    let [added, removed]: [String; 2] =
        manifests("recipes-software.md", recipe)?.try_into().map_err(|_| anyhow::anyhow!("two manifests"))?;
    let key = machine.sh(
        "curl -fsS http://rpm.test/key.asc | gpg --show-keys --with-colons | sed -n 's/^fpr:*\\([^:]*\\):/\\1/p'",
    )?;
    let added = added.replace("https://rpm.example.com/el/$releasever/$basearch", "http://rpm.test/stable/");
    let added =
        added.replace("https://rpm.example.com/", "http://rpm.test/").replace("vendor-agent", "glovo-test-extra");
    let added = added.replace(FINGERPRINT, key.lines().next().unwrap_or_default());
    converges(&machine, recipe, &added)?;
    converges(&machine, recipe, &removed)?;
    machine.sh("rpm -q glovo-test-extra; ! ls /etc/yum.repos.d/vendor.repo")?;
    Ok(())
}

/// The manifests below a heading of a page.
fn manifests(page: &str, heading: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("{BOOK}/{page}"))?;
    let section = text.split("\n## ").find(|section| section.starts_with(&format!("{heading}\n")));
    let section = section.with_context(|| format!("{page} has no section `{heading}`"))?;
    let blocks = section.split("```toml manifest\n").skip(1).filter_map(|rest| rest.split("```").next());
    let manifests: Vec<String> = blocks.map(|block| format!("name = \"recipe\"\n\n{block}")).collect();
    ensure!(!manifests.is_empty(), "`{heading}` has no manifest");
    Ok(manifests)
}

fn converges(machine: &Machine, recipe: &str, manifest: &str) -> Result<()> {
    fs::write(machine.path("/root/recipe.toml"), manifest)?;
    let run = || machine.agent(&["run", "--steps", "/root/recipe.toml"])?.success();
    let first = run().with_context(|| format!("the recipe `{recipe}`"))?;
    ensure!(first.contains("converged: "), "{first}");
    let second = run()?;
    ensure!(second.contains("converged: 0 changes"), "the recipe `{recipe}`: {second}");
    Ok(())
}
