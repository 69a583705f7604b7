//! System calls that fail in the middle of a run, with each errno in turn. No file is torn, the process does not abort,
//! and the next run converges.
//!
//! The test takes points spread evenly. `GLOVO_ERRNO_POINTS` sets their number, `all` for all of them.
//! `GLOVO_ERRNO_CALLS` (`fcntl,unlinkat`) limits them to some calls.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs,
    process::{Command, Stdio},
    sync::Mutex,
};

use crate::{
    archive::{Member, digest, gzip, tar},
    sandbox::{Finished, Sandbox},
};

const POINTS: usize = 20;

/// Calls about files, and the errnos that each may give.
const CALLS: &[(&[&str], &[&str])] = &[
    (&["openat", "openat2"], &["EIO", "ENOSPC", "EINTR", "EMFILE"]),
    (&["pipe2", "dup", "socketpair", "eventfd2", "epoll_create1"], &["EMFILE"]),
    (
        &["write", "pwrite64", "writev", "sendfile", "copy_file_range", "ftruncate", "fallocate"],
        &["EIO", "ENOSPC", "EINTR"],
    ),
    (&["mkdirat", "symlinkat", "linkat", "renameat", "renameat2"], &["EIO", "ENOSPC", "EINTR"]),
    (&["fsync", "fdatasync", "syncfs"], &["EIO", "ENOSPC", "EINTR"]),
    (&["read", "pread64", "getdents64", "readlinkat", "readlink"], &["EIO", "EINTR"]),
    (&["fstat", "newfstatat", "statx", "stat", "statfs", "fstatfs"], &["EIO", "EINTR"]),
    (&["fchmod", "fchown", "fchmodat", "fchownat", "unlinkat", "utimensat"], &["EIO", "EINTR"]),
    (&["flock"], &["EIO", "EINTR"]),
    (&["close", "lseek"], &["EIO"]),
    (&["fcntl"], &["EINTR", "EMFILE"]),
    (&["poll", "ppoll", "wait4", "waitid"], &["EINTR"]),
];

const MANIFEST: &str = r#"
[[resource]]
kind = "group"
name = "errno-group"
[[resource]]
kind = "user"
name = "errno-user"
system = true
comment = "of the errno test"
groups = ["errno-group"]
[[resource]]
kind = "user"
name = "errno-login"
home = "{{ tree }}/login"
expires = "2099-01-31"
password_hash = "$6$salt$abcdefghabcdefghabcdefghabcdefghabcdefghabcdefghabcdefghabcdefghabcdefghabcdefghabcdef"
ssh_keys = ["restrict ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleE"]
exclusive_ssh_keys = true
[[resource]]
kind = "directory"
path = "{{ tree }}/a/b/c"
mode = "0750"
[[resource]]
kind = "directory"
path = "{{ tree }}/of-user"
owner = "errno-user"
group = "errno-group"
[[resource]]
kind = "file"
path = "{{ tree }}/old"
content = "new\n"
[[resource]]
kind = "file"
path = "{{ tree }}/a/new"
content = "new\n"
mode = "0600"
[[resource]]
kind = "file"
path = "{{ tree }}/a/secret"
content = "new\n"
owner = "errno-user"
mode = "0400"
secret = true
[[resource]]
kind = "file"
path = "{{ tree }}/validated"
content = "new\n"
validate = ["/usr/bin/grep", "-q", "new", "{}"]
[[resource]]
kind = "file"
path = "{{ tree }}/mode"
content = "old\n"
mode = "0640"
[[resource]]
kind = "file"
path = "{{ tree }}/copied"
source = "file://{{ tree }}/origin"
sha256 = "7aa7a5359173d05b63cfd682e3c38487f3cb4f7f1d60659fe59fab1505977d4c"
[[resource]]
kind = "file"
path = "{{ tree }}/copied-anew"
source = "file://{{ tree }}/origin"
verify = "none"
[[resource]]
kind = "absent"
path = "{{ tree }}/unwanted"
[[resource]]
kind = "archive"
path = "{{ tree }}/app"
source = "file://{{ tree }}/origin.tgz"
sha256 = "{{ archive }}"
[[resource]]
kind = "link"
path = "{{ tree }}/link"
target = "new"
[[resource]]
kind = "link"
path = "{{ tree }}/first-link"
target = "new"
[[resource]]
kind = "swap"
path = "{{ tree }}/swapfile"
size = "1MiB"
[[resource]]
kind = "file"
path = "/etc/systemd/system/errno.service"
content = "[Service]\nExecStart=sleep 1d\n[Install]\nWantedBy=multi-user.target\n"
[[resource]]
kind = "service"
name = "errno.service"
enabled = true
running = true
restart_on = ["{{ tree }}/old", "/etc/systemd/system/errno.service"]
[[resource]]
kind = "command"
name = "errno"
argv = ["/usr/bin/cp", "{{ tree }}/a/new", "{{ tree }}/by-command"]
unless = { exists = "{{ tree }}/by-command" }
run_on = ["{{ tree }}/a/new"]
stdin = "x"
[[resource]]
kind = "file"
path = "{{ tree }}/a/b/c/one"
content = "new\n"
[[resource]]
kind = "file"
path = "{{ tree }}/a/b/c/two"
content = "new\n"
[[resource]]
kind = "file"
path = "{{ tree }}/a/b/c/three"
content = "new\n"
[[resource]]
kind = "group"
name = "errno-second"
"#;

