//! The account that calls are made for: the credentials of the caller, and the region.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Error;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError},
};
use tokio::sync::{Mutex, OnceCell};

use super::{
    clock::AwsClock,
    login::{Person, PersonLogin, learn},
    metadata::Metadata,
    refusal::Refusal,
    sender::Sender,
};
use crate::{
    error::{self, Class, Fault},
    host::ec2,
    net::{Network, retry::Failure},
};

/// Credentials are fetched anew this long before they expire.
pub(super) const EXPIRY_MARGIN: Duration = Duration::from_mins(5);

/// The choices of the user, which override the environment.
#[derive(Debug, Clone, Default)]
pub struct AwsSettings {
    /// A profile of `~/.aws/config` and `~/.aws/credentials`, for its credentials and its region.
    pub profile: Option<String>,
    /// The region that calls go to. It overrides the profile's.
    pub region: Option<String>,
    /// The account that a bucket must belong to. S3 refuses the buckets of other accounts in uploads.
    /// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html>
    pub bucket_owner: Option<String>,
    /// Whose credentials they are.
    pub caller: CallerKind,
}

/// Whose credentials sign the calls.
#[derive(Debug, Clone, Default)]
pub enum CallerKind {
    /// A machine: the SDK's own chain, which ends with the instance's role.
    #[default]
    Machine,
    /// A person, who logs in as AWS's own tools let them.
    Person(Person),
}

/// The credentials and the region of the caller, loaded with the first call.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) network: Arc<Network>,
    pub(crate) metadata: Metadata,
    pub(super) settings: AwsSettings,
    pub(super) clock: Arc<AwsClock>,
    config: OnceCell<SdkConfig>,
    /// The region that the metadata service has told.
    region: OnceCell<String>,
    /// The credentials of a machine. Who fetches them holds it, so that others wait for these.
    credentials: Mutex<Option<Credentials>>,
}

impl Account {
    /// Returns the account that the settings, the environment, the profile files or the instance name.
    pub(crate) fn new(network: Arc<Network>, settings: AwsSettings) -> Self {
        Self::with(Metadata::new(network), settings, OnceCell::new())
    }

    /// Returns an account with this metadata service and, instead of the SDK's chain, this configuration.
    #[cfg(test)]
    pub(crate) fn of(metadata: Metadata, settings: AwsSettings, config: Option<SdkConfig>) -> Self {
        let sender = Sender::new(metadata.network.clients.clone());
        let config = config.map(|config| with_named_region(config.into_builder().http_client(sender).build()));
        Self::with(metadata, settings, OnceCell::new_with(config))
    }

    fn with(metadata: Metadata, settings: AwsSettings, config: OnceCell<SdkConfig>) -> Self {
        Self {
            network: metadata.network.clone(),
            metadata,
            settings,
            clock: Arc::default(),
            config,
            region: OnceCell::new(),
            credentials: Mutex::default(),
        }
    }

    /// Returns the configuration of the SDK: the region and the endpoints of its own chain, or those of the profile and the
    /// region that were chosen; and the credentials of the caller. Its region is missing if the metadata service, which is
    /// the last to be asked, does not answer: see [`Account::region`].
    pub(super) async fn config(&self) -> &SdkConfig {
        let load = async || {
            let sender = Sender::new(self.network.clients.clone());
            let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(sender);
            if let Some(profile) = &self.settings.profile {
                loader = loader.profile_name(profile);
            }
            if let Some(region) = &self.settings.region {
                loader = loader.region(Region::new(region.clone()));
            }
            let CallerKind::Person(person) = &self.settings.caller else {
                return with_named_region(loader.load().await);
            };
            let config = with_named_region(loader.no_credentials().load().await);
            let provider = person.begin(&self.network, &self.clock, &config, self.settings.profile.as_ref());
            config.into_builder().credentials_provider(SharedCredentialsProvider::new(provider)).build()
        };
        self.config.get_or_init(load).await
    }

    /// Returns valid credentials. `need` says what an instance's role is for: `allows s3:GetObject on ARN`.
    ///
    /// # Errors
    /// If no credentials are found. This is temporary if the machine's own are meant, and its metadata service may still
    /// give some.
    pub(super) async fn credentials(&self, need: &str) -> Result<Credentials, Failure> {
        let config = self.config().await;
        if let Some(login) = self.login() {
            return match login.credentials().await {
                Err(fault) if login.is_of_machine() => Err(self.no_credentials(fault.into(), need).await),
                loaded => loaded.map_err(Failure::Permanent),
            };
        }
        let mut held = self.credentials.lock().await;
        if let Some(held) = &*held
            && held.expiry().is_none_or(|expiry| expiry > SystemTime::now() + EXPIRY_MARGIN)
        {
            return Ok(held.clone());
        }
        let provided = match config.credentials_provider() {
            Some(provider) => provider.provide_credentials().await.map_err(Error::from),
            None => Err(CredentialsError::not_loaded_no_source().into()),
        };
        match (provided, &*held) {
            (Ok(fresh), _) => {
                learn(&fresh);
                *held = Some(fresh.clone());
                Ok(fresh)
            }
            (Err(_), Some(held)) if held.expiry().is_some_and(|expiry| expiry > SystemTime::now()) => Ok(held.clone()),
            (Err(error), _) => Err(self.no_credentials(error, need).await),
        }
    }

