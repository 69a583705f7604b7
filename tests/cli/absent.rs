//! The kind `absent`: files, links and empty directories are removed, all else is refused.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
};

use crate::{
    sandbox::Sandbox,
    service::{app, unit},
    standin::Machine,
};

fn absent(path: &str) -> String {
    format!("[[resource]]\nkind = \"absent\"\npath = \"{path}\"\n")
}

#[test]
fn a_file_a_link_and_an_empty_directory_are_removed() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("etc/file", "first\nsecond\n");
    let (link, directory) = (sandbox.at("etc/link"), sandbox.at("etc/directory"));
    symlink("file of another", &link).unwrap();
    fs::create_dir(&directory).unwrap();
    let resources = absent(&file) + &absent(&link) + &absent(&directory);
    let plan = sandbox.run(&["plan", "--steps", &sandbox.manifest(&resources)]).expect(0);
    let plan = plan.says("remove the file (13 bytes)").says("-first\n").says("remove the empty directory");
    let _ = plan.says("remove the symbolic link to file of another");
    let _ = sandbox.run_resources(&resources).expect(0).says("3 changes");
    for path in [&file, &link, &directory] {
        assert!(fs::symlink_metadata(path).is_err(), "{path} is left");
    }
    let _ = sandbox.run_resources(&resources).expect(0).says("0 changes");
    // Made again by hand: exactly that is seen and fixed.
    fs::write(&file, "").unwrap();
    let plan = sandbox.run(&["plan", "--steps", &sandbox.manifest(&resources)]).expect(0);
    let _ = plan.says("remove the file (0 bytes)").says("1 change pending");
    let _ = sandbox.run_resources(&resources).expect(0).says("1 change");
}

#[test]
fn what_is_below_no_directory_is_absent_already() {
    let sandbox = Sandbox::new();
    let _ = sandbox.run_resources(&absent(&sandbox.at("none/of/these"))).expect(0).says("0 changes");
    let _ = sandbox.write("file", "");
    let _ = sandbox.run_resources(&absent(&sandbox.at("file/below"))).expect(0).says("0 changes");
}

#[test]
fn content_is_never_removed_with_its_directory() {
    let sandbox = Sandbox::new();
    for name in ["a", "b", "c", "d", "e", "f\u{1b}[31m", "g"] {
        let _ = sandbox.write(&format!("full/{name}"), "");
    }
    let full = sandbox.at("full");
    let words = "is a directory with content, which is not removed: a, b, c, d, e and 2 more";
    let _ = sandbox.run(&["plan", "--steps", &sandbox.manifest(&absent(&full))]).expect(1).says(words);
    let refused = sandbox.run_resources(&absent(&full)).expect(1).says(words);
    assert!(!refused.stderr.contains('\u{1b}'), "{}", refused.stderr);
    assert_eq!(fs::read_dir(&full).unwrap().count(), 7);
    // A plan counts what is removed before it.
    let few = sandbox.at("few");
    let _ = sandbox.write("few/one", "");
    let both = absent(&format!("{few}/one")) + &absent(&few);
    let _ = sandbox.run(&["plan", "--steps", &sandbox.manifest(&both)]).expect(0).says("2 changes pending");
    let _ = sandbox.run_resources(&both).expect(0).says("2 changes");
    assert!(!fs::exists(few).unwrap());
}

