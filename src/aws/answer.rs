//! The answers of AWS services: XML or JSON, read into one type of tree, within limits.

use anyhow::{Context, Result};
use reqwest::Response;
use serde_json::Value;

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
        fn convert(name: String, value: Value, left: &mut Left) -> Result<Element> {
            left.enter()?;
            let (text, children): (String, Vec<(String, Value)>) = match value {
                Value::Null => (String::new(), vec![]),
                Value::String(text) => (text, vec![]),
                Value::Array(values) => {
                    (String::new(), values.into_iter().map(|value| ("member".to_owned(), value)).collect())
                }
                Value::Object(fields) => (String::new(), fields.into_iter().collect()),
                other => (other.to_string(), vec![]),
            };
            let children = children.into_iter().map(|(name, value)| convert(name, value, left));
            let children = children.collect::<Result<_>>()?;
            left.leave();
            Ok(Element { name, text, children })
        }
        let value = serde_json::from_str(text).context("the answer is no JSON")?;
        convert(String::new(), value, &mut Left::default())
    }
}

/// The levels and elements that an answer may still have.
struct Left {
    levels: usize,
    elements: usize,
}

impl Default for Left {
    fn default() -> Self {
        Self { levels: MAX_LEVELS, elements: MAX_ELEMENTS }
    }
}

impl Left {
    fn enter(&mut self) -> Result<()> {
        self.levels = self.levels.checked_sub(1).context("the answer is nested deeper than 64 levels")?;
        self.elements = self.elements.checked_sub(1).context("the answer has more than 500,000 elements")?;
        Ok(())
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
            (Element::of_json(&json(200_000)), "the answer is no JSON"),
            (Element::of_xml(&wide[0]), "the answer has more than 500,000 elements"),
            (Element::of_json(&wide[1]), "the answer has more than 500,000 elements"),
        ] {
            assert_eq!(result.unwrap_err().to_string(), words);
        }
    }
}
