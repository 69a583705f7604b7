//! A stack as CloudFormation has it, and the calls that read and change it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail};

use super::{
    cause,
    event::GROUP_TYPE,
    operation,
    parameters::{Output, Parameter},
    state::{Condition, STATES, StackState},
};
use crate::{
    aws::{answer::Element, query::Call, refusal::Refusal, service::CLOUDFORMATION},
    error::Fault,
    system::System,
};

/// Largest template that fits into a call; a larger one must be in S3.
/// <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html>
pub const MAX_TEMPLATE_BYTES: usize = 51_200;
/// Longest value of a parameter, in bytes. The limits are those of the same page.
pub const MAX_PARAMETER_BYTES: usize = 4096;

/// A stack.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub id: String,
    /// Its state.
    pub state: StackState,
    /// CloudFormation's reason for the state; often empty.
    pub reason: String,
    /// When it was last changed, as CloudFormation writes times.
    pub changed: String,
    /// Whether CloudFormation refuses to delete it.
    pub is_protected: bool,
    /// Its parameters.
    pub parameters: BTreeMap<String, String>,
    /// Its outputs.
    pub outputs: BTreeMap<String, String>,
}

impl Stack {
    /// Returns the stack of this name, if it exists.
    pub fn find(system: &System, name: &str) -> Result<Option<Self>> {
        let found = match system.aws(Call::new(&CLOUDFORMATION, "DescribeStacks").with("StackName", name)) {
            Ok(answer) => answer,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(stack) = found.list("DescribeStacksResult/Stacks").next() else { return Ok(None) };
        let pairs = |list: &str, key: &str, value: &str| {
            let pair = |element: &Element| (element.text(key).to_owned(), element.text(value).to_owned());
            stack.list(list).map(pair).collect()
        };
        let time = |name| Some(stack.text(name)).filter(|text| !text.is_empty());
        let found = Self {
            name: stack.text("StackName").to_owned(),
            id: stack.text("StackId").to_owned(),
            state: StackState::of(stack.text("StackStatus")),
            reason: stack.text("StackStatusReason").to_owned(),
            changed: time("LastUpdatedTime").or_else(|| time("CreationTime")).unwrap_or("an unknown time").to_owned(),
            is_protected: stack.text("EnableTerminationProtection") == "true",
            parameters: pairs("Parameters", "ParameterKey", "ParameterValue"),
            outputs: pairs("Outputs", "OutputKey", "OutputValue"),
        };
        found.with_outputs(system).map(Some)
    }

    /// Fills in missing outputs from the stack's resources: some emulators of AWS report no outputs.
    fn with_outputs(mut self, system: &System) -> Result<Self> {
        if self.outputs.is_empty() && self.state.condition == Condition::Ready {
            for resource in resources(system, &self.id)? {
                let name = match resource.name.as_str() {
                    // The one with the weights: port 80 only redirects where there is a certificate.
                    "HttpListener" if !self.parameter(Parameter::Certificate).is_empty() => continue,
                    "HttpListener" | "HttpsListener" => Output::Listener.name(),
                    name => name,
                };
                _ = self.outputs.insert(name.to_owned(), resource.id);
            }
        }
        Ok(self)
    }

    /// Returns the text of its template.
    pub fn template(&self, system: &System) -> Result<String> {
        let call = Call::new(&CLOUDFORMATION, "GetTemplate").with("StackName", &self.name);
        let answer = system.aws(call.with("TemplateStage", "Original"))?;
        Ok(answer.text("GetTemplateResult/TemplateBody").to_owned())
    }

    /// Returns an output that must exist.
    pub fn output(&self, name: impl AsRef<str>) -> Result<&str> {
        let name = name.as_ref();
        let missing = || {
            Fault::new(format!("the stack {} has no output {name}", self.name))
                .hint("pass --strategy with the strategy that created the stack")
        };
        self.outputs.get(name).map(String::as_str).with_context(missing)
    }

    /// Returns whether the stack has this output.
    pub fn has_output(&self, output: Output) -> bool {
        self.outputs.contains_key(output.name())
    }

    /// Returns a parameter; empty if the stack has none of that name.
    pub fn parameter(&self, name: impl AsRef<str>) -> &str {
        self.parameters.get(name.as_ref()).map_or("", String::as_str)
    }
}

fn is_absent(error: &anyhow::Error) -> bool {
    Refusal::of(error).is_some_and(|refusal| {
        // The code is the same for every wrong parameter; only the words tell.
        refusal.code == "ValidationError" && refusal.message.contains("does not exist")
    })
}

/// Where the text of a template is.
#[derive(Debug, Clone)]
pub enum StackTemplate {
    /// In the call.
    Body(String),
    /// In S3, too long for a call.
    Url(String),
    /// The stack's own.
    Previous,
}

/// A value for a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParameterValue {
    /// This one.
    New(String),
    /// The one that the stack has.
    Previous,
}

