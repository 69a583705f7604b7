//! Fuzz targets: functions that take any bytes and panic if this program handles them wrongly.
//!
//! A target's body stands beside the code that it is about. `cargo fuzz` calls it with new inputs (tests/README.md,
//! "Fuzzing"). The library's tests call it with every input that is kept in `fuzz/corpus/`.

#![allow(clippy::missing_panics_doc, reason = "a panic is the answer of a target")]

use crate::{
    archive, fetch,
    host::{accounts, bus},
    manifest,
    notify::block,
    packages::{apt::dpkg, openpgp, rpm},
    redaction,
};

/// A fuzz target: panics if the code under test handles the input wrongly.
pub type Check = fn(&[u8]);

/// Every target by its name: the name of its program in `fuzz/fuzz_targets/` and of its directory in `fuzz/corpus/`.
pub const TARGETS: &[(&str, Check)] = &[
    ("accounts", accounts::fuzz),
    ("archive", archive::fuzz::archive),
    ("aws_answer", fetch::fuzz::aws_answer),
    ("bus_message", bus::message::fuzz),
    ("console_block", block::fuzz),
    ("content_range", fetch::fuzz::content_range),
    ("dpkg_status", dpkg::fuzz),
    ("manifest", manifest::fuzz::manifest),
    ("manifest_archive", manifest::fuzz::manifest_archive),
    ("metadata_document", fetch::fuzz::metadata_document),
    ("openpgp", openpgp::fuzz),
    ("redaction", redaction::fuzz),
    ("response", fetch::fuzz::response::check),
    ("retry_after", fetch::fuzz::retry_after),
    ("rpm_database", rpm::fuzz::rpm_database),
];

/// Passes one input to the target of this name.
pub fn check(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    (target.unwrap_or_else(|| panic!("no target is called {name}")).1)(input);
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "reads the repository")]
mod tests {
    use std::{collections::BTreeSet, fs, panic, path::PathBuf};

    use super::*;

    fn fuzz() -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
    }

    #[test]
    fn every_input_of_the_corpora_passes() {
        for (name, target) in TARGETS {
            let inputs = fs::read_dir(fuzz().join("corpus").join(name)).unwrap();
            for path in inputs.map(|entry| entry.unwrap().path()) {
                let input = fs::read(&path).unwrap();
                let passes = panic::catch_unwind(|| target(&input)).is_ok();
                assert!(passes, "{name} fails on {}", path.display());
            }
        }
    }

    #[test]
    fn every_target_has_a_program_and_a_corpus() {
        let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).into()).collect();
        assert_eq!(names.len(), TARGETS.len(), "two targets have the same name");
        let listed = |directory: &str| -> BTreeSet<String> {
            let entries = fs::read_dir(fuzz().join(directory)).unwrap();
            entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(listed("corpus"), names);
        assert_eq!(listed("fuzz_targets"), names);
        let manifest: toml::Table = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap().parse().unwrap();
        let programs = manifest["bin"].as_array().unwrap().iter();
        let programs: BTreeSet<String> = programs.map(|bin| bin["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(programs, names);
    }
}
