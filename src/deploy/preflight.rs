//! Checks everything before anything is changed, and lists all faults at once.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{Deploy, ManagersOn, artifacts::Artifacts, settings::DeploySettings};
use crate::{
    aws::{
        answer::Element,
        query::Call,
        refusal::Refusal,
        service::{ACM, EC2, QUOTAS, ROUTE_53, STS},
    },
    error::{self, Fault},
    packages::manager::Family,
    view::count,
};

/// vCPUs of running on-demand instances of the standard families.
/// <https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html>
const STANDARD: (&str, &str) = ("ACDHIMRTZ", "L-1216C47A");

/// What the checks found out for the template's parameters.
#[derive(Debug, Default)]
pub struct Findings {
    /// ARN of the caller.
    pub identity: String,
    /// Account of the caller.
    account: String,
    /// The subnets' VPC.
    pub vpc: String,
    /// Name of the AMI's root device.
    pub root_device: String,
    /// Route 53 zone of the DNS name.
    pub zone: String,
    /// Processors of a machine; 0 if unknown.
    vcpus: u32,
    /// Faults that prevent a deploy.
    faults: Vec<String>,
    /// Notes for the operator.
    pub notes: Vec<String>,
}

impl Findings {
    fn fault(&mut self, message: String) {
        self.faults.push(message);
    }

    /// Returns a call's answer; a refusal by AWS becomes a fault.
    fn ask(&mut self, deploy: &Deploy, what: &str, call: Call) -> Result<Option<Element>> {
        match deploy.system.aws(call) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => match Refusal::of(&error) {
                Some(refusal) if refusal.status < 500 => {
                    let hint = error::hint(&error).map(|hint| format!(" ({hint})")).unwrap_or_default();
                    self.fault(format!("{what}: {}: {}{hint}", refusal.code, refusal.message));
                    Ok(None)
                }
                _ => Err(error),
            },
        }
    }

    /// Fails with all faults.
    pub fn check(&self) -> Result<()> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let list: String = self.faults.iter().map(|fault| format!("\n  - {fault}")).collect();
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
    image(&mut found, deploy, wanted, artifacts)?;
    if let Some(key) = &wanted.key_pair {
        let call = Call::new(&EC2, "DescribeKeyPairs").with("KeyName.1", key);
        drop(found.ask(deploy, &format!("key pair {key}"), call)?);
    }
    certificate(&mut found, deploy, wanted)?;
    zone(&mut found, deploy, wanted)?;
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

fn image(found: &mut Findings, deploy: &Deploy, wanted: &DeploySettings, artifacts: &Artifacts) -> Result<()> {
    let ami = wanted.ami.as_deref().unwrap_or_default();
    let call = Call::new(&EC2, "DescribeImages").with("ImageId.1", ami);
    let Some(answer) = found.ask(deploy, &format!("AMI {ami}"), call)? else { return Ok(()) };
    let Some(image) = answer.list("imagesSet").next() else {
        found.fault(format!("AMI {ami} does not exist in this region, or this account may not use it"));
        return Ok(());
    };
    let architecture = image.text("architecture");
    image.text("rootDeviceName").clone_into(&mut found.root_device);
    if !["available", ""].contains(&image.text("imageState")) {
        found.fault(format!("AMI {ami}: its state is {}", image.text("imageState")));
    }
    if let Some(agent) = artifacts.architecture
        && agent != architecture
    {
        found.fault(format!("AMI {ami} is for {architecture}, but the program is for {agent} (pass --agent FILE)"));
    }
    steps(found, &deploy.package_managers, ami, image);
    let kind = wanted.instance_type.as_deref().unwrap_or_default();
    let call = Call::new(&EC2, "DescribeInstanceTypes").with("InstanceType.1", kind);
    if let Some(answer) = found.ask(deploy, &format!("instance type {kind}"), call)? {
        let types = answer.list("instanceTypeSet").next();
        found.vcpus = types.and_then(|kind| kind.text("vCpuInfo/defaultVCpus").parse().ok()).unwrap_or_default();
        let known: Vec<&str> = types
            .into_iter()
            .flat_map(|kind| kind.list("processorInfo/supportedArchitectures"))
            .map(|item| item.text.as_str())
            .collect();
        if !known.is_empty() && !known.contains(&architecture) {
            found.fault(format!(
                "instance type {kind} is for {}, but AMI {ami} is for {architecture}",
                known.join(", ")
            ));
        }
    }
    Ok(())
}

/// Adds a fault or a note if the steps have a fault on the system of an image, or need a package manager that it lacks.
fn steps(found: &mut Findings, managers: &ManagersOn, ami: &str, image: &Element) {
    let Some(system) = AmiSystem::of(image) else { return };
    let name = system.name;
    let needed = match managers(system.id) {
        Ok(needed) => needed,
        Err(fault) if system.is_certain => return found.fault(format!("AMI {ami}: {name}: {fault}")),
        Err(fault) => return found.notes.push(format!("AMI {ami}: if its name ({name}) tells its system: {fault}")),
    };
    let is_of = |manager: &Family| manager.distribution_ids().contains(&system.id);
    let image = image.text("name");
    let is_old = |manager: &Family| manager.old_images().iter().any(|begin| image.starts_with(begin));
    let lacking = needed.iter().filter(|managers| !managers.iter().any(|manager| is_of(manager) && !is_old(manager)));
    let faults: BTreeSet<String> = lacking
        .map(|managers| {
            let names = managers.iter().map(|manager| manager.name()).collect::<Vec<_>>().join(" or ");
            let why = match managers.iter().find(|manager| is_of(manager)) {
                Some(old) => format!("{} of this release ({image}) is not supported", old.name()),
                None if system.is_certain => format!("{name} has no {names}"),
                None => format!("its name ({name}) suggests that it has no {names}"),
            };
            format!("AMI {ami}: {why}, but the steps install packages with {names}")
        })
        .collect();
    if system.is_certain { found.faults.extend(faults) } else { found.notes.extend(faults) }
}

