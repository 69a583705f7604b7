//! S3, by the AWS SDK: its own chain of credentials, its signatures, its endpoints.

mod checksum;
mod explanation;
pub mod listing;
mod object;
pub mod upload;

use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use aws_config::{Region, SdkConfig};
use aws_sdk_s3::{
    Client, Config,
    config::{
        self, IdentityCache, ProvideCredentials, ResponseChecksumValidation, StalledStreamProtectionConfig,
        http::{HttpRequest, HttpResponse},
        retry::RetryConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
    operation::get_object::GetObjectOutput,
    primitives::{ByteStream, ByteStreamError},
};
use tokio::sync::OnceCell;

pub(crate) use self::{
    checksum::{Checksum, RunningChecksum},
    object::{Answer, Promise, S3Object},
};
use super::{
    account::{Account, profile_hint},
    metadata::Metadata,
    refusal::Refusal,
};
use crate::{
    environment,
    error::Fault,
    net::{
        client::{causes, root_cause},
        range::Range,
        retry::Failure,
    },
};

/// The region for a bucket if none is chosen. S3 answers from every region with the region of the bucket.
const FALLBACK_REGION: Region = Region::from_static("us-east-1");

/// S3, with the known regions of buckets.
#[derive(Debug)]
pub(crate) struct S3 {
    account: Arc<Account>,
    /// The client, made with the first request.
    client: OnceCell<Mutex<Client>>,
    regions: Mutex<HashMap<String, Region>>,
}

impl S3 {
    /// Returns the S3 of an account's region, or of the region that a bucket is in.
    pub(crate) fn new(account: Arc<Account>) -> Self {
        Self { account, client: OnceCell::new(), regions: Mutex::default() }
    }

    /// Requests an object: all of it, or a part of the promised body.
    pub(crate) async fn get(
        &self,
        object: S3Object<'_>,
        part: Option<(Range, &Promise)>,
    ) -> Result<Answer<ByteStream>, Failure> {
        let S3Object { bucket, key, version } = object;
        let get = |client: Client, config| {
            let request = client.get_object().bucket(bucket).key(key);
            let request = request.set_version_id(version.map(str::to_owned));
            let request = match part {
                Some((range, promise)) => request.range(range.header()).set_if_match(promise.etag.clone()),
                None => request,
            };
            // This is set as a header. With its own method for it, the SDK would check the body, too. A part has no
            // checksum.
            let mode = if part.is_some() { "DISABLED" } else { "ENABLED" };
            let with_checksum = move |request: &mut HttpRequest| {
                _ = request.headers_mut().insert("x-amz-checksum-mode", mode);
            };
            request.customize().config_override(config).mutate_request(with_checksum).send()
        };
        let output = match (self.send(bucket, get).await, part) {
            (Ok(output), _) => output,
            (Err(error), Some(_)) if matches!(status(&error), Some(412 | 416)) => {
                return Ok(Answer::Changed(Fault::new("the object in S3 was replaced during the download")));
            }
            (Err(error), _) => return Err(self.explain(object, error).await),
        };
        if let Some((range, promise)) = part {
            let sent = output.content_range().unwrap_or("none");
            return Ok(if range.is_answered_by(sent, promise.total) {
                Answer::Part(output.body)
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
        Ok(Answer::Whole(output.body, promise))
    }

    /// Returns the object's checksum. For a composite one, S3 is asked for the length of the first part. All known
    /// tools upload parts of one length, except the last one.
    async fn checksum(&self, object: S3Object<'_>, output: &GetObjectOutput) -> Option<Checksum> {
        let checksum = Checksum::of(output)?;
        let Some(parts) = checksum.parts() else { return Some(checksum) };
        let S3Object { bucket, key, .. } = object;
        let head = |client: Client, config| {
            let request = client.head_object().bucket(bucket).key(key).part_number(1);
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

    /// Requests the validator of an object.
    pub(crate) async fn etag(&self, object: S3Object<'_>) -> Result<Option<String>, Failure> {
        let S3Object { bucket, key, version } = object;
        let head = |client: Client, config| {
            let request = client.head_object().bucket(bucket).key(key);
            request.set_version_id(version.map(str::to_owned)).customize().config_override(config).send()
        };
        match self.send(bucket, head).await {
            Ok(output) => {
                let (etag, version) = (output.e_tag().map(str::to_owned), output.version_id().map(str::to_owned));
                Ok(Promise { etag, version, ..Promise::default() }.validator())
            }
            Err(error) => Err(self.explain(object, error).await),
        }
    }

    /// Returns the failure of an interrupted body.
    pub(crate) fn interrupted(&self, error: ByteStreamError) -> Failure {
        self.unanswered(error)
    }

    async fn client(&self) -> &Mutex<Client> {
        self.client.get_or_init(async || Mutex::new(client(self.account.config().await))).await
    }

    /// Sends a request, and once more if S3 says that the bucket is in another region.
    async fn send<T, E, F>(
        &self,
        bucket: &str,
        request: impl Fn(Client, config::Builder) -> F,
    ) -> Result<T, SdkError<E>>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
    {
        let client = self.client().await.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let region = self.region(bucket).await;
        let in_region = |region| Config::builder().region(Some(region));
        let answer = request(client.clone(), in_region(region.clone())).await;
        match self.other_region(bucket, &region, answer.as_ref().err().and_then(SdkError::raw_response)) {
            Some(region) => request(client, in_region(region)).await,
            None => answer,
        }
    }

    async fn region(&self, bucket: &str) -> Region {
        let known = self.regions.lock().unwrap_or_else(PoisonError::into_inner).get(bucket).cloned();
        match known {
            Some(region) => region,
            None => self.account.config().await.region().cloned().unwrap_or(FALLBACK_REGION),
        }
    }

    /// Returns the region that S3 named for the bucket, if it is another one, and remembers it.
    fn other_region(&self, bucket: &str, asked: &Region, answer: Option<&HttpResponse>) -> Option<Region> {
        let region = answer?.headers().get("x-amz-bucket-region").filter(|region| *region != asked.as_ref())?;
        tracing::debug!(bucket, region, "the bucket is in another region");
        let region = Region::new(region.to_owned());
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        _ = regions.insert(bucket.to_owned(), region.clone());
        Some(region)
    }

    /// Returns the failure that an error means for the user.
    async fn explain<E>(&self, object: S3Object<'_>, error: SdkError<E>) -> Failure
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        if let Some(refusal) = Refusal::of_sdk(&error) {
            if refusal.is_expiry() {
                // The SDK would keep using the expired credentials. A new client has none and fetches them.
                let fresh = client(self.account.config().await);
                *self.client().await.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
            }
            let identity = if refusal.is_denial() { Some(self.identity().await) } else { None };
            return explanation::explain(&refusal, object, identity.as_deref());
        }
        if let Some(provider) = self.account.config().await.credentials_provider()
            && let Err(error) = provider.provide_credentials().await
        {
            if let Some(profile) = &self.account.settings.profile {
                return no_credentials_in(profile, error);
            }
            return no_credentials(&self.account.metadata, object, error).await;
        }
        match &error {
            SdkError::ConstructionFailure(_) => {
                Failure::Permanent(Fault::new("the request to S3 cannot be built; nothing was sent").caused_by(error))
            }
            _ => self.unanswered(error),
        }
    }

    /// Returns the reason of an error below HTTP, in the words of the client that had it.
    fn unanswered(&self, error: impl Error + Send + Sync + 'static) -> Failure {
        if let Some(error) = causes(&error).find_map(|cause| cause.downcast_ref()) {
            return self.account.network.clients.explain(error);
        }
        Failure::transient(Fault::new(format!("S3's answer was cut off before its end: {}", root_cause(&error))))
    }

    /// Returns the identity of the caller, as far as S3 and the metadata service tell it.
    async fn identity(&self) -> String {
        let provider = self.account.config().await.credentials_provider();
        let Some(provider) = provider else { return "an anonymous request".into() };
        let Ok(credentials) = provider.provide_credentials().await else { return "this machine".into() };
        match self.account.metadata.role_holding(credentials.access_key_id()).await {
            Some(role) => format!("the instance's role {role}"),
            None => format!("the access key {}", credentials.access_key_id()),
        }
    }
}

fn client(config: &SdkConfig) -> Client {
    // Names like bucket.localhost or bucket.10.0.0.1 do not resolve. Every endpoint in place of AWS (a VPC endpoint,
    // MinIO, LocalStack) accepts the bucket in the path. The SDK has no variable for this.
    let elsewhere = config.endpoint_url().is_some() || environment::endpoint_of("S3").is_some();
    Client::from_conf(
        config::Builder::from(config)
            .identity_cache(IdentityCache::lazy().build())
            .force_path_style(elsewhere)
            // This program retries by itself, alike for all sources, and for bodies that arrive in parts.
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build(),
    )
}

fn status<E>(error: &SdkError<E>) -> Option<u16> {
    Some(error.raw_response()?.status().as_u16())
}

fn no_credentials_in(profile: &str, error: impl Error + Send + Sync + 'static) -> Failure {
    Failure::Permanent(
        Fault::new(format!("the AWS profile {profile} has no credentials"))
            .caused_by(error)
            .hint(profile_hint(profile)),
    )
}

async fn no_credentials(
    metadata: &Metadata,
    S3Object { bucket, .. }: S3Object<'_>,
    error: impl Error + Send + Sync + 'static,
) -> Failure {
    let allow = format!("s3:GetObject on arn:aws:s3:::{bucket}/*");
    match metadata.role().await {
        Ok(None) => Failure::Permanent(
            Fault::new("no AWS credentials: this instance has no instance profile")
                .caused_by(error)
                .hint(format!("attach one whose role allows {allow}")),
        ),
        Ok(Some(role)) => Failure::transient(
            Fault::new(format!("the instance's role {role} has no credentials"))
                .caused_by(error)
                .hint(format!("its trust policy must name ec2.amazonaws.com, and it must allow {allow}")),
        ),
        Err(Failure::Permanent(fault)) => Failure::Permanent(
            Fault::new("no AWS credentials in the environment, in profile files or in an instance profile")
                .caused_by(fault),
        ),
        Err(Failure::Transient(fault, _) | Failure::Suspect(fault) | Failure::Unsigned(fault)) => {
            Failure::transient(Fault::new("no AWS credentials in the environment or in profile files").caused_by(fault))
        }
    }
}
