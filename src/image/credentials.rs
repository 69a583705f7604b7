//! Credentials that were left behind in an image, where every instance and everybody who may start one would have them.
//!
//! What is looked for is so formed that hardly anything else is: a private key is one with its body, a secret access key
//! one with its name or its key id. Only the first MiB of a file is read, and no file twice.

use std::{io::Read, time::Duration};

use anyhow::{Context, Result};
use nix::sys::statfs;

use crate::{
    error::Fault,
    host::{
        Host,
        root::{FileType, Root, is_match},
    },
    redaction::forms::{aws_secret, private_key, url_password},
    value::AbsPath,
};

/// Where people and programs leave them. Packages bring what is elsewhere.
const AREAS: [&str; 11] = [
    "/etc",
    "/home",
    "/opt",
    "/root",
    "/srv",
    "/tmp",
    "/usr/local",
    "/var/lib/cloud",
    "/var/log",
    "/var/tmp",
    "/var/www",
];
/// Private keys that belong where they are: `seal` removes host keys if it is asked to, the other one is Debian's and
/// nobody trusts it.
const KNOWN: [&str; 2] = ["/etc/ssh/ssh_host_*_key", "/etc/ssl/private/ssl-cert-snakeoil.key"];
/// How much is read of a file.
const READ: u64 = 1 << 20;
/// How many files are looked at, and for how long.
const FILES: usize = 200_000;
const TIME: Duration = Duration::from_mins(2);

/// What is looked for in which files (patterns of [`is_match`]; none: in all), and where it begins.
type Rule = (&'static str, &'static [&'static str], fn(&str) -> Option<usize>);

const RULES: &[Rule] = &[
    ("a private key", &[], private_key),
    ("an AWS secret access key", &[], aws_secret),
    ("a password in a URL", &[], password_in_url),
    ("a session of AWS IAM Identity Center", &["~/.aws/sso/cache/*"], |text| text.find("\"accessToken\"")),
    ("a password", &["~/.netrc", "/etc/apt/auth.conf", "/etc/apt/auth.conf.d/*"], netrc_password),
    ("a password", &["~/.git-credentials", "~/.config/git/credentials"], url_password),
    ("a registry's password", &["~/.docker/config.json", "~/.dockercfg"], registry_password),
    ("user-data", &["/var/lib/cloud/seed/*/user-data", "/var/lib/cloud/instances/*/user-data.txt*"], |text| {
        (!text.trim().is_empty()).then_some(0)
    }),
];

/// A credential, without itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: AbsPath,
    /// The line, from 1.
    pub line: usize,
    /// What it is.
    pub what: &'static str,
}

/// Looks for credentials, but not at paths that are allowed to hold some, or below them.
///
/// # Errors
/// Also if there is more to look at than there is time for: then nobody knows.
pub fn search(host: &Host, allowed: &[AbsPath]) -> Result<Vec<Finding>> {
    host.stop.deadlines.within(Some(TIME), "looking for credentials", || {
        let root = host.root().to_inspect();
        let mut search = Search { host, root: &root, allowed, files: 0, findings: vec![] };
        for area in AREAS {
            search.enter(&host.root().resolve(&area.into())?, 0)?;
        }
        Ok(search.findings)
    })
}

struct Search<'a> {
    host: &'a Host,
    root: &'a Root,
    allowed: &'a [AbsPath],
    files: usize,
    findings: Vec<Finding>,
}

