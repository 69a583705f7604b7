//! Both halves together: `deploy` makes a stack on an emulator, its user-data boots the machine, and `deploy` waits for
//! the machine's signal.

#[allow(dead_code, reason = "shared with tests/cli")]
#[path = "../../cli/book.rs"]
mod book;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use anyhow::{Context, Result, ensure};
use book::Page;
use machine::{Client, Emulator, Machine, Options, Output, UserData, agent, deployable_agent};
use serde_json::json;

const INSTANCE: &str = "i-0123456789abcdef0";
/// What the operator of the old script had in the environment: what the emulator knows.
const ENVIRONMENT: &str =
    "SG_VALUE=sg-00000001 SUBNETS=subnet-00000001,subnet-00000002 AMIID=ami-0123456789abcdef0 DESIREDCAPACITY=1";

/// The operator's directory, where `deploy.toml` is.
struct Operator<'a> {
    emulator: &'a Emulator,
    directory: PathBuf,
    environment: String,
}

impl Operator<'_> {
    /// Declares what the old script had no variables for, with these variables of the steps.
    fn declare(&self, set: &[String]) -> Result<()> {
        let mut settings = format!(
            "bucket = 'glovo-config'\nagent = '{}'\npause = '1s'\n[set]\n",
            deployable_agent(&self.directory)?.display()
        );
        for (name, value) in set.iter().filter_map(|pair| pair.split_once('=')) {
            settings += &format!("{name} = '{value}'\n");
        }
        Ok(fs::write(self.directory.join("deploy.toml"), settings)?)
    }

    /// Types a call on a terminal, as it was typed when the program was `./glovo-app-cf.sh`, and agrees.
    fn types(&self, call: &str) -> Result<Typed> {
        let log = self.directory.join("terminal");
        let call = call.replace("./glovo-app-cf.sh", &format!("{} deploy", agent()?.display()));
        let line =
            format!("echo y | script --quiet --return --command '{} {call}' {}", self.environment, log.display());
        let process =
            self.emulator.operator(&line).current_dir(&self.directory).stdout(std::process::Stdio::null()).spawn();
        Ok(Typed { process: process.context("script")?, log })
    }
}

/// A running call, which ends when it is dropped.
struct Typed {
    process: Child,
    log: PathBuf,
}

