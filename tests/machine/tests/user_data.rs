//! The rendered user-data on a machine: it downloads the agent despite temporary failures, or reports its error on the
//! console.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use machine::{Fault, Machine, Options, Output, SECRETS, UserData, agent, pristine_tree, user_data};
use sha2::{Digest, Sha256};

/// What stands in for the agent where the way to it is tested: it prints its arguments, one a line.
const AGENT: &str = "#!/bin/sh\nprintf '%s\\n' \"$@\"\n";
const OBJECT: &str = "s3://glovo-config/agent";
const GET_OBJECT: &str = "^GET glovo-config.s3.eu-central-1.amazonaws.com/agent";
const ROLE: &str = "^GET 169.254.169.254/latest/meta-data/iam/security-credentials/$";

fn pin(url: &str, bytes: &str) -> String {
    let digest = Sha256::new().chain_update(bytes).finalize();
    format!("{url}#sha256={}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// User-data for bytes that are not the agent under test.
fn render(url: &str, options: &[&str]) -> Result<String> {
    let output = std::process::Command::new(agent()?).args(["user-data", url]).args(options).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// A machine without an agent, on which sleeping takes no time.
fn stock_machine() -> Result<Machine> {
    let machine = Machine::boot(Options::default())?;
    fs::remove_file(machine.path("/usr/local/bin/glovo-bootstrap"))?;
    machine.world().store("glovo-config/agent", AGENT.as_bytes())?;
    let sleep = machine.path("/usr/local/sbin/sleep");
    fs::write(&sleep, "#!/bin/sh\n")?;
    fs::set_permissions(&sleep, fs::Permissions::from_mode(0o755))?;
    Ok(machine)
}

/// Runs user-data as cloud-init does, and looks for secrets in what it said.
fn run(machine: &Machine, script: &str) -> Result<Output> {
    fs::write(machine.path("/root/user-data"), script)?;
    machine.sh("chmod 700 /root/user-data")?;
    let run = machine.exec(&["/root/user-data"])?;
    ensure!(
        !SECRETS.iter().any(|secret| run.stderr.contains(secret) || run.stdout.contains(secret)),
        "a secret: {run:?}"
    );
    Ok(run)
}

/// Fails the user-data, and checks that it says so in a line on the console and leaves nothing.
fn fails(machine: &Machine, script: &str, words: &[&str]) -> Result<Output> {
    let before = fs::read_to_string(machine.console())?.len();
    let run = run(machine, script)?;
    ensure!(run.code == 1, "{run:?}");
    // It comes through a terminal and systemd-nspawn.
    let start = Instant::now();
    let line = loop {
        let console = fs::read_to_string(machine.console())?.split_off(before);
        if let Some(line) = console.lines().find(|line| line.contains("glovo-bootstrap: ")) {
            break line.to_owned();
        }
        ensure!(start.elapsed() < Duration::from_secs(10), "the console says `{console}`, and {run:?}");
        sleep(Duration::from_millis(20));
    };
    for word in words {
        ensure!(line.contains(word), "`{word}` is not in {line}\n{run:?}");
    }
    ensure!(machine.sh("ls -A /usr/local/bin")?.is_empty(), "{run:?}");
    Ok(run)
}

/// The statuses with which the world has answered requests that begin like this, in order.
fn statuses(machine: &Machine, line: &str) -> Vec<u16> {
    let requests = machine.world().requests().into_iter();
    requests.filter(|request| request.line().starts_with(line)).map(|request| request.status).collect()
}

fn refusal(status: u16, code: &str) -> Fault {
    let secret = SECRETS.join(" ");
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Token-0>{secret}</Token-0></Error>"
    );
    Fault::Answer { status, headers: vec![], body: xml.into() }
}

#[test]
fn a_new_role_and_a_bad_network_are_waited_for() -> Result<()> {
    let machine = stock_machine()?;
    let world = machine.world();
    world.fault("^PUT 169.254.169.254/latest/api/token", 1, Fault::Drop);
    world.fault(ROLE, 1, Fault::status(404));
    world.fault(GET_OBJECT, 1, refusal(403, "InvalidAccessKeyId"));
    world.fault(GET_OBJECT, 1, refusal(403, "AccessDenied"));
    world.fault(GET_OBJECT, 1, refusal(503, "SlowDown"));
    world.fault(GET_OBJECT, 1, Fault::Truncate(7));
    let run = run(&machine, &render(&pin(OBJECT, AGENT), &[])?)?;
    for words in
        ["api/token: ", "security-credentials/: HTTP Error 404", "InvalidAccessKeyId", "AccessDenied", "SlowDown"]
    {
        ensure!(run.stderr.contains(words), "`{words}` is not in\n{}", run.stderr);
    }
    ensure!(run.stdout.ends_with("\nrun\n--record\n"), "{run:?}");
    run.success()?;
    assert_eq!(machine.sh("stat -c '%a %U' /usr/local/bin/*")?, "755 root\n");
    Ok(())
}

#[test]
fn a_failed_download_says_so_and_leaves_nothing() -> Result<()> {
    let machine = stock_machine()?;
    let world = machine.world();
    let script = render(&pin(OBJECT, AGENT), &[])?;

    world.fault(GET_OBJECT, 100, refusal(403, "AccessDenied"));
    fails(
        &machine,
        &script,
        &["https://glovo-config.s3.eu-central-1.amazonaws.com/agent?: HTTP Error 403: Forbidden AccessDenied"],
    )?;
    ensure!(statuses(&machine, "GET glovo-config").len() == 8);
    world.clear_faults();
    world.fault(ROLE, 100, Fault::status(404));
    fails(&machine, &script, &["iam/security-credentials/: HTTP Error 404"])?;
    world.clear_faults();

    // In another partition it asks another host, which does not exist here.
    let says = |text: &str| Fault::Answer { status: 200, headers: vec![], body: text.into() };
    world.fault("meta-data/placement/region$", 100, says("cn-north-1"));
    world.fault("meta-data/services/domain$", 100, says("amazonaws.com.cn"));
    fails(&machine, &script, &["https://glovo-config.s3.cn-north-1.amazonaws.com.cn/agent?: <urlopen error"])?;
    world.clear_faults();

    let asked = statuses(&machine, "GET glovo-config").len();
    world.store("glovo-config/agent", b"#!/bin/sh\ntouch /root/ran\n")?;
    fails(&machine, &script, &["wrong SHA-256"])?;
    ensure!(statuses(&machine, "GET glovo-config").len() == asked + 1, "bytes that are wrong are wrong the next time");
    let elf = "\x7fELF\x02\x01\x01";
    world.store("glovo-config/agent", elf.as_bytes())?;
    fails(&machine, &render(&pin(OBJECT, elf), &[])?, &["architecture"])?;
    ensure!(!machine.path("/root/ran").exists());

    let web = render(&pin("https://origin.test/agent?signature=secret", AGENT), &[])?;
    fails(&machine, &web, &["404"])?;
    fails(&machine, &render("--baked", &[])?, &["this image has no /usr/local/bin/glovo-bootstrap"])?;

    // A machine without a console does not get a file of that name.
    machine.sh("mv /dev/console /dev/away")?;
    let run = run(&machine, &render("--baked", &[])?)?;
    ensure!(run.code == 1 && run.stderr.contains("this image has no"), "{run:?}");
    machine.sh("test ! -e /dev/console; mv /dev/away /dev/console")?;
    Ok(())
}

#[test]
fn keys_buckets_versions_and_arguments_arrive_as_they_are() -> Result<()> {
    let machine = stock_machine()?;
    let key = "glovo.artifacts/a+b c~é%25'\"&=/$x\\y";
    machine.world().store(key, AGENT.as_bytes())?;
    let version = "3HL4kqtJ/jVBH+0Nr=";
    let word = "name=it's \"$(reboot)\" `x` \\n %20 é😀 @path@ # ~ *";
    let url = pin(&format!("s3://{key}?versionId={version}"), AGENT);
    let options = ["--", "--steps", "s3://glovo-config/steps.toml#sha256=x", "--set", word, "--set", ""];
    let expected = format!("run\n--record\n{}\n", options[1..].join("\n"));
    let said = run(&machine, &render(&url, &options)?)?.success()?;
    ensure!(said.ends_with(&expected), "{said}");
    // S3 here has no versions, but checks the signature of the request for one.
    let path = "/glovo.artifacts/a%2Bb%20c~%C3%A9%2525%27%22%26%3D/%24x%5Cy?versionId=3HL4kqtJ%2FjVBH%2B0Nr%3D";
    assert_eq!(statuses(&machine, &format!("GET s3.eu-central-1.amazonaws.com{path}")), [200]);

    // cloud-init finds no fault with the other format, and by its own way it comes to the same.
    let config = render(&url, &[&["--format", "cloud-config"], &options[..]].concat())?;
    fs::write(machine.path("/root/config"), config)?;
    // Debian 11's has the command below `devel`.
    let schema = "schema --config-file /root/config";
    machine.sh(&format!("rm /usr/local/bin/*; cloud-init {schema} || cloud-init devel {schema}"))?;
    let shellify = "import yaml; from cloudinit.util import shellify; print(shellify(yaml.safe_load(open('/root/config'))['runcmd']))";
    let script = machine.exec(&["python3", "-c", shellify])?.success()?;
    let said = run(&machine, &script)?.success()?;
    ensure!(said.ends_with(&expected), "{said}");
    Ok(())
}

#[test]
fn a_web_server_will_do_with_curl_or_without() -> Result<()> {
    let machine = stock_machine()?;
    let world = machine.world();
    world.publish("origin.test/agent{1,2}", AGENT);
    let script = render(&pin("https://origin.test/agent{1,2}?signature='x'", AGENT), &["--", "--set", "a=b"])?;
    for client in ["curl/", "Python-urllib/"] {
        world.fault("^GET origin.test/agent", 1, Fault::status(503));
        world.fault("^GET origin.test/agent", 1, Fault::Truncate(7));
        let run = run(&machine, &script)?;
        ensure!(run.stderr.contains("503") && run.stdout.ends_with("\nrun\n--record\n--set\na=b\n"), "{run:?}");
        run.success()?;
        let asked = world.requests().into_iter().filter(|request| request.agent.starts_with(client));
        assert_eq!(asked.map(|request| request.status).collect::<Vec<_>>(), [503, 200, 200], "{client}");
        machine.sh("rm /usr/local/bin/*; rm -f /usr/bin/curl")?;
    }
    Ok(())
}

#[test]
fn cloud_init_runs_the_cloud_config() -> Result<()> {
    let steps = "name = \"mark\"\n[[resource]]\nkind = \"file\"\npath = \"/root/mark\"\ncontent = \"{{ text }}\"\n";
    let options = ["--format", "cloud-config", "--", "--steps", "/root/steps.toml", "--set", "text=it's done"];
    let config = user_data("https://origin.test/glovo-bootstrap", &options)?;
    let mut machine = Machine::new(Options { user_data: Some(UserData::Text(config)), ..Options::default() })?;
    fs::write(machine.path("/root/steps.toml"), steps)?;
    machine.power_on()?;
    machine.wait_until_booted()?;
    let status = machine.exec(&["cloud-init", "status", "--long"])?;
    ensure!(status.code == 0, "{status:?}\n{}", machine.sh("cat /var/log/cloud-init-output.log")?);
    assert_eq!(machine.sh("cat /root/mark")?, "it's done");
    Ok(())
}

#[test]
fn cloud_init_and_the_console_tell_of_a_wrong_digest() -> Result<()> {
    let script = render(&pin("s3://glovo-config/glovo-bootstrap", AGENT), &[])?;
    let machine = Machine::boot(Options { user_data: Some(UserData::Text(script)), ..Options::default() })?;
    let status = machine.exec(&["cloud-init", "status"])?;
    ensure!(status.code == 1 && status.stdout.contains("error"), "{status:?}");
    let console = fs::read_to_string(machine.console())?;
    ensure!(console.contains("glovo-bootstrap: wrong SHA-256"), "{console}");
    assert_eq!(machine.sh("ls -A /usr/local/bin")?, "");
    Ok(())
}

/// By Debian's own Python, and by those in the directories that `GLOVO_PYTHONS` lists (`DIR:DIR`, each with a `python3`).
#[test]
fn every_python_at_hand_gets_it_from_s3() -> Result<()> {
    let machine = Machine::new(Options::default())?;
    machine.world().store("glovo-config/agent", AGENT.as_bytes())?;
    fs::write(machine.path("/root/user-data"), render(&pin(OBJECT, AGENT), &[])?)?;
    let pythons = std::env::var_os("GLOVO_PYTHONS").unwrap_or_default();
    let pythons = std::iter::once(PathBuf::from("/usr/bin"))
        .chain(std::env::split_paths(&pythons).filter(|path| path.is_absolute()));
    for directory in pythons {
        // On this machine, in the network of the machine under test.
        let script = r#"
            mount -t tmpfs tmpfs /usr/local/bin; mount --bind /dev/null /dev/console
            echo nameserver 172.31.0.1 > /usr/local/bin/resolv.conf; mount --bind /usr/local/bin/resolv.conf /etc/resolv.conf
            PATH=$2:$PATH; python3 --version; exec sh "$1/user-data""#;
        let mut command = machine.world().command("unshare");
        command.args(["--mount", "sh", "-euc", script, "sh"]).arg(machine.path("/root")).arg(&directory);
        let authority = pristine_tree()?.join("usr/local/share/ca-certificates/machine-under-test.crt");
        let output = command.env("SSL_CERT_FILE", authority).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        print!("{}: {said}", directory.display());
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && said.ends_with("\nrun\n--record\n") && errors.is_empty(), "{said}{errors}");
    }
    Ok(())
}
