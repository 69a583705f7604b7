//! The kind `host`, in a namespace of its own for the host name.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use crate::{
    sandbox::{Finished, Sandbox},
    standin::Machine,
};

const DROP_IN: &str = "etc/cloud/cloud.cfg.d/99-glovo-bootstrap-hostname.cfg";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n";

/// A machine with a host name of its own.
struct Named(Machine);

impl Named {
    fn new() -> Self {
        let machine = Machine::new();
        for directory in ["etc/default", "locale"] {
            fs::create_dir_all(machine.at(directory)).unwrap();
        }
        machine.write("etc/hostname", "ip-10-0-0-1\n");
        machine.write("etc/hosts", HOSTS);
        machine.write("etc/nsswitch.conf", "passwd: files\nhosts: files dns # myhostname\n");
        for zone in ["Etc/UTC", "UTC", "Europe/Berlin", "Asia/Tokyo"] {
            machine.write(&format!("share/zoneinfo/{zone}"), "TZif");
        }
        machine.write("share/i18n/SUPPORTED", "de_AT.UTF-8 UTF-8\nde_DE.UTF-8 UTF-8\nde_DE ISO-8859-1\n");
        symlink("/usr/share/zoneinfo/Etc/UTC", machine.at("etc/localtime")).unwrap();
        Self(machine)
    }

    /// Runs a verb on the declaration, with the kernel's host name `before`.
    fn on(&self, before: &str, verb: &str, fields: &str) -> Finished {
        self.after(before, verb, "", fields)
    }

    /// Does so with other resources before it.
    fn after(&self, before: &str, verb: &str, others: &str, fields: &str) -> Finished {
        let sandbox = &self.0.sandbox;
        let manifest = sandbox.manifest(&format!("{others}[[resource]]\nkind = \"host\"\n{fields}\n"));
        let script = format!(
            "mount --bind {} /usr/lib/locale; mount --bind {} /usr/share
             unshare --uts sh -c 'hostname {before}; \"$@\"; code=$?; echo kernel $(hostname); exit $code' sh \"$@\"",
            self.0.at("locale"),
            self.0.at("share")
        );
        let mut command = sandbox.shell(&script);
        let command = command.args([env!("CARGO_BIN_EXE_glovo-bootstrap"), verb, "--steps", &manifest]);
        Finished::from(command.output().unwrap())
    }
}

/// Fails if the output has some words.
#[track_caller]
fn is_silent_about(finished: &Finished, words: &str) {
    assert!(!finished.stdout.contains(words) && !finished.stderr.contains(words), "{finished:?}");
}

#[test]
fn a_host_name_is_the_kernels_and_the_boots() {
    let named = Named::new();
    let name = "hostname = \"web-1\"";
    let plan = named.on("ip-10-0-0-1", "plan", name).expect(0).says("host web-1: add web-1 to /etc/hosts");
    let plan =
        plan.says("set web-1 in /etc/hostname (now ip-10-0-0-1)").says("set web-1 in the kernel (now ip-10-0-0-1)");
    let _ = plan.says("3 changes pending").says("kernel ip-10-0-0-1");
    let _ = named.on("ip-10-0-0-1", "run", name).expect(0).says("3 changes").says("kernel web-1");
    assert_eq!(named.0.read("etc/hostname"), "web-1\n");
    let hosts = format!("{HOSTS}127.0.1.1 web-1 # glovo-bootstrap: the name of this machine\n");
    assert_eq!(named.0.read("etc/hosts"), hosts);
    let again = named.on("web-1", "run", name).expect(0).says("0 changes");
    assert_eq!(named.0.commands(), [""; 0], "{again:?}");
    // Each by itself is seen and fixed.
    let drift = named.on("by-hand", "plan", name).expect(0).says("set web-1 in the kernel (now by-hand)");
    let _ = drift.says("1 change pending");
    let _ = named.on("by-hand", "run", name).expect(0).says("1 change").says("kernel web-1");
    named.0.write("etc/hostname", "# by hand\nother\n");
    let _ = named.on("web-1", "run", name).expect(0).says("set web-1 in /etc/hostname (now other)").says("1 change");
    named.0.write("etc/hosts", HOSTS);
    let _ = named.on("web-1", "run", name).expect(0).says("add web-1 to /etc/hosts").says("1 change");
    assert_eq!(named.0.read("etc/hosts"), hosts);
    // A comment in the file for the boot is no difference.
    named.0.write("etc/hostname", "# by hand\nweb-1\n");
    let _ = named.on("web-1", "run", name).expect(0).says("0 changes");
}

