//! Asks the application: the idle slot before it receives any traffic, and the public URL afterwards.
//!
//! The health check of the balancer looks at one path of each machine. This looks from outside, through the balancer, and
//! can compare the build that the application itself tells.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Health;
use crate::{
    deploy::{
        Deploy,
        application::ApplicationProbe,
        layout::Slot,
        parameters::{Output, SlotParameter},
        slots::{Slots, active},
        stack::Stack,
    },
    error::{self, Class, Fault},
    net::probe::ProbeRequest,
    value::spoken,
    view::count,
};

/// How long the application may fail to answer as it should.
const PROBE_TIME: Duration = Duration::from_mins(1);
/// Returns a URL of the application.
fn url_of(stack: &Stack, probe: &ApplicationProbe) -> Result<String> {
    Ok(format!("{}{}", stack.output(Output::Url)?.trim_end_matches('/'), probe.path))
}

impl Deploy {
    /// Asks the machines of a slot without traffic, through the balancer.
    pub(super) fn probe_idle(&self, slots: &Slots, slot: Slot, machines: u32) -> Result<Health> {
        let (Some(probe), Some(stack)) = (self.settings.probe()?, slots.stack(slot)) else { return Ok(Health::Well) };
        let mut request = ProbeRequest::new(url_of(stack, &probe)?);
        // The name of the application leads to the slot that serves, or nowhere yet.
        request.connect_to = Some(stack.output(Output::BalancerDns)?.to_owned());
        request.header = self.shape().probe_header(slots, slot);
        self.await_answers(slots, slot, &probe, &request, machines, PROBE_TIME)
    }

    /// Asks the machines of a previous build without traffic, where a request can reach them. A stack whose builds were never
    /// asked has no key for the header.
    pub(super) fn probe_previous(&self, slots: &Slots, slot: Slot, machines: u32) -> Result<Health> {
        let header = self.shape().probe_header(slots, slot);
        if header.is_some_and(|(_, value)| value.starts_with('-')) {
            return Ok(Health::Well);
        }
        self.probe_idle(slots, slot, machines)
    }

    /// Asks the public URL, to which the machines of this slot must answer.
    pub(super) fn probe_public(&self, slots: &Slots, slot: Slot, machines: u32) -> Result<Health> {
        let (Some(probe), Some(stack)) = (self.settings.probe()?, slots.stack(slot)) else { return Ok(Health::Well) };
        let request = ProbeRequest::new(url_of(stack, &probe)?);
        let lag = if self.shape().lags() { self.pause() } else { Duration::ZERO };
        self.await_answers(slots, slot, &probe, &request, machines, PROBE_TIME + lag)
    }

    /// Asks until as many answers in a row are right as the slot has machines.
    fn await_answers(
        &self,
        slots: &Slots,
        slot: Slot,
        probe: &ApplicationProbe,
        request: &ProbeRequest,
        machines: u32,
        limit: Duration,
    ) -> Result<Health> {
        let (began, limit) = (Instant::now(), limit.min(self.health_timeout()));
        let build = slots.parameter(slot, SlotParameter::Build);
        let mut right = 0;
        loop {
            let Some(objection) = self.ask_application(request, probe, build)? else {
                right += 1;
                if right < machines {
                    continue;
                }
                let answers = count(machines as usize, "answer");
                let (here, confirmed) = (slots.described(slot), probe.confirmed(build));
                self.say(&format!("{here}: {} {confirmed} ({answers})", request.url));
                return Ok(Health::Well);
            };
            right = 0;
            if began.elapsed() > limit {
                let text = format!("{} {objection}, after {}", request.url, spoken(limit));
                return Ok(Health::Sick(Fault::new(text)));
            }
            self.system.host.stop.wait(self.poll)?;
        }
    }

    /// Asks once. Returns what is wrong with the answer; `None` if nothing is.
    fn ask_application(&self, request: &ProbeRequest, probe: &ApplicationProbe, build: &str) -> Result<Option<String>> {
        match self.system.fetcher.probe(&self.system.host, request.clone(), PROBE_TIME) {
            Ok(answer) => Ok(probe.objection(&answer, build)),
            Err(error) if matches!(error::class(&error), Class::Interrupted(_)) => Err(error),
            Err(error) => Ok(Some(format!("does not answer: {error:#}"))),
        }
    }

    /// Waits until the public URL answers as it should, at the end of a deploy. It may be new, and so may its DNS name.
    pub(in crate::deploy) fn await_public(&self) -> Result<()> {
        if self.settings.probe()?.is_none() {
            return Ok(());
        }
        let slots = Slots::get(self)?;
        let serving = active(self.shape().shares(&self.system, &slots)?).unwrap_or(Slot::Blue);
        let build = slots.parameter(serving, SlotParameter::Build);
        let (began, limit) = (Instant::now(), PROBE_TIME.min(self.health_timeout()));
        while let Some((false, _)) = self.ask_public(&slots, build)?
            && began.elapsed() <= limit
        {
            self.system.host.stop.wait(self.poll)?;
        }
        Ok(())
    }

    /// Asks the public URL once, if the settings say so. Returns whether this build answers, and the words for it.
    pub(in crate::deploy) fn ask_public(&self, slots: &Slots, build: &str) -> Result<Option<(bool, String)>> {
        let (Some(probe), Some(stack)) = (self.settings.probe()?, slots.stacks().next()) else { return Ok(None) };
        let request = ProbeRequest::new(url_of(stack, &probe)?);
        let objection = self.ask_application(&request, &probe, build)?;
        let is_right = objection.is_none();
        Ok(Some((is_right, format!("{} {}", request.url, objection.unwrap_or_else(|| probe.confirmed(build))))))
    }
}
