//! A Vault on the loopback interface, whose answers are those that `OpenBao` 2.7 gives.

mod failures;
mod logins;
mod reading;
mod signed;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Result;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use serde_json::{Value, json};

use super::{Vault, VaultValue, path::VaultPath, settings::VaultSettings};
use crate::{
    aws::{
        account::{Account, AwsSettings},
        metadata::Metadata,
    },
    fetch::tests::server::{Reply, Request, Server},
    host::scratch::Scratch,
    net::{
        Network,
        retry::{Limit, Pace, Patience},
        settings::NetworkSettings,
    },
    stop::Interrupt,
    system::{Mode, System, remote::wire},
};

/// Values that must not be in any error.
const CANARIES: [&str; 5] =
    ["s.token-of-the-login", "secret-id-canary", "wrapping-token-canary", "eyJ.jwt.canary", "password-canary"];
const TOKEN: &str = CANARIES[0];

/// Answers that come before the usual ones.
type VaultScript = dyn Fn(&Request) -> Option<Reply> + Send + Sync;

/// A server that answers as a Vault with a secret at `secret/app/db`, and what it was asked.
struct FakeVault(Server);

impl FakeVault {
    fn usual() -> Self {
        Self::with(|_| None)
    }

    /// Starts a Vault that gives a script's answers first.
    fn with(script: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let script: Box<VaultScript> = Box::new(script);
        Self(Server::start(move |_, request| script(request).unwrap_or_else(|| usual_answer(request))))
    }

    /// Starts a Vault that answers a request for a path with these replies in turn, and then as usual.
    fn answering(path: &'static str, replies: Vec<Reply>) -> Self {
        let left = Mutex::new(replies.into_iter());
        Self::with(move |request| (asked(request) == path).then(|| left.lock().unwrap().next()).flatten())
    }

    /// Returns the requests, as `GET secret/data/app/db`.
    fn asked(&self) -> Vec<String> {
        let method = |request: &Request| request.line.split(' ').next().unwrap().to_owned();
        self.0.requests().iter().map(|request| format!("{} {}", method(request), asked(request))).collect()
    }
}

fn asked(request: &Request) -> &str {
    request.target().strip_prefix("/v1/").unwrap()
}

fn body(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

fn answer(status: u16, body: &Value) -> Reply {
    Reply::new(status, &[("content-type", "application/json")], body.to_string())
}

fn errors(status: u16, words: &str) -> Reply {
    answer(status, &json!({ "errors": [words] }))
}

fn usual_answer(request: &Request) -> Reply {
    let engine = |mount: &str, version: &str| {
        answer(200, &json!({ "data": { "type": "kv", "path": mount, "options": { "version": version } } }))
    };
    match asked(request) {
        path if path.ends_with("/login") => answer(200, &json!({ "auth": { "client_token": TOKEN } })),
        "auth/token/revoke-self" => Reply::new(204, &[], ""),
        _ if request.header("x-vault-token") != Some(TOKEN) => errors(403, "permission denied"),
        "auth/token/lookup-self" => answer(200, &json!({ "data": { "policies": ["app", "default"] } })),
        path if path.starts_with("sys/internal/ui/mounts/secret/") => engine("secret/", "2"),
        path if path.starts_with("sys/internal/ui/mounts/old/") => engine("old/", "1"),
        path if path.starts_with("secret/data/app/db") => {
            let version = path.strip_prefix("secret/data/app/db?version=").map_or(4, |n| n.parse().unwrap());
            let fields = json!({ "password": "password-canary", "user": "app", "empty": "" });
            answer(200, &json!({ "data": { "data": fields, "metadata": { "version": version } } }))
        }
        "old/db" => answer(200, &json!({ "data": { "password": "password-canary" } })),
        _ => errors(404, ""),
    }
}

/// A machine with an empty tree, and its Vault.
struct VaultBench {
    system: System,
    vault: Vault,
    tree: Scratch,
}

impl VaultBench {
    /// Returns a machine that logs in with this table or list of tables.
    fn new(server: &FakeVault, login: &str) -> Self {
        Self::of(&server.0, login, "", true)
    }

    fn of(server: &Server, login: &str, more: &str, may_unwrap: bool) -> Self {
        let tree = Scratch::new();
        for (name, value) in
            [("secret-id", CANARIES[1]), ("wrapped", CANARIES[2]), ("jwt", CANARIES[3]), ("token", TOKEN)]
        {
            tree.write(name, format!("{value}\n"));
        }
        let mut system = System::open(tree.path(), Mode::Run, Interrupt::default()).unwrap();
        (system.aws, system.fetcher) = wire(Mode::Run, account(Some(credentials())));
        let settings = format!("address = '{}'\nlogin = {login}\n{more}", server.url(""));
        let settings: VaultSettings = toml::from_str(&settings).unwrap();
        settings.check().unwrap();
        let vault = Vault::new(settings, &system.aws, may_unwrap);
        Self { system, vault, tree }
    }

    /// Returns a machine whose metadata service, which should give the credentials, does not answer.
    fn without_credentials(server: &FakeVault, login: &str) -> Self {
        let mut bench = Self::new(server, login);
        (bench.system.aws, bench.system.fetcher) = wire(Mode::Run, account(None));
        bench.again(true);
        bench
    }

    /// Begins another run on the same machine.
    fn again(&mut self, may_unwrap: bool) {
        self.vault = Vault::new(self.vault.settings.clone(), &self.system.aws, may_unwrap);
    }

    fn read(&self, path: &str) -> Result<VaultValue> {
        self.vault.read(&self.system.host, &VaultPath::of(&path.parse().unwrap()).unwrap(), Patience::Full)
    }

    fn value(&self, path: &str) -> (String, Option<u64>) {
        let found = self.read(path).map_err(|error| crate::error::render(&error)).unwrap();
        (found.value, found.version)
    }

    /// Returns the exit code and the text of the error of a failed read. It has no secret, even before the redaction.
    fn refused(&self, path: &str) -> (u8, String) {
        let Err(error) = self.read(path) else { panic!("{path} was read") };
        let told = format!("{error:#} {error:?}");
        for canary in CANARIES {
            assert!(!told.contains(canary), "{told}");
        }
        (crate::error::exit_code(&error), crate::error::render(&error))
    }
}

/// The access key of the machine's role.
const ACCESS_KEY: (&str, &str, &str) = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "session-token");

fn credentials() -> Credentials {
    let (id, key, token) = ACCESS_KEY;
    Credentials::new(id, key, Some(token.into()), None, "test")
}

/// Returns an account with these credentials.
fn account(credentials: Option<Credentials>) -> Account {
    let pace = Pace {
        limit: Limit::Attempts(3),
        first: Duration::from_millis(1),
        longest: Duration::from_millis(2),
        obedience: Duration::from_secs(2),
        ..Pace::default()
    };
    let network = Arc::new(Network::new(NetworkSettings { pace, ..NetworkSettings::default() }));
    let metadata = Metadata::at(network, "http://127.0.0.1:1/", Duration::ZERO).unwrap();
    let mut config = SdkConfig::builder().behavior_version(BehaviorVersion::latest());
    _ = config.set_credentials_provider(credentials.map(SharedCredentialsProvider::new));
    Account::of(metadata, AwsSettings::default(), Some(config.build()))
}

const APPROLE: &str = "{ method = 'approle', role_id = 'role', secret_id_file = '/secret-id' }";
const WRAPPED: &str = "{ method = 'approle', role_id = 'role', wrapped_secret_id_file = '/wrapped' }";
const JWT: &str = "{ method = 'jwt', role = 'app', file = '/jwt' }";
