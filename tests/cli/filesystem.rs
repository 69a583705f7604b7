//! The kind `filesystem` on loop devices.

use std::fs;

use crate::{disks::Disks, sandbox::Sandbox};

fn filesystem(device: &str, more: &str) -> String {
    format!("[[resource]]\nkind = \"filesystem\"\ndevice = \"{device}\"\n{more}\n")
}

/// A manifest whose variable `disk` is a device.
fn of_variable(disks: &Disks, more: &str) -> String {
    disks.manifest("manifest.toml", &filesystem("{{ disk }}", more))
}

#[test]
fn a_blank_disk_gets_a_file_system_once() {
    for (kind, label) in [("ext4", "data"), ("xfs", "")] {
        let disks = Disks::new(&[320]);
        let field = if label.is_empty() { String::new() } else { format!("label = \"{label}\"") };
        let steps = of_variable(&disks, &format!("type = \"{kind}\"\n{field}"));
        let said = disks.script(&format!(
            "set -- --steps '{steps}' --set disk=$disk1
            gb plan plan \"$@\"; gb run run \"$@\"; gb again run \"$@\"; gb left plan --detailed-exitcode \"$@\"
            mkdir /run/mnt; mount $disk1 /run/mnt; gb mounted plan --detailed-exitcode \"$@\"; umount /run/mnt
            blkid -p -o export $disk1 > $out/blkid.said; ls /var/lib/glovo-bootstrap > $out/ls.said"
        ));
        let with = if label.is_empty() { String::new() } else { format!(" with the label {label}") };
        let made = format!("make an {kind} file system{with} on /dev/loop");
        let _ = said.expect("plan", 0, &[&made, "(320 MiB, blank)", "1 change pending"]);
        let _ = said.expect("run", 0, &[&made, "1 change"]).expect("again", 0, &["0 changes"]);
        let _ = said.expect("left", 0, &[]).expect("mounted", 0, &[]);
        assert!(said.text("blkid").contains(&format!("TYPE={kind}\n")), "{}", said.text("blkid"));
        assert_eq!(said.text("blkid").contains("LABEL=data"), !label.is_empty());
        assert!(!said.text("ls").contains("filesystem-"), "{}", said.text("ls"));
    }
}

/// Each content of a disk, how it comes there, and what an error says about it.
const CONTENTS: [(&str, &str, &str); 15] = [
    ("ext4", "mkfs.ext4 -q -L old $disk1", "it has the file system ext4 with the label old"),
    ("ext2", "mkfs.ext2 -q $disk1", "it has the file system ext2"),
    ("btrfs", "mkfs.btrfs -q $disk1", "it has the file system btrfs"),
    ("swap", "mkswap -q $disk1", "it has swap on it"),
    (
        "DOS partitions",
        "at 446 '\\200\\0\\2\\0\\203\\0\\0\\0\\0\\010\\0\\0\\0\\0\\1\\0'; at 510 '\\125\\252'",
        "it has a partition table (dos)",
    ),
    ("LUKS", "at 0 'LUKS\\272\\276\\0\\1aes\\0'", "it has crypto_LUKS on it"),
    ("LVM", "at 512 'LABELONE\\1\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0 \\0\\0\\0LVM2 001'", "is not zero"),
    (
        "bcache",
        "at 4120 '\\306\\205\\163\\366\\116\\032\\105\\312\\202\\145\\365\\177\\110\\272\\155\\201'",
        "is not zero",
    ),
    ("mdraid at the end", "at 117432320 '\\374\\116\\053\\251\\1\\0\\0\\0'", "byte 117432320 is not zero"),
    ("a copy of a GPT at the end", "at 117440000 'EFI PART\\0\\0\\1\\0'", "byte 117440000 is not zero"),
    ("ZFS labels without their ring", "at 16400 '\\021\\172\\014\\261\\172\\332\\020\\002'", "byte 16400 is not zero"),
    ("random bytes", "dd if=/dev/urandom of=$disk1 bs=1M count=112; at 0 x", "byte 0 is not zero"),
    ("data only at the end", "at 117440511 x", "byte 117440511 is not zero"),
    ("data only in the first 16 MiB", "at 16777215 x", "byte 16777215 is not zero"),
    ("data only in a piece between", "at 18500000 x", "byte 18500000 is not zero"),
];