/// The systems of AMIs: `ID` of os-release(5), the beginning of the platform, parts of names. The first match counts.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/billing-info-fields.html>
const SYSTEMS: &[(&str, Option<&str>, &[&str])] = &[
    ("rhel", Some("Red Hat"), &["rhel"]),
    ("sles", Some("SUSE"), &["suse"]),
    ("windows", Some("Windows"), &[]),
    ("amzn", None, &["amzn", "al2023"]),
    ("fedora", None, &["fedora"]),
    ("ubuntu", Some("Ubuntu"), &["ubuntu"]),
    ("debian", None, &["debian"]),
];

/// The system of an image.
struct AmiSystem<'a> {
    id: &'static str,
    name: &'a str,
    /// Whether EC2 or the owner says so: image names can mislead.
    is_certain: bool,
}

impl<'a> AmiSystem<'a> {
    /// Returns the system that the description of an image tells.
    fn of(image: &'a Element) -> Option<Self> {
        let (platform, name) = (image.text("platformDetails"), image.text("name"));
        let is_platform = |begin: Option<&str>| begin.is_some_and(|begin| platform.starts_with(begin));
        if let Some((id, ..)) = SYSTEMS.iter().find(|(_, begin, _)| is_platform(*begin)) {
            return Some(Self { id, name: platform, is_certain: true });
        }
        if image.text("imageOwnerAlias") == "amazon" && ["amzn", "al2023"].iter().any(|begin| name.starts_with(begin)) {
            return Some(Self { id: "amzn", name: "Amazon Linux", is_certain: true });
        }
        let lower = name.to_ascii_lowercase();
        let (id, ..) = SYSTEMS.iter().find(|(_, _, parts)| parts.iter().any(|part| lower.contains(part)))?;
        Some(Self { id, name, is_certain: false })
    }
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
        let call = Call::new(&ROUTE_53, "/2013-04-01/hostedzonesbyname").with("dnsname", domain).with("maxitems", "1");
        let Some(answer) = found.ask(deploy, "DNS", call)? else { return Ok(()) };
        let is_it = |zone: &&Element| {
            zone.text("Name").trim_end_matches('.').eq_ignore_ascii_case(domain)
                && zone.text("Config/PrivateZone") != "true"
        };
        if let Some(zone) = answer.list("HostedZones").find(is_it) {
            zone.text("Id").trim_start_matches("/hostedzone/").clone_into(&mut found.zone);
            return Ok(());
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
    let (families, code) = STANDARD;
    let is_standard = |kind: &str| kind.starts_with(|c: char| families.contains(c.to_ascii_uppercase()));
    if found.vcpus == 0 || machines == 0 || !is_standard(kind) {
        return Ok(());
    }
    let call = Call::new(&QUOTAS, "GetServiceQuota").with("ServiceCode", "ec2").with("QuotaCode", code);
    let allowed = match deploy.system.aws(call) {
        Ok(answer) => answer.text("Quota/Value").parse::<f64>().ok(),
        Err(error) if Refusal::of(&error).is_some() => None,
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
    use crate::packages::FAMILIES;

    /// Returns what is found about an image for steps that need this family: faults and notes.
    fn found(family: &str, name: &str, platform: &str) -> (Vec<String>, Vec<String>) {
        let image = format!("<i><name>{name}</name><platformDetails>{platform}</platformDetails></i>");
        let image = Element::of_xml(&image).unwrap();
        let families: Vec<Family> = FAMILIES.iter().copied().filter(|manager| manager.name() == family).collect();
        let managers: ManagersOn = Box::new(move |_| Ok(vec![families.clone()]));
        let mut found = Findings::default();
        steps(&mut found, &managers, "ami-1", &image);
        (found.faults, found.notes)
    }

    #[test]
    fn an_image_must_have_the_package_manager_of_the_steps() {
        let nothing = (vec![], vec![]);
        for (family, name) in
            [("apt", "ubuntu-24.04"), ("apt", "debian-12"), ("apt", "app-7"), ("made-up", "fedora-40")]
        {
            assert_eq!(found(family, name, "Linux/UNIX"), nothing, "{family} on {name}");
        }
        let fault = |system, family| {
            let but = format!("but the steps install packages with {family}");
            vec![format!("AMI ami-1: {system} has no {family}, {but}")]
        };
        assert_eq!(found("apt", "x", "Windows").0, fault("Windows", "apt"));
        assert_eq!(found("made-up", "x", "Ubuntu Pro").0, fault("Ubuntu Pro", "made-up"));
        assert_eq!(found("apt", "app-on-fedora", "Linux/UNIX").1.len(), 1);
        assert_eq!(found("made-up", "app-on-debian", "Linux/UNIX").1.len(), 1);
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
