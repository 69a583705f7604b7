//! The kind `archive`: a directory with the content of an archive, exchanged as a whole.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
    process::Command,
};

use sha2::{Digest, Sha256};

use crate::{
    sandbox::{Finished, Sandbox},
    server::{Reply, Server},
    service::{app, unit},
    standin::Machine,
};

/// A member of a test's archive: its type, name, mode, and bytes or link target.
pub struct Member<'a>(pub u8, pub &'a str, pub u32, pub &'a str);

/// Returns a tar of these members. Their names are written as they are.
pub fn tar(members: &[Member<'_>]) -> Vec<u8> {
    let mut bytes = vec![];
    for Member(kind, name, mode, content) in members {
        let is_link = matches!(kind, b'1' | b'2');
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if is_link {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.as_old_mut().linkflag = [*kind];
        header.set_mode(*mode);
        header.set_mtime(1_700_000_000);
        header.set_uid(4711);
        header.set_gid(4711);
        header.set_size(if is_link { 0 } else { content.len() as u64 });
        header.set_cksum();
        bytes.extend(header.as_bytes());
        if !is_link {
            bytes.extend(content.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns an archive resource with a source in the sandbox.
pub fn archive(sandbox: &Sandbox, path: &str, bytes: &[u8], fields: &str) -> String {
    let source = sandbox.write(&format!("{}.archive", &digest(bytes)[..8]), bytes);
    let sha256 = digest(bytes);
    format!(
        "[[resource]]\nkind = \"archive\"\npath = \"{path}\"\nsource = \"file://{source}\"\nsha256 = \"{sha256}\"\n{fields}\n"
    )
}

pub fn app_1() -> Vec<u8> {
    gzip(&tar(&[
        Member(b'5', "app-1/", 0o775, ""),
        Member(b'0', "app-1/bin/app", 0o775, "one"),
        Member(b'0', "app-1/lib/data", 0o666, "data"),
        Member(b'2', "app-1/lib/link", 0o777, "../bin/app"),
        Member(b'1', "app-1/lib/same", 0o644, "app-1/lib/data"),
    ]))
}

fn app_2() -> Vec<u8> {
    gzip(&tar(&[Member(b'0', "app-2/bin/app", 0o755, "two"), Member(b'0', "app-2/etc/sample.conf", 0o644, "sample")]))
}

/// Checks that `plan` and `run` refuse a manifest with the same words.
#[track_caller]
pub fn refused(sandbox: &Sandbox, resources: &str, words: &str) {
    let manifest = sandbox.manifest(resources);
    for verb in ["plan", "run"] {
        let _ = sandbox.run(&[verb, "--steps", &manifest]).expect(1).says(words);
    }
}

#[track_caller]
pub fn planned(sandbox: &Sandbox, resources: &str, words: &str) {
    let _ = sandbox.run(&["plan", "--steps", &sandbox.manifest(resources)]).expect(0).says(words);
}

/// Fails if anything is beside the directories of archives.
#[track_caller]
pub fn nothing_is_left(sandbox: &Sandbox) {
    let mut find = Command::new("find");
    let find = find.arg(&sandbox.path).args(["-name", "*.glovo-bootstrap", "-o", "-name", "*.next"]);
    let found = String::from_utf8(find.output().unwrap().stdout).unwrap();
    assert_eq!(found, "");
}

#[test]
fn an_archive_becomes_a_directory_and_another_replaces_it() {
    let sandbox = Sandbox::new();
    let path = sandbox.at("opt/app");
    let one = archive(&sandbox, &path, &app_1(), "strip = 1");
    let short = &digest(&app_1())[..12];
    planned(&sandbox, &one, &format!("unpack sha256 {short}… from file://"));
    assert!(!fs::exists(sandbox.at("opt")).unwrap(), "a plan changes nothing");
    let _ = sandbox.run_resources(&one).expect(0).says("1 change");
    assert_eq!(fs::read_to_string(format!("{path}/lib/link")).unwrap(), "one");
    let status = |name: &str| fs::metadata(format!("{path}/{name}")).unwrap();
    assert_eq!(status("lib/same").ino(), status("lib/data").ino());
    // Only the owner may write, and the owners in the archive do not count.
    for (name, mode) in [("", 0o755), ("bin", 0o755), ("bin/app", 0o755), ("lib/data", 0o644)] {
        let found = status(name);
        assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (mode, 0, 0), "{name}");
    }
    assert_eq!(status("bin/app").mtime(), 1_700_000_000);
    let _ = sandbox.run_resources(&one).expect(0).says("0 changes");
    nothing_is_left(&sandbox);

    let two = archive(&sandbox, &path, &app_2(), "strip = 1");
    planned(&sandbox, &two, &format!("unpack sha256 {}…, in place of sha256 {short}…", &digest(&app_2())[..12]));
    let _ = sandbox.run_resources(&two).expect(0).says("1 change");
    assert_eq!(fs::read_to_string(format!("{path}/bin/app")).unwrap(), "two");
    assert!(!fs::exists(format!("{path}/lib")).unwrap(), "the new archive does not have it");
    let _ = sandbox.run_resources(&two).expect(0).says("0 changes");
    nothing_is_left(&sandbox);
}

#[test]
fn what_was_changed_by_hand_is_named_and_comes_back() {
    let sandbox = Sandbox::new();
    let path = sandbox.at("app");
    let one = archive(&sandbox, &path, &app_1(), "strip = 1");
    let _ = sandbox.run_resources(&one).expect(0);
    for (script, words) in [
        ("echo more >> bin/app", "unpack again: bin/app was edited; from"),
        ("printf eno > bin/app; touch -d @1700000000 bin/app", "unpack again: bin/app was edited;"),
        ("rm bin/app", "unpack again: bin/app is missing;"),
        ("rm -r lib", "unpack again: lib is missing;"),
        ("rm -r lib; echo > lib", "unpack again: lib is no longer a directory;"),
        ("ln -sf data lib/link", "unpack again: lib/link was edited;"),
        ("chmod 777 bin/app", "unpack again: bin/app has mode 0777, not 0755;"),
        ("chown 5:6 lib", "unpack again: lib belongs to 5:6;"),
        ("chown 5:6 .", "unpack again, with owner root:root (now "),
        ("chmod 700 .", "unpack again, with mode 0755 (now 0700)"),
        ("rm lib/data; mkfifo lib/data", "unpack again: lib/data is no longer a file"),
        ("rm -rf ../app", "unpack sha256"),
    ] {
        let _ = Finished::from(sandbox.shell(&format!("cd {path}; {script}")).output().unwrap()).expect(0);
        planned(&sandbox, &one, words);
        let _ = sandbox.run_resources(&one).expect(0).says("1 change");
        let _ = sandbox.run_resources(&one).expect(0).says("0 changes");
        assert_eq!(fs::read_to_string(format!("{path}/bin/app")).unwrap(), "one", "{script}");
    }
    // The same bytes in another file are no difference, and are read only once.
    let _ = sandbox.shell(&format!("cd {path}; cp bin/app x; mv x bin/app; touch lib/data")).status().unwrap();
    let _ = sandbox.run_resources(&one).expect(0).says("0 changes");
    nothing_is_left(&sandbox);
}

#[test]
fn a_file_of_others_is_never_removed() {
    let sandbox = Sandbox::new();
    let path = sandbox.at("app");
    let foreign = sandbox.write("app/foreign", "mine");
    let one = archive(&sandbox, &path, &app_1(), "strip = 1");
    refused(&sandbox, &one, "has files that no archive has brought: foreign");
    fs::remove_file(&foreign).unwrap();
    // An empty directory is no one's.
    let _ = sandbox.run_resources(&one).expect(0).says("1 change");
    let added = sandbox.write("app/lib/added", "mine");
    refused(&sandbox, &one, "has files that the archive has not brought: lib/added");
    refused(&sandbox, &archive(&sandbox, &path, &app_2(), "strip = 1"), "keep = [\"lib/added\"]");
    assert_eq!(fs::read_to_string(added).unwrap(), "mine");
    nothing_is_left(&sandbox);
}

#[test]
fn a_kept_path_moves_into_each_new_directory() {
    let sandbox = Sandbox::new();
    let path = sandbox.at("app");
    let keep = "strip = 1\nkeep = [\"data/\", \"etc/sample.conf\", \"var/a/b\"]";
    let _ = sandbox.run_resources(&archive(&sandbox, &path, &app_2(), keep)).expect(0);
    // Until something is there, the archive's own is there.
    assert_eq!(fs::read_to_string(sandbox.at("app/etc/sample.conf")).unwrap(), "sample");
    for name in ["data/of-app", "etc/sample.conf", "var/a/b/c"] {
        let _ = sandbox.write(&format!("app/{name}"), "mine");
    }
    refused(&sandbox, &archive(&sandbox, &path, &app_2(), keep), "has files that the archive has not brought: var");
    fs::remove_dir_all(sandbox.at("app/var")).unwrap();
    let _ = sandbox.run_resources(&archive(&sandbox, &path, &app_2(), keep)).expect(0).says("0 changes");
    for bytes in [app_1(), app_2(), app_1()] {
        let _ = sandbox.run_resources(&archive(&sandbox, &path, &bytes, keep)).expect(0).says("1 change");
        for name in ["data/of-app", "etc/sample.conf"] {
            assert_eq!(fs::read_to_string(sandbox.at(&format!("app/{name}"))).unwrap(), "mine", "{name}");
        }
        let _ = sandbox.run_resources(&archive(&sandbox, &path, &bytes, keep)).expect(0).says("0 changes");
    }
    nothing_is_left(&sandbox);
}

#[test]
fn a_kept_path_of_another_user_moves_too() {
    let sandbox = Sandbox::new();
    let path = sandbox.at("app");
    let fields = "strip = 1\nowner = \"4711\"\ngroup = \"4711\"\nkeep = [\"data\", \"lib/cache\"]";
    let _ = sandbox.run_resources(&archive(&sandbox, &path, &app_1(), fields)).expect(0);
    for name in ["data", "lib/cache"] {
        let _ = sandbox.write(&format!("app/{name}/mine"), name);
        let directory = format!("{path}/{name}");
        chown(&directory, Some(4712), Some(4712)).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    }
    for (bytes, mode) in [(app_2(), 0o755), (app_1(), 0o000), (app_2(), 0o500)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let _ = sandbox.run_resources(&archive(&sandbox, &path, &bytes, fields)).expect(0).says("1 change");
        for name in ["data", "lib/cache"] {
            assert_eq!(fs::read_to_string(format!("{path}/{name}/mine")).unwrap(), name);
        }
        nothing_is_left(&sandbox);
    }
}

#[test]
fn a_link_of_a_user_is_not_the_previous_directory() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.at("home")).unwrap();
    chown(sandbox.at("home"), Some(65534), Some(65534)).unwrap();
    let (path, previous) = (sandbox.at("home/app"), sandbox.at("home/.app.tree.glovo-bootstrap"));
    let fields = "strip = 1\nowner = \"65534\"\ngroup = \"65534\"\nkeep = [\"data\"]";
    let declared = archive(&sandbox, &path, &app_1(), fields);
    let _ = sandbox.run_resources(&declared).expect(0);
    // As between the exchange and the end of a run. The user has replaced the previous directory.
    let notes = "cd /var/lib/glovo-bootstrap; for note in archive-*.note; do cp $note ${note%.note}.next; done";
    assert!(sandbox.shell(notes).status().unwrap().success());
    for name in ["bin/app", "data"] {
        let _ = sandbox.write(&format!("of-root/{name}"), "precious");
    }
    symlink(sandbox.at("of-root"), &previous).unwrap();
    lchown(&previous, Some(65534), Some(65534)).unwrap();
    let run = sandbox.run_resources(&declared).expect(0);
    let _ = run.says(&format!("{previous} is not the directory that a run has left there"));
    for name in ["bin/app", "data"] {
        assert_eq!(fs::read_to_string(sandbox.at(&format!("of-root/{name}"))).unwrap(), "precious");
    }
}

#[test]
fn kept_files_move_before_a_cut_off_run_goes_on() {
    let sandbox = Sandbox::new();
    let (path, previous) = (sandbox.at("app"), sandbox.at(".app.tree.glovo-bootstrap"));
    let fields = "strip = 1\nkeep = [\"data\"]";
    let declared = archive(&sandbox, &path, &app_1(), fields);
    let _ = sandbox.run_resources(&declared).expect(0);
    // As after a power failure between the exchange and the move.
    let notes = "cd /var/lib/glovo-bootstrap; for note in archive-*.note; do mv $note ${note%.note}.next; done";
    assert!(sandbox.shell(notes).status().unwrap().success());
    let _ = sandbox.write(".app.tree.glovo-bootstrap/data/old", "old");
    let _ = sandbox.write("app/data/new", "new");
    refused(&sandbox, &declared, &format!("{path}/data and {previous}/data both exist"));
    for (name, text) in [("app/data/new", "new"), (".app.tree.glovo-bootstrap/data/old", "old")] {
        assert_eq!(fs::read_to_string(sandbox.at(name)).unwrap(), text);
    }
    fs::remove_dir_all(sandbox.at("app/data")).unwrap();
    // A later resource of the same run, such as a service, finds them.
    let command = "[[resource]]\nkind = \"command\"\nname = \"look\"\nargv = [\"cp\", \"{{ data }}/old\", \"{{ copy }}\"]\n\
                   unless = { exists = \"{{ copy }}\" }\n";
    let command = command.replace("{{ data }}", &format!("{path}/data")).replace("{{ copy }}", &sandbox.at("copy"));
    let _ = sandbox.run_resources(&format!("{declared}{command}")).expect(0).says("complete what an earlier run began");
    assert_eq!(fs::read_to_string(sandbox.at("copy")).unwrap(), "old");
    nothing_is_left(&sandbox);
}

#[test]
fn what_cannot_be_unpacked_is_refused_by_plan() {
    let sandbox = Sandbox::new();
    let path = sandbox.at("app");
    refused(&sandbox, &archive(&sandbox, &path, &app_1(), "strip = 9"), "no member with more than 9 components");
    let first = gzip(&tar(&[Member(b'5', "app-3/data", 0o755, "")]));
    let _ = sandbox.run_resources(&archive(&sandbox, &path, &first, "strip = 1\nkeep = [\"data/x\"]")).expect(0);
    let _ = sandbox.write("app/data/x", "mine");
    let data = gzip(&tar(&[Member(b'0', "app-3/data", 0o644, "")]));
    let words = "`keep` names data/x, but in the archive data is not a directory";
    refused(&sandbox, &archive(&sandbox, &path, &data, "strip = 1\nkeep = [\"data/x\"]"), words);
}

#[test]
fn a_full_directory_of_an_archive_is_named() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.at("full")).unwrap();
    let manifest = sandbox.manifest(&archive(&sandbox, &sandbox.at("full/app"), &app_1(), ""));
    let mut command = sandbox.shell("mount -t tmpfs -o nr_inodes=3 tmpfs \"$1\"; shift; exec \"$@\"");
    let command =
        command.args([&sandbox.at("full"), env!("CARGO_BIN_EXE_glovo-bootstrap"), "run", "--steps", &manifest]);
    let run = Finished::from(command.output().unwrap()).expect(1).says("ENOSPC");
    let _ = run.says(&format!("df -i {}\n", sandbox.at("full")));
}

#[test]
fn a_link_a_file_and_a_mount_point_are_refused() {
    let sandbox = Sandbox::new();
    let (file, link) = (sandbox.write("file", ""), sandbox.at("link"));
    symlink("/etc", &link).unwrap();
    refused(&sandbox, &archive(&sandbox, &link, &app_1(), ""), "is a symbolic link to /etc");
    refused(&sandbox, &archive(&sandbox, &file, &app_1(), ""), "exists and is not a directory");
    let path = sandbox.at("app");
    fs::create_dir_all(format!("{path}/below")).unwrap();
    for at in [path.clone(), format!("{path}/below")] {
        let manifest = sandbox.manifest(&archive(&sandbox, &path, &app_1(), ""));
        for verb in ["plan", "run"] {
            let mut command = sandbox.shell("mount -t tmpfs tmpfs \"$1\"; shift; exec \"$@\"");
            let command = command.args([&at, env!("CARGO_BIN_EXE_glovo-bootstrap"), verb, "--steps", &manifest]);
            let words = format!("{at} is a mount point: the directory {path} cannot be exchanged");
            let _ = Finished::from(command.output().unwrap()).expect(1).says(&words);
        }
    }
}

#[test]
fn wrong_declarations_are_refused_with_their_place() {
    let sandbox = Sandbox::new();
    let of = |fields: &str| {
        format!("[[resource]]\nkind = \"archive\"\npath = \"/opt/app\"\nsource = \"https://a/b\"\n{fields}\n")
    };
    let sha256 = format!("sha256 = \"{}\"", "0".repeat(64));
    let file = |path: &str| format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"\"\n");
    for (resources, words) in [
        (of(""), "needs the field `sha256`"),
        (of(&format!("{sha256}\nkeep = [\"../x\"]")), "`/../x` contains `..`"),
        (of(&format!("{sha256}\nkeep = [\"\"]")), "`` is not a path below the directory"),
        (of(&format!("{sha256}\nkeep = [\"a\", \"a/b\"]")), "`a/b` is kept twice"),
        (of(&format!("{sha256}\nmax_members = 0")), "the most members are 1 to 1000000"),
        (of(&sha256).replace("/opt/app", "/"), "`/` cannot be the directory of an archive"),
        (of(&sha256) + &of(&sha256), "two resources manage /opt/app"),
        (of(&sha256) + &file("/opt/app/x/y"), "/opt/app/x/y is in /opt/app, which an archive replaces as a whole"),
        (file("/opt/app/x") + &of(&format!("{sha256}\nkeep = [\"xy\"]")), "name it in `keep` of the archive at"),
    ] {
        let refused = sandbox.run(&["validate", "--steps", &sandbox.manifest(&resources)]).expect(2);
        let _ = refused.says(words).says("^");
    }
    let kept = of(&format!("{sha256}\nkeep = [\"x/\"]")) + &file("/opt/app/x/y") + &file("/opt/app/x/z");
    let _ = sandbox.run(&["validate", "--steps", &sandbox.manifest(&kept)]).expect(0);
    let restart = "[[resource]]\nkind = \"service\"\nname = \"app\"\nrunning = true\nrestart_on = [\"/opt/app\"]\n";
    let _ = sandbox.run(&["validate", "--steps", &sandbox.manifest(&(of(&sha256) + restart))]).expect(0);
}

