//! How a person runs the steps again: hints name it.

/// A command that runs the steps again, as a person types it.
#[derive(Debug, Clone)]
pub struct RunCommand {
    /// `glovo-bootstrap run`
    pub verb: String,
    /// Which steps; empty, or it begins with a space.
    pub selection: String,
    /// Manifest, variables and more; empty, or it begins with a space.
    pub options: String,
}

impl RunCommand {
    /// The same of only this step.
    pub fn only(&self, step: &str) -> String {
        format!("{} {step}{}", self.verb, self.options)
    }
}

impl Default for RunCommand {
    fn default() -> Self {
        Self { verb: "glovo-bootstrap run".into(), selection: String::new(), options: String::new() }
    }
}

impl std::fmt::Display for RunCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}{}", self.verb, self.selection, self.options)
    }
}
