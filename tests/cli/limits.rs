//! Machines at their limits: no inode, no space, no thread, no memory, no terminal, no write at all.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::{
    kill::Origin,
    sandbox::{Finished, Sandbox},
    server::{Reply, Server},
};

/// Runs the agent after a script that sets limits.
fn run_behind(sandbox: &Sandbox, script: &str, arguments: &[&str]) -> Finished {
    let mut command = sandbox.shell(&format!("{script}\nexec \"$@\""));
    let _ = command.arg(env!("CARGO_BIN_EXE_glovo-bootstrap")).args(arguments);
    Finished::from(command.output().expect("unshare, as root"))
}

fn file(path: &str, content: &str) -> String {
    format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"{content}\"\n")
}

#[test]
fn a_flush_that_fails_leaves_old_or_new_bytes() {
    let sandbox = Sandbox::new();
    let path = sandbox.at("file");
    let manifest = sandbox.manifest(&file(&path, "new"));
    for nth in 1..30 {
        fs::write(&path, "old").unwrap();
        let strace = format!("set -- strace -q -o /dev/null -e inject=fsync:error=EIO:when={nth} \"$@\"");
        let finished = run_behind(&sandbox, &strace, &["run", "--steps", &manifest]);
        let bytes = fs::read_to_string(&path).unwrap();
        if finished.code == Some(0) {
            assert_eq!((bytes.as_str(), nth > 3), ("new", true), "{finished:?}");
            return;
        }
        assert!(matches!(bytes.as_str(), "old" | "new"), "{bytes:?}");
        let _ = finished.expect(1).says("EIO");
        assert!(!fs::exists(sandbox.at(".file.glovo-bootstrap")).unwrap());
        let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0);
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }
    panic!("a run flushes 30 times");
}

#[test]
fn a_run_that_changes_nothing_flushes_nothing() {
    let sandbox = Sandbox::new();
    let (path, trace) = (sandbox.at("file"), sandbox.at("trace"));
    let flushes = |resources: &str, code: i32| {
        let calls = "-e trace=fsync,fdatasync,sync,syncfs,sync_file_range";
        let strace = format!("set -- strace -q -f -o {trace} {calls} \"$@\"");
        let _ = run_behind(&sandbox, &strace, &["run", "--steps", &sandbox.manifest(resources)]).expect(code);
        fs::read_to_string(&trace).unwrap().matches("sync").count()
    };
    assert_ne!(flushes(&file(&path, "new"), 0), 0, "a change");
    for _ in 0..2 {
        assert_eq!(flushes(&file(&path, "new"), 0), 0);
        assert_eq!(sandbox.report()["outcome"], "unchanged");
    }
    // Only the report says that the failure is over.
    assert_ne!(flushes(&file(&sandbox.at("no/file"), ""), 1), 0);
    assert_ne!(flushes(&file(&path, "new"), 0), 0, "after a failure");
    assert_eq!(flushes(&file(&path, "new"), 0), 0);
}

#[test]
fn a_file_system_without_inodes_is_named_as_such() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.at("small")).unwrap();
    let mount =
        format!("mount -t tmpfs -o nr_inodes=2 none {}; touch {}", sandbox.at("small"), sandbox.at("small/one"));
    let manifest = sandbox.manifest(&file(&sandbox.at("small/two"), "new"));
    let finished = run_behind(&sandbox, &mount, &["run", "--steps", &manifest]).expect(1);
    let _ = finished
        .says("ENOSPC")
        .says(&format!("hint: remove files: the file system has no free inode; to see: df -i {}", sandbox.at("small")));
}

#[test]
fn a_limit_of_file_sizes_is_an_error_and_no_signal() {
    let sandbox = Sandbox::new();
    let path = sandbox.write("file", "old");
    let manifest = sandbox.manifest(&file(&path, &"new ".repeat(100_000)));
    // 64 KiB, which is enough for the report.
    let limit = "set -- prlimit --fsize=65536 \"$@\"";
    let finished = run_behind(&sandbox, limit, &["run", "--steps", &manifest]).expect(1);
    let _ = finished.says("EFBIG").says("ulimit -f");
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(sandbox.report()["exit_code"], 1);
}

