//! Two slots in one stack, behind one listener. Its weights move the traffic, past CloudFormation and at once.

use anyhow::{Context, Result};

use super::Shape;
use crate::{
    aws::{query::Call, service::BALANCING},
    deploy::{
        Deploy, fleet,
        layout::{Layout, Slot},
        parameters::{Output, Parameter, SlotOutput, SlotParameter},
        prepare::Prepared,
        slots::{Slots, percent},
        stack::Stack,
    },
    system::System,
};

/// The header that the rules of the template look at.
const PROBE_HEADER: &str = "x-glovo-bootstrap-probe";

#[derive(Debug)]
pub(super) struct Listener;

impl Shape for Listener {
    fn name(&self) -> &'static str {
        "blue-green"
    }

    fn summary(&self) -> &'static str {
        "Two slots behind one listener: fill the idle slot, move the traffic, keep the previous build for a rollback"
    }

    fn template(&self) -> &'static str {
        include_str!("../../../cloudformation/autoscaling.yml")
    }

    fn layout(&self) -> Layout {
        Layout::OneStack
    }

    fn prepare(&self, deploy: &Deploy, slots: &Slots) -> Result<Prepared> {
        deploy.prepare_slots(slots)
    }

    fn shares(&self, system: &System, slots: &Slots) -> Result<[u32; 2]> {
        let Some(stack) = slots.stack(Slot::Blue) else { return Ok([0, 0]) };
        let weights = fleet::weights(system, stack.output(Output::Listener)?)?;
        let mut shares = [0; 2];
        for (share, slot) in shares.iter_mut().zip(Slot::ALL) {
            let targets = stack.output(self.layout().output(slot, SlotOutput::Targets))?;
            *share = weights.get(targets).copied().unwrap_or(0);
        }
        Ok(percent(shares))
    }

    fn shift(&self, deploy: &Deploy, slots: &Slots, shares: [(Slot, u8); 2]) -> Result<()> {
        let stack = slots.stack(Slot::Blue).context("slots without a stack")?;
        let action = "DefaultActions.member.1";
        let mut call = Call::new(&BALANCING, "ModifyListener").with("ListenerArn", stack.output(Output::Listener)?);
        call = call.with(format!("{action}.Type"), "forward");
        for ((slot, weight), n) in shares.into_iter().zip(1..) {
            let member = format!("{action}.ForwardConfig.TargetGroups.member.{n}");
            let targets = stack.output(self.layout().output(slot, SlotOutput::Targets))?;
            call = call.with(format!("{member}.TargetGroupArn"), targets);
            call = call.with(format!("{member}.Weight"), weight.to_string());
        }
        deploy.system.aws(call).map(drop)
    }

    fn probe_header(&self, slots: &Slots, slot: Slot) -> Option<(&'static str, String)> {
        let key = slots.stack(slot)?.parameter(Parameter::ProbeKey);
        Some((PROBE_HEADER, format!("{key}-{}", slot.name())))
    }

    fn weight_drift(&self, deploy: &Deploy, stack: &Stack) -> Result<Vec<(Slot, u32, String)>> {
        if !stack.has_output(Output::Listener) {
            return Ok(vec![]);
        }
        let slots = Slots::find(deploy)?;
        let shares = self.shares(&deploy.system, &slots)?;
        let weight = |slot: Slot| {
            let (share, declared) = (shares[slot.index()], slots.parameter(slot, SlotParameter::Weight));
            (declared != share.to_string()).then(|| (slot, share, declared.to_owned()))
        };
        Ok(slots.of(stack).filter_map(weight).collect())
    }
}
