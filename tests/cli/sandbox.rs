//! The binary in a sandbox: a directory of its own, and a state directory that is not the host's.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Once,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
};

/// The beginning of a sandbox's directory name. The id of its process follows.
const PREFIX: &str = "glovo-bootstrap-test-";

/// A directory for one test, removed at its end.
pub struct Sandbox {
    pub path: PathBuf,
}

impl Sandbox {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        // A name may be that of a killed process that had this one's id.
        loop {
            let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => {
                    made.expect("a directory");
                    return Self { path };
                }
            }
        }
    }

    /// Returns a path in it, as text.
    pub fn at(&self, name: &str) -> String {
        self.path.join(name).to_str().expect("UTF-8").to_owned()
    }

    /// Writes a file into it, private as a manifest must be.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let (path, bytes) = (self.path.join(name), bytes.as_ref());
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        if bytes.starts_with(b"#!") {
            write_script(&path, bytes);
        } else {
            fs::write(&path, bytes).expect("a file");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("its mode");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// Returns the binary's command with these arguments, in a mount namespace whose `/var/lib` is the sandbox's own.
    ///
    /// A file `console` of the sandbox replaces the console, if the host has one. A directory `machine` replaces files
    /// of a booted machine, see [`crate::standin`].
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.namespace();
        let _ = command.arg(env!("CARGO_BIN_EXE_glovo-bootstrap"));
        let _ = command.args(arguments).env_remove("GLOVO_BOOTSTRAP_STEPS").stdin(Stdio::null());
        command
    }

    /// Returns the command of a shell script in the same namespace. Added arguments are the script's.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = self.namespace();
        let _ = command.args(["sh", "-euc", script, "sh"]).stdin(Stdio::null());
        command
    }

    fn namespace(&self) -> Command {
        // By its path: with another PATH in the environment, Rust would look for it in a copy of this whole process.
        let mut command = Command::new("/usr/bin/unshare");
        let script = r#"mount --make-rprivate / && mount --bind "$0" /var/lib || exit
            [ ! -e "$0/../console" ] || [ ! -e /dev/console ] || mount --bind "$0/../console" /dev/console || exit
            if cd "$0/../machine" 2>/dev/null; then
                mount --bind etc /etc && mount --bind run /run && mount --bind bin /usr/local/sbin || exit
                mount --bind swaps /proc/swaps && { [ ! -e disk.img ] || mount -o loop disk.img disk; } || exit
                PATH=/usr/local/sbin:$PATH; cd /
            fi
            exec "$@""#;
        let state = self.path.join("var-lib");
        fs::create_dir_all(&state).expect("a directory");
        let _ = command.args(["--mount", "sh", "-c", script]).arg(state);
        command
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        Finished::from(self.command(arguments).output().expect("unshare, as root"))
    }

    /// Runs `run` with a one-step manifest of these resources.
    pub fn run_resources(&self, resources: &str) -> Finished {
        let manifest = self.manifest(resources);
        self.run(&["run", "--steps", &manifest])
    }

    /// Writes a one-step manifest of these resources.
    pub fn manifest(&self, resources: &str) -> String {
        self.write("manifest.toml", format!("name = \"step\"\n{resources}"))
    }

    /// Starts it in the background with its output captured.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("unshare, as root")
    }

    /// Returns the report of the last run.
    pub fn report(&self) -> serde_json::Value {
        let text = fs::read(self.path.join("var-lib/glovo-bootstrap/report.json")).expect("a report");
        serde_json::from_slice(&text).expect("a whole report")
    }
}

/// Writes a script by another process, for the same reason as [`copy_binary`].
fn write_script(path: &Path, text: &[u8]) {
    let mut tee = Command::new("tee").arg(path).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("tee");
    tee.stdin.take().expect("a pipe").write_all(text).expect("its text");
    assert!(tee.wait().is_ok_and(|status| status.success()), "writing {}", path.display());
}

/// Copies the binary, by another process. A child that another test starts would inherit a descriptor that this process
/// writes to, and the copy could not be started until that child's exec (`ETXTBSY`).
pub fn copy_binary(path: &str) {
    let copied = Command::new("cp").args([env!("CARGO_BIN_EXE_glovo-bootstrap"), path]).status();
    assert!(copied.is_ok_and(|status| status.success()), "copying the binary to {path}");
}

/// Removes the directories of killed test processes.
fn sweep() {
    for entry in fs::read_dir(std::env::temp_dir()).expect("a directory").flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !is_alive(pid)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[test]
fn what_a_killed_test_left_is_removed_by_the_next() {
    let mut ended = Command::new("true").spawn().expect("true");
    let left = std::env::temp_dir().join(format!("{PREFIX}{}-0", ended.id()));
    let _ = ended.wait().expect("its end");
    fs::create_dir_all(left.join("full")).expect("a directory");
    let sandbox = Sandbox::new();
    sweep();
    assert!(!left.exists() && sandbox.path.exists());
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The exit code and output of the binary.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

impl Finished {
    /// Checks the exit code. Shows all output if it differs.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Checks that some words were printed, to either stream.
    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        assert!(
            self.stdout.contains(words) || self.stderr.contains(words),
            "missing: {words}\nstdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }
}

/// Waits up to a minute until a condition is met.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("never: {what}");
}

/// Returns a listener at an address of loopback at which nothing else listens: after its end the port stays closed, while
/// other tests open ports.
pub fn lone_listener() -> TcpListener {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [_, _, third, fourth] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, COUNT.fetch_add(1, Ordering::Relaxed), third, fourth);
    TcpListener::bind((address, 0)).expect("a port")
}

/// Returns whether a process exists and is not a zombie.
pub fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().is_empty() && !rest.trim_start().starts_with('Z'))
}
