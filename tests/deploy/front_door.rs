//! The first minutes with `deploy`: what is said about settings that are missing, wrong or given twice.

use std::path::Path;

use crate::{operator::Operator, sandbox::Finished, tape::of};

const NO_USER_DATA: (&str, &str) = ("CLOUD_INIT_PATH", "");

fn render(operator: &Operator, arguments: &[&str]) -> Finished {
    operator.deploy(&[&["render"], arguments].concat(), &[NO_USER_DATA])
}

fn settings(operator: &Operator, text: &str) {
    let _ = operator.sandbox.write("deploy.toml", text);
}

fn user_data(operator: &Operator) -> String {
    std::fs::read_to_string(operator.sandbox.at("user-data")).unwrap()
}

/// Returns settings with which the built-in steps can be rendered.
fn complete(operator: &Operator) -> String {
    let agent = operator.with_agent(&[]);
    let agent = agent.iter().skip_while(|argument| *argument != "--agent").nth(1).unwrap();
    format!(
        "bucket = 'artifacts'\nagent = '{agent}'\nset = {{ jar_url = 'https://a.test/a.jar', jar_sha256 = '{:064}' }}\n",
        7
    )
}

#[test]
fn deploy_toml_can_name_the_stack() {
    let operator = Operator::new();
    settings(&operator, &format!("stack = 'notes'\n{}", complete(&operator)));
    let _ = render(&operator, &[]).expect(0).says("stack: notes");
    assert!(user_data(&operator).contains("--signal notes/BlueGroup"), "{}", user_data(&operator));
    let _ = render(&operator, &["--stack", "other"]).expect(0).says("stack: other");
    assert!(user_data(&operator).contains("--signal other/BlueGroup"));
}

#[test]
fn without_deploy_toml_the_directory_and_the_stack_are_named() {
    let operator = Operator::new();
    let told = operator.deploy(&["rollback", "--yes"], &[("AWS_REGION", "")]).expect(2);
    let here = std::fs::canonicalize(&operator.sandbox.path).unwrap();
    let _ = told.says(&format!("no deploy.toml in {}", here.display())).says("stack: glovo-app");
}

#[test]
fn a_name_that_is_set_twice_is_refused() {
    let operator = Operator::new();
    let _ = operator.sandbox.write("app.jar", "jar");
    settings(&operator, &(complete(&operator) + "file = { jar = 'app.jar' }\n"));
    let told = render(&operator, &[]).expect(2);
    let _ = told.says("the variables jar_sha256, jar_url are set twice").says("--set").says("--file");
    settings(&operator, &complete(&operator));
    let _ =
        render(&operator, &["--set", "app_version=1", "--set", "app_version=2"]).expect(2).says("--set app_version");
    let _ = render(&operator, &["--set", "jar_url=https://b.test/b.jar"]).expect(0);
    let script = user_data(&operator);
    assert!(script.contains("https://b.test/b.jar") && !script.contains("https://a.test/a.jar"), "{script}");
}

#[test]
fn render_says_all_faults_at_once() {
    let operator = Operator::new();
    let told = render(&operator, &["--file", "logo=none.png"]).expect(2);
    let here = std::fs::canonicalize(&operator.sandbox.path).unwrap();
    let _ = told
        .says("no bucket is given")
        .says("is not static")
        .says(&format!("none.png does not exist in {}", here.display()))
        .says("`jar_url`")
        .says("`jar_sha256`");
}

#[test]
fn render_refuses_a_parameter_that_the_template_lacks() {
    let operator = Operator::new();
    let with =
        |parameter: &str| settings(&operator, &format!("parameter = {{ {parameter} }}\n{}", complete(&operator)));
    with("WarmPoolSize = '2'");
    let told = render(&operator, &[]).expect(2);
    let _ = told.says("the template of the strategy blue-green has no parameter WarmPoolSize");
    let _ = render(&operator, &["--strategy", "instance-refresh"]).expect(0);
    with("HealthCheckPath = '/health'");
    let _ = render(&operator, &[]).expect(0);
}

#[test]
fn a_dynamic_program_is_refused_for_machines() {
    let operator = Operator::new();
    let mut program = [0; 64];
    program[..4].copy_from_slice(b"\x7fELF");
    program[18] = 0x3e;
    program[40..47].copy_from_slice(b"/ld-lin");
    let _ = operator.sandbox.write("dynamic", program);
    settings(&operator, &complete(&operator));
    let _ = render(&operator, &["--agent", "dynamic"]).expect(2).says("dynamic is not static");
}

