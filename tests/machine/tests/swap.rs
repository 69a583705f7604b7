//! Swap files on real file systems.

use std::fs;

use anyhow::{Result, ensure};
use machine::{Machine, Options, Output};

fn machine() -> Result<Machine> {
    Machine::boot(Options { disks: vec!["ext4", "xfs", "btrfs"], ..Options::default() })
}

fn agent(machine: &Machine, verb: &[&str], path: &str, size: &str) -> Result<Output> {
    let manifest = format!("name = \"swap\"\n[[resource]]\nkind = \"swap\"\npath = \"{path}\"\nsize = \"{size}\"\n");
    fs::write(machine.path("/root/swap.toml"), manifest)?;
    machine.agent(&[verb, &["--steps", "/root/swap.toml"]].concat())
}

/// It is active, root's alone, whole, and in fstab once; and nothing is left to do.
fn is_converged(machine: &Machine, path: &str) -> Result<()> {
    let swaps = machine.sh("swapon --show=NAME --noheadings")?;
    ensure!(swaps.lines().any(|line| line == path), "{swaps}");
    assert_eq!(machine.sh(&format!("stat -c '%U:%G %a %s' {path}"))?, "root:root 600 16777216\n");
    assert_eq!(machine.sh(&format!("grep -c '^{path} none swap ' /etc/fstab"))?, "1\n");
    assert_eq!(agent(machine, &["plan", "--json"], path, "16MiB")?.changes()?, [""; 0]);
    Ok(())
}

/// Takes the swap file away, with all that is known of it.
fn clear(machine: &Machine, path: &str) -> Result<()> {
    machine.sh(&format!("swapoff {path} 2> /dev/null || true; rm -f {path}; sed -i '\\|^{path} |d' /etc/fstab"))?;
    Ok(())
}

#[test]
fn an_existing_swap_file_is_closed_and_activated_not_remade() -> Result<()> {
    let machine = machine()?;
    for path in [machine.swap_path(), machine.swap_path().replace("ext4", "xfs")] {
        agent(&machine, &["run"], &path, "16MiB")?.success()?;
        is_converged(&machine, &path)?;
        let inode = || machine.sh(&format!("stat -c %i {path}"));
        let made = inode()?;
        machine.sh(&format!("swapoff {path}; chmod 644 {path}"))?;
        let plan = agent(&machine, &["plan", "--json"], &path, "16MiB")?;
        let change = |what: &str| format!("swap {path}: {what}");
        assert_eq!(plan.changes()?, [change("set mode 0600 (now 0644)"), change("turn on")]);
        agent(&machine, &["run"], &path, "16MiB")?.success()?;
        is_converged(&machine, &path)?;
        assert_eq!(inode()?, made);
        // An active one stays, also if another size is declared now.
        assert_eq!(agent(&machine, &["plan", "--json"], &path, "32MiB")?.changes()?, [""; 0]);
    }
    Ok(())
}

#[test]
fn an_impossible_swap_file_is_refused_before_any_write() -> Result<()> {
    let machine = machine()?;
    let on_ext4 = machine.swap_path();
    let data = format!("{on_ext4}-data");
    machine.sh(&format!("echo precious > {data}; chmod 600 {data}; mkdir {on_ext4}-directory"))?;
    let tree =
        || machine.sh("find /mnt /run/swap* /swap* 2> /dev/null | sort; cat /etc/fstab; df --output=used /mnt/ext4");
    let before = tree()?;
    for (path, size, words) in [
        (on_ext4.as_str(), "10GiB", "would fill the disk: it needs 10 GiB"),
        ("/mnt/btrfs/swap", "16MiB", "it is on btrfs"),
        ("/run/swap", "16MiB", "it is on tmpfs"),
        ("/swap", "16MiB", "it is on overlayfs"),
        (&data, "16MiB", "exists and is not a swap file"),
        (&format!("{on_ext4}-directory"), "16MiB", "exists and is not a swap file"),
        ("/mnt/ext4/no/such/directory", "16MiB", "does not exist"),
    ] {
        let refused = agent(&machine, &["run"], path, size)?;
        let said = format!("{}{}", refused.stdout, refused.stderr);
        ensure!(refused.code == 1 && said.contains(words), "{path}: exit code {}\n{said}", refused.code);
        assert_eq!(tree()?, before, "{path}");
    }
    assert_eq!(machine.sh(&format!("cat {data}"))?, "precious\n");
    Ok(())
}

#[test]
fn a_swap_file_with_holes_is_refused_as_such() -> Result<()> {
    let machine = machine()?;
    let path = machine.swap_path();
    machine.sh(&format!("truncate --size=16M {path}; chmod 600 {path}; mkswap --quiet {path}"))?;
    let run = agent(&machine, &["run"], &path, "16MiB")?;
    let said = format!("{}{}", run.stdout, run.stderr);
    ensure!(run.code == 1 && said.contains("holes") && said.contains(&format!("rm {path}")), "{}\n{said}", run.code);
    machine.sh(&format!("rm {path}"))?;
    agent(&machine, &["run"], &path, "16MiB")?.success()?;
    is_converged(&machine, &path)
}

#[test]
fn a_killed_run_leaves_no_half_file_and_the_next_converges() -> Result<()> {
    let machine = machine()?;
    let path = machine.swap_path();
    // The agent's own calls and those of mkswap and swapon, first and later ones. (musl starts programs by clone.)
    for call in [
        "fallocate",
        "fsync:when=1",
        "fsync:when=3",
        "renameat:when=2",
        "renameat:when=3",
        "swapon",
        "vfork,clone,clone3:when=1",
        "vfork,clone,clone3:when=2",
    ] {
        let (calls, when) =
            call.split_once(':').map_or((call, String::new()), |(calls, when)| (calls, format!(":{when}")));
        agent(&machine, &["plan"], &path, "16MiB")?.success()?;
        let trace = [&format!("--trace={calls}"), &format!("--inject={calls}:signal=KILL{when}")];
        let strace = ["strace", "-f", "-qq", "-o", "/root/strace", trace[0], trace[1]];
        let agent_run = ["glovo-bootstrap", "run", "--steps", "/root/swap.toml"];
        let killed = machine.exec(&[&strace[..], &agent_run].concat())?;
        ensure!(killed.code != 0, "nothing was killed at {call}");
        // What stands there is absent or whole.
        machine.sh(&format!("[ ! -e {path} ] || swaplabel {path} > /dev/null"))?;
        agent(&machine, &["run"], &path, "16MiB")?.success()?;
        is_converged(&machine, &path)?;
        assert_eq!(machine.sh("ls -A /mnt/ext4 | grep -c glovo-bootstrap || true")?, "0\n", "{call}");
        clear(&machine, &path)?;
    }
    Ok(())
}
