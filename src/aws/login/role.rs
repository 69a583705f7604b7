//! Roles that STS gives: with other credentials, with the code of a device, or with a token in a file.
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html>

use std::{fmt, path::Path, sync::Arc, time::SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;

use super::{profile::ProfileRole, token_file::parse_time};
use crate::{
    aws::{
        answer::Element,
        clock::AwsClock,
        partition::Partition,
        query::{Call, Caller},
        refusal::{NotDone, Refusal},
        service::STS,
    },
    error::Fault,
    host::root::{Root, host_path},
    net::{Network, worker::blocking},
    redaction,
    value::quoted,
};

/// The longest token of a web identity that is read. STS accepts 20,000 characters.
const MAX_TOKEN_BYTES: u64 = 64 << 10;

/// Asks a question, and returns the line that was typed.
type Ask = dyn Fn(&str) -> anyhow::Result<String> + Send + Sync;

/// A question to the person at the terminal.
#[derive(Clone)]
pub struct Prompt(Arc<Ask>);

impl Prompt {
    /// Makes a prompt of a function that asks.
    pub fn new(ask: impl Fn(&str) -> anyhow::Result<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    async fn ask(&self, question: String) -> Result<String, Fault> {
        let ask = self.0.clone();
        let answer = blocking(move || ask(&question)).await.map_err(|error| error.fault())?;
        answer.map_err(|error| Fault::new("the question was not answered").caused_by(error))
    }
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prompt")
    }
}

/// The callers of STS.
pub(super) struct Assumption<'a> {
    pub(super) network: &'a Network,
    pub(super) clock: &'a AwsClock,
    pub(super) config: &'a SdkConfig,
    pub(super) prompt: Option<&'a Prompt>,
}

