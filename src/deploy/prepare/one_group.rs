//! The old shape: one group, replaced as a whole.

use anyhow::{Result, ensure};

use super::{Intent, Prepared};
use crate::{
    deploy::{
        Deploy,
        artifacts::Artifacts,
        fleet, preflight,
        settings::Strategy,
        stack::{ParameterValue, Stack, WantedStack},
        template,
    },
    error::Fault,
};

impl Deploy {
    pub(super) fn prepare_group(&self, current: Option<Stack>) -> Result<Prepared> {
        let named = |name: &str| if name == "InstanceType" { "InstanceTypeParameter".into() } else { name.to_owned() };
        let settings = self.resolved(current.as_ref(), named);
        settings.check()?;
        let artifacts = Artifacts::collect(&settings, &self.stack, self.texts.as_ref())?;
        let found = preflight::look(self, &settings, &artifacts)?;
        for note in &found.notes {
            self.say(&format!("note: {note}"));
        }
        found.check()?;
        if current.is_none() {
            preflight::bucket_owner(self, &found, &settings, &artifacts)?;
        }
        let user_data = artifacts.user_data(&self.stack, template::GROUP)?;
        let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &user_data);
        ensure!(
            encoded.len() <= 4096,
            Fault::new(format!("this user-data has {} bytes in base64, and a parameter takes 4096", encoded.len()))
                .hint("the strategy blue-green has room for 16 KiB; or fewer --set")
                .invalid()
        );
        let known = current.iter().flat_map(|stack| stack.parameters.keys());
        let known = known.map(|name| (name.clone(), ParameterValue::Previous)).collect();
        let mut parameters = self.shared_parameters(known, &settings, &found);
        // What instances of the old shape have: machines of their own number, each by its parameter.
        let template = template::text(Strategy::Compatible);
        parameters.retain(|name, _| template.contains(&format!("\n  {name}:\n")));
        if let Some(stack) = &current {
            let is = |name: &str, wanted: Option<&String>| stack.parameter(name) == wanted.map_or("", String::as_str);
            let same = is("AMIId", settings.ami.as_ref())
                && is("InstanceTypeParameter", settings.instance_type.as_ref())
                && is("KeyName", settings.key_pair.as_ref())
                && stack.parameter("UserData") == encoded;
            let build = stack.parameter("VersionId").parse().ok();
            if !(same && build == Some(settings.build())) {
                self.check_build(build, build, &settings)?;
            }
        }
        let size = |given: Option<u32>, name: &str, default: u32| {
            let stands = current.as_ref().and_then(|stack| stack.parameter(name).parse().ok());
            given.or(stands).unwrap_or(default)
        };
        let mut desired = size(settings.desired_capacity, "DesiredCapacity", 2);
        let (min, max) = (size(settings.min_size, "MinSize", 1), size(settings.max_size, "MaxSize", 3));
        if let Some(group) = current.as_ref().and_then(|stack| stack.outputs.get("Group")) {
            desired = fleet::groups(&self.system, &[group])?.first().map_or(desired, |group| group.desired);
        }
        ensure!(
            desired <= max,
            Fault::new(format!("{desired} machines serve now, and MAXSIZE={max} allows fewer"))
                .hint(format!("MAXSIZE={desired} or more"))
                .invalid()
        );
        for (name, value) in [
            ("VersionId", settings.build().to_string()),
            ("AMIId", settings.ami.clone().unwrap_or_default()),
            ("InstanceTypeParameter", settings.instance_type.clone().unwrap_or_default()),
            ("KeyName", settings.key_pair.clone().unwrap_or_default()),
            ("MinSize", min.to_string()),
            ("DesiredCapacity", desired.max(min).to_string()),
            ("MaxSize", max.to_string()),
            ("UserData", encoded),
        ] {
            _ = parameters.insert(name.into(), ParameterValue::New(value));
        }
        let (kind, meaning) = match &current {
            None => (Intent::Create, format!("build {}: a new stack of the old shape", settings.build())),
            Some(stack) => (
                Intent::Adjust,
                format!(
                    "build {} → {}: the group is replaced as a whole; the new machines join the balancer before the old ones go",
                    stack.parameter("VersionId"),
                    settings.build()
                ),
            ),
        };
        let wanted = WantedStack { template: self.placed(template.to_owned(), &settings)?, parameters };
        let meaning = format!("{}: {meaning}", self.stack);
        Ok(Prepared { stack: self.stack.clone(), current, kind, is_behind: false, wanted, artifacts, meaning })
    }
}
