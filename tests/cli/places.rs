//! Resources below directories of users: `plan` agrees with `run`, and `validate` refuses what the manifest alone
//! shows.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
};

use crate::{
    racer::Racer,
    sandbox::{Finished, Sandbox},
    standin::Machine,
};

const UID_NOBODY: u32 = 65534;

/// A directory in the sandbox.
fn make(sandbox: &Sandbox, name: &str, (uid, gid): (u32, u32), mode: u32) -> String {
    let path = sandbox.at(name);
    fs::create_dir_all(&path).unwrap();
    chown(&path, Some(uid), Some(gid)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

fn file(path: &str, more: &str) -> String {
    format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"new\\n\"\n{more}")
}

fn directory(path: &str, more: &str) -> String {
    format!("[[resource]]\nkind = \"directory\"\npath = \"{path}\"\n{more}")
}

fn plan(sandbox: &Sandbox, resources: &str) -> Finished {
    let manifest = sandbox.manifest(resources);
    sandbox.run(&["plan", "--steps", &manifest])
}

/// Checks that `plan` and `run` refuse it with these words, and that nothing was made.
#[track_caller]
fn refused(sandbox: &Sandbox, resources: &str, words: &str) {
    let _ = plan(sandbox, resources).expect(1).says(words);
    let _ = sandbox.run_resources(resources).expect(1).says(words);
}

fn owner(path: &str) -> (u32, u32) {
    let status = fs::symlink_metadata(path).unwrap();
    (status.uid(), status.mode() & 0o7777)
}

const NOBODYS: &str = "owner = \"nobody\"\n";

#[test]
fn a_users_files_are_made_as_that_user() {
    let sandbox = Sandbox::new();
    let home = make(&sandbox, "home", (UID_NOBODY, UID_NOBODY), 0o700);
    let (ssh, keys, link) = (format!("{home}/.ssh"), format!("{home}/.ssh/authorized_keys"), format!("{home}/l"));
    let resources = directory(&ssh, &format!("{NOBODYS}mode = \"0700\"\n"))
        + &file(&keys, &format!("{NOBODYS}mode = \"0600\"\n"))
        + &directory(&format!("{home}/a/b"), NOBODYS)
        + &format!("[[resource]]\nkind = \"link\"\npath = \"{link}\"\ntarget = \"a\"\n");
    let _ = plan(&sandbox, &resources).expect(0).says("4 changes pending");
    let _ = sandbox.run_resources(&resources).expect(0).says("converged: 4 changes");
    assert_eq!((owner(&ssh), owner(&keys)), ((UID_NOBODY, 0o700), (UID_NOBODY, 0o600)));
    assert_eq!([&link, &format!("{home}/a"), &format!("{home}/a/b")].map(|path| owner(path).0), [UID_NOBODY; 3]);
    let _ = sandbox.run_resources(&resources).expect(0).says("converged: 0 changes");
    fs::set_permissions(&keys, Permissions::from_mode(0o644)).unwrap();
    fs::write(&keys, "old\n").unwrap();
    let _ = plan(&sandbox, &resources).expect(0).says("-old").says("+new");
    let _ = sandbox.run_resources(&resources).expect(0).says("converged: 1 change");
    let names: Vec<_> = fs::read_dir(&ssh).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["authorized_keys"]);
    // A file of root at the path is replaced, not given to the user.
    chown(&keys, Some(0), Some(0)).unwrap();
    let inode = fs::metadata(&keys).unwrap().ino();
    fs::set_permissions(&keys, Permissions::from_mode(0o644)).unwrap();
    let _ = sandbox.run_resources(&resources).expect(0).says("write again, to set owner");
    assert!(owner(&keys) == (UID_NOBODY, 0o600) && fs::metadata(&keys).unwrap().ino() != inode);
}

