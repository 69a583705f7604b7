//! Checks everything before anything is changed, and lists all faults at once.

mod image;
mod rights;
mod secrets;
mod variables;

use anyhow::Result;

pub use self::image::RESOLVED;
use self::rights::ReadRights;
use super::{Deploy, alarms::AlarmStates, artifacts::Artifacts, parameters::SlotParameter, settings::DeploySettings};
use crate::{
    aws::{
        answer::Element,
        query::Call,
        refusal::Refusal,
        service::{ACM, EC2, QUOTAS, ROUTE_53, STS},
    },
    error::{self, Fault},
    view::count,
};

/// vCPUs of running on-demand instances of the standard families.
/// <https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html>
const STANDARD: (&str, &str) = ("ACDHIMRTZ", "L-1216C47A");

/// Families that begin with the same letters, and have quotas of their own.
const NOT_STANDARD: [&str; 5] = ["dl", "hpc", "inf", "mac", "trn"];

/// Returns whether an instance type is of the standard families.
fn is_standard(kind: &str) -> bool {
    let is_of =
        |other: &&str| kind.strip_prefix(*other).is_some_and(|rest| rest.starts_with(|c: char| !c.is_alphabetic()));
    let begins = kind.starts_with(|c: char| STANDARD.0.contains(c.to_ascii_uppercase()));
    begins && !NOT_STANDARD.iter().any(is_of)
}

/// The most bytes of ARNs in the policies of one slot. All inline policies of a role may have 10,240 characters, and those of
/// a template with two slots have up to 3,740 without ARNs.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>
const MAX_POLICY_BYTES: usize = 3250;

/// What the checks found out for the template's parameters.
#[derive(Debug, Default)]
pub struct Findings {
    /// ARN of the caller.
    pub identity: String,
    /// Account of the caller.
    account: String,
    /// The subnets' VPC.
    pub vpc: String,
    /// The AMI: the given one, or the id that its parameter has now.
    pub ami: String,
    /// Name of the AMI's root device.
    pub root_device: String,
    /// The given instance type, or the default one.
    pub instance_type: String,
    /// `standard` for machines whose processor time is limited by credits: beyond them they are slow, but cost no more.
    pub cpu_credits: &'static str,
    /// Availability zones of the subnets.
    zones: Vec<String>,
    /// Route 53 zone of the DNS name.
    pub zone: String,
    /// What the machines' role may read.
    pub role: Role,
    /// Processors of a machine; 0 if unknown.
    vcpus: u32,
    /// What CloudWatch says of the alarms. Whether that prevents a deploy depends on what is to be done.
    pub(super) alarms: AlarmStates,
    /// Faults that prevent a deploy.
    faults: Vec<String>,
    /// Notes for the operator.
    pub notes: Vec<String>,
}

/// What the machines' role may read.
#[derive(Debug, Default)]
pub struct Role {
    secrets: ReadRights,
    variables: ReadRights,
}

impl Role {
    /// Returns the parameters of a slot that allow it. `present` returns the present values of a parameter.
    pub fn parameters<'a>(&self, present: impl Fn(SlotParameter) -> Vec<&'a str>) -> Vec<(SlotParameter, String)> {
        let pairs = [
            (&self.secrets, [SlotParameter::SecretArns, SlotParameter::SecretKeyArns]),
            (&self.variables, [SlotParameter::VariableArns, SlotParameter::VariableKeyArns]),
        ];
        pairs.into_iter().flat_map(|(rights, names)| rights.parameters(names, &present(names[1]))).collect()
    }

    /// Returns lines that name what it may read; nothing if that is nothing.
    pub fn meaning(&self) -> String {
        self.secrets.meaning("the machines' role may read")
            + &self.variables.meaning("the machines read variables from")
    }
}

impl Findings {
    pub(super) fn fault(&mut self, message: String) {
        self.faults.push(message);
    }

