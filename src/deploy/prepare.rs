//! What a deploy is to change: looked at, refused, or made into a template and its parameters. Nothing is touched yet.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::{
    Deploy,
    artifacts::{Artifacts, Store},
    fleet::{self, Group},
    preflight::{self, Findings},
    settings::{Settings, Strategy},
    stack::{LONGEST_TEMPLATE, Stack, Template, Value, Wanted},
    state::Condition,
    template::{self, Slot},
};
use crate::{error::Fault, system::fetch::aws::dns_suffix, view};

/// The AMI of the script that this command replaces: Ubuntu 18.04 LTS in eu-central-1.
const AMI: &str = "ami-0bdf93799014acdc4";
const INSTANCE_TYPE: &str = "t2.micro";

/// What is about to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// The stack is made.
    Create,
    /// The slot gets a new build, then the traffic.
    Fill(Slot),
    /// The stack is changed in place.
    Adjust,
}

/// A deploy that could begin.
pub(super) struct Prepared {
    pub(super) current: Option<Stack>,
    pub(super) kind: Kind,
    pub(super) wanted: Wanted,
    pub(super) artifacts: Artifacts,
    /// What it means, in plain words.
    pub(super) meaning: String,
}

impl Deploy {
    /// Looks at everything, and makes template and parameters.
    pub(super) fn prepare(&self) -> Result<Prepared> {
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

    fn strategy(&self) -> Strategy {
        self.settings.strategy.unwrap_or_default()
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
    pub(super) fn given_lists(&self) -> impl Iterator<Item = (String, String)> {
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
        let user_data = artifacts.user_data(&self.stack, template::GROUP)?;
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
}

fn join(shares: &[u8]) -> String {
    shares.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
