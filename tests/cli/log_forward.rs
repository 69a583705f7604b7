//! The kind `log_forward`. A stand-in for rsyslogd refuses what has the tag `refused`.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use crate::{sandbox::Sandbox, standin::Machine};

const FILE: &str = "etc/rsyslog.d/app.forward";
const UNIT: &str = "etc/systemd/system/log-forward-app.service";
const RESOURCE: &str = r#"[[resource]]
kind = "log_forward"
name = "app"
match = { units = ["app.service"], tags = ["app"] }
target = "logs.example.com:20514"
protocol = "relp"
fields = { build = "42" }
"#;

/// A machine with the package rsyslog.
fn machine() -> Machine {
    let machine = Machine::new();
    fs::create_dir_all(machine.at("etc/rsyslog.d")).unwrap();
    let standin = "#!/bin/sh\necho \"rsyslogd $1 $2\" >> /run/standin/log\n! grep '\"refused\"' \"$3\"\n";
    machine.write("bin/rsyslogd", standin);
    fs::set_permissions(machine.at("bin/rsyslogd"), fs::Permissions::from_mode(0o755)).unwrap();
    machine
}

#[test]
fn a_forward_has_a_configuration_a_unit_and_drop_ins() {
    let machine = machine();
    let plan = machine.plan(RESOURCE).expect(0).says("create /var/lib/rsyslog/app").says("+set $!doc!build = \"42\";");
    let _ = plan.says("create /etc/systemd/system/app.service.d/50-log-forward-app.conf").says("4 changes pending");
    let _ = machine.run(RESOURCE).expect(0).says("converged: 4 changes");
    assert_eq!(machine.commands(), ["rsyslogd -N1 -f"]);
    let mode = fs::metadata(machine.at(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = machine.read(FILE);
    for part in [
        // Of these fields, a program can set all that do not begin with `_`.
        "($!_SYSTEMD_UNIT == \"app.service\" or ($!_PID == \"1\" and $!UNIT == \"app.service\") or \
         ($!_TRANSPORT == \"driver\" and $!MESSAGE_ID == \"a596d6fe7bfa4994828e72309e95d61e\" and \
         $msg contains \" app.service\")",
        "if $!_PID == \"1\" and strlen($!UNIT) > 0 then { set $.unit = $!UNIT; }",
        "or $!SYSLOG_IDENTIFIER == \"app\") then stop",
        "type=\"omrelp\" windowSize=\"32\" target=\"logs.example.com\" port=\"20514\"",
        "queue.maxDiskSpace=\"268435456\"",
        "queue.timeoutEnqueue=\"0\"",
        // A batch larger than the window would wait 200 ms for each window.
        "queue.dequeueBatchSize=\"32\" queue.workerThreads=\"1\") {\n  if $!tick",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("<<") && !text.contains(">>"), "{text}");
    let unit = machine.read(UNIT);
    assert!(unit.contains("\nBefore=app.service\n") && unit.contains("-f /etc/rsyslog.d/app.forward'\n"), "{unit}");
    assert!(unit.contains("$$((0x$${began:-0} / 1000000))") && unit.contains(".\\\\([0-9a-f-]*\\\\)"), "{unit}");
    let limit = machine.read("etc/systemd/system/app.service.d/50-log-forward-app.conf");
    assert!(limit.contains("LogRateLimitBurst=20000"), "{limit}");
    let _ = machine.run(RESOURCE).expect(0).says("converged: 0 changes");
    // Each by itself is drift.
    machine.write(UNIT, "[Service]\n");
    let _ = machine.run(RESOURCE).expect(0).says("write /etc/systemd/system/log-forward-app.service").says("1 change");
    machine.write(FILE, "");
    let _ = machine.run(RESOURCE).expect(0).says("write new content").says("1 change");
}

#[test]
fn a_refused_configuration_replaces_nothing() {
    let machine = machine();
    let _ = machine.run(RESOURCE).expect(0);
    let before = (machine.read(FILE), machine.read(UNIT));
    let refused = RESOURCE.replace("tags = [\"app\"]", "tags = [\"refused\"]");
    let _ = machine.run(&refused).expect(1).says("was not replaced: its validator failed");
    assert_eq!((machine.read(FILE), machine.read(UNIT)), before);
}

#[test]
fn without_rsyslogd_a_plan_fails_as_a_run_does() {
    let machine = machine();
    fs::remove_file(machine.at("bin/rsyslogd")).unwrap();
    // The search path ends with the host's own directories, so an absent name stands for an absent program.
    symlink("/no/such", machine.at("bin/rsyslogd")).unwrap();
    if !fs::exists("/usr/sbin/rsyslogd").unwrap() {
        for verb in ["plan", "run"] {
            let manifest = machine.sandbox.manifest(RESOURCE);
            let _ = machine
                .sandbox
                .run(&[verb, "--steps", &manifest])
                .expect(1)
                .says("the program `rsyslogd` is not installed");
        }
    }
}

#[test]
fn declared_texts_cannot_leave_their_quotes() {
    let machine = machine();
    let odd = RESOURCE.replace("build = \"42\"", "build = 'a\" \\ $x << >> {{{{ \"'");
    let _ = machine.run(&odd).expect(0);
    let text = machine.read(FILE);
    assert!(text.contains("set $!doc!build = \"a\\\" \\\\ \\$x << >> {{ \\\"\";\n"), "{text}");
}

#[test]
fn a_service_that_is_no_longer_matched_loses_its_drop_in() {
    let machine = machine();
    let two = RESOURCE.replace("[\"app.service\"]", "[\"app.service\", \"web.service\"]");
    let _ = machine.run(&two).expect(0);
    let web = "etc/systemd/system/web.service.d/50-log-forward-app.conf";
    let others = ["web.service.d/50-log-forward-apps.conf", "web.service.d/50-limits.conf"];
    for other in others {
        machine.write(&format!("etc/systemd/system/{other}"), "[Service]\n");
    }
    let planned = machine.plan(RESOURCE).expect(0).says(&format!("remove /{web}"));
    assert!(!planned.stdout.contains("remove /etc/systemd/system/app"), "{}", planned.stdout);
    let _ = machine.run(RESOURCE).expect(0).says(&format!("remove /{web}"));
    assert!(!fs::exists(machine.at(web)).unwrap());
    for other in others.into_iter().chain(["app.service.d/50-log-forward-app.conf"]) {
        assert!(fs::exists(machine.at(&format!("etc/systemd/system/{other}"))).unwrap(), "{other}");
    }
    let _ = machine.run(RESOURCE).expect(0).says("converged: 0 changes");
}

#[test]
fn a_password_is_neither_shown_nor_in_an_image() {
    let machine = machine();
    let resource = RESOURCE.replace("logs.example.com:20514", "https://logs.example.com:9200").replace(
        "protocol = \"relp\"",
        "protocol = \"elasticsearch\"\nuser = \"app\"\npassword = \"hunter2\"\nindex = \"web\"",
    );
    let plan = machine.plan(&resource).expect(0);
    assert!(!(plan.stdout + &plan.stderr).contains("hunter2"));
    let _ = machine.run(&resource).expect(0);
    let text = machine.read(FILE);
    assert!(text.contains(" uid=\"app\" pwd=\"hunter2\"") && text.contains("string=\"web-%$"), "{text}");
    let refused = resource.replace("units = [\"app.service\"], tags = [\"app\"]", "tags = [\"refused\"]");
    let failed = machine.run(&refused).expect(1).says("its output is not shown, because the file is a secret");
    assert!(!(failed.stdout + &failed.stderr).contains("hunter2"));
    let tree = Sandbox::new();
    let manifest = tree.manifest(&resource);
    fs::create_dir_all(tree.at("tree/etc/rsyslog.d")).unwrap();
    let baked = tree.run(&["run", "--phase", "bake", "--steps", &manifest, "--root", &tree.at("tree")]).expect(0);
    let _ = baked.says("a secret does not go into an image");
    assert!(!fs::exists(tree.at("tree/etc/rsyslog.d/app.forward")).unwrap());
}

#[test]
fn what_the_manifest_shows_is_refused_by_validate() {
    let sandbox = Sandbox::new();
    let tls = "tls = { ca = \"/ca\" }\nname = \"app\"";
    let elasticsearch = "protocol = \"elasticsearch\"";
    for (from, to, words) in [
        ("name = \"app\"", "name = \"../app\"", "is not the name of a forward"),
        ("units = [\"app.service\"], tags = [\"app\"]", "", "no unit and no tag is declared"),
        ("tags = [\"app\"]", "tags = [\"\"]", "a tag is empty or has a control character"),
        ("units = [\"app.service\"]", "units = [\"app@.service\"]", "app@.service is a template, which logs nothing"),
        (
            "units = [\"app.service\"]",
            "units = [\"log-forward-app\"]",
            "log-forward-app.service is the forwarder itself",
        ),
        ("tags = [\"app\"]", "tags = [\"log_forward\"]", "the tag log_forward is that of the forwarder's"),
        ("logs.example.com:20514", "logs.example.com", "the target is not HOST:PORT"),
        ("logs.example.com:20514", "logs.example.com:0", "the target is not HOST:PORT"),
        ("logs.example.com:20514", "a\\\" x:1", "the target is not HOST:PORT"),
        ("protocol = \"relp\"", elasticsearch, "the target is not a URL without a path"),
        ("protocol = \"relp\"", "protocol = \"udp\"", "`udp` is not one of `"),
        ("build = \"42\"", "message = \"42\"", "`message` cannot be the name of a field"),
        ("build = \"42\"", "\"Build\" = \"42\"", "is not the name of a field"),
        ("build = \"42\"", "build = \"a\\nb\"", "a value has a control character"),
        ("name = \"app\"", "queue = \"1MiB\"\nname = \"app\"", "a queue has at least 16 MiB"),
        ("name = \"app\"", "continuation = \"\"\nname = \"app\"", "the expression is empty"),
        ("name = \"app\"", "index = \"A\"\nname = \"app\"", "is not the name of an index"),
        ("name = \"app\"", tls, "`relp` and `tcp` with TLS need `certificate` and `key`"),
        ("name = \"app\"", "user = \"a\"\nname = \"app\"", "`user` and `password` belong together"),
        ("name = \"app\"", "user = \"a\"\npassword = \"b\"\nname = \"app\"", "only `elasticsearch` has a user"),
    ] {
        let resource = RESOURCE.replace(from, to);
        assert_ne!(resource, RESOURCE, "{from}");
        let manifest = sandbox.manifest(&resource);
        let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says(words);
    }
    let http = RESOURCE.replace("logs.example.com:20514", "http://logs.example.com:9200");
    let http = http.replace("protocol = \"relp\"", "protocol = \"elasticsearch\"\nuser = \"a\"\npassword = \"b\"");
    let manifest = sandbox.manifest(&http);
    let validated = sandbox.run(&["validate", "--steps", &manifest]).expect(2);
    let _ = validated.says("others in the network could read the password over http");
}

#[test]
fn the_collectors_manifest_is_valid() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/log-collector/collector.toml");
    let _ = Sandbox::new().run(&["validate", "--steps", manifest]).expect(0);
}

#[test]
fn the_built_in_step_is_off_until_it_is_switched_on() {
    let machine = machine();
    machine.write("etc/os-release", "ID=debian\n");
    let plan = |given: &[&str]| {
        let step = ["plan", "ship_logs", "--steps", "built-in"];
        machine.sandbox.run(&[&step[..], given].concat())
    };
    let _ = plan(&[]).expect(0).says("not here: log_shipping is off").says("0 changes pending");
    let on = ["--set", "log_shipping=on", "--set", "log_target=nowhere", "--set", "instance.id=i-1"];
    let refused = plan(&[&on[..], &["--set", "instance.availability_zone=eu-central-1a"]].concat()).expect(2);
    let _ = refused.says("the target is not HOST:PORT");
    let _ = plan(&["--set", "log_shipping=on"]).expect(2).says("variable `log_target` is not set");
    let _ = plan(&["--set", "log_shipping=true"]).expect(2).says("variable `log_shipping` is neither `on` nor `off`");
    // `deploy` sets the number of the build; without it, the version of the application stands for it.
    let plan_of = |given: &[&str]| {
        let zone = "instance.availability_zone=eu-central-1a";
        let fixed = ["--set", "log_shipping=on", "--set", "log_target=a:1", "--set", "instance.id=i-1", "--set", zone];
        // The sandbox has no package manager.
        plan(&[&fixed[..], given].concat()).expect(1)
    };
    let _ = plan_of(&["--set", "app_version=2.1.0"]).says("+set $!doc!build = \"2.1.0\";");
    let _ = plan_of(&["--set", "app_version=2.1.0", "--set", "build_number=42"]).says("+set $!doc!build = \"42\";");
    for file in ["log-ca.pem", "log.pem", "log.key"] {
        let _ = plan_of(&[]).says(&format!("`restart_on` names /etc/glovo-app/{file}, which does not exist"));
    }
}

#[test]
fn its_service_waits_for_the_boot_as_it_does() {
    let machine = machine();
    let service = "[[resource]]\nkind = \"service\"\nname = \"log-forward-app\"\nenabled = true\nrunning = true\n";
    let resources = RESOURCE.replace("\"42\"", "\"42\", instance = \"{{ instance.id }}\"") + service;
    let manifest = machine.sandbox.manifest(&resources);
    let plan = machine.sandbox.run(&["plan", "--phase", "bake", "--steps", &manifest]).expect(0);
    let _ = plan.says("each instance has its own instance.id").says("its unit file is left to the boot");
}
