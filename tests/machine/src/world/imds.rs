//! The instance metadata service, version 2: it answers only requests with a token.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex};

use hyper::body::Incoming;
use hyper::{Method, Request};
use regex_lite::Regex;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::http::{Answer, answer as respond};
use super::{ACCOUNT, REGION, State};

pub(super) const ACCESS_KEY: &str = "ASIAMACHINEUNDERTEST";
pub(super) const SECRET_KEY: &str = "machine/under+test/not/a/real/secret/key";
pub(super) const SESSION_TOKEN: &str = "machineUnderTestSessionToken//==";
const ROLE: &str = "glovo-instance-role";
pub(super) const INSTANCE: &str = "i-0123456789abcdef0";
const ADDRESS: &str = "172.31.0.10";
const MAC: &str = "02:00:ac:1f:00:0a";

/// cloud-init asks for tokens only where the firmware says EC2, and a container has no firmware.
static WITHOUT_TOKEN: LazyLock<Regex> = LazyLock::new(|| Regex::new("Cloud-Init|python-requests").expect("a pattern"));

static TOKENS: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

pub(super) fn answer(state: &State, request: &Request<Incoming>, path: &str) -> Answer {
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    if request.method() == Method::PUT && path == "/latest/api/token" {
        let ttl = header("x-aws-ec2-metadata-token-ttl-seconds").unwrap_or_default();
        return match ttl.parse() {
            // A request that came through a proxy is not the machine's own.
            _ if header("x-forwarded-for").is_some() => respond(403, ""),
            Ok(1..=21_600) => {
                let mut answer = respond(200, new_token());
                answer.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", ttl.parse().expect("a number"));
                answer
            }
            _ => respond(400, ""),
        };
    }
    if request.method() != Method::GET {
        return respond(405, "");
    }
    let trusted = match header("x-aws-ec2-metadata-token") {
        Some(token) => TOKENS.lock().unwrap().contains(token),
        None => WITHOUT_TOKEN.is_match(header("user-agent").unwrap_or_default()),
    };
    if !trusted {
        return respond(401, "");
    }
    match tree(state).pointer(&pointer(path)) {
        Some(Value::String(leaf)) => respond(200, leaf.clone()),
        Some(Value::Object(children)) => {
            let names = children.iter().map(|(name, child)| match child {
                // Only here a name follows the number.
                Value::Object(_) if path.trim_end_matches('/').ends_with("/public-keys") => format!("{name}=key-pair"),
                Value::Object(_) => format!("{name}/"),
                _ => name.clone(),
            });
            respond(200, names.collect::<Vec<_>>().join("\n"))
        }
        _ => respond(404, ""),
    }
}

/// `/<version>/a/b/` as a path into the tree, which is the same in every version.
fn pointer(path: &str) -> String {
    let path = path.trim_matches('/');
    let inside = path.split_once('/').map_or("", |(_version, inside)| inside);
    inside.split('/').filter(|part| !part.is_empty()).map(|part| format!("/{part}")).collect()
}

fn new_token() -> String {
    let mut tokens = TOKENS.lock().unwrap();
    let token = format!("token-{}-{}==", tokens.len(), OffsetDateTime::now_utc().unix_timestamp_nanos());
    tokens.insert(token.clone());
    token
}

fn tree(state: &State) -> Value {
    let name = format!("ip-{}.{REGION}.compute.internal", ADDRESS.replace('.', "-"));
    let expiration =
        (OffsetDateTime::now_utc() + Duration::hours(6)).truncate_to_second().format(&Rfc3339).expect("a date");
    let instance = state.instance.lock().unwrap().clone();
    let mut tree = json!({
        "meta-data": {
            "ami-id": "ami-0bdf93799014acdc4",
            "hostname": name, "local-hostname": name, "local-ipv4": ADDRESS, "mac": MAC,
            "iam": {
                "info": json!({
                    "Code": "Success",
                    "InstanceProfileArn": format!("arn:aws:iam::123456789012:instance-profile/{ROLE}"),
                }).to_string(),
                "security-credentials": { ROLE: json!({
                    "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2024-01-01T00:00:00Z",
                    "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "Token": SESSION_TOKEN,
                    "Expiration": expiration,
                }).to_string() },
            },
            "instance-id": instance, "instance-type": "t3.small",
            "placement": { "availability-zone": format!("{REGION}a"), "region": REGION },
            "services": { "domain": "amazonaws.com", "partition": "aws" },
            "tags": { "instance": { "Name": "machine-under-test" } },
            "network": { "interfaces": { "macs": { MAC: {
                "device-number": "0", "local-hostname": name, "local-ipv4s": ADDRESS, "mac": MAC,
                "subnet-ipv4-cidr-block": "172.31.0.0/20", "vpc-ipv4-cidr-block": "172.31.0.0/16",
            } } } },
        },
        "dynamic": { "instance-identity": { "document": json!({
            "accountId": ACCOUNT, "architecture": "x86_64", "availabilityZone": format!("{REGION}a"),
            "imageId": "ami-0bdf93799014acdc4", "instanceId": instance, "instanceType": "t3.small",
            "privateIp": ADDRESS, "region": REGION, "version": "2017-09-30",
        }).to_string(), "signature": "c2lnbmVkIGJ5\nIEVDMg==" } },
    });
    if let Some(key) = &*state.public_key.lock().unwrap() {
        tree["meta-data"]["public-keys"] = json!({ "0": { "openssh-key": key } });
    }
    if let Some(user_data) = &*state.user_data.lock().unwrap() {
        tree["user-data"] = json!(user_data);
    }
    tree
}
