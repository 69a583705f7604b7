//! The state of AWS: a stack of one or two slots, and its dependencies. It advances by one scene with each request that
//! reads the stack.

mod stack;
mod stores;
mod watching;

use std::collections::{BTreeMap, VecDeque};

use base64::{Engine, prelude::BASE64_STANDARD};

use self::stores::Stores;
pub use self::watching::Refresh;
use crate::tape::Call;

pub const LISTENER: &str = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:listener/app/glovo-app/1/2";
pub const BLUE: &str = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/blue/1";
pub const GREEN: &str = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/green/2";

/// The answer to an operation: XML, or an error code with a message.
pub type Answer = Result<String, (&'static str, String)>;

/// A group and its machines, each with id and build.
#[derive(Debug, Clone, Default)]
pub struct Group {
    pub min: usize,
    pub desired: usize,
    pub max: usize,
    pub machines: Vec<(String, String)>,
    /// The scheduled action: smallest size and size, empty if it stays.
    pub scheduled: Option<(String, String)>,
    /// How often CloudFormation has replaced it.
    pub replaced: usize,
}

/// An event, with resource, type, state and reason.
pub type Event = (&'static str, &'static str, &'static str, &'static str);

/// The stack's state after the next request, and the events until then.
#[derive(Debug, Clone)]
pub struct Scene(pub &'static str, pub Vec<Event>);

/// An image: architecture and name.
type Image = (&'static str, &'static str);

/// A change set, or the parameters of `UpdateStack`.
#[derive(Debug, Clone, Default)]
struct Wanted {
    id: String,
    token: String,
    parameters: BTreeMap<String, String>,
    template: String,
}

#[derive(Debug, Clone)]
pub struct World {
    /// The stack's name.
    pub name: &'static str,
    /// The beginning of the names of its slots and target groups.
    slots: Vec<(&'static str, String)>,
    /// The stack's state; empty if it does not exist.
    pub state: &'static str,
    pub reason: &'static str,
    /// Whether it has termination protection, as CloudFormation says it: `true` or `false`.
    pub protection: String,
    pub parameters: BTreeMap<String, String>,
    pub template: String,
    /// Whether it is behind a classic load balancer, without a listener.
    pub is_classic: bool,
    /// What each look at the group's instance refresh finds. The first one is what was before.
    pub refreshes: VecDeque<Refresh>,
    /// What Auto Scaling has done, the newest first: time and description.
    pub activities: Vec<(&'static str, &'static str)>,
    /// The machines in the group's warm pool, each with id and build, and the state of all.
    pub pool: Vec<(String, String)>,
    pub pool_state: &'static str,
    /// The output `Url`; without it, the stack has none.
    pub url: String,
    /// The events, oldest first.
    events: Vec<Event>,
    scenes: VecDeque<Scene>,
    /// The scenes of the next change. Without any, it succeeds.
    pub plot: Vec<Scene>,
    wanted: Option<Wanted>,
    executed: Option<String>,
    /// The changes in the answer of `DescribeChangeSet`, in XML.
    pub changes: String,
    /// Whether AWS tells at once or in the change set that nothing changes.
    pub refuses_unchanged: bool,
    /// The reason why the next change set fails; empty if it does not.
    pub change_set_failure: &'static str,
    /// The answer of `DescribeEvents`, in XML.
    pub operation_events: String,
    /// The groups, by slot.
    pub groups: BTreeMap<&'static str, Group>,
    /// Machines behind a slot's balancer that are not of its group, each with id and build.
    pub strays: BTreeMap<&'static str, Vec<(String, String)>>,
    /// Whether the groups that are updated lose their machines just before.
    pub loses_machines_at_update: bool,
    /// The balancer's states of a slot's machines, one row for each request. The last row repeats.
    pub health: BTreeMap<&'static str, VecDeque<Vec<&'static str>>>,
    pub weights: BTreeMap<String, String>,
    /// The state and its reason of each alarm, one for each request. The last one repeats.
    pub alarms: BTreeMap<&'static str, VecDeque<(&'static str, &'static str)>>,
    /// The period of the alarms in seconds; 0 for none.
    pub alarm_period: u32,
    /// The subnets: id, VPC, zone.
    pub subnets: Vec<(&'static str, &'static str, &'static str)>,
    /// The security groups: id and VPC.
    pub security_groups: Vec<(&'static str, &'static str)>,
    pub images: BTreeMap<&'static str, Image>,
    /// The name of the images' root device.
    pub root_device: &'static str,
    pub types: BTreeMap<&'static str, &'static str>,
    /// The vCPU quota of the account, and the vCPUs of each running machine. `None` if the quota cannot be read.
    /// The zones that offer every instance type; without any, EC2 names none.
    pub offering: Vec<&'static str>,
    pub quota: Option<(u32, Vec<u32>)>,
    pub keys: Vec<&'static str>,
    /// The status and the names of each certificate.
    pub certificate: (&'static str, Vec<&'static str>),
    pub zones: Vec<&'static str>,
    pub console: String,
    /// The number of answers without output before the console is shown. EC2 gives such answers for a time.
    pub empty_consoles: u32,
    /// The drifts in the answer of `DescribeStackResourceDrifts`, in XML.
    pub drifts: String,
    pub objects: BTreeMap<String, Vec<u8>>,
    /// The headers of each object that tell how it is encrypted.
    pub encryption: &'static str,
    /// The account that the bucket belongs to.
    pub bucket_owner: &'static str,
    pub stores: Stores,
}

impl Default for World {
    fn default() -> Self {
        Self {
            name: "glovo-app",
            slots: vec![("Blue", BLUE.into()), ("Green", GREEN.into())],
            state: "",
            reason: "",
            protection: "false".into(),
            parameters: BTreeMap::new(),
            template: String::new(),
            is_classic: false,
            refreshes: VecDeque::new(),
            activities: vec![],
            pool: vec![],
            pool_state: "Warmed:Stopped",
            url: String::new(),
            events: vec![],
            scenes: VecDeque::new(),
            plot: vec![],
            wanted: None,
            executed: None,
            changes: String::new(),
            refuses_unchanged: false,
            change_set_failure: "",
            operation_events: String::new(),
            groups: BTreeMap::new(),
            strays: BTreeMap::new(),
            loses_machines_at_update: false,
            health: BTreeMap::new(),
            weights: BTreeMap::new(),
            alarms: BTreeMap::new(),
            alarm_period: 0,
            subnets: vec![("subnet-a", "vpc-1", "eu-central-1a"), ("subnet-b", "vpc-1", "eu-central-1b")],
            security_groups: vec![("sg-1", "vpc-1"), ("sg-2", "vpc-1")],
            images: BTreeMap::from(["ami-24", "ami-3"].map(|ami| (ami, ("x86_64", "ubuntu-noble-24.04")))),
            root_device: "/dev/sda1",
            types: BTreeMap::from([
                ("t2.micro", "x86_64"),
                ("t3.micro", "x86_64"),
                ("t4g.micro", "arm64"),
                ("t3.small", "x86_64"),
                ("t3.large", "x86_64"),
                ("t4g.small", "arm64"),
            ]),
            offering: vec![],
            quota: None,
            keys: vec!["ann"],
            certificate: ("ISSUED", vec!["app.example.com"]),
            zones: vec!["example.com."],
            console: String::new(),
            empty_consoles: 0,
            drifts: String::new(),
            objects: BTreeMap::new(),
            encryption: "",
            bucket_owner: "123456789012",
            stores: Stores::default(),
        }
    }
}

/// Returns an element with its content.
pub fn xml(name: &str, inner: &str) -> String {
    format!("<{name}>{inner}</{name}>")
}

/// Returns an element with a text.
pub fn text(name: &str, text: &str) -> String {
    xml(name, &text.replace('&', "&amp;").replace('<', "&lt;"))
}

pub fn members(name: &str, member: &str, items: impl IntoIterator<Item = String>) -> String {
    xml(name, &items.into_iter().map(|item| xml(member, &item)).collect::<String>())
}

impl World {
    /// Returns a world with a stack of one slot and this name.
    pub fn of_one_slot(name: &'static str) -> Self {
        let targets = format!("arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/{name}/1");
        Self { name, slots: vec![("", targets)], ..Self::default() }
    }

    /// Returns the weight and the machines of each slot. A stack of weighted records has its weight as a parameter.
    pub fn loads(&self) -> Vec<(u32, u32)> {
        let of_record = self.parameters.get("Weight").filter(|_| !self.state.is_empty());
        let load = |(slot, targets): &(&'static str, String)| {
            let weight = self.weights.get(targets).or(of_record).map_or(0, |weight| weight.parse().unwrap());
            let machines = self.groups.get(slot).map_or(0, |group| group.machines.len());
            (weight, machines.try_into().unwrap())
        };
        self.slots.iter().map(load).collect()
    }

    /// Returns whether an action of a slot with traffic is to shrink it.
    pub fn is_to_lose_machines_with_traffic(&self) -> bool {
        self.slots.iter().any(|(slot, targets)| {
            let has_traffic = self.weights.get(targets).is_some_and(|weight| weight != "0");
            let group = self.groups.get(slot).filter(|_| has_traffic);
            let size = |group: &Group| group.scheduled.as_ref()?.1.parse::<usize>().ok();
            group.is_some_and(|group| size(group).is_some_and(|size| size < group.desired))
        })
    }

    fn slot_of(&self, target_group: &str) -> &'static str {
        self.slots.iter().find(|(_, arn)| arn == target_group).expect("a target group of ours").0
    }

    pub fn group_name(&self, slot: &str) -> String {
        let number = self.groups.get(slot).map_or(1, |group| group.replaced + 1);
        format!("{}-{slot}Group-{number}ABC", self.name)
    }

    /// Returns EC2's description of the requested machines.
    pub fn machines(&self, call: &Call) -> Vec<String> {
        let machines = self
            .groups
            .values()
            .flat_map(|group| &group.machines)
            .chain(self.strays.values().flatten())
            .chain(&self.pool);
        let machines = machines.filter(|(id, _)| call.list("InstanceId").contains(&id.as_str()));
        let machine = |(id, build): &(String, String)| {
            text("instanceId", id) + &members("tagSet", "item", [text("key", "build") + &text("value", build)])
        };
        machines.map(machine).collect()
    }

    /// Returns the answer to an operation.
    pub fn answer(&mut self, call: &Call) -> Answer {
        let inner = match call.operation.as_str() {
            "GetCallerIdentity" => text("Account", "123456789012") + &text("Arn", "arn:aws:iam::123456789012:user/ann"),
            "ListHostedZonesByName" => return Ok(self.zone(call)),
            "DescribeCertificate" => return Ok(self.describe_certificate()),
            "DescribeParameters" | "GetParameter" | "GetParametersByPath" | "DescribeSecret" | "DescribeKey" => {
                return self.stores.answer(call);
            }
            "GetServiceQuota" => {
                let Some((allowed, _)) = self.quota else { return Err(("AccessDeniedException", "no".into())) };
                return Ok(serde_json::json!({ "Quota": { "Value": f64::from(allowed) } }).to_string());
            }
            "DescribeSubnets"
            | "DescribeSecurityGroups"
            | "DescribeImages"
            | "DescribeInstanceTypes"
            | "DescribeInstanceTypeOfferings"
            | "DescribeKeyPairs"
            | "DescribeInstances"
            | "GetConsoleOutput" => {
                return Ok(xml("Response", &self.ec2(call)?));
            }
            "DescribeAlarms" => self.describe_alarms(call),
            "DescribeAutoScalingGroups"
            | "UpdateAutoScalingGroup"
            | "DescribeInstanceRefreshes"
            | "DescribeScalingActivities"
            | "DescribeWarmPool"
            | "PutScheduledUpdateGroupAction"
            | "DeleteScheduledAction"
            | "DescribeListeners"
            | "ModifyListener"
            | "DescribeTargetHealth" => self.fleet(call)?,
            _ => self.stack(call)?,
        };
        Ok(xml("Response", &xml(&format!("{}Result", call.operation), &inner)))
    }

    fn ec2(&mut self, call: &Call) -> Answer {
        let missing = |code, id: &str| Err((code, format!("'{id}' does not exist")));
        match call.operation.as_str() {
            "DescribeSubnets" => {
                let mut found = vec![];
                for id in call.list("SubnetId") {
                    let Some((_, vpc, zone)) = self.subnets.iter().find(|(known, ..)| *known == id) else {
                        return missing("InvalidSubnetID.NotFound", id);
                    };
                    found.push(text("subnetId", id) + &text("vpcId", vpc) + &text("availabilityZone", zone));
                }
                Ok(members("subnetSet", "item", found))
            }
            "DescribeSecurityGroups" => {
                let mut found = vec![];
                for id in call.list("GroupId") {
                    let Some((_, vpc)) = self.security_groups.iter().find(|(known, _)| *known == id) else {
                        return missing("InvalidGroup.NotFound", id);
                    };
                    found.push(text("groupId", id) + &text("vpcId", vpc));
                }
                Ok(members("securityGroupInfo", "item", found))
            }
            "DescribeImages" => {
                let id = call.get("ImageId.1");
                let Some((architecture, name)) = self.images.get(id) else {
                    return missing("InvalidAMIID.NotFound", id);
                };
                let owner = if name.starts_with("al2023") || name.starts_with("amzn2") { "amazon" } else { "" };
                let platform = match *name {
                    name if name.starts_with("RHEL") => "Red Hat Enterprise Linux",
                    name if name.starts_with("SLES") => "SUSE Linux",
                    _ => "Linux/UNIX",
                };
                let root = text("rootDeviceName", self.root_device)
                    + &text("imageState", "available")
                    + &text("imageOwnerAlias", owner)
                    + &text("platformDetails", platform);
                let image = text("imageId", id) + &text("architecture", architecture) + &text("name", name) + &root;
                Ok(members("imagesSet", "item", [image]))
            }
            "DescribeInstanceTypes" => {
                let name = call.get("InstanceType.1");
                let Some(architecture) = self.types.get(name) else { return missing("InvalidInstanceType", name) };
                let supported = members("supportedArchitectures", "item", [(*architecture).to_owned()]);
                let processors = xml("vCpuInfo", &text("defaultVCpus", "2"));
                let burstable = text("burstablePerformanceSupported", &name.starts_with('t').to_string());
                Ok(members("instanceTypeSet", "item", [xml("processorInfo", &supported) + &processors + &burstable]))
            }
            "DescribeInstanceTypeOfferings" => {
                let zones = self.offering.iter().map(|zone| text("location", zone));
                Ok(members("instanceTypeOfferingSet", "item", zones))
            }
            "DescribeKeyPairs" if self.keys.contains(&call.get("KeyName.1")) => Ok(String::new()),
            "DescribeKeyPairs" => missing("InvalidKeyPair.NotFound", call.get("KeyName.1")),
            "DescribeInstances" if call.get("Filter.1.Name") == "instance-state-name" => {
                let running = self.quota.iter().flat_map(|(_, running)| running).map(|cores| {
                    let options = text("coreCount", &cores.to_string()) + &text("threadsPerCore", "1");
                    text("instanceType", "t3.large") + &xml("cpuOptions", &options)
                });
                Ok(members("reservationSet", "item", [members("instancesSet", "item", running)]))
            }
            "GetConsoleOutput" if self.empty_consoles > 0 => {
                self.empty_consoles -= 1;
                Ok(text("output", ""))
            }
            "GetConsoleOutput" => Ok(text("output", &BASE64_STANDARD.encode(&self.console))),
            other => panic!("EC2 in this test does not know {other}"),
        }
    }

    fn zone(&self, call: &Call) -> String {
        let wanted = call.get("dnsname").trim_end_matches('.');
        // Route 53 answers with the zones from that name on, here with one in each page. Its name may be another one.
        let id = |n: usize| format!("/hostedzone/Z{}", n + 1);
        let is_next = |n: usize, zone: &str| match call.get("hostedzoneid") {
            "" => zone.trim_end_matches('.') >= wanted,
            next => id(n).ends_with(&format!("/{next}")),
        };
        let zones: Vec<(bool, &str)> =
            self.zones.iter().map(|zone| (zone.starts_with("private "), zone.trim_start_matches("private "))).collect();
        let first = zones.iter().enumerate().position(|(n, (_, zone))| is_next(n, zone));
        let page = first.map(|n| {
            let (is_private, zone) = zones[n];
            let private = xml("Config", &text("PrivateZone", &is_private.to_string()));
            text("Id", &id(n)) + &text("Name", zone) + &private
        });
        let next = first.and_then(|n| zones.get(n + 1).map(|(_, zone)| (n + 1, *zone)));
        let more = next.map_or_else(String::new, |(n, zone)| {
            text("NextDNSName", zone) + &text("NextHostedZoneId", id(n).trim_start_matches("/hostedzone/"))
        });
        let page = members("HostedZones", "HostedZone", page) + &text("IsTruncated", &next.is_some().to_string());
        xml("ListHostedZonesByNameResponse", &(page + &more))
    }

    fn describe_certificate(&self) -> String {
        let (status, names) = &self.certificate;
        serde_json::json!({ "Certificate": {
            "Status": status, "DomainName": names[0], "SubjectAlternativeNames": names,
        }})
        .to_string()
    }

    /// Executes the scheduled actions of the groups.
    pub fn let_scheduled_time_come(&mut self) {
        let name = self.name;
        for (slot, group) in &mut self.groups {
            if let Some((min, desired)) = group.scheduled.take() {
                let desired = if desired.is_empty() { group.desired.to_string() } else { desired };
                group.resize(if slot.is_empty() { name } else { slot }, &min, &desired, "");
            }
        }
    }

    fn group_of(&mut self, call: &Call) -> (&'static str, &mut Group) {
        let names: Vec<_> = self.slots.iter().map(|(slot, _)| (*slot, self.group_name(slot))).collect();
        let (slot, _) = names.iter().find(|(_, name)| name == call.get("AutoScalingGroupName")).expect("a slot");
        (slot, self.groups.get_mut(slot).expect("a group"))
    }

    fn fleet(&mut self, call: &Call) -> Answer {
        Ok(match call.operation.as_str() {
            "DescribeAutoScalingGroups" => self.describe_groups(call),
            "DescribeInstanceRefreshes" => self.describe_refreshes(),
            "DescribeScalingActivities" => self.describe_activities(),
            "DescribeWarmPool" => self.describe_pool(call),
            "UpdateAutoScalingGroup" => {
                let name = self.name;
                let (slot, group) = self.group_of(call);
                let given = |name, now: usize| call.get(name).parse().unwrap_or(now);
                let (min, max) = (given("MinSize", group.min), given("MaxSize", group.max));
                // A group with fewer machines than its new smallest size grows.
                let desired = given("DesiredCapacity", group.desired.max(min));
                if !(min..=max).contains(&desired) {
                    return Err(("ValidationError", format!("Max bound, {max}, must be at least {min} and {desired}")));
                }
                group.max = max;
                let slot = if slot.is_empty() { name } else { slot };
                group.resize(slot, &min.to_string(), &desired.to_string(), "");
                String::new()
            }
            "PutScheduledUpdateGroupAction" => {
                let (_, group) = self.group_of(call);
                group.scheduled = Some((call.get("MinSize").into(), call.get("DesiredCapacity").into()));
                String::new()
            }
            "DeleteScheduledAction" => {
                if self.group_of(call).1.scheduled.take().is_none() {
                    return Err(("ValidationError", "Scheduled action name not found".into()));
                }
                String::new()
            }
            "DescribeListeners" => {
                let target = |(arn, weight): (&String, &String)| text("TargetGroupArn", arn) + &text("Weight", weight);
                let targets = members("TargetGroups", "member", self.weights.iter().map(target));
                let action = text("Type", "forward") + &xml("ForwardConfig", &targets);
                members("Listeners", "member", [members("DefaultActions", "member", [action])])
            }
            "ModifyListener" => {
                for n in 1..=2 {
                    let member = format!("DefaultActions.member.1.ForwardConfig.TargetGroups.member.{n}");
                    let arn = call.get(&format!("{member}.TargetGroupArn"));
                    let _ = self.slot_of(arn);
                    let _ = self.weights.insert(arn.into(), call.get(&format!("{member}.Weight")).into());
                }
                String::new()
            }
            _ => {
                let slot = self.slot_of(call.get("TargetGroupArn"));
                let rows = self.health.entry(slot).or_default();
                let row = if rows.len() > 1 { rows.pop_front() } else { rows.front().cloned() }.unwrap_or_default();
                let mut machines = self.groups.get(slot).map(|group| group.machines.clone()).unwrap_or_default();
                machines.extend(self.strays.get(slot).cloned().unwrap_or_default());
                let target = |(n, (id, _)): (usize, &(String, String))| {
                    let health = text("State", row.get(n).copied().unwrap_or("healthy"));
                    xml("Target", &text("Id", id)) + &xml("TargetHealth", &health)
                };
                members("TargetHealthDescriptions", "member", machines.iter().enumerate().map(target))
            }
        })
    }
}

/// Returns the name of a slot's first group.
pub fn group_name(slot: &str) -> String {
    format!("glovo-app-{slot}Group-1ABC")
}

impl Group {
    /// Gives the group machines of its build.
    pub fn resize(&mut self, slot: &str, min: &str, desired: &str, build: &str) {
        self.min = min.parse().unwrap();
        self.desired = desired.parse().unwrap();
        let build = self.machines.first().map_or(build, |(_, build)| build).to_owned();
        let machine = |n| (format!("i-{}{build}{n}", slot.to_lowercase()), build.clone());
        self.machines = (0..self.desired).map(machine).collect();
    }
}
