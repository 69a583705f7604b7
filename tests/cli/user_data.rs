//! `user-data`: its output is clean, and arguments that cannot work are refused before a machine boots.

use std::process::{Command, Output};

use crate::sandbox::Sandbox;

const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn tool(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output().expect(program);
    assert!(output.status.success(), "{program}: {output:?}");
    output
}

#[test]
fn every_script_is_clean_for_any_shell() {
    let sandbox = Sandbox::new();
    let s3 = format!("s3://my.bucket/a b?versionId=x#sha256={DIGEST}");
    let web = format!("https://example.com/a?x='y'#sha256={DIGEST}");
    let signal = ["--signal", "stack/Group"];
    for (from, signal) in [&s3, &web, "--baked"].into_iter().flat_map(|from| [(from, &[][..]), (from, &signal)]) {
        let arguments = [&["user-data", from, "--", "--set", "a=it's a word"], signal].concat();
        let script = sandbox.run(&arguments).expect(0).stdout;
        assert_eq!(script.contains("\"LogicalResourceId\":\"Group\",\"StackName\":\"stack\""), !signal.is_empty());
        let script = sandbox.write("script", script);
        for shell in ["sh", "dash", "bash"] {
            let _ = tool("shellcheck", &["--shell", shell, &script]);
        }
        let _ = tool("dash", &["-n", &script]);
        let _ = tool("bash", &["--posix", "-n", &script]);
    }
}

/// Checks only the grammar. tests/machine runs the script with every installed Python.
#[test]
fn python_3_6_can_read_the_python() {
    let check = "import ast, sys; ast.parse(open(sys.argv[1]).read(), feature_version=(3, 6))";
    let _ = tool("python3", &["-c", check, concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/user-data/s3.py")]);
}

#[test]
fn the_digest_of_a_file_pins_it() {
    let sandbox = Sandbox::new();
    let agent = sandbox.write("agent", "");
    let pinned = format!("s3://b/k#sha256={DIGEST}");
    let script = sandbox.run(&["user-data", &pinned]).expect(0).stdout;
    assert_eq!(sandbox.run(&["user-data", "s3://b/k", "--agent", &agent]).expect(0).stdout, script);
    assert_eq!(sandbox.run(&["user-data", &pinned, "--agent", &agent]).expect(0).stdout, script);
    let other = sandbox.write("other", "other");
    let _ = sandbox.run(&["user-data", &pinned, "--agent", &other]).expect(2).says("the file's sha256 is ");
}

#[test]
fn what_cannot_work_is_refused_with_a_hint() {
    let sandbox = Sandbox::new();
    let pinned = format!("s3://b/k#sha256={DIGEST}");
    let refused: [(&[&str], &str); 8] = [
        (&["s3://b/k"], "hint: append #sha256=HEX to the URL, or pass --agent FILE"),
        (&["s3://b/k#sha256=abc"], "a sha256 has 64 hexadecimal digits"),
        (&["s3://b#sha256="], "a sha256 has 64"),
        (&["ftp://b/k", "--agent", "/bin/sh"], "use https, http, s3 or file"),
        (&["s3://b/k", "--agent", "/no/such"], "opening /no/such"),
        (&[&pinned, "--", "--sett", "a=b"], "unexpected argument '--sett'"),
        (&[&pinned, "--", "--set", "a=b\nc"], "control character \\n"),
        (&[], "required"),
    ];
    for (arguments, words) in refused {
        let _ = sandbox.run(&[&["user-data"], arguments].concat()).expect(2).says(words);
    }
}

#[test]
fn a_secret_of_a_file_of_this_machine_is_refused() {
    let sandbox = Sandbox::new();
    let secret = sandbox.write("token", "canary");
    for secret in [format!("token={secret}"), "token=-".into()] {
        for arguments in [&["--set-secret-file", &*secret][..], &[&format!("--set-secret-file={secret}")]] {
            let refused = sandbox.run(&[&["user-data", "--baked", "--"], arguments].concat()).expect(2);
            let refused = refused.says("`--set-secret-file` is not for user-data: the machine does not have the file");
            let _ = refused.says("hint: name the secret's store in the manifest: token = { secret = \"ssm:///PATH\" }");
        }
    }
}
