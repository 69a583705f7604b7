//! Secrets of stores: Parameter Store and Secrets Manager, for files, variables and credentials. The stand-in for AWS
//! answers as botocore's models say.

mod environment;
mod public;
mod refusals;
mod variables;
mod versions;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::Command,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    sandbox::Finished,
    server::{Reply, Request, Server},
    standin::Machine,
};

const CANARY: &str = "canary-7461/pass word";

/// The answer to a call: a status, and a body of JSON.
type Answer = (u16, Value);

/// A machine with a stand-in for AWS.
struct Stores {
    machine: Machine,
    server: Server,
    /// The answers by the name of the parameter or secret.
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
}

impl Stores {
    fn new() -> Self {
        let answers: Arc<Mutex<BTreeMap<String, Answer>>> = Arc::default();
        let shared = answers.clone();
        let server = Server::start(move |request: &Request| {
            assert!(request.authorization.contains("AKIATEST"), "{}", request.authorization);
            if request.method == "GET" {
                let object = request.target.split(['?', '&']).find(|part| !part.starts_with("x-id=")).unwrap();
                let version = request.target.split_once("versionId=").map_or("", |(_, version)| version);
                let answers = shared.lock().unwrap();
                let (status, text) = answers.get(&format!("{object}{version}")).cloned().unwrap_or((404, json!("")));
                return Reply::new(status, text.as_str().unwrap());
            }
            let asked: Value = serde_json::from_slice(&request.body).unwrap();
            let name = ["Name", "SecretId", "Path"].iter().find_map(|field| asked[*field].as_str()).unwrap();
            let name = &*format!("{name}{}", asked["NextToken"].as_str().unwrap_or_default());
            if asked["Path"].is_string() {
                assert_eq!((&*request.operation, &asked["Recursive"]), ("AmazonSSM.GetParametersByPath", &json!(true)));
            } else if asked["Name"].is_string() {
                assert_eq!((&*request.operation, &asked["WithDecryption"]), ("AmazonSSM.GetParameter", &json!(true)));
            } else {
                assert_eq!(request.operation, "secretsmanager.GetSecretValue");
            }
            let (status, body) = shared
                .lock()
                .unwrap()
                .get(name)
                .cloned()
                .unwrap_or_else(|| (400, json!({ "__type": "ParameterNotFound", "message": "" })));
            Reply::new(status, body.to_string())
        });
        Self { machine: Machine::new(), server, answers }
    }

    fn answer(&self, name: &str, status: u16, body: Value) {
        let _ = self.answers.lock().unwrap().insert(name.into(), (status, body));
    }

    fn parameter(&self, name: &str, value: &str, version: u32) {
        self.answer(name, 200, json!({ "Parameter": { "Name": name, "Value": value, "Version": version } }));
    }

    fn command(&self, command: &str, manifest: &str) -> Finished {
        self.with(&[command], manifest)
    }

    /// Runs a command with further arguments.
    fn with(&self, arguments: &[&str], manifest: &str) -> Finished {
        let manifest = self.machine.sandbox.write("manifest.toml", manifest);
        self.finish(self.machine.sandbox.command(&[arguments, &["--steps", &manifest]].concat()))
    }

    /// Stores a page of the parameters below a path. `token` leads to it.
    fn page(&self, path: &str, token: &str, parameters: &[(&str, &str, &str)], next: Option<&str>) {
        let parameters: Vec<Value> = parameters
            .iter()
            .map(|(name, kind, value)| json!({ "Name": name, "Type": kind, "Value": value, "Version": 1 }))
            .collect();
        self.answer(&format!("{path}{token}"), 200, json!({ "Parameters": parameters, "NextToken": next }));
    }

