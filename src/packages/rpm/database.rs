//! The installed packages, read from rpm's database.

use std::collections::HashMap;

use anyhow::{Context, Result};

use super::{
    header::{Header, Tag},
    snapshot::{self, unreadable},
    sqlite::Sqlite,
    version,
};
use crate::{error::Fault, host::root::Root, value::AbsPath};

/// The places of the database. RHEL 10 and Fedora have it in the second one.
pub const DATABASES: [&str; 2] = ["/var/lib/rpm/rpmdb.sqlite", "/usr/lib/sysimage/rpm/rpmdb.sqlite"];
/// The files of older formats, and their names in rpm's `%_db_backend`.
const OLD_DATABASES: [(&str, &str); 2] = [("Packages.db", "ndb"), ("Packages", "bdb")];

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpmPackage {
    /// Its name.
    pub name: String,
    /// The number before its version; 0 if it has none.
    pub epoch: u32,
    /// The version of its software.
    pub version: String,
    /// The release of the package.
    pub release: String,
    /// Its architecture, or `noarch`. Empty for a public key that rpm keeps as the package `gpg-pubkey`.
    pub architecture: String,
}

impl RpmPackage {
    /// Returns `[epoch:]version-release`, as `rpm -q --qf '%{EVR}'` does.
    pub fn evr(&self) -> String {
        let epoch = if self.epoch == 0 { String::new() } else { format!("{}:", self.epoch) };
        format!("{epoch}{}-{}", self.version, self.release)
    }

    fn read(header: &mut Header) -> Result<Self> {
        let mut required = |tag| header.text(tag)?.with_context(|| format!("it has no tag {}", tag as u32));
        let [name, version, release] = [required(Tag::Name)?, required(Tag::Version)?, required(Tag::Release)?];
        Ok(Self {
            name,
            epoch: header.number(Tag::Epoch)?.unwrap_or_default(),
            version,
            release,
            architecture: header.text(Tag::Architecture)?.unwrap_or_default(),
        })
    }
}

/// The installed packages.
#[derive(Debug, Default)]
pub struct RpmDatabase {
    /// The packages of each name, oldest version first.
    packages: HashMap<String, Vec<RpmPackage>>,
}

impl RpmDatabase {
    /// Reads the database.
    ///
    /// # Errors
    /// If it does not exist, has another format than SQLite, or is damaged.
    pub fn read(root: &Root) -> Result<Self> {
        let installed = read_first(root, packages)?;
        Ok(Self::of(installed.into_iter().map(|(_, package)| package)))
    }

    /// Returns the database of some packages.
    pub fn of(installed: impl IntoIterator<Item = RpmPackage>) -> Self {
        let mut packages = HashMap::<String, Vec<RpmPackage>>::new();
        for package in installed {
            packages.entry(package.name.clone()).or_default().push(package);
        }
        for instances in packages.values_mut().filter(|instances| instances.len() > 1) {
            instances.sort_by(|one, other| version::order(&one.evr(), &other.evr()));
        }
        Self { packages }
    }

    /// Returns the package of a name with the newest version; with an architecture, only a package of this architecture.
    pub fn package(&self, name: &str, architecture: Option<&str>) -> Option<&RpmPackage> {
        let fits = |package: &&RpmPackage| architecture.is_none_or(|architecture| package.architecture == architecture);
        self.instances(name).iter().rev().find(fits)
    }

    /// Returns all packages of a name, oldest version first. Kernels and public keys have several.
    pub fn instances(&self, name: &str) -> &[RpmPackage] {
        self.packages.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns all packages, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &RpmPackage> {
        self.packages.values().flatten()
    }
}

/// When each installed package was installed.
#[derive(Debug, Default)]
pub struct RpmInstallTimes(Vec<(RpmPackage, u32)>);

impl RpmInstallTimes {
    /// Reads the times from the database.
    ///
    /// # Errors
    /// Those of [`RpmDatabase::read`].
    pub fn read(root: &Root) -> Result<Self> {
        let read = |header: &mut Header| -> Result<(RpmPackage, u32)> {
            Ok((RpmPackage::read(header)?, header.number(Tag::InstallTime)?.unwrap_or_default()))
        };
        let times = read_first(root, |sqlite| headers(sqlite, read))?;
        Ok(Self(times.into_iter().map(|(_, time)| time).collect()))
    }

