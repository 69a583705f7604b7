//! `s3` sources, by the AWS SDK: its own chain of credentials, its signatures, its endpoints.

mod listing;
mod refusal;

use std::{
    collections::HashMap,
    error::Error,
    sync::{Mutex, PoisonError},
};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, profile::ProfileFileCredentialsProvider, provider_config::ProviderConfig,
};
use aws_sdk_s3::{
    Client, Config,
    config::{self, ProvideCredentials, StalledStreamProtectionConfig, http::HttpResponse, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::get_object::GetObjectOutput,
    primitives::ByteStreamError,
};

pub use self::listing::{Listed, Prefix};
use self::refusal::Refusal;
use super::{
    Origins,
    client::{causes, root_cause},
    metadata::Metadata,
    retry::Failure,
    sdk::Sender,
};
use crate::error::Fault;

/// Where a bucket is looked for if nothing names a region: whatever region S3 answers from, it says
/// which one the bucket is in.
const FALLBACK: Region = Region::from_static("us-east-1");

/// S3, with what was learned about its buckets.
#[derive(Debug)]
pub(super) struct S3 {
    client: Client,
    config: SdkConfig,
    regions: Mutex<HashMap<String, Region>>,
}

/// The object that a request is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object<'a> {
    /// The bucket's name.
    pub(super) bucket: &'a str,
    /// Its key.
    pub(super) key: &'a str,
    /// Its version; the newest without one.
    pub(super) version: Option<&'a str>,
}

impl S3 {
    /// The one client, made for the first object.
    pub(super) async fn of(origins: &Origins) -> &Self {
        origins.s3.get_or_init(|| Self::load(origins)).await
    }

    async fn load(origins: &Origins) -> Self {
        let sender = Sender::new(origins.clients.clone());
        let config = if let Some(config) = &origins.settings.aws {
            config.clone().into_builder().http_client(sender).build()
        } else {
            let defaults = aws_config::defaults(BehaviorVersion::latest()).http_client(sender.clone());
            let chosen = match &origins.settings.profile {
                None => defaults,
                Some(profile) => defaults.profile_name(profile).credentials_provider(of_profile(profile, sender)),
            };
            chosen.load().await
        };
        // Names like bucket.localhost or bucket.10.0.0.1 resolve nowhere, and every endpoint that one
        // would put in AWS's place (a VPC endpoint, MinIO, LocalStack) takes the bucket in the path. The
        // SDK has no variable for it; for bucket names with dots its endpoint rules decide likewise.
        let elsewhere = config.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
        let client = Client::from_conf(
            config::Builder::from(&config)
                .force_path_style(elsewhere)
                // Both are done here, alike for every kind of source.
                .retry_config(RetryConfig::disabled())
                .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
                .build(),
        );
        Self { client, config, regions: Mutex::default() }
    }

    /// Asks for an object.
    pub(super) async fn get(&self, origins: &Origins, object: Object<'_>) -> Result<GetObjectOutput, Failure> {
        let Object { bucket, key, version } = object;
        let get = |config| {
            let request = self.client.get_object().bucket(bucket).key(key);
            request.set_version_id(version.map(str::to_owned)).customize().config_override(config).send()
        };
        self.ask(origins, object, get).await
    }

    /// Asks for an object's validator.
    pub(super) async fn etag(&self, origins: &Origins, object: Object<'_>) -> Result<Option<String>, Failure> {
        let Object { bucket, key, version } = object;
        let head = |config| {
            let request = self.client.head_object().bucket(bucket).key(key);
            request.set_version_id(version.map(str::to_owned)).customize().config_override(config).send()
        };
        let output = self.ask(origins, object, head).await?;
        Ok(validator(output.version_id(), output.e_tag()))
    }

    /// Sends a request, and once more if S3 says that the bucket is in another region.
    async fn ask<T, E, F>(
        &self,
        origins: &Origins,
        object: Object<'_>,
        request: impl Fn(config::Builder) -> F,
    ) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
        F: Future<Output = Result<T, SdkError<E>>>,
    {
        match self.send(object.bucket, request).await {
            Ok(output) => Ok(output),
            Err(error) => Err(self.explain(origins, object, error).await),
        }
    }

    async fn send<T, E, F>(&self, bucket: &str, request: impl Fn(config::Builder) -> F) -> Result<T, SdkError<E>>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
    {
        let in_region = || Config::builder().region(self.region(bucket));
        let answer = request(in_region()).await;
        if self.is_elsewhere(bucket, answer.as_ref().err().and_then(SdkError::raw_response)) {
            return request(in_region()).await;
        }
        answer
    }

