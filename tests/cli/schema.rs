//! The JSON Schema as an editor applies it: by taplo, which checks TOML in editors.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use glovo_bootstrap::resource::KINDS;

use crate::{book::Page, sandbox::Sandbox};

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// Returns taplo's messages about these files, each once; empty if they are valid.
fn lint(files: &[String]) -> BTreeSet<String> {
    let needs = Command::new(format!("{REPOSITORY}/tests/taplo/needs")).output().unwrap();
    assert!(needs.status.success(), "{needs:?}");
    let mut taplo = Command::new(String::from_utf8(needs.stdout).unwrap().trim());
    // taplo gets no cache and no settings of its own.
    let _ = taplo.args(["lint", "--no-auto-config", "--schema", &format!("file://{REPOSITORY}/steps/schema.json")]);
    let output = taplo.args(files).env("RUST_LOG", "error").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let messages: BTreeSet<String> =
        text.lines().filter_map(|line| line.strip_prefix("error: ")).map(str::to_owned).collect();
    assert_eq!(output.status.success(), messages.is_empty(), "{text}");
    messages
}

fn expect(manifest: &str, messages: &[&str]) {
    let sandbox = Sandbox::new();
    let said = lint(&[sandbox.write("manifest.toml", manifest)]);
    assert_eq!(said, messages.iter().map(|message| (*message).to_owned()).collect(), "{manifest}");
}

/// The step files in a directory of the repository.
fn step_files(directory: &str) -> Vec<String> {
    fs::read_dir(format!("{REPOSITORY}/{directory}"))
        .unwrap()
        .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
        .filter(|path| path.ends_with(".toml") && !path.ends_with("/variables.toml"))
        .collect()
}

#[test]
fn an_editor_accepts_every_step_and_example() {
    let sandbox = Sandbox::new();
    let mut files = [step_files("steps"), step_files("steps/new")].concat();
    assert_eq!(files.len(), 10 + 4);
    let names = ["jar", "python", "node", "go", "static-site", "worker"];
    files.extend(names.map(|name| format!("{REPOSITORY}/examples/{name}/manifest.toml")));
    files.extend(step_files("examples/world").into_iter().filter(|path| !path.ends_with("/cases.toml")));
    for kind in KINDS {
        let example = kind.example;
        let step = format!("name = \"example\"\n[[resource]]\n{example}\nretries = 1\ntimeout = \"5m\"\n");
        files.push(sandbox.write(&format!("{}.toml", kind.name), step));
        let one = format!("[variables]\na = \"b\"\n[[step]]\nname = \"x\"\n[[step.resource]]\n{example}\n");
        files.push(sandbox.write(&format!("one-{}.toml", kind.name), one));
    }
    assert_eq!(lint(&files), BTreeSet::new());
}

#[test]
fn an_editor_accepts_the_manifests_in_the_pages() {
    let sandbox = Sandbox::new();
    let mut files = vec![];
    for page in Page::all(Path::new(REPOSITORY)) {
        let blocks = page.blocks().into_iter().filter(|block| block.is("toml manifest"));
        for block in blocks.filter(|block| block.option("exit").is_none()) {
            let place = format!("{}-{}", page.path.display().to_string().replace('/', "-"), block.line);
            files.push(sandbox.write(&format!("{place}.toml"), block.manifest()));
        }
    }
    assert!(files.len() > 25, "{files:?}");
    assert_eq!(lint(&files), BTreeSet::new());
}

#[test]
fn an_editor_accepts_a_variable_wherever_there_is_text() {
    let resources = r#"name = "{{ a }}"
timeout = "{{ a }}"
phase = "{{ a }}"
[[resource]]
kind = "file"
path = "{{ a }}"
source = ["{{ a }}"]
sha256 = "{{ a }}"
verify = "{{ a }}"
owner = "{{ a }}"
mode = "{{ a }}"
[[resource]]
kind = "file"
path = "/x"
source = "s3://b/{{ a }}"
sha256 = ""
validate = ["{{ a }}"]
[[resource]]
kind = "file"
path = "/y"
source = { x86_64 = "{{ a }}", aarch64 = ["https://a/x", "s3://b/x"] }
sha256.x86_64 = "{{ a }}"
where = { "host.family" = ["debian"], on = true, role = "{{ a }}" }
[[resource]]
kind = "package"
names = "{{ a }}"
retries = "{{ a }}"
update = "{{ a }}"
[[resource]]
kind = "service"
name = "{{ a }}"
stable = "{{ a }}"
enabled = "{{ a }}"
restart_on = "{{ a }}"
[[resource]]
kind = "http_check"
url = "http://localhost"
status = "{{ a }}"
"#;
    expect(resources, &[]);
}

#[test]
fn an_editor_says_what_is_wrong_in_words() {
    let file = "name = \"a\"\n[[resource]]\nkind = \"file\"\npath = \"/x\"\n";
    for (fields, message) in [
        ("onwer = \"root\"", "Additional properties are not allowed ('onwer' was unexpected)"),
        ("mode = \"9x\"", "\"9x\" does not match \"^[0-7]{3,4}$|\\{\\{\""),
        ("mode = 644", "644 is not of type \"string\""),
        ("verify = \"etags\"", "\"etags\" is not one of [\"etag\",\"none\"]"),
        ("sha256 = { x86_64 = \"1\" }", "\"1\" does not match \"^([0-9A-Fa-f]{64})?$|\\{\\{\""),
        ("source = { amd64 = \"\" }", "Additional properties are not allowed ('amd64' was unexpected)"),
        ("template = \"{{ a }} {{ b }}\"", "\"{{ a }} {{ b }}\" is not of type \"boolean\""),
        ("where = \"debian\"", "\"debian\" is not of type \"object\""),
        ("source = 7", "7 is not of types \"array\", \"string\""),
        ("retries = \"3\"", "\"3\" is not of type \"integer\""),
        ("phase = \"bake\"", "\"bake\" is not one of [\"boot\"]"),
    ] {
        expect(&format!("{file}{fields}\n"), &[message]);
        let one = file.replace("name", "[[step]]\nname").replace("[[resource]]", "[[step.resource]]");
        expect(&format!("{one}{fields}\n"), &[message]);
    }
    let kinds: Vec<String> = KINDS.iter().map(|kind| format!("\"{}\"", kind.name)).collect();
    let kinds = format!("\"fiel\" is not one of [{}]", kinds.join(","));
    expect("name = \"a\"\n[[resource]]\nkind = \"fiel\"\n", &[&kinds]);
    expect("name = \"a\"\n[[resource]]\npath = \"/x\"\n", &["\"kind\" is a required property"]);
    expect("name = \"a\"\n[[resource]]\nkind = \"link\"\npath = \"/x\"\n", &["\"target\" is a required property"]);
    expect("[[step]]\ndescription = \"x\"\n", &["\"name\" is a required property"]);
    expect("[variables]\na = 1\nb = true\nc = [\"x\"]\n", &[]);
    expect("[variables]\na = [1]\n", &["1 is not of type \"string\""]);
}
