//! An image whose instances this program sets up at their first boot, in the place of cloud-init.

use anyhow::{Context, Result};
use nix::unistd::{getegid, geteuid};
use toml::Table;

use super::{
    KeptSettings, ensure,
    growth::{self, GROWPART},
    login,
};
use crate::{
    error::{self, Fault},
    host::{
        Host,
        root::{Ownership, Root},
    },
    resource::user::User,
    system::System,
    value::AbsPath,
};

/// The program that the units start.
const PROGRAM: &str = "/usr/local/bin/glovo-bootstrap";
/// The unit that sets an instance up.
pub const SET_UP: &str = "glovo-bootstrap-set-up.service";
/// The other units.
const OTHERS: [&str; 3] =
    ["glovo-bootstrap-host-keys.service", "glovo-bootstrap-growth.service", "glovo-bootstrap-user-data.service"];
const NETWORKD: &str = "systemd-networkd.service";
/// It waits for an answer to IPv6 also where there is no router. Instead, the metadata service's answer shows the network.
/// netplan enables it at each boot, so that only a mask keeps it away.
const WAIT_ONLINE: &str = "systemd-networkd-wait-online.service";
/// Other managers of interfaces.
const MANAGERS: [&str; 4] = ["NetworkManager.service", "dhcpcd.service", "connman.service", "wicked.service"];
/// How to turn cloud-init off, in its own words: <https://docs.cloud-init.io/en/latest/howto/disable_cloud_init.html>.
const CLOUD_INIT_DISABLED: &str = "/etc/cloud/cloud-init.disabled";
const SUDOERS: &str = "/etc/sudoers.d/90-glovo-bootstrap";
/// What cloud-init has written for the interface of the build instance, by its MAC address.
const NETWORK_OF_CLOUD_INIT: [&str; 3] = [
    "/etc/network/interfaces.d/50-cloud-init*",
    "/etc/netplan/50-cloud-init.yaml",
    "/etc/systemd/network/10-cloud-init-*.network",
];
/// The groups of cloud-init's default user where the group wheel is that of administrators.
const GROUPS_WITH_WHEEL: &[&str] = &["adm", "systemd-journal", "wheel"];
/// Its groups elsewhere.
const GROUPS: &[&str] = &["adm", "audio", "cdrom", "dialout", "dip", "floppy", "netdev", "plugdev", "sudo", "video"];
const FILES: [(&str, &str); 6] = [
    (
        "/etc/systemd/system/glovo-bootstrap-set-up.service",
        include_str!("../../packaging/first-boot/glovo-bootstrap-set-up.service"),
    ),
    (
        "/etc/systemd/system/glovo-bootstrap-host-keys.service",
        include_str!("../../packaging/first-boot/glovo-bootstrap-host-keys.service"),
    ),
    (
        "/etc/systemd/system/glovo-bootstrap-growth.service",
        include_str!("../../packaging/first-boot/glovo-bootstrap-growth.service"),
    ),
    (
        "/etc/systemd/system/glovo-bootstrap-user-data.service",
        include_str!("../../packaging/first-boot/glovo-bootstrap-user-data.service"),
    ),
    (
        "/etc/systemd/network/zz-glovo-bootstrap-first.network",
        include_str!("../../packaging/first-boot/zz-glovo-bootstrap-first.network"),
    ),
    (
        "/etc/systemd/network/zz-glovo-bootstrap-further.network",
        include_str!("../../packaging/first-boot/zz-glovo-bootstrap-further.network"),
    ),
];

/// The program that sets an instance up at its first boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FirstBootBy {
    /// cloud-init, as the image's distribution configures it.
    CloudInit,
    /// This program, for instances that are launched with its user-data.
    Agent,
}

