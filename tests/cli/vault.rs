//! The client of Vault with a real server.

use std::{
    fs,
    process::{Command, Stdio},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    openbao::{ADDRESS, OpenBao, STRICT_ADDRESS, apart},
    sandbox::{Finished, Sandbox},
    standin::Machine,
};

#[test]
fn a_wrapped_secret_id_alone_is_refused_with_the_timer() {
    let machine = Machine::new();
    let wrapped = "{ method = 'approle', role_id = 'r', wrapped_secret_id_file = '/w' }";
    let manifest = |login: &str| {
        let step = "[[step]]\nname = 'a'\n[[step.resource]]\nkind = 'directory'\npath = '/run/a'\n";
        machine.sandbox.write("m.toml", format!("[vault]\naddress = 'https://v'\nlogin = {login}\n{step}"))
    };
    let alone = manifest(wrapped);
    let _ = machine.sandbox.run(&["validate", "--steps", &alone]).expect(0);
    machine.write("etc/systemd/system/timers.target.wants/glovo-bootstrap-converge.timer", "");
    for command in ["validate", "plan", "run"] {
        let refused = machine.sandbox.run(&[command, "--steps", &alone]).expect(2);
        let _ =
            refused.says("m.toml:1:1").says("a wrapped secret id serves the first run only").says("systemctl disable");
    }
    let both = manifest(&format!("[{wrapped}, {{ method = 'jwt', role = 'r', file = '/j' }}]"));
    let _ = machine.sandbox.run(&["validate", "--steps", &both]).expect(0);
}

#[test]
fn openbao_s_secrets_are_read_in_both_versions_of_the_engine() {
    apart(|program| {
        let bao = OpenBao::serving(program);
        let machine = bao.machine(&bao.approle());
        machine.reads("vault://secret/app/db#password", "password-3", Some(3));
        machine.reads("vault://secret/app/db?version=1#password", "password-1", Some(1));
        machine.reads("vault://old/app#password", "old-password", None);
        machine.reads("vault://old/app#port", "5432", None);

        let denied = "caused by: Vault denies reading secret/data/other";
        let hint = "hint: allow it in one of the token's policies (app, default): \
                    path \"secret/data/other\" { capabilities = [\"read\"] }";
        machine.is_refused("vault://secret/other#password", 1, &[denied, hint]);
        let keys = "secret/app/db has no key `user`: its keys are `empty`, `password`";
        machine.is_refused("vault://secret/app/db#user", 1, &[keys]);
        machine.is_refused("vault://secret/app/db#empty", 1, &["the key `empty` of secret/app/db is empty"]);
        machine.is_refused("vault://secret/app/none#password", 1, &["secret/app/none does not exist"]);
        let version = "version 9 of secret/app/db does not exist";
        machine.is_refused("vault://secret/app/db?version=9#password", 1, &[version]);
        machine.is_refused(
            "vault://none/app#password",
            1,
            &["Vault denies access to none/app, or no engine is mounted"],
        );
        let unversioned = "old keeps no versions, but version 1 is declared";
        machine.is_refused("vault://old/app?version=1#password", 1, &[unversioned]);

        let _ = bao.ask("POST", "secret/delete/app/db", &json!({ "versions": [1] }));
        let _ = bao.ask("POST", "secret/destroy/app/db", &json!({ "versions": [2] }));
        let machine = bao.machine(&bao.approle());
        machine.is_refused(
            "vault://secret/app/db?version=1#password",
            1,
            &["version 1 of secret/app/db was deleted at 2"],
        );
        machine.is_refused(
            "vault://secret/app/db?version=2#password",
            1,
            &["version 2 of secret/app/db was destroyed"],
        );
        machine.reads("vault://secret/app/db#password", "password-3", Some(3));
    });
}

