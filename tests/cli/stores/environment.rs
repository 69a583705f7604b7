//! Credentials of the kind `environment`, and what a manifest may do with secrets in combination.

use std::fs;

use serde_json::json;

use super::{CANARY, Stores};

const DROP_IN: &str = "etc/systemd/system/notes.service.d/50-glovo-bootstrap-environment.conf";

/// A service whose credential has this version, and which notes its value's length.
fn notes(version: u32) -> String {
    let unit = "[Service]\\nExecStart=wc -c < /run/glovo-bootstrap/credentials/db > /run/standin/size\\n";
    format!(
        "name = \"step\"\n[[resource]]\nkind = \"file\"\npath = \"/etc/systemd/system/notes.service\"\n\
         content = \"{unit}\"\n[[resource]]\nkind = \"environment\"\nname = \"notes\"\n\
         variables = [\"MODE=fast\"]\ncredentials = {{ db = \"ssm:///app/db?version={version}\" }}\n\
         [[resource]]\nkind = \"service\"\nname = \"notes\"\nrunning = true\nstable = \"0s\"\n"
    )
}

/// Returns the stores with two versions of a parameter.
fn stores() -> Stores {
    let stores = Stores::new();
    for (value, version) in [("canary", 1), (CANARY, 2)] {
        let answer = json!({ "Parameter": { "Value": value, "Version": version } });
        stores.answer(&format!("/app/db:{version}"), 200, answer);
    }
    stores
}

#[test]
fn a_service_gets_its_credentials_and_restarts_for_a_version() {
    let stores = stores();
    let write = |name: &str, version| stores.machine.sandbox.write(name, notes(version));
    let (one, two) = (write("one.toml", 1), write("two.toml", 2));
    let script = "\"$1\" run --steps \"$2\"; cat /run/standin/size; \"$1\" run --steps \"$2\"; \"$1\" run --steps \"$3\"\n\
                  cat /run/standin/size; stat -c '%a %U' /run/glovo-bootstrap/credentials/db\n\
                  \"$1\" run --steps \"$3\"; \"$1\" plan --steps \"$2\"";
    let mut shell = stores.machine.sandbox.shell(script);
    let _ = shell.args([env!("CARGO_BIN_EXE_glovo-bootstrap"), &one, &two]);
    let ran = stores.finish(shell).expect(0).says("db: create from ssm:///app/db?version=1, version 1").says("\n6\n");
    let ran = ran.says("db: write the content from ssm:///app/db?version=2, version 2").says("\n21\n400 root\n");
    let ran = ran.says("app.service: restart: /run/glovo-bootstrap/credentials/db".replace("app", "notes").as_str());
    assert_eq!(ran.stdout.matches("converged: 0 changes").count(), 2, "{}", ran.stdout);
    assert_eq!(stores.machine.unit("notes.service")["starts"], 2);
    let drop_in = stores.machine.read(DROP_IN);
    let expected = "[Unit]\nConditionPathExists=/run/glovo-bootstrap/credentials/db\n\n[Service]\n\
                    EnvironmentFile=/etc/systemd/system/notes.service.d/50-glovo-bootstrap.env\n\
                    LoadCredential=db:/run/glovo-bootstrap/credentials/db\n";
    assert!(drop_in.ends_with(expected), "{drop_in}");
}

#[test]
fn an_image_gets_an_environment_without_credentials() {
    let stores = stores();
    let baked = stores.with(&["bake"], &notes(1)).expect(0);
    let baked = baked.says("environment notes.service: read db (deferred: a secret does not go into an image)");
    assert!(!baked.stdout.contains("warning:") && stores.server.requests().is_empty(), "{baked:?}");
    assert!(stores.machine.read(DROP_IN).contains("LoadCredential=db:"));
}

