//! Profiles that assume roles, and mistakes in profiles.

use serde_json::json;

use super::Home;
use crate::{agreeing::answering, sandbox::Finished};

const KEYS: &str = "[base]\naws_access_key_id = AKIABASE\naws_secret_access_key = canary-base\n";

/// Returns a home with static keys in the profile `base`.
fn with_keys(config: &str) -> Home {
    let home = Home::new(config);
    home.write("credentials", KEYS);
    home
}

#[test]
fn a_chain_of_profiles_assumes_each_role_with_the_one_before() {
    let home = with_keys(
        "[profile hop]\nrole_arn = arn:aws:iam::1:role/hop\nsource_profile = base\nexternal_id = ex\n\
         [profile ops]\nrole_arn = arn:aws:iam::2:role/ops\nsource_profile = hop\nrole_session_name = ann\n\
         duration_seconds = 3600\nregion = eu-west-3\n",
    );
    home.serves("ops", "ASIAROLE2");
    let asked = home.provider.take();
    let [hop, ops] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(
        (&*hop.members["RoleArn"], &*hop.key, &*hop.members["ExternalId"]),
        ("arn:aws:iam::1:role/hop", "AKIABASE", "ex")
    );
    assert_eq!((&*ops.members["RoleArn"], &*ops.key), ("arn:aws:iam::2:role/ops", "ASIAROLE1"));
    assert_eq!((&*ops.members["RoleSessionName"], &*ops.members["DurationSeconds"]), ("ann", "3600"));
    assert!(hop.members["RoleSessionName"].starts_with("glovo-bootstrap-"), "{hop:?}");
    // The environment's region comes first; without one, the profile's.
    assert_eq!(ops.region, "eu-central-1");
    let mut command = home.command(&["status", "--profile", "ops"], &[]);
    let _ = Finished::from(command.env_remove("AWS_REGION").output().unwrap()).expect(0);
    assert_eq!(home.provider.take()[1].region, "eu-west-3");
}

#[test]
fn a_source_may_be_the_profile_itself_or_the_environment() {
    let own = "[profile own]\nrole_arn = arn:aws:iam::1:role/own\nsource_profile = own\naws_access_key_id = AKIAOWN\n\
               aws_secret_access_key = canary\n[profile env]\nrole_arn = arn:aws:iam::1:role/env\n\
               credential_source = Environment\n";
    let home = Home::new(own);
    home.serves("own", "ASIAROLE1");
    assert_eq!(home.provider.take()[0].key, "AKIAOWN");
    let environment = [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "canary-env")];
    let _ = home.run(&["status", "--profile", "env"], &environment).expect(0);
    assert_eq!(home.provider.take()[0].key, "AKIAENV");
    drop(home.operator.calls());
    home.fails("env", 1, "caused by: the credential_source Environment of the AWS profile env has no credentials");
}

