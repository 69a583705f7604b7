//! The operator's side: from a new build to proof that it serves.
//!
//! ```text
//! settings → preflight → artifacts and template → change set → the stack's events → health → traffic
//! ```
//!
//! [`settings`] says what is wanted, [`preflight`] looks whether it can be had, [`artifacts`] and [`template`] make what
//! CloudFormation gets, [`preview`] shows what will change, [`stack`] has it changed, [`watch`] follows it with a [`board`] of its machines, [`rollout`]
//! moves the traffic of [`fleet`], and back. [`state`] knows what to do in each state of a stack. [`report`] shows what is.

pub mod artifacts;
mod board;
pub mod fleet;
pub mod preflight;
mod preview;
mod report;
mod rollout;
pub mod settings;
pub mod stack;
pub mod state;
pub mod template;
pub mod watch;

use std::{collections::BTreeMap, io::IsTerminal, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};

use self::{
    artifacts::{Artifacts, Store},
    fleet::Group,
    preflight::Findings,
    settings::{Settings, Strategy},
    stack::{ChangeSet, LONGEST_TEMPLATE, Stack, Template, Value, Wanted},
    state::Condition,
    template::Slot,
    watch::Watch,
};
use crate::{
    error::{self, Class, Fault},
    manifest::location::Texts,
    system::{
        System,
        fetch::aws::{Refusal, dns_suffix},
    },
    view,
};

/// The AMI of the script that this command replaces: Ubuntu 18.04 LTS in eu-central-1.
const AMI: &str = "ami-0bdf93799014acdc4";
const INSTANCE_TYPE: &str = "t2.micro";

/// A stack, and what is wanted of it.
pub struct Deploy {
    /// The door to AWS.
    pub system: System,
    /// What is wanted.
    pub settings: Settings,
    /// The steps that are not those built into the program.
    pub texts: Option<Texts>,
    /// The stack's name.
    pub stack: String,
    /// How often AWS is asked.
    pub poll: Duration,
    /// Whether output is for programs.
    pub json: bool,
    /// Whether nobody is to be asked.
    pub yes: bool,
}

/// What is about to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// The stack is made.
    Create,
    /// The slot gets a new build, then the traffic.
    Fill(Slot),
    /// The stack is changed in place.
    Adjust,
}

/// A deploy that could begin.
struct Prepared {
    current: Option<Stack>,
    kind: Kind,
    wanted: Wanted,
    artifacts: Artifacts,
    /// What it means, in plain words.
    meaning: String,
}

