//! The origins of the cases: a repository of packages for each vendor, and files. All are at one host, and small.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use machine::{Machine, Signer, StandIn};
use sha2::{Digest, Sha256};

/// The file of the secret variables on the machine.
pub const SECRETS: &str = "/root/secrets.toml";
const SECRET_VARIABLES: &str = r#"
registry_password = "a password"
app_password = "a password"
validation_key = "a key"
host_key = "a key"
private_key = "a key"
foobar_password_hash = "$6$j212wezy$7H/1LT4f9/N3wpgNunhsIqtMj62OKiS3nyNwuizouQc3u7MbYCarYeAHWYPYb2FT.lbioDm2RrkJPb9BZMN1O/"
"#;

const SLEEP: &str = "/bin/sleep infinity";
/// Stands in for MariaDB's client: one file for the databases, one for the users.
const MYSQL: &str = r#"
cd /var/lib/mysql
for sql; do :; done
[ $# -gt 0 ] || sql=$(cat)
case $sql in
*"SHOW DATABASES"*) cat databases 2> /dev/null || true ;;
*"CREATE DATABASE"*) echo app >> databases ;;
*"SELECT user"*) cat users 2> /dev/null || true ;;
*"CREATE USER"*) echo app >> users ;;
*"SELECT IF"*) if [ -e anonymous ]; then echo some; else echo none; fi ;;
*"DELETE"*) rm anonymous ;;
*) exit 2 ;;
esac"#;
const DOCKER: &str = r#"
if [ "$1" = login ]; then
    cat > /dev/null; mkdir -p /root/.docker; echo '{ "auths": { "quay.io": {} } }' > /root/.docker/config.json
fi"#;

const ADD: &str = r#"
import io, tarfile, zipfile
def add(tar, name, text):
    member = tarfile.TarInfo(name); member.mode = 0o755; member.size = len(text)
    tar.addfile(member, io.BytesIO(text.encode()))
"#;
/// The path of an archive, the variable of its digest, and the script that makes it.
const ARCHIVES: [(&str, &str, &str); 2] = [
    (
        "releases/1.9.6/consul_1.9.6_linux_amd64.zip",
        "consul_amd64_sha256",
        r##"
with zipfile.ZipFile("archive", "w") as archive:
    program = zipfile.ZipInfo("consul"); program.external_attr = 0o100755 << 16
    archive.writestr(program, """#!/usr/bin/python3
import os, socket, time
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(100000)
""")
"##,
    ),
    (
        "node.tar.xz",
        "node_sha256",
        r##"
with tarfile.open("archive", "w:xz") as tar:
    add(tar, "node/bin/node", "#!/bin/sh\n")
    add(tar, "node/bin/npm", """#!/bin/sh
case $1 in
list) cat $NPM_CONFIG_PREFIX/pm2 ;;
install) mkdir -p $NPM_CONFIG_PREFIX; echo $3 > $NPM_CONFIG_PREFIX/pm2 ;;
esac
""")
"##,
    ),
];

