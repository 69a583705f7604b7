//! Downloads of `run` and `fetch` from many origins, and from origins that refuse or lie.

use std::{
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use sha2::Digest;

use crate::{
    sandbox::{Finished, Sandbox},
    server::{Reply, Server},
};

/// A resource whose bytes come from a URL.
fn file(sandbox: &Sandbox, name: &str, url: &str, content: &[u8]) -> String {
    let sha256: String = sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    let path = sandbox.at(name);
    format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\nsource = \"{url}\"\nsha256 = \"{sha256}\"\n")
}

/// Runs the binary under a resource limit, written as for prlimit(1).
fn limited(sandbox: &Sandbox, limit: &str, arguments: &[&str]) -> Finished {
    let inner = sandbox.command(arguments);
    let mut command = Command::new("prlimit");
    let _ = command.arg(limit).arg(inner.get_program()).args(inner.get_args()).current_dir(&sandbox.path);
    let _ = command.env("HOME", &sandbox.path).env_remove("GLOVO_BOOTSTRAP_STEPS");
    Finished::from(command.output().expect("prlimit(1)"))
}

/// Starts a server that announces a number of bytes and sends none.
fn liar(length: u64, headers: &'static str) -> Server {
    let length = usize::try_from(length).unwrap();
    Server::start(move |_| Reply { status: 200, length, headers, parts: Box::new(std::iter::empty()) })
}

#[test]
fn an_announced_length_costs_no_memory() {
    let memory = "--data=67108864";
    for (power, length) in [47, 52, 60].map(|power| (power, 1 << power)).into_iter().chain([(63, (1 << 63) - 1)]) {
        for headers in ["", "etag: \"v1\"\r\n"] {
            let sandbox = Sandbox::new();
            let server = liar(length, headers);
            let url = server.url("/app.jar");
            let announced = "the server announces ";
            let _ = limited(&sandbox, memory, &["fetch", &url]).expect(1).says(announced);
            let manifest = sandbox.manifest(&file(&sandbox, "app.jar", &url, b"jar"));
            let _ = limited(&sandbox, memory, &["run", "--steps", &manifest]).expect(1).says(announced);
            assert_eq!(server.paths().len(), 2, "2^{power}: one request each");
            let staging = sandbox.path.join("var-lib/glovo-bootstrap/staging");
            assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0);
        }
    }
}

#[test]
fn more_bytes_than_the_disk_has_room_for_are_not_begun() {
    let sandbox = Sandbox::new();
    // This length fits a file but no disk: it is compared with the free space.
    let server = liar(32 << 40, "etag: \"v1\"\r\n");
    let run = sandbox.run_resources(&file(&sandbox, "app.jar", &server.url("/app.jar"), b"jar")).expect(1);
    let _ = run.says("the server announces 32 TiB, but the file system of ").says(" free\n").says("hint: free space");
    let status = sandbox.run(&["status"]).expect(1);
    let _ = status.says("the server announces 32 TiB");
}

#[test]
fn many_downloads_fit_into_the_usual_number_of_descriptors() {
    let server = Server::start(|request| Reply::ok(request.target.clone()));
    let names: Vec<String> = (0..700).map(|number| format!("file-{number}")).collect();
    let sandbox = Sandbox::new();
    let resource =
        |name: &String| file(&sandbox, name, &server.url(&format!("/{name}")), format!("/{name}").as_bytes());
    let manifest = sandbox.manifest(&names.iter().map(resource).collect::<String>());
    let _ = limited(&sandbox, "--nofile=1024:1024", &["run", "--steps", &manifest])
        .expect(0)
        .says("converged: 700 changes");
    assert_eq!(server.paths().len(), 700);

    let sandbox = Sandbox::new();
    let urls: String = names.iter().map(|name| server.url(&format!("/{name}\n"))).collect();
    let list = sandbox.write("list", urls);
    let _ = limited(&sandbox, "--nofile=256:256", &["fetch", "--input", &list]).expect(0).says("fetched 700 files");
}

/// Runs a script in which `$agent` is the binary, in a mount namespace where `/var/lib` is a tmpfs of these options.
fn on_small_disk(sandbox: &Sandbox, options: &str, script: &str) -> Finished {
    let script =
        format!("mount --make-rprivate / && mount -t tmpfs -o {options} tmpfs /var/lib && agent=$0 && {{ {script}\n}}");
    let mut command = Command::new("unshare");
    let _ = command.args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_glovo-bootstrap")]);
    Finished::from(command.current_dir(&sandbox.path).output().expect("unshare, as root"))
}

#[test]
fn a_file_system_without_inodes_is_said_to_lack_them() {
    let (sandbox, server) = (Sandbox::new(), Server::start(|_| Reply::ok("jar")));
    let script = format!("$agent fetch -o /var/lib/new {}", server.url("/app.jar"));
    let fetch = on_small_disk(&sandbox, "nr_inodes=2", &script).expect(1).says("cannot write files into /var/lib/new");
    assert!(server.paths().is_empty() && !fetch.stderr.contains("--output-dir"), "{}", fetch.stderr);
    let _ = fetch
        .says("No space left on device")
        .says("hint: remove files: the file system has no free inode; to see: df -i /var/lib/new");
}