#[test]
fn an_archive_is_downloaded_only_if_it_is_needed() {
    let sandbox = Sandbox::new();
    let bytes = app_1();
    let server = Server::start({
        let bytes = bytes.clone();
        move |_| Reply::ok(bytes.clone())
    });
    let path = sandbox.at("app");
    let resources = format!(
        "[[resource]]\nkind = \"archive\"\npath = \"{path}\"\nsource = \"{}\"\nsha256 = \"{}\"\n",
        server.url("/app.zip"),
        digest(&bytes)
    );
    let _ = sandbox.run_resources(&resources).expect(0).says("1 change");
    let requests = server.requests().len();
    let _ = sandbox.run_resources(&resources).expect(0).says("0 changes");
    planned(&sandbox, &resources, "0 changes pending");
    assert_eq!(server.requests().len(), requests);
}

#[test]
fn a_command_and_a_service_react_to_a_new_directory() {
    let machine = Machine::new();
    let sandbox = &machine.sandbox;
    let running = "running = true\nstable = \"0s\"\nrestart_on = [\"/etc/app\"]";
    let reacts = "[[resource]]\nkind = \"command\"\nname = \"reacts\"\nargv = [\"true\"]\nrun_on = [\"/etc/app\", \"/etc/app/bin/app\"]\n";
    let rest = reacts.to_owned() + &app(&unit("true", ""), running);
    let of = |bytes: &[u8]| archive(sandbox, "/etc/app", bytes, "strip = 1") + &rest;
    planned(sandbox, &of(&app_1()), "run");
    let _ = machine.run(&of(&app_1())).expect(0);
    let _ = machine.run(&of(&app_1())).expect(0).says("0 changes");
    planned(sandbox, &of(&app_2()), "restart: /etc/app has changed since its start");
    let _ = machine.run(&of(&app_2())).expect(0).says("restart").says("`true`");
    // A fixed directory is a new one, too.
    machine.write("etc/app/bin/app", "edited");
    planned(sandbox, &of(&app_2()), "restart: /etc/app");
    let _ = machine.run(&of(&app_2())).expect(0).says("restart");
    let _ = machine.run(&of(&app_2())).expect(0).says("0 changes");
    nothing_is_left(sandbox);
}

