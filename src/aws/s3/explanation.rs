//! Explanations of S3's refusals, with hints.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>

use super::object::S3Object;
use crate::{aws::refusal::Refusal, error::Fault};

/// Returns the fault of a refusal to list a bucket's objects for this identity.
pub(super) fn explain_listing(refusal: &Refusal, prefix: S3Object<'_>, who: &str) -> Fault {
    if refusal.code != "AccessDenied" {
        return explain(refusal, prefix, Some(who));
    }
    let fault = Fault::new(format!(
        "{who} is not allowed s3:ListBucket on arn:{}:s3:::{} (S3: {})",
        refusal.partition,
        prefix.bucket,
        refusal.words()
    ));
    fault.hint(
        "allow it in the role's or the bucket's policy; objects that are named one by one need s3:GetObject alone",
    )
}

/// Returns the fault of a refusal of an object for this identity.
pub(super) fn explain(refusal: &Refusal, object: S3Object<'_>, identity: Option<&str>) -> Fault {
    let S3Object { bucket, key, version } = object;
    let who = identity.unwrap_or("this machine");
    let fault = |text: String| Fault::new(format!("{text} (S3: {})", refusal.words()));
    let bucket_arn = format!("arn:{}:s3:::{bucket}", refusal.partition);
    match (refusal.code.as_str(), refusal.status) {
        ("NoSuchBucket", _) => {
            fault(format!("there is no bucket {bucket}")).hint("check the name, and the AWS partition (aws, aws-cn)")
        }
        ("NoSuchVersion", _) => fault(format!("the bucket has no such version of {key}")),
        (_, 404) => {
            fault(format!("the bucket {bucket} has no object {key}")).hint("check the key: was this version published?")
        }
        ("ExpiredToken", _) => fault(format!("the credentials of {who} have expired")),
        ("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken", _) => {
            fault(format!("S3 does not accept the credentials of {who}"))
        }
        ("InvalidObjectState", _) => fault(format!("{key} is archived")).hint("restore it: aws s3api restore-object"),
        (_, 403) => {
            let action = if version.is_some() { "s3:GetObjectVersion" } else { "s3:GetObject" };
            fault(format!("{who} is not allowed {action} on {bucket_arn}/{key}")).hint(format!(
                "allow it in the role's or the bucket's policy, and kms:Decrypt if the object is encrypted with a KMS \
                 key; without s3:ListBucket on {bucket_arn} a missing key looks the same"
            ))
        }
        (_, status) => fault(format!("S3 answered {status}")),
    }
}
