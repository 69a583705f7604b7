//! The command that runs the steps again, for hints.

/// A command that runs the steps again.
#[derive(Debug, Clone)]
pub struct RunCommand {
    /// The program and its subcommand: `glovo-bootstrap run`.
    pub verb: String,
    /// The selected steps; empty, or with a space before them.
    pub selection: String,
    /// The options, such as the manifest and variables; empty, or with a space before them.
    pub options: String,
    /// The options of a bake's seal; empty, or with a space before them. A single step is not sealed: the seal of an image
    /// depends on all of them.
    pub seal: String,
}

impl RunCommand {
    /// Returns the command for all steps.
    pub fn whole(&self) -> String {
        Self { selection: String::new(), ..self.clone() }.to_string()
    }

    /// Returns the command for a single step.
    pub fn only(&self, step: &str) -> String {
        format!("{} {step}{}", self.verb, self.options)
    }
}

impl Default for RunCommand {
    fn default() -> Self {
        Self {
            verb: "glovo-bootstrap run".into(),
            selection: String::new(),
            options: String::new(),
            seal: String::new(),
        }
    }
}

impl std::fmt::Display for RunCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}{}{}", self.verb, self.selection, self.options, self.seal)
    }
}
