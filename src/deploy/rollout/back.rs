//! Returns the traffic to the previous build, no faster than its machines can carry it.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Result, ensure};

use super::{Health, not_healthy, with_ways};
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
    /// at once, however few machines the slot has; with a listener this takes four calls.
    ///
    /// # Errors
    /// If no slot holds a previous build, or if none of its machines is healthy.
    pub fn roll_back(&self, build: Option<u64>, now: bool) -> Result<()> {
        let slots = Slots::get(self)?.without_empty();
        let slot = slots.way_back(build)?;
        let back = slots.described(slot);
        // Where each second counts, the builds of the machines are not asked for.
        let healthy =
            if now { fleet::healthy(&slots.targets(&self.system, slot)?) } else { self.count_healthy(&slots, slot)? };
        ensure!(
            healthy > 0,
            Fault::new(format!("no machine of {back} is healthy; no traffic was moved")).hint(
                "deploy the previous content under the next build number, with glovo-bootstrap deploy update-stack"
            )
        );
        self.keep_whole(&slots, slot);
        self.system.aws.be_patient();
        let held = if now { 0 } else { self.shape().shares(&self.system, &slots)?[slot.index()] };
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
        let (mut told, mut has_grown) = (BTreeMap::new(), false);
        loop {
            let seen = if now { Some(vec![]) } else { self.look(slots, slot.other())? };
            // Without an answer the share stays: machines that were not seen may be healthy.
            let serving = seen.as_ref().map_or(0, |targets| fleet::healthy(targets));
            let fair = if seen.is_some() { share_by_capacity(way.healthy, serving) } else { way.held };
            if fair > way.held {
                if way.held > before {
                    self.check_alone(slots, slot, way.held)?;
                } else if fair < 100 {
                    self.announce(slots, slot, way.healthy, serving);
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
            if let Some(targets) = self.look(slots, slot)? {
                self.tell_states(&targets, &mut told);
                way.healthy = fleet::healthy(&targets);
            }
        }
    }

    /// Says what the return of the traffic means for the machines, before it begins.
    fn announce(&self, slots: &Slots, slot: Slot, healthy: usize, serving: usize) {
        let [back, from] = [slot, slot.other()].map(|slot| slots.described(slot));
        let (fair, ratio) = (share_by_capacity(healthy, serving), tenths(serving, healthy));
        self.say(&format!(
            "{back} has {}, {from} has {serving}: {fair} % of the traffic returns now, the rest as {back} grows",
            count(healthy, "healthy machine")
        ));
        let build = slots.parameter(slot, SlotParameter::Build);
        self.say(&format!(
            "to move all traffic at once, with {ratio} times the load for each machine: {}",
            self.command(&format!("rollback --now --build {build}"))
        ));
    }

    /// Grows the slot that serves again, then shrinks the other one, then updates the parameters.
    fn have_all_follow(&self, slots: &Slots, slot: Slot) -> Result<()> {
        let group = self.grow(slots, slot)?;
        if let Health::Sick(fault) = self.await_health(slots, slot, group.desired)? {
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
        assert_eq!([share_by_capacity(1, 3), share_by_capacity(2, 3), share_by_capacity(3, 3)], [25, 40, 100]);
    }
}
