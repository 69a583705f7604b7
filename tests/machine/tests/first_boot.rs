//! The first boot of an instance without cloud-init, in a container: what is set up once for an instance, and what is said
//! if it fails. Virtual machines have the rest: network, growth, and the comparison with cloud-init (vms/first_boot.rs).

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use machine::{Fault, Machine, Options, SweptDirectory, Tree, agent, pristine_tree};

const IMAGE: &str = "/image";
const USER: &str = "ada";
const STEPS: &str = r#"
name = "step"
[[resource]]
kind = "file"
path = "/srv/made"
content = "by the run of user-data"
"#;
/// A host name that only the run of a booted machine gives: the image's first boot names the machine.
const NAMED_LATER: &str = "name = \"named-later\"\n[[resource]]\nkind = \"file\"\npath = \"/etc/hostname\"\n\
                           content = \"later\\n\"\nphase = \"boot\"\n";
const NAMED: &str = "name = \"named\"\n[[resource]]\nkind = \"host\"\nhostname = \"web-1\"\n";
/// The programs that the container's tree lacks, and where this machine has them. An empty one is never executed.
const PROGRAMS: [(&str, Option<&str>); 3] =
    [("usr/bin/ssh-keygen", Some("/usr/bin/ssh-keygen")), ("usr/sbin/sshd", None), ("usr/bin/growpart", None)];

/// A unit that is part of `local-fs.target` and waits for the network.
const EARLY: &str = "[Unit]\nDefaultDependencies=no\nRequires=network-online.target\nAfter=network-online.target\n\
                     Before=local-fs.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n";

/// A service that waits for the network, and sshd's place: it fails without a host key.
const SERVICES: [(&str, &str); 2] = [
    (
        "application.service",
        "[Unit]\nWants=network-online.target\nAfter=network-online.target\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/touch /run/serves\n",
    ),
    (
        "ssh.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/test -s /etc/ssh/ssh_host_ed25519_key\n",
    ),
];
/// A program that makes no key before the service has started.
const SLOW_KEYGEN: &str =
    "#!/bin/sh\nuntil [ -e /run/serves ]; do sleep 0.1; done\nexec /usr/bin/ssh-keygen.real \"$@\"\n";

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").args(["--archive", "--no-target-directory"]).args([from, to]).status()?;
    ensure!(status.success(), "copying {}: {status}", from.display());
    Ok(())
}

/// Bakes an image by a step and more arguments, and returns it with what `bake` said at first and at a second time.
fn bake(step: &str, more: &[&str]) -> Result<(SweptDirectory, [String; 2])> {
    let baking = Machine::boot(Options::default())?;
    copy(&pristine_tree()?, &baking.path(IMAGE))?;
    for (program, source) in PROGRAMS {
        let to = baking.path(IMAGE).join(program);
        match source {
            Some(source) => _ = fs::copy(source, &to)?,
            None => fs::write(&to, "")?,
        }
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    fs::copy(baking.path("/usr/local/bin/glovo-bootstrap"), baking.path(IMAGE).join("usr/local/bin/glovo-bootstrap"))?;
    fs::create_dir_all(baking.path(IMAGE).join("etc/ssh"))?;
    fs::write(baking.path(IMAGE).join("etc/ssh/ssh_host_rsa_key"), "of the build machine")?;
    fs::write(baking.path(IMAGE).join("etc/baked.toml"), step)?;
    fs::write(baking.path(IMAGE).join("etc/step.toml"), STEPS)?;
    let steps = format!("{IMAGE}/etc/baked.toml");
    let mut said = vec![];
    for _ in 0..2 {
        let bake =
            ["bake", "--seal", "--first-boot", "agent", "--login-user", USER, "--root", IMAGE, "--steps", &steps];
        said.push(baking.agent(&[&bake, more].concat())?.success()?);
    }
    let image = SweptDirectory::new()?;
    copy(&baking.path(IMAGE), &image.path)?;
    Ok((image, said.try_into().expect("two")))
}

fn machine(image: &SweptDirectory, user_data: &str) -> Result<Machine> {
    let machine = Machine::new(Options { tree: Tree::At(image.path.clone()), ..Options::default() })?;
    machine.world().set_public_key(&public_key(&machine)?);
    machine.world().set_user_data(user_data.to_owned());
    Ok(machine)
}

fn public_key(machine: &Machine) -> Result<String> {
    let file = machine.directory().join("key");
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "launch", "-f"]).arg(&file).status()?;
    ensure!(made.success(), "ssh-keygen: {made}");
    Ok(fs::read_to_string(file.with_extension("pub"))?)
}

