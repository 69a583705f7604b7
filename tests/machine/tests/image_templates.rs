//! What bakes images elsewhere, as far as it can be run here: Packer's template by Packer itself, and the commands of both
//! on a machine, with a stand-in for the agent that notes what it is asked to do.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use machine::{Machine, Options};
use sha2::{Digest, Sha256};

const AGENT: &str = "#!/bin/sh\nfor word; do printf '<%s>' \"$word\"; done >> /root/asked; echo >> /root/asked\n";
const ARGUMENT: &str = "a=it's b";

fn packaging(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../packaging/image").join(name)
}

fn sha256(text: &str) -> String {
    Sha256::new().chain_update(text).finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

fn is_clean(script: &std::path::Path) -> Result<()> {
    run(Command::new("shellcheck").args(["--shell", "sh"]).arg(script)).map(drop)
}

/// Debian's Packer is the last free one, 1.6.6: it knows neither plugins nor what makes IMDSv2 the only one.
#[test]
fn packer_accepts_the_template_and_passes_arguments_unchanged() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    // Beside the machine, and cleared away with it.
    let directory = machine.console().with_file_name("packer");
    fs::create_dir(&directory)?;
    let template = fs::read_to_string(packaging("glovo-bootstrap.pkr.hcl"))?;
    let (before, rest) = template.split_once("  imds_support").expect("IMDSv2");
    let (imds, after) = rest.split_once("  }\n").expect("a block");
    ensure!(imds.contains(r#"= "v2.0""#) && imds.contains(r#"http_tokens                 = "required""#), "{imds}");
    fs::write(directory.join("template.pkr.hcl"), [before, after].concat())?;
    for place in [directory.clone(), machine.path("/root")] {
        fs::copy(packaging("bake.sh"), place.join("bake.sh"))?;
        fs::write(place.join("agent"), AGENT)?;
    }
    let packer = |command| {
        let mut packer = Command::new("packer");
        packer.current_dir(&directory).env("HOME", &directory).env("CHECKPOINT_DISABLE", "1");
        packer.args([command, "-var", "agent=agent", "-var", "region=eu-central-1"]);
        packer.args(["-var", &format!("agent_sha256={}", sha256(AGENT))]);
        packer.args(["-var", &format!("run_arguments=[\"--set\", \"{ARGUMENT}\"]")]).arg(".");
        packer
    };
    run(&mut packer("validate"))?;

    is_clean(&packaging("bake.sh"))?;
    fs::write(directory.join("expression"), "join(\" \", local.quoted)\n")?;
    let words = run(packer("console").stdin(fs::File::open(directory.join("expression"))?))?;
    let bake = |sha256: &str| machine.exec(&["sh", "-c", &format!("sh /root/bake.sh /root/agent {sha256} {words}")]);
    let wrong = bake(&sha256("other"))?;
    ensure!(wrong.code == 1 && machine.sh("ls /usr/local/bin")? == "glovo-bootstrap\n", "{wrong:?}");
    ensure!(!machine.path("/root/asked").exists(), "{wrong:?}");
    bake(&sha256(AGENT))?.success()?;
    let asked = machine.sh("cat /root/asked")?;
    assert_eq!(asked, format!("<bake><--seal><--set><{ARGUMENT}>\n"));
    machine.sh("test ! -e /root/agent; test \"$(stat -c %a /usr/local/bin/glovo-bootstrap)\" = 755")?;
    Ok(())
}

#[test]
fn the_image_builder_component_is_one_and_its_commands_bake() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    let script = |sha256: &str| {
        let mut component = Command::new(packaging("../../tests/packaging/component"));
        component.arg(packaging("image-builder.yml")).arg("AgentUri=s3://glovo-config/agent");
        component.arg(format!("AgentSha256={sha256}")).arg(format!("RunArguments=--set \"{ARGUMENT}\""));
        // Image Builder's own download, and its end at the first step that fails.
        Ok::<_, anyhow::Error>(format!("set -e\ns3-download() {{ cp /root/agent \"$2\"; }}\n{}", run(&mut component)?))
    };
    fs::write(machine.path("/root/agent"), AGENT)?;
    fs::write(machine.path("/root/component"), script(&sha256("other"))?)?;
    let wrong = machine.exec(&["bash", "/root/component"])?;
    ensure!(wrong.code == 1 && !machine.path("/root/asked").exists(), "{wrong:?}");
    fs::write(machine.path("/root/component"), script(&sha256(AGENT))?)?;
    run(Command::new("shellcheck").args(["--shell", "bash"]).arg(machine.path("/root/component")))?;
    machine.exec(&["bash", "/root/component"])?.success()?;
    let run = format!("<--set><{ARGUMENT}>");
    assert_eq!(machine.sh("cat /root/asked")?, format!("<bake><--seal>{run}\n<steps><list>\n<run>{run}\n"));
    machine.sh("test ! -e /root/glovo-bootstrap")?;
    Ok(())
}