#[test]
fn openbao_s_tokens_are_renewed_by_a_login_and_revoked() {
    apart(|program| {
        let bao = OpenBao::serving(program);
        let machine = bao.machine(&bao.approle());
        machine.reads("vault://secret/app/db#password", "password-3", Some(3));
        let tokens = || {
            let list = bao.request("LIST", "auth/token/accessors", &[], &json!({}));
            list["data"]["keys"].as_array().unwrap().len()
        };
        let before = tokens();
        let _ = bao.ask("POST", "sys/leases/revoke-prefix/auth/approle", &json!({}));
        assert_eq!(tokens(), before - 1);
        machine.reads("vault://old/app#password", "old-password", None);
        assert_eq!(tokens(), before);
        machine.vault.close(&machine.system.host);
        assert_eq!(tokens(), before - 1);

        bao.file("token", &bao.root_token);
        let machine = bao.machine("method = 'token', file = '/token'");
        machine.reads("vault://secret/other#password", "other-password", Some(1));
        machine.vault.close(&machine.system.host);
        assert_eq!(tokens(), before - 1);
        bao.file("token", "s.0123456789abcdefghijklmn");
        let words = "Vault does not accept the token, or its policies do not allow auth/token/lookup-self";
        bao.machine("method = 'token', file = '/token'").is_refused("vault://secret/other#password", 1, &[words]);
    });
}

#[test]
fn openbao_unwraps_a_secret_id_once() {
    apart(|program| {
        let bao = OpenBao::serving(program);
        let role = bao.ask("GET", "auth/approle/role/app/role-id", &json!({}));
        let role = role["data"]["role_id"].as_str().unwrap().to_owned();
        let login = format!("method = 'approle', role_id = '{role}', wrapped_secret_id_file = '/wrapped'");
        let wrap = || {
            let headers = ["X-Vault-Wrap-TTL: 10m"];
            let wrapped = bao.request("POST", "auth/approle/role/app/secret-id", &headers, &json!({}));
            wrapped["wrap_info"]["token"].as_str().unwrap().to_owned()
        };
        let unwrap = |token: &str| bao.ask("POST", "sys/wrapping/unwrap", &json!({ "token": token }));
        let path = "vault://secret/app/db#password";

        bao.file("wrapped", &wrap());
        bao.machine(&login).reads(path, "password-3", Some(3));
        let again = "it is already unwrapped: by this machine's login at 2";
        bao.machine(&login).is_refused(path, 1, &[again]);
        let both = format!("[{{ {login} }}, {{ {} }}]", bao.approle());
        bao.machine(&both).reads(path, "password-3", Some(3));

        let stolen = wrap();
        let _ = unwrap(&stolen);
        bao.file("wrapped", &stolen);
        let first = "the wrapped secret id has expired, or another party has unwrapped it; this machine has not";
        bao.machine(&login).is_refused(path, 1, &[first, "it answered 400: wrapping token is not valid"]);
        let second = "the wrapped secret id is already unwrapped: by an earlier attempt at 2";
        bao.machine(&login).is_refused(path, 1, &[second, ", or by another party"]);

        // A party on the way unwraps the secret id, and wraps it again.
        let secret_id = unwrap(&wrap())["data"].clone();
        let forged = bao.request("POST", "sys/wrapping/wrap", &["X-Vault-Wrap-TTL: 10m"], &secret_id);
        bao.file("wrapped", forged["wrap_info"]["token"].as_str().unwrap());
        bao.machine(&login).is_refused(
            path,
            1,
            &["the token wraps an answer of sys/wrapping/wrap, and not a secret id"],
        );
    });
}

