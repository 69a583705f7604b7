//! The refusals of AWS services.

use std::{
    error::Error,
    fmt,
    time::{Duration, SystemTime},
};

use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::{answer::Element, partition::Partition};
use crate::{
    error::Fault,
    net::{
        date::seconds_until,
        retry::{Failure, retry_after},
    },
};

/// The codes of refusals after which the SDKs retry, and those of operations that exclude each other. `LimitExceededException`
/// is missing: it is a quota of CloudFormation and IAM, too.
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html>
const TEMPORARY_CODES: [&str; 17] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "PriorRequestNotComplete",
    "SlowDown",
    "EC2ThrottledException",
    "BandwidthLimitExceeded",
    "RequestTimeout",
    "RequestTimeoutException",
    // STS could not reach the provider of a web identity.
    "IDPCommunicationError",
    // Auto Scaling refuses a change for as long as another one lasts.
    // <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_UpdateAutoScalingGroup.html>
    "ScalingActivityInProgress",
    "ResourceContention",
    "OperationInProgress",
];
/// The codes of refusals that new credentials of the same identity help against.
const EXPIRY_CODES: [&str; 2] = ["ExpiredToken", "ExpiredTokenException"];
/// The codes of refusals of a signature for its time.
const SKEW_CODES: [&str; 3] = ["RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"];
/// The codes that such refusals have, too. Then the message or the `Date` tells the reason.
const SIGNATURE_CODES: [&str; 3] = ["InvalidSignatureException", "SignatureDoesNotMatch", "AuthFailure"];
/// AWS's own SDKs take a clock that is further off for the reason. Services allow five minutes, S3 allows fifteen.
const MAX_SKEW_SECONDS: u64 = 4 * 60;

/// The longest part of a service's message in one line.
const MAX_MESSAGE_CHARACTERS: usize = 600;
/// The codes of S3's refusals whose body names the bucket's region, as botocore knows them.
const REGION_CODES: [&str; 3] =
    ["PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"];

/// Why a call was not done.
#[derive(Debug)]
pub(super) enum NotDone {
    /// The service refuses it.
    Refused(Refusal),
    /// It was not sent, or no answer came.
    Failed(Failure),
}

impl NotDone {
    /// Returns the error of a call in a region.
    pub(super) fn in_region(self, region: &str) -> Self {
        match self {
            Self::Refused(refusal) => Self::Refused(Refusal { partition: Partition::of(region).id, ..refusal }),
            failed @ Self::Failed(_) => failed,
        }
    }
}

impl From<Failure> for NotDone {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A service's answer that refuses a request.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The service's code, such as `ValidationError`.
    pub code: String,
    /// The service's message.
    pub message: String,
    /// The identifier that AWS's support asks for.
    pub(super) request_id: String,
    /// Seconds by which the service's clock is ahead of this machine's.
    pub(super) seconds_ahead: i64,
    /// Seconds by which it is ahead of the request's time.
    skew: i64,
    /// The partition of the region that was asked, for ARNs in hints.
    pub(crate) partition: &'static str,
    /// The region that S3 names for the bucket.
    pub(super) region: Option<String>,
    /// The pause that the service asks for.
    pub(super) retry_after: Option<Duration>,
    /// Whether it refuses a login, so that the call itself was never made.
    pub(super) is_of_login: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (HTTP {}, request id {})", self.code, self.message, self.status, self.request_id)
    }
}

impl Error for Refusal {}

impl Refusal {
    /// Returns the refusal in an error's chain.
    pub fn of(error: &anyhow::Error) -> Option<&Self> {
        error.chain().find_map(|cause| cause.downcast_ref())
    }

