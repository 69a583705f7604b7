//! Services that fail, flap, never get ready or can't be loaded; when they are restarted; and the run that systemd
//! itself waits for.

use std::fs;

use anyhow::{Context, Result, ensure};
use machine::{Machine, Options, Output, Tree};
use serde_json::Value;

const MANIFEST: &str = "/root/service.toml";

/// Declares `beat.service` by these lines of its `[Service]` section, and that it runs, by these of its resource.
fn beat(section: &str, resource: &str) -> String {
    format!(
        "name = \"beat\"\n\
         [[resource]]\nkind = \"file\"\npath = \"/etc/systemd/system/beat.service\"\n\
         content = '''\n[Service]\n{section}\n[Install]\nWantedBy=multi-user.target\n'''\n\
         [[resource]]\nkind = \"service\"\nname = \"beat\"\nrunning = true\n\
         restart_on = [\"/etc/systemd/system/beat.service\"]\n{resource}\n"
    )
}

fn run(machine: &Machine, manifest: &str) -> Result<Output> {
    fs::write(machine.path(MANIFEST), manifest)?;
    machine.agent(&["run", "--steps", MANIFEST])
}

/// The run must fail with this exit code, and say all this.
fn fails(machine: &Machine, manifest: &str, code: i32, says: &[&str]) -> Result<()> {
    let Output { code: ended, stdout, stderr } = run(machine, manifest)?;
    let said = stdout + &stderr;
    ensure!(ended == code, "exit code {ended}:\n{said}");
    for words in says {
        ensure!(said.contains(words), "no `{words}` in:\n{said}");
    }
    Ok(())
}

/// The run must succeed; returns what it said.
fn converges(machine: &Machine, manifest: &str) -> Result<String> {
    run(machine, manifest)?.success()
}

fn pid(machine: &Machine, unit: &str) -> Result<String> {
    machine.sh(&format!("systemctl show --value --property MainPID {unit}"))
}

#[test]
fn a_service_that_does_not_stay_up_fails_with_its_last_lines() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    let dies = "ExecStart=sh -c 'echo no configuration; exit 3'";
    fails(&machine, &beat(dies, ""), 1, &["beat.service failed (exit-code)", "| no configuration"])?;
    fails(&machine, &beat(dies, ""), 1, &["it has failed: exit-code", "| no configuration"])?;

    let flaps =
        "ExecStart=sh -c 'sleep 0.3; echo lost my database'\nRestart=always\nRestartSec=1ms\nStartLimitBurst=1000";
    fails(&machine, &beat(flaps, "stable = \"2s\""), 1, &["| lost my database"])?;
    fails(&machine, &beat(flaps, "stable = \"2s\""), 1, &["| lost my database"])?;

    converges(&machine, &beat("ExecStart=sleep infinity", "stable = \"1s\""))?;
    fails(
        &machine,
        &beat(flaps, "stable = \"2s\""),
        1,
        &["restart: ", "| lost my database", "beat.service runs again"],
    )?;
    // Up when it is looked at, but not for long.
    let unit = beat(flaps, "").split("'''").nth(1).unwrap_or_default().to_owned();
    fs::write(machine.path("/etc/systemd/system/beat.service"), unit.trim_start())?;
    machine.sh("systemctl daemon-reload; systemctl restart beat; sleep 1")?;
    let restarts_on_nothing = beat(flaps, "stable = \"2s\"").replace("restart_on = ", "# ");
    fails(&machine, &restarts_on_nothing, 1, &["| lost my database"])
}

#[test]
fn a_service_that_ends_after_its_start_is_told_to_its_waiters() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    let check =
        "stable = \"0s\"\n[[resource]]\nkind = \"http_check\"\nurl = \"http://127.0.0.1:8080/\"\ndeadline = \"60s\"";
    // Neither the deadline nor the step's is what ends it: that would be exit code 75, and other words.
    let dies = "ExecStart=sh -c 'sleep 1; echo out of tickets >&2; exit 3'";
    let waits = "wait for 200 (now: connection refused)";
    fails(&machine, &beat(dies, check), 1, &[waits, "beat.service failed (exit-code)", "| out of tickets"])?;
    let leaves = "ExecStart=sh -c 'sleep 1; echo nothing to do >&2'";
    fails(&machine, &beat(leaves, check), 1, &[waits, "beat.service ended soon", "| nothing to do"])?;
    let flaps = format!("{dies}\nRestart=always\nRestartSec=1s").replace("tickets", "luck");
    fails(&machine, &beat(&flaps, check), 1, &[waits, "beat.service failed (exit-code)", "| out of luck"])
}