impl Typed {
    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn end(mut self) -> Result<(Option<i32>, String)> {
        let code = self.process.wait()?.code();
        Ok((code, self.said()))
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The same machine stands for the new one in the green slot.
fn boot_again(machine: &Machine, emulator: &Emulator, endpoint: &str, update: &Typed) -> Result<Output> {
    let user_data = emulator.user_data("GreenLaunchTemplate").with_context(|| update.said())?;
    fs::write(machine.path("/root/user-data"), user_data)?;
    machine.sh("chmod 700 /root/user-data")?;
    machine.exec(&["env", endpoint, "/root/user-data"])
}

#[test]
fn the_old_calls_work_and_a_broken_build_changes_no_traffic() -> Result<()> {
    let mut machine = Machine::new(Options { user_data: Some(UserData::Text(String::new())), ..Options::default() })?;
    let emulator = Emulator::start(machine.world(), machine.directory())?;
    emulator.show_console(INSTANCE, &machine.console())?;
    // The world's certificate has another name.
    let endpoint = "AWS_ENDPOINT_URL_CLOUDFORMATION=http://cloudformation.eu-central-1.amazonaws.com";
    let drop_in = machine.path("/etc/systemd/system.conf.d/cloudformation.conf");
    fs::write(drop_in, format!("[Manager]\nDefaultEnvironment={endpoint}\n"))?;
    let operator = Operator {
        emulator: &emulator,
        directory: machine.directory().join("operator"),
        environment: ENVIRONMENT.into(),
    };
    fs::create_dir(&operator.directory)?;
    // A deploy does not upload the jar and makes no disk for swap.
    let mut set = machine.variables()?;
    set.retain(|pair| ["jar_", "swap_"].iter().any(|name| pair.starts_with(name)));
    operator.declare(&set)?;

    let create = operator.types("./glovo-app-cf.sh -t create-stack")?;
    let user_data = emulator.user_data("BlueLaunchTemplate").with_context(|| create.said())?;
    machine.world().set_user_data(user_data);
    machine.power_on()?;
    machine.wait_until_booted()?;
    let (code, said) = create.end()?;
    ensure!(code == Some(0) && said.contains("every serving target runs build 1"), "{code:?}: {said}");
    machine.wait_until_serving()?;
    let signals = machine.world().requests().into_iter().filter(|request| request.path.contains("SignalResource"));
    let signals: Vec<String> = signals.map(|request| format!("{} {}", request.status, request.path)).collect();
    ensure!(signals.len() == 1 && signals[0].contains("LogicalResourceId=BlueGroup"), "{signals:?}");
    ensure!(signals[0].starts_with("200") && signals[0].contains("Status=SUCCESS"), "{signals:?}");

    set.retain(|pair| !pair.starts_with("jar_url="));
    set.push("jar_url=http://origin.test/none.jar?signature=canary".into());
    set.push("app_version=2.0.0".into());
    operator.declare(&set)?;
    let update = operator.types("BUILD_NUMBER=3 ./glovo-app-cf.sh -t update-stack")?;
    let run = boot_again(&machine, &emulator, endpoint, &update)?;
    ensure!(run.code == 1, "{run:?}");
    let (code, said) = update.end()?;
    ensure!(code == Some(1), "{code:?}: {said}");
    let words = [
        "step: copy_http_resources",
        "caused by: the server answered 404 Not Found",
        "hint: ",
        "UPDATE_ROLLBACK_COMPLETE",
    ];
    for words in words {
        ensure!(said.contains(words), "no `{words}` in {said}");
    }
    let status = operator.types("./glovo-app-cf.sh status")?.end()?.1;
    ensure!(status.contains("blue   build 1, 100 % of the traffic"), "{status}");
    ensure!(status.contains("every serving target runs build 1"), "{status}");
    machine.wait_until_serving()?;

    // The fixed build.
    set.retain(|pair| !pair.starts_with("jar_url="));
    set.extend(machine.variables()?.into_iter().filter(|pair| pair.starts_with("jar_url=")));
    operator.declare(&set)?;
    let update = operator.types("BUILD_NUMBER=4 ./glovo-app-cf.sh -t update-stack")?;
    let run = boot_again(&machine, &emulator, endpoint, &update)?;
    ensure!(run.code == 0, "{run:?}");
    let (code, said) = update.end()?;
    ensure!(code == Some(0) && said.contains("every serving target runs build 4"), "{code:?}: {said}");
    ensure!(said.contains("blue (build 1) keeps 1 machine"), "{said}");
    let (code, said) = operator.types("./glovo-app-cf.sh rollback")?.end()?;
    ensure!(
        code == Some(0) && said.contains("rollback complete: blue (build 1) serves all traffic"),
        "{code:?}: {said}"
    );
    Ok(())
}

#[test]
fn the_first_deploy_of_the_readme_works_as_written() -> Result<()> {
    let mut machine = Machine::new(Options { user_data: Some(UserData::Text(String::new())), ..Options::default() })?;
    let emulator = Emulator::start(machine.world(), machine.directory())?;
    let endpoint = "AWS_ENDPOINT_URL_CLOUDFORMATION=http://cloudformation.eu-central-1.amazonaws.com";
    let drop_in = machine.path("/etc/systemd/system.conf.d/cloudformation.conf");
    fs::write(drop_in, format!("[Manager]\nDefaultEnvironment={endpoint}\n"))?;
    let programs = machine.directory().join("bin");
    fs::create_dir(&programs)?;
    fs::copy(deployable_agent(&programs)?, programs.join("program"))?;
    fs::rename(programs.join("program"), programs.join("glovo-bootstrap"))?;
    // The emulator's machine stands for the only one.
    let environment = format!("export DESIREDCAPACITY=1 PATH={}:/usr/bin:/bin;", programs.display());
    let operator = Operator { emulator: &emulator, directory: machine.directory().join("operator"), environment };
    fs::create_dir(&operator.directory)?;
    let page = Page::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), "README.md");
    let mut said = vec![];
    for block in page.blocks() {
        if let Some(name) = block.file().filter(|_| block.is("toml manifest") || block.is("toml settings")) {
            // The reader's bucket and subnets.
            let own = [("my-artifacts", "glovo-config"), ("49633d04", "00000001"), ("4e92d933", "00000002")];
            let text = own.iter().fold(block.text.clone(), |text, (from, to)| text.replace(from, to));
            fs::write(operator.directory.join(name), text)?;
        }
        for call in block.text.lines().filter(|_| block.is("sh operator")) {
            let typed = operator.types(call)?;
            if call.contains("create-stack") {
                machine.world().set_user_data(emulator.user_data("BlueLaunchTemplate").with_context(|| typed.said())?);
                machine.power_on()?;
                machine.wait_until_booted()?;
            } else if call.contains("update-stack") {
                let run = boot_again(&machine, &emulator, endpoint, &typed)?;
                ensure!(run.code == 0, "{run:?}");
            }
            let (code, words) = typed.end()?;
            ensure!(code == Some(0), "{call}: {code:?}: {words}");
            said.push(words);
        }
    }
    let wanted = ["runs build 1", "runs build 2", "rollback complete: blue (build 1) serves all traffic"];
    ensure!(said.len() == wanted.len(), "{said:?}");
    for (said, words) in said.iter().zip(wanted) {
        ensure!(said.contains(words) && said.contains("stack: hello"), "no `{words}` in {said}");
    }
    ensure!(said[0].contains("AMI ami-0123456789abcdef0 is the present value of /aws/service/"), "{}", said[0]);
    ensure!(machine.sh("curl -fsS http://127.0.0.1/")? == "hello\n");
    Ok(())
}

