//! The settings of a deploy. Each comes from a flag, the environment, `deploy.toml`, the stack, or a default.
//!
//! The environment variables are those of the script that `deploy` replaces.

mod checks;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Deserializer};

use crate::{
    diagnostic::did_you_mean,
    environment,
    error::Fault,
    host::root::trusted::Trusted,
    value::{AbsPath, Span},
};

/// Settings file that is read if it exists and no other is named.
pub const SETTINGS_FILE: &str = "deploy.toml";
/// Stack that is meant if no other is named.
pub const DEFAULT_STACK: &str = "glovo-app";
/// The largest settings file.
const MAX_SETTINGS_BYTES: u64 = 1 << 20;

/// The settings. Each is also a key of `deploy.toml`, where sets are tables: `set = { jar_url = "…" }`.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeploySettings {
    /// Name of the stack. Default: glovo-app.
    #[arg(long, short, env = environment::STACK_NAME, value_name = "NAME")]
    pub stack: Option<String>,
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
    #[serde(deserialize_with = "comma_list")]
    pub security_groups: Option<String>,
    /// AMI of the machines, or `resolve:ssm:NAME`: the AMI that a parameter of Parameter Store names, read once for each build.
    /// Default for a new stack: the newest image of Ubuntu 24.04 LTS.
    #[arg(long, env = "AMIID", value_name = "AMI")]
    pub ami: Option<String>,
    /// Instance type of the machines. Default for a new stack: t3.micro, or t4g.micro for an ARM image.
    #[arg(long, env = "INSTANCETYPE", value_name = "TYPE")]
    pub instance_type: Option<String>,
    /// Key pair of the machines. Default: none.
    #[arg(long, env = "KP", value_name = "NAME")]
    pub key_pair: Option<String>,
    /// Subnets of the balancer and the machines, comma-separated, in at least two availability zones.
    #[arg(long, env = "SUBNETS", value_name = "SUBNET,…")]
    #[serde(deserialize_with = "comma_list")]
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
    /// Role that CloudFormation uses for the stack, in place of your own permissions. The stack keeps it. Default: none.
    #[arg(long, value_name = "ARN")]
    pub service_role: Option<String>,
    /// Tag of the stack and of all its resources; may be repeated. Default: the tags that the stack has.
    #[arg(long, value_name = "NAME=VALUE")]
    #[serde(deserialize_with = "pairs")]
    pub tag: Vec<String>,
    /// Whether CloudFormation refuses to delete the stack. Default: as the stack has it; a new stack can be deleted.
    #[arg(long, value_name = "true|false")]
    pub termination_protection: Option<bool>,
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
    #[serde(deserialize_with = "values")]
    pub set: Vec<String>,
    /// Where the machines read more variables at each run: `ssm:///path/` (the parameters below a path of Parameter Store),
    /// `s3://bucket/key`, an https URL with #sha256=HEX, or a local file without secrets, which is uploaded. May be repeated.
    #[arg(long, value_name = "SOURCE")]
    #[serde(deserialize_with = "one_or_more")]
    pub variables: Vec<String>,
    /// Whether the machines run the steps again at each boot and every hour. Default: true.
    #[arg(long, value_name = "true|false")]
    pub converge: Option<bool>,
    /// Upload a local file; the steps find it through the variables `NAME_url` and `NAME_sha256`. May be repeated.
    #[arg(long, value_name = "NAME=PATH")]
    #[serde(deserialize_with = "pairs")]
    pub file: Vec<String>,
    /// Set another parameter of the template; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    #[serde(deserialize_with = "pairs")]
    pub parameter: Vec<String>,
    /// Shares of the traffic, in percent, that the new build receives one after the other; with instance-refresh, shares of the
    /// machines. Default: 10,50,100.
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=100))]
    pub shift: Vec<u8>,
    /// How long each share is watched. Default: 30s; with weighted-dns 2m, because resolvers keep an answer for a minute; with
    /// instance-refresh as the stack has it, 2m at first.
    #[arg(long, value_name = "TIME")]
    pub pause: Option<Span>,
    /// How long the new build is watched with all traffic. If a machine gets unhealthy, the traffic returns. Default: the pause.
    #[arg(long, value_name = "TIME")]
    pub watch: Option<Span>,
    /// Alarm of CloudWatch that returns the traffic if it rings while the new build is watched; may be repeated. With an empty
    /// name, neither the alarms of deploy.toml nor those of the stack count.
    #[arg(long, value_name = "NAME")]
    #[serde(deserialize_with = "one_or_more")]
    pub alarm: Vec<String>,
    /// Path that the new build must answer at before it receives any traffic, and at the public URL afterwards: /health. Default:
    /// none; or / with --build-field.
    #[arg(long, value_name = "PATH")]
    pub probe: Option<String>,
    /// Status of this answer. Default: 200.
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(100..=599))]
    pub probe_status: Option<u16>,
    /// Where this answer tells the number of its build: `header:NAME`, or `json:FIELD` for a field of a JSON object, such as
    /// `json:app.build`. It must be the deployed one. Default: not compared.
    #[arg(long, value_name = "FIELD")]
    pub build_field: Option<String>,
    /// Command on this machine that checks the new build before it receives any traffic; exit code 0 passes. It is split into words
    /// as a shell does, and runs without one. Its environment says how to reach the build. Default: none.
    #[arg(long, value_name = "COMMAND")]
    pub probe_command: Option<String>,
    /// How long this command may run. Default: 5m.
    #[arg(long, value_name = "TIME")]
    pub probe_time: Option<Span>,
    /// How long the previous build keeps all its machines; then it keeps one. Default: 15m, or the
    /// time of --watch if that is longer.
    #[arg(long, value_name = "TIME")]
    pub keep_for: Option<Span>,
    /// How long machines may take to become healthy, and how long their health may stay unknown. Default: 10m.
    #[arg(long, value_name = "TIME")]
    pub health_timeout: Option<Span>,
    /// How long a call is repeated after the first change, while AWS throttles or cannot be reached. Default: 5m.
    #[arg(long, value_name = "TIME")]
    pub patience: Option<Span>,
}

