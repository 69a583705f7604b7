//! Runs on this host's own kernel, in a sandbox: locks, signals, hostile files.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::{Command, Stdio},
};

use crate::{
    racer::Racer,
    sandbox::{Finished, Sandbox, eventually, is_alive},
};

/// A file whose validator writes its pid to `validator.pid` and then does something.
fn with_validator(sandbox: &Sandbox, script: &str) -> String {
    let pid = sandbox.at("validator.pid");
    let (path, script) = (sandbox.at("file"), format!("echo $$ > {pid}; : {{}}; {script}"));
    sandbox.manifest(&format!(
        "[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"new\"\nvalidate = [\"sh\", \"-c\", '{script}']\n"
    ))
}

fn validator_pid(sandbox: &Sandbox) -> String {
    eventually("the validator runs", || {
        fs::read_to_string(sandbox.at("validator.pid")).is_ok_and(|pid| pid.ends_with('\n'))
    });
    fs::read_to_string(sandbox.at("validator.pid")).unwrap().trim().to_owned()
}

#[test]
fn a_second_run_names_the_first_and_exits_4() {
    let sandbox = Sandbox::new();
    let manifest = with_validator(&sandbox, &format!("while [ ! -e {} ]; do sleep 0.05; done", sandbox.at("go")));
    let mut first = sandbox.start(&["run", "--steps", &manifest, "--set", "token=s3cret"]);
    let _ = validator_pid(&sandbox);
    let second = sandbox.run(&["run", "--steps", &manifest]).expect(4).says("another run holds this machine: pid ");
    let second = second.says("run --steps").says("token=…").says("status --wait");
    assert!(!second.stderr.contains("s3cret"));
    let _ = sandbox.run(&["status"]).expect(4).says("running: pid");
    fs::write(sandbox.at("go"), "").unwrap();
    let _ = sandbox.run(&["status", "--wait"]).expect(0).says("converged");
    assert!(first.wait().unwrap().success());
    // The lock's file stays. Only its lock is released.
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0);
}

#[test]
fn sigterm_stops_the_children_and_leaves_a_report() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.at("file"), "old").unwrap();
    // This is a child of the child. It must not survive, either.
    let manifest = with_validator(&sandbox, &format!("sleep 1000 & echo $! > {}; wait", sandbox.at("grandchild.pid")));
    let run = sandbox.start(&["run", "--steps", &manifest]);
    let validator = validator_pid(&sandbox);
    eventually("the grandchild runs", || {
        fs::read_to_string(sandbox.at("grandchild.pid")).is_ok_and(|pid| pid.ends_with('\n'))
    });
    let grandchild = fs::read_to_string(sandbox.at("grandchild.pid")).unwrap().trim().to_owned();
    assert!(is_alive(&validator) && is_alive(&grandchild));
    assert!(Command::new("kill").args(["-TERM", &run.id().to_string()]).status().unwrap().success());
    let finished = Finished::from(run.wait_with_output().unwrap()).expect(143);
    let _ = finished.says("/file: stopped").says("step 1/1 step: stopped").says("stopped by SIGTERM after 0 changes");
    assert!(!is_alive(&validator));
    eventually("the grandchild ends", || !is_alive(&grandchild));
    assert_eq!(fs::read_to_string(sandbox.at("file")).unwrap(), "old");
    let names: Vec<_> = fs::read_dir(&sandbox.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".glovo-bootstrap")), "{names:?}");
    let report = sandbox.report();
    assert_eq!((&report["exit_code"], &report["outcome"]), (&143.into(), &"stopped".into()));
    assert_eq!(report["steps"][0]["outcome"], "stopped");
    assert_eq!(report["steps"][0]["resources"][0]["outcome"], "stopped");
    let status = sandbox.run(&["status"]).expect(143).says("step  stopped").says("stopped by SIGTERM after");
    assert!(!status.stdout.contains("failed with exit code"), "{}", status.stdout);
}

#[test]
fn a_child_that_ignores_sigterm_is_killed() {
    let sandbox = Sandbox::new();
    let manifest = with_validator(&sandbox, "trap \"\" TERM; while :; do sleep 1; done");
    let mut run = sandbox.start(&["run", "--steps", &manifest]);
    let validator = validator_pid(&sandbox);
    assert!(Command::new("kill").args(["-TERM", &run.id().to_string()]).status().unwrap().success());
    eventually("the child is killed", || !is_alive(&validator));
    assert_eq!(run.wait().unwrap().code(), Some(143));
    assert!(!fs::exists(sandbox.at("file")).unwrap());
}

