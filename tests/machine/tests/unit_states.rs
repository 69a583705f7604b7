//! The states of units that the agent reads over the bus, beside what `systemctl show` prints: the same through every
//! transition. What takes long waits for a file, not for a time.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use machine::{Machine, Options};

const MANIFEST: &str = "/root/units.toml";

/// A command that ends when a file is there.
const HOLD: &str = "sh -c 'until [ -e /run/release ]; do sleep 0.1; done'";

/// Units of the test: names and the lines of their sections.
const FILES: &[(&str, &str)] = &[
    ("plain.service", "[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target"),
    ("killed.service", "[Service]\nExecStart=sleep infinity"),
    ("held-start.service", "[Service]\nTimeoutStartSec=infinity\nExecStartPre=HOLD\nExecStart=sleep infinity"),
    ("held-stop.service", "[Service]\nTimeoutStopSec=infinity\nExecStart=sleep infinity\nExecStop=HOLD"),
    ("held-reload.service", "[Service]\nTimeoutStartSec=infinity\nExecStart=sleep infinity\nExecReload=HOLD"),
    ("bad-reload.service", "[Service]\nExecStart=sleep infinity\nExecReload=false"),
    ("waits.service", "[Service]\nExecStart=false\nRestart=always\nRestartSec=1h"),
    ("direct.service", "[Service]\nExecStart=false\nRestart=always\nRestartMode=direct\nRestartSec=1h"),
    ("flaps.service", "[Service]\nExecStart=sleep infinity\nRestart=always\nRestartSec=1ms"),
    ("fails.service", "[Service]\nType=oneshot\nExecStart=false"),
    ("done.service", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true"),
    ("ended.service", "[Service]\nType=oneshot\nExecStart=true"),
    ("skipped.service", "[Unit]\nConditionPathExists=/nowhere\n[Service]\nExecStart=true"),
    ("sliced.service", "[Service]\nSlice=a-b.slice\nExecStart=sleep infinity"),
    ("each@.service", "[Service]\nExecStart=sleep infinity"),
    ("bad.service", "[Service]\nType=simple"),
    ("tick.timer", "[Timer]\nOnActiveSec=1h\nUnit=ended.service"),
    ("listens.socket", "[Socket]\nListenStream=/run/listens\n[Install]\nWantedBy=sockets.target"),
    ("listens.service", "[Service]\nExecStart=sleep infinity"),
    ("looks.path", "[Path]\nPathExists=/nowhere\nUnit=ended.service"),
];
/// Units to look at, beside those of [`FILES`].
const OTHERS: &[&str] = &[
    r"each@a\x2db-c_d:0.service",
    "0digit.service",
    "absent.service",
    "absent.mount",
    "absent.swap",
    "masked.service",
    "transient.service",
    "dbus.service",
    "multi-user.target",
    "mnt-ext4.mount",
    "systemd-tmpfiles-clean.timer",
];
const PROPERTIES: &str = "LoadState,LoadError,ActiveState,ActiveEnterTimestampMonotonic,SubState,InactiveExitTimestamp,\
    InactiveExitTimestampMonotonic,UnitFileState,NeedDaemonReload,NRestarts,InvocationID,Job,Result,\
    ConditionTimestampMonotonic,CanReload,ReloadResult";

type State = BTreeMap<String, String>;

fn names() -> impl Iterator<Item = &'static str> {
    let of_files = FILES.iter().map(|(name, _)| *name).filter(|name| *name != "each@.service");
    of_files.chain(OTHERS.iter().copied())
}

/// Waits until a property of a unit has this value.
fn reaches(machine: &Machine, unit: &str, property: &str, value: &str) -> Result<()> {
    let now = format!("$(systemctl show --value --property {property} {unit})");
    let wait = format!("until [ \"{now}\" = {value} ]; do sleep 0.1; done");
    let ended = machine.exec(&["timeout", "60", "sh", "-c", &wait])?.success();
    ended.map(drop).with_context(|| format!("{unit} does not reach {property}={value}"))
}