/// Makes the image's instances be set up by this program: user, units, network, and cloud-init is disabled. `tell` gets each
/// change. A second call makes none.
///
/// # Errors
/// If the image lacks what the first boot needs, or another program manages its network.
pub fn prepare(system: &System, login_user: Option<&str>, kept: KeptSettings, tell: &dyn Fn(&str)) -> Result<()> {
    let (host, root) = (&system.host, system.root());
    let user = match login_user {
        Some(name) => Some(name.to_owned()),
        None => login::default_user(root)?,
    };
    let mut faults = faults(host)?;
    let missing = || {
        let message = "the configuration of cloud-init names no default user, for whom the key of a launch would be";
        Fault::new(message).hint("name the user: --login-user NAME").into()
    };
    faults.extend(user.is_none().then(missing));
    error::together(Fault::new("this image cannot have its first boot without cloud-init"), faults)?;
    let user = user.unwrap_or_default();
    make_user(system, &user, tell)?;
    for pattern in NETWORK_OF_CLOUD_INIT {
        for path in root.matching(pattern)? {
            root.remove(&path)?;
            tell(&format!("remove {path} (the interface of this machine)"));
        }
    }
    root.make_directories(&"/etc/systemd/network".into(), 0o755)?;
    let arguments = format!("--login-user {user}{}", kept.arguments());
    for (path, text) in FILES {
        put(root, &path.into(), 0o644, &text.replace("@arguments@", &arguments), tell)?;
    }
    enable(host, tell)?;
    if root.status(&"/etc/cloud".into())?.is_some() {
        put(root, &CLOUD_INIT_DISABLED.into(), 0o644, "", tell)?;
    }
    system.forget();
    Ok(())
}

/// Fails if an image is to have its first boot by cloud-init, but was prepared for this program.
///
/// # Errors
/// Then, and if the image cannot be read.
pub fn refuse_other_way(host: &Host, first_boot: FirstBootBy) -> Result<()> {
    if first_boot == FirstBootBy::CloudInit && is_prepared(host)? {
        let fault = Fault::new("this image was baked with --first-boot agent: its instances boot without cloud-init");
        let hint = "add --first-boot agent, or return to cloud-init first: docs/guide/first-boot.md says how";
        return Err(fault.hint(hint).invalid().into());
    }
    Ok(())
}

/// Returns whether this machine's image was prepared like that.
pub fn is_prepared(host: &Host) -> Result<bool> {
    Ok(host.unit_file(SET_UP)?.is_some())
}

/// Returns why the image cannot have its first boot without cloud-init.
fn faults(host: &Host) -> Result<Vec<anyhow::Error>> {
    let mut faults = vec![];
    let mut lacks = |what: String, hint: &str| faults.push(Fault::new(what).hint(hint).into());
    if host.root().status(&host.root().resolve(&PROGRAM.into())?)?.is_none() {
        lacks(format!("the image has no {PROGRAM}"), "install this program there: install -m 755 FILE /usr/local/bin/");
    }
    if host.unit_file(NETWORKD)?.is_none() {
        lacks(format!("the image has no {NETWORKD}"), "declare its package: systemd-networkd, or systemd");
    }
    for manager in MANAGERS {
        if host.is_enabled_offline(manager)? {
            lacks(
                format!("{manager} manages the image's network"),
                "declare it with enabled = false, or keep cloud-init",
            );
        }
    }
    if let Some((path, name)) = interface_of_ifupdown(host)? {
        lacks(format!("ifupdown manages {name}: {path}"), "remove the interface from that file, or keep cloud-init");
    }
    if host.has_program("sshd") && !host.has_program("ssh-keygen") {
        lacks("the image has sshd, but no ssh-keygen".into(), "declare the package openssh-client");
    }
    if !host.has_program(GROWPART) {
        let hint = "declare its package: cloud-guest-utils or cloud-utils-growpart";
        lacks(format!("the image has no {GROWPART}, which grows the root partition"), hint);
    }
    let known = ["ext4", "xfs", "btrfs"];
    let file_system = root_file_system(host)?;
    let names: Vec<&str> = file_system.as_deref().map_or_else(|| known.to_vec(), |name| vec![name]);
    let has_program = |name: &&str| growth::command(name, "").is_some_and(|command| host.has_program(command[0]));
    if !names.iter().any(has_program) {
        let hint = "declare its package: e2fsprogs, xfsprogs or btrfs-progs";
        lacks(format!("no program of the image grows its root file system ({})", names.join(", ")), hint);
    }
    Ok(faults)
}

