//! The steps of a manifest that a run is for.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{diagnostic::did_you_mean, error::Fault, manifest::Manifest, value::quoted};

/// The steps to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// If not empty, only these steps, in declared order.
    pub only: Vec<String>,
    /// This step and those after it.
    pub from: Option<String>,
    /// All but these steps.
    pub skip: Vec<String>,
}

impl Selection {
    /// Fails if it names a step that does not exist, or names steps to run and selects none of them: such a run would be
    /// reported as converged.
    pub fn check(&self, manifest: &Manifest) -> Result<()> {
        let names = || manifest.steps.iter().map(|step| step.name.as_str());
        let wanted = self.only.iter().chain(&self.from).chain(&self.skip);
        if let Some(name) = wanted.into_iter().find(|name| !names().any(|step| step == *name)) {
            let hint = match did_you_mean(name, names()) {
                Some(hint) => hint,
                None if name.ends_with(".toml") => format!("name a manifest by --steps {}", quoted(name)),
                None => format!("the steps are: {}", names().collect::<Vec<_>>().join(", ")),
            };
            return Err(Fault::new(format!("there is no step `{name}`")).invalid().hint(hint).into());
        }
        // `--skip` alone names each step that it leaves out.
        let names_wanted = !self.only.is_empty() || self.from.is_some();
        if names_wanted && !names().any(self.picker()) {
            let hint = format!(
                "leave out a STEP, --from or --skip; the steps are: {}",
                names().collect::<Vec<_>>().join(", ")
            );
            return Err(Fault::new("these arguments select no step").invalid().hint(hint).into());
        }
        Ok(())
    }

    /// Returns a function that says whether a step is picked. Call it once for each step, in declared order.
    pub fn picker(&self) -> impl FnMut(&str) -> bool + '_ {
        let mut begun = self.from.is_none();
        move |name| {
            begun |= self.from.as_deref() == Some(name);
            begun
                && (self.only.is_empty() || self.only.iter().any(|only| only == name))
                && !self.skip.iter().any(|skip| skip == name)
        }
    }
}