#[test]
fn openbao_accepts_the_logins_jwt_and_cert() {
    apart(|program| {
        let bao = OpenBao::serving(program);
        let path = "vault://secret/app/db#password";
        let key = fs::read_to_string(bao.sandbox.at("tree/jwt.pub")).unwrap();
        let _ = bao.ask("POST", "auth/jwt/config", &json!({ "jwt_validation_pubkeys": [key] }));
        let role = json!({
            "role_type": "jwt", "bound_audiences": ["vault"], "user_claim": "sub", "bound_subject": "web",
            "token_policies": ["app"],
        });
        let _ = bao.ask("POST", "auth/jwt/role/app", &role);
        bao.file("jwt", &jwt(&bao.sandbox, "web"));
        let jwt_login = "method = 'jwt', role = 'app', file = '/jwt'";
        bao.machine(jwt_login).reads(path, "password-3", Some(3));

        let authority = fs::read_to_string(bao.sandbox.at("tree/ca.pem")).unwrap();
        let _ = bao.ask("POST", "auth/cert/certs/web", &json!({ "certificate": authority, "token_policies": ["app"] }));
        let with =
            |name: &str| format!("ca = '/ca.pem'\nclient_certificate = '/{name}.pem'\nclient_key = '/{name}.key'");
        let cert = "method = 'cert', role = 'web'";
        bao.machine_at(ADDRESS, cert, &with("client")).reads(path, "password-3", Some(3));
        bao.machine_at(STRICT_ADDRESS, cert, &with("client")).reads(path, "password-3", Some(3));
        let denial = "Vault denies the login at auth/cert";
        bao.machine_at(ADDRESS, cert, &with("stranger")).is_refused(path, 1, &[denial]);

        bao.file("jwt", &jwt(&bao.sandbox, "another"));
        let words = ["Vault denies the login at auth/jwt", "hint: compare the role with the claims of the token"];
        bao.machine(jwt_login).is_refused(path, 1, &words);
        let both = format!("[{{ {jwt_login} }}, {{ {cert} }}]");
        bao.machine_at(ADDRESS, &both, &with("client")).reads(path, "password-3", Some(3));
    });
}

