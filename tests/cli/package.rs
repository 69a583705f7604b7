//! The kinds of packages: what the manifest alone shows. `tests/machine/tests/package_kinds.rs` runs them.

use crate::sandbox::{Finished, Sandbox};

fn package(fields: &str) -> String {
    format!("[[resource]]\nkind = \"package\"\n{fields}\n")
}

fn validate(resources: &str) -> Finished {
    let sandbox = Sandbox::new();
    sandbox.run(&["validate", "--steps", &sandbox.manifest(resources)])
}

#[test]
fn a_package_is_managed_in_one_way_only() {
    let plain = package("names = [\"nginx\", \"curl\"]");
    // Two steps may need the same package.
    let _ = validate(&(plain.clone() + &package("names = [\"curl\"]"))).expect(0);
    for other in [
        "names = [\"curl\"]\nabsent = true",
        "names = [\"curl\"]\nhold = true",
        "names = [\"curl=8.*\"]",
        "names = [\"curl=8.1\"]",
    ] {
        let refused = validate(&(plain.clone() + &package(other))).expect(2);
        let _ = refused.says("two resources manage the package curl").says("the first one is at");
        let _ = validate(&(package(other) + &package(other))).expect(2).says("two resources manage the package curl");
    }
    // Another architecture is another package. No machine has two distributions.
    let _ = validate(&(plain.clone() + &package("names = [\"curl:i386\"]\nabsent = true"))).expect(0);
    let here =
        |name: &str, fields: &str| package(&format!("{fields}\nwhere = {{ \"host.distribution\" = \"{name}\" }}"));
    let _ = validate(&(here("debian", "names = [\"curl\"]") + &here("ubuntu", "names = [\"curl\"]\nabsent = true")))
        .expect(0);
}

#[test]
fn fields_that_contradict_a_removal_are_refused() {
    for (fields, words) in [
        ("names = [\"nginx=1.22\"]", "`nginx=1.22` has a version, but an absent package has none"),
        ("names = [\"nginx\"]\nhold = true", "`hold` is about an installation, but `absent` removes the packages"),
        ("names = [\"nginx\"]\nrecommends = false", "`recommends` is about an installation"),
        ("names = [\"nginx\"]\nupdate = \"never\"", "`update` is about an installation"),
    ] {
        let _ = validate(&package(&format!("{fields}\nabsent = true"))).expect(2).says(words).says("1 fault");
    }
}

#[test]
fn a_wildcard_is_only_at_the_end_of_a_version() {
    let _ = validate(&package("names = [\"nodejs=20.*\"]")).expect(0);
    for version in ["*", "2*0", "20.**", "20.?"] {
        let refused = validate(&package(&format!("names = [\"nodejs={version}\"]"))).expect(2);
        let _ = refused.says("is not a version, such as `1.22.1-9`, or `1.22.*` for all that begin so");
    }
}

#[test]
fn a_title_names_at_most_four_packages() {
    let sandbox = Sandbox::new();
    std::fs::create_dir_all(sandbox.at("tree/var/lib/dpkg/updates")).unwrap();
    let _ = sandbox.write("tree/var/lib/dpkg/status", "");
    for (names, title) in [
        ("\"aa\", \"bb\", \"cc\", \"dd\"", "package aa, bb, cc, dd: install"),
        ("\"aa\", \"bb\", \"cc\", \"dd\", \"ee\"", "package aa, bb, cc and 2 more: install aa, bb, cc, dd, ee"),
    ] {
        let manifest = sandbox.manifest(&package(&format!("names = [{names}]")));
        let _ = sandbox.run(&["plan", "--root", &sandbox.at("tree"), "--steps", &manifest]).expect(0).says(title);
    }
}

#[test]
fn a_repository_on_a_machine_without_its_family_is_refused() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.at("tree")).unwrap();
    let repository = format!(
        "[[resource]]\nkind = \"apt_repository\"\nname = \"example\"\nuris = [\"https://apt.example.com\"]\n\
         suites = [\"stable\"]\ncomponents = [\"main\"]\nkey = \"https://apt.example.com/key\"\nkey_sha256 = \"{}\"\n",
        "0".repeat(64)
    );
    let manifest = sandbox.manifest(&repository);
    let plan = sandbox.run(&["plan", "--root", &sandbox.at("tree"), "--steps", &manifest]).expect(1);
    let _ = plan.says("this is not a Debian, Ubuntu, Amazon Linux 2023, RHEL or Fedora system").says("with `where`");
}

fn package_file(fields: &str) -> String {
    format!("[[resource]]\nkind = \"package_file\"\n{fields}\n")
}

#[test]
fn wrong_declarations_of_a_package_file_are_refused() {
    let digest = format!("sha256 = \"{}\"", "0".repeat(64));
    let http = "source = \"https://h.example/a.deb\"";
    let good = format!("name = \"agent\"\nversion = \"1:1.4-1\"\n{http}\n{digest}");
    let _ = validate(&package_file(&good)).expect(0);
    let _ = validate(&package_file("name = \"agent\"\nversion = \"1.4\"\nsource = \"s3://b/a.deb\"")).expect(0);
    for (from, to, words) in [
        (&*digest, "", "a package file from https or http needs `sha256`"),
        ("\"agent\"", "\"agent=1.4\"", "`agent=1.4` has a version, which is in `version`"),
        ("\"1:1.4-1\"", "\"1.*\"", "a package file has one version, without a wildcard"),
        ("\"1:1.4-1\"", "\"1 4\"", "is not a version"),
    ] {
        let _ = validate(&package_file(&good.replace(from, to))).expect(2).says(words).says("1 fault");
    }
    let two = good.replace(http, "source = [\"https://h.example/a.deb\", \"https://i.example/a.deb\"]");
    let _ = validate(&package_file(&two)).expect(0);
    let _ = validate(&package_file(&two.replace(&digest, ""))).expect(2).says("several sources need `sha256`");
    let both = package_file(&good) + &package("names = [\"agent\"]");
    let _ = validate(&both).expect(2).says("two resources manage the package agent");
}

#[test]
fn a_machine_has_one_upgrade_and_its_holds_have_no_version() {
    let upgrade = "[[resource]]\nkind = \"upgrade\"\nscope = \"all\"\n";
    let _ = validate(upgrade).expect(0);
    let twice = upgrade.to_owned() + &upgrade.replace("all", "security");
    let _ = validate(&twice).expect(2).says("two resources manage the upgrade of this machine");
    let held = upgrade.to_owned() + "hold = [\"nginx=1.22\"]\n";
    let _ = validate(&held).expect(2).says("`nginx=1.22` has a version, but a held package stays at its installed one");
}