/// Publishes everything, has the machine's apt know the stand-ins of Debian's packages, and returns the variables by which
/// the cases find their origins.
pub fn publish(machine: &Machine) -> Result<Vec<String>> {
    let world = machine.world();
    let vendor = Signer::new(machine.directory(), "vendor")?;
    let publish = |path: &str, suite: &str, component: &str, packages: &[StandIn]| {
        vendor.publish_packages(world, &format!("vendor.test/{path}"), suite, component, packages)
    };
    publish("debian", "bookworm", "main", &debian())?;
    publish("docker/debian", "bookworm", "stable", &docker())?;
    publish("gitlab/debian", "bookworm", "main", &[gitlab()])?;
    publish(
        "chef",
        "bookworm",
        "main",
        &[StandIn::new("chef").program("/usr/bin/chef-client", "touch /etc/chef/client.pem")],
    )?;
    publish("elastic", "stable", "main", &[elasticsearch()])?;
    publish(
        "nodesource/node_20.x",
        "nodistro",
        "main",
        &[StandIn::new("nodejs").version("20.1.0").program("/usr/bin/node", "")],
    )?;
    world.publish("vendor.test/key", vendor.key.clone());

    fs::write(machine.path("/usr/share/keyrings/vendor.gpg"), &vendor.key)?;
    let source = "deb [signed-by=/usr/share/keyrings/vendor.gpg] http://vendor.test/debian bookworm main\n";
    fs::write(machine.path("/etc/apt/sources.list.d/debian-stand-ins.list"), source)?;
    fs::write(machine.path(SECRETS), SECRET_VARIABLES)?;
    fs::set_permissions(machine.path(SECRETS), fs::Permissions::from_mode(0o600))?;

    let mut variables = vec![
        format!("key_fingerprint={}", vendor.fingerprint),
        format!("key_sha256={}", sha256(&vendor.key)),
        "key=http://vendor.test/key".into(),
    ];
    variables.extend(files(machine)?);
    // The package of the vendor that no repository has.
    let agent = machine.sh("curl -fsS http://vendor.test/debian/pool/amazon-cloudwatch-agent_99_all.deb -o /root/agent.deb; sha256sum /root/agent.deb")?;
    world.publish("vendor.test/amd64/99/amazon-cloudwatch-agent.deb", fs::read(machine.path("/root/agent.deb"))?);
    let digest = agent.split(' ').next().unwrap_or_default();
    variables.extend(["agent_url=http://vendor.test".into(), "agent_version=99".into()]);
    variables.push(format!("agent_amd64_sha256={digest}"));
    Ok(variables)
}

/// The variables of one case's repository.
pub fn repository(id: &str) -> Option<&'static str> {
    Some(match id {
        "A13" => "repository=http://vendor.test/gitlab",
        "D08" | "T14" => "repository=http://vendor.test/docker",
        "G04" => "repository=http://vendor.test/nodesource",
        "G12" => "repository=http://vendor.test/elastic",
        "I11" => "repository=http://vendor.test/chef",
        _ => return None,
    })
}

/// Publishes the files that cases download.
fn files(machine: &Machine) -> Result<Vec<String>> {
    let publish = |path: &str, variable: &str| {
        let bytes = format!("#!/bin/sh\n# {path}\n").into_bytes();
        let digest = format!("{variable}={}", sha256(&bytes));
        machine.world().publish(&format!("vendor.test/{path}"), bytes);
        digest
    };
    let mut variables = vec![
        publish("ci/docker-compose", "docker_compose_sha256"),
        publish("ci/docker-gc", "docker_gc_sha256"),
        publish("ci/docker-low-disk-gc", "docker_low_disk_gc_sha256"),
        publish("releases/buildx/releases/download/v0.14.1/buildx-v0.14.1.linux-amd64", "buildx_amd64_sha256"),
        publish("releases/compose/releases/download/v2.27.1/docker-compose-linux-x86_64", "compose_amd64_sha256"),
        "scripts_url=http://vendor.test/ci".into(),
        "releases_url=http://vendor.test/releases".into(),
    ];
    for (archive, variable, script) in ARCHIVES {
        let bytes = python(machine, script)?;
        variables.push(format!("{variable}={}", sha256(&bytes)));
        machine.world().publish(&format!("vendor.test/{archive}"), bytes);
    }
    variables.push("node_url=http://vendor.test/node.tar.xz".into());
    for variable in ["first_ca", "second_ca"] {
        let certificate = machine.sh(&format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN={variable} 2> /dev/null"
        ))?;
        variables.push(format!("{variable}={certificate}"));
    }
    Ok(variables)
}

/// Serves the repository of the recipe at this address with two keys, of which the second one signs, and returns the file of
/// the keys.
pub fn two_keys(machine: &Machine, address: &str) -> Result<Vec<u8>> {
    let (old, new) = (Signer::new(machine.directory(), "old")?, Signer::new(machine.directory(), "new")?);
    new.publish_packages(machine.world(), address, "stable", "main", &[StandIn::new("vendor-agent")])?;
    Ok([old.key, new.key].concat())
}

