//! Returns the traffic to the previous build, no faster than its machines can carry it.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Result, ensure};

use super::{Health, Silence, not_healthy, with_ways};
use crate::{
    deploy::{Deploy, fleet, layout::Slot, parameters::SlotParameter, slots::Slots},
    error::{self, Class, Fault},
    value::spoken,
    view::count,
};

/// The state of a return of traffic to a slot.
pub(super) struct WayBack {
    /// The share of the traffic, in percent, that the slot receives.
    pub(super) held: u32,
    /// Its healthy machines, as last seen.
    pub(super) healthy: usize,
    /// Whether all traffic moves at once.
    pub(super) now: bool,
}

impl Deploy {
    /// Moves all traffic back to the other slot, then updates its machines and the parameters. With `now`, all traffic moves
    /// at once, however few machines the slot has; with a listener this takes four calls. `asks` has the application of the
    /// previous build answer first, if it has no traffic.
    ///
    /// # Errors
    /// If no slot holds a previous build, or if none of its machines is healthy.
    pub fn roll_back(&self, build: Option<u64>, now: bool, asks: bool) -> Result<()> {
        let slots = Slots::get(self)?.without_empty();
        let slot = slots.way_back(build)?;
        let back = slots.described(slot);
        let mut healthy = self.healthy_for_way_back(&slots, slot, now)?;
        let held = if now { 0 } else { self.shape().shares(&self.system, &slots)?[slot.index()] };
        let would_shrink = self.keep_whole(&slots, slot);
        if asks && held == 0 && self.settings.probe()?.is_some() {
            // Meanwhile machines may go.
            let asked = self.ask_previous(&slots, slot, healthy);
            healthy = asked.and_then(|()| self.healthy_for_way_back(&slots, slot, now)).inspect_err(|_| {
                if would_shrink {
                    self.system.aws.be_brief();
                    let restored = || self.shrink_later(&slots, slot, self.keep_time());
                    _ = self.system.host.stop.interrupt.aside(restored);
                }
            })?;
        }
        self.system.aws.be_patient();
        let mut way = WayBack { held, healthy, now };
        let returned = self.return_traffic(&slots, slot, &mut way);
        let returned = returned.and_then(|()| self.have_all_follow(&slots, slot));
        returned.map_err(|error| {
            let verb = match error::class(&error) {
                Class::Interrupted(_) => "detached from",
                _ => "the rollback stopped; stack",
            };
            let place = self.place(&slots, slot, way.held);
            let message =
                format!("{verb} {}: {place}; its machine counts and parameters are not updated yet", self.stack);
            let build = slots.parameter(slot, SlotParameter::Build);
            let again = self.command(&format!("rollback --build {build}"));
            let at_once = self.command(&format!("rollback --now --build {build}"));
            let ways = format!("to continue: {again}; to move all traffic at once: {at_once}");
            with_ways(error, &message, &ways, Class::Permanent)
        })?;
        self.say(&format!("rollback complete: {back} serves all traffic"));
        Ok(())
    }

    /// Returns the number of a slot's healthy machines, before it receives the traffic again.
    ///
    /// # Errors
    /// If there is none.
    fn healthy_for_way_back(&self, slots: &Slots, slot: Slot, now: bool) -> Result<usize> {
        // Where each second counts, the builds of the machines are not asked for.
        let healthy =
            if now { fleet::healthy(&slots.targets(&self.system, slot)?) } else { self.count_healthy(slots, slot)? };
        let back = slots.described(slot);
        ensure!(
            healthy > 0,
            Fault::new(format!("no machine of {back} is healthy; no traffic was moved")).hint(format!(
                "deploy the previous content under the next build number: {}",
                self.command("update-stack")
            ))
        );
        Ok(healthy)
    }

    /// Fails if the application of a previous build does not answer as it should. It has had no traffic for some time.
    fn ask_previous(&self, slots: &Slots, slot: Slot, healthy: usize) -> Result<()> {
        let (back, build) = (slots.described(slot), slots.parameter(slot, SlotParameter::Build));
        let unasked = self.command(&format!("rollback --no-probe --build {build}"));
        self.say(&format!("{back} is asked first; to go back without that: {unasked}"));
        let answers = u32::try_from(healthy).unwrap_or(u32::MAX);
        let Health::Sick(fault) = self.probe_previous(slots, slot, answers)? else { return Ok(()) };
        Err(Fault::new(format!("{back} does not answer as it should; no traffic was moved"))
            .caused_by(fault)
            .hint(format!("to return the traffic in spite of that: {unasked}"))
            .into())
    }

