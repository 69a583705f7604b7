//! What the tests of logs need besides a base: rsyslog, an `OpenSearch`, certificates, a wire between two worlds, and a
//! sender with its collector.

mod pair;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

pub use self::pair::{FORWARD, Pair, burst, text};
pub use self::wire::{Pace, Wire};
use crate::base::{PACKAGE, Release, base, in_own_mounts};
use crate::cache::{Entry, Key};
use crate::{Machine, guest};

/// Installs rsyslog and the `OpenSearch`'s program on a machine.
pub fn install(machine: &Machine) -> Result<()> {
    let base = base(Release::Bookworm)?;
    let recipe = Path::new(PACKAGE).join("logs");
    // A base has keys of its own each time it is built.
    let key = Key::default().add(&base.join("tls"))?.add(&recipe)?;
    let parts = Entry::get("logs", key, |dir| {
        in_own_mounts(Command::new(recipe.join("build")).arg(dir).arg(base.join("tree")))
    })?;
    fs::create_dir_all(machine.path("/root/debs"))?;
    for deb in fs::read_dir(parts.path.join("debs"))? {
        let deb = deb?;
        fs::copy(deb.path(), machine.path("/root/debs").join(deb.file_name()))?;
    }
    fs::copy(parts.path.join("osmem-server"), machine.path("/usr/local/bin/osmem-server"))?;
    machine.sh("dpkg --install /root/debs/*.deb > /dev/null 2>&1")?;
    Ok(())
}

/// Makes an authority, and certificates for these names, in `DIR/NAME.pem` and `DIR/NAME.key`; the authority is `ca.pem`.
pub fn certificates(directory: &Path, names: &[&str]) -> Result<()> {
    fs::create_dir_all(directory)?;
    let script = r#"cd "$0"
        openssl req -x509 -newkey rsa:2048 -nodes -days 9 -keyout ca.key -out ca.pem -subj /CN=logs \
          -addext keyUsage=critical,keyCertSign
        for name; do
          openssl req -newkey rsa:2048 -nodes -keyout "$name.key" -out request.pem -subj "/CN=$name"
          printf 'subjectAltName=DNS:%s\nbasicConstraints=CA:FALSE\n' "$name" > extensions
          openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 9 -extfile extensions \
            -out "$name.pem"
        done"#;
    let mut bash = Command::new("bash");
    guest::output(bash.args(["-euc", script]).arg(directory).args(names))?.success()?;
    Ok(())
}

/// Copies the certificates to a machine, as `/etc/pki/logs`.
pub fn give(machine: &Machine, certificates: &Path) -> Result<()> {
    let target: PathBuf = machine.path("/etc/pki/logs");
    fs::create_dir_all(&target)?;
    for file in fs::read_dir(certificates)? {
        let file = file?;
        fs::copy(file.path(), target.join(file.file_name()))?;
    }
    ensure!(target.join("ca.pem").exists(), "no authority");
    Ok(())
}