#[test]
fn what_is_not_the_users_is_refused_below_its_directory() {
    let sandbox = Sandbox::new();
    let home = make(&sandbox, "home", (UID_NOBODY, UID_NOBODY), 0o755);
    let belongs = format!("{home} belongs to uid 65534, not to root");
    refused(&sandbox, &file(&format!("{home}/f"), ""), &belongs);
    refused(&sandbox, &file(&format!("{home}/f"), "owner = \"daemon\"\n"), "cannot belong to uid 1");
    refused(&sandbox, &directory(&format!("{home}/d"), "owner = \"root\"\n"), &belongs);
    let daemons = format!("{NOBODYS}group = \"daemon\"\n");
    refused(&sandbox, &file(&format!("{home}/f"), &daemons), "cannot have the group daemon: user nobody");
    let roots = make(&sandbox, "home/roots", (0, 0), 0o755);
    refused(&sandbox, &file(&format!("{roots}/f"), NOBODYS), "belongs to root, but is below");
    refused(&sandbox, &directory(&roots, NOBODYS), "belongs to root");
    let target = make(&sandbox, "target", (UID_NOBODY, UID_NOBODY), 0o755);
    symlink(&target, format!("{home}/link")).unwrap();
    std::os::unix::fs::lchown(format!("{home}/link"), Some(UID_NOBODY), None).unwrap();
    refused(&sandbox, &file(&format!("{home}/link/f"), NOBODYS), "links below a user's directory are not followed");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&home).unwrap().count(), 2);
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let sandbox = Sandbox::new();
    for (name, ids, mode, words) in [
        ("group", (0, 1), 0o775, "its group may write to"),
        ("users-group", (UID_NOBODY, 1), 0o775, "its group may write to"),
        ("open", (0, 0), 0o777, "every user may write to"),
    ] {
        let path = make(&sandbox, name, ids, mode);
        let more = if ids.0 == 0 { "" } else { NOBODYS };
        refused(&sandbox, &file(&format!("{path}/f"), more), words);
        refused(&sandbox, &format!("[[resource]]\nkind = \"link\"\npath = \"{path}/l\"\ntarget = \"x\"\n"), words);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }
}

#[test]
fn a_plan_knows_whose_the_directories_will_be() {
    let sandbox = Sandbox::new();
    let path = sandbox.at("srv/app");
    // The directory does not exist yet, or exists and must still get its owner.
    for there in [false, true] {
        let fine = directory(&path, NOBODYS) + &file(&format!("{path}/f"), NOBODYS);
        let _ = plan(&sandbox, &fine).expect(0).says("2 changes pending");
        // `validate` cannot see this, because a link leads to the directory of another resource.
        let _ = fs::remove_file(sandbox.at("link"));
        symlink(sandbox.at("srv"), sandbox.at("link")).unwrap();
        let linked = sandbox.at("link/app/f");
        let _ = plan(&sandbox, &(directory(&path, NOBODYS) + &file(&linked, ""))).expect(1).says("not to root");
        fs::create_dir_all(&path).unwrap();
        if there {
            let _ = sandbox.run_resources(&fine).expect(0).says("converged: 2 changes");
        }
    }
    // A new user's home directory is made with the user.
    let home = "/home/glovo-places-test";
    let user = "[[resource]]\nkind = \"user\"\nname = \"glovo-places-test\"\n".to_owned();
    let file = |owner: &str| file(&format!("{home}/f"), owner);
    let _ = plan(&sandbox, &(user.clone() + &file("owner = \"glovo-places-test\"\n"))).expect(0);
    let _ = plan(&sandbox, &(user + &file(""))).expect(1).says("belongs to glovo-places-test, not to root");
}

#[test]
fn a_missing_directory_is_foreseen() {
    let sandbox = Sandbox::new();
    let link = format!("[[resource]]\nkind = \"link\"\npath = \"{}\"\ntarget = \"x\"\n", sandbox.at("none/l"));
    refused(&sandbox, &link, "none does not exist");
    refused(&sandbox, &file(&sandbox.at("none/f"), ""), "none does not exist");
    let _ = plan(&sandbox, &(directory(&sandbox.at("none"), "") + &link)).expect(0).says("2 changes pending");
}