/// User-data as the command prints it.
fn own_user_data(format: &str) -> Result<String> {
    let arguments = ["user-data", "--baked", "--format", format, "--", "--steps", "/etc/step.toml"];
    let printed = Command::new(agent()?).args(arguments).output()?;
    ensure!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    Ok(String::from_utf8(printed.stdout)?)
}

fn boot(machine: &mut Machine) -> Result<()> {
    machine.power_on()?;
    machine.wait_until_booted()
}

const AUTHORIZED: &str = "/home/ada/.ssh/authorized_keys";

fn host_keys(machine: &Machine) -> Result<String> {
    machine.sh("cd /etc/ssh; stat -c '%n %a' ssh_host_*_key; cat ssh_host_*_key.pub")
}

/// Returns whether user-data has run since the last call.
fn has_run(machine: &Machine) -> Result<bool> {
    Ok(machine.exec(&["rm", "/srv/made"])?.code == 0)
}

#[test]
fn an_instance_is_set_up_once_and_a_copy_of_it_again() -> Result<()> {
    let (image, [first, second]) = bake(NAMED_LATER, &[])?;
    ensure!(
        first.contains("  + user ada: create user") && first.contains("cloud-init is disabled in this image"),
        "{first}"
    );
    ensure!(first.contains("  - remove /etc/ssh/ssh_host_rsa_key ("), "{first}");
    ensure!(!second.contains("  + ") && second.contains("sealed: nothing to remove"), "{second}");
    ensure!(
        fs::read_link(image.path.join("etc/systemd/system/systemd-networkd-wait-online.service"))?
            == Path::new("/dev/null")
    );

    // As a mount of the early boot that waits for the network.
    let units = image.path.join("etc/systemd/system");
    fs::write(units.join("early.service"), EARLY)?;
    fs::create_dir_all(units.join("local-fs.target.wants"))?;
    symlink("../early.service", units.join("local-fs.target.wants/early.service"))?;
    let mut machine = machine(&image, &own_user_data("script")?)?;
    boot(&mut machine)?;
    let cycles = "systemctl is-active early.service; journalctl -b -o cat | grep 'ordering cycle' || true";
    assert_eq!(machine.sh(cycles)?, "active\n");
    let console = fs::read_to_string(machine.console())?;
    assert_eq!(machine.sh("systemctl --failed --plain --no-legend")?, "", "{console}");
    let keys = host_keys(&machine)?;
    for kind in ["rsa", "ecdsa", "ed25519"] {
        ensure!(keys.contains(&format!("ssh_host_{kind}_key 600\n")), "{keys}");
    }
    ensure!(console.contains("-----BEGIN SSH HOST KEY FINGERPRINTS-----"), "{console}");
    assert_eq!(machine.sh("hostname; cat /etc/hostname")?, "ip-172-31-0-10\nip-172-31-0-10\n");
    assert_eq!(machine.sh(&format!("grep -c launch {AUTHORIZED}; stat -c '%U %a' {AUTHORIZED}"))?, "1\nada 600\n");
    ensure!(has_run(&machine)?, "user-data did not run:\n{console}");
    assert_eq!(
        machine.sh("stat -c '%U %a' /run/glovo-bootstrap-user-data /run/glovo-bootstrap-user-data/script")?,
        "root 700\nroot 600\n"
    );

    // What an operator has changed since stays.
    machine.sh(&format!("rm {AUTHORIZED}; echo other > /etc/hostname"))?;
    machine.reboot()?;
    assert_eq!(host_keys(&machine)?, keys);
    assert_eq!(machine.sh(&format!("ls {AUTHORIZED} 2> /dev/null || cat /etc/hostname"))?, "other\n");
    ensure!(!has_run(&machine)?, "user-data ran again");

    machine.world().set_instance("i-0fedcba9876543210");
    machine.reboot()?;
    ensure!(host_keys(&machine)? != keys, "a copy has the keys of its original");
    assert_eq!(machine.sh(&format!("grep -c launch {AUTHORIZED}; cat /etc/hostname"))?, "1\nip-172-31-0-10\n");
    ensure!(has_run(&machine)?, "user-data did not run on the copy");
    Ok(())
}

