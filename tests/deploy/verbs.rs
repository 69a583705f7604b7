//! The verbs of `deploy` on the command line. Each takes the flags that it uses.

use crate::operator::Operator;

pub const VERBS: [&str; 12] = [
    "create-stack",
    "update-stack",
    "plan",
    "watch",
    "status",
    "rollback",
    "release",
    "diagnose",
    "drift",
    "history",
    "render",
    "delete-stack",
];

#[test]
fn a_flag_without_a_meaning_for_the_verb_is_refused() {
    let operator = Operator::serving();
    for (verb, flag) in [
        ("status", "--shift=10,100"),
        ("diagnose", "--yes"),
        ("history", "--poll=1s"),
        ("rollback", "--bucket=b"),
        ("delete-stack", "--build=1"),
        ("plan", "--output-dir=."),
        ("render", "--subnets=subnet-a"),
    ] {
        let name = flag.split('=').next().unwrap_or_default();
        let refused = operator.deploy(&[verb, flag], &[]).expect(2);
        let _ = refused.says(&format!("unexpected argument '{name}' found"));
    }
    assert!(operator.calls().is_empty());
}

#[test]
fn help_of_a_verb_shows_its_flags_only() {
    let operator = Operator::new();
    let help = |verb: &str| operator.deploy(&[verb, "--help"], &[]).expect(0).stdout;
    assert!(help("update-stack").contains("--shift") && help("rollback").contains("--build"));
    for (verb, flag) in [("rollback", "--shift"), ("status", "--yes"), ("plan", "--output-dir"), ("render", "--json")] {
        assert!(!help(verb).contains(flag), "{verb} {flag}");
    }
}

#[test]
fn the_verb_may_follow_flags_or_minus_t() {
    let operator = Operator::serving();
    let wanted = operator.deploy(&["status"], &[]).expect(0).stdout;
    for arguments in [
        &["-t", "status"][..],
        &["--stack", "glovo-app", "-t", "status"],
        &["--json", "--task=status"],
        &["--stack=glovo-app", "status"],
    ] {
        let shown = operator.deploy(arguments, &[]).expect(0).stdout;
        assert!(shown == wanted || arguments.contains(&"--json"), "{arguments:?}: {shown}");
    }
    let _ = operator.deploy(&["-t", "destroy"], &[]).expect(2).says("unrecognized subcommand 'destroy'");
}

#[test]
fn completions_know_every_verb() {
    let operator = Operator::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = operator.sandbox.run(&["completions", shell]).expect(0).stdout;
        assert!(VERBS.iter().all(|verb| script.contains(verb)), "{shell}");
    }
}
