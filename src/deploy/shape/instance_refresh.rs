//! One group whose machines are replaced part by part, by an instance refresh of Auto Scaling that CloudFormation starts.
//!
//! An instance refresh waits for no signal. The machines complete a lifecycle hook instead, and so keep out of the
//! balancer until their steps have converged.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-attribute-updatepolicy.html>

use anyhow::{Result, ensure};

use super::Shape;
use crate::{
    deploy::{
        Deploy,
        layout::{Layout, Slot},
        parameters::{Output, Parameter},
        preflight::Findings,
        prepare::{GroupForm, Prepared},
        settings::DeploySettings,
        slots::Slots,
        stack::Stack,
        template,
    },
    error::Fault,
    notify::verdict::Hook,
    system::System,
    user_data::MAX_USER_DATA_BYTES,
};

/// The most healthy machines during a refresh, in percent of the group.
const MAX_HEALTHY: &str = "MaxHealthyPercentage";
/// Its default in the template.
const DEFAULT_MAX_HEALTHY: u32 = 110;

/// The hook's name in the template.
const HOOK: &str = "converged";

/// The most alarms of an instance refresh are 10, and the template has two.
/// <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_AlarmSpecification.html>
const MAX_ALARMS: usize = 8;

#[derive(Debug)]
pub(super) struct InstanceRefresh;

impl Shape for InstanceRefresh {
    fn name(&self) -> &'static str {
        "instance-refresh"
    }

    fn summary(&self) -> &'static str {
        "One group behind a load balancer: Auto Scaling replaces its machines part by part, and CloudFormation undoes it"
    }

    fn template(&self) -> &'static str {
        include_str!("../../../cloudformation/instance-refresh.yml")
    }

    fn layout(&self) -> Layout {
        Layout::OneSlot
    }

    fn check_settings(&self, settings: &DeploySettings) -> Result<()> {
        ensure!(
            settings.keep_for.is_none(),
            Fault::new("the strategy instance-refresh keeps no previous build, so keep_for has no effect")
                .hint("remove it from the command and from deploy.toml, or use --strategy blue-green")
                .invalid()
        );
        ensure!(
            settings.alarm.len() <= MAX_ALARMS,
            Fault::new(format!("an instance refresh takes at most {MAX_ALARMS} alarms besides those of the template"))
                .hint("name a composite alarm")
                .invalid()
        );
        if let Some(name) = settings.alarm.iter().find(|name| name.contains(',')) {
            let fault = Fault::new(format!("the parameter Alarms cannot hold the name `{name}`, which has a comma"));
            return Err(fault.hint("name a composite alarm").invalid().into());
        }
        Ok(())
    }

    fn prepare(&self, deploy: &Deploy, slots: &Slots) -> Result<Prepared> {
        deploy.prepare_group(self, slots)
    }

    fn launch_hook(&self, stack: &str) -> Option<Hook> {
        Some(Hook { group: stack.to_owned(), name: HOOK.to_owned() })
    }

    fn shares(&self, _system: &System, slots: &Slots) -> Result<[u32; 2]> {
        let serves = slots.stack(Slot::Blue).is_some_and(|stack| stack.has_output(Output::Listener));
        Ok([if serves { 100 } else { 0 }, 0])
    }
}

impl GroupForm for InstanceRefresh {
    fn max_user_data_bytes(&self) -> usize {
        MAX_USER_DATA_BYTES
    }

    fn held_user_data(&self, text: String) -> Result<String> {
        Ok(text)
    }

    fn live_user_data(&self, deploy: &Deploy, stack: &Stack) -> Result<String> {
        template::user_data(self.template(), self.layout(), &stack.template(&deploy.system)?, Slot::Blue)
    }

    /// Returns also the parameters of the given settings. What is not given stays as it is in the stack.
    fn wanted(&self, settings: &DeploySettings, user_data: String) -> Result<(String, Vec<(String, String)>)> {
        let shares: Vec<String> = settings.shift.iter().map(ToString::to_string).collect();
        let alarms: Vec<&str> = settings.alarm.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        let seconds = |time: u64| time.to_string();
        let given = [
            ("CheckpointPercentages", (!shares.is_empty()).then(|| shares.join(","))),
            ("CheckpointDelay", settings.pause.map(|time| seconds(time.0.as_secs()))),
            ("BakeTime", settings.watch.map(|time| seconds(time.0.as_secs()))),
            (Parameter::Alarms.name(), (!settings.alarm.is_empty()).then(|| alarms.join(","))),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        let template = template::with_user_data(self.template(), self.layout(), &[(Slot::Blue, user_data)])?;
        Ok((template, given))
    }

    /// An alarm that rings already would undo the update.
    fn judge(&self, deploy: &Deploy, slots: &Slots, found: &mut Findings) -> Result<()> {
        deploy.judge_all_alarms(found, slots, Slot::Blue)
    }

    fn pool_size(&self, stack: Option<&Stack>, settings: &DeploySettings) -> u32 {
        let stands = || stack.map(|stack| stack.parameter(Parameter::WarmPoolSize.name()));
        settings.given(Parameter::WarmPoolSize.name()).or_else(stands).and_then(|size| size.parse().ok()).unwrap_or(0)
    }

    /// Returns the part above 100 % of `MaxHealthyPercentage`, at least one machine. Those of the warm pool run when they
    /// are prepared, after the others are replaced.
    fn machines_besides(&self, size: u32, stack: Option<&Stack>, settings: &DeploySettings) -> u32 {
        let pool = self.pool_size(stack, settings);
        let Some(stack) = stack else { return size + pool };
        let percent = settings.given(MAX_HEALTHY).unwrap_or_else(|| stack.parameter(MAX_HEALTHY));
        let percent = percent.parse().unwrap_or(DEFAULT_MAX_HEALTHY);
        (size * percent.saturating_sub(100)).div_ceil(100).max(1).max(pool)
    }

    fn replaces(&self) -> &'static str {
        "Auto Scaling replaces the machines part by part, new ones first; both builds serve meanwhile; CloudFormation undoes it if \
         a machine or an alarm objects"
    }
}
