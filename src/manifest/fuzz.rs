//! Fuzz targets: no manifest makes the program panic, and every fault has a place in a text.

#![allow(clippy::missing_panics_doc, reason = "a panic is the answer of a target")]

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::{archive, parse};
use crate::{
    diagnostic::{Diagnostic, Text},
    system::Phase,
    variables::{OfEachInstance, Variables, is_fact},
};

/// Checks texts separated by lines `%%`: the variables, then step files.
///
/// A valid manifest stays valid if facts are unknown, as in `validate` and for an image, and if its steps are not
/// picked.
pub fn manifest(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let mut texts = input.split("\n%%\n").enumerate().map(|(index, text)| Text::new(format!("{index}.toml"), text));
    let variables = texts.next().expect("split yields one");
    let steps: Vec<Text> = texts.take(8).collect();
    let read = |knows_facts: bool, phase: Phase, is_picked: bool| {
        let mut given = Variables::new(move |name| {
            let fact = || if knows_facts { Ok("f".into()) } else { Err(OfEachInstance.into()) };
            is_fact(name).then(fact)
        });
        let mut faults = given.declare_all(&variables);
        let parsed = parse(&steps, &mut given, phase, &mut |_| is_picked);
        match parsed {
            Ok(manifest) => {
                let resources = manifest.steps.iter().flat_map(|step| &step.resources);
                resources.for_each(|declared| drop(declared.title()));
            }
            Err(more) => faults.extend(more),
        }
        faults.shown().iter().for_each(|fault| check_place(fault, &variables, &steps));
        faults.is_empty()
    };
    if read(true, Phase::Boot, true) {
        // Without facts, also what does not apply here needs its variables.
        let is_conditional = steps.iter().any(|text| text.text.contains("where"));
        assert!(is_conditional || read(false, Phase::Boot, true), "valid, but not where facts are unknown");
        assert!(read(false, Phase::Bake, true), "valid, but not for an image");
        assert!(read(true, Phase::Boot, false), "valid, but not if it is not picked");
    }
}

fn check_place(fault: &Diagnostic, variables: &Text, steps: &[Text]) {
    _ = fault.to_string();
    let Some(place) = &fault.place else { return };
    let text =
        std::iter::once(variables).chain(steps).find(|text| text.name == place.name).expect("a text of this name");
    let line = text.text.split('\n').nth(place.line - 1).expect("a line of the text");
    assert!((1..=line.chars().count() + 1).contains(&place.column), "{place}: {line:?}");
}

/// Checks the bytes as a tar and as a tar.gz: only files of a manifest are read, each once, all of one directory.
pub fn manifest_archive(input: &[u8]) {
    let mut gzip = GzEncoder::new(vec![], Compression::fast());
    gzip.write_all(input).and_then(|()| gzip.finish()).iter().map(Vec::as_slice).chain([input]).for_each(|bytes| {
        let Ok(texts) = archive::read("archive", bytes) else { return };
        let names: Vec<&str> = texts.all().map(|text| text.name.as_str()).collect();
        let folder = |name: &&str| name.rsplit_once(['/', ':']).expect("a folder").0.to_owned();
        assert!(names.windows(2).all(|pair| folder(&pair[0]) == folder(&pair[1])), "{names:?}");
        assert!(texts.steps.windows(2).all(|pair| pair[0].name < pair[1].name), "{names:?}");
        assert!(!names.iter().any(|name| name.contains("..")), "{names:?}");
    });
}
