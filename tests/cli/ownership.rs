//! Owners and groups by number.

use std::{fs, os::unix::fs::MetadataExt};

use crate::standin::Machine;

fn directory(path: &str, lines: &str) -> String {
    format!("[[resource]]\nkind = \"directory\"\npath = \"{path}\"\n{lines}\n")
}

fn file(path: &str, lines: &str) -> String {
    format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"x\"\n{lines}\n")
}

#[track_caller]
fn is_owned(path: &str, uid: u32, gid: u32) {
    let status = fs::symlink_metadata(path).unwrap();
    assert_eq!((status.uid(), status.gid()), (uid, gid), "{path}");
}

#[test]
fn a_number_needs_no_account() {
    let machine = Machine::new();
    let (data, config) = (machine.at("data"), machine.at("config"));
    let declared =
        directory(&data, "owner = \"4711\"\ngroup = \"4712\"") + &file(&config, "owner = \"4711\"\nmode = \"0600\"");
    let _ = machine.plan(&declared).expect(0).says(&format!("directory {data}: create directory"));
    let _ = machine.run(&declared).expect(0);
    is_owned(&data, 4711, 4712);
    is_owned(&config, 4711, 4711);
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes");
    std::os::unix::fs::chown(&data, Some(0), Some(0)).unwrap();
    let _ = machine.plan(&declared).expect(0).says("set owner 4711:4712 (now root:root)");
    let _ = machine.run(&declared).expect(0).says("converged: 1 change");
    is_owned(&data, 4711, 4712);
}

#[test]
fn the_number_of_a_user_is_that_user() {
    let machine = Machine::new();
    let home = machine.at("home");
    let user = format!("[[resource]]\nkind = \"user\"\nname = \"app\"\nuid = 4242\nhome = \"{home}\"\n");
    let path = format!("{home}/data");
    let _ = machine.run(&user).expect(0);
    let declared = user + &file(&path, "owner = \"4242\"");
    let _ = machine.run(&declared).expect(0);
    is_owned(&path, 4242, fs::symlink_metadata(&home).unwrap().gid());
    let _ = machine.run(&declared).expect(0).says("converged: 0 changes");
    let other = file(&path, "owner = \"4243\"");
    let _ = machine.plan(&other).expect(1).says("cannot belong to uid 4243");
    let below = directory(&machine.at("srv"), "owner = \"4711\"") + &file(&machine.at("srv/x"), "owner = \"4242\"");
    let _ = machine.plan(&below).expect(2).says("cannot belong to uid 4242");
}

#[test]
fn a_file_below_a_directory_without_an_account_is_refused() {
    let machine = Machine::new();
    let declared = directory(&machine.at("srv"), "owner = \"4711\"") + &file(&machine.at("srv/x"), "owner = \"4711\"");
    let _ = machine.plan(&declared).expect(1).says("is below a directory of uid 4711, which has no account");
    let _ = machine.run(&declared).expect(1).says("is below a directory of uid 4711, which has no account");
}

#[test]
fn wrong_numbers_are_refused_with_their_line() {
    let machine = Machine::new();
    for (owner, words) in [
        ("\"01\"", "`01` is not the number of an account"),
        ("\"4294967295\"", "is not the number of an account"),
        ("\"1a\"", "is not the name of an account"),
        ("1500", "expected a string"),
    ] {
        let declared = directory("/srv/data", &format!("owner = {owner}"));
        let _ = machine.plan(&declared).expect(2).says(words).says("^");
    }
}