impl Deploy {
    fn say(&self, text: &str) {
        if self.json {
            view::say(&serde_json::json!({ "message": text.trim_start() }).to_string());
        } else {
            view::say(text);
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.json { text.to_owned() } else { view::coloured(code, text) }
    }

    fn strategy(&self) -> Strategy {
        self.settings.strategy.unwrap_or_default()
    }

    /// Shows what a deploy would change, and leaves no trace. Returns whether anything would.
    pub fn plan(&self) -> Result<bool> {
        let prepared = self.prepare()?;
        let Some(changes) = self.propose(&prepared)? else { return Ok(false) };
        stack::discard(&self.system, &self.stack, &changes.id, prepared.current.is_none())?;
        Ok(true)
    }

    /// Creates or updates the stack, and has the new build take over.
    pub fn execute(&self, wants_new: bool) -> Result<()> {
        self.check_asking()?;
        let mut prepared = self.prepare()?;
        let is_new = prepared.current.is_none();
        if is_new != wants_new {
            let (is, does) = if is_new { ("is no stack", "creating") } else { ("is a stack", "updating") };
            self.say(&format!("note: there {is} {}: {does} it", self.stack));
        }
        let Some(changes) = self.propose(&prepared)? else { return Ok(()) };
        let ready = self.ask("make these changes?").and_then(|agreed| {
            ensure!(agreed, Fault::new("not agreed: nothing was changed"));
            prepared.artifacts.upload(&self.system, |text| self.say(text))?;
            Watch::from_now(self, &self.stack)
        });
        let mut watch = match ready {
            Ok(watch) => watch,
            Err(error) => {
                // What it failed with says more than that nothing could be tidied up.
                let discard = || stack::discard(&self.system, &self.stack, &changes.id, is_new);
                _ = self.system.interrupt().aside(discard);
                return Err(error);
            }
        };
        stack::execute(&self.system, &self.stack, &changes.id)?;
        let stack = self.follow(&mut watch)?;
        if let Kind::Fill(slot) = prepared.kind {
            self.roll_out(&stack, slot)?;
        }
        self.prove()
    }

    /// Shows the events of what is going on until it has ended.
    fn follow(&self, watch: &mut Watch<'_>) -> Result<Stack> {
        let stack = watch.until_done().map_err(|error| match error::class(&error) {
            Class::Interrupted(_) => error.context(
                Fault::new(format!("detached from {}: it goes on without you", self.stack))
                    .hint(format!("glovo-bootstrap deploy watch --stack {}", self.stack)),
            ),
            _ => error,
        })?;
        if stack.state.failed || stack.state.condition != Condition::Ready {
            let message = format!("the stack {} is {}: {}", self.stack, stack.state.name, stack.state.meaning);
            let fault = Fault::new(message).hint(stack.state.next_for(&self.stack));
            return Err(match watch.cause() {
                Some(cause) => fault.caused_by(anyhow!(cause)).into(),
                None => fault.into(),
            });
        }
        Stack::get(&self.system, &self.stack)
    }

    /// Follows what is going on with the stack, or went on last.
    pub fn watch(&self) -> Result<()> {
        let stack = Stack::get(&self.system, &self.stack)?;
        let mut watch = Watch::from_its_beginning(self, &stack.id)?;
        let stack = self.follow(&mut watch)?;
        self.name_waiting(&stack)
    }

    /// Fails if somebody is to be asked, and nobody is there.
    fn check_asking(&self) -> Result<()> {
        ensure!(
            self.yes || std::io::stdin().is_terminal(),
            Fault::new("there is nobody to ask on this input").hint("--yes, after deploy plan").invalid()
        );
        Ok(())
    }

    /// Asks, unless nobody is to be asked.
    fn ask(&self, question: &str) -> Result<bool> {
        self.check_asking()?;
        if self.yes {
            return Ok(true);
        }
        view::complain(&format!("{question} [y/N] "));
        self.system.await_input(&std::io::stdin())?;
        let mut answer = String::new();
        _ = std::io::stdin().read_line(&mut answer).context("reading the answer")?;
        Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
    }

    /// Looks at everything, and makes template and parameters.
    fn prepare(&self) -> Result<Prepared> {
        let found = Stack::find(&self.system, &self.stack)?;
        let current = found.filter(|stack| stack.state.condition != Condition::Absent);
        if let Some(stack) = &current {
            stack.check_ready()?;
        }
        match self.strategy() {
            Strategy::BlueGreen => self.prepare_slots(current),
            Strategy::Compatible => self.prepare_group(current),
        }
    }

    fn propose(&self, prepared: &Prepared) -> Result<Option<ChangeSet>> {
        let is_new = prepared.current.is_none();
        let Some(changes) = stack::propose(&self.system, &self.stack, is_new, &prepared.wanted, self.poll)? else {
            self.say(&format!("no changes: {} is as declared", self.stack));
            return Ok(None);
        };
        self.say(&prepared.meaning);
        self.preview(prepared.current.as_ref(), &prepared.wanted, &changes);
        Ok(Some(changes))
    }

    /// Two slots: the idle one gets what is new.
    fn prepare_slots(&self, current: Option<Stack>) -> Result<Prepared> {
        let shares = current.as_ref().map(|stack| fleet::shares(&self.system, stack)).transpose()?;
        let active = shares.map(|shares| {
            fleet::active(shares).with_context(|| format!("the listener of {} sends no traffic anywhere", self.stack))
        });
        let active = active.transpose()?;
        let settings = self.resolved(current.as_ref(), |name| active.map_or(name.into(), |slot| slot.named(name)));
        settings.check()?;
        let artifacts = Artifacts::collect(&settings, &self.stack, self.texts.as_ref())?;
        let mut found = preflight::look(self, &settings, &artifacts)?;
        for note in &found.notes {
            self.say(&format!("note: {note}"));
        }
        found.check()?;
        let mut parameters = self.shared_parameters(current.as_ref(), &settings, &found);
        let live = current.as_ref().map(|stack| self.live_user_data(stack)).transpose()?.unwrap_or_default();
        let changed = match (&current, active) {
            (Some(stack), Some(slot)) => self.changed(stack, slot, &settings, &artifacts, &live)?,
            _ => true,
        };
        let (kind, slot) = match active {
            None => (Kind::Create, Slot::Blue),
            Some(active) if changed => (Kind::Fill(active.other()), active.other()),
            Some(active) => (Kind::Adjust, active),
        };
        let size = self.sizes(current.as_ref(), active, &settings)?;
        if kind != Kind::Adjust {
            let kind = settings.instance_type.as_deref().unwrap_or_default();
            preflight::quota(&mut found, self, kind, size.desired)?;
            found.check()?;
        }
        if let Some(stack) = &current {
            // What is so now is not undone: the groups' sizes, the listener's weights.
            for (each, share) in Slot::ALL.into_iter().zip(shares.unwrap_or_default()) {
                _ = parameters.insert(each.named("Weight"), Value::New(share.to_string()));
                if let Some(group) = fleet::group(&self.system, stack, each)? {
                    _ = parameters.insert(each.named("DesiredCapacity"), Value::New(group.desired.to_string()));
                }
            }
        }
        let mut put = |name: &str, value: String| {
            _ = parameters.insert(slot.named(name), Value::New(value));
        };
        put("MinSize", size.min.to_string());
        put("DesiredCapacity", size.desired.to_string());
        put("MaxSize", size.max.to_string());
        if kind != Kind::Adjust {
            put("VersionId", settings.build().to_string());
            put("AMIId", settings.ami.clone().unwrap_or_default());
            put("RootDeviceName", found.root_device.clone());
            put("InstanceType", settings.instance_type.clone().unwrap_or_default());
            put("KeyName", settings.key_pair.clone().unwrap_or_default());
            put("Weight", if kind == Kind::Create { "100" } else { "0" }.to_owned());
        }
        let filled = if kind == Kind::Adjust { None } else { Some(slot) };
        let ours = artifacts.user_data(&self.stack, &slot.named("Group"))?;
        let text = template::with_user_data(|each| {
            if Some(each) == filled { ours.clone() } else { live.get(each.name()).cloned().unwrap_or_default() }
        })?;
        let template = self.placed(text, &settings)?;
        let meaning = self.meaning(&kind, current.as_ref(), active, &settings, &size, &found);
        Ok(Prepared { current, kind, wanted: Wanted { template, parameters }, artifacts, meaning })
    }

    fn live_user_data(&self, stack: &Stack) -> Result<BTreeMap<&'static str, String>> {
        let text = stack.template(&self.system)?;
        Slot::ALL.into_iter().map(|slot| Ok((slot.name(), template::user_data(&text, slot)?))).collect()
    }