#[test]
fn no_byte_of_a_disk_with_content_is_changed() {
    // The last content is in the second of 64 pieces: it begins 79 MiB / 63 after the first 16 MiB.
    for (content, made, words) in CONTENTS {
        println!("{content}");
        let disks = Disks::new(&[112]);
        let steps = of_variable(&disks, "type = \"xfs\"\nlabel = \"new\"");
        let make = format!(
            "at() {{ printf \"$2\" | dd of=$disk1 bs=1 seek=$1 conv=notrunc,fsync status=none; }}\n{made} > /dev/null 2>&1; sync"
        );
        let _ = disks.script(&make);
        let before = disks.checksum(1);
        let said = disks.script(&format!(
            "set -- --steps '{steps}' --set disk=$disk1\ngb plan plan \"$@\"; gb run run \"$@\"; sync"
        ));
        for name in ["plan", "run"] {
            let _ = said.expect(name, 1, &[words, "is neither blank nor xfs", "is never formatted"]);
        }
        assert_eq!(disks.checksum(1), before, "{content}");
    }
}

#[test]
fn a_disk_that_is_in_use_is_refused() {
    let disks = Disks::new(&[64, 64]);
    let steps = of_variable(&disks, "type = \"ext4\"");
    let said = disks.script(&format!(
        "mkfs.ext2 -q $disk1; mkdir /run/mnt; mount $disk1 /run/mnt
        gb mounted run --steps '{steps}' --set disk=$disk1; umount /run/mnt
        echo \"$disk2 partition 1 0 -2\" >> /proc/swaps; gb swap run --steps '{steps}' --set disk=$disk2
        gb file run --steps '{steps}' --set disk=/dev/null"
    ));
    let _ = said.expect("mounted", 1, &["is neither blank nor ext4: it has the file system ext2"]);
    let _ = said.expect("swap", 1, &["the kernel swaps to it"]);
    let _ = said.expect("file", 1, &["/dev/null is not a block device", "lsblk"]);
}

#[test]
fn another_label_is_an_error_and_stays() {
    let disks = Disks::new(&[64]);
    let steps = of_variable(&disks, "type = \"ext4\"\nlabel = \"new\"");
    let said = disks.script(&format!(
        "mkfs.ext4 -q -L old $disk1; set -- --steps '{steps}' --set disk=$disk1
        gb plan plan \"$@\"; gb run run \"$@\"; mkdir /run/mnt; mount $disk1 /run/mnt; gb mounted plan \"$@\"; umount /run/mnt
        e2label $disk1 > $out/label.said"
    ));
    for name in ["plan", "run", "mounted"] {
        let _ = said.expect(name, 1, &["has old, not the label new", "e2label /dev/loop"]);
    }
    assert_eq!(said.text("label"), "old\n");
}