    /// Runs a command with the stand-in's address and credentials. No secret may be in its output.
    fn finish(&self, mut command: Command) -> Finished {
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            let _ = command.env_remove(name);
        }
        let _ = command.env("AWS_ENDPOINT_URL", self.server.url("")).env("AWS_REGION", "eu-central-1");
        let _ = command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "not-a-secret");
        let _ = command.env("HOME", &self.machine.sandbox.path);
        let finished = Finished::from(command.output().unwrap());
        for (what, text) in [("stdout", &finished.stdout), ("stderr", &finished.stderr)] {
            assert!(!text.contains("canary") && !text.contains("7461"), "a secret in {what}: {text}");
        }
        finished
    }

    fn run(&self, manifest: &str) -> Finished {
        let finished = self.command("run", manifest);
        let state = self.machine.sandbox.path.join("var-lib/glovo-bootstrap");
        for entry in fs::read_dir(state).unwrap().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            assert!(!text.contains("canary"), "a secret in {}: {text}", entry.path().display());
        }
        finished
    }

    /// The manifest of one file with this source, in the sandbox.
    fn file(&self, source: &str, more: &str) -> (String, String) {
        let path = self.machine.sandbox.at("secret");
        let manifest =
            format!("name = \"step\"\n[[resource]]\nkind = \"file\"\npath = \"{path}\"\nsource = \"{source}\"\n{more}");
        (path, manifest)
    }
}

#[test]
fn a_new_version_of_a_parameter_is_a_change_without_a_diff() {
    let stores = Stores::new();
    stores.parameter("/app/db", CANARY, 6);
    let (path, manifest) = stores.file("ssm:///app/db", "");
    let planned = stores.command("plan", &manifest).expect(0);
    let _ = planned.says("create from ssm:///app/db, version 6");
    let _ = stores.run(&manifest).expect(0).says("1 change");
    assert_eq!(fs::read_to_string(&path).unwrap(), CANARY);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    let _ = stores.run(&manifest).expect(0).says("0 changes");
    stores.parameter("/app/db", "canary-2", 7);
    let planned = stores.command("plan", &manifest).expect(0);
    assert!(!planned.stdout.contains("@@"), "{}", planned.stdout);
    let _ = planned.says("write the content from ssm:///app/db, version 7");
    let _ = stores.run(&manifest).expect(0);
    assert_eq!(fs::read_to_string(&path).unwrap(), "canary-2");
    fs::write(&path, "changed by hand").unwrap();
    let _ = stores.run(&manifest).expect(0).says("write the content again from ssm:///app/db, version 7");
    assert_eq!(fs::read_to_string(&path).unwrap(), "canary-2");
}

#[test]
fn a_secret_has_fields_and_bytes() {
    let stores = Stores::new();
    let fields = json!({ "user": "app", "password": CANARY }).to_string();
    stores.answer("prod/db", 200, json!({ "Name": "prod/db", "SecretString": fields, "VersionId": "v-1" }));
    let (path, manifest) = stores.file("secretsmanager://prod/db#password", "");
    let _ = stores.run(&manifest).expect(0).says("from secretsmanager://prod/db#password, version v-1");
    assert_eq!(fs::read_to_string(&path).unwrap(), CANARY);
    let (_, manifest) = stores.file("secretsmanager://prod/db#pasword", "");
    let _ = stores.command("plan", &manifest).expect(1).says("the secret has no field `pasword`");
    let _ = stores.run(&manifest).expect(1).says("did you mean `password`?");
    assert_eq!(fs::read_to_string(&path).unwrap(), CANARY);
    // "\0\x01canary" in base64, as the API sends bytes.
    stores.answer("key", 200, json!({ "SecretBinary": "AAFjYW5hcnk=", "VersionId": "v-2" }));
    let (path, manifest) = stores.file("secretsmanager://key", "");
    let _ = stores.run(&manifest).expect(0);
    assert_eq!(fs::read(&path).unwrap(), b"\0\x01canary");
    stores.parameter("/app/key", "Y2FuYXJ5\nLWtleQ==\n", 1);
    let (path, manifest) = stores.file("ssm:///app/key", "encoding = \"base64\"\n");
    let _ = stores.run(&manifest).expect(0);
    assert_eq!(fs::read(&path).unwrap(), b"canary-key");
    stores.parameter("/app/key", "canary, no base64", 2);
    let _ = stores.run(&manifest).expect(1).says("the value of ssm:///app/key is not base64");
}

