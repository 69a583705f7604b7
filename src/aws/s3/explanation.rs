//! Explanations of S3's refusals, with hints.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>

use super::object::S3Object;
use crate::{aws::refusal::Refusal, error::Fault, net::retry::Failure};

/// Returns the failure for a refusal to list a bucket's objects for this identity.
pub(super) fn explain_listing(refusal: &Refusal, prefix: S3Object<'_>, identity: Option<&str>) -> Failure {
    if refusal.status != 403 || refusal.code != "AccessDenied" {
        return explain(refusal, prefix, identity);
    }
    let (bucket, who) = (prefix.bucket, identity.unwrap_or("this machine"));
    let fault = Fault::new(format!(
        "{who} is not allowed s3:ListBucket on arn:aws:s3:::{bucket} (S3: {}, request id {})",
        refusal.code, refusal.request_id
    ));
    Failure::Permanent(fault.hint(
        "allow it in the role's or the bucket's policy; objects that are named one by one need s3:GetObject alone",
    ))
}

/// Returns the failure for a refusal of an object for this identity.
pub(super) fn explain(refusal: &Refusal, object: S3Object<'_>, identity: Option<&str>) -> Failure {
    let S3Object { bucket, key, version } = object;
    let who = identity.unwrap_or("this machine");
    let fault = |text: String| Fault::new(format!("{text} (S3: {}, request id {})", refusal.code, refusal.request_id));
    match (refusal.code.as_str(), refusal.status) {
        ("NoSuchBucket", _) => Failure::Permanent(
            fault(format!("there is no bucket {bucket}")).hint("check the name, and the AWS partition (aws, aws-cn)"),
        ),
        ("NoSuchVersion", _) => Failure::Permanent(fault(format!("the bucket has no such version of {key}"))),
        (_, 404) => Failure::Permanent(
            fault(format!("the bucket {bucket} has no object {key}"))
                .hint("check the key: was this version published?"),
        ),
        ("RequestTimeTooSkewed", _) => {
            let skew = refusal.seconds_ahead.unsigned_abs();
            let side = if refusal.seconds_ahead > 0 { "behind" } else { "ahead of" };
            Failure::Unsigned(
                fault(format!("this machine's clock is {skew} s {side} S3's"))
                    .hint("set the clock: timedatectl status, chronyc makestep (169.254.169.123 is EC2's time server)"),
            )
        }
        ("ExpiredToken", _) => Failure::Unsigned(fault(format!("the credentials of {who} have expired"))),
        ("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken", _) => {
            Failure::Permanent(fault(format!("S3 does not accept the credentials of {who}")))
        }
        ("InvalidObjectState", _) => {
            Failure::Permanent(fault(format!("{key} is archived")).hint("restore it: aws s3api restore-object"))
        }
        (_, 403) => {
            let action = if version.is_some() { "s3:GetObjectVersion" } else { "s3:GetObject" };
            Failure::Permanent(fault(format!("{who} is not allowed {action} on arn:aws:s3:::{bucket}/{key}")).hint(
                format!(
                    "allow it in the role's or the bucket's policy, and kms:Decrypt if the object is encrypted with \
                     a KMS key; without s3:ListBucket on arn:aws:s3:::{bucket} a missing key looks the same"
                ),
            ))
        }
        _ if refusal.is_temporary() => refusal.temporary(fault(format!("S3 answered {}", refusal.status))),
        _ => Failure::Permanent(fault(format!("S3 answered {}", refusal.status))),
    }
}
