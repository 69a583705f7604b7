//! S3's refusals: each has its own message, and none contains a secret.

use std::fs;

use anyhow::{Result, ensure};
use machine::{Fault, Machine, Options, Output, SECRETS};

const OBJECT: &str = "^GET glovo-config.s3.eu-central-1.amazonaws.com/nginx/default";

fn fetch(machine: &Machine, source: &str, environment: &[&str]) -> Result<Output> {
    let manifest =
        format!("name = \"s3\"\n[[resource]]\nkind = \"file\"\npath = \"/root/object\"\nsource = \"{source}\"\n");
    fs::write(machine.path("/root/s3.toml"), manifest)?;
    let agent = ["/usr/local/bin/glovo-bootstrap", "--verbose", "run", "--steps", "/root/s3.toml"];
    machine.exec(&[&["env"], environment, &agent].concat())
}

/// An answer as S3 gives it.
fn refusal(status: u16, code: &str, headers: &[(&'static str, &str)]) -> Fault {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>");
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned()));
    Fault::Answer { status, headers: headers.collect(), body: body.into() }
}

#[test]
fn each_refusal_has_its_own_words_and_exit_code() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    let object = "s3://glovo-config/nginx/default";
    let skewed = ("date", "Sun, 06 Nov 2044 08:49:37 GMT");
    let no_role = ("^GET 169.254.169.254/latest/meta-data/iam/security-credentials", Fault::status(404));
    // The source, a fault for requests like this, the exit code, the words.
    type Refusal<'a> = (&'a str, Option<(&'a str, Fault)>, i32, &'a [&'a str]);
    let refusals: [Refusal<'_>; 6] = [
        (
            "s3://glovo-private/nginx/default",
            None,
            1,
            &[
                "the instance's role glovo-instance-role is not allowed s3:GetObject on arn:aws:s3:::glovo-private/nginx/default",
                "AccessDenied",
                "s3:ListBucket on arn:aws:s3:::glovo-private",
            ],
        ),
        ("s3://glovo-config/no/such", None, 1, &["the bucket glovo-config has no object no/such", "NoSuchKey"]),
        (object, Some((OBJECT, refusal(404, "NoSuchBucket", &[]))), 1, &["there is no bucket glovo-config"]),
        (
            object,
            Some(no_role),
            1,
            &["this instance has no instance profile", "s3:GetObject on arn:aws:s3:::glovo-config/*"],
        ),
        (
            object,
            Some((OBJECT, refusal(403, "RequestTimeTooSkewed", &[skewed]))),
            1,
            &["this machine's clock is ", " s behind AWS's", "timedatectl"],
        ),
        (
            object,
            Some((OBJECT, refusal(403, "InvalidAccessKeyId", &[]))),
            1,
            &["S3 does not accept the credentials of the instance's role glovo-instance-role"],
        ),
    ];
    for (source, fault, code, words) in refusals {
        if let Some((pattern, fault)) = fault {
            machine.world().fault(pattern, 100, fault);
        }
        let run = fetch(&machine, source, &[])?;
        machine.world().clear_faults();
        let said = format!("{}{}", run.stdout, run.stderr);
        for word in words {
            ensure!(said.contains(word), "`{word}` is not in\n{said}");
        }
        ensure!(run.code == code, "exit code {}, not {code}:\n{said}", run.code);
        ensure!(!machine.path("/root/object").exists(), "{source} left a file");
        gives_nothing_away(&machine, &said)?;
    }
    fetch(&machine, object, &[])?.success()?;
    only_with_a_token(&machine)
}

#[test]
fn a_deadline_says_what_was_waited_for() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    machine.world().fault(OBJECT, usize::MAX, refusal(503, "SlowDown", &[]));
    let manifest = "name = \"s3\"\n[[resource]]\nkind = \"file\"\npath = \"/root/object\"\ntimeout = \"10s\"\n\
                    source = \"s3://glovo-config/nginx/default\"\n";
    fs::write(machine.path("/root/s3.toml"), manifest)?;
    let run = machine.exec(&["/usr/local/bin/glovo-bootstrap", "run", "--steps", "/root/s3.toml"])?;
    let said = format!("{}{}", run.stdout, run.stderr);
    ensure!(run.code == 75 && said.contains("failed: S3 answered 503 (S3: SlowDown"), "{said}");
    // A pause that would outlast the deadline is not begun.
    let is_in_time = said.contains("timed out after 10.0 s") || said.contains("left, but the next attempt is due in");
    ensure!(is_in_time && said.contains("waiting "), "{said}");
    gives_nothing_away(&machine, &said)
}

