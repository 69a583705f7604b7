//! The templates, which are built into the program, and the user-data in them.

use anyhow::{Context, Result, ensure};

use super::settings::Strategy;
use crate::error::Fault;

const AUTOSCALING: &str = include_str!("../../cloudformation/autoscaling.yml");
const COMPATIBLE: &str = include_str!("../../cloudformation/compatible.yml");
/// What the one group of the old shape is called in its template.
pub const GROUP: &str = "Group";

/// What stands before a slot's user-data, on its line.
const USER_DATA: &str = "Fn::Base64: ";

/// One of the two halves of a stack, each with its launch template, group and target group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The first one to be filled.
    Blue,
    /// The other one.
    Green,
}

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Blue, Self::Green];

    /// What the names of its parameters, outputs and resources begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Blue => "Blue",
            Self::Green => "Green",
        }
    }

    /// Its name as a person reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }

    /// The name of one of its parameters or outputs.
    pub fn named(self, name: &str) -> String {
        format!("{}{name}", self.prefix())
    }

    fn placeholder(self) -> String {
        format!("{USER_DATA}\"@{}UserData@\"", self.prefix())
    }
}

/// The template of a strategy, as it is in the sources.
pub fn text(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::BlueGreen => AUTOSCALING,
        Strategy::Compatible => COMPATIBLE,
    }
}

/// The template of two slots with the user-data of each; that of an empty slot is empty.
pub fn with_user_data(user_data: impl Fn(Slot) -> String) -> Result<String> {
    let mut text = AUTOSCALING.to_owned();
    for slot in Slot::ALL {
        // A JSON string is one of YAML too.
        text = text.replace(&slot.placeholder(), &format!("{USER_DATA}{}", literal(&user_data(slot))?));
    }
    Ok(text)
}

/// A text as a string of YAML and of JSON alike. In ASCII, since CloudFormation gives other characters back as `?`.
fn literal(text: &str) -> Result<String> {
    let json = serde_json::to_string(text).context("writing user-data")?;
    let mut literal = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            literal.push(c);
        } else if let Ok(code) = u16::try_from(u32::from(c)) {
            literal.push_str(&format!("\\u{code:04x}"));
        } else {
            // JSON wants two escapes for one of these, and YAML another one.
            let fault =
                Fault::new(format!("a template can't hold the character {} of the user-data", c.escape_unicode()));
            return Err(fault.hint("leave it out, or have the machine fetch the text that it is in").invalid().into());
        }
    }
    Ok(literal)
}

/// The user-data of a slot in the template of a stack.
///
/// # Errors
/// If it is no template of ours.
pub fn user_data(template: &str, slot: Slot) -> Result<String> {
    let foreign = || {
        Fault::new("the stack's template is not one that this program made")
            .hint("the strategy is that of another template (--strategy), or somebody has edited it: see deploy drift")
    };
    let literals = |text| str::lines(text).filter_map(|line| line.trim_start().strip_prefix(USER_DATA));
    // The sources tell which of the values is the slot's.
    let position = literals(AUTOSCALING).position(|literal| slot.placeholder().ends_with(literal));
    let values: Vec<&str> = literals(template).collect();
    ensure!(values.len() == Slot::ALL.len(), foreign());
    let literal = position.and_then(|position| values.get(position)).with_context(foreign)?;
    serde_json::from_str(literal).with_context(foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_of_the_old_shape_signal_for_a_group_that_there_is() {
        assert!(COMPATIBLE.contains(&format!("\n  {GROUP}:\n    Type: AWS::AutoScaling::AutoScalingGroup\n")));
    }

    #[test]
    fn user_data_survives_the_way_into_a_template_and_back() {
        let script = "#!/bin/sh\necho \"@GreenUserData@\" 'ü' \\ \t$x {{ a }}: #\n";
        let text = with_user_data(|slot| if slot == Slot::Blue { script.into() } else { String::new() }).unwrap();
        assert!(!text.contains(&Slot::Blue.placeholder()));
        assert_eq!(user_data(&text, Slot::Blue).unwrap(), script);
        assert_eq!(user_data(&text, Slot::Green).unwrap(), "");
        assert!(text.is_ascii());
        assert!(user_data("Resources: {}", Slot::Blue).is_err());
        assert!(with_user_data(|_| "\u{1f600}".into()).unwrap_err().to_string().contains("1f600"));
        let both = with_user_data(|slot| slot.name().into()).unwrap();
        assert_eq!(Slot::ALL.map(|slot| user_data(&both, slot).unwrap()), ["blue", "green"]);
    }
}
