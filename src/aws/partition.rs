//! The partitions of AWS: groups of regions that share accounts, domains and global services.
//!
//! The table is botocore's `partitions.json`; `tests/emulators/endpoints.tsv` has it.
//! <https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html>

/// A partition.
#[derive(Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its name in ARNs.
    pub id: &'static str,
    /// What the names of its regions begin with; empty for the usual partition.
    prefix: &'static str,
    /// The domain of its services.
    pub dns_suffix: &'static str,
    /// The domain of its services that also answer by IPv6.
    pub(super) dual_stack_suffix: &'static str,
    /// The region that the signatures for its global services name.
    pub(super) main_region: &'static str,
}

/// The partitions. The usual one is the last: any other name of a region is its.
const PARTITIONS: [Partition; 8] = [
    partition("aws-cn", "cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn", "cn-northwest-1"),
    partition("aws-us-gov", "us-gov-", "amazonaws.com", "api.aws", "us-gov-west-1"),
    partition("aws-iso", "us-iso-", "c2s.ic.gov", "api.aws.ic.gov", "us-iso-east-1"),
    partition("aws-iso-b", "us-isob-", "sc2s.sgov.gov", "api.aws.scloud", "us-isob-east-1"),
    partition("aws-iso-e", "eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk", "eu-isoe-west-1"),
    partition("aws-iso-f", "us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov", "us-isof-south-1"),
    partition("aws-eusc", "eusc-", "amazonaws.eu", "api.amazonwebservices.eu", "eusc-de-east-1"),
    partition("aws", "", "amazonaws.com", "api.aws", "us-east-1"),
];

const fn partition(
    id: &'static str,
    prefix: &'static str,
    dns_suffix: &'static str,
    dual_stack_suffix: &'static str,
    main_region: &'static str,
) -> Partition {
    Partition { id, prefix, dns_suffix, dual_stack_suffix, main_region }
}

impl Partition {
    /// Returns the partition that a region is in.
    pub fn of(region: &str) -> &'static Self {
        static ALL: [Partition; 8] = PARTITIONS;
        ALL.iter().find(|partition| region.starts_with(partition.prefix)).unwrap_or(&ALL[ALL.len() - 1])
    }
}
