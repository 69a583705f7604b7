//! Where S3 answers for a bucket, by the rules of AWS's own SDKs.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html>

use anyhow::{Result, ensure};
use aws_config::SdkConfig;
use percent_encoding::utf8_percent_encode;
use reqwest::Url;

use crate::{
    aws::{
        endpoint::S3,
        partition::Partition,
        query::{RESERVED, UNRESERVED_PATH},
    },
    error::Fault,
};

/// What the names of the buckets with one zone end in.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/directory-bucket-naming-rules.html>
const OF_ONE_ZONE: &str = "--x-s3";

/// The URL of an object or of a bucket, and the name of the service in its signature.
pub(super) struct Address {
    pub(super) url: Url,
    pub(super) service: &'static str,
}

/// Checks that the bucket of a URL is not the ARN of an access point, whose slash would end the bucket's name.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-points-naming.html>
///
/// # Errors
/// If it is one. Its alias is a usual name.
pub(crate) fn check_bucket(bucket: &str) -> Result<()> {
    let words = "an access point is named by its alias, not by its ARN: s3://NAME-RANDOM-s3alias/";
    ensure!(!bucket.starts_with("arn:"), words);
    Ok(())
}

/// Returns the address of an object in a region; of its bucket if the key is empty.
///
/// # Errors
/// If no URL can name the object, or the partition has no endpoint of the chosen kind.
pub(super) fn address(bucket: &str, key: &str, region: &str, config: &SdkConfig) -> Result<Address, Fault> {
    // A client removes these parts of a path, which would then name another object.
    if key.split('/').any(|part| matches!(part, "." | "..")) {
        return Err(Fault::new(format!("the key {key} cannot be requested: it has a part `.` or `..`")));
    }
    let key = utf8_percent_encode(key, UNRESERVED_PATH).to_string();
    let in_path = || format!("/{}", utf8_percent_encode(bucket, RESERVED));
    // Names like bucket.localhost or bucket.10.0.0.1 do not resolve. Every endpoint in place of AWS (a VPC endpoint,
    // MinIO, LocalStack) accepts the bucket in the path.
    let (service, base) = match S3.named(config) {
        Some(endpoint) => ("s3", format!("{}{}", endpoint.trim_end_matches('/'), in_path())),
        None if bucket.ends_with(OF_ONE_ZONE) => {
            let zone = format!("-{}", zone(bucket)?);
            ("s3express", format!("https://{bucket}.{}", host("s3express", &zone, region, config)?))
        }
        // The certificate is for one label before the host's.
        None if is_label(bucket) => ("s3", format!("https://{bucket}.{}", host("s3", "", region, config)?)),
        None => ("s3", format!("https://{}{}", host("s3", "", region, config)?, in_path())),
    };
    let text = format!("{base}/{key}");
    let url = text.parse().map_err(|error| Fault::new(format!("{text} is not a valid URL: {error}")).invalid())?;
    Ok(Address { url, service })
}

/// Returns the host of S3 in a region. `zone` is `-ZONE` for the buckets of one zone.
fn host(name: &str, zone: &str, region: &str, config: &SdkConfig) -> Result<String, Fault> {
    let partition = Partition::of(region);
    let fips = config.use_fips().unwrap_or_default();
    if fips && partition.id == "aws-cn" {
        let fault = Fault::new("S3 has no FIPS endpoint in the partition aws-cn");
        return Err(fault.hint("unset AWS_USE_FIPS_ENDPOINT, or use_fips_endpoint of the profile").invalid());
    }
    let fips = if fips { "-fips" } else { "" };
    let dual_stack = if config.use_dual_stack().unwrap_or_default() { ".dualstack" } else { "" };
    Ok(format!("{name}{fips}{zone}{dual_stack}.{region}.{}", partition.dns_suffix))
}

/// Returns the zone in the name of a bucket of one zone.
fn zone(bucket: &str) -> Result<&str, Fault> {
    let zone = bucket.strip_suffix(OF_ONE_ZONE).and_then(|name| Some(name.rsplit_once("--")?.1));
    zone.filter(|_| is_label(bucket)).ok_or_else(|| {
        Fault::new(format!("{} is not the name of a bucket of one zone", bucket.escape_debug()))
            .hint("such a name is NAME--ZONE--x-s3, for example artifacts--use1-az4--x-s3")
    })
}

/// Returns whether the name of a bucket can be one label of a host name.
fn is_label(bucket: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (3..=63).contains(&bucket.len())
        && bucket.chars().all(|c| is_part(c) || c == '-')
        && bucket.starts_with(is_part)
        && bucket.ends_with(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of fields with tabs between them.
    const MODEL: &str = include_str!("../../../tests/emulators/endpoints.tsv");

    #[test]
    fn a_bucket_is_where_aws_own_rules_have_it() {
        let mut compared = 0;
        for line in MODEL.lines().filter(|line| line.starts_with("bucket\t")) {
            let fields: Vec<&str> = line.split('\t').skip(1).collect();
            let [bucket, region, fips, dual_stack, place, service] = fields[..] else { panic!("{line}") };
            let config = SdkConfig::builder().use_fips(fips == "1").use_dual_stack(dual_stack == "1").build();
            match address(bucket, "a b/ü", region, &config) {
                Ok(found) => {
                    let expected = format!("https://{place}/a%20b/%C3%BC");
                    assert_eq!((found.url.as_str(), found.service), (&*expected, service), "{line}");
                }
                Err(_) => assert_eq!(place, "none", "{line}"),
            }
            compared += 1;
        }
        assert_eq!(compared, 6 * 8 * 4, "buckets, partitions, variants");
    }

    #[test]
    fn a_name_is_never_more_than_a_part_of_its_url() {
        let config = SdkConfig::builder().build();
        let url =
            |bucket: &str, key: &str| address(bucket, key, "us-east-1", &config).map(|found| found.url.to_string());
        let host = "https://s3.us-east-1.amazonaws.com";
        assert_eq!(url("a@b.example?#", "k?x#y").unwrap(), format!("{host}/a%40b.example%3F%23/k%3Fx%23y"));
        assert_eq!(
            url("bucket", "//a//%2e%2e/b").unwrap(),
            "https://bucket.s3.us-east-1.amazonaws.com///a//%252e%252e/b"
        );
        for key in ["../other", "a/./b", "a/.."] {
            let told = url("bucket", key).unwrap_err().to_string();
            assert_eq!(told, format!("the key {key} cannot be requested: it has a part `.` or `..`"));
        }
    }
}
