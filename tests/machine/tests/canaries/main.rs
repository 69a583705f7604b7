//! Canaries: secrets of every source, which are searched for in all places where none may be.

mod kills;
mod memory;
mod search;
mod stage;
mod words;

use anyhow::{Result, ensure};
use machine::{Options, Upper};

use search::{Sampler, is_clean};
use stage::{PARAMETER, Stage, canaries, declared_files};
use words::patterns;

#[test]
fn secrets_of_all_sources_are_in_their_places_only() -> Result<()> {
    let mut stage = Stage::new(Options { upper: Upper::Image, ..Options::default() })?;
    let sampler = Sampler::start();
    // The log at its most talkative, and each program that is started with its arguments and its whole environment.
    let strace = ["strace", "-f", "-v", "-qq", "-s", "1000000", "-e", "trace=execve", "-o", "/run/canary/execve"];
    let loud = [&["GLOVO_BOOTSTRAP_LOG=trace"], &strace[..]].concat();
    let first = stage.under(&loud, "run")?;
    let patterns = patterns(&canaries());
    is_clean("the output", &format!("{}{}", first.stdout, first.stderr), &patterns)?;
    let started = stage.machine.sh("cat /run/canary/execve; rm /run/canary/execve")?;
    is_clean("a started program", &started, &patterns)?;
    ensure!(started.contains("useradd"), "strace saw nothing: {started}");
    first.success()?;
    stage.no_block_has_a_copy()?;
    stage.secrets_are_in_their_places_only()?;

    stage.put("/canary/parameter", "SecureString", &PARAMETER[1].value())?;
    stage.machine.sh("systemctl start glovo-bootstrap.service")?;
    stage.secrets_are_in_their_places_only()?;
    // Without its stores, the machine keeps its values, and says so.
    stage.bao.seal()?;
    stage.machine.sh("systemctl start glovo-bootstrap.service")?;
    ensure!(stage.machine.sh("glovo-bootstrap status")?.contains("keeps its present content"));
    stage.serves()?;
    stage.secrets_are_in_their_places_only()?;
    stage.bao.unseal()?;
    stage.machine.reboot()?;
    stage.machine.sh("systemctl start glovo-bootstrap.service")?;
    stage.serves()?;
    stage.secrets_are_in_their_places_only()?;
    println!("all processes were looked at {} times", sampler.stop()?);
    Ok(())
}

#[test]
fn a_sealed_image_has_no_secret_of_any_source() -> Result<()> {
    let stage = Stage::new(Options::default())?;
    let machine = &stage.machine;
    // A tree of its own, which has what a run in an image needs.
    machine.sh("mkdir /image; cp --archive --one-file-system /bin /etc /lib* /sbin /usr /var /root /image
        mkdir -p /image/dev /image/proc /image/run /image/sys /image/tmp; rm -rf /image/etc/canary /image/root/*")?;
    let baked = stage.agent("bake --root /image --seal --skip swap")?;
    is_clean("the output", &format!("{}{}", baked.stdout, baked.stderr), &patterns(&canaries()))?;
    ensure!(baked.success()?.contains("no credentials found"));
    let found = stage.files_with_secrets("image")?;
    ensure!(found.is_empty(), "{found:?}");

    // A machine that has run with secrets is no image: each file with one is named.
    stage.agent("run")?.success()?;
    let refused = stage.agent("bake --seal")?;
    ensure!(refused.code == 1, "{refused:?}");
    let said = format!("{}{}", refused.stdout, refused.stderr);
    is_clean("the refusal", &said, &patterns(&canaries()))?;
    let by_run = |path: &&str| path.starts_with("/etc/canary/") && !path.ends_with("secret-id");
    for path in declared_files().into_iter().map(|(_, path)| path).filter(by_run) {
        ensure!(said.contains(path), "{path} is not named: {said}");
    }
    Ok(())
}