    /// Returns the failure of a machine that has no credentials. Waits for a metadata service that is not up yet.
    async fn no_credentials(&self, error: Error, need: &str) -> Failure {
        let missing = || Fault::new("no AWS credentials were found");
        match self.metadata.role().await {
            Ok(None) => Failure::Permanent(
                Fault::new("no AWS credentials: this instance has no instance profile")
                    .caused_by(error)
                    .hint(format!("attach one whose role {need}")),
            ),
            Ok(Some(role)) => Failure::transient(
                Fault::new(format!("the instance's role {role} has no credentials"))
                    .caused_by(error)
                    .hint(format!("its trust policy must name ec2.amazonaws.com; see that the role {need}")),
            ),
            // Where no metadata service can be, the fault of a person says how to log in.
            Err(Failure::Permanent(fault)) => {
                let fault = Error::from(fault);
                let login = if ec2::is_untrusted_error(&fault) { error.downcast().ok() } else { None };
                Failure::Permanent(login.unwrap_or_else(|| missing().caused_by(fault)))
            }
            Err(Failure::Transient(fault, _) | Failure::Suspect(fault) | Failure::Unsigned(fault)) => {
                Failure::transient(missing().caused_by(fault))
            }
        }
    }

    /// Fetches credentials anew for the next call: the held ones have expired.
    async fn forget_credentials(&self) {
        *self.credentials.lock().await = None;
        if let Some(login) = self.login() {
            login.forget().await;
        }
    }

    /// Returns the failure that a service's refusal means. `fault` says what was refused.
    pub(super) async fn refused(&self, refusal: &Refusal, fault: Fault) -> Failure {
        if refusal.is_of_time() {
            self.clock.correct(refusal)
        } else if refusal.is_expiry() {
            self.forget_credentials().await;
            Failure::Unsigned(self.expired(fault))
        } else if refusal.is_temporary() {
            refusal.temporary(fault)
        } else {
            Failure::Permanent(fault)
        }
    }

    /// Returns the fault of credentials that AWS says have expired, with what to type.
    fn expired(&self, refused: Fault) -> Fault {
        match self.login() {
            Some(login) => {
                let expired = Fault::new("the AWS credentials have expired").hint(login.renewal());
                expired.logged_out().caused_by(refused)
            }
            None => refused,
        }
    }

    fn login(&self) -> Option<&PersonLogin> {
        match &self.settings.caller {
            CallerKind::Person(person) => person.login(),
            CallerKind::Machine => None,
        }
    }

    /// Returns the region that calls go to: the chosen one, or this instance's. Waits for a metadata service that is not up
    /// yet.
    ///
    /// # Errors
    /// If there is none. This is temporary if the metadata service may still tell one.
    pub(super) async fn region(&self) -> Result<&str, Failure> {
        if let Some(chosen) = self.config().await.region() {
            return Ok(chosen.as_ref());
        }
        if let Some(login) = self.login() {
            // A profile that does not exist has no region either.
            login.check_profile().await.map_err(Failure::Permanent)?;
        }
        let hint = "export AWS_REGION=REGION, or write `region` to ~/.aws/config; deploy has --region REGION";
        let missing = || Fault::new("no AWS region is chosen").hint(hint);
        let ask = async || match self.metadata.region().await {
            Ok(Some(region)) => Ok(region),
            Ok(None) => Err(Failure::Permanent(missing().invalid())),
            Err(Failure::Transient(fault, pause)) => Err(Failure::Transient(missing().caused_by(fault), pause)),
            Err(failure) => {
                let fault = Error::from(failure.into_fault());
                let is_temporary = error::class(&fault) == Class::Transient;
                let missing = if is_temporary { missing().caused_by(fault) } else { missing().invalid() };
                Err(Failure::Permanent(missing))
            }
        };
        self.region.get_or_try_init(ask).await.map(String::as_str)
    }
}

/// Returns a configuration without an empty region. The SDK takes an empty `AWS_REGION` for the name of one.
fn with_named_region(config: SdkConfig) -> SdkConfig {
    let region = config.region().filter(|region| !region.as_ref().is_empty()).cloned();
    let mut config = config.into_builder();
    _ = config.set_region(region);
    config.build()
}
