//! The services that this program calls.

use super::endpoint::Endpoint;

/// A service of AWS.
#[derive(Debug, PartialEq, Eq)]
pub struct AwsService {
    pub(super) endpoint: Endpoint,
    pub(super) protocol: Protocol,
}

/// How a service takes calls.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// The request is a form, the answer is XML. The value is the version of the API.
    Query(&'static str),
    /// The request is a GET of a path with a query, the answer is XML. The only such service is the same in all
    /// regions.
    Rest,
    /// The request and the answer are JSON 1.1. The value is the prefix of the operations' names.
    Json(&'static str),
}

/// Stacks.
pub const CLOUDFORMATION: AwsService = query("cloudformation", "CLOUDFORMATION", "2010-05-15");
/// Auto Scaling groups.
pub const AUTO_SCALING: AwsService = query("autoscaling", "AUTO_SCALING", "2011-01-01");
/// Application load balancers.
pub const BALANCING: AwsService = query("elasticloadbalancing", "ELASTIC_LOAD_BALANCING_V2", "2015-12-01");
/// Alarms.
pub const CLOUDWATCH: AwsService = query("monitoring", "CLOUDWATCH", "2010-08-01");
/// Machines, images, networks.
pub const EC2: AwsService = query("ec2", "EC2", "2016-11-15");
/// The identity of the caller.
pub const STS: AwsService = query("sts", "STS", "2011-06-15");
/// Hosted zones.
pub const ROUTE_53: AwsService = service("route53", "ROUTE_53", Protocol::Rest);
/// Certificates.
pub const ACM: AwsService = service("acm", "ACM", Protocol::Json("CertificateManager."));
/// Quotas of an account.
pub const QUOTAS: AwsService = service("servicequotas", "SERVICE_QUOTAS", Protocol::Json("ServiceQuotasV20190624."));

/// Parameters of Systems Manager.
pub const SSM: AwsService = service("ssm", "SSM", Protocol::Json("AmazonSSM."));
/// Secrets.
pub const SECRETS_MANAGER: AwsService = service("secretsmanager", "SECRETS_MANAGER", Protocol::Json("secretsmanager."));

/// Keys.
pub const KMS: AwsService = service("kms", "KMS", Protocol::Json("TrentService."));

const fn query(name: &'static str, id: &'static str, version: &'static str) -> AwsService {
    service(name, id, Protocol::Query(version))
}

const fn service(name: &'static str, id: &'static str, protocol: Protocol) -> AwsService {
    AwsService { endpoint: Endpoint { name, id }, protocol }
}

impl AwsService {
    /// Returns its name in errors, policies and signatures.
    pub(super) const fn name(&self) -> &'static str {
        self.endpoint.name
    }
}
