//! The documents of `--json`: each verb prints those that the reference page describes, and no others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::Value;

use crate::{
    operator::Operator,
    sandbox::Finished,
    world::{GREEN, Scene, text, xml},
};

type Fields = BTreeSet<String>;

/// What the page says of `deploy`: the fields of the documents, and those of the objects in them.
struct Reference {
    documents: BTreeSet<Fields>,
    objects: BTreeMap<String, Fields>,
}

fn quoted(text: &str) -> Fields {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

impl Reference {
    fn read() -> Self {
        let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/json.md")).unwrap();
        let section = page.split("\n## Deploy\n").nth(1).unwrap().split("\n## ").next().unwrap();
        let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
        let documents = cells.map(|cell| quoted(&format!("`{cell}"))).collect();
        let prose = section.replace("\n\n", ". ").replace('\n', " ");
        let sentences = prose.split(". ").filter_map(|sentence| sentence.trim().strip_prefix("A "));
        let objects = sentences.filter_map(|sentence| sentence.split_once(" has "));
        Self { documents, objects: objects.map(|(name, fields)| (name.to_owned(), quoted(fields))).collect() }
    }
}

/// The documents that a verb has printed.
#[derive(Default)]
struct Seen {
    documents: BTreeSet<Fields>,
    objects: BTreeMap<String, BTreeSet<Fields>>,
}

fn fields(value: &Value) -> Fields {
    value.as_object().unwrap().keys().cloned().collect()
}

impl Seen {
    /// Adds the output of a verb. Returns the first fields of its kinds of documents.
    fn add(&mut self, finished: &Finished) -> BTreeSet<String> {
        let mut kinds = BTreeSet::new();
        for line in finished.stdout.lines() {
            assert!(line.starts_with("{\"schema_version\":1,"), "{line}");
            let document: Value = serde_json::from_str(line).unwrap();
            for (list, name) in [
                ("changes", "change"),
                ("slots", "slot"),
                ("holds", "resource"),
                ("drifts", "drift"),
                ("weights", "weight"),
                ("shares", "share"),
            ] {
                for object in document[list].as_array().into_iter().flatten() {
                    self.add_object(name, object);
                }
            }
            let mut names = fields(&document);
            let _ = names.remove("schema_version");
            let _ = kinds.insert(names.first().unwrap().clone());
            let _ = self.documents.insert(names);
        }
        kinds
    }

    fn add_object(&mut self, name: &str, object: &Value) {
        let _ = self.objects.entry(name.to_owned()).or_default().insert(fields(object));
        for (list, name) in [("properties", "property"), ("targets", "target"), ("differences", "difference")] {
            for inner in object[list].as_array().into_iter().flatten() {
                self.add_object(name, inner);
            }
        }
    }
}

fn kinds(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Adds the documents that only a drift and a deployment of two stacks have.
fn add_differences(seen: &mut Seen) {
    let operator = Operator::of_two_stacks();
    let dns = ["--strategy", "weighted-dns", "--dns-record", "app.example.com", "--yes"];
    let _ = operator.deploy(&[&["create-stack"], &dns[..]].concat(), &[("BUILD_NUMBER", "1")]).expect(0);
    let delete = ["delete-stack", "--stack", "glovo-app-blue", "--strategy", "weighted-dns", "--yes", "--json"];
    let _ = seen.add(&operator.deploy(&delete, &[]).expect(0));
    let operator = Operator::serving();
    let difference = text("PropertyPath", "/MaxSize") + &text("ExpectedValue", "3") + &text("ActualValue", "8");
    let drift = text("LogicalResourceId", "GreenGroup")
        + &text("StackResourceDriftStatus", "MODIFIED")
        + &xml("PropertyDifferences", &xml("member", &difference));
    operator.world(|world| {
        world.drifts = xml("member", &drift);
        let _ = world.weights.insert(GREEN.into(), "7".into());
    });
    let _ = seen.add(&operator.deploy(&["drift", "--json"], &[]).expect(3));
}

const GROUP: &str = "AWS::AutoScaling::AutoScalingGroup";

#[test]
fn each_verb_prints_the_documents_of_the_reference_page() {
    let mut seen = Seen::default();
    let operator = Operator::new();
    let created = operator.deploy(&["create-stack", "--yes", "--json"], &[("BUILD_NUMBER", "1")]).expect(0);
    assert_eq!(seen.add(&created), kinds(&["changes", "id", "message", "protected"]));

    operator.content("2");
    let property = xml(
        "Target",
        &(text("Attribute", "Properties") + &text("Path", "/MaxSize") + &text("RequiresRecreation", "Never")),
    );
    let change = text("Action", "Modify")
        + &text("LogicalResourceId", "GreenGroup")
        + &text("ResourceType", GROUP)
        + &xml("Details", &xml("member", &property));
    operator.world(|world| world.changes = xml("member", &xml("ResourceChange", &change)));
    let next = [("BUILD_NUMBER", "2")];
    let planned = operator.deploy(&["plan", "--json"], &next).expect(0);
    assert_eq!(seen.add(&planned), kinds(&["changes", "message"]));

    operator.world(|world| {
        let signal = "Received FAILURE signal with UniqueId i-0123456789abcdef0";
        let events =
            vec![("GreenGroup", GROUP, "CREATE_IN_PROGRESS", signal), ("GreenGroup", GROUP, "CREATE_FAILED", "failed")];
        world.plot = vec![Scene("UPDATE_ROLLBACK_IN_PROGRESS", events), Scene("UPDATE_ROLLBACK_COMPLETE", vec![])];
    });
    let update = ["update-stack", "--yes", "--pause", "0s", "--json"];
    let failed = operator.deploy(&update, &next).expect(1);
    assert_eq!(seen.add(&failed), kinds(&["causes", "changes", "error", "id", "message"]));
    let updated = operator.deploy(&update, &next).expect(0);
    assert_eq!(seen.add(&updated), kinds(&["changes", "id", "message", "protected"]));

    for (verb, printed) in [
        (&["rollback"][..], &["id", "message"][..]),
        (&["status"], &["message", "protected"]),
        (&["watch"], &["id", "message"]),
        (&["diagnose"], &["failures"]),
        (&["drift"], &["drifts"]),
        (&["history"], &["id"]),
        (&["delete-stack", "--yes"], &["holds", "id", "stack"]),
        (&["diagnose", "--stack", "other"], &["near"]),
    ] {
        let told = operator.deploy(&[verb, &["--json"]].concat(), &[]).expect(0);
        assert_eq!(seen.add(&told), kinds(printed), "{verb:?}: {}", told.stdout);
    }

    add_differences(&mut seen);

    let reference = Reference::read();
    assert_eq!(seen.documents, reference.documents);
    let objects = reference.objects.into_iter().map(|(name, fields)| (name, [fields].into()));
    assert_eq!(seen.objects, objects.collect());
}
