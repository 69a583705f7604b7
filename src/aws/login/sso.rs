//! Credentials of IAM Identity Center, with the token that `aws sso login` leaves in `~/.aws/sso/cache`.
//!
//! The token is renewed before it expires, as the AWS CLI renews it. The requests are those of botocore's models
//! `sso` and `sso-oidc`.
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-sso-credentials.html>

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use super::{
    exchange::Exchange,
    profile::SsoRole,
    token_file::{Renewable, TokenFile, time_text, valid_until},
};
use crate::{
    aws::endpoint::{SSO, SSO_OIDC},
    error::Fault,
    net::Network,
    redaction,
    value::quoted,
};

/// A token is renewed this long before it expires.
const RENEWAL_MARGIN: Duration = Duration::from_mins(15);
/// What [`TokenFile::read`] learns to hide.
const SECRETS: [&str; 3] = ["accessToken", "refreshToken", "clientSecret"];

/// A login by IAM Identity Center.
pub(super) struct SsoLogin<'a> {
    pub(super) network: &'a Network,
    pub(super) config: &'a SdkConfig,
    /// The profile that names the role.
    pub(super) profile: &'a str,
    pub(super) role: &'a SsoRole,
}

impl SsoLogin<'_> {
    /// Returns the credentials of the role.
    ///
    /// # Errors
    /// If there is no valid token, or if the service refuses it or the role.
    pub(super) async fn credentials(&self) -> Result<Credentials, Fault> {
        let token = self.token().await?;
        let (mut url, _) = SSO.find(&self.role.region, self.config)?;
        url.set_path("federation/credentials");
        _ = url
            .query_pairs_mut()
            .append_pair("role_name", &self.role.role)
            .append_pair("account_id", &self.role.account);
        let header = Some(("x-amz-sso_bearer_token", token));
        let call = Exchange { operation: "sso GetRoleCredentials", url, header, body: None };
        let answer = call.send(self.network).await.map_err(|fault| self.failed().caused_by(fault))?;
        let answer = answer.map_err(|refusal| match refusal.status {
            401 => self.must_log_in("does not accept the token").caused_by(refusal),
            _ => Fault::new(format!(
                "IAM Identity Center gives no credentials of the role {} in the account {} (AWS profile {})",
                self.role.role, self.role.account, self.profile
            ))
            .caused_by(refusal)
            .hint("check sso_account_id and sso_role_name, and that the role is assigned to you"),
        })?;
        self.read(&answer["roleCredentials"])
    }

    fn read(&self, answer: &Value) -> Result<Credentials, Fault> {
        let text = |name: &str| answer[name].as_str().filter(|text| !text.is_empty());
        let (Some(id), Some(secret)) = (text("accessKeyId"), text("secretAccessKey")) else {
            return Err(self.failed().caused_by(Fault::new("the answer to sso GetRoleCredentials has no credentials")));
        };
        let expiry = answer["expiration"].as_u64().map(|at| SystemTime::UNIX_EPOCH + Duration::from_millis(at));
        Ok(Credentials::new(id, secret, text("sessionToken").map(str::to_owned), expiry, "sso"))
    }

    /// Returns a valid token, which is renewed if it expires soon.
    async fn token(&self) -> Result<String, Fault> {
        let key = self.role.session.as_ref().unwrap_or(&self.role.start_url);
        let key: String = Sha1::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let path = TokenFile::path_of(&format!("sso/cache/{key}.json"))?;
        let file =
            TokenFile::read(&path, &SECRETS).map_err(|fault| self.must_log_in("has no token").caused_by(fault))?;
        let missing = |why: String| self.must_log_in("has no token").caused_by(Fault::new(why));
        let mut file = file.ok_or_else(|| missing(format!("{path} does not exist")))?;
        let expiry = file.time("expiresAt").ok_or_else(|| missing(format!("{path} says no time in expiresAt")))?;
        let what = format!("the token of the AWS profile {} is", self.profile);
        let held = Renewable { what, file: &mut file, expiry, margin: RENEWAL_MARGIN };
        let renewed = held.renewed(async |file, now| self.renew(file, now).await).await;
        _ = renewed.map_err(|fault| self.must_log_in("has a token that has expired").caused_by(fault))?;
        file.text("accessToken").map(str::to_owned).ok_or_else(|| missing(format!("{path} has no accessToken")))
    }

    /// Renews the token in its file. Returns until when it is valid; `None` if nothing can renew it.
    async fn renew(&self, file: &mut TokenFile, now: SystemTime) -> Result<Option<SystemTime>, Fault> {
        let field = |name| file.text(name).map(str::to_owned);
        let (Some(id), Some(secret), Some(token)) = (field("clientId"), field("clientSecret"), field("refreshToken"))
        else {
            return Ok(None);
        };
        // The old form has no renewal, nor has an expired registration.
        let is_registered = file.time("registrationExpiresAt").is_some_and(|expiry| expiry > now);
        if self.role.session.is_none() || !is_registered {
            return Ok(None);
        }
        file.check_savable()?;
        let (mut url, _) = SSO_OIDC.find(&self.role.region, self.config)?;
        url.set_path("token");
        let body = json!({
            "clientId": id,
            "clientSecret": secret,
            "grantType": "refresh_token",
            "refreshToken": token,
        });
        let call = Exchange { operation: "sso-oidc CreateToken", url, header: None, body: Some(body) };
        let refused = |refusal| Fault::new("the token cannot be renewed").caused_by(refusal);
        let answer = call.send(self.network).await?.map_err(refused)?;
        let (Some(token), Some(seconds)) = (answer["accessToken"].as_str(), answer["expiresIn"].as_u64()) else {
            return Err(Fault::new("the answer to sso-oidc CreateToken has no token"));
        };
        redaction::learn("AWS token", token);
        let expiry = valid_until(now, seconds);
        let mut set = |name: &str, value: &str| _ = file.fields.insert(name.into(), value.into());
        set("accessToken", token);
        set("expiresAt", &time_text(expiry));
        if let Some(token) = answer["refreshToken"].as_str() {
            redaction::learn("AWS token", token);
            set("refreshToken", token);
        }
        file.save_or_warn();
        Ok(Some(expiry))
    }

    fn failed(&self) -> Fault {
        Fault::new(format!("the AWS profile {} gets no credentials from IAM Identity Center", self.profile))
    }

    fn must_log_in(&self, why: &str) -> Fault {
        Fault::new(format!("the AWS profile {} logs in by IAM Identity Center, and {why}", self.profile))
            .hint(format!("{}, then run the same command again", renewal(self.profile)))
            .logged_out()
    }
}

/// Returns the command that logs in again.
pub(super) fn renewal(profile: &str) -> String {
    format!("aws sso login --profile {}", quoted(profile))
}
