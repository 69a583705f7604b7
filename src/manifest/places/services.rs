//! Checks of declared services: their order, and their states.

use std::collections::BTreeMap;

use super::Declaration;
use crate::diagnostic::{Diagnostic, Place};

/// Returns a warning for each service that is started before what its start needs, such as its environment.
pub(in crate::manifest) fn early(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    let (mut warnings, mut started) = (vec![], BTreeMap::<&str, Vec<&Declaration<'_>>>::new());
    for one in declarations {
        for name in &one.services_after {
            let services = started.get(name.as_str()).into_iter().flatten();
            for early in services.filter(|early| !early.scope.excludes(&one.scope)) {
                let message = format!("{name} is declared before {}, which it needs at its start", one.shown);
                let (text, span) = &one.spot;
                let hint = format!("move the service down: {} is declared at {}", one.shown, Place::new(text, span));
                warnings.push(early.fault(message, Some(hint)));
            }
        }
        if let Some(service) = one.service.as_ref().filter(|service| service.is_started()) {
            started.entry(service.unit_name()).or_default().push(one);
        }
    }
    warnings
}

/// Returns the faults of resources that declare opposite states of one service. Each run would change it twice.
pub(in crate::manifest) fn contradictions(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    let (mut faults, mut known) = (vec![], BTreeMap::<&str, Vec<&Declaration<'_>>>::new());
    for one in declarations {
        let Some(service) = &one.service else { continue };
        let same = known.entry(service.unit_name()).or_default();
        let field = |before: &&Declaration<'_>| before.service.as_ref()?.contradiction(service);
        let mut contrary = same.iter().filter(|before| !before.scope.excludes(&one.scope));
        if let Some((first, field)) = contrary.find_map(|before| Some((before, field(before)?))) {
            let message = format!("two resources declare another `{field}` of {}", service.unit_name());
            let (text, span) = &first.spot;
            let hint = format!("keep only one of the two: the first one is at {}", Place::new(text, span));
            faults.push(one.fault(message, Some(hint)));
        }
        same.push(one);
    }
    faults
}
