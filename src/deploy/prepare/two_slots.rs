//! Prepares shapes with two slots: the idle slot receives the new build.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};

use super::{ANOTHER_SCHEME, Intent, Prepared};
use crate::{
    deploy::{
        Deploy,
        artifacts::Artifacts,
        fleet::ScalingGroup,
        layout::Slot,
        parameters::{Parameter, SlotParameter},
        preflight::{self, Findings},
        rollout,
        settings::DeploySettings,
        slots::{Slots, active},
        stack::{ParameterValue, Stack},
        template,
    },
    error::{Class, Fault},
    user_data::MAX_USER_DATA_BYTES,
    value::spoken,
    view::count,
};

impl Deploy {
    pub(in crate::deploy) fn prepare_slots(&self, slots: &Slots) -> Result<Prepared> {
        let (shape, layout) = (self.shape(), self.layout());
        let shares = shape.shares(&self.system, slots)?;
        let serving = self.serving_slot(slots, shares)?;
        let current = serving.and_then(|slot| slots.stack(slot));
        let mut settings =
            self.resolved(current, |parameter| layout.parameter(serving.unwrap_or(Slot::Blue), parameter));
        settings.check()?;
        shape.check_settings(&settings)?;
        settings.check_probe()?;
        let mut artifacts = Artifacts::collect(&settings, &self.stack, self.texts.as_ref())?;
        artifacts.run_limit = self.run_limit(current);
        let holder = Slot::ALL.into_iter().find(|slot| slots.build(*slot) == Some(settings.build()));
        let held = holder.map(|slot| slots.parameter(slot, SlotParameter::Ami));
        let mut found = self.checked(&mut settings, &artifacts, held)?;
        if serving.is_none() {
            preflight::bucket_owner(self, &found, &settings, &artifacts)?;
        }
        let live = self.live_user_data(slots)?;
        let (intent, slot) = self.decide(slots, shares, &settings, &artifacts, &live)?;
        // A stack that gets a new build takes over the parameters of the stack that serves; else each keeps its own.
        let is_other = current.is_some_and(|current| current.name != self.stack_of(slot));
        let takes_over = is_other && intent.is_new_build();
        self.check_scheme_of(slots, slot, current.filter(|_| takes_over), &settings)?;
        let size = self.sizes(slots, serving, &intent, &settings)?;
        if intent.is_new_build() {
            let kind = settings.instance_type.as_deref().unwrap_or_default();
            preflight::quota(&mut found, self, kind, size.desired)?;
        }
        let condemned = self.judge_alarms(&mut found, slots, &intent, shares)?;
        found.check()?;
        let mut parameters = self.shared_parameters(kept(current, slots.stack(slot), takes_over), &settings, &found);
        self.add_probe_key(current, &mut parameters)?;
        if let Some(current) = current {
            shape.check_parameters(slots, current, &intent, &parameters)?;
        }
        let is_behind = self.keep_live(slots, slot, shares, &mut parameters)? && !is_other;
        for (parameter, value) in slot_values(slots, &intent, &settings, &found, &size) {
            _ = parameters.insert(layout.parameter(slot, parameter), ParameterValue::New(value));
        }
        let template = self.template_of(slot, live, intent.is_new_build().then_some(&artifacts))?;
        let caller = if found.identity.is_empty() { String::new() } else { format!("as {}: ", found.identity) };
        let meaning = self.meaning(&intent, slots, &settings, &size);
        let meaning =
            format!("{caller}{}: {meaning}{}{}", self.stack, artifacts.runs(MAX_USER_DATA_BYTES), found.role.meaning());
        Ok(Prepared {
            stack: self.stack_of(slot),
            current: slots.stack(slot).cloned(),
            intent,
            condemned,
            is_behind,
            wanted: self.wanted(template, parameters, &settings)?,
            artifacts,
            meaning,
        })
    }

    /// Returns the slot that has the traffic; `None` before there is a stack.
    fn serving_slot(&self, slots: &Slots, shares: [u32; 2]) -> Result<Option<Slot>> {
        let serving = active(shares);
        ensure!(
            serving.is_some() || slots.stacks().next().is_none(),
            Fault::new(format!("no slot of stack {} receives traffic", self.stack))
                .hint(format!("to give build N all traffic: {}", self.command("rollback --build N")))
        );
        Ok(serving)
    }

