//! The description of the manifest language, made from [`KINDS`]: fields, JSON Schema and the reference manual.

use std::{collections::BTreeMap, fmt::Write, sync::LazyLock};

use serde_json::{Map, Value, json};

use super::{ARCHITECTURES, BY_ARCHITECTURE, COMMON_FIELDS};
use crate::{
    resource::{KINDS, KindEntry},
    vault::settings::VaultSettings,
};

/// A field of a kind.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Whether it is required.
    pub required: bool,
    /// Its doc comment.
    pub description: String,
}

static FIELDS: LazyLock<BTreeMap<&str, Vec<Field>>> =
    LazyLock::new(|| KINDS.iter().map(|kind| (kind.name, read_fields(kind))).collect());

/// Returns the fields of a kind, in the order of its struct.
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

/// Returns a description as one line.
fn text(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The description of `reboot`.
const REBOOT: &str = "Reboot after the step if the machine's packages require it, and go on with the run after the boot. \
                      Needs a manifest that is recorded or in /etc/glovo-bootstrap.";
const PHASE: &str = "`boot` leaves it to the machine: `bake` doesn't put it into an image.";

const WHERE: &str = "The machines that it is for: each fact or variable with its value, or a list of values, as in \
    `{ \"host.version\" = [\"12\", \"13\"], \"instance.tags.Role\" = \"web\" }`. All must hold.";

/// Returns the schema of `where`. Without quotes, `host.version` is a table in TOML.
fn condition(description: &str) -> Value {
    let types = json!(["string", "array", "boolean", "number", "object"]);
    json!({ "type": "object", "description": description, "additionalProperties": { "type": types } })
}

fn common() -> Map<String, Value> {
    let retries = json!({ "type": "integer", "minimum": 0, "description": "How often it is tried again after a failure. Default: 0." });
    let timeout =
        json!({ "$ref": "#/$defs/Span", "description": "Deadline of each try, such as 5m. Default: the step's." });
    let phase = json!({ "type": "string", "enum": ["boot"], "description": format!("{PHASE} Default: the step's.") });
    let [_, retries_name, timeout_name, phase_name, where_name] = COMMON_FIELDS;
    let fields =
        [(retries_name, retries), (timeout_name, timeout), (phase_name, phase), (where_name, condition(WHERE))];
    fields.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

/// Returns the JSON Schema of a step file and of a manifest in one file, draft 2020-12.
pub fn json_schema() -> Value {
    let mut definitions = Map::new();
    for kind in KINDS {
        let mut schema = (kind.schema)().to_value();
        let Some(schema) = schema.as_object_mut() else { continue };
        _ = schema.remove("$schema");
        // Definitions of types, such as AbsPath, are shared by all kinds.
        if let Some(Value::Object(types)) = schema.remove("$defs") {
            definitions.extend(types);
        }
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            _ = properties.insert("kind".into(), json!({ "type": "string" }));
            properties.extend(common());
        }
        _ = definitions.insert(kind.name.into(), Value::Object(schema.clone()));
    }
    _ = definitions.insert("resource".into(), resource());
    _ = definitions.insert("step".into(), step());
    _ = definitions.insert("manifest".into(), manifest());
    definitions.values_mut().for_each(admit_variables);
    let is_of_kinds = |name: &str| !["resource", "step", "manifest"].contains(&name);
    definitions.iter_mut().filter(|(name, _)| is_of_kinds(name)).for_each(|(_, schema)| admit_placeholders(schema));
    for kind in KINDS {
        admit_architectures(&mut definitions[kind.name]);
    }
    // Its values are no variables: it says where the secrets of variables come from.
    let mut vault = schemars::schema_for!(VaultSettings).to_value();
    if let Some(Value::Object(types)) = vault.as_object_mut().and_then(|vault| vault.remove("$defs")) {
        types.into_iter().for_each(|(name, schema)| _ = definitions.entry(name).or_insert(schema));
    }
    _ = definitions.insert("vault".into(), vault);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "glovo-bootstrap manifest",
        "description": "A step file of a glovo-bootstrap manifest, or a manifest in one file, as TOML",
        "type": "object",
        "if": { "anyOf": [{ "required": ["step"] }, { "required": ["variables"] }] },
        "then": { "$ref": "#/$defs/manifest" },
        "else": { "$ref": "#/$defs/step" },
        "$defs": definitions,
    })
}

