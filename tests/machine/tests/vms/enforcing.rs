//! Labels on a kernel that enforces SELinux's policy. The policy is Debian's, as it is packaged: no domain is permissive,
//! and no module is added.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use machine::{Output, UserData, Vm, VmOptions};
use sha2::{Digest, Sha256};

/// Each path below has another type than its directory, by the policy or by a rule of the machine's own.
const STEPS: &str = r#"
name = "labels"

[[resource]]
kind = "user"
name = "ada"
home = "/home/ada"
shell = "/bin/sh"
ssh_keys = ["@KEY@"]

[[resource]]
kind = "swap"
path = "/swapfile"
size = "64MiB"

[[resource]]
kind = "file"
path = "/etc/site.conf"
content = "good\n"

[[resource]]
kind = "file"
path = "/etc/systemd/system/site.service"
content = """
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/grep -q good /etc/site.conf
[Install]
WantedBy=multi-user.target
"""

[[resource]]
kind = "service"
name = "site"
enabled = true
running = true
stable = "0s"
restart_on = ["/etc/site.conf"]

[[resource]]
kind = "tree"
path = "/var/www/site"
source = "s3://glovo-config/site/"

[[resource]]
kind = "archive"
path = "/opt/app"
source = "s3://glovo-config/app.tar.gz"
sha256 = "@SHA256@"
"#;

/// What gives `/etc/site.conf` a type of its own, as an administrator does it.
const RULES: &str = "semanage fcontext --add --type httpd_config_t /etc/site.conf";

/// Shell: prints the first label that a path has.
const FIRST_LABEL: &str = "until label=$(stat -c %C /etc/site.conf 2> /dev/null); do :; done; echo $label";

/// The programs that a run needs, and sshd. Debian's policy denies a little to others in each boot.
const NEEDED: [&str; 6] = ["glovo-bootstrap", "useradd", "mkswap", "swapon", "systemctl", "sshd"];

/// A machine, and a key to log in with.
struct Enforcing {
    vm: Vm,
    key: PathBuf,
}

impl Enforcing {
    /// Boots a machine whose user-data fetches the agent and runs [`STEPS`].
    fn boot() -> Result<Enforcing> {
        let options =
            VmOptions { enforcing: true, user_data: Some(UserData::Text(String::new())), ..VmOptions::default() };
        let mut vm = Vm::new(options)?;
        let key = vm.directory().join("key");
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(&key).status()?;
        ensure!(made.success(), "ssh-keygen");
        let archive = archive(&vm)?;
        let sha256: String = Sha256::digest(&archive).iter().map(|byte| format!("{byte:02x}")).collect();
        vm.world().store("glovo-config/app.tar.gz", &archive)?;
        vm.world().store("glovo-config/site/index.html", b"hello")?;
        vm.world().store("glovo-config/site/cgi-bin/count", b"#!/bin/sh\n")?;
        let public = fs::read_to_string(key.with_extension("pub"))?;
        let steps = STEPS.replace("@KEY@", public.trim()).replace("@SHA256@", &sha256);
        vm.world().publish("origin.test/labels.toml", steps);
        vm.world().set_user_data(format!(
            "#!/bin/sh\nset -eu\n{RULES}\ncd /usr/local/bin\ncurl -fsSO http://origin.test/glovo-bootstrap\n\
             chmod 755 glovo-bootstrap\ncurl -fsS -o /root/labels.toml http://origin.test/labels.toml\n\
             ({FIRST_LABEL}) > /root/first-label &\nglovo-bootstrap run --steps /root/labels.toml\nwait\n"
        ));
        vm.power_on()?;
        vm.wait_until_booted()?;
        let status = vm.exec(&["cloud-init", "status", "--long"])?;
        let log = vm.sh("cat /var/log/cloud-init-output.log || true")?;
        ensure!(status.stdout.starts_with("status: done"), "{status:?}\n{log}\n{}", vm.console());
        ensure!(vm.sh("getenforce")?.trim() == "Enforcing");
        ensure!(vm.sh("semodule -l | grep -c permissive || true")?.trim() == "0");
        Ok(Enforcing { vm, key })
    }