#[test]
fn only_what_this_machine_began_is_made_again() {
    for (kind, calls) in [("ext4", "pwrite64,write"), ("xfs", "pwrite64,write")] {
        for when in ["1", "20"] {
            let disks = Disks::new(&[320]);
            let steps = of_variable(&disks, &format!("type = \"{kind}\""));
            // mkfs is killed by a wrapper that comes first on the path: after some of its writes.
            disks.machine.write(
                &format!("bin/mkfs.{kind}"),
                format!(
                    "#!/bin/sh\n[ -e /run/whole ] && exec /usr/sbin/mkfs.{kind} \"$@\"\n\
                     exec strace -f -qq -o /dev/null -e trace={calls} -e inject={calls}:signal=KILL:when={when} \
                     /usr/sbin/mkfs.{kind} \"$@\"\n"
                ),
            );
            let wrapper = disks.machine.at(&format!("bin/mkfs.{kind}"));
            assert!(std::process::Command::new("chmod").args(["755", &wrapper]).status().unwrap().success());
            let said = disks.script(&format!(
                "set -- --steps '{steps}' --set disk=$disk1
                gb cut run \"$@\"; gb plan plan \"$@\"; cat $disk1 | tr -d '\\0' | wc -c > $out/bytes.said
                touch /run/whole; gb run run \"$@\"; gb again run \"$@\"
                blkid -p -o value -s TYPE $disk1 > $out/type.said; ls /var/lib/glovo-bootstrap > $out/ls.said"
            ));
            let _ = said.expect("cut", 1, &["signal 9"]);
            let again = format!("make the {kind} file system on /dev/loop");
            if said.text("bytes").trim() != "0" {
                let _ = said.expect("plan", 0, &[&again, "an earlier run was cut off while it made it"]);
            }
            let _ = said.expect("run", 0, &["1 change"]).expect("again", 0, &["0 changes"]);
            assert_eq!(said.text("type"), format!("{kind}\n"));
            assert!(!said.text("ls").contains("filesystem-"), "{}", said.text("ls"));
        }
    }
}

#[test]
fn a_complete_file_system_is_not_made_again_by_its_note() {
    let disks = Disks::new(&[64]);
    let steps = of_variable(&disks, "type = \"ext4\"");
    // The run is cut off between the end of mkfs and the removal of the note.
    disks.machine.write("bin/mkfs.ext4", "#!/bin/sh\n/usr/sbin/mkfs.ext4 \"$@\"; exit 1\n");
    let wrapper = disks.machine.at("bin/mkfs.ext4");
    assert!(std::process::Command::new("chmod").args(["755", &wrapper]).status().unwrap().success());
    let said = disks.script(&format!(
        "set -- --steps '{steps}' --set disk=$disk1
        gb cut run \"$@\"; rm /usr/local/sbin/mkfs.ext4
        mkdir /run/mnt; mount $disk1 /run/mnt; echo precious > /run/mnt/file; umount /run/mnt
        gb plan plan \"$@\"; gb run run \"$@\"; gb again run \"$@\"
        mount $disk1 /run/mnt; cat /run/mnt/file > $out/file.said; umount /run/mnt
        wipefs -qa $disk1; head -c 100000 /dev/urandom | dd of=$disk1 conv=notrunc status=none; gb later run \"$@\""
    ));
    let _ = said.expect("cut", 1, &["mkfs.ext4"]).expect("plan", 0, &["note that the file system is complete"]);
    let _ = said.expect("run", 0, &["1 change"]).expect("again", 0, &["0 changes"]);
    assert_eq!(said.text("file"), "precious\n");
    // Without the note, later content is not ours.
    let _ = said.expect("later", 1, &["is neither blank nor ext4"]);
}

#[test]
fn a_disk_that_comes_late_is_waited_for() {
    let disks = Disks::new(&[64]);
    let steps = of_variable(&disks, "type = \"ext4\"\nwait = \"60s\"");
    let never = disks.manifest("never.toml", &filesystem("/dev/late", "type = \"ext4\"\nwait = \"50ms\""));
    let said = disks.script(&format!(
        "set -- --steps '{steps}' --set disk=/dev/late
        gb never run --steps '{never}'; rm /var/lib/glovo-bootstrap/report.json; gb plan plan \"$@\"
        (until grep -qs 'wait up to' /var/lib/glovo-bootstrap/report.json; do sleep 0.05; done; ln -s $disk1 /dev/late) &
        gb run run \"$@\"; wait; gb again run \"$@\"
        umask 0; rm /dev/late; gb gone plan \"$@\""
    ));
    let _ =
        said.expect("never", 75, &["the device /dev/late was not attached within 50 ms", "lsblk --output NAME,SIZE"]);
    let planned = "wait up to 1 min 00 s for the device, and make an ext4 file system on it if it is blank";
    let _ =
        said.expect("plan", 0, &[planned]).expect("run", 0, &[planned, "1 change"]).expect("again", 0, &["0 changes"]);
    let _ = said.expect("gone", 0, &[planned]);
}

