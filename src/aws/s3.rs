//! `s3` sources, by the AWS SDK: its own chain of credentials, its signatures, its endpoints.

mod listing;
mod refusal;
mod upload;

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
    config::{
        self, IdentityCache, ProvideCredentials, ResponseChecksumValidation, StalledStreamProtectionConfig,
        http::{HttpRequest, HttpResponse},
        retry::RetryConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
    operation::get_object::GetObjectOutput,
    primitives::ByteStreamError,
};

use self::refusal::Refusal;
pub use self::{
    listing::{Listed, Prefix},
    upload::Upload,
};
use super::{metadata::Metadata, sdk::Sender};
use crate::{
    environment,
    error::Fault,
    fetch::{
        Origins,
        checksum::Checksum,
        download::{Answer, Bytes},
        range::Range,
        spool::Promise,
    },
    net::{
        client::{causes, root_cause},
        retry::Failure,
    },
};

/// Where a bucket is looked for if nothing names a region: whatever region S3 answers from, it says
/// which one the bucket is in.
const FALLBACK: Region = Region::from_static("us-east-1");

/// S3, with what was learned about its buckets.
#[derive(Debug)]
pub(crate) struct S3 {
    client: Mutex<Client>,
    config: SdkConfig,
    regions: Mutex<HashMap<String, Region>>,
}

/// The object that a request is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Object<'a> {
    /// The bucket's name.
    pub(crate) bucket: &'a str,
    /// Its key.
    pub(crate) key: &'a str,
    /// Its version; the newest without one.
    pub(crate) version: Option<&'a str>,
}

impl S3 {
    /// The one client, made for the first object.
    pub(crate) async fn of(origins: &Origins) -> &Self {
        origins.s3.get_or_init(|| Self::load(origins)).await
    }

    async fn load(origins: &Origins) -> Self {
        let config = configuration(origins).await;
        let client = Mutex::new(client(&config));
        Self { client, config, regions: Mutex::default() }
    }

    /// Asks for an object: all of it, or a part of what was promised.
    pub(crate) async fn get(
        &self,
        origins: &Origins,
        object: Object<'_>,
        part: Option<(Range, &Promise)>,
    ) -> Result<Answer, Failure> {
        let Object { bucket, key, version } = object;
        let get = |config| {
            let request = self.client().get_object().bucket(bucket).key(key);
            let request = request.set_version_id(version.map(str::to_owned));
            let request = match part {
                Some((range, promise)) => request.range(range.header()).set_if_match(promise.etag.clone()),
                None => request,
            };
            // As a header: told by its own method, the SDK would check the body as well. S3 has none of a part.
            let mode = if part.is_some() { "DISABLED" } else { "ENABLED" };
            let with_checksum = move |request: &mut HttpRequest| {
                _ = request.headers_mut().insert("x-amz-checksum-mode", mode);
            };
            request.customize().config_override(config).mutate_request(with_checksum).send()
        };
        let output = match (self.send(bucket, get).await, part) {
            (Ok(output), _) => output,
            (Err(error), Some(_)) if matches!(status(&error), Some(412 | 416)) => {
                return Ok(Answer::Changed(Fault::new("S3 has another object now")));
            }
            (Err(error), _) => return Err(self.explain(origins, object, error).await),
        };
        if let Some((range, promise)) = part {
            let sent = output.content_range().unwrap_or("none");
            return Ok(if range.is_answered_by(sent, promise.total) {
                Answer::Part(Bytes::S3(output.body))
            } else {
                let fault = format!("S3 sent Content-Range {} for {}", sent.escape_debug(), range.header());
                Answer::Changed(Fault::new(fault))
            });
        }
        let promise = Promise {
            total: output.content_length().and_then(|length| u64::try_from(length).ok()),
            etag: output.e_tag().map(str::to_owned),
            version: output.version_id().map(str::to_owned),
            checksum: self.checksum(object, &output).await,
        };
        Ok(Answer::Whole(Bytes::S3(output.body), promise))
    }

