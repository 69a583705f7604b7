//! A real `OpenBao`, with TLS, in a network namespace of its own, and the machines that read its secrets.

use std::{
    fs,
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use glovo_bootstrap::{
    error,
    net::retry::Patience,
    stop::Interrupt,
    system::{Mode, System},
    vault::{Vault, path::VaultPath, settings::VaultSettings},
};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::sandbox::{Sandbox, eventually};

pub const ADDRESS: &str = "https://127.0.0.1:8200";
/// A listener that requires a certificate of each client.
pub const STRICT_ADDRESS: &str = "https://127.0.0.1:8210";
const POLICY: &str = r#"path "secret/data/app/*" { capabilities = ["read"] }
path "old/app" { capabilities = ["read"] }"#;

/// A server that keeps its secrets in memory, and the files of its clients. It ends when dropped.
pub struct OpenBao {
    pub sandbox: Sandbox,
    process: Child,
    pub root_token: String,
    unseal_key: String,
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl OpenBao {
    /// Starts a server that is sealed and not initialized.
    pub fn start(program: &str) -> Self {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.at("tree")).unwrap();
        make_certificates(&sandbox);
        let listener = |port: u16, strict: bool| {
            format!(
                "listener \"tcp\" {{\naddress = \"127.0.0.1:{port}\"\ncluster_address = \"127.0.0.1:{}\"\n\
                 tls_cert_file = \"{}\"\ntls_key_file = \"{}\"\ntls_client_ca_file = \"{}\"\n\
                 tls_require_and_verify_client_cert = {strict}\n}}\n",
                port + 1,
                sandbox.at("tree/server.pem"),
                sandbox.at("tree/server.key"),
                sandbox.at("tree/ca.pem"),
            )
        };
        let config = format!(
            "storage \"inmem\" {{}}\n{}{}api_addr = \"{ADDRESS}\"\n",
            listener(8200, false),
            listener(8210, true)
        );
        let config = sandbox.write("config.hcl", config);
        let log = fs::File::create(sandbox.at("log")).unwrap();
        let process = Command::new(program)
            .args(["server", "-config", &config])
            .env("HOME", sandbox.at(""))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let bao = Self { sandbox, process, root_token: String::new(), unseal_key: String::new() };
        eventually("the server listens", || TcpStream::connect("127.0.0.1:8210").is_ok());
        bao
    }

    /// Starts a server with secrets, a policy and a role.
    pub fn serving(program: &str) -> Self {
        let mut bao = Self::start(program);
        bao.initialize();
        for (version, password) in [(1, "password-1"), (2, "password-2"), (3, "password-3")] {
            let written =
                bao.ask("POST", "secret/data/app/db", &json!({ "data": { "password": password, "empty": "" } }));
            assert_eq!(written["data"]["version"], version);
        }
        let _ = bao.ask("POST", "old/app", &json!({ "password": "old-password", "port": 5432 }));
        let _ = bao.ask("POST", "secret/data/other", &json!({ "data": { "password": "other-password" } }));
        let role = json!({ "token_policies": "app", "token_ttl": "20m" });
        let _ = bao.ask("POST", "auth/approle/role/app", &role);
        bao
    }

    pub fn initialize(&mut self) {
        let made = self.ask("POST", "sys/init", &json!({ "secret_shares": 1, "secret_threshold": 1 }));
        self.unseal_key = made["keys"][0].as_str().unwrap().into();
        self.unseal();
        self.root_token = made["root_token"].as_str().unwrap().into();
        for (mount, version) in [("secret", "2"), ("old", "1")] {
            let _ = self.ask(
                "POST",
                &format!("sys/mounts/{mount}"),
                &json!({ "type": "kv", "options": { "version": version } }),
            );
        }
        for method in ["approle", "jwt", "cert"] {
            let _ = self.ask("POST", &format!("sys/auth/{method}"), &json!({ "type": method }));
        }
        let _ = self.ask("POST", "sys/policies/acl/app", &json!({ "policy": POLICY }));
        // Version 2 of the engine is set up in the background.
        let write = || self.request("POST", "secret/data/ready", &[], &json!({ "data": { "is": "ready" } }));
        eventually("the engine is ready", || write().get("errors").is_none());
    }

    pub fn unseal(&self) {
        let _ = self.ask("POST", "sys/unseal", &json!({ "key": self.unseal_key }));
        eventually("the server is active", || self.request("GET", "sys/health", &[], &json!({}))["standby"] == false);
    }

    /// Sends a request as root. It must succeed.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.request(method, path, &[], body);
        assert!(answer.get("errors").is_none(), "{method} {path}: {answer}");
        answer
    }

    pub fn request(&self, method: &str, path: &str, headers: &[&str], body: &Value) -> Value {
        let mut curl = Command::new("curl");
        let _ =
            curl.args(["--silent", "--show-error", "--cacert", &self.sandbox.at("tree/ca.pem"), "--request", method]);
        let _ = curl.args(["--header", &format!("X-Vault-Token: {}", self.root_token)]);
        let _ = curl.args(headers.iter().flat_map(|header| ["--header", header]));
        let curl = curl.args(["--data", &body.to_string(), &format!("{ADDRESS}/v1/{path}")]).output().unwrap();
        assert!(curl.status.success(), "{}", String::from_utf8_lossy(&curl.stderr));
        if curl.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&curl.stdout).unwrap() }
    }

    /// Returns the fields of a new secret id of the role.
    pub fn approle(&self) -> String {
        let role = self.ask("GET", "auth/approle/role/app/role-id", &json!({}));
        let secret = self.ask("POST", "auth/approle/role/app/secret-id", &json!({}));
        self.file("secret-id", secret["data"]["secret_id"].as_str().unwrap());
        let role = role["data"]["role_id"].as_str().unwrap();
        format!("method = 'approle', role_id = '{role}', secret_id_file = '/secret-id'")
    }

    /// Writes a file of the machine.
    pub fn file(&self, name: &str, content: &str) {
        let _ = self.sandbox.write(&format!("tree/{name}"), content);
    }

    /// Returns a machine that logs in by a table or a list of tables.
    pub fn machine(&self, login: &str) -> Client {
        self.machine_at(ADDRESS, login, "ca = '/ca.pem'")
    }

    pub fn machine_at(&self, address: &str, login: &str, more: &str) -> Client {
        let login = if login.starts_with('[') { login.to_owned() } else { format!("{{ {login} }}") };
        let settings = format!("address = '{address}'\n{more}\nlogin = {login}");
        let settings: VaultSettings = toml::from_str(&settings).unwrap();
        settings.check().unwrap();
        let tree = PathBuf::from(self.sandbox.at("tree"));
        let system = System::open(&tree, Mode::Run, Interrupt::default()).unwrap();
        let vault = Vault::new(settings, &system.aws, true);
        Client { system, vault }
    }
}

