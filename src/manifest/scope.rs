//! The machines on which a step or a resource applies, and which resources no machine has both of.

use std::{collections::BTreeMap, rc::Rc};

use crate::{diagnostic::Spot, system::Phase};

/// The values that each fact or variable may have.
pub(super) type Conditions = BTreeMap<String, Vec<String>>;

/// Where a step or a resource applies.
#[derive(Clone, Default)]
pub(super) struct Scope {
    /// All must hold; `None` if it applies everywhere.
    pub(super) conditions: Option<Rc<Conditions>>,
    /// The reason why it does not apply here.
    pub(super) not_here: Option<String>,
    /// The first fact of a condition that is unknown here.
    pub(super) unknown: Option<String>,
}

impl Scope {
    /// Returns whether this run does not ensure it: it applies elsewhere, or only the booted machine can tell.
    pub(super) fn is_for_others(&self, phase: Phase) -> bool {
        self.not_here.is_some() || (phase == Phase::Bake && self.unknown.is_some())
    }

    /// Returns why this run leaves a resource undone, in an image or on other machines; `None` if it does not.
    pub(super) fn why_deferred(&self, is_bake: bool, at_boot: bool, holds_secret: bool) -> Option<String> {
        if self.not_here.is_some() || !is_bake {
            return self.not_here.clone();
        }
        match &self.unknown {
            _ if at_boot => Some("phase = \"boot\"".into()),
            Some(fact) => Some(format!("each instance has its own {fact}")),
            None => holds_secret.then(|| "a secret does not go into an image".into()),
        }
    }

    /// Returns whether no machine has both, because a fact would need two values.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        let (Some(one), Some(other)) = (&self.conditions, &other.conditions) else { return false };
        one.iter().any(|(key, values)| {
            other.get(key).is_some_and(|others| !values.iter().any(|value| others.contains(value)))
        })
    }

    /// Returns the machines that have both.
    pub(super) fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        let Some(more) = &other.conditions else { return both };
        let conditions = Rc::make_mut(both.conditions.get_or_insert_default());
        for (key, values) in &**more {
            let known = conditions.entry(key.clone()).or_insert_with(|| values.clone());
            known.retain(|value| values.contains(value));
        }
        both
    }

    /// Returns whether it applies on some machines only.
    pub(super) fn is_conditional(&self) -> bool {
        self.conditions.is_some()
    }
}

/// The resources that manage a path or another thing. No machine has two of them, unless all of them share it.
pub(super) struct Managers<'a> {
    first: Manager<'a>,
    others: Vec<Manager<'a>>,
}

struct Manager<'a> {
    spot: Spot<'a>,
    scope: Scope,
    shares: bool,
}

impl<'a> Managers<'a> {
    pub(super) fn new(spot: Spot<'a>, scope: &Scope, shares: bool) -> Self {
        Self { first: Manager { spot, scope: scope.clone(), shares }, others: vec![] }
    }

    /// Adds a resource.
    ///
    /// # Errors
    /// The place of one that may be on the same machine.
    pub(super) fn add(&mut self, spot: Spot<'a>, scope: &Scope, shares: bool) -> Result<(), &Spot<'a>> {
        let excludes = |known: &Manager<'_>| !(shares && known.shares || known.scope.excludes(scope));
        match std::iter::once(&self.first).chain(&self.others).position(excludes) {
            None => {
                self.others.push(Manager { spot, scope: scope.clone(), shares });
                Ok(())
            }
            Some(0) => Err(&self.first.spot),
            Some(index) => Err(&self.others[index - 1].spot),
        }
    }
}
