//! Machines that run the steps again at each boot and every hour, and those that run them once.

use crate::{operator::Operator, role::deploy, tape::changes};

const STEPS: &str = "[[resource]]\nkind = \"file\"\npath = \"/etc/a\"\ncontent = \"\"\n";

fn template(operator: &Operator) -> String {
    operator.world(|world| world.template.clone())
}

#[test]
fn machines_run_the_steps_again_and_plan_says_so() {
    let again = "\nthe machines run the steps again at each boot and every hour\n";
    for strategy in ["blue-green", "compatible", "weighted-dns"] {
        let operator = if strategy == "weighted-dns" { Operator::of_two_stacks() } else { Operator::new() };
        let _ = deploy(&operator, "plan", "1", STEPS, &["--strategy", strategy]).expect(0).says(again);
    }
    let operator = Operator::new();
    let _ = deploy(&operator, "create-stack", "1", STEPS, &[]).expect(0).says(again);
    let failures = "--failures s3://artifacts/glovo-app.failures";
    let run = format!("run --record --signal glovo-app/BlueGroup {failures} --converge --steps ");
    assert!(template(&operator).contains(&run));
}

#[test]
fn a_flag_or_the_settings_file_turns_later_runs_off() {
    let once = "\nthe machines run the steps once (converge = false)\n";
    let operator = Operator::new();
    let _ = deploy(&operator, "create-stack", "1", STEPS, &["--converge", "false"]).expect(0).says(once);
    assert!(!template(&operator).contains("--converge"));
    let _ = operator.sandbox.write("deploy.toml", "converge = false\n");
    let _ = deploy(&operator, "plan", "1", STEPS, &[]).expect(0).says("no changes");
    let _ = deploy(&operator, "plan", "2", STEPS, &[]).expect(0).says(once);
    let on = deploy(&operator, "plan", "2", STEPS, &["--converge", "true"]).expect(0);
    let _ = on.says("\nthe machines run the steps again at each boot and every hour\n");
}

#[test]
fn user_data_of_the_operators_own_says_nothing_of_later_runs() {
    let operator = Operator::new();
    let planned = operator.deploy(&["plan"], &[]).expect(0);
    assert!(!planned.stdout.contains("the machines run the steps"), "{planned:?}");
}

#[test]
fn a_step_that_may_reboot_serving_machines_is_noted() {
    let operator = Operator::new();
    let resource = STEPS.replace("[[resource]]", "[[step.resource]]");
    let steps = format!("[[step]]\nname = \"upgrade\"\nreboot = \"if-required\"\n{resource}");
    let steps = operator.sandbox.write("own.toml", steps);
    let note = "note: step upgrade may reboot a serving machine in any of its hourly runs";
    for (converge, times) in [("true", 1), ("false", 0)] {
        let arguments = operator.with_agent(&["plan", "--steps", &steps, "--converge", converge]);
        let arguments: Vec<&str> =
            arguments.iter().map(String::as_str).take_while(|argument| *argument != "--set").collect();
        let said = operator.deploy(&arguments, &[("CLOUD_INIT_PATH", "")]).expect(0).stdout;
        assert_eq!(said.matches(note).count(), times, "{converge}: {said}");
    }
}

#[test]
fn a_login_that_serves_one_run_only_needs_machines_of_one_run() {
    let steps = "
[vault]
address = \"https://vault.example.com\"
login = { method = \"approle\", role_id = \"a\", wrapped_secret_id_file = \"/root/id\" }
[[resource]]
kind = \"file\"
path = \"/etc/a\"
source = \"vault://kv/a#b\"
";
    let operator = Operator::new();
    let refused = deploy(&operator, "create-stack", "1", steps, &[]).expect(2);
    let _ = refused.says("a wrapped secret id serves the first run only").says("in deploy.toml: converge = false");
    assert!(changes(&operator.calls()).is_empty());
    let _ = deploy(&operator, "create-stack", "1", steps, &["--converge", "false"]).expect(0);
}
