//! The logins but for `aws`.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{APPROLE, CANARIES, FakeVault, JWT, TOKEN, VaultBench, WRAPPED, answer, asked, body, errors};
use crate::fetch::tests::server::{Reply, Request};

const PASSWORD: &str = "vault://secret/app/db#password";
const NOTES: &str = "var/lib/glovo-bootstrap/vault-unwrapped.json";

/// A Vault that unwraps a secret id once.
fn unwrapping_once() -> FakeVault {
    FakeVault::with(unwraps_once())
}

/// Returns the answers of a Vault that unwraps a secret id once.
fn unwraps_once() -> impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static {
    let unwrapped = AtomicUsize::new(0);
    move |request| {
        let is_known = || unwrapped.load(Ordering::Relaxed) == 0;
        match asked(request) {
            "sys/wrapping/lookup" if is_known() => {
                assert_eq!(body(request), json!({ "token": CANARIES[2] }));
                Some(answer(200, &json!({ "data": { "creation_path": "auth/approle/role/app/secret-id" } })))
            }
            "sys/wrapping/unwrap" if is_known() => {
                assert_eq!(request.header("x-vault-token"), Some(CANARIES[2]));
                _ = unwrapped.fetch_add(1, Ordering::Relaxed);
                Some(answer(200, &json!({ "data": { "secret_id": CANARIES[1] } })))
            }
            path if path.starts_with("sys/wrapping/") => Some(not_known()),
            _ => None,
        }
    }
}

fn not_known() -> Reply {
    errors(400, "wrapping token is not valid or does not exist")
}

#[test]
fn each_method_sends_what_its_documentation_says() {
    for (login, path, sent) in [
        (APPROLE, "auth/approle/login", json!({ "role_id": "role", "secret_id": CANARIES[1] })),
        (JWT, "auth/jwt/login", json!({ "role": "app", "jwt": CANARIES[3] })),
        (
            "{ method = 'approle', role_id = 'r', secret_id_file = '/secret-id', mount = 'team/approle' }",
            "auth/team/approle/login",
            json!({ "role_id": "r", "secret_id": CANARIES[1] }),
        ),
    ] {
        let server = FakeVault::usual();
        assert_eq!(VaultBench::new(&server, login).value(PASSWORD).1, Some(4));
        let request = &server.0.requests()[0];
        assert_eq!((asked(request), body(request)), (path, sent));
        assert_eq!(request.header("x-vault-token"), None);
    }
}

#[test]
fn a_token_of_the_user_is_checked_before_it_is_used() {
    let server = FakeVault::usual();
    let login = "{ method = 'token', file = '/token' }";
    assert_eq!(VaultBench::new(&server, login).value(PASSWORD).1, Some(4));
    assert_eq!(server.asked()[0], "GET auth/token/lookup-self");

    let bench = VaultBench::new(&server, login);
    bench.tree.write("/token", "s.another-token");
    let (code, told) = bench.refused(PASSWORD);
    assert!(told.contains("Vault does not accept the token, or its policies do not allow") && code == 1, "{told}");
}