fn pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let table = BTreeMap::<String, String>::deserialize(deserializer)?;
    Ok(table.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

/// A text, or a list of texts.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum TextOrTexts {
    One(String),
    More(Vec<String>),
}

/// Reads the values of variables. That of a list is written as in TOML and JSON.
fn values<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let table = BTreeMap::<String, TextOrTexts>::deserialize(deserializer)?;
    let pair = |(name, value)| match value {
        TextOrTexts::One(text) => format!("{name}={text}"),
        TextOrTexts::More(texts) => format!("{name}={}", serde_json::Value::from(texts)),
    };
    Ok(table.into_iter().map(pair).collect())
}

/// Reads a text or a list of texts.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match TextOrTexts::deserialize(deserializer)? {
        TextOrTexts::One(text) => vec![text],
        TextOrTexts::More(texts) => texts,
    })
}

/// Reads a text or a list of texts as a text with commas.
fn comma_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    one_or_more(deserializer).map(|texts| Some(texts.join(",")))
}

/// Returns the words for a file that is missing; for a relative path, with the directory that it was looked for in.
pub(super) fn missing(path: &str) -> String {
    match std::env::current_dir() {
        Ok(directory) if Path::new(path).is_relative() => format!("{path} does not exist in {}", directory.display()),
        _ => format!("{path} does not exist"),
    }
}