/// Returns a signed token of a subject.
fn jwt(sandbox: &Sandbox, subject: &str) -> String {
    let encoded = |part: &Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
    let claims = json!({ "sub": subject, "aud": "vault", "iat": 1, "nbf": 1, "exp": 4_000_000_000_u64 });
    let text = format!("{}.{}", encoded(&json!({ "alg": "RS256", "typ": "JWT" })), encoded(&claims));
    let signed = sandbox.write("claims", &text);
    let sign = ["dgst", "-sha256", "-sign", &sandbox.at("tree/jwt.key"), &signed];
    let signature = Command::new("openssl").args(sign).output().unwrap().stdout;
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn openbao_s_namespaces_have_their_own_logins_and_secrets() {
    apart(|program| {
        let bao = OpenBao::serving(program);
        let _ = bao.ask("POST", "sys/namespaces/team", &json!({}));
        let team = |path: &str, body: &Value| {
            let answer = bao.request("POST", path, &["X-Vault-Namespace: team"], body);
            assert!(answer.get("errors").is_none(), "{path}: {answer}");
            answer
        };
        let _ = team("sys/mounts/kv/deep", &json!({ "type": "kv", "options": { "version": "1" } }));
        let _ = team("kv/deep/app", &json!({ "password": "team-password" }));
        bao.file("token", &bao.root_token);
        let token = "method = 'token', file = '/token'";
        let in_namespace =
            |name: &str| bao.machine_at(ADDRESS, token, &format!("ca = '/ca.pem'\nnamespace = '{name}'"));
        in_namespace("team").reads("vault://kv/deep/app#password", "team-password", None);
        bao.machine(token).reads("vault://team/kv/deep/app#password", "team-password", None);
        let words = ["it answered 404: namespace not found", "hint: check"];

        let policy = "path \"kv/deep/*\" { capabilities = [\"read\"] }";
        let _ = team("sys/policies/acl/app", &json!({ "policy": policy }));
        let _ = team("sys/auth/approle", &json!({ "type": "approle" }));
        let _ = team("auth/approle/role/app", &json!({ "token_policies": "app" }));
        let headers = ["X-Vault-Namespace: team", "X-Vault-Wrap-TTL: 10m"];
        let role = bao.request("GET", "auth/approle/role/app/role-id", &headers[..1], &json!({}));
        let role = role["data"]["role_id"].as_str().unwrap();
        let wrapped = bao.request("POST", "auth/approle/role/app/secret-id", &headers, &json!({}));
        bao.file("wrapped", wrapped["wrap_info"]["token"].as_str().unwrap());
        let login = format!("method = 'approle', role_id = '{role}', wrapped_secret_id_file = '/wrapped'");
        let machine = bao.machine_at(ADDRESS, &login, "ca = '/ca.pem'\nnamespace = 'team'");
        machine.reads("vault://kv/deep/app#password", "team-password", None);
        machine.is_refused("vault://kv/deep/none#password", 1, &["kv/deep/none does not exist"]);

        in_namespace("none").is_refused("vault://kv/deep/app#password", 1, &words);
        bao.machine(token).is_refused("vault://kv/deep/app#password", 1, &["or no engine is mounted there"]);
    });
}

#[test]
fn openbao_that_is_sealed_or_new_says_so() {
    apart(|program| {
        let mut bao = OpenBao::start(program);
        let path = "vault://secret/app/db#password";
        bao.file("token", "s.0123456789abcdefghijklmn");
        let token = "method = 'token', file = '/token'";
        let new = ["Vault at https://127.0.0.1:8200 is not initialized", "hint: initialize it: vault operator init"];
        bao.machine(token).is_refused(path, 75, &new);
        bao.initialize();
        let _ = bao.ask("POST", "secret/data/app/db", &json!({ "data": { "password": "password-1" } }));
        bao.file("token", &bao.root_token);
        let machine = bao.machine(token);
        let _ = bao.ask("POST", "sys/seal", &json!({}));
        let sealed = ["Vault at https://127.0.0.1:8200 is sealed", "hint: unseal it: vault operator unseal -address="];
        machine.is_refused(path, 75, &sealed);
        bao.unseal();
        machine.reads(path, "password-1", Some(1));
    });
}

#[test]
fn openbao_s_new_version_reaches_a_file_and_nothing_else() {
    apart(|program| {
        let bao = OpenBao::serving(program);
        let write = |password: &str| {
            let _ = bao.ask("POST", "secret/data/app/db", &json!({ "data": { "password": password } }));
        };
        let (login, path) = (bao.approle(), bao.sandbox.at("written"));
        let tree = bao.sandbox.at("tree");
        let login = login.replace("'/", &format!("'{tree}/"));
        let manifest = format!(
            "[vault]\naddress = '{ADDRESS}'\nca = '{tree}/ca.pem'\nlogin = {{ {login} }}\n[[step]]\nname = 'secrets'\n\
             [[step.resource]]\nkind = 'file'\npath = '{path}'\nsource = 'vault://secret/app/db#password'\n"
        );
        let manifest = bao.sandbox.write("manifest.toml", manifest);
        let tokens = || bao.request("LIST", "auth/token/accessors", &[], &json!({}))["data"]["keys"].clone();
        let secret_id = fs::read_to_string(bao.sandbox.at("tree/secret-id")).unwrap();
        let run = |command: &str| {
            let mut run = bao.sandbox.command(&[command, "--steps", &manifest]);
            let finished = Finished::from(run.env("GLOVO_BOOTSTRAP_LOG", "trace").output().unwrap());
            let mut told = vec![finished.stdout.clone(), finished.stderr.clone()];
            let state = fs::read_dir(bao.sandbox.at("var-lib/glovo-bootstrap")).into_iter().flatten().flatten();
            told.extend(state.filter_map(|entry| fs::read_to_string(entry.path()).ok()));
            // A token of OpenBao is `s.` and 24 characters.
            let is_token = |word: &str| word.len() == 24 && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
            for text in told {
                let has_token = text.split("s.").skip(1).any(|rest| rest.get(..24).is_some_and(is_token));
                assert!(!text.contains("canary") && !text.contains(&secret_id) && !has_token, "{text}");
            }
            finished
        };
        let content = || fs::read_to_string(&path).unwrap();

        let before = tokens();
        write("canary-4");
        let _ = run("plan").expect(0).says("version 4");
        let _ = run("run").expect(0).says("1 change");
        assert_eq!(content(), "canary-4");
        let _ = run("run").expect(0).says("0 changes");
        write("canary-5");
        let _ = run("run").expect(0).says("version 5");
        assert_eq!(content(), "canary-5");
        assert_eq!(tokens(), before, "each run has revoked its token");

        let _ = bao.ask("POST", "sys/seal", &json!({}));
        let _ = run("run").expect(0).says("keeps its present content").says("is sealed");
        assert_eq!(content(), "canary-5");
        fs::remove_file(&path).unwrap();
        let mut first = bao.sandbox.command(&["run", "--steps", &manifest]);
        let first = first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        bao.unseal();
        let first = first.wait_with_output().unwrap();
        assert!(first.status.success(), "a run without a value waits until Vault is unsealed");
        assert_eq!(content(), "canary-5");
    });
}

#[test]
fn openbao_is_trusted_by_its_own_authority_alone() {
    apart(|program| {
        let bao = OpenBao::start(program);
        let path = "vault://secret/app/db#password";
        bao.file("token", "s.0123456789abcdefghijklmn");
        let refused = |address: &str, more: &str, words: &[&str]| {
            bao.machine_at(address, "method = 'token', file = '/token'", more).is_refused(path, 1, words);
        };
        let untrusted = "the certificate of 127.0.0.1 is not trusted";
        let set = "hint: set `ca` to the PEM file of the authority that signed Vault's certificate";
        refused(ADDRESS, "", &[untrusted, set]);
        let check = "hint: check that `ca` has the certificate of the authority that signed Vault's";
        refused(ADDRESS, "ca = '/stranger.pem'", &[untrusted, check]);
        refused(ADDRESS, "ca = '/none.pem'", &["/none.pem does not exist"]);
        refused(ADDRESS, "ca = '/token'", &["there is no certificate in PEM form"]);
        let pair = "hint: set `client_certificate` and `client_key` to a pair that Vault's listener accepts";
        refused(STRICT_ADDRESS, "ca = '/ca.pem'", &["no TLS connection to Vault at https://127.0.0.1:8210", pair]);
        let stranger = "ca = '/ca.pem'\nclient_certificate = '/stranger.pem'\nclient_key = '/stranger.key'";
        refused(STRICT_ADDRESS, stranger, &[pair]);
        let mixed = "ca = '/ca.pem'\nclient_certificate = '/client.pem'\nclient_key = '/server.key'";
        refused(STRICT_ADDRESS, mixed, &["the client's certificate and its key cannot be used"]);
    });
}

#[test]
fn openbao_s_first_login_brings_the_file_of_later_ones() {
    apart(|program| {
        let bao = OpenBao::serving(program);
        let role = bao.ask("GET", "auth/approle/role/app/role-id", &json!({}));
        let role = role["data"]["role_id"].as_str().unwrap().to_owned();
        let new_id = || bao.ask("POST", "auth/approle/role/app/secret-id", &json!({}))["data"]["secret_id"].clone();
        let store = || bao.ask("POST", "secret/data/app/login", &json!({ "data": { "secret_id": new_id() } }));
        let _ = store();
        let headers = ["X-Vault-Wrap-TTL: 10m"];
        let wrapped = bao.request("POST", "auth/approle/role/app/secret-id", &headers, &json!({}));
        bao.file("wrapped", wrapped["wrap_info"]["token"].as_str().unwrap());
        let (tree, file) = (bao.sandbox.at("tree"), bao.sandbox.at("secret-id"));
        let manifest = format!(
            "[vault]\naddress = '{ADDRESS}'\nca = '{tree}/ca.pem'\nlogin = [\n\
             {{ method = 'approle', role_id = '{role}', secret_id_file = '{file}' }},\n\
             {{ method = 'approle', role_id = '{role}', wrapped_secret_id_file = '{tree}/wrapped' }},\n]\n\
             [[step]]\nname = 'secrets'\n[[step.resource]]\nkind = 'file'\npath = '{file}'\n\
             source = 'vault://secret/app/login#secret_id'\n"
        );
        let manifest = bao.sandbox.write("manifest.toml", manifest);
        let run = || bao.sandbox.run(&["run", "--steps", &manifest]);
        let _ = run().expect(0).says("version 1");
        let first = fs::read_to_string(&file).unwrap();
        fs::remove_file(bao.sandbox.at("tree/wrapped")).unwrap();
        let _ = run().expect(0).says("0 changes");
        // The present secret id brings the next one.
        let _ = store();
        let _ = run().expect(0).says("version 2");
        assert_ne!(fs::read_to_string(&file).unwrap(), first);
        let _ = run().expect(0).says("0 changes");
        // Without its file, the machine needs a new wrapped secret id.
        fs::remove_file(&file).unwrap();
        let refused = run().expect(1).says("secret-id does not exist").says("wrapped does not exist");
        assert!(!fs::exists(&file).unwrap() && !refused.stderr.contains(&first));
    });
}
