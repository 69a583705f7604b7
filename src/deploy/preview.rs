//! Shows what will change: each property with its value before and after, and what the change means.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    Deploy,
    event::GROUP_TYPE,
    stack::{ChangeSet, KNOWN_LATER, ParameterValue, Property, ResourceChange, Stack, WantedStack},
};
use crate::{
    view::{coloured, say},
    visible::Shown,
};

/// A longer value is cut, or shown as a difference of its lines.
const MAX_SHOWN_CHARS: usize = 100;

/// The words for a value that CloudFormation does not know yet.
const LATER: &str = "(known after the update)";

impl Deploy {
    /// Shows the changes.
    pub(super) fn preview(&self, current: Option<&Stack>, wanted: &WantedStack, changes: &ChangeSet) {
        if self.json {
            Self::tell(&json(changes));
            return;
        }
        if let Some(stack) = current {
            let given = wanted.parameters.iter().filter_map(|(name, value)| match value {
                ParameterValue::New(value) if stack.parameter(name) != value => {
                    Some((name, stack.parameter(name), value))
                }
                _ => None,
            });
            for (name, before, after) in given {
                say(format!("  parameter {name}: {} → {}", shown(before), shown(after)));
            }
        }
        for change in &changes.changes {
            Self::change(change);
        }
    }

    fn change(change: &ResourceChange) {
        let (sign, colour) = match change.action.as_str() {
            "Add" => ("+", "32"),
            "Remove" => ("-", "31"),
            _ => ("~", "33"),
        };
        let replaced = match change.replacement.as_str() {
            "True" if change.kind == GROUP_TYPE => "  is replaced: a new group with new machines",
            "True" => "  is replaced",
            "Conditional" => "  may be replaced",
            _ => "",
        };
        say(Shown::from("  ") + coloured(colour, sign) + format!(" {} ({}){replaced}", change.resource, change.kind));
        // One property can have several causes.
        let mut told: Vec<&Property> = vec![];
        for property in &change.properties {
            if !told.iter().any(|known| known.path == property.path) {
                told.push(property);
                Self::property(property);
            }
        }
    }

    fn property(property: &Property) {
        let (before, after) = (text(property.before.as_deref()), text(property.after.as_deref()));
        let replaces = if property.recreation == "Always" { "  (replaces it)" } else { "" };
        if before.contains('\n') || after.contains('\n') {
            say(format!("      {}:{replaces}", property.path));
            for line in diffy::create_patch(&before, &after).to_string().lines().skip(2) {
                let colour = match line.as_bytes().first() {
                    Some(b'+') => "32",
                    Some(b'-') => "31",
                    _ => "0",
                };
                say(Shown::from("        ") + coloured(colour, line));
            }
            return;
        }
        let after = match (&property.after, property.is_known_later) {
            (None, true) => LATER.to_owned(),
            (None, false) if property.before.is_none() => {
                say(format!("      {}{replaces}", property.path));
                return;
            }
            _ => shown(&after.replace(KNOWN_LATER, LATER)),
        };
        say(format!("      {}: {} → {after}{replaces}", property.path, shown(&before)));
    }
}

/// Returns a value, decoded if it is a text in base64, as user-data is.
fn text(value: Option<&str>) -> String {
    let value = value.unwrap_or_default();
    let decoded = BASE64_STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.filter(|text| text.contains('\n')) {
        Some(text) => text,
        None => value.to_owned(),
    }
}

fn shown(value: &str) -> String {
    match value.char_indices().nth(MAX_SHOWN_CHARS) {
        _ if value.is_empty() => "(none)".into(),
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

fn json(changes: &ChangeSet) -> serde_json::Value {
    let property = |property: &Property| {
        serde_json::json!({
            "path": property.path,
            "before": property.before,
            "after": property.after,
            "known_after_update": property.is_known_later,
            "requires_recreation": property.recreation,
        })
    };
    let change = |change: &ResourceChange| {
        serde_json::json!({
            "action": change.action,
            "resource": change.resource,
            "type": change.kind,
            "replacement": change.replacement,
            "properties": change.properties.iter().map(property).collect::<Vec<_>>(),
        })
    };
    serde_json::json!({ "changes": changes.changes.iter().map(change).collect::<Vec<_>>() })
}
