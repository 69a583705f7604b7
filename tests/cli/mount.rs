//! The kind `mount` on loop devices and directories, with a stand-in for systemd that mounts for real.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::{disks::Disks, sandbox::Sandbox};

fn mount(path: &str, what: &str, more: &str) -> String {
    format!("[[resource]]\nkind = \"mount\"\npath = \"{path}\"\nwhat = \"{what}\"\n{more}\n")
}

/// A machine whose first disk has an ext4, and a manifest that mounts it.
fn of_disk(more: &str) -> (Disks, String, String) {
    let disks = Disks::new(&[64, 64]);
    let at = disks.machine.at("srv/data");
    let steps = disks.manifest("manifest.toml", &mount(&at, "{{ disk }}", &format!("type = \"ext4\"\n{more}")));
    (disks, steps, at)
}

/// The name of the unit of a path.
fn unit(path: &str) -> String {
    format!("{}.mount", path.trim_start_matches('/').replace('-', r"\x2d").replace('/', "-"))
}

#[test]
fn a_disk_is_mounted_now_and_at_boot() {
    let (disks, steps, at) = of_disk("options = \"noatime\"\nrequired_by = [\"app\"]\nwait = \"30s\"");
    let said = disks.script(&format!(
        "mkfs.ext4 -q $disk1; set -- --steps '{steps}' --set disk=$disk1
        gb plan plan \"$@\"; gb run run \"$@\"; gb again run \"$@\"; gb left plan --detailed-exitcode \"$@\"
        grep ' {at} ' /proc/self/mountinfo > $out/mounts.said; echo $disk1 > $out/disk.said; umount {at}"
    ));
    let planned =
        ["create /etc/systemd/system/", "+RequiresMountsFor=", "+JobRunningTimeoutSec=30000ms", "mount at boot"];
    let _ = said.expect("plan", 0, &planned).expect("plan", 0, &["mount /dev/loop", "+Options=noatime,nofail"]);
    let _ = said.expect("run", 0, &["6 changes"]).expect("again", 0, &["0 changes"]).expect("left", 0, &[]);
    assert!(said.text("mounts").contains("rw,noatime"), "{}", said.text("mounts"));
    let disk = said.text("disk").trim();
    let (units, name) = ("etc/systemd/system", unit(&at));
    let expected = format!(
        "# Written by glovo-bootstrap.\n[Unit]\nDescription=File system at {at}\n\n[Mount]\nWhat={disk}\nWhere={at}\n\
         Type=ext4\nOptions=noatime,nofail\n\n[Install]\nWantedBy=local-fs.target\n"
    );
    assert_eq!(disks.machine.read(&format!("{units}/{name}")), expected);
    let stem = name.trim_end_matches(".mount");
    let drop_in = disks.machine.read(&format!("{units}/app.service.d/50-glovo-bootstrap-{stem}.conf"));
    assert!(drop_in.contains(&format!("\nRequiresMountsFor={at}\n")), "{drop_in}");
    let device = disk.trim_start_matches('/').replace('/', "-");
    assert!(fs::exists(disks.machine.at(&format!("{units}/{device}.device.d"))).unwrap());
}