#[test]
fn a_service_that_never_gets_ready_fails_with_its_last_lines() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    let waits = "Type=notify\nExecStart=sh -c 'echo waiting for a quorum; sleep infinity'\nTimeoutStartSec=infinity";
    let ends = ["beat.service is still ", "after 3", "| waiting for a quorum"];
    fails(&machine, &beat(waits, "timeout = \"3s\""), 75, &ends)?;

    // Be it that the deadline comes while systemd is asked: the bus, once the unit is started, says nothing more.
    let systemctl = "#!/bin/sh\ncase $1 in\nstart) pkill -STOP dbus-daemon ;;\nesac\nexec /usr/bin/systemctl \"$@\"\n";
    fs::write(machine.path("/usr/local/bin/systemctl"), systemctl)?;
    machine.sh("chmod +x /usr/local/bin/systemctl; /usr/bin/systemctl stop beat")?;
    fails(&machine, &beat(waits, "timeout = \"3s\""), 75, &ends)
}

#[test]
fn a_unit_that_can_not_be_loaded_is_an_error_that_says_why() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    let bad = beat("Type=simple", "");
    fails(&machine, &bad, 1, &["beat.service was not replaced: systemd would not load it", "no ExecStart="])?;
    fs::write(machine.path("/etc/systemd/system/beat.service"), "[Service]\nType=simple\n")?;
    machine.sh("systemctl daemon-reload; systemctl list-units --all beat.service")?;
    let service =
        format!("name = \"beat\"\n[[resource]]\nkind{}", bad.rsplit("[[resource]]\nkind").next().unwrap_or_default());
    fails(&machine, &service, 1, &["cannot load beat.service", "systemd-analyze verify beat.service"])?;
    // The corrected file is read before the unit is judged.
    converges(&machine, &beat("ExecStart=sleep infinity", "stable = \"0s\""))?;
    machine.sh("systemctl stop beat; rm /etc/systemd/system/beat.service; ln -s /dev/null /etc/systemd/system/masked.service; systemctl daemon-reload")?;
    let masked = "name = \"masked\"\n[[resource]]\nkind = \"service\"\nname = \"masked\"\nrunning = true\n";
    fails(&machine, masked, 1, &["masked.service is masked", "systemctl unmask masked.service"])?;
    fails(&machine, &masked.replace("masked", "absent"), 1, &["the unit absent.service does not exist"])
}

#[test]
fn a_refused_site_is_put_back_and_serves_after_a_reboot() -> Result<()> {
    let mut machine = Machine::boot(Options { tree: Tree::Converged, ..Options::default() })?;
    let path = machine.nginx_site();
    let site = fs::read_to_string(machine.path(path))?;
    let manifest = |site: &str| {
        format!(
            "name = \"nginx\"\n\
             [[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = '''\n{site}'''\n\
             [[resource]]\nkind = \"service\"\nname = \"nginx\"\nrunning = true\nvalidate = [\"nginx\", \"-t\"]\n\
             restart_on = [\"{path}\"]\n"
        )
    };
    let before = pid(&machine, "nginx")?;
    fails(
        &machine,
        &manifest("server { listen 80; surprise; }"),
        1,
        &["its validator failed", "unknown directive \"surprise\"", &format!("put back: {path}")],
    )?;
    assert_eq!(pid(&machine, "nginx")?, before);
    assert_eq!(fs::read_to_string(machine.path(path))?, site);
    machine.reboot()?;
    machine.wait_until_serving()?;
    let before = pid(&machine, "nginx")?;
    // It runs with these bytes already: nothing is to be restarted.
    converges(&machine, &manifest(&site))?;
    assert_eq!(pid(&machine, "nginx")?, before);
    converges(&machine, &manifest(&format!("# changed\n{site}")))?;
    assert_ne!(pid(&machine, "nginx")?, before);
    Ok(())
}

