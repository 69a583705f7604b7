//! The server in place of AWS. It parses and records calls, and answers from the world or by the script of a test.

use std::{
    collections::{BTreeMap, VecDeque},
    io::Write,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    server::{Reply, Request, Server},
    world::{BLUE, GREEN, World, members, text, xml},
};

/// A call as it arrived.
#[derive(Debug, Clone)]
pub struct Call {
    /// The name of the operation.
    pub operation: String,
    pub parameters: BTreeMap<String, String>,
    /// The header `Authorization`, with the access key, the region and the service of the signature.
    pub authorization: String,
    pub body: Vec<u8>,
}

impl Call {
    /// Returns a parameter; empty if it is missing.
    pub fn get(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    /// Returns the values of `name.1`, `name.2` …
    pub fn list(&self, name: &str) -> Vec<&str> {
        (1..).map_while(|n| self.parameters.get(&format!("{name}.{n}"))).map(String::as_str).collect()
    }

    /// Returns the new value of a stack's parameter; `None` if it stays or is left to the template.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let member = |n, field| format!("Parameters.member.{n}.{field}");
        let n = (1..self.parameters.len()).find(|n| self.get(&member(*n, "ParameterKey")) == name)?;
        self.parameters.get(&member(n, "ParameterValue")).map(String::as_str)
    }

    /// Returns whether the call may change something.
    pub fn is_change(&self) -> bool {
        !["Describe", "Get", "List", "Head", "DetectStackDrift"].iter().any(|word| self.operation.starts_with(word))
    }

    pub fn of(request: &Request) -> Self {
        let body = String::from_utf8_lossy(&request.body);
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let (operation, parameters) = match (request.operation.split_once('.'), path) {
            (Some((_, operation)), _) => (operation.to_owned(), fields(&body)),
            (None, "/") => {
                let mut form = pairs(&body);
                (form.remove("Action").unwrap(), form)
            }
            (None, path) if path.ends_with("/hostedzonesbyname") => ("ListHostedZonesByName".into(), pairs(query)),
            (None, path) => {
                let operation = match request.method.as_str() {
                    "HEAD" if path.matches('/').count() < 2 || path.ends_with('/') => "HeadBucket",
                    "HEAD" => "HeadObject",
                    "GET" => "GetObject",
                    _ => "PutObject",
                };
                let owner = request.bucket_owner.clone();
                (operation.into(), BTreeMap::from([("Path".into(), path.into()), ("Owner".into(), owner)]))
            }
        };
        Self { operation, parameters, authorization: request.authorization.clone(), body: request.body.clone() }
    }
}

/// Writes a request to a file of this process, for `tests/deploy/requests`, which checks all of them by botocore's models.
pub fn keep(request: &Request) {
    static FILE: Mutex<()> = Mutex::new(());
    let Some(directory) = std::env::var_os("GLOVO_RECORDED_REQUESTS") else { return };
    let line = serde_json::json!({
        "method": request.method, "target": request.target, "operation": request.operation,
        "authorization": request.authorization, "body": BASE64_STANDARD.encode(&request.body),
    });
    let path = std::path::Path::new(&directory).join(std::process::id().to_string());
    let _one = FILE.lock().unwrap();
    let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
    writeln!(file, "{line}").unwrap();
}

/// Returns the fields of a JSON object. A value that is no string is JSON.
fn fields(object: &str) -> BTreeMap<String, String> {
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(object).unwrap();
    fields
        .into_iter()
        .map(|(name, value)| (name, value.as_str().map_or_else(|| value.to_string(), Into::into)))
        .collect()
}