#[test]
fn a_lost_terminal_does_not_end_a_run() {
    let sandbox = Sandbox::new();
    let manifest = with_validator(&sandbox, &format!("while [ ! -e {} ]; do sleep 0.05; done", sandbox.at("go")));
    let mut run = sandbox.start(&["run", "--steps", &manifest]);
    let _ = validator_pid(&sandbox);
    drop((run.stdout.take(), run.stderr.take()));
    assert!(Command::new("kill").args(["-HUP", &run.id().to_string()]).status().unwrap().success());
    fs::write(sandbox.at("go"), "").unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(0));
    assert_eq!(fs::read_to_string(sandbox.at("file")).unwrap(), "new");
    assert_eq!(sandbox.report()["exit_code"], 0);
}

#[test]
fn a_child_that_prints_a_gibibyte_costs_little_memory() {
    let sandbox = Sandbox::new();
    let manifest = with_validator(&sandbox, "head -c 1G /dev/zero; echo; echo the last words >&2; exit 1");
    let mut command = sandbox.command(&["run", "--steps", &manifest]);
    // The resident set of the largest child that has ended, in KiB. The shell's `times` does not show it.
    let script = r#"import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)"#;
    let arguments: Vec<_> =
        std::iter::once(command.get_program().to_owned()).chain(command.get_args().map(Into::into)).collect();
    command = Command::new("python3");
    let finished = Finished::from(command.args(["-c", script]).args(arguments).stdin(Stdio::null()).output().unwrap());
    let finished = finished.expect(1).says("| the last words").says("refuses it (exit code 1)");
    let peak: u64 = finished.stdout.split("peak ").nth(1).unwrap().trim().parse().unwrap();
    assert!(peak < 64 << 10, "{peak} KiB");
    assert!(finished.stdout.len() < 16 << 10, "{} bytes printed", finished.stdout.len());
}

#[test]
fn a_validators_refusal_has_its_command_and_a_hint() {
    let sandbox = Sandbox::new();
    let manifest = with_validator(&sandbox, "echo line 3 is bad; exit 3");
    let refused = sandbox.run(&["run", "--steps", &manifest]).expect(1).says("`sh -c 'echo $$ > ");
    let refused = refused.says("; echo line 3 is bad; exit 3'` refuses it (exit code 3)\n").says("| line 3 is bad");
    let _ = refused.says("hint: correct what it checks, or the validator; then run again: glovo-bootstrap run");
}

#[test]
fn a_plan_of_another_user_is_that_of_root() {
    let sandbox = Sandbox::new();
    fs::set_permissions(&sandbox.path, fs::Permissions::from_mode(0o755)).unwrap();
    let path = sandbox.at("made");
    let manifest = sandbox.manifest(&format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"\"\n"));
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0);
    fs::set_permissions(&manifest, fs::Permissions::from_mode(0o644)).unwrap();
    let script = "cp \"$1\" /var/lib/program; shift
exec setpriv --reuid=65534 --regid=65534 --clear-groups /var/lib/program plan --detailed-exitcode --steps \"$1\"";
    let mut command = sandbox.shell(script);
    let command = command.args([env!("CARGO_BIN_EXE_glovo-bootstrap"), &manifest]);
    let _ = Finished::from(command.output().unwrap()).expect(0).says("nothing to change");
}

#[test]
fn a_racer_in_a_shared_directory_gains_nothing() {
    let sandbox = Sandbox::new();
    let (shared, target) = (sandbox.at("shared"), sandbox.at("target"));
    fs::create_dir(&shared).unwrap();
    fs::create_dir(&target).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&sandbox.path, fs::Permissions::from_mode(0o755)).unwrap();
    let racer = Racer::start(&format!(
        "cd {shared}; mkdir d; rmdir d; ln -s {target} d; rm d; ln -s {target}/f f; rm -f f .f.glovo-bootstrap"
    ));
    let mut refused = 0;
    for round in 0..60 {
        let manifest = sandbox.manifest(&format!(
            "[[resource]]\nkind = \"file\"\npath = \"{shared}/f\"\ncontent = \"{round}\"\n[[resource]]\nkind = \"file\"\npath = \"{shared}/d/f\"\ncontent = \"{round}\"\n"
        ));
        let finished = sandbox.run(&["run", "--steps", &manifest]);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        refused += usize::from(finished.stdout.contains("uid 65534"));
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "something was written outside");
    }
    drop(racer);
    assert!(refused > 0, "the racer was never seen");
}