    /// Reads the refusal of a request that was made at this time.
    pub(crate) fn read(status: u16, headers: &HeaderMap, body: &str, now: SystemTime) -> Self {
        let answer = Element::of_xml(body).or_else(|_| Element::of_json(body)).unwrap_or_default();
        let said = |names: &[&str]| {
            let found = names.iter().find_map(|name| answer.anywhere(name));
            found.map(|element| element.text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let seconds_ahead =
            |of: SystemTime| header("date").and_then(|date| seconds_until(date, of)).unwrap_or_default();
        // A REST service sends `UnauthorizedException:http://…` in a header.
        let named = || Some(header("x-amzn-errortype")?.split(':').next()?.to_owned());
        let code = said(&["Code", "__type", "error"]).or_else(named).unwrap_or_else(|| format!("HTTP {status}"));
        // A JSON service sends `com.amazonaws.acm#ResourceNotFoundException`.
        let code = code.rsplit('#').next().unwrap_or_default().to_owned();
        let region = || said(&["Region"]).filter(|_| REGION_CODES.contains(&code.as_str()));
        Self {
            status,
            message: said(&["Message", "message", "error_description"]).unwrap_or_else(|| "it gives no reason".into()),
            request_id: said(&["RequestId", "RequestID"])
                .or_else(|| header("x-amzn-requestid").or_else(|| header("x-amz-request-id")).map(str::to_owned))
                .unwrap_or_else(|| "none".into()),
            region: header("x-amz-bucket-region").map(str::to_owned).or_else(region),
            seconds_ahead: seconds_ahead(SystemTime::now()),
            skew: seconds_ahead(now),
            retry_after: header(RETRY_AFTER.as_str()).and_then(|value| retry_after(value, now)),
            is_of_login: false,
            partition: Partition::of("").id,
            code,
        }
    }

    /// Returns whether the identity of the caller is the reason.
    pub fn is_denial(&self) -> bool {
        self.status == 403 && self.is_lasting()
    }

    /// Returns whether new credentials of the same identity would help.
    pub(super) fn is_expiry(&self) -> bool {
        EXPIRY_CODES.contains(&self.code.as_str())
    }

    /// Returns whether the time of the signature is the reason.
    pub(super) fn is_of_time(&self) -> bool {
        let says_so = || ["Signature expired", "not yet current"].iter().any(|words| self.message.contains(words));
        SKEW_CODES.contains(&self.code.as_str())
            || (SIGNATURE_CODES.contains(&self.code.as_str())
                && (says_so() || self.skew.unsigned_abs() > MAX_SKEW_SECONDS))
    }

    /// Returns whether the same request will be refused again until the request, the account or a permission is another one:
    /// neither the time nor the login is the reason.
    pub(crate) fn is_lasting(&self) -> bool {
        !self.is_temporary() && !self.is_expiry() && !self.is_of_time() && !self.is_of_login
    }

    /// Returns the code, the service's own words and the id of the request in one line.
    pub(super) fn words(&self) -> String {
        let message: String = self.message.chars().take(MAX_MESSAGE_CHARACTERS).collect();
        format!("{}: {message}, request id {}", self.code, self.request_id)
    }

    /// Returns the refusal of a login.
    pub(super) fn of_login(self) -> Self {
        Self { is_of_login: true, ..self }
    }

    /// Returns whether the same request may succeed after a pause.
    pub(crate) fn is_temporary(&self) -> bool {
        TEMPORARY_CODES.contains(&self.code.as_str()) || matches!(self.status, 408 | 429 | 500..)
    }

    /// Returns a temporary failure, with the pause that the service asks for.
    pub(crate) fn temporary(&self, fault: Fault) -> Failure {
        Failure::Transient(fault, self.retry_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Refusal {
        Refusal::read(status, &HeaderMap::new(), body, SystemTime::now())
    }

    #[test]
    fn every_service_says_no_in_its_own_way() {
        let query = "<ErrorResponse><Error><Type>Sender</Type><Code>ValidationError</Code><Message>No.</Message></Error>\
                     <RequestId>r-1</RequestId></ErrorResponse>";
        let refusal = read(400, query);
        assert_eq!(refusal.to_string(), "ValidationError: No. (HTTP 400, request id r-1)");
        let ec2 = "<Response><Errors><Error><Code>InvalidAMIID.NotFound</Code><Message>gone</Message></Error></Errors>\
                   <RequestID>r-2</RequestID></Response>";
        assert_eq!(read(400, ec2).code, "InvalidAMIID.NotFound");
        let json = r#"{"__type": "com.amazonaws.acm#ResourceNotFoundException", "message": "gone"}"#;
        assert_eq!(read(400, json).code, "ResourceNotFoundException");
        assert_eq!(read(502, "<html>bad gateway").code, "HTTP 502");
    }

    #[test]
    fn codes_that_other_clients_retry_are_temporary() {
        let is_temporary = |code: &str| {
            let body = format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>");
            read(400, &body).is_temporary()
        };
        for code in [
            "IDPCommunicationError",
            "EC2ThrottledException",
            "RequestTimeout",
            "RequestTimeoutException",
            "BandwidthLimitExceeded",
            "Throttling",
        ] {
            assert!(is_temporary(code), "{code}");
        }
        // The quotas of CloudFormation and IAM have this code, too.
        assert!(!is_temporary("LimitExceededException") && !is_temporary("ValidationError"));
    }
}