    /// Returns the template of a slot's stack, with the user-data that runs there now, and that of a new build.
    fn template_of(
        &self,
        slot: Slot,
        mut contents: BTreeMap<&'static str, String>,
        new: Option<&Artifacts>,
    ) -> Result<String> {
        if let Some(artifacts) = new {
            _ = contents.insert(slot.name(), self.user_data(slot, artifacts)?);
        }
        let of = |slot: Slot| (slot, contents.get(slot.name()).cloned().unwrap_or_default());
        let is_inside = |other: &Slot| self.stack_of(*other) == self.stack_of(slot);
        let contents: Vec<_> = Slot::ALL.into_iter().filter(is_inside).map(of).collect();
        template::with_user_data(self.shape().template(), self.shape().layout(), &contents)
    }

    /// Fails if the stack of a slot would get another scheme: the given one, or that of the stack whose parameters it takes over.
    fn check_scheme_of(
        &self,
        slots: &Slots,
        slot: Slot,
        model: Option<&Stack>,
        settings: &DeploySettings,
    ) -> Result<()> {
        let name = Parameter::Scheme.name();
        let wanted = settings.given(name).or_else(|| model.map(|stack| stack.parameter(name)));
        let hint = match model {
            Some(_) => {
                let delete = format!("glovo-bootstrap deploy delete-stack {}", self.arguments(&self.stack_of(slot)));
                format!("delete this stack, which serves no traffic, and deploy again: {delete}")
            }
            None => ANOTHER_SCHEME.to_owned(),
        };
        self.check_scheme(slots.stack(slot), wanted, hint)
    }

    /// Adds a key for the header of probes, if the application is to be asked and the stack has no key yet.
    fn add_probe_key(&self, stack: Option<&Stack>, parameters: &mut BTreeMap<String, ParameterValue>) -> Result<()> {
        let name = Parameter::ProbeKey.name();
        let has_key = stack.is_some_and(|stack| !stack.parameter(name).is_empty());
        let has_rules = template::parameters(self.shape().template()).contains(name);
        let given =
            parameters.get(name).is_some_and(|value| matches!(value, ParameterValue::New(key) if !key.is_empty()));
        if self.settings.asks_application() && has_rules && !has_key && !given {
            _ = parameters.insert(name.to_owned(), ParameterValue::New(self.system.host.new_uuid()?));
        }
        Ok(())
    }

    /// Has an update keep the live values of a slot's stack: the groups' sizes, the weights. Returns whether the stack's
    /// parameters differ from those that matter.
    fn keep_live(
        &self,
        slots: &Slots,
        slot: Slot,
        shares: [u32; 2],
        parameters: &mut BTreeMap<String, ParameterValue>,
    ) -> Result<bool> {
        let (serving, mut is_behind) = (active(shares), false);
        let smallest = |slot| slots.parameter(slot, SlotParameter::MinSize).parse::<u32>().ok();
        let Some(stack) = slots.stack(slot) else { return Ok(false) };
        for each in slots.of(stack) {
            let group = slots.group(&self.system, each)?;
            let live = [
                (SlotParameter::Weight, Some(shares[each.index()])),
                (SlotParameter::DesiredCapacity, group.as_ref().map(ScalingGroup::capacity)),
                // The slot has shrunk since: CloudFormation would make no group with more machines at least than at first.
                (
                    SlotParameter::MinSize,
                    group.map(|group| group.capacity()).filter(|size| smallest(each) > Some(*size)),
                ),
            ];
            for (parameter, value) in live {
                let Some(value) = value.map(|value| value.to_string()) else { continue };
                // A failed update may give the idle slot its earlier size again, but no slot that serves.
                let matters = parameter != SlotParameter::MinSize
                    && (parameter == SlotParameter::Weight || Some(each) == serving);
                is_behind |= matters && slots.parameter(each, parameter) != value;
                _ = parameters.insert(self.layout().parameter(each, parameter), ParameterValue::New(value));
            }
        }
        Ok(is_behind)
    }