#[test]
fn what_can_not_be_written_is_refused_by_plan_as_by_run() {
    let sandbox = Sandbox::new();
    for name in ["read-only/deep", "fixed"] {
        fs::create_dir_all(sandbox.path.join(name)).unwrap();
    }
    let _ = sandbox.write("read-only/there", "old");
    let _ = sandbox.write("immutable", "old");
    let (read_only, immutable) = (sandbox.at("read-only"), sandbox.at("immutable"));
    let mount = format!(
        "mount --bind {read_only} {read_only}; mount -o remount,bind,ro {read_only}
         mount -t tmpfs none {fixed}; touch {fixed}/x; chattr +i {immutable}",
        fixed = sandbox.at("fixed"),
    );
    let link = format!("[[resource]]\nkind = \"link\"\npath = \"{read_only}/link\"\ntarget = \"x\"\n");
    let directory = format!("[[resource]]\nkind = \"directory\"\npath = \"{read_only}/new/er\"\n");
    let cases = [
        (file(&format!("{read_only}/there"), "new"), "is mounted read-only"),
        (file(&format!("{read_only}/deep/new"), "new"), "is mounted read-only"),
        (link, "is mounted read-only"),
        (directory, "is mounted read-only"),
        (file(&immutable, "new"), "chattr -i"),
    ];
    for (resource, words) in cases {
        let manifest = sandbox.manifest(&resource);
        for verb in ["plan", "run"] {
            let finished = run_behind(&sandbox, &mount, &[verb, "--steps", &manifest]);
            let _ = Command::new("chattr").args(["-i", &immutable]).status().unwrap();
            let finished = finished.expect(1).says(words);
            // The run fails before any change, so it announces none.
            assert!(!finished.stdout.contains("  + ") && !finished.stdout.contains("  ~ "), "{verb}: {finished:?}");
        }
    }
    assert_eq!(fs::read_to_string(immutable).unwrap(), "old");
}

/// Downloads a body of this size. Returns the largest resident set of the program, in KiB.
fn peak_of_a_download(bytes: u64) -> u64 {
    let (sandbox, origin) = (Sandbox::new(), Origin::start(bytes));
    fs::create_dir(sandbox.at("out")).unwrap();
    // The resident set of the largest child that was waited for, in KiB.
    let script = r#"import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)"#;
    let output = Command::new("python3")
        .args(["-c", script, env!("CARGO_BIN_EXE_glovo-bootstrap"), "fetch", "--output-dir", &sandbox.at("out")])
        .arg(origin.url(0))
        .output()
        .unwrap();
    let finished = Finished::from(output).expect(0);
    assert_eq!(fs::metadata(sandbox.at("out/body")).unwrap().len(), bytes);
    finished.stdout.split("peak ").nth(1).unwrap().trim().parse().unwrap()
}

#[test]
fn a_big_download_needs_little_memory() {
    // The program itself, mostly its code, needs more in a debug build.
    let (small, big) = (peak_of_a_download(1), peak_of_a_download(192 << 20));
    println!("{small} KiB resident for a download of 1 byte, {big} KiB for one of 192 MiB");
    assert!(big < small + (16 << 10), "{small} KiB, {big} KiB");
}

#[test]
fn neither_home_nor_terminal_nor_a_usable_tmp_is_needed() {
    let sandbox = Sandbox::new();
    let (path, copy) = (sandbox.at("file"), sandbox.at("copy"));
    let origin = sandbox.write("origin", "new");
    let manifest = sandbox.manifest(&format!(
        "{}validate = [\"grep\", \"-q\", \"new\", \"{{}}\"]\n[[resource]]\nkind = \"file\"\npath = \"{copy}\"\nsource = \"file://{origin}\"\nverify = \"none\"\n",
        file(&path, "new")
    ));
    // All three standard streams are closed.
    let script = "mount --bind /tmp /tmp; mount -o remount,bind,noexec /tmp; exec setsid env -i \"$@\" <&- >&- 2>&-";
    let _ = run_behind(&sandbox, script, &["run", "--steps", &manifest]).expect(0);
    assert_eq!(sandbox.report()["outcome"], "changed");
    assert_eq!([path, copy].map(|path| fs::read_to_string(path).unwrap()), ["new", "new"]);
}

