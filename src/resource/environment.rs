//! The kind `environment`.

mod assignments;

use anyhow::{Result, anyhow};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use self::assignments::{Assignments, is_possible, is_variable_name, line};
use super::{
    Change, Finding, Kind, Resource,
    credential::{ServiceCredential, mount},
    mount::units::{UnitFile, removals},
    service::UnitName,
};
use crate::{
    redaction::is_sensitive,
    system::{Fact, Phase, System},
    value::{AbsPath, Sha256, secret_source::SecretSource},
};

/// What a service gets at its start: environment variables, and secrets as credentials of systemd. It needs no change of the
/// unit: a drop-in of the unit names the file of the variables, and loads the credentials. The application reads a secret
/// from the file `$CREDENTIALS_DIRECTORY/NAME`. The `service` of the same name, if it is `running`, is restarted when a
/// value or the version of a secret changes. Declare it after this resource. After a reboot, the service waits until a run
/// has read its credentials again. Without variables and credentials, the resource removes its files.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceEnvironment {
    /// The name of the service, such as `app.service`. Its unit need not exist yet.
    #[serde(rename = "name")]
    service: EnvironmentService,
    /// The environment variables: a table, or a list of `NAME=VALUE`. A variable of the unit's own `Environment=` with the
    /// same name is replaced. No value may be a secret: each program that the service starts inherits it. Default: none.
    #[serde(default)]
    #[schemars(schema_with = "assignments::schema")]
    variables: Assignments,
    /// The secrets: a table of their names and sources, such as `{ db_password = "ssm:///app/db_password" }`, or a list of
    /// `NAME=URL`. The sources are those of the kind `credential`. Default: none.
    #[serde(default)]
    #[schemars(schema_with = "assignments::schema")]
    credentials: CredentialList,
}

/// The name of a service, with the paths of its drop-in and of the file of its variables.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
struct EnvironmentService {
    name: String,
    drop_in: AbsPath,
    file: AbsPath,
}

impl TryFrom<String> for EnvironmentService {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        let name = UnitName::try_from(name)?.as_str().to_owned();
        if !name.ends_with(".service") {
            return Err(anyhow!("`{name}` is not a service: only services have an environment"));
        }
        let drop_in = UnitFile::drop_in(&name, DROP_IN, String::new()).full_path()?;
        let file = UnitFile::new(format!("{name}{FILE}"), String::new()).full_path()?;
        Ok(Self { name, drop_in, file })
    }
}

const DROP_IN: &str = "glovo-bootstrap-environment";
const SOURCES: &str =
    "write NAME = \"ssm:///PATH\", NAME = \"secretsmanager://NAME\" or NAME = \"vault://MOUNT/PATH#KEY\"";
const FILE: &str = ".d/50-glovo-bootstrap.env";

/// The credentials of a service, and the faults of those that cannot be read.
#[derive(Debug, Default)]
struct CredentialList(Vec<ServiceCredential>, Vec<Finding>);

impl<'de> Deserialize<'de> for CredentialList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut list = Self::default();
        for (name, url) in Assignments::deserialize(deserializer)?.0 {
            let source = url.parse::<SecretSource>();
            match source.and_then(|source| ServiceCredential::new(name.clone(), source)) {
                Ok(credential) => list.0.push(credential),
                Err(error) => {
                    let message = format!("`credentials`: `{}`: {error:#}", name.escape_debug());
                    list.1.push(Finding::new("credentials", message).hint(SOURCES));
                }
            }
        }
        Ok(list)
    }
}

impl Kind for ServiceEnvironment {
    const NAME: &'static str = "environment";
    const EXAMPLE: &'static str = r#"kind = "environment"
name = "app.service"
variables = { LOG_LEVEL = "info", DB_HOST = "db.example.com" }
credentials = { db_password = "ssm:///app/db_password" }"#;
}

impl Resource for ServiceEnvironment {
    fn title(&self) -> String {
        self.service.name.clone()
    }

    fn owned_path(&self) -> Option<&AbsPath> {
        Some(&self.service.drop_in)
    }

    fn made_paths(&self) -> Vec<AbsPath> {
        let credentials = self.credentials.0.iter().map(ServiceCredential::path);
        [&self.service.drop_in, &self.service.file].into_iter().chain(credentials).cloned().collect()
    }

    fn owned_things(&self) -> Vec<(&'static str, String)> {
        // The owned path of the kind `credential` is the same.
        self.credentials.0.iter().map(|credential| ("credentials", credential.path().to_string())).collect()
    }

    fn secrets(&self) -> Vec<&AbsPath> {
        self.credentials.0.iter().map(ServiceCredential::path).collect()
    }

    fn place_of_secrets(&self) -> Option<(&'static str, &'static str)> {
        let why = "each program that the service starts would inherit";
        Some((why, "name its source in `credentials`, as in credentials = { db_password = \"ssm:///PATH\" }"))
    }

    fn services_after(&self) -> Vec<&str> {
        if self.is_empty() { vec![] } else { vec![&self.service.name] }
    }

