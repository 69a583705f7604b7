//! A metadata service that this machine's firewall blocks, and answers that must not appear in any output.

use std::process::Command;

use crate::{
    sandbox::{Finished, Sandbox},
    server::{Reply, Server},
};

/// The binary where this script has set the network and the mounts up.
fn within(sandbox: &Sandbox, script: &str, arguments: &[&str]) -> Finished {
    let inner = sandbox.command(arguments);
    let mut command = Command::new("unshare");
    let script = format!("mount --make-rprivate / && ip link set lo up && {script} && exec \"$@\"");
    let _ = command.args(["--net", "--mount", "sh", "-c", &script, "sh"]).arg(inner.get_program());
    let _ = command.args(inner.get_args());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        let _ = command.env_remove(name);
    }
    let _ = command.env("HOME", &sandbox.path).env("GLOVO_BOOTSTRAP_TRUST_METADATA", "1");
    Finished::from(command.output().expect("unshare, as root"))
}

#[test]
fn a_metadata_service_that_is_forbidden_here_is_named_at_once() {
    let sandbox = Sandbox::new();
    let file = sandbox.manifest("[[resource]]\nkind = \"link\"\npath = \"/none/x\"\ntarget = \"{{ instance.id }}\"\n");
    let output = sandbox.at("fetched");
    let prohibit = "ip route add prohibit 169.254.169.254/32";
    let with_imdsd = format!(
        "{prohibit} && mount -t tmpfs none /run && mkdir /run/systemd && : > /run/systemd/io.systemd.InstanceMetadata"
    );
    for (code, arguments) in
        [(2, &["run", "--steps", &file][..]), (1, &["fetch", "s3://bucket/key", "--output-dir", &output])]
    {
        for (script, hint) in [
            (prohibit, "a rule on this machine forbids it"),
            (&with_imdsd, "systemd-imdsd keeps the service to itself"),
        ] {
            let finished = within(&sandbox, script, arguments).expect(code).says("Permission denied (os error 13)");
            let finished = finished.says("this machine does not let this program reach the instance metadata service");
            let finished = finished.says(hint);
            let all = finished.stdout + &finished.stderr;
            assert!(!all.contains("HopLimit") && !all.contains("attempt 1"), "{all}");
        }
    }
}

#[test]
fn a_metadata_service_that_refuses_connections_is_asked_once() {
    let sandbox = Sandbox::new();
    let file = sandbox.manifest("[[resource]]\nkind = \"link\"\npath = \"/none/x\"\ntarget = \"{{ instance.id }}\"\n");
    let mut command = sandbox.command(&["run", "--steps", &file]);
    let _ = command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1/");
    let finished = Finished::from(command.output().unwrap()).expect(2).says("Connection refused (os error 111)");
    let all = finished.stdout + &finished.stderr;
    assert!(!all.contains("HopLimit") && !all.contains("attempt 1"), "{all}");
}

#[test]
fn no_log_level_shows_a_token_or_a_key_of_the_metadata_service() {
    let canaries = ["canary-imds-token", "ASIACANARYKEYID", "canary-secret-access-key", "canary-session-token"];
    let credentials = serde_json::json!({
        "Code": "Success", "LastUpdated": "2026-01-01T00:00:00Z", "Type": "AWS-HMAC", "AccessKeyId": canaries[1],
        "SecretAccessKey": canaries[2], "Token": canaries[3], "Expiration": "2096-01-01T00:00:00Z",
    })
    .to_string();
    let server = Server::start(move |request| match request.target.split('?').next().unwrap_or_default() {
        "/latest/api/token" => {
            Reply { headers: "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n", ..Reply::ok("canary-imds-token") }
        }
        "/latest/meta-data/iam/security-credentials/" => Reply::ok("role"),
        "/latest/meta-data/iam/security-credentials/role" => Reply::ok(credentials.clone()),
        "/bucket/key" => Reply::ok("object"),
        _ => Reply::new(404, ""),
    });
    let sandbox = Sandbox::new();
    for level in
        ["trace", "aws_config=trace,aws_smithy_runtime=trace,aws_sdk_s3=trace,aws_sigv4=trace", "hyper=trace,h2=trace"]
    {
        let output = sandbox.at("fetched");
        let mut command = sandbox.command(&["--verbose", "fetch", "s3://bucket/key", "--output-dir", &output]);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            let _ = command.env_remove(name);
        }
        let _ = command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url("/")).env("HOME", &sandbox.path);
        let _ = command.env("AWS_ENDPOINT_URL", server.url("")).env("AWS_REGION", "eu-central-1");
        let finished = Finished::from(command.env("GLOVO_BOOTSTRAP_LOG", level).output().unwrap()).expect(0);
        let all = finished.stdout + &finished.stderr;
        for canary in canaries {
            assert!(!all.contains(canary), "{canary} at {level}:\n{all}");
        }
        std::fs::remove_dir_all(output).unwrap();
    }
    let signed = server.requests();
    assert!(signed.iter().any(|request| request.authorization.contains("Credential=ASIACANARYKEYID/")), "{signed:?}");
}
