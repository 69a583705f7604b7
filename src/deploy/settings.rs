//! The settings of a deploy. Each comes from a flag, the environment, `deploy.toml`, the stack, or a default.
//!
//! The environment variables are those of the script that `deploy` replaces.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Deserializer};

use crate::{
    error::Fault,
    host::root::trusted::Trusted,
    value::{AbsPath, Span},
};

/// Settings file that is read if it exists and no other is named.
const SETTINGS_FILE: &str = "deploy.toml";
/// The largest settings file.
const MAX_SETTINGS_BYTES: u64 = 1 << 20;

/// The settings. Each is also a key of `deploy.toml`, where sets are tables: `set = { jar_url = "…" }`.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeploySettings {
    /// Number of the build. It must rise whenever the content changes. Default: 1.
    #[arg(long, env = "BUILD_NUMBER", value_name = "N")]
    pub build_number: Option<u64>,
    /// Profile in ~/.aws. Default: the usual chain of credentials.
    #[arg(long, env = "PROFILE", value_name = "NAME")]
    pub profile: Option<String>,
    /// AWS region. Default: the region of the environment or the profile.
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Further security groups of the balancer, comma-separated; with the strategy compatible, also of the machines.
    #[arg(long, env = "SG_VALUE", value_name = "SG,…")]
    pub security_groups: Option<String>,
    /// AMI of the machines. Default: Ubuntu 18.04 LTS in eu-central-1 (ami-0bdf93799014acdc4).
    #[arg(long, env = "AMIID", value_name = "AMI")]
    pub ami: Option<String>,
    /// Instance type of the machines. Default: t2.micro.
    #[arg(long, env = "INSTANCETYPE", value_name = "TYPE")]
    pub instance_type: Option<String>,
    /// Key pair of the machines. Default: none.
    #[arg(long, env = "KP", value_name = "NAME")]
    pub key_pair: Option<String>,
    /// Subnets of the balancer and the machines, comma-separated, in at least two availability zones.
    #[arg(long, env = "SUBNETS", value_name = "SUBNET,…")]
    pub subnets: Option<String>,
    /// Smallest number of machines. Default: 1.
    #[arg(long, env = "MINSIZE", value_name = "N")]
    pub min_size: Option<u32>,
    /// Number of machines at first; an update keeps the current number. Default: 2.
    #[arg(long, env = "DESIREDCAPACITY", value_name = "N")]
    pub desired_capacity: Option<u32>,
    /// Largest number of machines. Default: 3.
    #[arg(long, env = "MAXSIZE", value_name = "N")]
    pub max_size: Option<u32>,
    /// ARN of the certificate for port 443. Default: none; port 80 serves.
    #[arg(long, env = "AWSCERTIFICATE", value_name = "ARN")]
    pub certificate: Option<String>,
    /// DNS name that points to the balancer. Default: none. The strategy weighted-dns needs one.
    #[arg(long, env = "DNSRECORD", value_name = "NAME")]
    pub dns_record: Option<String>,
    /// File with your own user-data, in place of user-data that downloads this program and runs the steps.
    #[arg(long, env = "CLOUD_INIT_PATH", value_name = "FILE")]
    pub cloud_init_path: Option<String>,
    /// How a new build receives the traffic. Default: blue-green.
    #[arg(long, value_name = "STRATEGY")]
    pub strategy: Option<String>,
    /// Bucket for the program, the steps and the files. Machines read it with their instance role.
    #[arg(long, value_name = "BUCKET")]
    pub bucket: Option<String>,
    /// Account that must own the bucket; S3 refuses any other. Default: not checked; the first deploy names the owner.
    #[arg(long, value_name = "ACCOUNT")]
    pub bucket_owner: Option<String>,
    /// Prefix of the keys in the bucket. Default: the stack's name.
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Program for the machines. Default: this program, if it is the static binary.
    #[arg(long, value_name = "FILE")]
    pub agent: Option<String>,
    /// The AMI already contains the program.
    #[arg(long)]
    pub baked: bool,
    /// Directory or file with the steps. Default: the steps built into the program.
    #[arg(long, value_name = "PATH")]
    pub steps: Option<String>,
    /// Set a variable of the steps; may be repeated. Every user of the machine can read it in user-data: no secrets.
    #[arg(long, value_name = "NAME=VALUE")]
    #[serde(deserialize_with = "pairs")]
    pub set: Vec<String>,
    /// Upload a local file; the steps find it through the variables `NAME_url` and `NAME_sha256`. May be repeated.
    #[arg(long, value_name = "NAME=PATH")]
    #[serde(deserialize_with = "pairs")]
    pub file: Vec<String>,
    /// Set another parameter of the template; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    #[serde(deserialize_with = "pairs")]
    pub parameter: Vec<String>,
    /// Shares of the traffic, in percent, that the new build receives one after the other. Default: 10,50,100.
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=100))]
    pub shift: Vec<u8>,
    /// How long each share is watched. Default: 30s; with weighted-dns 2m, because resolvers keep an answer for a minute.
    #[arg(long, value_name = "TIME")]
    pub pause: Option<Span>,
    /// How long new machines may take to become healthy behind the balancer. Default: 10m.
    #[arg(long, value_name = "TIME")]
    pub health_timeout: Option<Span>,
}

