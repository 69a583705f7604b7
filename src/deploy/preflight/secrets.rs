//! The secrets that the steps name: whether they exist, and the ARNs that the machines' role may read. No value is read.

use anyhow::Result;
use serde_json::json;

use super::{Findings, rights::ReadRights};
use crate::{
    aws::{
        answer::Element,
        query::Call,
        refusal::Refusal,
        service::{KMS, SECRETS_MANAGER, SSM},
    },
    deploy::Deploy,
    value::secret_source::{SecretPlace, SecretSource, SecretVersion},
};

/// The path of the parameters that AWS publishes. They belong to no account.
const PUBLIC: &str = "/aws/service/";

/// Looks whether the secrets exist, and what the role needs for them.
pub(super) fn look(found: &mut Findings, deploy: &Deploy) -> Result<ReadRights> {
    for source in &deploy.secrets.unknown {
        let note = format!("the machines' role may not read {source}: only the machine knows its name");
        found.notes.push(note);
    }
    let is_of_aws = |source: &&SecretSource| !matches!(source.place, SecretPlace::Vault { .. });
    let mut sources: Vec<&SecretSource> = deploy.secrets.known.iter().filter(is_of_aws).collect();
    // An account that is unknown is a fault already.
    if sources.is_empty() || found.account.is_empty() {
        return Ok(ReadRights::default());
    }
    let named = sources.iter().map(ToString::to_string).collect();
    sources.dedup_by_key(|source| &source.place);
    let mut looking = Looking::new(found, deploy)?;
    looking.role.named = named;
    for source in sources {
        let said = source.to_string();
        match &source.place {
            SecretPlace::Parameter { name, selector } => looking.parameter(&said, name, selector.as_deref())?,
            SecretPlace::SecretsManager { id, version } => looking.secret(&said, id, version.as_ref())?,
            SecretPlace::Vault { .. } => {}
        }
    }
    Ok(looking.role)
}

/// What a service says.
pub(super) enum Said {
    Answer(Element),
    /// The caller has no permission to ask.
    Denied,
    /// The refusal is a fault.
    Refused,
}

/// The state of looking at secrets or variables, one after the other. A `source` is the URL for messages.
pub(super) struct Looking<'a> {
    found: &'a mut Findings,
    deploy: &'a Deploy,
    region: String,
    pub(super) role: ReadRights,
}

impl<'a> Looking<'a> {
    /// Returns the state of having looked at nothing.
    pub(super) fn new(found: &'a mut Findings, deploy: &'a Deploy) -> Result<Self> {
        let region = deploy.system.aws.region(&deploy.system.host)?;
        Ok(Self { found, deploy, region, role: ReadRights::default() })
    }

    /// Returns the partition of the caller.
    pub(super) fn partition(&self) -> &str {
        self.found.identity.split(':').nth(1).unwrap_or("aws")
    }

    /// Returns the ARN of something of the caller's account.
    pub(super) fn arn_of(&self, service: &str, resource: &str) -> String {
        self.arn(service, &self.found.account, resource)
    }

    fn arn(&self, service: &str, account: &str, resource: &str) -> String {
        format!("arn:{}:{service}:{}:{account}:{resource}", self.partition(), self.region)
    }

    /// Asks about a secret. `missing` is the code of the refusal of something that does not exist, and the words for it.
    pub(super) fn ask(&mut self, source: &str, missing: (&str, &str), call: Call) -> Result<Said> {
        let error = match self.deploy.system.aws(call) {
            Ok(answer) => return Ok(Said::Answer(answer)),
            Err(error) => error,
        };
        match Refusal::of(&error) {
            Some(refusal) if refusal.code == "AccessDeniedException" && refusal.is_lasting() => {
                return Ok(Said::Denied);
            }
            Some(refusal) if refusal.code == missing.0 => self.found.fault(format!("{source}: {}", missing.1)),
            Some(refusal) if refusal.is_lasting() => {
                self.found.fault(format!("{source}: {}: {}", refusal.code, refusal.message));
            }
            _ => return Err(error),
        }
        Ok(Said::Refused)
    }

