//! The names of downloaded files.

use anyhow::{Context, Result, ensure};

use crate::{host::root::check_name, value::printable};

/// Returns the path of an object below the directory that stands for its prefix.
///
/// # Errors
/// If a part of it is no file name, or would lead out of the directory.
pub fn relative_path(key: &str, prefix: &str) -> Result<String> {
    let path = key.strip_prefix(prefix).with_context(|| format!("it does not begin with {prefix}"))?;
    path.split('/').try_for_each(check_component)?;
    Ok(path.to_owned())
}

/// Refuses a name that leads to another directory or has characters that hide a part of it.
pub fn check_component(name: &str) -> Result<()> {
    ensure!(!name.is_empty(), "its path has an empty part");
    ensure!(!matches!(name, "." | ".."), "`{name}` is no file name");
    ensure!(!name.contains('/'), "the file name at its end holds an encoded slash");
    ensure!(name.len() < 256, "the file name at its end has more than 255 bytes");
    printable(name).context("the file name at its end")?;
    check_name(name)
}
