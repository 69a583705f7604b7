//! The kind `sysctl`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use super::{Change, Finding, Kind, Resource, file::File};
use crate::{
    error::Fault,
    host::sysctl::Parameter,
    system::{Fact, Mode, System},
    value::AbsPath,
};

/// The directory of the administrator's files, sysctl.d(5).
const DIRECTORY: &str = "/etc/sysctl.d";
/// The directories that systemd-sysctl reads besides, sysctl.d(5).
const OTHER_DIRECTORIES: [&str; 3] = ["/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"];

/// Kernel parameters, now and after a reboot. Each value is given to the kernel first. The file below `/etc/sysctl.d` is
/// written only if the kernel has taken all of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sysctl {
    /// The parameters and their values, such as `{ "net.core.somaxconn" = 4096, "net.ipv4.tcp_rmem" = "4096 131072 6291456" }`.
    values: BTreeMap<String, DeclaredValue>,
    /// The name of the file: `/etc/sysctl.d/NAME.conf`. At boot, a file whose name is later in the alphabet has the last
    /// word. Default: `90-glovo-bootstrap`.
    #[serde(default)]
    #[schemars(with = "String")]
    name: FileName,
}

/// The file below `/etc/sysctl.d` that has a declared name.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct FileName(AbsPath);

impl Default for FileName {
    fn default() -> Self {
        Self("/etc/sysctl.d/90-glovo-bootstrap.conf".into())
    }
}

impl TryFrom<String> for FileName {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        ensure!(
            !name.is_empty() && !name.starts_with('.') && name.chars().all(is_plain),
            "`{}` is not a file's name: use letters, digits, `-`, `_` and `.`",
            name.escape_debug()
        );
        AbsPath::from(DIRECTORY).join(&format!("{name}.conf")).map(Self)
    }
}

/// The value of a parameter.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
enum DeclaredValue {
    Number(i64),
    Text(String),
}

// An untagged enum of serde does not say what was found instead.
impl<'de> Deserialize<'de> for DeclaredValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;
        impl de::Visitor<'_> for NumberOrText {
            type Value = DeclaredValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a number")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<DeclaredValue, E> {
                Ok(DeclaredValue::Number(number))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<DeclaredValue, E> {
                Ok(DeclaredValue::Text(text.into()))
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}

impl DeclaredValue {
    /// Returns the value as the kernel reads it.
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        }
    }
}

impl Kind for Sysctl {
    const NAME: &'static str = "sysctl";
    const EXAMPLE: &'static str = r#"kind = "sysctl"
values = { "net.core.somaxconn" = 4096, "vm.swappiness" = 10 }"#;
}