#[test]
fn a_refusal_says_what_to_allow_and_leaves_the_file() {
    let stores = Stores::new();
    let (path, manifest) = stores.file("ssm:///app/db", "");
    fs::write(&path, "canary-earlier").unwrap();
    let denied = "User: arn:aws:sts::1:assumed-role/web/i-1 is not authorized to perform: ssm:GetParameter";
    let key = "The ciphertext refers to a customer master key that does not exist, or you are not allowed to access.";
    for (kind, message, words) in [
        ("AccessDeniedException", denied, "allow ssm:GetParameter on arn:aws:ssm:*:*:parameter/app/db"),
        ("AccessDeniedException", key, "allow kms:Decrypt on the parameter's key"),
        ("ParameterNotFound", "", "there is no parameter /app/db in this account and region"),
        ("InvalidKeyId", "", "the key of the parameter /app/db does not decrypt it"),
    ] {
        stores.answer("/app/db", 400, json!({ "__type": kind, "message": message }));
        let _ = stores.command("plan", &manifest).expect(1).says(words);
        let _ = stores.run(&manifest).expect(1).says(words);
        assert_eq!(fs::read_to_string(&path).unwrap(), "canary-earlier");
    }
    let (path, manifest) = stores.file("secretsmanager://db", "");
    let denied =
        "User: arn:aws:sts::1:assumed-role/web/i-1 is not authorized to perform: secretsmanager:GetSecretValue";
    for (kind, message, words) in [
        (
            "AccessDeniedException",
            denied,
            "allow secretsmanager:GetSecretValue on arn:aws:secretsmanager:*:*:secret:db-??????",
        ),
        ("AccessDeniedException", "Access to KMS is not allowed", "allow kms:Decrypt on the secret's key"),
        ("ResourceNotFoundException", "", "Secrets Manager has no secret db, or not this version of it"),
        ("InvalidRequestException", "marked for deletion", "aws secretsmanager restore-secret --secret-id db"),
    ] {
        stores.answer("db", 400, json!({ "__type": kind, "message": message }));
        let _ = stores.run(&manifest).expect(1).says(words);
        assert_eq!(fs::read_to_string(&path).unwrap(), "canary-earlier");
    }
    stores.answer("db", 200, json!({ "VersionId": "v-1" }));
    let _ = stores.run(&manifest).expect(1).says("the answer has no value of the secret db");
    stores.answer("db", 200, json!({ "SecretString": "", "VersionId": "v-1" }));
    let _ = stores.run(&manifest).expect(1).says("the secret is empty");
    assert_eq!(fs::read_to_string(&path).unwrap(), "canary-earlier");
}

#[test]
fn a_store_that_is_away_leaves_the_present_value() {
    let stores = Stores::new();
    stores.parameter("/app/db", CANARY, 1);
    let (path, manifest) = stores.file("ssm:///app/db", "");
    let _ = stores.run(&manifest).expect(0);
    stores.answer("/app/db", 400, json!({ "__type": "ThrottlingException", "message": "Rate exceeded" }));
    let _ = stores.run(&manifest).expect(0).says("keeps its present content").says("Rate exceeded");
    assert_eq!(fs::read_to_string(&path).unwrap(), CANARY);
    let _ = stores.machine.sandbox.run(&["status"]).says("keeps its present content");
}

#[test]
fn a_variable_of_a_store_is_read_only_where_it_is_used() {
    let stores = Stores::new();
    stores.parameter("/app/token", CANARY, 1);
    let path = stores.machine.sandbox.at("env");
    let manifest = |field: &str| {
        format!(
            "[variables]\ntoken = {{ secret = \"ssm:///app/token\" }}\nunused = {{ secret = \"ssm:///none\" }}\n\
             [[step]]\nname = \"step\"\n[[step.resource]]\nkind = \"file\"\npath = \"{path}\"\n\
             content = \"TOKEN={{{{ token }}}}\\n\"\n{field}\n"
        )
    };
    let public = stores.command("validate", &manifest("")).expect(2);
    let _ = public.says("`content` holds the secret `token`").says("secret = true");
    let private = manifest("secret = true");
    let _ = stores.command("validate", &private).expect(0);
    assert_eq!(stores.server.requests().len(), 0);
    let _ = stores.run(&private).expect(0);
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("TOKEN={CANARY}\n"));
    assert_eq!(stores.server.requests().len(), 1);
    stores.answer("/app/token", 500, json!({}));
    let _ = stores.run(&private).expect(0).says("stays as it is");
    fs::remove_file(&path).unwrap();
    let _ = stores.run(&private).expect(75).says("reading ssm:///app/token");
    let image = private
        + "[[step.resource]]\nkind = \"command\"\nname = \"x\"\nargv = [\"echo\", \"{{ token }}\"]\nunless = { exists = \"/x\" }\n";
    let _ = stores.command("validate", &image).expect(2).says("which the process list would show");
}