#[test]
fn a_socket_and_a_mount_point_are_refused() {
    let sandbox = Sandbox::new();
    let socket = sandbox.at("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let words = "is a device, a socket or a FIFO, which is not removed";
    let _ = sandbox.run(&["plan", "--steps", &sandbox.manifest(&absent(&socket))]).expect(1).says(words);
    let _ = sandbox.run_resources(&absent(&socket)).expect(1).says(words);
    let point = sandbox.at("mount point");
    fs::create_dir(&point).unwrap();
    let script = "mount -t tmpfs tmpfs \"$1\"; shift; exec \"$@\"";
    let manifest = sandbox.manifest(&absent(&point));
    for verb in ["plan", "run"] {
        let mut command = sandbox.shell(script);
        let command = command.args([&point, env!("CARGO_BIN_EXE_glovo-bootstrap"), verb, "--steps", &manifest]);
        let refused = crate::sandbox::Finished::from(command.output().unwrap()).expect(1);
        let _ = refused.says("is a mount point, which is not removed").says(&format!("umount '{point}'"));
    }
    let mounted = sandbox.write("mounted", "");
    let manifest = sandbox.manifest(&absent(&mounted));
    for verb in ["plan", "run"] {
        let mut command = sandbox.shell("mount --bind /etc/passwd \"$1\"; shift; exec \"$@\"");
        let command = command.args([&mounted, env!("CARGO_BIN_EXE_glovo-bootstrap"), verb, "--steps", &manifest]);
        let refused = crate::sandbox::Finished::from(command.output().unwrap()).expect(1);
        let _ = refused.says("is a mount point, which is not removed");
    }
}

#[test]
fn declarations_that_contradict_each_other_are_refused() {
    let sandbox = Sandbox::new();
    let validate = |resources: &str| sandbox.run(&["validate", "--steps", &sandbox.manifest(resources)]);
    let _ = validate(&absent("/")).expect(2).says("`/` cannot be removed");
    let both = absent("/srv/x") + "[[resource]]\nkind = \"link\"\npath = \"/srv/x\"\ntarget = \"y\"\n";
    let _ = validate(&both).expect(2).says("two resources manage /srv/x");
    let _ = validate("[[resource]]\nkind = \"absent\"\n").expect(2).says("needs the field `path`");
}

#[test]
fn what_an_absent_path_contradicts_is_refused() {
    let sandbox = Sandbox::new();
    let of = |kind: &str, fields: &str| format!("[[resource]]\nkind = \"{kind}\"\n{fields}\n");
    for (resource, words) in [
        (of("file", "path = \"/srv/a/c/d\"\ncontent = \"\""), "/srv/a/c/d is below /srv/a/c, which is declared absent"),
        (of("directory", "path = \"/srv/a/c/d\""), "/srv/a/c/d is below /srv/a/c, which is declared absent"),
        (of("link", "path = \"/srv/a/c/d/e\"\ntarget = \"x\""), "/srv/a/c/d/e is below /srv/a/c"),
        (
            of("file", "path = \"/srv/b\"\nsource = \"file:///srv/a/c\""),
            "`source` names /srv/a/c, which is declared absent",
        ),
        (
            of("file", "path = \"/srv/b\"\nsource = \"file:///srv/a/c/d\""),
            "`source` names /srv/a/c/d below /srv/a/c, which is declared absent",
        ),
        (of("http_check", "url = \"https://a/\"\nca = \"/srv/a/c\""), "`ca` names /srv/a/c, which is declared absent"),
    ] {
        for resources in [absent("/srv/a/c") + &resource, resource.clone() + &absent("/srv/a/c")] {
            let refused = sandbox.run(&["validate", "--steps", &sandbox.manifest(&resources)]).expect(2);
            let _ = refused.says(words).says("/srv/a/c is declared absent at ").says("^^^^");
        }
    }
    let right = absent("/srv/a/c/d")
        + &absent("/srv/a/c")
        + &of("directory", "path = \"/srv/a\"")
        + &of("file", "path = \"/srv/a/e\"\ncontent = \"\"");
    let valid = sandbox.run(&["validate", "--steps", &sandbox.manifest(&right)]).expect(0);
    assert!(!(valid.stdout + &valid.stderr).contains("warning"));
}

#[test]
fn what_the_kernel_makes_is_not_removed() {
    let sandbox = Sandbox::new();
    for path in ["/proc/cmdline", "/sys/kernel", "/proc"] {
        let refused = sandbox.run(&["validate", "--steps", &sandbox.manifest(&absent(path))]).expect(2);
        let _ = refused.says(&format!("`{path}` cannot be removed: the kernel makes it"));
    }
    let link = sandbox.at("link");
    symlink("/proc", &link).unwrap();
    let manifest = sandbox.manifest(&absent(&format!("{link}/cmdline")));
    for verb in ["plan", "run"] {
        let _ = sandbox.run(&[verb, "--steps", &manifest]).expect(1).says("the kernel makes it");
    }
    // The link itself is not the kernel's.
    let plan = sandbox.run(&["plan", "--steps", &sandbox.manifest(&absent(&link))]).expect(0);
    let _ = plan.says("remove the symbolic link to /proc");
}

#[test]
fn what_a_package_may_bring_is_in_the_plan() {
    let sandbox = Sandbox::new();
    let (of_package, other) = (sandbox.at("default"), sandbox.at("other"));
    let installs = format!(
        "[[resource]]\nkind = \"command\"\nname = \"installs\"\nargv = [\"touch\", \"{of_package}\", \"{other}\"]\n\
         unless = {{ exists = \"{other}\" }}\n"
    );
    let resources = installs + &absent(&of_package);
    let plan = sandbox.run(&["plan", "--steps", &sandbox.manifest(&resources)]).expect(0);
    let _ = plan.says("remove it, if an earlier resource brings it").says("2 changes pending");
    let _ = sandbox.run_resources(&resources).expect(0).says("2 changes").says("remove the file");
    let _ = sandbox.run_resources(&resources).expect(0).says("0 changes");
    assert!(!fs::exists(of_package).unwrap());
}

#[test]
fn a_plan_knows_what_is_made_through_a_link() {
    let sandbox = Sandbox::new();
    let (real, link) = (sandbox.at("real"), sandbox.at("link"));
    fs::create_dir_all(format!("{real}/empty")).unwrap();
    symlink(&real, &link).unwrap();
    let file = |path: &str| format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"\"\n");
    // Both in one order: the plan refuses what the run refuses.
    let made = file(&format!("{real}/empty/x")) + &absent(&format!("{link}/empty"));
    let gone = absent(&format!("{real}/empty")) + &file(&format!("{link}/empty/x"));
    for (resources, words) in [(gone, "does not exist"), (made, "a directory with content, which is not removed: x")] {
        for verb in ["plan", "run"] {
            let manifest = sandbox.manifest(&resources);
            let _ = sandbox.run(&[verb, "--steps", &manifest]).expect(1).says(words);
        }
        fs::create_dir_all(format!("{real}/empty")).unwrap();
    }
}

