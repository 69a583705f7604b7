//! The first boot of an image without cloud-init, beside the same image with it: the two machines are compared file by file.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use machine::{Baked, Release, Vm, complete_tree, partitioned_disk};
use regex_lite::Regex;

/// The differences that may be, as patterns of whole paths, and why.
const MAY_DIFFER: &[(&str, &str)] = &[
    // What either leaves of itself.
    ("/var/lib/cloud(/.*)?|/var/log/cloud-init.*", "cloud-init's state and logs"),
    ("/etc/cloud/cloud-init.disabled", "it turns cloud-init off"),
    (
        "/etc/cloud/cloud.cfg.d/99-glovo-bootstrap-hostname.cfg",
        "the kind `host` writes it wherever cloud-init is installed",
    ),
    ("/etc/systemd/system/(.*/)?glovo-bootstrap-(set-up|host-keys|growth|user-data).service", "our units"),
    ("/etc/systemd/system/network-online.target.wants", "our unit is in it"),
    ("/etc/systemd/system/systemd-networkd-wait-online.service", "masked: our unit is in its place"),
    ("/etc/systemd/network/zz-glovo-bootstrap-.*", "DHCP by networkd"),
    (
        "/etc/systemd/system/(dbus-org.freedesktop.network1|.*wants/systemd-networkd|.*wants/systemd-network-generator).*",
        "networkd",
    ),
    ("/etc/systemd/system/sockets.target.wants", "the socket of networkd is in it"),
    ("/etc/network/interfaces.d/50-cloud-init.*", "DHCP by ifupdown"),
    ("/var/lib/dhcp/.*", "the lease of ifupdown's client"),
    ("/etc/sudoers.d/90-(cloud-init-users|glovo-bootstrap)", "the same rights in another file"),
    // What the documents name as left out.
    ("/root/.ssh(/authorized_keys)?", "cloud-init gives root a key that only prints who is to log in"),
    ("/etc/hosts", "a line with the name of the machine"),
    ("/etc/default/locale", "the image's own locale stays"),
    ("/etc/udev/rules.d/70-persistent-net.rules", "the names of interfaces stay those of udev"),
    ("/etc/sudoers.d", "cloud-init takes the directory from others; the mode of Debian's package stays"),
    ("/etc/resolv.conf", "ifupdown's client and this program order their lines differently"),
    // What differs between any two machines, or boots.
    ("/etc/machine-id|/var/lib/dbus/machine-id|/etc/ssh/ssh_host_.*", "each machine has its own"),
    (
        "/etc/(passwd|shadow|group|gshadow|subuid|subgid)-?",
        "made by useradd in the image or by cloud-init; compared below",
    ),
    ("/var/lib/glovo-bootstrap(/.*)?", "the reports and notes of runs"),
    (
        "/var/(log|cache|tmp|lib/systemd|lib/private|backups|lib/logrotate|spool)(/.*)?|/tmp(/.*)?|/run(/.*)?",
        "logs, caches, times",
    ),
    ("/etc/ssl/certs/java/cacerts", "made with the time of its making when Java is installed"),
    ("/etc/fstab|/swapfile|/lost\\+found", "swap of the run; its unit is compared"),
    ("/etc/(ld.so.cache|.updated|.pwd.lock)|/var/.updated", "made anew by any boot"),
];

/// Prints each file of the root file system: its path, type, mode, owner and link. Then the digests of those files
/// that a boot may change.
const LIST: &str = "find / -xdev -mindepth 1 -printf '%p\\t%y %m %U %G %l\\n'
    find / -xdev \\( -path /usr -o -path /boot \\) -prune -o -type f -exec sha256sum {} +";

/// What no file says: name, addresses, default route, name servers, size of the root, and the user.
const STATE: [&str; 8] = [
    "hostname; cat /etc/hostname",
    "ip -4 -o address show dev eth0 | awk '{ print $4 }'",
    "ip -4 route show default | awk '{ print $3, $5 }'",
    "grep nameserver /etc/resolv.conf",
    "df --output=size --block-size=64M / | tail -n 1",
    "id -nG debian | tr ' ' '\\n' | sort; getent passwd debian | cut -d: -f6,7; passwd -S debian | cut -d' ' -f2; sudo -l -U debian | tail -n 1",
    "cat /home/debian/.ssh/authorized_keys; stat -c '%U %a' /home/debian/.ssh /home/debian/.ssh/authorized_keys",
    "for key in /etc/ssh/ssh_host_*; do stat -c '%n %U %a' $key; done; sshd -T | sort | grep -v '^hostkeyagent'",
];