fn pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let table = BTreeMap::<String, String>::deserialize(deserializer)?;
    Ok(table.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

impl DeploySettings {
    /// Returns these settings, completed from the settings file, and the file's path. Without a name, deploy.toml of the current
    /// directory is read if it exists.
    ///
    /// # Errors
    /// If the file is invalid, or if a user other than the caller and root could have written it.
    pub fn with_file(self, named: Option<&PathBuf>) -> Result<(Self, Option<AbsPath>)> {
        let wanted = named.map_or(Path::new(SETTINGS_FILE), |path| path);
        let refused = || format!("the settings file {} cannot be read; nothing was changed", wanted.display());
        let found = Trusted::open(wanted).with_context(|| Fault::new(refused()).invalid())?;
        let Some(found) = found else {
            ensure!(named.is_none(), "{} does not exist", wanted.display());
            return Ok((self.without_empty(), None));
        };
        let path = found.path().clone();
        let text = String::from_utf8(found.read(MAX_SETTINGS_BYTES)?).with_context(|| format!("reading {path}"))?;
        let file = toml::from_str(&text).map_err(|error| {
            Fault::new(format!("{path} is not valid"))
                .caused_by(error)
                .hint("write the flags of glovo-bootstrap deploy update-stack --help as keys, with _ for -")
                .invalid()
        })?;
        Ok((self.without_empty().or(file), Some(path)))
    }

    /// Drops empty texts, which mean the same as no text: `--ami "$AMI"`.
    fn without_empty(mut self) -> Self {
        for text in [
            &mut self.profile,
            &mut self.region,
            &mut self.security_groups,
            &mut self.ami,
            &mut self.instance_type,
            &mut self.key_pair,
            &mut self.subnets,
            &mut self.certificate,
            &mut self.dns_record,
            &mut self.cloud_init_path,
        ] {
            *text = text.take().filter(|text| !text.is_empty());
        }
        self
    }

    fn or(self, file: Self) -> Self {
        // The later one of two equal names wins.
        let both = |mut file: Vec<String>, given: Vec<String>| {
            file.extend(given);
            file
        };
        Self {
            build_number: self.build_number.or(file.build_number),
            profile: self.profile.or(file.profile),
            region: self.region.or(file.region),
            security_groups: self.security_groups.or(file.security_groups),
            ami: self.ami.or(file.ami),
            instance_type: self.instance_type.or(file.instance_type),
            key_pair: self.key_pair.or(file.key_pair),
            subnets: self.subnets.or(file.subnets),
            min_size: self.min_size.or(file.min_size),
            desired_capacity: self.desired_capacity.or(file.desired_capacity),
            max_size: self.max_size.or(file.max_size),
            certificate: self.certificate.or(file.certificate),
            dns_record: self.dns_record.or(file.dns_record),
            cloud_init_path: self.cloud_init_path.or(file.cloud_init_path),
            strategy: self.strategy.or(file.strategy),
            bucket: self.bucket.or(file.bucket),
            bucket_owner: self.bucket_owner.or(file.bucket_owner),
            prefix: self.prefix.or(file.prefix),
            agent: self.agent.or(file.agent),
            baked: self.baked || file.baked,
            steps: self.steps.or(file.steps),
            set: both(file.set, self.set),
            file: both(file.file, self.file),
            parameter: both(file.parameter, self.parameter),
            shift: if self.shift.is_empty() { file.shift } else { self.shift },
            pause: self.pause.or(file.pause),
            health_timeout: self.health_timeout.or(file.health_timeout),
        }
    }

    /// Returns the number of the build.
    pub fn build(&self) -> u64 {
        self.build_number.unwrap_or(1)
    }

    /// Fails if the settings contradict each other.
    pub fn check(&self) -> Result<()> {
        let sizes = [self.min_size.unwrap_or(1), self.desired_capacity.unwrap_or(2), self.max_size.unwrap_or(3)];
        let given = self.min_size.and(self.desired_capacity).and(self.max_size).is_some();
        ensure!(
            !given || sizes.is_sorted(),
            Fault::new(format!("sizes {}, {}, {} are not in order", sizes[0], sizes[1], sizes[2]))
                .hint("choose MINSIZE ≤ DESIREDCAPACITY ≤ MAXSIZE")
                .invalid()
        );
        let is_account = |owner: &String| owner.len() == 12 && owner.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(owner) = self.bucket_owner.as_ref().filter(|owner| !is_account(owner)) {
            return Err(Fault::new(format!("`{owner}` is not an AWS account"))
                .hint("pass --bucket-owner with the 12 digits of the account that owns the bucket")
                .invalid()
                .into());
        }
        for (what, pairs) in [("--set", &self.set), ("--file", &self.file), ("--parameter", &self.parameter)] {
            if let Some(pair) = pairs.iter().find(|pair| !pair.contains('=')) {
                return Err(Fault::new(format!("`{what} {pair}` has no `=`"))
                    .hint(format!("write {what} NAME=VALUE"))
                    .invalid()
                    .into());
            }
        }
        ensure!(
            self.shift.is_sorted() && self.shift.last().is_none_or(|last| *last == 100),
            Fault::new("the shares of --shift must rise and end with 100")
                .hint("pass shares such as --shift 10,50,100")
                .invalid()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_wins_over_the_file_and_what_is_empty_is_not_given() {
        let given = DeploySettings {
            ami: Some(String::new()),
            subnets: Some("a".into()),
            set: vec!["x=2".into()],
            ..DeploySettings::default()
        };
        let file: DeploySettings =
            toml::from_str("ami = \"ami-1\"\nsubnets = \"b\"\nset = { x = \"1\", y = \"3\" }\npause = \"5s\"").unwrap();
        let both = given.without_empty().or(file);
        assert_eq!((both.ami.as_deref(), both.subnets.as_deref()), (Some("ami-1"), Some("a")));
        assert_eq!(both.set, ["x=1", "y=3", "x=2"]);
        assert_eq!(both.pause.unwrap().0.as_secs(), 5);
    }

    #[test]
    fn an_unknown_key_and_contradicting_sizes_are_refused() {
        assert!(toml::from_str::<DeploySettings>("buckets = \"b\"").unwrap_err().to_string().contains("buckets"));
        let sizes = DeploySettings {
            min_size: Some(3),
            desired_capacity: Some(2),
            max_size: Some(3),
            ..DeploySettings::default()
        };
        assert!(sizes.check().is_err());
        let shift = DeploySettings { shift: vec![10, 50], ..DeploySettings::default() };
        assert!(shift.check().is_err());
    }
}
