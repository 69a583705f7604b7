//! What is in the text of a template: its parameters, and the user-data.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::{
    layout::{Layout, Slot},
    parameters::SlotParameter,
};
use crate::error::Fault;

/// Text before a slot's user-data, on its line.
const USER_DATA: &str = "Fn::Base64: ";

/// Returns the names of a template's parameters.
pub(super) fn parameters(template: &str) -> BTreeSet<&str> {
    section(template, "Parameters:").collect()
}

/// Returns the names in a section of a template, such as `Outputs:`. Templates are in block style.
pub(super) fn section<'a>(template: &'a str, title: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = template.lines().skip_while(move |line| *line != title).skip(1);
    let lines = lines.take_while(|line| line.is_empty() || line.starts_with([' ', '#']));
    lines.filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':')).filter(|name| !name.starts_with([' ', '#']))
}

/// Returns a shape's template with the user-data of these slots; an empty slot has an empty one.
pub(super) fn with_user_data(source: &str, layout: Layout, slots: &[(Slot, String)]) -> Result<String> {
    let mut template = source.to_owned();
    for (slot, user_data) in slots {
        // A JSON string is one of YAML too.
        template = template.replace(&placeholder(layout, *slot), &format!("{USER_DATA}{}", literal(user_data)?));
    }
    Ok(template)
}

/// The start of the description of a parameter or an output, if it is on this line alone.
const DESCRIPTION: &str = "    Description: ";

/// Returns a template without comments, and without what only CloudFormation's console shows: the groups of parameters, and
/// descriptions.
pub(super) fn compact(template: &str) -> String {
    let (mut compact, mut is_shown) = (String::with_capacity(template.len()), false);
    for line in template.lines().filter(|line| !line.trim_start().is_empty() && !line.trim_start().starts_with('#')) {
        if !line.starts_with(' ') {
            is_shown = line == "Metadata:";
        }
        if !is_shown && (!line.starts_with(DESCRIPTION) || line.ends_with(">-")) {
            compact.push_str(line);
            compact.push('\n');
        }
    }
    compact
}

fn placeholder(layout: Layout, slot: Slot) -> String {
    format!("{USER_DATA}\"@{}@\"", layout.parameter(slot, SlotParameter::UserData))
}

/// Returns a text as a string of YAML and JSON alike, in ASCII: CloudFormation returns other characters as `?`.
fn literal(text: &str) -> Result<String> {
    let json = serde_json::to_string(text).context("writing user-data")?;
    let mut literal = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            literal.push(c);
        } else if let Ok(code) = u16::try_from(u32::from(c)) {
            literal.push_str(&format!("\\u{code:04x}"));
        } else {
            // JSON needs two escapes for such a character, and YAML a different one.
            let fault =
                Fault::new(format!("a template cannot hold the character {} of the user-data", c.escape_unicode()));
            return Err(fault
                .hint("remove it, or let the machine download the text that contains it")
                .invalid()
                .into());
        }
    }
    Ok(literal)
}

/// Returns the user-data of a slot in a stack's template, which was made from a shape's `source`.
///
/// # Errors
/// If this program did not write the template.
pub(super) fn user_data(source: &str, layout: Layout, template: &str, slot: Slot) -> Result<String> {
    let foreign = || {
        Fault::new("this program did not write the stack's template")
            .hint("pass --strategy with the strategy that created the stack, or restore the template if it was edited by hand")
    };
    let literals = |text| str::lines(text).filter_map(|line| line.trim_start().strip_prefix(USER_DATA));
    // The order in the source tells which value is the slot's.
    let sources: Vec<&str> = literals(source).collect();
    let position = sources.iter().position(|literal| placeholder(layout, slot).ends_with(literal));
    let values: Vec<&str> = literals(template).collect();
    ensure!(values.len() == sources.len(), foreign());
    let literal = position.and_then(|position| values.get(position)).with_context(foreign)?;
    serde_json::from_str(literal).with_context(foreign)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::shape::{STRATEGIES, Shape};

    fn shape(name: &str) -> &'static dyn Shape {
        STRATEGIES.iter().map(|strategy| strategy.shape()).find(|shape| shape.name() == name).unwrap()
    }

    #[test]
    fn user_data_survives_the_way_into_a_template_and_back() {
        let script = "#!/bin/sh\necho \"@GreenUserData@\" 'ü' \\ \t$x {{ a }}: #\n";
        let halves = shape("blue-green");
        let blue = |script: &str| {
            with_user_data(
                halves.template(),
                halves.layout(),
                &[(Slot::Blue, script.into()), (Slot::Green, String::new())],
            )
        };
        let text = blue(script).unwrap();
        assert!(!text.contains(&placeholder(halves.layout(), Slot::Blue)));
        assert_eq!(user_data(halves.template(), halves.layout(), &text, Slot::Blue).unwrap(), script);
        assert_eq!(user_data(halves.template(), halves.layout(), &text, Slot::Green).unwrap(), "");
        assert!(text.is_ascii());
        assert!(user_data(halves.template(), halves.layout(), "Resources: {}", Slot::Blue).is_err());
        assert!(blue("\u{1f600}").unwrap_err().to_string().contains("1f600"));
        let both =
            with_user_data(halves.template(), halves.layout(), &Slot::ALL.map(|slot| (slot, slot.name().into())))
                .unwrap();
        assert_eq!(
            Slot::ALL.map(|slot| user_data(halves.template(), halves.layout(), &both, slot).unwrap()),
            ["blue", "green"]
        );
    }

    #[test]
    fn a_compact_template_has_the_same_parts() {
        for shape in STRATEGIES.iter().map(|strategy| strategy.shape()) {
            let (text, script) = (shape.template(), "#!/bin/sh\n# Metadata:\n");
            let full = with_user_data(text, shape.layout(), &[(Slot::Blue, script.into())]).unwrap();
            let compact = compact(&full);
            assert!(compact.len() + 4000 < full.len() && !compact.contains("\n#"), "{}", shape.name());
            for title in ["Parameters:", "Conditions:", "Resources:", "Outputs:"] {
                assert!(section(&full, title).eq(section(&compact, title)), "{title} of {}", shape.name());
            }
            let held = |text| user_data(shape.template(), shape.layout(), text, Slot::Blue).ok();
            assert_eq!(held(&full), held(&compact));
        }
    }

    #[test]
    fn a_stack_that_is_a_slot_has_one_user_data() {
        let (one, halves) = (shape("weighted-dns"), shape("blue-green"));
        let text = with_user_data(one.template(), one.layout(), &[(Slot::Green, "ours".into())]).unwrap();
        assert_eq!(user_data(one.template(), one.layout(), &text, Slot::Green).unwrap(), "ours");
        assert!(user_data(halves.template(), halves.layout(), &text, Slot::Green).is_err());
    }
}