#[test]
fn a_run_that_fills_the_disk_leaves_a_report_that_says_why() {
    let sandbox = Sandbox::new();
    let fill = "dd if=/dev/zero of=/var/lib/fill bs=4k conv=notrunc oflag=append; exit 1";
    // The state directory is on another disk, so that a failed download takes no space of this one.
    let path = sandbox.at("x");
    let manifest = sandbox.manifest(&format!(
        "[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"new\"\n\
         validate = [\"sh\", \"-c\", \": {{}}; {fill}\"]\n"
    ));
    let run = format!("$agent run --steps {manifest} >&2; $agent status");
    let script = format!("{run}; {run}; true");
    let runs = on_small_disk(&sandbox, "size=2m", &script).expect(0);
    assert_eq!(runs.stdout.matches(&format!("! file {path}: ")).count(), 2, "{runs:?}");
    assert!(!runs.stdout.contains("cut off") && runs.stderr.contains("No space left on device"), "{runs:?}");
}

#[test]
fn a_download_that_no_tmpfs_holds_leaves_it_free_and_a_report() {
    let sandbox = Sandbox::new();
    let server = Server::start(|_| Reply { headers: "etag: \"v1\"\r\n", ..Reply::ok(vec![b'x'; 16 << 20]) });
    let manifest = sandbox.manifest(&file(&sandbox, "app.jar", &server.url("/app.jar"), b"jar"));
    let small = sandbox.write(
        "small.toml",
        format!("name = \"small\"\n{}", "[[resource]]\nkind = \"directory\"\npath = \"/var/lib/d\"\n"),
    );
    let script = format!(
        "$agent run --steps {manifest} >&2; $agent status; ls -A /var/lib/glovo-bootstrap/staging; $agent run --steps {small}"
    );
    let runs = on_small_disk(&sandbox, "size=4m", &script).expect(0);
    let why = "the server announces 16 MiB, but the file system of /var/lib/glovo-bootstrap/staging has ";
    assert!(runs.stdout.contains(why) && !runs.stdout.contains(".part"), "{runs:?}");
    let _ = runs.says("converged: 1 change");
}

#[test]
fn an_origin_that_refuses_for_a_while_does_not_stop_a_run() {
    let sandbox = Sandbox::new();
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |_| {
        let refused = Reply { headers: "retry-after: 0\r\n", ..Reply::new(503, "") };
        if asked.fetch_add(1, Ordering::Relaxed) < 30 { refused } else { Reply::ok("jar") }
    });
    let url = server.url("/app.jar");
    let waits = format!("waiting 0 ms for {url} (attempt 1: the server answered 503 Service Unavailable)");
    let _ = sandbox.run_resources(&file(&sandbox, "app.jar", &url, b"jar")).expect(0).says(&waits);

    // A user waits for `fetch`, so it gives up sooner.
    let server = Server::start(|_| Reply { headers: "retry-after: 0\r\n", ..Reply::new(503, "") });
    let fetch = limited(&sandbox, "--nofile=1024", &["fetch", &server.url("/app.jar")]).expect(1);
    let _ = fetch.says("gave up after 5 attempts");
    assert_eq!(server.paths().len(), 5);
}

#[test]
fn a_small_file_costs_few_looks_and_is_not_read_again() {
    let server = Server::start(|request| Reply::ok(request.target.clone()));
    let looks = |files: usize| {
        let sandbox = Sandbox::new();
        let urls: String = (0..files).map(|file| server.url(&format!("/{file}\n"))).collect();
        let inner = sandbox.command(&["fetch", "--output-dir", &sandbox.at("out"), "--input"]);
        let mut command = Command::new("strace");
        let _ = command.args(["-f", "-q", "-o", &sandbox.at("trace"), "-e", "trace=newfstatat,fstat,pread64"]);
        let _ = command.arg(inner.get_program()).args(inner.get_args()).arg(sandbox.write("urls", &urls));
        let _ =
            Finished::from(command.current_dir(&sandbox.path).env("HOME", &sandbox.path).output().unwrap()).expect(0);
        let trace = std::fs::read_to_string(sandbox.at("trace")).unwrap();
        // A call that another thread interrupts in the trace has two lines.
        let begun = trace.lines().filter(|line| !line.contains(" resumed>"));
        ["stat", "pread64("].map(|call| begun.clone().filter(|line| line.contains(call)).count())
    };
    let (few, many) = (looks(10), looks(110));
    // Its destination, its number, its owner, its names before and after the rename, and its directory.
    assert_eq!([0, 1].map(|call| many[call] - few[call]), [600, 0]);
}
