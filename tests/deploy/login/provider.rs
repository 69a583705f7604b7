//! A server in place of IAM Identity Center, the sign-in service and STS. It checks every request by botocore's models.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use serde_json::{Map, Value, json};

use crate::{
    server::{Reply, Request, Server},
    tape::keep,
};

/// botocore's models of the requests, see `tests/emulators/login_models.py`.
const MODELS: &str = include_str!("models.json");

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Asked {
    pub operation: String,
    pub members: BTreeMap<String, String>,
    /// The header with the token or the proof.
    pub token: String,
    /// The access key of the signature; empty without one.
    pub key: String,
    /// The region of the signature.
    pub region: String,
}

/// The server. It answers with credentials, unless a test says otherwise.
pub struct Provider {
    server: Server,
    asked: Arc<Mutex<Vec<Asked>>>,
    script: Script,
}

/// The scripted answers to the next requests; `None` is the usual one.
type Script = Arc<Mutex<VecDeque<Option<(u16, Value)>>>>;

impl Provider {
    pub fn start() -> Self {
        let (asked, script) = (Arc::<Mutex<Vec<Asked>>>::default(), Script::default());
        let (shared, counts) = ((asked.clone(), script.clone()), Mutex::new(BTreeMap::<String, usize>::new()));
        let server = Server::start(move |request| {
            let one = Asked::of(request);
            if request.target == "/" {
                keep(request);
            }
            shared.0.lock().unwrap().push(one.clone());
            let number = {
                let mut counts = counts.lock().unwrap();
                let count = counts.entry(one.operation.clone()).or_insert(0);
                *count += 1;
                *count
            };
            match shared.1.lock().unwrap().pop_front().flatten() {
                Some((status, Value::String(text))) => Reply::new(status, text),
                Some((status, body)) => Reply::new(status, body.to_string()),
                None => Reply::ok(usual(&one, number)),
            }
        });
        Self { server, asked, script }
    }

    pub fn url(&self) -> String {
        self.server.url("")
    }

    /// Scripts the answers to the next requests.
    pub fn script(&self, answers: impl IntoIterator<Item = (u16, Value)>) {
        self.script_later(0, answers);
    }

    /// Scripts the answers to the requests after this many others.
    pub fn script_later(&self, usual: usize, answers: impl IntoIterator<Item = (u16, Value)>) {
        let answers = answers.into_iter().map(Some);
        self.script.lock().unwrap().extend((0..usual).map(|_| None).chain(answers));
    }

    /// Returns the requests since the last call of this function.
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Asked {
    fn of(request: &Request) -> Self {
        let body = String::from_utf8_lossy(&request.body);
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let signature: Vec<&str> = request.authorization.split(['=', '/']).collect();
        let part = |n: usize| signature.get(n).map_or_else(String::new, |part| (*part).to_owned());
        let (operation, members) = if path == "/" {
            let mut form = pairs(&body);
            (form.remove("Action").unwrap(), form)
        } else {
            checked(request, path, pairs(query), &serde_json::from_str(&body).unwrap_or_default())
        };
        Self { operation, members, token: request.token.clone(), key: part(1), region: part(3) }
    }
}

/// Returns the operation and the members of a request that agrees with its model.
fn checked(
    request: &Request,
    path: &str,
    query: BTreeMap<String, String>,
    body: &Map<String, Value>,
) -> (String, BTreeMap<String, String>) {
    let models: Value = serde_json::from_str(MODELS).unwrap();
    let operations = models["operations"].as_object().unwrap();
    let (operation, model) = operations.iter().find(|(_, model)| model["path"] == path).expect(path);
    assert_eq!(model["method"], request.method.as_str(), "{operation}");
    assert_eq!(request.authorization, "", "{operation} is not signed");
    let known = model["members"].as_object().unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned).expect("a text");
    for (name, place) in query.keys().map(|name| (name, "querystring")).chain(body.keys().map(|name| (name, "body"))) {
        assert_eq!(known.get(name).map(|member| &member["in"]), Some(&place.into()), "{operation}: {name}");
    }
    let members: BTreeMap<String, String> =
        query.into_iter().chain(body.iter().map(|(name, value)| (name.clone(), text(value)))).collect();
    for (name, member) in known.iter().filter(|(_, member)| member["required"] == true) {
        let is_there = if member["in"] == "header" { !request.token.is_empty() } else { members.contains_key(name) };
        assert!(is_there, "{operation}: {name}");
    }
    (operation.clone(), members)
}

fn pairs(form: &str) -> BTreeMap<String, String> {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let pairs = form.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

/// Returns the usual answer to the request with this number. The number is in the access key.
fn usual(asked: &Asked, number: usize) -> String {
    let keys = |id: &str| {
        json!({ "accessKeyId": format!("{id}{number}"), "secretAccessKey": "canary-secret-of-the-provider",
                "sessionToken": "canary-token-of-the-provider" })
    };
    match asked.operation.as_str() {
        "GetRoleCredentials" => {
            let mut credentials = keys("ASIASSO");
            credentials["expiration"] = 4_102_444_800_000_u64.into();
            json!({ "roleCredentials": credentials }).to_string()
        }
        "CreateToken" => json!({ "accessToken": "canary-renewed", "tokenType": "Bearer", "expiresIn": 28_800,
                                 "refreshToken": "canary-next-refresh" })
        .to_string(),
        "CreateOAuth2Token" => json!({ "accessToken": keys("ASIALOGIN"), "tokenType": "aws_sigv4", "expiresIn": 900,
                                       "refreshToken": "canary-next-refresh" })
        .to_string(),
        "GetCallerIdentity" => "<GetCallerIdentityResponse><GetCallerIdentityResult>\
                                <Arn>arn:aws:sts::123456789012:assumed-role/ops/me</Arn><UserId>AROA:me</UserId>\
                                <Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
            .into(),
        operation => format!(
            "<{operation}Response><{operation}Result><Credentials><AccessKeyId>ASIAROLE{number}</AccessKeyId>\
             <SecretAccessKey>canary-secret-of-sts</SecretAccessKey><SessionToken>canary-token-of-sts</SessionToken>\
             <Expiration>2100-01-01T00:00:00Z</Expiration></Credentials></{operation}Result></{operation}Response>"
        ),
    }
}