    /// Returns the first package that fits, and its time in seconds since 1970.
    pub fn find(&self, fits: impl Fn(&RpmPackage) -> bool) -> Option<(&RpmPackage, u32)> {
        self.0.iter().find(|(package, _)| fits(package)).map(|(package, time)| (package, *time))
    }
}

/// The names that the installed packages provide, beside their own.
///
/// `dnf install NAME` installs nothing if an installed package provides the name and no package has it.
#[derive(Debug, Default)]
pub struct RpmProvides {
    providers: HashMap<String, String>,
}

impl RpmProvides {
    /// Reads the names from the database.
    ///
    /// # Errors
    /// Those of [`RpmDatabase::read`].
    pub fn read(root: &Root) -> Result<Self> {
        let providers = read_first(root, providers)?;
        Ok(Self { providers })
    }

    /// Returns the name of an installed package of another name that provides this one.
    pub fn provider(&self, name: &str) -> Option<&str> {
        self.providers.get(name).map(String::as_str)
    }
}

/// Returns each provided name with the name of a package that provides it.
pub(super) fn providers(sqlite: &Sqlite) -> Result<HashMap<String, String>> {
    let names: HashMap<_, _> = packages(sqlite)?.into_iter().map(|(id, package)| (id, package.name)).collect();
    let mut providers = HashMap::new();
    sqlite.rows("Providename", |row| {
        let provided = row.text("key")?;
        if let Some(name) = names.get(&row.integer("hnum")?).filter(|name| **name != provided) {
            _ = providers.entry(provided).or_insert_with(|| name.clone());
        }
        Ok(())
    })?;
    Ok(providers)
}

/// Returns all packages with their numbers.
pub(super) fn packages(sqlite: &Sqlite) -> Result<Vec<(i64, RpmPackage)>> {
    headers(sqlite, RpmPackage::read)
}

/// Returns what `read` reads from each package's header, with the package's number.
fn headers<T>(sqlite: &Sqlite, read: impl Fn(&mut Header) -> Result<T>) -> Result<Vec<(i64, T)>> {
    let mut packages = vec![];
    sqlite.rows("Packages", |row| {
        let id = row.id;
        let mut blob = row.blob("blob")?;
        let package = Header::read(&mut blob).and_then(|mut header| read(&mut header));
        packages.push((id, package.with_context(|| format!("reading the header {id}"))?));
        Ok(())
    })?;
    Ok(packages)
}

/// Reads from the database of a root.
fn read_first<T>(root: &Root, take: impl Fn(&Sqlite) -> Result<T>) -> Result<T> {
    for path in DATABASES {
        let read = snapshot::read(root, &path.into(), &take);
        let read = read.map_err(|error| unreadable(error, "the database of rpm", "check it: rpm --verifydb"));
        if let Some(taken) = read? {
            return Ok(taken);
        }
    }
    for directory in DATABASES.map(AbsPath::from).iter().filter_map(AbsPath::parent) {
        for (name, format) in OLD_DATABASES {
            let path = directory.join(name)?;
            if root.status(&path)?.is_some() {
                let message =
                    format!("{path} is a database of the format {format}; this program reads only rpm's sqlite");
                return Err(Fault::new(message).hint("use Amazon Linux 2023, RHEL 9, Fedora 33 or a later one").into());
            }
        }
    }
    let message = format!("{} are missing: this is not a system of rpm", DATABASES.join(" and "));
    Err(Fault::new(message).hint("leave this resource out on such systems; it needs rpm and dnf").into())
}