    /// Returns a call's answer; a refusal by AWS becomes a fault.
    fn ask(&mut self, deploy: &Deploy, what: &str, call: Call) -> Result<Option<Element>> {
        match deploy.system.aws(call) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => self.refused(what, error).map(|()| None),
        }
    }

    /// Makes a lasting refusal by AWS a fault.
    pub(super) fn refused(&mut self, what: &str, error: anyhow::Error) -> Result<()> {
        match Refusal::of(&error) {
            Some(refusal) if refusal.is_lasting() => {
                let hint = error::hint(&error).map(|hint| format!(" ({hint})")).unwrap_or_default();
                self.fault(format!("{what}: {}: {}{hint}", refusal.code, refusal.message));
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Fails with all faults.
    pub fn check(&self) -> Result<()> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let faults = self.faults.iter().cloned().chain(self.alarms.faults());
        let list: String = faults.map(|fault| format!("\n  - {fault}")).collect();
        Err(Fault::new(format!("these settings cannot be deployed; nothing was changed{list}")).invalid().into())
    }
}

/// Checks everything that a deploy of these settings needs.
pub fn look(deploy: &Deploy, wanted: &DeploySettings, artifacts: &Artifacts) -> Result<Findings> {
    let mut found = Findings::default();
    if let Some(who) = found.ask(deploy, "credentials", Call::new(&STS, "GetCallerIdentity"))? {
        who.text("GetCallerIdentityResult/Arn").clone_into(&mut found.identity);
        who.text("GetCallerIdentityResult/Account").clone_into(&mut found.account);
    }
    if let Some(bucket) = artifacts.uploads.first().map(|upload| &upload.bucket)
        && !deploy.system.aws.has_bucket(&deploy.system.host, bucket)?
    {
        found.fault(format!("bucket {bucket} does not exist"));
    }
    network(&mut found, deploy, wanted)?;
    image::look(&mut found, deploy, wanted, artifacts)?;
    if let Some(key) = &wanted.key_pair {
        let call = Call::new(&EC2, "DescribeKeyPairs").with("KeyName.1", key);
        drop(found.ask(deploy, &format!("key pair {key}"), call)?);
    }
    certificate(&mut found, deploy, wanted)?;
    zone(&mut found, deploy, wanted)?;
    deploy.check_alarms(&mut found)?;
    let (secrets, variables) = (secrets::look(&mut found, deploy)?, variables::look(&mut found, deploy, artifacts)?);
    let bytes = secrets.policy_bytes() + variables.policy_bytes();
    if bytes > MAX_POLICY_BYTES {
        found.fault(format!(
            "the ARNs of secrets and variables have {bytes} bytes in the role's policies, and {MAX_POLICY_BYTES} fit \
             (name fewer: one secret can have several fields, as in secretsmanager://NAME#FIELD)"
        ));
    }
    found.role = Role { secrets, variables };
    Ok(found)
}

fn listed(text: Option<&str>) -> Vec<&str> {
    text.into_iter().flat_map(|text| text.split(',')).map(str::trim).filter(|name| !name.is_empty()).collect()
}

fn network(found: &mut Findings, deploy: &Deploy, wanted: &DeploySettings) -> Result<()> {
    let subnets = listed(wanted.subnets.as_deref());
    if subnets.is_empty() {
        found.fault("subnets: none are given (set SUBNETS=SUBNET,SUBNET or pass --subnets SUBNET,SUBNET)".into());
        return Ok(());
    }
    let call = Call::new(&EC2, "DescribeSubnets").with_list("SubnetId", subnets);
    if let Some(answer) = found.ask(deploy, "subnets", call)? {
        let all: Vec<&Element> = answer.list("subnetSet").collect();
        let distinct = |name: &str| {
            let mut values: Vec<&str> = all.iter().map(|subnet| subnet.text(name)).collect();
            values.sort_unstable();
            values.dedup();
            values
        };
        let (vpcs, zones) = (distinct("vpcId"), distinct("availabilityZone"));
        if vpcs.len() > 1 {
            found.fault(format!("subnets: they are in {} VPCs ({}), but must be in one", vpcs.len(), vpcs.join(", ")));
        }
        if zones.len() < 2 {
            found.fault(format!("subnets: all are in {}; a balancer needs two availability zones", zones.join(", ")));
        }
        vpcs.first().copied().unwrap_or_default().clone_into(&mut found.vpc);
        found.zones = zones.into_iter().map(str::to_owned).collect();
    }
    let groups = listed(wanted.security_groups.as_deref());
    if groups.is_empty() {
        return Ok(());
    }
    let call = Call::new(&EC2, "DescribeSecurityGroups").with_list("GroupId", groups);
    if let Some(answer) = found.ask(deploy, "security groups", call)? {
        for group in answer.list("securityGroupInfo") {
            let (id, vpc) = (group.text("groupId"), group.text("vpcId"));
            if !found.vpc.is_empty() && vpc != found.vpc {
                found.fault(format!("security group {id}: it is in {vpc}, but the subnets are in {}", found.vpc));
            }
        }
    }
    Ok(())
}

fn certificate(found: &mut Findings, deploy: &Deploy, wanted: &DeploySettings) -> Result<()> {
    let Some(arn) = &wanted.certificate else { return Ok(()) };
    // ACM does not know certificates that were uploaded to IAM.
    if !arn.contains(":acm:") {
        return Ok(());
    }
    let region = deploy.system.aws.region(&deploy.system.host)?;
    let here = arn.split(':').nth(3).unwrap_or_default();
    if here != region {
        found.fault(format!("certificate {arn}: it is in {here}, but the stack is in {region}"));
        return Ok(());
    }
    let call = Call::new(&ACM, "DescribeCertificate").with("CertificateArn", arn);
    let Some(answer) = found.ask(deploy, "certificate", call)? else { return Ok(()) };
    let status = answer.text("Certificate/Status");
    if status != "ISSUED" {
        found.fault(format!("certificate {arn}: its status is {status}, not ISSUED"));
    }
    let names = answer.list("Certificate/SubjectAlternativeNames").map(|name| name.text.as_str());
    let names: Vec<&str> = names.chain([answer.text("Certificate/DomainName")]).collect();
    if let Some(dns) = &wanted.dns_record
        && !names.iter().any(|name| covers(name, dns))
    {
        found.fault(format!("certificate {arn}: it is for {}, not for {dns}", names.join(", ")));
    }
    Ok(())
}

/// Returns whether a certificate's name covers a host; `*` stands for one label.
fn covers(name: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.');
    match name.strip_prefix("*.") {
        Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(domain)),
        None => name.eq_ignore_ascii_case(host),
    }
}

