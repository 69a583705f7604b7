//! What surrounds a machine in EC2, in a network namespace of its own: the metadata service at its link-local address,
//! S3, HTTP origins and package archives, and the name server that knows them and nothing else.
//!
//! The servers run in this process, on a thread that lives in the namespace: so tests see every request, and inject
//! faults, without a protocol between.

mod dns;
mod fault;
mod files;
mod http;
mod imds;
mod relay;
mod s3;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use tokio::sync::oneshot;

pub use fault::Fault;
use fault::Faults;

/// The secrets of the role's credentials, which no output may show.
pub const SECRETS: [&str; 2] = [imds::SECRET_KEY, imds::SESSION_TOKEN];
/// The role's credentials and region, as the environment gives them to the AWS SDKs.
pub const AWS_ENVIRONMENT: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", imds::ACCESS_KEY),
    ("AWS_SECRET_ACCESS_KEY", imds::SECRET_KEY),
    ("AWS_SESSION_TOKEN", imds::SESSION_TOKEN),
    ("AWS_REGION", REGION),
];

/// An operator's credentials and region, likewise.
pub(crate) const OPERATOR_ENVIRONMENT: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", s3::OPERATOR.0), ("AWS_SECRET_ACCESS_KEY", s3::OPERATOR.1), ("AWS_REGION", REGION)];

/// The address of the metadata service, in every EC2 network.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The router of the machine's subnet; every name there is leads to it.
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);
const REGION: &str = "eu-central-1";
/// The account of the machine, of its role and of the emulators.
pub(crate) const ACCOUNT: &str = "123456789012";

/// One request that the world has answered, or a name it was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `PUT` …, or `DNS`.
    pub method: String,
    /// The name that was asked: `origin.test`, `169.254.169.254`.
    pub host: String,
    /// Path and query; empty for a name.
    pub path: String,
    /// The answer's status; 0 where the connection was dropped; for a name the DNS response code.
    pub status: u16,
    /// The `User-Agent`.
    pub agent: String,
}

impl Request {
    /// `METHOD host/path`, what faults and tests match.
    pub fn line(&self) -> String {
        format!("{} {}{}", self.method, self.host, self.path)
    }
}

/// A world's network, by the path of its namespace.
#[derive(Clone, Debug)]
pub(crate) struct Network(PathBuf);

impl Network {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A command that runs on this machine, but in that network.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.0.display())).arg(program);
        command
    }
}

