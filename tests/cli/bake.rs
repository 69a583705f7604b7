//! `bake` on trees: what it leaves to the boot, what the seal removes, and which credentials it finds.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
};

use crate::sandbox::Sandbox;

/// A manifest with one file.
const FILE: &str = "[[resource]]\nkind = \"file\"\npath = \"/srv/file\"\ncontent = \"baked\"\n";

/// A sandbox with an image's tree in it.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    for directory in ["etc", "srv", "root/.ssh", "home", "var/lib"] {
        fs::create_dir_all(sandbox.path.join("tree").join(directory)).unwrap();
    }
    sandbox
}

/// Runs `bake --root TREE` with these resources and arguments.
fn bake(sandbox: &Sandbox, resources: &str, arguments: &[&str]) -> crate::sandbox::Finished {
    let (manifest, tree) = (sandbox.manifest(resources), sandbox.at("tree"));
    sandbox.run(&[&["bake", "--root", &tree, "--steps", &manifest], arguments].concat())
}

/// Returns the report in the tree.
fn report(sandbox: &Sandbox) -> serde_json::Value {
    serde_json::from_slice(&fs::read(sandbox.at("tree/var/lib/glovo-bootstrap/report.json")).unwrap()).unwrap()
}

#[test]
fn what_each_instance_has_its_own_is_left_to_the_boot() {
    let sandbox = sandbox();
    let resources = "\
        [[resource]]\nkind = \"file\"\npath = \"/srv/{{ instance.id }}\"\ncontent = \"\"\n\
        [[resource]]\nkind = \"file\"\npath = \"/srv/name\"\ncontent = \"{{ host.hostname }} {{ instance.tags.Name }}\"\n\
        [[resource]]\nkind = \"file\"\npath = \"/srv/heap\"\ncontent = \"-Xmx{{ host.memory }}\"\n\
        [[resource]]\nkind = \"file\"\npath = \"/srv/jar\"\nphase = \"boot\"\nsource = \"http://127.0.0.1:1/jar\"\nverify = \"none\"\n\
        [[resource]]\nkind = \"swap\"\npath = \"/swapfile\"\nsize = \"1GiB\"\n\
        [[resource]]\nkind = \"file\"\npath = \"/srv/arch\"\ncontent = \"{{ host.architecture }}\"\n";
    let finished = bake(&sandbox, resources, &[]).expect(0).says("converged: 1 change, 5 deferred");
    let said = finished.stdout.split_once("left to the boot:\n").unwrap().1.to_owned();
    let expected = "\
step step:
  - file /srv/{{ instance.id }}: ensure at boot (deferred: each instance has its own instance.id)
  - file /srv/name: ensure at boot (deferred: each instance has its own host.hostname)
  - file /srv/heap: ensure at boot (deferred: each instance has its own host.memory)
  - file /srv/jar: ensure at boot (deferred: phase = \"boot\")
  - swap /swapfile: create and turn on (deferred: an image has no swap file)
";
    assert_eq!(said, expected);
    let names: Vec<_> = fs::read_dir(sandbox.path.join("tree/srv")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["arch"]);
    // A step's phase is that of all its resources.
    let _ =
        bake(&sandbox, &format!("phase = \"boot\"\n{FILE}"), &[]).expect(0).says("converged: 0 changes, 1 deferred");
    let _ = bake(&sandbox, "", &[]).expect(0).says("left to the boot: nothing");
}

#[test]
fn a_build_instance_is_baked_like_a_tree() {
    let sandbox = Sandbox::new();
    let resources = format!(
        "[[resource]]\nkind = \"file\"\npath = \"{0}/now\"\ncontent = \"\"\n\
         [[resource]]\nkind = \"file\"\npath = \"{0}/at-boot\"\ncontent = \"{{{{ host.memory }}}}\"\n\
         [[resource]]\nkind = \"http_check\"\nurl = \"http://127.0.0.1:1/\"\n",
        sandbox.path.display()
    );
    let manifest = sandbox.manifest(&resources);
    let run = |arguments: &[&str]| sandbox.run(&[arguments, &["--steps", &manifest]].concat());
    let _ = run(&["plan", "--phase", "bake"]).expect(0).says("plan: 1 change pending, 2 deferred");
    let _ = run(&["run", "--phase", "bake"]).expect(0).says("converged: 1 change, 2 deferred");
    let _ = run(&["bake"]).expect(0).says("converged: 0 changes, 2 deferred").says("left to the boot:\nstep step:");
    assert!(fs::exists(sandbox.at("now")).unwrap() && !fs::exists(sandbox.at("at-boot")).unwrap());
    let _ = run(&["plan", "--phase", "boot"]).expect(0).says("at-boot: create");
}

#[test]
fn a_bad_manifest_is_refused_for_an_image_too() {
    let sandbox = sandbox();
    let file = |content: &str| format!("[[resource]]\nkind = \"file\"\npath = \"/srv/x\"\ncontent = \"{content}\"\n");
    let _ = bake(&sandbox, &file("{{ instance.regoin }}"), &[]).expect(2).says("did you mean instance.region?");
    let misspelt = format!("{}onwer = \"root\"\n", file("{{ instance.id }}"));
    let _ = bake(&sandbox, &misspelt, &[]).expect(2).says("did you mean `owner`?");
    let _ = bake(&sandbox, &format!("{FILE}phase = \"bake\"\n"), &[]).expect(2).says("`bake` is not a phase");
    let _ = bake(&sandbox, FILE, &["--host-keys"]).expect(2).says("--seal");
    let (manifest, tree) = (sandbox.manifest(FILE), sandbox.at("tree"));
    let booted = sandbox.run(&["run", "--root", &tree, "--phase", "boot", "--steps", &manifest]);
    let _ = booted.expect(2).says("an image's tree does not boot");
    assert!(!sandbox.path.join("tree/srv/x").exists() && !sandbox.path.join("tree/srv/file").exists());
}

#[test]
fn a_template_with_the_machines_own_values_is_refused() {
    let sandbox = sandbox();
    let _ = sandbox.write("tree/srv/template", "{{ instance.id }}");
    let file = "[[resource]]\nkind = \"file\"\npath = \"/srv/x\"\nsource = \"file:///srv/template\"\ntemplate = true\n";
    let _ = bake(&sandbox, file, &[]).expect(1).says("each instance has its own").says("phase = \"boot\"");
    let _ = bake(&sandbox, &format!("{file}phase = \"boot\"\n"), &["--seal"]).expect(0).says("1 deferred");
}

/// Returns the paths of all files of the tree, sorted.
fn files(directory: &Path) -> Vec<String> {
    let mut found = vec![];
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(files(&path));
        } else {
            found.push(path.to_str().unwrap().split_once("/tree").unwrap().1.to_owned());
        }
    }
    found.sort();
    found
}

