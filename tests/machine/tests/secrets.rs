//! Secrets of Parameter Store and Secrets Manager on a booted machine: for a service, by version, and nowhere else.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use machine::{Client, Emulator, Machine, Options};
use serde_json::json;
use sha2::{Digest, Sha256};

/// The secrets; each has a word that stands in no other file.
const SECRETS: [&str; 3] = ["kanarienvogel one/7461", "kanarienvogel two/7462", "kanarienvogel three/7463"];
/// That word, and what it is in base64, wherever it stands in the encoded text.
const FORMS: [&str; 4] = ["kanarienvogel", "a2FuYXJpZW52b2", "thbmFyaWVudm9n", "rYW5hcmllbnZvZ"];

const STEPS: &str = r#"
[variables]
token = { secret = "secretsmanager://prod/notes#token" }

[[step]]
name = "notes"

[[step.resource]]
kind = "credential"
name = "password"
source = "ssm:///notes/password"

[[step.resource]]
kind = "file"
path = "/etc/notes.env"
content = "TOKEN={{ token }}\n"
secret = true

[[step.resource]]
kind = "file"
path = "/opt/notes.py"
content = '''
import hashlib, http.server, os
password = open(os.environ["CREDENTIALS_DIRECTORY"] + "/password", "rb").read()
class Notes(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(hashlib.sha256(password).hexdigest().encode())
http.server.HTTPServer(("", 80), Notes).serve_forever()
'''

[[step.resource]]
kind = "file"
path = "/etc/systemd/system/notes.service"
content = """
[Unit]
ConditionPathExists=/run/glovo-bootstrap/credentials/password
[Service]
LoadCredential=password:/run/glovo-bootstrap/credentials/password
ExecStart=/usr/bin/python3 -I /opt/notes.py
[Install]
WantedBy=multi-user.target
"""

[[step.resource]]
kind = "service"
name = "notes.service"
enabled = true
running = true
restart_on = ["/run/glovo-bootstrap/credentials/password", "/etc/notes.env", "/etc/systemd/system/notes.service"]
stable = "0s"

[[step.resource]]
kind = "http_check"
url = "http://127.0.0.1/"
"#;
/// The most questions in a row that a restart may leave without an answer: those of 5 s.
const MAX_UNANSWERED: usize = 100;

/// A machine whose units ask the emulator, with the manifest and the units of the program.
fn machine() -> Result<(Machine, Emulator)> {
    let mut machine = Machine::new(Options::default())?;
    let emulator = Emulator::start(machine.world(), machine.directory())?;
    let endpoint =
        |service: &str, host: &str| format!("AWS_ENDPOINT_URL_{service}=http://{host}.eu-central-1.amazonaws.com");
    let environment = [endpoint("SSM", "ssm"), endpoint("SECRETS_MANAGER", "secretsmanager")].join(" ");
    fs::create_dir_all(machine.path("/etc/systemd/system.conf.d"))?;
    let drop_in = machine.path("/etc/systemd/system.conf.d/aws.conf");
    fs::write(drop_in, format!("[Manager]\nDefaultEnvironment={environment}\n"))?;
    machine.power_on()?;
    machine.wait_until_booted()?;
    fs::create_dir_all(machine.path("/etc/glovo-bootstrap/steps"))?;
    fs::write(machine.path("/etc/glovo-bootstrap/steps/10-notes.toml"), STEPS)?;
    machine.agent(&["install"])?.success()?;
    Ok((machine, emulator))
}

fn put_parameter(emulator: &Emulator, value: &str) -> Result<()> {
    let body = json!({ "Name": "/notes/password", "Value": value, "Type": "SecureString", "Overwrite": true });
    emulator.call_json("ssm", "AmazonSSM.PutParameter", &body.to_string()).map(drop)
}

/// The run of the boot's unit, or of the timer's, and what the journal has of it.
fn start(machine: &Machine, unit: &str) -> Result<String> {
    machine.sh(&format!("systemctl start {unit}; journalctl --no-pager --output=cat --unit={unit} --invocation=0 2>/dev/null || journalctl --no-pager --output=cat --unit={unit}"))
}