    /// Decides what to do with which slot.
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
            // An operator has detached or rolled back.
            Some(_) if shares[newest.other().index()] > 0 && holds(newest)? => (Intent::Resume(newest), newest),
            Some(serving) if holds(serving)? && self.is_unfinished(slots, serving, shares)? => {
                (Intent::Resume(serving), serving)
            }
            Some(serving) if holds(serving)? => (Intent::Adjust, serving),
            Some(serving) => {
                self.check_build(slots.build(serving), slots.build(newest), wanted)?;
                self.check_idle(slots, serving.other(), shares)?;
                (Intent::Fill(serving.other()), serving.other())
            }
        })
    }

    /// Returns whether a deploy has stopped after it gave this slot all traffic: the stack's parameters do not say so yet, or
    /// still hold as many machines as there were while the traffic moved.
    fn is_unfinished(&self, slots: &Slots, serving: Slot, shares: [u32; 2]) -> Result<bool> {
        if slots.group(&self.system, serving.other())?.is_none() {
            return Ok(false);
        }
        let size = |parameter| slots.parameter(serving, parameter).parse::<u32>().ok();
        // The group's own smallest size may be that of another program.
        let is_pinned = size(SlotParameter::MinSize) > size(SlotParameter::DeclaredMinSize).or(Some(u32::MAX));
        Ok(is_pinned || slots.parameter(serving, SlotParameter::Weight) != shares[serving.index()].to_string())
    }

    /// Fails if the slot to fill receives traffic.
    fn check_idle(&self, slots: &Slots, slot: Slot, shares: [u32; 2]) -> Result<()> {
        let share = shares[slot.index()];
        let (here, other) = (slots.described(slot), slots.parameter(slot.other(), SlotParameter::Build));
        ensure!(
            share == 0,
            Fault::new(format!(
                "{here} receives {share} % of the traffic: another deploy is running or was interrupted"
            ))
            .hint(format!(
                "to continue, run its command again; to roll back: {}",
                self.command(&format!("rollback --build {other}"))
            ))
            .class(Class::Locked)
        );
        Ok(())
    }

    /// Returns the wanted user-data of a slot's machines.
    fn user_data(&self, slot: Slot, artifacts: &Artifacts) -> Result<String> {
        artifacts.user_data(&self.outcome_target(slot), MAX_USER_DATA_BYTES)
    }

    /// Returns the current user-data of the slots.
    fn live_user_data(&self, slots: &Slots) -> Result<BTreeMap<&'static str, String>> {
        let mut live = BTreeMap::new();
        for stack in slots.stacks() {
            let text = stack.template(&self.system)?;
            for slot in slots.of(stack) {
                _ = live.insert(
                    slot.name(),
                    template::user_data(self.shape().template(), self.shape().layout(), &text, slot)?,
                );
            }
        }
        Ok(live)
    }

    /// Returns whether a slot holds the wanted build with the wanted content.
    fn holds(
        &self,
        slots: &Slots,
        slot: Slot,
        wanted: &DeploySettings,
        artifacts: &Artifacts,
        live: &BTreeMap<&'static str, String>,
    ) -> Result<bool> {
        let is =
            |parameter, wanted: Option<&String>| slots.parameter(slot, parameter) == wanted.map_or("", String::as_str);
        Ok(slots.build(slot) == Some(wanted.build())
            && is(SlotParameter::Ami, wanted.ami.as_ref())
            && is(SlotParameter::InstanceType, wanted.instance_type.as_ref())
            && is(SlotParameter::KeyPair, wanted.key_pair.as_ref())
            && live.get(slot.name()) == Some(&self.user_data(slot, artifacts)?))
    }

    /// Returns the sizes for the slot that will serve: declared, else the stack's; the live capacity is kept.
    fn sizes(
        &self,
        slots: &Slots,
        serving: Option<Slot>,
        intent: &Intent,
        settings: &DeploySettings,
    ) -> Result<ScalingGroup> {
        let declared = |given: Option<u32>, parameter, default: u32| {
            let previous = serving.and_then(|slot| slots.parameter(slot, parameter).parse().ok());
            given.or(previous).unwrap_or(default)
        };
        // A stack of an earlier version has only the present size.
        let least = declared(settings.min_size, SlotParameter::MinSize, 1);
        let (min, max) = (
            declared(settings.min_size, SlotParameter::DeclaredMinSize, least),
            declared(settings.max_size, SlotParameter::MaxSize, 3),
        );
        let live = |slot| Ok::<_, anyhow::Error>(slots.group(&self.system, slot)?.map(|group| group.capacity()));
        let live = match (serving, intent) {
            (Some(serving), Intent::Resume(slot)) => live(serving)?.max(live(*slot)?),
            (Some(serving), _) => live(serving)?,
            (None, _) => None,
        };
        if let Some(live) = live
            && live > max
        {
            let fault = Fault::new(format!("{live} machines are serving, but MAXSIZE={max} allows fewer"));
            bail!(fault.hint(format!("set MAXSIZE={live} or more, or shrink the group first")).invalid());
        }
        let desired = live.or(settings.desired_capacity).unwrap_or(2).clamp(min, max.max(min));
        Ok(ScalingGroup { name: String::new(), min, desired, max, machines: vec![], pool_size: None })
    }

    /// Returns what is about to happen, in plain words.
    fn meaning(&self, intent: &Intent, slots: &Slots, settings: &DeploySettings, size: &ScalingGroup) -> String {
        let build = settings.build();
        let machines = count(size.desired as usize, "machine");
        let (slot, filled) = match intent {
            Intent::Create => return format!("build {build}: a new stack with {machines}, in 5 to 15 minutes"),
            Intent::Adjust => {
                let means = "the stack changes in place; its builds stay";
                return format!("{means}; a change of a launch template replaces its machines");
            }
            Intent::Fill(slot) => (slot, format!("is filled with {machines}, which takes 5 to 15 minutes")),
            Intent::Resume(slot) => (slot, format!("already runs this build; continuing with {machines}")),
        };
        let whole = match self.keep_time() {
            time if time.is_zero() => String::new(),
            time => format!("keeps its machines for {}, then ", spoken(time)),
        };
        let old = slots.parameter(slot.other(), SlotParameter::Build);
        let shift = if settings.shift.is_empty() { "10, 50, 100".into() } else { join(&settings.shift) };
        let stack = self.stack_of(*slot);
        let place = if stack == self.stack { slot.name().to_owned() } else { format!("stack {stack}") };
        format!(
            "build {old} → {build}: {place} {filled}; once they are healthy, they receive {shift} % of the traffic; {} then {whole}keeps \
             {}. no downtime",
            slot.other().name(),
            count(rollout::keep(slots, slot.other()) as usize, "machine")
        )
    }
}