#[test]
fn a_change_by_hand_is_named_and_fixed() {
    let (disks, steps, at) = of_disk("options = \"nosuid\"\nrequired_by = [\"app\"]");
    let unit = format!("/etc/systemd/system/{}", unit(&at));
    let said = disks.script(&format!(
        "mkfs.ext4 -q $disk1; set -- --steps '{steps}' --set disk=$disk1; unit='{unit}'
        gb first run \"$@\"
        check() {{ gb $1-plan plan \"$@\" < /dev/null; }}
        umount {at}; gb off plan \"$@\"; gb off-run run \"$@\"
        mount -o remount,suid,noexec,noatime {at}; gb options plan \"$@\"; gb options-run run \"$@\"
        grep ' {at} ' /proc/self/mountinfo > $out/mounts.said
        sed -i s/nosuid/nodev/ \"$unit\"; gb unit plan \"$@\"; gb unit-run run \"$@\"
        chmod 666 \"$unit\"; gb mode plan \"$@\"; gb mode-run run \"$@\"
        rm /etc/systemd/system/app.service.d/*; gb drop-in plan \"$@\"; gb drop-in-run run \"$@\"
        systemctl disable '{name}'; gb boot plan \"$@\"; gb boot-run run \"$@\"
        gb left plan --detailed-exitcode \"$@\"; umount {at}",
        name = unit.rsplit('/').next().unwrap()
    ));
    let _ = said.expect("first", 0, &[]);
    for (name, words, changes) in [
        ("off", "mount /dev/loop", 1),
        ("options", "remount with rw,dev,exec,atime,relatime,nosuid (now rw,noexec,noatime)", 1),
        ("unit", &format!("write {unit}"), 3),
        ("mode", &format!("write {unit}"), 2),
        ("drop-in", "create /etc/systemd/system/app.service.d/50-glovo-bootstrap-", 2),
        ("boot", "mount at boot", 1),
    ] {
        let number = if changes == 1 { "1 change".to_owned() } else { format!("{changes} changes") };
        let _ = said.expect(name, 0, &[words, &format!("{number} pending")]);
        let _ = said.expect(&format!("{name}-run"), 0, &[words, &number]);
    }
    assert!(said.text("mounts").contains("rw,nosuid,relatime"), "{}", said.text("mounts"));
    let _ = said.expect("left", 0, &[]);
}

#[test]
fn nothing_is_hidden_or_replaced_by_a_mount() {
    let (disks, steps, at) = of_disk("");
    let early = disks.manifest(
        "early.toml",
        &format!(
            "[[resource]]\nkind = \"directory\"\npath = \"{at}\"\n[[resource]]\nkind = \"file\"\npath = \"{at}/early\"\n\
             content = \"x\"\n{}",
            mount(&at, "{{ disk }}", "type = \"ext4\"")
        ),
    );
    let said = disks.script(&format!(
        "mkfs.ext4 -q $disk1; mkfs.ext2 -q $disk2; set -- --steps '{steps}' --set disk=$disk1
        gb early plan --steps '{early}' --set disk=$disk1
        mkdir {at}; touch {at}/precious; gb full plan \"$@\"; gb full-run run \"$@\"; rm {at}/precious
        mount $disk2 {at}; gb other plan \"$@\"; gb other-run run \"$@\"; umount {at}
        gb type run --steps '{steps}' --set disk=$disk2; dd if=/dev/zero of=$disk2 bs=1M count=1 status=none
        gb blank run --steps '{steps}' --set disk=$disk2
        rmdir {at}; ln -s /run {at}; gb link run \"$@\"; rm {at}; touch {at}; gb file run \"$@\"; rm {at}
        echo \"$disk1 {at} ext4 defaults 0 2\" >> /etc/fstab; gb fstab plan \"$@\""
    ));
    let hidden = format!("the mount point {at} is not empty, and its content would be hidden");
    let _ = said.expect("early", 1, &[&format!("{hidden}: early"), "declare resources below the path after the mount"]);
    for name in ["full", "full-run"] {
        let _ = said.expect(name, 1, &[&format!("{hidden}: precious")]);
    }
    for name in ["other", "other-run"] {
        let _ =
            said.expect(name, 1, &["has another file system mounted: /dev/loop", "(ext2)", &format!("umount {at}")]);
    }
    let _ = said.expect("type", 1, &["has ext2, not the declared ext4"]);
    let _ = said.expect("blank", 1, &["has no file system, not the declared ext4", "kind = \"filesystem\""]);
    let _ =
        said.expect("link", 1, &["a symbolic link leads to the mount point", "declare the path without links: /run"]);
    let _ = said.expect("file", 1, &["is not a directory"]);
    let _ = said.expect("fstab", 1, &["/etc/fstab also mounts a file system at"]);
}

#[test]
fn a_part_of_the_device_is_another_mount() {
    let (disks, steps, at) = of_disk("");
    let said = disks.script(&format!(
        "mkfs.ext4 -q $disk1; mkdir /run/mnt {at}; mount $disk1 /run/mnt; mkdir /run/mnt/sub; mount --bind /run/mnt/sub {at}
        gb plan plan --steps '{steps}' --set disk=$disk1; umount {at} /run/mnt"
    ));
    let words = ["has another file system mounted: the directory /sub of /dev/loop", "(ext4)"];
    let _ = said.expect("plan", 1, &words);
}

#[test]
fn a_plan_refuses_a_mount_that_cannot_be_made() {
    let (disks, steps, at) = of_disk("");
    let below = disks.manifest("below.toml", &mount(&format!("{at}/x/y"), "{{ disk }}", "type = \"ext4\""));
    let said = disks.script(&format!(
        "mkfs.ext4 -q $disk1; set -- --steps '{steps}' --set disk=$disk1
        blockdev --setro $disk1; gb plan plan \"$@\"; gb run run \"$@\"; blockdev --setrw $disk1
        touch {at}; gb file plan --steps '{below}' --set disk=$disk1; gb file-run run --steps '{below}' --set disk=$disk1; rm {at}
        echo \"$disk1 {at}/ ext4 defaults 0 2\" >> /etc/fstab; gb fstab plan \"$@\""
    ));
    for name in ["plan", "run"] {
        let _ =
            said.expect(name, 1, &["is read-only, but its mount is not declared so", "options = \"ro\"", "--setrw"]);
    }
    for name in ["file", "file-run"] {
        let _ = said.expect(name, 1, &[&format!("{at} is not a directory, so that no path below it can exist")]);
    }
    let _ = said.expect("fstab", 1, &["/etc/fstab also mounts a file system at"]);
}

#[test]
fn a_directory_inside_an_earlier_mount_may_be_bound() {
    let (disks, _, at) = of_disk("");
    let to = disks.machine.at("srv/to");
    let both = mount(&at, "{{ disk }}", "type = \"ext4\"") + &mount(&to, &format!("{at}/sub"), "type = \"bind\"");
    let both = disks.manifest("both.toml", &both);
    let said = disks.script(&format!(
        "mkfs.ext4 -q $disk1; mkdir /run/mnt; mount $disk1 /run/mnt; mkdir /run/mnt/sub; umount /run/mnt
        set -- --steps '{both}' --set disk=$disk1
        gb plan plan \"$@\"; gb run run \"$@\"; gb again run \"$@\"; umount {to}; rmdir {at}/sub; gb gone plan \"$@\"; umount {at}"
    ));
    let _ = said.expect("plan", 0, &[]).expect("run", 0, &[]).expect("again", 0, &["0 changes"]);
    // What is mounted now is known.
    let _ = said.expect("gone", 1, &["is not a directory that can be mounted"]);
}

/// Makes an image's tree with a `systemctl` that cannot do anything there.
fn tree_of_systemd(sandbox: &Sandbox) {
    fs::create_dir_all(sandbox.at("tree/etc/systemd/system")).unwrap();
    let systemctl = sandbox.write("tree/usr/bin/systemctl", "");
    fs::set_permissions(systemctl, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn resources_below_a_mount_wait_for_the_boot() {
    let sandbox = Sandbox::new();
    tree_of_systemd(&sandbox);
    let below = "[[resource]]\nkind = \"directory\"\npath = \"/srv/data/app\"\n\
                 [[resource]]\nkind = \"file\"\npath = \"/srv/data/app/x\"\ncontent = \"x\"\n\
                 [[resource]]\nkind = \"file\"\npath = \"/etc/x\"\ncontent = \"x\"\n";
    for what in ["label:data", "ebs:/dev/sdf"] {
        let manifest = sandbox.manifest(&(mount("/srv/data", what, "type = \"ext4\"") + below));
        let plan = sandbox.run(&["plan", "--steps", &manifest, "--root", &sandbox.at("tree")]).expect(0);
        let why = "ensure at boot (deferred: the boot mounts a file system at /srv/data)";
        let _ = plan.says(&format!("directory /srv/data/app: {why}")).says(&format!("file /srv/data/app/x: {why}"));
    }
    let manifest = sandbox.manifest(&(mount("/srv/data", "ebs:/dev/sdf", "type = \"ext4\"") + below));
    let _ = sandbox.run(&["run", "--steps", &manifest, "--root", &sandbox.at("tree")]).expect(0).says("1 change");
    assert!(!fs::exists(sandbox.at("tree/srv/data")).unwrap() && fs::exists(sandbox.at("tree/etc/x")).unwrap());
}

#[test]
fn a_resource_that_a_later_mount_hides_is_told() {
    let sandbox = Sandbox::new();
    let directory = "[[resource]]\nkind = \"directory\"\npath = \"/srv/data\"\nmode = \"0750\"\n";
    let mount = mount("/srv/data", "/dev/x", "type = \"ext4\"");
    let validate = |manifest: &str| sandbox.run(&["validate", "--steps", &sandbox.manifest(manifest)]).expect(0);
    let said = validate(&format!("{directory}{mount}"));
    let _ = said.says("/srv/data is declared before the mount at /srv/data, which hides it").says("move the mount up");
    assert!(!validate(&format!("{mount}{directory}")).stderr.contains("hides it"));
}

#[test]
fn a_directory_is_mounted_at_a_second_path() {
    let disks = Disks::new(&[]);
    let (from, at) = (disks.machine.at("srv/from"), disks.machine.at("srv/to"));
    let steps = disks.manifest(
        "manifest.toml",
        &format!(
            "[[resource]]\nkind = \"directory\"\npath = \"{from}\"\n{}",
            mount(&at, &from, "type = \"bind\"\noptions = \"ro\"")
        ),
    );
    let said = disks.script(&format!(
        "set -- --steps '{steps}'; gb plan plan \"$@\"; gb run run \"$@\"; gb again run \"$@\"
        touch {from}/file; ls {at} > $out/ls.said; touch {at}/x 2> /dev/null && echo writable >> $out/ls.said
        mount -o remount,bind,rw {at}; findmnt -no VFS-OPTIONS {at} > $out/now.said; gb options plan \"$@\"; gb options-run run \"$@\"
        umount {at}; mount --bind /etc {at}; gb other run \"$@\"; umount {at}"
    ));
    let _ = said.expect("plan", 0, &["+Type=none", "+Options=ro,nofail,bind"]);
    let _ = said.expect("run", 0, &[]).expect("again", 0, &["0 changes"]);
    assert_eq!(said.text("ls"), "file\n");
    // The file system of the tests may be mounted with further options.
    let now = said.text("now").trim();
    assert!(now.starts_with("rw,"), "{now}");
    let remount = format!("remount with bind,ro (now {now})");
    let _ = said.expect("options", 0, &[&remount, "1 change pending"]).expect("options-run", 0, &["1 change"]);
    let _ = said.expect("other", 1, &["has another file system mounted"]);
}

#[test]
fn a_new_file_system_is_made_and_mounted_in_one_run() {
    let disks = Disks::new(&[320]);
    let at = disks.machine.at("srv/data");
    let resources = format!(
        "[[resource]]\nkind = \"filesystem\"\ndevice = \"{{{{ disk }}}}\"\ntype = \"xfs\"\n{}\
         [[resource]]\nkind = \"directory\"\npath = \"{at}/sub\"\n\
         [[resource]]\nkind = \"file\"\npath = \"{at}/sub/file\"\ncontent = \"x\"\n",
        mount(&at, "{{ disk }}", "type = \"xfs\"")
    );
    let steps = disks.manifest("manifest.toml", &resources);
    let said = disks.script(&format!(
        "set -- --steps '{steps}' --set disk=$disk1
        gb plan plan \"$@\"; gb run run \"$@\"; gb again run \"$@\"; gb left plan --detailed-exitcode \"$@\"; umount {at}
        ls {at} > $out/ls.said
        set -- --steps '{steps}' --set disk=/dev/late; gb late plan \"$@\""
    ));
    let _ = said.expect("plan", 0, &["make an xfs file system", "mount /dev/loop"]).expect("run", 0, &[]);
    let _ = said.expect("again", 0, &["0 changes"]).expect("left", 0, &[]);
    assert_eq!(said.text("ls"), "");
    let waits = "wait up to 2 min 00 s for the device";
    let _ = said.expect("late", 0, &[&format!("{waits}, and make"), &format!("{waits} /dev/late, and mount it")]);
}

#[test]
fn a_volume_is_mounted_by_the_link_that_lasts() {
    let disks = Disks::new(&[64]);
    let at = disks.machine.at("srv/data");
    let steps = disks.manifest("manifest.toml", &mount(&at, "ebs:vol-0123456789abcdef0", "type = \"ext4\""));
    let label = disks.manifest("label.toml", &mount(&at, "label:data", "type = \"ext4\"\nwait = \"60s\""));
    let said = disks.script(&format!(
        "mkfs.ext4 -q $disk1; nvme nvme1n1 'Amazon Elastic Block Store' vol0123456789abcdef0 $disk1
        gb run run --steps '{steps}'; gb again run --steps '{steps}'; grep What= /etc/systemd/system/*.mount > $out/what.said
        umount {at}; rm /etc/systemd/system/*.mount; systemctl daemon-reload
        (until grep -qs 'wait up to' /var/lib/glovo-bootstrap/report.json; do sleep 0.05; done
        ln -s ../../nvme1n1 /dev/disk/by-label/data) &
        gb label run --steps '{label}'; wait; gb label-again run --steps '{label}'; umount {at}"
    ));
    let link = "What=/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0\n";
    let _ = said.expect("run", 0, &[]).expect("again", 0, &["0 changes"]);
    assert_eq!(said.text("what"), link);
    let _ = said.expect("label", 0, &["wait up to 1 min 00 s for the device label:data, and mount it"]);
    let _ = said.expect("label-again", 0, &["0 changes"]);
}

#[test]
fn options_that_cannot_be_set_now_are_an_error() {
    let (disks, steps, at) = of_disk("options = \"ro\"");
    let before = disks.manifest("before.toml", &mount(&at, "{{ disk }}", "type = \"ext4\""));
    let said = disks.script(&format!(
        "mkfs.ext4 -q $disk1; gb first run --steps '{before}' --set disk=$disk1
        exec 3> {at}/open; gb busy run --steps '{steps}' --set disk=$disk1; exec 3>&-
        gb free run --steps '{steps}' --set disk=$disk1; umount {at}"
    ));
    let _ = said.expect("first", 0, &[]).expect("busy", 1, &["the options cannot be changed now", "busy"]);
    let _ = said.expect("free", 0, &["remount with suid,dev,exec,atime,relatime,ro"]);
}

#[test]
fn a_mount_that_fails_is_an_error_with_its_log() {
    let (disks, steps, _) = of_disk("options = \"no_such_option\"");
    let said = disks.script(&format!(
        "mkfs.ext4 -q $disk1; gb run run --steps '{steps}' --set disk=$disk1; gb plan plan --steps '{steps}' --set disk=$disk1"
    ));
    let _ = said.expect("run", 1, &[".mount failed (exit-code)", "journalctl -u"]);
    let _ = said.expect("plan", 0, &["mount /dev/loop", "(it has failed: exit-code)", "2 changes pending"]);
}

#[test]
fn a_remote_mount_needs_its_program() {
    let disks = Disks::new(&[]);
    let at = disks.machine.at("srv/data");
    let nfs = disks.manifest("nfs.toml", &mount(&at, "server:/export", "type = \"nfs4\"\noptions = \"hard\""));
    let efs = disks.manifest("efs.toml", &mount(&at, "fs-0123456789abcdef0:/", "type = \"efs\"\noptions = \"tls\""));
    let said = disks.script(&format!(
        "gb nfs plan --steps '{nfs}'; gb efs plan --steps '{efs}'
        for helper in nfs4 efs; do
            echo '#!/bin/sh' > /usr/local/sbin/mount.$helper; chmod 755 /usr/local/sbin/mount.$helper
        done
        gb nfs-there plan --steps '{nfs}'; gb efs-there plan --steps '{efs}'"
    ));
    let _ =
        said.expect("nfs", 1, &["nfs4 cannot be mounted", "`mount.nfs4` is not installed", "nfs-common or nfs-utils"]);
    let _ = said.expect("efs", 1, &["efs cannot be mounted", "amazon-efs-utils"]);
    let words = ["+What=server:/export", "+Type=nfs4", "+Options=hard,nofail", "+WantedBy=remote-fs.target"];
    let _ = said.expect("nfs-there", 0, &words);
    let _ = said.expect("efs-there", 0, &["+Type=efs", "+Options=tls,nofail,_netdev"]);
}

#[test]
fn an_image_gets_the_units_and_mounts_nothing() {
    let sandbox = Sandbox::new();
    tree_of_systemd(&sandbox);
    let manifest = |resources: &str| sandbox.manifest(resources);
    let root = sandbox.at("tree");
    let by_label = manifest(&mount("/srv/data", "label:data", "type = \"ext4\"\nrequired_by = [\"app\"]"));
    let plan = sandbox.run(&["plan", "--steps", &by_label, "--root", &root]).expect(0);
    let _ = plan.says("mount label:data (deferred: an image starts no services)").says("mount at boot");
    let _ =
        sandbox.run(&["run", "--steps", &by_label, "--root", &root]).says("create /etc/systemd/system/srv-data.mount");
    let unit = fs::read_to_string(sandbox.at("tree/etc/systemd/system/srv-data.mount")).unwrap();
    assert!(unit.contains("What=/dev/disk/by-label/data\n"), "{unit}");
    let by_name = manifest(&mount("/srv/data", "ebs:/dev/sdf", "type = \"ext4\""));
    let run = sandbox.run(&["run", "--steps", &by_name, "--root", &root]).expect(0);
    let _ = run.says("mount ebs:/dev/sdf (deferred: only the booted machine knows this device)");
    fs::create_dir_all(sandbox.at("tree/srv/data/full")).unwrap();
    let by_label = manifest(&mount("/srv/data", "label:data", "type = \"ext4\""));
    let _ = sandbox.run(&["plan", "--steps", &by_label, "--root", &root]).expect(1).says("is not empty");
}

#[test]
fn wrong_mounts_are_refused() {
    let sandbox = Sandbox::new();
    let validate = |path: &str, what: &str, more: &str| {
        let manifest = sandbox.manifest(&mount(path, what, more));
        sandbox.run(&["validate", "--steps", &manifest])
    };
    for (path, what, more, words) in [
        ("/", "/dev/x", "type = \"ext4\"", "nothing can be mounted at /"),
        ("/proc/x", "/dev/x", "type = \"ext4\"", "nothing can be mounted at /proc/x"),
        ("/srv/a b", "/dev/x", "type = \"ext4\"", "must not have a space"),
        ("/srv/%i", "/dev/x", "type = \"ext4\"", "must not have a space"),
        ("/srv", "/srv/disk", "type = \"ext4\"", "`/srv/disk` is not the name of a device"),
        ("/srv", "server/export", "type = \"nfs4\"", "`server/export` is not HOST:/PATH"),
        ("/srv", "-oremount:/x", "type = \"nfs\"", "`-oremount:/x` is not HOST:/PATH"),
        ("/srv", "nfs://server/x", "type = \"nfs\"", "`nfs://server/x` is not HOST:/PATH"),
        ("/srv", "data:/", "type = \"efs\"", "`data:/` is not the id of an EFS"),
        ("/srv", "data", "type = \"bind\"", "is not an absolute path"),
        ("/srv", "/srv", "type = \"bind\"", "it is the mount point itself"),
        ("/srv", "/dev/x y", "type = \"ext4\"", "must not have a space"),
        ("/srv", "/dev/x", "type = \"tmpfs\"", "tmpfs"),
        ("/srv", "/dev/x", "type = \"ext4\"\noptions = \"noatime, ro\"", "must not have a space"),
        ("/srv", "/dev/x", "type = \"ext4\"\noptions = \"noatime,,ro\"", "an option is empty"),
        ("/srv", "/dev/x", "type = \"ext4\"\noptions = \"x-systemd.device-timeout=5\"", "works only in /etc/fstab"),
        ("/srv", "/dev/x", "type = \"ext4\"\noptions = \"noauto\"", "`noauto` has no meaning here"),
        ("/srv", "/a", "type = \"ext4\"\nrequired_by = [\"a b\"]", "is not the name of a unit"),
    ] {
        let _ = validate(path, what, more).expect(2).says(words);
    }
    let two = mount("/srv", "/dev/x", "type = \"ext4\"") + &mount("/srv", "/dev/y", "type = \"ext4\"");
    let refused = sandbox.run(&["validate", "--steps", &sandbox.manifest(&two)]).expect(2);
    let _ = refused.says("two resources manage the mount point /srv");
}

#[test]
fn a_mount_before_its_file_system_is_told() {
    let sandbox = Sandbox::new();
    let made = "[[resource]]\nkind = \"filesystem\"\ndevice = \"ebs:vol-0123456789abcdef0\"\ntype = \"ext4\"\nlabel = \"data\"\n";
    for what in ["ebs:vol-0123456789abcdef0", "label:data"] {
        let mounted = mount("/srv/data", what, "type = \"ext4\"");
        let manifest = sandbox.manifest(&(mounted.clone() + made));
        let said = sandbox.run(&["validate", "--steps", &manifest]).expect(0);
        let _ = said.says(&format!("the file system of {what} is declared after its mount"));
        let manifest = sandbox.manifest(&(made.to_owned() + &mounted));
        assert!(!sandbox.run(&["validate", "--steps", &manifest]).expect(0).stderr.contains("after its mount"));
    }
}

#[test]
fn a_slip_in_required_by_is_told() {
    let sandbox = Sandbox::new();
    let service = "[[resource]]\nkind = \"service\"\nname = \"writer\"\nrunning = true\n";
    for (unit, words) in [
        (
            "writter.service",
            "`required_by` names writter.service, which no resource declares; did you mean `writer.service`?",
        ),
        ("postgresql", ""),
        ("writer", ""),
    ] {
        let mounted = mount("/srv/data", "label:data", &format!("type = \"ext4\"\nrequired_by = [\"{unit}\"]"));
        let manifest = sandbox.manifest(&(mounted + service));
        let said = sandbox.run(&["validate", "--steps", &manifest]).expect(0);
        assert_eq!(said.stderr.contains("did you mean"), !words.is_empty(), "{said:?}");
        let _ = said.says(words);
    }
}
