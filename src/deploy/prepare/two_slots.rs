//! Two slots, in one stack or each a stack of its own: the idle one gets what is new.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};

use super::{Intent, Prepared};
use crate::{
    deploy::{
        Deploy,
        artifacts::Artifacts,
        fleet::ScalingGroup,
        preflight,
        settings::DeploySettings,
        slots::{Slot, Slots, active},
        stack::{ParameterValue, Stack, WantedStack},
        template,
    },
    error::{Class, Fault},
    view::count,
};

impl Deploy {
    pub(super) fn prepare_slots(&self, slots: &Slots) -> Result<Prepared> {
        let shares = slots.shares(&self.system)?;
        let exists = slots.stacks().next().is_some();
        let serving = active(shares);
        ensure!(
            !exists || serving.is_some(),
            Fault::new(format!("nothing of {} gets any traffic", self.stack))
                .hint(format!("{} gives it to that build", self.command("rollback --build N")))
        );
        let current = serving.and_then(|slot| slots.stack(slot));
        let settings = self.resolved(current, |name| serving.map_or(name.into(), |slot| slots.named(slot, name)));
        settings.check()?;
        let separate = self.strategy().has_two_stacks();
        ensure!(
            !separate || settings.dns_record.is_some(),
            Fault::new("two stacks need a name that they share").hint("DNSRECORD=NAME or --dns-record NAME").invalid()
        );
        let artifacts = Artifacts::collect(&settings, &self.stack, self.texts.as_ref())?;
        let mut found = preflight::look(self, &settings, &artifacts)?;
        for note in &found.notes {
            self.say(&format!("note: {note}"));
        }
        found.check()?;
        if !exists {
            preflight::bucket_owner(self, &found, &settings, &artifacts)?;
        }
        let live = self.live_user_data(slots)?;
        let (kind, slot) = self.decide(slots, shares, &settings, &artifacts, &live)?;
        let size = self.sizes(slots, serving, &kind, &settings)?;
        if kind.is_new_build() {
            let kind = settings.instance_type.as_deref().unwrap_or_default();
            preflight::quota(&mut found, self, kind, size.desired)?;
            found.check()?;
        }
        // A new build's stack gets what the serving one has; else what is there stays.
        let takes_over = separate && kind.is_new_build();
        let known = if takes_over { current } else { slots.stack(slot) };
        let known = known.into_iter().flat_map(|stack| &stack.parameters);
        let known = known.map(|(name, value)| {
            (name.clone(), if takes_over { ParameterValue::New(value.clone()) } else { ParameterValue::Previous })
        });
        let mut parameters = self.shared_parameters(known.collect(), &settings, &found);
        if let (true, Some(current)) = (separate, current) {
            check_in_common(slots, current, &kind, &parameters)?;
        }
        let mut is_behind = false;
        if let Some(stack) = slots.stack(slot) {
            // What is so now is not undone: the groups' sizes, the weights.
            for each in slots.of(stack) {
                let group = slots.group(&self.system, each)?;
                let so =
                    [("Weight", Some(shares[each.index()])), ("DesiredCapacity", group.map(|group| group.desired))];
                for (name, value) in so.into_iter().filter_map(|(name, value)| Some((name, value?.to_string()))) {
                    is_behind |= !separate && slots.parameter(each, name) != value;
                    _ = parameters.insert(slots.named(each, name), ParameterValue::New(value));
                }
            }
        }
        let mut put = |name: &str, value: String| {
            _ = parameters.insert(slots.named(slot, name), ParameterValue::New(value));
        };
        // Without traffic the alarms would take its machines away.
        put("MinSize", if kind.promoted().is_some() { size.desired } else { size.min }.to_string());
        put("DesiredCapacity", size.desired.to_string());
        put("MaxSize", size.max.to_string());
        match kind {
            Intent::Create => put("Weight", "100".into()),
            Intent::Fill(_) => put("Weight", "0".into()),
            Intent::Resume(_) | Intent::Adjust => {}
        }
        if kind.is_new_build() {
            put("VersionId", settings.build().to_string());
            put("AMIId", settings.ami.clone().unwrap_or_default());
            put("RootDeviceName", found.root_device.clone());
            put("InstanceType", settings.instance_type.clone().unwrap_or_default());
            put("KeyName", settings.key_pair.clone().unwrap_or_default());
        }
        let mut contents = live;
        if kind.is_new_build() {
            _ = contents.insert(slot.name(), self.user_data(slots, slot, &artifacts)?);
        }
        let of = |slot: Slot| (slot, contents.get(slot.name()).cloned().unwrap_or_default());
        let contents = if separate { vec![of(slot)] } else { Slot::ALL.map(of).to_vec() };
        let template = self.placed(template::with_user_data(self.strategy(), &contents)?, &settings)?;
        let who = if found.identity.is_empty() { String::new() } else { format!("as {}: ", found.identity) };
        let meaning = self.meaning(&kind, slots, &settings, &size);
        let meaning = format!("{who}{}: {meaning}", self.stack);
        Ok(Prepared {
            stack: self.stack_of(slot),
            current: slots.stack(slot).cloned(),
            kind,
            is_behind,
            wanted: WantedStack { template, parameters },
            artifacts,
            meaning,
        })
    }

