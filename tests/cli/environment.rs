//! The kind `environment`: what a service gets at its start. `tests/machine` has its credentials and a real systemd.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::{
    service::{file, service, unit},
    standin::Machine,
};

const FILE: &str = "etc/systemd/system/app.service.d/50-glovo-bootstrap.env";
const DROP_IN: &str = "etc/systemd/system/app.service.d/50-glovo-bootstrap-environment.conf";

/// A unit that notes its environment, with these fields of its environment.
fn app(fields: &str) -> String {
    let start = "test ! -e /FILE || . /FILE; test \"$MODE\" != bad && echo \"$MODE\" > /run/standin/mode";
    file("/etc/systemd/system/app.service", &unit(&start.replace("FILE", FILE), ""))
        + &format!("[[resource]]\nkind = \"environment\"\nname = \"app\"\n{fields}\n")
        + &service("running = true\nstable = \"0s\"")
}

#[test]
fn a_service_gets_its_variables_and_restarts_for_others() {
    let machine = Machine::new();
    let starts = || machine.unit("app.service")["starts"].clone();
    let first = app("variables = { MODE = 'one \"two\" $three `four` \\', PORT = 8080, DEBUG = false }");
    let planned = machine.plan(&first).expect(0).says("\n      +MODE\n").says("\n      +PORT\n");
    assert!(!planned.stdout.contains("two") && !planned.stdout.contains("8080"), "{}", planned.stdout);
    let _ = planned.says("app.service: create /etc/systemd/system/app.service.d/50-glovo-bootstrap-environment.conf");
    let _ = machine.run(&first).expect(0);
    assert_eq!(machine.read("run/standin/mode"), "one \"two\" $three `four` \\\n");
    assert!(machine.read(FILE).ends_with("PORT=\"8080\"\n") && machine.read(FILE).contains("\nDEBUG=\"false\"\n"));
    assert_eq!(fs::metadata(machine.at(FILE)).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(machine.read(DROP_IN).ends_with(&format!("[Service]\nEnvironmentFile=/{FILE}\n")));
    let _ = machine.run(&first).expect(0).says("converged: 0 changes");
    assert_eq!(starts(), 1);

    // A list is the same as a table.
    let second = app("variables = ['MODE=a=b # c', 'PORT=8080', 'DEBUG=false']");
    // The file is private, so no value is shown, of before or after.
    let planned = machine.plan(&second).expect(0).says("app.service: restart: ").says("\n      -MODE\n      +MODE\n");
    for hidden in ["one", "two", "a=b", "PORT", "8080"] {
        assert!(!planned.stdout.contains(hidden), "{hidden} in {}", planned.stdout);
    }
    let _ = machine.run(&second).expect(0).says("50-glovo-bootstrap.env has changed since its start");
    assert_eq!((machine.read("run/standin/mode").as_str(), starts()), ("a=b # c\n", 2.into()));

    let none = app("variables = []");
    let _ = machine.run(&none).expect(0).says("remove /etc/systemd/system/app.service.d/50-glovo-bootstrap.env");
    assert!(!fs::exists(machine.at(FILE)).unwrap() && !fs::exists(machine.at(DROP_IN)).unwrap());
    assert_eq!((machine.read("run/standin/mode").as_str(), starts()), ("\n", 3.into()));
    let again = machine.run(&none).expect(0).says("environment app.service: not here: it has no variables");
    let _ = again.says("converged: 0 changes");
}

#[test]
fn variables_that_a_service_refuses_are_put_back() {
    let machine = Machine::new();
    let _ = machine.run(&app("variables = ['MODE=good']")).expect(0);
    let refused = machine.run(&app("variables = ['MODE=bad', 'MORE=1']")).expect(1);
    let _ = refused.says("put back: ").says("50-glovo-bootstrap.env").says("app.service runs again");
    assert!(machine.read(FILE).contains("MODE=\"good\"") && !machine.read(FILE).contains("MORE"));
    let _ = machine.run(&app("variables = ['MODE=good']")).expect(0).says("converged: 0 changes");
}

#[test]
fn what_cannot_be_an_environment_is_refused_with_its_place() {
    let machine = Machine::new();
    let secret = machine.sandbox.write("token", "canary\n");
    for (fields, words) in [
        ("variables = ['A-B=1']", "`A-B` is not the name of an environment variable"),
        ("variables = ['A=1', 'A=2']", "`A` is declared twice"),
        ("variables = ['canary']", "an element has no `=`"),
        ("variables = { A = \"canary\\r\" }", "the value of `A` has a control character"),
        ("variables = { A = ['canary'] }", "expected a string"),
        ("variables = { A = 1.10 }", "expected a string, found 1.1\n"),
        ("variables = { A = 1.10 }", "hint: write the value in quotes"),
        ("variables = { DB_KEY = 'ssm:///app/key' }", "hint: name it in `credentials`: credentials = { db_key ="),
        (
            "variables = { TOKEN = '{{ token }}' }",
            "`variables` holds the secret `token`, which each program that the service starts would inherit",
        ),
        ("credentials = { 'a/b' = 'ssm:///a' }", "`a/b` is not the name of a credential"),
        ("credentials = ['a=file:///etc/passwd']", "`file` is no store of secrets"),
        ("credentials = { a = 'ssm:///a', b = 'ssm://' }", "ssm://"),
        ("credentials = ['a=ssm:///a', 'a=ssm:///b']", "two resources manage /run/glovo-bootstrap/credentials/a"),
    ] {
        let manifest = machine.sandbox.manifest(&app(fields));
        let arguments = ["validate", "--steps", &manifest, "--set-secret-file", &format!("token={secret}")];
        let refused = machine.sandbox.run(&arguments).expect(2).says(words).says("manifest.toml:");
        assert!(!refused.stderr.contains("canary\n") || fields.contains("canary"), "{}", refused.stderr);
    }
    // Each of several, with its name.
    let three = app("[resource.credentials]\na = 'http://x'\n'b/c' = 'ssm:///b'\nd = 'ssm://a/b'\ne = 'ssm:///e'");
    let refused = machine.plan(&three).expect(2).says("`credentials`: `a`: `http` is no store of secrets");
    let refused =
        refused.says("`credentials`: `b/c`: ").says("`credentials`: `d`: the name of a parameter with a path");
    let _ = refused.says("hint: write NAME = \"ssm:///PATH\"").says("manifest.toml:15:1").says("3 faults");
    let socket = app("").replacen("name = \"app\"", "name = \"app.socket\"", 1);
    let _ = machine.plan(&socket).expect(2).says("`app.socket` is not a service");
    let named = machine.plan(&app("variables = { DB_PASSWORD = 'x' }")).expect(0);
    let named = named.says("warning: `DB_PASSWORD` has the name of a secret");
    let _ = named.says("credentials = { db_password = \"ssm:///PATH\" }");
}

#[test]
fn a_service_before_what_it_gets_at_its_start_is_told() {
    let machine = Machine::new();
    let environment = "[[resource]]\nkind = \"environment\"\nname = \"app\"\nvariables = { A = \"1\" }\n";
    let forward = "[[resource]]\nkind = \"log_forward\"\nname = \"app\"\nmatch = { units = [\"app.service\"] }\n\
                   target = \"logs:20514\"\nprotocol = \"relp\"\n";
    let forwarder = service("running = true").replace("\"app\"", "\"log-forward-app\"");
    let validate = |resources: &str| {
        let manifest = machine.sandbox.manifest(resources);
        machine.sandbox.run(&["validate", "--steps", &manifest]).expect(0)
    };
    let app = service("running = true");
    for (late, early, name) in [
        (environment, &app, "app.service is declared before environment app.service"),
        (forward, &app, "app.service is declared before log_forward app"),
        (forward, &forwarder, "log-forward-app.service is declared before log_forward app"),
    ] {
        let told = validate(&format!("{early}{late}")).says(&format!("warning: {name}, which it needs at its start"));
        let _ = told.says("hint: move the service down: ");
        assert!(!validate(&format!("{late}{early}")).stderr.contains("declared before"));
    }
    assert!(!validate(&(service("running = false") + environment)).stderr.contains("declared before"));
}

#[test]
fn a_service_has_one_state() {
    let machine = Machine::new();
    for (one, other, field) in [
        ("running = true", "running = false", Some("running")),
        ("enabled = true\nrunning = true", "enabled = false", Some("enabled")),
        ("running = true", "masked = true", Some("masked")),
        ("running = true", "enabled = true\nrunning = true", None),
    ] {
        let manifest = machine.sandbox.manifest(&(service(one) + &service(other)));
        let validated = machine.sandbox.run(&["validate", "--steps", &manifest]);
        let Some(field) = field else {
            let _ = validated.expect(0);
            continue;
        };
        let refused = validated.expect(2).says(&format!("two resources declare another `{field}` of app.service"));
        let _ = refused.says("hint: keep only one of the two: the first one is at ");
    }
    let other = service("running = false") + "where = { \"host.family\" = \"redhat\" }\n";
    let this = service("running = true") + "where = { \"host.family\" = \"debian\" }\n";
    let manifest = machine.sandbox.manifest(&(this + &other));
    let _ = machine.sandbox.run(&["validate", "--steps", &manifest]).expect(0);
}

#[test]
fn the_built_in_step_does_nothing_until_it_is_set() {
    let machine = Machine::new();
    machine.write("etc/os-release", "ID=debian\nVERSION_ID=\"13\"\n");
    let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let sets = ["jar_url=https://a.example.com/a.jar", &format!("jar_sha256={digest}"), "config_bucket=b"];
    let with = |verb: &str, more: &[&str]| {
        let sets = sets.iter().chain(more).flat_map(|set| ["--set", set]);
        let mut arguments = vec![verb, "--steps", "built-in"];
        if verb != "validate" {
            arguments.push("application_environment");
        }
        machine.sandbox.run(&arguments.into_iter().chain(sets).collect::<Vec<_>>())
    };
    let _ = with("validate", &[]).expect(0);
    let _ = with("plan", &[]).expect(0).says("not here: it has no variables and no credentials");
    let set = ["app_environment=[\"LOG_LEVEL=info\"]", "app_credentials=[\"db=ssm:///app/db?version=7\"]"];
    let _ = with("validate", &set).expect(0);
    let planned = with("plan", &set[..1]).expect(0).says("+LOG_LEVEL\n");
    let _ = planned.says("+EnvironmentFile=/etc/systemd/system/glovo-app.service.d/50-glovo-bootstrap.env");
    // One text is a list of one.
    let _ = with("validate", &["app_environment=LOG_LEVEL=info"]).expect(0);
    // A table has values by distribution.
    for table in ["app_environment = { LOG_LEVEL = \"info\" }", "app_credentials = { db = \"ssm:///db\" }"] {
        let variables = machine.sandbox.write("variables.toml", format!("{table}\n"));
        let arguments = ["validate", "--steps", "built-in", "--variables", &variables];
        let refused = machine.sandbox.run(&arguments).expect(2).says("is not a distribution or family");
        let _ = refused.says("for names with values, write a list: NAME = [\"KEY=VALUE\"]");
    }
    let refused = with("validate", &["app_environment=[\"DB=ssm:///app/db\"]"]).expect(2);
    let _ = refused.says("62-application_environment.toml:8").says("is the source of a secret");
}
