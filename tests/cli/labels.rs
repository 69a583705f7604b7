//! SELinux's labels, on a machine whose kernel seems to have a policy: `/sys/fs/selinux` is the test's, and the attributes
//! are real ones of the file system.

use std::{fs, process::Command};

use rustix::fs::XattrFlags;

use crate::{
    archive::{Member, digest, gzip, tar},
    sandbox::Finished,
    standin::Machine,
    swap,
};

/// The policy, with the test's tree in place of `@`.
const POLICY: &str = r"
/.*                   system_u:object_r:default_t:s0
@(/.*)?               system_u:object_r:usr_t:s0
@/swapfile       --   system_u:object_r:swapfile_t:s0
@/home/[^/]+     -d   system_u:object_r:user_home_dir_t:s0
@/home/[^/]+/.+       system_u:object_r:user_home_t:s0
@/home/[^/]+/\.ssh(/.*)?  system_u:object_r:ssh_home_t:s0
@/conf(/.*)?          system_u:object_r:etc_t:s0
@/app/bin(/.*)?       system_u:object_r:bin_t:s0
@/none(/.*)?          <<none>>
/etc(/.*)?            system_u:object_r:etc_t:s0
";

const ATTRIBUTE: &str = "security.selinux";

struct Labelled {
    machine: Machine,
    tree: String,
}

impl Labelled {
    fn new() -> Self {
        let machine = Machine::new();
        let tree = machine.sandbox.at("tree");
        for directory in ["conf", "home", "none"] {
            fs::create_dir_all(format!("{tree}/{directory}")).unwrap();
        }
        machine.write("etc/selinux/config", "# the policy\nSELINUX=enforcing\nSELINUXTYPE=targeted\n");
        let contexts = POLICY.replace('@', &tree);
        machine.write("etc/selinux/targeted/contexts/files/file_contexts", contexts);
        machine.write("etc/selinux/targeted/contexts/customizable_types", "httpd_sys_content_t\n");
        machine.write("sys/selinux/policy", "");
        Self { machine, tree }
    }

    /// Runs a verb with one step of these resources.
    fn run(&self, verb: &str, resources: &str) -> Finished {
        let manifest = self.machine.sandbox.manifest(&resources.replace('@', &self.tree));
        let script = r#"mount --bind "$0" /sys/fs && exec "$@""#;
        let mut command = self.machine.sandbox.shell("exec unshare --mount sh -euc \"$@\"");
        let command = command.args([script, &self.machine.at("sys"), env!("CARGO_BIN_EXE_glovo-bootstrap")]);
        Finished::from(command.args([verb, "--steps", &manifest]).output().unwrap())
    }

    fn label(&self, path: &str) -> String {
        let mut label = [0; 100];
        let read = rustix::fs::lgetxattr(format!("{}/{path}", self.tree), ATTRIBUTE, &mut label[..]).unwrap_or(0);
        String::from_utf8_lossy(&label[..read]).trim_end_matches('\0').to_owned()
    }

    fn set_label(&self, path: &str, label: &str) {
        let path = format!("{}/{path}", self.tree);
        rustix::fs::lsetxattr(path, ATTRIBUTE, label.as_bytes(), XattrFlags::empty()).unwrap();
    }
}

const FILE: &str = "[[resource]]\nkind = \"file\"\npath = \"@/conf/a\"\ncontent = \"x\"\n";

#[test]
fn what_is_written_has_the_label_of_the_policy() {
    let labelled = Labelled::new();
    let resources = format!(
        "{FILE}
[[resource]]\nkind = \"directory\"\npath = \"@/conf/d/e\"
[[resource]]\nkind = \"link\"\npath = \"@/conf/l\"\ntarget = \"a\"
[[resource]]\nkind = \"file\"\npath = \"@/none/a\"\ncontent = \"x\"
[[resource]]\nkind = \"user\"\nname = \"app\"\nhome = \"@/home/app\"\nssh_keys = [\"ssh-ed25519 {}\"]\n",
        "AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleE"
    );
    let _ = labelled.run("run", &resources).expect(0);
    for (path, expected) in [
        ("conf/a", "system_u:object_r:etc_t:s0"),
        ("conf/d", "system_u:object_r:etc_t:s0"),
        ("conf/d/e", "system_u:object_r:etc_t:s0"),
        ("conf/l", "system_u:object_r:etc_t:s0"),
        ("none/a", ""),
        ("home/app/.ssh", "system_u:object_r:ssh_home_t:s0"),
        ("home/app/.ssh/authorized_keys", "system_u:object_r:ssh_home_t:s0"),
    ] {
        assert_eq!(labelled.label(path), expected, "{path}");
    }
    let _ = labelled.run("run", &resources).expect(0).says("0 changes");
}

