//! What archives hold: GNU tar's tree in every format, and nothing that could leave the directory.

use std::{fs, os::unix::fs::MetadataExt, process::Command};

use crate::{
    archive::{Member, app_1, archive, digest, gzip, nothing_is_left, planned, refused, tar},
    sandbox::Sandbox,
    server::{Reply, Server},
};

#[test]
fn an_archive_that_could_leave_its_directory_is_refused() {
    let long = "x".repeat(99);
    let sandbox = Sandbox::new();
    let deep = "d/".repeat(49) + "f";
    let many: Vec<Member<'_>> = (0..30).map(|_| Member(b'x', "many", 0o644, "")).collect();
    for (members, words) in [
        (&[Member(b'0', "a/../../x", 0o644, "")][..], "a/../../x leads out of the archive's directory"),
        (&[Member(b'0', "/etc/x", 0o644, "")], "/etc/x has an absolute name"),
        (&[Member(b'2', "l", 0o777, "/etc")], "the link l to /etc leads out of the archive's directory"),
        (&[Member(b'2', "d/l", 0o777, "../../etc")], "the link d/l to ../../etc leads out"),
        (
            &[Member(b'2', "d/a", 0o777, ".."), Member(b'2', "l", 0o777, "d/a/../etc")],
            "the link l to d/a/../etc leads out",
        ),
        (&[Member(b'2', "l", 0o777, "d"), Member(b'0', "l/x", 0o644, "")], "the member l/x is below the link l"),
        (&[Member(b'0', "f", 0o644, ""), Member(b'0', "f/x", 0o644, "")], "the member f/x is below the file f"),
        (&[Member(b'2', "l", 0o777, "d"), Member(b'5', "l", 0o755, "")], "the archive has two members l"),
        (&[Member(b'0', "f", 0o644, ""), Member(b'0', "./f", 0o644, "")], "the archive has two members f"),
        (&[Member(b'1', "h", 0o644, "../x")], "../x leads out of the archive's directory"),
        (&[Member(b'1', "h", 0o644, "none")], "the hard link h to none is of no file before it"),
        (&[Member(b'3', "dev", 0o644, "")], "the member dev is a device"),
        (&[Member(b'6', "fifo", 0o644, "")], "the member fifo is a FIFO"),
        (&[Member(b'S', "sparse", 0o644, "")], "the member sparse is a sparse file"),
        (&[Member(b'0', "suid", 0o4755, "")], "the member suid has a set-user-id or set-group-id bit"),
        (&[Member(b'5', "sgid", 0o2755, "")], "the member sgid has a set-user-id or set-group-id bit"),
        (&[Member(b'0', "a\x1bb", 0o644, "")], "contains the control character"),
        (&[Member(b'L', "././@LongLink", 0o644, &"y/".repeat(2000))], "a name of 4000 bytes; the most is 2049"),
        (&[Member(b'0', &deep, 0o644, ""), Member(b'2', "x", 0o777, &long)], ""),
        (&[Member(b'x', "pax", 0o644, "30 path=a\n")], "damaged: a pax record"),
        (&[Member(b'x', "pax", 0o644, "12 size=999\n"), Member(b'0', "f", 0o644, "x")], "the member f has two sizes"),
        (&[Member(b'x', "pax", 0o644, "15 path=../../x\n"), Member(b'0', "f", 0o644, "x")], "damaged"),
        (&[Member(b'x', "pax", 0o644, "16 path=../../x\n"), Member(b'0', "f", 0o644, "x")], "../../x leads out"),
        (&[Member(b'g', "pax", 0o644, "10 path=a\n")], "a pax header gives all members the same path"),
        (&many, "the archive has more than 20 members"),
        (&[Member(b'0', "big", 0o644, &"z".repeat(5000))], "the archive unpacks to more than 4 KiB"),
        (&[], "the archive has no member"),
    ] {
        let path = sandbox.at("app");
        let limits = "max_members = 20\nmax_size = \"4KiB\"";
        let limits = if words.is_empty() { "" } else { limits };
        let resources = archive(&sandbox, &path, &gzip(&tar(members)), limits);
        if words.is_empty() {
            let _ = sandbox.run_resources(&resources).expect(0);
            fs::remove_dir_all(&path).unwrap();
            continue;
        }
        let finished = sandbox.run_resources(&resources).expect(1).says(words);
        assert!(!finished.stderr.contains('\x1b'), "{}", finished.stderr);
        assert!(!fs::exists(&path).unwrap(), "{words}");
        nothing_is_left(&sandbox);
        if !words.contains("no member") {
            let _ = sandbox.run(&["plan", "--steps", &sandbox.manifest(&resources)]).expect(1).says(words);
        }
    }
}

