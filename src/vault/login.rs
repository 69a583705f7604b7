//! Logging in: what each method sends, and what a denial means.
//! <https://developer.hashicorp.com/vault/api-docs/auth>

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use super::{
    client::{Hidden, VaultCall, VaultClient, VaultReply, encoded},
    settings::Login,
};
use crate::{
    aws::{account::Account, identity::identity_proof},
    error::Fault,
    net::retry::Failure,
    value::quoted,
};

/// The header by which a server of Vault knows that a request to STS was signed for it.
const SERVER_ID: &str = "x-vault-aws-iam-server-id";

/// What a method needs of this machine's files.
pub(super) enum Evidence {
    /// Nothing: the method is `aws` or `cert`.
    None,
    /// The secret id, the token of another issuer, or the token of Vault.
    Value(Hidden),
    /// The token that wraps a secret id.
    Wrapped(Hidden),
}

/// A login that succeeded. The token is never written anywhere.
pub(super) struct Session {
    pub(super) token: Hidden,
    /// Whether this program made the token, and revokes it.
    pub(super) is_own: bool,
}

/// Logs in once.
///
/// # Errors
/// If Vault denies it; or if it does not answer.
pub(super) async fn log_in(
    client: &VaultClient,
    account: &Account,
    login: &Login,
    evidence: &Evidence,
) -> Result<Session, Failure> {
    let body = match (login, evidence) {
        (Login::Token { .. }, Evidence::Value(token)) => return check(client, token).await,
        (Login::Aws { role, server_id, region, .. }, _) => {
            aws(account, role, server_id.as_deref(), region.as_deref()).await?
        }
        (Login::AppRole { role_id, .. }, Evidence::Value(secret_id)) => {
            json!({ "role_id": role_id, "secret_id": secret_id.shown_to_vault() })
        }
        (Login::Jwt { role, .. }, Evidence::Value(token)) => json!({ "role": role, "jwt": token.shown_to_vault() }),
        (Login::Cert { role: Some(role), .. }, _) => json!({ "name": role }),
        (Login::Cert { role: None, .. }, _) => json!({}),
        _ => return Err(Failure::Permanent(Fault::new("internal error: a login without its file"))),
    };
    let path = format!("auth/{}/login", encoded(login.mount()));
    let mut reply = client.ask(VaultCall::post(&path, body)).await?;
    if !reply.is_success() {
        return Err(denied(login, &reply));
    }
    match reply.body["auth"]["client_token"].take() {
        Value::String(token) if !token.is_empty() => {
            Ok(Session { token: Hidden::new("token of Vault", token), is_own: true })
        }
        _ => Err(Failure::Permanent(
            Fault::new("Vault accepts the login, but gives no token")
                .hint("exempt the role from multi-factor authentication: a machine has no second factor"),
        )),
    }
}

/// Returns the body of the method `aws`: the request that Vault sends to STS.
/// <https://developer.hashicorp.com/vault/api-docs/auth/aws#login>
async fn aws(account: &Account, role: &str, server_id: Option<&str>, region: Option<&str>) -> Result<Value, Failure> {
    let need = format!("Vault knows as {role}");
    let proof = identity_proof(account, &need, region, server_id.map(|id| (SERVER_ID, id.to_owned()))).await?;
    let headers = proof.headers.iter().map(|(name, value)| (title_case(name), json!([value])));
    let headers = Value::Object(headers.collect::<Map<_, _>>()).to_string();
    let encode = |text: &str| BASE64_STANDARD.encode(text);
    Ok(json!({
        "role": role,
        "iam_http_request_method": "POST",
        "iam_request_url": encode(&proof.url),
        "iam_request_headers": encode(&headers),
        "iam_request_body": encode(&proof.body),
    }))
}

/// `x-amz-date` as `X-Amz-Date`: Vault looks for the signature in `Authorization`.
fn title_case(name: &str) -> String {
    let part = |part: &str| part[..1].to_ascii_uppercase() + &part[1..];
    name.split('-').filter(|part| !part.is_empty()).map(part).collect::<Vec<_>>().join("-")
}

/// Checks a token of the user.
async fn check(client: &VaultClient, token: &Hidden) -> Result<Session, Failure> {
    let reply = client.ask(VaultCall::get("auth/token/lookup-self", token)).await?;
    if reply.is_success() {
        let token = Hidden::new("token of Vault", token.shown_to_vault().to_owned());
        return Ok(Session { token, is_own: false });
    }
    if reply.status == 404 {
        return Err(Failure::Permanent(reply.no_namespace()));
    }
    let fault = Fault::new("Vault does not accept the token, or its policies do not allow auth/token/lookup-self");
    Err(Failure::Permanent(
        fault
            .caused_by(Fault::new(reply.words()))
            .hint("make a new token with the policy `default`: vault token create"),
    ))
}

