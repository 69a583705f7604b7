//! Profiles that log in by IAM Identity Center.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::{Home, keys};
use crate::{
    operator::Operator,
    tape::{Turn, names},
};

const CONFIG: &str = "[profile dev]\nsso_session = corp\nsso_account_id = 111122223333\nsso_role_name = Deployer\n\
                      [sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.awsapps.com/start\n\
                      sso_registration_scopes = sso:account:access\n";

/// Returns the name of the file of a session, or of a start URL in the old form.
fn file(key: &str) -> String {
    use sha1::{Digest, Sha1};
    let digest: String = Sha1::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();

    format!("sso/cache/{digest}.json")
}

fn token(expires_at: &str, registration_expires_at: &str) -> Value {
    json!({ "startUrl": "https://corp.awsapps.com/start", "region": "eu-west-1", "accessToken": "canary-token",
            "expiresAt": expires_at, "clientId": "client", "clientSecret": "canary-client",
            "registrationExpiresAt": registration_expires_at, "refreshToken": "canary-refresh", "future": [1] })
}

/// Returns a home with the session `corp` and its token.
fn logged_in(token: &Value) -> Home {
    let home = Home::new(CONFIG);
    home.write(&file("corp"), &token.to_string());
    home
}

#[test]
fn a_profile_with_an_sso_session_signs_with_its_role() {
    let home = logged_in(&token("2100-01-01T00:00:00Z", "2100-01-01T00:00:00Z"));
    home.serves("dev", "ASIASSO1");
    let asked = home.provider.take();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let portal = &asked[0];
    assert_eq!((&*portal.operation, &*portal.token), ("GetRoleCredentials", "canary-token"));
    assert_eq!((&*portal.members["role_name"], &*portal.members["account_id"]), ("Deployer", "111122223333"));
    // The variable chooses it, too.
    let _ = home.run(&["status"], &[("AWS_PROFILE", "dev")]).expect(0);
    assert_eq!(keys(&home.operator.calls()), ["ASIASSO2"]);
    // The option comes before the environment, and the environment before its own choice of a profile.
    let environment = [("AWS_PROFILE", "dev"), ("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "x")];
    let _ = home.run(&["status"], &environment).expect(0);
    assert_eq!(keys(&home.operator.calls()), ["AKIAENV"]);
}

#[test]
fn the_old_form_of_sso_profiles_works_without_a_session() {
    let config = "[profile old]\nsso_start_url = https://old.awsapps.com/start\nsso_region = eu-west-1\n\
                  sso_account_id = 111122223333\nsso_role_name = Deployer\n";
    let home = Home::new(config);
    let file = file("https://old.awsapps.com/start");
    home.write(&file, &json!({ "accessToken": "canary-token", "expiresAt": "2100-01-01T00:00:00UTC" }).to_string());
    home.serves("old", "ASIASSO1");
    home.write(&file, &json!({ "accessToken": "canary-token", "expiresAt": "2001-01-01T00:00:00UTC" }).to_string());
    home.fails(
        "old",
        77,
        "error: asking for cloudformation DescribeStacks
caused by: the AWS profile old logs in by IAM Identity Center, and has a token that has expired
caused by: the token in ",
    );
}

#[test]
fn a_token_that_expires_is_renewed_in_its_file() {
    let home = logged_in(&token("2001-01-01T00:00:00Z", "2100-01-01T00:00:00Z"));
    home.serves("dev", "ASIASSO1");
    let asked = home.provider.take();
    let [renewal, portal] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((&*renewal.operation, &*renewal.members["grantType"]), ("CreateToken", "refresh_token"));
    assert_eq!(
        (&*renewal.members["clientSecret"], &*renewal.members["refreshToken"]),
        ("canary-client", "canary-refresh")
    );
    assert_eq!(portal.token, "canary-renewed");
    let saved: Value = serde_json::from_str(&home.read(&file("corp"))).unwrap();
    assert_eq!(
        (&saved["accessToken"], &saved["refreshToken"]),
        (&"canary-renewed".into(), &"canary-next-refresh".into())
    );
    assert!(saved["expiresAt"].as_str() > Some("2026"), "{saved}");
    assert_eq!((&saved["clientId"], &saved["future"]), (&"client".into(), &json!([1])));
    let path = home.operator.sandbox.at(&format!(".aws/{}", file("corp")));
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    // The next command uses it as it is.
    home.serves("dev", "ASIASSO2");
    assert_eq!(home.provider.take().len(), 1);
}

#[test]
fn a_token_that_cannot_be_renewed_names_the_command() {
    let home = logged_in(&token("2001-01-01T00:00:00Z", "2001-01-01T00:00:00Z"));
    let hint = "hint: aws sso login --profile dev, then run the same command again";
    home.fails(
        "dev",
        77,
        "caused by: the AWS profile dev logs in by IAM Identity Center, and has a token that has expired",
    );
    home.fails("dev", 77, &format!("was valid until 2001-01-01T00:00:00Z, and nothing renews it\n{hint}"));
    assert_eq!(home.provider.take().len(), 0);
    let home = logged_in(&token("2001-01-01T00:00:00Z", "2100-01-01T00:00:00Z"));
    let grant = json!({ "error": "invalid_grant", "error_description": "Invalid refresh token provided" });
    home.provider.script([(400, grant)]);
    home.fails(
        "dev",
        77,
        &format!(
            "caused by: the token cannot be renewed
caused by: invalid_grant: Invalid refresh token provided (HTTP 400, request id none)
{hint}"
        ),
    );
    // The portal may refuse a token that looks valid.
    let home = logged_in(&token("2100-01-01T00:00:00Z", "2100-01-01T00:00:00Z"));
    let unauthorized = json!({ "message": "Session token not found or invalid",
                               "__type": "com.amazonaws.switchboard.portal#UnauthorizedException" });
    home.provider.script([(401, unauthorized)]);
    home.fails(
        "dev",
        77,
        &format!(
            "caused by: the AWS profile dev logs in by IAM Identity Center, and does not accept the token
caused by: UnauthorizedException: Session token not found or invalid (HTTP 401, request id none)
{hint}"
        ),
    );
}

#[test]
fn a_profile_without_a_login_names_the_command() {
    let home = Home::new(CONFIG);
    home.fails("dev", 77, "caused by: the AWS profile dev logs in by IAM Identity Center, and has no token");
    home.fails("dev", 77, ".json does not exist\nhint: aws sso login --profile dev, then run the same command again");
    for broken in ["", "[]", "canary", r#"{"accessToken": "canary"}"#, r#"{"expiresAt": "2100-01-01T00:00:00Z"}"#] {
        home.write(&file("corp"), broken);
        home.fails("dev", 77, "hint: aws sso login --profile dev, then run the same command again");
    }
}

#[test]
fn a_role_that_is_not_assigned_is_named() {
    let home = logged_in(&token("2100-01-01T00:00:00Z", "2100-01-01T00:00:00Z"));
    let forbidden = json!({ "message": "No access", "__type": "com.amazonaws.switchboard.portal#ForbiddenException" });
    home.provider.script([(403, forbidden)]);
    home.fails(
        "dev",
        1,
        "
caused by: IAM Identity Center gives no credentials of the role Deployer in the account 111122223333 (AWS profile dev)
caused by: ForbiddenException: No access (HTTP 403, request id none)
hint: check sso_account_id and sso_role_name, and that the role is assigned to you",
    );
}

#[test]
fn an_incomplete_sso_profile_says_what_it_lacks() {
    for (config, fault) in [
        (
            "[profile dev]\nsso_session = corp\nsso_account_id = 1\nsso_role_name = R\n",
            "there is no section [sso-session corp]",
        ),
        (
            "[profile dev]\nsso_session = corp\n[sso-session corp]\nsso_region = r\n",
            "neither sso_account_id nor sso_role_name",
        ),
        ("[profile dev]\nsso_account_id = 1\nsso_role_name = R\n", "IAM Identity Center, and no sso_start_url"),
        (
            "[profile dev]\nsso_account_id = 1\nsso_start_url = u\nsso_region = r\n",
            "IAM Identity Center, and no sso_role_name",
        ),
    ] {
        let home = Home::new(config);
        home.fails("dev", 2, fault);
        home.fails("dev", 2, "hint: correct it in ~/.aws/config");
    }
}

#[test]
fn credentials_that_expire_in_mid_deploy_are_renewed() {
    let home = logged_in(&token("2100-01-01T00:00:00Z", "2100-01-01T00:00:00Z"));
    home.operator.content("2");
    let expired = || Turn::Refusal(403, "ExpiredToken", "The security token included in the request is expired");
    home.operator.tape.script("ModifyListener", [Turn::Usual, expired()]);
    home.operator.tape.script("DescribeStackEvents", [Turn::Usual, Turn::Usual, expired()]);
    let arguments = ["update-stack", "--yes", "--pause", "0s", "--profile", "dev"];
    let _ = home.run(&arguments, &[("BUILD_NUMBER", "2")]).expect(0);
    let calls = home.operator.calls();
    assert_eq!(keys(&calls), ["ASIASSO1", "ASIASSO2", "ASIASSO3"], "{:?}", names(&calls));
    assert_eq!(home.operator.parameter("GreenVersionId"), "2");
}

#[test]
fn a_login_that_ends_in_mid_deploy_says_how_to_continue() {
    let home = logged_in(&token("2100-01-01T00:00:00Z", "2100-01-01T00:00:00Z"));
    home.operator.content("2");
    let expired = || Turn::Refusal(403, "ExpiredToken", "The security token included in the request is expired");
    home.operator.tape.script("DescribeStackEvents", [Turn::Usual, Turn::Usual, expired()]);
    let unauthorized = json!({ "message": "gone", "__type": "UnauthorizedException" });
    let role = json!({ "roleCredentials": { "accessKeyId": "ASIASSO1", "secretAccessKey": "canary", "sessionToken": "canary" } });
    home.provider.script([(200, role), (200, Value::String(identity())), (401, unauthorized)]);
    let arguments = ["update-stack", "--yes", "--pause", "0s", "--profile", "dev"];
    let _ = home
        .run(&arguments, &[("BUILD_NUMBER", "2")])
        .expect(77)
        .says("the AWS profile dev logs in by IAM Identity Center, and does not accept the token")
        .says("hint: aws sso login --profile dev, then run the same command again");
    // It does.
    let _ = home.run(&arguments, &[("BUILD_NUMBER", "2")]).expect(0);
    assert_eq!(home.operator.parameter("GreenVersionId"), "2");
}

/// Returns STS's answer to the question who calls.
fn identity() -> String {
    "<R><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/ann</Arn><Account>123456789012</Account>\
     </GetCallerIdentityResult></R>"
        .into()
}

#[test]
fn static_keys_that_expire_in_mid_deploy_are_explained() {
    let expired = || Turn::Refusal(403, "ExpiredToken", "The security token included in the request is expired");
    let arguments = ["update-stack", "--yes", "--pause", "0s"];
    let home = Home::with(Operator::serving(), "");
    home.operator.content("2");
    home.operator.tape.script("DescribeStackEvents", [Turn::Usual, expired(), expired()]);
    let keys = [
        ("BUILD_NUMBER", "2"),
        ("AWS_ACCESS_KEY_ID", "ASIA1"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_SESSION_TOKEN", "y"),
    ];
    let _ = home.run(&arguments, &keys).expect(77).says("the AWS credentials have expired").says(
        "hint: export new AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, then run the same command again",
    );
    let home = Home::with(Operator::serving(), "");
    home.write(
        "credentials",
        "[tmp]\naws_access_key_id = ASIA1\naws_secret_access_key = canary\naws_session_token = canary\n",
    );
    home.operator.content("2");
    home.operator.tape.script("DescribeStackEvents", [Turn::Usual, expired(), expired()]);
    let _ = home
        .run(&[&arguments[..], &["--profile", "tmp"]].concat(), &keys[..1])
        .expect(77)
        .says("hint: write new credentials to the profile tmp of ~/.aws/credentials, then run the same command again");
}

#[test]
fn a_login_that_ends_is_no_fault_of_the_settings() {
    let home = logged_in(&token("2100-01-01T00:00:00Z", "2100-01-01T00:00:00Z"));
    let expired = || Turn::Refusal(403, "ExpiredToken", "The security token included in the request is expired");
    home.operator.tape.script("DescribeSubnets", (0..6).map(|_| expired()));
    let plan = ["plan", "--profile", "dev"];
    let told = home.run(&plan, &[("BUILD_NUMBER", "1")]).expect(77).says("the AWS credentials have expired");
    assert!(!told.stderr.contains("these settings cannot be deployed"), "{}", told.stderr);
    let unauthorized = json!({ "message": "Session token not found or invalid",
                               "__type": "com.amazonaws.switchboard.portal#UnauthorizedException" });
    // The second login, after GetCallerIdentity: AWS takes the credentials of the first one for expired.
    home.operator.tape.forget_script();
    home.operator.tape.script("DescribeSubnets", [expired()]);
    home.provider.script_later(2, [(401, unauthorized)]);
    let told = home.run(&plan, &[("BUILD_NUMBER", "1")]).expect(77).says("hint: aws sso login --profile dev");
    assert!(!told.stderr.contains("these settings cannot be deployed"), "{}", told.stderr);
}

#[test]
fn a_token_that_cannot_be_saved_is_not_renewed() {
    let soon = time::OffsetDateTime::now_utc() + std::time::Duration::from_mins(10);
    let soon = soon.format(&time::format_description::well_known::Rfc3339).unwrap();
    // As with sudo -E: the directory and the file are another user's.
    let home = logged_in(&token(&soon, "2100-01-01T00:00:00Z"));
    std::os::unix::fs::chown(home.operator.sandbox.at(&format!(".aws/{}", file("corp"))), Some(12_345), None).unwrap();
    let (finished, signed) = home.status("dev");
    let _ = finished.expect(0).says("belongs to uid 12345").says("the token of the AWS profile dev is not renewed yet");
    assert_eq!(signed, ["ASIASSO1"]);
    let asked: Vec<String> = home.provider.take().into_iter().map(|asked| asked.operation).collect();
    assert_eq!(asked, ["GetRoleCredentials"]);
    // The token has expired: the refresh token is still not used.
    let home = logged_in(&token("2001-01-01T00:00:00Z", "2100-01-01T00:00:00Z"));
    let cache = home.operator.sandbox.at(".aws/sso/cache");
    let script = format!("mount --bind {cache} {cache}; mount -o remount,bind,ro {cache}; exec \"$@\"");
    let command = home.command(&["status", "--profile", "dev"], &[]);
    let mut inside = std::process::Command::new("unshare");
    let _ = inside.args(["--mount", "sh", "-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
    let _ = inside.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let _ = crate::sandbox::Finished::from(inside.output().unwrap())
        .expect(77)
        .says("is mounted read-only")
        .says("hint: aws sso login --profile dev, then run the same command again");
    assert_eq!(home.provider.take().len(), 0);
}
