//! A real `OpenBao`, which has the API of Vault, in a machine's world: `https://vault.test:8200`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::base::PACKAGE;
use crate::guest;
use crate::logs::certificates;
use crate::world::{Network, ROUTER, World};

const HOST: &str = "vault.test";
const PORT: u16 = 8200;

/// A running server that keeps its secrets in memory. It ends when dropped.
pub struct OpenBao {
    network: Network,
    process: Child,
    directory: PathBuf,
    root_token: String,
    unseal_key: String,
}

impl OpenBao {
    /// The address for clients in the world.
    pub const ADDRESS: &str = "https://vault.test:8200";

    /// Starts a server with a key-value engine of version 2 at `secret` and the login `approle`. Its files go into `dir`.
    pub fn start(world: &World, dir: &Path) -> Result<OpenBao> {
        let program = Path::new(PACKAGE).join("../openbao/needs");
        let program = guest::output(&mut Command::new(program))?.success()?;
        let directory = dir.join("openbao");
        certificates(&directory, &[HOST])?;
        // The name server knows the hosts that serve something.
        world.publish("vault.test/", "");
        let at = |name: &str| directory.join(name).display().to_string();
        let config = format!(
            "storage \"inmem\" {{}}\nlistener \"tcp\" {{\naddress = \"{ROUTER}:{PORT}\"\ntls_cert_file = \"{}\"\n\
             tls_key_file = \"{}\"\n}}\napi_addr = \"{}\"\n",
            at("vault.test.pem"),
            at("vault.test.key"),
            Self::ADDRESS
        );
        fs::write(directory.join("config.hcl"), config)?;
        let log = File::create(directory.join("log"))?;
        let network = world.network();
        let process = network
            .command(program.trim())
            .args(["server", "-config", &at("config.hcl")])
            .env("HOME", &directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let (root_token, unseal_key) = (String::new(), String::new());
        let mut server = OpenBao { network, process, directory, root_token, unseal_key };
        server.wait("listens", |server| server.request("GET", "sys/seal-status", &json!({})).is_ok())?;
        server.initialize()?;
        Ok(server)
    }

    fn initialize(&mut self) -> Result<()> {
        let made = self.ask("POST", "sys/init", &json!({ "secret_shares": 1, "secret_threshold": 1 }))?;
        self.unseal_key = made["keys"][0].as_str().context("no key")?.into();
        self.unseal()?;
        self.root_token = made["root_token"].as_str().context("no token")?.into();
        _ = self.ask("POST", "sys/mounts/secret", &json!({ "type": "kv", "options": { "version": "2" } }))?;
        _ = self.ask("POST", "sys/auth/approle", &json!({ "type": "approle" }))?;
        // The engine is set up in the background.
        self.wait("has its engine", |server| {
            let written = server.request("POST", "secret/data/ready", &json!({ "data": { "is": "ready" } }));
            written.is_ok_and(|answer| answer.get("errors").is_none())
        })
    }

    /// Unseals it, also after [`OpenBao::seal`].
    pub fn unseal(&self) -> Result<()> {
        _ = self.ask("POST", "sys/unseal", &json!({ "key": self.unseal_key }))?;
        self.wait("is active", |server| {
            server.request("GET", "sys/health", &json!({})).is_ok_and(|health| health["standby"] == false)
        })
    }

    /// Seals it: it answers no more reads.
    pub fn seal(&self) -> Result<()> {
        self.ask("POST", "sys/seal", &json!({})).map(drop)
    }

    /// Sends a request as root, which must succeed.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let answer = self.request(method, path, body)?;
        ensure!(answer.get("errors").is_none(), "{method} {path}: {answer}");
        Ok(answer)
    }

    /// Returns the certificate of its authority.
    pub fn authority(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// The body is no argument, which other processes could read.
    fn request(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let file = self.directory.join("request.json");
        fs::write(&file, body.to_string())?;
        let mut curl = self.network.command("curl");
        curl.args(["--silent", "--show-error", "--request", method, "--cacert"]).arg(self.authority());
        curl.args(["--resolve", &format!("{HOST}:{PORT}:{ROUTER}")]);
        curl.args(["--header", &format!("X-Vault-Token: {}", self.root_token)]);
        curl.arg("--data").arg(format!("@{}", file.display())).arg(format!("{}/v1/{path}", Self::ADDRESS));
        let answer = guest::output(&mut curl)?.success();
        fs::remove_file(&file)?;
        let answer = answer?;
        if answer.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&answer)?) }
    }

    fn wait(&self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<()> {
        let start = Instant::now();
        while !is_so(self) {
            let log = || fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            ensure!(start.elapsed() < Duration::from_secs(120), "OpenBao never {what}:\n{}", log());
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
