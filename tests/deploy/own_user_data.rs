//! User-data that signals by itself, so that CloudFormation does not wait in vain: the operator's own, and the agent's if the
//! agent cannot be started.

use std::{
    process::{Command, Output},
    sync::{Arc, Mutex},
};

use crate::{
    operator::Operator,
    server::{Reply, Server},
};

/// Target and authorization of each request for a signal.
type Signals = Vec<(String, String)>;

/// Answers as the metadata service and as CloudFormation, which refuses with these codes first; keeps what it was asked.
fn aws(signals: &Arc<Mutex<Signals>>, refusals: &[&'static str]) -> Server {
    let (signals, refusals) = (signals.clone(), refusals.to_vec());
    Server::start(move |request| {
        let target = request.target.as_str();
        let answer = match target.rsplit('/').next().unwrap_or_default() {
            "token" => "token",
            "document" => "{\"region\": \"eu-central-1\", \"instanceId\": \"i-1\"}",
            "signature" => "c2ln\nbmF0dXJl\n",
            "domain" => "amazonaws.com",
            _ => {
                if !request.target.contains("SignalResource") {
                    return Reply::new(404, "");
                }
                let mut signals = signals.lock().unwrap();
                signals.push((target.into(), request.authorization.clone()));
                if let Some(code) = refusals.get(signals.len() - 1) {
                    return Reply::new(400, format!("{{\"Error\":{{\"Code\":\"{code}\",\"Message\":\"no\"}}}}"));
                }
                "{}"
            }
        };
        Reply::ok(answer)
    })
}

/// Runs a script as own user-data in this directory in place of /root, without pauses. Returns the requests for a signal.
fn run(operator: &Operator, script: &str, root: &str, refusals: &[&'static str]) -> (Output, Signals) {
    let own = operator.sandbox.write("own", script);
    let _ = operator.deploy(&["render"], &[("CLOUD_INIT_PATH", &own)]).expect(0);
    run_rendered(operator, |text| text.replace("/root/", root), refusals)
}

/// Runs the user-data that `render` wrote, as `change` makes it, without pauses. Returns the requests for a signal.
fn run_rendered(
    operator: &Operator,
    change: impl Fn(String) -> String,
    refusals: &[&'static str],
) -> (Output, Signals) {
    let signals = Arc::default();
    let server = aws(&signals, refusals);
    let text = change(std::fs::read_to_string(operator.sandbox.at("user-data")).unwrap());
    let text = text.replace("http://169.254.169.254", &server.url(""));
    let text = text.replace("https://cloudformation.", &server.url("/")).replace("for w in 5,10,", "for w in 0,0,");
    let framed = operator.sandbox.write("framed", text);
    let ran = Command::new("sh").arg(framed).output().unwrap();
    drop(server);
    let signals = signals.lock().unwrap().clone();
    (ran, signals)
}

#[test]
fn the_exit_code_of_own_user_data_is_signalled() {
    let scripts = [("#!/bin/sh\necho \"it's $((40 + 2)) @x@\"\n", "SUCCESS", 0), ("#!/bin/sh\nexit 7", "FAILURE", 7)];
    for (script, status, code) in scripts {
        let operator = Operator::new();
        let (ran, signals) = run(&operator, script, &operator.sandbox.at(""), &[]);
        let own = [("CLOUD_INIT_PATH", &*operator.sandbox.at("own"))];
        let _ = operator.deploy(&["plan"], &own).expect(0).says("run your user-data once, and signal its exit code");
        assert_eq!(ran.status.code(), Some(code), "{ran:?}");
        assert!(code > 0 || ran.stdout == b"it's 42 @x@\n", "{ran:?}");
        let [(target, authorization)] = &*signals else { panic!("{signals:?} {ran:?}") };
        assert!(target.starts_with("/eu-central-1.amazonaws.com/?Action=SignalResource&"), "{target}");
        for words in ["LogicalResourceId=BlueGroup", "StackName=glovo-app", &format!("Status={status}"), "UniqueId=i-1"]
        {
            assert!(target.contains(words), "{words}: {target}");
        }
        let document = "eyJyZWdpb24iOiAiZXUtY2VudHJhbC0xIiwgImluc3RhbmNlSWQiOiAiaS0xIn0=";
        assert_eq!(*authorization, format!("CFN_V1 {document}:c2lnbmF0dXJl"));
    }
}

#[test]
fn a_throttled_signal_is_sent_again() {
    // CloudFormation throttles with 400, too.
    for (refusals, requests) in [(&["Throttling", "Throttling"][..], 3), (&["ValidationError"], 1)] {
        let operator = Operator::new();
        let (ran, signals) = run(&operator, "#!/bin/sh\n", &operator.sandbox.at(""), refusals);
        assert_eq!(signals.len(), requests, "{refusals:?} {ran:?}");
        assert_eq!(ran.status.code(), Some(0), "{ran:?}");
        assert!(String::from_utf8_lossy(&ran.stdout).contains(refusals[0]), "{ran:?}");
    }
}

#[test]
fn own_user_data_that_cannot_be_written_is_signalled_as_failed() {
    let operator = Operator::new();
    let (ran, signals) = run(&operator, "#!/bin/sh\n", "/missing/", &[]);
    let [(target, _)] = &*signals else { panic!("{signals:?} {ran:?}") };
    assert!(target.contains("Status=FAILURE"), "{target}");
    assert_ne!(ran.status.code(), Some(0), "{ran:?}");
}

#[test]
fn an_agent_that_cannot_be_started_is_signalled_as_failed() {
    for (strategy, resource) in [("blue-green", "BlueGroup"), ("compatible", "Group")] {
        for baked in [false, true] {
            let operator = Operator::new();
            let render = operator.with_agent(&["render", "--strategy", strategy]);
            let mut render: Vec<&str> = render.iter().map(String::as_str).collect();
            if baked {
                render.push("--baked");
            }
            let environment = [("CLOUD_INIT_PATH", ""), ("AMIID", "ami-0123456789abcdef0")];
            let _ = operator.deploy(&render, &environment).expect(0);
            let directory = operator.sandbox.at("");
            let elsewhere = |text: String| {
                text.replace("to=/usr/local/bin/", &format!("to={directory}")).replace("1 2 4 8 16 30 60 0", "0")
            };
            let (ran, signals) = run_rendered(&operator, elsewhere, &[]);
            let [(target, _)] = &*signals else { panic!("{signals:?} {ran:?}") };
            for words in [&format!("LogicalResourceId={resource}"), "StackName=glovo-app", "Status=FAILURE"] {
                assert!(target.contains(words), "{words}: {target}");
            }
            assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        }
    }
}

#[test]
fn user_data_that_must_signal_by_itself_is_told() {
    let operator = Operator::new();
    let own = operator.sandbox.write("own", "#cloud-config\nruncmd: []\n");
    let _ = operator.deploy(&["plan"], &[("CLOUD_INIT_PATH", &own)]).expect(0).says("must signal by itself");
    // A parameter has less room.
    let own = operator.sandbox.write("own", format!("#!/bin/sh\n# {}\n", "x".repeat(2900)));
    let _ = operator.deploy(&["plan"], &[("CLOUD_INIT_PATH", &own)]).expect(0).says("signal its exit code");
    let compatible = ["plan", "--strategy", "compatible"];
    let _ = operator.deploy(&compatible, &[("CLOUD_INIT_PATH", &own)]).expect(0).says("must signal by itself");
}