/// Returns the schema of a resource: it depends on `kind`. With `oneOf`, an editor could only say that no kind matches.
fn resource() -> Value {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let rule = |name: &&str| {
        json!({
            "if": { "properties": { "kind": { "const": name } }, "required": ["kind"] },
            "then": { "$ref": format!("#/$defs/{name}") },
        })
    };
    let kind = json!({ "description": "What kind of thing must be so.", "enum": names });
    let rules: Vec<Value> = names.iter().map(rule).collect();
    json!({ "type": "object", "properties": { "kind": kind }, "required": ["kind"], "allOf": rules })
}

fn step() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "description": "What an operator types to run this step." },
            "description": { "type": "string", "description": "What the step is for." },
            "timeout": { "$ref": "#/$defs/Span", "description": "Deadline of the whole step, such as 5m." },
            "phase": { "type": "string", "enum": ["boot"], "description": PHASE },
            "reboot": { "type": "string", "enum": ["if-required"], "description": REBOOT },
            "where": condition(WHERE),
            "resource": { "type": "array", "items": { "$ref": "#/$defs/resource" } },
        },
        "required": ["name"],
        "additionalProperties": false,
    })
}

fn manifest() -> Value {
    let value = || json!({ "type": ["string", "boolean", "number", "array"], "items": { "type": "string" } });
    let mut values = value();
    values["type"] = json!(["string", "boolean", "number", "array", "object"]);
    // By distribution or family.
    values["additionalProperties"] = value();
    json!({
        "type": "object",
        "properties": {
            "variables": {
                "type": "object",
                "description": "The defaults of the variables.",
                "additionalProperties": values,
            },
            "vault": { "$ref": "#/$defs/vault" },
            "step": { "type": "array", "items": { "$ref": "#/$defs/step" } },
        },
        "additionalProperties": false,
    })
}

/// Adapts a schema to TOML and editors: every string may contain `{{ name }}`; TOML has no null; and of alternatives,
/// an editor would only say that none matches.
fn admit_variables(schema: &mut Value) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(admit_variables),
        Value::Object(fields) => {
            without_alternatives(fields);
            if let Some(Value::String(pattern)) = fields.get_mut("pattern") {
                pattern.push_str(r"|\{\{");
            }
            if fields.get("type") == Some(&json!("string"))
                && let Some(values) = fields.remove("enum")
            {
                _ = fields.insert("if".into(), json!({ "pattern": r"\{\{" }));
                _ = fields.insert("else".into(), json!({ "enum": values }));
                return;
            }
            fields.values_mut().for_each(admit_variables);
        }
        _ => {}
    }
}

/// Adapts a schema to typed variables: `"{{ name }}"` may be a boolean, a number or a list.
fn admit_placeholders(schema: &mut Value) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(admit_placeholders),
        Value::Object(fields) => {
            fields.values_mut().for_each(admit_placeholders);
            let is_typed = match fields.get("type") {
                Some(Value::String(name)) => matches!(name.as_str(), "boolean" | "integer" | "number" | "array"),
                Some(Value::Array(names)) => !names.contains(&json!("string")),
                _ => false,
            };
            if is_typed {
                let mut typed = std::mem::take(fields);
                fields.extend(typed.remove("description").map(|text| ("description".into(), text)));
                let placeholder = json!({ "type": "string", "pattern": r"^\{\{[^{}]*\}\}$" });
                fields.extend([("if".into(), placeholder), ("else".into(), Value::Object(typed))]);
            }
        }
        _ => {}
    }
}

