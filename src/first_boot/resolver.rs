//! The name servers, in `/etc/resolv.conf` of a machine without a resolver of its own.

use std::net::IpAddr;

use anyhow::Result;
use nix::unistd::{getegid, geteuid};

use crate::{
    host::root::{Ownership, Root},
    value::AbsPath,
};

/// Where the C library reads the name servers.
pub const FILE: &str = "/etc/resolv.conf";
/// What networkd knows of all interfaces, as sd-network(3) reads it.
const STATE: &str = "/run/systemd/netif/state";

/// Writes the name servers and domains of DHCP. A link is systemd-resolved's, or another program's, and stays.
pub(super) fn write(root: &Root, tell: &dyn Fn(&str)) -> Result<()> {
    let file = AbsPath::from(FILE);
    let Some(text) = text(&root.read_text(&STATE.into())?) else { return Ok(()) };
    if root.read_link(&file)?.is_some() || root.read_text(&file)? == text {
        return Ok(());
    }
    tell("write the name servers of DHCP to /etc/resolv.conf");
    root.write(&file, Ownership { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode: 0o644 }, text.as_bytes())
}

/// Returns the file's text; `None` without a name server.
fn text(state: &str) -> Option<String> {
    let words = |name: &str| {
        let value = state.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().split_whitespace().collect::<Vec<_>>()
    };
    // The state is another user's file: only addresses and names of domains are taken from it.
    let is_domain = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    let domains: Vec<&str> = words("DOMAINS").into_iter().filter(is_domain).collect();
    let search = if domains.is_empty() { String::new() } else { format!("search {}\n", domains.join(" ")) };
    let servers = words("DNS").into_iter().filter_map(|word| word.parse::<IpAddr>().ok());
    let servers: String = servers.map(|server| format!("nameserver {server}\n")).collect();
    (!servers.is_empty()).then(|| format!("# Written by glovo-bootstrap.\n{search}{servers}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_domains_are_taken_from_the_state() {
        let state = "# private\nOPER_STATE=routable\nDNS=172.31.0.2 fd00:ec2::253 $(reboot)\n\
                     DOMAINS=eu-central-1.compute.internal a;b\n";
        let expected = "# Written by glovo-bootstrap.\nsearch eu-central-1.compute.internal\n\
                        nameserver 172.31.0.2\nnameserver fd00:ec2::253\n";
        assert_eq!(text(state).as_deref(), Some(expected));
        assert_eq!(text("DNS=\nDOMAINS=a\n"), None);
    }

    #[test]
    fn a_link_of_a_resolver_stays() {
        let tree = crate::host::scratch::Scratch::new();
        let root = Root::open(tree.path()).unwrap();
        tree.write(STATE, "DNS=10.0.0.2\n");
        tree.make_directory("/etc");
        write(&root, &|_| {}).unwrap();
        assert!(root.read_text(&FILE.into()).unwrap().ends_with("nameserver 10.0.0.2\n"));
        root.remove(&FILE.into()).unwrap();
        root.make_link(&FILE.into(), "../run/systemd/resolve/stub-resolv.conf").unwrap();
        write(&root, &|_| panic!("a change")).unwrap();
        assert!(root.read_link(&FILE.into()).unwrap().is_some());
    }
}