    fn given_to_service(&self) -> Option<(&str, Vec<AbsPath>)> {
        Some((&self.service.name, self.made_paths()))
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = self.credentials.1.clone();
        for (at, (name, value)) in self.variables.0.iter().enumerate() {
            let shown = name.escape_debug();
            if !is_variable_name(name) {
                let message = format!("`{shown}` is not the name of an environment variable");
                findings.push(Finding::new("variables", message).hint("use letters, digits and `_`"));
            } else if self.variables.0[..at].iter().any(|(other, _)| other == name) {
                findings.push(Finding::new("variables", format!("`{shown}` is declared twice")));
            }
            if !is_possible(value) {
                let message = format!("the value of `{shown}` has a control character, and systemd would drop it");
                findings.push(Finding::new("variables", message).hint("only a tab and a newline are possible"));
            }
            if SecretSource::is_one(value) {
                let message = format!("the value of `{shown}` is the source of a secret, which would not be read");
                let hint = format!("name it in `credentials`: credentials = {{ {} = \"URL\" }}", name.to_lowercase());
                findings.push(Finding::new("variables", message).hint(hint));
            }
        }
        findings
    }

    fn doubts(&self) -> Vec<Finding> {
        let secret = self.variables.0.iter().find(|(name, value)| is_sensitive(name) && !value.is_empty());
        let doubt = |(name, _): &(String, String)| {
            let message = format!("`{name}` has the name of a secret, but each program of the service inherits it");
            let hint = format!(
                "if it is one, keep it in a store: credentials = {{ {} = \"ssm:///PATH\" }}",
                name.to_lowercase()
            );
            Finding::new("variables", message).hint(hint)
        };
        secret.map(doubt).into_iter().collect()
    }

    fn why_not_here(&self, system: &System) -> Option<&'static str> {
        let exists = |path: &AbsPath| !matches!(system.root().status(path), Ok(None));
        let is_used = !self.is_empty() || exists(&self.service.drop_in) || exists(&self.service.file);
        (!is_used).then_some("it has no variables and no credentials")
    }

    fn version_to_come(&self, system: &System) -> Result<Option<String>> {
        let mut version = format!("{}\n{}", self.file_text(), self.drop_in_text());
        for credential in &self.credentials.0 {
            let Some(of_credential) = credential.version_to_come(system)? else { return Ok(None) };
            version.push_str(&of_credential);
        }
        Ok(Some(Sha256::of(version.as_bytes()).to_string()))
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let mut changes = self.plan_credentials(system)?;
        let file = UnitFile::private(format!("{}{FILE}", self.service.name), self.file_text());
        let drop_in = UnitFile::drop_in(&self.service.name, DROP_IN, self.drop_in_text());
        // systemd starts no service whose file of variables is missing.
        if !self.variables.0.is_empty() {
            changes.extend(file.plan(system)?);
        }
        if !self.is_empty() {
            changes.extend(drop_in.plan(system)?);
        }
        let unneeded = [
            self.is_empty().then(|| self.service.drop_in.clone()),
            self.variables.0.is_empty().then(|| self.service.file.clone()),
        ];
        changes.extend(removals(unneeded.into_iter().flatten(), system)?);
        Ok(changes)
    }
}

impl ServiceEnvironment {
    fn is_empty(&self) -> bool {
        self.variables.0.is_empty() && self.credentials.0.is_empty()
    }

    /// Returns the changes of the credentials. An image gets none.
    fn plan_credentials(&self, system: &System) -> Result<Vec<Change>> {
        let mut changes = vec![];
        if self.credentials.0.is_empty() {
            return Ok(changes);
        }
        if system.phase() == Phase::Bake {
            let names: Vec<_> = self.credentials.0.iter().map(|credential| credential.path().leaf()).collect();
            let summary = format!("read {} (deferred: a secret does not go into an image)", names.join(", "));
            let paths = self.credentials.0.iter().map(|credential| Fact::AtBoot(credential.path().clone()));
            return Ok(vec![Change::deferred(summary).brings(paths)]);
        }
        let is_mounted = system.host.has_credential_memory()?;
        changes.extend(mount(is_mounted));
        for credential in &self.credentials.0 {
            let name = credential.path().leaf();
            let of_this = credential.plan_file(system, is_mounted)?.into_iter();
            changes.extend(of_this.map(|change| Change { summary: format!("{name}: {}", change.summary), ..change }));
        }
        Ok(changes)
    }

    /// Returns the file of the variables.
    fn file_text(&self) -> String {
        let lines = self.variables.0.iter().map(|(name, value)| line(name, value));
        format!("# Written by glovo-bootstrap.\n{}", lines.collect::<String>())
    }

    /// Returns the drop-in of the unit.
    fn drop_in_text(&self) -> String {
        let paths = || self.credentials.0.iter().map(ServiceCredential::path);
        let mut text = "# Written by glovo-bootstrap.\n".to_owned();
        if paths().next().is_some() {
            // After a reboot they are gone until a run has read them again.
            text.push_str("[Unit]\n");
            text.extend(paths().map(|path| format!("ConditionPathExists={path}\n")));
            text.push('\n');
        }
        text.push_str("[Service]\n");
        if !self.variables.0.is_empty() {
            text.push_str(&format!("EnvironmentFile={}\n", self.service.file));
        }
        text.extend(paths().map(|path| format!("LoadCredential={}:{path}\n", path.leaf())));
        text
    }
}
