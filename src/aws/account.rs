//! The account that calls are made for: the SDK's own chain of credentials, and the region.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, profile::ProfileFileCredentialsProvider, provider_config::ProviderConfig,
};
use aws_credential_types::{Credentials, provider::ProvideCredentials};
use tokio::sync::OnceCell;

use super::{metadata::Metadata, sender::Sender};
use crate::{
    error::Fault,
    net::{Network, retry::Failure},
};

/// Credentials are fetched anew this long before they expire.
const EXPIRY_MARGIN: Duration = Duration::from_mins(5);

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
}

/// The credentials and the region of the caller, loaded with the first call.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) network: Arc<Network>,
    pub(crate) metadata: Metadata,
    pub(super) settings: AwsSettings,
    config: OnceCell<SdkConfig>,
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

    /// Returns the configuration of the SDK: the credentials, the region and the endpoints of its own chain, or those of the
    /// profile and the region that were chosen.
    pub(super) async fn config(&self) -> &SdkConfig {
        let load = async || {
            let sender = Sender::new(self.network.clients.clone());
            let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(sender.clone());
            if let Some(profile) = &self.settings.profile {
                loader = loader.profile_name(profile).credentials_provider(of_profile(profile, sender));
            }
            if let Some(region) = &self.settings.region {
                loader = loader.region(Region::new(region.clone()));
            }
            loader.load().await
        };
        self.config.get_or_init(load).await
    }

    /// Returns valid credentials.
    ///
    /// # Errors
    /// If no credentials are found.
    pub(super) async fn credentials(&self) -> Result<Credentials, Failure> {
        let held = self.held().clone();
        if let Some(held) = held
            && held.expiry().is_none_or(|expiry| expiry > SystemTime::now() + EXPIRY_MARGIN)
        {
            return Ok(held);
        }
        let hint = match &self.settings.profile {
            Some(profile) => profile_hint(profile),
            None => "give them in the environment (AWS_ACCESS_KEY_ID …), by aws configure, aws sso login, or --profile"
                .into(),
        };
        let missing = || Fault::new("no AWS credentials were found").hint(hint.clone());
        let provider = self.config().await.credentials_provider().ok_or_else(|| Failure::Permanent(missing()))?;
        let fresh =
            provider.provide_credentials().await.map_err(|error| Failure::Permanent(missing().caused_by(error)))?;
        *self.held() = Some(fresh.clone());
        Ok(fresh)
    }

    /// Fetches credentials anew for the next call: the held ones have expired.
    pub(super) fn forget_credentials(&self) {
        *self.held() = None;
    }

    fn held(&self) -> MutexGuard<'_, Option<Credentials>> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the region that calls go to.
    ///
    /// # Errors
    /// If no region is chosen.
    pub(super) async fn region(&self) -> Result<&str, Fault> {
        let hint = "--region REGION, AWS_REGION, or `region` in ~/.aws/config";
        // The SDK takes an empty AWS_REGION for the name of a region.
        let chosen = self.config().await.region().map(AsRef::as_ref).filter(|region: &&str| !region.is_empty());
        chosen.ok_or_else(|| Fault::new("no AWS region is chosen").hint(hint).invalid())
    }
}

/// Returns the hint for a profile without credentials.
pub(super) fn profile_hint(profile: &str) -> String {
    format!("see ~/.aws/config and ~/.aws/credentials; aws configure --profile {profile} writes them")
}

/// Returns the credentials of one profile. The SDK's chain would ask the environment first.
fn of_profile(name: &str, sender: Sender) -> ProfileFileCredentialsProvider {
    let provider = ProviderConfig::without_region().with_http_client(sender);
    ProfileFileCredentialsProvider::builder().configure(&provider).profile_name(name).build()
}
