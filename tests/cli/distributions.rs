//! Variables with a value for each distribution or family.

use std::fs;

use crate::sandbox::{Finished, Sandbox};

const MANIFEST: &str = r#"
[variables.site]
debian = "/site"
redhat = "/conf"

[variables.names]
amzn = ["corretto"]
debian = ["jre", "jdk"]
redhat = ["openjdk"]

[[step]]
name = "step"

[[step.resource]]
kind = "file"
path = "{{ site }}"
content = "x"

[[step.resource]]
kind = "directory"
path = "/srv"
where = { "host.family" = "debian" }

[[step.resource]]
kind = "package"
names = ["nginx", "{{ names }}"]
phase = "boot"
"#;

/// Runs a verb for an image's tree of a distribution.
fn on(sandbox: &Sandbox, release: &str, verb: &str, manifest: &str, more: &[&str]) -> Finished {
    _ = sandbox.write("tree/etc/os-release", release);
    let manifest = sandbox.write("m.toml", manifest);
    sandbox.run(&[&[verb, "--steps", &manifest, "--root", &sandbox.at("tree")], more].concat())
}

#[test]
fn a_variable_has_the_value_of_the_distribution_or_family() {
    for (release, site, names) in [
        ("ID=ubuntu\nID_LIKE=debian\n", "/site", "nginx, jre, jdk"),
        ("ID=\"amzn\"\nID_LIKE=\"fedora\"\n", "/conf", "nginx, corretto"),
        ("ID=\"rhel\"\nID_LIKE=\"fedora\"\n", "/conf", "nginx, openjdk"),
    ] {
        let sandbox = Sandbox::new();
        let run = on(&sandbox, release, "run", MANIFEST, &[]).expect(0);
        let _ = run.says(&format!("package {names}: "));
        assert_eq!(fs::read_to_string(sandbox.at(&format!("tree{site}"))).unwrap(), "x", "{release}");
    }
}

#[test]
fn the_command_line_overrides_the_values_of_all_distributions() {
    let sandbox = Sandbox::new();
    let more = ["--set", "site=/given", "--set", "names=[\"a\", \"b\"]"];
    let run = on(&sandbox, "ID=fedora\n", "run", MANIFEST, &more).expect(0);
    let _ = run.says("package nginx, a, b: ");
    assert!(fs::exists(sandbox.at("tree/given")).unwrap());
    // A supposed distribution counts, too.
    let plan = on(&sandbox, "ID=fedora\n", "plan", MANIFEST, &["--set", "host.distribution=amzn"]);
    let _ = plan.expect(0).says("package nginx, corretto: ");
}

#[test]
fn a_distribution_without_a_value_is_refused_with_what_to_type() {
    let sandbox = Sandbox::new();
    for verb in ["plan", "run"] {
        let refused = on(&sandbox, "ID=sles\nID_LIKE=\"suse\"\n", verb, MANIFEST, &[]).expect(2);
        let refused = refused.says("variable `site` has no value for sles");
        let _ = refused.says("hint: pass --set site=VALUE\n");
    }
    // Where nothing uses it, it needs no value.
    let unused = MANIFEST.replace("debian = \"/site\"\n", "");
    let elsewhere =
        unused.replace("path = \"{{ site }}\"", "path = \"{{ site }}\"\nwhere = { host.family = \"redhat\" }");
    let _ = on(&sandbox, "ID=debian\n", "run", &elsewhere, &[]).expect(0);
}

#[test]
fn validate_checks_the_values_of_all_distributions() {
    let sandbox = Sandbox::new();
    let validate = |manifest: &str| {
        let manifest = sandbox.write("v.toml", manifest);
        sandbox.run(&["validate", "--steps", &manifest])
    };
    let _ = validate(MANIFEST).expect(0).says("1 step with 3 resources");
    for (from, to, words) in [
        ("\"/conf\"", "\"conf\"", "the value is that of variable `site`, set at"),
        ("\"corretto\"", "\"Not/A/Name\"", "Not/A/Name"),
        ("debian = [\"jre\", \"jdk\"]\n", "", "hint: pass --set names=VALUE, or add to its table: debian = \"VALUE\""),
        ("content = \"x\"", "content = \"x\"\nmode = \"9\"", "octal"),
    ] {
        let _ = validate(&MANIFEST.replace(from, to)).expect(2).says(words).says("1 fault");
    }
}

#[test]
fn a_table_that_is_no_table_of_distributions_is_refused() {
    let sandbox = Sandbox::new();
    for (table, words) in [
        ("{}", "the value of variable `site` is a table"),
        ("{ debian = { a = \"b\" } }", "the value of variable `site` for debian is a table"),
        ("{ amazon = \"x\" }", "did you mean `amzn`?"),
        ("{ port = 1 }", "`port` in the value of variable `site` is not a distribution or family"),
    ] {
        let _ = sandbox.write("variables.toml", format!("site = {table}\n"));
        let manifest = sandbox.manifest("[[resource]]\nkind = \"directory\"\npath = \"{{ site }}\"\n");
        let refused = sandbox.run(&["validate", "--steps", &manifest, "--variables", &sandbox.at("variables.toml")]);
        let _ = refused.expect(2).says(words).says("1 fault");
    }
}

#[test]
fn the_built_in_steps_are_for_both_families() {
    let sandbox = Sandbox::new();
    let digest = "0".repeat(64);
    let given = ["--set", "jar_url=https://a/x", "--set", &format!("jar_sha256={digest}"), "--set", "config_bucket=b"];
    let _ = sandbox.run(&[&["validate", "--steps", "built-in"], &given[..]].concat()).expect(0).says("10 steps");
}

#[test]
fn no_distributions_value_of_a_secret_variable_is_shown() {
    let sandbox = Sandbox::new();
    let secrets = sandbox.write("secrets.toml", "token = { debian = \"canary-one\", redhat = \"canary-two\" }\n");
    let manifest = "name = \"a\"\n[[resource]]\nkind = \"file\"\npath = \"/a\"\ncontent = \"{{ token }} canary-two\"\n";
    let plan = on(&sandbox, "ID=debian\n", "plan", manifest, &["--variables", &secrets]).expect(0).says("create");
    assert!(!plan.stdout.contains("canary") && !plan.stderr.contains("canary"), "{plan:?}");
}