#[test]
fn a_volume_is_found_by_its_id_its_name_and_its_number() {
    let disks = Disks::new(&[64, 64, 64, 64]);
    let manifest =
        |name: &str, device: &str| disks.manifest(name, &filesystem(device, "type = \"ext4\"\nwait = \"0s\""));
    let (id, link, number) = (
        manifest("id.toml", "ebs:vol-0123456789abcdef0"),
        manifest("link.toml", "ebs:/dev/sdg"),
        manifest("number.toml", "instance-store:1"),
    );
    let (read, unknown) = (manifest("read.toml", "ebs:/dev/sdh"), manifest("unknown.toml", "ebs:/dev/sdz"));
    disks.machine.write(
        "reader",
        "#!/bin/sh\n[ \"$*\" = '-u /dev/nvme4n1' ] && echo sdh && exit; [ \"$1\" = -u ] && echo sda1\n",
    );
    let said = disks.script(&format!(
        "ebs='Amazon Elastic Block Store' store='Amazon EC2 NVMe Instance Storage'
        nvme nvme1n1 \"$ebs\" vol0123456789abcdef0 $disk1; nvme nvme2n1 \"$ebs\" vol0123456789abcdef1 $disk2
        nvme nvme3n1 \"$store\" AWS2 $disk3; nvme nvme0n1 \"$store\" AWS1 $disk4; ln -s nvme2n1 /dev/sdg
        gb id plan --steps '{id}'; gb link plan --steps '{link}'; gb number plan --steps '{number}'
        gb none plan --steps '{read}'; nvme nvme4n1 \"$ebs\" vol0123456789abcdef2 $disk4
        cp {reader} /usr/local/sbin/ebsnvme-id; chmod 755 /usr/local/sbin/ebsnvme-id
        gb read plan --steps '{read}'; gb unknown run --steps '{unknown}'",
        reader = disks.machine.at("reader")
    ));
    let _ = said.expect("id", 0, &["make an ext4 file system on /dev/nvme1n1"]);
    let _ = said.expect("link", 0, &["make an ext4 file system on /dev/nvme2n1"]);
    let _ = said.expect("number", 0, &["make an ext4 file system on /dev/nvme3n1"]);
    let _ = said.expect("none", 1, &["no program can read which EBS volume is /dev/sdh", "amazon-ec2-utils"]);
    let _ = said.expect("read", 0, &["make an ext4 file system on /dev/nvme4n1"]);
    let _ = said.expect("unknown", 75, &["the device ebs:/dev/sdz was not attached within 0 ms"]);
}

#[test]
fn a_missing_mkfs_is_named_with_its_package() {
    let disks = Disks::new(&[320]);
    let steps = of_variable(&disks, "type = \"xfs\"");
    let said = disks.script(&format!(
        "mkdir /run/hidden; mount -t tmpfs tmpfs /run/hidden; mkdir /run/hidden/upper /run/hidden/work
        mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=/run/hidden/upper,workdir=/run/hidden/work /usr/sbin
        rm /usr/sbin/mkfs.xfs
        gb plan plan --steps '{steps}' --set disk=$disk1; gb run run --steps '{steps}' --set disk=$disk1"
    ));
    for name in ["plan", "run"] {
        let words =
            ["no xfs file system can be made", "the program `mkfs.xfs` is not installed", "names = [\"xfsprogs\"]"];
        let _ = said.expect(name, 1, &words);
    }
}

