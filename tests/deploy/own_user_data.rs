//! User-data of the operator's own: what `deploy` adds to it, so that CloudFormation does not wait in vain.

use std::{
    process::Command,
    sync::{Arc, Mutex},
};

use crate::{
    operator::Operator,
    server::{Reply, Server},
};

/// Answers as the metadata service and as CloudFormation; keeps what CloudFormation was asked.
fn aws(signals: &Arc<Mutex<Vec<(String, String)>>>) -> Server {
    let signals = signals.clone();
    Server::start(move |request| {
        let target = request.target.as_str();
        let answer = match target.rsplit('/').next().unwrap_or_default() {
            "token" => "token",
            "document" => "{\"region\": \"eu-central-1\", \"instanceId\": \"i-1\"}",
            "signature" => "c2ln\nbmF0dXJl\n",
            "domain" => "amazonaws.com",
            _ => {
                signals.lock().unwrap().push((target.into(), request.authorization.clone()));
                "{}"
            }
        };
        Reply::ok(answer)
    })
}

#[test]
fn the_exit_code_of_own_user_data_is_signalled() {
    let scripts = [("#!/bin/sh\necho \"it's $((40 + 2)) @x@\"\n", "SUCCESS", 0), ("#!/bin/sh\nexit 7", "FAILURE", 7)];
    for (script, status, code) in scripts {
        let operator = Operator::new();
        let own = operator.sandbox.write("own", script);
        let own = [("CLOUD_INIT_PATH", &*own)];
        let _ = operator.deploy(&["render"], &own).expect(0);
        let _ = operator.deploy(&["plan"], &own).expect(0).says("run your user-data once, and signal its exit code");
        let signals = Arc::default();
        let server = aws(&signals);
        let text = std::fs::read_to_string(operator.sandbox.at("user-data")).unwrap();
        let text = text.replace("http://169.254.169.254", &server.url(""));
        let text =
            text.replace("https://cloudformation.", &server.url("/")).replace("/root/", &operator.sandbox.at(""));
        let framed = operator.sandbox.write("framed", text);
        let ran = Command::new("sh").arg(framed).output().unwrap();
        assert_eq!(ran.status.code(), Some(code), "{ran:?}");
        assert!(code > 0 || ran.stdout == b"it's 42 @x@\n", "{ran:?}");
        let signals = signals.lock().unwrap();
        let [(target, authorization)] = &**signals else { panic!("{signals:?} {ran:?}") };
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
