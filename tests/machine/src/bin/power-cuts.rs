//! Power cuts in the middle of a run, on a virtual machine's root disk: no file is torn, no run that was told to have
//! converged is undone, and the next boot's run converges.
//!
//!     cargo run -p machine --bin power-cuts [ROUNDS [DISK…]]      30 rounds on each of ext4, ext4-noauto_da_alloc, xfs
//!
//! Each round goes back to the same moment of a machine that runs, by a snapshot of memory and disk, starts the agent and
//! cuts the power at a random moment of its share of the run, or shortly after. Then the machine boots from what is left.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use machine::{Vm, VmOptions};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What mounts ext4's root without its own care for files that are renamed without a sync, which the agent must not need.
const NOAUTO_DA_ALLOC: &str = "ext4-noauto_da_alloc";
const AGENT: &str = "/usr/local/bin/glovo-bootstrap";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds = arguments.first().map_or(Ok(30), |rounds| rounds.parse());
    let rounds = rounds.context("usage: power-cuts [ROUNDS [DISK…]]")?;
    let disks: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    for disk in if disks.is_empty() { &["ext4", NOAUTO_DA_ALLOC, "xfs"][..] } else { &disks } {
        series(disk, rounds).with_context(|| (*disk).to_owned())?;
    }
    Ok(())
}

fn series(disk: &str, rounds: u32) -> Result<()> {
    let (filesystem, kernel) = match disk {
        "ext4" => ("ext4", ""),
        NOAUTO_DA_ALLOC => ("ext4", "rootflags=noauto_da_alloc"),
        "xfs" => ("xfs", ""),
        _ => bail!("no such disk"),
    };
    let mut vm = Vm::boot(VmOptions { filesystem, kernel, memory: 512, ..VmOptions::default() })?;
    vm.fetch_agent()?;
    for version in [1, 2] {
        vm.world().publish(LARGE, large(version));
        vm.world().publish(&format!("origin.test/{version}.toml"), manifest(version));
        vm.sh(&format!("curl -fsS -o /root/{version}.toml http://origin.test/{version}.toml"))?;
        if version == 1 {
            run(&vm, version)?;
        }
    }
    let before = digests(&vm)?;
    vm.sh("sync")?;
    vm.snapshot("before")?;

    let start = Instant::now();
    run(&vm, 2)?;
    let uncut = start.elapsed();
    let after = digests(&vm)?;
    ensure!(before.keys().eq(after.keys()) && before.iter().all(|(file, digest)| after[file] != *digest), "{after:?}");
    println!("{disk}: a run that is not cut takes {:.1} s", uncut.as_secs_f32());

    let mut done = 0;
    for round in 0..rounds {
        vm.cut_power();
        vm.restore("before")?;
        let process = vm.start_process(&[AGENT, "run", "--steps", "/root/2.toml"])?;
        // The last cuts come after the end of the run.
        let moment = uncut.mul_f64(1.2 * (f64::from(round) + fraction()) / f64::from(rounds));
        std::thread::sleep(moment);
        let told = vm.ended(&process)?;
        vm.cut_power();
        vm.power_on()?;
        let boot = Instant::now();
        let checked = vm.wait_until_booted().and_then(|()| check(&vm, told.is_some(), &before, &after));
        let changed = checked.with_context(|| format!("round {round}: cut after {moment:?}, told: {told:?}"))?;
        done += u32::from(told.is_some());
        println!(
            "{:3}  cut after {:5.1} s{}, {changed} of {} files changed; booted, looked at and converged in {:.0} s",
            round + 1,
            moment.as_secs_f32(),
            if told.is_some() { " (the run had ended)" } else { "" },
            after.len(),
            boot.elapsed().as_secs_f32()
        );
    }
    println!(
        "{disk}: {rounds} power cuts, {done} of them after the run; 0 torn files, 0 lost runs, {rounds} converged\n"
    );
    Ok(())
}

/// Looks at what a cut has left, and lets the agent finish. Returns how many files were changed by then.
fn check(vm: &Vm, told: bool, before: &Digests, after: &Digests) -> Result<usize> {
    let left = digests(vm)?;
    for (file, digest) in &left {
        ensure!(*digest == before[file] || *digest == after[file], "{file} is torn: {digest}");
    }
    ensure!(left.keys().eq(after.keys()), "files are missing: {left:?}");
    vm.sh(ACCOUNTS_ARE_WHOLE)?;
    let report: Value = serde_json::from_str(&vm.sh("cat /var/lib/glovo-bootstrap/report.json")?)?;
    if told {
        ensure!(left == *after, "what was told to be done is not: {left:?}");
        ensure!(report["outcome"] == "changed" && report["exit_code"] == 0, "the report is lost: {report}");
        nothing_is_pending(vm)?;
    }
    run(vm, 2)?;
    ensure!(digests(vm)? == *after, "not all files are changed");
    nothing_is_pending(vm)?;
    vm.sh(SETTLED)?;
    Ok(left.iter().filter(|(file, digest)| after[*file] == **digest).count())
}

