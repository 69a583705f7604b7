//! The seams of the house: a new package family is one folder and one line; a new deploy shape is one file, one template
//! and one line.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use crate::rooms::{product_files, root};

/// Words of one package family.
const OF_A_FAMILY: [&str; 12] =
    ["apt", "dpkg", "deb", "deb822", "debian", "ubuntu", "debconf", "dnf", "rpm", "rpmdb", "yum", "versionlock"];
/// The places outside the folder of the family that may have these words, with the reason.
const EXCEPTIONS: [(&str, &str, &str); 22] = [
    ("packages.rs", "apt::Apt,", "the line of the family"),
    ("packages.rs", "dnf::Dnf,", "the line of the family"),
    ("packages.rs", "pub mod rpm;", "the reader of this family's database"),
    ("resource/package.rs", "For apt, the system", "what the reference says of this family"),
    ("resource/package.rs", "dnf", "what the reference says of both families"),
    ("resource/upgrade.rs", "dnf", "the same"),
    ("resource/apt_repository.rs", "", "a kind of this family alone; another family brings a kind of its own"),
    ("resource/apt_repository/", "", "the same kind"),
    ("resource.rs", "apt_repository", "the two lines of this kind"),
    ("resource/yum_repository.rs", "", "a kind of this family alone"),
    ("resource/yum_repository/", "", "the same kind"),
    ("resource.rs", "yum_repository", "the two lines of this kind"),
    ("resource/package_file.rs", "_amd64.deb\"", "the file of the example, which has the ending of one family"),
    ("host/facts.rs", "", "names of architectures that manifests use"),
    ("value/distribution.rs", "", "names of distributions that manifests use"),
    ("deploy/preflight/image.rs", "(\"ubuntu\", Some(\"Ubuntu\"), &[\"ubuntu\"]),", "a system that EC2 names"),
    ("deploy/preflight/image.rs", "(\"debian\", None, &[\"debian\"]),", "the same"),
    ("host/root/way.rs", "ubuntu", "a directory that a distribution lets a group write, with any package manager"),
    ("deploy/preflight/image.rs", "ubuntu/server/24.04", "the image of new stacks"),
    ("deploy/preflight/image.rs", "documentation.ubuntu.com", "the source of that"),
    ("deploy/preflight/image.rs", "(\"debian-10\", 241)", "an image whose systemd is old"),
    ("deploy/settings.rs", "newest image of Ubuntu 24.04 LTS", "the image of new stacks"),
];

/// The code of each file without comments, and the file's path below `src/`.
fn code() -> Vec<(PathBuf, String)> {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let code = |text: &str| text.lines().filter(is_code).map(|line| format!("{line}\n")).collect();
    let below = |file: PathBuf| file.strip_prefix(root().join("src")).unwrap().to_owned();
    product_files().into_iter().map(|(file, text)| (below(file), code(&text))).collect()
}

/// The lines outside a folder that contain a text.
fn outside(folder: &str, text: &str) -> Vec<String> {
    let mut lines = vec![];
    for (file, code) in code().into_iter().filter(|(file, _)| !file.starts_with(folder)) {
        let found = code.lines().filter(|line| line.contains(text));
        lines.extend(found.map(|line| format!("{}: {}", file.display(), line.trim())));
    }
    lines
}

#[test]
fn only_its_file_and_one_line_name_a_deploy_shape() {
    let shapes: Vec<_> = code().into_iter().filter(|(file, _)| file.starts_with("deploy/shape")).collect();
    assert!(shapes.len() > 2);
    for (file, code) in shapes {
        let module = file.file_stem().unwrap().to_str().unwrap();
        let lines = outside("deploy/shape", &format!("{module}::"));
        assert!(matches!(&*lines, [line] if line.starts_with("deploy/shape.rs: ")), "{lines:?}");
        let name = code.split("fn name(&self) -> &'static str {").nth(1).unwrap().split('"').nth(1).unwrap();
        assert_eq!(outside("deploy/shape", &format!("\"{name}\"")), Vec::<String>::new());
        let template = code.split("include_str!(\"").nth(1).unwrap().split('"').next().unwrap();
        let template = template.trim_start_matches("../");
        assert!(root().join(template).is_file() && outside("deploy/shape", template).is_empty(), "{template}");
    }
}

#[test]
fn only_its_folder_and_one_line_name_a_package_family() {
    let is_word = |word: &str| OF_A_FAMILY.contains(&word.to_ascii_lowercase().as_str());
    let has_word = |line: &str| line.split(|c: char| !c.is_ascii_alphanumeric()).any(is_word);
    let (mut faults, mut used) = (vec![], BTreeSet::new());
    for (file, text) in product_files() {
        let file = file.strip_prefix(root().join("src")).unwrap().display().to_string();
        let folders = [
            "packages/apt.rs",
            "packages/apt/",
            "packages/dnf.rs",
            "packages/dnf/",
            "packages/rpm.rs",
            "packages/rpm/",
        ];
        if folders.iter().any(|folder| file.starts_with(folder)) {
            continue;
        }
        for line in text.lines().filter(|line| has_word(line)) {
            let allows = |(place, part, _): &(&str, &str, &str)| {
                file.starts_with(place) && line.to_ascii_lowercase().contains(&part.to_ascii_lowercase())
            };
            match EXCEPTIONS.iter().position(allows) {
                Some(exception) => _ = used.insert(exception),
                None => faults.push(format!("{file}: {}", line.trim())),
            }
        }
    }
    assert!(faults.is_empty(), "the family must say this itself:\n{}", faults.join("\n"));
    let unused = EXCEPTIONS.iter().enumerate().filter(|(index, _)| !used.contains(index));
    assert_eq!(unused.count(), 0, "an exception is not needed: {used:?} are");
}

#[test]
fn every_file_is_formatted_also_those_that_a_macro_declares() {
    let files = product_files().into_iter().map(|(file, _)| file);
    let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
    let checked = Command::new("rustfmt").args(["--check", "--edition", "2024"]).args(files).output().unwrap();
    let said = [checked.stdout, checked.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(checked.status.success(), "{}", said.concat());
}

#[test]
fn a_template_is_of_one_shape() {
    let templates = fs::read_dir(root().join("cloudformation")).unwrap().map(|entry| entry.unwrap().path());
    for template in templates.filter(|path| path.extension().is_some_and(|extension| extension == "yml")) {
        let name = template.file_name().unwrap().to_str().unwrap();
        let included = code().into_iter().filter(|(_, code)| code.contains(&format!("cloudformation/{name}\"")));
        assert_eq!(included.count(), 1, "{name}");
    }
}