#[test]
fn a_machine_without_journald_and_syslog_is_run_on() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.manifest(&file(&sandbox.at("file"), "new"));
    // Standard error looks like the journal's, but its socket has no listener; no process reads /dev/log.
    let script = r"mount -t tmpfs none /run
        export JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2)
        mount -t tmpfs none /dev 2> /dev/null; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9; mkfifo /dev/log";
    let _ = run_behind(&sandbox, script, &["run", "--steps", &manifest]).expect(0);
    assert_eq!(fs::read_to_string(sandbox.at("file")).unwrap(), "new");
}

#[test]
fn state_that_is_garbage_or_newer_is_found_out_again() {
    let sandbox = Sandbox::new();
    let (path, origin) = (sandbox.at("file"), sandbox.write("origin", "new"));
    let manifest = sandbox.manifest(&format!(
        "[[resource]]\nkind = \"file\"\npath = \"{path}\"\nsource = \"file://{origin}\"\nverify = \"etag\"\n"
    ));
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0);
    let state: Vec<_> = Command::new("find")
        .args([&sandbox.at("var-lib/glovo-bootstrap"), "-type", "f"])
        .output()
        .map(|found| String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect())
        .unwrap();
    assert!(state.len() > 2, "a report, a lock and what was fetched: {state:?}");
    for damage in [&b"\xff\x00garbage"[..], b"", b"{\"version\": 99, \"newer\": [1, 2", b"{\"version\": 99}", b"[]"] {
        for file in &state {
            fs::write(file, damage).unwrap();
        }
        fs::write(&path, "old").unwrap();
        let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0);
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        let _ = sandbox.run(&["plan", "--detailed-exitcode", "--steps", &manifest]).expect(0);
    }
}

#[test]
fn a_machine_without_threads_is_an_error_and_no_abort() {
    let server = Server::start(|_| Reply::ok("body"));
    let url = server.url("/body").replace("127.0.0.1", "localhost");
    let mut arrived = false;
    for threads in 1..7 {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.at("out")).unwrap();
        let _ = Command::new("chown").args(["54321", &sandbox.at("out")]).status().unwrap();
        // A limit of processes does not hold for root.
        let output = Command::new("setpriv")
            .args(["--reuid=54321", "--regid=54321", "--clear-groups", "prlimit", &format!("--nproc={threads}")])
            .args([env!("CARGO_BIN_EXE_glovo-bootstrap"), "fetch", "--output-dir", &sandbox.at("out"), &url])
            .env("HOME", sandbox.at("out"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let finished = Finished::from(output);
        assert!(
            matches!(finished.code, Some(0 | 1)) && !finished.stderr.contains("panicked"),
            "{threads}: {finished:?}"
        );
        if finished.code == Some(1) {
            let _ = finished.says("thread").says("ulimit -u");
        } else {
            arrived = true;
        }
    }
    assert!(arrived, "six threads are not enough");
}

#[test]
fn a_full_disk_has_room_for_why_a_long_run_failed() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.at("many")).unwrap();
    let many: String = (0..2000).map(|number| file(&format!("{}/{number}", sandbox.at("many")), "")).collect();
    let fill: String = (0..1000).map(|number| file(&format!("/var/lib/{number}"), "x")).collect();
    let manifest = sandbox.manifest(&(many + &fill));
    let script = format!(
        "mount -t tmpfs none {}; mount -t tmpfs -o size=2m none /var/lib
         code=0; \"$1\" run --steps \"$2\" || code=$?; \"$1\" status || true; exit $code",
        sandbox.at("many")
    );
    let mut command = sandbox.shell(&script);
    let _ = command.arg(env!("CARGO_BIN_EXE_glovo-bootstrap")).arg(manifest);
    let finished = Finished::from(command.output().expect("unshare, as root")).expect(1);
    let status = finished.stdout.split_once("failed after ").unwrap_or_else(|| panic!("{}", &finished.stderr)).1;
    assert!(status.contains("ENOSPC") && status.contains("failed with exit code 1"), "{status}");
    assert!(!finished.stderr.contains("keeping the report"), "{}", finished.stderr);
}