/// Adapts the schema of a kind: some fields may be a table of values by architecture.
fn admit_architectures(kind: &mut Value) {
    for field in BY_ARCHITECTURE {
        let Some(one) = kind["properties"].get_mut(field) else { continue };
        let mut value = one.take();
        let description = value.as_object_mut().and_then(|fields| fields.remove("description"));
        let each: Map<String, Value> = ARCHITECTURES.into_iter().map(|name| (name.into(), value.clone())).collect();
        *one = json!({
            "description": description,
            "if": { "type": "object" },
            "then": { "properties": each, "additionalProperties": false, "minProperties": 1 },
            "else": value,
        });
    }
}

/// Rewrites `anyOf` and `oneOf` of types.
fn without_alternatives(fields: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = fields.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = &types[..] {
            let only = only.clone();
            _ = fields.insert("type".into(), only);
        }
    }
    match fields.remove("anyOf").as_ref().and_then(Value::as_array).map(Vec::as_slice) {
        // Something, or nothing.
        Some([Value::Object(some), Value::Object(none)]) if none.get("type") == Some(&json!("null")) => {
            fields.extend(some.clone());
        }
        // One, or several: `items` is only about an array.
        Some([one, Value::Object(several)]) if several.get("type") == Some(&json!("array")) => {
            fields.extend(several.clone());
            let of_one = one.get("type").and_then(Value::as_str).unwrap_or("string");
            _ = fields.insert("type".into(), json!([of_one, "array"]));
        }
        Some(other) => {
            let other = json!(other);
            _ = fields.insert("anyOf".into(), other);
        }
        None => {}
    }
    // One of several words, each with its meaning.
    if let Some(Value::Array(words)) = fields.remove("oneOf") {
        let meaning = |word: &Value| format!("`{}`: {}", word["const"].as_str().unwrap_or_default(), text(word));
        let meanings: Vec<String> = words.iter().map(meaning).collect();
        let values: Vec<&Value> = words.iter().map(|word| &word["const"]).collect();
        _ = fields.insert("enum".into(), json!(values));
        _ = fields.insert(
            "description".into(),
            format!("{} {}", text(&Value::Object(fields.clone())), meanings.join(" ")).into(),
        );
        _ = fields.insert("type".into(), "string".into());
    }
}

/// Returns the reference manual of all kinds, or of one, as Markdown; `None` for an unknown kind.
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
    use toml::{
        Spanned,
        de::{DeValue, ValueDeserializer},
    };

    use super::*;
    use crate::{diagnostic::Text, manifest::parse, system::Phase, variables::Variables};

    #[test]
    fn every_kind_is_documented_and_its_example_is_valid() {
        for kind in KINDS {
            let undocumented: Vec<_> = fields(kind).iter().filter(|field| field.description.is_empty()).collect();
            assert!(undocumented.is_empty(), "{}: {undocumented:?}", kind.name);
            let text = format!("name = \"example\"\n[[resource]]\n{}\n", kind.example);
            let parsed =
                parse(&[Text::new(kind.name, text)], &mut Variables::new(|_| None), Phase::Boot, &mut |_| true);
            assert!(parsed.is_ok(), "{:?}", parsed.unwrap_err());
        }
    }

    /// The reader looks for missing fields only in a resource that its kind refuses.
    #[test]
    fn a_kind_refuses_a_resource_without_a_required_field() {
        for kind in KINDS {
            for field in fields(kind).iter().filter(|field| field.required) {
                let mut table = toml::de::DeTable::parse(kind.example).unwrap();
                assert!(table.get_mut().remove(&*field.name).is_some(), "{}: {}", kind.name, field.name);
                _ = table.get_mut().remove("kind");
                let span = table.span();
                let table = Spanned::new(span, DeValue::Table(table.into_inner()));
                assert!((kind.parse)(ValueDeserializer::from(table)).is_err(), "{}: {}", kind.name, field.name);
            }
        }
    }
}
