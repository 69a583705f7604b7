//! The endpoints of AWS services, by the rules of AWS's own SDKs.
//!
//! The SDKs have a file of rules for each service (botocore's `endpoint-rule-set-1.json`). The services of this program
//! differ in a few points only, which are here. `tests/emulators/endpoints.tsv` has what botocore's rules say.

use aws_config::SdkConfig;
use aws_types::service_config::ServiceConfigKey;
use reqwest::Url;

use super::partition::Partition;
use crate::{environment, error::Fault};

/// The service that has one endpoint for all regions of a partition.
const GLOBAL: &str = "route53";
/// The services whose FIPS endpoints in `GovCloud` have names of their own. Those of the others have FIPS anyway.
const WITH_FIPS_IN_GOVCLOUD: [&str; 3] = ["kms", "secretsmanager", "signin"];

/// What a user of IAM Identity Center may do: the credentials of its roles.
pub(super) const SSO: Endpoint = Endpoint { name: "portal.sso", id: "SSO" };
/// The tokens of users of IAM Identity Center.
pub(super) const SSO_OIDC: Endpoint = Endpoint { name: "oidc", id: "SSO_OIDC" };
/// The tokens of users of the console.
pub(super) const SIGN_IN: Endpoint = Endpoint { name: "signin", id: "SIGNIN" };
/// S3. Its endpoints depend on the bucket: [`crate::aws::s3`] has them.
pub(super) const S3: Endpoint = Endpoint { name: "s3", id: "S3" };

/// Where a service answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The beginning of its host names.
    pub(super) name: &'static str,
    /// Its name in `AWS_ENDPOINT_URL_…` and, in lower case, in a profile's `services`.
    /// <https://docs.aws.amazon.com/sdkref/latest/guide/ss-endpoints-table.html>
    pub(super) id: &'static str,
}

/// The kind of an endpoint that the user chose.
#[derive(Debug, Clone, Copy, Default)]
struct Variant {
    /// With cryptography that FIPS 140 has validated: `AWS_USE_FIPS_ENDPOINT`, `use_fips_endpoint`.
    fips: bool,
    /// By IPv6 as well: `AWS_USE_DUALSTACK_ENDPOINT`, `use_dualstack_endpoint`.
    dual_stack: bool,
}

impl Endpoint {
    /// Returns the URL of the service in a region, and the region that a signature for it names.
    ///
    /// # Errors
    /// If the environment or the configuration names an endpoint that is not a URL.
    pub(super) fn find(&self, region: &str, config: &SdkConfig) -> Result<(Url, String), Fault> {
        let variant = Variant {
            fips: config.use_fips().unwrap_or_default(),
            dual_stack: config.use_dual_stack().unwrap_or_default(),
        };
        let signed_for = if self.name == GLOBAL { Partition::of(region).main_region } else { region };
        let url = self.named(config).unwrap_or_else(|| format!("https://{}", self.host(region, variant)));
        let url = url
            .parse()
            .map_err(|error| Fault::new(format!("the endpoint {url} of AWS is not a valid URL: {error}")).invalid())?;
        Ok((url, signed_for.to_owned()))
    }

    /// Returns the endpoint that the environment or the profile names for this service or for all services.
    pub(super) fn named(&self, config: &SdkConfig) -> Option<String> {
        let key =
            ServiceConfigKey::builder().service_id(self.id).profile("endpoint_url").env(environment::ENDPOINT_URL);
        let configured = config.service_config().zip(key.build().ok()).and_then(|(all, key)| all.load_config(key));
        configured.or_else(|| config.endpoint_url().map(str::to_owned)).filter(|url| !url.is_empty())
    }

    /// Returns the host of the service in a region.
    fn host(&self, region: &str, variant: Variant) -> String {
        let Variant { fips, dual_stack } = variant;
        let partition = Partition::of(region);
        let usual = if dual_stack { partition.dual_stack_suffix } else { partition.dns_suffix };
        let is_govcloud = partition.id == "aws-us-gov";
        let has_no_suffix = (!dual_stack && !WITH_FIPS_IN_GOVCLOUD.contains(&self.name)) || self.name == "monitoring";
        let is_plain = !fips || (is_govcloud && has_no_suffix);
        let name = format!("{}{}", self.name, if is_plain { "" } else { "-fips" });
        match (self.name, partition.id) {
            (GLOBAL, "aws-us-gov") => format!("{GLOBAL}.us-gov.{usual}"),
            (GLOBAL, "aws") if dual_stack => format!("{name}.global.{usual}"),
            (GLOBAL, "aws-cn" | "aws-eusc") if dual_stack && !fips => format!("{name}.global.{usual}"),
            (GLOBAL, _) => format!("{name}.{usual}"),
            ("signin", _) if !fips && !dual_stack => format!("{region}.signin.{}", sign_in_domain(partition.id)),
            ("signin", "aws-us-gov") if !dual_stack => format!("{name}.{}", sign_in_domain(partition.id)),
            // These endpoints answer by IPv6 at their usual names.
            ("secretsmanager", "aws" | "aws-us-gov") => format!("{name}.{region}.{}", partition.dns_suffix),
            ("secretsmanager", "aws-cn") if !fips => format!("{name}.{region}.{}", partition.dns_suffix),
            _ => format!("{name}.{region}.{usual}"),
        }
    }
}

/// Returns the domain of a partition's console.
fn sign_in_domain(partition: &str) -> &'static str {
    match partition {
        "aws-cn" => "amazonaws.cn",
        "aws-us-gov" => "amazonaws-us-gov.com",
        "aws-eusc" => "amazonaws-eusc.eu",
        "aws-iso" => "c2shome.ic.gov",
        "aws-iso-b" => "sc2shome.sgov.gov",
        "aws-iso-e" => "csphome.adc-e.uk",
        "aws-iso-f" => "csphome.hci.ic.gov",
        _ => "aws.amazon.com",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::service::{
        ACM, AUTO_SCALING, BALANCING, CLOUDFORMATION, CLOUDWATCH, EC2, KMS, QUOTAS, ROUTE_53, SECRETS_MANAGER, SSM, STS,
    };

    /// Lines of fields with tabs between them.
    const MODEL: &str = include_str!("../../tests/emulators/endpoints.tsv");

    #[test]
    fn every_endpoint_is_the_one_of_aws_own_rules() {
        let signed = [
            CLOUDFORMATION,
            AUTO_SCALING,
            BALANCING,
            CLOUDWATCH,
            EC2,
            STS,
            ROUTE_53,
            ACM,
            QUOTAS,
            SSM,
            SECRETS_MANAGER,
            KMS,
        ];
        let all: Vec<Endpoint> =
            signed.into_iter().map(|service| service.endpoint).chain([SSO, SSO_OIDC, SIGN_IN]).collect();
        let mut compared = 0;
        for line in MODEL.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split('\t').collect();
            if let ["region", region, partition] = fields[..] {
                assert_eq!(Partition::of(region).id, partition, "{region}");
                continue;
            }
            if fields[0] == "bucket" {
                continue;
            }
            let [name, region, fips, dual_stack, host, signed_for] = fields[..] else { panic!("{line}") };
            let endpoint = all.iter().find(|endpoint| endpoint.name == name).expect(name);
            let config = SdkConfig::builder().use_fips(fips == "1").use_dual_stack(dual_stack == "1").build();
            let (url, region) = endpoint.find(region, &config).unwrap();
            assert_eq!((url.as_str(), &*region), (&*format!("https://{host}/"), signed_for), "{line}");
            compared += 1;
        }
        assert_eq!(compared, all.len() * 8 * 4, "services, partitions, variants");
    }
}