/// Returns the type of the root file system; `None` if an image's tree does not say it.
fn root_file_system(host: &Host) -> Result<Option<String>> {
    if host.root().is_host() {
        let mounts = host.mounts()?;
        return Ok(mounts.into_iter().rfind(|mounted| mounted.path == "/").map(|mounted| mounted.file_system));
    }
    let fstab = host.root().read_text(&"/etc/fstab".into())?;
    let mut lines = fstab.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    Ok(lines.find_map(|words| match words[..] {
        [device, "/", kind, ..] if !device.starts_with('#') && kind != "auto" => Some(kind.to_owned()),
        _ => None,
    }))
}

/// Returns an interface that ifupdown configures, and the file that says so. The loopback interface does no harm.
fn interface_of_ifupdown(host: &Host) -> Result<Option<(AbsPath, String)>> {
    if !host.has_program("ifup") {
        return Ok(None);
    }
    let root = host.root();
    let hotplug = AbsPath::from("/etc/udev/rules.d/75-cloud-ifupdown.rules");
    if root.status(&hotplug)?.is_some() {
        return Ok(Some((hotplug, "each interface that appears".into())));
    }
    let mut files = root.matching("/etc/network/interfaces.d/*")?;
    files.retain(|file| !file.leaf().starts_with("50-cloud-init"));
    files.push("/etc/network/interfaces".into());
    for file in files {
        let text = root.read_text(&file)?;
        let mut names = text.lines().filter_map(|line| line.trim().strip_prefix("iface ")?.split_whitespace().next());
        if let Some(name) = names.find(|name| *name != "lo") {
            return Ok(Some((file, name.to_owned())));
        }
    }
    Ok(None)
}

/// Makes the user of the launch's key as cloud-init does: without a password, and with all rights by sudo.
fn make_user(system: &System, name: &str, tell: &dyn Fn(&str)) -> Result<()> {
    let (accounts, root) = (system.host.accounts()?, system.root());
    // An existing user keeps the rights that it has.
    if accounts.user(name).is_none() {
        if root.status(&"/etc/sudoers.d".into())?.is_some() {
            put(root, &SUDOERS.into(), 0o440, &format!("{name} ALL=(ALL) NOPASSWD:ALL\n"), tell)?;
        }
        let usual = if login::has_wheel(&system.host)? { GROUPS_WITH_WHEEL } else { GROUPS };
        let groups: Vec<&str> = usual.iter().copied().filter(|group| accounts.group(group).is_some()).collect();
        let mut declaration =
            Table::from_iter([("name".to_owned(), name.into()), ("groups".to_owned(), groups.into())]);
        if root.status(&root.resolve(&"/bin/bash".into())?)?.is_some() {
            _ = declaration.insert("shell".into(), "/bin/bash".into());
        }
        ensure::<User>(system, declaration, tell).context("making the user of the key of a launch")?;
    }
    Ok(())
}

fn enable(host: &Host, tell: &dyn Fn(&str)) -> Result<()> {
    for unit in [NETWORKD, SET_UP].into_iter().chain(OTHERS) {
        if !host.is_enabled_offline(unit)? {
            host.set_enabled(unit, true)?;
            tell(&format!("enable {unit}"));
        }
    }
    if host.mask_of(WAIT_ONLINE)?.is_none() {
        host.mask(WAIT_ONLINE)?;
        tell(&format!("mask {WAIT_ONLINE}"));
    }
    Ok(())
}

