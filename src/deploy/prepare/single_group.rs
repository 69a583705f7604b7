//! Prepares shapes with one group: it gets every build.

use std::{collections::BTreeMap, fmt};

use anyhow::{Result, ensure};

use super::{ANOTHER_SCHEME, Intent, Prepared};
use crate::{
    deploy::{
        Deploy,
        artifacts::Artifacts,
        fleet::{self, ScalingGroup},
        layout::Slot,
        parameters::{Parameter, SlotOutput, SlotParameter},
        preflight::{self, Findings},
        settings::DeploySettings,
        shape::Shape,
        slots::Slots,
        stack::{ParameterValue, Stack},
    },
    error::Fault,
    view::count,
};

/// What a change of other parameters means.
const ADJUSTED: &str = "the stack changes in place; a change of the launch template replaces its machines";

/// What a warm pool's machines do.
const POOLED: &str = "prepared and stopped; services start when a machine leaves the pool";

/// What differs between the shapes with one group.
pub(in crate::deploy) trait GroupForm: Shape + fmt::Debug {
    /// The most bytes of user-data.
    fn max_user_data_bytes(&self) -> usize;

    /// Returns user-data as a stack holds it.
    ///
    /// # Errors
    /// If it is too long.
    fn held_user_data(&self, text: String) -> Result<String>;

    /// Returns the user-data that a stack holds now, in the same form.
    fn live_user_data(&self, deploy: &Deploy, stack: &Stack) -> Result<String>;

    /// Returns the template and the parameters that carry this user-data, with parameters of its own.
    fn wanted(&self, settings: &DeploySettings, user_data: String) -> Result<(String, Vec<(String, String)>)>;

    /// Adds faults that depend on what is there.
    fn judge(&self, _deploy: &Deploy, _slots: &Slots, _found: &mut Findings) -> Result<()> {
        Ok(())
    }

    /// Returns how many machines of a new build exist besides those of a group of this size, which has a stack already or not.
    fn machines_besides(&self, size: u32, stack: Option<&Stack>, settings: &DeploySettings) -> u32;

    /// Returns how many machines wait in the group's warm pool.
    fn pool_size(&self, _stack: Option<&Stack>, _settings: &DeploySettings) -> u32 {
        0
    }

    /// Returns what CloudFormation does with the group, in words.
    fn replaces(&self) -> &'static str;
}

impl Deploy {
    pub(in crate::deploy) fn prepare_group(&self, form: &dyn GroupForm, slots: &Slots) -> Result<Prepared> {
        let named = |parameter| self.layout().parameter(Slot::Blue, parameter);
        let current = slots.stacks().next();
        let mut settings = self.resolved(current, named);
        settings.check()?;
        form.check_settings(&settings)?;
        self.check_scheme(current, settings.given(Parameter::Scheme.name()), ANOTHER_SCHEME.to_owned())?;
        settings.check_probe()?;
        let mut artifacts = Artifacts::collect(&settings, &self.stack, self.texts.as_ref())?;
        artifacts.run_limit = self.run_limit(current);
        let holder =
            current.filter(|stack| stack.parameter(named(SlotParameter::Build)) == settings.build().to_string());
        let held = holder.map(|stack| stack.parameter(named(SlotParameter::Ami)));
        let mut found = self.checked(&mut settings, &artifacts, held)?;
        if current.is_none() {
            preflight::bucket_owner(self, &found, &settings, &artifacts)?;
        }
        form.judge(self, slots, &mut found)?;
        let size = self.group_size(current, &settings)?;
        let more = match holder {
            None => form.machines_besides(size.desired, current, &settings),
            // A larger warm pool gets its new machines at once.
            Some(_) => {
                form.pool_size(current, &settings).saturating_sub(form.pool_size(current, &DeploySettings::default()))
            }
        };
        let kind = settings.instance_type.as_deref().unwrap_or_default();
        preflight::quota(&mut found, self, kind, more)?;
        found.check()?;
        let text = artifacts.user_data(&self.outcome_target(Slot::Blue), form.max_user_data_bytes())?;
        let user_data = form.held_user_data(text)?;
        if let Some(stack) = current {
            let live = form.live_user_data(self, stack)?;
            self.check_content(stack, &settings, live == user_data)?;
        }
        let mut parameters = self.group_parameters(current, holder.is_none(), &settings, &found, &size);
        let (template, own) = form.wanted(&settings, user_data)?;
        parameters.extend(own.into_iter().map(|(name, value)| (name, ParameterValue::New(value))));
        let (intent, meaning) = self.group_intent(form, current, holder.is_some(), settings.build());
        let runs = artifacts.runs(form.max_user_data_bytes());
        let pool = match form.pool_size(current, &settings) {
            0 => String::new(),
            size => format!("\n{} of the warm pool: {POOLED}", count(size as usize, "machine")),
        };
        Ok(Prepared {
            stack: self.stack.clone(),
            current: current.cloned(),
            intent,
            condemned: None,
            is_behind: false,
            wanted: self.wanted(template, parameters, &settings)?,
            meaning: format!("{}: {meaning}{runs}{pool}{}", self.stack, found.role.meaning()),
            artifacts,
        })
    }