/// What the service answers that has this secret.
fn answer(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fails unless the service runs with this secret.
fn serves(machine: &Machine, secret: &str) -> Result<()> {
    machine.sh("systemctl is-active notes.service")?;
    let found = machine.sh("curl -fsS http://127.0.0.1/")?;
    ensure!(found == answer(secret), "the service has another value: {found}");
    Ok(())
}

/// Fails if a secret is where none may be.
fn is_nowhere_else(machine: &Machine) -> Result<()> {
    let places = [
        "journalctl --no-pager --output=export",
        "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null || true",
        "glovo-bootstrap status; glovo-bootstrap status --json",
        "find /var/lib/glovo-bootstrap -type f -exec cat {} +",
    ];
    for place in places {
        let text = machine.sh(place)?;
        for form in FORMS {
            ensure!(!text.contains(form), "{form} is in the output of {place}: {text}");
        }
    }
    let pattern = FORMS.join("|");
    let find = format!("find / -xdev -type f -size -64M -exec grep -laE '{pattern}' {{}} + || true");
    let files = machine.sh(&find)?;
    ensure!(files == "/etc/notes.env\n", "a secret is in a file: {files}");
    let console = String::from_utf8_lossy(&fs::read(machine.console())?).into_owned();
    ensure!(!FORMS.iter().any(|form| console.contains(form)), "a secret is on the console");
    let host = Command::new("sh").args(["-c", "cat /proc/[0-9]*/cmdline 2>/dev/null || true"]).output()?;
    ensure!(!String::from_utf8_lossy(&host.stdout).contains("kanarienvogel"), "a secret is in a command line");
    Ok(())
}

#[test]
fn a_new_version_reaches_its_service_and_no_other_place() -> Result<()> {
    let (mut machine, emulator) = machine()?;
    put_parameter(&emulator, SECRETS[0])?;
    let token = json!({ "Name": "prod/notes", "SecretString": json!({ "token": SECRETS[2] }).to_string() });
    emulator.call_json("secretsmanager", "secretsmanager.CreateSecret", &token.to_string())?;
    machine.sh("systemctl enable glovo-bootstrap.service")?;
    let first = start(&machine, "glovo-bootstrap.service")?;
    ensure!(first.contains("from ssm:///notes/password, version 1"), "{first}");
    serves(&machine, SECRETS[0])?;
    ensure!(machine.sh("cat /etc/notes.env; stat -c %a /etc/notes.env")?.ends_with("600\n"));
    is_nowhere_else(&machine)?;

    let client = Client::start(machine.world(), "http://172.31.0.10/", machine.directory())?;
    client.wait_for(&answer(SECRETS[0]))?;
    put_parameter(&emulator, SECRETS[1])?;
    let second = start(&machine, "glovo-bootstrap-converge.service")?;
    ensure!(second.contains("from ssm:///notes/password, version 2"), "{second}");
    serves(&machine, SECRETS[1])?;
    client.wait_for(&answer(SECRETS[1]))?;
    println!("{} of {} questions had no answer", client.unanswered()?, client.answers()?.len());
    ensure!(client.unanswered()? <= MAX_UNANSWERED, "{:?}", client.answers()?);
    drop(client);
    let third = start(&machine, "glovo-bootstrap-converge.service")?;
    ensure!(third.contains("0 changes"), "{third}");

    machine.reboot()?;
    machine.wait_until_booted()?;
    machine.sh("systemctl start glovo-bootstrap.service; ! systemctl is-failed notes.service")?;
    serves(&machine, SECRETS[1])?;
    is_nowhere_else(&machine)?;

    drop(emulator);
    let away = start(&machine, "glovo-bootstrap-converge.service")?;
    ensure!(away.contains("keeps its present content"), "{away}");
    serves(&machine, SECRETS[1])?;
    ensure!(machine.sh("glovo-bootstrap status")?.contains("keeps its present content"));
    is_nowhere_else(&machine)
}