#[test]
fn a_mkfs_that_wrote_nothing_gives_no_right_to_wipe() {
    let disks = Disks::new(&[64]);
    let steps = of_variable(&disks, "type = \"ext4\"");
    disks.machine.write("bin/mkfs.ext4", "#!/bin/sh\nexit 1\n");
    let wrapper = disks.machine.at("bin/mkfs.ext4");
    assert!(std::process::Command::new("chmod").args(["755", &wrapper]).status().unwrap().success());
    let said = disks.script(&format!(
        "set -- --steps '{steps}' --set disk=$disk1
        gb failed run \"$@\"; rm /usr/local/sbin/mkfs.ext4; ls /var/lib/glovo-bootstrap > $out/ls.said
        head -c 100000 /dev/urandom | dd of=$disk1 conv=notrunc,fsync status=none; sha256sum < $disk1 > $out/before.said
        gb plan plan \"$@\"; gb run run \"$@\"; sha256sum < $disk1 > $out/after.said"
    ));
    let _ = said.expect("failed", 1, &["mkfs.ext4", "failed with exit code 1"]);
    assert!(!said.text("ls").contains("filesystem-"), "{}", said.text("ls"));
    for name in ["plan", "run"] {
        let _ = said.expect(name, 1, &["is neither blank nor ext4", "is never formatted"]);
    }
    assert_eq!(said.text("before"), said.text("after"));
}

#[test]
fn a_plan_refuses_a_device_that_mkfs_refuses() {
    let disks = Disks::new(&[64]);
    let (ext4, xfs) = (filesystem("{{ disk }}", "type = \"ext4\""), filesystem("{{ disk }}", "type = \"xfs\""));
    let (ext4, xfs) = (disks.manifest("ext4.toml", &ext4), disks.manifest("xfs.toml", &xfs));
    let said = disks.script(&format!(
        "blockdev --setro $disk1; gb plan plan --steps '{ext4}' --set disk=$disk1; gb run run --steps '{ext4}' --set disk=$disk1
        blockdev --setrw $disk1; gb small plan --steps '{xfs}' --set disk=$disk1; gb small-run run --steps '{xfs}' --set disk=$disk1"
    ));
    for name in ["plan", "run"] {
        let _ = said.expect(name, 1, &["the device is read-only", "blockdev --setrw /dev/loop"]);
    }
    for name in ["small", "small-run"] {
        let _ = said.expect(name, 1, &["has 64 MiB, but an xfs file system needs at least 300 MiB"]);
    }
}

#[test]
fn a_label_names_one_device() {
    let disks = Disks::new(&[64, 64]);
    let steps = of_variable(&disks, "type = \"ext4\"\nlabel = \"data\"");
    let said = disks.script(&format!(
        "mkfs.ext4 -q -L data $disk1; ln -s $disk1 /dev/disk/by-label/data
        gb first plan --steps '{steps}' --set disk=$disk1
        gb plan plan --steps '{steps}' --set disk=$disk2; gb run run --steps '{steps}' --set disk=$disk2"
    ));
    let _ = said.expect("first", 0, &["0 changes pending"]);
    for name in ["plan", "run"] {
        let _ = said.expect(name, 1, &["has the label data already", "declare another label"]);
    }
    let sandbox = Sandbox::new();
    let label = |device: &str| filesystem(device, "type = \"ext4\"\nlabel = \"data\"");
    let two = sandbox.manifest(&(label("ebs:/dev/sdf") + &label("ebs:/dev/sdg")));
    let _ = sandbox.run(&["validate", "--steps", &two]).expect(2).says("two resources manage the label data");
}

#[test]
fn a_plan_knows_a_device_by_all_its_names() {
    let disks = Disks::new(&[64]);
    let two = |name: &str, first: &str, second: &str| {
        disks.manifest(name, &(filesystem("{{ disk }}", first) + &filesystem("/dev/alias", second)))
    };
    let same = two("same.toml", "type = \"ext4\"\nlabel = \"one\"", "type = \"ext4\"");
    let label = two("label.toml", "type = \"ext4\"\nlabel = \"one\"", "type = \"ext4\"\nlabel = \"two\"");
    let kind = two("kind.toml", "type = \"ext4\"", "type = \"xfs\"");
    let said = disks.script(&format!(
        "ln -s $disk1 /dev/alias
        for name in label kind same; do gb $name plan --steps '{directory}'/$name.toml --set disk=$disk1; done
        gb run run --steps '{same}' --set disk=$disk1",
        directory = same.trim_end_matches("/same.toml")
    ));
    assert!(label.ends_with("/label.toml") && kind.ends_with("/kind.toml"));
    for name in ["label", "kind"] {
        let _ =
            said.expect(name, 1, &["an earlier resource makes another file system on /dev/loop", "each device once"]);
    }
    let _ = said.expect("same", 0, &["1 change pending"]).expect("run", 0, &["1 change"]);
}

