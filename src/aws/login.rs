//! Logging in on a person's machine: every source of credentials that AWS's own tools have.
//!
//! The SDK has clients for IAM Identity Center and for sessions of the console, as crates of their own. The first alone
//! would make the binary 0.4 MB larger (BENCHMARKS.md). And the SDK for Rust does not ask for the codes of MFA devices. So
//! profiles are followed here; the environment, containers and instances are left to the SDK.

mod console;
mod exchange;
mod process;
pub(super) mod profile;
mod role;
mod sso;
mod token_file;

use std::{
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use aws_config::{
    SdkConfig,
    default_provider::credentials::DefaultCredentialsChain,
    ecs::EcsCredentialsProvider,
    environment::EnvironmentVariableCredentialsProvider,
    imds::{self, credentials::ImdsCredentialsProvider},
    provider_config::ProviderConfig,
};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError, future},
};
use tokio::sync::Mutex;

pub use self::role::Prompt;
use self::{
    console::ConsoleLogin,
    profile::{Base, ChosenProfile, Plan, credentials_file},
    role::Assumption,
    sso::SsoLogin,
};
use super::{account::EXPIRY_MARGIN, clock::AwsClock, sender::Sender};
use crate::{environment, error::Fault, net::Network, redaction};

/// A person who logs in, once for all connections of a command.
#[derive(Debug, Clone)]
pub struct Person {
    prompt: Option<Prompt>,
    login: Arc<OnceLock<PersonLogin>>,
}

impl Person {
    /// Returns a person who has not logged in. Without a prompt, there is no terminal.
    pub fn new(prompt: Option<Prompt>) -> Self {
        Self { prompt, login: Arc::default() }
    }

    /// Begins the login with a configuration that has no credentials, unless another connection has begun it.
    pub(super) fn begin(
        &self,
        network: &Arc<Network>,
        clock: &Arc<AwsClock>,
        config: &SdkConfig,
        profile: Option<&String>,
    ) -> LoginProvider {
        let login = || PersonLogin {
            network: network.clone(),
            clock: clock.clone(),
            config: config.clone(),
            profile: profile.cloned(),
            prompt: self.prompt.clone(),
            held: Mutex::default(),
            renewal: RwLock::default(),
            is_of_machine: AtomicBool::new(false),
        };
        _ = self.login.get_or_init(login);
        LoginProvider(self.login.clone())
    }

    /// Returns the login, if it has begun.
    pub(super) fn login(&self) -> Option<&PersonLogin> {
        self.login.get()
    }
}

/// The credentials of a person, which are renewed before they expire.
#[derive(Debug)]
pub(super) struct PersonLogin {
    network: Arc<Network>,
    clock: Arc<AwsClock>,
    /// Region and endpoints, without credentials.
    config: SdkConfig,
    /// The profile of the command line.
    profile: Option<String>,
    prompt: Option<Prompt>,
    held: Mutex<Option<Credentials>>,
    /// How to get new credentials after those that were loaded last.
    renewal: RwLock<String>,
    /// Whether nothing named credentials, and the SDK's chain looked for a container's or an instance's.
    is_of_machine: AtomicBool,
}

impl PersonLogin {
    /// Returns valid credentials.
    ///
    /// # Errors
    /// If there are none: with the profile, its file, the cause and the command to type.
    pub(super) async fn credentials(&self) -> Result<Credentials, Fault> {
        // While one caller loads, and perhaps asks for a code, the others wait.
        let mut held = self.held.lock().await;
        let lasts =
            |margin| held.as_ref().filter(|held| held.expiry().is_none_or(|at| at > SystemTime::now() + margin));
        if let Some(held) = lasts(EXPIRY_MARGIN) {
            return Ok(held.clone());
        }
        match self.load().await {
            Ok(fresh) => {
                *held = Some(fresh.clone());
                Ok(fresh)
            }
            Err(fault) => match lasts(std::time::Duration::ZERO) {
                Some(held) => {
                    tracing::debug!("the AWS credentials cannot be renewed yet: {fault}");
                    Ok(held.clone())
                }
                None => Err(fault),
            },
        }
    }

    /// Returns whether the credentials are those of the machine: the person named none.
    pub(super) fn is_of_machine(&self) -> bool {
        self.is_of_machine.load(Ordering::Relaxed)
    }

    /// Loads the credentials anew for the next call.
    pub(super) async fn forget(&self) {
        *self.held.lock().await = None;
    }

    /// Returns the sentence that says how to get new credentials.
    pub(super) fn renewal(&self) -> String {
        let how = self.renewal.read().unwrap_or_else(PoisonError::into_inner).clone();
        let how = if how.is_empty() { "get new AWS credentials".to_owned() } else { how };
        format!("{how}, then run the same command again")
    }

    fn set_renewal(&self, how: impl Into<String>) {
        *self.renewal.write().unwrap_or_else(PoisonError::into_inner) = how.into();
    }

    async fn load(&self) -> Result<Credentials, Fault> {
        let has_keys = self.profile.is_none() && has_keys()?;
        if !has_keys {
            let chosen = ChosenProfile::new(self.profile.as_deref());
            if let Some(plan) = chosen.plan().await? {
                return self.follow(plan).await;
            }
        }
        if has_keys {
            let (id, secret) = (environment::ACCESS_KEY_ID, environment::SECRET_ACCESS_KEY);
            self.set_renewal(format!("export new {id}, {secret} and AWS_SESSION_TOKEN"));
        }
        self.is_of_machine.store(!has_keys, Ordering::Relaxed);
        let chain = DefaultCredentialsChain::builder().configure(self.provider_config()).build().await;
        match chain.provide_credentials().await {
            Ok(found) => {
                learn(&found);
                Ok(found)
            }
            Err(error) => Err(missing(error).await),
        }
    }

