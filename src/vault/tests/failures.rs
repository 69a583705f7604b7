//! What Vault answers when it does not give a value.

use serde_json::json;

use super::{APPROLE, FakeVault, VaultBench, answer, asked, errors};
use crate::fetch::tests::server::{Reply, Server};

const PASSWORD: &str = "vault://secret/app/db#password";

#[test]
fn a_vault_that_serves_no_requests_says_why() {
    for (health, words, hint) in [
        (503, "is sealed", "unseal it: vault operator unseal -address=http://127.0.0.1:"),
        (501, "is not initialized", "initialize it: vault operator init -address=http://127.0.0.1:"),
        (472, "is a secondary for disaster recovery, which serves no requests", "set `address` to the primary cluster"),
        (429, "is a standby node and reaches no active node", "check the active node: vault status -address="),
        (473, "is a standby node and reaches no active node", "check the active node: vault status -address="),
        (200, "failed", "check its log, and its state: vault status -address="),
    ] {
        let server = FakeVault::with(move |request| {
            let health = if asked(request) == "sys/health" { health } else { 503 };
            Some(errors(health, "the words of Vault"))
        });
        let bench = VaultBench::of(&server.0, APPROLE, "namespace = 'team'", true);
        let (code, told) = bench.refused(PASSWORD);
        assert_eq!(code, 75, "{told}");
        assert!(told.contains(&format!("caused by: Vault at {} {words}", server.0.url(""))), "{told}");
        assert!(told.contains("caused by: it answered 503: the words of Vault"), "{told}");
        assert!(told.contains(&format!("hint: {hint}")) && told.contains("gave up after 3 attempts"), "{told}");
        let health = server.0.requests().into_iter().find(|request| asked(request) == "sys/health").unwrap();
        assert_eq!(health.header("x-vault-namespace"), None);
        assert_eq!(server.asked().len(), 6);
    }
}

#[test]
fn a_vault_that_is_unsealed_meanwhile_is_read() {
    let sealed = || errors(503, "Vault is sealed");
    let server = FakeVault::answering("auth/approle/login", vec![sealed(), sealed()]);
    assert_eq!(VaultBench::new(&server, APPROLE).value(PASSWORD).1, Some(4));
}

#[test]
fn a_denial_names_the_path_and_the_policies() {
    let server =
        FakeVault::answering("secret/data/app/db", vec![errors(403, "1 error occurred:\n\t* permission denied\n\n")]);
    let (code, told) = VaultBench::new(&server, APPROLE).refused(PASSWORD);
    assert_eq!(code, 1);
    assert!(told.contains("caused by: Vault denies reading secret/data/app/db\n"), "{told}");
    assert!(told.contains("caused by: it answered 403: permission denied\n"), "{told}");
    let hint = "hint: allow it in one of the token's policies (app, default): \
                path \"secret/data/app/db\" { capabilities = [\"read\"] }\n";
    assert!(told.contains(hint), "{told}");
}

#[test]
fn a_mount_that_is_denied_or_missing_says_both() {
    let server = FakeVault::with(|request| {
        asked(request).starts_with("sys/internal").then(|| errors(403, "preflight capability check returned 403"))
    });
    let (code, told) = VaultBench::new(&server, APPROLE).refused("vault://kv/app/db#password");
    assert_eq!(code, 1);
    assert!(told.contains("Vault denies access to kv/app/db, or no engine is mounted there"), "{told}");
    assert!(told.contains("vault secrets list") && told.contains("path \"kv/data/app/db\""), "{told}");
}

#[test]
fn a_namespace_that_does_not_exist_is_named() {
    let server = FakeVault::with(|request| {
        asked(request).starts_with("sys/internal").then(|| errors(404, "namespace not found"))
    });
    let (code, told) = VaultBench::of(&server.0, APPROLE, "namespace = 'team'", true).refused(PASSWORD);
    assert!(told.contains("it answered 404: namespace not found") && code == 1, "{told}");
    assert!(told.contains("hint: check `namespace` and `address`"), "{told}");
}

