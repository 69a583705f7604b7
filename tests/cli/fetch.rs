//! `glovo-bootstrap fetch`, against a server in this process.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Condvar, Mutex, mpsc},
    time::Duration,
};

use serde_json::Value;
use sha2::Digest;

use crate::{
    sandbox::{Finished, Sandbox, copy_binary, eventually},
    server::{Reply, Request, Server},
};

/// Returns the command `fetch` in the sandbox's directory, which is also its home. It knows no AWS except the test's.
fn command(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = sandbox.command(&[&["fetch"], arguments].concat());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        let _ = command.env_remove(name);
    }
    let _ = command.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", &sandbox.path).current_dir(&sandbox.path);
    command
}

fn fetch(sandbox: &Sandbox, arguments: &[&str]) -> Finished {
    Finished::from(command(sandbox, arguments).output().unwrap())
}

/// Returns the paths below a directory, without the state directory. Directories end in a slash.
fn files(sandbox: &Sandbox) -> Vec<String> {
    fn walk(directory: &Path, prefix: &str, names: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if name.starts_with("var-lib") || name.starts_with(".aws") {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{name}/"), names);
            } else {
                names.push(name);
            }
        }
    }
    let mut names = vec![];
    walk(&sandbox.path, "", &mut names);
    names.sort();
    names
}

fn text(sandbox: &Sandbox, name: &str) -> String {
    fs::read_to_string(sandbox.at(name)).unwrap()
}