#[test]
fn the_old_shape_is_made_and_replaced_by_the_old_calls() -> Result<()> {
    let machine = Machine::new(Options::default())?;
    let emulator = Emulator::start_moto(machine.world(), machine.directory())?;
    let subnets = emulator.call("Action=DescribeSubnets&Version=2016-11-15")?;
    let groups = emulator.call("Action=DescribeSecurityGroups&Version=2016-11-15")?;
    let environment = format!(
        "SG_VALUE={} SUBNETS={} AMIID=ami-1e749f67",
        Emulator::texts(&groups, "groupId")[0],
        Emulator::texts(&subnets, "subnetId")[..2].join(",")
    );
    let operator = Operator { emulator: &emulator, directory: machine.directory().join("operator"), environment };
    fs::create_dir(&operator.directory)?;
    let mut set = machine.variables()?;
    set.retain(|pair| pair.starts_with("jar_"));
    let declare = |set: &[String]| -> Result<()> {
        operator.declare(set)?;
        let settings = operator.directory.join("deploy.toml");
        // moto wants to know how large a volume is.
        let shape = "strategy = 'compatible'\nparameter = { VolumeSize = '8' }\n".to_owned();
        Ok(fs::write(&settings, shape + &fs::read_to_string(&settings)?)?)
    };
    declare(&set)?;
    let (code, said) = operator.types("./glovo-app-cf.sh -t create-stack")?.end()?;
    ensure!(code == Some(0) && said.contains("CREATE_COMPLETE"), "{code:?}: {said}");
    ensure!(emulator.user_data("LaunchTemplate")?.contains("--signal glovo-app/Group "), "{said}");
    set.push("app_version=2.0.0".into());
    declare(&set)?;
    let (code, said) = operator.types("BUILD_NUMBER=1 ./glovo-app-cf.sh -t update-stack")?.end()?;
    ensure!(code == Some(2) && said.contains("build 1 is already serving, with other content"), "{code:?}: {said}");
    let (code, said) = operator.types("BUILD_NUMBER=3 ./glovo-app-cf.sh -t update-stack")?.end()?;
    ensure!(code == Some(0) && said.contains("UPDATE_COMPLETE"), "{code:?}: {said}");
    ensure!(emulator.user_data("LaunchTemplate")?.contains("app_version=2.0.0"), "{said}");
    Ok(())
}