impl Assumption<'_> {
    /// Returns the credentials of a role that other credentials may assume.
    ///
    /// # Errors
    /// If STS refuses, or if it wants a code and there is no terminal to ask for it.
    pub(super) async fn with_credentials(&self, role: &ProfileRole, held: Credentials) -> Result<Credentials, Fault> {
        let mut call = call("AssumeRole", role);
        if let Some(id) = &role.external_id {
            call = call.with("ExternalId", id);
        }
        if let Some(device) = &role.mfa {
            call = call.with("SerialNumber", device).with("TokenCode", self.code(role, device).await?);
        }
        let refused = |refusal: Refusal| {
            let fault = Fault::new(format!("STS does not give the role {} (AWS profile {})", role.arn, role.profile));
            let hint = match (refusal.code.as_str(), &role.mfa) {
                ("AccessDenied", Some(_)) if refusal.message.contains("MultiFactorAuthentication") => {
                    "run the same command again, and type the device's next code: each is accepted once".to_owned()
                }
                ("AccessDenied", None) => format!(
                    "allow sts:AssumeRole on {} to the caller, in its policy and in the role's trust policy; a role that \
                     requires a code needs mfa_serial in the profile",
                    role.arn
                ),
                ("AccessDenied", Some(_)) => {
                    format!(
                        "allow sts:AssumeRole on {} to the caller, in its policy and in the role's trust policy",
                        role.arn
                    )
                }
                ("ExpiredToken" | "ExpiredTokenException", _) => {
                    "renew the credentials of its source_profile, then run the same command again".into()
                }
                _ => "check role_arn, duration_seconds and the credentials of the source".into(),
            };
            fault.caused_by(refusal).hint(hint)
        };
        let answer = self.send(&call, Some(held)).await?.map_err(refused)?;
        read(&answer, "AssumeRoleResult", role)
    }

    /// Returns the credentials of a role that a token in a file gives.
    ///
    /// # Errors
    /// If the file cannot be read, or if STS refuses its token.
    pub(super) async fn with_token(&self, role: &ProfileRole, token_file: &str) -> Result<Credentials, Fault> {
        let unreadable = |error: anyhow::Error| {
            Fault::new(format!("the web identity token of the role {} cannot be read", role.arn)).caused_by(error)
        };
        let path = host_path(token_file).map_err(unreadable)?;
        let root = Root::open(Path::new("/")).map_err(unreadable)?;
        let bytes = root.resolve(&path).and_then(|path| root.read(&path, MAX_TOKEN_BYTES)).map_err(unreadable)?;
        let bytes = bytes.ok_or_else(|| unreadable(anyhow::anyhow!("{path} does not exist")))?;
        let token = String::from_utf8_lossy(&bytes);
        redaction::learn("web identity token", token.trim());
        let call = call("AssumeRoleWithWebIdentity", role).with("WebIdentityToken", token.trim());
        let refused = |refusal: Refusal| {
            Fault::new(format!("STS does not give the role {} for the token in {path}", role.arn))
                .caused_by(refusal)
                .hint("check the role's trust policy, and that the token is not expired")
        };
        let answer = self.send(&call, None).await?.map_err(refused)?;
        read(&answer, "AssumeRoleWithWebIdentityResult", role)
    }

    /// Sends a call. The inner error is STS's refusal.
    async fn send(&self, call: &Call, held: Option<Credentials>) -> Result<Result<Element, Refusal>, Fault> {
        let Self { network, clock, config, .. } = *self;
        let region = config.region().map_or(Partition::of("").main_region, AsRef::as_ref);
        let attempt = || async {
            match call.send(Caller { network, clock, config, region, credentials: held.clone() }).await {
                Ok(answer) => Ok(Ok(answer)),
                Err(NotDone::Refused(refusal)) if refusal.is_of_time() => Err(clock.correct(&refusal)),
                Err(NotDone::Refused(refusal)) if refusal.is_temporary() => {
                    let fault = Fault::new("STS refuses for now").caused_by(refusal.clone());
                    Err(refusal.temporary(fault))
                }
                Err(NotDone::Refused(refusal)) => Ok(Err(refusal.of_login())),
                Err(NotDone::Failed(failure)) => Err(failure),
            }
        };
        self.network.attempts().run(call, attempt).await
    }

    /// Asks for the code of a device.
    async fn code(&self, role: &ProfileRole, device: &str) -> Result<String, Fault> {
        let Some(prompt) = self.prompt else {
            let by_hand = format!("aws configure export-credentials --profile {} --format env", quoted(&role.profile));
            let region = self.config.region().map_or("REGION", AsRef::as_ref);
            return Err(Fault::new(format!(
                "the AWS profile {} needs a code of the device {device}, and standard input is not a terminal",
                role.profile
            ))
            .hint(format!(
                "run the command in a terminal, or give it credentials: eval \"$({by_hand})\" && export \
                 AWS_REGION={region}, without --profile, PROFILE and `profile` in deploy.toml, which come before them"
            ))
            .logged_out());
        };
        let code = prompt.ask(format!("code of the MFA device {device} (AWS profile {}):", role.profile)).await?;
        let code = code.trim();
        if code.is_empty() || !code.chars().all(|c| c.is_ascii_digit()) {
            return Err(Fault::new("this is no code of an MFA device: a code has digits only").logged_out());
        }
        Ok(code.to_owned())
    }
}

/// Returns the call for a role.
fn call(operation: &str, role: &ProfileRole) -> Call {
    let name = role.session_name.clone().unwrap_or_else(|| {
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        format!("glovo-bootstrap-{seconds}")
    });
    let call = Call::new(&STS, operation).with("RoleArn", &role.arn).with("RoleSessionName", name);
    match &role.duration {
        Some(seconds) => call.with("DurationSeconds", seconds),
        None => call,
    }
}

fn read(answer: &Element, result: &str, role: &ProfileRole) -> Result<Credentials, Fault> {
    let text = |name: &str| Some(answer.text(&format!("{result}/Credentials/{name}"))).filter(|text| !text.is_empty());
    let (Some(id), Some(secret)) = (text("AccessKeyId"), text("SecretAccessKey")) else {
        return Err(Fault::new(format!("STS's answer for the role {} has no credentials", role.arn)));
    };
    let expiry = text("Expiration").and_then(parse_time);
    Ok(Credentials::new(id, secret, text("SessionToken").map(str::to_owned), expiry, "role"))
}
