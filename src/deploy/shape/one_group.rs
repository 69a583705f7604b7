//! One group behind a classic load balancer, in the shape of the script that `deploy` replaces. An update replaces the
//! group as a whole.

use anyhow::{Result, ensure};

use super::Shape;
use crate::{
    deploy::{
        Deploy,
        artifacts::Artifacts,
        fleet::{self, ScalingGroup},
        layout::{Layout, Slot},
        parameters::{SlotOutput, SlotParameter},
        preflight,
        prepare::{Intent, Prepared},
        settings::DeploySettings,
        slots::Slots,
        stack::{MAX_PARAMETER_BYTES, ParameterValue, Stack, WantedStack},
    },
    error::Fault,
};

/// The most bytes of user-data in a parameter, which is in base64.
const MAX_BYTES: usize = MAX_PARAMETER_BYTES / 4 * 3;

#[derive(Debug)]
pub(super) struct OneGroup;

impl Shape for OneGroup {
    fn name(&self) -> &'static str {
        "compatible"
    }

    fn summary(&self) -> &'static str {
        "One group behind a classic load balancer, replaced as a whole, with the parameters of the old script"
    }

    fn template(&self) -> &'static str {
        include_str!("../../../cloudformation/compatible.yml")
    }

    fn layout(&self) -> Layout {
        Layout::OneSlot
    }

    fn check_settings(&self, settings: &DeploySettings) -> Result<()> {
        let given = settings.of_shares();
        ensure!(
            given.is_empty(),
            Fault::new(format!(
                "the strategy compatible moves no traffic in shares, so these settings have no effect: {}",
                given.join(", ")
            ))
            .hint("remove them from the command and from deploy.toml, or use --strategy blue-green")
            .invalid()
        );
        Ok(())
    }

    fn prepare(&self, deploy: &Deploy, slots: &Slots) -> Result<Prepared> {
        let current = slots.stacks().next();
        let mut settings = deploy.resolved(current, |parameter| self.parameter(parameter));
        settings.check()?;
        self.check_settings(&settings)?;
        settings.check_probe()?;
        let artifacts = Artifacts::collect(&settings, &deploy.stack, deploy.texts.as_ref())?;
        let holder = current
            .filter(|stack| stack.parameter(self.parameter(SlotParameter::Build)) == settings.build().to_string());
        let held = holder.map(|stack| stack.parameter(self.parameter(SlotParameter::Ami)));
        let found = deploy.checked(&mut settings, &artifacts, held)?;
        if current.is_none() {
            preflight::bucket_owner(deploy, &found, &settings, &artifacts)?;
        }
        let user_data = self.user_data(deploy, &artifacts)?;
        if let Some(stack) = current {
            self.check_content(deploy, stack, &settings, &user_data)?;
        }
        let size = self.size(deploy, current, &settings)?;
        let known = current.iter().flat_map(|stack| stack.parameters.keys());
        let known = known.map(|name| (name.clone(), ParameterValue::Previous)).collect();
        let mut parameters = deploy.shared_parameters(known, &settings, &found);
        for (parameter, value) in [
            (SlotParameter::Build, settings.build().to_string()),
            (SlotParameter::Ami, settings.ami.clone().unwrap_or_default()),
            (SlotParameter::InstanceType, settings.instance_type.clone().unwrap_or_default()),
            (SlotParameter::KeyPair, settings.key_pair.clone().unwrap_or_default()),
            (SlotParameter::MinSize, size.min.to_string()),
            (SlotParameter::DesiredCapacity, size.desired.to_string()),
            (SlotParameter::MaxSize, size.max.to_string()),
            (SlotParameter::UserData, user_data),
        ] {
            _ = parameters.insert(self.parameter(parameter), ParameterValue::New(value));
        }
        let present = |parameter| current.map(|stack| stack.parameter(self.parameter(parameter))).into_iter().collect();
        for (parameter, value) in found.role.parameters(present) {
            _ = parameters.insert(self.parameter(parameter), ParameterValue::New(value));
        }
        // A change replaces the group, so that a build keeps the name that it began with.
        let build = SlotParameter::Build;
        if current.is_none_or(|stack| stack.parameter(self.parameter(build)) != settings.build().to_string()) {
            let root_device = ParameterValue::New(found.root_device.clone());
            _ = parameters.insert(self.parameter(SlotParameter::RootDevice), root_device);
            let credits = ParameterValue::New(found.cpu_credits.into());
            _ = parameters.insert(self.parameter(SlotParameter::CpuCredits), credits);
        }
        let build = settings.build();
        let (intent, meaning) = match current {
            None => (Intent::Create, format!("build {build}: a new stack with one group")),
            Some(stack) => (
                Intent::Adjust,
                format!(
                    "build {} → {build}: CloudFormation replaces the group as a whole; the new machines join the balancer \
                     before the previous ones are removed",
                    stack.parameter(self.parameter(SlotParameter::Build))
                ),
            ),
        };
        let template = deploy.placed(self.template().to_owned(), &settings)?;
        Ok(Prepared {
            stack: deploy.stack.clone(),
            current: current.cloned(),
            intent,
            condemned: None,
            is_behind: false,
            wanted: WantedStack { template, parameters },
            meaning: format!("{}: {meaning}{}{}", deploy.stack, artifacts.runs(MAX_BYTES), found.role.meaning()),
            artifacts,
        })
    }
}