/// A machine and its run.
pub struct Client {
    pub system: System,
    pub vault: Vault,
}

impl Client {
    #[track_caller]
    pub fn reads(&self, path: &str, value: &str, version: Option<u64>) {
        match self.vault.read(&self.system.host, &VaultPath::of(&path.parse().unwrap()).unwrap(), Patience::Full) {
            Ok(found) => assert_eq!((found.value.as_str(), found.version), (value, version)),
            Err(error) => panic!("{}", error::render(&error)),
        }
    }

    /// Fails to read with these words and this exit code.
    #[track_caller]
    pub fn is_refused(&self, path: &str, code: u8, words: &[&str]) {
        let Err(error) =
            self.vault.read(&self.system.host, &VaultPath::of(&path.parse().unwrap()).unwrap(), Patience::Full)
        else {
            panic!("{path} was read");
        };
        let told = error::render(&error);
        assert_eq!(error::exit_code(&error), code, "{told}");
        for words in words {
            assert!(told.contains(words), "`{words}` is not in:\n{told}");
        }
    }
}

fn make_certificates(sandbox: &Sandbox) {
    let script = r#"cd "$1/tree"
        new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -subj "/CN=$1" "${@:2}"; }
        new ca -x509 -days 2 -addext keyUsage=critical,keyCertSign -out ca.pem
        new stranger -x509 -days 2 -out stranger.pem
        for name in server client; do
            new $name -out $name.csr
            printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=%sAuth\n' $name > $name.ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.pem
        done
        openssl genrsa -out jwt.key 2048 && openssl rsa -in jwt.key -pubout -out jwt.pub"#;
    let made = Command::new("bash").args(["-euc", script, "bash", &sandbox.at("")]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Runs a test on a thread with its own network, in which only the loopback interface is. The test gets the path of the
/// server's program, which is installed before.
pub fn apart(test: impl FnOnce(&str) + Send + 'static) {
    let needs = Command::new(format!("{}/tests/openbao/needs", env!("CARGO_MANIFEST_DIR"))).output().unwrap();
    assert!(needs.status.success(), "{}", String::from_utf8_lossy(&needs.stderr));
    let program = String::from_utf8(needs.stdout).unwrap();
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a namespace, as root");
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        test(program.trim());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
