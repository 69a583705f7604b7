//! Machines of an image whose unit is baked and whose payload is left to the boot: the unit fails until a run brings it.

use std::fs;

use anyhow::{Result, ensure};
use machine::{Fault, Machine, Options};

const MANIFEST: &str = r#"
name = "app"

[[resource]]
kind = "file"
path = "/etc/systemd/system/app.service"
content = """
[Service]
ExecStart=sh -c 'test -e /srv/payload || { echo no payload; exit 1; }; exec sleep infinity'
Restart=on-failure
RestartSec=2
[Install]
WantedBy=multi-user.target
"""

[[resource]]
kind = "file"
path = "/srv/payload"
content = "here"
phase = "boot"

[[resource]]
kind = "service"
name = "app"
enabled = true
running = true
restart_on = ["/etc/systemd/system/app.service", "/srv/payload"]
"#;

const ENDPOINT: &str = "AWS_ENDPOINT_URL_CLOUDFORMATION=http://cloudformation.eu-central-1.amazonaws.com";

#[test]
fn ten_boots_of_a_baked_image_converge_and_signal_success() -> Result<()> {
    let mut machine = Machine::boot(Options::default())?;
    fs::write(machine.path("/root/app.toml"), MANIFEST)?;
    let baked = machine.agent(&["bake", "--seal", "--steps", "/root/app.toml"])?.success()?;
    ensure!(baked.contains("file /srv/payload: ensure at boot (deferred"), "{baked}");
    for boot in 1..=10 {
        machine.reboot()?;
        machine.world().fault("^GET cloudformation", 1, Fault::status(200));
        let run = ["env", ENDPOINT, "glovo-bootstrap", "run", "--signal", "app/Group", "--steps", "/root/app.toml"];
        let said = machine.exec(&run)?.success()?;
        ensure!(said.contains("signalled SUCCESS to app/Group"), "boot {boot}: {said}");
        machine.sh("systemctl is-active app")?;
        // As the image has it for the next boot.
        machine.sh("rm -r /srv/payload /var/lib/glovo-bootstrap")?;
    }
    Ok(())
}

#[test]
fn a_crash_looping_application_is_fixed_by_a_run() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    fs::write(machine.path("/root/app.toml"), MANIFEST)?;
    // In all phases of its loop: waiting for the restart, starting, and up for a moment.
    let dies = MANIFEST
        .replace("exit 1;", "sleep 0.1; exit 1;")
        .replace("RestartSec=2", "RestartSec=200ms\nStartLimitBurst=1000");
    let fixed = dies.replace("phase = \"boot\"", "");
    fs::write(
        machine.path("/root/fixed.toml"),
        fixed.replace("[[resource]]\nkind = \"service\"", "[[resource]]\nkind = \"service\"\nstable = \"500ms\""),
    )?;
    let unit = dies.split("\"\"\"").nth(1).unwrap_or_default();
    fs::write(machine.path("/etc/systemd/system/app.service"), unit)?;
    machine.sh("systemctl daemon-reload")?;
    for round in 0..24 {
        machine.sh(&format!(
            "systemctl stop app; rm -rf /srv/payload /var/lib/glovo-bootstrap; systemctl start app; sleep 0.{:03}",
            300 + round * 25
        ))?;
        machine.agent(&["run", "--steps", "/root/fixed.toml"])?.success()?;
        machine.sh("systemctl is-active app")?;
    }
    Ok(())
}