/// The running world of one machine.
pub struct World {
    state: Arc<State>,
    buckets: PathBuf,
    network: Network,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// What the servers share with the test.
struct State {
    /// Directories named after hosts, and what they serve.
    www: PathBuf,
    /// `host/path` → bytes a test has published; looked at before `www`.
    published: Mutex<HashMap<String, Vec<u8>>>,
    user_data: Mutex<Option<String>>,
    instance: Mutex<String>,
    /// The public key of the launch's key pair.
    public_key: Mutex<Option<String>>,
    /// Where AWS's services other than S3 are, if an emulator stands in for them.
    emulator: Mutex<Option<u16>>,
    faults: Faults,
    requests: Mutex<Vec<Request>>,
    log: Mutex<std::fs::File>,
}

impl World {
    /// Starts the world of the base in `base`, keeping its own files (buckets, log of requests) in `dir`.
    pub(crate) fn start(base: &Path, dir: &Path, user_data: Option<String>) -> Result<World> {
        let log = dir.join("requests.jsonl");
        let state = Arc::new(State {
            www: base.join("www"),
            published: Mutex::default(),
            user_data: Mutex::new(user_data),
            instance: Mutex::new(imds::INSTANCE.to_owned()),
            public_key: Mutex::default(),
            emulator: Mutex::default(),
            faults: Faults::default(),
            requests: Mutex::default(),
            log: Mutex::new(std::fs::File::create(&log).with_context(|| log.display().to_string())?),
        });
        let buckets = dir.join("s3");
        let s3 = s3::service(&buckets)?;
        let tls = http::tls(&base.join("tls"))?;

        let (ready, is_ready) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let servers = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            enter_new_network()?;
            let namespace = Path::new("/proc").join(std::fs::read_link("/proc/thread-self")?).join("ns/net");
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                dns::serve(Arc::clone(&servers)).await?;
                let web = http::Server { state: servers, s3 };
                web.listen(METADATA, 80, None).await?;
                web.listen(ROUTER, 80, None).await?;
                web.listen(ROUTER, 443, Some(tls)).await?;
                ready.send(namespace)?;
                let _ = stopped.await;
                Ok(())
            })
        });
        match is_ready.recv() {
            Ok(namespace) => {
                Ok(World { state, buckets, network: Network(namespace), stop: Some(stop), thread: Some(thread) })
            }
            Err(_) => Err(thread.join().expect("the world's thread panicked").expect_err("it ended unasked")),
        }
    }

    /// A command that runs on this machine, but in the world's network: where the load balancer stands.
    pub fn command(&self, program: &str) -> Command {
        self.network.command(program)
    }

    /// The network, which lasts as long as the world.
    pub(crate) fn network(&self) -> Network {
        self.network.clone()
    }

    /// Serves `bytes` at `http://` + `address`, in place of earlier bytes.
    pub fn publish(&self, address: &str, bytes: impl Into<Vec<u8>>) {
        self.state.published.lock().unwrap().insert(address.to_owned(), bytes.into());
    }

    /// Puts an object, `bucket/key`, into S3.
    pub fn store(&self, object: &str, bytes: &[u8]) -> Result<()> {
        let path = self.buckets.join(object);
        std::fs::create_dir_all(path.parent().context("an object in a bucket")?)?;
        std::fs::write(&path, bytes).with_context(|| path.display().to_string())
    }

    /// The next `times` requests whose `METHOD host/path` (for names: `DNS host`) matches the regular expression get
    /// this fault instead of their answer.
    pub fn fault(&self, pattern: &str, times: usize, fault: Fault) {
        self.state.faults.add(pattern, times, fault);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.state.faults.clear();
    }

    /// What the metadata service gives out as user-data.
    pub fn user_data(&self) -> Option<String> {
        self.state.user_data.lock().unwrap().clone()
    }

    /// Sets the user-data that the metadata service gives from the next boot on.
    pub fn set_user_data(&self, text: String) {
        *self.state.user_data.lock().unwrap() = Some(text);
    }

    /// Sets the public key of the key pair that the machine is launched with.
    pub fn set_public_key(&self, line: &str) {
        *self.state.public_key.lock().unwrap() = Some(line.to_owned());
    }

    /// Sets the id that the metadata service gives, as if the disk were that of another instance.
    pub fn set_instance(&self, id: &str) {
        id.clone_into(&mut self.state.instance.lock().unwrap());
    }

    /// Passes requests for AWS's services other than S3 on to an emulator at this port of the loopback interface.
    pub(crate) fn relay(&self, port: u16) {
        *self.state.emulator.lock().unwrap() = Some(port);
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn note(&self, request: Request) {
        let line = serde_json::json!({
            "method": request.method, "host": request.host, "path": request.path,
            "status": request.status, "agent": request.agent,
        });
        // People read the file afterwards; tests read the list.
        let _ = writeln!(self.log.lock().unwrap(), "{line}");
        self.requests.lock().unwrap().push(request);
    }

    /// Returns whether the world has a host of this name.
    fn knows(&self, host: &str) -> bool {
        host.ends_with(".amazonaws.com")
            || self.www.join(host).is_dir()
            || self.published.lock().unwrap().keys().any(|address| address.split('/').next() == Some(host))
    }
}

/// Moves this thread, and all it starts, into a network namespace in which nothing but this world's addresses exists.
fn enter_new_network() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace (the machine tests need root)")?;
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().context("ip")?;
    let mut commands = ip.stdin.take().expect("piped");
    writeln!(commands, "link set lo up\naddress add {METADATA}/32 dev lo\naddress add {ROUTER}/32 dev lo")?;
    drop(commands);
    ensure!(ip.wait()?.success(), "ip failed");
    Ok(())
}
