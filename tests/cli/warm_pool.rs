//! Machines of a warm pool: prepared without taking work, and in service after the start from the pool.

use std::{
    cell::Cell,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    sandbox::Finished,
    server::{Reply, Server},
    service,
    standin::Machine,
};

const BOOT_UNIT: &str = "[Service]\nExecStart=true\n[Install]\nWantedBy=multi-user.target\n";
/// Auto Scaling's answer before the machine is in `Pending:Wait`.
const TOO_EARLY: &str = "<ErrorResponse><Error><Code>ValidationError</Code>\
    <Message>No active Lifecycle Action found with instance ID i-0123456789abcdef0</Message></Error></ErrorResponse>";
const ENABLE: &str = "systemctl --quiet enable glovo-bootstrap.service";
const DISABLE: &str = "systemctl --quiet disable glovo-bootstrap.service";

/// A machine in an Auto Scaling group, whose boots have ids of the test's choice.
struct Pooled {
    machine: Machine,
    server: Server,
    /// The target state that the metadata service names.
    state: Arc<Mutex<&'static str>>,
    /// How often Auto Scaling does not wait yet.
    early: Arc<AtomicUsize>,
    /// How many requests [`Pooled::told`] has seen.
    seen: Cell<usize>,
}

impl Pooled {
    fn new() -> Self {
        let state = Arc::new(Mutex::new("Warmed:Stopped"));
        let (asked, early) = (state.clone(), Arc::new(AtomicUsize::new(0)));
        let too_early = early.clone();
        let server = Server::start(move |request| match request.target.as_str() {
            "/latest/api/token" => {
                Reply { headers: "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n", ..Reply::ok("token") }
            }
            "/latest/meta-data/instance-id" => Reply::ok("i-0123456789abcdef0"),
            "/latest/meta-data/autoscaling/target-lifecycle-state" => match *asked.lock().unwrap() {
                "" => Reply::new(404, ""),
                state => Reply::ok(state),
            },
            "/latest/dynamic/instance-identity/document" => {
                Reply::ok(r#"{"instanceId": "i-0123456789abcdef0", "region": "eu-central-1"}"#)
            }
            "/latest/dynamic/instance-identity/signature" => Reply::ok("c2lnbmF0dXJl"),
            signal if signal.starts_with("/?Action=SignalResource&") => Reply::ok("{}"),
            "/" if too_early.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() => {
                Reply::new(400, TOO_EARLY)
            }
            "/" | "/health" => Reply::ok("<CompleteLifecycleActionResponse/>"),
            _ => Reply::new(404, ""),
        });
        let machine = Machine::new();
        let _ = machine.sandbox.write("var-lib/dpkg/status", "");
        machine.write("etc/systemd/system/glovo-bootstrap.service", BOOT_UNIT);
        let pooled = Self { machine, server, state, early, seen: Cell::default() };
        pooled.boot("a", "Warmed:Stopped");
        pooled
    }

    /// Boots the machine, of which Auto Scaling wants this state.
    fn boot(&self, id: &str, state: &'static str) {
        self.machine.write("boot-id", format!("{id}\n"));
        let _ = fs::remove_file(self.machine.at("run/reboot-required"));
        *self.state.lock().unwrap() = state;
    }

    fn agent(&self, arguments: &[&str]) -> Finished {
        let script =
            format!("mount --bind {} /proc/sys/kernel/random/boot_id; exec \"$@\"", self.machine.at("boot-id"));
        let mut command = self.machine.sandbox.shell(&script);
        let _ = command.arg(env!("CARGO_BIN_EXE_glovo-bootstrap")).args(arguments);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            let _ = command.env_remove(name);
        }
        let _ = command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.server.url("/"));
        for service in ["CLOUDFORMATION", "AUTO_SCALING"] {
            let _ = command.env(format!("AWS_ENDPOINT_URL_{service}"), self.server.url(""));
        }
        let _ = command.env("AWS_REGION", "eu-central-1").env("HOME", &self.machine.sandbox.path);
        let _ = command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "not-a-secret");
        Finished::from(command.output().unwrap())
    }

    /// Runs the steps as user-data does.
    fn first_run(&self, resources: &str, more: &[&str]) -> Finished {
        let manifest = self.machine.sandbox.manifest(resources);
        let run =
            ["run", "--record", "--signal", "app/Group", "--lifecycle-hook", "app/converged", "--steps", &manifest];
        self.agent(&[&run[..], more].concat())
    }

    /// Returns the changes of units since the last call.
    fn changes_of_units(&self) -> Vec<String> {
        let mut commands = self.machine.commands();
        commands.retain(|line| line.starts_with("systemctl") && !line.contains("daemon-reload"));
        commands
    }

    /// Returns the results with which the hook was completed, and the statuses of the signals, since the last call.
    fn told(&self) -> Vec<String> {
        let requests = self.server.requests();
        let new = requests[self.seen.replace(requests.len())..].iter();
        let told = new.map(|request| format!("{}?{}", request.target, String::from_utf8_lossy(&request.body)));
        let value = |text: &str, name: &str| {
            text.split(['?', '&']).find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
        };
        let all = told.filter_map(|text| value(&text, "LifecycleActionResult").or_else(|| value(&text, "Status")));
        all.collect()
    }
}

