//! What other programs print of secret files and of declared passwords: it is in no output, no log and no report.

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::sandbox::{Finished, Sandbox};

/// A hash of a password, as in shadow(5).
const HASH: &str = "$6$zqsalt$7H/1LT4f9/N3wpgNunhsIqtMj62OKiS3nyNwuizouQc3u7MbYCarYeAHWYPYb2FT.lbioDm2RrkJPb9BZMN1O/";

/// Returns a command that runs a script and then fails.
fn failing(script: &str) -> String {
    format!(
        "[[resource]]\nkind = \"command\"\nname = \"it\"\nargv = [\"sh\", \"-c\", '''{script}\nexit 1''']\n\
         unless = {{ exists = \"/nowhere\" }}\n"
    )
}

/// Returns all that a run shows that fails: its output with the whole log, and its report.
fn told_by_failed_run(sandbox: &Sandbox, resources: &str) -> String {
    let manifest = sandbox.manifest(resources);
    let mut command = sandbox.command(&["--verbose", "run", "--steps", &manifest]);
    let output = command.env("GLOVO_BOOTSTRAP_LOG", "trace").output().unwrap();
    let finished = Finished::from(output).expect(1);
    finished.stdout + &finished.stderr + &sandbox.report().to_string()
}

/// Returns a secret file with this content, and its path.
fn secret_file(sandbox: &Sandbox, content: &str) -> (String, String) {
    let path = sandbox.at("secret");
    (format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\nsecret = true\ncontent = {content:?}\n"), path)
}

#[test]
fn base64_with_line_breaks_does_not_tell_a_secret_file() {
    let sandbox = Sandbox::new();
    let content = format!("name = application\npassword={}\n", "zq0123456789ABCDEFGHijkl".repeat(5));
    let (file, path) = secret_file(&sandbox, &content);
    let script = format!("base64 {path}\necho between\nbase64 -w 64 {path} >&2\necho at the end");
    let told = told_by_failed_run(&sandbox, &(file + &failing(&script)));
    assert!(told.contains("| between") && told.contains("| at the end"), "{told}");
    let encoded = BASE64_STANDARD.encode(&content);
    for at in 0..=encoded.len() - 10 {
        assert!(!told.contains(&encoded[at..at + 10]), "{}: {told}", &encoded[at..]);
    }
}

#[test]
fn the_start_of_a_large_secret_file_is_not_told() {
    let sandbox = Sandbox::new();
    let large = format!("password = zqlarge0001\n{}", "0123456789abcdef\n".repeat(1 << 17));
    let (from, path) = (sandbox.write("from", large), sandbox.at("secret"));
    let file = format!(
        "[[resource]]\nkind = \"file\"\npath = \"{path}\"\nsecret = true\nsource = \"file://{from}\"\nverify = \"none\"\n"
    );
    let told = told_by_failed_run(&sandbox, &(file + &failing(&format!("head -n 1 {path}"))));
    assert!(told.contains("| ***") && !told.contains("zqlarge0001"), "{told}");
}

#[test]
fn declared_passwords_are_not_told_in_the_first_run_either() {
    let sandbox = Sandbox::new();
    let declared = format!(
        "[[resource]]\nkind = \"log_forward\"\nname = \"app\"\nmatch = {{ tags = [\"app\"] }}\n\
         target = \"https://logs.example.com:9200\"\ntls = {{ ca = \"/etc/ca.pem\" }}\nprotocol = \"elasticsearch\"\n\
         user = \"app\"\npassword = \"zqForward01:\"\n\
         [[resource]]\nkind = \"yum_repository\"\nname = \"app\"\nbaseurl = [\"https://rpm.example.com/\"]\n\
         key = \"https://rpm.example.com/key.asc\"\n\
         key_fingerprint = \"0123456789ABCDEF0123456789ABCDEF01234567\"\nusername = \"app\"\n\
         password = \"[zqRepository1a]\"\n\
         [[resource]]\nkind = \"user\"\nname = \"zqx\"\npassword_hash = \"{HASH}\"\n"
    );
    let script = format!("echo 'zqForw;ard01: -p[zqRepo;sitory1a]'; echo '{HASH}'", HASH = HASH.replace("qs", "q;s"));
    let resources = failing(&format!("({script}) | tr -d ';'")) + &declared;
    let told = told_by_failed_run(&sandbox, &resources);
    assert!(told.contains("| *** -p***"), "{told}");
    for secret in ["zqForward01", "zqRepository1a", "zqsalt"] {
        assert!(!told.contains(secret), "{secret}: {told}");
    }
}

#[test]
fn a_program_cannot_print_the_message_of_its_start() {
    let sandbox = Sandbox::new();
    let (file, path) = secret_file(&sandbox, "password=zqforged001\n");
    let script = format!("echo \"glovo-bootstrap launch: no $(cat {path})\" >&2; exit 125");
    let told = told_by_failed_run(&sandbox, &(file + &failing(&script)));
    assert!(told.contains("| glovo-bootstrap launch: no ***"), "{told}");
    assert!(told.contains("exit code 125") && !told.contains("not started"), "{told}");
}