#[test]
fn exported_steps_get_the_variables_of_the_built_in_ones() {
    let operator = Operator::new();
    let mut export = operator.sandbox.command(&["steps", "export", "my-steps"]);
    let _ = Finished::from(export.current_dir(&operator.sandbox.path).output().unwrap()).expect(0);
    assert!(Path::new(&operator.sandbox.at("my-steps")).is_dir());
    settings(&operator, &format!("steps = 'my-steps'\n{}", complete(&operator)));
    let _ = render(&operator, &[]).expect(0);
    let script = user_data(&operator);
    for name in ["config_bucket=artifacts/glovo-app/config/", "nginx_site_sha256=", "unit_sha256="] {
        assert!(script.contains(name), "{name}: {script}");
    }
}

#[test]
fn a_comma_list_may_be_a_list() {
    let operator = Operator::new();
    settings(&operator, "subnets = ['subnet-a', 'subnet-b']\nsecurity_groups = ['sg-1', 'sg-2']\n");
    let _ = operator.deploy(&["plan"], &[("SUBNETS", "")]).expect(0);
    let calls = operator.calls();
    let made = of(&calls, "CreateChangeSet")[0];
    assert_eq!(made.parameter("Subnets"), Some("subnet-a,subnet-b"));
    assert_eq!(made.parameter("SecurityGroup"), Some("sg-1,sg-2"));
}

#[test]
fn times_may_have_several_units() {
    let operator = Operator::new();
    settings(&operator, &format!("{}keep_for = '1h30m'\nwatch = '1m30s'\n", complete(&operator)));
    let _ = render(&operator, &[]).expect(0);
    settings(&operator, "keep_for = '15'\n");
    let _ = render(&operator, &[]).expect(2).says("needs a unit");
}

#[test]
fn a_new_stack_gets_the_newest_image_and_a_type_with_credits() {
    let operator = Operator::new();
    let _ =
        operator.deploy(&["create-stack", "--yes"], &[("BUILD_NUMBER", "1")]).expect(0).says("ami-24 is the present");
    let made = of(&operator.calls(), "CreateChangeSet")[0].clone();
    for (name, value) in [("BlueAMIId", "ami-24"), ("BlueInstanceType", "t3.micro"), ("BlueCpuCredits", "standard")] {
        assert_eq!(made.parameter(name), Some(value), "{name}");
    }
    // A newer image is of a new stack only.
    operator.world(|world| world.stores.images.clear());
    operator.content("2");
    let _ = operator.update("2").expect(0);
    assert_eq!(operator.parameter("GreenAMIId"), "ami-24");
    assert!(of(&operator.calls(), "GetParameter").is_empty());
}

#[test]
fn an_image_named_by_a_parameter_is_read_once_for_each_build() {
    let operator = Operator::new();
    let name = "/our/golden-image";
    let set = |ami| {
        let _ = operator.world(|world| world.stores.images.insert(name.into(), ami));
    };
    set("ami-3");
    settings(&operator, &format!("ami = 'resolve:ssm:{name}'\npause = '0s'\nkeep_for = '0s'\n"));
    let deploy = |build| operator.deploy(&["update-stack", "--yes"], &[("BUILD_NUMBER", build)]);
    let _ = deploy("1").expect(0).says("AMI ami-3 is the present value of /our/golden-image");
    set("ami-24");
    let _ = deploy("1").expect(0).says("no changes");
    let _ = deploy("2").expect(0);
    assert_eq!((operator.parameter("BlueAMIId"), operator.parameter("GreenAMIId")), ("ami-3".into(), "ami-24".into()));
    operator.world(|world| world.stores.images.clear());
    let _ = deploy("3").expect(2).says("AMI of the parameter /our/golden-image: ParameterNotFound");
}

#[test]
fn the_zones_of_the_subnets_must_offer_the_instance_type() {
    let operator = Operator::new();
    operator.world(|world| world.offering = vec!["eu-central-1a"]);
    let told = operator.deploy(&["plan"], &[]).expect(2);
    let _ = told.says("instance type t3.micro: not offered in eu-central-1b (choose other subnets)");
}

#[test]
fn an_image_with_an_old_systemd_and_one_without_the_program_are_told() {
    let operator = Operator::new();
    let _ = operator.world(|world| world.images.insert("ami-18", ("x86_64", "ubuntu-bionic-18.04")));
    let plan = operator.with_agent(&["plan", "--ami", "ami-18"]);
    let plan: Vec<&str> = plan.iter().map(String::as_str).collect();
    let _ = operator.deploy(&plan, &[NO_USER_DATA]).expect(0).says("suggests systemd 237");
    let once = operator.deploy(&[&plan[..], &["--converge", "false"]].concat(), &[NO_USER_DATA]).expect(0);
    assert!(!once.stdout.contains("systemd"), "{once:?}");
    let baked = operator.with_agent(&["plan", "--baked"]);
    let baked: Vec<&str> = baked.iter().map(String::as_str).collect();
    let _ = operator.deploy(&baked, &[NO_USER_DATA]).expect(2).says("its image must hold the program");
}