/// Template and parameters that a stack is to have.
#[derive(Debug, Clone)]
pub struct WantedStack {
    /// Its template.
    pub template: StackTemplate,
    /// Its parameters.
    pub parameters: BTreeMap<String, ParameterValue>,
    /// The role that CloudFormation uses; `None` for the one that the stack has, or the caller's permissions.
    pub service_role: Option<String>,
    /// Its tags, each `NAME=VALUE`; empty for those that it has.
    pub tags: Vec<String>,
}

impl WantedStack {
    /// Puts all of it into a call.
    fn put(&self, call: Call) -> Call {
        let mut call = match &self.template {
            StackTemplate::Body(text) => call.with("TemplateBody", text),
            StackTemplate::Url(url) => call.with("TemplateURL", url),
            StackTemplate::Previous => call.with("UsePreviousTemplate", "true"),
        };
        for ((name, value), n) in self.parameters.iter().zip(1..) {
            let member = format!("Parameters.member.{n}");
            call = call.with(format!("{member}.ParameterKey"), name);
            call = match value {
                ParameterValue::New(value) => call.with(format!("{member}.ParameterValue"), value),
                ParameterValue::Previous => call.with(format!("{member}.UsePreviousValue"), "true"),
            };
        }
        for (tag, n) in self.tags.iter().zip(1..) {
            let (name, value) = tag.split_once('=').unwrap_or((tag, ""));
            call = call.with(format!("Tags.member.{n}.Key"), name).with(format!("Tags.member.{n}.Value"), value);
        }
        if let Some(role) = &self.service_role {
            call = call.with("RoleARN", role);
        }
        call.with("Capabilities.member.1", "CAPABILITY_IAM")
    }
}

/// A change set.
#[derive(Debug)]
pub struct ChangeSet {
    /// Its ARN.
    pub id: String,
    /// The changes.
    pub changes: Vec<ResourceChange>,
}

/// What will happen to a resource.
#[derive(Debug)]
pub struct ResourceChange {
    /// `Add`, `Modify`, `Remove` …
    pub action: String,
    /// Its name in the template.
    pub resource: String,
    /// Its type.
    pub kind: String,
    /// `True`, `False`, `Conditional`, or empty. `True` also where the template's update policy replaces the resource.
    pub replacement: String,
    /// Its properties, as far as they are told.
    pub properties: Vec<Property>,
}

/// A property that will change.
#[derive(Debug)]
pub struct Property {
    /// Where it is, such as `/Properties/MaxSize`.
    pub path: String,
    /// Its value; `None` where there is none, or it is not told.
    pub before: Option<String>,
    /// The value that it will have.
    pub after: Option<String>,
    /// Whether that value, or a part of it, is known only after the update.
    pub is_known_later: bool,
    /// `Never`, `Conditionally`, `Always`.
    pub recreation: String,
}

/// CloudFormation's text for a value, or a part of one, that it knows only after the update.
pub const KNOWN_LATER: &str = "{{changeSet:KNOWN_AFTER_APPLY}}";
/// The properties of a group whose change replaces it, because the templates have `AutoScalingReplacingUpdate`.
/// <https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-attribute-updatepolicy.html>
const REPLACING: [&str; 2] = ["/Properties/LaunchTemplate", "/Properties/VPCZoneIdentifier"];

