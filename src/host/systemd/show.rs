//! The states of units: from systemd over the system bus, without a process, else by `systemctl show`.
//!
//! Both ask systemd for the same properties of the same objects. `tests/machine/tests/unit_states.rs` compares them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use time::OffsetDateTime;

use super::Unit;
use crate::host::{
    Host,
    bus::{
        Bus, SOCKET,
        message::{BusCall, BusValue},
    },
    command::Program,
};

/// The properties of each unit, org.freedesktop.systemd1(5).
const OF_UNIT: [&str; 13] = [
    "LoadState",
    "LoadError",
    "ActiveState",
    "ActiveEnterTimestampMonotonic",
    "SubState",
    "InactiveExitTimestamp",
    "InactiveExitTimestampMonotonic",
    "UnitFileState",
    "NeedDaemonReload",
    "InvocationID",
    "Job",
    "ConditionTimestampMonotonic",
    "CanReload",
];
/// The properties that only some types of units have.
const OF_TYPE: [&str; 3] = ["Result", "NRestarts", "ReloadResult"];
/// The types with properties of [`OF_TYPE`]: the ending of the name, the interface, and how many of the properties.
const TYPES: [(&str, &str, usize); 7] = [
    ("service", "org.freedesktop.systemd1.Service", 3),
    ("socket", "org.freedesktop.systemd1.Socket", 1),
    ("timer", "org.freedesktop.systemd1.Timer", 1),
    ("path", "org.freedesktop.systemd1.Path", 1),
    ("mount", "org.freedesktop.systemd1.Mount", 1),
    ("automount", "org.freedesktop.systemd1.Automount", 1),
    ("swap", "org.freedesktop.systemd1.Swap", 1),
];

/// The connection to the system bus. After one failure, a run asks `systemctl`.
#[derive(Debug, Default)]
pub(super) enum SystemBus {
    #[default]
    Untried,
    /// The calls for the states of these units were sent at this time.
    Asked(Bus, BTreeSet<String>, Instant),
    Open(Bus),
    Unusable,
}

impl SystemBus {
    /// Gives up the answers that a change made old.
    pub(super) fn forget_answers(&mut self) {
        if matches!(self, Self::Asked(..)) {
            *self = Self::Untried;
        }
    }
}

/// How old the states may be that systemd was asked for in advance.
const MAX_AGE: Duration = Duration::from_secs(1);

impl Host {
    /// Asks systemd for the states of the watched units and does not wait: [`Host::unit`] reads the answers.
    pub fn ask_for_units(&self) {
        let names = self.units.borrow().watched.clone();
        if names.is_empty() || !matches!(self.units.borrow().bus, SystemBus::Untried) {
            return;
        }
        let asked = self.open_bus().and_then(|mut bus| bus.send(&calls_for(&names), &self.stop).map(|()| bus));
        match asked {
            Ok(bus) => self.units.borrow_mut().bus = SystemBus::Asked(bus, names, self.stop.now()),
            // The question itself tries again, and tells the reason.
            Err(error) => tracing::debug!("not asking systemd in advance: {error:#}"),
        }
    }

    fn open_bus(&self) -> Result<Bus> {
        Bus::open(&self.root().path().join(SOCKET.trim_start_matches('/')))
    }

    /// Asks systemd for the states of units.
    pub(super) fn show(&self, names: &BTreeSet<String>) -> Result<BTreeMap<String, Unit>> {
        let (way, units) = match self.show_by_bus(names) {
            Ok(units) => ("the bus", units),
            Err(error) => {
                tracing::debug!("asking systemd by systemctl, not by the bus: {error:#}");
                ("systemctl", self.show_by_systemctl(names)?)
            }
        };
        for (name, unit) in &units {
            let state: Vec<String> = unit.properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
            tracing::debug!("systemd says by {way} of {name}: {}", state.join("; "));
        }
        Ok(units)
    }

    fn show_by_systemctl(&self, names: &BTreeSet<String>) -> Result<BTreeMap<String, Unit>> {
        let properties = [OF_UNIT.as_slice(), &OF_TYPE].concat().join(",");
        let command = Program::new(["systemctl", "show", "--no-pager", "--property", &properties, "--"]).args(names);
        let command = command.env("TZ", "UTC");
        let shown = self.run_checked(&command).context("asking systemd for the state of units")?;
        // The output has one block for each name, in the order of the arguments, separated by empty lines.
        let blocks = shown.stdout.trim_end().split("\n\n").map(parse);
        Ok(names.iter().cloned().zip(blocks).collect())
    }

    fn show_by_bus(&self, names: &BTreeSet<String>) -> Result<BTreeMap<String, Unit>> {
        self.stop.check()?;
        let bus = std::mem::replace(&mut self.units.borrow_mut().bus, SystemBus::Unusable);
        let is_recent = |asked: Instant| self.stop.now().saturating_duration_since(asked) < MAX_AGE;
        let (mut bus, is_asked) = match bus {
            SystemBus::Open(bus) => (bus, false),
            SystemBus::Asked(bus, asked, at) if asked == *names && is_recent(at) => (bus, true),
            other @ (SystemBus::Asked(..) | SystemBus::Untried) => {
                drop(other);
                (self.open_bus()?, false)
            }
            SystemBus::Unusable => bail!("it has failed before"),
        };
        let answers = if is_asked { bus.answers(&self.stop)? } else { bus.call(&calls_for(names), &self.stop)? };
        let mut answers = answers.into_iter();
        let units = names.iter().map(|name| Ok((name.clone(), unit(name, &mut answers)?)));
        let units = units.collect::<Result<_>>()?;
        self.units.borrow_mut().bus = SystemBus::Open(bus);
        Ok(units)
    }
}

