//! Groups, their machines, target groups and a listener's weights, as AWS has them now.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    aws::{
        answer::Element,
        query::Call,
        refusal::Refusal,
        service::{AUTO_SCALING, BALANCING, EC2},
    },
    error::Fault,
    system::System,
};

/// An Auto Scaling group.
#[derive(Debug, Clone)]
pub struct ScalingGroup {
    /// Its name.
    pub name: String,
    /// Fewest machines.
    pub min: u32,
    /// Machines that it wants now.
    pub desired: u32,
    /// Most machines.
    pub max: u32,
    /// Machine and its state in the life cycle, such as `InService`.
    pub machines: Vec<(String, String)>,
    /// The machines that its warm pool keeps besides; `None` without a pool.
    pub pool_size: Option<u32>,
}

impl ScalingGroup {
    /// Returns how many machines it wants now, as a stack's parameter: at least one, also if another program has ended all of
    /// them for a time.
    pub fn capacity(&self) -> u32 {
        self.desired.max(1)
    }
}

/// A machine as the balancer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetHealth {
    /// The instance's id.
    pub id: String,
    /// `healthy`, `initial`, `unhealthy`, `draining` …
    pub state: String,
    /// The balancer's reason why it is not healthy.
    pub reason: String,
}

/// Returns the groups of these names that exist.
pub fn groups(system: &System, names: &[&str]) -> Result<Vec<ScalingGroup>> {
    let call = Call::new(&AUTO_SCALING, "DescribeAutoScalingGroups");
    let answer = system.aws(call.with_list("AutoScalingGroupNames.member", names.iter().copied()))?;
    let group = |element: &Element| {
        let number = |name| element.text(name).parse().with_context(|| format!("the group's {name}"));
        Ok(ScalingGroup {
            name: element.text("AutoScalingGroupName").into(),
            min: number("MinSize")?,
            desired: number("DesiredCapacity")?,
            max: number("MaxSize")?,
            machines: element.list("Instances").map(state_of).collect(),
            pool_size: element.text("WarmPoolConfiguration/MinSize").parse().ok(),
        })
    };
    answer.list("DescribeAutoScalingGroupsResult/AutoScalingGroups").map(group).collect()
}

/// Returns a machine of a group or of its pool, with its state in the life cycle.
fn state_of(machine: &Element) -> (String, String) {
    (machine.text("InstanceId").into(), machine.text("LifecycleState").into())
}

/// Returns the machines in a group's warm pool, each with its state in the life cycle, such as `Warmed:Stopped`.
/// <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DescribeWarmPool.html>
pub fn pool(system: &System, group: &str) -> Result<Vec<(String, String)>> {
    let (mut machines, mut next) = (vec![], String::new());
    loop {
        let call = Call::new(&AUTO_SCALING, "DescribeWarmPool").with("AutoScalingGroupName", group);
        let answer = system.aws(if next.is_empty() { call } else { call.with("NextToken", &next) })?;
        machines.extend(answer.list("DescribeWarmPoolResult/Instances").map(state_of));
        answer.text("DescribeWarmPoolResult/NextToken").clone_into(&mut next);
        if next.is_empty() {
            return Ok(machines);
        }
    }
}

/// Returns the machines whose launch Auto Scaling has given up since this time, the newest first, each with its reason. The
/// description of such an activity is `Launching a new EC2 instance: i-0123.  Status Reason: …`.
/// <https://docs.aws.amazon.com/autoscaling/ec2/userguide/CHAP_Troubleshooting.html>
pub fn abandoned(system: &System, group: &str, since: OffsetDateTime) -> Result<Vec<(String, String)>> {
    let call = Call::new(&AUTO_SCALING, "DescribeScalingActivities").with("AutoScalingGroupName", group);
    let answer = system.aws(call.with("MaxRecords", "100"))?;
    let machine = |activity: &Element| {
        let began = OffsetDateTime::parse(activity.text("StartTime"), &Rfc3339).ok()?;
        let (launch, reason) = activity.text("Description").split_once("Status Reason: ")?;
        let machine = launch.split_once("Launching a new EC2 instance: ")?.1.trim().trim_end_matches('.');
        (began >= since).then(|| (machine.to_owned(), reason.to_owned()))
    };
    Ok(answer.list("DescribeScalingActivitiesResult/Activities").filter_map(machine).collect())
}

/// The sizes that a group gets; `None` leaves one as it is, so that a change of the group's own policies stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupSize {
    /// Fewest machines.
    pub min: Option<u32>,
    /// Current number of machines.
    pub desired: Option<u32>,
    /// Most machines.
    pub max: Option<u32>,
}

impl GroupSize {
    fn put(self, call: Call) -> Call {
        let sizes = [("MinSize", self.min), ("DesiredCapacity", self.desired), ("MaxSize", self.max)];
        let given = sizes.into_iter().filter_map(|(name, size)| Some((name, size?)));
        given.fold(call, |call, (name, size)| call.with(name, size.to_string()))
    }
}

/// Gives a group these sizes.
pub fn resize(system: &System, group: &str, size: GroupSize) -> Result<()> {
    let call = Call::new(&AUTO_SCALING, "UpdateAutoScalingGroup").with("AutoScalingGroupName", group);
    system.aws(size.put(call)).map(drop)
}

/// The name of the one scheduled action that `deploy` gives a group; a new one replaces it.
const SCHEDULED_ACTION: &str = "glovo-bootstrap-deploy";

