//! The page of the real bootstraps: what `examples/world` says, and what it leaves out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::Path,
};

use serde::Deserialize;
use toml::Value;

const WORLD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/world");
/// The tests that run cases on machines, which name them.
const RUN: &str = include_str!("../tests/machine/tests/bootstraps/cases.rs");

const INTRODUCTION: &str = "\
Each row is a public bootstrap, as its authors run it. `examples/world/ID.toml` says it: each of its
actions is a resource, or stands in the last column. Tests validate all of them. Those with a mark
under `run` converge on a machine under test, where stand-ins replace the vendors' packages. A
second run changes nothing there, and `plan` names each effect that is removed by hand.

- Most bootstraps of Amazon Linux are written with Debian's packages, because the machines that run
  them are Debian's. [Names by distribution](names.md) has Amazon Linux's names.
- The converge timer does the work of cfn-hup: it runs the manifest again.
- `run --signal` does the work of cfn-signal.
- Calls of the AWS API stay outside, in the stack.
- `shell` counts commands with a shell script in them (`sh -c`). Such a bootstrap does not count as
  said.
";

/// A list of bootstraps, cases.toml.
#[derive(Deserialize)]
struct Cases {
    #[serde(rename = "case")]
    cases: Vec<Bootstrap>,
}

/// One bootstrap.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// A letter for its collection, and a number: also the name of its manifest.
    pub id: String,
    source: String,
    distribution: String,
    /// `yes`, `in part`, `later` or `no`.
    pub said: String,
    #[serde(default)]
    /// What the manifest does not say, and why.
    pub left_out: String,
}

/// What a manifest is made of.
pub struct Parts {
    kinds: BTreeSet<String>,
    /// How many of its commands are shell scripts.
    pub shells: usize,
}

impl Bootstrap {
    /// Reads its manifest, if there is one.
    pub fn parts(&self) -> Option<Parts> {
        let path = Path::new(WORLD).join(format!("{}.toml", self.id));
        if !path.exists() {
            return None;
        }
        let manifest = read(&path).parse().map_or_else(|error| panic!("{error}"), Value::Table);
        let mut parts = Parts { kinds: BTreeSet::new(), shells: 0 };
        let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        for resource in list(&manifest, "step").iter().flat_map(|step| list(step, "resource")) {
            parts.kinds.extend(resource.get("kind").and_then(Value::as_str).map(str::to_owned));
            let arguments = list(&resource, "argv");
            let words: Vec<&str> = arguments.iter().filter_map(Value::as_str).collect();
            let is_shell = |word: &&str| matches!(word.rsplit('/').next(), Some("sh" | "bash" | "dash"));
            parts.shells += usize::from(words.iter().any(is_shell) && words.iter().any(|word| word.starts_with('-')));
        }
        Some(parts)
    }

    /// Whether a test runs it on a machine.
    pub fn runs(&self) -> bool {
        RUN.contains(&format!("\"{}\"", self.id))
    }
}

/// Returns all bootstraps, in the order of the page.
pub fn cases() -> Vec<Bootstrap> {
    let cases: Cases =
        toml::from_str(&read(&Path::new(WORLD).join("cases.toml"))).unwrap_or_else(|error| panic!("{error}"));
    cases.cases
}

/// Returns the page's text below its heading.
pub fn page() -> String {
    let cases = cases();
    let mut page = format!("{INTRODUCTION}\n");
    let mut counts = BTreeMap::<&str, usize>::new();
    for case in &cases {
        *counts.entry(&case.said).or_default() += 1;
    }
    let count = |said: &str| counts.get(said).copied().unwrap_or_default();
    let run = cases.iter().filter(|case| case.runs()).count();
    let _ = write!(
        page,
        "Of {} bootstraps, {} are said, {} in part. {run} run on machines. {} are left for later, and {}\nare not said.\n\n",
        cases.len(),
        count("yes"),
        count("in part"),
        count("later"),
        count("no")
    );
    page += "| id | bootstrap | distribution | said | by | run | shell | left out, and why |\n";
    page += "| --- | --- | --- | --- | --- | --- | --- | --- |\n";
    for case in &cases {
        let parts = case.parts();
        let kinds = parts.as_ref().map(|parts| parts.kinds.iter().cloned().collect::<Vec<_>>().join(", "));
        let shells = parts.as_ref().map(|parts| parts.shells.to_string());
        let run = if case.runs() { "✓" } else { "" };
        let cells = [
            &*case.id,
            &case.source,
            &case.distribution,
            &case.said,
            &kinds.unwrap_or_default(),
            run,
            &shells.unwrap_or_default(),
            &case.left_out,
        ];
        let _ = writeln!(page, "| {} |", cells.join(" | "));
    }
    page
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
