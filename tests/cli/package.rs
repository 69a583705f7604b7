//! The kinds of packages: what the manifest alone shows. `tests/machine/tests/package_kinds.rs` runs them.

use std::os::unix::fs::PermissionsExt;

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
        let _ = refused.says("is not a version for apt, such as `1.22.1-9`, or `1.22.*` for all that begin so");
    }
}

/// Makes an image's tree in which dpkg has no package.
fn tree_of_dpkg(sandbox: &Sandbox) {
    for directory in ["etc", "var/lib/dpkg/updates"] {
        std::fs::create_dir_all(sandbox.path.join("tree").join(directory)).unwrap();
    }
    let _ = sandbox.write("tree/var/lib/dpkg/status", "");
}

#[test]
fn a_title_names_at_most_four_packages() {
    let sandbox = Sandbox::new();
    tree_of_dpkg(&sandbox);
    std::fs::create_dir_all(sandbox.at("tree/usr/bin")).unwrap();
    let program = sandbox.write("tree/usr/bin/apt-get", "");
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    for (names, title) in [
        ("\"aa\", \"bb\", \"cc\", \"dd\"", "package aa, bb, cc, dd: install"),
        ("\"aa\", \"bb\", \"cc\", \"dd\", \"ee\"", "package aa, bb, cc and 2 more: install aa, bb, cc, dd, ee"),
    ] {
        let manifest = sandbox.manifest(&package(&format!("names = [{names}]")));
        let _ = sandbox.run(&["plan", "--root", &sandbox.at("tree"), "--steps", &manifest]).expect(0).says(title);
    }
}

#[test]
fn a_name_that_no_family_has_is_refused_by_each_rule() {
    let refused = validate(&package("names = [\"ngin*\"]")).expect(2);
    let _ = refused.says("`ngin*` is not a package name for apt: it has at least two of").says("for dnf: it has only");
}

#[test]
fn a_plan_names_the_missing_package_manager() {
    let sandbox = Sandbox::new();
    tree_of_dpkg(&sandbox);
    let plan = |name: &str| {
        let manifest = sandbox.manifest(&package(&format!("names = [\"{name}\"]")));
        sandbox.run(&["plan", "--root", &sandbox.at("tree"), "--steps", &manifest]).expect(1)
    };
    let _ = plan("nginx").says("the program `apt-get` is missing").says("install apt-get, or limit this resource");
    let _ = plan("tree.x86_64").says("hint: for apt, write tree:amd64");
}

#[test]
fn a_repository_on_a_machine_without_its_family_is_refused() {
    let sandbox = Sandbox::new();
    std::fs::create_dir_all(sandbox.at("tree/etc")).unwrap();
    let repository = format!(
        "[[resource]]\nkind = \"apt_repository\"\nname = \"example\"\nuris = [\"https://apt.example.com\"]\n\
         suites = [\"stable\"]\ncomponents = [\"main\"]\nkey = \"https://apt.example.com/key\"\nkey_sha256 = \"{}\"\n",
        "0".repeat(64)
    );
    let manifest = sandbox.manifest(&repository);
    let plan = sandbox.run(&["plan", "--root", &sandbox.at("tree"), "--steps", &manifest]).expect(1);
    let _ = plan.says("this is not a Debian, Ubuntu, Amazon Linux 2023, RHEL or Fedora system").says("with `where`");
}

fn yum_repository(fields: &str) -> String {
    format!("[[resource]]\nkind = \"yum_repository\"\nname = \"example\"\nkey = \"https://h.example/key\"\n{fields}\n")
}

const URL: &str = "baseurl = [\"https://h.example/$releasever/$basearch\"]";
const PIN: &str = "key_fingerprint = \"2EE4 25D8 1B49 A538 6B85  06DD 9A9C 5A73 50E3 4DB2\"";

#[test]
fn wrong_declarations_of_a_repository_are_refused() {
    let good = format!("{URL}\n{PIN}\npriority = 10\nexclude = [\"kernel*\"]\nusername = \"a\"\npassword = \"$1a$$\"");
    let _ = validate(&yum_repository(&good)).expect(0);
    for (from, to, words) in [
        (PIN, "", "needs `key_sha256` or `key_fingerprint`"),
        (URL, "", "declare one of `baseurl`, `metalink` and `mirrorlist`"),
        (URL, &format!("{URL}\nmetalink = \"https://h.example/\""), "declare one of `baseurl`, `metalink`"),
        ("https://h.example/$", "/srv/$", "is not a URL for dnf"),
        ("https://h.example/$", "https://h.example/ $", "is not a URL for dnf"),
        ("https://h.example/$", "https://user:secret@h.example/$", "must not have credentials"),
        ("https://h.example/$", "http://h.example/$", "others in the network could read the password over http"),
        ("username = \"a\"\n", "", "`username` and `password` belong together"),
        ("\"$1a$$\"", "\"a$basearch\"", "dnf replaces a variable in it"),
        ("\"$1a$$\"", "\" a\"", "has no blanks around it"),
        ("priority = 10", "priority = 0", "a priority is a number from 1 to 99"),
        ("kernel*", "kernel,x", "is not the name of a package, nor a pattern"),
    ] {
        assert!(good.contains(from), "{from}");
        let refused = validate(&yum_repository(&good.replacen(from, to, 1))).expect(2).says(words).says("1 fault");
        assert!(!refused.stderr.contains("$1a"), "{refused:?}");
    }
    let unsigned = format!("{URL}\n{PIN}\nrepo_gpgcheck = false");
    let _ = validate(&yum_repository(&unsigned)).expect(0);
    let _ =
        validate(&yum_repository(&unsigned.replace("https", "http"))).expect(2).says("choose old packages over http");
    let main = yum_repository(&format!("{URL}\n{PIN}")).replace("\"example\"", "\"main\"");
    let _ = validate(&main).expect(2).says("is not the id of a repository");
}

#[test]
fn a_repository_of_another_family_is_refused_at_plan() {
    let sandbox = Sandbox::new();
    tree_of_dpkg(&sandbox);
    let manifest = sandbox.manifest(&yum_repository(&format!("{URL}\n{PIN}")));
    let plan = sandbox.run(&["plan", "--root", &sandbox.at("tree"), "--steps", &manifest]).expect(1);
    let _ = plan.says("this machine installs packages with apt, but yum_repository is about dnf").says("with `where`");
}

#[test]
fn a_release_is_only_for_the_family_that_has_them() {
    let upgrade =
        |release: &str| format!("[[resource]]\nkind = \"upgrade\"\nscope = \"all\"\nrelease = \"{release}\"\n");
    // Amazon Linux's, RHEL's, Fedora's.
    for release in ["2023.10.20260105", "9.4", "42"] {
        let _ = validate(&upgrade(release)).expect(0);
    }
    for wrong in ["2023.*", "", "latest", "2023..1", "2023.10", "2023.10.2026", "2023.10 --nogpgcheck"] {
        let _ = validate(&upgrade(wrong)).expect(2).says("is not a release, such as 2023.10.20260105");
    }
    let sandbox = Sandbox::new();
    tree_of_dpkg(&sandbox);
    let manifest = sandbox.manifest(&upgrade("2023.10.20260105"));
    let plan = sandbox.run(&["plan", "--root", &sandbox.at("tree"), "--steps", &manifest]).expect(1);
    let _ = plan.says("this machine installs packages with apt, which has no `release`");
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
