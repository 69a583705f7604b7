//! What is read, and what is sent for it.

use serde_json::json;

use super::{APPROLE, FakeVault, TOKEN, VaultBench, answer, asked, errors};
use crate::{
    fetch::tests::server::Reply,
    vault::{client::Hidden, login::Session},
};

#[test]
fn a_value_is_read_with_its_version() {
    let server = FakeVault::usual();
    let bench = VaultBench::of(&server.0, APPROLE, "namespace = '/team/app/'", true);
    assert_eq!(bench.value("vault://secret/app/db#password"), ("password-canary".into(), Some(4)));
    assert_eq!(bench.value("vault://secret/app/db?version=2#user"), ("app".into(), Some(2)));
    let read = ["GET sys/internal/ui/mounts/secret/app/db", "GET secret/data/app/db"];
    let read_again = ["GET sys/internal/ui/mounts/secret/app/db", "GET secret/data/app/db?version=2"];
    assert_eq!(server.asked(), [&["POST auth/approle/login"][..], &read, &read_again].concat());
    for request in server.0.requests() {
        assert_eq!(request.header("x-vault-request"), Some("true"));
        assert_eq!(request.header("x-vault-namespace"), Some("team/app"));
        let token = (!asked(&request).ends_with("login")).then_some(TOKEN);
        assert_eq!(request.header("x-vault-token"), token);
    }
}

#[test]
fn all_keys_of_a_secret_come_from_one_read() {
    let server = FakeVault::usual();
    let bench = VaultBench::new(&server, APPROLE);
    assert_eq!(bench.value("vault://secret/app/db#user").0, "app");
    assert_eq!(bench.value("vault://secret/app/db#password").0, "password-canary");
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn version_1_of_the_engine_is_read_without_a_version() {
    let server = FakeVault::usual();
    let bench = VaultBench::new(&server, APPROLE);
    assert_eq!(bench.value("vault://old/db#password"), ("password-canary".into(), None));
    assert!(server.asked().contains(&"GET old/db".into()));
    let (code, told) = bench.refused("vault://old/db?version=3#password");
    assert!(told.contains("old keeps no versions, but version 3 is declared") && code == 1, "{told}");
    assert!(told.contains("hint: remove `?version=3`, or upgrade: vault kv enable-versioning old"), "{told}");
}

#[test]
fn a_mount_of_several_parts_and_odd_names_are_found() {
    let server = FakeVault::with(|request| match asked(request) {
        "sys/internal/ui/mounts/team/kv/a%20b/%C3%BC" => {
            let data = json!({ "type": "kv", "path": "ns/team/kv/", "options": { "version": "2" } });
            Some(answer(200, &json!({ "data": data })))
        }
        "team/kv/data/a%20b/%C3%BC" => {
            Some(answer(200, &json!({ "data": { "data": { "k": "v" }, "metadata": { "version": 1 } } })))
        }
        _ => None,
    });
    let bench = VaultBench::new(&server, APPROLE);
    assert_eq!(bench.value("vault://team/kv/a b/ü#k"), ("v".into(), Some(1)));
}

#[test]
fn an_engine_of_another_kind_is_refused() {
    let server = FakeVault::with(|request| {
        let data = json!({ "type": "database", "path": "database/", "options": null });
        asked(request).starts_with("sys/internal").then(|| answer(200, &json!({ "data": data })))
    });
    let (code, told) = VaultBench::new(&server, APPROLE).refused("vault://database/creds/app#password");
    assert!(told.contains("the engine at database is `database`: only key-value engines are read"), "{told}");
    assert_eq!((code, server.asked().len()), (1, 2));
}

#[test]
fn a_redirect_to_the_active_node_keeps_the_token() {
    let active = FakeVault::usual();
    let location = active.0.url("/v1/secret/data/app/db");
    let standby = FakeVault::with(move |request| {
        let is_read = asked(request) == "secret/data/app/db";
        is_read.then(|| Reply::new(307, &[("location", &location)], ""))
    });
    let bench = VaultBench::new(&standby, APPROLE);
    assert_eq!(bench.value("vault://secret/app/db#password").1, Some(4));
    assert_eq!(active.0.requests()[0].header("x-vault-token"), Some(TOKEN));
}

#[test]
fn a_redirect_that_would_show_the_token_is_refused() {
    let standby = FakeVault::with(|request| {
        let location = [("location", "http://192.0.2.1:8200/v1/secret/data/app/db")];
        let is_read = asked(request) == "secret/data/app/db";
        is_read.then(|| Reply::new(307, &location, ""))
    });
    let (code, told) = VaultBench::new(&standby, APPROLE).refused("vault://secret/app/db#password");
    assert!(told.contains("refusing the redirect to 192.0.2.1: the token would go in plaintext"), "{told}");
    assert_eq!(code, 1);
}

#[test]
fn an_expired_token_has_one_more_login() {
    let server = FakeVault::usual();
    let bench = VaultBench::new(&server, APPROLE);
    _ = bench.value("vault://secret/app/db#user");
    // A new token, which the first one is not.
    let session = bench.vault.session.take().unwrap();
    let token = Hidden::new("token of Vault", "s.expired-token".into());
    let expired = Session { token, is_own: session.is_own };
    *bench.vault.session.borrow_mut() = Some(expired.into());
    assert_eq!(bench.value("vault://old/db#password").0, "password-canary");
    let logins = server.asked().iter().filter(|asked| *asked == "POST auth/approle/login").count();
    assert_eq!(logins, 2);
}

#[test]
fn a_token_that_is_refused_at_once_has_no_second_login() {
    let server =
        FakeVault::with(|request| (!asked(request).ends_with("login")).then(|| errors(403, "permission denied")));
    let (code, told) = VaultBench::new(&server, APPROLE).refused("vault://secret/app/db#password");
    assert!(told.contains("Vault does not accept the token: it has expired, or it was revoked"), "{told}");
    let logins = server.asked().iter().filter(|asked| asked.ends_with("login")).count();
    assert_eq!((code, logins), (1, 1));
}

#[test]
fn the_token_of_a_login_is_revoked_and_the_user_s_is_not() {
    let server = FakeVault::usual();
    let bench = VaultBench::new(&server, APPROLE);
    bench.vault.close(&bench.system.host);
    assert!(server.asked().is_empty(), "there was no login");
    _ = bench.value("vault://secret/app/db#user");
    bench.vault.close(&bench.system.host);
    assert_eq!(server.asked().last().unwrap(), "POST auth/token/revoke-self");
    assert_eq!(server.0.requests().last().unwrap().header("x-vault-token"), Some(TOKEN));

    let server = FakeVault::usual();
    let bench = VaultBench::new(&server, "{ method = 'token', file = '/token' }");
    _ = bench.value("vault://secret/app/db#user");
    bench.vault.close(&bench.system.host);
    assert!(!server.asked().contains(&"POST auth/token/revoke-self".into()));
}
