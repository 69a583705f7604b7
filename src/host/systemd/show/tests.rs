//! systemd's answers over the bus, and the same by `systemctl show`.

use super::*;
use crate::host::{
    bus::stand_in::{Client, SentValue, listen, listen_again, reply},
    scratch::Scratch,
};

/// What `systemctl show` of systemd 252 prints of a service that has been restarted.
const SHOWN: &str = "\
LoadState=loaded
LoadError=
ActiveState=active
ActiveEnterTimestampMonotonic=1200000
SubState=running
InactiveExitTimestamp=Sun 2026-11-29 05:18:34 UTC
InactiveExitTimestampMonotonic=1100000
UnitFileState=enabled
NeedDaemonReload=no
InvocationID=0123456789abcdef0123456789abcdef
Job=
ConditionTimestampMonotonic=1000000
CanReload=yes
Result=success
NRestarts=2
ReloadResult=success
";

fn properties() -> Vec<(&'static str, SentValue)> {
    vec![
        // Of those that nothing asks for.
        ("Description", SentValue::text("an app")),
        ("Id", SentValue::text("app.service")),
        ("LoadState", SentValue::text("loaded")),
        ("LoadError", SentValue::error("", "")),
        ("ActiveState", SentValue::text("active")),
        ("ActiveEnterTimestampMonotonic", SentValue::number(1_200_000)),
        ("SubState", SentValue::text("running")),
        ("InactiveExitTimestamp", SentValue::number(1_795_929_514_999_999)),
        ("InactiveExitTimestampMonotonic", SentValue::number(1_100_000)),
        ("UnitFileState", SentValue::text("enabled")),
        ("NeedDaemonReload", SentValue::flag(false)),
        ("InvocationID", SentValue::bytes(&[1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef].repeat(2))),
        ("Job", SentValue::job(0)),
        ("ConditionTimestampMonotonic", SentValue::number(1_000_000)),
        ("CanReload", SentValue::flag(true)),
    ]
}

/// Answers the calls about services; returns each call's path, member and last argument.
fn serve(client: &mut Client, properties: &[(&str, SentValue)]) -> Vec<String> {
    client.admit();
    let mut asked = vec![];
    while let Some((serial, path, member, arguments)) = client.call() {
        let Some(BusValue::Text(last)) = arguments.last() else { panic!("{arguments:?}") };
        asked.push(format!("{path} {member} {last}"));
        client.send(&match (member.as_str(), last.as_str()) {
            ("GetAll", _) => reply(serial, "a{sv}", &SentValue::dictionary(properties)),
            ("Get", "NRestarts") => reply(serial, "v", &SentValue::count(2).variant()),
            _ => reply(serial, "v", &SentValue::text("success").variant()),
        });
    }
    asked
}

#[test]
fn the_bus_tells_what_systemctl_prints_without_a_process() {
    let tree = Scratch::new();
    let bus = listen(&tree, |client| serve(client, &properties()));
    let host = tree.host();
    let names = BTreeSet::from([r"app@b\x2dc.service".to_owned(), "a.target".to_owned()]);
    let units = host.show_by_bus(&names).unwrap();
    assert_eq!(units[r"app@b\x2dc.service"], parse(SHOWN));
    let of_all = SHOWN.split("Result=").next().unwrap();
    assert_eq!(units["a.target"], parse(of_all), "a target has no result");
    assert_eq!(host.show_by_bus(&names).unwrap(), units, "by the same connection");
    drop(host);
    let app = "/org/freedesktop/systemd1/unit/app_40b_5cx2dc_2eservice";
    let asked = [
        "/org/freedesktop/systemd1/unit/a_2etarget GetAll org.freedesktop.systemd1.Unit".to_owned(),
        format!("{app} GetAll org.freedesktop.systemd1.Unit"),
        format!("{app} Get Result"),
        format!("{app} Get NRestarts"),
        format!("{app} Get ReloadResult"),
    ];
    assert_eq!(bus.join().unwrap(), [asked.as_slice(), &asked].concat());
}