#[test]
fn services_start_while_the_host_keys_are_made_and_sshd_after_it() -> Result<()> {
    let (image, _) = bake(NAMED, &[])?;
    let units = image.path.join("etc/systemd/system");
    fs::create_dir_all(units.join("multi-user.target.wants"))?;
    for (name, unit) in SERVICES {
        fs::write(units.join(name), unit)?;
        symlink(format!("../{name}"), units.join("multi-user.target.wants").join(name))?;
    }
    let keygen = image.path.join("usr/bin/ssh-keygen");
    fs::rename(&keygen, keygen.with_extension("real"))?;
    fs::write(&keygen, SLOW_KEYGEN)?;
    fs::set_permissions(&keygen, fs::Permissions::from_mode(0o755))?;
    let mut machine = machine(&image, &own_user_data("script")?)?;
    boot(&mut machine)?;
    let state = machine.sh("systemctl is-active application ssh; systemctl --failed --plain --no-legend")?;
    assert_eq!(state, "active\nactive\n", "{}", fs::read_to_string(machine.console())?);
    let waits_for = machine.sh("systemctl show --property After --value network-online.target")?;
    let of_ours: Vec<_> = waits_for.split_whitespace().filter(|unit| unit.contains("glovo")).collect();
    assert_eq!(of_ours, ["glovo-bootstrap-set-up.service"], "{waits_for}");
    ensure!(has_run(&machine)?, "user-data did not run");
    assert_eq!(machine.sh("hostname; cat /etc/hostname")?, "web-1\nweb-1\n", "a step of the image declares it");
    Ok(())
}

#[test]
fn what_fails_is_said_on_the_console_and_a_login_is_possible() -> Result<()> {
    let (image, _) = bake(NAMED, &["--skip", "named"])?;
    let mut foreign = machine(&image, "#!/bin/bash\ntouch /root/foreign\n")?;
    boot(&mut foreign)?;
    let console = fs::read_to_string(foreign.console())?;
    let line = console.lines().find(|line| line.contains("glovo-bootstrap: first boot: ")).unwrap_or_default();
    for words in ["which begins with `#!/bin/bash`", "has no cloud-init", "next: launch with the user-data that"] {
        ensure!(line.contains(words), "`{words}` is not in {console}");
    }
    let failed = foreign.sh("systemctl --failed --plain --no-legend | cut -d' ' -f1")?;
    assert_eq!(failed, "glovo-bootstrap-user-data.service\n");
    ensure!(foreign.exec(&["test", "-e", "/root/foreign"])?.code == 1, "foreign user-data was executed");
    ensure!(host_keys(&foreign)?.contains("ssh_host_ed25519_key 600\n"));
    foreign.sh(&format!("grep launch {AUTHORIZED}"))?;
    assert_eq!(foreign.sh("hostname")?, "ip-172-31-0-10\n", "this bake has skipped the step that declares a name");
    drop(foreign);

    let mut alone = machine(&image, &own_user_data("cloud-config")?)?;
    alone.world().fault("^PUT 169.254.169.254/latest/api/token", 1000, Fault::status(403));
    boot(&mut alone)?;
    let console = fs::read_to_string(alone.console())?;
    ensure!(console.contains("reading this instance's id: the instance metadata service is disabled"), "{console}");
    ensure!(host_keys(&alone)?.contains("ssh_host_ed25519_key 600\n"), "no host keys without the metadata service");
    ensure!(!has_run(&alone)?, "user-data ran without the metadata service");
    // At the next boot it answers.
    alone.world().clear_faults();
    alone.reboot()?;
    alone.sh(&format!("grep launch {AUTHORIZED}"))?;
    ensure!(has_run(&alone)?, "user-data did not run at the next boot");
    Ok(())
}
