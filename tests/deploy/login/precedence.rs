//! Two sources of credentials in one profile: the one that botocore takes is taken.

use serde_json::json;
use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::{Home, keys};

/// What botocore takes, see `tests/emulators/precedence.py`.
const MODEL: &str = include_str!("../../emulators/precedence.tsv");
const SESSION: &str = "arn:aws:iam::111122223333:user/ann";

/// Returns the lines of a source in `~/.aws/config`.
fn lines(source: &str, home: &Home) -> Vec<String> {
    let sandbox = &home.operator.sandbox;
    match source {
        "role" => vec!["role_arn = arn:aws:iam::1:role/profile".into(), "source_profile = base".into()],
        "token" => vec![
            "role_arn = arn:aws:iam::1:role/profile".into(),
            format!("web_identity_token_file = {}", sandbox.at("token")),
        ],
        "sso" => ["sso_session = corp", "sso_account_id = 111122223333", "sso_role_name = Deployer"]
            .map(str::to_owned)
            .into(),
        "login" => vec![format!("login_session = {SESSION}")],
        "process" => vec![format!("credential_process = cat {}", sandbox.at("printed"))],
        "config" => vec!["aws_access_key_id = AKIACONFIG".into(), "aws_secret_access_key = canary".into()],
        _ => vec![],
    }
}

/// Writes what each source needs beside the profile.
fn prepare(home: &Home) {
    let sandbox = &home.operator.sandbox;
    let _ = sandbox.write("token", "canary-jwt\n");
    let printed = json!({ "Version": 1, "AccessKeyId": "AKIAPROCESS", "SecretAccessKey": "canary" });
    let _ = sandbox.write("printed", printed.to_string());
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let token = json!({ "accessToken": "canary-token", "expiresAt": "2100-01-01T00:00:00Z" });
    home.write(&format!("sso/cache/{}.json", hex(&Sha1::digest("corp"))), &token.to_string());
    let held = json!({ "accessToken": { "accessKeyId": "AKIALOGIN", "secretAccessKey": "canary-secret",
                                        "sessionToken": "canary-token", "expiresAt": "2100-01-01T00:00:00Z" } });
    home.write(&format!("login/cache/{}.json", hex(&Sha256::digest(SESSION))), &held.to_string());
}

/// Returns the source of the credentials that sign the calls of a command.
fn taken(home: &Home, way: &str, sources: [&str; 2]) -> String {
    let mut config = "[profile x]\n".to_owned();
    let mut all: Vec<String> = sources.iter().flat_map(|source| lines(source, home)).collect();
    all.sort();
    all.dedup();
    config += &(all.join("\n") + "\n[profile top]\nrole_arn = arn:aws:iam::1:role/top\nsource_profile = x\n");
    config += "[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.awsapps.com/start\n";
    home.write("config", &config);
    let mut credentials = "[base]\naws_access_key_id = AKIABASE\naws_secret_access_key = canary\n".to_owned();
    if sources.contains(&"credentials") {
        credentials += "[x]\naws_access_key_id = AKIACREDENTIALS\naws_secret_access_key = canary\n";
    }
    home.write("credentials", &credentials);
    let token = home.operator.sandbox.at("token");
    let mut variables = vec![];
    if sources.contains(&"environment") {
        variables.extend([("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT"), ("AWS_SECRET_ACCESS_KEY", "canary")]);
    }
    if sources.contains(&"environment-token") {
        variables
            .extend([("AWS_WEB_IDENTITY_TOKEN_FILE", &*token), ("AWS_ROLE_ARN", "arn:aws:iam::1:role/environment")]);
    }
    let arguments: &[&str] = match way {
        "option" => &["status", "--profile", "x"],
        "source" => &["status", "--profile", "top"],
        _ => {
            variables.push(("AWS_PROFILE", "x"));
            &["status"]
        }
    };
    let finished = home.run(arguments, &variables);
    let signed = keys(&home.operator.calls()).pop().unwrap_or_else(|| panic!("{way} {sources:?}: {}", finished.stderr));
    let asked = home.provider.take();
    // The last of them is the role of `top`.
    let first = asked.first();
    let named =
        first.map(|first| (&*first.operation, first.members.get("RoleArn").map_or("", String::as_str), &*first.key));
    match named {
        Some(("GetRoleCredentials", ..)) => "sso".into(),
        Some(("AssumeRoleWithWebIdentity", "arn:aws:iam::1:role/environment", _)) => "environment-token".into(),
        Some(("AssumeRoleWithWebIdentity", ..)) => "token".into(),
        Some(("AssumeRole", "arn:aws:iam::1:role/profile", _)) => "role".into(),
        Some((_, _, key)) => key.trim_start_matches("AKIA").to_lowercase(),
        None => signed.trim_start_matches("AKIA").to_lowercase(),
    }
}

#[test]
fn of_two_sources_the_one_that_the_aws_cli_takes_is_taken() {
    let home = Home::new("");
    prepare(&home);
    let mut wrong = vec![];
    for line in MODEL.lines().filter(|line| !line.starts_with('#')) {
        let [way, one, other, model]: [&str; 4] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let taken = taken(&home, way, [one, other]);
        if taken != model {
            wrong.push(format!("{way}: of {one} and {other}, {taken} and not {model}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
