//! Profiles that log in by a session of the console: `aws login`.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Home;

const SESSION: &str = "arn:aws:iam::111122223333:user/ann";
/// The key of the example in the SDK's own tests. It guards nothing.
const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIFDZHUzOG1Pzq+6F0mjMlOSp1syN9LRPBuHMoCFXTcXhoAoGCCqGSM49\n\
                   AwEHoUQDQgAE9qhj+KtcdHj1kVgwxWWWw++tqoh7H7UHs7oXh8jBbgF47rrYGC+t\n\
                   djiIaHK3dBvvdE7MGj5HsepzLm3Kj91bqA==\n-----END EC PRIVATE KEY-----\n";

fn file() -> String {
    let digest: String = Sha256::digest(SESSION.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("login/cache/{digest}.json")
}

fn logged_in(expires_at: &str) -> Home {
    let home = Home::new(&format!("[profile ann]\nlogin_session = {SESSION}\n"));
    let token = json!({
        "accessToken": { "accessKeyId": "ASIAHELD", "secretAccessKey": "canary-secret", "sessionToken": "canary-token",
                         "accountId": "111122223333", "expiresAt": expires_at },
        "tokenType": "aws_sigv4", "refreshToken": "canary-refresh", "idToken": "canary-id",
        "clientId": "arn:aws:signin:::devtools/same-device", "dpopKey": KEY,
    });
    home.write(&file(), &token.to_string());
    home
}

#[test]
fn a_session_of_aws_login_signs_with_its_credentials() {
    logged_in("2100-01-01T00:00:00Z").serves("ann", "ASIAHELD");
}

#[test]
fn credentials_of_aws_login_are_renewed_with_their_key() {
    let home = logged_in("2001-01-01T00:00:00Z");
    home.serves("ann", "ASIALOGIN1");
    let asked = home.provider.take();
    assert_eq!((asked.len(), &*asked[0].operation), (1, "CreateOAuth2Token"));
    assert_eq!(
        (&*asked[0].members["grantType"], &*asked[0].members["refreshToken"]),
        ("refresh_token", "canary-refresh")
    );
    let payload = BASE64_URL_SAFE_NO_PAD.decode(asked[0].token.split('.').nth(1).unwrap()).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(payload["htu"], format!("{}/v1/token", home.provider.url()));
    let saved: Value = serde_json::from_str(&home.read(&file())).unwrap();
    assert_eq!(saved["accessToken"]["accessKeyId"], "ASIALOGIN1");
    assert_eq!(saved["accessToken"]["accountId"], "111122223333");
    assert_eq!((&saved["refreshToken"], &saved["dpopKey"]), (&"canary-next-refresh".into(), &KEY.into()));
    home.serves("ann", "ASIALOGIN1");
}

#[test]
fn a_session_of_aws_login_that_has_ended_names_the_command() {
    let home = logged_in("2001-01-01T00:00:00Z");
    home.provider.script([(400, json!({ "error": "TOKEN_EXPIRED", "message": "The token has expired" }))]);
    home.fails(
        "ann",
        77,
        "
caused by: the AWS profile ann logs in by `aws login`, and has credentials that have expired
caused by: the credentials cannot be renewed
caused by: TOKEN_EXPIRED: The token has expired (HTTP 400, request id none)
hint: aws login --profile ann, then run the same command again",
    );
    std::fs::remove_file(home.operator.sandbox.at(&format!(".aws/{}", file()))).unwrap();
    home.fails("ann", 77, ".json does not exist\nhint: aws login --profile ann, then run the same command again");
}

#[test]
fn half_an_answer_renews_nothing() {
    let soon = time::OffsetDateTime::now_utc() + std::time::Duration::from_mins(4);
    let home = logged_in(&soon.format(&time::format_description::well_known::Rfc3339).unwrap());
    let before = home.read(&file());
    let half = json!({ "accessToken": { "accessKeyId": "ASIAHALF", "secretAccessKey": "canary-half" },
                       "tokenType": "aws_sigv4", "expiresIn": 900, "refreshToken": "canary-next" });
    home.provider.script(vec![(200, half); 30]);
    let (finished, keys) = home.status("ann");
    let finished = finished.expect(0);
    assert_eq!(finished.stderr.matches("the credentials of the AWS profile ann are not renewed yet").count(), 1);
    assert_eq!((keys, home.read(&file())), (vec!["ASIAHELD".to_owned()], before));
}
