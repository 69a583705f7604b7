//! Faults of a manifest, each with its place, a caret and a hint.

use std::{cell::OnceCell, fmt, ops::Range};

use crate::visible;

/// How many faults of a manifest are shown. The others are only counted.
pub const MAX_SHOWN: usize = 100;
/// How many characters of a line are shown. A line may be a megabyte long.
const MAX_COLUMNS: usize = 110;
/// How many characters before the fault are shown, at most.
const MAX_COLUMNS_BEFORE: usize = 60;
/// The longest name that gets a suggestion. All known names are shorter.
const MAX_NAME_BYTES: usize = 64;
/// How many known names are compared for a suggestion.
const MAX_KNOWN_NAMES: usize = 1000;

/// One manifest text: a file, standard input, or a step built into the binary.
#[derive(Debug, Clone)]
pub struct Text {
    /// Its name, as shown in front of a line number.
    pub name: String,
    /// Its content.
    pub text: String,
    /// The ends of its lines, computed at the first use.
    ends: OnceCell<Vec<usize>>,
}

impl Text {
    /// Returns a text with a name.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into(), ends: OnceCell::new() }
    }

    /// Returns the number of the line that contains a byte, from 1.
    pub fn line_of(&self, byte: usize) -> usize {
        self.ends().partition_point(|end| *end < byte) + 1
    }

    /// Returns the byte range of a line, by its number from 1, without the line's end.
    fn line(&self, number: usize) -> Range<usize> {
        let start = number.checked_sub(2).map_or(0, |before| self.ends()[before] + 1);
        let end = self.ends().get(number - 1).copied().unwrap_or(self.text.len());
        start..start + self.text[start..end].trim_end_matches('\r').len()
    }

    fn ends(&self) -> &[usize] {
        self.ends.get_or_init(|| self.text.match_indices('\n').map(|(at, _)| at).collect())
    }
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
    /// The line in three parts: before the fault, the fault, and after it. A long line is cut around the fault.
    source: [String; 3],
    is_concealed: bool,
}

impl Place {
    /// Returns the place of a range of bytes.
    pub fn new(text: &Text, span: &Range<usize>) -> Self {
        let mut start = span.start.min(text.text.len());
        while !text.text.is_char_boundary(start) {
            start -= 1;
        }
        let number = text.line_of(start);
        let line = text.line(number);
        let (before, rest) = (&text.text[line.start..start.max(line.start)], &text.text[start.min(line.end)..line.end]);
        let mut end = span.end.saturating_sub(start).min(rest.len());
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let from = before.char_indices().rev().nth(MAX_COLUMNS_BEFORE - 1).map_or(0, |(from, _)| from);
        let room = MAX_COLUMNS - before[from..].chars().count();
        let meant: String = rest[..end].chars().take(room).collect();
        let after = rest[end..].chars().take(room - meant.chars().count()).collect();
        Self {
            name: text.name.clone(),
            line: number,
            column: before.chars().count() + 1,
            source: [before[from..].to_owned(), meant, after],
            is_concealed: false,
        }
    }
}

impl Place {
    /// Leaves out the line's text, which may hold a secret.
    pub fn conceal(&mut self) {
        self.source = Default::default();
        self.is_concealed = true;
    }
}

/// Returns whether a field, or the field of a line, may hold a secret in clear. A diagnostic does not show it.
pub fn may_hold_secret(text: &str) -> bool {
    ["password", "passphrase", "credentials", "token"].iter().any(|word| text.contains(word))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.name, self.line, self.column)
    }
}

/// A fault with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The fault in words.
    pub message: String,
    /// Its place.
    pub place: Option<Place>,
    /// A hint: the text to write instead.
    pub hint: Option<String>,
}

/// A text and a byte range. A [`Place`] is made of it only for a diagnostic, because that counts the lines before it.
pub type Spot<'a> = (&'a Text, Range<usize>);

impl Diagnostic {
    /// Returns the diagnostic of a text that is not TOML.
    pub fn syntax(text: &Text, error: &toml::de::Error) -> Self {
        let mut place = error.span().map(|span| Place::new(text, &span));
        place.iter_mut().filter(|place| may_hold_secret(&place.source.concat())).for_each(Place::conceal);
        // A frequent mistake: a mode as a number.
        let is_octal = error.message().contains("leading zero");
        let hint = is_octal.then(|| "write a number that begins with 0 in quotes: mode = \"0644\"".into());
        Self { message: error.message().into(), place, hint }
    }

