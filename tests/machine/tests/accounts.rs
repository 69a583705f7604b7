//! Faults of users and groups.

use std::fs;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use machine::{Machine, Options, Output};

/// A machine with a user's manifest, `[[resource]]` and `kind` given.
fn machine() -> Result<Machine> {
    Machine::boot(Options::default())
}

fn run(machine: &Machine, fields: &str) -> Result<Output> {
    let manifest = format!("name = \"accounts\"\n[[resource]]\nkind = \"user\"\n{fields}\n");
    fs::write(machine.path("/root/accounts.toml"), manifest)?;
    machine.agent(&["run", "--steps", "/root/accounts.toml"])
}

/// Checks the exit code and the words of a run.
fn fails(run: &Output, code: i32, words: &[&str]) -> Result<()> {
    let said = format!("{}{}", run.stdout, run.stderr);
    ensure!(run.code == code, "exit code {}, not {code}:\n{said}", run.code);
    for word in words {
        ensure!(said.contains(word), "`{word}` is not in\n{said}");
    }
    Ok(())
}

fn passwd(machine: &Machine) -> Result<String> {
    Ok(fs::read_to_string(machine.path("/etc/passwd"))?)
}

#[test]
fn a_taken_id_and_a_different_account_change_nothing() -> Result<()> {
    let machine = machine()?;
    machine.sh("useradd --create-home --uid 1500 first; echo kept > /home/first/file")?;
    let before = passwd(&machine)?;
    for (fields, words) in [
        ("name = \"second\"\nuid = 1500", ["uid 1500 belongs to user first", "declare another uid"]),
        ("name = \"first\"\nuid = 1600", ["user first has uid 1500, not 1600", "its files keep the old one"]),
        ("name = \"first\"\nhome = \"/srv/first\"", ["user first has home /home/first, not /srv/first", "--move-home"]),
    ] {
        fails(&run(&machine, fields)?, 1, &words)?;
        assert_eq!(passwd(&machine)?, before);
    }
    assert_eq!(machine.sh("cat /home/first/file; ls /srv")?, "kept\n");
    Ok(())
}

#[test]
fn a_latin_1_name_in_passwd_fails_no_user_and_no_file() -> Result<()> {
    let machine = machine()?;
    machine
        .sh("useradd --create-home first; sed -i 's/^first:x:\\([0-9:]*\\):/first:x:\\1:J\\xfcrgen/' /etc/passwd")?;
    machine.sh("printf '# M\\374llers disk\\n' >> /etc/fstab")?;
    let line = |machine: &Machine| machine.sh("grep --text ^first: /etc/passwd | od -c");
    let before = line(&machine)?;
    ensure!(before.contains("374"), "{before}");
    let fields = "name = \"second\"\n[[resource]]\nkind = \"user\"\nname = \"first\"\n\
                  [[resource]]\nkind = \"file\"\npath = \"/srv/file\"\ncontent = \"x\"\n";
    run(&machine, fields)?.success()?;
    assert_eq!(line(&machine)?, before, "useradd keeps the bytes");
    ensure!(run(&machine, fields)?.stdout.contains("converged: 0 changes"));
    Ok(())
}

#[test]
fn a_link_in_place_of_a_users_ssh_directory_is_refused() -> Result<()> {
    let machine = machine()?;
    machine.sh("useradd --create-home first; mkdir /srv/victim; chmod 755 /srv/victim; touch /srv/victim/kept")?;
    let file = "[[resource]]\nkind = \"file\"\npath = \"/home/first/.ssh/authorized_keys\"\ncontent = \"key\"\nowner = \"first\"\nmode = \"0600\"\n";
    let directory =
        "[[resource]]\nkind = \"directory\"\npath = \"/home/first/.ssh\"\nowner = \"first\"\nmode = \"0700\"\n";
    let before = "stat --format='%n %U %a %s' /srv/victim /srv/victim/* /etc; readlink /home/first/.ssh";
    // One link is the user's own, the other one is root's.
    for owner in ["first", "root"] {
        for target in ["/srv/victim", "../../srv/victim", "/etc"] {
            machine.sh(&format!("ln -sfn {target} /home/first/.ssh; chown -h {owner}: /home/first/.ssh"))?;
            let was = machine.sh(before)?;
            for resources in [directory, file] {
                let manifest = format!("name = \"ssh\"\n{resources}");
                fs::write(machine.path("/root/ssh.toml"), manifest)?;
                fails(&machine.agent(&["run", "--steps", "/root/ssh.toml"])?, 1, &["/home/first/.ssh"])?;
                ensure!(machine.sh(before)? == was, "with a link of {owner} to {target}");
            }
            machine.sh("! ls /srv/victim/authorized_keys /etc/authorized_keys 2> /dev/null")?;
        }
    }
    Ok(())
}

#[test]
fn another_shell_is_set_and_nothing_else() -> Result<()> {
    let machine = machine()?;
    machine.sh("useradd --create-home --shell /bin/sh first")?;
    let before = passwd(&machine)?;
    run(&machine, "name = \"first\"\nshell = \"/bin/bash\"")?.success()?;
    assert_eq!(passwd(&machine)?, before.replace("/home/first:/bin/sh", "/home/first:/bin/bash"));
    Ok(())
}

