//! The answers of AWS services: XML or JSON, read into one type of tree, within limits.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context, Result, anyhow};
use reqwest::Response;
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};

use crate::{error::Fault, net::retry::Failure};

/// The longest answer that is read. The longest one of a deploy, `DescribeInstances`, has about 10 KB for each machine.
pub(crate) const MAX_ANSWER_BYTES: usize = 16 << 20;
/// The deepest nesting of elements. AWS's answers have less than twenty levels.
const MAX_LEVELS: usize = 64;
/// The most elements. Each takes about a hundred bytes of memory, even if it is short in the answer.
const MAX_ELEMENTS: usize = 500_000;

/// Returns the text of an answer.
///
/// # Errors
/// If it is longer than [`MAX_ANSWER_BYTES`] or breaks off. `explain` gives the reason.
pub(crate) async fn text(
    mut response: Response,
    explain: impl Fn(reqwest::Error) -> Failure,
) -> Result<String, Failure> {
    let mut bytes = vec![];
    while let Some(chunk) = response.chunk().await.map_err(&explain)? {
        if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(Failure::Permanent(Fault::new("the answer is longer than 16 MiB")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A part of an answer in XML or JSON. The members of a list are called `member` or `item`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// Its name, without a namespace.
    pub name: String,
    /// Its text, if it has no children.
    pub text: String,
    /// Its children.
    pub children: Vec<Self>,
}

impl Element {
    /// Returns the element at a path of names with slashes between them. Of several elements with a name, the first
    /// counts.
    pub fn find(&self, path: &str) -> Option<&Self> {
        path.split('/').try_fold(self, |element, name| element.children.iter().find(|child| child.name == name))
    }

    /// Returns the text at a path; empty if the path does not exist.
    pub fn text(&self, path: &str) -> &str {
        self.find(path).map_or("", |element| element.text.as_str())
    }

    /// Returns the members of the list at a path.
    pub fn list(&self, path: &str) -> impl Iterator<Item = &Self> {
        self.find(path).into_iter().flat_map(|element| &element.children)
    }

    /// Returns the first element with a name, at any depth.
    pub(super) fn anywhere(&self, name: &str) -> Option<&Self> {
        if self.name == name {
            return Some(self);
        }
        self.children.iter().find_map(|child| child.anywhere(name))
    }

    /// Reads XML.
    ///
    /// # Errors
    /// If it is not XML, is nested deeper than 64 levels, or has over half a million elements.
    pub fn of_xml(text: &str) -> Result<Self> {
        fn convert(node: roxmltree::Node<'_, '_>, left: &mut Left) -> Result<Element> {
            left.enter()?;
            let children = node.children().filter(roxmltree::Node::is_element).map(|child| convert(child, left));
            let children: Vec<Element> = children.collect::<Result<_>>()?;
            left.leave();
            let text = if children.is_empty() { node.text().unwrap_or_default().into() } else { String::new() };
            Ok(Element { name: node.tag_name().name().into(), text, children })
        }
        let nodes_limit = u32::try_from(2 * MAX_ELEMENTS).unwrap_or(u32::MAX);
        let options = roxmltree::ParsingOptions { nodes_limit, ..Default::default() };
        let document = roxmltree::Document::parse_with_options(text, options).context("the answer is no XML")?;
        convert(document.root_element(), &mut Left::default())
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// Those of [`Element::of_xml`], for JSON.
    pub fn of_json(text: &str) -> Result<Self> {
        let mut left = Left::default();
        let mut reader = serde_json::Deserializer::from_str(text);
        let read = Json { name: String::new(), left: &mut left }.deserialize(&mut reader);
        let read = read.and_then(|element| reader.end().map(|()| element));
        // The reader would say a place in the text.
        left.fault.map_or(Ok(()), |fault| Err(anyhow!(fault)))?;
        read.context("the answer is no JSON")
    }
}

/// Reads a value of JSON into an element with this name. It counts as it reads: a short text can have millions of values.
struct Json<'a> {
    name: String,
    left: &'a mut Left,
}

impl Json<'_> {
    fn with(self, text: String, children: Vec<Element>) -> Element {
        Element { name: self.name, text, children }
    }
}

impl<'de> DeserializeSeed<'de> for Json<'_> {
    type Value = Element;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Element, D::Error> {
        self.left.enter().map_err(D::Error::custom)?;
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Json<'_> {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Element, E> {
        self.visit_string(String::new())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Element, E> {
        self.visit_string(value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Element, E> {
        self.visit_string(value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Element, E> {
        self.visit_string(value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Element, E> {
        self.visit_string(serde_json::Value::from(value).to_string())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Element, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Element, E> {
        self.left.leave();
        Ok(self.with(text, vec![]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Element, A::Error> {
        let mut children = vec![];
        while let Some(child) = values.next_element_seed(Json { name: "member".into(), left: &mut *self.left })? {
            children.push(child);
        }
        self.left.leave();
        Ok(self.with(String::new(), children))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Element, A::Error> {
        // Of two fields with one name, the last one counts.
        let mut children = BTreeMap::new();
        while let Some(name) = fields.next_key::<String>()? {
            _ = children.insert(name.clone(), fields.next_value_seed(Json { name, left: &mut *self.left })?);
        }
        self.left.leave();
        Ok(self.with(String::new(), children.into_values().collect()))
    }
}

/// The levels and elements that an answer may still have.
struct Left {
    levels: usize,
    elements: usize,
    /// What the answer has too much of.
    fault: Option<&'static str>,
}

impl Default for Left {
    fn default() -> Self {
        Self { levels: MAX_LEVELS, elements: MAX_ELEMENTS, fault: None }
    }
}

impl Left {
    fn enter(&mut self) -> Result<()> {
        let (levels, elements) = (self.levels.checked_sub(1), self.elements.checked_sub(1));
        self.levels = levels.ok_or_else(|| self.refuse("the answer is nested deeper than 64 levels"))?;
        self.elements = elements.ok_or_else(|| self.refuse("the answer has more than 500,000 elements"))?;
        Ok(())
    }

    fn refuse(&mut self, fault: &'static str) -> anyhow::Error {
        self.fault = Some(fault);
        anyhow!(fault)
    }

    fn leave(&mut self) {
        self.levels += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_by_its_path_be_it_xml_or_json() {
        let xml = r#"<R xmlns="http://a/"><Stacks><member><Name>a &amp; b</Name></member><member/></Stacks></R>"#;
        let answer = Element::of_xml(xml).unwrap();
        assert_eq!(answer.list("Stacks").count(), 2);
        assert_eq!(answer.text("Stacks/member/Name"), "a & b");
        assert_eq!((answer.text("Stacks/none"), answer.find("Other")), ("", None));
        let answer = Element::of_json(r#"{"Names": ["a", "b"], "Days": 3}"#).unwrap();
        assert_eq!(answer.list("Names").map(|name| name.text.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(answer.text("Days"), "3");
        assert_eq!(Element::of_json(r#"{"a": 1, "a": null, "a": 2.5}"#).unwrap().text("a"), "2.5");
    }

    #[test]
    fn an_answer_has_64_levels_and_half_a_million_elements_at_most() {
        let xml = |levels: usize| "<a>".repeat(levels) + &"</a>".repeat(levels);
        let json = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(Element::of_xml(&xml(64)).is_ok() && Element::of_json(&json(64)).is_ok());
        let wide = [format!("<a>{}</a>", "<b/>".repeat(MAX_ELEMENTS)), format!("[0{}]", ",0".repeat(MAX_ELEMENTS))];
        let deep = "the answer is nested deeper than 64 levels";
        for (result, words) in [
            (Element::of_xml(&xml(65)), deep),
            (Element::of_xml(&xml(200_000)), deep),
            (Element::of_json(&json(65)), deep),
            (Element::of_json(&json(200_000)), deep),
            (Element::of_json("[0"), "the answer is no JSON"),
            (Element::of_json("[0] 0"), "the answer is no JSON"),
            (Element::of_xml(&wide[0]), "the answer has more than 500,000 elements"),
            (Element::of_json(&wide[1]), "the answer has more than 500,000 elements"),
        ] {
            assert_eq!(result.unwrap_err().to_string(), words);
        }
    }
}
