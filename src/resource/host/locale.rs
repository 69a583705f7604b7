//! The locale, locale.conf(5).

use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::write_text;
use crate::{
    error::Fault,
    host::{command::Program, edited::EditedText},
    resource::Change,
    system::{Fact, Mode, System},
    value::AbsPath,
};

/// The directory of the compiled locales.
const LOCALES: &str = "/usr/lib/locale";
/// The file with most of the compiled locales.
const ARCHIVE: &str = "/usr/lib/locale/locale-archive";
/// The first four bytes of the archive, `locale/locarchive.h` of glibc.
const ARCHIVE_MAGIC: u32 = 0xde02_0109;
/// Limits the names in the archive. All locales of glibc have 20 KiB.
const MAX_NAMES_BYTES: u32 = 4 << 20;
/// The locales to compile, locale.gen(5).
const WANTED: &str = "/etc/locale.gen";
/// The locales that can be compiled, each with its character set.
const SUPPORTED: &str = "/usr/share/i18n/SUPPORTED";
/// The program that compiles them.
const COMPILER: &str = "locale-gen";

/// The name of a locale.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Locale(String);

impl TryFrom<String> for Locale {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.@-".contains(c);
        ensure!(
            name.len() < 64 && name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(is_plain),
            "`{}` is not the name of a locale, such as `en_US.UTF-8` or `C.UTF-8`",
            name.escape_debug()
        );
        Ok(Self(name))
    }
}

impl Locale {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn plan(&self, system: &System) -> Result<Vec<Change>> {
        let mut changes = vec![];
        if !self.exists(system)? {
            changes.extend(self.plan_compile(system)?);
        }
        changes.extend(self.plan_file(system)?);
        Ok(changes)
    }

    /// Returns whether the machine has the locale, compiled or built into its C library.
    fn exists(&self, system: &System) -> Result<bool> {
        let root = system.root();
        let names = [self.0.clone(), normalized(&self.0)];
        if ["C", "POSIX"].contains(&&*self.0) {
            return Ok(true);
        }
        for name in &names {
            if root.status(&AbsPath::from(LOCALES).join(name)?)?.is_some() {
                return Ok(true);
            }
        }
        let known = names_in_archive(system).with_context(|| format!("reading {ARCHIVE}"))?;
        Ok(names.iter().any(|name| known.contains(name)))
    }

    fn plan_compile(&self, system: &System) -> Result<Vec<Change>> {
        let name = &self.0;
        let text = system.root().read_text(&SUPPORTED.into())?;
        let supported = text.lines().filter_map(|line| line.split_once(' ')).find(|(known, _)| known == name);
        let summary = format!("make the locale {name}");
        let Some((_, charset)) = supported else {
            if system.mode() == Mode::Plan && text.is_empty() && system.expects(&Fact::Packages) {
                let summary = format!("{summary}, once an earlier resource brings its sources");
                return Ok(vec![Change::new(summary, |_| Ok(()))]);
            }
            let fault = Fault::new(format!("this machine does not have the locale {name}"));
            return Err(match text.as_str() {
                "" => {
                    let language = name.split(['_', '.', '@']).next().unwrap_or(name);
                    let packages = format!("`locales` or `glibc-langpack-{language}`");
                    fault.hint(format!("declare the package that brings it in an earlier step, such as {packages}"))
                }
                _ => fault.hint(format!("choose one that it can make: cat {SUPPORTED}")),
            }
            .into());
        };
        system.check_program(COMPILER, 0)?;
        let mut changes: Vec<Change> =
            plan_wanted(system, &format!("{name} {}", charset.trim()))?.into_iter().collect();
        changes.push(Change::new(summary, |system| {
            system.host.run_checked(&Program::new([COMPILER]).reporting()).map(drop)
        }));
        Ok(changes)
    }