    /// Fails if the profile that the user chose is missing or wrong.
    pub(super) async fn check_profile(&self) -> Result<(), Fault> {
        ChosenProfile::new(self.profile.as_deref()).plan().await.map(drop)
    }

    /// Follows the plan of a profile.
    async fn follow(&self, plan: Plan) -> Result<Credentials, Fault> {
        let Plan { base_profile, base, roles } = plan;
        let (network, clock, config) = (&*self.network, &*self.clock, &self.config);
        let assumption = Assumption { network, clock, config, prompt: self.prompt.as_ref() };
        let mut held = match base {
            Base::Static(keys) => {
                self.set_renewal(format!(
                    "write new credentials to the profile {base_profile} of {}",
                    credentials_file()
                ));
                keys
            }
            Base::Source(source) => self.source(&base_profile, &source).await?,
            Base::WebIdentity { role, token_file } => {
                self.set_renewal(format!("write a new token to {token_file}"));
                assumption.with_token(&role, &token_file).await?
            }
            Base::Sso(role) => {
                self.set_renewal(sso::renewal(&base_profile));
                SsoLogin { network, config, profile: &base_profile, role: &role }.credentials().await?
            }
            Base::Console(session) => {
                self.set_renewal(console::renewal(&base_profile));
                ConsoleLogin { network, config, profile: &base_profile, session: &session }.credentials().await?
            }
            Base::Process(line) => {
                profile::check_files()?;
                self.set_renewal(format!("log in as the credential_process of the profile {base_profile} needs it"));
                process::credentials(&base_profile, &line).await?
            }
        };
        learn(&held);
        for role in &roles {
            held = assumption.with_credentials(role, held).await?;
            learn(&held);
        }
        Ok(held)
    }

    /// Returns the credentials of a `credential_source`.
    async fn source(&self, profile: &str, source: &str) -> Result<Credentials, Fault> {
        let config = self.provider_config();
        let provided = match source {
            "Environment" => EnvironmentVariableCredentialsProvider::new().provide_credentials().await,
            "Ec2InstanceMetadata" => {
                let client = imds::Client::builder().configure(&config).build();
                let provider = ImdsCredentialsProvider::builder().configure(&config).imds_client(client).build();
                provider.provide_credentials().await
            }
            "EcsContainer" => EcsCredentialsProvider::builder().configure(&config).build().provide_credentials().await,
            other => {
                return Err(Fault::new(format!("the AWS profile {profile} has the unknown credential_source {other}"))
                    .hint("write Environment, Ec2InstanceMetadata or EcsContainer")
                    .invalid());
            }
        };
        provided.map_err(|error| {
            Fault::new(format!("the credential_source {source} of the AWS profile {profile} has no credentials"))
                .caused_by(error)
        })
    }

    fn provider_config(&self) -> ProviderConfig {
        let sender = Sender::new(self.network.clients.clone());
        ProviderConfig::without_region().with_http_client(sender).with_region(self.config.region().cloned())
    }
}

/// Removes credentials from all later output. STS can repeat in an error what it was sent.
pub(super) fn learn(credentials: &Credentials) {
    redaction::learn("AWS secret access key", credentials.secret_access_key());
    if let Some(token) = credentials.session_token() {
        redaction::learn("AWS session token", token);
    }
}

/// Returns whether the environment has keys.
///
/// # Errors
/// If it has half of them: with the other credentials, the user could change another account.
fn has_keys() -> Result<bool, Fault> {
    let names = [environment::ACCESS_KEY_ID, environment::SECRET_ACCESS_KEY];
    let (one, other) = match names.map(|name| environment::value(name).is_some()) {
        [id, secret] if id == secret => return Ok(id),
        [true, _] => (names[0], names[1]),
        _ => (names[1], names[0]),
    };
    Err(Fault::new(format!("the environment has {one}, and not {other}"))
        .hint(format!("export {other}, too, or unset {one} to use a profile"))
        .invalid())
}

/// Returns the fault of a user without credentials.
async fn missing(error: CredentialsError) -> Fault {
    let fault = Fault::new("no AWS credentials were found").logged_out();
    let hint = match profile::names().await {
        Some(names) => format!("name a profile with --profile, or export AWS_PROFILE; {names}"),
        None => "aws configure sso, or aws configure; or export AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and \
                 AWS_SESSION_TOKEN"
            .into(),
    };
    tracing::debug!("no credentials: {error:?}");
    match error {
        // The SDK's words name its own parts.
        CredentialsError::CredentialsNotLoaded(_) => fault,
        error => fault.caused_by(error),
    }
    .hint(hint)
}

/// The login as a source of credentials of the SDK.
#[derive(Debug)]
pub(super) struct LoginProvider(Arc<OnceLock<PersonLogin>>);

impl ProvideCredentials for LoginProvider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let login = self.0.get().ok_or_else(CredentialsError::not_loaded_no_source)?;
            login.credentials().await.map_err(|fault| CredentialsError::provider_error(Box::new(fault)))
        })
    }
}
