//! A machine with secrets of all sources, and the servers that have them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use machine::{Emulator, Machine, OpenBao, Options, Output};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::words::Canary;

/// Parameter Store → a credential. The second is its next version.
pub const PARAMETER: [Canary; 2] = [Canary("parameter"), Canary("laterparameter")];
/// Vault → a credential, of which the machine keeps an encrypted copy.
pub const VAULT: Canary = Canary("vault");
/// The secret id of the login to Vault.
pub const LOGIN: Canary = Canary("login");
/// A file of variables → the standard input of a command.
pub const VARIABLE: Canary = Canary("variable");
/// `--set-secret-file` → a credential of a command.
pub const SET: Canary = Canary("setfile");

const STEPS: &str = include_str!("steps.toml");

/// Where a secret may be on the machine's disk: the files that the manifest or the operator declares.
fn places() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("parameter", &[][..]),
        ("laterparameter", &[]),
        ("vault", &[]),
        ("login", &["/etc/canary/secret-id"]),
        ("variable", &["/root/variables.toml"]),
        ("setfile", &["/root/setfile"]),
        ("managed", &["/etc/canary/managed"]),
        ("vaultfile", &["/etc/canary/vaultfile"]),
        ("download", &["/etc/canary/download"]),
        ("object", &["/etc/canary/object"]),
        ("local", &["/root/local", "/etc/canary/local"]),
        ("below", &["/etc/canary/below"]),
        ("archive", &["/etc/apt/auth.conf.d/canary.conf"]),
        // useradd and usermod keep the earlier version.
        ("hash", &["/etc/shadow", "/etc/shadow-"]),
        ("role", &[]),
    ])
}

/// Returns all canaries.
pub fn canaries() -> Vec<Canary> {
    places().into_keys().filter(|name| *name != "role").map(Canary).collect()
}

/// Returns whether a file of the machine's disk may have a secret.
pub fn is_declared(name: &str, path: &str) -> bool {
    places()[name].contains(&path)
}

/// Returns the files that have a secret after a run, each with the secret's name.
pub fn declared_files() -> Vec<(&'static str, &'static str)> {
    let all = places().into_iter().flat_map(|(name, paths)| paths.iter().map(move |path| (name, *path)));
    all.filter(|(_, path)| *path != "/etc/shadow-").collect()
}

/// Returns whether a secret may be on no disk at all.
pub fn is_in_memory_alone(name: &str) -> bool {
    places()[name].is_empty()
}

/// A machine and the servers with its secrets.
pub struct Stage {
    pub machine: Machine,
    pub emulator: Emulator,
    pub bao: OpenBao,
}

impl Stage {
    /// Sets a machine up, with its manifest, units and servers. Nothing has run yet.
    pub fn new(options: Options) -> Result<Stage> {
        let mut machine = Machine::new(options)?;
        let emulator = Emulator::start(machine.world(), machine.directory())?;
        let bao = OpenBao::start(machine.world(), machine.directory())?;
        let drop_in = machine.path("/etc/systemd/system.conf.d/aws.conf");
        fs::write(drop_in, format!("[Manager]\nDefaultEnvironment={}\n", endpoints().join(" ")))?;
        machine.power_on()?;
        machine.wait_until_booted()?;
        let stage = Stage { machine, emulator, bao };
        stage.fill_stores()?;
        stage.write_files()?;
        stage.machine.agent(&["install"])?.success()?;
        Ok(stage)
    }

    /// Puts a secret or the text of a variable into Parameter Store.
    pub fn put(&self, name: &str, kind: &str, value: &str) -> Result<()> {
        let body = json!({ "Name": name, "Value": value, "Type": kind, "Overwrite": true });
        self.emulator.call_json("ssm", "AmazonSSM.PutParameter", &body.to_string()).map(drop)
    }