    /// Whether the machines of the slot would be others; the number of the build must rise then.
    fn changed(
        &self,
        stack: &Stack,
        slot: Slot,
        wanted: &Settings,
        artifacts: &Artifacts,
        live: &BTreeMap<&'static str, String>,
    ) -> Result<bool> {
        let is = |name: &str, wanted: Option<&String>| {
            stack.parameter(&slot.named(name)) == wanted.map_or("", String::as_str)
        };
        let same = is("AMIId", wanted.ami.as_ref())
            && is("InstanceType", wanted.instance_type.as_ref())
            && is("KeyName", wanted.key_pair.as_ref())
            && live.get(slot.name()) == Some(&artifacts.user_data(&self.stack, &slot.named("Group"))?);
        let builds = Slot::ALL.map(|slot| stack.parameter(&slot.named("VersionId")).parse::<u64>().ok());
        let serving = stack.parameter(&slot.named("VersionId")).parse::<u64>().unwrap_or_default();
        self.check_build(same, serving, builds.into_iter().flatten().max().unwrap_or_default(), wanted)?;
        Ok(!(same && wanted.build() == serving))
    }

    /// A build that has a number has its content; so other content needs a higher one.
    fn check_build(&self, same: bool, serving: u64, highest: u64, wanted: &Settings) -> Result<()> {
        let build = wanted.build();
        if build > highest || (same && build == serving) {
            return Ok(());
        }
        let message = if build == serving {
            format!("build {build} is serving already, with other content")
        } else {
            format!("build {build} is not newer than build {highest} of the stack {}", self.stack)
        };
        let hint = format!(
            "BUILD_NUMBER={} for what is new; for an older build that is still there: glovo-bootstrap deploy rollback",
            highest + 1
        );
        Err(Fault::new(message).hint(hint).invalid().into())
    }