/// A service, and a check that it answers.
fn app(pooled: &Pooled, lines: &str) -> String {
    let app = service::app(&service::unit("true", ""), &format!("enabled = true\n{}\n{lines}", service::RUNNING));
    format!("{app}[[resource]]\nkind = \"http_check\"\nurl = \"{}\"\n", pooled.server.url("/health"))
}

#[test]
fn a_machine_takes_no_work_before_it_has_left_the_pool() {
    let pooled = Pooled::new();
    let run = pooled.first_run(&app(&pooled, ""), &[]).expect(0).says("preparing this machine for a warm pool");
    let run = run.says("service app.service: start (deferred: this machine enters a warm pool)");
    let run = run.says("expect 200 (deferred: this machine enters a warm pool)");
    let _ = run.says("completed the lifecycle hook app/converged: CONTINUE");
    assert_eq!(pooled.changes_of_units(), [ENABLE]);
    // A machine that does not serve is counted by no stack.
    assert_eq!(pooled.told(), ["CONTINUE"]);

    pooled.boot("b", "InService");
    let run = pooled.agent(&["run"]).expect(0).says("service app.service: start\n");
    let _ = run.says("completed the lifecycle hook app/converged: CONTINUE");
    let order = ["systemctl start --no-block app.service", "systemctl --quiet enable app.service", DISABLE];
    assert_eq!(pooled.changes_of_units(), order);
    assert_eq!(pooled.told(), ["CONTINUE", "SUCCESS"]);

    pooled.boot("c", "InService");
    let _ = pooled.agent(&["run"]).expect(0).says("converged: 0 changes");
    assert_eq!((pooled.told(), pooled.changes_of_units()), (vec![], vec![]));
}

#[test]
fn a_service_that_commands_need_starts_in_a_warm_pool_too() {
    let pooled = Pooled::new();
    let run = pooled.first_run(&app(&pooled, "warm = true"), &[]).expect(0);
    let _ = run.says("service app.service: start\n").says("service app.service: enable at boot");
    assert_eq!(pooled.told(), ["CONTINUE"]);
}

#[test]
fn a_service_that_runs_already_keeps_running_in_a_warm_pool() {
    let pooled = Pooled::new();
    let declared = service::app(&service::unit("true", ""), service::RUNNING);
    let _ = pooled.machine.run(&declared).expect(0);
    let changed = declared.replace("ExecStart=true", "ExecStart=true again");
    let _ = pooled.first_run(&changed, &[]).expect(0).says("app.service: read unit files again");
    assert_eq!(pooled.machine.unit("app.service")["starts"], 2);
}

#[test]
fn a_failure_before_or_after_the_pool_abandons_the_machine() {
    let pooled = Pooled::new();
    let fails = "[[resource]]\nkind = \"file\"\npath = \"/none/x\"\ncontent = \"\"\n";
    let _ = pooled.first_run(fails, &[]).expect(1).says("completed the lifecycle hook app/converged: ABANDON");
    assert_eq!((pooled.told(), pooled.changes_of_units()), (vec!["ABANDON".into()], vec![]));

    let pooled = Pooled::new();
    let fails = service::app(&service::unit("exit 1", "Type=oneshot"), service::RUNNING);
    let _ = pooled.first_run(&fails, &[]).expect(0);
    assert_eq!(pooled.told(), ["CONTINUE"]);
    pooled.boot("b", "InService");
    let _ = pooled.agent(&["run"]).expect(1).says("completed the lifecycle hook app/converged: ABANDON");
    assert_eq!(pooled.told(), ["FAILURE", "ABANDON"]);
}

