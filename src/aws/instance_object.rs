//! The object of an instance: below a prefix of a bucket, its key is the ARN of the instance.
//!
//! A role can so allow each instance its own object and no other: `PREFIX/${ec2:SourceInstanceARN}` in a policy. Both sides
//! know the key without a question to AWS. The id of the role, which `aws:userid` begins with, neither of them knows.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html>

use std::{fmt, str::FromStr, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{
    Aws,
    account::Account,
    metadata::{BUILD_TAG, IDENTITY_DOCUMENT, IdentityDocument},
    partition::Partition,
    s3::{S3Object, check_bucket, upload::Upload},
};
use crate::{
    error::Fault,
    host::Host,
    net::retry::Failure,
    value::{printable, spoken},
};

/// The prefix of the objects of instances, written `s3://BUCKET/PREFIX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceObjects {
    /// The bucket's name.
    pub bucket: String,
    /// The prefix, without a slash at its end.
    pub prefix: String,
}

impl FromStr for InstanceObjects {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        printable(text)?;
        let path = text.strip_prefix("s3://").and_then(|path| path.split_once('/'));
        let (bucket, prefix) = path.unwrap_or_default();
        let is_place = !bucket.is_empty() && !prefix.is_empty() && !prefix.ends_with('/');
        ensure!(is_place, "`{text}` is not s3://BUCKET/PREFIX, without a slash at the end");
        check_bucket(bucket)?;
        Ok(Self { bucket: bucket.into(), prefix: prefix.into() })
    }
}

impl fmt::Display for InstanceObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

impl InstanceObjects {
    fn key(&self, arn: &str) -> String {
        format!("{}/{arn}", self.prefix)
    }
}

/// Returns the ARN of an instance.
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html>
pub fn instance_arn(partition: &str, region: &str, account: &str, id: &str) -> String {
    format!("arn:{partition}:ec2:{region}:{account}:instance/{id}")
}

impl Aws {
    /// Uploads the object of this instance, in place of an earlier one, within this time. It needs `s3:PutObject` alone.
    ///
    /// # Errors
    /// If S3 does not take it in time, the instance has no role, or this process receives a signal.
    pub fn put_own_object(&self, host: &Host, place: &InstanceObjects, body: Vec<u8>, within: Duration) -> Result<()> {
        let (account, s3, place) = (self.account.clone(), self.s3.clone(), place.clone());
        let put = async move {
            let key = place.key(&own_arn(&account).await.map_err(Failure::into_fault)?);
            s3.replace(&Upload { bucket: place.bucket, key, body }).await
        };
        self.worker.run(&host.stop, timely(put, within))
    }

    /// Returns the build in this instance's tag of that name; `None` if the metadata do not have it within this time.
    pub fn own_build(&self, host: &Host, within: Duration) -> Option<String> {
        let account = self.account.clone();
        let get = async move { account.metadata.get(BUILD_TAG).await.map_err(Failure::into_fault) };
        self.worker.run(&host.stop, timely(get, within)).ok().flatten()
    }

    /// Returns the first bytes of the object of an instance; `None` if it does not exist.
    ///
    /// # Errors
    /// If S3 does not send it in time, which is temporary, or refuses to. There is one attempt.
    pub fn object_of_instance(
        &self,
        host: &Host,
        place: &InstanceObjects,
        arn: &str,
        (max_bytes, within): (usize, Duration),
    ) -> Result<Option<Vec<u8>>> {
        let (s3, bucket, key) = (self.s3.clone(), place.bucket.clone(), place.key(arn));
        let what = format!("reading s3://{bucket}/{key}");
        let get = async move {
            let object = S3Object { bucket: &bucket, key: &key, version: None };
            s3.beginning(object, max_bytes).await.map_err(|failure| match failure {
                Failure::Permanent(fault) => fault,
                other => other.into_fault().transient(),
            })
        };
        self.worker.run(&host.stop, timely(get, within)).context(what)
    }
}

/// Returns the ARN of this instance, from its identity document.
async fn own_arn(account: &Account) -> Result<String, Failure> {
    let missing = || Failure::Permanent(Fault::new("the metadata service has no identity document"));
    let document = account.metadata.get(IDENTITY_DOCUMENT).await?.ok_or_else(missing)?;
    let document = IdentityDocument::read(&document)?;
    let region = document.fact("region")?;
    Ok(instance_arn(Partition::of(region).id, region, document.fact("accountId")?, document.fact("instanceId")?))
}

/// Gives work up after this time.
async fn timely<T>(work: impl Future<Output = Result<T, Fault>>, within: Duration) -> Result<T, Fault> {
    let late = |_| Err(Fault::new(format!("no answer within {}", spoken(within))).transient());
    tokio::time::timeout(within, work).await.unwrap_or_else(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_bucket_and_a_prefix() {
        let place: InstanceObjects = "s3://my-bucket/app.failures".parse().unwrap();
        assert_eq!(
            (&*place.bucket, &*place.prefix, &*place.to_string()),
            ("my-bucket", "app.failures", "s3://my-bucket/app.failures")
        );
        for wrong in ["", "my-bucket/x", "s3://my-bucket", "s3://my-bucket/", "s3:///x", "s3://b/x/", "s3://b/x\n"] {
            assert!(wrong.parse::<InstanceObjects>().is_err(), "{wrong:?}");
        }
    }
}