impl OneGroup {
    fn parameter(&self, parameter: SlotParameter) -> String {
        self.layout().parameter(Slot::Blue, parameter)
    }

    /// Returns the user-data of the machines in base64.
    fn user_data(&self, deploy: &Deploy, artifacts: &Artifacts) -> Result<String> {
        let group = self.layout().output(Slot::Blue, SlotOutput::Group);
        let text = artifacts.user_data(&deploy.stack, &group, MAX_BYTES)?;
        let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &text);
        ensure!(
            encoded.len() <= MAX_PARAMETER_BYTES,
            Fault::new(format!(
                "the user-data has {} bytes in base64, and a parameter takes at most {MAX_PARAMETER_BYTES}",
                encoded.len()
            ))
            .hint("pass fewer --set, or use --strategy blue-green, which takes 16 KiB")
            .invalid()
        );
        Ok(encoded)
    }

    /// Fails if the content is new but the build's number is not.
    fn check_content(&self, deploy: &Deploy, stack: &Stack, settings: &DeploySettings, user_data: &str) -> Result<()> {
        let now = |parameter| stack.parameter(self.parameter(parameter));
        let is = |parameter, wanted: Option<&String>| now(parameter) == wanted.map_or("", String::as_str);
        let is_same = is(SlotParameter::Ami, settings.ami.as_ref())
            && is(SlotParameter::InstanceType, settings.instance_type.as_ref())
            && is(SlotParameter::KeyPair, settings.key_pair.as_ref())
            && now(SlotParameter::UserData) == user_data;
        let build = now(SlotParameter::Build).parse().ok();
        if is_same && build == Some(settings.build()) {
            return Ok(());
        }
        deploy.check_build(build, build, settings)
    }

    /// Returns the sizes of the group: declared, else the stack's; as many machines as there are now.
    fn size(&self, deploy: &Deploy, current: Option<&Stack>, settings: &DeploySettings) -> Result<ScalingGroup> {
        let size = |given: Option<u32>, parameter, default: u32| {
            let now = current.and_then(|stack| stack.parameter(self.parameter(parameter)).parse().ok());
            given.or(now).unwrap_or(default)
        };
        let min = size(settings.min_size, SlotParameter::MinSize, 1);
        let max = size(settings.max_size, SlotParameter::MaxSize, 3);
        let mut desired = size(settings.desired_capacity, SlotParameter::DesiredCapacity, 2);
        let group = self.layout().output(Slot::Blue, SlotOutput::Group);
        if let Some(group) = current.and_then(|stack| stack.outputs.get(&group)) {
            desired = fleet::groups(&deploy.system, &[group])?.first().map_or(desired, |group| group.desired);
        }
        ensure!(
            desired <= max,
            Fault::new(format!("{desired} machines are serving, but MAXSIZE={max} allows fewer"))
                .hint(format!("set MAXSIZE={desired} or more"))
                .invalid()
        );
        Ok(ScalingGroup { name: String::new(), min, desired: desired.max(min), max, machines: vec![] })
    }
}