impl Resource for Sysctl {
    fn title(&self) -> String {
        self.values.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    fn owned_path(&self) -> Option<&AbsPath> {
        Some(&self.name.0)
    }

    fn owned_things(&self) -> Vec<(&'static str, String)> {
        let names: BTreeSet<String> = self.parameters().map(|(parameter, _)| parameter.to_string()).collect();
        names.into_iter().map(|name| ("values", format!("the kernel parameter {name}"))).collect()
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = vec![];
        if self.values.is_empty() {
            let hint = "name at least one: values = { \"vm.swappiness\" = 10 }";
            findings.push(Finding::new("values", "no parameter is declared").hint(hint));
        }
        for (name, value) in &self.values {
            if Parameter::new(name).is_none() {
                let message = format!("`{}` is not the name of a kernel parameter", name.escape_debug());
                findings.push(Finding::new("values", message).hint("list the names: sysctl --all --names"));
            }
            let text = value.text();
            if text.is_empty() || text.chars().any(char::is_control) {
                let message = format!("`{}` is not a value for {}", text.escape_debug(), name.escape_debug());
                findings.push(Finding::new("values", message));
            }
        }
        let mut declared: Vec<Parameter> = vec![];
        for (parameter, _) in self.parameters() {
            if declared.contains(&parameter) {
                findings.push(Finding::new("values", format!("{parameter} is declared twice")));
            }
            declared.push(parameter);
        }
        findings
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let mut changes = vec![];
        if system.is_live() {
            for (parameter, value) in self.parameters() {
                changes.extend(plan_parameter(system, &parameter, &value)?);
            }
        }
        self.warn_of_others(system)?;
        changes.extend(self.file().plan(system)?);
        Ok(changes)
    }
}

/// Returns the change that gives a value to the kernel; `None` if it has this value.
fn plan_parameter(system: &System, parameter: &Parameter, value: &str) -> Result<Option<Change>> {
    let now = system.host.parameter(parameter)?;
    let is_coming = system.mode() == Mode::Plan && system.expects(&Fact::Packages);
    let summary = match &now {
        Some(now) if now == value => return Ok(None),
        Some(now) => format!("set {parameter} to {value} (now {now})"),
        None if is_coming => format!("set {parameter} to {value} (a package may bring it)"),
        None => {
            let hint = format!(
                "correct the name, or load the kernel module that has it; known names: ls {}",
                parameter.directory()
            );
            return Err(Fault::new(format!("the kernel has no parameter {parameter}")).hint(hint).into());
        }
    };
    if now.is_some() {
        system.host.check_parameter_is_writable(parameter)?;
    }
    let (parameter, value) = (parameter.clone(), value.to_owned());
    Ok(Some(Change::new(summary, move |system| set(system, &parameter, &value))))
}

/// Gives a value to the kernel. If the kernel takes another one, the earlier value is set again.
fn set(system: &System, parameter: &Parameter, value: &str) -> Result<()> {
    let earlier = system.host.parameter(parameter)?;
    system.host.set_parameter(parameter, value)?;
    let taken = system.host.parameter(parameter)?.unwrap_or_default();
    if taken == value {
        return Ok(());
    }
    if let Some(earlier) = earlier {
        system.host.set_parameter(parameter, &earlier)?;
    }
    let message = format!("the kernel made {taken} of {parameter} = {value}; its earlier value is set again");
    Err(Fault::new(message).hint("declare a value within the kernel's limits").into())
}

impl Sysctl {
    fn parameters(&self) -> impl Iterator<Item = (Parameter, String)> {
        self.values.iter().filter_map(|(name, value)| Some((Parameter::new(name)?, value.text())))
    }

    /// Returns the file with the values for the boot.
    fn file(&self) -> File {
        let lines: String = self.parameters().map(|(parameter, value)| format!("{parameter} = {value}\n")).collect();
        File::of_text(self.name.0.clone(), format!("# Written by glovo-bootstrap.\n{lines}"))
    }

    /// Warns if a later file gives another value to one of the parameters at boot.
    fn warn_of_others(&self, system: &System) -> Result<()> {
        let own = self.name.0.leaf();
        // A file hides those of the same name in the directories after its own.
        let mut files = BTreeMap::new();
        for directory in [DIRECTORY].into_iter().chain(OTHER_DIRECTORIES) {
            for name in system.root().list(&AbsPath::from(directory))? {
                if name.ends_with(".conf") && &*name > own {
                    _ = files.entry(name).or_insert(directory);
                }
            }
        }
        for (name, directory) in files {
            let path = AbsPath::from(directory).join(&name)?;
            // systemd-sysctl goes on without such a file. A link to /dev/null masks a package's file.
            let Ok(text) = system.root().resolve(&path).and_then(|file| system.root().read_text(&file)) else {
                continue;
            };
            for line in text.lines().map(str::trim_start).filter(|line| !line.starts_with(['#', ';'])) {
                let Some((other, value)) = line.split_once('=') else { continue };
                let Some(other) = Parameter::new(other.trim().trim_start_matches('-')) else { continue };
                let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
                if self.parameters().any(|(parameter, wanted)| parameter == other && wanted != value) {
                    system.warn(format!("at boot, {path} sets {other} to {value}: its name comes after {own}"));
                }
            }
        }
        Ok(())
    }
}