#[test]
fn another_host_name_replaces_its_own_line_in_hosts() {
    let named = Named::new();
    let _ = named.on("a", "run", "hostname = \"web-1\"").expect(0);
    let _ = named
        .on("web-1", "run", "hostname = \"web-2.example.com\"")
        .expect(0)
        .says("set web-2.example.com in /etc/hosts");
    let line = "127.0.1.1 web-2.example.com web-2 # glovo-bootstrap: the name of this machine\n";
    assert_eq!(named.0.read("etc/hosts"), format!("{HOSTS}{line}"));
}

#[test]
fn lines_of_others_keep_their_bytes() {
    let sandbox = Sandbox::new();
    let comment = b"# M\xfcllers machine\n";
    let file = |name: &str, text: &[u8]| sandbox.write(&format!("tree/etc/{name}"), [comment, text].concat());
    let (hosts, locale) = (file("hosts", b"127.0.0.1 localhost\n"), file("default/locale", b"LC_TIME=C.UTF-8\n"));
    let _ = sandbox.write("tree/usr/lib/locale/C.utf8/LC_CTYPE", "");
    let manifest = sandbox.manifest("[[resource]]\nkind = \"host\"\nhostname = \"web-1\"\nlocale = \"C.UTF-8\"\n");
    let _ = sandbox.run(&["run", "--root", &sandbox.at("tree"), "--steps", &manifest]).expect(0);
    for (path, words) in [(hosts, "127.0.1.1 web-1"), (locale, "LANG=C.UTF-8")] {
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.starts_with(comment), "{path}: {bytes:?}");
        assert!(String::from_utf8_lossy(&bytes).contains(words), "{path}: {bytes:?}");
    }
}

#[test]
fn a_name_that_resolves_gets_no_line_in_hosts() {
    for (hosts, nsswitch) in [
        ("10.0.0.1 Web-1.example.com Web-1 # by hand\n", "hosts: files dns\n"),
        ("127.0.0.1 localhost", "hosts: files myhostname dns\n"),
    ] {
        let named = Named::new();
        named.0.write("etc/hosts", hosts);
        named.0.write("etc/nsswitch.conf", nsswitch);
        let _ = named.on("a", "run", "hostname = \"web-1\"").expect(0).says("2 changes");
        assert_eq!(named.0.read("etc/hosts"), hosts);
    }
}

#[test]
fn cloud_init_is_told_to_keep_the_name() {
    let named = Named::new();
    fs::create_dir_all(named.0.at("etc/cloud/cloud.cfg.d")).unwrap();
    let told = "write /etc/cloud/cloud.cfg.d/99-glovo-bootstrap-hostname.cfg, so that cloud-init keeps the name";
    let _ = named.on("a", "run", "hostname = \"1e3\"").expect(0).says(told).says("4 changes");
    let text = "# Written by glovo-bootstrap.\npreserve_hostname: true\nhostname: \"1e3\"\n";
    assert_eq!(named.0.read(DROP_IN), text);
    let _ = named.on("1e3", "run", "hostname = \"1e3\"").expect(0).says("0 changes");
    let _ = named.on("1e3", "run", "hostname = \"web-1.example.com\"").expect(0).says(told);
    let text = "preserve_hostname: true\nhostname: \"web-1\"\nfqdn: \"web-1.example.com\"\n";
    assert!(named.0.read(DROP_IN).ends_with(text));
    named.0.write(DROP_IN, "preserve_hostname: false\n");
    let _ =
        named.on("web-1.example.com", "plan", "hostname = \"web-1.example.com\"").expect(0).says("1 change pending");
    let named = Named::new();
    is_silent_about(&named.on("a", "run", "hostname = \"web-1\"").expect(0), "cloud-init");
}

