//! Secrets of stores where others could read them, and words of messages that equal one.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::json;

use super::{CANARY, Stores};

/// A manifest of one step with the variable `token`, which is a secret of Parameter Store.
fn with_token(step: &str, resource: &str) -> String {
    format!(
        "[variables]\ntoken = {{ secret = \"ssm:///app/token\" }}\nuser = \"app\"\n[[step]]\n{step}\n[[step.resource]]\n{resource}\n"
    )
}

#[test]
fn a_secret_beside_another_one_is_refused_in_public_fields() {
    let stores = Stores::new();
    stores.parameter("/app/token", CANARY, 1);
    let path = stores.machine.sandbox.at("public");
    let file = format!("kind = \"file\"\npath = \"{path}\"\ncontent = \"{{{{ user }}}}:{{{{ token }}}}\"");
    let manifest = stores.machine.sandbox.write("manifest.toml", with_token("name = \"step\"", &file));
    let variables = stores.machine.sandbox.write("variables.toml", "user = \"someuser\"\n");
    fs::set_permissions(&variables, fs::Permissions::from_mode(0o600)).unwrap();
    for command in ["validate", "plan", "run"] {
        let arguments = [command, "--steps", &manifest, "--variables", &variables];
        let refused = stores.finish(stores.machine.sandbox.command(&arguments)).expect(2);
        let _ = refused.says("`content` holds the secret `token`");
    }
    assert!(!fs::exists(&path).unwrap());
}

#[test]
fn a_template_with_a_secret_must_be_a_secret() {
    let stores = Stores::new();
    stores.parameter("/app/token", CANARY, 1);
    let template = stores.machine.sandbox.write("template", "token={{ token }}\n");
    let path = stores.machine.sandbox.at("filled-in");
    let file = format!("kind = \"file\"\npath = \"{path}\"\nsource = \"file://{template}\"\ntemplate = true");
    let public = with_token("name = \"step\"", &file);
    for command in ["plan", "run"] {
        let _ = stores.command(command, &public).expect(1).says("the template holds the secret `token`");
        assert!(!fs::exists(&path).unwrap());
    }
    let secret = public + "secret = true\n";
    let _ = stores.run(&secret).expect(0);
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("token={CANARY}\n"));
    stores.answer("/app/token", 503, json!({}));
    let _ = stores.run(&secret).expect(0).says("keeps its present content");
}

#[test]
fn a_step_itself_has_no_secret() {
    let stores = Stores::new();
    stores.parameter("/app/token", "7461", 1);
    let file = format!("kind = \"file\"\npath = \"{}\"\ncontent = \"x\"", stores.machine.sandbox.at("x"));
    for (step, words) in [
        ("name = \"s-{{ token }}\"", "`name` holds the secret `token`"),
        ("name = \"s\"\ndescription = \"{{ token }}\"", "`description` holds the secret `token`"),
        (
            "name = \"s\"\nwhere = { user = [\"app\", \"{{ token }}\"] }",
            "a condition cannot be about the secret `token`",
        ),
    ] {
        let manifest = with_token(step, &file);
        for command in ["validate", "plan"] {
            let _ = stores.command(command, &manifest).expect(2).says(words);
        }
    }
}

#[test]
fn a_hash_of_a_password_may_be_a_secret_of_a_store() {
    let stores = Stores::new();
    stores.machine.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:990:990::/nonexistent:/bin/sh\n");
    let user = "kind = \"user\"\nname = \"app\"\npassword_hash = \"{{ token }}\"";
    let manifest = with_token("name = \"step\"", user);
    let _ = stores.command("validate", &manifest).expect(0);
    stores.answer("/app/token", 503, json!({}));
    // The account exists. It keeps the password that it has.
    let _ = stores.command("plan", &manifest).expect(0).says("stays as it is").says("reading ssm:///app/token");
    let absent = manifest.replace("\"app\"", "\"notes\"");
    let _ = stores.command("plan", &absent).expect(75).says("reading ssm:///app/token");
}

