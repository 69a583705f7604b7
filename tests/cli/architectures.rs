//! Fields with a value for each architecture, and content in base64.

use std::fs;

use crate::sandbox::Sandbox;

const ARCHITECTURE: &str = std::env::consts::ARCH;

fn other() -> &'static str {
    if ARCHITECTURE == "x86_64" { "aarch64" } else { "x86_64" }
}

/// Returns a file with this source and digest.
fn file(sandbox: &Sandbox, fields: &str) -> String {
    format!("[[resource]]\nkind = \"file\"\npath = \"{}\"\n{fields}\n", sandbox.at("app"))
}

/// Returns the digest of an empty file, or a wrong one.
fn digest(is_right: bool) -> String {
    if is_right { "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".into() } else { "0".repeat(64) }
}

#[test]
fn a_machine_gets_the_source_of_its_architecture() {
    let sandbox = Sandbox::new();
    let empty = sandbox.write("empty", "");
    let fields = format!(
        "source = {{ {ARCHITECTURE} = \"file://{empty}\", {} = \"https://a/x\" }}\n\
         sha256 = {{ {ARCHITECTURE} = \"{}\", {} = \"{}\" }}",
        other(),
        digest(true),
        other(),
        digest(false)
    );
    let manifest = sandbox.manifest(&file(&sandbox, &fields));
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(0);
    let _ = sandbox.run(&["plan", "--steps", &manifest]).expect(0).says(&format!("create from file://{empty}"));
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0).says("1 change");
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0).says("converged: 0 changes");
    assert_eq!(fs::read_to_string(sandbox.at("app")).unwrap(), "");
    // One of the fields may be the same for all.
    let fields = format!("source = \"file://{empty}\"\nsha256 = {{ {ARCHITECTURE} = \"{}\" }}", digest(true));
    let manifest = sandbox.manifest(&file(&sandbox, &fields));
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0).says("converged: 0 changes");
}

#[test]
fn a_missing_architecture_is_a_fault_on_such_a_machine() {
    let sandbox = Sandbox::new();
    let source = format!("source = {{ {} = \"https://a/x\" }}\nsha256 = \"{}\"", other(), digest(true));
    let manifest = sandbox.manifest(&file(&sandbox, &source));
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(0);
    for command in ["plan", "run"] {
        let refused = sandbox.run(&[command, "--steps", &manifest]).expect(2).says("manifest.toml:5:10");
        let refused = refused.says(&format!("`source` has no value for this machine's architecture, {ARCHITECTURE}"));
        let _ = refused.says(&format!("where = {{ \"host.architecture\" = [\"{}\"] }}", other()));
    }
    let elsewhere = format!("{source}\nwhere = {{ \"host.architecture\" = \"{}\" }}", other());
    let manifest = sandbox.manifest(&file(&sandbox, &elsewhere));
    let _ = sandbox.run(&["plan", "--steps", &manifest]).expect(0).says("not here: host.architecture is");
}

#[test]
fn the_values_of_all_architectures_are_checked() {
    let sandbox = Sandbox::new();
    let digest = digest(true);
    for (fields, words) in [
        (format!("source = {{ x86_64 = \"https://a/x\", aarch64 = \"gopher://a\" }}\nsha256 = \"{digest}\""), "gopher"),
        (format!("source = {{ amd64 = \"https://a/x\" }}\nsha256 = \"{digest}\""), "did you mean `x86_64`?"),
        (format!("source = {{ riscv64 = \"https://a/x\" }}\nsha256 = \"{digest}\""), "the architectures are: x86_64"),
        (format!("source = {{}}\nsha256 = \"{digest}\""), "`source` names no architecture"),
        (
            format!("source = {{ x86_64 = \"https://a/x\", aarch64 = \"https://a/y\" }}\nsha256.x86_64 = \"{digest}\""),
            "`sha256` has no value for aarch64, but another field has",
        ),
        ("source = { x86_64 = \"https://a/x\", aarch64 = \"s3://b/x\" }".into(), "needs `sha256`"),
        ("source = { x86_64 = \"s3://b/x\", aarch64 = \"https://a/x\" }".into(), "needs `sha256`"),
        (format!("source = \"https://a/x\"\nsha256 = {{ x86_64 = \"{digest}\", aarch64 = \"12\" }}"), "64 hexadecimal"),
    ] {
        let manifest = sandbox.manifest(&file(&sandbox, &fields));
        for command in ["validate", "plan"] {
            let _ = sandbox.run(&[command, "--steps", &manifest]).expect(2).says(words).says("^").says("1 fault");
        }
    }
}

