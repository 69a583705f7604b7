//! The proxies that the environment names, for downloads and for apt.

use anyhow::Result;
use machine::step::expect;
use machine::{Machine, Options, Output};

const PACKAGE: &str = "[[resource]]\nkind = \"package\"\nnames = [\"glovo-test-hello\"]\nupdate = \"always\"\n";
const FILE: &str = "[[resource]]\nkind = \"file\"\npath = \"/srv/x\"\nsource = \"http://origin.test/x\"\nverify = \"none\"\ntimeout = \"3s\"\n";

/// Runs these resources with this in the environment.
fn run(machine: &Machine, environment: &[&str], resources: &str) -> Result<Output> {
    std::fs::write(machine.path("/root/manifest.toml"), format!("name = \"step\"\n{resources}"))?;
    let run = ["/usr/local/bin/glovo-bootstrap", "run", "--steps", "/root/manifest.toml"];
    machine.exec(&[&["/usr/bin/env"], environment, &run].concat())
}

#[test]
fn apt_and_downloads_go_through_the_proxy() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    // Every server of the world answers for the others, if it is asked as a proxy.
    machine.world().publish("proxy.test/x", "");
    machine.world().publish("origin.test/x", "through the proxy");
    let environment = ["http_proxy=http://user:secret@proxy.test:80", "no_proxy=169.254.169.254"];
    expect(&run(&machine, &environment, &(PACKAGE.to_owned() + FILE))?, 0, &["converged: 2 changes"]);
    let requests = machine.world().requests();
    let asked =
        |method: &str, host: &str| requests.iter().any(|request| request.method == method && request.host == host);
    assert!(asked("DNS", "proxy.test") && asked("GET", "deb.debian.org") && asked("GET", "origin.test"));
    assert!(!asked("DNS", "deb.debian.org") && !asked("DNS", "origin.test"), "asked directly");
    Ok(())
}

#[test]
fn a_dead_proxy_is_named_without_its_password() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    machine.world().publish("proxy.test/x", "");
    machine.world().publish("origin.test/x", "");
    for dead in ["proxy.test:3128", "gone.test:3128"] {
        let environment = format!("http_proxy=http://user:secret@{dead}/");
        let proxy = format!("the proxy http://{dead}");
        let download = run(&machine, &[&environment], FILE)?;
        expect(&download, 75, &[&format!("connecting to {proxy}: ")]);
        let apt = run(&machine, &[&environment], PACKAGE)?;
        expect(&apt, 75, &[&format!("check that {proxy} answers")]);
        let report = machine.sh("cat /var/lib/glovo-bootstrap/report.json; journalctl --no-pager")?;
        for text in [download.stdout, download.stderr, apt.stdout, apt.stderr, report] {
            assert!(!text.contains("secret"), "{text}");
        }
        // Around it, all is well.
        let environment = [&*environment, "no_proxy=.debian.org,origin.test"];
        expect(&run(&machine, &environment, &(PACKAGE.to_owned() + FILE))?, 0, &["converged: 2 changes"]);
        machine.sh("dpkg --purge glovo-test-hello; rm /srv/x")?;
    }
    Ok(())
}