#[test]
fn a_time_zone_is_a_link_and_a_name() {
    let named = Named::new();
    named.0.write("etc/timezone", "Etc/UTC\n");
    let zone = "timezone = \"Europe/Berlin\"";
    let plan = named
        .on("a", "plan", zone)
        .expect(0)
        .says("host Europe/Berlin: set Europe/Berlin in /etc/localtime (now Etc/UTC)");
    let _ = plan.says("set Europe/Berlin in /etc/timezone (now Etc/UTC)").says("2 changes pending");
    let run = named.on("a", "run", zone).expect(0).says("2 changes").says("kernel a");
    is_silent_about(&run, "hostname");
    assert_eq!(
        fs::read_link(named.0.at("etc/localtime")).unwrap().to_str(),
        Some("../usr/share/zoneinfo/Europe/Berlin")
    );
    assert_eq!(named.0.read("etc/timezone"), "Europe/Berlin\n");
    let _ = named.on("a", "run", zone).expect(0).says("0 changes");
    // The names of both are enough: an absolute link is as good, and a missing name file stays missing.
    fs::remove_file(named.0.at("etc/timezone")).unwrap();
    for (target, words) in [
        (Some("/usr/share/zoneinfo/Europe/Berlin"), "0 changes"),
        (Some("/usr/share/zoneinfo/Asia/Tokyo"), "(now Asia/Tokyo)"),
        (Some("/srv/zone"), "(now a link to /srv/zone)"),
        (None, "(now UTC, because it does not exist)"),
    ] {
        fs::remove_file(named.0.at("etc/localtime")).unwrap();
        if let Some(target) = target {
            symlink(target, named.0.at("etc/localtime")).unwrap();
        }
        let _ = named.on("a", "run", zone).expect(0).says(words);
    }
    // Older distributions copy the file.
    fs::remove_file(named.0.at("etc/localtime")).unwrap();
    named.0.write("etc/localtime", "TZif");
    let _ = named.on("a", "run", zone).expect(0).says("set Europe/Berlin in /etc/localtime (now a file)");
    let _ = named.on("a", "run", zone).expect(0).says("0 changes");
    assert!(!fs::exists(named.0.at("etc/timezone")).unwrap());
}

#[test]
fn an_unknown_time_zone_or_locale_is_refused_by_plan_and_run() {
    let named = Named::new();
    named.0.write("share/zoneinfo/leapseconds", "# a text\n");
    for verb in ["plan", "run"] {
        for (fields, words) in [
            ("timezone = \"Europe/Berln\"", "this machine has no time zone Europe/Berln"),
            ("timezone = \"Europe\"", "this machine has no time zone Europe"),
            ("timezone = \"leapseconds\"", "this machine has no time zone leapseconds"),
            ("locale = \"xx_XX.UTF-8\"", "this machine does not have the locale xx_XX.UTF-8"),
        ] {
            let _ = named.on("a", verb, fields).expect(1).says(words).says("hint: choose ");
        }
        fs::remove_file(named.0.at("etc/localtime")).unwrap();
        fs::create_dir(named.0.at("etc/localtime")).unwrap();
        let _ = named.on("a", verb, "timezone = \"UTC\"").expect(1).says("/etc/localtime is neither a link nor a file");
        fs::remove_dir(named.0.at("etc/localtime")).unwrap();
        symlink("/usr/share/zoneinfo/Etc/UTC", named.0.at("etc/localtime")).unwrap();
    }
}