#[test]
fn a_seal_takes_out_what_is_the_machines_own_and_nothing_else() {
    let sandbox = sandbox();
    let gone = [
        "home/admin/.bash_history",
        "root/.python_history",
        "var/crash/app.crash",
        "var/lib/cloud/data/instance-id",
        "var/lib/cloud/instances/i-1/user-data.txt",
        "var/lib/cloud/sem/config_scripts_per_once.once",
        "var/lib/dbus/machine-id",
        "var/lib/dhcp/dhclient.eth0.leases",
        "var/lib/glovo-bootstrap/manifest.json",
        "var/lib/glovo-bootstrap/previous.json",
        "var/lib/glovo-bootstrap/service-nginx.service.json",
        "var/lib/glovo-bootstrap/staging/x.part",
        "var/lib/glovo-bootstrap/vault-unwrapped.json",
        "var/lib/systemd/coredump/core.app.0.zst",
        "var/lib/systemd/credential.secret",
        "var/lib/systemd/random-seed",
        "var/log/cloud-init-output.log",
        "var/log/cloud-init.log",
        "var/log/cloud-init.log.1.gz",
    ];
    let kept = [
        "etc/hostname",
        "etc/ssh/ssh_host_ed25519_key",
        "etc/ssh/ssh_host_ed25519_key.pub",
        "root/.bashrc",
        "root/.ssh/authorized_keys",
        "var/lib/cloud/scripts/per-boot/ours",
        "var/lib/glovo-bootstrap/file-0.json",
        "var/log/app.log",
    ];
    for path in gone.iter().chain(&kept) {
        let _ = sandbox.write(&format!("tree/{path}"), "ssh-ed25519 AAAA a@b\n");
    }
    let tree = sandbox.path.join("tree");
    symlink("/var/lib/cloud/instances/i-1", tree.join("var/lib/cloud/instance")).unwrap();
    symlink("/dev/null", tree.join("root/.bash_history")).unwrap();
    let _ = sandbox.write("tree/etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    fs::set_permissions(tree.join("etc/machine-id"), fs::Permissions::from_mode(0o444)).unwrap();
    // Links lead out of the tree and into another user's directory.
    let outside = sandbox.write("outside/authorized_keys", "ssh-ed25519 AAAA kept\n");
    fs::create_dir_all(tree.join("home/mallory")).unwrap();
    symlink(sandbox.at("outside"), tree.join("home/mallory/.ssh")).unwrap();
    chown(tree.join("home/admin"), Some(1000), Some(1000)).unwrap();

    let sealed = bake(&sandbox, FILE, &["--seal"]).expect(0);
    for path in gone.iter().filter(|path| !path.contains("cloud/") && !path.contains("staging/")) {
        assert!(sealed.stdout.contains(&format!("  - remove /{path} (")), "{path}\n{}", sealed.stdout);
    }
    let sealed = sealed.says("  - empty /etc/machine-id (").says("sealed: ").says("no credentials found");
    let _ = sealed.says("note: /root/.ssh/authorized_keys (1 key) can log in to every instance");
    let mut left: Vec<String> = kept.iter().map(|path| format!("/{path}")).collect();
    left.extend(["/etc/machine-id", "/home/mallory/.ssh", "/root/.bash_history", "/srv/file"].map(Into::into));
    left.push("/var/lib/glovo-bootstrap/lock".into());
    left.sort();
    assert_eq!(files(&tree), left);
    let id = fs::metadata(tree.join("etc/machine-id")).unwrap();
    assert_eq!((id.len(), id.permissions().mode() & 0o777), (0, 0o444));

    let again = bake(&sandbox, FILE, &["--seal"]).expect(0).says("sealed: nothing to remove");
    assert!(!again.stdout.contains("- remove") && !again.stdout.contains("- empty"), "{}", again.stdout);

    let asked = bake(&sandbox, FILE, &["--seal", "--host-keys", "--authorized-keys"]).expect(0);
    let asked = asked.says("- remove /etc/ssh/ssh_host_ed25519_key (").says("- remove /root/.ssh/authorized_keys (");
    assert!(!asked.stdout.contains("note:"), "{}", asked.stdout);
    assert!(fs::exists(outside).unwrap());
}

#[test]
fn a_run_that_failed_is_not_sealed() {
    let sandbox = sandbox();
    let _ = sandbox.write("tree/root/.bash_history", "ls\n");
    let failing = "[[resource]]\nkind = \"file\"\npath = \"/none/x\"\ncontent = \"\"\n";
    let failed = bake(&sandbox, failing, &["--seal"]).expect(1).says("not sealed: the run has failed");
    assert!(!failed.stdout.contains("remove") && sandbox.path.join("tree/root/.bash_history").exists());
    // The command of the hint seals the image, too.
    assert!(report(&sandbox)["again"].as_str().unwrap().ends_with(" --seal"), "{failed:?}");
}

#[test]
fn a_tree_without_a_system_is_refused_before_the_first_change() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path.join("tree")).unwrap();
    let (manifest, tree) = (sandbox.manifest(FILE), sandbox.at("tree"));
    for verb in [&["bake", "--seal"][..], &["run"], &["plan"], &["plan", "--json"]] {
        let refused = sandbox.run(&[verb, &["--root", &tree, "--steps", &manifest]].concat()).expect(2);
        let _ = refused.says("the tree of --root holds no system: it has no /etc").says("hint: mount the image there");
    }
    let hint = format!("hint: glovo-bootstrap bake --root {tree} --steps DIRECTORY");
    let _ = sandbox.run(&["status", "--root", &tree]).expect(1).says(&hint);
    assert_eq!(fs::read_dir(sandbox.path.join("tree")).unwrap().count(), 0);
}