#[test]
fn a_bucket_elsewhere_is_followed_once_and_retries_succeed() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    let elsewhere = refusal(301, "PermanentRedirect", &[("x-amz-bucket-region", "eu-central-1")]);
    let path_style = "^GET s3.amazonaws.com/glovo-config/nginx/default";
    machine.world().fault(path_style, 1, elsewhere);
    machine.world().fault(path_style, 1, refusal(503, "SlowDown", &[("retry-after", "0")]));
    // The world accepts only what is signed for its own region.
    let environment = ["AWS_ENDPOINT_URL_S3=http://s3.amazonaws.com", "AWS_REGION=us-west-2"];
    let run = fetch(&machine, "s3://glovo-config/nginx/default", &environment)?;
    let said = format!("{}{}", run.stdout, run.stderr);
    gives_nothing_away(&machine, &said)?;
    run.success()?;
    let requests = machine.world().requests();
    let asked = requests.iter().filter(|request| request.line().starts_with("GET s3.amazonaws.com/"));
    assert_eq!(asked.map(|request| request.status).collect::<Vec<_>>(), [301, 503, 200]);
    machine.sh("grep -q proxy_pass /root/object")?;
    only_with_a_token(&machine)
}

#[test]
fn all_below_a_prefix_is_fetched_with_the_instance_s_role() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    let fetch = |prefix| machine.exec(&["/usr/local/bin/glovo-bootstrap", "fetch", "-r", "-o", "/root/got", prefix]);
    let run = fetch("s3://glovo-config/")?;
    let files = machine.sh("cd /root/got && find -type f | sort")?;
    ensure!(files == "./nginx/default\n./systemd/glovo-app.service\n", "{files}\n{}", run.stderr);
    run.success()?;
    machine.sh("grep -q proxy_pass /root/got/nginx/default")?;
    let run = fetch("s3://glovo-private/")?;
    let denial = "the instance's role glovo-instance-role is not allowed s3:ListBucket on arn:aws:s3:::glovo-private";
    ensure!(run.code == 1 && run.stderr.contains(denial), "{}", run.stderr);
    ensure!(!SECRETS.iter().any(|secret| run.stderr.contains(secret)), "a secret is in\n{}", run.stderr);
    only_with_a_token(&machine)
}

fn gives_nothing_away(machine: &Machine, said: &str) -> Result<()> {
    let kept = machine.sh("cat /var/lib/glovo-bootstrap/*.json; journalctl --no-pager --output=export")?;
    for secret in SECRETS {
        ensure!(!said.contains(secret) && !kept.contains(secret), "a secret is in\n{said}");
    }
    Ok(())
}

/// Every request to the metadata service had a token: it answers 401 without one.
fn only_with_a_token(machine: &Machine) -> Result<()> {
    let metadata = machine.world().requests().into_iter().filter(|request| request.host == "169.254.169.254");
    let statuses: Vec<u16> = metadata.map(|request| request.status).collect();
    ensure!(statuses.contains(&200) && !statuses.contains(&401), "{statuses:?}");
    Ok(())
}

#[test]
fn a_metadata_service_that_is_not_ec2s_is_not_asked() -> Result<()> {
    if fs::read_to_string("/sys/class/dmi/id/sys_vendor").is_ok_and(|vendor| vendor.starts_with("Amazon EC2")) {
        eprintln!("not tested: on an EC2 instance a container sees EC2's firmware");
        return Ok(());
    }
    let machine = Machine::boot(Options::default())?;
    let distrustful = ["env", "--unset=GLOVO_BOOTSTRAP_TRUST_METADATA"];
    let refused = fetch(&machine, "s3://glovo-config/nginx/default", &distrustful[1..])?;
    let said = refused.stdout + &refused.stderr;
    ensure!(refused.code == 1 && said.contains("the firmware (DMI) does not say EC2"), "{said}");
    ensure!(said.contains("GLOVO_BOOTSTRAP_TRUST_METADATA=1"), "{said}");
    fs::write(
        machine.path("/root/id.toml"),
        "name = \"id\"\n[[resource]]\nkind = \"link\"\npath = \"/l\"\ntarget = \"{{ instance.id }}\"\n",
    )?;
    let plan = ["/usr/local/bin/glovo-bootstrap", "plan", "--steps", "/root/id.toml"];
    let refused = machine.exec(&[&distrustful[..], &plan].concat())?;
    ensure!(refused.code == 2 && refused.stderr.contains("the firmware (DMI) does not say EC2"), "{refused:?}");
    let asked = || machine.world().requests().iter().any(|request| request.host == "169.254.169.254");
    ensure!(!asked(), "it was asked");

    // The operator's own word: an endpoint, or trust.
    let endpoint = "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://169.254.169.254";
    machine.exec(&[&distrustful[..], &[endpoint], &plan].concat())?.success()?;
    machine.exec(&plan)?.success()?;
    ensure!(asked(), "it was not asked");
    Ok(())
}