/// Returns the parameters that a slot's stack has before the settings change any: its own, or those of the stack that serves.
fn kept(serving: Option<&Stack>, own: Option<&Stack>, takes_over: bool) -> BTreeMap<String, ParameterValue> {
    let stack = if takes_over { serving } else { own };
    let parameters = stack.into_iter().flat_map(|stack| &stack.parameters);
    let value = |value: &String| if takes_over { ParameterValue::New(value.clone()) } else { ParameterValue::Previous };
    parameters.map(|(name, known)| (name.clone(), value(known))).collect()
}

/// Returns the parameters of the slot that changes: its sizes, and what a new build brings.
fn slot_values(
    slots: &Slots,
    intent: &Intent,
    settings: &DeploySettings,
    found: &Findings,
    size: &ScalingGroup,
) -> Vec<(SlotParameter, String)> {
    // Without traffic the alarms would remove its machines.
    let least = if intent.promoted().is_some() { size.desired } else { size.min };
    let mut values = vec![
        (SlotParameter::MinSize, least.to_string()),
        (SlotParameter::DeclaredMinSize, size.min.to_string()),
        (SlotParameter::DesiredCapacity, size.desired.to_string()),
        (SlotParameter::MaxSize, size.max.to_string()),
    ];
    match intent {
        Intent::Create => values.push((SlotParameter::Weight, "100".into())),
        Intent::Fill(_) => values.push((SlotParameter::Weight, "0".into())),
        Intent::Resume(_) | Intent::Adjust => {}
    }
    if intent.is_new_build() {
        values.extend([
            (SlotParameter::Build, settings.build().to_string()),
            (SlotParameter::Ami, settings.ami.clone().unwrap_or_default()),
            (SlotParameter::RootDevice, found.root_device.clone()),
            (SlotParameter::InstanceType, settings.instance_type.clone().unwrap_or_default()),
            (SlotParameter::CpuCredits, found.cpu_credits.into()),
            (SlotParameter::KeyPair, settings.key_pair.clone().unwrap_or_default()),
        ]);
    }
    let present = |parameter| Slot::ALL.map(|slot| slots.parameter(slot, parameter)).to_vec();
    values.extend(found.role.parameters(present));
    values
}

fn join(shares: &[u8]) -> String {
    shares.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
