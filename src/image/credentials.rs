//! The search for credentials in an image. Every instance of the image, and every user of one, could read them.
//!
//! The patterns are strict, so that few other texts match. A private key counts only with its body, a secret access key
//! only with its name or its key id. The search reads each file once, and only its first MiB.

use std::{io::Read, time::Duration};

use anyhow::{Context, Result};
use nix::sys::statfs;
use toml::de::{DeTable, DeValue};

use crate::{
    error::Fault,
    host::{
        Host,
        root::{FileType, Root, is_match},
    },
    packages::FAMILIES,
    redaction::{
        forms::{aws_secret, netrc_password, private_key, url_password},
        is_sensitive,
    },
    value::AbsPath,
};

/// The directories where users and programs store credentials. Packages install all other files.
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
/// Private keys that may stay: `seal` removes host keys on request. A package manager may add some.
const KNOWN: &str = "/etc/ssh/ssh_host_*_key";
/// How many bytes of a file are searched.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The search fails if there are more files.
const MAX_FILES: usize = 200_000;
/// The search fails if it takes longer.
const SEARCH_TIMEOUT: Duration = Duration::from_mins(2);

/// The credential's name, the files to search (patterns of [`is_match`]; none: all files), and its position in a text.
type Rule = (&'static str, &'static [&'static str], fn(&str) -> Option<usize>);

/// The name of a password in a file for passwords.
const PASSWORD: &str = "a password";

/// The rules of all machines. Each package manager adds its files with passwords.
const RULES: &[Rule] = &[
    ("a private key", &[], private_key),
    ("an AWS secret access key", &[], aws_secret),
    ("a password in a URL", &[], password_in_url),
    ("a session of AWS IAM Identity Center", &["~/.aws/sso/cache/*"], |text| text.find("\"accessToken\"")),
    ("a token of Vault", &["~/.vault-token"], anything),
    ("a credential of systemd", &["/etc/credstore/*"], anything),
    (
        "a value with the name of a secret",
        &["/etc/glovo-bootstrap/variables.toml", "/etc/glovo-bootstrap/steps/*.toml"],
        secret_variable,
    ),
    (PASSWORD, &["~/.netrc"], netrc_password),
    (PASSWORD, &["~/.git-credentials", "~/.config/git/credentials"], url_password),
    ("a registry's password", &["~/.docker/config.json", "~/.dockercfg"], registry_password),
    ("user-data", &["/var/lib/cloud/seed/*/user-data", "/var/lib/cloud/instances/*/user-data.txt*"], anything),
];

/// Where a credential was found. It does not hold the credential itself.
#[derive(Debug, PartialEq, Eq)]
pub struct FoundCredential {
    /// The file.
    pub path: AbsPath,
    /// The line, from 1.
    pub line: usize,
    /// The kind of credential.
    pub what: &'static str,
}

/// Returns the credentials found, except at or below the allowed paths.
///
/// # Errors
/// If a file cannot be read, or the search exceeds [`MAX_FILES`] or [`SEARCH_TIMEOUT`]: the result is incomplete then.
pub fn search(host: &Host, allowed: &[AbsPath]) -> Result<Vec<FoundCredential>> {
    host.stop.deadlines.within(Some(SEARCH_TIMEOUT), "looking for credentials", || {
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
    findings: Vec<FoundCredential>,
}

impl Search<'_> {
    /// Searches a path and everything below it. Links are not followed: their targets are searched at their own paths.
    fn enter(&mut self, path: &AbsPath, depth: usize) -> Result<()> {
        self.host.stop.check()?;
        let root = self.root;
        if is_allowed(self.allowed, path) || is_known(path) {
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
        if self.files > MAX_FILES {
            return Err(Fault::new(format!("the tree has more than {MAX_FILES} files to search for credentials"))
                .hint("remove files that the image does not need, or pass --allow for the largest directory")
                .into());
        }
        let Some((file, _)) = self.root.open_file(path)? else { return Ok(()) };
        let mut bytes = vec![];
        _ = file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).with_context(|| format!("reading {path}"))?;
        if bytes[..bytes.len().min(8192)].contains(&0) {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&bytes);
        let of_packages = FAMILIES.iter().flat_map(|family| family.traces().passwords);
        let of_packages = of_packages.map(|files| (PASSWORD, files.patterns, files.find));
        for (what, patterns, find) in RULES.iter().copied().chain(of_packages) {
            if (patterns.is_empty() || patterns.iter().any(|pattern| is_match(pattern, path)))
                && let Some(at) = find(&text)
            {
                let line = text[..at].matches('\n').count() + 1;
                self.findings.push(FoundCredential { path: path.clone(), line, what });
            }
        }
        Ok(())
    }
}

/// Returns whether a path is one of the allowed ones, or below it.
pub fn is_allowed(allowed: &[AbsPath], path: &AbsPath) -> bool {
    let covers = |allowed: &AbsPath| {
        path.as_str().strip_prefix(allowed.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    allowed.iter().any(covers)
}

/// Finds any text in a file that has no other purpose than a secret.
fn anything(text: &str) -> Option<usize> {
    (!text.trim().is_empty()).then_some(0)
}

/// Finds a variable whose name says that its value is a secret, unless it only names a secret of a store. The text is a file
/// of variables, or of steps, which has them in `[variables]`.
///
/// Other values of such a file are no secrets for certain, and an image may need them.
fn secret_variable(text: &str) -> Option<usize> {
    let (table, _) = DeTable::parse_recoverable(text);
    let table = table.get_ref();
    let declared = table.get("variables").and_then(|variables| variables.get_ref().as_table());
    // A placeholder is another name of a variable, which may be a reference.
    let is_placeholder = |value: &str| value.starts_with("{{") && value.ends_with("}}") && !value[2..].contains("{{");
    let is_text = |value: &DeValue<'_>| value.as_str().is_some_and(|value| !value.is_empty() && !is_placeholder(value));
    let is_value = |value: &DeValue<'_>| match value {
        DeValue::Table(values) => !values.contains_key("secret") && values.values().any(|one| is_text(one.get_ref())),
        DeValue::Array(values) => values.iter().any(|one| is_text(one.get_ref())),
        value => is_text(value),
    };
    let all = table.iter().chain(declared.into_iter().flat_map(|declared| declared.iter()));
    let found = all.filter(|(name, value)| is_sensitive(name.get_ref()) && is_value(value.get_ref()));
    found.map(|(name, _)| name.span().start).min()
}

/// Returns whether a private key at this path may stay.
fn is_known(path: &AbsPath) -> bool {
    let of_packages = FAMILIES.iter().flat_map(|family| family.traces().harmless_keys);
    of_packages.chain([&KNOWN]).any(|known| is_match(known, path))
}

/// Returns whether a directory is on a file system that is part of the image. A tmpfs or NFS mount is not part of it,
/// unless the whole tree is on it.
fn is_on_disk(root: &Root, path: &AbsPath) -> Result<bool> {
    let device = |path| Ok::<_, anyhow::Error>(root.status(path)?.map(|status| status.identity[0]));
    let elsewhere = [statfs::TMPFS_MAGIC, statfs::NFS_SUPER_MAGIC];
    Ok(device(path)? == device(&"/".into())? || !elsewhere.contains(&root.file_system(&path.join("any")?)?.magic))
}

/// Finds `scheme://user:password@host`, unless the password is a placeholder that manuals use.
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

/// Finds the password of a container registry that is stored in the file, not by a credential helper.
fn registry_password(text: &str) -> Option<usize> {
    let config: serde_json::Value = serde_json::from_str(text).ok()?;
    let registries = config.get("auths").unwrap_or(&config).as_object()?;
    let is_there = |registry: &serde_json::Value| {
        ["auth", "identitytoken", "password"].iter().any(|name| registry[*name].as_str().is_some_and(|s| !s.is_empty()))
    };
    registries.values().any(is_there).then_some(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scratch::Scratch;

    /// Returns the findings in a tree of these files: `path:line: what`.
    fn found(files: &[(&str, &str)], allowed: &[&'static str]) -> Vec<String> {
        let allowed: Vec<AbsPath> = allowed.iter().map(|path| (*path).into()).collect();
        let findings = search(&Scratch::of(files).host(), &allowed).unwrap();
        findings.iter().map(|FoundCredential { path, line, what }| format!("{path}:{line}: {what}")).collect()
    }

    /// A secret in parts, so that no scanner reports this file.
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
    fn placeholders_and_public_parts_are_not_reported() {
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
    fn allowed_paths_are_not_searched() {
        let key = key("PRIVATE KEY");
        let files = [("/etc/nginx/site.key", &*key), ("/etc/nginx/site.key.old", &*key), ("/opt/a/b/key", &*key)];
        let found = found(&files, &["/etc/nginx/site.key", "/opt/a"]);
        assert_eq!(found, ["/etc/nginx/site.key.old:1: a private key"]);
    }

    #[test]
    fn multibyte_texts_are_cut_at_character_boundaries() {
        let text = format!("-----BEGIN PRIVATE KEY-----{}", "é".repeat(1000));
        assert_eq!((private_key(&text), aws_secret(&text)), (None, None));
        assert_eq!(aws_secret(&format!("ASIA{}", "ü".repeat(400))), None);
    }
}
