//! A machine of a warm pool, on a booted machine: it takes no work before it has left the pool, and completes its hook twice.

use std::fs;

use anyhow::{Result, ensure};
use machine::{Fault, Machine, Options, UserData};

const AGENT: &str = "/usr/local/bin/glovo-bootstrap";
const MANIFEST: &str = r#"
name = "worker"

[[resource]]
kind = "file"
path = "/etc/systemd/system/worker.service"
content = '''
[Service]
ExecStart=/bin/sh -c 'echo job >>/var/jobs; exec sleep infinity'
[Install]
WantedBy=multi-user.target
'''

[[resource]]
kind = "service"
name = "worker"
enabled = true
running = true
"#;

/// Answers the next request with this.
fn answer(machine: &Machine, pattern: &str, body: &str) {
    machine.world().fault(pattern, 1, Fault::Answer { status: 200, headers: vec![], body: body.into() });
}

/// Auto Scaling wants this state, and takes the completion of one hook.
fn wants(machine: &Machine, state: &str) {
    machine.world().clear_faults();
    answer(machine, "^GET .*/meta-data/autoscaling/target-lifecycle-state$", state);
    answer(machine, "^POST autoscaling[.]", "<CompleteLifecycleActionResponse/>");
    answer(machine, "^GET cloudformation[.]", "{}");
}

/// Returns how many hooks and how many signals the machine has sent.
fn told(machine: &Machine) -> (usize, usize) {
    let lines: Vec<String> = machine.world().requests().iter().map(machine::Request::line).collect();
    let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    (count("POST autoscaling."), count("GET cloudformation."))
}

#[test]
fn a_worker_gets_its_first_job_when_its_machine_leaves_the_pool() -> Result<()> {
    let user_data = format!(
        "#!/bin/sh\ncurl -fsS -o {AGENT} http://origin.test/glovo-bootstrap; chmod 755 {AGENT}
         exec {AGENT} run --record --steps /etc/steps.toml --signal app/Group --lifecycle-hook app/converged\n"
    );
    let mut machine = Machine::new(Options { user_data: Some(UserData::Text(user_data)), ..Options::default() })?;
    fs::write(machine.path("/etc/steps.toml"), MANIFEST)?;
    let endpoint = |name: &str, service| format!("AWS_ENDPOINT_URL_{name}=http://{service}.eu-central-1.amazonaws.com");
    let endpoints = [endpoint("CLOUDFORMATION", "cloudformation"), endpoint("AUTO_SCALING", "autoscaling")].join(" ");
    let environment = format!("[Manager]\nDefaultEnvironment={endpoints}\n");
    fs::write(machine.path("/etc/systemd/system.conf.d/endpoints.conf"), environment)?;
    wants(&machine, "Warmed:Stopped");
    machine.power_on()?;
    machine.wait_until_booted()?;
    let status = machine.agent(&["status"])?.success()?;
    ensure!(status.contains("start (deferred: this machine enters a warm pool)"), "{status}");
    ensure!(told(&machine) == (1, 0), "{:?}\n{status}", told(&machine));
    ensure!(!machine.path("/var/jobs").exists(), "a warmed machine has taken a job");

    // Auto Scaling stops the machine, and starts it when the group grows.
    machine.power_off()?;
    wants(&machine, "InService");
    machine.power_on()?;
    machine.wait_until_booted()?;
    let journal = machine.sh("journalctl --unit glovo-bootstrap --output cat --no-pager")?;
    ensure!(told(&machine) == (2, 1), "{:?}\n{journal}", told(&machine));
    ensure!(journal.contains("completed the lifecycle hook app/converged: CONTINUE"), "{journal}");
    ensure!(fs::read_to_string(machine.path("/var/jobs"))? == "job\n", "{journal}");

    // A later boot owes nothing, and systemd starts the worker by itself.
    machine.reboot()?;
    ensure!(fs::read_to_string(machine.path("/var/jobs"))? == "job\njob\n", "{journal}");
    ensure!(machine.agent(&["run"])?.success()?.contains("0 changes"), "a later run changes nothing");
    assert_eq!(told(&machine), (2, 1));
    Ok(())
}