#[test]
fn a_wrong_label_is_named_and_fixed() {
    let labelled = Labelled::new();
    let resources = format!("{FILE}[[resource]]\nkind = \"directory\"\npath = \"@/conf\"\n");
    let _ = labelled.run("run", &resources).expect(0);
    labelled.set_label("conf/a", "unconfined_u:object_r:user_home_t:s0");
    labelled.set_label("conf", "unconfined_u:object_r:tmp_t:s0");
    let plan = labelled.run("plan", &resources).expect(0);
    let plan = plan.says("conf/a: set label etc_t (now user_home_t)").says("conf: set label etc_t (now tmp_t)");
    let _ = plan.says("2 changes pending");
    let _ = labelled.run("run", &resources).expect(0).says("2 changes");
    assert_eq!(labelled.label("conf/a"), "system_u:object_r:etc_t:s0");
    assert_eq!(labelled.label("conf"), "system_u:object_r:etc_t:s0");
    let _ = labelled.run("run", &resources).expect(0).says("0 changes");
}

#[test]
fn a_label_that_an_administrator_may_choose_stays() {
    let labelled = Labelled::new();
    let _ = labelled.run("run", FILE).expect(0);
    let chosen = "unconfined_u:object_r:httpd_sys_content_t:s0:c1";
    labelled.set_label("conf/a", chosen);
    let _ = labelled.run("plan", FILE).expect(0).says("0 changes");
    // Neither do new bytes take it, nor another user or level of the same type.
    let _ = labelled.run("run", &FILE.replace("\"x\"", "\"y\"")).expect(0).says("1 change");
    assert_eq!(labelled.label("conf/a"), chosen);
    labelled.set_label("conf/a", "unconfined_u:object_r:etc_t:s0");
    let _ = labelled.run("plan", &FILE.replace("\"x\"", "\"y\"")).expect(0).says("0 changes");
}

#[test]
fn a_swap_file_has_its_own_type_wherever_it_is() {
    let labelled = Labelled::new();
    let image = swap::give_disk(&labelled.machine);
    let debugfs = |request: &str| {
        let output = Command::new("debugfs").args(["-w", "-R", request, &image]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let resource =
        format!("[[resource]]\nkind = \"swap\"\npath = \"{}\"\nsize = \"1MiB\"\n", labelled.machine.at("disk/swap"));
    let _ = labelled.run("run", &resource).expect(0).says("create swap file");
    let label = || debugfs("ea_get /swap security.selinux");
    assert!(label().contains("system_u:object_r:swapfile_t:s0"), "{}", label());
    let _ = labelled.run("plan", &resource).expect(0).says("0 changes");
    let _ = debugfs("ea_set /swap security.selinux system_u:object_r:default_t:s0");
    let _ = labelled.run("plan", &resource).expect(0).says("set label swapfile_t (now default_t)");
    let _ = labelled.run("run", &resource).expect(0).says("1 change");
    assert!(label().contains("system_u:object_r:swapfile_t:s0"), "{}", label());
}

#[test]
fn the_members_of_an_archive_have_labels() {
    let labelled = Labelled::new();
    let archive = gzip(&tar(&[Member(b'0', "bin/app", 0o755, "x"), Member(b'0', "doc", 0o644, "x")]));
    fs::write(format!("{}/a.tgz", labelled.tree), &archive).unwrap();
    let resource = format!(
        "[[resource]]\nkind = \"archive\"\npath = \"@/app\"\nsource = \"file://@/a.tgz\"\nsha256 = \"{}\"\n",
        digest(&archive)
    );
    let _ = labelled.run("run", &resource).expect(0);
    for (path, expected) in [("app", "usr_t"), ("app/bin", "bin_t"), ("app/bin/app", "bin_t"), ("app/doc", "usr_t")] {
        assert_eq!(labelled.label(path), format!("system_u:object_r:{expected}:s0"), "{path}");
    }
    let _ = labelled.run("run", &resource).expect(0).says("0 changes");
    labelled.set_label("app/bin/app", "unconfined_u:object_r:tmp_t:s0");
    let _ = labelled.run("plan", &resource).expect(0).says("bin/app needs the label bin_t (now tmp_t)");
    let _ = labelled.run("run", &resource).expect(0).says("1 change");
    assert_eq!(labelled.label("app/bin/app"), "system_u:object_r:bin_t:s0");
}

#[test]
fn the_policy_is_targeted_unless_the_configuration_names_another() {
    let labelled = Labelled::new();
    labelled.machine.write("etc/selinux/config", "SELINUX=enforcing\n");
    let _ = labelled.run("run", FILE).expect(0);
    assert_eq!(labelled.label("conf/a"), "system_u:object_r:etc_t:s0");
    labelled.machine.write("etc/selinux/config", "SELINUXTYPE=own\n");
    let own = "/.* system_u:object_r:own_t:s0\n";
    labelled.machine.write("etc/selinux/own/contexts/files/file_contexts", own);
    let _ = labelled.run("run", FILE).expect(0).says("1 change");
    assert_eq!(labelled.label("conf/a"), "system_u:object_r:own_t:s0");
}

#[test]
fn without_selinux_no_label_is_read_or_set() {
    let labelled = Labelled::new();
    fs::remove_file(labelled.machine.at("sys/selinux/policy")).unwrap();
    let _ = labelled.run("run", FILE).expect(0);
    assert_eq!(labelled.label("conf/a"), "");
}