/// The files that the manifest writes.
const FILES: [&str; 12] = [
    "tree/old",
    "tree/a/new",
    "tree/a/secret",
    "tree/validated",
    "tree/mode",
    "tree/copied",
    "tree/copied-anew",
    "tree/by-command",
    "tree/app/d/file",
    "tree/a/b/c/one",
    "tree/a/b/c/two",
    "tree/a/b/c/three",
];

/// A fault: the nth use of a system call fails.
#[derive(Clone, Debug)]
struct Point {
    call: String,
    nth: usize,
    errno: &'static str,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.call, self.nth, self.errno)
    }
}

#[test]
fn a_failing_system_call_tears_no_file_and_a_run_repairs_it() {
    let mut all = Bench::new().points();
    if let Ok(calls) = std::env::var("GLOVO_ERRNO_CALLS") {
        all.retain(|point| calls.split(',').any(|call| call == point.call));
    }
    let number = match std::env::var("GLOVO_ERRNO_POINTS").as_deref() {
        Ok("all") => all.len(),
        Ok(number) => number.parse().unwrap(),
        Err(_) => POINTS,
    };
    let chosen = number.min(all.len());
    let points: Vec<&Point> = (0..chosen).map(|index| &all[index * all.len() / chosen]).collect();
    let next = Mutex::new(points.iter());
    let codes = Mutex::new(BTreeMap::<(&str, i32), usize>::new());
    let failures = Mutex::new(vec![]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            _ = scope.spawn(|| {
                let bench = Bench::new();
                while let Some(point) = { next.lock().unwrap().next() } {
                    match bench.fail_at(point) {
                        Ok(code) => *codes.lock().unwrap().entry((point.errno, code)).or_default() += 1,
                        Err(error) => failures.lock().unwrap().push(format!("{point}: {error}")),
                    }
                }
            });
        }
    });
    let (codes, failures) = (codes.into_inner().unwrap(), failures.into_inner().unwrap());
    println!("{chosen} of {} points, by errno and exit code: {codes:?}", all.len());
    assert!(failures.is_empty(), "{} of {chosen} points:\n{}", failures.len(), failures.join("\n"));
}

/// A sandbox in which the manifest is run again and again.
struct Bench {
    sandbox: Sandbox,
    manifest: String,
}