#[test]
fn two_whole_stacks_take_turns_behind_one_name() -> Result<()> {
    let machine = Machine::new(Options::default())?;
    let emulator = Emulator::start(machine.world(), machine.directory())?;
    let namespace = "https://route53.amazonaws.com/doc/2013-04-01/";
    let zone = format!(
        "<CreateHostedZoneRequest xmlns=\"{namespace}\"><Name>example.com</Name><CallerReference>a</CallerReference></CreateHostedZoneRequest>"
    );
    let zone = emulator.ask("route53", "2013-04-01/hostedzone", &["--data", &zone])?;
    let zone = Emulator::texts(&zone, "Id")[0].trim_start_matches("/hostedzone/").to_owned();
    // The weights of the records of blue and green.
    let weights = || -> Result<Vec<String>> {
        let records = emulator.ask("route53", &format!("2013-04-01/hostedzone/{zone}/rrset"), &[])?;
        let record = |stack: &str| {
            let all = Emulator::texts(&records, "ResourceRecordSet");
            let its = all.into_iter().find(|record| Emulator::texts(record, "SetIdentifier") == [stack]);
            its.map_or("none".to_owned(), |record| Emulator::texts(record, "Weight").concat())
        };
        Ok(["glovo-app-blue", "glovo-app-green"].map(record).into())
    };
    let operator = Operator {
        emulator: &emulator,
        directory: machine.directory().join("operator"),
        environment: format!("{ENVIRONMENT} DNSRECORD=app.example.com CLOUD_INIT_PATH=user-data"),
    };
    fs::create_dir(&operator.directory)?;
    fs::write(operator.directory.join("deploy.toml"), "strategy = 'weighted-dns'\npause = '1s'\n")?;
    // Sends the signal of the machine that a deploy waits for.
    let deploy = |call: &str, stack: &str, content: &str| -> Result<String> {
        fs::write(operator.directory.join("user-data"), format!("#!/bin/sh\n# {content}\n"))?;
        let typed = operator.types(call)?;
        let signal = format!(
            "Action=SignalResource&Version=2010-05-15&StackName={stack}&LogicalResourceId=Group&UniqueId={INSTANCE}&Status=SUCCESS"
        );
        let start = std::time::Instant::now();
        while emulator.ask("cloudformation", "", &["--data", &signal]).is_err() {
            ensure!(
                start.elapsed() < std::time::Duration::from_secs(60),
                "no resource of {stack} waits for a signal: {}",
                typed.said()
            );
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        let (code, said) = typed.end()?;
        ensure!(code == Some(0), "{code:?}: {said}");
        Ok(said)
    };
    let said = deploy("./glovo-app-cf.sh -t create-stack", "glovo-app-blue", "a")?;
    ensure!(said.contains("every serving target runs build 1") && weights()? == ["100", "none"], "{said}");
    let said = deploy("BUILD_NUMBER=2 ./glovo-app-cf.sh -t update-stack", "glovo-app-green", "b")?;
    ensure!(said.contains("every serving target runs build 2") && weights()? == ["0", "100"], "{said}");
    ensure!(said.contains("green (build 2) receives 10 % of the traffic"), "{said}");
    let said = deploy("BUILD_NUMBER=3 ./glovo-app-cf.sh -t update-stack", "glovo-app-blue", "c")?;
    ensure!(said.contains("every serving target runs build 3") && weights()? == ["100", "0"], "{said}");
    let (code, said) = operator.types("./glovo-app-cf.sh rollback")?.end()?;
    ensure!(
        code == Some(0) && said.contains("rollback complete: green (build 2) serves all traffic"),
        "{code:?}: {said}"
    );
    ensure!(weights()? == ["0", "100"], "{said}");
    Ok(())
}

/// A build whose only step fails.
const BROKEN: &str = r#"
[[step]]
name = "settings"

[[step.resource]]
kind = "file"
path = "/etc/app.conf"
content = "port = none\n"
validate = ["sh", "-c", ": {}; echo the port is no number >&2; exit 1"]
"#;

#[test]
fn a_machine_without_a_console_tells_why_it_failed() -> Result<()> {
    let mut machine = Machine::new(Options { user_data: Some(UserData::Text(String::new())), ..Options::default() })?;
    // Its console is never shown: EC2 has none of a t2 in these minutes.
    let emulator = Emulator::start(machine.world(), machine.directory())?;
    let endpoint = "AWS_ENDPOINT_URL_CLOUDFORMATION=http://cloudformation.eu-central-1.amazonaws.com";
    let drop_in = format!("[Manager]\nDefaultEnvironment={endpoint}\n");
    fs::write(machine.path("/etc/systemd/system.conf.d/cloudformation.conf"), drop_in)?;
    let directory = machine.directory().join("operator");
    let operator = Operator { emulator: &emulator, directory, environment: ENVIRONMENT.into() };
    fs::create_dir(&operator.directory)?;
    fs::write(operator.directory.join("broken.toml"), BROKEN)?;
    let agent = deployable_agent(&operator.directory)?;
    let settings = format!("bucket = 'glovo-config'\nagent = '{}'\nsteps = 'broken.toml'\n", agent.display());
    fs::write(operator.directory.join("deploy.toml"), settings)?;

    let create = operator.types("./glovo-app-cf.sh -t create-stack")?;
    let user_data = emulator.user_data("BlueLaunchTemplate").with_context(|| create.said())?;
    let role = policy(&emulator, "upload-own-failure")?;
    let object = "arn:aws:s3:::glovo-config/glovo-app.failures/${ec2:SourceInstanceARN}";
    ensure!(role.contains(object) && role.contains("\"s3:PutObject\""), "{role}");
    machine.world().set_user_data(user_data);
    machine.power_on()?;
    let (start, mut signal) = (std::time::Instant::now(), None);
    while !create.said().contains("step: settings") {
        ensure!(start.elapsed() < std::time::Duration::from_secs(600), "no failure: {}", create.said());
        signal = signal.or_else(|| (signals(&machine) > 0).then(std::time::Instant::now));
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    println!("{:?} from the signal to the operator's terminal", signal.map(|at| at.elapsed()));
    let (code, said) = create.end()?;
    ensure!(code == Some(1), "{code:?}: {said}");
    let diagnosis = operator.types("./glovo-app-cf.sh diagnose")?.end()?.1;
    for words in ["step: settings", "resource: file /etc/app.conf", "log: the port is no number"] {
        ensure!(said.contains(words) && diagnosis.contains(words), "no `{words}` in {said}{diagnosis}");
    }
    ensure!(!said.contains("waiting for the console"), "{said}");
    Ok(())
}

/// A service that answers with a variable of the environment and a part of a secret.
const NOTES: &str = r#"
[[step]]
name = "notes"

[[step.resource]]
kind = "credential"
name = "password"
source = "ssm:///notes/password"

[[step.resource]]
kind = "file"
path = "/etc/notes.env"
content = "GREETING={{ greeting }}\n"

[[step.resource]]
kind = "file"
path = "/opt/notes.py"
content = '''
import http.server, os
password = open(os.environ["CREDENTIALS_DIRECTORY"] + "/password").read()
class Notes(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write((os.environ["GREETING"] + " " + password[-4:]).encode())
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
EnvironmentFile=/etc/notes.env
ExecStart=/usr/bin/python3 -I /opt/notes.py
[Install]
WantedBy=multi-user.target
"""

[[step.resource]]
kind = "service"
name = "notes.service"
enabled = true
running = true
restart_on = ["/run/glovo-bootstrap/credentials/password", "/etc/notes.env", "/opt/notes.py"]
stable = "0s"

[[step.resource]]
kind = "http_check"
url = "http://127.0.0.1/"
"#;
/// The most questions that a restart may leave without an answer: those of 5 s.
const MAX_UNANSWERED: usize = 100;

fn put(emulator: &Emulator, name: &str, kind: &str, value: &str) -> Result<()> {
    let body = json!({ "Name": name, "Value": value, "Type": kind, "Overwrite": true });
    emulator.call_json("ssm", "AmazonSSM.PutParameter", &body.to_string()).map(drop)
}

/// Returns a policy of the machines' role, as the stack has made it.
fn policy(emulator: &Emulator, name: &str) -> Result<String> {
    let iam = |call: &str| emulator.ask("iam", "", &["--data", &format!("Action={call}&Version=2010-05-08")]);
    let roles = iam("ListRoles")?;
    let role = Emulator::texts(&roles, "RoleName")[0];
    let answer = iam(&format!("GetRolePolicy&RoleName={role}&PolicyName={name}"))?;
    let document = Emulator::texts(&answer, "PolicyDocument").concat();
    Ok(percent_encoding::percent_decode_str(&document).decode_utf8()?.replace("&quot;", "\""))
}

fn signals(machine: &Machine) -> usize {
    machine.world().requests().iter().filter(|request| request.path.contains("SignalResource")).count()
}

#[test]
fn a_new_secret_and_a_new_variable_reach_a_deployed_machine() -> Result<()> {
    let mut machine = Machine::new(Options { user_data: Some(UserData::Text(String::new())), ..Options::default() })?;
    let emulator = Emulator::start(machine.world(), machine.directory())?;
    let endpoint = |name: &str, host: &str| format!("AWS_ENDPOINT_URL_{name}=http://{host}.eu-central-1.amazonaws.com");
    let endpoints = [endpoint("SSM", "ssm"), endpoint("CLOUDFORMATION", "cloudformation")].join(" ");
    let drop_in = machine.path("/etc/systemd/system.conf.d/aws.conf");
    fs::write(drop_in, format!("[Manager]\nDefaultEnvironment={endpoints}\n"))?;
    put(&emulator, "/notes/password", "SecureString", "kanarienvogel-7461")?;
    put(&emulator, "/notes/config/greeting", "String", "hello")?;
    let directory = machine.directory().join("operator");
    let operator = Operator { emulator: &emulator, directory, environment: ENVIRONMENT.into() };
    fs::create_dir(&operator.directory)?;
    fs::write(operator.directory.join("notes.toml"), NOTES)?;
    let settings = format!(
        "bucket = 'glovo-config'\nagent = '{}'\npause = '1s'\nsteps = 'notes.toml'\nvariables = 'ssm:///notes/config/'\n",
        deployable_agent(&operator.directory)?.display()
    );
    fs::write(operator.directory.join("deploy.toml"), settings)?;

    let create = operator.types("./glovo-app-cf.sh -t create-stack")?;
    let user_data = emulator.user_data("BlueLaunchTemplate").with_context(|| create.said())?;
    machine.world().set_user_data(user_data);
    machine.power_on()?;
    machine.wait_until_booted()?;
    let (code, said) = create.end()?;
    ensure!(code == Some(0) && said.contains("every serving target runs build 1"), "{code:?}: {said}");
    ensure!(said.contains("the machines' role may read ssm:///notes/password"), "{said}");
    ensure!(said.contains("the machines read variables from ssm:///notes/config/ (greeting)"), "{said}");
    let arn = "arn:aws:ssm:eu-central-1:123456789012:parameter/notes";
    let read = policy(&emulator, "read-secrets-of-blue")?;
    ensure!(read.contains("ssm:GetParameter") && read.contains(&format!("{arn}/password\"")), "{read}");
    let read = policy(&emulator, "read-variables-of-blue")?;
    ensure!(read.contains("ssm:GetParametersByPath") && read.contains(&format!("{arn}/config/*\"")), "{read}");

    // The timer waits, and its run brings the new values.
    machine.sh("systemctl is-enabled glovo-bootstrap.service glovo-bootstrap-converge.timer")?;
    machine.sh("systemctl is-active glovo-bootstrap-converge.timer")?;
    let client = Client::start(machine.world(), "http://172.31.0.10/", machine.directory())?;
    client.wait_for("hello 7461")?;
    let converge = || {
        let journal = "journalctl --no-pager --output=cat --unit=glovo-bootstrap-converge.service";
        machine.sh(&format!("systemctl start glovo-bootstrap-converge.service || {{ {journal}; false; }}"))
    };
    put(&emulator, "/notes/password", "SecureString", "kanarienvogel-7462")?;
    converge()?;
    client.wait_for("hello 7462")?;
    println!("a new secret: {} of {} questions had no answer", client.unanswered()?, client.answers()?.len());
    ensure!(client.unanswered()? <= MAX_UNANSWERED, "{:?}", client.answers()?);
    put(&emulator, "/notes/config/greeting", "String", "welcome")?;
    converge()?;
    client.wait_for("welcome 7462")?;
    println!("and a new variable: {} of {} had none", client.unanswered()?, client.answers()?.len());
    ensure!(client.unanswered()? <= 2 * MAX_UNANSWERED, "{:?}", client.answers()?);
    drop(client);

    // Neither these runs nor that of a boot signal.
    machine.reboot()?;
    machine.sh("systemctl start glovo-bootstrap.service")?;
    ensure!(machine.sh("curl -fsS http://127.0.0.1/")? == "welcome 7462");
    assert_eq!(signals(&machine), 1);
    Ok(())
}
