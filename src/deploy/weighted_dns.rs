//! Two whole stacks behind one name: the weights are those of the name's records, which CloudFormation sets.
//!
//! Route 53 itself would be faster. But CloudFormation deletes a record by the values that it has given it, and refuses
//! where somebody else has given it others; senza, which had the same two stacks, moved its weights by Route 53 at first,
//! too: <https://github.com/zalando-stups/senza/pull/318>.

use anyhow::Result;

use super::{
    Deploy,
    slots::{Slot, Slots},
    stack::ParameterValue,
};

impl Deploy {
    /// Gives the records these weights. What gets more is changed first, and both at the same time.
    pub(super) fn shift_answers(&self, slots: &Slots, shares: [(Slot, u8); 2]) -> Result<()> {
        let weight = |(slot, share): (Slot, u8)| {
            let stack = slots.stack(slot).filter(|stack| stack.outputs.contains_key("Listener"))?;
            Some((stack, [("Weight".to_owned(), ParameterValue::New(share.to_string()))].into()))
        };
        let changes: Vec<_> = shares.into_iter().filter_map(weight).collect();
        self.set_parameters(&changes, "the records")
    }
}
