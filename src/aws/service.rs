//! The services that the query calls go to, and where they are.

use aws_config::SdkConfig;
use reqwest::Url;

use crate::{environment, error::Fault};

/// A service of AWS.
#[derive(Debug, PartialEq, Eq)]
pub struct AwsService {
    /// What its host names begin with; also its name in errors, policies and signatures.
    pub(super) name: &'static str,
    /// Its name in `AWS_ENDPOINT_URL_…`.
    /// <https://docs.aws.amazon.com/sdkref/latest/guide/ss-endpoints-table.html>
    variable: &'static str,
    pub(super) protocol: Protocol,
}

/// How a service takes calls.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// A form out, XML back; with the version of the API.
    Query(&'static str),
    /// GET of a path with a query, XML back. The one such service is the same in all regions.
    Rest,
    /// JSON 1.1, with the prefix of its operations' names.
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
/// How much of what an account may have.
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
        // Route 53 is one for all regions of a partition, and signed for its first.
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
