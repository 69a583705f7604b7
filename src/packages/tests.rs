//! A second family, made up: what it says reaches every room that works with package managers. It is this file and its
//! line in `families!`.

use anyhow::ensure;

use super::{
    manager::{
        Choice, ImageTraces, Installation, InstalledPackage, Lack, PackageChange, PackageManager, PasswordFiles,
        Repair, Update, UpgradeRequest, Upgrades,
    },
    *,
};
use crate::{
    host::scratch::Scratch,
    image::{
        credentials,
        seal::{OnRequest, seal},
    },
    manifest::schema::json_schema,
    resource::{Resource, package::Package},
    stop::Interrupt,
    system::{Mode, System},
    value::AbsPath,
};

/// A family whose names begin with `@`.
#[derive(Debug)]
pub struct MadeUp;

impl PackageManager for MadeUp {
    fn name(&self) -> &'static str {
        "made-up"
    }

    fn distributions(&self) -> &'static [&'static str] {
        &["Made-up"]
    }

    fn distribution_ids(&self) -> &'static [&'static str] {
        &["fedora"]
    }

    fn databases(&self) -> &'static [&'static str] {
        &["/var/lib/made-up/installed"]
    }

    fn read_name(&self, text: &str) -> Result<PackageName> {
        ensure!(text.starts_with('@'), "`{text}` does not begin with `@`");
        Ok(PackageName { text: text.into(), name: text[1..].into(), architecture: None, version: None })
    }

    fn name_pattern(&self) -> &'static str {
        "^@"
    }

    fn traces(&self) -> ImageTraces {
        ImageTraces {
            of_machine: &[("a made-up trace", &["/var/lib/made-up/of-this-machine"])],
            passwords: &[PasswordFiles { patterns: &["/etc/made-up/*"], find: |text| text.find("secret") }],
            harmless_keys: &["/etc/made-up/key"],
        }
    }

    fn lack(&self, host: &Host, package: &PackageName) -> Result<Option<Lack>> {
        let installed = host.root().read_text(&self.databases()[0].into())?;
        Ok((!installed.lines().any(|line| line == package.name)).then_some(Lack::Package(None)))
    }

    fn installed(&self, host: &Host, package: &PackageName) -> Result<Option<InstalledPackage>> {
        let is_lacking = self.lack(host, package)?.is_some();
        Ok((!is_lacking).then(|| InstalledPackage { version: "1".into(), is_held: false }))
    }

    fn choice(&self, _: &System, _: &PackageName, _: Update) -> Result<Option<Choice>> {
        Ok(None)
    }

    fn repairs(&self, _: &Host, _: bool) -> Result<Vec<Repair>> {
        Ok(vec![])
    }

    fn install(&self, _: &System, _: &Installation) -> Result<()> {
        Ok(())
    }

    fn file_place(&self) -> AbsPath {
        "/var/lib/made-up/file".into()
    }

    fn check_file(&self, _: &System, _: &AbsPath, _: &PackageName) -> Result<()> {
        Ok(())
    }

    fn install_file(&self, _: &System, _: &PackageName, _: bool) -> Result<()> {
        Ok(())
    }

    fn upgrades(&self, _: &System, _: &UpgradeRequest) -> Result<Upgrades> {
        Ok(Upgrades { are_lists_old: false, changes: vec![] })
    }

    fn upgrade(&self, _: &System, _: &UpgradeRequest) -> Result<()> {
        Ok(())
    }

    fn removal(&self, system: &System, packages: &[PackageName]) -> Result<Vec<PackageChange>> {
        let mut changes = vec![];
        for package in packages {
            let from = self.installed(&system.host, package)?.map(|installed| installed.version);
            changes.extend(from.map(|from| PackageChange { name: package.text.clone(), from: Some(from), to: None }));
        }
        Ok(changes)
    }

    fn remove(&self, _: &System, _: &[PackageName], _: &[PackageChange]) -> Result<()> {
        Ok(())
    }

    fn hold(&self, _: &System, _: &[PackageName], _: bool) -> Result<()> {
        Ok(())
    }

    fn release_command(&self, package: &str) -> String {
        format!("made-up release {package}")
    }

    fn reboot_reasons(&self, host: &Host) -> Result<Vec<String>> {
        let reasons = host.root().read_text(&"/run/made-up-reboot".into())?;
        Ok(reasons.lines().map(str::to_owned).collect())
    }
}