    /// Returns the same as a warning.
    pub fn as_warning(&self) -> String {
        self.to_string().replacen("error", "warning", 1)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", visible::lines(&self.message))?;
        if let Some(place) = &self.place {
            let number = place.line.to_string();
            let margin = " ".repeat(number.len());
            let [before, meant, after] = place.source.each_ref().map(|part| visible::line(part).replace('\t', " "));
            let caret = " ".repeat(before.chars().count()) + &"^".repeat(meant.chars().count().max(1));
            write!(f, "\n{margin}--> {}", visible::line(&place.to_string()))?;
            if !place.is_concealed {
                write!(f, "\n{margin} |\n{number} | {before}{meant}{after}\n{margin} | {caret}")?;
            }
        }
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {}", visible::lines(hint)),
            None => Ok(()),
        }
    }
}

/// All faults of a manifest: the shown ones, and the number of the others.
#[derive(Debug, Default)]
pub struct Faults {
    shown: Vec<Diagnostic>,
    more: usize,
}

impl Faults {
    /// Adds a fault. It is made only if it is shown, so that many faults take no longer than reading the manifest.
    pub fn add(&mut self, make: impl FnOnce() -> Diagnostic) {
        if self.shown.len() < MAX_SHOWN {
            self.shown.push(make());
        } else {
            self.more += 1;
        }
    }

    /// Adds the faults of another text.
    pub fn extend(&mut self, others: Self) {
        let more = others.more;
        others.shown.into_iter().for_each(|fault| self.add(|| fault));
        self.more += more;
    }

    /// Leaves out the texts of their lines, which may hold secrets.
    pub fn conceal(&mut self) {
        self.shown.iter_mut().filter_map(|fault| fault.place.as_mut()).for_each(Place::conceal);
    }

    /// Returns the number of all faults.
    pub fn count(&self) -> usize {
        self.shown.len() + self.more
    }

    /// Returns whether there is no fault.
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// Returns the shown faults.
    pub fn shown(&self) -> &[Diagnostic] {
        &self.shown
    }

    /// Returns the number of faults that are not shown.
    pub fn more(&self) -> usize {
        self.more
    }
}

/// Returns the known name nearest to a mistyped one, if one is near.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > MAX_NAME_BYTES {
        return None;
    }
    let distance = |candidate: &&str| strsim::damerau_levenshtein(name, candidate);
    known
        .into_iter()
        .take(MAX_KNOWN_NAMES)
        .min_by_key(distance)
        .filter(|candidate| distance(candidate) <= 1 + candidate.len() / 4)
}

/// Returns "did you mean …?" if a known name is near.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|near| format!("did you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_points_at_the_fault() {
        let text = Text::new("10-a.toml", "name = \"ä\"\n\tonwer = \"root\"\n");
        let start = text.text.find("onwer").unwrap();
        let place = Place::new(&text, &(start..start + 5));
        let diagnostic = Diagnostic {
            message: "unknown field `onwer`".into(),
            place: Some(place),
            hint: did_you_mean("onwer", ["owner", "mode"]),
        };
        assert_eq!(
            diagnostic.to_string(),
            "error: unknown field `onwer`\n --> 10-a.toml:2:2\n  |\n2 |  onwer = \"root\"\n  |  ^^^^^\nhint: did you mean `owner`?"
        );
    }

    #[test]
    fn places_survive_odd_spans() {
        let text = Text::new("x", "aé\r\né");
        for start in 0..8 {
            for end in start..9 {
                _ = Diagnostic { message: String::new(), place: Some(Place::new(&text, &(start..end))), hint: None }
                    .to_string();
            }
        }
    }

    #[test]
    fn a_place_in_a_long_line_shows_the_part_around() {
        let text = Text::new("x", format!("{}\u{202e}{}", "a".repeat(70_000), "b".repeat(70_000)));
        let place = Place::new(&text, &(70_000..70_003));
        assert_eq!((place.line, place.column), (1, 70_001));
        let shown = Diagnostic { message: "odd".into(), place: Some(place), hint: None }.to_string();
        assert!(shown.len() < 400 && shown.contains("a\\u{202e}b"), "{shown}");
        assert!(shown.ends_with(&format!(" | {}^^^^^^^^", " ".repeat(60))), "{shown}");
    }

    #[test]
    fn faults_beyond_the_shown_are_counted_and_not_made() {
        let mut faults = Faults::default();
        let mut made = 0;
        for _ in 0..100_000 {
            faults.add(|| {
                made += 1;
                Diagnostic { message: String::new(), place: None, hint: None }
            });
        }
        assert_eq!((made, faults.shown().len(), faults.count()), (MAX_SHOWN, MAX_SHOWN, 100_000));
        let mut sum = Faults::default();
        sum.extend(faults);
        assert_eq!((sum.shown().len(), sum.more(), sum.count()), (MAX_SHOWN, 99_900, 100_000));
    }

    #[test]
    fn only_near_names_are_suggested() {
        assert_eq!(nearest("knid", ["kind", "path"]), Some("kind"));
        assert_eq!(nearest("zebra", ["kind", "path"]), None);
    }
}