#[test]
fn a_reboot_before_the_pool_leaves_the_machine_warmed() {
    let pooled = Pooled::new();
    let mark = pooled.machine.at("run/reboot-required");
    fs::write(&mark, "").unwrap();
    fs::write(format!("{mark}.pkgs"), "libc6\n").unwrap();
    let resources = app(&pooled, "").replace("[[resource]]", "[[step.resource]]");
    let steps =
        format!("[[step]]\nname = \"upgrade\"\nreboot = \"if-required\"\n[[step]]\nname = \"app\"\n{resources}");
    let manifest = pooled.machine.sandbox.write("steps.toml", steps);
    let run = ["run", "--record", "--signal", "app/Group", "--lifecycle-hook", "app/converged", "--steps", &manifest];
    let _ = pooled.agent(&run).expect(143).says("rebooting: ");
    assert_eq!(pooled.changes_of_units(), [ENABLE, "systemctl reboot"]);
    assert!(pooled.told().is_empty());

    // It has had most of its time. The metadata service does not know the state for the moment.
    let note = pooled.machine.sandbox.at("var-lib/glovo-bootstrap/reboot.json");
    let text = fs::read_to_string(&note).unwrap();
    fs::write(&note, text.replace("\"seconds\":8", "\"seconds\":1")).unwrap();
    pooled.boot("b", "");
    let _ = pooled.agent(&["run"]).expect(0).says("start (deferred: this machine enters a warm pool)");
    let owed = fs::read_to_string(pooled.machine.sandbox.at("var-lib/glovo-bootstrap/warm-pool.json")).unwrap();
    assert!(owed.contains("\"seconds\":840"), "the start from the pool has its whole time: {owed}");
    assert_eq!((pooled.told(), pooled.changes_of_units()), (vec!["CONTINUE".into()], vec![]));

    pooled.boot("c", "InService");
    let _ = pooled.agent(&["run"]).expect(0).says("service app.service: start\n");
    assert_eq!(pooled.told(), ["CONTINUE", "SUCCESS"]);
    assert_eq!(pooled.changes_of_units().last().unwrap(), DISABLE);
}

#[test]
fn a_hook_that_does_not_wait_yet_is_completed_later() {
    let pooled = Pooled::new();
    let _ = pooled.first_run(&app(&pooled, ""), &[]).expect(0);
    pooled.boot("b", "InService");
    pooled.early.store(1, Ordering::Relaxed);
    let run = pooled.agent(&["run"]).expect(0).says("app/converged does not wait yet, still trying for 2 min");
    let _ = run.says("completed the lifecycle hook app/converged: CONTINUE");
    assert_eq!(pooled.told(), ["CONTINUE", "CONTINUE", "CONTINUE", "SUCCESS"]);
}

#[test]
fn a_machine_that_converges_again_keeps_its_unit_after_the_pool() {
    let pooled = Pooled::new();
    let _ = pooled.agent(&["status"]);
    pooled.machine.systemctl(&["enable", "glovo-bootstrap.service"]);
    let _ = pooled.first_run(&app(&pooled, ""), &[]).expect(0);
    pooled.boot("b", "InService");
    let _ = pooled.agent(&["run"]).expect(0);
    assert!(!pooled.changes_of_units().contains(&DISABLE.to_owned()));
    assert_eq!(pooled.told(), ["CONTINUE", "CONTINUE", "SUCCESS"]);
}

#[test]
fn machines_that_would_not_run_after_the_pool_are_refused() {
    for state in ["Running", "Hibernated"] {
        let pooled = Pooled::new();
        pooled.boot("a", if state == "Running" { "Warmed:Running" } else { "Warmed:Hibernated" });
        let words = format!("the warm pool keeps machines in the state {state}, in which they do not boot");
        let _ = pooled.first_run("", &[]).expect(2).says(&words).says("hint: set PoolState: Stopped");
        assert_eq!(pooled.told(), ["FAILURE", "ABANDON"]);
    }
    let pooled = Pooled::new();
    let words = "this machine enters a warm pool, and glovo-bootstrap.service could not run the steps when it leaves";
    let steps = pooled.machine.sandbox.manifest("");
    let run = ["run", "--signal", "app/Group", "--lifecycle-hook", "app/converged", "--steps", &steps];
    let _ = pooled.agent(&run).expect(2).says(words).says("hint: record the manifest and its variables");
    assert_eq!(pooled.told(), ["ABANDON"]);
}

#[test]
fn a_machine_of_no_pool_is_not_prepared_for_one() {
    let pooled = Pooled::new();
    pooled.boot("a", "InService");
    let run = pooled.first_run(&app(&pooled, ""), &[]).expect(0).says("service app.service: start\n");
    assert!(!run.stdout.contains("warm pool") && !run.stderr.contains("warm pool"), "{run:?}");
    assert_eq!(pooled.told(), ["CONTINUE", "SUCCESS"]);
    assert!(!pooled.changes_of_units().contains(&ENABLE.to_owned()));
}