#[test]
fn a_unit_that_is_refused_is_put_back_and_runs_after_a_reboot() -> Result<()> {
    let mut machine = Machine::boot(Options::default())?;
    let file = "/etc/systemd/system/beat.service";
    let declared = |section: &str| beat(section, "enabled = true\nstable = \"1s\"");
    converges(&machine, &declared("ExecStart=sleep infinity"))?;
    let (good, first) = (fs::read_to_string(machine.path(file))?, pid(&machine, "beat")?);

    fails(&machine, &declared("Type=simple"), 1, &["systemd would not load it"])?;
    ensure!(fs::read_to_string(machine.path(file))? == good && pid(&machine, "beat")? == first);

    let put_back = format!("put back: {file}; beat.service runs again");
    fails(&machine, &declared("ExecStart=sh -c 'echo no licence; exit 3'"), 1, &["| no licence", &put_back])?;
    ensure!(fs::read_to_string(machine.path(file))? == good);
    let said = converges(&machine, &declared("ExecStart=sleep infinity"))?;
    ensure!(said.contains("converged: 0 changes"), "{said}");

    // A drop-in is judged together with its unit.
    let with = |drop_in: &str| {
        let directory = "[[resource]]\nkind = \"directory\"\npath = \"/etc/systemd/system/beat.service.d\"\n";
        let path = "/etc/systemd/system/beat.service.d/start.conf";
        declared("ExecStart=sleep infinity")
            + directory
            + &format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"[Service]\\n{drop_in}\"\n")
    };
    let refused = ["start.conf was not replaced: systemd would not load beat.service with it", "no ExecStart="];
    fails(&machine, &with("ExecStart=\\n"), 1, &refused)?;
    converges(&machine, &with("ExecStart=\\nExecStart=sleep 1000000\\n"))?;
    fails(&machine, &with("ExecStart=\\n"), 1, &refused)?;
    ensure!(machine.sh("ls -A /etc/systemd/system/beat.service.d")?.trim() == "start.conf");
    machine.reboot()?;
    machine.sh("systemctl is-active beat")?;
    Ok(())
}

#[test]
fn it_is_restarted_only_after_a_change_even_by_a_killed_run() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    let declared = |value: &str| {
        let file = format!("[[resource]]\nkind = \"file\"\npath = \"/etc/beat.conf\"\ncontent = \"{value}\"\n");
        // Our restarts are none of those that its start limit is about.
        let limited = "ExecStart=sleep infinity\nStartLimitInterval=1h\nStartLimitBurst=1";
        let service = beat(limited, "stable = \"100ms\"\nvalidate = [\"/root/validator\"]");
        let service = service.replace("restart_on = [", "restart_on = [\"/etc/beat.conf\", ");
        service.replacen("[[resource]]", &(file + "[[resource]]"), 1)
    };
    let validator = |script: &str| {
        machine.sh(&format!("printf '#!/bin/sh\\n{script}\\n' > /root/validator; chmod +x /root/validator"))
    };
    validator("true")?;
    let said = converges(&machine, &declared("one"))?;
    ensure!(!said.contains("daemon-reload"), "a new unit needs no reload:\n{said}");
    let first = pid(&machine, "beat")?;
    let said = converges(&machine, &declared("one"))?;
    ensure!(said.contains("converged: 0 changes") && pid(&machine, "beat")? == first, "{said}");

    let said = converges(&machine, &declared("two"))?;
    let second = pid(&machine, "beat")?;
    ensure!(second != first && !said.contains("daemon-reload"), "{said}");

    // A start that was not this program's own, as that of a boot is, after the last change of its files.
    machine.sh("sleep 1.1; systemctl reset-failed beat; systemctl restart beat; rm /var/lib/glovo-bootstrap/service-beat.service.json")?;
    let (second, said) = (pid(&machine, "beat")?, converges(&machine, &declared("two"))?);
    ensure!(said.contains("converged: 0 changes") && pid(&machine, "beat")? == second, "{said}");
    machine.sh("systemctl stop beat")?;
    converges(&machine, &declared("two"))?;
    let second = pid(&machine, "beat")?;

    // Between the new file and the restart.
    validator("kill -9 $PPID")?;
    assert_eq!(run(&machine, &declared("three"))?.code, 137);
    validator("true")?;
    ensure!(fs::read_to_string(machine.path("/etc/beat.conf"))? == "three" && pid(&machine, "beat")? == second);
    let said = converges(&machine, &declared("three"))?;
    ensure!(said.contains("restart: /etc/beat.conf has changed since its start"), "{said}");
    let third = pid(&machine, "beat")?;
    ensure!(third != second);

    let said = converges(&machine, &declared("three").replace("sleep infinity", "sleep 1000000"))?;
    ensure!(said.contains("daemon-reload") && pid(&machine, "beat")? != third, "{said}");
    Ok(())
}

/// A unit at boot, as cloud-final is: what it runs is part of the boot itself.
const AT_BOOT: &str = "\
[Unit]
Before=multi-user.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/bin/glovo-bootstrap run --steps /root/service.toml
[Install]
WantedBy=multi-user.target
";

