//! The rooms of the house only look down: what ARCHITECTURE.md draws is what the code imports.
//! A type name of the code means one thing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The rooms of `src/`, from the ground up. A room imports from rooms below its own floor only.
const FLOORS: &[&[&str]] = &[
    &["value", "environment", "redaction"],
    &["visible"],
    &["error"],
    &["diagnostic", "stop", "rsyslog"],
    &["variables", "host"],
    &["net", "archive"],
    &["aws"],
    &["fetch", "vault"],
    &["secrets"],
    &["system"],
    &["packages"],
    &["resource"],
    &["manifest", "image", "user_data", "first_boot"],
    &["run"],
    &["notify", "view"],
    &["deploy"],
    &["cli"],
    &["manual"],
    &["commands"],
];
/// The largest share of the lines that one room may have, in percent. The kinds, one file each, have the most.
const MAX_SHARE_PERCENT: usize = 20;

#[test]
fn rooms_import_only_from_the_floors_below_theirs() {
    let mut faults = vec![];
    for (file, text) in product_files() {
        let room = room_of(&file);
        let Some(own) = floor(&room) else {
            faults.push(format!("{}: the room {room} stands on no floor of this test", file.display()));
            continue;
        };
        for other in imported_rooms(&text).into_iter().filter(|other| *other != room) {
            match floor(&other) {
                Some(below) if below < own => {}
                Some(_) => faults.push(format!("{}: {room} imports {other}, which is not below it", file.display())),
                None => faults.push(format!("{}: {other} stands on no floor of this test", file.display())),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_room_holds_more_than_a_fifth_of_the_lines() {
    let mut lines = BTreeMap::<String, usize>::new();
    for (file, text) in product_files() {
        *lines.entry(room_of(&file)).or_default() += text.lines().count();
    }
    let all: usize = lines.values().sum();
    let large: Vec<_> = lines.iter().filter(|(_, lines)| **lines * 100 > all * MAX_SHARE_PERCENT).collect();
    assert!(large.is_empty(), "of {all} lines: {large:?}");
}

#[test]
fn each_type_name_is_declared_once() {
    let mut files = vec![];
    collect(&root().join("src"), &|_| false, &mut files);
    let mut places = BTreeMap::<String, Vec<String>>::new();
    for (file, text) in &files {
        for (number, line) in text.lines().enumerate() {
            if let Some(name) = declared_type(line) {
                let place = format!("{}:{}", file.strip_prefix(root()).unwrap().display(), number + 1);
                places.entry(name).or_default().push(place);
            }
        }
    }
    assert!(places.len() > 300, "{} type names", places.len());
    let twice: Vec<_> = places.iter().filter(|(_, places)| places.len() > 1).collect();
    assert!(twice.is_empty(), "rename the less general one of: {twice:#?}");
}

/// Returns the name of the type that a line declares. An indented `type` belongs to a trait, and is not declared here.
fn declared_type(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub") || *word == "unsafe");
    let is_declaration = match words.next()? {
        "struct" | "enum" | "union" | "trait" => true,
        "type" => !line.starts_with(' '),
        _ => false,
    };
    let name: String = words.next()?.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    (is_declaration && name.starts_with(|c: char| c.is_ascii_uppercase())).then_some(name)
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of the program, without its tests, and what stands in them before their own tests.
pub fn product_files() -> Vec<(PathBuf, String)> {
    let mut files = vec![];
    collect(&root().join("src"), &|name| matches!(name, "tests" | "fuzz" | "lib" | "main"), &mut files);
    assert!(files.len() > 100, "{} files", files.len());
    for (_, text) in &mut files {
        let end = ["\n#[cfg(test)]", "\n#[cfg(any(test"].iter().filter_map(|mark| text.find(mark)).min();
        text.truncate(end.unwrap_or(text.len()));
    }
    files
}

fn collect(directory: &Path, is_left_out: &dyn Fn(&str) -> bool, files: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if is_left_out(&path.file_stem().unwrap().to_string_lossy()) {
            continue;
        }
        if path.is_dir() {
            collect(&path, is_left_out, files);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            files.push((path, text));
        }
    }
}

fn room_of(file: &Path) -> String {
    let below = file.strip_prefix(root().join("src")).unwrap();
    below.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The rooms that a file names, as `crate::room` or at the first level of `use crate::{room, …}`.
fn imported_rooms(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut rooms = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        let rest = &code[at + found.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            let _ = rooms.insert(first_name(rest));
            continue;
        };
        let mut depth = 0_u32;
        let mut starts = true;
        for (index, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => starts = true,
                _ if starts && depth == 0 && !c.is_whitespace() => {
                    let _ = rooms.insert(first_name(&group[index..]));
                    starts = false;
                }
                _ => {}
            }
        }
    }
    let _ = rooms.remove("");
    rooms
}

fn first_name(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect()
}