/// Creates a change set and waits until it is computed; returns `None` if there is nothing to change.
pub fn propose(
    system: &System,
    stack: &str,
    is_new: bool,
    wanted: &WantedStack,
    poll: Duration,
) -> Result<Option<ChangeSet>> {
    let token = token();
    let name = format!("glovo-bootstrap-{token}");
    let call = Call::new(&CLOUDFORMATION, "CreateChangeSet")
        .with("StackName", stack)
        .with("ChangeSetName", &name)
        .with("ClientToken", &token)
        .with("ChangeSetType", if is_new { "CREATE" } else { "UPDATE" });
    let created = match system.aws(wanted.put(call)) {
        Ok(created) => created,
        Err(error) if says_unchanged(Refusal::of(&error).map_or("", |refusal| &refusal.message)) => return Ok(None),
        Err(error) => return Err(error),
    };
    // The model does not require the answer to have an id.
    let id = Some(created.text("CreateChangeSetResult/Id")).filter(|id| !id.is_empty()).map_or(name, str::to_owned);
    let changes = computed(system, stack, &id, poll);
    if let Ok(Some(changes)) = changes {
        return Ok(Some(ChangeSet { id, changes }));
    }
    let discarded = system.host.stop.interrupt.aside(|| discard(system, stack, &id, is_new));
    _ = changes?;
    discarded.map(|()| None)
}

/// Waits until a change set is computed; returns `None` if it has no changes.
fn computed(system: &System, stack: &str, id: &str, poll: Duration) -> Result<Option<Vec<ResourceChange>>> {
    let mut changes = vec![];
    let mut next = String::new();
    loop {
        let call = Call::new(&CLOUDFORMATION, "DescribeChangeSet").with("ChangeSetName", id).with("StackName", stack);
        let call = call.with("IncludePropertyValues", "true");
        let call = if next.is_empty() { call } else { call.with("NextToken", &next) };
        let answer = system.aws(call)?;
        let Some(described) = answer.find("DescribeChangeSetResult") else {
            bail!("CloudFormation does not describe the change set")
        };
        match described.text("Status") {
            "CREATE_COMPLETE" => {}
            "FAILED" => {
                let reason = described.text("StatusReason");
                if says_unchanged(reason) {
                    return Ok(None);
                }
                let fault = Fault::new(format!("CloudFormation cannot make these changes: {reason}"));
                bail!(match cause::chain(operation::failures_of_change_set(system, id).into_iter()) {
                    Some(cause) => fault.caused_by(cause),
                    None => fault,
                });
            }
            _ => {
                system.host.stop.wait(poll)?;
                continue;
            }
        }
        changes.extend(described.list("Changes").filter_map(|change| change.find("ResourceChange")).map(change));
        described.text("NextToken").clone_into(&mut next);
        if next.is_empty() {
            return Ok(Some(changes));
        }
    }
}

fn change(element: &Element) -> ResourceChange {
    let property = |detail: &Element| {
        let target = detail.find("Target").filter(|target| target.text("Attribute") == "Properties")?;
        let value = |name| target.find(name).map(|value| value.text.clone());
        let after = value("AfterValue");
        let path = Some(target.text("Path")).filter(|path| !path.is_empty());
        Some(Property {
            path: path.map_or_else(|| format!("/Properties/{}", target.text("Name")), str::to_owned),
            before: value("BeforeValue"),
            is_known_later: after.as_ref().is_some_and(|after| after.contains(KNOWN_LATER)),
            after: after.filter(|after| after != KNOWN_LATER),
            recreation: target.text("RequiresRecreation").to_owned(),
        })
    };
    let properties: Vec<Property> = element.list("Details").filter_map(property).collect();
    let is_replaced_by_policy = element.text("ResourceType") == GROUP_TYPE
        && element.text("Action") == "Modify"
        && properties.iter().any(|property| REPLACING.iter().any(|path| property.path.starts_with(path)));
    ResourceChange {
        action: element.text("Action").to_owned(),
        resource: element.text("LogicalResourceId").to_owned(),
        kind: element.text("ResourceType").to_owned(),
        replacement: if is_replaced_by_policy { "True" } else { element.text("Replacement") }.to_owned(),
        properties,
    }
}

/// Returns whether a reason says that nothing changes; CloudFormation has no code for it.
fn says_unchanged(reason: &str) -> bool {
    reason.contains("didn't contain changes") || reason.contains("No updates are to be performed")
}

