//! Facts about an instance without an instance: on a laptop, in CI, for an image's tree.

use std::fs;

use crate::sandbox::Sandbox;

const UNKNOWN: &str = r#"
[[resource]]
kind = "swap"
path = "/swap-{{ instance.id }}"
size = "{{ instance.tags.swap }}"
[[resource]]
kind = "directory"
path = "/srv/{{ instance.region }}"
mode = "{{ instance.tags.mode }}"
timeout = "{{ instance.tags.patience }}"
[[resource]]
kind = "user"
name = "{{ instance.tags.user }}"
[[resource]]
kind = "file"
path = "/x"
source = "{{ instance.tags.jar }}"
owner = "{{ instance.tags.user }}"
[[resource]]
kind = "file"
path = "/y"
source = "s3://b-{{ instance.region }}/{{ host.architecture }}/{{ host.memory }}"
[[resource]]
kind = "apt_repository"
name = "vendor"
uris = ["https://a/"]
suites = ["{{ instance.tags.suite }}"]
key = "https://a/key"
key_sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
[[resource]]
kind = "http_check"
url = "{{ instance.tags.url }}/health"
"#;

#[test]
fn validate_needs_no_machine() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.write("m.toml", format!("name = \"a\"\ntimeout = \"{{{{ instance.tags.t }}}}\"\n{UNKNOWN}"));
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(0).says("1 step with 7 resources");
    let _ = sandbox.run(&["plan", "--steps", &manifest]).expect(2).says("instance.");
}

#[test]
fn validate_finds_the_faults_beside_what_it_cannot_know() {
    let sandbox = Sandbox::new();
    for (fields, words) in [
        ("kind = \"directory\"\npath = \"/{{ instance.id }}\"\nmode = \"9\"", "octal"),
        ("kind = \"directory\"\npath = \"/{{ instance.id }}\"\nonwer = \"a\"", "did you mean `owner`?"),
        ("kind = \"directory\"\npath = \"/{{ instance.id }}/{{ nowhere }}\"", "`nowhere` is not set"),
        ("kind = \"directory\"\npath = \"/{{ instance.idd }}\"", "instance.idd"),
        ("kind = \"directory\"\npath = \"/{{ host.arch }}\"", "host.arch does not exist"),
        ("kind = \"file\"\npath = \"/{{ instance.id }}\"\nsource = \"https://a/x\"", "needs `sha256`"),
        ("kind = \"link\"\npath = \"/{{ instance.id }}\"", "needs the field `target`"),
    ] {
        let manifest = sandbox.manifest(&format!("[[resource]]\n{fields}\n"));
        let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says(words).says("1 fault");
    }
    let twice = "[[resource]]\nkind = \"directory\"\npath = \"/{{ instance.id }}\"\n".repeat(2);
    let _ = sandbox.run(&["validate", "--steps", &sandbox.manifest(&twice)]).expect(2).says("two resources manage");
}

#[test]
fn a_fact_may_be_supposed_but_not_on_a_machine_that_runs() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.manifest(
        "[[resource]]\nkind = \"file\"\npath = \"/x\"\ncontent = \"{{ instance.region }} {{ host.hostname }}\"\nmode = \"{{ instance.tags.mode }}\"\n",
    );
    let facts =
        ["--set", "instance.region=eu-central-1", "--set", "host.hostname=web", "--set", "instance.tags.mode=0640"];
    let with = |arguments: &[&str]| sandbox.run(&[arguments, &["--steps", &manifest], &facts].concat());
    let _ = with(&["validate"]).expect(0);
    let _ = with(&["plan"]).expect(0).says("eu-central-1 web");
    fs::create_dir_all(sandbox.at("tree/etc")).unwrap();
    let _ = with(&["run", "--root", &sandbox.at("tree")]).expect(0);
    assert_eq!(fs::read_to_string(sandbox.at("tree/x")).unwrap(), "eu-central-1 web");
    for live in [&["run"][..], &["run", "--phase", "bake"], &["bake"], &["run", "--root", "/"]] {
        let _ = with(live).expect(2).says("`instance.region` is read-only").says("validate, plan and --root");
    }
    let wrong = ["--set", "instance.tags.mode=9"];
    let _ = sandbox.run(&[&["validate", "--steps", &manifest], &wrong[..]].concat()).expect(2).says("octal");
    let _ =
        sandbox.run(&["validate", "--steps", &manifest, "--set", "instance.idd=x"]).expect(2).says("has no fact `idd`");
}