#[test]
fn a_role_with_mfa_asks_for_the_code_at_a_terminal() {
    let home = with_keys(
        "[profile mfa]\nrole_arn = arn:aws:iam::1:role/ops\nsource_profile = base\n\
         mfa_serial = arn:aws:iam::1:mfa/ann\n",
    );
    let question = "code of the MFA device arn:aws:iam::1:mfa/ann (AWS profile mfa): ";
    let command = home.command(&["status", "--profile", "mfa"], &[]);
    let _ = answering(&home.operator, &command, question, "123456\n").expect(0);
    let asked = home.provider.take();
    assert_eq!(
        (&*asked[0].members["SerialNumber"], &*asked[0].members["TokenCode"]),
        ("arn:aws:iam::1:mfa/ann", "123456")
    );
    // One code is enough for all calls.
    assert_eq!((asked.len(), super::keys(&home.operator.calls())), (1, vec!["ASIAROLE1".to_owned()]));
    let command = home.command(&["status", "--profile", "mfa"], &[]);
    let _ = answering(&home.operator, &command, question, "yes\n").expect(77).says("a code has digits only");
    let command = home.command(&["status", "--profile", "mfa"], &[]);
    let _ = answering(&home.operator, &command, question, "\x03").expect(130).says("stopped by SIGINT");
    home.fails("mfa", 77, r#"
caused by: the AWS profile mfa needs a code of the device arn:aws:iam::1:mfa/ann, and standard input is not a terminal
hint: run the command in a terminal, or give it credentials: eval "$(aws configure export-credentials --profile mfa --format env)" && export AWS_REGION=eu-central-1, without --profile, PROFILE and `profile` in deploy.toml, which come before them"#);
    assert_eq!(home.provider.take().len(), 0);
}

#[test]
fn a_role_that_sts_does_not_give_is_named_with_what_to_allow() {
    let home = with_keys("[profile ops]\nrole_arn = arn:aws:iam::1:role/ops\nsource_profile = base\n");
    let denied = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>not authorized</Message></Error>\
                  <RequestId>r-1</RequestId></ErrorResponse>";
    home.provider.script([(403, json!(denied))]);
    home.fails(
        "ops",
        1,
        "
caused by: STS does not give the role arn:aws:iam::1:role/ops (AWS profile ops)
caused by: AccessDenied: not authorized (HTTP 403, request id r-1)
hint: allow sts:AssumeRole on arn:aws:iam::1:role/ops to the caller, in its policy and in the role's trust policy",
    );
    // A temporary refusal is none.
    home.provider.script([(503, json!("<html>"))]);
    home.serves("ops", "ASIAROLE3");
}

#[test]
fn a_web_identity_gives_a_role_without_credentials() {
    let home = Home::new("");
    let token = home.operator.sandbox.write("token", "canary-jwt\n");
    home.write(
        "config",
        &format!("[profile web]\nrole_arn = arn:aws:iam::1:role/web\nweb_identity_token_file = {token}\n"),
    );
    home.serves("web", "ASIAROLE1");
    let asked = home.provider.take();
    assert_eq!((&*asked[0].operation, &*asked[0].key), ("AssumeRoleWithWebIdentity", ""));
    assert_eq!(asked[0].members["WebIdentityToken"], "canary-jwt");
    std::fs::remove_file(&token).unwrap();
    home.fails("web", 1, "caused by: the web identity token of the role arn:aws:iam::1:role/web cannot be read");
    let _ = home.operator.sandbox.write("token", "canary-jwt\n");
    let variables = [("AWS_ROLE_ARN", "arn:aws:iam::1:role/env"), ("AWS_WEB_IDENTITY_TOKEN_FILE", &*token)];
    let _ = home.run(&["status"], &variables).expect(0);
    assert_eq!(home.provider.take()[0].members["RoleArn"], "arn:aws:iam::1:role/env");
}

#[test]
fn a_mistake_in_profiles_is_named_with_its_place() {
    let role = "role_arn = arn:aws:iam::1:role/ops\n";
    for (config, fault) in [
        (
            format!("[profile x]\n{role}source_profile = y\n[profile y]\n{role}source_profile = x\n"),
            "leads back: x, y, x",
        ),
        (format!("[profile x]\n{role}source_profile = bsae\n"), "names the source_profile bsae, which does not exist"),
        (format!("[profile x]\n{role}"), "neither source_profile nor credential_source"),
        (
            format!("[profile x]\n{role}source_profile = base\ncredential_source = Environment\n"),
            "both source_profile and",
        ),
        (format!("[profile x]\n{role}credential_source = Cloud\n"), "the unknown credential_source Cloud"),
        (
            format!("[profile x]\n{role}source_profile = y\n[profile y]\nregion = a\n"),
            "as their source, has no credentials",
        ),
        ("[profile x]\naws_access_key_id = AKIA\n".into(), "an aws_access_key_id, and no aws_secret_access_key"),
    ] {
        with_keys(&config).fails("x", 2, fault);
    }
    let home = with_keys("[profile prod]\nregion = eu-west-1\n");
    home.fails(
        "prdo",
        2,
        "
caused by: the AWS profile prdo does not exist (--profile)
hint: ~/.aws/config and ~/.aws/credentials have: prod, base",
    );
    home.fails("prod", 77, "caused by: the AWS profile prod has no credentials");
    let _ = home.run(&["status"], &[("AWS_PROFILE", "prdo")]).expect(2).says("does not exist (AWS_PROFILE)");
}

#[test]
fn services_of_a_profile_have_endpoints_of_their_own() {
    let home = with_keys("");
    let (tape, elsewhere) = (home.operator.tape.url(), "http://127.0.0.1:9");
    home.write(
        "config",
        &format!(
            "[profile base]\nregion = eu-west-1\nservices = mine\nendpoint_url = {elsewhere}\n[services mine]\n\
             cloudformation =\n  endpoint_url = {tape}\nauto_scaling =\n  endpoint_url = {tape}\n\
             elastic_load_balancing_v2 =\n  endpoint_url = {tape}\nec2 =\n  endpoint_url = {tape}\n"
        ),
    );
    let mut command = home.command(&["status", "--profile", "base"], &[]);
    let _ = command.env_remove("AWS_ENDPOINT_URL").env_remove("AWS_REGION");
    let _ = Finished::from(command.output().unwrap()).expect(0);
    assert_eq!(super::keys(&home.operator.calls()), ["AKIABASE"]);
}

#[test]
fn a_session_token_of_a_source_is_in_no_error() {
    let home = Home::new("[profile ops]\nrole_arn = arn:aws:iam::1:role/ops\nsource_profile = base\n");
    home.write("credentials", &format!("{KEYS}aws_session_token = canary-session-of-the-source\n"));
    // STS repeats the request that it got.
    let refused = "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>The Canonical String should have been \
                   'POST&#xA;/&#xA;&#xA;x-amz-security-token:canary-session-of-the-source&#xA;&#xA;host' (signed with \
                   canary-session-of-the-source)</Message></Error><RequestId>r-1</RequestId></ErrorResponse>";
    home.provider.script([(403, json!(refused))]);
    home.fails("ops", 1, "caused by: SignatureDoesNotMatch: The Canonical String should have been");
}

#[test]
fn half_of_the_keys_of_the_environment_is_an_error() {
    let home = with_keys("[default]\n");
    home.write("credentials", "[default]\naws_access_key_id = AKIABASE\naws_secret_access_key = canary-base\n");
    for (set, missing) in
        [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")]
    {
        let finished = home.run(&["status"], &[(set, "canary-half")]).expect(2);
        let _ = finished.says(&format!("the environment has {set}, and not {missing}"));
        assert_eq!(super::keys(&home.operator.calls()), [""; 0]);
    }
    // A profile of the command line comes before the environment.
    let _ = home.run(&["status", "--profile", "default"], &[("AWS_ACCESS_KEY_ID", "AKIAENV")]).expect(0);
}

#[test]
fn without_credentials_the_profiles_are_named() {
    let home = with_keys("[profile prod]\nregion = eu-west-1\n");
    let shown = home.run(&["status"], &[]).expect(77).stderr;
    let error = "error: asking for cloudformation DescribeStacks
caused by: no AWS credentials were found
hint: name a profile with --profile, or export AWS_PROFILE; ~/.aws/config and ~/.aws/credentials have: base, prod
";
    assert!(shown.ends_with(error), "{shown}");
    home.write("config", "");
    home.write("credentials", "");
    let _ = home.run(&["status"], &[]).expect(77).says("hint: aws configure sso, or aws configure; or export AWS_ACC");
}

#[test]
fn a_profile_that_does_not_exist_is_named_before_its_region() {
    let home = with_keys("");
    for (profile, words) in [("nope", "the AWS profile nope does not exist"), ("base", "no AWS region is chosen")] {
        let mut command = home.command(&["status", "--profile", profile], &[]);
        let _ = Finished::from(command.env_remove("AWS_REGION").output().unwrap()).expect(2).says(words);
    }
}
