//! Drift: after a change by hand on a converged machine, `plan` names exactly that change and `run` fixes exactly that.
//! Then nothing is pending.

use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use machine::{Machine, Options, Output, Release, Tree};

/// A change by hand, and the changes that fix it.
type Drift<'a> = (&'a str, &'a [&'a str]);

fn check(machine: &Machine, agent: impl Fn(&[&str]) -> Result<Output>, drifts: &[Drift<'_>]) -> Result<()> {
    for (by_hand, changes) in drifts {
        let plan = || agent(&["plan", "--json", "--detailed-exitcode"]);
        let fix = || {
            machine.sh(by_hand)?;
            let pending = plan()?;
            ensure!(pending.changes()? == *changes, "planned: {:#?}\n{}", pending.changes()?, pending.stderr);
            ensure!(pending.code == 3, "plan's exit code is {}", pending.code);
            agent(&["run"])?.success()?;
            let made = machine.agent(&["status", "--json"])?.changes()?;
            ensure!(made == *changes, "made: {made:#?}");
            let left = plan()?;
            ensure!(left.code == 0, "left: {:#?}", left.changes()?);
            Ok(())
        };
        fix().with_context(|| format!("after {by_hand}\nexpected: {changes:#?}"))?;
    }
    Ok(())
}

fn converged(release: Release) -> Result<Machine> {
    let mut machine = Machine::boot(Options { release, tree: Tree::Converged, ..Options::default() })?;
    machine.wait_until_serving()?;
    Ok(machine)
}

#[test]
fn of_the_built_in_steps() -> Result<()> {
    of_the_steps_on(Release::Bookworm, "dpkg --remove", "default-jre-headless")
}

#[test]
fn of_the_built_in_steps_with_dnf() -> Result<()> {
    of_the_steps_on(Release::Amazon, "rpm --erase", "java-21-amazon-corretto-headless")
}

fn of_the_steps_on(release: Release, remove: &str, java: &str) -> Result<()> {
    let machine = converged(release)?;
    let site = machine.nginx_site();
    let swap = machine.swap_path();
    let jar = "/var/www/glovo-app/systems-engineer-interview-1.0.0.jar";
    let origin = "http://origin.test/systems-engineer-interview-1.0.0.jar";
    let digest = |path: &str| machine.sh(&format!("sha256sum {path} | cut -c 1-12"));
    let jar_again = format!("file {jar}: write new content, sha256 {}… from {origin}", digest(jar)?.trim());
    let site_again = format!(
        "file {site}: write new content, sha256 {}… from s3://glovo-config/nginx/default",
        digest(site)?.trim()
    );
    let swap_on = format!("swap {swap}: turn on");
    let swap_at_boot = format!("swap {swap}: add to /etc/fstab");
    let swap_mode = format!("swap {swap}: set mode 0600 (now 0644)");
    let agent = |arguments: &[&str]| machine.bootstrap(arguments);
    check(
        &machine,
        agent,
        &[
            (&format!("{remove} {java}"), &[&format!("package nginx, {java}: install {java}")]),
            (&format!("swapoff {swap}"), &[&swap_on]),
            (&format!("sed -i '\\|^{swap} |d' /etc/fstab"), &[&swap_at_boot]),
            (&format!("chmod 644 {swap}"), &[&swap_mode]),
            ("chmod 700 /var/www/glovo-app", &["directory /var/www/glovo-app: set mode 0755 (now 0700)"]),
            (
                "chown glovo-app: /var/www/glovo-app",
                &["directory /var/www/glovo-app: set owner root:root (now glovo-app:glovo-app)"],
            ),
            (&format!("echo more >> {jar}"), &[&jar_again]),
            (
                &format!("chmod 666 {jar}"),
                &[&format!("file {jar}: write again, to set mode 0644 (now 0666) from {origin}")],
            ),
            (&format!("echo '# edited' >> {site}"), &[&site_again]),
            ("usermod --shell /bin/bash glovo-app", &["user glovo-app: set shell /usr/sbin/nologin (now /bin/bash)"]),
            ("userdel --force glovo-app 2> /dev/null", &["user glovo-app: create system user"]),
            ("systemctl --quiet disable glovo-app", &["service glovo-app.service: enable at boot"]),
        ],
    )
}

const APT_REPOSITORY: &str = r#"
[[resource]]
kind = "apt_repository"
name = "extra"
uris = ["http://apt.test"]
suites = ["stable"]
components = ["main"]
key = "http://apt.test/key.asc"
key_sha256 = "KEY"
"#;

/// The other kinds that no built-in step has, and what those have differently.
const KINDS: &str = r#"
name = "kinds"

[[resource]]
kind = "group"
name = "deployers"

[[resource]]
kind = "user"
name = "deployer"
groups = ["deployers"]

[[resource]]
kind = "file"
path = "/etc/app.conf"
content = "port = 8080\n"
owner = "deployer"
mode = "0640"

[[resource]]
kind = "directory"
path = "/srv/deployer"
owner = "deployer"

[[resource]]
kind = "file"
path = "/etc/site.conf"
source = "s3://glovo-config/nginx/default"

[[resource]]
kind = "archive"
path = "/opt/tool"
source = "file:///root/tool.tar.gz"
sha256 = "TOOL"
strip = 1
keep = ["data"]

[[resource]]
kind = "file"
path = "/usr/local/bin/tool"
source = "file:///root/tool.tar.gz"
sha256 = "TOOL"
member = "tool-1/bin/tool"
mode = "0755"

[[resource]]
kind = "link"
path = "/etc/app-link.conf"
target = "app.conf"

[[resource]]
kind = "file"
path = "/etc/systemd/system/sleeper.service"
content = "[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target\n"

[[resource]]
kind = "service"
name = "sleeper"
enabled = true
running = true
restart_on = ["/etc/systemd/system/sleeper.service", "/etc/app.conf"]
stable = "10ms"

[[resource]]
kind = "command"
name = "index"
argv = ["/bin/sh", "-euc", "cat /etc/app.conf > index; id -Gn > groups"]
unless = { argv = ["cat", "index"], stdout = "port = 8080" }
run_on = ["/etc/motd", "/etc/app.conf"]
user = "deployer"
cwd = "/srv/deployer"
"#;

#[test]
fn of_every_other_kind() -> Result<()> {
    let machine = Machine::boot(Options { release: Release::Bookworm, ..Options::default() })?;
    let key = machine.sh("curl -fsS http://apt.test/key.asc | sha256sum | cut -c 1-64")?;
    let sources = "/etc/apt/sources.list.d/extra.sources";
    let drifts: [Drift<'_>; 3] = [
        (&format!("sed -i s/stable/unsigned/ {sources}"), &["apt_repository extra: change to http://apt.test"]),
        (&format!("rm {sources}"), &["apt_repository extra: add http://apt.test"]),
        ("rm /etc/apt/keyrings/extra.gpg", &["apt_repository extra: replace the key by http://apt.test/key.asc"]),
    ];
    of_other_kinds(&machine, &APT_REPOSITORY.replace("KEY", key.trim()), &drifts)
}

#[test]
fn of_every_other_kind_with_dnf() -> Result<()> {
    of_other_kinds(&Machine::boot(Options { release: Release::Amazon, ..Options::default() })?, "", &[])
}

/// Checks [`KINDS`] and more resources, with the drifts of these.
fn of_other_kinds(machine: &Machine, more: &str, drifts: &[Drift<'_>]) -> Result<()> {
    let tool = machine.sh(
        "mkdir -p /tmp/tool-1/bin /tmp/tool-1/lib; echo tool > /tmp/tool-1/bin/tool; echo lib > /tmp/tool-1/lib/a
        cd /tmp; tar -czf /root/tool.tar.gz tool-1; sha256sum /root/tool.tar.gz | cut -c 1-64",
    )?;
    let kinds = KINDS.replace("TOOL", tool.trim());
    fs::write(machine.path("/root/kinds.toml"), kinds + more)?;
    let agent = |arguments: &[&str]| machine.agent(&[arguments, &["--steps", "/root/kinds.toml"]].concat());
    agent(&["run"])?.success()?;
    assert_eq!(machine.sh("cat /srv/deployer/groups")?, "deployer deployers\n");
    let index =
        "command index: run the shell script `/bin/sh -euc 'cat /etc/app.conf > index; id -Gn > groups'`, because";
    let index_on = format!("{index} /etc/motd has changed since its last good run");
    let again = |why: &str| format!("archive /opt/tool: unpack again: {why}; from file:///root/tool.tar.gz");
    check(machine, agent, drifts)?;
    check(
        machine,
        agent,
        &[
            ("gpasswd --delete deployer deployers", &["user deployer: add to groups deployers"]),
            ("groupdel deployers", &["group deployers: create group", "user deployer: add to groups deployers"]),
            ("echo 'port = 80' > /etc/app.conf", &["file /etc/app.conf: write new content"]),
            (
                "chown root: /etc/app.conf; chmod 644 /etc/app.conf",
                &["file /etc/app.conf: set owner deployer:deployer (now root:root), mode 0640 (now 0644)"],
            ),
            ("rm /etc/app.conf", &["file /etc/app.conf: create"]),
            ("ln -sf passwd /etc/app.conf", &["file /etc/app.conf: replace the symbolic link with a file"]),
            (
                "echo more >> /etc/site.conf",
                &[
                    "file /etc/site.conf: write content again (the file has changed since) from s3://glovo-config/nginx/default",
                ],
            ),
            ("echo more >> /opt/tool/bin/tool", &[&again("bin/tool was edited")]),
            ("rm -r /opt/tool/lib", &[&again("lib is missing")]),
            ("chmod 4755 /opt/tool/bin/tool", &[&again("bin/tool has mode 4755, not 0644")]),
            (
                "echo > /usr/local/bin/tool",
                &[
                    "file /usr/local/bin/tool: write content again (the file has changed since) from file:///root/tool.tar.gz",
                ],
            ),
            ("echo more >> /etc/motd", &[&index_on]),
            ("rm /srv/deployer/index", &[&format!("{index} `cat index` ends with exit code 1")]),
            (
                "echo 'port = 80' > /srv/deployer/index",
                &[&format!("{index} `cat index` does not print \"port = 8080\"")],
            ),
            (
                "ln -sfn /etc/passwd /etc/app-link.conf",
                &["link /etc/app-link.conf: point to app.conf (now /etc/passwd)"],
            ),
            ("rm /etc/app-link.conf", &["link /etc/app-link.conf: create link to app.conf"]),
            ("systemctl stop sleeper", &["service sleeper.service: start"]),
            ("systemctl --quiet disable sleeper", &["service sleeper.service: enable at boot"]),
            (
                "sed -i s/infinity/1000/ /etc/systemd/system/sleeper.service",
                &[
                    "file /etc/systemd/system/sleeper.service: write new content",
                    "service sleeper.service: read unit files again (daemon-reload)",
                ],
            ),
        ],
    )
}

#[test]
fn of_the_application_is_waited_for() -> Result<()> {
    let machine = converged(Release::default())?;
    machine.sh("systemctl stop glovo-app")?;
    let plan = machine.bootstrap(&["plan", "verify", "--json", "--detailed-exitcode"])?;
    let expected =
        "http_check http://127.0.0.1/: wait for 200, X-Glovo-Systems-Engineer-Candidate: 1 (now: status 502)";
    assert_eq!((plan.changes()?, plan.code), (vec![expected.to_owned()], 3));

    let variables = machine.variables()?;
    let set = variables.iter().flat_map(|variable| ["--set", variable]);
    let run: Vec<&str> = ["/usr/local/bin/glovo-bootstrap", "run", "verify"].into_iter().chain(set).collect();
    let mut run = machine.command(&run).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    while machine.agent(&["status", "--json"])?.changes()? != [expected] {
        ensure!(run.try_wait()?.is_none(), "it did not wait");
        sleep(Duration::from_millis(20));
    }
    machine.sh("systemctl start glovo-app")?;
    ensure!(run.wait()?.success());
    assert_eq!(machine.bootstrap(&["plan", "--detailed-exitcode"])?.code, 0);
    Ok(())
}

#[test]
fn drift_of_two_steps_is_fixed_in_the_selected_one() -> Result<()> {
    let machine = converged(Release::default())?;
    machine.sh("chmod 700 /var/www/glovo-app; systemctl --quiet disable nginx")?;
    machine.bootstrap(&["run", "provision_app_directory"])?.success()?;
    let made = machine.agent(&["status", "--json"])?.changes()?;
    assert_eq!(made, ["directory /var/www/glovo-app: set mode 0755 (now 0700)"]);
    let left = machine.bootstrap(&["plan", "--json"])?.changes()?;
    assert_eq!(left, ["service nginx.service: enable at boot"]);
    Ok(())
}