#[test]
fn credentials_left_behind_fail_the_seal_and_are_not_shown() {
    let sandbox = sandbox();
    let _ = sandbox.write("tree/root/.netrc", "machine git.example.com\nlogin ci\npassword canary-7461\n");
    let found = bake(&sandbox, FILE, &["--seal"]).expect(1).says("  ! /root/.netrc:3: a password");
    let found = found.says("error: the image would hold 1 credential").says("--allow PATH");
    assert!(!format!("{found:?}").contains("canary"), "{found:?}");
    let _ = bake(&sandbox, FILE, &["--seal", "--allow", "/root/.netrc"]).expect(0).says("no credentials found");
    let _ = bake(&sandbox, FILE, &["--seal", "--allow", "relative"]).expect(2);
}

#[test]
fn a_report_of_another_machine_is_no_report() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.manifest(&FILE.replace("/srv", &sandbox.at("")[..sandbox.at("").len() - 1]));
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0);
    let _ = sandbox.run(&["status"]).expect(0).says("converged");
    let path = sandbox.path.join("var-lib/glovo-bootstrap/report.json");
    for machine in ["i-0123456789abcdef0", "of another disk"] {
        let mut report = sandbox.report();
        report["machine"] = machine.into();
        fs::write(&path, report.to_string()).unwrap();
        for arguments in [&["status"][..], &["status", "--json"], &["status", "--wait"]] {
            let refused = sandbox.run(arguments).expect(1).says("the last report is of another machine");
            assert!(refused.stdout.is_empty(), "{refused:?}");
            assert_eq!(refused.stderr.contains("i-0123456789abcdef0"), machine.starts_with("i-"));
        }
    }
    // A machine that boots the image does not take the image's report as its own.
    for directory in ["etc", "srv"] {
        fs::create_dir_all(sandbox.path.join("tree").join(directory)).unwrap();
    }
    let manifest = sandbox.manifest(FILE);
    let _ = sandbox.run(&["run", "--root", &sandbox.at("tree"), "--steps", &manifest]).expect(0);
    let _ = sandbox.run(&["status", "--root", &sandbox.at("tree")]).expect(0).says("converged");
    let _ = fs::copy(sandbox.path.join("tree/var/lib/glovo-bootstrap/report.json"), &path).unwrap();
    let _ = sandbox.run(&["status"]).expect(1).says("of another machine");
}