/// A tree with the members that archives have: files, empty ones and long names, directories, links, hard links, modes.
const TREE: &str = r#"
    umask 022; mkdir -p app/bin app/lib/empty "app/with space" app/long
    echo '#!/bin/sh' > app/bin/run; chmod 755 app/bin/run; : > app/lib/none; chmod 600 app/lib/none
    seq 100000 > app/lib/data; ln app/lib/data app/lib/same; ln -s ../lib/data app/bin/link; ln -s none app/lib/dangling
    long=$(printf 'n%.0s' $(seq 120)); mkdir app/long/$long; echo x > app/long/$long/$long; ln -s $long/$long app/long/l
    echo ü > app/ümlaut; chmod 750 app/lib; touch -d @1600000000 app/lib/data; chmod 444 app/bin/link
"#;

/// What `find` says about each file of a directory: path, type, mode, size, time, link, number of names. Zip has no
/// hard links.
const LOOK: &str = r"find . -mindepth 1 -type d -printf '%p d %m\n' -o -mindepth 1 -type l -printf '%p l %l\n' -o -mindepth 1 \
    -printf '%p f %m %s %T@ ' -exec sha256sum {} ';' | sed 's/[.][0-9]* / /' | sort";

#[test]
fn every_format_gives_the_tree_that_gnu_tar_gives() {
    let sandbox = Sandbox::new();
    let sh = |script: &str| {
        let mut command = Command::new("sh");
        let _ = command.args(["-euc", script]).current_dir(&sandbox.path).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let _ = sh(TREE);
    for (name, pack) in [
        ("plain", "tar -cf"),
        ("gnu.tar.gz", "tar --format=gnu -czf"),
        ("pax.tar.gz", "tar --format=pax -czf"),
        ("a.tar.xz", "tar -cJf"),
        ("two.tar.zst", "zstd --version > /dev/null; tar --zstd -cf"),
        ("a.zip", "zip -qry"),
    ] {
        let _ = sh(&format!("{pack} {name} app"));
        let extract = if name == "a.zip" { "unzip -q" } else { "tar --no-same-owner -xf" };
        let extract = format!("{extract} ../{name}");
        let expected = sh(&format!("umask 022; mkdir {name}.d; cd {name}.d; {extract}; {LOOK}"));
        let path = sandbox.at(&format!("{name}.ours"));
        let bytes = fs::read(sandbox.at(name)).unwrap();
        let _ = sandbox.run_resources(&archive(&sandbox, &path, &bytes, "")).expect(0);
        let ours = sh(&format!("cd {name}.ours; {LOOK}"));
        assert_eq!(ours, expected, "{name}");
        assert!(ours.lines().count() > 15, "{ours}");
        if name != "a.zip" {
            assert_eq!(fs::metadata(format!("{path}/app/lib/same")).unwrap().nlink(), 2);
        }
        let strip = archive(&sandbox, &sandbox.at(&format!("{name}.strip")), &bytes, "strip = 2");
        let _ = sandbox.run_resources(&strip).expect(1).says("the link link to ../lib/data leads out");
    }
}

#[test]
fn what_is_no_archive_or_half_of_one_is_refused() {
    let sandbox = Sandbox::new();
    let path = sandbox.at("app");
    let whole = app_1();
    for (bytes, words) in [
        (&b"#!/bin/sh"[..], "the archive is of an unknown format"),
        (b"", "the archive is of an unknown format"),
        (b"BZh91AY", "the archive is of the format bzip2"),
        (&whole[..whole.len() / 2], "incomplete deflate stream"),
        (&gzip(&tar(&[Member(b'0', "f", 0o644, "x")])[..512]), "the archive ends in the middle of a member"),
        (&gzip(&[b'x'; 512]), "a checksum is wrong"),
    ] {
        refused(&sandbox, &archive(&sandbox, &path, bytes, ""), words);
        assert!(!fs::exists(&path).unwrap(), "{words}");
    }
    let other = archive(&sandbox, &path, &whole, "").replace(&digest(&whole), &digest(b""));
    refused(&sandbox, &other, "the sha256 of the");
    nothing_is_left(&sandbox);
}

#[test]
fn the_bytes_of_a_zip_are_those_of_its_records() {
    let sandbox = Sandbox::new();
    let sh = |script: &str| {
        let status = Command::new("sh").args(["-euc", script]).current_dir(&sandbox.path).status().unwrap();
        assert!(status.success(), "{script}");
    };
    sh("mkdir d; echo content > d/file; zip -q0r whole.zip d; zip -q -e -P key secret.zip d/file");
    let whole = fs::read(sandbox.at("whole.zip")).unwrap();
    let at = |words: &[u8]| whole.windows(words.len()).position(|window| window == words).unwrap();
    let with = |at: usize, byte: u8| [&whole[..at], &[byte], &whole[at + 1..]].concat();
    let path = sandbox.at("app");
    for (bytes, words) in [
        (with(at(b"content"), b'K'), "the checksum of a member is wrong"),
        (with(at(b"d/file"), b'e'), "the header of the member d/file is not that of its list"),
        (with(whole.len() - 6, 1), "its list of members is not where its end says"),
        (whole[..whole.len() - 1].to_vec(), "its end is missing"),
        (fs::read(sandbox.at("secret.zip")).unwrap(), "the member d/file is encrypted"),
    ] {
        let _ = sandbox.run_resources(&archive(&sandbox, &path, &bytes, "")).expect(1).says(words);
        assert!(!fs::exists(&path).unwrap(), "{words}");
    }
    nothing_is_left(&sandbox);
}

#[test]
fn a_member_of_an_archive_becomes_a_file() {
    let sandbox = Sandbox::new();
    let bytes = app_1();
    let server = Server::start({
        let bytes = bytes.clone();
        move |_| Reply::ok(bytes.clone())
    });
    let path = sandbox.at("tool");
    let of = |source: &str, member: &str| {
        format!(
            "[[resource]]\nkind = \"file\"\npath = \"{path}\"\nsource = \"{source}\"\nsha256 = \"{}\"\nmember = \"{member}\"\n\
             mode = \"0755\"\n",
            digest(&bytes)
        )
    };
    let url = server.url("/app.tgz");
    let one = of(&url, "./app-1/bin/app");
    planned(&sandbox, &one, "create from http://");
    let _ = sandbox.run_resources(&one).expect(0).says("1 change");
    assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    let requests = server.requests().len();
    let _ = sandbox.run_resources(&one).expect(0).says("0 changes");
    assert_eq!(server.requests().len(), requests);
    fs::write(&path, "eno").unwrap();
    planned(&sandbox, &one, "write content again (the file has changed since) from");
    let _ = sandbox.run_resources(&one).expect(0).says("1 change");
    assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    // A hard link has the bytes of its file.
    planned(&sandbox, &of(&url, "app-1/lib/same"), "write another member from");
    let _ = sandbox.run_resources(&of(&url, "app-1/lib/same")).expect(0).says("1 change");
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    let local = format!("file://{}", sandbox.write("local.archive", &bytes));
    for (member, words) in [
        ("app-1/none", "the archive has no member app-1/none"),
        ("app-1/lib", "the archive has no member app-1/lib"),
        ("app-1/lib/link", "the member app-1/lib/link is a symbolic link to ../bin/app"),
    ] {
        refused(&sandbox, &of(&local, member), words);
        let _ = sandbox.run_resources(&of(&url, member)).expect(1).says(words);
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }
    for (resources, words) in [
        (of(&url, "app").replace("sha256", "#"), "`member` needs the `sha256` of the archive"),
        (of(&url, "../app"), "contains `..`"),
        (of(&url, "app") + "template = true\n", "`template` and `member` exclude each other"),
    ] {
        let _ = sandbox.run(&["validate", "--steps", &sandbox.manifest(&resources)]).expect(2).says(words).says("^");
    }
}
