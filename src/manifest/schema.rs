//! The manifest language described: fields, JSON Schema and the reference manual, all from [`KINDS`].

use std::{collections::BTreeMap, fmt::Write, sync::LazyLock};

use serde_json::{Map, Value, json};

use super::COMMON_FIELDS;
use crate::resource::{KINDS, KindEntry};

/// A field of a kind.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Whether it must be given.
    pub required: bool,
    /// Its doc comment.
    pub description: String,
}

static FIELDS: LazyLock<BTreeMap<&str, Vec<Field>>> =
    LazyLock::new(|| KINDS.iter().map(|kind| (kind.name, read_fields(kind))).collect());

/// The fields of a kind, in the order of its struct.
pub fn fields(kind: &KindEntry) -> &'static [Field] {
    FIELDS.get(kind.name).map_or(&[], Vec::as_slice)
}

fn read_fields(kind: &KindEntry) -> Vec<Field> {
    let schema = (kind.schema)().to_value();
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema["properties"].as_object().into_iter().flatten();
    let field = |(name, property): (&String, &Value)| Field {
        name: name.clone(),
        required: required.contains(&name.as_str()),
        description: text(property),
    };
    properties.map(field).collect()
}

/// A description as one line.
fn text(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

const PHASE: &str = "`boot` leaves it to the machine: `bake` doesn't put it into an image.";

fn common() -> Map<String, Value> {
    let retries = json!({ "type": "integer", "minimum": 0, "description": "How often it is tried again after a failure. Default: 0." });
    let timeout = json!({ "type": "string", "description": "Deadline of each try, such as 5m. Default: the step's." });
    let phase = json!({ "const": "boot", "description": format!("{PHASE} Default: the step's.") });
    let [_, retries_name, timeout_name, phase_name] = COMMON_FIELDS;
    let fields = [(retries_name, retries), (timeout_name, timeout), (phase_name, phase)];
    fields.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

/// The JSON Schema of a step file, draft 2020-12.
pub fn json_schema() -> Value {
    let mut definitions = Map::new();
    let mut kinds = vec![];
    for kind in KINDS {
        let mut schema = (kind.schema)().to_value();
        let Some(schema) = schema.as_object_mut() else { continue };
        _ = schema.remove("$schema");
        // Definitions of types, such as AbsPath, are shared by all kinds.
        if let Some(Value::Object(types)) = schema.remove("$defs") {
            definitions.extend(types);
        }
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            _ = properties.insert("kind".into(), json!({ "const": kind.name }));
            properties.extend(common());
        }
        let mut required = vec![json!("kind")];
        required.extend(schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default());
        _ = schema.insert("required".into(), required.into());
        kinds.push(json!({ "$ref": format!("#/$defs/{}", kind.name) }));
        _ = definitions.insert(kind.name.into(), Value::Object(schema.clone()));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "glovo-bootstrap step",
        "description": "A step file of a glovo-bootstrap manifest, as TOML",
        "type": "object",
        "properties": {
            "name": { "type": "string", "description": "What an operator types to run this step." },
            "description": { "type": "string", "description": "What the step is for." },
            "timeout": { "type": "string", "description": "Deadline of the whole step, such as 5m." },
            "phase": { "const": "boot", "description": PHASE },
            "resource": { "type": "array", "items": { "oneOf": kinds } },
        },
        "required": ["name"],
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// The reference manual of all kinds, or of one, as Markdown; `None` for an unknown kind.
pub fn manual(only: Option<&str>) -> Option<String> {
    let mut manual = String::new();
    for kind in KINDS.iter().filter(|kind| only.is_none_or(|only| only == kind.name)) {
        let schema = (kind.schema)().to_value();
        _ = write!(manual, "### {}\n\n{}\n\n| field | meaning |\n| --- | --- |\n", kind.name, text(&schema));
        for field in fields(kind) {
            let name = if field.required { format!("**{}**", field.name) } else { field.name.clone() };
            _ = writeln!(manual, "| {name} | {} |", field.description.replace('|', "\\|"));
        }
        _ = write!(manual, "\n```toml\n[[resource]]\n{}\n```\n\n", kind.example);
    }
    if manual.is_empty() {
        return None;
    }
    if only.is_none() {
        manual.push_str("Any resource may also have:\n\n| field | meaning |\n| --- | --- |\n");
        for (name, schema) in common() {
            _ = writeln!(manual, "| {name} | {} |", text(&schema));
        }
    }
    Some(manual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        manifest::{diagnostic::Text, parse, variables::Variables},
        system::Phase,
    };

    #[test]
    fn every_kind_is_documented_and_its_example_is_valid() {
        for kind in KINDS {
            let undocumented: Vec<_> = fields(kind).iter().filter(|field| field.description.is_empty()).collect();
            assert!(undocumented.is_empty(), "{}: {undocumented:?}", kind.name);
            let text = format!("name = \"example\"\n[[resource]]\n{}\n", kind.example);
            let parsed = parse(
                &[Text { name: kind.name.into(), text }],
                &mut Variables::new(|_| None),
                Phase::Boot,
                &mut |_| true,
            );
            assert!(parsed.is_ok(), "{:?}", parsed.unwrap_err());
        }
    }
}