#[test]
fn a_credential_is_in_memory_and_restarts_its_service() {
    let stores = Stores::new();
    stores.parameter("/app/db", CANARY, 1);
    let manifest = "name = \"step\"\n[[resource]]\nkind = \"credential\"\nname = \"db\"\nsource = \"ssm:///app/db\"\n";
    let planned = stores.command("plan", manifest).expect(0);
    let _ = planned.says("mount a file system in memory, without swap").says("create from ssm:///app/db, version 1");
    let file = stores.machine.sandbox.write("manifest.toml", manifest);
    let script =
        "\"$@\"; \"$@\"; cd /run/glovo-bootstrap/credentials; stat -c '%a %u' . db; stat -f -c %T .; sha256sum db";
    let mut shell = stores.machine.sandbox.shell(script);
    let _ = shell.args([env!("CARGO_BIN_EXE_glovo-bootstrap"), "run", "--steps", &file]);
    let finished = stores.finish(shell).expect(0).says("2 changes").says("0 changes");
    let finished = finished.says("700 0\n400 0\n");
    assert!(["tmpfs", "ramfs"].iter().any(|kind| finished.stdout.contains(kind)), "{}", finished.stdout);
    let digest: String = Sha256::digest(CANARY).iter().map(|byte| format!("{byte:02x}")).collect();
    let _ = finished.says(&digest);
    // Its file system has ended with its namespace. Nothing is on the disk.
    assert_eq!(fs::read_dir(stores.machine.at("run/glovo-bootstrap/credentials")).unwrap().count(), 0);
}

#[test]
fn the_settings_of_vault_stand_in_the_manifest() {
    let stores = Stores::new();
    let (_, manifest) = stores.file("vault://kv/app#token", "");
    let _ = stores.command("validate", &manifest).expect(0);
    let _ = stores.run(&manifest).expect(1).says("does not say where Vault is").says("[vault]");
    let step = manifest.replace("name = \"step\"\n[[resource]]", "[[step]]\nname = \"step\"\n[[step.resource]]");
    let table = |address: &str| {
        format!("[vault]\naddress = \"{address}\"\nlogin = {{ method = \"token\", file = \"/none\" }}\n{step}")
    };
    let _ = stores.command("validate", &table("https://vault.example.com")).expect(0);
    let refused = stores.command("validate", &table("http://vault.example.com")).expect(2);
    let _ = refused.says("manifest.toml:2:11").says("would send the token in plaintext");
    let unread = stores.run(&table("https://vault.example.com")).expect(1);
    let _ = unread.says("logging in by token of /none").says("/none does not exist");
    let directory = stores.machine.sandbox.at("steps");
    let _ = stores.machine.sandbox.write("steps/10-a.toml", &manifest);
    let settings = "address = \"https://vault.example.com\"\nlogin = { method = \"token\", file = \"/none\" }\n";
    let _ = stores.machine.sandbox.write("steps/vault.toml", settings);
    let plan = stores.machine.sandbox.command(&["plan", "--steps", &directory]);
    let _ = stores.finish(plan).expect(1).says("/none does not exist");
    let _ = stores.machine.sandbox.write("steps/vault.toml", settings.replace("login", "logins"));
    let validate = stores.machine.sandbox.command(&["validate", "--steps", &directory]);
    let _ = stores.finish(validate).expect(2).says("vault.toml:2:1").says("unknown field `logins`");
}

#[test]
fn a_plan_tells_of_the_restart_for_a_new_version() {
    let stores = Stores::new();
    stores.parameter("/app/db", CANARY, 1);
    let path = stores.machine.at("etc/notes.key");
    stores.machine.write("etc/systemd/system/notes.service", "[Service]\nExecStart=true\n");
    let manifest = "name = \"step\"\n[[resource]]\nkind = \"file\"\npath = \"/etc/notes.key\"\nsource = \"ssm:///app/db\"\n\
         [[resource]]\nkind = \"service\"\nname = \"notes\"\nrunning = true\nrestart_on = [\"/etc/notes.key\"]\nstable = \"0s\"\n";
    let _ = stores.run(manifest).expect(0);
    let note =
        fs::read_to_string(stores.machine.sandbox.path.join("var-lib/glovo-bootstrap/service-notes.service.json"));
    let digest: String = Sha256::digest(CANARY).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!note.unwrap().contains(&digest), "a password could be guessed by its digest");
    let _ = stores.run(manifest).expect(0).says("0 changes");
    stores.parameter("/app/db", "canary-2", 2);
    let _ = stores.command("plan", manifest).expect(0).says("2 changes pending").says("restart");
    let _ = stores.run(manifest).expect(0).says("2 changes").says("restart");
    assert_eq!(fs::read_to_string(path).unwrap(), "canary-2");
}

