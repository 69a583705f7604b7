//! Makes a template and its parameters of the settings, or refuses them. Nothing is changed yet.

mod single_group;
mod two_slots;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};

pub(super) use self::single_group::GroupForm;
use super::{
    Deploy,
    artifacts::{Artifacts, Store},
    layout::Slot,
    parameters::{Parameter, SlotParameter},
    preflight::{self, Findings},
    settings::DeploySettings,
    slots::Slots,
    stack::{MAX_TEMPLATE_BYTES, ParameterValue, Stack, StackTemplate, WantedStack},
    template,
};
use crate::{aws::partition::Partition, error::Fault, value::Span};

/// The hint for a scheme that a stack cannot get.
const ANOTHER_SCHEME: &str = "deploy a new stack with this Scheme, and move the users to it";

/// How long a template has CloudFormation and Auto Scaling wait for a machine by default. The limit of a run that signals is
/// 14 minutes, seven tenths of it.
const WAITING_TIME: Duration = Duration::from_mins(20);

/// What a deploy is about to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Intent {
    /// Creates the stack.
    Create,
    /// Puts a new build into the slot, then moves the traffic to it.
    Fill(Slot),
    /// Moves the traffic to the slot, which already holds the build.
    Resume(Slot),
    /// Changes the stack in place.
    Adjust,
}

impl Intent {
    /// Returns whether new machines are started.
    pub(super) fn is_new_build(&self) -> bool {
        matches!(self, Self::Create | Self::Fill(_))
    }

    /// Returns the slot that will receive the traffic.
    pub(super) fn promoted(&self) -> Option<Slot> {
        match self {
            Self::Fill(slot) | Self::Resume(slot) => Some(*slot),
            Self::Create | Self::Adjust => None,
        }
    }
}

/// A deploy that is ready to begin.
pub(super) struct Prepared {
    /// Name of the stack that is created or changed.
    pub(super) stack: String,
    /// That stack, if it exists.
    pub(super) current: Option<Stack>,
    pub(super) intent: Intent,
    /// The fault of a build that has a share of the traffic already and must lose it.
    pub(super) condemned: Option<Fault>,
    /// Whether the live weights or sizes differ from the stack's parameters.
    pub(super) is_behind: bool,
    pub(super) wanted: WantedStack,
    pub(super) artifacts: Artifacts,
    /// What it means, in plain words: one or two lines.
    pub(super) meaning: String,
}

impl Deploy {
    /// Checks everything, and makes template and parameters.
    pub(super) fn prepare(&self) -> Result<Prepared> {
        self.check_given_parameters()?;
        let slots = Slots::find(self)?.without_empty();
        for stack in slots.stacks() {
            self.check_ready(stack)?;
        }
        self.shape().prepare(self, &slots)
    }

    /// Fails if `--parameter` names a parameter that the template lacks, or that `deploy` sets itself.
    pub(super) fn check_given_parameters(&self) -> Result<()> {
        let (shape, layout) = (self.shape(), self.layout());
        let of_slot = |slot: Slot| SlotParameter::ALL.iter().map(move |parameter| layout.parameter(slot, *parameter));
        let own: Vec<String> = layout.slots().iter().copied().flat_map(of_slot).collect();
        let there = template::parameters(shape.template());
        for name in self.settings.parameter.iter().filter_map(|pair| Some(pair.split_once('=')?.0)) {
            let fault = if !there.contains(name) {
                let free = there.iter().copied().filter(|name| !own.iter().any(|own| own == name));
                let message = format!("the template of the strategy {} has no parameter {name}", shape.name());
                Fault::new(message).hint(format!("pass one of {}", free.collect::<Vec<_>>().join(", ")))
            } else if own.iter().any(|own| own == name) {
                Fault::new(format!("deploy itself sets the parameter {name}"))
                    .hint("pass the setting instead; to list the settings: glovo-bootstrap deploy update-stack --help")
            } else {
                continue;
            };
            return Err(fault.invalid().into());
        }
        Ok(())
    }

