//! Files and links that another user or an image's tree puts into a path: none is obeyed, none is written through.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    process::{Command, Stdio},
    sync::{Mutex, mpsc},
};

use sha2::Digest;

use crate::{
    command::{MADE, at, command, exists, read, write},
    sandbox::{Finished, Sandbox, copy_binary},
    server::{Reply, Server},
    service,
    standin::Machine,
};

const UID_NOBODY: u32 = 65534;
const STEP: &str = "name = \"step\"\n";

fn sha256(text: &str) -> String {
    sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn directory(sandbox: &Sandbox, name: &str, owner: (u32, u32), mode: u32) -> String {
    let path = sandbox.at(name);
    fs::create_dir_all(&path).unwrap();
    chown(&path, Some(owner.0), Some(owner.1)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

/// Runs the binary in a mount namespace with an empty `/var/lib`, after these lines of shell. `$AGENT` is the binary.
fn scripted(sandbox: &Sandbox, lines: &str, arguments: &[&str]) -> Finished {
    fs::create_dir_all(sandbox.at("var-lib")).unwrap();
    let script = format!(
        "set -e; mount --make-rprivate /; mount --bind {} /var/lib; {lines}\nexec \"$0\" \"$@\"",
        sandbox.at("var-lib")
    );
    let mut command = Command::new("unshare");
    let _ = command.args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_glovo-bootstrap")]).args(arguments);
    Finished::from(command.env_remove("GLOVO_BOOTSTRAP_STEPS").stdin(Stdio::null()).output().unwrap())
}

#[test]
fn a_manifest_below_a_directory_of_another_user_is_refused() {
    let sandbox = Sandbox::new();
    let validate = |path: &str| sandbox.run(&["validate", "--steps", path]);
    for (name, owner, mode, words) in [
        ("theirs", (UID_NOBODY, 0), 0o755, "belongs to uid 65534"),
        ("open", (0, 0), 0o777, "other users may write to"),
        ("of-a-group", (0, 1), 0o775, "other users may write to"),
    ] {
        let parent = directory(&sandbox, name, owner, mode);
        let manifest = sandbox.write(&format!("{name}/steps/10-a.toml"), STEP);
        let _ = validate(&manifest).expect(2).says(words).says(&parent);
        let _ = validate(&format!("{parent}/steps")).expect(2).says(words).says(&parent);
    }
    // A sticky directory is safe: no other user can replace root's files in it.
    let _ = directory(&sandbox, "shared", (0, 0), 0o1777);
    let manifest = sandbox.write("shared/steps.toml", STEP);
    let _ = validate(&manifest).expect(0);
    // Another user's link can lead anywhere.
    let link = sandbox.at("shared/link");
    symlink(&manifest, &link).unwrap();
    let _ = validate(&link).expect(0);
    std::os::unix::fs::lchown(&link, Some(UID_NOBODY), Some(UID_NOBODY)).unwrap();
    let _ = validate(&link).expect(2).says("belongs to uid 65534").says("shared/link");
    let variables = sandbox.write("theirs/variables.toml", "");
    let _ = sandbox.run(&["validate", "--steps", &manifest, "--variables", &variables]).expect(2);
}

#[test]
fn a_download_does_not_take_the_bytes_of_another_one() {
    let (right, wrong) = ("right".repeat(50_000), "wrong".repeat(50_000));
    let (sandbox, answer) = (Sandbox::new(), right.clone());
    // When the download is complete, its temporary name belongs to another file.
    let (evil, part) = (sandbox.at("evil"), sandbox.at(".a.part"));
    let server = Server::start(move |request| {
        if request.target == "/a" && fs::write(&evil, &wrong).is_ok() {
            fs::rename(&evil, &part).unwrap();
        }
        Reply::ok(answer.clone())
    });
    let pinned = format!("{}#sha256={}", server.url("/a"), sha256(&right));
    for round in 0..100 {
        let run = sandbox.run(&["fetch", "-o", &sandbox.at("."), &pinned]);
        let there = fs::read_to_string(sandbox.at("a")).unwrap_or_default();
        assert!(there.is_empty() || there == right, "round {round}: {}…, exit {:?}", &there[..5], run.code);
        let _ = run.expect(1).says("another process has replaced .a.part");
        let _ = fs::remove_file(sandbox.at("a"));
    }
}

#[test]
fn names_of_files_that_are_being_written_are_refused() {
    let (sandbox, server) = (Sandbox::new(), Server::start(|request| Reply::ok(request.target.clone())));
    for name in [".a.part", ".a.part.map", ".a.glovo-bootstrap"] {
        let urls = [format!("{}#sha256={}", server.url("/a"), sha256("/a")), server.url(&format!("/{name}"))];
        let _ = sandbox.run(&["fetch", "-o", &sandbox.at("."), &urls[0], &urls[1]]).expect(1).says("is reserved");
        for kind in ["file\"\ncontent = \"\"", "link\"\ntarget = \"x\""] {
            let resource = format!("[[resource]]\npath = \"/etc/{name}\"\nkind = \"{kind}\n");
            let _ = sandbox.run(&["validate", "--steps", &sandbox.manifest(&resource)]).expect(2).says("is reserved");
        }
    }
    assert_eq!(server.paths(), [""; 0]);
}

#[test]
fn an_image_can_not_have_a_file_of_the_host_overwritten() {
    let sandbox = Sandbox::new();
    let host = directory(&sandbox, "host", (0, 0), 0o755);
    let victim = sandbox.write("host/lock", "precious");
    // The tree has the same path, so that the link leads somewhere there, too.
    fs::create_dir_all(format!("{}{host}", sandbox.at("tree"))).unwrap();
    fs::create_dir_all(sandbox.at("tree/etc")).unwrap();
    fs::create_dir_all(sandbox.at("tree/var/lib")).unwrap();
    symlink(&host, sandbox.at("tree/var/lib/glovo-bootstrap")).unwrap();
    let manifest = sandbox.manifest("");
    let run = sandbox.run(&["run", "--steps", &manifest, "--root", &sandbox.at("tree")]);
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious", "{run:?}");
    let _ = run.expect(0);
    assert!(fs::exists(format!("{}{host}/lock", sandbox.at("tree"))).unwrap());
}

#[test]
fn a_plan_needs_no_name_in_a_shared_directory() {
    let (sandbox, server) = (Sandbox::new(), Server::start(|_| Reply::ok(STEP)));
    fs::create_dir_all(sandbox.at("var-tmp")).unwrap();
    let lines = format!("mount --bind {} /var/tmp; mkdir /var/tmp/.download.glovo-bootstrap", sandbox.at("var-tmp"));
    let url = format!("{}#sha256={}", server.url("/steps.toml"), sha256(STEP));
    let _ = scripted(&sandbox, &lines, &["plan", "--steps", &url]).expect(0).says("0 changes");
}

#[test]
fn a_program_gets_no_descriptor_and_no_open_umask() {
    let sandbox = Sandbox::new();
    let script = format!(
        "ls /proc/self/fd > {0}/fds; touch {0}/made; umask > {0}/umask; ulimit -c > {0}/core; : {{}}",
        sandbox.path.display()
    );
    let manifest = sandbox.manifest(&format!(
        "[[resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"x\"\nvalidate = [\"sh\", \"-c\", '{script}']\n",
        sandbox.at("file")
    ));
    let _ = scripted(&sandbox, "umask 0; exec 7</etc/passwd 9>/dev/null", &["run", "--steps", &manifest]).expect(0);
    let told = |name: &str| fs::read_to_string(sandbox.at(name)).unwrap();
    assert_eq!(told("fds").lines().collect::<Vec<_>>(), ["0", "1", "2", "3"], "3 is that of ls");
    assert_eq!((told("umask").trim(), told("core").trim()), ("0022", "0"));
    assert_eq!(fs::metadata(sandbox.at("made")).unwrap().mode() & 0o777, 0o644);
}

#[test]
fn a_run_leaves_no_core_and_no_process_of_its_user_reads_it() {
    let sandbox = Sandbox::new();
    // The parent of a validator is the run. The files in /proc of a process that is not dumpable belong to root.
    let script = format!("grep -h \"Max core\" /proc/$PPID/limits > {0}/limits; : {{}}", sandbox.path.display());
    let manifest = sandbox.manifest(&format!(
        "[[resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"x\"\nvalidate = [\"sh\", \"-c\", '{script}']\n",
        sandbox.at("file")
    ));
    let _ = scripted(&sandbox, "ulimit -c unlimited", &["run", "--steps", &manifest]).expect(0);
    let limits = fs::read_to_string(sandbox.at("limits")).unwrap();
    assert_eq!(limits.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{limits}");
    // The files in /proc of a process that is not dumpable belong to root, also its memory.
    let (asked, was_asked) = mpsc::channel();
    let (answer, may_answer) = mpsc::channel::<()>();
    let channel = Mutex::new((asked, may_answer));
    let server = Server::start(move |_| {
        let channel = channel.lock().unwrap();
        channel.0.send(()).unwrap();
        let _ = channel.1.recv();
        Reply::ok("x")
    });
    let home = directory(&sandbox, "home", (UID_NOBODY, UID_NOBODY), 0o755);
    let agent = sandbox.at("agent");
    copy_binary(&agent);
    let mut command = Command::new("setpriv");
    let _ = command.args(["--reuid=65534", "--regid=65534", "--clear-groups", &agent, "fetch", "-o", &home]);
    let mut run = command.arg(server.url("/x")).env("HOME", &home).stdout(Stdio::null()).spawn().unwrap();
    was_asked.recv().unwrap();
    let owner = fs::metadata(format!("/proc/{}/mem", run.id())).unwrap().uid();
    drop(answer);
    assert!(run.wait().unwrap().success());
    assert_eq!(owner, 0);
}

#[test]
fn an_environment_names_no_file_to_append_to() {
    let sandbox = Sandbox::new();
    let victim = sandbox.write("victim", "old\n");
    let manifest = sandbox.manifest("");
    for value in [victim.clone(), "/proc/self/fd/5".into(), "5".into()] {
        let lines = format!("exec 5>>{victim}; export GLOVO_BOOTSTRAP_SUPERVISOR={value}");
        let _ = scripted(&sandbox, &lines, &["run", "--steps", &manifest]).expect(0);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "old\n", "{value}");
    }
}

#[test]
fn a_file_that_others_could_write_to_is_replaced() {
    let sandbox = Sandbox::new();
    let path = sandbox.write("site", "good");
    let declared = |mode: &str| {
        format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"good\"\nmode = \"{mode}\"\n")
    };
    for (mode, group) in [(0o666, 0), (0o664, UID_NOBODY)] {
        chown(&path, Some(0), Some(group)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        // A process opened it for writing while this was allowed.
        let writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let _ = sandbox.run_resources(&declared("0644")).expect(0).says("write again, to set ");
        std::os::unix::fs::FileExt::write_all_at(&writer, b"evil", 0).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "good");
    }
    // A user that could read it may have read it, so replacing it would not help.
    let inode = fs::metadata(&path).unwrap().ino();
    let _ = sandbox.run_resources(&declared("0600")).expect(0).says("set mode 0600 (now 0644)");
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
}

#[test]
fn root_starts_no_program_that_another_user_could_replace() {
    let machine = Machine::new();
    fs::create_dir_all(at(&machine, "of-user")).unwrap();
    let write_tool = |script: &str| {
        write(&machine, "of-user/tool", script);
        fs::set_permissions(at(&machine, "of-user/tool"), Permissions::from_mode(0o755)).unwrap();
    };
    write_tool("#!/bin/sh\nid -u > /var/lib/made\n");
    for name in ["of-user", "of-user/tool"] {
        chown(at(&machine, name), Some(65534), Some(65534)).unwrap();
    }
    symlink("of-user/tool", at(&machine, "link")).unwrap();
    let file = "[[resource]]\nkind = \"file\"\npath = \"/var/lib/file\"\ncontent = \"x\"\n";
    let unit = service::file("/etc/systemd/system/app.service", &service::unit("true", ""));
    for path in ["/var/lib/of-user/tool", "/var/lib/link"] {
        for declared in [
            command(&format!("argv = [\"{path}\"]\n{MADE}")),
            command(&format!("argv = [\"true\"]\nunless = {{ argv = [\"{path}\"] }}")),
            format!("{file}validate = [\"{path}\", \"{{}}\"]\n"),
            unit.clone() + &service::service(&format!("{}\nvalidate = [\"{path}\"]", service::RUNNING)),
        ] {
            for said in [machine.plan(&declared), machine.run(&declared)] {
                let said = said.expect(1).says(&format!("root does not start {path}: another user could replace it"));
                let _ = said.says("/var/lib/of-user belongs to uid 65534").says("hint: ");
            }
        }
    }
    assert!(!exists(&machine, "made") && !exists(&machine, "file"));

    let other = command(&format!("argv = [\"/var/lib/of-user/tool\"]\n{MADE}\nuser = \"root\""));
    let _ = machine.plan(&other).expect(1).says("another user could replace it");
    fs::create_dir(at(&machine, "out")).unwrap();
    chown(at(&machine, "out"), Some(65534), Some(65534)).unwrap();
    write_tool("#!/bin/sh\nid -u > /var/lib/out/made\n");
    let own = "argv = [\"/var/lib/of-user/tool\"]\nunless = { exists = \"/var/lib/out/made\" }\nuser = \"nobody\"";
    let _ = machine.run(&command(own)).expect(0).says("converged: 1 change");
    assert_eq!(read(&machine, "out/made"), "65534\n");
    // The validator of a user's file has that user's rights.
    let file = "[[resource]]\nkind = \"file\"\npath = \"/var/lib/out/file\"\nowner = \"nobody\"\ncontent = \"x\"\n";
    let declared = format!("{file}validate = [\"/var/lib/of-user/tool\", \"{{}}\"]\n");
    let _ = machine.plan(&declared).expect(0);
    let _ = machine.run(&declared).expect(0);
}