/// Executes a change set.
pub fn execute(system: &System, stack: &str, change_set: &str) -> Result<()> {
    let call = Call::new(&CLOUDFORMATION, "ExecuteChangeSet").with("StackName", stack);
    system.aws(call.with("ChangeSetName", change_set).with("ClientRequestToken", token())).map(drop)
}

/// Returns a token for one operation: a call that is sent again, because its answer was lost, counts once.
fn token() -> String {
    crate::run::report::run_id()
}

/// Deletes a change set, and with the first one of a new stack also the empty stack that it created.
pub fn discard(system: &System, stack: &str, change_set: &str, is_new: bool) -> Result<()> {
    let call = Call::new(&CLOUDFORMATION, "DeleteChangeSet").with("StackName", stack).with("ChangeSetName", change_set);
    _ = system.aws(call)?;
    // Another operator may have created the stack meanwhile.
    let is_empty = |found: &Stack| found.state.name == "REVIEW_IN_PROGRESS";
    if is_new && Stack::find(system, stack)?.as_ref().is_some_and(is_empty) { delete(system, stack) } else { Ok(()) }
}

/// Updates a stack without a change set; returns false if there is nothing to change.
pub fn update(system: &System, stack: &str, wanted: &WantedStack) -> Result<bool> {
    let call = Call::new(&CLOUDFORMATION, "UpdateStack").with("StackName", stack).with("ClientRequestToken", token());
    match system.aws(wanted.put(call)) {
        Ok(_) => Ok(true),
        Err(error) if says_unchanged(Refusal::of(&error).map_or("", |refusal| &refusal.message)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Has CloudFormation refuse to delete a stack, or allow it again.
pub fn set_protection(system: &System, stack: &str, wanted: bool) -> Result<()> {
    let call = Call::new(&CLOUDFORMATION, "UpdateTerminationProtection").with("StackName", stack);
    system.aws(call.with("EnableTerminationProtection", wanted.to_string())).map(drop)
}

/// Deletes a stack.
pub fn delete(system: &System, stack: &str) -> Result<()> {
    let call = Call::new(&CLOUDFORMATION, "DeleteStack").with("StackName", stack);
    system.aws(call.with("ClientRequestToken", token())).map(drop)
}

/// A resource of a stack.
#[derive(Debug)]
pub struct StackResource {
    /// Its name in the template.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// What AWS calls it.
    pub id: String,
    /// Its state.
    pub status: String,
}

/// The states of stacks that are gone or hold nothing.
const GONE: [&str; 2] = ["DELETE_COMPLETE", "REVIEW_IN_PROGRESS"];
/// The most pages of names that are read; a page has 100 names.
const MAX_PAGES: usize = 5;

/// Returns the names of the stacks in this account and region, of up to 500 of them.
pub fn names(system: &System) -> Result<Vec<String>> {
    let states = STATES.into_iter().map(|state| state.name).filter(|name| !GONE.contains(&&**name));
    let first = Call::new(&CLOUDFORMATION, "ListStacks").with_list("StackStatusFilter.member", states);
    let (mut names, mut next) = (vec![], String::new());
    for _ in 0..MAX_PAGES {
        let call = first.clone();
        let answer = system.aws(if next.is_empty() { call } else { call.with("NextToken", &next) })?;
        names.extend(answer.list("ListStacksResult/StackSummaries").map(|stack| stack.text("StackName").to_owned()));
        answer.text("ListStacksResult/NextToken").clone_into(&mut next);
        if next.is_empty() {
            break;
        }
    }
    Ok(names)
}

/// Returns the stack's resources, at most a hundred: more than our templates create.
pub fn resources(system: &System, stack: &str) -> Result<Vec<StackResource>> {
    let answer = system.aws(Call::new(&CLOUDFORMATION, "DescribeStackResources").with("StackName", stack))?;
    let resource = |element: &Element| StackResource {
        name: element.text("LogicalResourceId").to_owned(),
        kind: element.text("ResourceType").to_owned(),
        id: element.text("PhysicalResourceId").to_owned(),
        status: element.text("ResourceStatus").to_owned(),
    };
    let all = answer.list("DescribeStackResourcesResult/StackResources").map(resource);
    Ok(all.filter(|resource| !resource.name.is_empty()).collect())
}