fn zone(found: &mut Findings, deploy: &Deploy, wanted: &DeploySettings) -> Result<()> {
    let Some(name) = wanted.dns_record.as_deref().map(|name| name.trim_end_matches('.')) else { return Ok(()) };
    // The nearest zone: that of the name itself, else of the domain above it.
    for domain in std::iter::successors(Some(name), |domain| domain.split_once('.').map(|(_, above)| above)) {
        let of_domain = |name: &str| name.trim_end_matches('.').eq_ignore_ascii_case(domain);
        let is_it = |zone: &&Element| of_domain(zone.text("Name")) && zone.text("Config/PrivateZone") != "true";
        let first = Call::new(&ROUTE_53, "/2013-04-01/hostedzonesbyname").with("dnsname", domain);
        // A domain may have private zones before its public one.
        let mut page = Some(first.clone());
        while let Some(call) = page {
            let Some(answer) = found.ask(deploy, "DNS", call)? else { return Ok(()) };
            if let Some(zone) = answer.list("HostedZones").find(is_it) {
                zone.text("Id").trim_start_matches("/hostedzone/").clone_into(&mut found.zone);
                return Ok(());
            }
            let (next, id) = (answer.text("NextDNSName"), answer.text("NextHostedZoneId"));
            let is_more = answer.text("IsTruncated") == "true" && of_domain(next) && !id.is_empty();
            page = is_more.then(|| first.clone().with("hostedzoneid", id));
        }
    }
    found.fault(format!("DNS: Route 53 has no public zone for {name}"));
    Ok(())
}

