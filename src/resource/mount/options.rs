//! The checks of the options that a mount declares.

use crate::resource::{Finding, device::is_of_syntax};

/// Returns the faults of declared options in a unit file.
pub(super) fn of_unit(options: &str) -> Vec<Finding> {
    let mut findings = vec![];
    if options.contains(is_of_syntax) {
        let message = "options are written to a unit file: they must not have a space, a quote, `\\` or `%`";
        findings.push(Finding::new("options", message));
    }
    for option in options.split(',') {
        let name = option.split('=').next().unwrap_or_default();
        let (message, hint) = match name {
            "" if !options.is_empty() => ("an option is empty".to_owned(), "write names with a comma between two"),
            name if name.starts_with("x-systemd.") => {
                (format!("`{name}` works only in /etc/fstab"), "use `wait` and `required_by`")
            }
            "noauto" | "user" | "users" | "owner" | "group" | "remount" => {
                (format!("`{name}` has no meaning here"), "leave it out: root mounts it now and at boot")
            }
            "bind" | "rbind" => (format!("`{name}` is a type here"), "set type = \"bind\""),
            _ => continue,
        };
        findings.push(Finding::new("options", message).hint(hint));
    }
    findings
}
