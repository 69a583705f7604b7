//! The secrets of the kind `command`: how they reach it, and that they stay nowhere.

use std::fs;

use crate::{
    command::{MADE, TOUCH, at, command, read, script, validate, write},
    standin::Machine,
};

#[test]
fn secrets_reach_a_command_only_by_stdin_and_credentials() {
    let machine = Machine::new();
    let secrets = machine.sandbox.write("secrets.toml", "token = \"s3cr3t-token\"\n");
    fs::set_permissions(&secrets, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for field in [
        "argv = [\"echo\", \"{{ token }}\"]\nunless = { exists = \"/x\" }",
        "argv = [\"echo\"]\nunless = { exists = \"/x\" }\nenvironment = { TOKEN = \"{{ token }}\" }",
        "argv = [\"echo\"]\nunless = { argv = [\"echo\", \"{{ token }}\"] }",
    ] {
        let said = validate(&machine, &command(field), &["--variables", &secrets]).expect(2);
        let said = said.says("holds the secret variable `token`, which the process list would show");
        let _ = said.says("pass it with stdin = \"{{ token }}\" or `credentials`");
        let _ = validate(&machine, &command(field), &["--set", "token=open"]).expect(0);
    }
    let declared = script(
        "cat > /var/lib/made; cat $CREDENTIALS_DIRECTORY/key >> /var/lib/made; ls -ld $CREDENTIALS_DIRECTORY; \
         ls -l $CREDENTIALS_DIRECTORY; cat /var/lib/made; test -e /var/lib/go",
        &format!("{MADE}\nstdin = \"in {{{{ token }}}}\\n\"\ncredentials = {{ key = \"key {{{{ token }}}}\" }}"),
    );
    let manifest = machine.sandbox.manifest(&declared);
    let run = || machine.sandbox.run(&["run", "--steps", &manifest, "--variables", &secrets]);
    let said =
        run().expect(1).says("| drwx------").says("| -r--------").says("| in {{ token }}").says("key {{ token }}");
    assert!(!format!("{said:?}").contains("s3cr3t"), "{said:?}");
    assert_eq!(read(&machine, "made"), "in s3cr3t-token\nkey s3cr3t-token");
    assert!(fs::read_dir(machine.at("run/glovo-bootstrap/commands")).unwrap().next().is_none());
    write(&machine, "go", "");
    let _ = run().expect(0).says("converged: 1 change");
}

#[test]
fn a_commands_secrets_are_in_memory_that_is_not_swapped() {
    let machine = Machine::new();
    machine.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:4711:4712::/srv/app:/bin/sh\n");
    machine.write("etc/group", "root:x:0:\napp:x:4712:\n");
    let secrets = machine.sandbox.write("secrets.toml", "token = \"s3cr3t-token\"\n");
    fs::create_dir_all(at(&machine, "out")).unwrap();
    std::os::unix::fs::chown(at(&machine, "out"), Some(4711), Some(4712)).unwrap();
    let declared = script(
        "exec > /var/lib/out/made; cat /dev/stdin $CREDENTIALS_DIRECTORY/key; stat --format=%a $CREDENTIALS_DIRECTORY/..
         grep ' /run/glovo-bootstrap/commands ' /proc/self/mountinfo | grep -c -e noswap -e ramfs
         grep VmLck /proc/$PPID/status",
        "unless = { exists = \"/var/lib/out/made\" }\nuser = \"app\"\nstdin = \"{{ token }} in\\n\"\n\
         credentials = { key = \"{{ token }}\\n\" }",
    );
    let manifest = machine.sandbox.manifest(&declared);
    let _ = machine.sandbox.run(&["run", "--steps", &manifest, "--variables", &secrets]).expect(0);
    let made = read(&machine, "out/made");
    let locked = made.strip_prefix("s3cr3t-token in\ns3cr3t-token\n711\n1\nVmLck:");
    assert_ne!(locked.unwrap_or_else(|| panic!("{made}")).trim(), "0 kB");
}

#[test]
fn a_killed_runs_credentials_are_removed_by_any_next_run() {
    let machine = Machine::new();
    let directory = machine.at("run/glovo-bootstrap/commands/command-of-a-killed-run");
    fs::create_dir_all(&directory).unwrap();
    fs::write(format!("{directory}/key"), "canary").unwrap();
    let _ = machine.plan(&command(&format!("{TOUCH}\n{MADE}"))).expect(0);
    assert!(fs::exists(&directory).unwrap(), "a plan changes nothing");
    let _ = machine.run("[[resource]]\nkind = \"group\"\nname = \"app\"\n").expect(0);
    assert!(!fs::exists(&directory).unwrap());
}