#[test]
fn what_others_may_not_read_is_not_shown() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let secret = sandbox.write("secret", "canary\n");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    let plan = sandbox.run(&["plan", "--steps", &sandbox.manifest(&absent(&secret))]).expect(0);
    let plan = plan.says("remove the file (7 bytes)");
    assert!(!plan.stdout.contains("canary"), "{}", plan.stdout);
}

#[test]
fn an_images_tree_loses_its_own_file() {
    let sandbox = Sandbox::new();
    let of_host = sandbox.write("host/default", "");
    let path = of_host.clone();
    let in_tree = sandbox.write(&format!("tree{path}"), "");
    fs::create_dir(sandbox.at("tree/etc")).unwrap();
    let manifest = sandbox.manifest(&absent(&path));
    let _ = sandbox.run(&["run", "--steps", &manifest, "--root", &sandbox.at("tree")]).expect(0).says("1 change");
    assert!(fs::exists(of_host).unwrap() && !fs::exists(in_tree).unwrap());
}

#[test]
fn a_service_restarts_when_its_file_goes_and_may_get_it_back() {
    let machine = Machine::new();
    let running = "running = true\nstable = \"0s\"\nrestart_on = [\"/etc/app.d/old\"]";
    machine.write("etc/app.d/old", "old\n");
    let of_app = app(&unit("true", ""), running);
    let _ = machine.run(&of_app).expect(0);
    let manifest = machine.sandbox.manifest(&(absent("/etc/app.d/old") + &of_app));
    let plan = machine.sandbox.run(&["plan", "--steps", &manifest]).expect(0);
    let _ = plan.says("restart: /etc/app.d/old will be removed");
    let _ = machine.run(&(absent("/etc/app.d/old") + &of_app)).expect(0).says("restart");
    let again = machine.run(&(absent("/etc/app.d/old") + &of_app)).expect(0).says("0 changes");
    assert!(!again.stderr.contains("does not exist"), "{}", again.stderr);
    // A unit that does not start without the file has it back.
    machine.write("etc/app.d/old", "old\n");
    let needs = app(&unit("test -e /etc/app.d/old", ""), running);
    let _ = machine.run(&needs).expect(0);
    let _ = machine.run(&(absent("/etc/app.d/old") + &needs)).expect(1).says("put back: /etc/app.d/old");
    assert_eq!(machine.read("etc/app.d/old"), "old\n");
}
