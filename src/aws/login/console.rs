//! Credentials of a session of the AWS console, which `aws login` leaves in `~/.aws/login/cache`.
//!
//! They last 15 minutes, and are renewed with a token that is bound to a key. The request is that of botocore's model
//! `signin`.
//! <https://docs.aws.amazon.com/sdkref/latest/guide/access-login.html>

use std::time::SystemTime;

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    exchange::Exchange,
    token_file::{Renewable, TokenFile, parse_time, text, time_text, valid_until},
};
use crate::{
    aws::{account::EXPIRY_MARGIN, endpoint::SIGN_IN},
    environment,
    error::Fault,
    net::{Network, proof::proof_of_possession},
    redaction,
    value::{AbsPath, quoted},
};

/// What [`TokenFile::read`] learns to hide.
const SECRETS: [&str; 4] = ["accessToken/secretAccessKey", "accessToken/sessionToken", "refreshToken", "idToken"];

/// A login by a session of the console.
pub(super) struct ConsoleLogin<'a> {
    pub(super) network: &'a Network,
    pub(super) config: &'a SdkConfig,
    /// The profile that names the session.
    pub(super) profile: &'a str,
    pub(super) session: &'a str,
}

impl ConsoleLogin<'_> {
    /// Returns the credentials, which are renewed if they expire soon.
    ///
    /// # Errors
    /// If there are none, or if they have expired and cannot be renewed.
    pub(super) async fn credentials(&self) -> Result<Credentials, Fault> {
        let path = self.path()?;
        let file =
            TokenFile::read(&path, &SECRETS).map_err(|fault| self.must_log_in("has no token").caused_by(fault))?;
        let missing = |why: String| self.must_log_in("has no token").caused_by(Fault::new(why));
        let mut file = file.ok_or_else(|| missing(format!("{path} does not exist")))?;
        let expiry = file.text("accessToken/expiresAt").and_then(parse_time);
        let expiry = expiry.ok_or_else(|| missing(format!("{path} says no time in accessToken.expiresAt")))?;
        let what = format!("the credentials of the AWS profile {} are", self.profile);
        let held = Renewable { what, file: &mut file, expiry, margin: EXPIRY_MARGIN };
        let valid_until = held.renewed(async |file, now| self.renew(file, now).await.map(Some)).await;
        let valid_until =
            valid_until.map_err(|fault| self.must_log_in("has credentials that have expired").caused_by(fault))?;
        let field = |name| file.text(&format!("accessToken/{name}"));
        let (Some(id), Some(secret)) = (field("accessKeyId"), field("secretAccessKey")) else {
            return Err(missing(format!("{path} has no credentials in accessToken")));
        };
        Ok(Credentials::new(id, secret, field("sessionToken").map(str::to_owned), Some(valid_until), "login"))
    }

    fn path(&self) -> Result<AbsPath, Fault> {
        let key: String = Sha256::digest(self.session.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        match environment::value(environment::LOGIN_CACHE) {
            None => TokenFile::path_of(&format!("login/cache/{key}.json")),
            Some(directory) => {
                format!("{}/{key}.json", directory.trim_end_matches('/')).parse().map_err(|error: anyhow::Error| {
                    let fault = Fault::new(format!("{} is not the path of a directory", environment::LOGIN_CACHE));
                    fault.caused_by(error).invalid()
                })
            }
        }
    }

    /// Renews the credentials in their file. Returns until when they are valid.
    async fn renew(&self, file: &mut TokenFile, now: SystemTime) -> Result<SystemTime, Fault> {
        let need = |name: &str| file.text(name).ok_or_else(|| Fault::new(format!("the file has no {name}")));
        let (id, token, key) = (need("clientId")?, need("refreshToken")?, need("dpopKey")?);
        let region = self.config.region().ok_or_else(|| Fault::new("no AWS region is chosen"))?;
        let (mut url, _) = SIGN_IN.find(region.as_ref(), self.config)?;
        url.set_path("v1/token");
        file.check_savable()?;
        let proof = proof_of_possession(key, url.as_str(), now)?;
        let body = json!({ "clientId": id, "grantType": "refresh_token", "refreshToken": token });
        let call =
            Exchange { operation: "signin CreateOAuth2Token", url, header: Some(("dpop", proof)), body: Some(body) };
        let answer = call.send(self.network).await?;
        let answer = answer.map_err(|refusal| {
            let fault = Fault::new("the credentials cannot be renewed");
            let fault = match refusal.code.as_str() {
                "INSUFFICIENT_PERMISSIONS" => {
                    fault.hint("allow signin:CreateOAuth2Token in the IAM policy of the user")
                }
                _ => fault,
            };
            fault.caused_by(refusal)
        })?;
        adopt(file, &answer, now).ok_or_else(|| Fault::new("the answer to signin CreateOAuth2Token has no credentials"))
    }

    fn must_log_in(&self, why: &str) -> Fault {
        Fault::new(format!("the AWS profile {} logs in by `aws login`, and {why}", self.profile))
            .hint(format!("{}, then run the same command again", renewal(self.profile)))
            .logged_out()
    }
}

/// Puts renewed credentials into the file. Returns until when they are valid; `None` if the answer has none.
fn adopt(file: &mut TokenFile, answer: &Value, now: SystemTime) -> Option<SystemTime> {
    let renewed = answer["accessToken"].as_object()?;
    let expiry = valid_until(now, answer["expiresIn"].as_u64()?);
    let value = |name| text(renewed, name).map(|value| (name, value));
    // All of them or none.
    let values = [value("accessKeyId")?, value("secretAccessKey")?, value("sessionToken")?];
    let held = file.fields.get_mut("accessToken")?.as_object_mut()?;
    for (name, value) in values {
        if name != "accessKeyId" {
            redaction::learn("AWS token", value);
        }
        _ = held.insert(name.into(), value.into());
    }
    _ = held.insert("expiresAt".into(), time_text(expiry).into());
    if let Some(token) = answer["refreshToken"].as_str() {
        redaction::learn("AWS token", token);
        _ = file.fields.insert("refreshToken".into(), token.into());
    }
    file.save_or_warn();
    Some(expiry)
}

/// Returns the command that logs in again.
pub(super) fn renewal(profile: &str) -> String {
    format!("aws login --profile {}", quoted(profile))
}
