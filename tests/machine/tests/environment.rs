//! The kind `environment` on a booted machine: systemd gives the service exactly the declared values, and each version of a
//! secret.

use std::{collections::BTreeMap, fs};

use anyhow::{Result, ensure};
use machine::{Emulator, Machine, Options};
use serde_json::json;
use sha2::{Digest, Sha256};

/// Values that a careless quoting would change, by their names.
const VALUES: [(&str, &str); 10] = [
    ("PLAIN", "info"),
    ("EMPTY", ""),
    ("SPACES", "  two  words  "),
    ("QUOTES", r#"it's a "word" and `another`"#),
    ("DOLLARS", "$HOME ${PLAIN} $$ $(id)"),
    ("PERCENT", "100% %n %h %%"),
    ("BACKSLASHES", r"\ \\ \n \x41 \"),
    ("COMMENTS", "a # b ; c"),
    ("LINES", "one\ntwo\tthree\n\nPLAIN=debug\n"),
    ("UNICODE", "Grüße 東京"),
];

const UNIT: &str = "[Service]\n\
    ExecStart=/bin/sh -c 'env -0 > /run/notes.env; sha256sum < \"$CREDENTIALS_DIRECTORY/db\" > /run/notes.digest; exec sleep infinity'\n\
    [Install]\nWantedBy=multi-user.target\n";

/// The steps with these variables, which are values of TOML.
fn steps(variables: &BTreeMap<&str, &str>) -> String {
    let variables: Vec<String> = variables.iter().map(|(name, value)| format!("{name} = {}", json!(value))).collect();
    format!(
        "name = \"notes\"\n\
         [[resource]]\nkind = \"file\"\npath = \"/etc/systemd/system/notes.service\"\ncontent = '''\n{UNIT}'''\n\
         [[resource]]\nkind = \"environment\"\nname = \"notes\"\nvariables = {{ {} }}\n\
         credentials = {{ db = \"ssm:///notes/db\" }}\n\
         [[resource]]\nkind = \"service\"\nname = \"notes\"\nenabled = true\nrunning = true\nstable = \"0s\"\n",
        variables.join(", ")
    )
}

/// A machine whose units ask the emulator, with the units of the program.
fn machine() -> Result<(Machine, Emulator)> {
    let mut machine = Machine::new(Options::default())?;
    let emulator = Emulator::start(machine.world(), machine.directory())?;
    fs::create_dir_all(machine.path("/etc/systemd/system.conf.d"))?;
    let endpoint = "AWS_ENDPOINT_URL_SSM=http://ssm.eu-central-1.amazonaws.com";
    let drop_in = machine.path("/etc/systemd/system.conf.d/aws.conf");
    fs::write(drop_in, format!("[Manager]\nDefaultEnvironment={endpoint}\n"))?;
    machine.power_on()?;
    machine.wait_until_booted()?;
    fs::create_dir_all(machine.path("/etc/glovo-bootstrap/steps"))?;
    machine.agent(&["install"])?.success()?;
    Ok((machine, emulator))
}

fn put_parameter(emulator: &Emulator, value: &str) -> Result<()> {
    let body = json!({ "Name": "/notes/db", "Value": value, "Type": "SecureString", "Overwrite": true });
    emulator.call_json("ssm", "AmazonSSM.PutParameter", &body.to_string()).map(drop)
}

/// Writes the steps and starts the unit of the boot, or of the timer.
fn run(machine: &Machine, unit: &str, variables: &BTreeMap<&str, &str>) -> Result<()> {
    fs::write(machine.path("/etc/glovo-bootstrap/steps/10-notes.toml"), steps(variables))?;
    machine.sh(&format!("systemctl start {unit}")).map(drop)
}

/// Fails unless the running service has these variables and this secret.
fn has(machine: &Machine, variables: &BTreeMap<&str, &str>, secret: &str) -> Result<()> {
    machine.sh("systemctl is-active notes.service; until test -s /run/notes.digest; do sleep 0.1; done")?;
    let environment = machine.sh("cat /run/notes.env")?;
    let found: BTreeMap<&str, &str> = environment.split('\0').filter_map(|line| line.split_once('=')).collect();
    for (name, value) in variables {
        ensure!(found.get(name) == Some(value), "{name} is {:?}, not {value:?}", found.get(name));
    }
    let digest: String = Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect();
    let found = machine.sh("cat /run/notes.digest")?;
    ensure!(found.starts_with(&digest), "the service has another secret");
    Ok(())
}

#[test]
fn a_service_gets_exactly_the_declared_values_and_versions() -> Result<()> {
    let (mut machine, emulator) = machine()?;
    let mut variables: BTreeMap<&str, &str> = VALUES.into_iter().collect();
    put_parameter(&emulator, "first secret")?;
    run(&machine, "glovo-bootstrap.service", &variables)?;
    has(&machine, &variables, "first secret")?;
    let unit = machine.sh("systemctl show notes.service --property=Environment,EnvironmentFiles,LoadCredential")?;
    ensure!(!unit.contains("two  words") && unit.contains("50-glovo-bootstrap.env"), "{unit}");
    let modes = machine.sh("stat -c '%a %U' /etc/systemd/system/notes.service.d/*")?;
    ensure!(modes == "644 root\n600 root\n", "{modes}");

    // A converged machine has nothing to restart.
    let pid = machine.sh("systemctl show --value --property=MainPID notes.service")?;
    run(&machine, "glovo-bootstrap-converge.service", &variables)?;
    ensure!(machine.sh("systemctl show --value --property=MainPID notes.service")? == pid, "it was restarted");

    _ = machine.sh("rm /run/notes.digest")?;
    put_parameter(&emulator, "second secret")?;
    run(&machine, "glovo-bootstrap-converge.service", &variables)?;
    has(&machine, &variables, "second secret")?;

    _ = machine.sh("rm /run/notes.digest")?;
    _ = variables.insert("PLAIN", "debug");
    _ = variables.remove("EMPTY");
    run(&machine, "glovo-bootstrap-converge.service", &variables)?;
    has(&machine, &variables, "second secret")?;
    let environment = machine.sh("tr '\\0' '\\n' < /run/notes.env")?;
    ensure!(!environment.contains("EMPTY="), "{environment}");

    // The service is enabled, but waits for the run that reads its credential.
    machine.reboot()?;
    machine.wait_until_booted()?;
    let waits = machine.sh("! systemctl is-active notes.service; ! systemctl is-failed notes.service")?;
    ensure!(waits.contains("inactive"), "{waits}");
    run(&machine, "glovo-bootstrap.service", &variables)?;
    has(&machine, &variables, "second secret")
}