#[test]
fn content_in_base64_is_written_as_its_bytes() {
    let sandbox = Sandbox::new();
    let encoded =
        |content: &str| sandbox.manifest(&file(&sandbox, &format!("content = {content}\nencoding = \"base64\"")));
    let manifest = encoded("\"\"\"\nAAH/\n/kEK\n\"\"\"");
    let _ = sandbox.run(&["plan", "--steps", &manifest]).expect(0).says("app: create\n");
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0).says("1 change");
    assert_eq!(fs::read(sandbox.at("app")).unwrap(), [0, 1, 0xff, 0xfe, 0x41, 0x0a]);
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0).says("converged: 0 changes");
    fs::write(sandbox.at("app"), [0, 1, 0xff, 0xfe, 0x41]).unwrap();
    let _ = sandbox.run(&["plan", "--steps", &manifest]).expect(0).says("app: write new content\n");
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0).says("write new content");
    assert_eq!(fs::read(sandbox.at("app")).unwrap().len(), 6);
    // The difference of texts is that of the decoded ones.
    fs::write(sandbox.at("app"), "hello\n").unwrap();
    let _ = sandbox.run(&["plan", "--steps", &encoded("\"aG93ZHkK\"")]).expect(0).says("-hello").says("+howdy");
    for (content, words) in [("\"aG9\"", "the content is not base64"), ("\"a-_=\"", "base64 FILE")] {
        let refused = sandbox.run(&["validate", "--steps", &encoded(content)]).expect(2).says(words);
        let _ = refused.says("manifest.toml:5:11").says("1 fault");
    }
    let manifest = sandbox.manifest(&file(&sandbox, "source = \"file:///x\"\nencoding = \"base64\""));
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says("`encoding` is only about `content`");
}

#[test]
fn a_plan_shows_no_secret_that_base64_hides() {
    let sandbox = Sandbox::new();
    // The value is "not for you\n" in base64.
    let secrets = sandbox.write("secrets.toml", "key = \"bm90IGZvciB5b3UK\"\n");
    let manifest = sandbox.manifest(&file(&sandbox, "content = \"{{ key }}\"\nencoding = \"base64\""));
    let with = |command: &str| sandbox.run(&[command, "--steps", &manifest, "--variables", &secrets]).expect(0);
    let plan = with("plan").says("app: create");
    assert!(!plan.stdout.contains("for you") && !plan.stderr.contains("for you"), "{plan:?}");
    let _ = with("run");
    assert_eq!(fs::read_to_string(sandbox.at("app")).unwrap(), "not for you\n");
}

#[test]
fn sources_that_differ_have_a_digest_each() {
    let sandbox = Sandbox::new();
    let sources = "source = { x86_64 = \"https://a/x\", aarch64 = \"https://a/y\" }";
    let fields = format!("{sources}\nsha256 = \"{}\"", digest(true));
    let refused = sandbox.run(&["validate", "--steps", &sandbox.manifest(&file(&sandbox, &fields))]).expect(2);
    let refused = refused.says("`source` differs between the architectures, but `sha256` is the same");
    let _ = refused.says("sha256 = { aarch64 = \"HEX\", x86_64 = \"HEX\" }");
}