/// Returns the values that are not empty, from `NAME=VALUE` each.
fn state<'a>(pairs: impl Iterator<Item = &'a str>) -> State {
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    let known = pairs.filter(|(name, value)| !(value.is_empty() || *name == "Job" && *value == "0"));
    known.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Returns what the agent says that systemd says in this way, of each unit.
fn told(machine: &Machine, way: &str, shell: &str) -> Result<BTreeMap<String, State>> {
    let plan = format!("{shell} /usr/local/bin/glovo-bootstrap plan --verbose --steps {MANIFEST} 2>&1 || true");
    let said = machine.sh(&plan)?;
    let begin = format!("systemd says by {way} of ");
    let states = said.lines().filter_map(|line| {
        let (name, rest) = line.split_once(&begin)?.1.split_once(": ")?;
        Some((name.to_owned(), state(rest.split("; "))))
    });
    let states: BTreeMap<_, _> = states.collect();
    ensure!(names().all(|name| states.contains_key(name)), "not of all units:\n{said}");
    Ok(states)
}

/// The agent's states must be systemctl's.
fn compare(machine: &Machine, when: &str) -> Result<BTreeMap<String, State>> {
    let by_bus = told(machine, "the bus", "")?;
    for name in names() {
        let command = ["env", "TZ=UTC", "systemctl", "show", "--property", PROPERTIES, "--", name];
        let shown = machine.exec(&command)?.success()?;
        assert_eq!(by_bus[name], state(shown.lines()), "{name}, {when}");
    }
    Ok(by_bus)
}

fn set_up(machine: &Machine) -> Result<()> {
    for (name, sections) in FILES {
        let text = sections.replace("HOLD", HOLD) + "\n";
        fs::write(machine.path(&format!("/etc/systemd/system/{name}")), text)?;
    }
    let resource = |name| format!("[[resource]]\nkind = \"service\"\nname = '{name}'\nrunning = true\n");
    let manifest = "name = \"units\"\n".to_owned() + &names().map(resource).collect::<String>();
    fs::write(machine.path(MANIFEST), manifest)?;
    machine.sh("ln -s /dev/null /etc/systemd/system/masked.service; systemctl daemon-reload").map(drop)
}

#[test]
fn the_bus_and_systemctl_agree_through_every_transition() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    set_up(&machine)?;
    let before = compare(&machine, "before any start")?;
    assert_eq!(
        (before["masked.service"]["LoadState"].as_str(), &*before["absent.swap"]["LoadState"]),
        ("masked", "not-found")
    );
    ensure!(!before["bad.service"]["LoadError"].is_empty());

    machine.sh(
        "systemctl start plain killed held-stop held-reload bad-reload flaps done ended skipped sliced tick.timer \
                listens.socket looks.path 'each@a\\x2db-c_d:0'; systemctl enable -q plain listens.socket
                systemd-run -q --unit transient sleep infinity; systemctl start --no-block held-start waits direct
                systemctl start fails || true",
    )?;
    for unit in ["waits", "direct"] {
        reaches(&machine, unit, "SubState", "auto-restart")?;
    }
    reaches(&machine, "held-start", "SubState", "start-pre")?;
    let started = compare(&machine, "started")?;
    let job = |states: &BTreeMap<String, State>, name: &str| states[name].contains_key("Job");
    ensure!(job(&started, "held-start.service") && !job(&started, "plain.service"));
    assert_eq!(started["fails.service"]["Result"], "exit-code");
    assert_eq!(started["done.service"]["SubState"], "exited");

    machine.sh("systemctl restart plain; systemctl kill -s KILL killed flaps; systemctl reload bad-reload || true
                systemctl reload --no-block held-reload; systemctl stop --no-block held-stop
                sed -i s/infinity/1000000/ /etc/systemd/system/sliced.service")?;
    reaches(&machine, "held-reload", "SubState", "reload")?;
    reaches(&machine, "held-stop", "SubState", "stop")?;
    reaches(&machine, "killed", "SubState", "failed")?;
    reaches(&machine, "flaps", "NRestarts", "1")?;
    reaches(&machine, "flaps", "SubState", "running")?;
    let changing = compare(&machine, "while they change")?;
    ensure!(job(&changing, "held-stop.service") && job(&changing, "held-reload.service"));
    assert_eq!(changing["held-stop.service"]["ActiveState"], "deactivating");
    assert_eq!(changing["bad-reload.service"]["ReloadResult"], "exit-code");
    assert_eq!(changing["sliced.service"]["NeedDaemonReload"], "yes");
    assert_ne!(changing["plain.service"]["InvocationID"], started["plain.service"]["InvocationID"]);

    machine.sh("systemctl daemon-reload; systemctl daemon-reexec; systemctl is-system-running --wait || true")?;
    _ = compare(&machine, "after daemon-reexec")?;
    machine.sh("touch /run/release")?;
    for (unit, state) in [("held-start", "running"), ("held-reload", "running"), ("held-stop", "dead")] {
        reaches(&machine, unit, "SubState", state)?;
    }
    machine.sh("systemctl stop plain; systemctl reset-failed; systemctl stop waits direct")?;
    let after = compare(&machine, "at the end")?;
    assert_eq!(after["plain.service"]["ActiveState"], "inactive");
    Ok(())
}

#[test]
fn without_the_bus_the_agent_asks_systemctl() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    set_up(&machine)?;
    let by_bus = told(&machine, "the bus", "")?;
    let hidden = "unshare --mount sh -c 'mount -t tmpfs none /run/dbus; exec \"$@\"' sh";
    let by_systemctl = told(&machine, "systemctl", hidden)?;
    assert_eq!(by_bus["dbus.service"], by_systemctl["dbus.service"]);
    // A bus that accepts connections and says nothing.
    let silent = told(&machine, "systemctl", "pkill -STOP dbus-daemon;")?;
    assert_eq!(by_bus["dbus.service"], silent["dbus.service"]);
    Ok(())
}