    /// Sizes for the slot that is to serve: declared, else those of the stack; the live capacity is kept.
    fn sizes(&self, current: Option<&Stack>, active: Option<Slot>, settings: &Settings) -> Result<Group> {
        let declared = |given: Option<u32>, name: &str, default: u32| {
            let previous =
                current.zip(active).and_then(|(stack, slot)| stack.parameter(&slot.named(name)).parse().ok());
            given.or(previous).unwrap_or(default)
        };
        let (min, max) = (declared(settings.min_size, "MinSize", 1), declared(settings.max_size, "MaxSize", 3));
        let live = match current.zip(active) {
            Some((stack, slot)) => fleet::group(&self.system, stack, slot)?.map(|group| group.desired),
            None => None,
        };
        if let Some(live) = live
            && live > max
        {
            let fault = Fault::new(format!("{live} machines serve now, and MAXSIZE={max} allows fewer"));
            bail!(fault.hint(format!("MAXSIZE={live} or more; or shrink the group first")).invalid());
        }
        let desired = live.or(settings.desired_capacity).unwrap_or(2).clamp(min, max.max(min));
        Ok(Group { name: String::new(), min, desired, max, machines: vec![] })
    }

    /// The settings with what they leave open taken from the stack, or by default.
    fn resolved(&self, current: Option<&Stack>, named: impl Fn(&str) -> String) -> Settings {
        let stands = |name: &str| {
            let value = current.map(|stack| stack.parameter(name)).filter(|value| !value.is_empty());
            value.map(str::to_owned)
        };
        let mut settings = self.settings.clone();
        let open = |setting: &mut Option<String>, name: &str| *setting = setting.take().or_else(|| stands(name));
        open(&mut settings.ami, &named("AMIId"));
        open(&mut settings.instance_type, &named("InstanceType"));
        open(&mut settings.key_pair, &named("KeyName"));
        open(&mut settings.subnets, "Subnets");
        open(&mut settings.security_groups, "SecurityGroup");
        open(&mut settings.certificate, "AWSCertificate");
        open(&mut settings.dns_record, "DNSRecord");
        _ = settings.ami.get_or_insert_with(|| AMI.into());
        _ = settings.instance_type.get_or_insert_with(|| INSTANCE_TYPE.into());
        settings
    }

    /// Lists that the operator gives; the others stay as they are.
    fn given_lists(&self) -> impl Iterator<Item = (String, String)> {
        let given = [("Subnets", &self.settings.subnets), ("SecurityGroup", &self.settings.security_groups)];
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
    }