#[test]
fn validate_refuses_what_declarations_alone_show() {
    let sandbox = Sandbox::new();
    let validate = |resources: &str| {
        let manifest = sandbox.manifest(resources);
        sandbox.run(&["validate", "--steps", &manifest])
    };
    let app = directory("/srv/app", NOBODYS);
    let link = "[[resource]]\nkind = \"link\"\npath = \"/srv/app/l\"\ntarget = \"x\"\n";
    let fine = app.clone() + &file("/srv/app/a/f", NOBODYS) + &directory("/srv/app/a", "") + link;
    let _ = validate(&fine).expect(0);
    for (resources, words) in [
        (app.clone() + &file("/srv/app/f", ""), "/srv/app/f cannot belong to root: /srv/app belongs to nobody"),
        // The order does not matter, because a second run would find it in the other order.
        (file("/srv/app/f", "") + &app, "/srv/app/f cannot belong to root"),
        (app.clone() + &directory("/srv/app/d", "owner = \"root\"\n"), "/srv/app/d cannot belong to root"),
        (
            app.clone() + "[[resource]]\nkind = \"swap\"\npath = \"/srv/app/s\"\nsize = \"1GiB\"\n",
            "cannot belong to root",
        ),
        (
            app.clone() + &directory("/srv/app/d", "owner = \"daemon\"\n") + &file("/srv/app/d/f", NOBODYS),
            "is below /srv/app",
        ),
        (directory("/srv/app", "mode = \"0777\"\n") + &file("/srv/app/f", ""), "every user may write to /srv/app"),
        (
            directory("/srv/g", "owner = \"nobody\"\ngroup = \"web\"\nmode = \"0775\"\n") + &file("/srv/g/f", NOBODYS),
            "its group may write to /srv/g",
        ),
        (
            app.clone()
                + "[[resource]]\nkind = \"service\"\nname = \"a\"\nrunning = true\nrestart_on = [\"/srv/app\"]\n",
            "/srv/app is a directory",
        ),
    ] {
        let _ = validate(&resources).expect(2).says(words).says("manifest.toml:").says("hint: ");
    }
}

#[test]
fn a_service_waits_for_the_boot_with_its_unit_file() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.at("tree/etc/systemd/system")).unwrap();
    let manifest = sandbox.manifest(
        "[[resource]]\nkind = \"file\"\npath = \"/etc/systemd/system/app.service\"\ncontent = \"\"\nphase = \"boot\"\n\
         [[resource]]\nkind = \"service\"\nname = \"app\"\nenabled = true\nrunning = true\n",
    );
    for verb in ["plan", "run"] {
        let run = sandbox.run(&[verb, "--steps", &manifest, "--root", &sandbox.at("tree")]).expect(0);
        let _ = run.says("service app.service: ensure at boot (deferred: its unit file is left to the boot)");
    }
}

#[test]
fn a_service_that_is_to_watch_a_directory_is_refused() {
    let machine = Machine::new();
    machine.write("etc/systemd/system/app.service", "[Service]\nExecStart=/bin/true\n");
    let service = "[[resource]]\nkind = \"service\"\nname = \"app\"\nrunning = true\nrestart_on = [\"/etc/systemd\"]\n";
    for finished in [machine.plan(service), machine.run(service)] {
        let _ = finished.expect(1).says("`restart_on` names /etc/systemd, which is a directory");
    }
    assert_eq!(machine.commands(), [""; 0]);
}

#[test]
fn a_validator_of_a_users_file_runs_as_that_user() {
    let sandbox = Sandbox::new();
    fs::set_permissions(&sandbox.path, Permissions::from_mode(0o755)).unwrap();
    let home = make(&sandbox, "home", (UID_NOBODY, UID_NOBODY), 0o700);
    let script = "id -u > $0.by; id -G >> $0.by; grep -q new $0";
    let resources =
        file(&format!("{home}/f"), &format!("{NOBODYS}validate = [\"sh\", \"-c\", \"{script}\", \"{{}}\"]\n"));
    let run = sandbox.run_resources(&resources);
    let mut told = vec![];
    // It is beside the file, in the private directory of the file.
    for entry in walk(&home) {
        if entry.ends_with(".by") {
            told.push(fs::read_to_string(&entry).unwrap());
        }
    }
    let _ = run.expect(0);
    assert_eq!(told, ["65534\n65534\n"]);
}