fn pairs(form: &str) -> BTreeMap<String, String> {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let pairs = form.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

/// A scripted answer, which replaces the world's answer once.
pub enum Turn {
    /// The world's answer.
    Usual,
    /// An error: status, code, message.
    Refusal(u16, &'static str, &'static str),
    /// The connection is closed, and nothing is done.
    Lost,
    /// The operation is done, and its answer is lost.
    Unanswered,
    /// This answer, and nothing is done.
    Instead(String),
    /// The world's answer, after the test has let the server continue.
    Meet(Sender<()>, Receiver<()>),
}

/// A meeting point of a test and the server.
pub struct Meeting {
    reached: Receiver<()>,
    on: Sender<()>,
}

impl Meeting {
    /// Returns a meeting point, and the turn that waits there.
    pub fn new() -> (Self, Turn) {
        let ((here, reached), (on, go)) = (channel(), channel());
        (Self { reached, on }, Turn::Meet(here, go))
    }

    /// Waits until the call is made, runs a function, and lets the server answer.
    pub fn then<T>(self, act: impl FnOnce() -> T) -> T {
        self.reached.recv_timeout(Duration::from_mins(1)).expect("the call is made");
        let done = act();
        let _ = self.on.send(());
        done
    }
}

struct Record {
    /// The world of one stack, or the worlds of two stacks of one slot.
    worlds: Vec<World>,
    calls: Vec<Call>,
    script: BTreeMap<String, VecDeque<Turn>>,
    /// The number of a call, from 0, and the scripted answers to it and to the next ones of its operation.
    later: Option<(usize, VecDeque<Turn>)>,
    /// The most traffic, in percent, that one machine has had to carry.
    highest_load: u32,
    /// Whether an action was to shrink a slot that had traffic.
    endangered: bool,
}

pub struct Tape {
    server: Server,
    record: Arc<Mutex<Record>>,
}

impl Drop for Tape {
    /// Frees what the server has kept: a thousand tapes of one process would take a gigabyte.
    fn drop(&mut self) {
        self.server.forget();
        // A panic of this test may have poisoned it.
        if let Ok(mut record) = self.record.lock() {
            record.calls.clear();
        }
    }
}

impl Tape {
    pub fn start(worlds: Vec<World>) -> Self {
        let record =
            Record { worlds, calls: vec![], script: BTreeMap::new(), later: None, highest_load: 0, endangered: false };
        let record = Arc::new(Mutex::new(record));
        let shared = record.clone();
        let server = Server::start(move |request| {
            keep(request);
            let call = Call::of(request);
            let turn = {
                let mut record = shared.lock().unwrap();
                record.calls.push(call.clone());
                let number = record.calls.len() - 1;
                if let Some((_, turns)) = record.later.take_if(|(later, _)| *later == number) {
                    let _ = record.script.insert(call.operation.clone(), turns);
                }
                record.script.get_mut(&call.operation).and_then(VecDeque::pop_front).unwrap_or(Turn::Usual)
            };
            match turn {
                Turn::Refusal(status, code, message) => return refusal(&call, status, code, message),
                Turn::Lost => return Reply::none(),
                Turn::Instead(body) => return Reply::ok(body),
                Turn::Meet(ref here, ref go) => {
                    let _ = here.send(());
                    let _ = go.recv();
                }
                Turn::Usual | Turn::Unanswered => {}
            }
            let mut record = shared.lock().unwrap();
            let reply = answer(&mut record.worlds, &call);
            record.highest_load = record.highest_load.max(load(&record.worlds));
            record.endangered |= record.worlds.iter().any(World::is_to_lose_machines_with_traffic);
            drop(record);
            if matches!(turn, Turn::Unanswered) { Reply::none() } else { reply }
        });
        Self { server, record }
    }

    pub fn url(&self) -> String {
        self.server.url("")
    }

    /// Scripts the answers to the next calls of an operation.
    pub fn script(&self, operation: &str, turns: impl IntoIterator<Item = Turn>) {
        self.record.lock().unwrap().script.entry(operation.into()).or_default().extend(turns);
    }

    /// Scripts the answers to one call and to the next ones of its operation: the call after this many others since the last
    /// [`Tape::take`].
    pub fn script_from(&self, number: usize, turns: impl IntoIterator<Item = Turn>) {
        self.record.lock().unwrap().later = Some((number, turns.into_iter().collect()));
    }

    /// Drops the scripted answers that were not used.
    pub fn forget_script(&self) {
        let mut record = self.record.lock().unwrap();
        record.later = None;
        record.script.clear();
    }

    /// Returns the most traffic, in percent, that one machine has had to carry; 1,000 if a slot without a machine had traffic.
    pub fn highest_load(&self) -> u32 {
        self.record.lock().unwrap().highest_load
    }

    /// Returns whether an action was to shrink a slot at any time at which that slot had traffic.
    pub fn was_endangered(&self) -> bool {
        self.record.lock().unwrap().endangered
    }

    /// Reads or changes the world, of two the first stack's.
    pub fn world<T>(&self, with: impl FnOnce(&mut World) -> T) -> T {
        with(&mut self.record.lock().unwrap().worlds[0])
    }

    /// Reads or changes the world of the second stack.
    pub fn other_world<T>(&self, with: impl FnOnce(&mut World) -> T) -> T {
        with(&mut self.record.lock().unwrap().worlds[1])
    }

    /// Changes each world.
    pub fn worlds(&self, with: impl FnMut(&mut World)) {
        self.record.lock().unwrap().worlds.iter_mut().for_each(with);
    }

    /// Returns a copy of each world as it is now.
    pub fn copies(&self) -> Vec<World> {
        self.record.lock().unwrap().worlds.clone()
    }

    /// Returns the calls since the last call of this function.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.record.lock().unwrap().calls)
    }
}

