//! `apt_repository.key_fingerprint` against key files that apt's verifiers read in ways of their own: gpgv on Debian 12,
//! sqv on Debian 13.

use anyhow::{Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use machine::{Machine, Options, Output, Release, Signer};

const SOURCES: &str = "/etc/apt/sources.list.d/extra.sources";
const KEYRING: &str = "/etc/apt/keyrings/extra.gpg";

/// A machine, the vendor of a repository, and an attacker who serves the vendor's key and a repository of his own.
struct World {
    machine: Machine,
    vendor: Signer,
    attacker: Signer,
}

impl World {
    fn new(release: Release) -> Result<World> {
        let machine = Machine::boot(Options { release, ..Options::default() })?;
        let signer = |name: &str, host: &str| {
            let signer = Signer::new(machine.directory(), name)?;
            signer.publish(machine.world(), host, &format!("glovo-test-{name}"), "1.0")?;
            anyhow::Ok(signer)
        };
        let (vendor, attacker) = (signer("vendor", "vendor.test")?, signer("attacker", "attacker.test")?);
        Ok(World { machine, vendor, attacker })
    }

    /// Runs a manifest that declares the repository at `host` with this key file, pinned to the vendor's fingerprint.
    fn run(&self, host: &str, key: &[u8]) -> Result<Output> {
        std::fs::write(self.machine.path("/root/key"), key)?;
        let fingerprint = &self.vendor.fingerprint;
        let manifest = format!(
            "name = \"step\"\n[[resource]]\nkind = \"apt_repository\"\nname = \"extra\"\nuris = [\"http://{host}\"]\n\
             suites = [\"stable\"]\ncomponents = [\"main\"]\nkey = \"/root/key\"\nkey_fingerprint = \"{fingerprint}\"\n"
        );
        std::fs::write(self.machine.path("/root/manifest.toml"), manifest)?;
        self.machine.agent(&["run", "--steps", "/root/manifest.toml"])
    }

    /// A repository that the attacker signed is refused with this key file.
    fn refuses(&self, what: &str, key: &[u8]) -> Result<()> {
        let run = self.run("attacker.test", key)?;
        ensure!(run.code == 1, "{what}: exit code {}\n{}{}", run.code, run.stdout, run.stderr);
        self.machine.sh(&format!("! ls {SOURCES} /etc/apt/keyrings/extra.* 2> /dev/null"))?;
        Ok(())
    }

    /// The vendor's repository is taken with this key file, and what is published is the vendor's key alone.
    fn takes(&self, what: &str, key: &[u8]) -> Result<()> {
        let run = self.run("vendor.test", key)?;
        ensure!(run.code == 0, "{what}: exit code {}\n{}{}", run.code, run.stdout, run.stderr);
        ensure!(std::fs::read(self.machine.path(KEYRING))? == self.vendor.key, "{what}: other packets are published");
        let again = self.run("vendor.test", key)?;
        ensure!(again.stdout.contains("converged: 0 changes"), "{what}: {}{}", again.stdout, again.stderr);
        self.machine.sh(&format!("rm {SOURCES} {KEYRING}"))?;
        Ok(())
    }

    /// A block of armor between these lines, the second one END.
    fn block(key: &[u8], begin: &str, end: &str) -> String {
        let body = BASE64.encode(key);
        let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("{begin}\n\n{}\n{end}\n", lines.join("\n"))
    }

    /// A block with this on both sides of the words.
    fn between(key: &[u8], dashes: &str) -> String {
        let line = |word| format!("{dashes}{word} PGP PUBLIC KEY BLOCK{dashes}");
        Self::block(key, &line("BEGIN"), &line("END"))
    }

    fn armored(key: &[u8]) -> String {
        Self::between(key, "-----")
    }
}

/// sqv takes a block for armor whose dashes are fewer or other ones; gpgv takes it for text.
fn a_block_that_only_sqv_sees(release: Release) -> Result<()> {
    let world = World::new(release)?;
    let honest = World::armored(&world.vendor.key);
    for dashes in ["", "-", "\u{2014}"] {
        let key = World::between(&world.attacker.key, dashes) + &honest;
        world.refuses(&format!("an attacker's block behind {dashes:?}"), key.as_bytes())?;
    }
    world.takes("the vendor's own", honest.as_bytes())
}

#[test]
fn a_hidden_second_key_is_refused_on_debian_12_with_gpgv() -> Result<()> {
    a_block_that_only_sqv_sees(Release::Bookworm)
}

#[test]
fn a_hidden_second_key_is_refused_on_debian_13_with_sqv() -> Result<()> {
    a_block_that_only_sqv_sees(Release::Trixie)
}

fn odd_armors(release: Release) -> Result<()> {
    let world = World::new(release)?;
    let (vendor, attacker) = (&world.vendor.key, &world.attacker.key);
    let honest = World::armored(vendor);
    for dashes in
        ["", "----", "------", "- ----", "\u{2010}\u{2010}", "\u{2013}\u{2013}", "\u{2014}", "\u{2212}", "\u{2e3a}"]
    {
        let odd = World::between(attacker, dashes);
        world.refuses(&format!("behind {dashes:?} before the vendor's"), (odd.clone() + &honest).as_bytes())?;
        world.refuses(&format!("behind {dashes:?} after the vendor's"), (honest.clone() + &odd).as_bytes())?;
        world.refuses(&format!("behind {dashes:?} alone"), World::between(vendor, dashes).as_bytes())?;
    }
    let second = World::armored(attacker);
    // An attacker's primary key, disguised as a subkey of the vendor's: 0x99 and 0xB9 are the two packets' headers.
    ensure!(attacker[0] == 0x99);
    let subkey = [&[0xB9], &attacker[1..]].concat();
    for (what, key) in [
        ("a second block", honest.clone() + &second),
        ("a first block", second.clone() + &honest),
        ("a block in a line's middle", format!("see {second}{honest}")),
        ("a block in armor's headers", honest.replacen("\n\n", &format!("\nComment: x\n{second}\n\n"), 1)),
        ("a block behind a carriage return", format!("\r{}{honest}", second.replace('\n', "\r"))),
        ("a signed message's block", honest.clone() + &second.replace("PUBLIC KEY BLOCK", "MESSAGE")),
        ("text before", format!("the vendor's key:\n{honest}")),
        ("text after", format!("{honest}that was it\n")),
        ("a mark of the byte order", format!("\u{feff}{honest}")),
        ("junk in the Base64", honest.replacen("\n\n", "\n\n!", 1)),
        ("a checksum in the middle", honest.replacen("\n\n", "\n\n=AAAA\n", 1)),
        ("an attacker's key alone", second.clone()),
    ] {
        world.refuses(what, key.as_bytes())?;
    }
    for (what, key) in [
        ("two keys' packets", [&vendor[..], attacker].concat()),
        ("packets before armor", [&attacker[..], honest.as_bytes()].concat()),
        ("armor before packets", [honest.as_bytes(), attacker].concat()),
        ("a subkey that the vendor has not signed", [&vendor[..], &subkey].concat()),
    ] {
        world.refuses(what, &key)?;
    }

    let end = "-----END";
    for (what, key) in [
        ("armor", honest.clone()),
        ("lines of Windows", honest.replace('\n', "\r\n")),
        ("blank lines around", format!("\n \n{honest}\n\t\n")),
        ("armor with headers", honest.replacen("\n\n", "\nVersion: GnuPG v2\nComment: -----\n\n", 1)),
        ("a wrong checksum", honest.replace(end, &format!("=AAAA\n{end}"))),
    ] {
        world.takes(what, key.as_bytes())?;
    }
    world.takes("packets", vendor)
}

#[test]
fn odd_armors_bring_no_second_key_on_debian_12() -> Result<()> {
    odd_armors(Release::Bookworm)
}

#[test]
fn odd_armors_bring_no_second_key_on_debian_13() -> Result<()> {
    odd_armors(Release::Trixie)
}

#[test]
fn an_earlier_releases_armored_keyring_becomes_packets() -> Result<()> {
    let world = World::new(Release::Bookworm)?;
    let honest = World::armored(&world.vendor.key);
    world.takes("the first run", honest.as_bytes())?;
    world.run("vendor.test", honest.as_bytes())?.success()?;
    // As it was published before: the text, under the name that tells apt so.
    std::fs::write(world.machine.path("/etc/apt/keyrings/extra.asc"), &honest)?;
    world.machine.sh(&format!("rm {KEYRING}; sed -i s/extra.gpg/extra.asc/ {SOURCES}; apt-get -qq update"))?;
    let run = world.run("vendor.test", honest.as_bytes())?;
    ensure!(
        run.code == 0 && run.stdout.contains("replace the key by file:///root/key"),
        "{}{}",
        run.stdout,
        run.stderr
    );
    assert_eq!(world.machine.sh("ls /etc/apt/keyrings")?, "extra.gpg\n");
    assert!(world.machine.sh(&format!("cat {SOURCES}"))?.contains(&format!("Signed-By: {KEYRING}\n")));
    let again = world.run("vendor.test", honest.as_bytes())?;
    assert!(again.stdout.contains("converged: 0 changes"), "{}", again.stdout);
    Ok(())
}