    /// Notes that a secret could not be looked at.
    pub(super) fn unchecked(&mut self, source: &str, why: &str) {
        self.role.lacks_keys = true;
        self.found.notes.push(format!("{source} is not checked: {why}"));
    }

    /// Returns the account that a written ARN belongs to; `None` after a fault.
    fn account_of<'b>(&mut self, source: &str, arn: &'b str) -> Option<&'b str> {
        let mut fields = arn.split(':').skip(3);
        let region = fields.next().unwrap_or_default();
        if region != self.region {
            self.found.fault(format!("{source}: it is in {region}, but the stack is in {}", self.region));
            return None;
        }
        fields.next()
    }

    fn parameter(&mut self, source: &str, name: &str, selector: Option<&str>) -> Result<()> {
        let mut name = name.to_owned();
        if let Some((_, path)) = name.split_once(":parameter/") {
            let Some(account) = self.account_of(source, &name) else { return Ok(()) };
            if account != self.found.account {
                self.unchecked(source, &format!("it belongs to account {account}"));
                _ = self.role.arns.insert(name);
                return Ok(());
            }
            name = if path.contains('/') { format!("/{path}") } else { path.to_owned() };
        }
        let is_public = name.starts_with(PUBLIC);
        let account = if is_public { "" } else { &self.found.account };
        let arn = self.arn("ssm", account, &format!("parameter/{}", name.trim_start_matches('/')));
        _ = self.role.arns.insert(arn);
        if is_public {
            return Ok(());
        }
        let (mut parameter, mut next) = (None, String::new());
        loop {
            let filter = json!([{ "Key": "Name", "Option": "Equals", "Values": [name] }]);
            let call = Call::new(&SSM, "DescribeParameters").with_json("ParameterFilters", filter);
            let call = if next.is_empty() { call } else { call.with("NextToken", &next) };
            let page = match self.ask(source, ("", ""), call)? {
                Said::Answer(page) => page,
                Said::Denied => {
                    self.unchecked(source, "allow ssm:DescribeParameters in the caller's IAM policy");
                    return Ok(());
                }
                Said::Refused => return Ok(()),
            };
            parameter = parameter.or_else(|| page.list("Parameters").find(|found| found.text("Name") == name).cloned());
            page.text("NextToken").clone_into(&mut next);
            if parameter.is_some() || next.is_empty() {
                break;
            }
        }
        let Some(parameter) = parameter else {
            self.found.fault(format!(
                "{source}: there is no parameter {name} in this account and region (to store it: aws ssm put-parameter \
                 --type SecureString --name {name} --value file://FILE)"
            ));
            return Ok(());
        };
        let newest = parameter.text("Version").parse::<u64>();
        if let (Some(Ok(version)), Ok(newest)) = (selector.map(str::parse::<u64>), newest)
            && version > newest
        {
            self.found.fault(format!("{source}: the newest version of the parameter is {newest}"));
        }
        self.key(source, parameter.text("KeyId")).map(drop)
    }

    fn secret(&mut self, source: &str, id: &str, version: Option<&SecretVersion>) -> Result<()> {
        let is_arn = id.starts_with("arn:");
        if is_arn && self.account_of(source, id).is_none() {
            return Ok(());
        }
        let missing = format!(
            "there is no secret {id} in this account and region (to store it: aws secretsmanager create-secret --name {id} \
             --secret-string file://FILE)"
        );
        let call = Call::new(&SECRETS_MANAGER, "DescribeSecret").with("SecretId", id);
        let secret = match self.ask(source, ("ResourceNotFoundException", &missing), call)? {
            Said::Answer(secret) => Some(secret),
            Said::Denied => {
                self.unchecked(source, "allow secretsmanager:DescribeSecret in the caller's IAM policy");
                None
            }
            Said::Refused => return Ok(()),
        };
        let is_complete = secret.as_ref().map_or_else(|| has_suffix(id), |secret| secret.text("ARN") == id);
        let arn = if is_arn { id.to_owned() } else { self.arn_of("secretsmanager", &format!("secret:{id}")) };
        // A secret that is deleted and made again has another suffix.
        _ = self.role.arns.insert(if is_arn && is_complete { arn } else { format!("{arn}-??????") });
        let Some(secret) = secret else { return Ok(()) };
        if let Some(fault) = fault_of(&secret, id, version) {
            self.found.fault(format!("{source}: {fault}"));
        }
        self.key(source, secret.text("KmsKeyId")).map(drop)
    }

    /// Adds the key that encrypts something; returns whether the role needs it. The keys of AWS need no permission: their own
    /// policies allow each principal of the account to use them through their service.
    /// <https://docs.aws.amazon.com/systems-manager/latest/userguide/ps-restrict-decryption.html>
    pub(super) fn key(&mut self, source: &str, id: &str) -> Result<bool> {
        if id.is_empty() || id.contains("alias/aws/") {
            return Ok(false);
        }
        let missing = format!("its key {id} does not exist");
        let arn = match self.ask(
            source,
            ("NotFoundException", &missing),
            Call::new(&KMS, "DescribeKey").with("KeyId", id),
        )? {
            Said::Refused => return Ok(false),
            Said::Answer(answer) => {
                let key = |name: &str| answer.text(&format!("KeyMetadata/{name}")).to_owned();
                if key("KeyManager") == "AWS" {
                    return Ok(false);
                }
                let state = key("KeyState");
                if state != "Enabled" {
                    self.found.fault(format!("{source}: the state of its key {id} is {state}, not Enabled"));
                }
                key("Arn")
            }
            Said::Denied if id.contains(":key/") => id.to_owned(),
            Said::Denied if !id.contains("alias/") => self.arn_of("kms", &format!("key/{id}")),
            Said::Denied => {
                self.role.lacks_keys = true;
                self.found.notes.push(format!(
                    "{source}: the role gets no permission for its key {id}, whose ARN is unknown: allow kms:DescribeKey in \
                     the caller's IAM policy"
                ));
                return Ok(false);
            }
        };
        _ = self.role.keys.insert(arn);
        Ok(true)
    }
}