    fn fill_stores(&self) -> Result<()> {
        self.put("/canary/parameter", "SecureString", &PARAMETER[0].value())?;
        self.put("/canary/archive", "SecureString", &Canary("archive").value())?;
        self.put("/below/below", "SecureString", &Canary("below").value())?;
        self.put("/below/plain", "String", "a plain value")?;
        let managed = json!({ "token": Canary("managed").value() }).to_string();
        let managed = json!({ "Name": "prod/canary", "SecretString": managed });
        self.emulator.call_json("secretsmanager", "secretsmanager.CreateSecret", &managed.to_string())?;
        let both = json!({ "data": { "token": VAULT.value(), "file": Canary("vaultfile").value() } });
        _ = self.bao.ask("POST", "secret/data/canary", &both)?;
        let policy = json!({ "policy": r#"path "secret/data/canary" { capabilities = ["read"] }"# });
        _ = self.bao.ask("POST", "sys/policies/acl/canary", &policy)?;
        _ = self.bao.ask("POST", "auth/approle/role/canary", &json!({ "token_policies": "canary" }))?;
        let login = json!({ "secret_id": LOGIN.value() });
        _ = self.bao.ask("POST", "auth/approle/role/canary/custom-secret-id", &login)?;
        let world = self.machine.world();
        world.publish("origin.test/canary", Canary("download").value());
        world.store("glovo-config/canary", Canary("object").value().as_bytes())
    }

    fn write_files(&self) -> Result<()> {
        let machine = &self.machine;
        for directory in ["/etc/canary", "/etc/glovo-bootstrap/steps", "/etc/systemd/system/glovo-bootstrap.service.d"]
        {
            fs::create_dir_all(machine.path(directory))?;
        }
        let write = |path: &str, text: &str| {
            fs::write(machine.path(path), text)?;
            fs::set_permissions(machine.path(path), fs::Permissions::from_mode(0o600)).context(path.to_owned())
        };
        fs::copy(self.bao.authority(), machine.path("/etc/canary/ca.pem"))?;
        write("/etc/canary/secret-id", &LOGIN.value())?;
        write("/root/variables.toml", &format!("variable = \"{}\"\n", VARIABLE.value()))?;
        write("/root/setfile", &SET.value())?;
        write("/root/local", &Canary("local").value())?;
        let role = self.bao.ask("GET", "auth/approle/role/canary/role-id", &json!({}))?;
        let role = role["data"]["role_id"].as_str().context("no role")?;
        let vault = format!(
            "address = \"{}\"\nca = \"/etc/canary/ca.pem\"\nlogin = {{ method = \"approle\", role_id = \"{role}\", \
             secret_id_file = \"/etc/canary/secret-id\" }}\n",
            OpenBao::ADDRESS
        );
        write("/etc/glovo-bootstrap/steps/vault.toml", &vault)?;
        let digest: String =
            Sha256::digest(Canary("download").value()).iter().map(|byte| format!("{byte:02x}")).collect();
        // A password of the file that crypt(3) knows: the salt is the secret here.
        let hash = format!("$6${}${}", Canary("hash").halves().concat(), "a".repeat(86));
        self.put("/canary/hash", "SecureString", &hash)?;
        let steps = STEPS.replace("SWAP", &machine.swap_path()).replace("DIGEST", &digest);
        write("/etc/glovo-bootstrap/steps/10-canary.toml", &steps)?;
        let command = format!("[Service]\nExecStart=\nExecStart={}\n", command("run").join(" "));
        write("/etc/systemd/system/glovo-bootstrap.service.d/canary.conf", &command)?;
        machine.sh("mkdir -p /run/canary; systemctl daemon-reload").map(drop)
    }

    /// Fails unless the service runs with the later version of its secrets.
    pub fn serves(&self) -> Result<()> {
        let wanted: String =
            Sha256::digest(PARAMETER[1].value() + &VAULT.value()).iter().map(|byte| format!("{byte:02x}")).collect();
        // systemd calls it active before its shell has written the file.
        let wait = format!(
            "systemctl is-active canary.service > /dev/null
             timeout 60 sh -c 'until grep -q ^{wanted} /run/canary-service; do sleep 0.1; done' 2> /dev/null"
        );
        _ = self.machine.sh(&wait).context("the service has another value")?;
        Ok(())
    }

    /// Runs a command of the agent with the secrets of its arguments.
    pub fn agent(&self, verb: &str) -> Result<Output> {
        self.under(&[], verb)
    }

    /// Runs a command of the agent under other programs, which follow `env`.
    pub fn under(&self, programs: &[&str], verb: &str) -> Result<Output> {
        let words = words(programs, verb);
        self.machine.exec(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Starts a run, which waits in the command `reads` with all secrets, and returns when it does.
    pub fn start_and_wait(&self, programs: &[&str]) -> Result<Child> {
        _ = self.machine.sh("rm -f /run/canary/*; mkfifo /run/canary/gate")?;
        let words = words(programs, "run");
        let mut command = self.machine.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        while self.machine.exec(&["test", "-s", "/run/canary/waits"])?.code != 0 {
            ensure!(child.try_wait()?.is_none(), "the run has ended");
            sleep(Duration::from_millis(50));
        }
        Ok(child)
    }
}

fn words(programs: &[&str], verb: &str) -> Vec<String> {
    let words = ["env".to_owned()].into_iter().chain(endpoints());
    words.chain(programs.iter().map(|word| (*word).into())).chain(command(verb)).collect()
}

/// The variables that name the emulator's services.
fn endpoints() -> [String; 2] {
    [("SSM", "ssm"), ("SECRETS_MANAGER", "secretsmanager")]
        .map(|(service, host)| format!("AWS_ENDPOINT_URL_{service}=http://{host}.eu-central-1.amazonaws.com"))
}

fn command(verb: &str) -> Vec<String> {
    let program = ["/usr/local/bin/glovo-bootstrap", "--verbose"];
    let variables = ["--variables", "/root/variables.toml", "--variables", "ssm:///below/"];
    let set = ["--set-secret-file", "setfile=/root/setfile"];
    program.into_iter().chain(verb.split(' ')).chain(variables).chain(set).map(Into::into).collect()
}