    /// What is to be done, and with which slot.
    fn decide(
        &self,
        slots: &Slots,
        shares: [u32; 2],
        wanted: &DeploySettings,
        artifacts: &Artifacts,
        live: &BTreeMap<&'static str, String>,
    ) -> Result<(Intent, Slot)> {
        let holds = |slot| self.holds(slots, slot, wanted, artifacts, live);
        let newest = if slots.build(Slot::Blue) >= slots.build(Slot::Green) { Slot::Blue } else { Slot::Green };
        Ok(match active(shares) {
            None => (Intent::Create, Slot::Blue),
            // Somebody has detached, or gone back.
            Some(_) if shares[newest.other().index()] > 0 && holds(newest)? => (Intent::Resume(newest), newest),
            Some(serving) if holds(serving)? => (Intent::Adjust, serving),
            Some(serving) => {
                self.check_build(slots.build(serving), slots.build(newest), wanted)?;
                self.check_idle(slots, serving.other(), shares)?;
                (Intent::Fill(serving.other()), serving.other())
            }
        })
    }

    /// Fails if a slot that is to be filled has users.
    fn check_idle(&self, slots: &Slots, slot: Slot, shares: [u32; 2]) -> Result<()> {
        let share = shares[slot.index()];
        let (here, other) = (slots.described(slot), slots.parameter(slot.other(), "VersionId"));
        ensure!(
            share == 0,
            Fault::new(format!("{here} has {share} % of the traffic: another deploy is at work, or was left"))
                .hint(format!(
                    "its command again goes on; back: {}",
                    self.command(&format!("rollback --build {other}"))
                ))
                .class(Class::Locked)
        );
        Ok(())
    }

    /// What is wanted of a slot's machines.
    fn user_data(&self, slots: &Slots, slot: Slot, artifacts: &Artifacts) -> Result<String> {
        artifacts.user_data(&self.stack_of(slot), &slots.named(slot, "Group"))
    }