/// Asks for a unit's state in advance, does `between`, and asks for that of `name`. Returns how many questions came over
/// how many connections.
fn asked_in_advance(name: &str, between: impl FnOnce(&Host)) -> (usize, usize) {
    let tree = Scratch::new();
    let bus = listen_again(&tree, |client| serve(client, &properties()).len());
    let host = tree.host();
    host.watch_units(["a.target".to_owned()]);
    host.ask_for_units();
    between(&host);
    let names = BTreeSet::from([name.to_owned()]);
    assert_eq!(host.show_by_bus(&names).unwrap()[name].get("SubState"), "running");
    drop(host);
    let asked = bus.end();
    (asked.iter().sum(), asked.len())
}

#[test]
fn what_was_asked_in_advance_is_not_asked_again() {
    assert_eq!(asked_in_advance("a.target", |_| ()), (1, 1));
}

#[test]
fn a_change_or_a_second_makes_an_answer_too_old() {
    assert_eq!(asked_in_advance("a.target", Host::forget), (2, 2));
    assert_eq!(asked_in_advance("a.target", |host| host.stop.advance(MAX_AGE)), (2, 2));
    assert_eq!(asked_in_advance("b.target", |_| ()), (2, 2), "another unit");
}

#[test]
fn a_job_and_a_load_error_read_as_systemctl_prints_them() {
    let tree = Scratch::new();
    let mut properties = properties();
    for (name, value) in &mut properties {
        match *name {
            "Job" => *value = SentValue::job(4711),
            "LoadError" => *value = SentValue::error("org.freedesktop.systemd1.NoSuchUnit", "Unit a.target not found."),
            "InactiveExitTimestamp" => *value = SentValue::number(0),
            "InvocationID" => *value = SentValue::bytes(&[]),
            _ => {}
        }
    }
    let bus = listen(&tree, move |client| serve(client, &properties));
    let host = tree.host();
    let units = host.show_by_bus(&BTreeSet::from(["a.target".to_owned()])).unwrap();
    let unit = &units["a.target"];
    assert!(unit.has_job() && unit.get("Job") == "4711");
    assert_eq!(unit.get("LoadError"), r#"org.freedesktop.systemd1.NoSuchUnit "Unit a.target not found.""#);
    assert_eq!((unit.get("InactiveExitTimestamp"), unit.invocation()), ("", ""));
    drop(host);
    _ = bus.join().unwrap();
}

#[test]
fn an_answer_that_lacks_a_property_is_not_used_nor_is_the_bus_again() {
    for lacking in OF_UNIT {
        let tree = Scratch::new();
        let properties: Vec<_> = properties().into_iter().filter(|(name, _)| *name != lacking).collect();
        let bus = listen(&tree, move |client| serve(client, &properties));
        let host = tree.host();
        let names = BTreeSet::from(["a.target".to_owned()]);
        let refused = host.show_by_bus(&names).unwrap_err();
        assert_eq!(refused.to_string(), format!("a.target: systemd does not tell {lacking}"));
        assert_eq!(host.show_by_bus(&names).unwrap_err().to_string(), "it has failed before");
        _ = bus.join().unwrap();
    }
}

#[test]
fn a_value_of_another_type_is_refused() {
    for (name, value) in [
        ("Job", SentValue::error("", "")),
        ("LoadError", SentValue::job(1)),
        ("InvocationID", SentValue::error("", "")),
        ("SubState", SentValue::bytes(&[1])),
        ("InactiveExitTimestamp", SentValue::number(u64::MAX)),
    ] {
        let tree = Scratch::new();
        let mut properties = properties();
        properties.retain(|(known, _)| *known != name);
        properties.push((name, value));
        let bus = listen(&tree, move |client| serve(client, &properties));
        let host = tree.host();
        assert!(host.show_by_bus(&BTreeSet::from(["a.target".to_owned()])).is_err(), "{name}");
        drop(host);
        _ = bus.join().unwrap();
    }
}

#[test]
fn names_become_object_paths_as_systemd_writes_them() {
    for (name, path) in [
        ("a.service", "a_2eservice"),
        (r"srv-my\x2ddata.mount", "srv_2dmy_5cx2ddata_2emount"),
        ("0a1.service", "_30a1_2eservice"),
        ("é_@b:c.service", "_c3_a9_5f_40b_3ac_2eservice"),
    ] {
        assert_eq!(object_path(name), format!("/org/freedesktop/systemd1/unit/{path}"));
    }
}