#[test]
fn files_that_others_could_fool_are_refused() {
    let sandbox = Sandbox::new();
    let file = |path: &str| format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"new\"\n");

    let parent = sandbox.at("theirs");
    fs::create_dir(&parent).unwrap();
    std::os::unix::fs::chown(&parent, Some(65534), Some(65534)).unwrap();
    let _ = sandbox.run_resources(&file(&format!("{parent}/f"))).expect(1).says("belongs to uid 65534, not to root");
    assert!(!fs::exists(format!("{parent}/f")).unwrap());

    let open = sandbox.at("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let _ = sandbox.run_resources(&file(&format!("{open}/f"))).expect(1).says("every user may write to");

    fs::write(sandbox.at("victim"), "old").unwrap();
    fs::hard_link(sandbox.at("victim"), sandbox.at("linked")).unwrap();
    let _ = sandbox.run_resources(&file(&sandbox.at("linked"))).expect(1).says("has 2 names (hard links)");
    assert_eq!(fs::read_to_string(sandbox.at("victim")).unwrap(), "old");

    let fifo = sandbox.at("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let _ = sandbox.run_resources(&file(&fifo)).expect(1).says("device, socket or FIFO");

    // A link above the path is followed only if root made it. A link at the path itself is replaced.
    std::os::unix::fs::symlink(sandbox.at("victim-2"), sandbox.at("link")).unwrap();
    let _ = sandbox.run_resources(&file(&sandbox.at("link"))).expect(0).says("replace the symbolic link");
    assert!(!fs::exists(sandbox.at("victim-2")).unwrap());
}

#[test]
fn files_get_their_mode_and_change_only_where_they_differ() {
    let sandbox = Sandbox::new();
    let resources = format!(
        "[[resource]]\nkind = \"directory\"\npath = \"{0}/a/b\"\nmode = \"0750\"\n\
         [[resource]]\nkind = \"file\"\npath = \"{0}/a/b/f\"\ncontent = \"one\\n\"\nmode = \"0640\"\nowner = \"nobody\"\n\
         [[resource]]\nkind = \"link\"\npath = \"{0}/a/l\"\ntarget = \"b/f\"\n",
        sandbox.path.display()
    );
    let _ = sandbox.run_resources(&resources).expect(0).says("converged: 3 changes");
    let status = fs::metadata(sandbox.at("a/b/f")).unwrap();
    assert_eq!((status.uid(), status.mode() & 0o7777), (65534, 0o640));
    let inode = status.ino();
    let _ = sandbox.run_resources(&resources).expect(0).says("converged: 0 changes");
    assert_eq!(fs::metadata(sandbox.at("a/b/f")).unwrap().ino(), inode);

    fs::set_permissions(sandbox.at("a/b/f"), fs::Permissions::from_mode(0o644)).unwrap();
    let manifest = sandbox.manifest(&resources);
    let plan = sandbox.run(&["plan", "--steps", &manifest, "--detailed-exitcode"]).expect(3);
    let _ = plan.says("set mode 0640 (now 0644)").says("1 change pending");
    let _ = sandbox.run_resources(&resources).expect(0).says("converged: 1 change");
    assert_eq!(fs::metadata(sandbox.at("a/b/f")).unwrap().ino(), inode, "only its mode was changed");

    fs::write(sandbox.at("a/b/f"), "two\n").unwrap();
    let _ = sandbox.run(&["plan", "--steps", &manifest]).expect(0).says("-two").says("+one");
    let json = sandbox.run(&["plan", "--steps", &manifest, "--json"]).expect(0).stdout;
    let plan: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(plan["steps"][0]["resources"][1]["changes"][0]["summary"], "write new content");
}

#[test]
fn a_secret_is_never_shown() {
    let sandbox = Sandbox::new();
    let path = sandbox.at("secret");
    let variables = sandbox.write("secrets.toml", "password = \"canary-7461\"\n");
    fs::set_permissions(&variables, fs::Permissions::from_mode(0o600)).unwrap();
    let manifest = sandbox.manifest(&format!(
        "[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"password={{{{ password }}}}\\n\"\nsecret = true\n"
    ));
    for command in ["plan", "run", "plan"] {
        let finished = sandbox.run(&["--verbose", command, "--steps", &manifest, "--variables", &variables]).expect(0);
        assert!(!finished.stdout.contains("canary") && !finished.stderr.contains("canary"), "{finished:?}");
        let _ = fs::write(&path, "changed").map(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)));
    }
    assert!(!sandbox.report().to_string().contains("canary"));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_failed_step_stops_the_run_and_names_what_was_not_run() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.write(
        "manifest.toml",
        format!(
            "[[step]]\nname = \"a\"\n[[step.resource]]\nkind = \"file\"\npath = \"{0}/a\"\ncontent = \"\"\n\
             [[step]]\nname = \"b\"\n[[step.resource]]\nkind = \"file\"\npath = \"{0}/none/b\"\ncontent = \"\"\nretries = 1\n\
             [[step]]\nname = \"c\"\n[[step.resource]]\nkind = \"file\"\npath = \"{0}/c\"\ncontent = \"\"\n",
            sandbox.path.display()
        ),
    );
    let run = |arguments: &[&str]| sandbox.run(&[&["run", "--steps", &manifest], arguments].concat());
    let _ = run(&[]).expect(1).says("failed, trying again").says("not run: c").says("declare it: kind = \"directory\"");
    assert!(!fs::exists(sandbox.at("c")).unwrap());
    let report = sandbox.report();
    let outcomes: Vec<_> =
        report["steps"].as_array().unwrap().iter().map(|step| step["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["changed", "failed", "not_run"]);
    assert_eq!(report["steps"][1]["resources"][0]["attempts"], 2);
    // What is left open is told until it has run.
    let owed = "an earlier run failed, and these steps have not run since: b; run `glovo-bootstrap run --steps ";
    let _ = run(&["c"]).expect(0).says("converged: 1 change").says(owed);
    let _ = run(&["--skip", "b"]).expect(0).says("converged: 0 changes").says(owed);
    let _ = run(&["--from", "c"]).expect(0);
    let _ = sandbox.run(&["status"]).expect(0).says(owed);
    let _ = run(&["b"]).expect(1);
    assert!(!sandbox.run(&["status"]).expect(1).stdout.contains("have not run since"));
    let _ = run(&["d"]).expect(2).says("there is no step `d`");
    let _ = run(&["--from", "c"]).expect(0);
    for verb in ["run", "plan"] {
        let none = sandbox.run(&[verb, "--steps", &manifest, "a", "--from", "c"]).expect(2);
        let _ = none.says("these arguments select no step").says("the steps are: a, b, c");
    }
    let _ = sandbox.run(&["status"]).expect(0).says("skipped");
}

#[test]
fn the_status_tells_of_a_later_run_that_did_not_begin() {
    let sandbox = Sandbox::new();
    let told = "a run did not begin, at 20";
    let refuse = || sandbox.run_resources("[[resource]]\nkind = \"file\"\npath = \"x\"\n").expect(2);
    // A machine without an earlier run stays as it is.
    let _ = refuse();
    assert!(!sandbox.path.join("var-lib/glovo-bootstrap").exists());
    let _ = sandbox.run_resources("").expect(0);
    assert!(!sandbox.run(&["status"]).expect(0).stdout.contains(told));
    let _ = refuse();
    let _ =
        sandbox.run(&["status"]).expect(0).says("converged").says(told).says("exit code 2: ").says("invalid manifest");
    let _ = sandbox.run_resources("").expect(0);
    assert!(!sandbox.run(&["status"]).expect(0).stdout.contains(told));
}

#[test]
fn a_change_that_could_not_be_made_is_not_counted() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.manifest(&format!(
        "[[resource]]\nkind = \"file\"\npath = \"{0}/a\"\ncontent = \"\"\n\
         [[resource]]\nkind = \"file\"\npath = \"{0}/b\"\ncontent = \"\"\nvalidate = [\"sh\", \"-c\", \": {{}}; exit 1\"]\n",
        sandbox.path.display()
    ));
    let finished = sandbox.run(&["run", "--steps", &manifest]).expect(1).says("failed after 1 change in");
    assert!(finished.stdout.contains("step 1/1 step\n  + file"), "the heading comes first: {}", finished.stdout);
    let place = format!("(declared at {manifest}:6)");
    assert!(finished.stdout.contains(&place), "{}", finished.stdout);
    let _ = sandbox.run(&["status"]).expect(1).says(&format!("declared at: {manifest}:6"));
    let changes = &sandbox.report()["steps"][0]["resources"][1]["changes"];
    assert_eq!(changes[0]["failed"], true);

    // A change that succeeds at the second attempt counts.
    let script = format!(": {{}}; [ -e {0} ] || {{ touch {0}; exit 1; }}", sandbox.at("tried"));
    let file = format!("[[resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"\"\n", sandbox.at("c"));
    let retried = format!("{file}validate = [\"sh\", \"-c\", '{script}']\nretries = 1\n");
    let _ = sandbox.run_resources(&retried).expect(0).says("failed, trying again").says("converged: 1 change in");
}