/// Returns what a script writes to the file `archive`. Its function `add` adds a program to a tar.
fn python(machine: &Machine, script: &str) -> Result<Vec<u8>> {
    fs::write(machine.path("/root/make"), format!("{ADD}{script}"))?;
    machine.sh("cd /root; python3 make")?;
    Ok(fs::read(machine.path("/root/archive"))?)
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Packages of Debian, and of the images of the cases.
fn debian() -> Vec<StandIn> {
    let dummies = [
        "awscli",
        "git",
        "jq",
        "unzip",
        "amazon-ecr-credential-helper",
        "apt-transport-https",
        "gnupg2",
        "python3-mysqldb",
        "rsyslog-gnutls",
    ];
    let mut packages: Vec<StandIn> = dummies.into_iter().map(StandIn::new).collect();
    packages.extend(["software-properties-common", "iptables"].map(StandIn::new));
    packages.extend([
        StandIn::new("amazon-ssm-agent").service("amazon-ssm-agent.service", SLEEP),
        StandIn::new("amazon-cloudwatch-agent"),
        StandIn::new("apache2")
            .directory("/var/www/html")
            .service("apache2.service", "/usr/bin/python3 -m http.server 80 --directory /var/www/html"),
        StandIn::new("cron").service("cron.service", SLEEP),
        StandIn::new("logrotate").program("/usr/sbin/logrotate", "grep -q daily $2"),
        StandIn::new("rsyslog")
            .directory("/etc/rsyslog.d")
            .program("/usr/sbin/rsyslogd", "grep -q -e @@ -e omfwd $3")
            .service("rsyslog.service", SLEEP),
        StandIn::new("chrony").service("chrony.service", SLEEP),
        StandIn::new("systemd-timesyncd").service("systemd-timesyncd.service", SLEEP),
        StandIn::new("docker.io")
            .program("/usr/bin/docker", DOCKER)
            .service("docker.service", SLEEP)
            .script("addgroup --system --quiet docker"),
        StandIn::new("dotnet-sdk-6.0")
            .program("/usr/bin/dotnet", "mkdir -p $HOME/.dotnet/corefx/cryptography/x509stores/my"),
        StandIn::new("iptables-persistent")
            .program("/usr/sbin/iptables-restore", "grep -q COMMIT $2")
            .directory("/etc/iptables")
            .unit("netfilter-persistent.service", "Type=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true"),
        StandIn::new("mariadb-client").program("/usr/bin/mysql", MYSQL),
        StandIn::new("mariadb-server")
            .user("mysql")
            .directory("/etc/mysql/mariadb.conf.d")
            .directory("/var/log/mysql")
            .directory("/var/lib/mysql")
            .script("touch /var/lib/mysql/anonymous")
            .service("mariadb.service", SLEEP),
        StandIn::new("ntp").service("ntp.service", SLEEP),
        StandIn::new("sshd-stand-in").directory("/etc/ssh").service("ssh.service", SLEEP),
        StandIn::new("postfix").service("postfix.service", SLEEP),
        StandIn::new("redis-server").user("redis").service("redis-server.service", SLEEP),
    ]);
    packages
}

/// Packages of Docker's own repository.
fn docker() -> Vec<StandIn> {
    let mut packages: Vec<StandIn> =
        ["containerd.io", "docker-buildx-plugin", "docker-compose-plugin"].into_iter().map(StandIn::new).collect();
    packages.push(StandIn::new("docker-ce-cli").program("/usr/bin/docker", DOCKER));
    packages
        .push(StandIn::new("docker-ce").service("docker.service", SLEEP).script("addgroup --system --quiet docker"));
    packages
}

fn gitlab() -> StandIn {
    StandIn::new("gitlab-ee")
        .directory("/etc/gitlab")
        .directory("/var/opt/gitlab")
        .program("/usr/bin/gitlab-ctl", "touch /var/opt/gitlab/bootstrapped")
}

fn elasticsearch() -> StandIn {
    StandIn::new("elasticsearch")
        .user("elasticsearch")
        .directory("/etc/elasticsearch/jvm.options.d")
        .service("elasticsearch.service", "/usr/bin/python3 -m http.server 9200 --bind 127.0.0.1")
}
