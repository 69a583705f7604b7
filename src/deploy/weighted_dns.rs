//! Two whole stacks behind one name: the weights are those of the name's records.
//!
//! Route 53 is asked directly, as the balancer is where both slots are in one stack: one call moves both weights, also
//! while CloudFormation is busy.

use anyhow::{Result, ensure};

use super::slots::{Slot, Slots};
use crate::{
    error::Fault,
    system::{
        System,
        fetch::aws::{Call, Element, ROUTE_53},
    },
};

const NAMESPACE: &str = "https://route53.amazonaws.com/doc/2013-04-01/";

/// The weight of each slot's record; 0 where it has none.
pub(super) fn shares(system: &System, slots: &Slots) -> Result<[u32; 2]> {
    let records = records(system, slots)?;
    Ok(Slot::ALL.map(|slot| {
        let of_slot = records.iter().find(|(owner, _)| *owner == slot);
        of_slot.and_then(|(_, record)| record.text("Weight").parse().ok()).unwrap_or(0)
    }))
}

/// Gives the records these weights, all at once. (A slot without a record gets nobody anyway.)
pub(super) fn shift(system: &System, slots: &Slots, shares: [(Slot, u8); 2]) -> Result<()> {
    let records = records(system, slots)?;
    let (taking, _) = shares[0];
    ensure!(
        records.iter().any(|(owner, _)| *owner == taking),
        Fault::new(format!("the name {} has no record for the stack of {}", name(slots), taking.name()))
            .hint("somebody has removed it: see deploy drift")
    );
    let mut changes = vec![];
    for (owner, mut record) in records {
        let share = shares.iter().find(|(slot, _)| *slot == owner).map_or(0, |(_, share)| *share);
        record.set("Weight", &share.to_string());
        changes.push(Element::of("Change", vec![Element::with_text("Action", "UPSERT"), record]));
    }
    let batch = Element::of("ChangeBatch", vec![Element::of("Changes", changes)]);
    let request = Element::of("ChangeResourceRecordSetsRequest", vec![batch]);
    // With a slash at its end, as the service's model has it.
    let call = Call::new(&ROUTE_53, format!("{}/", path(slots)));
    system.aws(call.with_document(request.to_xml(NAMESPACE))).map(drop)
}

/// The records of the name that belong to one of the stacks, as Route 53 has them; of IPv4 and IPv6.
fn records(system: &System, slots: &Slots) -> Result<Vec<(Slot, Element)>> {
    if slots.stacks().next().is_none() {
        return Ok(vec![]);
    }
    let answer = system.aws(Call::new(&ROUTE_53, path(slots)).with("name", name(slots)).with("type", "A"))?;
    let is_name = |record: &&Element| {
        // A wildcard is told in octal.
        let told = record.text("Name").replace("\\052", "*");
        told.trim_end_matches('.').eq_ignore_ascii_case(name(slots).trim_end_matches('.'))
    };
    let owner = |record: &Element| {
        let is_its = |slot: &Slot| slots.stack(*slot).is_some_and(|stack| stack.name == record.text("SetIdentifier"));
        Slot::ALL.into_iter().find(is_its)
    };
    let records = answer.list("ResourceRecordSets").filter(is_name);
    Ok(records.filter_map(|record| Some((owner(record)?, record.clone()))).collect())
}

fn name(slots: &Slots) -> &str {
    slots.stacks().next().map_or("", |stack| stack.parameter("DNSRecord"))
}

fn path(slots: &Slots) -> String {
    let zone = slots.stacks().next().map_or("", |stack| stack.parameter("HostedZoneId"));
    format!("/2013-04-01/hostedzone/{zone}/rrset")
}
