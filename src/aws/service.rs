//! The services of query calls, and their endpoints.

use aws_config::SdkConfig;
use reqwest::Url;

use crate::{environment, error::Fault};

/// A service of AWS.
#[derive(Debug, PartialEq, Eq)]
pub struct AwsService {
    /// The beginning of its host names, which is also its name in errors, policies and signatures.
    pub(super) name: &'static str,
    /// Its name in `AWS_ENDPOINT_URL_…`.
    /// <https://docs.aws.amazon.com/sdkref/latest/guide/ss-endpoints-table.html>
    variable: &'static str,
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

const fn query(name: &'static str, variable: &'static str, version: &'static str) -> AwsService {
    service(name, variable, Protocol::Query(version))
}

const fn service(name: &'static str, variable: &'static str, protocol: Protocol) -> AwsService {
    AwsService { name, variable, protocol }
}

impl AwsService {
    /// Returns the URL of the service in a region, and the region that a signature for it names.
    ///
    /// # Errors
    /// If the environment or the configuration names an endpoint that is not a URL.
    pub(super) fn endpoint(&self, region: &str, config: &SdkConfig) -> Result<(Url, String), Fault> {
        let named = environment::endpoint_of(self.variable);
        let named = named.or_else(|| config.endpoint_url().map(str::to_owned));
        let domain = dns_suffix(region);
        // Route 53 has one endpoint for a partition. Its signatures name the partition's first region.
        let (host, signed_for) = match (&self.protocol, domain) {
            (Protocol::Rest, "amazonaws.com.cn") => (format!("route53.{domain}"), "cn-northwest-1"),
            (Protocol::Rest, _) if region.starts_with("us-gov-") => {
                ("route53.us-gov.amazonaws.com".into(), "us-gov-west-1")
            }
            (Protocol::Rest, _) => (format!("route53.{domain}"), "us-east-1"),
            _ => (format!("{}.{region}.{domain}", self.name), region),
        };
        let url = named.unwrap_or_else(|| format!("https://{host}"));
        let url = url
            .parse()
            .map_err(|error| Fault::new(format!("the endpoint {url} of AWS is not a valid URL: {error}")).invalid())?;
        Ok((url, signed_for.to_owned()))
    }
}

/// Returns the domain of a region's services.
/// <https://docs.aws.amazon.com/general/latest/gr/rande.html>
pub fn dns_suffix(region: &str) -> &'static str {
    match region.split('-').next() {
        Some("cn") => "amazonaws.com.cn",
        Some("eusc") => "amazonaws.eu",
        _ => "amazonaws.com",
    }
}