impl Bench {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let manifest = sandbox.manifest(MANIFEST);
        Self { sandbox, manifest }
    }

    /// Restores the machine's state from before the run.
    fn undo(&self) {
        for directory in ["tree", "etc", "work", "var-lib"] {
            let path = self.sandbox.path.join(directory);
            if path.exists() {
                fs::remove_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
            fs::create_dir(path).unwrap();
        }
        for name in ["old", "mode", "copied-anew", "unwanted"] {
            _ = self.sandbox.write(&format!("tree/{name}"), "old\n");
        }
        _ = self.sandbox.write("tree/origin", "new\n");
        _ = self.sandbox.write("tree/origin.tgz", Self::archive());
        // An empty directory is exchanged, as another archive's would be.
        fs::create_dir(self.sandbox.path.join("tree/app")).unwrap();
        std::os::unix::fs::symlink("old", self.sandbox.path.join("tree/link")).unwrap();
    }

    fn archive() -> Vec<u8> {
        gzip(&tar(&[
            Member(b'0', "d/file", 0o644, "new\n"),
            Member(b'1', "d/same", 0o644, "d/file"),
            Member(b'2', "link", 0o777, "d/file"),
        ]))
    }

    /// The agent, below other programs, where `/etc` and `/var/lib` are copies and no systemd is at work.
    fn agent(&self, below: &[&str], arguments: &[&str]) -> Finished {
        let script = r#"mount --make-rprivate / && mount --bind "$0/var-lib" /var/lib && mount -t tmpfs none /run &&
            mount -t overlay -o "lowerdir=/etc,upperdir=$0/etc,workdir=$0/work" none /etc && exec "$@""#;
        let tree = format!("tree={}", self.sandbox.at("tree"));
        let archive = format!("archive={}", digest(&Self::archive()));
        let mut command = Command::new("unshare");
        let _ = command.args(["--mount", "sh", "-c", script]).arg(&self.sandbox.path).args(below);
        let _ = command.arg(env!("CARGO_BIN_EXE_glovo-bootstrap")).args(arguments);
        let _ = command.args(["--steps", &self.manifest, "--set", &tree, "--set", &archive]).stdin(Stdio::null());
        Finished::from(command.output().expect("unshare, as root"))
    }

    /// Returns a fault for each call of a successful run and each errno that the call can give.
    fn points(&self) -> Vec<Point> {
        self.undo();
        let trace = self.sandbox.at("trace");
        let _ = self.agent(&["strace", "-q", "-y", "-o", &trace], &["run"]).expect(0);
        let trace = fs::read_to_string(trace).unwrap();
        let mut counts = HashMap::new();
        let (mut points, mut is_loaded) = (vec![], false);
        for (call, arguments) in trace.lines().filter_map(|line| line.split_once('(')) {
            let nth = *counts.entry(call).and_modify(|count| *count += 1).or_insert(1);
            // The calls before the first `poll` are the loader's. The first `poll` is the runtime's, which accepts no
            // other result.
            is_loaded |= call == "poll";
            // These only read and set flags of an open descriptor, so they cannot fail: fcntl(2). In a debug build, the
            // standard library checks each descriptor that it closes.
            if ["F_GETFD", "F_SETFD", "F_GETFL"].iter().any(|command| arguments.contains(command)) {
                continue;
            }
            // A failed `close` closes all the same, but strace leaves the descriptor open: a program that waits for the
            // end of a pipe would wait for ever. A pipe gives no such error.
            if call == "close" && !arguments.contains("</") {
                continue;
            }
            let Some((_, errnos)) = CALLS.iter().find(|(calls, _)| is_loaded && calls.contains(&call)) else {
                continue;
            };
            points.extend(errnos.iter().map(|errno| Point { call: call.to_owned(), nth, errno }));
        }
        points
    }

    /// Makes one round: restore, run with the fault, check, run, check. Returns the exit code of the run with the
    /// fault.
    fn fail_at(&self, point: &Point) -> Result<i32, String> {
        self.undo();
        let Point { call, nth, errno } = point;
        let (only, inject) = (format!("trace={call}"), format!("inject={call}:error={errno}:when={nth}"));
        let first = self.agent(&["strace", "-q", "-o", "/dev/null", "-e", &only, "-e", &inject], &["run"]);
        let is_allowed = match (first.code, *errno) {
            (code, "EINTR") => code == Some(0),
            (code, _) => matches!(code, Some(0 | 1 | 2 | 75)),
        };
        if !is_allowed {
            return Err(format!("exit code {:?}\n{}{}", first.code, first.stdout, first.stderr));
        }
        self.nothing_is_torn()?;
        if first.code == Some(0) {
            // A previous directory that could not be removed is in a note of the run. The next run removes it.
            let is_tidy = call != "unlinkat" && !first.stdout.contains("was not removed");
            self.is_converged(is_tidy).map_err(|error| format!("it says converged, but {error}"))?;
        }
        let second = self.agent(&[], &["run"]);
        if second.code != Some(0) {
            return Err(format!("the next run ends with {:?}\n{}{}", second.code, second.stdout, second.stderr));
        }
        self.is_converged(true).map_err(|error| format!("after the next run {error}"))?;
        let plan = self.agent(&[], &["plan", "--detailed-exitcode"]);
        if plan.code != Some(0) {
            return Err(format!("the next run left something to do\n{}{}", plan.stdout, plan.stderr));
        }
        Ok(first.code.unwrap_or_default())
    }

    /// Checks that each file has the bytes from before the run, or those from after it.
    fn nothing_is_torn(&self) -> Result<(), String> {
        for name in FILES {
            match fs::read_to_string(self.sandbox.path.join(name)) {
                Ok(text) if matches!(text.as_str(), "old\n" | "new\n") => {}
                Ok(text) => return Err(format!("{name} is torn: {text:?}")),
                Err(_) if matches!(name, "tree/old" | "tree/mode") => return Err(format!("{name} is gone")),
                Err(_) => {}
            }
        }
        self.report().map(drop)
    }

    /// Checks that everything is as declared and, where expected, that no temporary file is left. A temporary file that
    /// could not be removed stays until the next run.
    fn is_converged(&self, is_tidy: bool) -> Result<(), String> {
        for name in FILES {
            let wanted = if name == "tree/mode" { "old\n" } else { "new\n" };
            if fs::read_to_string(self.sandbox.path.join(name)).is_ok_and(|text| text == wanted) {
                continue;
            }
            return Err(format!("{name} is not as declared"));
        }
        for name in ["tree/link", "tree/first-link"] {
            if fs::read_link(self.sandbox.path.join(name)).is_ok_and(|target| target.as_os_str() == "new") {
                continue;
            }
            return Err(format!("{name} is not as declared"));
        }
        if self.sandbox.path.join("tree/unwanted").exists() {
            return Err("tree/unwanted is not removed".into());
        }
        let find = Command::new("find")
            .arg(&self.sandbox.path)
            .args(["-name", "*.glovo-bootstrap", "-o", "-name", "*.part*"])
            .output()
            .unwrap();
        if is_tidy && !find.stdout.is_empty() {
            return Err(format!("left behind: {}", String::from_utf8_lossy(&find.stdout)));
        }
        match self.report()? {
            Some(report) if report["exit_code"] == 0 => Ok(()),
            report => Err(format!("the report says {report:?}")),
        }
    }

    /// Returns the report of the last run, if it wrote one.
    fn report(&self) -> Result<Option<serde_json::Value>, String> {
        let Ok(bytes) = fs::read(self.sandbox.path.join("var-lib/glovo-bootstrap/report.json")) else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| format!("the report is torn: {error}"))
    }
}