#[test]
fn logins_to_stores_and_named_secrets_fail_the_seal() {
    let sandbox = sandbox();
    let vault = |login: &str| {
        let text = format!(
            "[vault]\naddress = \"https://vault.example.com\"\nlogin = {login}\n[[step]]\nname = \"a\"\n\
             [[step.resource]]\nkind = \"file\"\npath = \"/srv/file\"\ncontent = \"\"\n"
        );
        sandbox.write("vault.toml", text)
    };
    let seal = |manifest: &str, more: &[&str]| {
        let tree = sandbox.at("tree");
        sandbox.run(&[&["bake", "--seal", "--root", &tree, "--steps", manifest], more].concat())
    };
    for (login, file) in [
        ("{ method = \"approle\", role_id = \"r\", secret_id_file = \"/var/lib/app/id\" }", "/var/lib/app/id"),
        ("{ method = \"approle\", role_id = \"r\", wrapped_secret_id_file = \"/var/lib/app/w\" }", "/var/lib/app/w"),
        ("[{ method = \"aws\", role = \"r\" }, { method = \"jwt\", role = \"r\", file = \"/data/jwt\" }]", "/data/jwt"),
        ("{ method = \"token\", file = \"/root/token\" }", "/root/token"),
    ] {
        let manifest = vault(login);
        let _ = seal(&manifest, &[]).expect(0);
        let path = sandbox.write(&format!("tree{file}"), "canary\n");
        let found = seal(&manifest, &[]).expect(1).says(&format!("  ! {file}:1: a login to Vault"));
        assert!(!format!("{found:?}").contains("canary"), "{found:?}");
        let _ = seal(&manifest, &["--allow", file]).expect(0);
        fs::remove_file(path).unwrap();
    }
    let variables = "tree/etc/glovo-bootstrap/variables.toml";
    let harmless =
        "# db_password = \"canary\"\nhost = \"db\"\ndb_password = { secret = \"ssm:///db\" }\ntoken = \"\"\n";
    let _ = sandbox.write(variables, harmless);
    let _ = bake(&sandbox, FILE, &["--seal"]).expect(0);
    let _ = sandbox.write(variables, format!("{harmless}api_key = \"canary\"\n"));
    let found = bake(&sandbox, FILE, &["--seal"]).expect(1);
    let found = found.says("! /etc/glovo-bootstrap/variables.toml:5: a value with the name of a secret");
    assert!(!format!("{found:?}").contains("canary"), "{found:?}");
    let _ = sandbox.write(variables, harmless);
    let steps = "tree/etc/glovo-bootstrap/steps/10-app.toml";
    let declared = |value: &str| format!("name = \"app\"\n[variables]\nport = 80\ndb_password = {value}\n{FILE}");
    for harmless in ["{ secret = \"ssm:///db\" }", "\"{{ of_the_store }}\""] {
        let _ = sandbox.write(steps, declared(harmless));
        let _ = bake(&sandbox, FILE, &["--seal"]).expect(0);
    }
    let _ = sandbox.write(steps, declared("\"canary\""));
    let found = bake(&sandbox, FILE, &["--seal"]).expect(1);
    let _ = found.says("! /etc/glovo-bootstrap/steps/10-app.toml:4: a value with the name of a secret");
    let _ = sandbox.write(steps, declared("{ secret = \"ssm:///db\" }"));
    for (file, what) in [("root/.vault-token", "a token of Vault"), ("etc/credstore/db", "a credential of systemd")] {
        let path = sandbox.write(&format!("tree/{file}"), "canary\n");
        let _ = bake(&sandbox, FILE, &["--seal"]).expect(1).says(&format!("  ! /{file}:1: {what}"));
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_swap_file_does_not_go_into_an_image() {
    let sandbox = sandbox();
    let swap = "[[resource]]\nkind = \"swap\"\npath = \"/srv/swap\"\nsize = \"1GiB\"\n";
    let fstab = "LABEL=root / ext4 defaults 0 1\n/srv/swap none swap sw 0 0\n/dev/vdb none swap sw 0 0\n";
    let _ = (sandbox.write("tree/etc/fstab", fstab), sandbox.write("tree/srv/swap", "canary"));
    // A manifest that does not declare it cannot make it again.
    let found = bake(&sandbox, FILE, &["--seal"]).expect(1);
    let _ = found.says("  ! /srv/swap:1: a swap file, with the memory of programs");
    let _ = bake(&sandbox, FILE, &["--seal", "--allow", "/srv/swap"]).expect(0);
    let sealed = bake(&sandbox, swap, &["--seal"]).expect(0).says("  - remove /srv/swap (a swap file");
    let _ = sealed.says("sealed: 1 change");
    assert!(!sandbox.path.join("tree/srv/swap").exists());
    let left = fs::read_to_string(sandbox.path.join("tree/etc/fstab")).unwrap();
    assert_eq!(left, "LABEL=root / ext4 defaults 0 1\n/dev/vdb none swap sw 0 0\n");
    let _ = bake(&sandbox, swap, &["--seal"]).expect(0).says("sealed: nothing to remove");
}

#[test]
fn a_repository_with_a_password_waits_for_the_boot() {
    let sandbox = sandbox();
    let _ = sandbox.write("tree/etc/os-release", "ID=amzn\nID_LIKE=fedora\nVERSION_ID=2023\n");
    let dnf = sandbox.write("tree/usr/bin/dnf", "");
    fs::set_permissions(dnf, fs::Permissions::from_mode(0o755)).unwrap();
    let file = "etc/yum.repos.d/app.repo";
    let repository = |login: &str| {
        format!(
            "[[resource]]\nkind = \"yum_repository\"\nname = \"app\"\nbaseurl = [\"https://rpm.example.com/\"]\n\
             key = \"https://rpm.example.com/key.asc\"\n\
             key_fingerprint = \"0123456789ABCDEF0123456789ABCDEF01234567\"\n{login}\n"
        )
    };
    let secret = repository("username = \"app\"\npassword = \"canary\"");
    let baked = bake(&sandbox, &secret, &["--seal"]).expect(0).says("deferred: a secret does not go into an image");
    assert!(!format!("{baked:?}").contains("canary") && !sandbox.path.join("tree").join(file).exists());
    // The seal refuses a file that a run has left there; `--allow` does not change that.
    let _ = sandbox.write(&format!("tree/{file}"), "[app]\npassword=canary\n");
    let found = bake(&sandbox, &secret, &["--seal", "--allow", "/etc/yum.repos.d"]).expect(1);
    let found = found.says(&format!("  ! /{file}:1: a secret, as the manifest declares it"));
    assert!(!format!("{found:?}").contains("canary"), "{found:?}");
}

#[test]
fn an_image_without_the_parts_of_a_first_boot_is_refused() {
    let sandbox = sandbox();
    let agent = ["--seal", "--first-boot", "agent"];
    let _ = bake(&sandbox, FILE, &agent)
        .expect(1)
        .says("not sealed: the first boot could not be prepared")
        .says("this image cannot have its first boot without cloud-init")
        .says("- the image has no systemd-networkd.service (declare its package")
        .says("- the image has no growpart")
        .says("--login-user NAME");
    let tree = sandbox.path.join("tree");
    assert!(!tree.join("etc/systemd").exists() && !tree.join("etc/cloud").exists());
    let _ = bake(&sandbox, FILE, &agent[1..]).expect(2).says("--seal");
    let _ = bake(&sandbox, FILE, &["--seal", "--login-user", "ada"]).expect(2).says("--first-boot");
}

#[test]
fn a_first_boot_is_for_the_images_that_were_baked_for_it() {
    let sandbox = Sandbox::new();
    for verb in [&["set-up", "--login-user", "root"][..], &["host-keys"], &["growth"], &["user-data"]] {
        let _ = sandbox
            .run(&[&["first-boot"], verb].concat())
            .expect(2)
            .says("the image of this machine was not baked with --first-boot agent");
    }
}
