//! Answers that botocore's models allow, but the rest of these tests' AWS does not give: each member is there, or only the
//! required ones; enumerations have their first or their last value; texts hold what a terminal would obey.
//!
//! Which words `deploy` has for them is left open. It ends, in its own words, and shows nothing raw.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    operator::Operator,
    sandbox::Finished,
    server::{Reply, Request, Server},
    tape::{Call, Turn, keep, names},
    verbs::VERBS,
    weighted_dns,
};

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");
/// After this many answers the server refuses all requests, so that no command waits for another state.
const MAX_ANSWERS: usize = 60;
const VARIANTS: [&str; 3] = ["first", "last", "least"];
const STRATEGIES: [&str; 4] = ["blue-green", "weighted-dns", "compatible", "instance-refresh"];

/// The answers to each operation: `first`, `last`, `least`.
static ANSWERS: LazyLock<BTreeMap<String, [String; 3]>> = LazyLock::new(|| {
    let needs = Command::new(format!("{REPOSITORY}/tests/emulators/needs")).output().unwrap();
    assert!(needs.status.success(), "{}", String::from_utf8_lossy(&needs.stderr));
    let operations = std::fs::File::open(format!("{REPOSITORY}/tests/deploy/operations.tsv")).unwrap();
    let made = Command::new(String::from_utf8(needs.stdout).unwrap().trim())
        .arg(format!("{REPOSITORY}/tests/emulators/model_answers.py"))
        .stdin(Stdio::from(operations))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    serde_json::from_slice(&made.stdout).unwrap()
});

/// Returns what is wrong with the end of a command.
fn wrong(finished: &Finished) -> Option<String> {
    let all = format!("{}{}", finished.stdout, finished.stderr);
    let is_abrupt = !matches!(finished.code, Some(0..=100)) || all.contains("panicked");
    let is_raw = all.contains(['\u{202e}', '\u{9b}']);
    (is_abrupt || is_raw).then(|| format!("it ends with {:?}:\n{all}", finished.code))
}

/// Returns a server that answers each operation by its model.
fn models(variant: usize) -> Server {
    let answered = AtomicUsize::new(0);
    Server::start(move |request: &Request| {
        keep(request);
        if answered.fetch_add(1, Ordering::Relaxed) > MAX_ANSWERS {
            return Reply::new(
                403,
                "<Response><Error><Code>AccessDenied</Code><Message>no</Message></Error></Response>",
            );
        }
        Reply::ok(ANSWERS.get(&Call::of(request).operation).map_or("", |answers| &answers[variant]))
    })
}

#[test]
fn every_verb_ends_when_all_answers_are_what_the_models_allow() {
    let mut faults = vec![];
    for (variant, name) in VARIANTS.iter().enumerate() {
        for strategy in STRATEGIES {
            for verb in VERBS.into_iter().filter(|verb| *verb != "render") {
                let operator = Operator::new();
                let server = models(variant);
                let limits = ["--patience", "0s", "--health-timeout", "0s", "--pause", "0s", "--yes"];
                let limits = if ["create-stack", "update-stack"].contains(&verb) { &limits[..] } else { &[] };
                let arguments = [&[verb, "--strategy", strategy], limits].concat();
                let variables =
                    [("AWS_ENDPOINT_URL", &*server.url("")), ("BUILD_NUMBER", "2"), ("DNSRECORD", "app.example.com")];
                let finished = operator.deploy(&arguments, &variables);
                assert!(!server.requests().is_empty(), "{verb}, {strategy} asks AWS nothing: {finished:?}");
                faults.extend(wrong(&finished).map(|fault| format!("{verb}, {strategy}, {name}: {fault}")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Runs a command once for each operation that it uses: that operation's first answers are each of the model's.
fn try_each(begin: fn() -> Operator, command: fn(&Operator) -> Finished) {
    let operator = begin();
    let _ = command(&operator).expect(0);
    let calls = operator.calls();
    let mut operations = names(&calls);
    operations.sort_unstable();
    operations.dedup();
    let mut faults = vec![];
    for operation in operations {
        let Some(answers) = ANSWERS.get(operation) else { continue };
        for (answer, variant) in answers.iter().zip(VARIANTS) {
            let operator = begin();
            operator.tape.script(operation, (0..3).map(|_| Turn::Instead(answer.clone())));
            let fault = wrong(&command(&operator));
            faults.extend(fault.map(|fault| format!("{operation}, {variant}: {fault}")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn an_update_ends_when_an_operation_answers_as_its_model_allows() {
    try_each(
        || {
            let operator = Operator::serving();
            operator.content("2");
            operator
        },
        |operator| {
            let arguments = ["update-stack", "--yes", "--pause", "0s", "--health-timeout", "1s", "--patience", "0s"];
            operator.deploy(&arguments, &[("BUILD_NUMBER", "2")])
        },
    );
}

#[test]
fn a_rollback_ends_when_an_operation_answers_as_its_model_allows() {
    try_each(Operator::serving_twice, |operator| {
        operator.deploy(&["rollback", "--pause", "0s", "--health-timeout", "1s", "--patience", "0s"], &[])
    });
}

#[test]
fn weighted_records_end_when_an_operation_answers_as_its_model_allows() {
    try_each(weighted_dns::serving_twice, |operator| {
        weighted_dns::deploy(operator, &["rollback", "--health-timeout", "1s", "--patience", "0s"], "2")
    });
}

#[test]
fn questions_end_when_an_operation_answers_as_its_model_allows() {
    for verb in ["status", "diagnose", "drift", "history"] {
        try_each(
            Operator::serving_twice,
            match verb {
                "status" => |operator| operator.deploy(&["status"], &[]),
                "diagnose" => |operator| operator.deploy(&["diagnose"], &[]),
                "drift" => |operator| operator.deploy(&["drift"], &[]),
                _ => |operator| operator.deploy(&["history"], &[]),
            },
        );
    }
}