/// Returns the name in `NAME=VALUE`.
pub(super) fn name_of(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

/// Returns the hint for what serde says of a settings file: of a key that does not exist, or of a value.
fn hint_for(message: &str) -> String {
    let mut names = message.split('`').skip(1).step_by(2);
    let Some(unknown) = message.starts_with("unknown field").then(|| names.next()).flatten() else {
        return "a text is in quotes; a number, true and false are not; a list is in brackets".into();
    };
    did_you_mean(unknown, names).unwrap_or_else(|| {
        "write the flags of glovo-bootstrap deploy update-stack --help as keys, with _ for -; --yes, --json, --poll and \
         --settings-file are no keys"
            .into()
    })
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
            ensure!(named.is_none(), Fault::new(missing(&wanted.to_string_lossy())).invalid());
            return Ok((self.without_empty(), None));
        };
        let path = found.path().clone();
        let text = String::from_utf8(found.read(MAX_SETTINGS_BYTES)?).with_context(|| format!("reading {path}"))?;
        let file = toml::from_str(&text).map_err(|error| {
            let hint = hint_for(error.message());
            Fault::new(format!("{path} is not valid")).caused_by(error).hint(hint).invalid()
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
            &mut self.service_role,
            &mut self.probe,
            &mut self.probe_command,
            &mut self.build_field,
        ] {
            *text = text.take().filter(|text| !text.is_empty());
        }
        self
    }

    fn or(self, file: Self) -> Self {
        let both = |file: Vec<String>, given: Vec<String>| file.into_iter().chain(given).collect();
        // A flag wins over the file's value of the same name.
        let over = |mut file: Vec<String>, given: Vec<String>| {
            file.retain(|pair| !given.iter().any(|given| name_of(given) == name_of(pair)));
            file.extend(given);
            file
        };
        Self {
            stack: self.stack.or(file.stack),
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
            service_role: self.service_role.or(file.service_role),
            tag: over(file.tag, self.tag),
            termination_protection: self.termination_protection.or(file.termination_protection),
            prefix: self.prefix.or(file.prefix),
            agent: self.agent.or(file.agent),
            baked: self.baked || file.baked,
            steps: self.steps.or(file.steps),
            set: over(file.set, self.set),
            variables: both(file.variables, self.variables),
            converge: self.converge.or(file.converge),
            file: over(file.file, self.file),
            parameter: over(file.parameter, self.parameter),
            shift: if self.shift.is_empty() { file.shift } else { self.shift },
            pause: self.pause.or(file.pause),
            watch: self.watch.or(file.watch),
            alarm: if self.alarm.is_empty() { file.alarm } else { self.alarm },
            probe: self.probe.or(file.probe),
            probe_status: self.probe_status.or(file.probe_status),
            build_field: self.build_field.or(file.build_field),
            probe_command: self.probe_command.or(file.probe_command),
            probe_time: self.probe_time.or(file.probe_time),
            keep_for: self.keep_for.or(file.keep_for),
            patience: self.patience.or(file.patience),
            health_timeout: self.health_timeout.or(file.health_timeout),
        }
    }

    /// Returns whether the machines run the steps again and again.
    pub fn converges(&self) -> bool {
        self.converge.unwrap_or(true)
    }

    /// Returns the stack's name.
    pub fn stack(&self) -> &str {
        self.stack.as_deref().unwrap_or(DEFAULT_STACK)
    }

    /// Returns the names of the given settings that only matter where traffic moves from one build to the other.
    pub fn of_shares(&self) -> Vec<&'static str> {
        let given = [
            ("alarm", self.alarm.iter().any(|name| !name.is_empty())),
            ("shift", !self.shift.is_empty()),
            ("watch", self.watch.is_some()),
            ("keep_for", self.keep_for.is_some()),
        ];
        given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect()
    }

    /// Returns the value that is given for a parameter of the template.
    pub(super) fn given(&self, parameter: &str) -> Option<&str> {
        self.parameter.iter().find_map(|pair| pair.strip_prefix(parameter)?.strip_prefix('='))
    }

    /// Returns the number of the build.
    pub fn build(&self) -> u64 {
        self.build_number.unwrap_or(1)
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
        assert_eq!(both.set, ["y=3", "x=2"]);
        let lists: DeploySettings = toml::from_str("set = { a = ['x=1', 'y=\"2\"'], b = [], c = 'd' }").unwrap();
        assert_eq!(lists.set, [r#"a=["x=1","y=\"2\""]"#, "b=[]", "c=d"]);
        let table = toml::from_str::<DeploySettings>("set = { a = { x = '1' } }").unwrap_err().to_string();
        assert!(table.contains("expected a text or a list of texts"), "{table}");
        assert_eq!(both.pause.unwrap().0.as_secs(), 5);
    }

    #[test]
    fn an_unknown_key_and_contradicting_sizes_are_refused() {
        for (text, words, hint) in [
            ("buckets = \"b\"", "unknown field `buckets`", "did you mean `bucket`?"),
            ("yes = true", "unknown field `yes`", "--yes, --json, --poll and --settings-file are no keys"),
            ("min_size = \"two\"", "invalid type", "a number, true and false are not"),
        ] {
            let error = toml::from_str::<DeploySettings>(text).unwrap_err();
            assert!(error.message().contains(words) && hint_for(error.message()).contains(hint), "{error}");
        }
        let sizes = DeploySettings {
            min_size: Some(3),
            desired_capacity: Some(2),
            max_size: Some(3),
            ..DeploySettings::default()
        };
        assert!(sizes.check().is_err());
        for shift in [vec![10, 50], vec![50, 10, 100], vec![10, 10, 100]] {
            let settings = DeploySettings { shift: shift.clone(), ..DeploySettings::default() };
            assert!(settings.check().is_err(), "{shift:?}");
        }
    }
}
