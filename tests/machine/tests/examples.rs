//! The manifests in `examples/`, and what `steps new` writes: each converges on a bare machine, a second run changes
//! nothing, and what it declares is up. With `GLOVO_MACHINE_RELEASE=amazon`, those run with dnf whose packages are there.

use std::fs;

use anyhow::{Context, Result, ensure};
use machine::{Machine, Options, Release};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
const MANIFEST: &str = "/root/manifest.toml";

/// Answers every path with 200, on the port that the environment names; stands in for a Go binary.
const SERVER: &str = r#"#!/usr/bin/python3
import http.server, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"answered as uid %d\n" % os.getuid())
http.server.HTTPServer(("", int(os.environ["PORT"])), Answer).serve_forever()
"#;

const BUNDLE: &str = "require('http').createServer((request, response) => response.end(`node ${process.env.NODE_ENV}\\n`)).listen(process.env.PORT);\n";

/// Makes the wheel of the package `web` in /root, with the server as its main module.
const MAKE_WHEEL: &str = r#"
import zipfile
with zipfile.ZipFile("/root/web-1.0.0-py3-none-any.whl", "w") as wheel:
    info = "web-1.0.0.dist-info/"
    wheel.writestr("web/__init__.py", "")
    wheel.writestr("web/__main__.py", open("/root/server").read())
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: web\nVersion: 1.0.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "web/__init__.py,,\nweb/__main__.py,,\n")
"#;

/// A machine with the manifest of an example.
fn machine(example: &str) -> Result<Machine> {
    machine_of(Release::default(), example)
}

/// The same for an example whose packages the machine with dnf does not have: then with Debian.
fn machine_with_apt(example: &str) -> Result<Machine> {
    let release = Release::default();
    machine_of(if release == Release::Amazon { Release::Bookworm } else { release }, example)
}

fn machine_of(release: Release, example: &str) -> Result<Machine> {
    let machine = Machine::boot(Options { release, ..Options::default() })?;
    let manifest = format!("{EXAMPLES}/{example}/manifest.toml");
    fs::copy(&manifest, machine.path(MANIFEST)).context(manifest)?;
    Ok(machine)
}

/// Publishes bytes at the origin; returns the values of the variables `NAME_url` and `NAME_sha256`.
fn publish(machine: &Machine, name: &str, file: &str, bytes: &[u8]) -> Result<Vec<String>> {
    fs::write(machine.path("/root/published"), bytes)?;
    let digest = machine.sh("sha256sum /root/published")?;
    let digest = digest.split(' ').next().unwrap_or_default();
    machine.world().publish(&format!("origin.test/{file}"), bytes);
    Ok(vec![format!("{name}_url=http://origin.test/{file}"), format!("{name}_sha256={digest}")])
}

/// The first run converges, and the second one changes nothing.
fn converges(machine: &Machine, steps: &str, variables: &[String]) -> Result<()> {
    let variables = variables.iter().flat_map(|variable| ["--set", variable]);
    let run: Vec<&str> = ["run", "--steps", steps].into_iter().chain(variables).collect();
    let first = machine.agent(&run)?.success()?;
    ensure!(first.contains("converged: "), "{first}");
    let second = machine.agent(&run)?.success()?;
    ensure!(second.contains("converged: 0 changes"), "{second}");
    Ok(())
}

fn answers(machine: &Machine, url: &str, words: &str) -> Result<()> {
    let said = machine.sh(&format!("curl --fail --silent --include {url}"))?;
    ensure!(said.contains(words), "no `{words}` in {said}");
    Ok(())
}

#[test]
fn the_jar_serves_behind_nginx() -> Result<()> {
    let machine = machine("jar")?;
    let variables = machine.variables()?.into_iter().filter(|variable| variable.starts_with("jar_"));
    converges(&machine, MANIFEST, &variables.collect::<Vec<_>>())?;
    answers(&machine, "http://127.0.0.1/path", "GET /path")?;
    assert_eq!(machine.sh("ps -C java -o user=")?.trim(), "app");
    Ok(())
}

#[test]
fn the_python_service_serves_from_its_virtual_environment() -> Result<()> {
    let mut machine = machine_with_apt("python")?;
    fs::write(machine.path("/root/server"), SERVER)?;
    fs::write(machine.path("/root/make-wheel"), MAKE_WHEEL)?;
    machine.sh("python3 /root/make-wheel")?;
    let wheel = fs::read(machine.path("/root/web-1.0.0-py3-none-any.whl"))?;
    let variables = publish(&machine, "wheel", "web-1.0.0-py3-none-any.whl", &wheel)?;
    converges(&machine, MANIFEST, &variables)?;
    answers(&machine, "http://127.0.0.1:8080/", "answered as uid")?;
    let program =
        machine.sh("readlink /proc/$(systemctl show --value --property MainPID web)/exe; ps -C python -o user=")?;
    ensure!(program.contains("python3") && program.contains("web"), "{program}");

    // The environment is not made anew at a boot.
    machine.reboot()?;
    machine.sh("timeout 60 sh -c 'until curl -sf http://127.0.0.1:8080/; do sleep 0.1; done'")?;
    let variables = variables.iter().flat_map(|variable| ["--set", variable]);
    let run: Vec<&str> = ["run", "--steps", MANIFEST].into_iter().chain(variables).collect();
    let run = machine.agent(&run)?.success()?;
    ensure!(run.contains("converged: 0 changes"), "{run}");
    answers(&machine, "http://127.0.0.1:8080/", "answered as uid")
}

#[test]
fn the_node_service_serves() -> Result<()> {
    let machine = machine_with_apt("node")?;
    let variables = publish(&machine, "bundle", "server.js", BUNDLE.as_bytes())?;
    converges(&machine, MANIFEST, &variables)?;
    answers(&machine, "http://127.0.0.1:8080/", "node production")
}

#[test]
fn the_single_binary_serves_on_port_80_without_root() -> Result<()> {
    let machine = machine("go")?;
    let variables = publish(&machine, "binary", "api", SERVER.as_bytes())?;
    converges(&machine, MANIFEST, &variables)?;
    answers(&machine, "http://127.0.0.1/", "answered as uid")?;
    let said = machine.sh("curl --silent http://127.0.0.1/; id -u api")?;
    let mut lines = said.lines();
    let (by, uid) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    ensure!(by == format!("answered as uid {uid}"), "{said}");
    Ok(())
}

#[test]
fn the_static_site_is_served() -> Result<()> {
    let machine = machine("static-site")?;
    converges(&machine, MANIFEST, &["title=Hello".into()])?;
    answers(&machine, "http://127.0.0.1/", "<h1>Hello</h1>")?;
    answers(&machine, "http://127.0.0.1/", "Cache-Control: public, max-age=60")
}

#[test]
fn the_worker_takes_what_is_in_its_queue() -> Result<()> {
    let machine = machine("worker")?;
    converges(&machine, MANIFEST, &["pause=0.1".into()])?;
    machine.sh(
        "cd /var/lib/worker && echo one > a.job && timeout 20 sh -c 'until [ -e a.job.done ]; do sleep 0.1; done'",
    )?;
    ensure!(machine.sh("journalctl --no-pager -u worker")?.contains("done: one"));
    Ok(())
}

#[test]
fn new_steps_converge_as_they_are_written() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    let said = machine.agent(&["steps", "new", "/root/my-service"])?.success()?;
    ensure!(said.contains("glovo-bootstrap run --steps /root/my-service"), "{said}");
    converges(&machine, "/root/my-service", &[])?;
    answers(&machine, "http://127.0.0.1:8080/", "It works.")
}