#[test]
fn steps_that_are_not_selected_need_no_variables() {
    let sandbox = Sandbox::new();
    let file = |step: &str, content: &str| {
        let path = sandbox.at(step);
        format!(
            "[[step]]\nname = \"{step}\"\n[[step.resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"{content}\"\n"
        )
    };
    let manifest = file("one", "{{ given }}") + &file("two", "{{ instance.id }} {{ nowhere }}") + &file("app", "x");
    let manifest = sandbox.write("m.toml", manifest);
    let run = |arguments: &[&str]| sandbox.run(&[&["run", "--steps", &manifest], arguments].concat());
    let _ = run(&["app"]).expect(0).says("1 change");
    let _ = run(&["--from", "app"]).expect(0);
    let _ = run(&["--skip", "two", "--set", "given=1"]).expect(0);
    let _ = run(&["--skip", "two"]).expect(2).says("`given` is not set");
    let _ = run(&[]).expect(2).says("`given` is not set");
    let _ = sandbox.run(&["plan", "app", "--steps", &manifest]).expect(0);
    // All other faults are reported.
    let manifest = sandbox.write("m.toml", file("one", "{{ A B }}") + &file("app", "x"));
    let _ = sandbox.run(&["run", "app", "--steps", &manifest]).expect(2).says("is not a variable's name");
}

#[test]
fn a_plan_of_a_fact_elsewhere_says_how_to_suppose_it() {
    let sandbox = Sandbox::new();
    let link = "[[resource]]\nkind = \"link\"\npath = \"/l\"\ntarget = \"{{ instance.region }}\"\n";
    let manifest = sandbox.manifest(link);
    let refused = sandbox.run(&["plan", "--steps", &manifest]).expect(2).says("the firmware (DMI) does not say EC2");
    let refused = refused.says("hint: suppose a value: --set instance.region=VALUE");
    assert!(!refused.stderr.contains("credentials"), "{}", refused.stderr);
    let _ = sandbox.run(&["plan", "--steps", &manifest, "--set", "instance.region=a"]).expect(0);
}

#[test]
fn an_images_distribution_has_its_family_and_version() {
    let sandbox = Sandbox::new();
    let content = "{{ host.distribution }} {{ host.family }} {{ host.version }}";
    let manifest =
        sandbox.manifest(&format!("[[resource]]\nkind = \"file\"\npath = \"/x\"\ncontent = \"{content}\"\n"));
    for (release, facts) in [
        ("ID=debian\nVERSION_ID=\"13\"\n", "debian debian 13"),
        ("ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\n", "ubuntu debian 24.04"),
        ("ID=\"amzn\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"2023\"\n", "amzn redhat 2023"),
        ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.4\"\n", "rocky redhat 9.4"),
        ("ID=fedora\nVERSION_ID=42\n", "fedora redhat 42"),
        ("ID=alpine\nVERSION_ID=3.20.1\n", "alpine alpine 3.20.1"),
    ] {
        _ = sandbox.write("tree/etc/os-release", release);
        let _ = sandbox.run(&["run", "--steps", &manifest, "--root", &sandbox.at("tree")]).expect(0);
        assert_eq!(fs::read_to_string(sandbox.at("tree/x")).unwrap(), facts);
    }
    _ = sandbox.write("tree/etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux forky/sid\"\n");
    let testing = sandbox.run(&["run", "--steps", &manifest, "--root", &sandbox.at("tree")]).expect(2);
    let _ = testing.says("no VERSION_ID in /");
}

#[test]
fn the_architecture_has_debians_name() {
    let sandbox = Sandbox::new();
    let (at, content) = (sandbox.at("x"), "{{ host.debian_architecture }}");
    let manifest = format!("[[resource]]\nkind = \"file\"\npath = \"{at}\"\ncontent = \"{content}\"\n");
    let _ = sandbox.run(&["run", "--steps", &sandbox.manifest(&manifest)]).expect(0);
    let of_dpkg = std::process::Command::new("dpkg").arg("--print-architecture").output().unwrap().stdout;
    assert_eq!(fs::read_to_string(at).unwrap().trim(), String::from_utf8(of_dpkg).unwrap().trim());
}
