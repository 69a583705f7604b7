//! Deletes a stack.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    Deploy, diagnosis,
    slots::Slots,
    stack::{self, Stack},
    state::Condition,
    watch::Watch,
};
use crate::{aws::refusal::Refusal, error::Fault, view};

impl Deploy {
    /// Shows what the stack holds, asks, and deletes it.
    pub fn delete(&self) -> Result<()> {
        let stack = self.get()?;
        self.check_deletable(&stack)?;
        self.show_what_goes(&stack)?;
        ensure!(self.ask("delete the stack and all these resources?")?, Fault::new("cancelled; nothing was deleted"));
        let mut watch = Watch::from_now(self, &stack.id)?;
        stack::delete(&self.system, &stack.id)?;
        let left = match watch.until_done() {
            Ok(left) => left,
            // A stack whose id CloudFormation no longer knows is deleted.
            Err(error) if Refusal::of(&error).is_some_and(|refusal| refusal.message.contains("does not exist")) => {
                return Ok(());
            }
            Err(error) => return Err(self.detached(error, "deleting")),
        };
        ensure!(
            left.state.condition == Condition::Absent,
            Fault::new(format!("the stack {} is {}: {}", self.stack, left.state.name, left.state.meaning))
                .hint(self.next(&left))
        );
        if self.json {
            Self::tell(&json!({ "stack": self.stack, "state": "DELETE_COMPLETE" }));
        } else {
            self.say(&format!("the stack {} is deleted", self.stack));
        }
        Ok(())
    }

    /// Shows what a stack holds, and the traffic that it receives if it is one of several.
    fn show_what_goes(&self, stack: &Stack) -> Result<()> {
        let held = self.held(stack)?;
        let mut shares = vec![];
        if self.is_one_of_several() {
            let slots = Slots::find(self)?;
            let all = self.shape().shares(&self.system, &slots)?;
            shares.extend(slots.of(stack).map(|slot| (slot.name(), all[slot.index()])));
        }
        if self.json {
            let shares = shares.iter().map(|(slot, share)| json!({ "slot": slot, "share": share }));
            Self::tell(&json!({
                "stack": self.stack,
                "state": stack.state.name,
                "holds": diagnosis::held_json(&held),
                "shares": shares.collect::<Vec<_>>(),
            }));
            return Ok(());
        }
        let (state, resources) = (&stack.state.name, view::count(held.len(), "resource"));
        self.say(&format!("the stack {} is {state}; it holds {resources}", self.stack));
        for resource in held {
            self.say(&format!("  - {} ({}) {}", resource.name, resource.kind, resource.id));
        }
        for (_, share) in shares {
            self.say(&format!("it receives {share} % of the traffic"));
        }
        Ok(())
    }
}