fn sha256(text: &str) -> String {
    sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Starts a server that answers with the requested path. A path that begins with `/no` does not exist.
fn echo() -> Server {
    Server::start(|request| {
        if request.target.starts_with("/no") { Reply::new(404, "") } else { Reply::ok(request.target.clone()) }
    })
}

#[test]
fn files_arrive_under_the_names_that_their_urls_end_in() {
    let (sandbox, server) = (Sandbox::new(), echo());
    let source = sandbox.write("source/local file", "local");
    let urls = [server.url("/a/b%20%C3%BC.txt?token=s3cret#part"), server.url("/c.jar"), format!("file://{source}")];
    let run = fetch(
        &sandbox,
        &["--output-dir", "x/../out/deep", "-u", &urls[0], "--url", &urls[1], "-j", "1", "--", &urls[2]],
    );
    let run = run.expect(0).says("fetched            6 bytes  ").says("  c.jar\n").says("fetched 3 files, ");
    assert_eq!(files(&sandbox), ["out/deep/b ü.txt", "out/deep/c.jar", "out/deep/local file", "source/local file"]);
    assert_eq!(text(&sandbox, "out/deep/b ü.txt"), "/a/b%20%C3%BC.txt?token=s3cret");
    assert_eq!(text(&sandbox, "out/deep/local file"), "local");
    assert!(!run.stdout.contains("s3cret") && run.stderr.is_empty(), "{run:?}");
    assert_eq!(fs::read_dir(sandbox.at("var-lib")).unwrap().count(), 0, "it needs no state");
}

#[test]
fn of_equal_names_only_the_last_one_is_downloaded() {
    let (sandbox, server) = (Sandbox::new(), echo());
    let urls = [server.url("/1/x"), server.url("/2/x"), server.url("/y"), server.url("/3/x")];
    let run = fetch(&sandbox, &[&urls[0], &urls[1], &urls[2], &urls[3]]).expect(0).says("fetched 2 files");
    let run = run.says("; 2 skipped").says(&format!("{} is skipped: the later {} has the same name", urls[1], urls[3]));
    assert_eq!(run.stdout.lines().filter(|line| line.starts_with("skipped ")).count(), 2, "{run:?}");
    assert_eq!(server.paths(), ["/3/x", "/y"]);
    assert_eq!(text(&sandbox, "x"), "/3/x");
}

#[test]
fn what_has_not_arrived_at_the_deadline_has_failed() {
    let (sandbox, server) = (Sandbox::new(), waiting());
    let urls = [server.0.url("/never"), server.0.url("/after")];
    let run = fetch(&sandbox, &["--timeout", "300ms", "--jobs", "1", &urls[0], &urls[1]]).expect(1);
    let _ = run.says("fetched nothing; 2 failed").says("fetch timed out after 300 ms");
    // Without an ETag, the next try cannot resume a part, so none is kept.
    assert!(files(&sandbox).is_empty() && !server.0.paths().contains(&"/after".to_owned()));
    let _ = fetch(&sandbox, &["--timeout", "soon", &urls[1]]).expect(2).says("is not a duration");
}

#[test]
fn urls_that_can_t_be_fetched_are_all_named_before_anything_is() {
    let (sandbox, server) = (Sandbox::new(), echo());
    let good = server.url("/good");
    let bad = [
        ("ftp://user:s3cret@host/x?t=s3cret", "ftp://host/x: `ftp` is not a scheme that can be fetched"),
        ("host/x?t=s3cret", "host/x: `host/x` is not a URL"),
        ("https://user:s3cret@host/x", "https://host/x: a URL must not hold credentials"),
        ("https://host/dir/?t=s3cret", "https://host/dir/: it ends in a slash, so there is no file name"),
        ("https://host", "https://host: it ends in a slash"),
        ("https://host/a%2Fb", "holds an encoded slash"),
        ("https://host/..%2f..", "holds an encoded slash"),
        ("https://host/a%0Ab", "contains the control character \\n"),
        ("https://host/a%00b", "contains the control character \\u{0}"),
        ("https://host/a%ffb", "is not UTF-8"),
        ("s3://bucket/prefix/", "s3://bucket/prefix/: it ends in a slash: --recursive fetches what is below it"),
        ("s3://bucket/a/..", "`..` is no file name"),
        ("https://host/x#sha256=abc", "https://host/x: a sha256 has 64 hexadecimal digits"),
    ];
    let mut arguments = vec![good.as_str()];
    arguments.extend(bad.iter().map(|(url, _)| *url));
    let mut run =
        fetch(&sandbox, &arguments).expect(1).says("error: 13 of 14 URLs are invalid; nothing was downloaded");
    for (_, words) in bad {
        run = run.says(words);
    }
    assert!(!run.stderr.contains("s3cret"), "{}", run.stderr);
    assert_eq!((server.paths(), files(&sandbox)), (vec![], vec![]));
    let _ = fetch(&sandbox, &[]).expect(2).says("required");
}

#[test]
fn one_that_is_missing_does_not_keep_the_others() {
    let (sandbox, server) = (Sandbox::new(), echo());
    let urls = [server.url("/a"), server.url("/no/b"), server.url("/c"), server.url("/no/d")];
    let run = fetch(&sandbox, &[&urls[0], &urls[1], &urls[2], &urls[3]]).expect(1);
    let run = run.says("fetched 2 files, ").says("; 2 failed").says("failed                                    b\n");
    // Both have the same cause, which is printed once.
    let errors = format!(
        "error: downloading {}\nerror: downloading {}\ncaused by: the server answered 404 Not Found\n\
         hint: check the URL: was this version published?\n",
        urls[1], urls[3]
    );
    assert_eq!(run.stderr, errors);
    assert_eq!(files(&sandbox), ["a", "c"]);
}

#[test]
fn other_bytes_than_declared_never_replace_a_file() {
    let (sandbox, server) = (Sandbox::new(), echo());
    let _ = sandbox.write("x", "old");
    let url = server.url("/x");
    let wrong = sha256("something else");
    let _ = fetch(&sandbox, &[&url, "--sha256", &wrong]).expect(1).says(&format!("not {wrong}"));
    assert_eq!((text(&sandbox, "x"), files(&sandbox)), ("old".into(), vec!["x".to_owned()]));
    let asked = server.paths().len();

    let _ = fetch(&sandbox, &[&url, "--sha256", &sha256("/x")]).expect(0).says("fetched 1 file, 2 bytes");
    assert_eq!(text(&sandbox, "x"), "/x");
    let run = fetch(&sandbox, &[&format!("{url}#sha256={}", sha256("/x").to_uppercase())]).expect(0);
    let _ = run.says("already there      2 bytes").says("fetched nothing; 1 already there");
    assert_eq!(server.paths().len(), asked + 1);
}

#[test]
fn a_digest_belongs_to_one_file() {
    let (sandbox, server) = (Sandbox::new(), echo());
    let urls = [server.url("/x"), server.url("/y=z")];
    let refused = |digests: &[&str], words: &str| {
        let digests: Vec<&str> = digests.iter().flat_map(|digest| ["--sha256", digest]).collect();
        let _ = fetch(&sandbox, &[&[urls[0].as_str(), &urls[1]], digests.as_slice()].concat()).expect(1).says(words);
        assert!(server.paths().is_empty());
    };
    let (x, y) = (sha256("/x"), sha256("/y=z"));
    refused(&[&x], "does not name one of the 2 files");
    refused(&["x=abc"], "a sha256 has 64 hexadecimal digits");
    refused(&[&format!("z={x}")], "no file is named z");
    refused(&[&format!("x={x}"), &format!("x={y}")], "cannot have two digests");
    let pins = [format!("x={x}"), format!("y=z={y}")];
    let _ = fetch(&sandbox, &[&urls[0], &urls[1], "--sha256", &pins[0], "--sha256", &pins[1]]).expect(0);
    let swapped = [format!("x={y}"), format!("y=z={x}")];
    let run = fetch(&sandbox, &[&urls[0], &urls[1], "--sha256", &swapped[0], "--sha256", &swapped[1]]).expect(1);
    let _ = run.says("; 2 failed");
}

#[test]
fn urls_are_read_from_a_file_or_standard_input() {
    let (sandbox, server) = (Sandbox::new(), echo());
    let list = format!(
        "# what is needed\r\n\n  {}  sha256={} \n{}#sha256={}\n{}\n",
        server.url("/a"),
        sha256("/a"),
        server.url("/b"),
        sha256("not b"),
        server.url("/c")
    );
    let file = sandbox.write("list", &list);
    let mut child = command(&sandbox, &["--input", "-"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    let _ = Finished::from(child.wait_with_output().unwrap()).expect(1).says("fetched 2 files").says("1 failed");
    let run = fetch(&sandbox, &["-i", &file, &server.url("/0/c"), "-o", "."]).expect(1);
    let _ = run.says("already there").says("/0/c is skipped").says("fetched 1 file");
    assert_eq!(files(&sandbox), ["a", "c", "list"]);

    let bad = sandbox.write("bad", "http://host/a\nhttp://host/b sha1=1\n\ngit://host/c\n");
    let run = fetch(&sandbox, &["--input", &bad]).expect(1).says("2 of 3 URLs");
    let _ = run.says("bad:2: http://host/b: after the URL comes nothing, or sha256=HEX").says("bad:4: git://host/c: ");
    let _ = fetch(&sandbox, &["--input", "none"]).expect(1).says("reading none");
}

#[test]
fn the_result_is_one_json_document() {
    let (sandbox, server) = (Sandbox::new(), echo());
    let _ = sandbox.write("there", "there");
    let urls = [server.url("/1/x"), server.url("/x?s3cret"), server.url("/no"), server.url("/there")];
    let pin = format!("there={}", sha256("there"));
    let run = fetch(&sandbox, &["--json", "--sha256", &pin, &urls[0], &urls[1], &urls[2], &urls[3]]).expect(1);
    let run = run.says("error: downloading");
    let document: Value = serde_json::from_str(&run.stdout).unwrap();
    let files = document["files"].as_array().unwrap();
    let column = |name: &str| files.iter().map(|file| file[name].clone()).collect::<Vec<Value>>();
    assert_eq!(column("status"), ["skipped", "fetched", "failed", "already_there"]);
    assert_eq!(column("source")[1], server.url("/x"));
    assert_eq!(column("path")[1], sandbox.at("x"));
    assert_eq!(column("size"), [Value::Null, 9.into(), Value::Null, 5.into()]);
    assert_eq!(column("sha256")[1], sha256("/x?s3cret"));
    assert_eq!(column("sha256")[3], sha256("there"));
    assert_eq!(column("resumed")[1], 0);
    assert!(column("seconds")[1].as_f64().is_some_and(|seconds| seconds > 0.0));
    assert_eq!(column("error")[2]["causes"][1], "the server answered 404 Not Found");
    assert!(column("error")[2]["hint"].is_string() && column("error")[1].is_null());
}

#[test]
fn what_stands_in_the_way_is_replaced_only_if_it_is_a_file() {
    let (sandbox, server) = (Sandbox::new(), echo());
    fs::create_dir(sandbox.at("directory")).unwrap();
    assert!(Command::new("mkfifo").arg(sandbox.at("fifo")).status().unwrap().success());
    let victim = sandbox.write("victim", "old");
    symlink(&victim, sandbox.at("link")).unwrap();
    let urls = [server.url("/directory"), server.url("/fifo"), server.url("/link")];
    let run = fetch(&sandbox, &[&urls[0], &urls[1], &urls[2]]).expect(1);
    let _ = run.says("directory is a directory").says("fifo is a device, socket or FIFO").says("fetched 1 file");
    assert_eq!(server.paths(), ["/link"]);
    assert_eq!((text(&sandbox, "victim"), text(&sandbox, "link")), ("old".into(), "/link".into()));
    let _ = fetch(&sandbox, &["-o", &victim, &urls[2]]).expect(1).says("cannot write files into");
}

#[test]
fn an_ordinary_user_needs_only_a_directory_of_its_own() {
    let (sandbox, server) = (Sandbox::new(), echo());
    fs::set_permissions(&sandbox.path, fs::Permissions::from_mode(0o755)).unwrap();
    let home = sandbox.at("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(65534), Some(65534)).unwrap();
    // Every user can execute the program there.
    let agent = sandbox.at("agent");
    copy_binary(&agent);
    let script = "umask 027 && cd \"$0\" && exec \"$@\"";
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script, &home];
    let mut as_user = Command::new("setpriv");
    let _ = as_user.args(user).args([&agent, "fetch", "-o", "new/one", &server.url("/x")]).env("HOME", &home);
    let _ = Finished::from(as_user.output().unwrap()).expect(0);
    let mode = |name: &str| fs::metadata(sandbox.at(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("home/new"), mode("home/new/one"), mode("home/new/one/x")], [0o750, 0o750, 0o640]);

    // The user can put anything there: a directory, or a link to a directory of root.
    fs::create_dir(sandbox.at("target")).unwrap();
    symlink(sandbox.at("target"), sandbox.at("home/link")).unwrap();
    for directory in ["home", "home/new/one", "home/link"] {
        let run = fetch(&sandbox, &["-o", directory, &server.url("/y")]).expect(1);
        let _ = run.says("belongs to uid 65534").says("hint: name another directory");
    }
    assert_eq!((server.paths(), fs::read_dir(sandbox.at("target")).unwrap().count()), (vec!["/x".to_owned()], 0));
}

#[test]
fn jobs_limits_the_downloads_at_once() {
    for jobs in [2, 12] {
        let sandbox = Sandbox::new();
        // The number of requests being answered, and the highest number so far. No request is answered before all have
        // arrived.
        let state = Arc::new((Mutex::new((0, 0)), Condvar::new()));
        let seen = state.clone();
        let server = Server::start(move |_| {
            let (count, changed) = &*seen;
            let mut at = count.lock().unwrap();
            at.0 += 1;
            at.1 = at.1.max(at.0);
            changed.notify_all();
            let (mut at, _) = changed.wait_timeout_while(at, Duration::from_secs(10), |at| at.1 < jobs).unwrap();
            at.0 -= 1;
            Reply::ok("")
        });
        let urls: Vec<String> = (0..jobs * 2).map(|number| server.url(&format!("/{number}"))).collect();
        let mut arguments = vec!["--jobs".to_owned(), jobs.to_string()];
        arguments.extend(urls);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let _ = fetch(&sandbox, &arguments).expect(0);
        assert_eq!(state.0.lock().unwrap().1, jobs);
    }
}

/// A server that pauses in the middle of a body until the test continues it.
fn waiting() -> (Server, mpsc::Sender<()>) {
    let (go, wait) = mpsc::channel();
    let wait = Arc::new(Mutex::new(wait));
    let server = Server::start(move |_| {
        let wait = wait.clone();
        let parts = (0..2).map(move |part| {
            if part == 1 {
                let _ = wait.lock().unwrap().recv();
            }
            vec![b'x'; 1 << 20]
        });
        Reply { status: 200, length: 2 << 20, headers: "", parts: Box::new(parts) }
    });
    (server, go)
}

#[test]
fn a_signal_ends_it_and_leaves_the_old_file() {
    let (sandbox, (server, _go)) = (Sandbox::new(), waiting());
    let _ = sandbox.write("x", "old");
    let mut run = command(&sandbox, &[&server.url("/x")]);
    let run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("it downloads", || !server.requests().is_empty());
    assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
    let run = Finished::from(run.wait_with_output().unwrap()).expect(130);
    let run = run.says("error: 0 of 1 files are complete").says("stopped by SIGINT");
    assert!(run.stdout.is_empty());
    assert_eq!(text(&sandbox, "x"), "old");
}

#[test]
fn a_terminal_shows_how_far_it_is() {
    let (sandbox, (server, go)) = (Sandbox::new(), waiting());
    let screen = sandbox.at("screen");
    let line = format!("{} fetch -o {} {}", env!("CARGO_BIN_EXE_glovo-bootstrap"), sandbox.at("out"), server.url("/x"));
    let mut script = Command::new("script");
    let _ = script.args(["--quiet", "--flush", "--return", "--command", &line, &screen]).env("TERM", "xterm");
    let mut script = script.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let shown = |words: &str| String::from_utf8_lossy(&fs::read(&screen).unwrap_or_default()).contains(words);
    eventually("the half is shown", || shown(" 50% of 2.00 MiB ") && shown(" left  x") && shown("0 of 1 file"));
    go.send(()).unwrap();
    assert!(script.wait().unwrap().success());
    assert!(shown("fetched 1 file, 2 MiB in "));
}

const LISTED: [&str; 6] = ["app/", "app/a b+c.txt", "app/deep/er/ü", "app/deep/z", "app/x", "other/y"];

/// Starts a bucket with these keys, two in each page of a listing. The content of an object is its key. Only this
/// access key may read.
fn bucket(keys: &'static [&'static str], access_key: &'static str) -> Server {
    Server::start(move |request| {
        if !request.authorization.contains(&format!("Credential={access_key}/")) {
            return Reply::new(403, "<Error><Code>AccessDenied</Code></Error>");
        }
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        if path != "/bucket/" && path != "/bucket" {
            return Reply::ok(path);
        }
        assert!(query.contains("list-type=2") && query.contains("encoding-type=url"), "{query}");
        let field = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let prefix = field("prefix").unwrap_or_default().replace("%2F", "/");
        let matching: Vec<&str> = keys.iter().copied().filter(|key| key.starts_with(&prefix)).collect();
        let from: usize = field("continuation-token").map_or(0, |token| token.parse().unwrap());
        let page = matching.iter().skip(from).take(2).map(|key| {
            let key = key.replace('+', "%2B").replace(' ', "+").replace('ü', "%C3%BC").replace('\n', "%0A");
            format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>")
        });
        let page: String = page.collect();
        let more = from + 2 < matching.len();
        let next =
            if more { format!("<NextContinuationToken>{}</NextContinuationToken>", from + 2) } else { String::new() };
        Reply::ok(format!(
            "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{more}</IsTruncated>{next}{page}</ListBucketResult>"
        ))
    })
}

/// `fetch` with S3 at a server.
fn fetch_s3(sandbox: &Sandbox, server: &Server, environment: &[(&str, &str)], arguments: &[&str]) -> Finished {
    let mut command = command(sandbox, arguments);
    let _ = command.env("AWS_ENDPOINT_URL_S3", server.url("")).envs(environment.iter().copied());
    Finished::from(command.output().unwrap())
}

fn profiles(sandbox: &Sandbox) {
    let _ = sandbox.write(
        ".aws/credentials",
        "[default]\naws_access_key_id = AKDEFAULT\naws_secret_access_key = d3fault\n\
         [other]\naws_access_key_id = AKOTHER\naws_secret_access_key = 0ther\n",
    );
    let _ = sandbox.write(".aws/config", "[default]\nregion = eu-west-1\n[profile other]\nregion = eu-north-1\n");
}

#[test]
fn all_below_a_prefix_arrives_in_directories() {
    let (sandbox, server) = (Sandbox::new(), bucket(&LISTED, "AKDEFAULT"));
    profiles(&sandbox);
    let run = fetch_s3(&sandbox, &server, &[], &["--recursive", "-o", "out", "s3://bucket/app/"]).expect(0);
    let _ = run.says("fetched 4 files").says("  deep/er/ü\n");
    assert_eq!(files(&sandbox), ["out/a b+c.txt", "out/deep/er/ü", "out/deep/z", "out/x"]);
    assert_eq!(text(&sandbox, "out/deep/z"), "/bucket/app/deep/z");
    let listings = server.requests().iter().filter(|request| request.target.contains("list-type")).count();
    assert_eq!(listings, 3, "five keys, two on a page");
    let _ = fetch_s3(&sandbox, &server, &[], &["-r", "-o", "all", "s3://bucket/"]).expect(0).says("fetched 5 files");
    assert!(fs::exists(sandbox.at("all/other/y")).unwrap());
    let run = fetch_s3(&sandbox, &server, &[], &["-r", "s3://bucket/none/", "s3://bucket/app/x"]).expect(1);
    let _ = run.says("there are no objects below s3://bucket/none/").says("fetched 1 file");
    assert!(fs::exists(sandbox.at("x")).unwrap());
}

#[test]
fn keys_that_lead_elsewhere_are_refused_one_by_one() {
    const KEYS: [&str; 7] = ["p//etc/x", "p/../../x", "p/./x", "p/a\nb", "p/good", "p/up/..", "p/good/below"];
    let (sandbox, server) = (Sandbox::new(), bucket(&KEYS, "AKDEFAULT"));
    profiles(&sandbox);
    let run = fetch_s3(&sandbox, &server, &[], &["-r", "-o", "in/out", "s3://bucket/p/"]).expect(1);
    let run = run.says("s3://bucket/p//etc/x cannot be a file below a directory").says("its path has an empty part");
    let run = run.says("`..` is no file name").says("`.` is no file name").says("p/a\\nb cannot be");
    // A file and a directory have the same name. The directory is made first.
    let _ = run.says("in/out/good is a directory").says("fetched 1 file").says("; 6 failed");
    assert_eq!(files(&sandbox), ["in/out/good/below"]);
}

#[test]
fn credentials_come_from_the_default_profile_or_the_one_named() {
    let sandbox = Sandbox::new();
    profiles(&sandbox);
    let region = |server: &Server| {
        let requests = server.requests();
        requests.last().and_then(|Request { authorization, .. }| authorization.split('/').nth(2)).map(str::to_owned)
    };
    let server = bucket(&LISTED, "AKDEFAULT");
    let _ = fetch_s3(&sandbox, &server, &[], &["s3://bucket/app/x"]).expect(0);
    assert_eq!(region(&server).as_deref(), Some("eu-west-1"));

    let server = bucket(&LISTED, "AKOTHER");
    let environment = [("AWS_ACCESS_KEY_ID", "AKENVIRONMENT"), ("AWS_SECRET_ACCESS_KEY", "3nvironment")];
    let _ = fetch_s3(&sandbox, &server, &environment, &["--profile", "other", "s3://bucket/app/x"]).expect(0);
    assert_eq!(region(&server).as_deref(), Some("eu-north-1"));
    let _ = fetch_s3(&sandbox, &server, &[("AWS_PROFILE", "other")], &["s3://bucket/app/x"]).expect(0);
    let run = fetch_s3(&sandbox, &server, &environment, &["-r", "s3://bucket/app/"]).expect(1);
    let run = run.says("error: listing s3://bucket/app/");
    let run = run.says("the access key AKENVIRONMENT is not allowed s3:ListBucket on arn:aws:s3:::bucket");
    assert!(!run.stderr.contains("3nvironment"));
    let run = fetch_s3(&sandbox, &server, &[], &["--profile", "none", "s3://bucket/app/x"]).expect(1);
    let _ = run
        .says("the AWS profile none does not exist")
        .says("~/.aws/config and ~/.aws/credentials have: other, default");
}
