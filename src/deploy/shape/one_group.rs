//! One group behind a classic load balancer, in the shape of the script that `deploy` replaces. An update replaces the
//! group as a whole.

use anyhow::{Result, ensure};

use super::Shape;
use crate::{
    deploy::{
        Deploy,
        layout::{Layout, Slot},
        parameters::SlotParameter,
        prepare::{GroupForm, Prepared},
        settings::DeploySettings,
        slots::Slots,
        stack::{MAX_PARAMETER_BYTES, Stack},
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
        deploy.prepare_group(self, slots)
    }
}

impl GroupForm for OneGroup {
    fn max_user_data_bytes(&self) -> usize {
        MAX_BYTES
    }

    /// Returns the user-data in base64.
    fn held_user_data(&self, text: String) -> Result<String> {
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

    fn live_user_data(&self, _deploy: &Deploy, stack: &Stack) -> Result<String> {
        Ok(stack.parameter(self.user_data_parameter()).to_owned())
    }

    fn wanted(&self, _settings: &DeploySettings, user_data: String) -> Result<(String, Vec<(String, String)>)> {
        Ok((self.template().to_owned(), vec![(self.user_data_parameter(), user_data)]))
    }

    fn machines_besides(&self, size: u32, _: Option<&Stack>, _: &DeploySettings) -> u32 {
        size
    }

    fn replaces(&self) -> &'static str {
        "CloudFormation replaces the group as a whole; the new machines join the balancer before the previous ones are removed"
    }
}

impl OneGroup {
    fn user_data_parameter(&self) -> String {
        self.layout().parameter(Slot::Blue, SlotParameter::UserData)
    }
}
