//! Faults of a manifest: all of them at once, each with its place, a caret and a way out.

use std::{fmt, ops::Range};

/// One manifest text: a file, standard input, or a step built into the binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Its name, as shown in front of a line number.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// A place in a [`Text`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name of the text.
    pub name: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line itself.
    source: String,
    /// How many characters are meant.
    width: usize,
}

impl Place {
    /// The place of a range of bytes.
    pub fn new(text: &Text, span: &Range<usize>) -> Self {
        let mut start = span.start.min(text.text.len());
        while !text.text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &text.text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let source = text.text[line_start..].lines().next().unwrap_or_default();
        let meant = text.text.get(start..span.end.min(line_start + source.len())).unwrap_or_default();
        Self {
            name: text.name.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            source: source.into(),
            width: meant.chars().count().max(1),
        }
    }
}

impl Place {
    /// Leaves out the line itself, which may hold a secret.
    pub fn conceal(&mut self) {
        self.source.clear();
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.name, self.line, self.column)
    }
}

/// A fault and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// Where.
    pub place: Option<Place>,
    /// What to write instead.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", visible(&self.message))?;
        if let Some(place) = &self.place {
            let number = place.line.to_string();
            let margin = " ".repeat(number.len());
            // A line may be a megabyte long: show the part around the fault.
            let first = place.column.saturating_sub(60);
            let shown: String = place.source.chars().skip(first).take(110).collect();
            let caret = " ".repeat(place.column - 1 - first) + &"^".repeat(place.width.min(110));
            writeln!(f, "{margin}--> {}", visible(&place.to_string()))?;
            if !place.source.is_empty() {
                writeln!(f, "{margin} |\n{number} | {}\n{margin} | {caret}", visible(&shown))?;
            }
        }
        match &self.hint {
            Some(hint) => writeln!(f, "hint: {}", visible(hint)),
            None => Ok(()),
        }
    }
}

/// A text with its control characters made visible and harmless, one column each.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\n' {
                c
            } else if c.is_control() {
                if c == '\t' { ' ' } else { '\u{fffd}' }
            } else {
                c
            }
        })
        .collect()
}

/// The known name that is nearest to a mistyped one, if any is near.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &&str| strsim::damerau_levenshtein(name, candidate);
    known.into_iter().min_by_key(distance).filter(|candidate| distance(candidate) <= 1 + candidate.len() / 4)
}

/// "did you mean …?", if any known name is near.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|near| format!("did you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_points_at_what_is_meant() {
        let text = Text { name: "10-a.toml".into(), text: "name = \"ä\"\n\tonwer = \"root\"\n".into() };
        let start = text.text.find("onwer").unwrap();
        let place = Place::new(&text, &(start..start + 5));
        let diagnostic = Diagnostic {
            message: "unknown field `onwer`".into(),
            place: Some(place),
            hint: did_you_mean("onwer", ["owner", "mode"]),
        };
        assert_eq!(
            diagnostic.to_string(),
            "error: unknown field `onwer`\n --> 10-a.toml:2:2\n  |\n2 |  onwer = \"root\"\n  |  ^^^^^\nhint: did you mean `owner`?\n"
        );
    }

    #[test]
    fn places_survive_odd_spans() {
        let text = Text { name: "x".into(), text: "aé\n".into() };
        for start in 0..8 {
            for end in start..9 {
                _ = Diagnostic { message: String::new(), place: Some(Place::new(&text, &(start..end))), hint: None }
                    .to_string();
            }
        }
    }

    #[test]
    fn only_near_names_are_suggested() {
        assert_eq!(nearest("knid", ["kind", "path"]), Some("kind"));
        assert_eq!(nearest("zebra", ["kind", "path"]), None);
    }
}