    /// The object's checksum. For a composite one S3 is asked how long the parts are, which is the same for all but the
    /// last one, by all tools that are known to upload in parts.
    async fn checksum(&self, object: Object<'_>, output: &GetObjectOutput) -> Option<Checksum> {
        let checksum = Checksum::of(output)?;
        let Some(parts) = checksum.parts() else { return Some(checksum) };
        let Object { bucket, key, .. } = object;
        let head = |config| {
            let request = self.client().head_object().bucket(bucket).key(key).part_number(1);
            request.set_version_id(output.version_id().map(str::to_owned)).customize().config_override(config).send()
        };
        let first = self.send(bucket, head).await.ok().and_then(|head| u64::try_from(head.content_length()?).ok());
        let total = output.content_length().and_then(|length| u64::try_from(length).ok());
        let Some(length) =
            first.filter(|first| *first > 0 && total.is_some_and(|total| total.div_ceil(*first) == parts))
        else {
            tracing::debug!(
                bucket,
                key,
                "the composite checksum can't be checked: the lengths of the parts are not known"
            );
            return None;
        };
        Some(checksum.with_parts(length))
    }

    /// Asks for an object's validator.
    pub(crate) async fn etag(&self, origins: &Origins, object: Object<'_>) -> Result<Option<String>, Failure> {
        let Object { bucket, key, version } = object;
        let head = |config| {
            let request = self.client().head_object().bucket(bucket).key(key);
            request.set_version_id(version.map(str::to_owned)).customize().config_override(config).send()
        };
        match self.send(bucket, head).await {
            Ok(output) => {
                let (etag, version) = (output.e_tag().map(str::to_owned), output.version_id().map(str::to_owned));
                Ok(Promise { etag, version, ..Promise::default() }.validator())
            }
            Err(error) => Err(self.explain(origins, object, error).await),
        }
    }

    fn client(&self) -> Client {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a request, and once more if S3 says that the bucket is in another region.
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
            if refusal.is_expiry() {
                // The SDK would go on with what it took to be valid: a new client has no credentials in hand.
                *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client(&self.config);
            }
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

/// Credentials, region and endpoints by the SDK's own chain, or those of the profile and the region that were chosen.
pub(crate) async fn configuration(origins: &Origins) -> SdkConfig {
    let sender = Sender::new(origins.clients.clone());
    if let Some(config) = &origins.settings.aws {
        return config.clone().into_builder().http_client(sender).build();
    }
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(sender.clone());
    if let Some(profile) = &origins.settings.profile {
        loader = loader.profile_name(profile).credentials_provider(of_profile(profile, sender));
    }
    if let Some(region) = &origins.settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    loader.load().await
}

/// The credentials of one profile. The SDK's chain would ask the environment first.
fn of_profile(name: &str, sender: Sender) -> ProfileFileCredentialsProvider {
    let provider = ProviderConfig::without_region().with_http_client(sender);
    ProfileFileCredentialsProvider::builder().configure(&provider).profile_name(name).build()
}

/// A body that stopped coming.
pub(crate) fn interrupted(origins: &Origins, error: ByteStreamError) -> Failure {
    unanswered(origins, error)
}

fn client(config: &SdkConfig) -> Client {
    // Names like bucket.localhost or bucket.10.0.0.1 resolve nowhere, and every endpoint that one
    // would put in AWS's place (a VPC endpoint, MinIO, LocalStack) takes the bucket in the path. The
    // SDK has no variable for it; for bucket names with dots its endpoint rules decide likewise.
    let elsewhere = config.endpoint_url().is_some() || environment::endpoint_of("S3").is_some();
    Client::from_conf(
        config::Builder::from(config)
            .identity_cache(IdentityCache::lazy().build())
            .force_path_style(elsewhere)
            // These are done here, alike for every kind of source, and for bodies that arrive in parts.
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build(),
    )
}

fn status<E>(error: &SdkError<E>) -> Option<u16> {
    Some(error.raw_response()?.status().as_u16())
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
        Err(Failure::Transient(fault, _) | Failure::Suspect(fault) | Failure::Unsigned(fault)) => Failure::transient(
            Fault::new("there are no AWS credentials, neither in the environment nor in profile files")
                .caused_by(fault),
        ),
    }
}
