//! From a bare machine to a serving one, the way an Auto Scaling group does it: by user-data alone.

use anyhow::{Context, Result, ensure};
use machine::{Machine, Options, Release, Tree, Upper, UserData};
use serde_json::Value;

/// Returns the machine's answer to the balancer: head and body.
fn get(machine: &Machine, path: &str) -> Result<(String, String)> {
    let curl = machine.world().command("curl").args(["-si", &format!("http://172.31.0.10{path}")]).output()?;
    ensure!(curl.status.success(), "curl: {}", curl.status);
    let answer = String::from_utf8(curl.stdout)?.to_lowercase();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Ok((head.to_owned(), body.to_owned()))
}

fn serves(machine: &Machine) -> Result<()> {
    let (head, body) = get(machine, "/any/path")?;
    ensure!(head.starts_with("http/1.1 200 "), "{head}");
    for (who, text) in [("client", &head), ("application", &body)] {
        ensure!(text.contains("x-glovo-systems-engineer-candidate: 1"), "the {who} did not see the header:\n{text}");
    }
    Ok(())
}

/// Returns the report of the last run about a step.
fn step<'a>(report: &'a Value, name: &str) -> Result<&'a Value> {
    report["steps"].as_array().and_then(|steps| steps.iter().find(|step| step["name"] == name)).context(name.to_owned())
}

/// Everything that was downloaded has arrived while packages were installed.
fn downloads_are_hidden_behind_the_packages(machine: &Machine) -> Result<()> {
    let status = |arguments: &[&str]| machine.agent(&[&["status"], arguments].concat())?.success();
    let report: Value = serde_json::from_str(&status(&["--json"])?)?;
    let time = |value: &Value, name: &str| value[name].as_u64().with_context(|| format!("{name} in {value}"));
    let packages = step(&report, "install_dependencies")?;
    let installed = time(packages, "began")? + time(packages, "milliseconds")?;
    for (name, files) in [("copy_http_resources", 1), ("copy_s3_resources", 2)] {
        let step = step(&report, name)?;
        let resources = step["resources"].as_array().into_iter().flatten();
        let downloads: Vec<&Value> =
            resources.flat_map(|resource| resource["downloads"].as_array()).flatten().collect();
        assert_eq!(downloads.len(), files, "{step:#}");
        for download in downloads {
            let (began, ended) = (time(download, "began")?, time(download, "ended")?);
            ensure!(began <= ended && ended < installed, "packages until {installed}: {download}");
            ensure!(time(download, "wanted")? >= installed, "{download}");
        }
    }
    let (summary, log) = (status(&[])?, machine.sh("cat /var/log/cloud-init-output.log")?);
    for told in [summary, log] {
        ensure!(told.matches("while install_dependencies ran\n").count() == 3, "{told}");
    }
    Ok(())
}

/// Boots a bare machine of a release with user-data, and checks all that it has then.
fn bootstrapped(release: Release) -> Result<Machine> {
    let machine = Machine::boot(Options { release, user_data: Some(UserData::Bootstrap), ..Options::default() })?;
    machine.sh("cloud-init status || { cat /var/log/cloud-init-output.log; false; }")?;
    serves(&machine)?;
    assert_eq!(machine.sh("ps -C java -o user=")?.trim(), "glovo-app");
    assert!(machine.sh("swapon --show --noheadings")?.contains(&machine.swap_path()));

    let requests = machine.world().requests();
    let jar =
        requests.iter().filter(|request| request.line().starts_with("GET origin.test/systems-engineer-interview-"));
    assert_eq!(jar.map(|request| request.status).collect::<Vec<_>>(), [200]);
    downloads_are_hidden_behind_the_packages(&machine)?;
    Ok(machine)
}

#[test]
fn user_data_makes_a_bare_machine_serve() -> Result<()> {
    bootstrapped(Release::default()).map(drop)
}

#[test]
fn user_data_makes_a_machine_with_dnf_serve() -> Result<()> {
    let machine = bootstrapped(Release::Amazon)?;
    machine.sh("rpm -q nginx java-21-amazon-corretto-headless; ! test -e /usr/bin/apt-get")?;
    let run = machine.bootstrap(&["run"])?.success()?;
    ensure!(run.contains("converged: 0 changes"), "{run}");

    // An nginx.conf whose own server is the default one, as RHEL 8 has it, refuses the site.
    machine.sh("sed -i 's/listen  *80;/listen 80 default_server;/' /etc/nginx/nginx.conf; systemctl stop nginx")?;
    let refused = machine.bootstrap(&["run"])?;
    let said = format!("{}{}", refused.stdout, refused.stderr);
    ensure!(refused.code == 1 && said.contains("a duplicate default server for 0.0.0.0:80"), "{said}");
    Ok(())
}

#[test]
fn a_second_run_changes_nothing() -> Result<()> {
    let machine = Machine::boot(Options { tree: Tree::Converged, ..Options::default() })?;
    assert_eq!(machine.bootstrap(&["plan", "--detailed-exitcode"])?.code, 0);
    let run = machine.bootstrap(&["run"])?.success()?;
    ensure!(run.contains("converged: 0 changes"), "{run}");
    Ok(())
}

#[test]
fn the_application_is_kept_from_the_metadata_service() -> Result<()> {
    let machine = Machine::boot(Options { tree: Tree::Converged, ..Options::default() })?;
    // That the kernel enforces it is seen on a virtual machine: a container's systemd has no control group of its own.
    let denied = machine.sh("systemctl show --value --property IPAddressDeny glovo-app")?;
    ensure!(denied.contains("169.254.169.254") && denied.contains("fd00:ec2::254"), "{denied}");
    serves(&machine)
}

#[test]
fn it_serves_again_after_a_reboot() -> Result<()> {
    let mut machine = Machine::boot(Options { tree: Tree::Converged, upper: Upper::Disk, ..Options::default() })?;
    machine.reboot()?;
    machine.wait_until_serving()?;
    let plan = machine.bootstrap(&["plan", "--detailed-exitcode"])?;
    ensure!(plan.code == 0, "{}", plan.stdout);
    serves(&machine)?;
    assert!(machine.sh("swapon --show --noheadings")?.contains(&machine.swap_path()));
    Ok(())
}