#[test]
fn a_validator_that_refuses_keeps_the_old_file() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.at("file"), "old").unwrap();
    let manifest = with_validator(&sandbox, "grep -q never {}");
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(1).says("was not replaced: its validator failed");
    assert_eq!(fs::read_to_string(sandbox.at("file")).unwrap(), "old");
}

#[test]
fn a_timeout_stops_what_it_waits_for_and_exits_75() {
    let sandbox = Sandbox::new();
    let path = sandbox.at("file");
    let manifest = sandbox.manifest(&format!(
        "[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"new\"\nvalidate = [\"sh\", \"-c\", \"echo waiting for {{}}; sleep 1000\"]\ntimeout = \"2s\"\n"
    ));
    let finished = sandbox.run(&["run", "--steps", &manifest]).expect(75);
    let _ = finished.says("timed out after 2.0 s").says("| waiting for ");
    assert!(!fs::exists(&path).unwrap());
}

#[test]
fn a_full_disk_is_named_and_the_old_file_stays() {
    let sandbox = Sandbox::new();
    let source = sandbox.write("large", vec![b'x'; 3 << 20]);
    fs::create_dir(sandbox.at("small")).unwrap();
    let path = sandbox.at("small/file");
    let manifest =
        sandbox.manifest(&format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\nsource = \"file://{source}\"\n"));
    let script = format!(
        "mount --make-rprivate / && mount -t tmpfs -o size=1m tmpfs {small} && echo old > {path} && mount --bind {state} /var/lib && {agent} run --steps {manifest}; code=$?; ls -A {small}; cat {path}; exit $code",
        small = sandbox.at("small"),
        state = {
            fs::create_dir_all(sandbox.at("state")).unwrap();
            sandbox.at("state")
        },
        agent = env!("CARGO_BIN_EXE_glovo-bootstrap"),
    );
    let finished = Finished::from(Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap());
    let finished = finished.expect(1).says("full file system");
    assert!(finished.stdout.ends_with("file\nold\n"), "{finished:?}");
}