#[test]
fn a_file_of_another_resource_is_left_to_it() {
    let named = Named::new();
    let file =
        |path: &str, text: &str| format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"{text}\\n\"\n");
    let without = file("/etc/hosts", "127.0.0.1 localhost");
    let name = "hostname = \"web-1\"";
    let run = named.after("web-1", "run", &without, name).expect(0).says("2 changes");
    let _ = run.says("another resource manages /etc/hosts, and web-1 is not in it");
    let _ = named.after("web-1", "run", &without, name).expect(0).says("0 changes");
    assert_eq!(named.0.read("etc/hosts"), "127.0.0.1 localhost\n");
    named.0.write("etc/default/locale", "LANG=C.UTF-8\n");
    named.0.write("locale/C.utf8", "");
    for (other, fields) in [
        (file("/etc/default/locale", "LANG=de_DE.UTF-8"), "locale = \"C.UTF-8\""),
        (file("/etc/timezone", "Asia/Tokyo"), "timezone = \"Europe/Berlin\""),
    ] {
        named.0.write("etc/timezone", "Etc/UTC\n");
        let _ = named.after("web-1", "run", &other, "hostname = \"web-1\"").expect(0);
        for verb in ["plan", "run"] {
            let _ = named.after("web-1", verb, &other, fields).expect(1).says("another resource manages /etc/");
        }
    }
}

#[test]
fn a_link_at_the_hostname_file_stays() {
    let named = Named::new();
    fs::rename(named.0.at("etc/hostname"), named.0.at("etc/name")).unwrap();
    symlink("name", named.0.at("etc/hostname")).unwrap();
    let _ =
        named.on("web-1", "run", "hostname = \"web-1\"").expect(0).says("set web-1 in /etc/hostname (now ip-10-0-0-1)");
    assert_eq!(named.0.read("etc/name"), "web-1\n");
    assert!(fs::symlink_metadata(named.0.at("etc/hostname")).unwrap().is_symlink());
    let _ = named.on("web-1", "run", "hostname = \"web-1\"").expect(0).says("0 changes");
}

#[test]
fn a_locale_is_for_systemd_and_for_logins() {
    let named = Named::new();
    fs::create_dir(named.0.at("locale/C.utf8")).unwrap();
    named.0.write("etc/default/locale", "# by hand\nLANG=\"en_US.UTF-8\"\nLC_TIME=C\n");
    let locale = "locale = \"C.UTF-8\"";
    let words = "host C.UTF-8: set LANG=C.UTF-8 in /etc/default/locale (now en_US.UTF-8)";
    let _ = named.on("a", "plan", locale).expect(0).says(words).says("1 change pending");
    assert_eq!(named.0.commands(), [""; 0]);
    let _ = named.on("a", "run", locale).expect(0).says("1 change");
    assert_eq!(named.0.read("etc/default/locale"), "# by hand\nLC_TIME=C\nLANG=C.UTF-8\n");
    assert_eq!(named.0.commands(), ["systemctl set-environment LANG=C.UTF-8"]);
    let _ = named.on("a", "run", locale).expect(0).says("0 changes");
    assert_eq!(named.0.commands(), [""; 0]);
    named.0.write("etc/default/locale", "LANG=C.UTF-8\nLC_ALL=POSIX\n");
    let _ =
        named.on("a", "run", locale).expect(0).says("0 changes").says("LC_ALL=POSIX in /etc/default/locale overrides");
    // Without either file, the one that logins read is made.
    for (login, path) in
        [("", "locale.conf"), ("session required pam_env.so envfile=/etc/default/locale\n", "default/locale")]
    {
        fs::remove_file(named.0.at("etc/default/locale"))
            .or_else(|_| fs::remove_file(named.0.at("etc/locale.conf")))
            .unwrap();
        named.0.write("etc/pam.d/login", login);
        let _ = named.on("a", "run", locale).expect(0).says(&format!("in /etc/{path} (now not set)"));
        let _ = named.on("a", "run", locale).expect(0).says("0 changes");
    }
}

