//! The shipped binary runs in an empty directory, with only the kernel's interfaces.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use machine::{AWS_ENVIRONMENT, Fault, Machine, Options, SweptDirectory, World, static_binaries};

const ORIGIN: &str = "origin.test";
const FILE: &str = "https://origin.test/file";
const BYTES: &str = "what the origin serves";
const AUTHORITY: &str = "/authority.pem";
/// In bytes. The bound that the project has set itself is 10,000,000.
const LARGEST: u64 = 10_000_000;

/// A directory that is a static binary's root, and holds nothing else but what a test puts there.
struct Chroot {
    root: SweptDirectory,
    /// Runs the binary inside: itself, or by the emulator of its architecture.
    program: Vec<&'static str>,
}

impl Chroot {
    fn new(binary: &Path) -> Result<Self> {
        let name = binary.file_name().context("a file")?.to_string_lossy().into_owned();
        let mut chroot = Self { root: SweptDirectory::new()?, program: vec!["/glovo-bootstrap"] };
        fs::create_dir(chroot.at("tmp"))?;
        fs::create_dir(chroot.at("etc"))?;
        fs::copy(binary, chroot.at("glovo-bootstrap"))?;
        if !name.ends_with(std::env::consts::ARCH) {
            let emulator = "/usr/bin/qemu-aarch64-static";
            ensure!(name.ends_with("aarch64"), "no emulator for {name}");
            fs::copy(emulator, chroot.at("qemu")).context(emulator)?;
            chroot.program.insert(0, "/qemu");
        }
        Ok(chroot)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path.join(name)
    }

    /// The binary with these arguments, in the world's network.
    fn run(&self, world: &World, environment: &[(&str, &str)], arguments: &[&str]) -> Result<(i32, String)> {
        let mut command = world.command("env");
        command.arg("--ignore-environment").args(environment.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg("/usr/sbin/chroot").arg(&self.root.path).args(&self.program).args(arguments);
        let output = command.output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned()))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.at(name), text).context(name.to_owned())
    }

    fn read(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.at(name)).context(name.to_owned())
    }
}

/// Does this with every static binary, in a network that looks like EC2; its machine stays off.
fn with_each(test: impl Fn(&World, &Chroot) -> Result<()>) -> Result<()> {
    let machine = Machine::new(Options { disks: vec![], ..Options::default() })?;
    machine.world().publish("origin.test/file", BYTES);
    for binary in static_binaries()? {
        let chroot = Chroot::new(&binary)?;
        chroot.write("etc/resolv.conf", "nameserver 172.31.0.1\n")?;
        fs::copy(machine.path("/etc/ssl/certs/ca-certificates.crt"), chroot.at(&AUTHORITY[1..]))?;
        test(machine.world(), &chroot).with_context(|| binary.display().to_string())?;
    }
    Ok(())
}

fn has(said: &(i32, String), code: i32, words: &str) -> Result<()> {
    ensure!(said.0 == code && said.1.contains(words), "not {code} and `{words}`, but {}:\n{}", said.0, said.1);
    Ok(())
}

#[test]
fn it_needs_no_loader_and_no_library() -> Result<()> {
    for binary in static_binaries()? {
        let file = Command::new("file").arg("--brief").arg(&binary).output()?;
        let file = String::from_utf8(file.stdout)?;
        ensure!(file.contains("static-pie linked") && file.contains(", stripped"), "{file}");
        ensure!(fs::metadata(&binary)?.len() <= LARGEST, "{} has grown", binary.display());
        ensure!(fs::metadata(&binary)?.permissions().mode() & 0o111 == 0o111);
    }
    Ok(())
}

#[test]
fn it_runs_in_an_empty_directory() -> Result<()> {
    with_each(|world, chroot| {
        has(&chroot.run(world, &[], &["--version"])?, 0, "glovo-bootstrap ")?;
        let variables = ["--set", "jar_url=https://origin.test/a.jar", "--set", "config_bucket=glovo-config"];
        let digest = format!("jar_sha256={}", "0".repeat(64));
        let validate = [&["validate", "--set", &digest][..], &variables].concat();
        has(&chroot.run(world, &[], &validate)?, 0, "valid, 10 steps")
    })
}

#[test]
fn it_downloads_by_https_from_a_trusted_server() -> Result<()> {
    with_each(|world, chroot| {
        let fetch = ["fetch", "--output-dir", "/new", FILE];
        let untold = chroot.run(world, &[], &fetch)?;
        has(&untold, 1, "this machine has no root certificates (ca-certificates): trusting the built-in ones")?;
        has(&untold, 1, "the certificate of origin.test is not trusted")?;
        has(&chroot.run(world, &[("SSL_CERT_FILE", AUTHORITY)], &fetch)?, 0, "")?;
        ensure!(chroot.read("new/file")? == BYTES);
        Ok(())
    })
}

#[test]
fn it_fetches_from_s3() -> Result<()> {
    with_each(|world, chroot| {
        let environment = [&AWS_ENVIRONMENT[..], &[("SSL_CERT_FILE", AUTHORITY)]].concat();
        let fetch = ["fetch", "--output-dir", "/new", "s3://glovo-config/nginx/default"];
        has(&chroot.run(world, &environment, &fetch)?, 0, "")?;
        ensure!(chroot.read("new/default")?.contains("proxy_pass"));
        Ok(())
    })
}

/// musl's resolver, not glibc's: what it does has to be seen.
#[test]
fn names_are_found_with_a_search_domain_and_by_tcp() -> Result<()> {
    with_each(|world, chroot| {
        chroot.write("etc/resolv.conf", "search example.invalid test\nnameserver 172.31.0.1\n")?;
        // Both the question for IPv4 and that for IPv6.
        world.fault(&format!("^DNS {ORIGIN}$"), 2, Fault::Truncate(0));
        let before = world.requests().len();
        // The origin has no site of the short name.
        has(&chroot.run(world, &[], &["fetch", "--output-dir", "/new", "http://origin/file"])?, 1, "404")?;
        let lines: Vec<String> = world.requests()[before..].iter().map(machine::Request::line).collect();
        ensure!(lines.iter().any(|line| line == "GET origin/file"), "{lines:?}");
        ensure!(lines.iter().any(|line| line == "DNS origin.example.invalid"), "{lines:?}");
        ensure!(lines.iter().filter(|line| **line == format!("DNS {ORIGIN}")).count() == 4, "{lines:?}");
        world.clear_faults();
        Ok(())
    })
}