fn walk(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path().to_str().unwrap().to_owned());
    let is_directory = |path: &String| fs::symlink_metadata(path).unwrap().is_dir();
    entries.flat_map(|path| if is_directory(&path) { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_racer_in_its_own_directory_redirects_no_write_and_no_read() {
    let sandbox = Sandbox::new();
    fs::set_permissions(&sandbox.path, Permissions::from_mode(0o755)).unwrap();
    let home = make(&sandbox, "home", (UID_NOBODY, UID_NOBODY), 0o755);
    let target = make(&sandbox, "target", (0, 0), 0o755);
    let secret = sandbox.write("target/f", "canary-of-root");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let theirs = make(&sandbox, "theirs", (1, 1), 0o755);
    // The user replaces its directories and files with links to those of root and of a third user.
    let racer = Racer::start(&format!(
        "cd {home}; mkdir d; rm -rf d; ln -s {target} d; rm d; ln -s {theirs} d; rm d; mkdir d; ln -s {secret} d/f; rm d/f; \
         mv d e; ln -s {target} d; rm d; mv e d; ln -s {target}/new d/f; rm -rf d/.f.glovo-bootstrap d/.f.glovo-bootstrap.d; \
         ln -s {secret} d/.f.glovo-bootstrap; rm -rf d"
    ));
    let before = (walk(&target), walk(&theirs));
    let mut outcomes = std::collections::BTreeMap::new();
    for round in 0..60 {
        let resources = directory(&format!("{home}/d"), NOBODYS)
            + &file(&format!("{home}/d/f"), &format!("{NOBODYS}mode = \"0640\"\nvalidate = [\"true\", \"{{}}\"]\n"))
            + &directory(&format!("{home}/d/deeper"), &format!("{NOBODYS}mode = \"0711\"\n"))
            + &format!("[[resource]]\nkind = \"link\"\npath = \"{home}/d/l\"\ntarget = \"{round}\"\n");
        for finished in [plan(&sandbox, &resources), sandbox.run_resources(&resources)] {
            assert!(!finished.stdout.contains("canary") && !finished.stderr.contains("canary"), "{finished:?}");
            *outcomes.entry(finished.code).or_insert(0) += 1;
        }
        assert_eq!((walk(&target), walk(&theirs)), before, "something was written elsewhere");
        assert_eq!((owner(&secret), owner(&target), owner(&theirs)), ((0, 0o600), (0, 0o755), (1, 0o755)));
        assert_eq!(fs::read_to_string(&secret).unwrap(), "canary-of-root");
    }
    drop(racer);
    assert!(outcomes.keys().all(|code| matches!(code, Some(0 | 1))), "{outcomes:?}");
    assert!(outcomes.contains_key(&Some(1)), "the racer was never seen: {outcomes:?}");
}

#[test]
fn a_file_that_root_takes_over_is_no_longer_open_to_its_owner() {
    let sandbox = Sandbox::new();
    let path = sandbox.write("f", "new\n");
    chown(&path, Some(UID_NOBODY), Some(UID_NOBODY)).unwrap();
    // A process of that user has it open.
    let open = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let _ = plan(&sandbox, &file(&path, "")).expect(0).says("write again, to set owner");
    let _ = sandbox.run_resources(&file(&path, "")).expect(0);
    std::os::unix::fs::FileExt::write_all_at(&open, b"evil", 0).unwrap();
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), owner(&path)), ("new\n", (0, 0o644)));
}

#[test]
fn an_access_control_list_counts_as_a_group() {
    let sandbox = Sandbox::new();
    let path = make(&sandbox, "shared", (0, 0), 0o755);
    // `setfacl -m u:nobody:rwx` writes this: user::rwx, user:nobody:rwx, group::r-x, mask::rwx, other::r-x.
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1u16, 7u16, u32::MAX), (2, 7, UID_NOBODY), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 5, u32::MAX)]
    {
        list.extend(tag.to_le_bytes().iter().chain(&permissions.to_le_bytes()).chain(&id.to_le_bytes()));
    }
    rustix::fs::setxattr(&path, "system.posix_acl_access", &list, rustix::fs::XattrFlags::empty()).unwrap();
    refused(&sandbox, &file(&format!("{path}/f"), ""), "in its access control list may write to");
    let manifest = sandbox.write("shared/m.toml", format!("name = \"a\"\n{}", file(&sandbox.at("f"), "")));
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(2).says("other users may write to");
}

