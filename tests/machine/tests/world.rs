//! The world is as strict as EC2: it refuses everything that EC2 would refuse.

use anyhow::Result;
use machine::{Fault, Machine, Options};

const TOKEN: &str =
    "curl -fsS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token";
const CREDENTIALS: &str = "http://169.254.169.254/latest/meta-data/iam/security-credentials";

/// A signed request for an object, by the role's credentials. $TOKEN is the session token.
const S3: &str = r#"
    t=$(TOKEN); role=$(curl -fsS -H "X-aws-ec2-metadata-token: $t" CREDENTIALS/)
    c=$(curl -fsS -H "X-aws-ec2-metadata-token: $t" CREDENTIALS/$role)
    field() { echo "$c" | sed 's/.*"'$1'":"\([^"]*\)".*/\1/'; }
    SESSION=$(field Token)
    s3() { curl -sS -w '%{http_code}' -o /tmp/object --aws-sigv4 "aws:amz:eu-central-1:s3" -H "x-amz-security-token: $SESSION" \
        --user "$(field AccessKeyId):$(field SecretAccessKey)" -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' "$@"; }
"#;

fn status(machine: &Machine, curl: &str) -> Result<String> {
    machine.sh(&format!("curl -s -o /dev/null -w '%{{http_code}}' {curl}"))
}

fn s3(machine: &Machine, script: &str) -> Result<String> {
    machine.sh(&(S3.replace("TOKEN)", &format!("{TOKEN})")).replace("CREDENTIALS", CREDENTIALS) + script))
}

#[test]
fn metadata_only_with_a_token() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    let region = "http://169.254.169.254/latest/meta-data/placement/region";
    assert_eq!(status(&machine, region)?, "401");
    assert_eq!(status(&machine, &format!("-H 'X-aws-ec2-metadata-token: made-up' {region}"))?, "401");
    assert_eq!(machine.sh(&format!("curl -fsS -H \"X-aws-ec2-metadata-token: $({TOKEN})\" {region}"))?, "eu-central-1");
    assert_eq!(status(&machine, "-X PUT http://169.254.169.254/latest/api/token")?, "400");
    let through_a_proxy = "-X PUT -H 'X-Forwarded-For: 1.2.3.4' -H 'X-aws-ec2-metadata-token-ttl-seconds: 60'";
    assert_eq!(status(&machine, &format!("{through_a_proxy} http://169.254.169.254/latest/api/token"))?, "403");
    Ok(())
}

#[test]
fn objects_only_for_the_role_and_signed() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    let host = "https://glovo-config.s3.eu-central-1.amazonaws.com";
    assert_eq!(status(&machine, &format!("{host}/nginx/default"))?, "403");
    assert_eq!(
        s3(&machine, &format!("s3 {host}/nginx/default; cmp -s /tmp/object /dev/null || printf ' and bytes'"))?,
        "200 and bytes"
    );
    assert_eq!(s3(&machine, "s3 https://s3.eu-central-1.amazonaws.com/glovo-config/nginx/default")?, "200");
    assert_eq!(s3(&machine, &format!("s3 {host}/no/such/key"))?, "404");
    assert_eq!(s3(&machine, &format!("s3 --upload-file /etc/hostname {host}/nginx/default"))?, "403");
    assert_eq!(s3(&machine, "s3 https://glovo-private.s3.eu-central-1.amazonaws.com/nginx/default")?, "403");
    assert_eq!(s3(&machine, &format!("SESSION=stolen; s3 {host}/nginx/default"))?, "400");
    let wrong_key = S3.replace("field SecretAccessKey", "echo wrong");
    let wrong_key = wrong_key.replace("TOKEN)", &format!("{TOKEN})")).replace("CREDENTIALS", CREDENTIALS);
    assert_eq!(machine.sh(&(wrong_key + &format!("s3 {host}/nginx/default")))?, "403");
    Ok(())
}

#[test]
fn nothing_beyond_it_has_a_name_or_an_answer() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    assert_eq!(machine.exec(&["getent", "hosts", "example.com"])?.code, 2);
    assert_eq!(machine.exec(&["ping", "-c1", "-W1", "1.1.1.1"])?.code, 1);
    assert_eq!(status(&machine, "http://origin.test/no-such-file")?, "404");
    Ok(())
}

#[test]
fn faults_happen_as_often_as_asked_and_requests_are_noted() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    let world = machine.world();
    world.publish("origin.test/file", "twelve bytes");
    world.fault("^GET origin.test/file$", 1, Fault::status(503));
    world.fault("^GET origin.test/file$", 1, Fault::Truncate(6));
    world.fault("^GET origin.test/file$", 1, Fault::Drop);
    let curl = "curl -s http://origin.test/file || echo \" $?\"";
    assert_eq!(status(&machine, "http://origin.test/file")?, "503");
    assert_eq!(machine.sh(curl)?.trim(), "twelve 18");
    assert_eq!(machine.sh(curl)?.trim(), "52");
    assert_eq!(machine.sh(curl)?, "twelve bytes");
    let noted = world.requests().into_iter().filter(|request| request.path == "/file").map(|request| request.status);
    assert_eq!(noted.collect::<Vec<_>>(), [503, 200, 0, 200]);
    Ok(())
}