impl Search<'_> {
    /// A path, and everything below it. No link is followed: what it points to is looked at where it is.
    fn enter(&mut self, path: &AbsPath, depth: usize) -> Result<()> {
        self.host.stop.check()?;
        let root = self.root;
        let is_allowed = |allowed: &AbsPath| {
            path.as_str().strip_prefix(allowed.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if self.allowed.iter().any(is_allowed) || KNOWN.iter().any(|known| is_match(known, path)) {
            return Ok(());
        }
        match root.status(path)?.map(|status| status.file_type) {
            Some(FileType::Directory) if depth < 100 && is_on_disk(root, path)? => {
                for name in root.list(path)? {
                    if let Ok(path) = path.join(&name) {
                        self.enter(&path, depth + 1)?;
                    }
                }
                Ok(())
            }
            Some(FileType::Regular) => self.file(path),
            _ => Ok(()),
        }
    }

    fn file(&mut self, path: &AbsPath) -> Result<()> {
        self.files += 1;
        if self.files > FILES {
            return Err(Fault::new(format!("there are more than {FILES} files to look for credentials in"))
                .hint("take out what does not belong into an image, or --allow the directory that holds most of them")
                .into());
        }
        let Some((file, _)) = self.root.open_file(path)? else { return Ok(()) };
        let mut bytes = vec![];
        _ = file.take(READ).read_to_end(&mut bytes).with_context(|| format!("reading {path}"))?;
        if bytes[..bytes.len().min(8192)].contains(&0) {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&bytes);
        for (what, patterns, find) in RULES {
            if (patterns.is_empty() || patterns.iter().any(|pattern| is_match(pattern, path)))
                && let Some(at) = find(&text)
            {
                let line = text[..at].matches('\n').count() + 1;
                self.findings.push(Finding { path: path.clone(), line, what });
            }
        }
        Ok(())
    }
}

/// Whether a directory is on a file system that an image holds: memory and other machines are in none, unless the whole
/// tree is there.
fn is_on_disk(root: &Root, path: &AbsPath) -> Result<bool> {
    let device = |path| Ok::<_, anyhow::Error>(root.status(path)?.map(|status| status.identity[0]));
    let elsewhere = [statfs::TMPFS_MAGIC, statfs::NFS_SUPER_MAGIC];
    Ok(device(path)? == device(&"/".into())? || !elsewhere.contains(&root.file_system(&path.join("any")?)?.magic))
}

/// `password` and a word behind it, netrc(5) and `apt_auth.conf(5)`.
fn netrc_password(text: &str) -> Option<usize> {
    let mut words = text.split_ascii_whitespace();
    let found = words.any(|word| word == "password") && words.next().is_some();
    found.then(|| text.find("password"))?
}

/// `scheme://user:password@host` with a password that is none of those that stand for one in a manual.
fn password_in_url(text: &str) -> Option<usize> {
    const STAND_INS: [&str; 12] = [
        "password",
        "passwd",
        "passphrase",
        "pass",
        "pwd",
        "pw",
        "secret",
        "token",
        "user",
        "username",
        "changeme",
        "none",
    ];
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+.-".contains(c);
    text.match_indices("://").map(|(at, _)| at).find(|at| {
        if !text[..*at].ends_with(is_scheme) {
            return false;
        }
        let ends = |c: char| c.is_whitespace() || c.is_control() || "/?#\"'`<>\\,;()".contains(c);
        let authority = text[at + 3..].split(ends).next().unwrap_or_default();
        let login = authority.rsplit_once('@').map(|(login, host)| (login.split_once(':'), host));
        let Some((Some((_, password)), host)) = login else { return false };
        let is_mask = password.chars().all(|c| "*xX.…".contains(c));
        let is_variable = password.starts_with(['$', '%', '{', '[']) && !password.starts_with("%2");
        let lower = password.to_ascii_lowercase();
        !host.is_empty() && !is_mask && !is_variable && !STAND_INS.contains(&&*lower)
    })
}

/// Of a registry that is logged in to without a helper that keeps the password.
fn registry_password(text: &str) -> Option<usize> {
    let config: serde_json::Value = serde_json::from_str(text).ok()?;
    let registries = config.get("auths").unwrap_or(&config).as_object()?;
    let is_there = |registry: &serde_json::Value| {
        ["auth", "identitytoken", "password"].iter().any(|name| registry[*name].as_str().is_some_and(|s| !s.is_empty()))
    };
    registries.values().any(is_there).then_some(0)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test's own tree")]
mod tests {
    use std::fs;

    use super::*;
    use crate::stop::Interrupt;

    /// What is found in a tree of these files: `path:line: what`.
    fn found(files: &[(&str, &str)], allowed: &[&'static str]) -> Vec<String> {
        let tree = nix::unistd::mkdtemp(&std::env::temp_dir().join("credentials-XXXXXX")).unwrap();
        for (path, text) in files {
            let path = tree.join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let host = Host::open(&tree, Interrupt::default()).unwrap();
        let allowed: Vec<AbsPath> = allowed.iter().map(|path| (*path).into()).collect();
        let findings = search(&host, &allowed).unwrap();
        fs::remove_dir_all(tree).unwrap();
        findings.iter().map(|Finding { path, line, what }| format!("{path}:{line}: {what}")).collect()
    }

    /// Put together here, so that no scanner takes this file for a leak.
    fn secret() -> String {
        ["9drTJvcXLB89EXZL", "B5hxzQeXWxtvRL2wPq", "s7/+Kd"].concat()
    }

    fn key(kind: &str) -> String {
        let body = "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAOcrn9g";
        format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n")
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn each_kind_is_found_and_named_with_its_line() {
        let secret = secret();
        let pair = format!("id: {}\nsecret: {secret}\n", ["AKIA", "Z2MQ5GRSEXW4TB3J"].concat());
        for (path, text, expected) in [
            (
                "/root/.aws/credentials",
                format!("[default]\naws_secret_access_key = {secret}\n"),
                "2: an AWS secret access key",
            ),
            (
                "/etc/default/app",
                format!("A=1\nexport AWS_SECRET_ACCESS_KEY='{secret}'\n"),
                "2: an AWS secret access key",
            ),
            (
                "/home/a/.aws/cli/cache/1.json",
                format!("{{\"SecretAccessKey\": \"{secret}\"}}"),
                "1: an AWS secret access key",
            ),
            (
                "/root/.bash_history",
                format!("ls\nAWS_SECRET_ACCESS_KEY={secret} aws s3 ls\n"),
                "2: an AWS secret access key",
            ),
            ("/opt/app/config.yml", pair, "1: an AWS secret access key"),
            (
                "/home/a/.aws/sso/cache/1.json",
                "{\"accessToken\": \"x\"}".into(),
                "1: a session of AWS IAM Identity Center",
            ),
            ("/root/.ssh/id_ed25519", key("OPENSSH PRIVATE KEY"), "1: a private key"),
            ("/etc/nginx/site.key", format!("\n{}", key("PRIVATE KEY")), "2: a private key"),
            ("/srv/app/key.json", key("RSA PRIVATE KEY").replace('\n', "\\n"), "1: a private key"),
            ("/home/a/backup.asc", key("PGP PRIVATE KEY BLOCK"), "1: a private key"),
            ("/home/a/.netrc", "machine x\nlogin y\npassword z\n".into(), "3: a password"),
            ("/etc/apt/auth.conf.d/mirror.conf", "machine x login y password z".into(), "1: a password"),
            ("/root/.git-credentials", "https://user:token@git.example.com\n".into(), "1: a password"),
            (
                "/root/.docker/config.json",
                "{\"auths\": {\"r\": {\"auth\": \"eDp5\"}}}".into(),
                "1: a registry's password",
            ),
            ("/etc/app.env", "A=1\nDB=postgres://app:hunter2@10.0.0.5/db\n".into(), "2: a password in a URL"),
            ("/opt/app/.env", "CACHE=redis://:hunter2@cache:6379\n".into(), "1: a password in a URL"),
            (
                "/etc/apt/sources.list.d/a.list",
                "deb https://u:p%40ss@deb.test/ x main".into(),
                "1: a password in a URL",
            ),
            ("/var/lib/cloud/seed/nocloud/user-data", "#cloud-config\n".into(), "1: user-data"),
            ("/var/lib/cloud/instances/i-1/user-data.txt.i", "#!/bin/sh\n".into(), "1: user-data"),
        ] {
            let found = found(&[(path, &text)], &[]);
            assert_eq!(found, [format!("{path}:{expected}")]);
            assert!(!found[0].contains(&secret) && !found[0].contains("token"));
        }
    }

    #[test]
    fn what_only_looks_like_one_is_not_taken_for_one() {
        let id = ["AKIA", "Z2MQ5GRSEXW4TB3J"].concat();
        let files = [
            ("/etc/ssh/ssh_host_ed25519_key", key("OPENSSH PRIVATE KEY")),
            ("/etc/ssl/private/ssl-cert-snakeoil.key", key("PRIVATE KEY")),
            ("/etc/ssl/certs/ca.pem", key("CERTIFICATE")),
            ("/root/.ssh/id.pub", key("PUBLIC KEY")),
            ("/usr/local/bin/tool", "if grep -q -- '-----BEGIN RSA PRIVATE KEY-----' \"$1\"; then exit 1; fi\n".into()),
            ("/etc/default/app", "AWS_SECRET_ACCESS_KEY=$(get secret)\nAWS_SECRET_ACCESS_KEY=\"${SECRET}\"\n".into()),
            ("/opt/doc.txt", "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n".into()),
            ("/opt/doc2.txt", "AWS_SECRET_ACCESS_KEY: your-secret-access-key-goes-here\n".into()),
            ("/opt/app.py", "Client(aws_secret_access_key=CredentialsProviderChain().secret)\n".into()),
            ("/opt/digest", format!("{id} da39a3ee5e6b4b0d3255bfef95601890afd80709")),
            ("/var/log/app.log", format!("the access key {id} is denied\n")),
            ("/home/a/.docker/config.json", "{\"auths\": {\"r\": {}}, \"credsStore\": \"ecr-login\"}".into()),
            ("/root/.git-credentials", "https://user@git.example.com\n".into()),
            ("/srv/page.html", "<a href='https://user:token@git.example.com'>\n".into()),
            (
                "/etc/proxy",
                "# http://user:password@proxy:3128/ http://u:$PASS@p http://u:<secret>@p ftp://u:***@p\n".into(),
            ),
            ("/etc/hosts.txt", "http://a:80/x@y ssh://git@host:22/x //b:c@d a:b@c http://[::1]:80/\n".into()),
            ("/usr/share/doc/key", key("PRIVATE KEY")),
            ("/var/www/app.jar", format!("PK\0{}", key("PRIVATE KEY"))),
        ];
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        assert_eq!(found(&files, &[]), NOTHING);
    }

    #[test]
    fn what_is_allowed_is_not_looked_at() {
        let key = key("PRIVATE KEY");
        let files = [("/etc/nginx/site.key", &*key), ("/etc/nginx/site.key.old", &*key), ("/opt/a/b/key", &*key)];
        let found = found(&files, &["/etc/nginx/site.key", "/opt/a"]);
        assert_eq!(found, ["/etc/nginx/site.key.old:1: a private key"]);
    }

    #[test]
    fn texts_of_many_bytes_a_character_are_cut_where_they_can_be() {
        let text = format!("-----BEGIN PRIVATE KEY-----{}", "é".repeat(1000));
        assert_eq!((private_key(&text), aws_secret(&text)), (None, None));
        assert_eq!(aws_secret(&format!("ASIA{}", "ü".repeat(400))), None);
    }
}