#[test]
fn a_service_that_refuses_its_new_directory_gets_the_old_one_back() {
    let machine = Machine::new();
    let sandbox = &machine.sandbox;
    let running = "running = true\nstable = \"0s\"\nrestart_on = [\"/etc/app\"]";
    let needs = app(&unit("grep -q one /etc/app/bin/app", ""), running);
    let of = |bytes: &[u8]| archive(sandbox, "/etc/app", bytes, "strip = 1\nkeep = [\"data\"]") + &needs;
    let _ = machine.run(&of(&app_1())).expect(0);
    machine.write("etc/app/data/x", "mine");
    let _ = machine.run(&of(&app_2())).expect(1).says("put back: /etc/app");
    assert_eq!(machine.read("etc/app/bin/app"), "one");
    assert_eq!(machine.read("etc/app/data/x"), "mine");
    let _ = machine.run(&of(&app_1())).expect(0).says("complete what an earlier run began");
    let _ = machine.run(&of(&app_1())).expect(0).says("0 changes");
    assert_eq!(machine.read("etc/app/data/x"), "mine");
    nothing_is_left(sandbox);
}

#[test]
fn an_images_tree_has_the_directory_and_its_note() {
    let sandbox = Sandbox::new();
    let bytes = app_1();
    let _ = sandbox.write("tree/etc/passwd", "root:x:0:0::/:\n");
    let _ = sandbox.write("tree/app.tar.gz", &bytes);
    let resources = format!(
        "[[resource]]\nkind = \"archive\"\npath = \"/opt/app\"\nsource = \"file:///app.tar.gz\"\nsha256 = \"{}\"\nstrip = 1\n",
        digest(&bytes)
    );
    let manifest = sandbox.manifest(&resources);
    let tree = sandbox.at("tree");
    let run = || sandbox.run(&["run", "--steps", &manifest, "--root", &tree]).expect(0);
    let _ = run().says("1 change");
    assert_eq!(fs::read_to_string(sandbox.at("tree/opt/app/bin/app")).unwrap(), "one");
    let _ = run().says("0 changes");
    // A copy of the tree has other numbers and times, but the same bytes.
    let copied = sandbox.at("copied");
    let _ = Command::new("cp").args(["-a", &tree, &copied]).status().unwrap();
    let _ = sandbox.run(&["run", "--steps", &manifest, "--root", &copied]).expect(0).says("0 changes");
}