/// Shell. One of the files may be ahead of the others: useradd writes one after the other.
const ACCOUNTS_ARE_WHOLE: &str = "
    for file in passwd:7 group:4 shadow:9 gshadow:4; do
        awk -F: -v fields=${file#*:} 'NF != fields { exit 1 }' /etc/${file%:*}
        [ -z \"$(tail -c 1 /etc/${file%:*})\" ]
    done";

/// Shell: what is so once version 2 has converged, beyond what the agent itself says.
const SETTLED: &str = "
    [ -z \"$(dpkg --audit)\" ]
    grep -q '^cut:x:' /etc/passwd
    pwck --read-only --quiet > /dev/null
    grpck --read-only
    grep -q ^/swapfile /proc/swaps
    grep -zqx 200000 /proc/$(systemctl show --value --property MainPID cut)/cmdline";

fn nothing_is_pending(vm: &Vm) -> Result<()> {
    let plan = vm.agent(&["plan", "--detailed-exitcode", "--steps", "/root/2.toml"])?;
    ensure!(plan.code == 0, "plan: exit code {}\n{}{}", plan.code, plan.stdout, plan.stderr);
    Ok(())
}

fn run(vm: &Vm, version: u32) -> Result<()> {
    vm.agent(&["run", "--steps", &format!("/root/{version}.toml")])?.success().map(drop)
}

/// `path` → SHA-256.
type Digests = BTreeMap<String, String>;

/// Of all files that are there in both versions.
fn digests(vm: &Vm) -> Result<Digests> {
    let sums = vm.sh("sha256sum /srv/cut/*.conf /srv/cut/large /etc/systemd/system/cut.service")?;
    let sums = sums.lines().filter_map(|line| line.split_once("  "));
    Ok(sums.map(|(digest, file)| (file.to_owned(), digest.to_owned())).collect())
}

const LARGE: &str = "origin.test/large";

fn large(version: u32) -> Vec<u8> {
    (0_u32..65_536).flat_map(|block| Sha256::digest([version.to_le_bytes(), block.to_le_bytes()].concat())).collect()
}

/// Version 1 is what the machine runs; version 2 changes all of it, and adds packages, an account and swap.
fn manifest(version: u32) -> String {
    let digest: String = Sha256::digest(large(version)).iter().map(|byte| format!("{byte:02x}")).collect();
    // In version 1 the package lists are fetched already: fetching takes longest here and writes least.
    let packages = if version == 1 { "" } else { r#", "glovo-test-conffile", "tree""# };
    let added = if version == 1 { "" } else { ADDED };
    format!(
        r#"[[step]]
name = "cut"
[[step.resource]]
kind = "directory"
path = "/srv/cut"
{}[[step.resource]]
kind = "package"
names = ["glovo-test-hello"{packages}]
{added}{}[[step.resource]]
kind = "file"
path = "/srv/cut/large"
source = "http://{LARGE}"
sha256 = "{digest}"
[[step.resource]]
kind = "link"
path = "/srv/cut/link"
target = "{version}.conf"
[[step.resource]]
kind = "file"
path = "/etc/systemd/system/cut.service"
content = """
[Service]
ExecStart=/bin/sleep {version}00000
[Install]
WantedBy=multi-user.target
"""
[[step.resource]]
kind = "service"
name = "cut.service"
enabled = true
running = true
restart_on = ["/etc/systemd/system/cut.service"]
"#,
        small(0..20, version),
        small(20..40, version)
    )
}

const ADDED: &str = r#"[[step.resource]]
kind = "user"
name = "cut"
system = true
[[step.resource]]
kind = "swap"
path = "/swapfile"
size = "32MiB"
"#;

fn small(files: Range<u32>, version: u32) -> String {
    let file = |file| {
        let content = format!("file {file}, version {version}\\n").repeat(100);
        format!("[[step.resource]]\nkind = \"file\"\npath = \"/srv/cut/{file}.conf\"\ncontent = \"{content}\"\n")
    };
    files.map(file).collect()
}

/// A random number below 1.
fn fraction() -> f64 {
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}
