//! The image and the type of the machines.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Findings;
use crate::{
    aws::{
        answer::Element,
        query::Call,
        refusal::Refusal,
        service::{EC2, SSM},
    },
    deploy::{Deploy, ManagersOn, artifacts::Artifacts, settings::DeploySettings},
    packages::manager::Family,
};

/// What an AMI begins with that a parameter of Parameter Store names, as for EC2 itself.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-systems-manager-parameter-to-find-AMI.html>
pub const RESOLVED: &str = "resolve:ssm:";
/// The instance type of new stacks. Its console can be read while it boots, unlike that of a t2.
const DEFAULT_TYPE: &str = "t3.micro";
/// The same for machines with an ARM processor.
const DEFAULT_ARM_TYPE: &str = "t4g.micro";
/// Parts of the names of images whose systemd is older than 244, and its version.
const OLD_SYSTEMD: &[(&str, u32)] =
    &[("bionic", 237), ("buster", 241), ("debian-10", 241), ("amzn2-", 219), ("RHEL-8", 239), ("RHEL-7", 219)];

/// Returns the parameter with the newest image of the default system.
/// <https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/>
fn default_parameter(architecture: Option<&str>) -> String {
    let architecture = if architecture == Some("arm64") { "arm64" } else { "amd64" };
    format!("/aws/service/canonical/ubuntu/server/24.04/stable/current/{architecture}/hvm/ebs-gp3/ami-id")
}

/// Looks whether the image and the instance type exist, and whether they fit the program, the steps and the zones.
pub(super) fn look(
    found: &mut Findings,
    deploy: &Deploy,
    wanted: &DeploySettings,
    artifacts: &Artifacts,
) -> Result<()> {
    let Some(ami) = resolve(found, deploy, wanted, artifacts)? else { return Ok(()) };
    found.ami.clone_from(&ami);
    let call = Call::new(&EC2, "DescribeImages").with("ImageId.1", &ami);
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
    steps(found, &deploy.package_managers, &ami, image);
    if artifacts.signals() && wanted.converges() {
        units(found, &ami, image);
    }
    let default = if architecture == "arm64" { DEFAULT_ARM_TYPE } else { DEFAULT_TYPE };
    let kind = wanted.instance_type.as_deref().unwrap_or(default);
    kind.clone_into(&mut found.instance_type);
    instance_type(found, deploy, kind, &ami, architecture)
}

fn instance_type(found: &mut Findings, deploy: &Deploy, kind: &str, ami: &str, architecture: &str) -> Result<()> {
    let call = Call::new(&EC2, "DescribeInstanceTypes").with("InstanceType.1", kind);
    if let Some(answer) = found.ask(deploy, &format!("instance type {kind}"), call)? {
        let types = answer.list("instanceTypeSet").next();
        let is_burstable = types.is_some_and(|kind| kind.text("burstablePerformanceSupported") == "true");
        found.cpu_credits = if is_burstable { "standard" } else { "" };
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
    offers(found, deploy, kind)
}

/// Adds a fault for zones that do not offer an instance type. A caller without permission to ask can still deploy.
fn offers(found: &mut Findings, deploy: &Deploy, kind: &str) -> Result<()> {
    let call = Call::new(&EC2, "DescribeInstanceTypeOfferings").with("LocationType", "availability-zone");
    let call = call.with("Filter.1.Name", "instance-type").with("Filter.1.Value.1", kind);
    let answer = match deploy.system.aws(call) {
        Ok(answer) => answer,
        Err(error) if Refusal::of(&error).is_some() => return Ok(()),
        Err(error) => return Err(error),
    };
    let offering: Vec<&str> = answer.list("instanceTypeOfferingSet").map(|offer| offer.text("location")).collect();
    let lacking: Vec<&str> = found.zones.iter().map(String::as_str).filter(|zone| !offering.contains(zone)).collect();
    if !offering.is_empty() && !lacking.is_empty() {
        let fault = format!("instance type {kind}: not offered in {} (choose other subnets)", lacking.join(", "));
        found.fault(fault);
    }
    Ok(())
}

/// Returns the AMI's id: the given one, or that of a parameter of Parameter Store.
fn resolve(
    found: &mut Findings,
    deploy: &Deploy,
    wanted: &DeploySettings,
    artifacts: &Artifacts,
) -> Result<Option<String>> {
    let parameter = match wanted.ami.as_deref().map(|ami| (ami, ami.strip_prefix(RESOLVED))) {
        Some((ami, None)) => return Ok(Some(ami.to_owned())),
        Some((_, Some(parameter))) => parameter.to_owned(),
        None if wanted.baked => {
            found.fault("AMI: none is given, but its image must hold the program (set AMIID or pass --ami AMI)".into());
            return Ok(None);
        }
        None => default_parameter(artifacts.architecture),
    };
    let call = Call::new(&SSM, "GetParameter").with("Name", &parameter);
    let Some(answer) = found.ask(deploy, &format!("AMI of the parameter {parameter}"), call)? else { return Ok(None) };
    let ami = answer.text("Parameter/Value").to_owned();
    if !ami.starts_with("ami-") {
        found.fault(format!("parameter {parameter}: its value is no AMI"));
        return Ok(None);
    }
    found.notes.push(format!("AMI {ami} is the present value of {parameter}; this build keeps it"));
    Ok(Some(ami))
}

/// Adds a note if an image's name tells a systemd that cannot load the units of the hourly runs.
fn units(found: &mut Findings, ami: &str, image: &Element) {
    let name = image.text("name");
    if let Some((_, systemd)) = OLD_SYSTEMD.iter().find(|(part, _)| name.contains(part)) {
        found.notes.push(format!(
            "AMI {ami}: its name ({name}) suggests systemd {systemd}, and the runs at each boot and every hour need 244 \
             (to run the steps once: --converge false)"
        ));
    }
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
}
