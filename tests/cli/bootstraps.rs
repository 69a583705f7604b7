//! The real bootstraps in `examples/world`: all manifests are valid, and the list of cases is that of the directory.
//! The page is compared with its generator in `pages.rs`; `tests/machine/tests/bootstraps` runs them.

use std::{collections::BTreeSet, fs};

use crate::{
    reference::bootstraps::{Bootstrap, cases},
    sandbox::Sandbox,
};

const WORLD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/world");
const CASES: usize = 47;
/// How many must be said without a shell script.
const SAID: usize = 35;
/// How many must run on machines.
const RUN: usize = 15;
/// The secret variables of all cases.
const SECRETS: &str = r#"
admin_password = "a password"
app_password = "a password"
db_password = "a password"
foobar_password_hash = "$6$salt$7H/1LT4f9/N3wpgNunhsIqtMj62OKiS3nyNwuizouQc3u7MbYCarYeAHWYPYb2FT.lbioDm2RrkJPb9BZMN1O/"
host_key = "a key"
private_key = "a key"
registry_password = "a password"
validation_key = "a key"
"#;

/// The ids of the manifests.
fn manifests() -> BTreeSet<String> {
    let files = fs::read_dir(WORLD).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    files.filter_map(|name| name.strip_suffix(".toml").map(str::to_owned)).filter(|name| name != "cases").collect()
}

#[test]
fn every_bootstrap_is_a_valid_manifest() {
    let sandbox = Sandbox::new();
    let secrets = sandbox.write("secrets.toml", SECRETS);
    let mut faults = vec![];
    for id in manifests() {
        let path = format!("{WORLD}/{id}.toml");
        let finished = sandbox.run(&["validate", "--steps", &path, "--variables", &secrets]);
        if finished.code != Some(0) {
            faults.push(finished.stderr);
        }
        let text = fs::read_to_string(&path).unwrap();
        if !text.starts_with(&format!("# {id}: ")) {
            faults.push(format!("{path} does not begin with its id"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_bootstrap_is_said_or_has_its_reason() {
    let cases = cases();
    let ids: BTreeSet<String> = cases.iter().map(|case| case.id.clone()).collect();
    assert_eq!((cases.len(), ids.len()), (CASES, CASES));
    let is_said = |case: &&Bootstrap| matches!(&*case.said, "yes" | "in part");
    let said: BTreeSet<String> = cases.iter().filter(is_said).map(|case| case.id.clone()).collect();
    assert_eq!(said, manifests());
    for case in &cases {
        assert!(["yes", "in part", "later", "no"].contains(&&*case.said), "{}: {}", case.id, case.said);
        assert!(case.said == "yes" || !case.left_out.is_empty(), "{} has no reason", case.id);
        assert!(!case.runs() || case.parts().is_some(), "{} runs without a manifest", case.id);
    }
    let whole = cases.iter().filter(|case| case.said == "yes" && case.parts().is_some_and(|parts| parts.shells == 0));
    assert!(whole.count() >= SAID);
    assert!(cases.iter().filter(|case| case.runs()).count() >= RUN);
}