#[test]
fn a_store_that_is_away_is_waited_for_once() {
    let stores = Stores::new();
    let path = |name: &str| stores.machine.sandbox.at(name);
    let file = |name: &str| {
        format!("[[resource]]\nkind = \"file\"\npath = \"{}\"\nsource = \"ssm:///app/{name}\"\n", path(name))
    };
    for name in ["one", "two", "three"] {
        fs::write(path(name), "canary").unwrap();
        stores.answer(&format!("/app/{name}"), 503, json!({}));
    }
    let manifest = format!("name = \"step\"\n{}{}{}", file("one"), file("two"), file("three"));
    let _ = stores.run(&manifest).expect(0).says("three keeps its present content");
    assert_eq!(stores.server.requests().len(), 5);
}

#[test]
fn a_command_that_has_nothing_to_do_needs_no_secret() {
    let stores = Stores::new();
    stores.answer("/app/token", 503, json!({}));
    let manifest = |guard: &str| {
        format!(
            "[variables]\ntoken = {{ secret = \"ssm:///app/token\" }}\n[[step]]\nname = \"step\"\n[[step.resource]]\n\
             kind = \"command\"\nname = \"register\"\nargv = [\"true\"]\nstdin = \"{{{{ token }}}}\"\n\
             unless = {{ exists = \"{guard}\" }}\n"
        )
    };
    let _ = stores.run(&manifest("/etc/passwd")).expect(0).says("stays as it is");
    let _ = stores.run(&manifest("/none")).expect(75).says("reading ssm:///app/token");
}

#[test]
fn a_secret_of_a_file_of_its_own_is_refused_in_public_fields() {
    let stores = Stores::new();
    let path = stores.machine.sandbox.at("env");
    let secret = stores.machine.sandbox.write("token", "canary-token\n");
    let manifest = |more: &str| {
        format!(
            "name = \"step\"\n[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"{{{{ token }}}}\"\n{more}"
        )
    };
    for (more, code, words) in [("", 2, "which other users could read"), ("secret = true\n", 0, "valid")] {
        let steps = stores.machine.sandbox.write("manifest.toml", manifest(more));
        let secret = format!("token={secret}");
        let validate = stores.machine.sandbox.command(&["validate", "--steps", &steps, "--set-secret-file", &secret]);
        let _ = stores.finish(validate).expect(code).says(words);
    }
}

#[test]
fn a_refused_credential_of_an_earlier_run_is_put_back() {
    let stores = Stores::new();
    let values = ["canary-one", "canary-two"];
    for (value, version) in values.iter().zip(1..) {
        stores.answer(
            &format!("/app/db:{version}"),
            200,
            json!({ "Parameter": { "Value": value, "Version": version } }),
        );
    }
    let unit = "[Service]\nExecStart=grep -q one /run/glovo-bootstrap/credentials/db\n";
    stores.machine.write("etc/systemd/system/notes.service", unit);
    let steps = |version: u32| {
        let text = format!(
            "[[step]]\nname = \"secrets\"\n[[step.resource]]\nkind = \"credential\"\nname = \"db\"\n\
             source = \"ssm:///app/db?version={version}\"\n[[step]]\nname = \"service\"\n[[step.resource]]\n\
             kind = \"service\"\nname = \"notes\"\nrunning = true\nstable = \"0s\"\n\
             restart_on = [\"/run/glovo-bootstrap/credentials/db\"]\n"
        );
        stores.machine.sandbox.write(&format!("{version}.toml"), text)
    };
    let script = "\"$1\" run --steps \"$2\"; \"$1\" run secrets --steps \"$3\"; \"$1\" run --steps \"$3\" || true\n\
                  sha256sum < /run/glovo-bootstrap/credentials/db; ! grep -r Y2FuYXJ5 /var/lib/glovo-bootstrap";
    let mut shell = stores.machine.sandbox.shell(script);
    let _ = shell.args([env!("CARGO_BIN_EXE_glovo-bootstrap"), &steps(1), &steps(2)]);
    let finished = stores.finish(shell).expect(0).says("refuses its new files; put back");
    let digest: String = Sha256::digest(values[0]).iter().map(|byte| format!("{byte:02x}")).collect();
    let _ = finished.says(&digest);
}