#[test]
fn a_missing_locale_is_made() {
    let named = Named::new();
    named.0.write("etc/locale.gen", "# de_AT.UTF-8 UTF-8\n#  de_DE.UTF-8 UTF-8  \n");
    named.0.write("etc/default/locale", "LANG=de_DE.UTF-8\n");
    let program = |script: &str| {
        named.0.write("bin/locale-gen", format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(named.0.at("bin/locale-gen"), fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("grep -q '^de_DE.UTF-8 UTF-8$' /etc/locale.gen && mkdir /usr/lib/locale/de_DE.utf8");
    let locale = "locale = \"de_DE.UTF-8\"";
    let plan = named.on("a", "plan", locale).expect(0).says("add de_DE.UTF-8 UTF-8 to /etc/locale.gen");
    let _ = plan.says("make the locale de_DE.UTF-8").says("2 changes pending");
    let _ = named.on("a", "run", locale).expect(0).says("2 changes");
    assert_eq!(named.0.read("etc/locale.gen"), "# de_AT.UTF-8 UTF-8\nde_DE.UTF-8 UTF-8\n");
    let _ = named.on("a", "run", locale).expect(0).says("0 changes");
    // A program that makes nothing is found out.
    fs::remove_dir(named.0.at("locale/de_DE.utf8")).unwrap();
    program("true");
    let _ = named.on("a", "run", locale).expect(1).says("did not converge").says("make the locale de_DE.UTF-8");
}

#[test]
fn a_locale_is_found_in_the_archive() {
    let named = Named::new();
    named.0.write("etc/default/locale", "LANG=fr_FR.UTF-8\n");
    let list = b"de_DE.utf8\0fr_FR.utf8\0";
    let numbers = [0xde02_0109, 1, 0, 0, 0, 32, u32::try_from(list.len()).unwrap(), 0];
    let bytes: Vec<u8> = numbers.into_iter().flat_map(u32::to_ne_bytes).chain(*list).collect();
    named.0.write("locale/locale-archive", &bytes);
    let _ = named.on("a", "run", "locale = \"fr_FR.UTF-8\"").expect(0).says("0 changes");
    named.0.write("locale/locale-archive", &bytes[..20]);
    let _ = named.on("a", "plan", "locale = \"fr_FR.UTF-8\"").expect(1).says("reading /usr/lib/locale/locale-archive");
    named.0.write("locale/locale-archive", [0; 64]);
    let _ = named.on("a", "plan", "locale = \"fr_FR.UTF-8\"").expect(1).says("it is not an archive of locales");
}

#[test]
fn an_image_gets_the_files_alone() {
    let sandbox = Sandbox::new();
    for directory in ["etc/cloud/cloud.cfg.d", "etc/default", "usr/share/zoneinfo/Europe", "usr/lib/locale/C.utf8"] {
        fs::create_dir_all(sandbox.at(&format!("tree/{directory}"))).unwrap();
    }
    let _ = sandbox.write("tree/usr/share/zoneinfo/Europe/Berlin", "TZif");
    let _ = sandbox.write("tree/etc/pam.d/login", "session required pam_env.so envfile=/etc/default/locale\n");
    let fields = "hostname = \"web-1\"\ntimezone = \"Europe/Berlin\"\nlocale = \"C.UTF-8\"";
    let manifest = sandbox.manifest(&format!("[[resource]]\nkind = \"host\"\n{fields}\n"));
    let before = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let image = sandbox.at("tree");
    let first = sandbox.run(&["bake", "--steps", &manifest, "--root", &image]).expect(0);
    let _ = first.says("5 changes").says("left to the boot: nothing");
    let _ = sandbox.run(&["bake", "--steps", &manifest, "--root", &image]).expect(0).says("0 changes");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
    assert_eq!(fs::read_to_string(sandbox.at("tree/etc/hostname")).unwrap(), "web-1\n");
    assert_eq!(fs::read_to_string(sandbox.at("tree/etc/default/locale")).unwrap(), "LANG=C.UTF-8\n");
    // Each instance has its own.
    let named = sandbox.manifest("[[resource]]\nkind = \"host\"\nhostname = \"{{ instance.id }}\"\n");
    let _ = sandbox
        .run(&["bake", "--steps", &named, "--root", &image])
        .expect(0)
        .says("each instance has its own instance.id");
}

#[test]
fn an_earlier_resource_may_bring_a_zone() {
    let named = Named::new();
    for path in ["share/zoneinfo/Europe/Berlin", "share/zoneinfo/UTC", "share/i18n/SUPPORTED"] {
        fs::remove_file(named.0.at(path)).unwrap();
    }
    let file = "kind = \"file\"\npath = \"/usr/share/zoneinfo/Europe/Berlin\"\ncontent = \"TZif\"\n";
    for verb in ["plan", "run"] {
        let zone = "timezone = \"Europe/Berlin\"";
        let _ = named.on("a", verb, zone).expect(1).says("this machine has no time zones").says("`tzdata`");
        let locale = named.on("a", verb, "locale = \"de_DE.UTF-8\"").expect(1);
        let _ = locale.says("does not have the locale de_DE.UTF-8").says("such as `locales` or `glibc-langpack-de`");
    }
    for verb in ["plan", "run"] {
        let file = format!("[[resource]]\n{file}");
        let _ = named.after("a", verb, &file, "timezone = \"Europe/Berlin\"").expect(0).says("2 changes");
    }
}

#[test]
fn values_that_are_none_are_refused() {
    let sandbox = Sandbox::new();
    for (fields, words) in [
        ("", "nothing is declared"),
        ("hostname = \"\"", "`` is not a host name"),
        ("hostname = \"a_b\"", "`a_b` is not a host name"),
        ("hostname = \"-a\"", "is not a host name"),
        ("hostname = \"a.\"", "is not a host name"),
        ("hostname = \"a\\nb\"", "`a\\nb` is not a host name"),
        ("hostname = \"localhost\"", "`localhost` is the name of every machine"),
        ("hostname = \"Localhost.localdomain\"", "`Localhost.localdomain` is the name of every machine"),
        ("timezone = \"../../etc/passwd\"", "is not the name of a time zone"),
        ("timezone = \"/UTC\"", "is not the name of a time zone"),
        ("locale = \"C/../x\"", "is not the name of a locale"),
        ("locale = \"$(id)\"", "is not the name of a locale"),
        ("domain = \"x\"", "unknown field `domain`"),
    ] {
        let manifest = sandbox.manifest(&format!("[[resource]]\nkind = \"host\"\n{fields}\n"));
        let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says(words).says("manifest.toml:");
    }
    let long = format!("hostname = \"{}\"", ["a"; 33].join("."));
    let manifest = sandbox.manifest(&format!("[[resource]]\nkind = \"host\"\n{long}\n"));
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says("at most 64 characters");
    let host = "[[resource]]\nkind = \"host\"\nhostname = \"web-1\"\n";
    for (other, words) in [
        (host, "two resources manage /etc/hostname"),
        (
            "[[resource]]\nkind = \"file\"\npath = \"/etc/hostname\"\ncontent = \"x\"\n",
            "two resources manage /etc/hostname",
        ),
    ] {
        let manifest = sandbox.manifest(&format!("{host}{other}"));
        let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says(words);
    }
    let apart = format!("{host}[[resource]]\nkind = \"host\"\ntimezone = \"UTC\"\n");
    let _ = sandbox.run(&["validate", "--steps", &sandbox.manifest(&apart)]).expect(0);
}

#[test]
fn a_kernel_name_that_cannot_be_set_is_refused_by_plan() {
    let named = Named::new();
    let sandbox = &named.0.sandbox;
    let manifest = sandbox.manifest("[[resource]]\nkind = \"host\"\nhostname = \"web-1\"\n");
    for verb in ["plan", "run"] {
        let mut command = sandbox.shell("exec setpriv --bounding-set -sys_admin \"$@\"");
        let command = command.args([env!("CARGO_BIN_EXE_glovo-bootstrap"), verb, "--steps", &manifest]);
        let refused = Finished::from(command.output().unwrap()).expect(1);
        let _ = refused.says("the kernel's host name cannot be set").says("for a container, set the name from outside");
    }
    assert_eq!(named.0.read("etc/hostname"), "ip-10-0-0-1\n");
}