#[test]
fn a_directory_is_unpacked_for_its_owner() {
    let sandbox = Sandbox::new();
    let home = sandbox.at("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
    for path in [sandbox.at("app"), format!("{home}/app")] {
        let one = archive(&sandbox, &path, &app_1(), "strip = 1\nowner = \"nobody\"\nmode = \"0750\"");
        let _ = sandbox.run_resources(&one).expect(0).says("1 change");
        for (name, mode) in [("", 0o750), ("bin/app", 0o755), ("lib", 0o755)] {
            let found = fs::metadata(format!("{path}/{name}")).unwrap();
            assert_eq!((found.uid(), found.mode() & 0o7777), (65534, mode), "{path}/{name}");
        }
        assert_eq!(fs::symlink_metadata(format!("{path}/lib/link")).unwrap().uid(), 65534);
        let _ = sandbox.run_resources(&one).expect(0).says("0 changes");
        let two = archive(&sandbox, &path, &app_2(), "strip = 1\nowner = \"nobody\"");
        planned(&sandbox, &two, ", with mode 0755 (now 0750)");
        let _ = sandbox.run_resources(&two).expect(0).says("1 change");
    }
    refused(&sandbox, &archive(&sandbox, &format!("{home}/root"), &app_1(), ""), "cannot belong to root");
    nothing_is_left(&sandbox);
}
