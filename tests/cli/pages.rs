//! docs/design/faults.md: no row is missing, and each test that it names is there.

use std::{collections::BTreeSet, fs, path::Path};

const FAULTS: usize = 79;
const FAULTS_OF_PEERS: usize = 33;

#[test]
fn every_fault_has_a_test_that_exists_or_a_reason() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(repository.join("docs/design/faults.md")).unwrap();
    let (faults, peers) = page.split_once("\n## The 33 faults").expect("the section of the peers");
    for (part, number) in [(faults, FAULTS), (peers, FAULTS_OF_PEERS)] {
        let rows = rows(part);
        let numbers: Vec<usize> = rows.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (1..=number).collect::<Vec<_>>());
        for (number, row) in rows {
            let tests = tests(&row);
            assert!(!tests.is_empty() || row.contains("No test: "), "row {number} has neither a test nor a reason");
            for (file, name) in tests {
                let source = fs::read_to_string(repository.join(&file)).unwrap_or_default();
                assert!(source.contains(&format!("fn {name}(")), "row {number}: there is no test {name} in {file}");
            }
        }
    }
}

/// The numbered items of a list, each with all its lines.
fn rows(text: &str) -> Vec<(usize, String)> {
    let mut rows: Vec<(usize, String)> = vec![];
    for line in text.lines() {
        match line.split_once(". ").and_then(|(number, rest)| Some((number.parse().ok()?, rest))) {
            Some((number, rest)) => rows.push((number, rest.to_owned())),
            None => {
                if let Some((_, row)) = rows.last_mut().filter(|_| line.starts_with("   ")) {
                    *row += "\n";
                    *row += line.trim();
                }
            }
        }
    }
    rows
}

/// A line has the file behind a dash, and the next line the name of the test.
fn tests(row: &str) -> BTreeSet<(String, String)> {
    let quoted = |line: &str| line.trim_start_matches("- ").trim_matches('`').to_owned();
    let lines: Vec<&str> = row.lines().collect();
    let pairs = lines.windows(2).filter(|pair| pair[0].starts_with("- `"));
    pairs.map(|pair| (quoted(pair[0]), quoted(pair[1]))).collect()
}
