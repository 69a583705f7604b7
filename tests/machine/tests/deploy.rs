//! Both halves together: `deploy` makes a stack on an emulator, whose user-data boots the machine, whose word `deploy` waits for.

use std::fs;
use std::path::PathBuf;
use std::process::Child;

use anyhow::{Context, Result, ensure};
use machine::{Emulator, Machine, Options, UserData, agent};

const INSTANCE: &str = "i-0123456789abcdef0";
/// What the emulator knows.
const PLACE: [&str; 6] = [
    "--subnets=subnet-00000001,subnet-00000002",
    "--ami=ami-0abcdef1234567890",
    "--desired-capacity=1",
    "--bucket=glovo-config",
    "--pause=1s",
    "--poll=500ms",
];

/// A deploy that goes on; ended when dropped.
struct Deploying {
    process: Child,
    log: PathBuf,
}

impl Deploying {
    fn begin(machine: &Machine, emulator: &Emulator, verb: &str, build: u32, set: &[String]) -> Result<Deploying> {
        let agent = agent()?;
        let mut options: Vec<String> = set.iter().map(|pair| format!("--set={pair}")).collect();
        options.push(format!("--build-number={build}"));
        options.push(format!("--agent={}", agent.display()));
        let arguments = [verb, "--yes"].into_iter().chain(PLACE).chain(options.iter().map(String::as_str));
        let log = machine.directory().join(format!("deploy-{build}.log"));
        let file = fs::File::create(&log)?;
        let mut command = emulator.deploy(agent, &arguments.collect::<Vec<_>>());
        let process = command.stdout(file.try_clone()?).stderr(file).spawn().context("deploy")?;
        Ok(Deploying { process, log })
    }

    fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    fn end(mut self) -> Result<(Option<i32>, String)> {
        let code = self.process.wait()?.code();
        Ok((code, self.said()?))
    }
}

impl Drop for Deploying {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_stack_s_machine_boots_serves_and_signals_and_one_that_can_t_says_why_while_the_old_build_goes_on() -> Result<()> {
    let mut machine = Machine::new(Options { user_data: Some(UserData::Text(String::new())), ..Options::default() })?;
    let emulator = Emulator::start(machine.world(), machine.directory())?;
    emulator.show_console(INSTANCE, &machine.console())?;
    // The world's certificate is not for this name.
    let endpoint = "AWS_ENDPOINT_URL_CLOUDFORMATION=http://cloudformation.eu-central-1.amazonaws.com";
    let drop_in = machine.path("/etc/systemd/system.conf.d/cloudformation.conf");
    fs::write(drop_in, format!("[Manager]\nDefaultEnvironment={endpoint}\n"))?;
    // What a deploy doesn't bring by itself: the jar, and a disk for swap.
    let mut set = machine.variables()?;
    set.retain(|pair| ["jar_", "swap_"].iter().any(|name| pair.starts_with(name)));

    let deploy = Deploying::begin(&machine, &emulator, "create-stack", 1, &set)?;
    let user_data = emulator.user_data("BlueLaunchTemplate").with_context(|| deploy.said().unwrap_or_default());
    machine.world().set_user_data(user_data?);
    machine.power_on()?;
    machine.wait_until_booted()?;
    let (code, said) = deploy.end()?;
    ensure!(code == Some(0) && said.contains("every serving target runs build 1"), "{code:?}: {said}");
    ensure!(said.contains("CREATE_COMPLETE"), "{said}");
    machine.wait_until_serving()?;
    let signals = machine.world().requests().into_iter().filter(|request| request.path.contains("SignalResource"));
    let signals: Vec<String> = signals.map(|request| format!("{} {}", request.status, request.path)).collect();
    ensure!(signals.len() == 1 && signals[0].contains("LogicalResourceId=BlueGroup"), "{signals:?}");
    ensure!(signals[0].starts_with("200") && signals[0].contains("Status=SUCCESS"), "{signals:?}");

    set.push("jar_url=http://origin.test/none.jar?signature=canary".into());
    set.push("app_version=2.0.0".into());
    let deploy = Deploying::begin(&machine, &emulator, "update-stack", 2, &set)?;
    let user_data = emulator.user_data("GreenLaunchTemplate").with_context(|| deploy.said().unwrap_or_default());
    fs::write(machine.path("/root/user-data"), user_data?)?;
    machine.sh("chmod 700 /root/user-data")?;
    // The same machine stands for the new one.
    let run = machine.exec(&["env", endpoint, "/root/user-data"])?;
    ensure!(run.code == 1, "{run:?}");
    let (code, said) = deploy.end()?;
    ensure!(code == Some(1), "{code:?}: {said}");
    for words in [
        "step: copy_http_resources",
        "caused by: the server answered 404 Not Found",
        "hint: ",
        "UPDATE_ROLLBACK_COMPLETE",
    ] {
        ensure!(said.contains(words), "no `{words}` in {said}");
    }
    ensure!(!said.contains("canary"), "{said}");
    let status = emulator.run(agent()?, &["status"])?.success()?;
    ensure!(status.contains("blue   build 1, 100 % of the traffic"), "{status}");
    ensure!(status.contains("every serving target runs build 1"), "{status}");
    machine.wait_until_serving()
}