/// Returns an error in the format of the service.
fn refusal(call: &Call, status: u16, code: &str, message: &str) -> Reply {
    let is_of_s3 = call.authorization.split('/').nth(3) == Some("s3");
    // S3 has a status of its own, which an answer to HEAD also has.
    let (status, code) = if is_of_s3 && code == "Throttling" { (503, "SlowDown") } else { (status, code) };
    let error = text("Code", code) + &text("Message", message);
    let body = match call.authorization.split('/').nth(3) {
        Some("s3") => xml("Error", &error),
        Some("ec2") => xml("Response", &(xml("Errors", &xml("Error", &error)) + &text("RequestID", "r-1"))),
        Some(service @ ("acm" | "ssm" | "secretsmanager" | "kms")) => {
            serde_json::json!({ "__type": format!("com.amazonaws.{service}#{code}"), "message": message }).to_string()
        }
        _ => xml("ErrorResponse", &(xml("Error", &error) + &text("RequestId", "r-1"))),
    };
    Reply::new(status, body)
}

fn answer(worlds: &mut [World], call: &Call) -> Reply {
    match call.operation.as_str() {
        "DescribeInstances" if !call.list("InstanceId").is_empty() => {
            let machines = worlds.iter().flat_map(|world| world.machines(call));
            let machines = members("reservationSet", "item", [members("instancesSet", "item", machines)]);
            return Reply::ok(xml("Response", &machines));
        }
        _ => {}
    }
    let is_its = |world: &World| call.parameters.values().any(|value| value.contains(world.name));
    let which = worlds.iter().position(is_its).unwrap_or(0);
    let world = &mut worlds[which];
    match call.operation.as_str() {
        "HeadBucket" | "HeadObject" | "PutObject" if !["", world.bucket_owner].contains(&call.get("Owner")) => {
            refusal(call, 403, "AccessDenied", "Access Denied")
        }
        "HeadBucket" => Reply::new(if call.get("Path").trim_matches('/') == "artifacts" { 200 } else { 404 }, ""),
        "HeadObject" => match world.objects.get(call.get("Path")) {
            Some(body) => {
                let (headers, parts) = (world.encryption, Box::new(std::iter::empty()));
                Reply { status: 200, length: body.len(), headers, parts }
            }
            None => Reply::new(404, ""),
        },
        "GetObject" => match world.objects.get(call.get("Path")) {
            Some(body) => Reply { headers: "ETag: \"1\"\r\n", ..Reply::ok(body.clone()) },
            None => refusal(call, 404, "NoSuchKey", "The specified key does not exist."),
        },
        "PutObject" => {
            let _ = world.objects.insert(call.get("Path").into(), call.body.clone());
            Reply::ok("")
        }
        _ => match world.answer(call) {
            Ok(body) => Reply::ok(body),
            Err((code, message)) => refusal(call, 400, code, &message),
        },
    }
}

/// Returns the traffic, in percent, of the machine that has most of it.
fn load(worlds: &[World]) -> u32 {
    let slots: Vec<(u32, u32)> = worlds.iter().flat_map(World::loads).collect();
    let all: u32 = slots.iter().map(|(weight, _)| weight).sum();
    let share = |(weight, machines): (u32, u32)| match (weight, machines) {
        (0, _) => 0,
        (_, 0) => 1000,
        (weight, machines) => (weight * 100 / all).div_ceil(machines),
    };
    slots.into_iter().map(share).max().unwrap_or(0)
}

/// Returns the names of operations, in their order.
pub fn names(calls: &[Call]) -> Vec<&str> {
    calls.iter().map(|call| call.operation.as_str()).collect()
}

/// Returns the calls of an operation.
pub fn of<'a>(calls: &'a [Call], operation: &str) -> Vec<&'a Call> {
    calls.iter().filter(|call| call.operation == operation).collect()
}

/// Returns the names of the calls that may change something, in their order.
pub fn changes(calls: &[Call]) -> Vec<&str> {
    calls.iter().filter(|call| call.is_change()).map(|call| call.operation.as_str()).collect()
}

/// Returns the shares of traffic of blue and green, in the order in which the listener got them.
pub fn shares(calls: &[Call]) -> Vec<[&str; 2]> {
    let member = |n| format!("DefaultActions.member.1.ForwardConfig.TargetGroups.member.{n}");
    let share = |call: &'_ Call, slot| (1..=2).find(|n| call.get(&format!("{}.TargetGroupArn", member(*n))) == slot);
    let modified = of(calls, "ModifyListener").into_iter();
    modified
        .map(|call| [BLUE, GREEN].map(|slot| call.get(&format!("{}.Weight", member(share(call, slot).unwrap())))))
        .collect()
}
