//! AWS's control plane, emulated in a machine's world: the stacks, groups and balancers that `deploy` works on.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::base::PACKAGE;
use crate::guest;
use crate::world::{ACCOUNT, Network, OPERATOR_ENVIRONMENT, ROUTER, World};

const PORT: u16 = 4566;

/// A running emulator with the missing behaviour of AWS, see `tests/emulators`. It ends when dropped.
pub struct Emulator {
    network: Network,
    process: Child,
    consoles: PathBuf,
    /// The operator's resolv.conf(5).
    name_server: PathBuf,
}

impl Emulator {
    /// Starts MiniStack where the machine of this world asks for AWS's services; its log and consoles go into `dir`.
    pub fn start(world: &World, dir: &Path) -> Result<Emulator> {
        let emulator = Self::run(world, dir, "ministack_server.py")?;
        world.relay(PORT);
        Ok(emulator)
    }

    /// Starts moto, which knows classic load balancers. Its machines boot nothing, and its stacks do not wait for them.
    pub fn start_moto(world: &World, dir: &Path) -> Result<Emulator> {
        Self::run(world, dir, "moto_server.py")
    }

    fn run(world: &World, dir: &Path, server: &str) -> Result<Emulator> {
        let emulators = Path::new(PACKAGE).join("../emulators");
        let python = guest::output(&mut Command::new(emulators.join("needs")))?.success()?;
        let (consoles, log) = (dir.join("consoles"), File::create(dir.join("emulator.log"))?);
        std::fs::create_dir_all(&consoles)?;
        let name_server = dir.join("resolv.conf");
        std::fs::write(&name_server, format!("nameserver {ROUTER}\n"))?;
        let network = world.network();
        let mut command = network.command(python.trim());
        command.arg(emulators.join(server));
        if server.starts_with("moto") {
            command.args(["-H", "127.0.0.1", "-p", &PORT.to_string()]);
        }
        let process = command
            .envs([("BIND_HOST", "127.0.0.1"), ("MINISTACK_REGION", "eu-central-1"), ("SIGNAL_TIMEOUT", "PT30M")])
            .env("MINISTACK_ACCOUNT_ID", ACCOUNT)
            .env("GATEWAY_PORT", PORT.to_string())
            .env("CONSOLES", &consoles)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let emulator = Emulator { network, process, consoles, name_server };
        let start = Instant::now();
        while emulator.call("Action=DescribeSubnets&Version=2016-11-15").is_err() {
            ensure!(start.elapsed() < Duration::from_secs(120), "the emulator doesn't answer, see {}", dir.display());
            sleep(Duration::from_millis(200));
        }
        Ok(emulator)
    }

    /// Returns the answer of EC2 to a call, which is given as a form.
    pub fn call(&self, form: &str) -> Result<String> {
        self.ask("ec2", "", &["--data", form])
    }

    /// Returns the answer of a service to a request for a path, with these arguments of curl.
    pub fn ask(&self, service: &str, path: &str, arguments: &[&str]) -> Result<String> {
        let scope = format!("Credential=a/20260101/eu-central-1/{service}/aws4_request");
        let mut curl = self.network.command("curl");
        let curl = curl.args(["--fail", "--silent"]).args(arguments).arg("--header");
        let curl = curl.arg(format!("Authorization: AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"));
        guest::output(curl.arg(format!("http://127.0.0.1:{PORT}/{path}")))?.success()
    }

    /// Calls an operation of a JSON service, such as `AmazonSSM.PutParameter`. The arguments are no command line, which
    /// other processes could read.
    pub fn call_json(&self, service: &str, operation: &str, body: &str) -> Result<String> {
        let file = self.consoles.join("call.json");
        std::fs::write(&file, body)?;
        let (target, data) = (format!("X-Amz-Target: {operation}"), format!("@{}", file.display()));
        let kind = "Content-Type: application/x-amz-json-1.1";
        let answer = self.ask(service, "", &["--header", &target, "--header", kind, "--data", &data]);
        std::fs::remove_file(&file)?;
        answer
    }

    /// Returns the texts between these tags of an answer.
    pub fn texts<'t>(answer: &'t str, tag: &str) -> Vec<&'t str> {
        let (begin, end) = (format!("<{tag}>"), format!("</{tag}>"));
        answer.split(&begin).skip(1).filter_map(|rest| rest.split(&end).next()).collect()
    }

    /// Returns the command of a shell line on the operator's machine. AWS is the emulator there, except S3, which is
    /// the world's.
    pub fn operator(&self, line: &str) -> Command {
        let mut command = self.network.command("unshare");
        // The world's name server, not the host's.
        let script = r#"mount --make-rprivate / && mount --bind "$0" /etc/resolv.conf && exec "$@""#;
        command.args(["--mount", "sh", "-c", script]).arg(&self.name_server);
        command.args(["env", "--ignore-environment", "PATH=/usr/bin:/bin"]);
        command.args(OPERATOR_ENVIRONMENT.map(|(name, value)| format!("{name}={value}")));
        command.arg(format!("AWS_ENDPOINT_URL=http://127.0.0.1:{PORT}"));
        command.arg("AWS_ENDPOINT_URL_S3=http://s3.eu-central-1.amazonaws.com");
        command.args(["bash", "-c", line]).stdin(Stdio::null());
        command
    }

    /// Waits for a launch template with this text in its name. Returns the user-data of its last version.
    pub fn user_data(&self, name: &str) -> Result<String> {
        let start = Instant::now();
        loop {
            let templates = self.call("Action=DescribeLaunchTemplates&Version=2016-11-15")?;
            let ids = Self::texts(&templates, "launchTemplateId");
            let names = Self::texts(&templates, "launchTemplateName");
            if let Some((id, _)) = ids.iter().zip(names).find(|(_, known)| known.contains(name)) {
                let call = format!("Action=DescribeLaunchTemplateVersions&Version=2016-11-15&LaunchTemplateId={id}");
                let answer = self.call(&call)?;
                let encoded = Self::texts(&answer, "userData").pop().context("no user-data")?.to_owned();
                let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, encoded)?;
                return Ok(String::from_utf8(bytes)?);
            }
            ensure!(start.elapsed() < Duration::from_secs(60), "no launch template {name}");
            sleep(Duration::from_millis(200));
        }
    }

    /// Makes `GetConsoleOutput` show the console of a machine.
    pub fn show_console(&self, instance: &str, console: &Path) -> Result<()> {
        std::os::unix::fs::symlink(console, self.consoles.join(instance)).context("the console")
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