#[test]
fn a_run_that_systemd_waits_for_does_not_wait_for_systemd() -> Result<()> {
    let mut machine = Machine::new(Options::default())?;
    let late = [("late", "multi-user.target"), ("later", "at-boot.service")];
    let mut manifest = "name = \"late_starts\"\n".to_owned();
    for (name, after) in late {
        let unit = format!("[Unit]\\nAfter={after}\\n[Service]\\nExecStart=sleep infinity\\n");
        manifest += &format!(
            "[[resource]]\nkind = \"file\"\npath = \"/etc/systemd/system/{name}.service\"\ncontent = \"{unit}\"\n\
             [[resource]]\nkind = \"service\"\nname = \"{name}\"\nrunning = true\n"
        );
    }
    fs::write(machine.path(MANIFEST), manifest)?;
    fs::write(machine.path("/etc/systemd/system/at-boot.service"), AT_BOOT)?;
    let wants = machine.path("/etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    std::os::unix::fs::symlink("/etc/systemd/system/at-boot.service", wants.join("at-boot.service"))?;
    machine.power_on()?;
    machine.wait_until_booted()?;

    machine.sh("systemctl is-active at-boot late later")?;
    let report: Value = serde_json::from_str(&machine.agent(&["status", "--json"])?.success()?)?;
    let deferred = report["steps"].to_string().matches("\"deferred\":true").count();
    ensure!(deferred == late.len(), "{report:#}");
    let journal = machine.sh("journalctl --unit at-boot --output json --no-pager")?;
    let records =
        journal.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>().context(journal.clone())?;
    let about =
        |record: &&Value| record["GLOVO_STEP"] == "late_starts" && record["GLOVO_RESOURCE"] == "service late.service";
    ensure!(records.iter().any(|record| about(&record)), "{journal}");
    let again = machine.agent(&["run", "--steps", MANIFEST])?.success()?;
    ensure!(again.contains("converged: 0 changes"), "{again}");
    Ok(())
}

#[test]
fn nginx_reads_a_changed_site_by_a_reload() -> Result<()> {
    let mut machine = Machine::boot(Options { tree: Tree::Converged, ..Options::default() })?;
    machine.wait_until_serving()?;
    let site = "/etc/nginx/conf.d/extra.conf";
    let manifest = |port: &str, validate: &str| {
        format!(
            "name = \"web\"\n[[resource]]\nkind = \"file\"\npath = \"{site}\"\n\
             content = \"server {{ listen {port}; return 204; }}\\n\"\n\
             [[resource]]\nkind = \"service\"\nname = \"nginx\"\nrunning = true\nstable = \"0s\"\n\
             reload_on = [\"{site}\"]\n{validate}\n"
        )
    };
    let first = pid(&machine, "nginx.service")?;
    // `nginx -s reload` ends before nginx listens on the new port.
    let curl = "curl -s --retry 5 --retry-connrefused -o /dev/null -w '%{http_code}'";
    let answers = |port: &str| machine.sh(&format!("{curl} http://127.0.0.1:{port}/"));
    for port in ["8081", "8082"] {
        let said = converges(&machine, &manifest(port, "validate = [\"nginx\", \"-t\"]"))?;
        ensure!(said.contains("service nginx.service: reload: "), "{said}");
        ensure!(answers(port)? == "204");
    }
    ensure!(converges(&machine, &manifest("8082", ""))?.contains("converged: 0 changes"));
    // Without a validator, the reload itself refuses the file.
    let refused = ["nginx.service failed to reload (exit-code)", "put back: /etc/nginx/conf.d/extra.conf"];
    fails(&machine, &manifest("none", ""), 1, &refused)?;
    ensure!(answers("8082")? == "204" && pid(&machine, "nginx.service")? == first, "its process has changed");
    machine.sh("systemd-run --unit=plain sleep infinity")?;
    let plain = manifest("8082", "").replace("\"nginx\"", "\"plain\"");
    fails(&machine, &plain, 1, &["plain.service cannot reload: its unit has no ExecReload="])
}

#[test]
fn a_masked_unit_is_stopped_and_starts_no_more() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    machine.sh("printf '[Service]\\nExecStart=sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n' \
         > /run/systemd/system/beat.service; systemctl daemon-reload; systemctl start beat")?;
    let declare =
        |lines: &str| format!("name = \"beat\"\n[[resource]]\nkind = \"service\"\nname = \"beat\"\n{lines}\n");
    let said = converges(&machine, &declare("masked = true"))?;
    ensure!(said.contains("beat.service: mask") && said.contains("beat.service: stop"), "{said}");
    ensure!(
        machine
            .sh("systemctl start beat 2>&1 || systemctl is-active beat || readlink /etc/systemd/system/beat.service")?
            .ends_with("inactive\n/dev/null\n")
    );
    ensure!(converges(&machine, &declare("masked = true"))?.contains("converged: 0 changes"));
    let up = declare("masked = false\nrunning = true\nenabled = true\nstable = \"0s\"");
    let said = converges(&machine, &up)?;
    ensure!(said.contains("beat.service: unmask") && said.contains("beat.service: start"), "{said}");
    ensure!(converges(&machine, &up)?.contains("converged: 0 changes"));
    ensure!(machine.sh("systemctl is-active beat")? == "active\n");
    Ok(())
}