fn parse(block: &str) -> Unit {
    let pairs = block.lines().filter_map(|line| line.split_once('='));
    Unit { properties: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
}

/// Returns the interface of a unit's type, and the properties that are asked of it.
fn of_type(name: &str) -> Option<(&'static str, &'static [&'static str])> {
    let ending = name.rsplit_once('.')?.1;
    let (_, interface, count) = TYPES.into_iter().find(|(of, ..)| *of == ending)?;
    Some((interface, &OF_TYPE[..count]))
}

fn calls_for(names: &BTreeSet<String>) -> Vec<BusCall> {
    names.iter().flat_map(|name| calls(name)).collect()
}

/// Returns the calls for one unit: one for what all units have, one for each property of its type.
///
/// One call for everything, as systemctl makes it, lets systemd read the unit's control groups as well.
fn calls(name: &str) -> Vec<BusCall> {
    let call = |member, arguments| BusCall {
        destination: "org.freedesktop.systemd1",
        path: object_path(name),
        interface: "org.freedesktop.DBus.Properties",
        member,
        arguments,
    };
    let all = call("GetAll", vec!["org.freedesktop.systemd1.Unit"]);
    let more = of_type(name).into_iter().flat_map(|(interface, properties)| {
        properties.iter().map(move |property| call("Get", vec![interface, property]))
    });
    std::iter::once(all).chain(more).collect()
}

/// Returns a unit's state from the answers to its [`calls`].
fn unit(name: &str, answers: &mut impl Iterator<Item = Vec<BusValue>>) -> Result<Unit> {
    let mut unit = Unit::default();
    let mut next = || answers.next().and_then(|mut values| values.pop()).with_context(|| format!("{name}: no answer"));
    let BusValue::List(pairs) = next()? else { bail!("{name}: no list of properties") };
    for pair in pairs {
        let BusValue::List(pair) = pair else { bail!("{name}: a property without a value") };
        if let Ok([BusValue::Text(property), value]) = <[BusValue; 2]>::try_from(pair)
            && OF_UNIT.contains(&property.as_str())
        {
            let value = text(&property, &value)?;
            _ = unit.properties.insert(property, value);
        }
    }
    let missing = OF_UNIT.iter().find(|property| !unit.properties.contains_key(**property));
    ensure!(missing.is_none(), "{name}: systemd does not tell {}", missing.unwrap_or(&""));
    for property in of_type(name).map_or(&[] as &[_], |(_, properties)| properties) {
        let value = text(property, &next()?)?;
        _ = unit.properties.insert((*property).to_owned(), value);
    }
    Ok(unit)
}

/// Returns a property's value as `systemctl show` prints it (`bus_print_property` in src/shared/bus-print-properties.c,
/// `print_property` in src/systemctl/systemctl-show.c).
fn text(property: &str, value: &BusValue) -> Result<String> {
    Ok(match (property, value) {
        (_, BusValue::Text(text)) => text.clone(),
        (_, BusValue::Flag(flag)) => if *flag { "yes" } else { "no" }.to_owned(),
        ("InactiveExitTimestamp", BusValue::Number(0)) => String::new(),
        ("InactiveExitTimestamp", BusValue::Number(microseconds)) => date(*microseconds)?,
        (_, BusValue::Number(number)) => number.to_string(),
        ("InvocationID", BusValue::List(bytes)) => bytes.iter().map(hexadecimal).collect::<Result<_>>()?,
        // The number and the object path of the job.
        ("Job", BusValue::List(job)) => match job.first() {
            Some(BusValue::Number(0)) => String::new(),
            Some(BusValue::Number(job)) => job.to_string(),
            _ => bail!("a job without a number"),
        },
        ("LoadError", BusValue::List(error)) => match error.as_slice() {
            [BusValue::Text(name), BusValue::Text(message)] if name.is_empty() && message.is_empty() => String::new(),
            [BusValue::Text(name), BusValue::Text(message)] => format!("{name} \"{message}\""),
            _ => bail!("an error without a message"),
        },
        (_, BusValue::List(_)) => bail!("a list as {property}"),
    })
}

fn hexadecimal(byte: &BusValue) -> Result<String> {
    match byte {
        BusValue::Number(byte) => Ok(format!("{byte:02x}")),
        _ => bail!("an id that is not of bytes"),
    }
}

/// Returns a time as systemd writes it in UTC: `Sun 2026-11-29 05:18:34 UTC`.
fn date(microseconds: u64) -> Result<String> {
    let time = OffsetDateTime::from_unix_timestamp(i64::try_from(microseconds / 1_000_000)?)?;
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second) = time.to_hms();
    let weekday = time.weekday().to_string();
    Ok(format!("{weekday:.3} {year:04}-{:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC", u8::from(month)))
}

/// Returns the path of a unit's object: its name, with all but letters and digits as `_` and two hexadecimal digits
/// (`bus_label_escape` in systemd's src/libsystemd/sd-bus/bus-label.c, whose first digit is escaped, too).
fn object_path(name: &str) -> String {
    let escape = |(index, byte): (usize, u8)| match byte {
        b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
        b'0'..=b'9' if index > 0 => char::from(byte).to_string(),
        _ => format!("_{byte:02x}"),
    };
    format!("/org/freedesktop/systemd1/unit/{}", name.bytes().enumerate().map(escape).collect::<String>())
}

#[cfg(test)]
mod tests;