/// Returns a function that runs a script. Its arguments run the credential `db`, of which a copy is kept.
fn runner_with_copy(stores: &Stores) -> impl Fn(&str) -> Finished {
    let manifest = "name = \"step\"\n[[resource]]\nkind = \"credential\"\nname = \"db\"\nsource = \"ssm:///app/db\"\n\
                    cache = \"systemd-creds\"\n";
    let file = stores.machine.sandbox.write("manifest.toml", manifest);
    move |script| {
        let mut shell = stores.machine.sandbox.shell(script);
        let _ = shell.args([env!("CARGO_BIN_EXE_glovo-bootstrap"), "run", "--steps", &file]);
        stores.finish(shell).expect(0)
    }
}

#[test]
fn an_encrypted_copy_is_made_anew_after_a_kill_before_its_version_was_noted() {
    let stores = Stores::new();
    stores.parameter("/app/db", CANARY, 1);
    let run = runner_with_copy(&stores);
    // Killed between the credential and its first note.
    let first = run(
        "\"$@\"; rm /var/lib/glovo-bootstrap/file-*.json /var/lib/glovo-bootstrap/credential-db.json; echo again; \"$@\"; echo last; \"$@\"",
    );
    let (_, again) = first.stdout.split_once("again\n").unwrap();
    assert!(again.contains("keep an encrypted copy"), "{again}");
    assert!(again.split_once("last\n").unwrap().1.contains("0 changes"), "{again}");
    // Killed between the credential of a new version and its notes.
    stores.parameter("/app/db", "canary-2", 2);
    let notes = "sed -i 's/\"version\":\"2\"/\"version\":\"1\"/; s/db 2\"/db 1\"/' /var/lib/glovo-bootstrap/*.json";
    let _ =
        run(&format!("\"$@\" > /dev/null; {notes}; \"$@\"; \"$@\"")).says("keep an encrypted copy").says("0 changes");
    stores.answer("/app/db", 503, json!({}));
    let digest: String = Sha256::digest("canary-2").iter().map(|byte| format!("{byte:02x}")).collect();
    let _ = run("\"$@\"; sha256sum < /run/glovo-bootstrap/credentials/db").says(&digest);
}

#[test]
fn an_encrypted_copy_serves_a_boot_without_the_store() {
    let stores = Stores::new();
    stores.parameter("/app/db", CANARY, 1);
    let run = runner_with_copy(&stores);
    let first = run("\"$@\"; \"$@\"; stat -c '%a' /var/lib/glovo-bootstrap/credential-db.cred");
    let _ = first.says("keep an encrypted copy for the next boot").says("0 changes").says("600\n");
    stores.answer("/app/db", 503, json!({}));
    // The file system in memory has ended with the namespace, as with a reboot.
    let second = run(
        "\"$@\"; \"$@\"; sha256sum < /run/glovo-bootstrap/credentials/db; stat -c '%a' /run/glovo-bootstrap/credentials/db",
    );
    let digest: String = Sha256::digest(CANARY).iter().map(|byte| format!("{byte:02x}")).collect();
    let second = second.says("create from its encrypted copy").says(&digest).says("400\n").says("0 changes");
    assert!(!second.stdout.contains("keep an encrypted copy"), "{}", second.stdout);
    // A new version that cannot be encrypted leaves the earlier copy.
    stores.parameter("/app/db", "canary-2", 2);
    let broken = stores.machine.sandbox.write("machine/bin/systemd-creds", "#!/bin/sh\nexit 1\n");
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    let _ = run("! \"$@\"").says("systemd-creds");
    fs::remove_file(&broken).unwrap();
    stores.answer("/app/db", 503, json!({}));
    let _ = run("\"$@\"; sha256sum < /run/glovo-bootstrap/credentials/db").says(&digest);
}