    /// Returns the change of the file that has `LANG`.
    fn plan_file(&self, system: &System) -> Result<Option<Change>> {
        let (name, path) = (&self.0, file(system)?);
        let text = EditedText::read(system.root(), &system.root().resolve_trusted(&path)?)?;
        let values: BTreeMap<&str, &str> = text.as_str().lines().filter_map(assignment).collect();
        if let Some(all) = values.get("LC_ALL").filter(|all| *all != name) {
            system.warn(format!("LC_ALL={all} in {path} overrides the locale {name}"));
        }
        let now = values.get("LANG").copied();
        if now == Some(name) {
            return Ok(None);
        }
        let others = text.as_str().lines().filter(|line| assignment(line).is_none_or(|(known, _)| known != "LANG"));
        let others: String = others.map(|line| format!("{line}\n")).collect();
        let summary = format!("set LANG={name} in {path} (now {})", now.unwrap_or("not set"));
        let mut change = write_text(system, &path, summary, text.encode(&format!("{others}LANG={name}\n")))?;
        if system.is_live() {
            // At boot, systemd reads the file. Until then, services that start get it from here.
            let set = Program::new(["systemctl", "set-environment"]).arg(format!("LANG={name}"));
            let write = change.action.take();
            change.action = Some(Box::new(move |system| {
                _ = system.host.run_checked(&set)?;
                write.map_or(Ok(()), |write| write(system))
            }));
        }
        Ok(Some(change))
    }
}

/// Returns the change of the list of locales to compile. A line that is commented out becomes valid.
fn plan_wanted(system: &System, wanted: &str) -> Result<Option<Change>> {
    let path = AbsPath::from(WANTED);
    let text = EditedText::read(system.root(), &system.root().resolve_trusted(&path)?)?;
    let mut lines: Vec<&str> = text.as_str().lines().collect();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    if lines.iter().any(|line| words(line) == wanted) {
        return Ok(None);
    }
    match lines.iter_mut().find(|line| words(line.trim_start_matches(['#', ' '])) == wanted) {
        Some(line) => *line = wanted,
        None => lines.push(wanted),
    }
    write_text(system, &path, format!("add {wanted} to {WANTED}"), text.encode(&(lines.join("\n") + "\n"))).map(Some)
}

/// Returns the path of the file with `LANG`: the one that exists, or else the one that a login reads.
fn file(system: &System) -> Result<AbsPath> {
    let (of_logins, of_systemd) = (AbsPath::from("/etc/default/locale"), AbsPath::from("/etc/locale.conf"));
    for path in [&of_logins, &of_systemd] {
        if system.root().status(path)?.is_some() {
            return Ok(path.clone());
        }
    }
    let login = system.root().read_text(&"/etc/pam.d/login".into())?;
    Ok(if login.contains(of_logins.as_str()) { of_logins } else { of_systemd })
}

/// Returns the name and the value of a line, without quotes; `None` for a comment.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.trim().split_once('=')?;
    Some((name, value.trim().trim_matches(['"', '\''])))
}

/// Returns a name as glibc stores it, with `utf8` for `UTF-8`.
fn normalized(name: &str) -> String {
    let (name, modifier) = name.split_once('@').map_or((name, String::new()), |(name, it)| (name, format!("@{it}")));
    let Some((language, charset)) = name.split_once('.') else { return format!("{name}{modifier}") };
    let charset: String = charset.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    format!("{language}.{charset}{modifier}")
}

/// Returns the names in the archive of locales; none if it does not exist.
fn names_in_archive(system: &System) -> Result<Vec<String>> {
    let Some((mut file, _)) = system.root().open_file(&ARCHIVE.into())? else { return Ok(vec![]) };
    let mut head = [0; 28];
    file.read_exact(&mut head)?;
    let number = |index: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&head[index * 4..index * 4 + 4]);
        u32::from_ne_bytes(bytes)
    };
    let (offset, length) = (number(5), number(6));
    ensure!(number(0) == ARCHIVE_MAGIC && length <= MAX_NAMES_BYTES, "it is not an archive of locales");
    _ = file.seek(SeekFrom::Start(offset.into()))?;
    let mut names = vec![];
    _ = file.take(length.into()).read_to_end(&mut names)?;
    Ok(names.split(|byte| *byte == 0).map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_is_stored_under_its_normalized_name() {
        for (name, stored) in [
            ("en_US.UTF-8", "en_US.utf8"),
            ("de_DE.ISO-8859-15@euro", "de_DE.iso885915@euro"),
            ("de_DE@euro", "de_DE@euro"),
            ("C.UTF-8", "C.utf8"),
            ("POSIX", "POSIX"),
        ] {
            assert_eq!(normalized(name), stored);
        }
    }
}