#[test]
fn a_stale_lock_is_named_with_its_remedy() -> Result<()> {
    let machine = machine()?;
    for stale in [": ", "echo $$ ", "echo not-a-pid "] {
        machine.sh(&format!("{stale} > /etc/passwd.lock"))?;
        let words = ["/etc/passwd.lock locks the accounts, but has no process id", "rm /etc/passwd.lock"];
        fails(&run(&machine, "name = \"first\"")?, 1, &words)?;
    }
    machine.sh("sh -c 'printf \"$$\\0\" > /etc/passwd.lock'")?;
    run(&machine, "name = \"first\"")?.success()?;
    Ok(())
}

/// A process in the machine that has done `script` and then lives until it is killed.
fn holder(machine: &Machine, script: &str) -> Result<Child> {
    let mut holder = machine.command(&["perl", "-e", script]);
    let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut ready = [0];
    std::io::Read::read_exact(holder.stdout.as_mut().context("piped")?, &mut ready)?;
    Ok(holder)
}

/// Says that it is ready, and waits for its input to end.
const HOLD: &str = "$| = 1; print 1; <STDIN>;";

fn is_waited_for(lock: &str, take: &str) -> Result<()> {
    let machine = machine()?;
    let mut holder = holder(&machine, &format!("{take} {HOLD}"))?;
    let waited = run(&machine, "name = \"first\"\ntimeout = \"1s\"")?;
    fails(&waited, 75, &[&format!("{lock} is held by pid "), "(perl -e ", "timed out after 1.0 s"])?;
    assert!(!passwd(&machine)?.contains("first:"));

    // The run waits again, and the holder ends meanwhile.
    let mut patient = machine.command(&["/usr/local/bin/glovo-bootstrap", "run", "--steps", "/root/accounts.toml"]);
    fs::write(
        machine.path("/root/accounts.toml"),
        "name = \"accounts\"\n[[resource]]\nkind = \"user\"\nname = \"first\"\n",
    )?;
    let patient = patient.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    machine.sh("until grep -q running /var/lib/glovo-bootstrap/report.json; do sleep 0.02; done")?;
    drop(holder.stdin.take());
    holder.wait()?;
    ensure!(patient.wait_with_output()?.status.success());
    assert!(passwd(&machine)?.contains("first:"));
    Ok(())
}

#[test]
fn a_lock_file_with_a_living_owner_is_waited_for() -> Result<()> {
    is_waited_for(
        "/etc/passwd.lock",
        "open L, '>/etc/passwd.lock'; print L $$; close L; END { unlink '/etc/passwd.lock' }",
    )
}

#[test]
fn a_holder_of_lckpwdf_is_waited_for() -> Result<()> {
    // fcntl(F_SETLK, { F_WRLCK, SEEK_SET, whole file }), as lckpwdf(3) does.
    is_waited_for(
        "/etc/.pwd.lock",
        "open L, '>>/etc/.pwd.lock'; my $lock = pack 's s x4 q q l x4', 1, 0, 0, 0, 0; fcntl L, 6, $lock or die $!;",
    )
}

#[test]
fn a_read_only_etc_is_named() -> Result<()> {
    let machine = machine()?;
    machine.sh("mount --bind /etc /etc; mount -o remount,bind,ro /etc")?;
    let read_only = run(&machine, "name = \"first\"")?;
    fails(&read_only, 1, &["the file system of /etc is mounted read-only"])
}

#[test]
fn drift_of_a_declared_login_is_named_and_fixed() -> Result<()> {
    let machine = machine()?;
    let hash = format!("$6$saltsalt${}", "a".repeat(86));
    let fields = format!(
        "name = \"ada\"\nshell = \"/bin/bash\"\nexpires = \"2099-01-31\"\npassword_hash = \"{hash}\"\n\
         ssh_keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleE ada\"]"
    );
    fs::write(
        machine.path("/root/other.pub"),
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBobBobBobBobBobBobBobBobBobBobBobBobBobBobB by-hand\n",
    )?;
    run(&machine, &fields)?.success()?;
    let modes = "stat --format='%n %U:%G %a' /home/ada/.ssh /home/ada/.ssh/authorized_keys";
    let right = "/home/ada/.ssh ada:ada 700\n/home/ada/.ssh/authorized_keys ada:ada 600\n";
    ensure!(machine.sh(modes)? == right);
    ensure!(machine.sh("LC_ALL=C chage --list ada")?.contains("Account expires\t\t\t\t\t\t: Jan 31, 2099"));
    ensure!(machine.sh("grep -c '^ada:[$]6[$]saltsalt[$]' /etc/shadow")? == "1\n");
    ensure!(run(&machine, &fields)?.stdout.contains("converged: 0 changes"));
    for (by_hand, words) in [
        ("cat /root/other.pub > /home/ada/.ssh/authorized_keys", "authorized_keys: add SHA256:"),
        ("chmod 644 /home/ada/.ssh/authorized_keys", "authorized_keys: set mode 0600 (now 0644)"),
        ("chmod 755 /home/ada/.ssh", "/home/ada/.ssh: set mode 0700 (now 0755)"),
        ("usermod --expiredate '' ada", "set expiry 2099-01-31 (now never)"),
        ("usermod --lock ada", "user ada: set its password"),
    ] {
        machine.sh(by_hand)?;
        let said = run(&machine, &fields)?.success()?;
        ensure!(said.contains(words) && said.contains("converged: 1 change"), "{by_hand}: {said}");
    }
    ensure!(machine.sh(modes)? == right);
    ensure!(machine.sh("grep -c by-hand /home/ada/.ssh/authorized_keys")? == "1\n");
    Ok(())
}