/// Writes a file of root that differs.
fn put(root: &Root, path: &AbsPath, mode: u32, text: &str, tell: &dyn Fn(&str)) -> Result<()> {
    let ownership = Ownership { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode };
    let is_there = root.status(path)?.is_some_and(|status| status.ownership == ownership);
    if is_there && root.read_text(path)? == text {
        return Ok(());
    }
    root.write(path, ownership, text.as_bytes())?;
    tell(&format!("write {path}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::scratch::Scratch, stop::Interrupt, system::Mode};

    /// The files of an image that has all that its first boot needs.
    const WHOLE: [(&str, &str); 6] = [
        (PROGRAM, ""),
        ("/lib/systemd/system/systemd-networkd.service", ""),
        ("/usr/bin/growpart", ""),
        ("/sbin/resize2fs", ""),
        ("/usr/sbin/sshd", ""),
        ("/usr/bin/ssh-keygen", ""),
    ];

    fn faults_of(more: &[(&str, &str)], without: &str) -> Vec<String> {
        let files: Vec<_> = WHOLE.iter().filter(|(path, _)| *path != without).chain(more).copied().collect();
        let tree = Scratch::of(&files);
        let programs = files.iter().filter(|(path, _)| path.contains("bin/"));
        programs.for_each(|(path, _)| tree.set_mode(path, 0o755));
        faults(&tree.host()).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_image_that_lacks_a_part_is_refused_by_the_part() {
        assert_eq!(faults_of(&[], ""), [""; 0]);
        for (without, fault) in [
            (PROGRAM, "no /usr/local/bin/glovo-bootstrap"),
            ("/lib/systemd/system/systemd-networkd.service", "no systemd-networkd.service"),
            ("/usr/bin/growpart", "no growpart"),
            ("/sbin/resize2fs", "grows its root file system (ext4, xfs, btrfs)"),
            ("/usr/bin/ssh-keygen", "no ssh-keygen"),
        ] {
            let found = faults_of(&[], without);
            assert!(matches!(&found[..], [found] if found.contains(fault)), "{without}: {found:?}");
        }
        let found = faults_of(&[("/etc/fstab", "# a disk\nUUID=1 / xfs defaults 0 1\n")], "");
        assert!(matches!(&found[..], [found] if found.contains("(xfs)")), "{found:?}");
    }

    #[test]
    fn an_existing_user_gets_no_more_rights() {
        let files = [("/etc/passwd", "ada:x:1000:1000::/home/ada:/bin/sh\n"), ("/etc/group", "ada:x:1000:\n")];
        let tree = Scratch::of(&files);
        tree.make_directory("/etc/sudoers.d");
        let system = System::open(tree.path(), Mode::Run, Interrupt::default()).unwrap();
        make_user(&system, "ada", &|change| panic!("{change}")).unwrap();
        assert_eq!(tree.names("/etc/sudoers.d"), [""; 0]);
    }

    #[test]
    fn an_image_of_this_program_does_not_silently_stay_one() {
        let stock = Scratch::of(&WHOLE);
        let prepared = Scratch::of(&[(FILES[0].0, FILES[0].1)]);
        for way in [FirstBootBy::CloudInit, FirstBootBy::Agent] {
            refuse_other_way(&stock.host(), way).unwrap();
        }
        refuse_other_way(&prepared.host(), FirstBootBy::Agent).unwrap();
        assert!(refuse_other_way(&prepared.host(), FirstBootBy::CloudInit).is_err());
    }

    #[test]
    fn another_manager_of_the_network_is_refused() {
        let ifup = ("/usr/sbin/ifup", "");
        for (more, fault) in [
            (
                &[("/etc/systemd/system/multi-user.target.wants/NetworkManager.service", "")][..],
                "NetworkManager.service",
            ),
            (&[ifup, ("/etc/network/interfaces", "iface lo inet loopback\niface eth0 inet dhcp\n")], "manages eth0"),
            (&[ifup, ("/etc/network/interfaces.d/eth1", "iface eth1 inet dhcp\n")], "manages eth1"),
            (&[ifup, ("/etc/udev/rules.d/75-cloud-ifupdown.rules", "")], "each interface"),
        ] {
            let found = faults_of(more, "");
            assert!(matches!(&found[..], [found] if found.contains(fault)), "{found:?}");
        }
        let harmless = [
            ifup,
            ("/etc/network/interfaces", "auto lo\niface lo inet loopback\nsource /etc/network/interfaces.d/*\n"),
            ("/etc/network/interfaces.d/50-cloud-init", "iface eth0 inet dhcp\n"),
        ];
        assert_eq!(faults_of(&harmless, ""), [""; 0]);
    }
}
