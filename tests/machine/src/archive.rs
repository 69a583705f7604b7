//! Package archives made by a test: a key, a package, and indexes signed with the key.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::base::PACKAGE;
use crate::guest;
use crate::stand_in::StandIn;
use crate::world::World;

/// Shell: the functions with which the base's own archives are made.
const FUNCTIONS: &str = r#". "$0/base/archive"; tmp=$1; export GNUPGHOME=$1/gnupg; name=$2; shift 2"#;
const MAKE_KEY: &str = r#"
    mkdir -p -m 700 "$GNUPGHOME"
    gpg --batch --quiet --passphrase '' --quick-generate-key "$name@machine.test" rsa2048 sign never
    gpg --batch --quiet --export "$name@machine.test" > "$tmp/$name.gpg"
    gpg --batch --quiet --with-colons --show-keys "$tmp/$name.gpg" | awk -F: '$1 == "fpr" { print $10; exit }'
    gpgconf --kill all"#;
const MAKE_ARCHIVE: &str = r#"
    mkdir -p "$tmp/archive/pool"
    echo "$name" | in_package "usr/share/$1/made-by"
    package "$tmp/archive/pool" "$1" "$2"
    publish "$tmp/archive" "$3" "$name" "$name"
    if [ "${4:-}" ]; then
        sed -i "s/^Date: .*/Date: $4/" "$tmp/archive/dists/$3/Release"
        sign "$tmp/archive/dists/$3" "$name"
    fi
    gpgconf --kill all"#;

const MAKE_REPOSITORY: &str = r#"
    mkdir -p "$tmp/archive/pool" "$tmp/archive/dists/$1/$2/binary-amd64"
    for package in "$tmp"/packages/*/; do
        dpkg-deb --root-owner-group -Zgzip -b "$package" "$tmp/archive/pool" > /dev/null
    done
    cd "$tmp/archive"
    apt-ftparchive packages pool > "dists/$1/$2/binary-amd64/Packages"
    release=APT::FTPArchive::Release
    apt-ftparchive -o $release::Origin="$name" -o $release::Suite="$1" -o $release::Codename="$1" \
        -o $release::Components="$2" -o $release::Architectures=amd64 release "dists/$1" > "$tmp/Release"
    mv "$tmp/Release" "dists/$1/Release"
    sign "dists/$1" "$name"
    gpgconf --kill all"#;

/// The owner of a key, and of the archives that are signed with it.
pub struct Signer {
    name: String,
    directory: PathBuf,
    /// The fingerprint of its key, as gpg prints it.
    pub fingerprint: String,
    /// Its public key: packets, not armor.
    pub key: Vec<u8>,
}

impl Signer {
    /// Makes a key, in a new directory of that name in `place`.
    pub fn new(place: &Path, name: &str) -> Result<Signer> {
        let directory = place.join(name);
        fs::create_dir_all(&directory)?;
        let fingerprint = script(MAKE_KEY, &directory, name, &[])?.trim().to_owned();
        let key = fs::read(directory.join(format!("{name}.gpg")))?;
        Ok(Signer { name: name.into(), directory, fingerprint, key })
    }

    /// Publishes the archive `http://HOST` with suite `stable`, component `main` and one package, which holds
    /// `/usr/share/PACKAGE/made-by`.
    pub fn publish(&self, world: &World, host: &str, package: &str, version: &str) -> Result<()> {
        self.make(world, host, &[package, version, "stable"])
    }

    /// Publishes the archive with another suite.
    pub fn publish_in(&self, world: &World, host: &str, suite: &str, package: &str, version: &str) -> Result<()> {
        self.make(world, host, &[package, version, suite])
    }

    /// Publishes the archive with another date in its index: `Thu, 01 Jan 2032 00:00:00 UTC`.
    pub fn publish_at(&self, world: &World, host: &str, package: &str, version: &str, date: &str) -> Result<()> {
        self.make(world, host, &[package, version, "stable", date])
    }

    /// Publishes these packages at `http://ADDRESS`, as this suite with one component.
    pub fn publish_packages(
        &self,
        world: &World,
        address: &str,
        suite: &str,
        component: &str,
        packages: &[StandIn],
    ) -> Result<()> {
        let place = self.directory.join("packages");
        for package in packages {
            package.write(&place)?;
        }
        script(MAKE_REPOSITORY, &self.directory, &self.name, &[suite, component])?;
        let archive = self.directory.join("archive");
        publish_all(world, address, &archive)?;
        fs::remove_dir_all(archive)?;
        fs::remove_dir_all(place)?;
        Ok(())
    }

    fn make(&self, world: &World, host: &str, arguments: &[&str]) -> Result<()> {
        script(MAKE_ARCHIVE, &self.directory, &self.name, arguments)?;
        let archive = self.directory.join("archive");
        publish_all(world, host, &archive)?;
        fs::remove_dir_all(archive)?;
        Ok(())
    }
}

fn script(text: &str, directory: &Path, name: &str, arguments: &[&str]) -> Result<String> {
    let mut bash = Command::new("bash");
    bash.args(["-euc", &format!("{FUNCTIONS}\n{text}"), PACKAGE]).arg(directory).arg(name).args(arguments);
    guest::output(&mut bash)?.success().with_context(|| format!("making {name}'s archive"))
}

fn publish_all(world: &World, address: &str, directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let address = format!("{address}/{}", path.file_name().unwrap_or_default().display());
        if path.is_dir() {
            publish_all(world, &address, &path)?;
        } else {
            world.publish(&address, fs::read(path)?);
        }
    }
    Ok(())
}