    /// The user-data that the slots have.
    fn live_user_data(&self, slots: &Slots) -> Result<BTreeMap<&'static str, String>> {
        let mut live = BTreeMap::new();
        for stack in slots.stacks() {
            let text = stack.template(&self.system)?;
            for slot in slots.of(stack) {
                _ = live.insert(slot.name(), template::user_data(self.strategy(), &text, slot)?);
            }
        }
        Ok(live)
    }

    /// Whether a slot's machines are those that are wanted: of this build, with this content.
    fn holds(
        &self,
        slots: &Slots,
        slot: Slot,
        wanted: &DeploySettings,
        artifacts: &Artifacts,
        live: &BTreeMap<&'static str, String>,
    ) -> Result<bool> {
        let is = |name: &str, wanted: Option<&String>| slots.parameter(slot, name) == wanted.map_or("", String::as_str);
        Ok(slots.build(slot) == Some(wanted.build())
            && is("AMIId", wanted.ami.as_ref())
            && is("InstanceType", wanted.instance_type.as_ref())
            && is("KeyName", wanted.key_pair.as_ref())
            && live.get(slot.name()) == Some(&self.user_data(slots, slot, artifacts)?))
    }

    /// Sizes for the slot that is to serve: declared, else those of the stack; the live capacity is kept.
    fn sizes(
        &self,
        slots: &Slots,
        serving: Option<Slot>,
        kind: &Intent,
        settings: &DeploySettings,
    ) -> Result<ScalingGroup> {
        let declared = |given: Option<u32>, name: &str, default: u32| {
            let previous = serving.and_then(|slot| slots.parameter(slot, name).parse().ok());
            given.or(previous).unwrap_or(default)
        };
        let (min, max) = (declared(settings.min_size, "MinSize", 1), declared(settings.max_size, "MaxSize", 3));
        let live = |slot| Ok::<_, anyhow::Error>(slots.group(&self.system, slot)?.map(|group| group.desired));
        let live = match (serving, kind) {
            (Some(serving), Intent::Resume(slot)) => live(serving)?.max(live(*slot)?),
            (Some(serving), _) => live(serving)?,
            (None, _) => None,
        };
        if let Some(live) = live
            && live > max
        {
            let fault = Fault::new(format!("{live} machines serve now, and MAXSIZE={max} allows fewer"));
            bail!(fault.hint(format!("MAXSIZE={live} or more; or shrink the group first")).invalid());
        }
        let desired = live.or(settings.desired_capacity).unwrap_or(2).clamp(min, max.max(min));
        Ok(ScalingGroup { name: String::new(), min, desired, max, machines: vec![] })
    }

    /// What is about to happen, in plain words.
    fn meaning(&self, kind: &Intent, slots: &Slots, settings: &DeploySettings, size: &ScalingGroup) -> String {
        let build = settings.build();
        let machines = count(size.desired as usize, "machine");
        let (slot, filled) = match kind {
            Intent::Create => return format!("build {build}: a new stack with {machines}, in 5 to 15 minutes"),
            Intent::Adjust => {
                return "the stack is changed in place: its machines and their build stay. no downtime".into();
            }
            Intent::Fill(slot) => (slot, format!("is filled with {machines}, which takes 5 to 15 minutes")),
            Intent::Resume(slot) => (slot, format!("holds it already, and goes on with {machines}")),
        };
        let old = slots.parameter(slot.other(), "VersionId");
        let shift = if settings.shift.is_empty() { "10, 50, 100".into() } else { join(&settings.shift) };
        let (place, of) = if self.strategy().has_two_stacks() {
            (format!("the stack {}", self.stack_of(*slot)), "the answers of DNS")
        } else {
            (slot.name().to_owned(), "the traffic")
        };
        format!(
            "build {old} → {build}: {place} {filled}; once they are healthy they take {shift} % of {of}; {} then keeps 1 machine. \
             no downtime",
            slot.other().name()
        )
    }
}

/// Fails if two stacks that share a name would not: a record that is alone gets everybody, whatever its weight.
fn check_in_common(
    slots: &Slots,
    current: &Stack,
    kind: &Intent,
    wanted: &BTreeMap<String, ParameterValue>,
) -> Result<()> {
    let alone = *kind == Intent::Adjust && slots.stacks().count() == 1;
    for (name, may_differ) in
        [("DNSRecord", alone), ("HostedZoneId", alone), ("IpAddressType", *kind == Intent::Adjust)]
    {
        if let Some(ParameterValue::New(value)) = wanted.get(name)
            && value != current.parameter(name)
            && !may_differ
        {
            let message =
                format!("{name} can't change from {} to {value}: two stacks share it", current.parameter(name));
            return Err(Fault::new(message)
                .hint("change it while there is one stack only, or make another pair of them (--stack)")
                .invalid()
                .into());
        }
    }
    Ok(())
}

fn join(shares: &[u8]) -> String {
    shares.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