    /// Logs in as ada, through sshd in its own domain.
    fn login(&self) -> Result<Output> {
        let mut ssh = self.vm.world().command("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-i"])
            .arg(&self.key)
            .args(["ada@172.31.0.10", "id -un"]);
        let output = ssh.output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Output {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        })
    }

    fn agent(&self, verb: &str) -> Result<Output> {
        self.vm.agent(&[verb, "--steps", "/root/labels.toml"])
    }

    /// Returns the changes that a plan shows.
    fn pending(&self) -> Result<Vec<String>> {
        let plan = self.vm.agent(&["plan", "--json", "--steps", "/root/labels.toml"])?;
        ensure!(plan.code == 0, "{plan:?}");
        plan.changes()
    }

    /// Returns the type of a file's label.
    fn type_of(&self, path: &str) -> Result<String> {
        let label = self.vm.sh(&format!("stat -c %C {path}"))?;
        Ok(label.split(':').nth(2).unwrap_or_default().to_owned())
    }

    /// Returns what the kernel has denied to the programs that are [`NEEDED`].
    fn denials(&self) -> Result<Vec<String>> {
        let log = self.vm.sh("dmesg | grep 'avc:  denied' || true")?;
        let is_needed = |line: &str| NEEDED.iter().any(|program| line.contains(&format!("comm=\"{program}\"")));
        let (needed, other): (Vec<_>, Vec<_>) = log.lines().map(str::to_owned).partition(|line| is_needed(line));
        println!("{} denials of other programs:\n{}", other.len(), other.join("\n"));
        Ok(needed)
    }

    /// Checks that the labels of all that was written are the policy's, as restorecon judges.
    fn labels_are_right(&self) -> Result<()> {
        let wrong = self.vm.sh(
            "restorecon -n -v -R /etc /home /opt /srv /usr/local /var/www /var/lib/glovo-bootstrap /run/systemd/system",
        )?;
        ensure!(wrong.is_empty(), "{wrong}");
        Ok(())
    }
}

/// An archive with a program, a library and a file without a type of its own.
fn archive(vm: &Vm) -> Result<Vec<u8>> {
    let tree = vm.directory().join("app");
    for (file, text) in [("bin/app", "#!/bin/sh\n"), ("lib/app.so", ""), ("README", "")] {
        let file = tree.join(file);
        fs::create_dir_all(file.parent().expect("in the tree"))?;
        fs::write(file, text)?;
    }
    let tar = Command::new("tar").args(["-C", &tree.display().to_string(), "-cz", "bin", "lib", "README"]).output()?;
    ensure!(tar.status.success(), "tar");
    Ok(tar.stdout)
}

#[test]
fn the_labels_of_a_run_let_an_enforcing_machine_work() -> Result<()> {
    let machine = Enforcing::boot()?;
    let vm = &machine.vm;
    for (path, expected) in [
        ("/home/ada/.ssh/authorized_keys", "ssh_home_t"),
        ("/swapfile", "swapfile_t"),
        ("/etc/site.conf", "httpd_config_t"),
        ("/etc/systemd/system/site.service", "systemd_unit_t"),
        ("/var/www/site/cgi-bin/count", "httpd_sys_script_exec_t"),
        ("/opt/app/bin/app", "bin_t"),
        ("/opt/app/lib/app.so", "lib_t"),
        ("/opt/app/README", "usr_t"),
    ] {
        assert_eq!(machine.type_of(path)?, expected, "{path}");
    }
    let first = vm.sh("cat /root/first-label")?;
    ensure!(first.contains(":httpd_config_t:"), "it appeared with another label: {first}");
    machine.labels_are_right()?;
    assert_eq!(vm.sh("swapon --show=NAME --noheadings")?.trim(), "/swapfile");
    assert_eq!(machine.login()?.success()?.trim(), "ada");
    assert_eq!(machine.denials()?, [""; 0]);
    ensure!(machine.pending()?.is_empty());

    wrong_labels_are_drift(&machine)?;
    a_chosen_label_stays(&machine)?;
    a_restored_file_has_its_label(&machine)?;
    the_rules_are_those_of_restorecon(&machine)
}

