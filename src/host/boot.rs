//! The times of this boot: when the kernel, systemd and cloud-init began and ended.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{Host, command::Program, facts::boot_id};

/// A moment of a boot, by the kernel's clock that systemd uses too. Setting the time does not change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootTime {
    /// The boot's id, `proc_sys_kernel(5)`.
    pub id: String,
    /// `CLOCK_MONOTONIC`, `clock_gettime(2)`, in milliseconds.
    pub milliseconds: u64,
}

impl BootTime {
    /// Returns the present moment; `None` if the kernel says no id or no time.
    pub fn now() -> Option<Self> {
        let clock = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?);
        let id = boot_id();
        (!id.is_empty()).then(|| Self { id, milliseconds: u64::try_from(clock.as_millis()).unwrap_or(u64::MAX) })
    }
}

/// A part of the boot, in milliseconds of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootPart {
    /// What ran.
    pub name: &'static str,
    /// When it began.
    pub began: u64,
    /// When it ended; `None` if it goes on.
    pub ended: Option<u64>,
}

/// The manager's times, org.freedesktop.systemd1(5), in the order of a boot.
const MANAGER_TIMES: &str = "KernelTimestamp,KernelTimestampMonotonic,InitRDTimestampMonotonic,\
    UserspaceTimestampMonotonic,FinishTimestampMonotonic";
/// A unit's times: of its last start, until it was active or had failed.
const UNIT_TIMES: &str =
    "Id,InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic,InactiveEnterTimestampMonotonic";
/// The units that a boot waits for, and what they are. cloud-init 24.3 has renamed its second stage.
const UNITS: [(&str, &str); 11] = [
    ("cloud-init-local.service", "cloud-init, before the network"),
    ("systemd-networkd-wait-online.service", "the network comes up"),
    ("NetworkManager-wait-online.service", "the network comes up"),
    ("cloud-init.service", "cloud-init, with the network"),
    ("cloud-init-network.service", "cloud-init, with the network"),
    ("cloud-config.service", "cloud-init, configuration"),
    ("cloud-final.service", "cloud-init, user-data"),
    ("glovo-bootstrap-set-up.service", "first boot, set-up"),
    ("glovo-bootstrap-host-keys.service", "first boot, host keys"),
    ("glovo-bootstrap-growth.service", "first boot, growth"),
    ("glovo-bootstrap-user-data.service", "first boot, user-data"),
];

impl Host {
    /// Returns the parts of this boot, in the order in which they began. The first one begins at power-on, or where a
    /// container's systemd began.
    pub fn boot_parts(&self) -> Result<Vec<BootPart>> {
        let show = |properties: &str, units: &[&str]| -> Result<String> {
            let program = Program::new(["systemctl", "show", "--no-pager", "--property", properties, "--"]);
            let program = program.args(units.iter().copied());
            Ok(self.run_checked(&program).context("asking systemd for the times of the boot")?.stdout)
        };
        let units: Vec<&str> = UNITS.iter().map(|(unit, _)| *unit).collect();
        Ok(parts(&show(MANAGER_TIMES, &[])?, &show(UNIT_TIMES, &units)?))
    }
}

fn parts(manager: &str, units: &str) -> Vec<BootPart> {
    let mut parts = manager_parts(manager);
    for block in units.split("\n\n") {
        let unit = property(block, "Id").unwrap_or_default();
        let Some((_, name)) = UNITS.iter().find(|(known, _)| *known == unit) else { continue };
        let Some(began) = time(block, "InactiveExitTimestampMonotonic") else { continue };
        // A oneshot that does not remain active, or has failed, is inactive at its end.
        let ends = ["ActiveEnterTimestampMonotonic", "InactiveEnterTimestampMonotonic"];
        let ended = ends.iter().filter_map(|name| time(block, name)).filter(|end| *end >= began).min();
        parts.push(BootPart { name, began, ended });
    }
    parts.sort_by_key(|part| part.began);
    parts
}

/// A container has no kernel of its own: `KernelTimestamp`, by the clock, is empty.
fn manager_parts(manager: &str) -> Vec<BootPart> {
    let userspace = time(manager, "UserspaceTimestampMonotonic");
    let mut begins: Vec<(&'static str, u64)> = vec![];
    if property(manager, "KernelTimestamp").is_some() {
        begins.push(("kernel", 0));
        begins.extend(time(manager, "InitRDTimestampMonotonic").map(|began| ("initrd", began)));
    }
    begins.extend(userspace.map(|began| ("systemd and its units", began)));
    let finish = time(manager, "FinishTimestampMonotonic").filter(|end| Some(*end) >= userspace);
    let ends: Vec<Option<u64>> = begins.iter().skip(1).map(|(_, began)| Some(*began)).chain([finish]).collect();
    begins.into_iter().zip(ends).map(|((name, began), ended)| BootPart { name, began, ended }).collect()
}

fn property<'a>(block: &'a str, name: &str) -> Option<&'a str> {
    let value = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    (!value.is_empty()).then_some(value)
}

/// Returns a time in milliseconds; `None` if it has not come. systemd gives microseconds.
fn time(block: &str, name: &str) -> Option<u64> {
    let microseconds: u64 = property(block, name)?.parse().ok()?;
    (microseconds > 0).then_some(microseconds / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &'static str, began: u64, ended: Option<u64>) -> BootPart {
        BootPart { name, began, ended }
    }

    #[test]
    fn a_boot_has_its_parts_in_order() {
        let manager = "KernelTimestamp=Sun 2026-11-29 05:00:00 UTC\nKernelTimestampMonotonic=0\n\
                       InitRDTimestampMonotonic=1500000\nUserspaceTimestampMonotonic=4200000\nFinishTimestampMonotonic=0\n";
        let units = "Id=cloud-final.service\nInactiveExitTimestampMonotonic=9000000\nActiveEnterTimestampMonotonic=0\n\
                     InactiveEnterTimestampMonotonic=0\n\n\
                     Id=cloud-init-local.service\nInactiveExitTimestampMonotonic=5000000\n\
                     ActiveEnterTimestampMonotonic=5800000\nInactiveEnterTimestampMonotonic=0\n\n\
                     Id=cloud-config.service\nInactiveExitTimestampMonotonic=7000000\nActiveEnterTimestampMonotonic=0\n\
                     InactiveEnterTimestampMonotonic=7400000\n\n\
                     Id=cloud-init.service\nInactiveExitTimestampMonotonic=0\nActiveEnterTimestampMonotonic=0\n\
                     InactiveEnterTimestampMonotonic=0\n";
        assert_eq!(
            parts(manager, units),
            [
                part("kernel", 0, Some(1500)),
                part("initrd", 1500, Some(4200)),
                part("systemd and its units", 4200, None),
                part("cloud-init, before the network", 5000, Some(5800)),
                part("cloud-init, configuration", 7000, Some(7400)),
                part("cloud-init, user-data", 9000, None),
            ]
        );
    }

    #[test]
    fn a_containers_boot_begins_with_its_systemd() {
        let manager = "KernelTimestamp=\nKernelTimestampMonotonic=0\nInitRDTimestampMonotonic=0\n\
                       UserspaceTimestampMonotonic=77000000\nFinishTimestampMonotonic=79500000\n";
        assert_eq!(parts(manager, ""), [part("systemd and its units", 77_000, Some(79_500))]);
        assert_eq!(parts("", ""), []);
        assert_eq!(parts("UserspaceTimestampMonotonic=many", "Id=cloud-final.service"), []);
    }
}