/// The number of the first traced call with these words in its arguments.
fn nth(trace: &str, call: &str, words: &str) -> usize {
    let calls = trace.lines().filter(|line| line.starts_with(&format!("{call}(")));
    calls.enumerate().find(|(_, line)| line.contains(words)).unwrap_or_else(|| panic!("no {call} {words}: {trace}")).0
        + 1
}

#[test]
fn a_status_that_cannot_be_read_leaves_no_temporary_file() {
    let bench = Bench::new();
    bench.undo();
    let trace = bench.sandbox.at("trace");
    let _ = bench.agent(&["strace", "-q", "-o", &trace, "-e", "trace=newfstatat"], &["run"]).expect(0);
    let nth = nth(&fs::read_to_string(&trace).unwrap(), "newfstatat", ".summary.json.glovo-bootstrap");
    let code = bench.fail_at(&Point { call: "newfstatat".into(), nth, errno: "EIO" }).unwrap();
    assert_eq!(code, 0, "a run does not fail for its summary");
}

#[test]
fn a_program_whose_output_cannot_be_read_does_not_go_on() {
    let sandbox = Sandbox::new();
    let (path, trace) = (sandbox.at("file"), sandbox.at("trace"));
    let manifest = sandbox.manifest(&format!(
        "[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"new\"\n\
         validate = [\"sh\", \"-c\", \"sleep {{{{ seconds }}}}; :\", \"{{}}\"]\n"
    ));
    let run = |strace: &[&str], seconds: &str| {
        let mut command = sandbox.shell("exec \"$@\"");
        let _ = command.args(["strace", "-q", "-e", "trace=fcntl"]).args(strace);
        let _ = command.args([env!("CARGO_BIN_EXE_glovo-bootstrap"), "run", "--steps", &manifest, "--set"]);
        Finished::from(command.arg(format!("seconds={seconds}")).output().unwrap())
    };
    let _ = run(&["-o", &trace], "0").expect(0);
    let nth = nth(&fs::read_to_string(&trace).unwrap(), "fcntl", "F_SETFL");
    // As it was: what the first run left would be read by more calls.
    fs::remove_file(&path).unwrap();
    fs::remove_dir_all(sandbox.at("var-lib")).unwrap();
    let inject = format!("inject=fcntl:error=EMFILE:when={nth}");
    let _ = run(&["-o", "/dev/null", "-e", &inject], "600").expect(1).says("reading a program's output");
    let is_ours = |pid: &str| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.contains("sleep 600; :") && command.contains(&path[..path.len() - "file".len()])
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let left: Vec<String> = processes.filter(|pid| is_ours(pid)).collect();
    for pid in &left {
        let _ = Command::new("pkill").args(["--parent", pid]).status();
    }
    assert!(left.is_empty(), "a program goes on: {left:?}");
}