    fn shared_parameters(
        &self,
        current: Option<&Stack>,
        settings: &Settings,
        found: &Findings,
    ) -> BTreeMap<String, Value> {
        let known = current.into_iter().flat_map(|stack| stack.parameters.keys());
        let mut parameters: BTreeMap<String, Value> = known.map(|name| (name.clone(), Value::Previous)).collect();
        let store = Store::of(settings, &self.stack);
        let given = [
            ("VpcId", Some(&found.vpc).filter(|vpc| !vpc.is_empty())),
            ("Subnets", settings.subnets.as_ref()),
            ("SecurityGroup", settings.security_groups.as_ref()),
            ("AWSCertificate", settings.certificate.as_ref()),
            ("DNSRecord", settings.dns_record.as_ref()),
            ("HostedZoneId", Some(&found.zone).filter(|zone| !zone.is_empty())),
            ("ArtifactBucket", store.as_ref().map(|store| &store.bucket)),
            ("ArtifactPrefix", store.as_ref().map(|store| &store.prefix)),
        ];
        for (name, value) in given {
            if let Some(value) = value {
                _ = parameters.insert(name.into(), Value::New(value.clone()));
            }
        }
        for pair in &settings.parameter {
            let (name, value) = pair.split_once('=').unwrap_or_default();
            _ = parameters.insert(name.into(), Value::New(value.into()));
        }
        parameters
    }

    /// A template in the call, or in the bucket where it is too long for one.
    fn placed(&self, text: String, settings: &Settings) -> Result<Template> {
        if text.len() <= LONGEST_TEMPLATE {
            return Ok(Template::Body(text));
        }
        let store = Store::of(settings, &self.stack).with_context(|| {
            Fault::new(format!("the template has {} bytes, and a call takes {LONGEST_TEMPLATE}", text.len()))
                .hint("--bucket BUCKET, which can hold it")
                .invalid()
        })?;
        let (upload, _) = store.upload("templates", "template.yml", text.into_bytes());
        let region = self.system.aws_region()?;
        let url = format!("https://s3.{region}.{}/{}/{}", dns_suffix(&region), upload.bucket, upload.key);
        _ = self.system.upload(upload)?;
        Ok(Template::Url(url))
    }

    /// What is about to happen, in plain words.
    fn meaning(
        &self,
        kind: &Kind,
        current: Option<&Stack>,
        active: Option<Slot>,
        settings: &Settings,
        size: &Group,
        found: &Findings,
    ) -> String {
        let build = settings.build();
        let machines = view::count(size.desired as usize, "machine");
        let who = if found.identity.is_empty() { String::new() } else { format!("as {}: ", found.identity) };
        let what = match (kind, active, current) {
            (Kind::Fill(slot), Some(active), Some(stack)) => {
                let old = stack.parameter(&active.named("VersionId"));
                let shift = if settings.shift.is_empty() { "10, 50, 100".into() } else { join(&settings.shift) };
                format!(
                    "build {old} → {build}: {} is filled with {machines}, which takes 5 to 15 minutes; once they are healthy they take \
                     {shift} % of the traffic; {} then keeps 1 machine. no downtime",
                    slot.name(),
                    active.name()
                )
            }
            (Kind::Create, ..) => format!("build {build}: a new stack with {machines}, in 5 to 15 minutes"),
            _ => "the stack is changed in place: its machines and their build stay. no downtime".to_owned(),
        };
        format!("{who}{}: {what}", self.stack)
    }

