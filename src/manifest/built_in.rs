//! The steps built into the binary: `steps/` of this repository, and those that `steps new` writes.

use super::texts::Texts;
use crate::diagnostic::Text;

macro_rules! files {
    ($directory:literal: $($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../", $directory, "/", $name)))),*]
    };
}

/// The files, by their names below `steps/`.
pub static FILES: &[(&str, &str)] = files![
    "steps":
    "10-install_dependencies.toml",
    "20-enable_swap.toml",
    "30-provision_app_directory.toml",
    "40-copy_http_resources.toml",
    "50-copy_s3_resources.toml",
    "60-create_glovo-app_user.toml",
    "62-application_environment.toml",
    "65-ship_logs.toml",
    "70-start_servers.toml",
    "80-verify.toml",
    "variables.toml",
    "files/glovo-app.service",
    "files/nginx-default",
];

/// The manifest that `steps new` writes, by its files' names.
pub static OWN_SERVICE: &[(&str, &str)] = files![
    "steps/new":
    "10-packages.toml",
    "20-files.toml",
    "30-service.toml",
    "40-check.toml",
    "variables.toml",
];

/// The built-in manifest.
pub fn texts() -> Texts {
    let text = |(name, text): &(&str, &str)| Text::new(format!("built-in:{name}"), *text);
    let is_step = |name: &str| name.ends_with(".toml") && name != "variables.toml";
    Texts {
        steps: FILES.iter().filter(|(name, _)| is_step(name)).map(text).collect(),
        variables: FILES.iter().find(|(name, _)| *name == "variables.toml").map(text),
        ..Texts::default()
    }
}