/// Wrong labels have the effect that the policy wants, a plan shows them, and a run sets the right ones.
fn wrong_labels_are_drift(machine: &Enforcing) -> Result<()> {
    let vm = &machine.vm;
    vm.sh("swapoff /swapfile; chcon -t var_t /home/ada/.ssh/authorized_keys; chcon -t default_t /swapfile
        chcon -t tmp_t /etc/site.conf /var/www/site/index.html /opt/app/bin/app")?;
    let refused = machine.login()?;
    ensure!(refused.code == 255 && refused.stderr.contains("Permission denied"), "{refused:?}");
    ensure!(vm.exec(&["swapon", "/swapfile"])?.code != 0);
    let denied = machine.denials()?.join("\n");
    ensure!(denied.contains("comm=\"sshd\"") && denied.contains("comm=\"swapon\""), "{denied}");
    let pending = machine.pending()?.join("\n");
    for words in [
        "ssh_home_t (now var_t)",
        "swapfile_t (now default_t)",
        "/etc/site.conf: set label httpd_config_t (now tmp_t)",
        "index.html",
        "bin/app needs the label bin_t (now tmp_t)",
    ] {
        ensure!(pending.contains(words), "{words}:\n{pending}");
    }
    machine.agent("run")?.success()?;
    machine.labels_are_right()?;
    ensure!(machine.pending()?.is_empty());
    assert_eq!(machine.login()?.success()?.trim(), "ada");
    assert_eq!(vm.sh("swapon --show=NAME --noheadings")?.trim(), "/swapfile");
    Ok(())
}

/// restorecon leaves a customizable type, too.
fn a_chosen_label_stays(machine: &Enforcing) -> Result<()> {
    machine.vm.sh("chcon -t public_content_t /etc/site.conf")?;
    ensure!(machine.pending()?.is_empty());
    machine.vm.sh("sed -i 's/content = \"good/content = \"good too/' /root/labels.toml")?;
    machine.agent("run")?.success()?;
    assert_eq!(machine.vm.sh("cat /etc/site.conf")?, "good too\n");
    assert_eq!(machine.type_of("/etc/site.conf")?, "public_content_t");
    Ok(())
}

fn a_restored_file_has_its_label(machine: &Enforcing) -> Result<()> {
    for of in ["public_content_t", "httpd_config_t"] {
        machine.vm.sh(&format!("chcon -t {of} /etc/site.conf; sed -i 's/\"good too/\"bad/' /root/labels.toml"))?;
        let run = machine.agent("run")?;
        let said = format!("{}{}", run.stdout, run.stderr);
        ensure!(run.code == 1 && said.contains("put back: /etc/site.conf"), "{said}");
        assert_eq!(machine.vm.sh("cat /etc/site.conf")?, "good too\n");
        assert_eq!(machine.type_of("/etc/site.conf")?, of);
        machine.vm.sh("sed -i 's/\"bad/\"good too/' /root/labels.toml")?;
    }
    Ok(())
}

/// The agent reads the policy's files itself. With rules of an administrator it still judges as restorecon does.
fn the_rules_are_those_of_restorecon(machine: &Enforcing) -> Result<()> {
    let vm = &machine.vm;
    vm.sh("mkdir -p /srv/home/bob/.ssh /srv/site/html /srv/tools/x.d
        semanage import << 'END'
fcontext -a -f a -t etc_t '/usr/share/(doc|man)(/.*)?'
fcontext -a -f d -t var_log_t '/usr/share/zoneinfo/[A-E][^/]+'
fcontext -a -f f -t bin_t '/usr/share/perl5?(/.*)?'
fcontext -a -f d -t bin_t '/srv/tools/[^/]+\\.d'
fcontext -a -e /home /srv/home
fcontext -a -e /var/www /srv/site
END
        find /etc /opt /srv /usr -xdev -type d -user root | grep -v '[^[:alnum:]/._+@:-]' > /root/directories
        sed 's|.*|[[resource]]\\nkind = \"directory\"\\npath = \"&\"\\n|' /root/directories > /root/all.toml
        sed -i '1i name = \"all\"' /root/all.toml")?;
    let words = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        words.nth(2).zip(words.nth(3)).and_then(|(path, label)| Some((path, label.split(':').nth(2)?.to_owned())))
    };
    let said = vm.sh("restorecon -n -v -R /etc /opt /srv /usr")?;
    let directories: BTreeSet<String> = vm.sh("cat /root/directories")?.lines().map(str::to_owned).collect();
    let expected: BTreeSet<_> = said.lines().filter_map(words).filter(|(path, _)| directories.contains(path)).collect();
    let plan = vm.agent(&["plan", "--json", "--steps", "/root/all.toml"])?;
    ensure!(plan.code == 0, "{plan:?}");
    let found: BTreeSet<_> = plan
        .changes()?
        .iter()
        .filter_map(|change| {
            let (path, rest) = change.strip_prefix("directory ")?.split_once(": set ")?;
            Some((path.to_owned(), rest.split_once("label ")?.1.split(' ').next()?.to_owned()))
        })
        .collect();
    println!("{} directories, {} with another label by the new rules", directories.len(), expected.len());
    assert_eq!(found, expected);
    ensure!(expected.len() > 10, "{expected:?}");
    Ok(())
}