/// Has a group get these sizes at this time, once.
pub fn schedule(system: &System, group: &str, size: GroupSize, at: OffsetDateTime) -> Result<()> {
    let at = at.replace_nanosecond(0).context("a time")?.format(&Rfc3339).context("a time")?;
    let call = Call::new(&AUTO_SCALING, "PutScheduledUpdateGroupAction").with("AutoScalingGroupName", group);
    let call = call.with("ScheduledActionName", SCHEDULED_ACTION).with("StartTime", at);
    system.aws(size.put(call)).map(drop)
}

/// Cancels the scheduled action of a group. Returns false if it has none.
pub fn unschedule(system: &System, group: &str) -> Result<bool> {
    let call = Call::new(&AUTO_SCALING, "DeleteScheduledAction").with("AutoScalingGroupName", group);
    match system.aws(call.with("ScheduledActionName", SCHEDULED_ACTION)) {
        // There is none.
        Err(error) if Refusal::of(&error).is_some_and(|refusal| refusal.code == "ValidationError") => Ok(false),
        done => done.map(|_| true),
    }
}

/// The state of an instance refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshState {
    /// `Pending`, `InProgress`, `Baking`, `Successful`, `Failed` …
    pub status: String,
    /// Why it has this status, or what it waits for; often empty.
    pub reason: String,
    /// The machines that are replaced, in percent; empty before the first one.
    pub percent: String,
    /// The same of the warm pool's machines, which are replaced last; empty without a pool.
    pub pool_percent: String,
}

impl RefreshState {
    /// Returns whether it does nothing more.
    pub fn has_ended(&self) -> bool {
        ["Successful", "Failed", "Cancelled", "RollbackSuccessful", "RollbackFailed"].contains(&self.status.as_str())
    }
}

/// Returns the newest instance refresh of a group.
/// <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DescribeInstanceRefreshes.html>
pub fn refresh(system: &System, group: &str) -> Result<Option<RefreshState>> {
    let call = Call::new(&AUTO_SCALING, "DescribeInstanceRefreshes").with("AutoScalingGroupName", group);
    let answer = system.aws(call.with("MaxRecords", "1"))?;
    let newest = answer.list("DescribeInstanceRefreshesResult/InstanceRefreshes").next();
    let text = |refresh: &Element, name| refresh.text(name).to_owned();
    Ok(newest.map(|refresh| RefreshState {
        status: text(refresh, "Status"),
        reason: text(refresh, "StatusReason"),
        percent: text(refresh, "PercentageComplete"),
        pool_percent: text(refresh, "ProgressDetails/WarmPoolProgress/PercentageComplete"),
    }))
}

/// Returns the machines behind a target group.
pub fn targets(system: &System, target_group: &str) -> Result<Vec<TargetHealth>> {
    let call = Call::new(&BALANCING, "DescribeTargetHealth").with("TargetGroupArn", target_group);
    let answer = system.aws(call)?;
    let target = |element: &Element| TargetHealth {
        id: element.text("Target/Id").into(),
        state: element.text("TargetHealth/State").into(),
        reason: element.text("TargetHealth/Description").into(),
    };
    Ok(answer.list("DescribeTargetHealthResult/TargetHealthDescriptions").map(target).collect())
}

/// The code of EC2 for a machine that it does not know, or no longer.
pub const UNKNOWN_MACHINE: &str = "InvalidInstanceID.NotFound";

/// Returns how many of them are healthy.
pub fn healthy(targets: &[TargetHealth]) -> usize {
    targets.iter().filter(|target| target.state == "healthy").count()
}

/// Returns the listener's current weights, by target group.
pub fn weights(system: &System, listener: &str) -> Result<BTreeMap<String, u32>> {
    let answer = system.aws(Call::new(&BALANCING, "DescribeListeners").with("ListenerArns.member.1", listener))?;
    let listener = answer.list("DescribeListenersResult/Listeners").next();
    let actions = listener.into_iter().flat_map(|listener| listener.list("DefaultActions"));
    let targets = actions.flat_map(|action| action.list("ForwardConfig/TargetGroups"));
    Ok(targets
        .map(|target| (target.text("TargetGroupArn").into(), target.text("Weight").parse().unwrap_or(0)))
        .collect())
}

/// Returns the builds of these machines, from their tag `build`. EC2 may not know machines of the last moments yet.
pub fn builds(system: &System, machines: &[&str]) -> Result<BTreeMap<String, String>> {
    if machines.is_empty() {
        return Ok(BTreeMap::new());
    }
    let call = Call::new(&EC2, "DescribeInstances").with_list("InstanceId", machines.iter().copied());
    let answer = match system.aws(call) {
        Err(error) if Refusal::of(&error).is_some_and(|refusal| refusal.code == UNKNOWN_MACHINE) => {
            return Ok(BTreeMap::new());
        }
        answer => answer?,
    };
    let instances = answer.list("reservationSet").flat_map(|reservation| reservation.list("instancesSet"));
    let build = |instance: &Element| {
        let tag = instance.list("tagSet").find(|tag| tag.text("key") == "build");
        (instance.text("instanceId").to_owned(), tag.map_or("", |tag| tag.text("value")).to_owned())
    };
    Ok(instances.map(build).collect())
}

/// Returns the end of a machine's console; empty if EC2 has none yet.
pub fn console(system: &System, machine: &str) -> Result<String> {
    let ask = |latest: bool| {
        let call = Call::new(&EC2, "GetConsoleOutput").with("InstanceId", machine);
        system.aws(if latest { call.with("Latest", "true") } else { call })
    };
    // Only machines of the Nitro system offer the latest output.
    let answer = ask(true).or_else(|_| ask(false))?;
    let text = answer.text("output").split_whitespace().collect::<String>();
    let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text)
        .map_err(|error| Fault::new(format!("the console of {machine} cannot be read: {error}")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