    /// Returns the traffic to the other slot: the new build is not healthy, or an alarm rings. `began` is the slot's share at the
    /// beginning of this deploy, and `share` the present one. Returns the error that the deploy ends with.
    pub(super) fn give_up(
        &self,
        slots: &Slots,
        slot: Slot,
        began: u32,
        share: &mut u32,
        sick: Fault,
    ) -> Result<anyhow::Error> {
        // A rollback by another operator shrinks the new build, which then looks sick.
        self.check_alone(slots, slot, *share)?;
        let other = slot.other();
        let back = slots.described(other);
        if *share > 0 {
            let targets = slots.own_targets(&self.system, other)?;
            let healthy = fleet::healthy(&targets);
            if healthy == 0 {
                return Ok(anyhow::Error::from(sick).context(self.both_sick(slots, slot, *share)));
            }
            let serving = if began > 0 { slots.targets(&self.system, slot)?.len() } else { 0 };
            let load = match targets.len() {
                all if all > healthy => format!(
                    ", which has {healthy} of {} healthy, each with {} times the load",
                    count(all, "machine"),
                    tenths(all, healthy)
                ),
                // Before a deploy that was continued, the slot may have shrunk.
                _ if healthy < serving => format!(", with {} for the load of {serving}", count(healthy, "machine")),
                _ => String::new(),
            };
            self.say(&format!("{sick}: the traffic returns to {back}{load}"));
            // The slot carried all traffic before, and was pinned since. Only one that had none when this deploy began may
            // have shrunk so far that it cannot carry the load.
            let mut way = WayBack { held: 100 - *share, healthy, now: began < 100 };
            let returned = self.return_traffic(slots, other, &mut way);
            *share = 100 - way.held;
            returned?;
            if began > 0 {
                _ = self.grow(slots, other)?;
            }
            self.unpin(slots, other)?;
        }
        let fault = Fault::new(format!("the new build does not take over: all traffic is on {back}"))
            .hint(format!("find the cause ({}), fix it, and deploy the next build", self.command("status")));
        Ok(anyhow::Error::from(sick).context(fault))
    }

    /// Returns the fault of a new build that cannot lose its share, because no machine of the other slot is healthy.
    fn both_sick(&self, slots: &Slots, slot: Slot, share: u32) -> Fault {
        let [here, there] = [slot, slot.other()].map(|slot| slots.described(slot));
        let at_once = |slot| format!("rollback --now --build {}", slots.parameter(slot, SlotParameter::Build));
        let [forward, back] = [slot, slot.other()].map(|slot| self.command(&at_once(slot)));
        Fault::new(format!(
            "no machine of {there} is healthy, so the traffic stays where it is: {here} receives {share} % of the traffic"
        ))
        .hint(format!("once a machine of {there} is healthy: {back}; to give {here} all traffic instead: {forward}"))
    }

    /// Returns how many machines of a slot are healthy.
    pub(super) fn count_healthy(&self, slots: &Slots, slot: Slot) -> Result<usize> {
        Ok(fleet::healthy(&slots.own_targets(&self.system, slot)?))
    }