    /// Fails if the wanted build's number is not above those that exist: a number stands for one content.
    pub(super) fn check_build(
        &self,
        serving: Option<u64>,
        highest: Option<u64>,
        wanted: &DeploySettings,
    ) -> Result<()> {
        let build = wanted.build();
        let Some(highest) = highest.filter(|highest| build <= *highest) else { return Ok(()) };
        let message = if Some(build) == serving {
            format!("build {build} is already serving, with other content")
        } else {
            format!("build {build} is not newer than build {highest} of the stack {}", self.stack)
        };
        let hint = format!(
            "set BUILD_NUMBER={} for the new content, or return to an existing build: {}",
            highest + 1,
            self.command("rollback")
        );
        Err(Fault::new(message).hint(hint).invalid().into())
    }

    /// Checks settings that are completed from the stack, and completes them by defaults. `holds` returns the AMI of the wanted
    /// build if it is deployed already: the AMI that a parameter names is read once for each build.
    pub(super) fn checked(
        &self,
        settings: &mut DeploySettings,
        artifacts: &Artifacts,
        holds: Option<&str>,
    ) -> Result<Findings> {
        if let (Some(ami), Some(held)) = (&mut settings.ami, holds)
            && ami.starts_with(preflight::RESOLVED)
        {
            held.clone_into(ami);
        }
        let found = preflight::look(self, settings, artifacts)?;
        for note in &found.notes {
            self.say(&format!("note: {note}"));
        }
        found.check()?;
        settings.ami = Some(found.ami.clone());
        settings.instance_type = Some(found.instance_type.clone());
        Ok(found)
    }

    /// Returns the settings, completed from the stack.
    pub(super) fn resolved(&self, current: Option<&Stack>, named: impl Fn(SlotParameter) -> String) -> DeploySettings {
        let stands = |name: &str| {
            let value = current.map(|stack| stack.parameter(name)).filter(|value| !value.is_empty());
            value.map(str::to_owned)
        };
        let mut settings = self.settings.clone();
        let open = |setting: &mut Option<String>, name: &str| *setting = setting.take().or_else(|| stands(name));
        open(&mut settings.ami, &named(SlotParameter::Ami));
        open(&mut settings.instance_type, &named(SlotParameter::InstanceType));
        open(&mut settings.key_pair, &named(SlotParameter::KeyPair));
        open(&mut settings.subnets, Parameter::Subnets.name());
        open(&mut settings.security_groups, Parameter::SecurityGroups.name());
        open(&mut settings.certificate, Parameter::Certificate.name());
        open(&mut settings.dns_record, Parameter::DnsRecord.name());
        settings
    }

    /// Returns the known parameters that the template still has, with the given values of those that the slots share.
    pub(super) fn shared_parameters(
        &self,
        known: BTreeMap<String, ParameterValue>,
        settings: &DeploySettings,
        found: &Findings,
    ) -> BTreeMap<String, ParameterValue> {
        let there = template::parameters(self.shape().template());
        let mut parameters = known;
        parameters.retain(|name, _| there.contains(name.as_str()));
        let store = Store::of(settings, &self.stack);
        let given = [
            (Parameter::Vpc, Some(&found.vpc).filter(|vpc| !vpc.is_empty())),
            (Parameter::Subnets, settings.subnets.as_ref()),
            (Parameter::SecurityGroups, settings.security_groups.as_ref()),
            (Parameter::Certificate, settings.certificate.as_ref()),
            (Parameter::DnsRecord, settings.dns_record.as_ref()),
            (Parameter::HostedZone, Some(&found.zone).filter(|zone| !zone.is_empty())),
            (Parameter::ArtifactBucket, store.as_ref().map(|store| &store.bucket)),
            (Parameter::ArtifactPrefix, store.as_ref().map(|store| &store.prefix)),
        ];
        for (parameter, value) in given {
            if let Some(value) = value {
                _ = parameters.insert(parameter.name().into(), ParameterValue::New(value.clone()));
            }
        }
        for pair in &settings.parameter {
            let (name, value) = pair.split_once('=').unwrap_or_default();
            _ = parameters.insert(name.into(), ParameterValue::New(value.into()));
        }
        parameters
    }