/// Returns the failure of a login that Vault denies.
fn denied(login: &Login, reply: &VaultReply) -> Failure {
    let words = reply.words();
    let mount = login.mount();
    // Vault asks STS, and does not reach it.
    if matches!(login, Login::Aws { .. }) && words.contains("error making request") {
        let fault = Fault::new("Vault does not reach STS, which it asks for the caller's identity");
        return Failure::transient(fault.caused_by(Fault::new(words)).hint("check Vault's own network"));
    }
    // NTP may set the clock soon after the boot.
    if matches!(login, Login::Aws { .. })
        && ["Signature expired", "not yet current"].iter().any(|told| words.contains(told))
    {
        let fault = Fault::new("STS does not accept the time of the signature").caused_by(Fault::new(words));
        return Failure::transient(fault.hint("check this machine's clock (timedatectl)"));
    }
    let hint = match (login, reply.status) {
        (_, 403 | 404) if !words.contains("bound") => {
            format!(
                "check that the method is enabled there (vault auth list), and that the role allows this machine; \
                     a mount other than auth/{mount} and a namespace are fields of [vault]"
            )
        }
        (Login::Aws { role, .. }, _) => format!(
            "compare the role with this machine's: vault read {}; and `server_id` and `region` with: vault read {}",
            quoted(&format!("auth/{mount}/role/{role}")),
            quoted(&format!("auth/{mount}/config/client"))
        ),
        (Login::AppRole { .. }, _) => {
            let role = quoted(&format!("auth/{mount}/role/ROLE/secret-id"));
            format!("write a new secret id into the file: vault write -f {role}")
        }
        (Login::Jwt { role, .. }, _) => {
            let role = quoted(&format!("auth/{mount}/role/{role}"));
            format!("compare the role with the claims of the token: vault read {role}")
        }
        (Login::Cert { .. }, _) => {
            format!("compare the certificate with the roles: vault list {}", quoted(&format!("auth/{mount}/certs")))
        }
        (Login::Token { .. }, _) => "make a new token: vault token create".into(),
    };
    Failure::Permanent(
        Fault::new(format!("Vault denies the login at auth/{mount}")).caused_by(Fault::new(words)).hint(hint),
    )
}

/// Returns the secret id that a token wraps. The token is used up then.
///
/// # Errors
/// [`Unwrap::Refused`] if Vault does not know the token, or no longer.
pub(super) async fn unwrap(client: &VaultClient, token: &Hidden, mount: &str) -> Result<Hidden, Unwrap> {
    // A party on the way could have unwrapped the secret id and wrapped another one. The token tells how it was made.
    let body = json!({ "token": token.shown_to_vault() });
    let reply = client.ask(VaultCall::post("sys/wrapping/lookup", body)).await.map_err(Unwrap::Failed)?;
    if !reply.is_success() {
        return Err(Unwrap::Refused(reply.words()));
    }
    let made_by = reply.body["data"]["creation_path"].as_str().unwrap_or_default();
    if !makes_secret_ids(made_by, mount) {
        let fault = Fault::new(format!("the token wraps an answer of {made_by}, and not a secret id of auth/{mount}"));
        return Err(Unwrap::Failed(Failure::Permanent(
            fault.hint("treat the role as attacked: find out which party wrote the file, then wrap a new secret id"),
        )));
    }
    let call = VaultCall { token: Some(token), ..VaultCall::post("sys/wrapping/unwrap", json!({})) };
    let mut reply = client.ask(call).await.map_err(Unwrap::Failed)?;
    if !reply.is_success() {
        return Err(Unwrap::Refused(reply.words()));
    }
    match reply.body["data"]["secret_id"].take() {
        Value::String(id) if !id.is_empty() => Ok(Hidden::new("secret id of Vault", id)),
        _ => Err(Unwrap::Failed(Failure::Permanent(Fault::new("the token wraps an answer without a secret id")))),
    }
}

/// Returns whether a path makes secret ids of a mount: `auth/approle/role/app/secret-id`. A namespace may precede it.
fn makes_secret_ids(path: &str, mount: &str) -> bool {
    let roles = format!("auth/{mount}/role/");
    let role = path.strip_prefix(&roles).or_else(|| path.split_once(&format!("/{roles}")).map(|(_, role)| role));
    role.is_some_and(|role| role.ends_with("/secret-id") || role.ends_with("/custom-secret-id"))
}

/// The failure of [`unwrap`].
pub(super) enum Unwrap {
    /// Vault does not know the token, or no longer. Its words.
    Refused(String),
    Failed(Failure),
}

/// Revokes the token of a login.
pub(super) async fn revoke(client: &VaultClient, token: &Hidden) -> Result<(), Failure> {
    let call = VaultCall { token: Some(token), ..VaultCall::post("auth/token/revoke-self", json!({})) };
    let reply = client.ask(call).await?;
    if reply.is_success() { Ok(()) } else { Err(Failure::Permanent(Fault::new(reply.words()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_role_of_the_mount_makes_its_secret_ids() {
        for path in ["auth/approle/role/app/secret-id", "team/auth/approle/role/app/custom-secret-id"] {
            assert!(makes_secret_ids(path, "approle"), "{path}");
        }
        for path in [
            "sys/wrapping/wrap",
            "auth/other/role/app/secret-id",
            "auth/approle/role/app",
            "xauth/approle/role/a/secret-id",
        ] {
            assert!(!makes_secret_ids(path, "approle"), "{path}");
        }
    }

    #[test]
    fn the_headers_of_a_signed_request_have_the_names_that_vault_reads() {
        assert_eq!(title_case("authorization"), "Authorization");
        assert_eq!(title_case("x-amz-security-token"), "X-Amz-Security-Token");
    }
}
