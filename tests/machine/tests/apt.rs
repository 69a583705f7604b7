//! Faults of apt and dpkg on real machines, and `apt_repository`.

use anyhow::{Result, ensure};
use machine::step::{expect, run};
use machine::{Fault, Machine, Options, Signer};

fn package(names: &str) -> String {
    format!("[[resource]]\nkind = \"package\"\nnames = [\"{names}\"]\n")
}

fn is_installed(machine: &Machine, name: &str) -> Result<bool> {
    let status = machine.exec(&["dpkg-query", "--show", "--showformat=${Status}", name])?;
    Ok(status.stdout == "install ok installed")
}

fn machine() -> Result<Machine> {
    Machine::boot(Options::default())
}

#[test]
fn an_interrupted_dpkg_is_completed() -> Result<()> {
    let machine = machine()?;
    // Cut off in the middle: the maintainer script hangs, and everything of the run is killed.
    machine.sh("apt-get -qq update
         apt-get -qq -y install glovo-test-hang > /dev/null 2>&1 & apt=$!
         until [ -s /run/glovo-test-hang.pid ]; do sleep 0.05; done
         postinst=$(cat /run/glovo-test-hang.pid); dpkg=$(ps -o ppid= -p $postinst)
         kill -KILL $apt $dpkg $postinst")?;
    let status = machine.sh("dpkg-query --show --showformat='${Status}' glovo-test-hang")?;
    ensure!(status != "install ok installed", "{status}");
    // The hang is fixed: the unpacked package gets a script that ends.
    machine.sh("printf '#!/bin/sh\\n' > /var/lib/dpkg/info/glovo-test-hang.postinst")?;
    expect(&run(&machine, &package("glovo-test-hello"))?, 0, &["glovo-test-hello"]);
    expect(&run(&machine, &package("glovo-test-hang"))?, 0, &[]);
    assert!(is_installed(&machine, "glovo-test-hang")? && is_installed(&machine, "glovo-test-hello")?);
    expect(&run(&machine, &package("glovo-test-hang"))?, 0, &["0 changes"]);

    // Half-installed: the status file says so, `dpkg --audit` does not.
    machine.sh("sed -i '/^Package: glovo-test-hello$/,/^$/s/^Status: .*/Status: install reinstreq half-installed/' /var/lib/dpkg/status; rm /usr/share/glovo-test-hello/greeting")?;
    expect(&run(&machine, &package("glovo-test-hello"))?, 0, &["reinstall glovo-test-hello (half-installed)"]);
    assert_eq!(machine.sh("cat /usr/share/glovo-test-hello/greeting")?, "hello 2.0\n");

    // Another one is unpacked besides, so that dpkg has something to configure: it does that, and fails for the torn one.
    machine.sh("sed -i '/^Package: glovo-test-hello$/,/^$/s/^Status: .*/Status: install reinstreq unpacked/
        /^Package: glovo-test-hang$/,/^$/s/^Status: .*/Status: install ok unpacked/' /var/lib/dpkg/status")?;
    let both = "glovo-test-hang\", \"glovo-test-hello";
    expect(
        &run(&machine, &package(both))?,
        0,
        &["finish the configuration of glovo-test-hang (unpacked)", "reinstall glovo-test-hello (unpacked)"],
    );
    assert!(is_installed(&machine, "glovo-test-hang")? && is_installed(&machine, "glovo-test-hello")?);
    Ok(())
}

#[test]
fn every_lock_is_waited_for_and_its_holder_named() -> Result<()> {
    let machine = machine()?;
    machine.sh("apt-get -qq update")?;
    let holder = "import fcntl, sys, time\nfile = open(sys.argv[1], 'w')\nfcntl.lockf(file, fcntl.LOCK_EX)\nopen('/run/held', 'w')\ntime.sleep(600)\n";
    std::fs::write(machine.path("/root/holder.py"), holder)?;
    let locks = [
        "/var/lib/dpkg/lock-frontend",
        "/var/lib/dpkg/lock",
        "/var/lib/apt/lists/lock",
        "/var/cache/apt/archives/lock",
    ];
    for lock in locks {
        machine.sh(&format!("rm -f /run/held; setsid python3 /root/holder.py {lock} > /dev/null 2>&1 & echo $! > /run/holder.pid; until [ -e /run/held ]; do sleep 0.02; done"))?;
        let impatient = format!("{}timeout = \"1s\"\n", package("glovo-test-hello"));
        expect(&run(&machine, &impatient)?, 75, &[lock, "is held by pid ", "holder.py"]);
        assert!(!is_installed(&machine, "glovo-test-hello")?);
        // The lock is released while the next run waits. The run continues by itself.
        machine.sh("(sleep 1; kill $(cat /run/holder.pid)) > /dev/null 2>&1 &")?;
        expect(&run(&machine, &package("glovo-test-hello"))?, 0, &[]);
        machine.sh("dpkg --purge glovo-test-hello > /dev/null")?;
    }
    Ok(())
}

#[test]
fn a_failing_mirror_is_tried_again_and_then_given_up() -> Result<()> {
    let machine = machine()?;
    machine.sh("apt-get -qq update")?;
    let deb = "GET deb.debian.org/debian/pool/glovo-test-hello";
    // The package is missing once, as with old lists. The run updates the lists.
    machine.world().fault(deb, 1, Fault::status(404));
    expect(&run(&machine, &package("glovo-test-hello"))?, 0, &[]);
    machine.sh("dpkg --purge glovo-test-hello > /dev/null; apt-get clean")?;
    machine.world().fault(deb, usize::MAX, Fault::status(503));
    expect(&run(&machine, &package("glovo-test-hello"))?, 75, &["503", "gave up after"]);
    assert!(!is_installed(&machine, "glovo-test-hello")?);
    expect(
        &run(&machine, &package("glovo-test-missing"))?,
        1,
        &["Unable to locate package glovo-test-missing", "apt-cache policy"],
    );
    Ok(())
}

#[test]
fn only_a_repository_with_the_pinned_key_is_taken() -> Result<()> {
    let machine = machine()?;
    let key = machine.sh("curl -fsS http://apt.test/key.asc | tee /root/key.asc | sha256sum")?;
    let digest = key.split_whitespace().next().unwrap_or_default().to_owned();
    let repository = |suite: &str, digest: &str| {
        format!(
            "[[resource]]\nkind = \"apt_repository\"\nname = \"extra\"\nuris = [\"http://apt.test\"]\nsuites = [\"{suite}\"]\n\
             components = [\"main\"]\nkey = \"/root/key.asc\"\nkey_sha256 = \"{digest}\"\n"
        )
    };
    let nothing_is_left =
        || machine.sh("! ls /etc/apt/sources.list.d/extra.sources /etc/apt/keyrings/extra.* 2> /dev/null");
    expect(&run(&machine, &repository("unsigned", &digest))?, 1, &["signed"]);
    nothing_is_left()?;
    clock_is_synchronized(&machine, true)?;
    expect(&run(&machine, &repository("expired", &digest))?, 1, &["expired", "use another mirror"]);
    nothing_is_left()?;
    // The clock may also be ahead.
    clock_is_synchronized(&machine, false)?;
    expect(
        &run(&machine, &repository("expired", &digest))?,
        75,
        &["expired", "set this machine's clock, which shows 20"],
    );
    nothing_is_left()?;
    expect(&run(&machine, &repository("stable", &"0".repeat(64)))?, 1, &["sha256"]);
    nothing_is_left()?;
    // The key is whole and pinned, but did not sign the index.
    machine.sh("cp /etc/apt/trusted.gpg.d/machine-under-test.gpg /root/key.asc")?;
    let other = machine.sh("sha256sum /root/key.asc")?;
    let other = other.split_whitespace().next().unwrap_or_default().to_owned();
    expect(&run(&machine, &repository("stable", &other))?, 1, &["declare the key that signs the repository"]);
    nothing_is_left()?;

    machine.sh("curl -fsS http://apt.test/key.asc > /root/key.asc")?;
    let resources = repository("stable", &digest) + &package("glovo-test-extra");
    expect(&run(&machine, &resources)?, 0, &["converged: 2 changes"]);
    assert!(is_installed(&machine, "glovo-test-extra")?);
    expect(&run(&machine, &resources)?, 0, &["converged: 0 changes"]);
    Ok(())
}

/// Makes systemd report this state of the clock. A container's clock is its host's.
fn clock_is_synchronized(machine: &Machine, synchronized: bool) -> Result<()> {
    let word = if synchronized { "yes" } else { "no" };
    let program = "/usr/local/sbin/timedatectl";
    machine.sh(&format!("printf '#!/bin/sh\\necho {word}\\n' > {program}; chmod +x {program}"))?;
    Ok(())
}

#[test]
fn an_index_from_the_future_is_the_clocks_fault() -> Result<()> {
    let machine = machine()?;
    clock_is_synchronized(&machine, true)?;
    let vendor = Signer::new(machine.directory(), "vendor")?;
    let date = "Thu, 01 Jan 2082 00:00:00 UTC";
    vendor.publish_at(machine.world(), "vendor.test", "glovo-test-vendor", "1.0", date)?;
    std::fs::write(machine.path("/root/key"), &vendor.key)?;
    let repository = format!(
        "[[resource]]\nkind = \"apt_repository\"\nname = \"vendor\"\nuris = [\"http://vendor.test\"]\nsuites = [\"stable\"]\n\
         components = [\"main\"]\nkey = \"/root/key\"\nkey_fingerprint = \"{}\"\n",
        vendor.fingerprint
    );
    expect(&run(&machine, &repository)?, 75, &["not valid yet", "set this machine's clock, which shows 20"]);
    Ok(())
}

#[test]
fn an_untrusted_mirror_is_a_temporary_failure_while_the_clock_is_not_set() -> Result<()> {
    let machine = machine()?;
    let vendor = Signer::new(machine.directory(), "vendor")?;
    vendor.publish(machine.world(), "vendor.test", "glovo-test-vendor", "1.0")?;
    std::fs::write(machine.path("/root/key"), &vendor.key)?;
    let repository = format!(
        "[[resource]]\nkind = \"apt_repository\"\nname = \"vendor\"\nuris = [\"https://vendor.test\"]\nsuites = [\"stable\"]\n\
         components = [\"main\"]\nkey = \"/root/key\"\nkey_fingerprint = \"{}\"\n",
        vendor.fingerprint
    );
    machine.sh(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=other -keyout /dev/null \
         -out /etc/ssl/certs/ca-certificates.crt 2> /dev/null",
    )?;
    for (is_synchronized, code) in [(true, 1), (false, 75)] {
        clock_is_synchronized(&machine, is_synchronized)?;
        expect(&run(&machine, &repository)?, code, &["Certificate verification failed", "clock"]);
    }
    Ok(())
}

#[test]
fn too_little_space_is_told_before_any_download() -> Result<()> {
    let machine = machine()?;
    machine.sh("apt-get -qq update")?;
    // nginx has 648 kB of archives and 1.7 MB in them.
    let archives = "/var/cache/apt/archives";
    machine.sh(&format!("mount -t tmpfs -o size=256k tmpfs {archives}"))?;
    let full = run(&machine, &package("nginx"))?;
    expect(&full, 1, &["the file system of /var/cache/apt/archives is too full: the packages need ", "du -xh"]);
    machine.sh(&format!(
        "umount {archives}; mkdir /run/usr; mount -t tmpfs -o size=1m tmpfs /run/usr; mkdir /run/usr/u /run/usr/w
         mount -t overlay -o lowerdir=/usr,upperdir=/run/usr/u,workdir=/run/usr/w overlay /usr"
    ))?;
    expect(&run(&machine, &package("nginx"))?, 1, &["the file system of /usr/bin is too full: the packages need 1"]);
    assert!(!machine.world().requests().iter().any(|request| request.path.ends_with(".deb")));
    machine.sh("! dpkg-query --show nginx 2> /dev/null; mount -o remount,size=100m /run/usr")?;
    expect(&run(&machine, &package("nginx"))?, 0, &["converged: 1 change"]);
    Ok(())
}

#[test]
fn a_tree_killed_inside_dpkg_is_repaired_by_the_next_run() -> Result<()> {
    let machine = machine()?;
    machine.sh("apt-get -qq update; echo 'Dir::Bin::dpkg \"/root/dpkg\";' > /etc/apt/apt.conf.d/99stopped")?;
    // dpkg stops at its Nth rename: of its record, of what it unpacks, of a configuration file.
    std::fs::write(
        machine.path("/root/dpkg"),
        "#!/bin/sh\nrm -f /run/trace\nrenames=rename,renameat,renameat2\n\
         exec strace -f -o /run/trace -e trace=$renames -e inject=$renames:signal=SIGSTOP:when=$(cat /run/nth) /usr/bin/dpkg \"$@\"\n",
    )?;
    let conffile = package("glovo-test-conffile\", \"glovo-test-service");
    std::fs::write(machine.path("/root/manifest.toml"), format!("name = \"step\"\n{conffile}"))?;
    machine.sh("chmod +x /root/dpkg")?;
    let (mut killed, mut nth) = (0, 1);
    loop {
        // Everything that the unit has started ends at once, as when its memory runs out or the machine does.
        let ended = machine.sh(&format!(
            "echo {nth} > /run/nth; rm -f /run/trace
             systemd-run --quiet --collect --unit=bootstrap glovo-bootstrap run --steps /root/manifest.toml
             until grep -qs 'stopped by SIGSTOP' /run/trace || ! systemctl --quiet is-active bootstrap; do sleep 0.02; done
             if systemctl --quiet is-active bootstrap; then
                 echo 1 > /sys/fs/cgroup/system.slice/bootstrap.service/cgroup.kill; echo killed
                 while systemctl --quiet is-active bootstrap; do sleep 0.02; done
             fi"
        ))?;
        if ended.is_empty() {
            break;
        }
        killed += 1;
        machine.sh("mv /etc/apt/apt.conf.d/99stopped /root")?;
        expect(&machine.agent(&["run", "--steps", "/root/manifest.toml"])?, 0, &["converged"]);
        let installed = is_installed(&machine, "glovo-test-conffile")? && is_installed(&machine, "glovo-test-service")?;
        assert!(installed, "killed at rename {nth}");
        machine
            .sh("dpkg --audit; ! ls /usr/sbin/policy-rc.d 2> /dev/null; grep version /etc/glovo-test-conffile.conf")?;
        machine.sh(
            "dpkg --purge glovo-test-conffile glovo-test-service > /dev/null; mv /root/99stopped /etc/apt/apt.conf.d",
        )?;
        nth += 2;
    }
    ensure!(killed >= 8, "killed only {killed} times");
    Ok(())
}

#[test]
fn an_edited_configuration_file_stays_and_nothing_asks() -> Result<()> {
    let machine = machine()?;
    expect(&run(&machine, &package("glovo-test-conffile=1.0"))?, 0, &[]);
    machine.sh("echo mine > /etc/glovo-test-conffile.conf")?;
    expect(&run(&machine, &package("glovo-test-conffile=2.0"))?, 0, &["install glovo-test-conffile=2.0 (now 1.0)"]);
    assert_eq!(machine.sh("cat /etc/glovo-test-conffile.conf")?, "mine\n");
    Ok(())
}

#[test]
fn a_broken_or_hung_maintainer_script_is_told_and_fixed_later() -> Result<()> {
    let machine = machine()?;
    expect(
        &run(&machine, &package("glovo-test-broken"))?,
        1,
        &["| glovo-test-broken: /etc/glovo-test-broken.fixed is missing"],
    );
    machine.sh("touch /etc/glovo-test-broken.fixed")?;
    expect(&run(&machine, &package("glovo-test-broken"))?, 0, &["finish the configuration of glovo-test-broken"]);

    let hang = format!("{}timeout = \"20s\"\n", package("glovo-test-hang"));
    expect(&run(&machine, &hang)?, 75, &["timed out after 20.0 s"]);
    machine.sh("! kill -0 $(cat /run/glovo-test-hang.pid) 2> /dev/null")?;
    machine.sh("printf '#!/bin/sh\\n' > /var/lib/dpkg/info/glovo-test-hang.postinst")?;
    expect(&run(&machine, &hang)?, 0, &["glovo-test-hang"]);
    Ok(())
}

#[test]
fn a_package_starts_no_service_and_no_policy_outlives_the_run() -> Result<()> {
    let machine = machine()?;
    expect(&run(&machine, &package("glovo-test-service"))?, 0, &[]);
    assert_eq!(machine.exec(&["systemctl", "is-active", "glovo-test-service"])?.stdout, "inactive\n");
    machine.sh("! ls /usr/sbin/policy-rc.d 2> /dev/null")?;

    // Killed during an installation: apt continues, and removes the policy itself.
    std::fs::write(machine.path("/root/hang.toml"), format!("name = \"step\"\n{}", package("glovo-test-hang")))?;
    machine.sh("glovo-bootstrap run --steps /root/hang.toml > /dev/null 2>&1 & run=$!
         until [ -s /run/glovo-test-hang.pid ]; do sleep 0.05; done
         ls /usr/sbin/policy-rc.d
         apt=$(ps -o pid= --ppid $run)
         kill -KILL $run $(cat /run/glovo-test-hang.pid)
         while kill -0 $apt 2> /dev/null; do sleep 0.05; done")?;
    machine.sh("! ls /usr/sbin/policy-rc.d 2> /dev/null")?;
    Ok(())
}
