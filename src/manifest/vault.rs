//! The settings of Vault in a manifest: the file `vault.toml`, or the table `[vault]` of a file with several steps.

use serde::Deserialize;

use super::texts::Texts;
use crate::{
    diagnostic::{Diagnostic, Faults, Place, Text},
    vault::settings::VaultSettings,
};

/// The unit that runs the recorded manifest every hour.
pub const CONVERGE_TIMER: &str = "glovo-bootstrap-converge.timer";

/// A file with several steps, of which only the table `[vault]` is read.
#[derive(Deserialize)]
struct WithVault {
    vault: Option<VaultSettings>,
}

/// Returns the settings of Vault that a manifest has, if it has any. `is_repeated` tells whether the machine's timer runs the
/// manifest again and again.
///
/// # Errors
/// The faults of the settings.
pub fn settings(texts: &Texts, is_repeated: impl Fn() -> bool) -> Result<Option<VaultSettings>, Faults> {
    let mut faults = Faults::default();
    let mut settings: Option<VaultSettings> = None;
    let file = texts.vault.iter().map(|text| (text, toml::from_str(&text.text).map(Some)));
    // Most manifests have no such table, and reading a text takes time.
    let tables = texts.steps.iter().filter(|text| text.text.contains("vault"));
    let tables = tables.map(|text| (text, toml::from_str(&text.text).map(|read: WithVault| read.vault)));
    for (text, read) in file.chain(tables) {
        match read {
            Ok(None) => {}
            Ok(Some(found)) => {
                if settings.is_some() {
                    faults.add(|| fault(text, None, "a second text has settings of Vault".into()));
                }
                if let Err(error) = found.check() {
                    faults.add(|| fault(text, None, format!("{error:#}")));
                }
                if found.serves_one_login_only() && is_repeated() {
                    faults.add(|| used_up(text));
                }
                settings = Some(found);
            }
            // The reader of steps reports a text that is no TOML.
            Err(_) if text.text.parse::<toml::Table>().is_err() && Some(text.name.as_str()) != file_name(texts) => {}
            Err(error) => faults.add(|| fault(text, Some(&error), error.message().into())),
        }
    }
    if faults.is_empty() { Ok(settings) } else { Err(faults) }
}

fn file_name(texts: &Texts) -> Option<&str> {
    texts.vault.as_ref().map(|text| text.name.as_str())
}

fn used_up(text: &Text) -> Diagnostic {
    let message = format!("a wrapped secret id serves the first run only, but {CONVERGE_TIMER} starts more runs");
    let hint = format!(
        "add a second login that works again and again, or disable the timer: systemctl disable --now {CONVERGE_TIMER} \
         (in deploy.toml: converge = false)"
    );
    Diagnostic { hint: Some(hint), ..fault(text, None, message) }
}

fn fault(text: &Text, error: Option<&toml::de::Error>, message: String) -> Diagnostic {
    let span = error.and_then(toml::de::Error::span);
    let find = |name: &str| text.text.find(name).map(|start| start..start + name.len());
    let table = || ["[vault]", "vault"].into_iter().find_map(find).unwrap_or_default();
    let place = Place::new(text, &span.unwrap_or_else(table));
    let hint = Some("see the guide: docs/guide/vault.md".into());
    Diagnostic { message, place: Some(place), hint }
}
