//! The login `aws`, as Vault checks it, with a signature that this file computes by itself.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::Url;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{ACCESS_KEY, FakeVault, VaultBench, asked, body, errors};

const PASSWORD: &str = "vault://secret/app/db#password";
const AWS: &str = "{ method = 'aws', role = 'app' }";

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let keyed = |pad: u8, text: &[u8]| Sha256::digest([&block.map(|byte| byte ^ pad)[..], text].concat()).to_vec();
    keyed(0x5c, &keyed(0x36, text.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The request to STS in a login.
struct Signed {
    url: Url,
    headers: BTreeMap<String, String>,
    body: String,
    /// The parts of the header `Authorization`.
    authorization: BTreeMap<String, String>,
}

impl Signed {
    /// Reads the fields as Vault's plugin does.
    fn of(login: &Value) -> Self {
        let decoded =
            |name: &str| String::from_utf8(BASE64_STANDARD.decode(login[name].as_str().unwrap()).unwrap()).unwrap();
        assert_eq!(login["iam_http_request_method"], "POST");
        let headers: BTreeMap<String, Vec<String>> = serde_json::from_str(&decoded("iam_request_headers")).unwrap();
        let headers: BTreeMap<_, _> = headers.into_iter().map(|(name, values)| (name, values.join(","))).collect();
        let authorization = headers["Authorization"].strip_prefix("AWS4-HMAC-SHA256 ").unwrap();
        let parts = authorization.split(", ").map(|part| part.split_once('=').unwrap());
        let authorization = parts.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self {
            url: decoded("iam_request_url").parse().unwrap(),
            headers,
            body: decoded("iam_request_body"),
            authorization,
        }
    }

    fn signed_headers(&self) -> Vec<&str> {
        self.authorization["SignedHeaders"].split(';').collect()
    }

    /// Returns the signature that STS expects.
    fn expected(&self, region: &str) -> String {
        let lower: BTreeMap<_, _> = self.headers.iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
        let host = self.url.host_str().unwrap().to_owned();
        let header = |name: &&str| {
            let value = if *name == "host" { &host } else { lower[*name] };
            format!("{name}:{}\n", value.trim())
        };
        let headers: String = self.signed_headers().iter().map(header).collect();
        let digest = hex(&Sha256::digest(&self.body));
        let signed = &self.authorization["SignedHeaders"];
        let request = format!("POST\n{}\n\n{headers}\n{signed}\n{digest}", self.url.path());
        let time = lower["x-amz-date"];
        let scope = format!("{}/{region}/sts/aws4_request", &time[..8]);
        assert_eq!(self.authorization["Credential"], format!("{}/{scope}", ACCESS_KEY.0));
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(request)));
        let first = format!("AWS4{}", ACCESS_KEY.1).into_bytes();
        let key = [&time[..8], region, "sts", "aws4_request"].iter().fold(first, |key, part| hmac(&key, part));
        hex(&hmac(&key, &text))
    }
}

fn login(fields: &str) -> Signed {
    let server = FakeVault::usual();
    let login = format!("{{ method = 'aws', role = 'app'{fields} }}");
    assert_eq!(VaultBench::new(&server, &login).value(PASSWORD).1, Some(4));
    let request = &server.0.requests()[0];
    assert_eq!(asked(request), "auth/aws/login");
    let login = body(request);
    assert_eq!(login["role"], "app");
    let names: Vec<_> = login.as_object().unwrap().keys().map(String::as_str).collect();
    let documented = ["role", "iam_http_request_method", "iam_request_url", "iam_request_headers", "iam_request_body"];
    assert_eq!(names, documented);
    Signed::of(&login)
}

#[test]
fn the_hmac_of_this_test_is_the_standard_s() {
    // RFC 4231, test case 2.
    let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(hex(&hmac(b"Jefe", "what do ya want for nothing?")), expected);
}

#[test]
fn a_request_to_the_global_sts_is_signed_as_vault_expects_it() {
    let signed = login("");
    assert_eq!(signed.url.as_str(), "https://sts.amazonaws.com/");
    assert_eq!(signed.authorization["Signature"], signed.expected("us-east-1"));
    // Vault accepts no other parameter and no query.
    assert_eq!(signed.body, "Action=GetCallerIdentity&Version=2011-06-15");
    assert_eq!(signed.headers["X-Amz-Security-Token"], ACCESS_KEY.2);
    assert!(signed.signed_headers().contains(&"x-amz-security-token"));
    // Vault refuses other headers of this kind.
    let of_aws = signed.headers.keys().filter(|name| name.starts_with("X-Amz-")).map(String::as_str);
    assert_eq!(of_aws.collect::<Vec<_>>(), ["X-Amz-Date", "X-Amz-Security-Token"]);
}

#[test]
fn the_signature_covers_the_name_of_the_server() {
    let signed = login(", server_id = 'vault.example.com'");
    assert_eq!(signed.headers["X-Vault-Aws-Iam-Server-Id"], "vault.example.com");
    assert!(signed.signed_headers().contains(&"x-vault-aws-iam-server-id"));
    assert_eq!(signed.authorization["Signature"], signed.expected("us-east-1"));
}

#[test]
fn a_region_has_its_own_sts() {
    for (region, host) in
        [("eu-west-1", "sts.eu-west-1.amazonaws.com"), ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn")]
    {
        let signed = login(&format!(", region = '{region}'"));
        assert_eq!(signed.url.as_str(), format!("https://{host}/"));
        assert_eq!(signed.authorization["Signature"], signed.expected(region));
    }
}

#[test]
fn a_denial_says_what_to_compare() {
    let words = "IAM Principal \"arn:aws:sts::1:assumed-role/web/i-1\" does not belong to the role \"app\"";
    let server = FakeVault::answering("auth/aws/login", vec![errors(400, words)]);
    let (code, told) = VaultBench::new(&server, AWS).refused(PASSWORD);
    assert!(told.contains("does not belong to the role") && code == 1, "{told}");
    assert!(told.contains("hint: compare the role with this machine's: vault read auth/aws/role/app"), "{told}");
}

#[test]
fn a_clock_that_sts_refuses_has_time_to_be_set() {
    let words = "error making upstream request: received error code 403 from STS: Signature expired: 20261128T100000Z";
    let server = FakeVault::answering("auth/aws/login", vec![errors(400, words), errors(400, words)]);
    assert_eq!(VaultBench::new(&server, AWS).value(PASSWORD).1, Some(4));

    let server = FakeVault::with(|request| (asked(request) == "auth/aws/login").then(|| errors(400, words)));
    let (code, told) = VaultBench::new(&server, AWS).refused(PASSWORD);
    assert!(told.contains("hint: check this machine's clock (timedatectl)") && code == 75, "{told}");
}

#[test]
fn a_vault_that_does_not_reach_sts_is_asked_again() {
    let words = "error making upstream request: error making request: context deadline exceeded";
    let server = FakeVault::answering("auth/aws/login", vec![errors(400, words), errors(400, words)]);
    assert_eq!(VaultBench::new(&server, AWS).value(PASSWORD).1, Some(4));
}

#[test]
fn a_metadata_service_that_is_away_is_no_denial() {
    let server = FakeVault::usual();
    let (code, told) = VaultBench::without_credentials(&server, AWS).refused(PASSWORD);
    assert!(code == 75 && told.contains("reach the instance metadata service"), "{told}");
    assert_eq!(server.asked(), [""; 0]);
}