#[test]
fn the_next_login_is_tried_and_all_denials_are_told() {
    let deny = |paths: &'static [&'static str]| {
        FakeVault::with(move |request| {
            paths.contains(&asked(request)).then(|| errors(400, &format!("no {}", asked(request))))
        })
    };
    let both = format!("[{APPROLE}, {JWT}]");
    let server = deny(&["auth/approle/login"]);
    assert_eq!(VaultBench::new(&server, &both).value(PASSWORD).1, Some(4));

    let server = deny(&["auth/approle/login", "auth/jwt/login"]);
    let (code, told) = VaultBench::new(&server, &both).refused(PASSWORD);
    assert_eq!(code, 1);
    assert!(told.contains("all 2 logins to Vault failed"), "{told}");
    for words in
        ["approle with the secret id of /secret-id: Vault denies the login at auth/approle: ", "no auth/jwt/login"]
    {
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn a_vault_that_is_sealed_is_not_asked_for_other_logins() {
    let server = FakeVault::with(|_| Some(errors(503, "Vault is sealed")));
    let (code, told) = VaultBench::new(&server, &format!("[{APPROLE}, {JWT}]")).refused(PASSWORD);
    assert!(told.contains("is sealed") && code == 75, "{told}");
    assert!(!server.asked().contains(&"POST auth/jwt/login".into()));
}

#[test]
fn a_file_without_a_value_is_never_sent() {
    let server = FakeVault::usual();
    for (content, words) in [
        (Some(""), "/secret-id has no value, or more than one"),
        (Some("\n \n"), "/secret-id has no value, or more than one"),
        (Some("two words"), "/secret-id has no value, or more than one"),
        (None, "/secret-id does not exist"),
    ] {
        let bench = VaultBench::new(&server, APPROLE);
        match content {
            Some(content) => bench.tree.write("/secret-id", content),
            None => bench.tree.remove("/secret-id"),
        }
        let (code, told) = bench.refused(PASSWORD);
        assert!(told.contains(words) && code == 1, "{told}");
    }
    assert!(server.asked().is_empty());
}

#[test]
fn a_wrapped_secret_id_is_unwrapped_once_and_noted_before() {
    let server = unwrapping_once();
    let mut bench = VaultBench::new(&server, WRAPPED);
    assert_eq!(bench.value(PASSWORD).1, Some(4));
    let asked = server.asked();
    assert_eq!(asked[..3], ["POST sys/wrapping/lookup", "POST sys/wrapping/unwrap", "POST auth/approle/login"]);
    let notes = String::from_utf8(bench.tree.read(NOTES)).unwrap();
    assert!(!CANARIES.iter().any(|canary| notes.contains(canary)), "{notes}");

    // The next run does not try again: Vault's log would show an attack.
    bench.again(true);
    let (code, told) = bench.refused(PASSWORD);
    assert_eq!((code, server.asked().len()), (1, asked.len()), "{told}");
    assert!(told.contains("it is already unwrapped: by this machine's login at 20"), "{told}");
}

#[test]
fn without_its_note_a_secret_id_is_not_unwrapped() {
    let server = unwrapping_once();
    let bench = VaultBench::new(&server, WRAPPED);
    bench.tree.write("/var/lib", "no directory");
    let (code, told) = bench.refused(PASSWORD);
    assert!(told.contains("the note that must precede the unwrap") && code == 1, "{told}");
    assert!(server.asked().is_empty());
}

#[test]
fn a_second_unwrap_names_the_time_of_the_first_attempt() {
    // The login that follows the unwrap is denied: so the first run ends without one.
    let first = unwrapping_once();
    let server = FakeVault::with(move |request: &Request| {
        _ = &first;
        match asked(request) {
            "auth/approle/login" => Some(errors(400, "invalid role or secret ID")),
            "sys/wrapping/lookup" => {
                Some(answer(200, &json!({ "data": { "creation_path": "auth/approle/role/app/secret-id" } })))
            }
            "sys/wrapping/unwrap" => Some(answer(200, &json!({ "data": { "secret_id": CANARIES[1] } }))),
            _ => None,
        }
    });
    let mut bench = VaultBench::new(&server, WRAPPED);
    let (_, told) = bench.refused(PASSWORD);
    assert!(told.contains("invalid role or secret ID"), "{told}");
    let notes: serde_json::Value = serde_json::from_slice(&bench.tree.read(NOTES)).unwrap();
    let time = notes[0]["attempted"].as_str().unwrap().to_owned();

    let gone = FakeVault::with(|request| asked(request).starts_with("sys/wrapping/").then(not_known));
    bench.vault.settings.address = gone.0.url("").parse().unwrap();
    bench.again(true);
    let (code, told) = bench.refused(PASSWORD);
    let words = format!("already unwrapped: by an earlier attempt at {time}, or by another party");
    assert!(told.contains(&words) && code == 1, "{told}");
    assert!(told.contains("hint: search Vault's audit log for sys/wrapping/unwrap"), "{told}");
}

#[test]
fn an_unwrapped_secret_id_is_kept_until_vault_answers_the_login() {
    let wrapping = unwraps_once();
    let away = AtomicUsize::new(0);
    let server = FakeVault::with(move |request| match asked(request) {
        // As many attempts as a read makes.
        "auth/approle/login" if away.fetch_add(1, Ordering::Relaxed) < 3 => Some(Reply::new(503, &[], "")),
        _ => wrapping(request),
    });
    let bench = VaultBench::new(&server, WRAPPED);
    let (code, told) = bench.refused(PASSWORD);
    assert_eq!(code, 75, "{told}");
    assert_eq!(bench.value(PASSWORD).1, Some(4));
    let unwraps = server.asked().iter().filter(|asked| asked.ends_with("sys/wrapping/unwrap")).count();
    assert_eq!(unwraps, 1);
    let notes: serde_json::Value = serde_json::from_slice(&bench.tree.read(NOTES)).unwrap();
    assert_eq!(notes[0]["logged_in"], true);
}

#[test]
fn an_unwrap_whose_answer_is_lost_is_not_blamed_on_others_alone() {
    let tries = AtomicUsize::new(0);
    let server = FakeVault::with(move |request| match asked(request) {
        "sys/wrapping/lookup" if tries.load(Ordering::Relaxed) == 0 => {
            Some(answer(200, &json!({ "data": { "creation_path": "auth/approle/role/app/secret-id" } })))
        }
        "sys/wrapping/unwrap" if tries.fetch_add(1, Ordering::Relaxed) == 0 => Some(Reply::ok("{}").cut(1)),
        path if path.starts_with("sys/wrapping/") => Some(not_known()),
        _ => None,
    });
    let (code, told) = VaultBench::new(&server, WRAPPED).refused(PASSWORD);
    assert!(told.contains("already unwrapped: by an earlier attempt at 20") && code == 1, "{told}");
}

#[test]
fn a_wrapped_secret_id_that_this_machine_never_unwrapped_is_suspicious() {
    let server = FakeVault::with(|request| asked(request).starts_with("sys/wrapping/").then(not_known));
    let (code, told) = VaultBench::new(&server, WRAPPED).refused(PASSWORD);
    assert!(told.contains("has expired, or another party has unwrapped it; this machine has not"), "{told}");
    assert!(told.contains("it answered 400: wrapping token is not valid or does not exist") && code == 1, "{told}");
}

#[test]
fn a_token_that_wraps_something_else_is_not_used_up() {
    for made_by in ["sys/wrapping/wrap", "auth/other/role/app/secret-id", "auth/approle/role/app"] {
        let server = FakeVault::with(move |request| {
            let data = json!({ "data": { "creation_path": made_by } });
            asked(request).starts_with("sys/wrapping/lookup").then(|| answer(200, &data))
        });
        let (code, told) = VaultBench::new(&server, WRAPPED).refused(PASSWORD);
        assert!(told.contains(&format!("the token wraps an answer of {made_by}, and not a secret id")), "{told}");
        assert!(told.contains("hint: treat the role as attacked") && code == 1, "{told}");
        assert_eq!(server.asked(), ["POST sys/wrapping/lookup"]);
    }
}

#[test]
fn a_plan_uses_up_no_wrapped_secret_id() {
    let server = unwrapping_once();
    let mut bench = VaultBench::of(&server.0, WRAPPED, "", false);
    let (code, told) = bench.refused(PASSWORD);
    assert!(told.contains("a plan does not use up the wrapped secret id") && code == 1, "{told}");
    assert!(server.asked().is_empty() && !bench.tree.has(NOTES));
    bench.again(true);
    assert_eq!(bench.value(PASSWORD).1, Some(4));
}

#[test]
fn a_login_that_asks_for_a_second_factor_is_explained() {
    let mfa = json!({ "auth": { "client_token": "", "mfa_requirement": { "mfa_request_id": "x" } } });
    let server = FakeVault::answering("auth/approle/login", vec![answer(200, &mfa)]);
    let (code, told) = VaultBench::new(&server, APPROLE).refused(PASSWORD);
    assert!(told.contains("gives no token") && told.contains("multi-factor") && code == 1, "{told}");
    assert!(!told.contains(TOKEN));
}