fn package(names: &[&str]) -> Package {
    let fields = serde_json::json!({ "names": names });
    serde_json::from_value(fields).unwrap()
}

#[test]
fn a_machine_is_of_the_family_whose_database_it_has() {
    let tree = Scratch::of(&[("/var/lib/made-up/installed", "")]);
    assert_eq!(of(&tree.host()).unwrap().name(), "made-up");
    let tree = Scratch::of(&[("/var/lib/dpkg/status", "")]);
    assert_eq!(of(&tree.host()).unwrap().name(), "apt");
    let error = of(&Scratch::new().host()).err().unwrap();
    let message = "/var/lib/dpkg/status, /var/lib/rpm/rpmdb.sqlite and /var/lib/made-up/installed are missing: \
                   this is not a Debian, Ubuntu, Amazon Linux 2023, RHEL, Fedora or Made-up system";
    assert_eq!(error.to_string(), message);
}

#[test]
fn a_plan_reads_names_as_the_family_of_the_machine_does() {
    let tree = Scratch::of(&[("/var/lib/made-up/installed", "here\n")]);
    let system = System::open(tree.path(), Mode::Plan, Interrupt::default()).unwrap();
    assert_eq!(package(&["@here"]).plan(&system).unwrap().len(), 0);
    let changes = package(&["@here", "@there"]).plan(&system).unwrap();
    assert_eq!(changes.iter().map(|change| &*change.summary).collect::<Vec<_>>(), ["install @there"]);
    let error = package(&["nginx"]).plan(&system).unwrap_err();
    assert_eq!(error.to_string(), "`nginx` does not begin with `@`");
}

#[test]
fn names_that_no_single_family_has_need_no_machine_to_be_refused() {
    let managers = |names: &[&str]| {
        let managers = package(names).package_managers().unwrap();
        managers.into_iter().map(PackageManager::name).collect::<Vec<_>>()
    };
    assert_eq!((managers(&["@a"]), managers(&["nginx"])), (vec!["made-up"], vec!["apt", "dnf"]));
    assert_eq!((managers(&["NetworkManager"]), managers(&["glibc:i386"])), (vec!["dnf"], vec!["apt"]));
    assert_eq!(package(&["@a"]).check(), []);
    assert_eq!(package(&["@a", "nginx"]).check().len(), 1);
    let error = read_name("A b").unwrap_err().to_string();
    let each = "`A b` is not a package name for apt: it has at least two of: a-z, 0-9, `+`, `-`, `.`; \
                `A b` is not a package name for dnf: it has only: a-z, A-Z, 0-9, `_`, `+`, `-`, `.`; \
                `A b` does not begin with `@`";
    assert_eq!(error, each);
    let pattern = &json_schema()["$defs"]["PackageName"]["pattern"];
    assert!(pattern.as_str().unwrap().contains("$|^@"), "{pattern}");
}

#[test]
fn an_image_loses_the_traces_of_each_family() {
    let tree = Scratch::of(&[
        ("/var/lib/made-up/of-this-machine", "x"),
        ("/var/lib/glovo-bootstrap/apt-update.json", "{}"),
        ("/etc/made-up/login", "a\nsecret"),
        (
            "/etc/made-up/key",
            "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAOcrn9g\n",
        ),
    ]);
    let mut told = vec![];
    seal(&tree.host(), OnRequest::default(), |line| told.push(line)).unwrap();
    assert_eq!(
        told,
        [
            "remove /var/lib/glovo-bootstrap/apt-update.json (the failed sources of this machine's last apt-get update)",
            "remove /var/lib/made-up/of-this-machine (a made-up trace)",
        ]
    );
    let found = credentials::search(&tree.host(), &[]).unwrap();
    let found: Vec<_> = found.iter().map(|found| (found.path.clone(), found.line, found.what)).collect();
    assert_eq!(found, [(AbsPath::from("/etc/made-up/login"), 2, "a password")]);
}
