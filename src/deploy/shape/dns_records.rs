//! Two whole stacks behind one DNS name. The weights of its records move the traffic; CloudFormation sets them.
//!
//! Route 53 itself would be faster. But CloudFormation deletes a record by the values that it has set, and refuses if
//! another program has set other values. senza had the same two stacks and first moved its weights with Route 53, too:
//! <https://github.com/zalando-stups/senza/pull/318>.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};

use super::Shape;
use crate::{
    deploy::{
        Deploy,
        layout::{Layout, Slot},
        parameters::{Output, Parameter, SlotParameter},
        prepare::{Intent, Prepared},
        settings::DeploySettings,
        slots::{Slots, percent},
        stack::{ParameterValue, Stack},
    },
    error::Fault,
    system::System,
};

#[derive(Debug)]
pub(super) struct DnsRecords;

impl Shape for DnsRecords {
    fn name(&self) -> &'static str {
        "weighted-dns"
    }

    fn summary(&self) -> &'static str {
        "Two stacks, NAME-blue and NAME-green, behind weighted DNS records: create or fill one, move the weights"
    }

    fn template(&self) -> &'static str {
        include_str!("../../../cloudformation/weighted-dns.yml")
    }

    fn layout(&self) -> Layout {
        Layout::TwoStacks
    }

    fn prepare(&self, deploy: &Deploy, slots: &Slots) -> Result<Prepared> {
        deploy.prepare_slots(slots)
    }

    fn check_settings(&self, settings: &DeploySettings) -> Result<()> {
        ensure!(
            settings.dns_record.is_some(),
            Fault::new("the strategy weighted-dns needs a DNS name that both stacks share")
                .hint("pass --dns-record NAME or set DNSRECORD=NAME")
                .invalid()
        );
        Ok(())
    }

    /// Both stacks must have the same name: a record that is alone at its name gets all traffic.
    fn check_parameters(
        &self,
        slots: &Slots,
        current: &Stack,
        intent: &Intent,
        wanted: &BTreeMap<String, ParameterValue>,
    ) -> Result<()> {
        let is_alone = *intent == Intent::Adjust && slots.stacks().count() == 1;
        let shared = [
            (Parameter::DnsRecord, is_alone),
            (Parameter::HostedZone, is_alone),
            (Parameter::IpAddressType, *intent == Intent::Adjust),
        ];
        for (parameter, may_differ) in shared {
            let (name, now) = (parameter.name(), current.parameter(parameter));
            if let Some(ParameterValue::New(value)) = wanted.get(name)
                && value != now
                && !may_differ
            {
                return Err(Fault::new(format!("{name} cannot change from {now} to {value}: both stacks share it"))
                    .hint("change it while there is only one stack, or deploy under another name with --stack NAME")
                    .invalid()
                    .into());
            }
        }
        Ok(())
    }

    fn shares(&self, _system: &System, slots: &Slots) -> Result<[u32; 2]> {
        let serves = |slot: Slot| slots.stack(slot).is_some_and(|stack| stack.has_output(Output::Listener));
        let weight = |slot| slots.parameter(slot, SlotParameter::Weight).parse().unwrap_or(0);
        let weights = Slot::ALL.map(|slot| if serves(slot) { weight(slot) } else { 0 });
        // If all weights are 0, Route 53 answers with every record alike.
        Ok(percent(if weights == [0, 0] { Slot::ALL.map(|slot| u32::from(serves(slot))) } else { weights }))
    }

    fn live_shares(&self, deploy: &Deploy, _slots: &Slots) -> Result<[u32; 2]> {
        self.shares(&deploy.system, &Slots::get(deploy)?)
    }

    /// Changes the record that gets more first, and both at the same time.
    fn shift(&self, deploy: &Deploy, slots: &Slots, shares: [(Slot, u8); 2]) -> Result<()> {
        let change = |(slot, share): (Slot, u8)| {
            let stack = slots.stack(slot).filter(|stack| stack.has_output(Output::Listener))?;
            let weight = self.layout().parameter(slot, SlotParameter::Weight);
            Some((stack, [(weight, ParameterValue::New(share.to_string()))].into()))
        };
        let changes: Vec<_> = shares.into_iter().filter_map(change).collect();
        deploy.set_parameters(&changes, "the records")
    }

    /// Resolvers keep an answer for a minute: an alias of a balancer has this time to live.
    /// <https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/resource-record-sets-choosing-alias-non-alias.html>
    fn default_pause(&self) -> Duration {
        Duration::from_mins(2)
    }

    fn lags(&self) -> bool {
        true
    }
}
