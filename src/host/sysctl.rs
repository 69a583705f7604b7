//! Kernel parameters, `/proc/sys`, `proc_sys(5)`.

use std::{fmt, io::Write};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags},
    unistd::AccessFlags,
};

use super::{Host, calls};
use crate::error::Fault;

const DIRECTORY: &str = "/proc/sys";

/// The name of a kernel parameter, such as `net.core.somaxconn`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its path below `/proc/sys`.
    path: String,
}

impl Parameter {
    /// Parses a name as sysctl.d(5) has it; `None` if it is no name.
    ///
    /// If the first separator is `.`, then a `/` stands for a dot in a component: `net.ipv4.conf.eth0/100.rp_filter`. If
    /// it is `/`, the name is a path.
    pub fn new(name: &str) -> Option<Self> {
        let swapped = |c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        };
        let is_dotted = name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('.'));
        let path: String = if is_dotted { name.chars().map(swapped).collect() } else { name.into() };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:@/".contains(c);
        let is_component = |part: &str| !matches!(part, "" | "." | "..");
        let begins = path.starts_with(|c: char| c.is_ascii_alphanumeric());
        (begins && path.contains('/') && path.chars().all(is_plain) && path.split('/').all(is_component))
            .then_some(Self { path })
    }

    /// Returns the path of its directory.
    pub fn directory(&self) -> String {
        let parent = self.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        format!("{DIRECTORY}/{parent}")
    }

    fn file(&self) -> String {
        format!("{DIRECTORY}/{}", self.path)
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With dots, unless a component has one.
        if self.path.contains('.') { f.write_str(&self.path) } else { f.write_str(&self.path.replace('/', ".")) }
    }
}

impl Host {
    /// Returns the value that the kernel has, with single spaces between its parts; `None` if it has no such parameter.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn parameter(&self, parameter: &Parameter) -> Result<Option<String>> {
        match std::fs::read_to_string(parameter.file()) {
            Ok(text) => Ok(Some(text.split_whitespace().collect::<Vec<_>>().join(" "))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading the kernel parameter {parameter}")),
        }
    }

    /// Fails if this process cannot set a parameter: in a container, `/proc/sys` is read-only.
    pub fn check_parameter_is_writable(&self, parameter: &Parameter) -> Result<()> {
        match calls::faccessat(AT_FDCWD, parameter.file().as_str(), AccessFlags::W_OK, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(errno) => Err(not_set(parameter, errno).into()),
        }
    }

    /// Gives a value to the kernel.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn set_parameter(&self, parameter: &Parameter, value: &str) -> Result<()> {
        let opened = std::fs::OpenOptions::new().write(true).open(parameter.file());
        let written = opened.and_then(|mut file| file.write_all(format!("{value}\n").as_bytes()));
        written.map_err(|error| {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
            not_set(parameter, errno).into()
        })
    }
}

fn not_set(parameter: &Parameter, errno: Errno) -> Fault {
    let fault = Fault::new(format!("the kernel parameter {parameter} cannot be set"));
    let hint = match errno {
        Errno::EROFS => "set it on the host: in a container, /proc/sys is read-only",
        Errno::EACCES | Errno::EPERM => {
            "run as root; some parameters can only be read, or only be changed in one direction"
        }
        Errno::EINVAL | Errno::ERANGE => "declare a value that the kernel accepts: its documentation has the range",
        _ => return fault.caused_by(errno),
    };
    fault.caused_by(errno).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_dots_or_slashes() {
        for (name, path, shown) in [
            ("net.core.somaxconn", "net/core/somaxconn", "net.core.somaxconn"),
            ("net/core/somaxconn", "net/core/somaxconn", "net.core.somaxconn"),
            (
                "net.ipv4.conf.eth0/100.rp_filter",
                "net/ipv4/conf/eth0.100/rp_filter",
                "net/ipv4/conf/eth0.100/rp_filter",
            ),
            (
                "net/ipv4/conf/eth0.100/rp_filter",
                "net/ipv4/conf/eth0.100/rp_filter",
                "net/ipv4/conf/eth0.100/rp_filter",
            ),
        ] {
            let parameter = Parameter::new(name).unwrap();
            assert_eq!((&*parameter.path, &*parameter.to_string()), (path, shown));
        }
        for wrong in
            ["", "vm", "..", "vm..x", "vm//x", "/vm/x", "vm/../../x", "../vm/x", "net.*.x", "a b.c", "-vm.x", "vm.x\n"]
        {
            assert!(Parameter::new(wrong).is_none(), "{wrong:?}");
        }
    }
}
