//! The demonstration installs only what it needs.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, process::Command};

use crate::{rooms::root, sandbox::Sandbox};

/// Returns the packages that a script of the repository would install where there are none.
fn installed(script: &[&str]) -> BTreeSet<String> {
    let sandbox = Sandbox::new();
    for (program, text) in [
        ("dpkg-query", "exit 1"),
        // The machine's own one has a lock, which another test could hold.
        ("dpkg", "exit 0"),
        ("apt-get", "echo \"$@\" >> \"$RECORD\""),
        // The demonstration builds next.
        ("cargo", "exit 7"),
    ] {
        let path = sandbox.write(&format!("bin/{program}"), format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", sandbox.at("bin"), std::env::var("PATH").unwrap());
    let mut command = Command::new(root().join(script[0]));
    let _ = command.args(&script[1..]).env("PATH", path).env("RECORD", sandbox.at("record"));
    let ended = command.output().unwrap();
    assert!([Some(0), Some(7)].contains(&ended.status.code()), "{ended:?}");
    let record = fs::read_to_string(sandbox.at("record")).unwrap();
    let install = record.lines().find(|line| line.contains(" install ")).unwrap();
    install.split(" install ").nth(1).unwrap().split(' ').map(str::to_owned).collect()
}

#[test]
fn the_demonstration_installs_no_tools_of_other_tests() {
    let (demo, all) = (installed(&["tests/machine/demo"]), installed(&["tests/machine/needs"]));
    assert!(demo.contains("systemd-container") && demo.is_subset(&all), "{demo:?}");
    for tool in ["packer", "qemu-system-x86", "lintian", "rpm", "python3-venv", "shellcheck"] {
        assert!(all.contains(tool) && !demo.contains(tool), "{tool}: {demo:?}");
    }
}