#[test]
fn a_file_whose_secret_is_away_still_gets_its_mode() {
    let stores = Stores::new();
    stores.parameter("/app/token", CANARY, 1);
    let path = stores.machine.sandbox.at("file");
    let manifest = |mode: &str| {
        format!(
            "[variables]\ntoken = {{ secret = \"ssm:///app/token\" }}\n[[step]]\nname = \"step\"\n[[step.resource]]\n\
             kind = \"file\"\npath = \"{path}\"\ncontent = \"{{{{ token }}}}\"\nsecret = true\nmode = \"{mode}\"\n"
        )
    };
    let _ = stores.run(&manifest("0644")).expect(0);
    stores.answer("/app/token", 503, json!({}));
    let closed = stores.run(&manifest("0640")).expect(0).says("set mode 0640 (now 0644)");
    let _ = closed.says("stays as it is");
    assert_eq!(fs::read_to_string(&path).unwrap(), CANARY);
    let _ = stores.run(&manifest("0640")).expect(0).says("0 changes");
}

#[test]
fn a_credential_of_one_version_serves_a_boot_from_its_copy() {
    let stores = stores();
    let of = |version: u32| {
        let text = format!(
            "name = \"step\"\n[[resource]]\nkind = \"credential\"\nname = \"db\"\n\
             source = \"ssm:///app/db?version={version}\"\ncache = \"systemd-creds\"\n"
        );
        stores.machine.sandbox.write(&format!("{version}.toml"), text)
    };
    let run = |version: u32| {
        let mut shell = stores.machine.sandbox.shell("\"$@\"; wc -c < /run/glovo-bootstrap/credentials/db");
        let _ = shell.args([env!("CARGO_BIN_EXE_glovo-bootstrap"), "run", "--steps", &of(version)]);
        stores.finish(shell)
    };
    let _ = run(1).expect(0).says("keep an encrypted copy").says("\n6\n");
    // Another version is no change of the copied one: the store is asked, and the copy is made anew.
    let _ = run(2).expect(0).says("keep an encrypted copy").says("\n21\n");
    stores.answer("/app/db:2", 503, json!({}));
    let _ = run(2).expect(0).says("create from its encrypted copy").says("\n21\n");
    // The copy is of version 2. A boot that declares version 1 must not get it.
    stores.answer("/app/db:1", 503, json!({}));
    // A run would wait for the store for minutes.
    let planned = stores.finish(stores.machine.sandbox.command(&["plan", "--steps", &of(1)])).expect(0);
    assert!(!planned.stdout.contains("from its encrypted copy"), "{}", planned.stdout);
    let planned = stores.finish(stores.machine.sandbox.command(&["plan", "--steps", &of(2)])).expect(0);
    let _ = planned.says("create from its encrypted copy");
}

#[test]
fn a_parameter_of_a_path_can_be_a_condition_and_a_secret_cannot() {
    let stores = Stores::new();
    let parameters = [("/app/role", "String", "web"), ("/app/token", "SecureString", CANARY)];
    stores.page("/app/", "", &parameters, None);
    let path = stores.machine.sandbox.at("file");
    let manifest = |condition: &str| {
        format!(
            "name = \"step\"\n[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"\"\nwhere = {condition}\n"
        )
    };
    let ssm = ["--variables", "ssm:///app/"];
    let _ = stores.with(&["validate", ssm[0], ssm[1]], &manifest("{ role = \"web\" }")).expect(0);
    let other = stores.with(&["run", ssm[0], ssm[1]], &manifest("{ role = \"worker\" }")).expect(0);
    let _ = other.says("not here: role is web");
    let _ = stores.with(&["run", ssm[0], ssm[1]], &manifest("{ role = \"web\" }")).expect(0).says("1 change");
    for verb in ["validate", "plan", "run", "bake"] {
        for condition in ["{ token = \"x\" }", "{ role = \"{{ token }}\" }"] {
            let refused = stores.with(&[verb, ssm[0], ssm[1]], &manifest(condition)).expect(2);
            let _ = refused.says("a condition cannot be about the secret `token`");
        }
    }
}
