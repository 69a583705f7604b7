//! The steps built into the binary: `steps/` of this repository.

use super::texts::Texts;
use crate::diagnostic::Text;

macro_rules! built_in {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("../../steps/", $name)))),*] };
}

/// The files, by their names below `steps/`.
pub static FILES: &[(&str, &str)] = built_in![
    "10-install_dependencies.toml",
    "20-enable_swap.toml",
    "30-provision_app_directory.toml",
    "40-copy_http_resources.toml",
    "50-copy_s3_resources.toml",
    "60-create_glovo-app_user.toml",
    "70-start_servers.toml",
    "80-verify.toml",
    "variables.toml",
    "files/glovo-app.service",
    "files/nginx-default",
];

/// The built-in manifest.
pub fn texts() -> Texts {
    let text = |(name, text): &(&str, &str)| Text::new(format!("built-in:{name}"), *text);
    let is_step = |name: &str| name.ends_with(".toml") && name != "variables.toml";
    Texts {
        steps: FILES.iter().filter(|(name, _)| is_step(name)).map(text).collect(),
        variables: FILES.iter().find(|(name, _)| *name == "variables.toml").map(text),
        ignored: vec![],
    }
}