/// Names the bucket's owner at the first deploy of a stack whose settings name none.
pub fn bucket_owner(deploy: &Deploy, found: &Findings, wanted: &DeploySettings, artifacts: &Artifacts) -> Result<()> {
    let (None, Some(upload)) = (&wanted.bucket_owner, artifacts.uploads.first()) else { return Ok(()) };
    let (bucket, account) = (&upload.bucket, &found.account);
    if account.is_empty() {
        return Ok(());
    }
    deploy.say(&if deploy.system.aws.owns_bucket(&deploy.system.host, account, bucket)? {
        format!(
            "note: bucket {bucket} belongs to this account; write bucket_owner = \"{account}\" into deploy.toml, so that \
             S3 refuses a bucket of any other account"
        )
    } else {
        format!(
            "note: bucket {bucket} may belong to another account than {account}; name its owner with --bucket-owner \
             ACCOUNT, so that S3 checks it"
        )
    });
    Ok(())
}

/// Adds a fault if the quota does not allow so many more machines. A caller without permission to ask can still deploy.
pub fn quota(found: &mut Findings, deploy: &Deploy, kind: &str, machines: u32) -> Result<()> {
    let (_, code) = STANDARD;
    if found.vcpus == 0 || machines == 0 || !is_standard(kind) {
        return Ok(());
    }
    let call = Call::new(&QUOTAS, "GetServiceQuota").with("ServiceCode", "ec2").with("QuotaCode", code);
    let allowed = match deploy.system.aws(call) {
        Ok(answer) => answer.text("Quota/Value").parse::<f64>().ok(),
        Err(error) if Refusal::of(&error).is_some_and(Refusal::is_lasting) => None,
        Err(error) => return Err(error),
    };
    let Some(allowed) = allowed else { return Ok(()) };
    let (mut used, mut next) = (0, String::new());
    loop {
        let call = Call::new(&EC2, "DescribeInstances").with("Filter.1.Name", "instance-state-name");
        let call = call.with_list("Filter.1.Value", ["pending", "running"]);
        let call = if next.is_empty() { call } else { call.with("NextToken", &next) };
        let Some(answer) = found.ask(deploy, "instances that run", call)? else { return Ok(()) };
        let instances = answer.list("reservationSet").flat_map(|reservation| reservation.list("instancesSet"));
        for instance in instances.filter(|instance| is_standard(instance.text("instanceType"))) {
            let number = |name| instance.text(name).parse::<u32>().unwrap_or(1);
            used += number("cpuOptions/coreCount") * number("cpuOptions/threadsPerCore");
        }
        answer.text("nextToken").clone_into(&mut next);
        if next.is_empty() {
            break;
        }
    }
    let more = machines * found.vcpus;
    if f64::from(used + more) > allowed {
        found.fault(format!(
            "quota: {} of {kind} need {more} vCPUs; {used} of the {allowed} that this account may run are in use (quota {code})",
            count(machines as usize, "machine")
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_standard_families_share_their_quota() {
        for kind in ["t3.micro", "m7i.large", "im4gn.large", "i3.metal", "d3.xlarge", "hs1.8xlarge"] {
            assert!(is_standard(kind), "{kind}");
        }
        for kind in [
            "inf2.xlarge",
            "mac2.metal",
            "mac2-m2.metal",
            "trn1.2xlarge",
            "hpc7a.12xlarge",
            "dl1.24xlarge",
            "p5.4xlarge",
        ] {
            assert!(!is_standard(kind), "{kind}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(covers("*.example.com", "app.example.com."));
        assert!(covers("app.example.com", "APP.example.com"));
        for host in ["example.com", "a.b.example.com", "app.example.org"] {
            assert!(!covers("*.example.com", host), "{host}");
        }
    }
}