    /// Gives a slot all traffic, by the number of its healthy machines: no machine gets more load than those of the other slot
    /// have. If no machine of the other slot is healthy, or with `now`, all traffic moves at once.
    pub(super) fn return_traffic(&self, slots: &Slots, slot: Slot, way: &mut WayBack) -> Result<()> {
        let back = slots.described(slot);
        let (before, now) = (way.held, way.now);
        let (began, limit) = (Instant::now(), self.health_timeout());
        let (mut told, mut silence, mut of_other) = (BTreeMap::new(), Silence::default(), Silence::default());
        let (mut has_grown, mut is_announced) = (false, false);
        loop {
            let seen = if now { Some(vec![]) } else { self.look(slots, slot.other(), &mut of_other)? };
            // Without an answer the share stays: machines that were not seen may be healthy.
            let serving = seen.as_ref().map_or(0, |targets| fleet::healthy(targets));
            let fair = if seen.is_some() { share_by_capacity(way.healthy, serving) } else { way.held };
            if seen.is_some() && fair < 100 && !is_announced {
                self.announce(slots, slot, way, serving);
                is_announced = true;
            }
            if fair > way.held {
                if way.held > before {
                    self.check_alone(slots, slot, way.held)?;
                }
                self.shift(slots, slot, u8::try_from(fair).unwrap_or(100))?;
                way.held = fair;
                let machines = count(way.healthy, "healthy machine");
                self.say(&if fair == 100 {
                    format!("all traffic is on {back} again, with {machines} so far")
                } else {
                    format!("{back} receives {fair} % of the traffic, with {machines}")
                });
            }
            if way.held == 100 {
                return Ok(());
            }
            if !has_grown {
                _ = self.grow(slots, slot)?;
                has_grown = true;
            }
            if began.elapsed() > limit {
                let wanted = self.group(slots, slot)?.desired as usize;
                return Err(not_healthy(way.healthy, wanted, limit).into());
            }
            self.system.host.stop.wait(self.poll)?;
            if let Some(targets) = self.look(slots, slot, &mut silence)? {
                self.tell_states(&targets, &mut told);
                way.healthy = fleet::healthy(&targets);
            }
        }
    }

    /// Says what the return of the traffic means for the machines, before it begins.
    fn announce(&self, slots: &Slots, slot: Slot, way: &WayBack, serving: usize) {
        let [back, from] = [slot, slot.other()].map(|slot| slots.described(slot));
        let (fair, ratio) = (share_by_capacity(way.healthy, serving), tenths(serving, way.healthy));
        let does = match way.held {
            held if held < fair => format!("{fair} % of the traffic returns now, the rest as {back} grows"),
            held => format!("it keeps {held} % of the traffic until it grows"),
        };
        self.say(&format!("{back} has {}, {from} has {serving}: {does}", count(way.healthy, "healthy machine")));
        let build = slots.parameter(slot, SlotParameter::Build);
        self.say(&format!(
            "to move all traffic at once, with {ratio} times the load for each machine: {}",
            self.command(&format!("rollback --now --build {build}"))
        ));
    }

    /// Grows the slot that serves again, then shrinks the other one, then updates the parameters.
    fn have_all_follow(&self, slots: &Slots, slot: Slot) -> Result<()> {
        let group = self.grow(slots, slot)?;
        if let Health::Sick(fault) = self.await_health(slots, slot, 0, group.desired)? {
            return Err(fault.into());
        }
        if self.shape().lags() {
            let time = self.pause();
            self.say(&format!("waiting {} for resolvers to ask again", spoken(time)));
            self.system.host.stop.wait(time)?;
        }
        // A deploy may have continued while the slot grew.
        self.check_alone(slots, slot, 100)?;
        self.unpin(slots, slot)?;
        self.shrink(slots, slot.other())?;
        self.bring_into_line(slots, slot)
    }
}

/// Returns the share, in percent, at which a machine of the slot gets as much traffic as one of the other slot: all of it if
/// the slot has as many healthy machines.
fn share_by_capacity(healthy: usize, serving: usize) -> u32 {
    if healthy == 0 {
        return 0;
    }
    if healthy >= serving {
        return 100;
    }
    u32::try_from(healthy * 100 / (healthy + serving)).unwrap_or(100).max(1)
}

/// Returns a ratio with one digit after the point.
fn tenths(of: usize, to: usize) -> String {
    let tenths = (of * 10).div_ceil(to.max(1));
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_machine_gets_more_load_than_one_that_serves_now() {
        for serving in 0..40usize {
            for healthy in 1..40usize {
                let share = share_by_capacity(healthy, serving) as usize;
                assert!((1..=100).contains(&share), "{healthy} of {serving}");
                // With all traffic on `serving` machines, each has 100 / serving.
                assert!(serving == 0 || share * serving <= 100 * healthy || share == 1, "{healthy} of {serving}");
            }
        }
        assert_eq!([share_by_capacity(0, 0), share_by_capacity(0, 3)], [0, 0], "no machine carries nothing");
        assert_eq!([share_by_capacity(1, 3), share_by_capacity(2, 3), share_by_capacity(3, 3)], [25, 40, 100]);
    }
}