    /// The old shape: one group, replaced as a whole.
    fn prepare_group(&self, current: Option<Stack>) -> Result<Prepared> {
        let named = |name: &str| if name == "InstanceType" { "InstanceTypeParameter".into() } else { name.to_owned() };
        let settings = self.resolved(current.as_ref(), named);
        settings.check()?;
        let artifacts = Artifacts::collect(&settings, &self.stack, self.texts.as_ref())?;
        let found = preflight::look(self, &settings, &artifacts)?;
        for note in &found.notes {
            self.say(&format!("note: {note}"));
        }
        found.check()?;
        let user_data = artifacts.user_data(&self.stack, "AutoScalingGroup")?;
        let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &user_data);
        ensure!(
            encoded.len() <= 4096,
            Fault::new(format!("this user-data has {} bytes in base64, and a parameter takes 4096", encoded.len()))
                .hint("the strategy blue-green has room for 16 KiB; or fewer --set")
                .invalid()
        );
        let mut parameters = self.shared_parameters(current.as_ref(), &settings, &found);
        // What instances of the old shape have: machines of their own number, each by its parameter.
        let template = template::text(Strategy::Compatible);
        parameters.retain(|name, _| template.contains(&format!("\n  {name}:\n")));
        if let Some(stack) = &current {
            let is = |name: &str, wanted: Option<&String>| stack.parameter(name) == wanted.map_or("", String::as_str);
            let same = is("AMIId", settings.ami.as_ref())
                && is("InstanceTypeParameter", settings.instance_type.as_ref())
                && is("KeyName", settings.key_pair.as_ref())
                && stack.parameter("UserData") == encoded;
            let build = stack.parameter("VersionId").parse().unwrap_or_default();
            self.check_build(same, build, build, &settings)?;
        }
        let size = |given: Option<u32>, name: &str, default: u32| {
            let stands = current.as_ref().and_then(|stack| stack.parameter(name).parse().ok());
            given.or(stands).unwrap_or(default)
        };
        let mut desired = size(settings.desired_capacity, "DesiredCapacity", 2);
        let (min, max) = (size(settings.min_size, "MinSize", 1), size(settings.max_size, "MaxSize", 3));
        if let Some(group) = current.as_ref().and_then(|stack| stack.outputs.get("Group")) {
            desired = fleet::groups(&self.system, &[group])?.first().map_or(desired, |group| group.desired);
        }
        ensure!(
            desired <= max,
            Fault::new(format!("{desired} machines serve now, and MAXSIZE={max} allows fewer"))
                .hint(format!("MAXSIZE={desired} or more"))
                .invalid()
        );
        for (name, value) in [
            ("VersionId", settings.build().to_string()),
            ("AMIId", settings.ami.clone().unwrap_or_default()),
            ("InstanceTypeParameter", settings.instance_type.clone().unwrap_or_default()),
            ("KeyName", settings.key_pair.clone().unwrap_or_default()),
            ("MinSize", min.to_string()),
            ("DesiredCapacity", desired.max(min).to_string()),
            ("MaxSize", max.to_string()),
            ("UserData", encoded),
        ] {
            _ = parameters.insert(name.into(), Value::New(value));
        }
        let (kind, meaning) = match &current {
            None => (Kind::Create, format!("build {}: a new stack of the old shape", settings.build())),
            Some(stack) => (
                Kind::Adjust,
                format!(
                    "build {} → {}: the group is replaced as a whole; the new machines join the balancer before the old ones go",
                    stack.parameter("VersionId"),
                    settings.build()
                ),
            ),
        };
        let wanted = Wanted { template: self.placed(template.to_owned(), &settings)?, parameters };
        let meaning = format!("{}: {meaning}", self.stack);
        Ok(Prepared { current, kind, wanted, artifacts, meaning })
    }

    /// Deletes the stack, after saying what it holds.
    pub fn delete(&self) -> Result<()> {
        let stack = Stack::get(&self.system, &self.stack)?;
        let held = stack::resources(&self.system, &self.stack)?;
        let held: Vec<_> = held.iter().filter(|resource| resource.status != "DELETE_COMPLETE").collect();
        self.say(&format!(
            "the stack {} is {}; it holds {}",
            self.stack,
            stack.state.name,
            view::count(held.len(), "resource")
        ));
        for resource in held {
            self.say(&format!("  - {} ({}) {}", resource.name, resource.kind, resource.id));
        }
        ensure!(self.ask("delete the stack and all of these?")?, Fault::new("not agreed: nothing was deleted"));
        let mut watch = Watch::from_now(self, &stack.id)?;
        stack::delete(&self.system, &stack.id)?;
        let left = match watch.until_done() {
            Ok(left) => left,
            // Where even its id is forgotten it is gone.
            Err(error) if Refusal::of(&error).is_some_and(|refusal| refusal.message.contains("does not exist")) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        ensure!(
            left.state.condition == Condition::Absent,
            Fault::new(format!("the stack {} is {}: {}", self.stack, left.state.name, left.state.meaning))
                .hint(left.state.next_for(&self.stack))
        );
        self.say(&format!("the stack {} is deleted", self.stack));
        Ok(())
    }
}

fn join(shares: &[u8]) -> String {
    shares.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