    /// Returns what happens to the group, also in words.
    fn group_intent(
        &self,
        form: &dyn GroupForm,
        current: Option<&Stack>,
        has_build: bool,
        build: u64,
    ) -> (Intent, String) {
        match current {
            None => (Intent::Create, format!("build {build}: a new stack with one group")),
            Some(_) if has_build => (Intent::Adjust, format!("build {build} stays; {ADJUSTED}")),
            Some(stack) => {
                let before = stack.parameter(self.layout().parameter(Slot::Blue, SlotParameter::Build));
                (Intent::Adjust, format!("build {before} → {build}: {}", form.replaces()))
            }
        }
    }

    /// Returns the parameters of the stack of one group: those that it has, the settings' and the group's.
    fn group_parameters(
        &self,
        current: Option<&Stack>,
        is_new_build: bool,
        settings: &DeploySettings,
        found: &Findings,
        size: &ScalingGroup,
    ) -> BTreeMap<String, ParameterValue> {
        let named = |parameter| self.layout().parameter(Slot::Blue, parameter);
        let known = current.iter().flat_map(|stack| stack.parameters.keys());
        let known = known.map(|name| (name.clone(), ParameterValue::Previous)).collect();
        let mut parameters = self.shared_parameters(known, settings, found);
        let mut put = |name, value: String| _ = parameters.insert(name, ParameterValue::New(value));
        for (parameter, value) in [
            (SlotParameter::Build, settings.build().to_string()),
            (SlotParameter::Ami, settings.ami.clone().unwrap_or_default()),
            (SlotParameter::InstanceType, settings.instance_type.clone().unwrap_or_default()),
            (SlotParameter::KeyPair, settings.key_pair.clone().unwrap_or_default()),
            (SlotParameter::MinSize, size.min.to_string()),
            (SlotParameter::DesiredCapacity, size.desired.to_string()),
            (SlotParameter::MaxSize, size.max.to_string()),
        ] {
            put(named(parameter), value);
        }
        let present = |parameter| current.map(|stack| stack.parameter(named(parameter))).into_iter().collect();
        for (parameter, value) in found.role.parameters(present) {
            put(named(parameter), value);
        }
        // A change replaces machines, so that a build keeps the name that it began with.
        if is_new_build {
            put(named(SlotParameter::RootDevice), found.root_device.clone());
            put(named(SlotParameter::CpuCredits), found.cpu_credits.into());
        }
        parameters
    }

    /// Fails if the content is new but the build's number is not.
    fn check_content(&self, stack: &Stack, settings: &DeploySettings, has_same_user_data: bool) -> Result<()> {
        let now = |parameter| stack.parameter(self.layout().parameter(Slot::Blue, parameter));
        let is = |parameter, wanted: Option<&String>| now(parameter) == wanted.map_or("", String::as_str);
        let is_same = is(SlotParameter::Ami, settings.ami.as_ref())
            && is(SlotParameter::InstanceType, settings.instance_type.as_ref())
            && is(SlotParameter::KeyPair, settings.key_pair.as_ref())
            && has_same_user_data;
        let build = now(SlotParameter::Build).parse().ok();
        if is_same && build == Some(settings.build()) {
            return Ok(());
        }
        self.check_build(build, build, settings)
    }

    /// Returns the sizes of the group: declared, else the stack's; as many machines as there are now.
    fn group_size(&self, current: Option<&Stack>, settings: &DeploySettings) -> Result<ScalingGroup> {
        let named = |parameter| self.layout().parameter(Slot::Blue, parameter);
        let size = |given: Option<u32>, parameter, default: u32| {
            let now = current.and_then(|stack| stack.parameter(named(parameter)).parse().ok());
            given.or(now).unwrap_or(default)
        };
        let min = size(settings.min_size, SlotParameter::MinSize, 1);
        let max = size(settings.max_size, SlotParameter::MaxSize, 3);
        let mut desired = size(settings.desired_capacity, SlotParameter::DesiredCapacity, 2);
        let group = self.layout().output(Slot::Blue, SlotOutput::Group);
        if let Some(group) = current.and_then(|stack| stack.outputs.get(&group)) {
            desired = fleet::groups(&self.system, &[group])?.first().map_or(desired, |group| group.desired);
        }
        ensure!(
            desired <= max,
            Fault::new(format!("{desired} machines are serving, but MAXSIZE={max} allows fewer"))
                .hint(format!("set MAXSIZE={desired} or more"))
                .invalid()
        );
        Ok(ScalingGroup { name: String::new(), min, desired: desired.max(min), max, machines: vec![], pool_size: None })
    }
}
