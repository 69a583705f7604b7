//! What the machines' role may read, as parameters of the template.

use std::collections::BTreeSet;

use crate::deploy::parameters::SlotParameter;

/// The secrets or the variables that the machines' role may read.
#[derive(Debug, Default)]
pub(super) struct ReadRights {
    /// The sources, as the steps or the settings name them.
    pub(super) named: Vec<String>,
    /// The ARNs of parameters, secrets, paths and objects.
    pub(super) arns: BTreeSet<String>,
    /// The ARNs of the account's own keys that encrypt them.
    pub(super) keys: BTreeSet<String>,
    /// Whether more keys may encrypt them.
    pub(super) lacks_keys: bool,
}

impl ReadRights {
    /// Returns the parameters of a slot that allow it, for ARNs and for keys. If some keys are unknown, the present ones stay
    /// allowed.
    pub(super) fn parameters(&self, names: [SlotParameter; 2], present: &[&str]) -> [(SlotParameter, String); 2] {
        let mut keys = self.keys.clone();
        if self.lacks_keys {
            keys.extend(present.iter().flat_map(|list| list.split(',')).filter(|arn| !arn.is_empty()).map(Into::into));
        }
        let [of_arns, of_keys] = names;
        [(of_arns, joined(&self.arns)), (of_keys, joined(&keys))]
    }

    /// Returns a line that names the sources after these words; nothing if there are none.
    pub(super) fn meaning(&self, words: &str) -> String {
        if self.named.is_empty() { String::new() } else { format!("\n{words} {}", self.named.join(", ")) }
    }

    /// Returns the bytes that the ARNs have in the policies of a slot: with keys, conditions name them again.
    pub(super) fn policy_bytes(&self) -> usize {
        let bytes = |arns: &BTreeSet<String>| arns.iter().map(|arn| arn.len() + 3).sum::<usize>();
        if self.keys.is_empty() { bytes(&self.arns) } else { 3 * bytes(&self.arns) + 2 * bytes(&self.keys) }
    }
}

/// Returns ARNs as the value of a parameter.
fn joined(arns: &BTreeSet<String>) -> String {
    arns.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}
