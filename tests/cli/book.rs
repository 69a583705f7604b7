//! The pages of the repository, read for tests: lines, headings, links, blocks of code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A Markdown file.
pub struct Page {
    /// Relative to the repository.
    pub path: PathBuf,
    pub text: String,
}

/// A block of code.
pub struct Block {
    /// The text after the fence: `sh run exit=2`.
    pub info: String,
    pub text: String,
    /// The line number of its fence.
    pub line: usize,
}

impl Block {
    /// Returns whether its language and first word are these: `sh run`.
    pub fn is(&self, what: &str) -> bool {
        self.info == what || self.info.starts_with(&format!("{what} "))
    }

    /// Returns the value of `name=`.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.info.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// Returns the third word, which is the file name of a manifest.
    pub fn file(&self) -> Option<&str> {
        self.info.split(' ').nth(2).filter(|word| !word.contains('='))
    }

    /// Returns the text of a manifest. Resources alone become a step.
    pub fn manifest(&self) -> String {
        let is_whole = self.text.lines().any(|line| line == "[[step]]" || line.starts_with("name = "));
        let is_whole = is_whole && !self.text.starts_with("[[resource]]");
        if is_whole { self.text.clone() } else { format!("name = \"step\"\n\n{}", self.text) }
    }

    /// Returns the lines of an `output` block that a text does not contain.
    pub fn missing_from(&self, output: &str) -> Vec<&str> {
        self.text.lines().filter(|line| !output.contains(line.trim_end())).collect()
    }
}

impl Page {
    pub fn read(repository: &Path, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let text =
            fs::read_to_string(repository.join(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, text }
    }

    /// Returns all pages of the repository.
    pub fn all(repository: &Path) -> Vec<Self> {
        let mut paths = vec![];
        find(repository, Path::new(""), &mut paths);
        paths.sort();
        paths.into_iter().map(|path| Self::read(repository, path)).collect()
    }

    /// Returns the lines outside blocks of code, with their numbers.
    pub fn prose(&self) -> Vec<(usize, &str)> {
        let mut is_code = false;
        let mut prose = vec![];
        for (index, line) in self.text.lines().enumerate() {
            let is_fence = line.trim_start().starts_with("```");
            if !is_code && !is_fence {
                prose.push((index + 1, line));
            }
            is_code ^= is_fence;
        }
        prose
    }

    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = vec![];
        let mut is_code = false;
        for (index, line) in self.text.lines().enumerate() {
            match line.strip_prefix("```") {
                Some(_) if is_code => is_code = false,
                Some(info) => {
                    is_code = true;
                    blocks.push(Block { info: info.into(), text: String::new(), line: index + 1 });
                }
                None if is_code => {
                    let block = blocks.last_mut().expect("an open block");
                    block.text += line;
                    block.text.push('\n');
                }
                None => {}
            }
        }
        blocks
    }

    /// Returns the anchors of the headings, as GitHub and mdBook spell them.
    pub fn anchors(&self) -> BTreeSet<String> {
        let mut seen = BTreeMap::<String, usize>::new();
        let headings = self.prose().into_iter().filter_map(|(_, line)| {
            let text = line.trim_start_matches('#');
            (text.len() < line.len() && text.starts_with(' ')).then(|| text.trim())
        });
        let anchor = |heading: &str| {
            let plain = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            let anchor = plain.collect::<String>().to_lowercase().replace(' ', "-");
            let count = seen.entry(anchor.clone()).or_default();
            *count += 1;
            if *count == 1 { anchor } else { format!("{anchor}-{}", *count - 1) }
        };
        headings.map(anchor).collect()
    }

    /// Returns the targets of its links and pictures, with their line numbers.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut links = vec![];
        for (number, line) in self.prose() {
            // Code contains no links.
            let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
            let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            links.extend(targets.map(|target| (number, target.to_owned())));
        }
        links
    }
}

fn find(repository: &Path, directory: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(repository.join(directory)).unwrap() {
        let entry = entry.unwrap();
        let path = directory.join(entry.file_name());
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().unwrap().is_dir() {
            if !name.starts_with('.') && !matches!(name.as_str(), "target" | "corpus" | "node_modules") {
                find(repository, &path, pages);
            }
        } else if name.ends_with(".md") {
            pages.push(path);
        }
    }
}