#[test]
fn a_planted_private_directory_is_named() {
    let sandbox = Sandbox::new();
    let open = make(&sandbox, "open", (0, 0), 0o1777);
    let planted = make(&sandbox, "open/.f.glovo-bootstrap.d", (UID_NOBODY, UID_NOBODY), 0o755);
    let resources = file(&format!("{open}/f"), "validate = [\"true\", \"{}\"]\n");
    let run = sandbox.run_resources(&resources).expect(1).says(&format!("{planted} is not this program's own"));
    let _ = run.says(&format!("rm -r {planted}"));
}

#[test]
fn a_directory_without_an_owner_is_its_parents_owners() {
    let sandbox = Sandbox::new();
    let home = make(&sandbox, "home", (UID_NOBODY, UID_NOBODY), 0o755);
    let (shared, inner) = (format!("{home}/shared"), format!("{home}/new"));
    let resources = directory(&inner, "") + &file(&format!("{inner}/f"), NOBODYS);
    let declared = directory(&home, NOBODYS) + &resources;
    let manifest = sandbox.manifest(&declared);
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(0);
    let _ = plan(&sandbox, &declared).expect(0).says("2 changes pending");
    let _ = sandbox.run_resources(&declared).expect(0).says("converged: 2 changes");
    assert_eq!((owner(&inner), owner(&format!("{inner}/f")).0), ((UID_NOBODY, 0o755), UID_NOBODY));
    let _ = sandbox.run_resources(&resources).expect(0).says("converged: 0 changes");
    // An existing directory keeps its owner, also if only a group is declared.
    let _ = make(&sandbox, "home/shared", (UID_NOBODY, UID_NOBODY), 0o755);
    let _ = sandbox.run_resources(&directory(&shared, "group = \"nogroup\"\n")).expect(0).says("0 changes");
    let other = make(&sandbox, "other", (1, 1), 0o755);
    let _ = sandbox.run_resources(&directory(&other, "group = \"nogroup\"\n")).expect(0).says("1 change");
    assert_eq!((fs::metadata(&other).unwrap().uid(), fs::metadata(&other).unwrap().gid()), (1, UID_NOBODY));
    // All three commands take the directory for a user's, and so refuse root's file in it.
    let refused = declared + &file(&format!("{inner}/root"), "");
    let _ = sandbox.run(&["validate", "--steps", &sandbox.manifest(&refused)]).expect(2).says("cannot belong to root");
    let _ = plan(&sandbox, &refused).expect(2).says("cannot belong to root");
    let _ = sandbox.run_resources(&refused).expect(2).says("cannot belong to root");
}

#[test]
fn a_file_that_its_own_user_cannot_read_converges() {
    let sandbox = Sandbox::new();
    let home = make(&sandbox, "home", (UID_NOBODY, UID_NOBODY), 0o755);
    let path = format!("{home}/f");
    let of = |mode: &str| file(&path, &format!("{NOBODYS}mode = \"{mode}\"\n"));
    for mode in ["0000", "0200"] {
        let _ = fs::remove_file(&path);
        let _ = plan(&sandbox, &of(mode)).expect(0).says("1 change pending");
        let _ = sandbox.run_resources(&of(mode)).expect(0).says("converged: 1 change");
        let _ = plan(&sandbox, &of(mode)).expect(0).says("0 changes pending");
        let _ = sandbox.run_resources(&of(mode)).expect(0).says("converged: 0 changes");
    }
    fs::write(&path, "old\n").unwrap();
    let _ = plan(&sandbox, &of("0200")).expect(0).says("-old").says("+new");
    let _ = sandbox.run_resources(&of("0200")).expect(0).says("converged: 1 change");
    let _ = sandbox.run_resources(&of("0640")).expect(0).says("set mode 0640 (now 0200)");
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), owner(&path)), ("new\n", (UID_NOBODY, 0o640)));

    // The same is true for a directory, and for a file in a directory that its user cannot list.
    let inner = make(&sandbox, "home/d", (UID_NOBODY, UID_NOBODY), 0o000);
    let of = |mode: &str| directory(&inner, &format!("{NOBODYS}mode = \"{mode}\"\n"));
    let _ = sandbox.run_resources(&of("0300")).expect(0).says("set mode 0300 (now 0000)");
    let resources = of("0300") + &file(&format!("{inner}/f"), NOBODYS);
    let _ = plan(&sandbox, &resources).expect(0).says("1 change pending");
    let _ = sandbox.run_resources(&resources).expect(0).says("converged: 1 change");
    let _ = sandbox.run_resources(&resources).expect(0).says("converged: 0 changes");
}