#[test]
fn the_password_of_a_forward_may_be_a_secret_of_a_store() {
    let stores = Stores::new();
    stores.parameter("/app/token", CANARY, 1);
    let forward = "kind = \"log_forward\"\nname = \"app\"\nmatch = { tags = [\"app\"] }\nprotocol = \"elasticsearch\"\n\
                   target = \"https://logs.example.com\"\nuser = \"app\"\npassword = \"{{ token }}\"";
    stores.machine.write("bin/rsyslogd", "#!/bin/sh\n");
    fs::set_permissions(stores.machine.at("bin/rsyslogd"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(stores.machine.at("etc/rsyslog.d")).unwrap();
    let manifest = with_token("name = \"step\"", forward);
    for command in ["validate", "plan", "run"] {
        let _ = stores.command(command, &manifest).expect(0);
    }
    assert!(stores.machine.read("etc/rsyslog.d/app.forward").contains(&format!(" pwd=\"{CANARY}\"")));
    // Others of its fields are in a unit, or in what the collector shows.
    let field = manifest.replace("user = \"app\"\npass", "fields = { a = \"{{ token }}\" }\nuser = \"app\"\npass");
    let _ = stores.command("validate", &field).expect(2).says("a secret may be in: password");
}

#[test]
fn fields_of_a_secret_do_not_hide_ordinary_words() {
    let stores = Stores::new();
    let fields = json!({ "replicas": 1, "user": "file" }).to_string();
    stores.answer("prod/db", 200, json!({ "SecretString": fields, "VersionId": "v-1" }));
    for field in ["replicas", "user"] {
        let (path, manifest) = stores.file(&format!("secretsmanager://prod/db#{field}"), "");
        let planned = stores.command("plan", &manifest).expect(0).says("step 1/1 step").says("1 change pending");
        let _ = planned.says(&format!("file {path}: create from secretsmanager://prod/db#{field}, version v-1"));
    }
}

#[test]
fn each_spelling_of_the_table_vault_is_read() {
    let stores = Stores::new();
    let (_, manifest) = stores.file("vault://kv/app#token", "");
    let step = manifest.replace("name = \"step\"\n[[resource]]", "[[step]]\nname = \"step\"\n[[step.resource]]");
    for settings in
        ["vault = { adress = \"https://vault.example.com\" }", "[ vault ]\nadress = \"x\"", "vault.adress = \"x\""]
    {
        let refused = stores.command("validate", &format!("{settings}\n{step}")).expect(2);
        let _ = refused.says("unknown field `adress`");
    }
}

#[test]
fn credentials_are_mounted_at_their_own_place_only() {
    let stores = Stores::new();
    stores.parameter("/app/db", CANARY, 1);
    let manifest = "name = \"step\"\n[[resource]]\nkind = \"credential\"\nname = \"db\"\nsource = \"ssm:///app/db\"\n";
    let steps = stores.machine.sandbox.write("manifest.toml", manifest);
    let run = |before: &str, after: &str| {
        let mut shell =
            stores.machine.sandbox.shell(&format!("mkdir -p /run/glovo-bootstrap; {before}; \"$@\"; {after}"));
        let _ = shell.args([env!("CARGO_BIN_EXE_glovo-bootstrap"), "run", "--steps", &steps]);
        stores.finish(shell)
    };
    let directory = "/run/glovo-bootstrap/credentials";
    let linked = run(&format!("mkdir /run/elsewhere; ln -s /run/elsewhere {directory}"), "true").expect(1);
    let _ = linked.says(&format!("{directory} is not a directory, but a link"));
    fs::remove_file(stores.machine.at("run/glovo-bootstrap/credentials")).unwrap();
    // A later mount hides the memory that the table of mounts still names.
    let hidden = "\"$@\"; mount -t tmpfs tmpfs /run/glovo-bootstrap";
    let again = run(hidden, &format!("grep -c {directory} /proc/self/mounts")).expect(0);
    assert_eq!(again.stdout.matches("mount a file system in memory").count(), 2, "{}", again.stdout);
    assert!(again.stdout.ends_with("2\n"), "{}", again.stdout);
}
