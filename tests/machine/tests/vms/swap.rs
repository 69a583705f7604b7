//! Swap on a root disk that the machine really swaps to.

use anyhow::{Result, ensure};
use machine::{Vm, VmOptions};

/// Shell: a process that needs 96 MiB and may have 32 of memory. (A machine that is short of memory as a whole, and emulated,
/// does not respond.)
const FILL: &str =
    "systemd-run --quiet --wait --pipe --property MemoryMax=32M sh -c 'head -c 96M /dev/zero | tail -n 1 | wc -c'";

fn machine(filesystem: &'static str) -> Result<Vm> {
    let vm = Vm::boot(VmOptions { filesystem, memory: 512, ..VmOptions::default() })?;
    vm.fetch_agent()?;
    Ok(vm)
}

fn swaps(filesystem: &'static str) -> Result<()> {
    let mut vm = machine(filesystem)?;
    vm.bootstrap(&["run", "enable_swap"])?.success()?;
    let swapped = || Ok::<u64, anyhow::Error>(vm.sh("sed -n 's/^pswpout //p' /proc/vmstat")?.trim().parse()?);
    assert_eq!(swapped()?, 0);
    assert_eq!(vm.sh(FILL)?.trim(), "100663296");
    ensure!(swapped()? > 0, "the kernel has not swapped");
    vm.reboot()?;
    assert_eq!(vm.sh("swapon --show=NAME,SIZE --noheadings")?.trim(), "/swapfile 128M");
    Ok(())
}

#[test]
fn a_machine_swaps_on_ext4_also_after_a_reboot() -> Result<()> {
    swaps("ext4")
}

#[test]
fn a_machine_swaps_on_xfs_also_after_a_reboot() -> Result<()> {
    swaps("xfs")
}

#[test]
fn on_btrfs_it_is_refused_before_anything_is_written() -> Result<()> {
    let vm = machine("btrfs")?;
    let run = vm.bootstrap(&["run", "enable_swap"])?;
    let said = format!("{}{}", run.stdout, run.stderr);
    ensure!(run.code == 1 && said.contains("it is on btrfs"), "exit code {}\n{said}", run.code);
    assert_eq!(vm.sh("test ! -e /swapfile; grep swap /etc/fstab || true; swapon --show")?, "");
    Ok(())
}