#[test]
fn a_blank_partition_gets_a_file_system() {
    let disks = Disks::new(&[64]);
    let steps = of_variable(&disks, "type = \"ext4\"");
    // addpart(8) needs no tables in the kernel. The entry of the table is that of the partition: 32 MiB after the first one.
    let said = disks.script(&format!(
        "at() {{ printf \"$2\" | dd of=$disk1 bs=1 seek=$1 conv=notrunc,fsync status=none; }}
        at 446 '\\0\\0\\2\\0\\203\\0\\0\\0\\0\\010\\0\\0\\0\\0\\1\\0'; at 510 '\\125\\252'
        addpart $disk1 1 2048 65536; number=$(cat /sys/class/../block/${{disk1#/dev/}}/${{disk1#/dev/}}p1/dev)
        mknod /dev/part b ${{number%:*}} ${{number#*:}}; set -- --steps '{steps}' --set disk=/dev/part
        gb plan plan \"$@\"; gb run run \"$@\"; gb again run \"$@\"
        gb disk plan --steps '{steps}' --set disk=$disk1"
    ));
    let _ = said.expect("plan", 0, &["make an ext4 file system on /dev/part (32 MiB, blank)"]);
    let _ = said.expect("run", 0, &["1 change"]).expect("again", 0, &["0 changes"]);
    let _ = said.expect("disk", 1, &["it has a partition table (dos)"]);
}

#[test]
fn an_image_leaves_the_disk_to_the_boot() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.at("tree/etc")).unwrap();
    let manifest = sandbox.manifest(&filesystem("ebs:/dev/sdf", "type = \"ext4\""));
    let _ = sandbox
        .run(&["run", "--steps", &manifest, "--root", &sandbox.at("tree")])
        .expect(0)
        .says("make an ext4 file system (deferred: an image has no volumes)");
}

#[test]
fn wrong_declarations_are_refused() {
    let sandbox = Sandbox::new();
    for (device, more, words) in [
        ("sdf", "type = \"ext4\"", "`sdf` is not the name of a device: use a path below /dev"),
        ("/srv/disk", "type = \"ext4\"", "`/srv/disk` is not the name of a device"),
        ("/dev/../etc/x", "type = \"ext4\"", "write the path without it"),
        ("ebs:sdf", "type = \"ext4\"", "`ebs:sdf` is not the name of a device"),
        ("instance-store:x", "type = \"ext4\"", "is not the name of a device"),
        ("/dev/x", "type = \"btrfs\"", "btrfs"),
        ("/dev/x", "", "type"),
        ("/dev/x", "type = \"xfs\"\nlabel = \"0123456789abc\"", "a label of this type has at most 12 bytes"),
        ("/dev/x", "type = \"ext4\"\nlabel = \"a b\"", "`a b` is not a label"),
        ("/dev/x", "type = \"ext4\"\nlabel = \"\"", "`` is not a label"),
        ("/dev/x", "type = \"ext4\"\nwipe = true", "wipe"),
    ] {
        let manifest = sandbox.manifest(&filesystem(device, more));
        let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says(words);
    }
    let two = filesystem("ebs:/dev/sdf", "type = \"ext4\"").repeat(2);
    let refused = sandbox.run(&["validate", "--steps", &sandbox.manifest(&two)]).expect(2);
    let _ = refused.says("two resources manage the file system of ebs:/dev/sdf");
}
