//! The kind `command`. Its files are below `/var/lib`, which is the sandbox's own: a guard has another `/tmp`.

use std::fs;

use crate::{
    sandbox::{Finished, eventually, is_alive},
    standin::Machine,
};

/// A command with more lines.
pub fn command(lines: &str) -> String {
    format!("[[resource]]\nkind = \"command\"\nname = \"it\"\n{lines}\n")
}

/// A command that is a shell script.
pub fn script(script: &str, lines: &str) -> String {
    command(&format!("argv = [\"/bin/sh\", \"-euc\", '''{script}''']\n{lines}"))
}

/// A file below `/var/lib` of the machine.
pub fn at(machine: &Machine, name: &str) -> String {
    machine.sandbox.at(&format!("var-lib/{name}"))
}

pub fn exists(machine: &Machine, name: &str) -> bool {
    fs::exists(at(machine, name)).unwrap()
}

pub fn read(machine: &Machine, name: &str) -> String {
    fs::read_to_string(at(machine, name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn write(machine: &Machine, name: &str, text: &str) {
    let _ = machine.sandbox.write(&format!("var-lib/{name}"), text);
}

pub fn validate(machine: &Machine, resources: &str, arguments: &[&str]) -> Finished {
    let manifest = machine.sandbox.manifest(resources);
    machine.sandbox.run(&[&["validate", "--steps", &manifest], arguments].concat())
}

/// The note of the command `it`: its name has the start of the digest of `it`.
const NOTE: &str = "glovo-bootstrap/command-2ad8a7049d7c5511.json";
pub const TOUCH: &str = r#"argv = ["/usr/bin/touch", "/var/lib/made"]"#;
pub const MADE: &str = r#"unless = { exists = "/var/lib/made" }"#;

#[test]
fn a_command_runs_until_its_path_exists_and_again_after_that() {
    let machine = Machine::new();
    let declared = command(&format!("{TOUCH}\n{MADE}"));
    let words = "command it: run `/usr/bin/touch /var/lib/made`, because /var/lib/made does not exist";
    let _ = machine.plan(&declared).expect(0).says(words);
    assert!(!exists(&machine, "made"), "a plan starts no command");
    let _ = machine.run(&declared).expect(0).says(words);
    assert!(exists(&machine, "made"));
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes");
    assert!(!exists(&machine, NOTE), "a good run leaves no note");
    fs::remove_file(at(&machine, "made")).unwrap();
    let _ = machine.plan(&declared).expect(0).says(words);
    let _ = machine.run(&declared).expect(0).says("converged: 1 change");
}

#[test]
fn a_guards_program_decides_by_exit_code_and_output() {
    let machine = Machine::new();
    write(&machine, "version", "tool/2.14");
    let declared = script(
        "echo tool/2.15 > /var/lib/version",
        r#"unless = { argv = ["cat", "/var/lib/version"], stdout = "tool/2.15" }"#,
    );
    let words = "run the shell script `/bin/sh -euc 'echo tool/2.15 > /var/lib/version'`, because \
                 `cat /var/lib/version` does not print \"tool/2.15\"";
    let _ = machine.plan(&declared).expect(0).says(words);
    let _ = machine.run(&declared).expect(0).says(words);
    let _ = machine.plan(&declared).expect(0).says("nothing to change");
    fs::remove_file(at(&machine, "version")).unwrap();
    let _ = machine.plan(&declared).expect(0).says("because `cat /var/lib/version` ends with exit code 1");

    let missing = command(&format!("{TOUCH}\nunless = {{ argv = [\"absent\"] }}"));
    let _ = machine.plan(&missing).expect(0).says("because the program absent is not installed");
    let odd = command(&format!("{TOUCH}\nunless = {{ argv = [\"sh\", \"-c\", \"echo odd; exit 2\"] }}"));
    for said in [machine.plan(&odd), machine.run(&odd)] {
        let _ = said.expect(1).says("ended with exit code 2; 0 means that it holds, 1 that it does not").says("| odd");
    }
    assert!(!exists(&machine, "made"));
}

#[test]
fn a_guard_that_does_not_hold_after_its_command_is_an_error() {
    let machine = Machine::new();
    let declared = command("argv = [\"true\"]\nunless = { exists = \"/var/lib/made\" }");
    let said = machine.run(&declared).expect(1);
    let said = said.says("did not converge: the command succeeded, but /var/lib/made does not exist");
    let _ = said.says("hint: correct `unless`");
    let declared = command("argv = [\"true\"]\nunless = { argv = [\"sh\", \"-c\", \"echo seen; exit 1\"] }");
    let said = machine.run(&declared).expect(1).says("did not converge: the command succeeded, but `sh -c ");
    let _ = said.says("| seen");
}

#[test]
fn a_guard_that_writes_fails_with_erofs_in_plan_and_run() {
    let machine = Machine::new();
    let guarded = |guard: &str| command(&format!("{TOUCH}\nunless = {{ argv = {guard} }}"));
    for writes in [
        r#"["touch", "/var/lib/by-guard"]"#,
        r#"["sh", "-c", "cat /proc/sys/kernel/core_uses_pid > /proc/sys/kernel/core_uses_pid"]"#,
        r#"["mkdir", "/run/by-guard"]"#,
        r#"["sh", "-c", "mount -o remount,rw,bind / 2>/dev/null; touch /etc/by-guard"]"#,
    ] {
        for said in [machine.plan(&guarded(writes)), machine.run(&guarded(writes))] {
            let said = said.says(if writes.contains("/proc") { "exit code 2" } else { "tried to write" });
            let _ = said.expect(1).says("Read-only file system").says("hint: ");
        }
    }
    for name in ["var-lib/by-guard", "var-lib/made", "machine/run/by-guard", "machine/etc/by-guard"] {
        assert!(!fs::exists(machine.sandbox.at(name)).unwrap(), "{name}");
    }
}

#[test]
fn a_guard_that_swallows_erofs_changes_nothing() {
    let machine = Machine::new();
    let guard = "echo x 2>/dev/null > /var/lib/by-guard; echo x > /tmp/own && test -e /var/lib/by-guard";
    let declared = command(&format!("{TOUCH}\nunless = {{ argv = [\"sh\", \"-c\", \"{guard}\"] }}"));
    let _ = machine.plan(&declared).expect(0).says("ends with exit code 1");
    assert!(!exists(&machine, "by-guard") && !fs::exists("/tmp/own").unwrap());
    let _ = machine.run(&declared).expect(1).says("did not converge");
    assert!(exists(&machine, "made") && !exists(&machine, "by-guard"));
}

#[test]
fn a_command_that_was_cut_off_runs_again_although_its_path_exists() {
    let machine = Machine::new();
    let slow = "touch /var/lib/made; echo $$ > /var/lib/pid; test -e /var/lib/go || exec sleep 1000";
    let declared = script(slow, MADE);
    let manifest = machine.sandbox.manifest(&declared);
    let mut child = machine.sandbox.start(&["run", "--steps", &manifest]);
    eventually("the command runs", || read_if(&machine, "pid").is_some());
    child.kill().unwrap();
    let _ = child.wait().unwrap();
    let pid = read_if(&machine, "pid").unwrap();
    eventually("the command ends with its run", || !is_alive(&pid));
    write(&machine, "go", "");
    let words = "because its last run was cut off";
    let _ = machine.plan(&declared).expect(0).says(words);
    let _ = machine.run(&declared).expect(0).says(words);
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes");
}

/// The trimmed text of a file, once it has one.
fn read_if(machine: &Machine, name: &str) -> Option<String> {
    let text = fs::read_to_string(at(machine, name)).unwrap_or_default();
    text.ends_with('\n').then(|| text.trim().to_owned())
}

#[test]
fn a_command_that_has_failed_runs_again_although_its_path_exists() {
    let machine = Machine::new();
    let declared = script("touch /var/lib/made; test -e /var/lib/go || { echo out; echo err >&2; exit 3; }", MADE);
    let said = machine.run(&declared).expect(1).says("failed with exit code 3").says("| out").says("| err");
    let _ = said.says("then run again: glovo-bootstrap run");
    let _ = machine.plan(&declared).expect(0).says("because its last run failed with exit code 3");
    write(&machine, "go", "");
    let _ = machine.run(&declared).expect(0).says("converged: 1 change");
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes");
    let signalled = script("kill -9 $$", MADE);
    fs::remove_file(at(&machine, "made")).unwrap();
    let _ = machine.run(&signalled).expect(1).says("failed with signal 9");
    let tolerant = script("touch /var/lib/made; exit 3", &format!("{MADE}\nok = [0, 3]"));
    let _ = machine.run(&tolerant).expect(0).says("converged: 1 change");
}

#[test]
fn a_plan_sees_paths_as_earlier_changes_leave_them() {
    let machine = Machine::new();
    let file = "[[resource]]\nkind = \"file\"\npath = \"/var/lib/made\"\ncontent = \"\"\n";
    let declared = file.to_owned() + &command(&format!("{TOUCH}\n{MADE}"));
    let _ = machine.plan(&declared).expect(0).says("plan: 1 change pending");
    let _ = machine.run(&declared).expect(0).says("converged: 1 change");
    write(&machine, "old", "");
    let absent = "[[resource]]\nkind = \"absent\"\npath = \"/var/lib/old\"\n";
    let create = "argv = [\"touch\", \"/var/lib/new\"]\nunless = { exists = \"/var/lib/old\" }";
    let declared = absent.to_owned() + &command(create);
    let _ = machine.plan(&declared).expect(0).says("because /var/lib/old does not exist");
    let react = "argv = [\"true\"]\nrun_on = [\"/var/lib/old\"]";
    let _ = machine.run(&command(react)).expect(0);
    let words = "because /var/lib/old has changed since its last good run";
    let _ = machine.plan(&(absent.to_owned() + &command(react))).expect(0).says(words);
    let _ = machine.run(&(absent.to_owned() + &command(react))).expect(0).says(words);
}

#[test]
fn a_damaged_note_counts_as_cut_off() {
    let machine = Machine::new();
    let declared = command(&format!("{TOUCH}\n{MADE}"));
    let _ = machine.run(&declared).expect(0);
    write(&machine, NOTE, "{");
    let _ = machine.plan(&declared).expect(0).says("because its last run was cut off");
    let _ = machine.run(&declared).expect(0);
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes");
}

#[test]
fn a_changed_file_runs_it_until_a_run_is_good() {
    let machine = Machine::new();
    let file = "[[resource]]\nkind = \"file\"\npath = \"/var/lib/conf\"\ncontent = \"CONTENT\"\n";
    let reaction =
        script("cat /var/lib/conf >> /var/lib/log; test ! -e /var/lib/broken", "run_on = [\"/var/lib/conf\"]");
    let declared = |content: &str| file.replace("CONTENT", content) + &reaction;
    let _ = machine.plan(&declared("a")).expect(0).says("command it: run the shell script").says("because no good run");
    let _ = machine.run(&declared("a")).expect(0).says("converged: 2 changes");
    let _ = machine.run(&declared("a")).expect(0).says("converged: 0 changes");
    assert_eq!(read(&machine, "log"), "a");

    write(&machine, "broken", "");
    let _ = machine.plan(&declared("b")).expect(0).says("because /var/lib/conf has changed since its last good run");
    let _ = machine.run(&declared("b")).expect(1);
    fs::remove_file(at(&machine, "broken")).unwrap();
    let _ = machine.run(&declared("b")).expect(0).says("converged: 1 change");
    assert_eq!(read(&machine, "log"), "abb");
    let _ = machine.run(&declared("b")).expect(0).says("converged: 0 changes");

    write(&machine, "conf", "c");
    let by_hand = script("echo x >> /var/lib/conf", "run_on = [\"/var/lib/conf\"]");
    let said = machine.run(&by_hand).expect(1).says("did not converge");
    let _ = said.says("/var/lib/conf has changed since its last good run");
}

#[test]
fn a_child_that_keeps_the_output_open_does_not_delay_the_run() {
    let machine = Machine::new();
    let declared = script("sleep 1000 & echo $! > /var/lib/pid; touch /var/lib/made", MADE);
    let said = machine.run(&declared).expect(0).says("converged: 1 change");
    let pid = read_if(&machine, "pid").unwrap();
    assert!(is_alive(&pid), "it is not killed");
    let _ = std::process::Command::new("kill").arg(&pid).status().unwrap();
    let _ = said.says("warning").says("left processes running; they end with the unit of this run");

    let guard = "sleep 1000 & echo pid=$!; exit 1";
    let declared = command(&format!("argv = [\"true\"]\nunless = {{ argv = [\"sh\", \"-c\", '''{guard}'''] }}"));
    let said = machine.run(&declared).expect(1).says("did not converge");
    let pid = said.stdout.split("| pid=").nth(1).unwrap().lines().next().unwrap().trim().to_owned();
    eventually("a guard's child ends with it", || !is_alive(&pid));
}

#[test]
fn a_program_that_an_earlier_step_installs_is_missing_only_in_a_run() {
    let machine = Machine::new();
    let declared = command(&format!("argv = [\"absent-tool\", \"x\"]\n{MADE}"));
    let words = "the program `absent-tool` is not installed (searched: /usr/local/sbin:/usr/local/bin:";
    let _ = machine.plan(&declared).expect(1).says(words);
    let said = machine.run(&declared).expect(1).says(words);
    let _ = said.says("hint: declare its package or its file in an earlier resource");
    assert!(!exists(&machine, NOTE), "it has not started");
    let file = "[[resource]]\nkind = \"file\"\npath = \"/usr/local/sbin/absent-tool\"\nmode = \"0755\"\n\
                content = \"#!/bin/sh\\ntouch /var/lib/made\\n\"\n";
    let _ = machine.plan(&(file.to_owned() + &declared)).expect(0).says("command it: run `absent-tool x`");
    let _ = machine.run(&(file.to_owned() + &declared)).expect(0).says("converged: 2 changes");
}

#[test]
fn a_program_that_the_kernel_refuses_is_explained() {
    let machine = Machine::new();
    for (text, mode, refusal, words) in [
        (
            "#!/absent/interpreter\n",
            0o755,
            "cannot start /var/lib/tool",
            "check that the interpreter in its first line exists",
        ),
        ("#!/bin/sh\n", 0o644, "/var/lib/tool is not executable: its mode is 0644", "declare its mode"),
    ] {
        write(&machine, "tool", text);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(at(&machine, "tool"), mode).unwrap();
        let declared = command(&format!("argv = [\"/var/lib/tool\"]\n{MADE}"));
        let _ = machine.run(&declared).expect(1).says(refusal).says(words);
        assert!(!exists(&machine, NOTE), "it has not started");
        let guarded = command("argv = [\"true\"]\nunless = { argv = [\"/var/lib/tool\"] }");
        let _ = machine.plan(&guarded).expect(1).says(words);
    }
    // Its mode is corrected before it is used.
    let made = "[[resource]]\nkind = \"file\"\npath = \"/var/lib/tool\"\ncontent = \"#!/bin/sh\\n\"\nmode = \"0755\"\n";
    let guarded = command("argv = [\"true\"]\nunless = { argv = [\"/var/lib/tool\"] }");
    let _ = machine.plan(&format!("{made}{guarded}")).expect(0).says("2 changes pending");
}

#[test]
fn a_command_and_its_guard_have_the_declared_user_and_environment() {
    let machine = Machine::new();
    machine.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:4711:4712::/srv/app:/bin/sh\n");
    machine.write("etc/group", "root:x:0:\napp:x:4712:\nweb:x:990:app\n");
    fs::create_dir_all(at(&machine, "out")).unwrap();
    std::os::unix::fs::chown(at(&machine, "out"), Some(4711), Some(4712)).unwrap();
    let show = "umask; pwd; id -u; id -g; id -G; echo $HOME $USER $MODE; test ! -t 0; cat; ps -o sid= -p $$ | tr -d ' ' | \
                grep -qx $$; echo more >> /dev/stderr";
    let declared = script(
        &format!("exec > /var/lib/out/command; {show}"),
        &format!(
            "unless = {{ argv = [\"sh\", \"-euc\", '''{show}; test -e out/command'''] }}\n\
             user = \"app\"\ncwd = \"/var/lib\"\numask = \"0027\"\nenvironment = {{ MODE = \"a b\" }}"
        ),
    );
    let _ = machine.run(&declared).expect(0).says("converged: 1 change");
    assert_eq!(read(&machine, "out/command"), "0027\n/var/lib\n4711\n4712\n4712 990\n/srv/app app a b\n");
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes");

    let _ = machine.plan(&command(&format!("{TOUCH}\n{MADE}\nuser = \"absent\""))).expect(1).says("the user absent");
    let said = machine.plan(&command(&format!("{TOUCH}\n{MADE}\ncwd = \"/var/lib/absent\""))).expect(1);
    let _ = said.says("the directory /var/lib/absent of `cwd` does not exist").says("kind = \"directory\"");
    let user = "[[resource]]\nkind = \"user\"\nname = \"absent\"\nsystem = true\n";
    let declared = command(&format!("{TOUCH}\nunless = {{ argv = [\"true\"] }}\nuser = \"absent\""));
    let _ = machine.plan(&(user.to_owned() + &declared)).expect(0).says("its user or its directory does not exist yet");
}

#[test]
fn the_output_of_a_command_is_bounded_and_made_visible() {
    let machine = Machine::new();
    let loud = "head -c 100000000 /dev/zero | tr '\\0' x; echo; printf 'last \\377 \\033[31m red\\n'; exit 1";
    let said = machine.run(&script(loud, MADE)).expect(1).says(r"| last � \x1b[31m red");
    assert!(said.stderr.len() < 20_000, "{}", said.stderr.len());
    assert!(machine.sandbox.report().to_string().len() < 20_000);
}

#[test]
fn a_timeout_and_a_signal_end_a_command_and_its_children() {
    let machine = Machine::new();
    let slow = "sh -c 'trap \"\" TERM; echo $$ > /var/lib/pid; sleep 1000' & wait";
    let declared = script(slow, &format!("{MADE}\ntimeout = \"1s\""));
    let _ = machine.run(&declared).expect(75).says("timed out after 1.0 s");
    let pid = read_if(&machine, "pid").unwrap();
    eventually("its child ends", || !is_alive(&pid));
    let _ = machine.plan(&declared).expect(0).says("because its last run was cut off");

    fs::remove_file(at(&machine, "pid")).unwrap();
    let manifest = machine.sandbox.manifest(&script(slow, MADE));
    let mut child = machine.sandbox.start(&["run", "--steps", &manifest]);
    eventually("the command runs", || read_if(&machine, "pid").is_some());
    let _ = std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let pid = read_if(&machine, "pid").unwrap();
    eventually("its child ends", || !is_alive(&pid));
}

#[test]
fn without_the_right_to_mount_a_guard_is_an_error() {
    let machine = Machine::new();
    let manifest = machine.sandbox.manifest(&command("argv = [\"true\"]\nunless = { argv = [\"true\"] }"));
    let script = "exec setpriv --bounding-set -sys_admin --inh-caps -sys_admin \"$@\"";
    let mut command = machine.sandbox.shell(script);
    let _ = command.arg(env!("CARGO_BIN_EXE_glovo-bootstrap")).args(["plan", "--steps", &manifest]);
    let said = Finished::from(command.output().unwrap()).expect(1);
    let said = said.says("cannot make the file systems read-only for a guard").says("EPERM");
    let _ = said.says("use `unless = { exists = \"/PATH\" }`, which starts no program");
}

#[test]
fn an_empty_argument_stays_an_argument() {
    let machine = Machine::new();
    let declared =
        command(&format!("argv = [\"sh\", \"-c\", \"echo $# > /var/lib/made\", \"sh\", \"\", \"--root\"]\n{MADE}"));
    let _ = machine.run(&declared).expect(0).says("/var/lib/made' sh '' --root`");
    assert_eq!(read(&machine, "made"), "2\n");
}

#[test]
fn the_start_of_programs_is_in_no_help_and_no_completion() {
    let sandbox = crate::sandbox::Sandbox::new();
    for arguments in [&["help"][..], &["completions", "bash"], &["completions", "zsh"], &["completions", "fish"]] {
        let said = sandbox.run(arguments).expect(0).stdout;
        assert!(!said.contains("umask") && !said.lines().any(|line| line.trim_start().starts_with("launch")), "{said}");
    }
    let _ = sandbox.run(&["launch", "--absent"]).expect(125).says("glovo-bootstrap launch: error: unexpected argument");
}

#[test]
fn a_link_of_another_user_does_not_satisfy_a_guard() {
    let machine = Machine::new();
    let link = |target: &str| {
        let _ = fs::remove_file(at(&machine, "link"));
        std::os::unix::fs::symlink(target, at(&machine, "link")).unwrap();
    };
    let declared = command("argv = [\"true\"]\nunless = { exists = \"/var/lib/link\" }");
    write(&machine, "target", "");
    link("target");
    let _ = machine.plan(&declared).expect(0).says("nothing to change");
    link("dangling");
    let _ = machine.plan(&declared).expect(0).says("because /var/lib/link does not exist");

    fs::create_dir_all(at(&machine, "of-user")).unwrap();
    write(&machine, "of-user/file", "");
    std::os::unix::fs::chown(at(&machine, "of-user"), Some(4711), None).unwrap();
    for target in ["/var/lib/of-user/file", "of-user/absent"] {
        link(target);
        for said in [machine.plan(&declared), machine.run(&declared)] {
            let _ =
                said.expect(1).says("/var/lib/link leads to /var/lib/of-user/").says("where another user may write");
        }
    }
    let below = command("argv = [\"true\"]\nunless = { exists = \"/var/lib/link/file\" }");
    link("of-user");
    let _ = machine.plan(&below).expect(1).says("/var/lib/link/file leads to");
    let plain = command("argv = [\"true\"]\nunless = { exists = \"/var/lib/of-user/file\" }");
    let _ = machine.plan(&plain).expect(0).says("nothing to change");
}

#[test]
fn wrong_declarations_of_a_command_are_refused_at_their_place() {
    let machine = Machine::new();
    for (lines, place, words) in [
        ("argv = [\"true\"]", "5:8", "a command needs `unless` or `run_on`"),
        ("argv = []\nrun_on = [\"/x\"]", "5:8", "a command needs at least a program"),
        ("argv = [\"bin/x\"]\nrun_on = [\"/x\"]", "5:8", "`bin/x` is not the absolute path of a program"),
        ("argv = [\"x\"]\nunless = {}", "6:10", "a guard has either `exists` or `argv`"),
        ("argv = [\"x\"]\nunless = { exists = \"/x\", argv = [\"x\"] }", "6:10", "a guard has either"),
        ("argv = [\"x\"]\nunless = { exists = \"x\" }", "6:21", "not an absolute path"),
        ("argv = [\"x\"]\nunless = { exits = \"/x\" }", "6:12", "exits"),
        ("argv = [\"x\"]\nunless = { argv = [\"./x\"] }", "6:10", "`./x` is not the absolute path"),
        ("argv = [\"x\"]\nunless = { exists = \"/x\", stdout = \"x\" }", "6:10", "`stdout` needs `argv`"),
        ("argv = [\"x\"]\nunless = { argv = [\"x\"], stdout = \"\" }", "6:10", "the empty `stdout`"),
        ("argv = [\"x\"]\nunless = { argv = [\"/tmp/x\"] }", "6:10", "/tmp and /var/tmp are empty for a guard"),
        ("argv = [\"x\"]\nunless = { argv = [\"x\"] }\ncwd = \"/tmp\"", "6:10", "`cwd` is /tmp"),
        ("argv = [\"x\"]\nrun_on = [\"/x\"]\nok = [125]", "7:6", "exit codes from 0 to 124"),
        ("argv = [\"x\"]\nrun_on = [\"/x\"]\nok = [256]", "7:7", "256"),
        ("argv = [\"x\"]\nrun_on = [\"/x\"]\nenvironment = { \"A=B\" = \"\" }", "7:15", "`A=B` is not the name"),
        ("argv = [\"x\"]\nrun_on = [\"/x\"]\ncredentials = { \"../x\" = \"\" }", "7:15", "`../x` is not the name"),
        ("argv = [\"x\"]\nrun_on = [\"/x\"]\numask = \"1000\"", "7:9", "a umask is at most 0777"),
    ] {
        let _ = validate(&machine, &command(lines), &[]).expect(2).says(words).says(&format!("manifest.toml:{place}"));
    }
    let one = command("argv = [\"x\"]\nrun_on = [\"/x\"]");
    let _ = validate(&machine, &(one.clone() + &one), &[]).expect(2).says("two resources manage command it");
    let bad = one.replace("\"it\"", "\"../it\"");
    let _ = validate(&machine, &bad, &[]).expect(2).says("`../it` is not the name of a command");
    let directory = "[[resource]]\nkind = \"directory\"\npath = \"/x\"\n";
    let _ = validate(&machine, &(directory.to_owned() + &one), &[]).expect(2).says("/x is a directory");
}

#[test]
fn a_plan_foresees_a_program_that_another_user_could_replace() {
    let machine = Machine::new();
    let app = "[[resource]]\nkind = \"user\"\nname = \"app\"\n";
    let directory = "[[resource]]\nkind = \"directory\"\npath = \"/var/lib/bin\"\nowner = \"app\"\n";
    let tool = "[[resource]]\nkind = \"file\"\npath = \"/var/lib/bin/tool\"\nowner = \"app\"\nmode = \"0755\"\n\
        content = \"#!/bin/sh\\nid -u > /var/lib/made\\n\"\n";
    let root = command(&format!("argv = [\"/var/lib/bin/tool\"]\n{MADE}"));
    for declared in
        [format!("{directory}{tool}{root}").replace("\"app\"", "\"nobody\""), format!("{app}{directory}{tool}{root}")]
    {
        let said = machine.plan(&declared).expect(1);
        let said = said.says("root does not start /var/lib/bin/tool: another user could replace it");
        let _ = said.says("/var/lib/bin will belong to");
    }
    let own = command("argv = [\"/var/lib/bin/tool\"]\nunless = { exists = \"/var/lib/made\" }\nuser = \"app\"");
    let _ = machine.plan(&format!("{app}{directory}{tool}{own}")).expect(0);
    let of_root = format!("{directory}{tool}{root}").replace("owner = \"app\"\n", "");
    let _ = machine.plan(&of_root).expect(0);
}