/// Returns the number of system calls of a run that finds a number of files in place.
fn calls_of_a_second_run(files: usize) -> usize {
    let sandbox = Sandbox::new();
    let file = |index| {
        format!("[[resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"\"\n", sandbox.at(&format!("{index}")))
    };
    let manifest = sandbox.manifest(&(0..files).map(file).collect::<String>());
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0);
    let (agent, trace) = (env!("CARGO_BIN_EXE_glovo-bootstrap"), sandbox.at("trace"));
    let mut run = sandbox.shell("exec strace -f -q -o \"$@\"");
    let run = run.args([&trace, agent, "run", "--steps", &manifest]).output().expect("unshare, as root");
    let _ = Finished::from(run).expect(0).says("nothing to change");
    // In a debug build, the standard library checks each descriptor that it closes. A call that another thread interrupts
    // in the trace has two lines.
    let counts = |line: &&str| !line.contains("F_GETFD") && !line.contains(" resumed>");
    fs::read_to_string(trace).unwrap().lines().filter(counts).count()
}

#[test]
fn an_empty_file_in_place_costs_a_run_five_system_calls() {
    let [few, many] = [100, 500].map(calls_of_a_second_run);
    // Its status; open, its status, a read, close. Content takes one more read. Memory and a longer manifest take a few
    // in all.
    assert_eq!((many - few) / 400, 5, "{few} calls for 100 files, {many} for 500");
}