    /// Returns how long the first run of a machine may take: seven tenths of the time that CloudFormation and Auto Scaling wait
    /// for it, so that its failure is told before. `None` if both wait as long as by default: the program has the same limit.
    pub(super) fn run_limit(&self, stack: Option<&Stack>) -> Option<Duration> {
        let value = |parameter: Parameter| {
            let stands = || stack.map(|stack| stack.parameter(parameter.name()).to_owned());
            self.settings.given(parameter.name()).map(str::to_owned).or_else(stands).unwrap_or_default()
        };
        let of_signal = value(Parameter::SignalTimeout);
        let of_signal = of_signal.strip_prefix("PT").and_then(|time| time.to_lowercase().parse::<Span>().ok());
        let of_hook = value(Parameter::SetupTimeout).parse().ok().map(Duration::from_secs);
        let has_hook = template::parameters(self.shape().template()).contains(Parameter::SetupTimeout.name());
        let of_hook = has_hook.then(|| of_hook.unwrap_or(WAITING_TIME));
        let of_signal = of_signal.map_or(WAITING_TIME, |time| time.0);
        let waits = of_hook.map_or(of_signal, |of_hook| of_hook.min(of_signal));
        (waits != WAITING_TIME).then(|| waits * 7 / 10)
    }

    /// Refuses another scheme for the balancer of a stack. CloudFormation would make the new balancer first, and a target group
    /// can belong to one balancer only.
    /// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-target-groups.html>
    pub(super) fn check_scheme(&self, stack: Option<&Stack>, wanted: Option<&str>, hint: String) -> Result<()> {
        const PUBLIC: &str = "internet-facing";
        let has_target_groups = self.shape().template().contains("AWS::ElasticLoadBalancingV2::TargetGroup");
        let (Some(stack), Some(wanted)) = (stack.filter(|_| has_target_groups), wanted) else { return Ok(()) };
        let [present, wanted] =
            [stack.parameter(Parameter::Scheme.name()), wanted].map(|text| if text.is_empty() { PUBLIC } else { text });
        ensure!(
            wanted == present,
            Fault::new(format!("the balancer of stack {} is {present}, and stays so: Scheme={wanted}", stack.name))
                .hint(hint)
                .invalid()
        );
        Ok(())
    }

    /// Returns the stack that these settings want.
    pub(super) fn wanted(
        &self,
        template: String,
        parameters: BTreeMap<String, ParameterValue>,
        settings: &DeploySettings,
    ) -> Result<WantedStack> {
        let template = self.placed(template, settings)?;
        Ok(WantedStack {
            template,
            parameters,
            service_role: settings.service_role.clone(),
            tags: settings.tag.clone(),
        })
    }

    /// Returns the template as part of the call, or its place in the bucket if it is too long for a call.
    fn placed(&self, text: String, settings: &DeploySettings) -> Result<StackTemplate> {
        let text = if text.len() > MAX_TEMPLATE_BYTES { template::compact(&text) } else { text };
        if text.len() <= MAX_TEMPLATE_BYTES {
            return Ok(StackTemplate::Body(text));
        }
        let store = Store::of(settings, &self.stack).with_context(|| {
            Fault::new(format!("the template has {} bytes, and a call takes at most {MAX_TEMPLATE_BYTES}", text.len()))
                .hint("pass --bucket BUCKET, which then holds the template")
                .invalid()
        })?;
        let (upload, _) = store.upload("templates", "template.yml", text.into_bytes());
        let region = self.system.aws.region(&self.system.host)?;
        let url = format!("https://s3.{region}.{}/{}/{}", Partition::of(&region).dns_suffix, upload.bucket, upload.key);
        _ = self.system.aws.upload(&self.system.host, upload)?;
        Ok(StackTemplate::Url(url))
    }
}