#[test]
fn a_secret_that_is_not_there_says_what_is_missing() {
    let gone = |deletion_time: &str, destroyed: bool| {
        let metadata = json!({ "version": 3, "deletion_time": deletion_time, "destroyed": destroyed });
        answer(404, &json!({ "data": { "data": null, "metadata": metadata } }))
    };
    for (path, reply, words, hint) in [
        (
            PASSWORD,
            errors(404, ""),
            "secret/app/db does not exist",
            "write it: vault kv put -mount=secret app/db password=-",
        ),
        (
            "vault://secret/app/db?version=9#password",
            errors(404, ""),
            "version 9 of secret/app/db does not exist",
            "list the versions: vault kv metadata get -mount=secret app/db",
        ),
        (
            PASSWORD,
            gone("2026-11-28T16:47:59.29Z", false),
            "version 3 of secret/app/db was deleted at 2026-11-28T16:47:59.29Z",
            "restore it: vault kv undelete -versions=3 -mount=secret app/db",
        ),
        (
            PASSWORD,
            gone("", true),
            "version 3 of secret/app/db was destroyed",
            "write a new version: vault kv put -mount=secret app/db password=-",
        ),
    ] {
        let reply = std::sync::Mutex::new(Some(reply));
        let server = FakeVault::with(move |request| {
            asked(request).starts_with("secret/data/").then(|| reply.lock().unwrap().take()).flatten()
        });
        let (code, told) = VaultBench::new(&server, APPROLE).refused(path);
        assert_eq!(code, 1, "{told}");
        assert!(told.contains(&format!("caused by: {words}\nhint: {hint}\n")), "{told}");
    }
}

#[test]
fn a_wrong_key_and_an_empty_value_are_refused() {
    let server = FakeVault::usual();
    let bench = VaultBench::new(&server, APPROLE);
    let (code, told) = bench.refused("vault://secret/app/db#passwort");
    assert!(told.contains("secret/app/db has no key `passwort`: its keys are `password`, `user`, `empty`"), "{told}");
    assert_eq!(code, 1);
    let (code, told) = bench.refused("vault://secret/app/db#empty");
    assert!(told.contains("the key `empty` of secret/app/db is empty") && code == 1, "{told}");
}

#[test]
fn a_rate_limit_is_waited_for_as_long_as_vault_asks() {
    let limited = |after: &str| Reply::new(429, &[("retry-after", after)], r#"{"errors":["quota exceeded"]}"#);
    let server = FakeVault::answering("secret/data/app/db", vec![limited("0"), limited("0")]);
    assert_eq!(VaultBench::new(&server, APPROLE).value(PASSWORD).1, Some(4));

    let server = FakeVault::answering("secret/data/app/db", vec![limited("3600")]);
    let (code, told) = VaultBench::new(&server, APPROLE).refused(PASSWORD);
    assert_eq!(code, 75);
    assert!(told.contains("the server asks to wait 60 min 00 s") && told.contains("quota exceeded"), "{told}");
}

#[test]
fn an_answer_that_is_not_vault_s_is_not_quoted() {
    for reply in [Reply::ok("<html>password-canary</html>"), Reply::ok(r#"{"data":{"data":"password-canary"}}"#)] {
        let server = FakeVault::answering("secret/data/app/db", vec![reply]);
        let (code, told) = VaultBench::new(&server, APPROLE).refused(PASSWORD);
        assert_eq!(code, 1, "{told}");
        assert!(told.contains("is not JSON: it is not Vault's") || told.contains("is not a secret"), "{told}");
    }
}

#[test]
fn a_vault_that_is_away_is_a_temporary_failure() {
    // Another test's server could get a port that was free a moment ago.
    let gone = "http://127.0.0.1:1";
    let mut bench = VaultBench::new(&FakeVault::usual(), APPROLE);
    bench.vault.settings.address = gone.parse().unwrap();
    let (code, told) = bench.refused(PASSWORD);
    assert!(told.contains("connecting to 127.0.0.1: connection refused") && code == 75, "{told}");
    assert!(told.contains(&format!("error: reading {PASSWORD} from Vault at {gone}\n")), "{told}");
}

#[test]
fn an_answer_that_breaks_off_is_asked_for_again() {
    let server = Server::start(|number, request| {
        let whole = super::usual_answer(request);
        if number == 2 { whole.cut(5) } else { whole }
    });
    let bench = VaultBench::of(&server, APPROLE, "", true);
    assert_eq!(bench.value(PASSWORD).1, Some(4));
}
