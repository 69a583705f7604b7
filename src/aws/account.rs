//! The account that calls are made for: the credentials of the caller, and the region.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider},
};
use tokio::sync::{Mutex, OnceCell};

use super::{
    login::{Person, PersonLogin, learn},
    metadata::Metadata,
    sender::Sender,
};
use crate::{
    error::Fault,
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
    config: OnceCell<SdkConfig>,
    /// The credentials of a machine. Who fetches them holds it, so that others wait for these.
    credentials: Mutex<Option<Credentials>>,
}

impl Account {
    /// Returns the account that the settings, the environment, the profile files or the instance name.
    pub(crate) fn new(network: Arc<Network>, settings: AwsSettings) -> Self {
        let metadata = Metadata::new(network.clone());
        Self { network, metadata, settings, config: OnceCell::new(), credentials: Mutex::default() }
    }

    /// Returns an account with this metadata service and, instead of the SDK's chain, this configuration.
    #[cfg(test)]
    pub(crate) fn of(metadata: Metadata, settings: AwsSettings, config: Option<SdkConfig>) -> Self {
        let network = metadata.network.clone();
        let sender = Sender::new(network.clients.clone());
        let config = config.map(|config| config.into_builder().http_client(sender).build());
        Self { network, metadata, settings, config: OnceCell::new_with(config), credentials: Mutex::default() }
    }

    /// Returns the configuration of the SDK: the region and the endpoints of its own chain, or those of the profile and the
    /// region that were chosen; and the credentials of the caller.
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
            let CallerKind::Person(person) = &self.settings.caller else { return loader.load().await };
            let config = loader.no_credentials().load().await;
            let provider = person.begin(&self.network, &config, self.settings.profile.as_ref());
            config.into_builder().credentials_provider(SharedCredentialsProvider::new(provider)).build()
        };
        self.config.get_or_init(load).await
    }

    /// Returns valid credentials.
    ///
    /// # Errors
    /// If no credentials are found.
    pub(super) async fn credentials(&self) -> Result<Credentials, Failure> {
        let config = self.config().await;
        if let Some(login) = self.login() {
            return login.credentials().await.map_err(Failure::Permanent);
        }
        let mut held = self.credentials.lock().await;
        if let Some(held) = &*held
            && held.expiry().is_none_or(|expiry| expiry > SystemTime::now() + EXPIRY_MARGIN)
        {
            return Ok(held.clone());
        }
        let missing = || Fault::new("no AWS credentials were found");
        let provider = config.credentials_provider().ok_or_else(|| Failure::Permanent(missing()))?;
        match (provider.provide_credentials().await, &*held) {
            (Ok(fresh), _) => {
                learn(&fresh);
                *held = Some(fresh.clone());
                Ok(fresh)
            }
            (Err(_), Some(held)) if held.expiry().is_some_and(|expiry| expiry > SystemTime::now()) => Ok(held.clone()),
            (Err(error), _) => Err(Failure::Permanent(missing().caused_by(error))),
        }
    }

    /// Fetches credentials anew for the next call: the held ones have expired.
    pub(super) async fn forget_credentials(&self) {
        *self.credentials.lock().await = None;
        if let Some(login) = self.login() {
            login.forget().await;
        }
    }

    /// Returns the fault of credentials that AWS says have expired, with what to type.
    pub(super) fn expired(&self, refused: Fault) -> Fault {
        match self.login() {
            Some(login) => {
                let expired = Fault::new("the AWS credentials have expired").hint(login.renewal());
                expired.logged_out().caused_by(refused)
            }
            None => refused,
        }
    }

    /// Returns whether the credentials of a container or of this instance are meant: the caller has named no others.
    pub(super) fn is_of_machine(&self) -> bool {
        self.login().is_none_or(PersonLogin::is_of_machine)
    }

    fn login(&self) -> Option<&PersonLogin> {
        match &self.settings.caller {
            CallerKind::Person(person) => person.login(),
            CallerKind::Machine => None,
        }
    }

    /// Returns the region that calls go to.
    ///
    /// # Errors
    /// If no region is chosen.
    pub(super) async fn region(&self) -> Result<&str, Fault> {
        let hint = "export AWS_REGION=REGION, or write `region` to ~/.aws/config; deploy has --region REGION";
        // The SDK takes an empty AWS_REGION for the name of a region.
        let chosen = self.config().await.region().map(AsRef::as_ref).filter(|region: &&str| !region.is_empty());
        if let (None, Some(login)) = (chosen, self.login()) {
            // A profile that does not exist has no region either.
            login.check_profile().await?;
        }
        chosen.ok_or_else(|| Fault::new("no AWS region is chosen").hint(hint).invalid())
    }
}