    fn region(&self, bucket: &str) -> Region {
        let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.get(bucket).or_else(|| self.config.region()).cloned().unwrap_or(FALLBACK)
    }

    /// Whether S3 named another region for the bucket; if so, it is remembered.
    fn is_elsewhere(&self, bucket: &str, answer: Option<&HttpResponse>) -> bool {
        let Some(region) = answer.and_then(|answer| answer.headers().get("x-amz-bucket-region")) else { return false };
        if self.region(bucket).as_ref() == region {
            return false;
        }
        tracing::debug!(bucket, region, "the bucket is in another region");
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        _ = regions.insert(bucket.to_owned(), Region::new(region.to_owned()));
        true
    }

    async fn explain<E>(&self, origins: &Origins, object: Object<'_>, error: SdkError<E>) -> Failure
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        if let Some(refusal) = Refusal::of(&error) {
            let identity = if refusal.is_denial() { Some(self.identity(&origins.metadata).await) } else { None };
            return refusal.explain(object, identity.as_deref());
        }
        if let Some(provider) = self.config.credentials_provider()
            && let Err(error) = provider.provide_credentials().await
        {
            if let Some(profile) = &origins.settings.profile {
                return no_credentials_in(profile, error);
            }
            return no_credentials(&origins.metadata, object, error).await;
        }
        match &error {
            SdkError::ConstructionFailure(_) => {
                Failure::Permanent(Fault::new("the request can't be made").caused_by(error))
            }
            _ => unanswered(origins, error),
        }
    }

    /// Who asked, as far as can be told without asking a third service.
    async fn identity(&self, metadata: &Metadata) -> String {
        let Some(provider) = self.config.credentials_provider() else { return "an anonymous request".into() };
        let Ok(credentials) = provider.provide_credentials().await else { return "this machine".into() };
        match metadata.role_holding(credentials.access_key_id()).await {
            Some(role) => format!("the instance's role {role}"),
            None => format!("the access key {}", credentials.access_key_id()),
        }
    }
}

/// The credentials of one profile. The SDK's chain would ask the environment first.
fn of_profile(name: &str, sender: Sender) -> ProfileFileCredentialsProvider {
    let provider = ProviderConfig::without_region().with_http_client(sender);
    ProfileFileCredentialsProvider::builder().configure(&provider).profile_name(name).build()
}

/// A body that stopped coming.
pub(super) fn interrupted(origins: &Origins, error: ByteStreamError) -> Failure {
    unanswered(origins, error)
}

/// The strong validator of an object: its version, where the bucket keeps them, and its `ETag`.
pub(super) fn validator(version: Option<&str>, etag: Option<&str>) -> Option<String> {
    match (version, etag) {
        (Some(version), Some(etag)) => Some(format!("{version} {etag}")),
        (one, other) => one.or(other).map(str::to_owned),
    }
}

/// An error below HTTP, said by the client that had it.
fn unanswered(origins: &Origins, error: impl Error + Send + Sync + 'static) -> Failure {
    if let Some(error) = causes(&error).find_map(|cause| cause.downcast_ref()) {
        return origins.clients.explain(error);
    }
    Failure::transient(Fault::new(format!("no whole answer from S3: {}", root_cause(&error))))
}

fn no_credentials_in(profile: &str, error: impl Error + Send + Sync + 'static) -> Failure {
    Failure::Permanent(
        Fault::new(format!("the AWS profile {profile} gives no credentials"))
            .caused_by(error)
            .hint(format!("see ~/.aws/config and ~/.aws/credentials; aws configure --profile {profile} writes them")),
    )
}

async fn no_credentials(
    metadata: &Metadata,
    Object { bucket, .. }: Object<'_>,
    error: impl Error + Send + Sync + 'static,
) -> Failure {
    let allow = format!("s3:GetObject on arn:aws:s3:::{bucket}/*");
    match metadata.role().await {
        Ok(None) => Failure::Permanent(
            Fault::new("there are no AWS credentials: this instance has no instance profile")
                .caused_by(error)
                .hint(format!("attach one whose role allows {allow}")),
        ),
        Ok(Some(role)) => Failure::transient(
            Fault::new(format!("the instance's role {role} gives no credentials"))
                .caused_by(error)
                .hint(format!("its trust policy must name ec2.amazonaws.com, and it must allow {allow}")),
        ),
        Err(Failure::Permanent(fault)) => {
            Failure::Permanent(Fault::new("there are no AWS credentials").caused_by(fault))
        }
        Err(Failure::Transient(fault, _) | Failure::Suspect(fault)) => Failure::transient(
            Fault::new("there are no AWS credentials, neither in the environment nor in profile files")
                .caused_by(fault),
        ),
    }
}