/// Returns a new public key.
fn public_key(vm: &Vm) -> Result<String> {
    let file = vm.directory().join("key");
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "launch", "-f"]).arg(&file).status()?;
    ensure!(made.success(), "ssh-keygen: {made}");
    std::fs::read_to_string(file.with_extension("pub")).context("the public key")
}

/// A booted machine that serves, and its disk.
fn boot(options: &[&str], key: &mut Option<String>) -> Result<(Vm, Baked)> {
    let baked = Baked::new(&complete_tree(Release::default())?, options, partitioned_disk)?;
    let mut vm = baked.vm()?;
    if key.is_none() {
        *key = Some(public_key(&vm)?);
    }
    vm.world().set_public_key(key.as_deref().unwrap_or_default());
    vm.power_on()?;
    vm.wait_until_booted()?;
    vm.wait_until_serving()?;
    Ok((vm, baked))
}

/// The files of a machine: what is known of each path.
fn files(vm: &Vm) -> Result<BTreeMap<String, BTreeSet<String>>> {
    // The agent in the guest keeps only the first megabytes of a command's output.
    vm.sh(&format!("({LIST}) > /run/files"))?;
    let mut files = BTreeMap::<String, BTreeSet<String>>::new();
    for part in 0.. {
        let text = vm.sh(&format!("sed -n '{},{}p' /run/files", part * 10_000 + 1, (part + 1) * 10_000))?;
        if text.is_empty() {
            break;
        }
        for line in text.lines() {
            let is_digest = !line.starts_with('/');
            let (path, what) = line.split_once(if is_digest { "  " } else { "\t" }).context("a line of find")?;
            let (path, what) = if is_digest { (what, path) } else { (path, what) };
            _ = files.entry(path.to_owned()).or_default().insert(what.to_owned());
        }
    }
    ensure!(files.len() > 5000, "{} files", files.len());
    Ok(files)
}

#[test]
fn a_machine_without_cloud_init_has_what_one_with_it_has() -> Result<()> {
    let mut key = None;
    let (mut agents, _disk) = boot(&["--first-boot", "agent"], &mut key)?;
    let failed = agents.sh("systemctl --failed --plain --no-legend")?;
    ensure!(failed.is_empty(), "{failed}\n{}", agents.console());
    ensure!(agents.console().contains("-----BEGIN SSH HOST KEY FINGERPRINTS-----"), "{}", agents.console());
    ensure!(agents.exec(&["systemctl", "is-active", "cloud-init"])?.stdout.trim() == "inactive", "cloud-init ran");
    let (of_agent, states) = (files(&agents)?, states(&agents)?);
    let identity = agents.sh("cat /etc/ssh/ssh_host_ed25519_key.pub /etc/machine-id")?;
    agents.reboot()?;
    ensure!(agents.sh("cat /etc/ssh/ssh_host_ed25519_key.pub /etc/machine-id")? == identity, "another identity");
    drop(agents);

    let (stock, _disk) = boot(&["--host-keys"], &mut key)?;
    let (of_stock, states_of_stock) = (files(&stock)?, self::states(&stock)?);
    for ((question, ours), stocks) in STATE.iter().zip(&states).zip(&states_of_stock) {
        ensure!(ours == stocks, "{question}\nwithout cloud-init:\n{ours}\nwith it:\n{stocks}");
    }
    let may_differ: Vec<_> =
        MAY_DIFFER.iter().map(|(pattern, _)| Regex::new(&format!("^({pattern})$")).expect("a pattern")).collect();
    let paths: BTreeSet<&String> = of_agent.keys().chain(of_stock.keys()).collect();
    let differ = paths.into_iter().filter(|path| of_agent.get(*path) != of_stock.get(*path));
    let unexplained: Vec<String> = differ
        .filter(|path| !may_differ.iter().any(|pattern| pattern.is_match(path)))
        .map(|path| format!("{path}: {:?}, with cloud-init {:?}", of_agent.get(path), of_stock.get(path)))
        .collect();
    ensure!(unexplained.is_empty(), "{} differences:\n{}", unexplained.len(), unexplained.join("\n"));
    Ok(())
}

fn states(vm: &Vm) -> Result<Vec<String>> {
    STATE.iter().map(|question| vm.sh(question)).collect()
}