#[test]
fn a_file_of_root_that_the_user_cannot_read_is_replaced() {
    let sandbox = Sandbox::new();
    let home = make(&sandbox, "home", (UID_NOBODY, UID_NOBODY), 0o755);
    let path = format!("{home}/f");
    // One has the declared length. A file with several names is refused, so that no secret is reached by a link.
    for content in ["old\n", "canary-of-root\n"] {
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let words = "replace the file of root:root";
        let planned = plan(&sandbox, &file(&path, NOBODYS)).expect(0).says(words).says("+new");
        assert!(!planned.stdout.contains(content.trim()), "{planned:?}");
        let _ = sandbox.run_resources(&file(&path, NOBODYS)).expect(0).says(words).says("converged: 1 change");
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), owner(&path)), ("new\n", (UID_NOBODY, 0o644)));
        let _ = sandbox.run_resources(&file(&path, NOBODYS)).expect(0).says("converged: 0 changes");
    }
    // What a kind must read, and not only replace, is refused with the next step.
    let ssh = make(&sandbox, "home/.ssh", (UID_NOBODY, UID_NOBODY), 0o700);
    fs::write(format!("{ssh}/key"), "canary").unwrap();
    fs::set_permissions(format!("{ssh}/key"), Permissions::from_mode(0o600)).unwrap();
    let copy =
        format!("[[resource]]\nkind = \"file\"\npath = \"{}\"\nsource = \"file://{ssh}/key\"\n", sandbox.at("copy"));
    refused(&sandbox, &copy, "uid 65534 may not read");
    let _ = plan(&sandbox, &copy).expect(1).says("hint: ").says("namei -l");
}

#[test]
fn a_directory_that_its_user_may_not_write_to_is_refused() {
    let sandbox = Sandbox::new();
    let home = make(&sandbox, "home", (UID_NOBODY, UID_NOBODY), 0o755);
    let (locked, path) = (format!("{home}/d"), format!("{home}/d/f"));
    let of = |mode: &str| directory(&locked, &format!("{NOBODYS}mode = \"{mode}\"\n"));
    let words = |mode: &str| format!("uid 65534 may not write to {locked} (mode {mode})");
    let link = format!("[[resource]]\nkind = \"link\"\npath = \"{locked}/l\"\ntarget = \"x\"\n");
    let entries = [
        file(&path, NOBODYS),
        link,
        directory(&format!("{locked}/a/b"), NOBODYS),
        format!("[[resource]]\nkind = \"absent\"\npath = \"{locked}/gone\"\n"),
    ];
    // The directory is made by an earlier change. A later run finds it there.
    for entry in &entries[..3] {
        let _ = plan(&sandbox, &(of("0555") + entry)).expect(1).says(&words("0555")).says("hint: ");
        assert!(!fs::exists(&locked).unwrap());
    }
    let _ = sandbox.run_resources(&of("0755")).expect(0);
    fs::write(format!("{locked}/gone"), "").unwrap();
    for mode in ["0655", "0555"] {
        let _ = sandbox.run_resources(&of(mode)).expect(0);
        for entry in &entries {
            refused(&sandbox, entry, if mode == "0555" { "may not write to" } else { "may not enter" });
            refused(&sandbox, &(of(mode) + entry), "hint: ");
        }
    }
    // What is right needs no right to write. An earlier change may give the right.
    let all = entries.concat();
    let _ = plan(&sandbox, &(of("0755") + &all)).expect(0).says("5 changes pending");
    let _ = sandbox.run_resources(&(of("0755") + &all)).expect(0).says("converged: 5 changes");
    let _ = sandbox.run_resources(&of("0555")).expect(0);
    let _ = plan(&sandbox, &(of("0555") + &all)).expect(0).says("0 changes pending");
    let _ = sandbox.run_resources(&(all + &of("0555"))).expect(0).says("converged: 0 changes");
    let private = file(&path, &format!("{NOBODYS}mode = \"0600\"\n"));
    let _ = plan(&sandbox, &private).expect(0).says("set mode 0600");
    let _ = sandbox.run_resources(&private).expect(0).says("converged: 1 change");
}
