//! The texts keep to the house's style: no phrase of banned-phrases.txt stands in the code or in a document.

use std::{
    fs,
    path::{Path, PathBuf},
};

const PHRASES: &str = include_str!("banned-phrases.txt");
/// Where texts are that people read.
const PLACES: [&str; 14] = [
    "src",
    "steps",
    "docs",
    "cloudformation",
    "packaging",
    "examples",
    "README.md",
    "ARCHITECTURE.md",
    "BENCHMARKS.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "tests",
    "fuzz/fuzz_targets",
];

#[test]
fn no_banned_phrase_stands_in_a_text() {
    let phrases: Vec<(&str, &str)> = PHRASES.lines().filter_map(|line| line.split_once(" => ")).collect();
    assert!(phrases.len() > 20, "{phrases:?}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![];
    for place in PLACES {
        collect(&root.join(place), &mut files);
    }
    let mut faults = vec![];
    for file in &files {
        // The list quotes itself; an archive of a test is no text.
        if file.ends_with("banned-phrases.txt") {
            continue;
        }
        let Ok(text) = fs::read_to_string(file) else { continue };
        for (number, line) in text.lines().enumerate() {
            for (phrase, instead) in phrases.iter().filter(|(phrase, _)| has(line, phrase)) {
                let (path, phrase) = (file.strip_prefix(root).unwrap().display(), phrase.trim_matches('_'));
                faults.push(format!("{path}:{}: `{phrase}`: {instead}", number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), files);
        }
    } else {
        assert!(path.exists(), "{}", path.display());
        files.push(path.to_owned());
    }
}

/// Whether a line has a phrase, and no letter where the phrase has `_`.
fn has(line: &str, phrase: &str) -> bool {
    let (line, words) = (line.to_lowercase(), phrase.trim_matches('_'));
    let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    line.match_indices(words).any(|(at, _)| {
        let before = phrase.starts_with('_') && is_letter(line[..at].chars().next_back());
        let after = phrase.ends_with('_') && is_letter(line[at + words.len()..].chars().next());
        !before && !after
    })
}
