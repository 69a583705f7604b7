//! What S3 says no with, in words that say what to do.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>

use std::time::Duration;

use aws_sdk_s3::{
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
    primitives::{DateTime, DateTimeFormat},
};

use super::Object;
use crate::{
    error::Fault,
    fetch::http::now,
    net::retry::{Failure, retry_after},
};

/// An answer other than the object.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: u16,
    /// S3's code; an answer to HEAD has no body and so none.
    code: String,
    request_id: String,
    /// Seconds by which S3's clock is ahead of this machine's.
    ahead: i64,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// The refusal that an error holds, if there was an answer at all.
    pub(crate) fn of<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Option<Self> {
        let answer = error.raw_response()?;
        let now = now();
        let date =
            answer.headers().get("date").and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
        let status = answer.status().as_u16();
        Some(Self {
            status,
            code: error.code().map_or_else(|| status.to_string(), str::to_owned),
            request_id: answer.request_id().unwrap_or("none").to_owned(),
            ahead: date.map_or(0, |date| date.secs() - now.secs()),
            retry_after: answer.headers().get("retry-after").and_then(|value| retry_after(value, now)),
        })
    }

    /// Whether it is about who asked.
    pub(crate) fn is_denial(&self) -> bool {
        self.status == 403 && self.code != "RequestTimeTooSkewed"
    }

    /// Whether other credentials of the same identity would do.
    pub(crate) fn is_expiry(&self) -> bool {
        self.code == "ExpiredToken"
    }

    /// What it means where a bucket's objects were to be listed, and for whom.
    pub(crate) fn explain_listing(&self, prefix: Object<'_>, identity: Option<&str>) -> Failure {
        if self.status != 403 || self.code != "AccessDenied" {
            return self.explain(prefix, identity);
        }
        let (bucket, who) = (prefix.bucket, identity.unwrap_or("this machine"));
        let fault = Fault::new(format!(
            "{who} is not allowed s3:ListBucket on arn:aws:s3:::{bucket} (S3: {}, request id {})",
            self.code, self.request_id
        ));
        Failure::Permanent(fault.hint(
            "allow it in the role's or the bucket's policy; objects that are named one by one need s3:GetObject alone",
        ))
    }

    /// What it means, and for whom.
    pub(crate) fn explain(&self, object: Object<'_>, identity: Option<&str>) -> Failure {
        let Object { bucket, key, version } = object;
        let who = identity.unwrap_or("this machine");
        let fault = |text: String| Fault::new(format!("{text} (S3: {}, request id {})", self.code, self.request_id));
        match (self.code.as_str(), self.status) {
            ("NoSuchBucket", _) => Failure::Permanent(
                fault(format!("there is no bucket {bucket}"))
                    .hint("check the name, and the AWS partition (aws, aws-cn)"),
            ),
            ("NoSuchVersion", _) => Failure::Permanent(fault(format!("the bucket has no such version of {key}"))),
            (_, 404) => Failure::Permanent(
                fault(format!("the bucket {bucket} has no object {key}"))
                    .hint("check the key: was this version published?"),
            ),
            ("RequestTimeTooSkewed", _) => {
                let skew = self.ahead.unsigned_abs();
                let side = if self.ahead > 0 { "behind" } else { "ahead of" };
                Failure::Unsigned(
                    fault(format!("this machine's clock is {skew} s {side} S3's")).hint(
                        "set the clock: timedatectl status, chronyc makestep (169.254.169.123 is EC2's time server)",
                    ),
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
                Failure::Permanent(
                    fault(format!("{who} is not allowed {action} on arn:aws:s3:::{bucket}/{key}")).hint(format!(
                        "allow it in the role's or the bucket's policy, and kms:Decrypt if the object is encrypted with \
                         a KMS key; without s3:ListBucket on arn:aws:s3:::{bucket} a missing key looks the same"
                    )),
                )
            }
            (_, 500.. | 429 | 408) | ("SlowDown" | "RequestTimeout", _) => {
                Failure::Transient(fault(format!("S3 answered {}", self.status)), self.retry_after)
            }
            _ => Failure::Permanent(fault(format!("S3 answered {}", self.status))),
        }
    }
}