/// Returns why machines could not read a secret that exists.
fn fault_of(secret: &Element, id: &str, version: Option<&SecretVersion>) -> Option<String> {
    if !secret.text("DeletedDate").is_empty() {
        return Some(format!(
            "the secret is marked for deletion (to keep it: aws secretsmanager restore-secret --secret-id {id})"
        ));
    }
    let has_stage = |stage: &str| {
        let mut stages = secret.list("VersionIdsToStages").flat_map(|version| &version.children);
        stages.any(|known| known.text == stage)
    };
    let is_there = match version {
        None if !has_stage("AWSCURRENT") => {
            let command = format!("aws secretsmanager put-secret-value --secret-id {id} --secret-string file://FILE");
            return Some(format!("the secret has no value yet (to give it one: {command})"));
        }
        None => true,
        Some(SecretVersion::Stage(stage)) => has_stage(stage),
        Some(SecretVersion::Id(version)) => secret.list("VersionIdsToStages").any(|known| known.name == *version),
    };
    let command = format!("aws secretsmanager list-secret-version-ids --secret-id {id}");
    (!is_there).then(|| format!("the secret has no such version (to list them: {command})"))
}

/// Returns whether an ARN ends in the six characters that Secrets Manager adds to a name.
fn has_suffix(arn: &str) -> bool {
    let suffix = arn.rsplit_once('-').map_or("", |(_, suffix)| suffix);
    suffix.len() == 6 && suffix.chars().all(|c| c.is_ascii_alphanumeric())
}
