//! Where Vault is, and how this machine logs in: the table `[vault]`, or the variables of Vault's own programs.

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr};

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Url, header::HeaderValue};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::{
    environment::{self, VAULT_ADDR, VAULT_CACERT, VAULT_CLIENT_CERT, VAULT_CLIENT_KEY, VAULT_NAMESPACE},
    error::Fault,
    value::{AbsPath, printable},
};

/// The table `[vault]`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultSettings {
    /// The address of Vault or `OpenBao`: `https://vault.example.com:8200`. Only a loopback address may have `http`.
    pub address: VaultAddress,
    /// The namespace of the login and of all paths: `team/app`.
    #[serde(default)]
    pub namespace: Option<VaultNamespace>,
    /// The PEM file of the certificates that vouch for Vault's, instead of the machine's.
    #[serde(default)]
    pub ca: Option<AbsPath>,
    /// The PEM file of this machine's certificate, for the login `cert` or for a Vault that requires one of every client.
    #[serde(default)]
    pub client_certificate: Option<AbsPath>,
    /// The PEM file of that certificate's private key.
    #[serde(default)]
    pub client_key: Option<AbsPath>,
    /// How to log in: a table, or a list of tables that are tried in order.
    pub login: Logins,
}

impl VaultSettings {
    /// Returns the settings that the environment names, as Vault's own programs read it: `VAULT_ADDR` and others. The token
    /// is that of `vault login`. Returns `None` without an address.
    ///
    /// # Errors
    /// If a variable has an invalid value.
    pub fn of_environment() -> Result<Option<Self>> {
        let Some(address) = environment::value(VAULT_ADDR) else { return Ok(None) };
        let path = |name: &str| environment::value(name).map(|path| path.parse().context(name.to_owned())).transpose();
        let home = environment::value(environment::HOME).unwrap_or_else(|| "/root".into());
        let file = format!("{}/.vault-token", home.trim_end_matches('/')).parse().context(environment::HOME)?;
        let settings = Self {
            address: address.parse().context(VAULT_ADDR)?,
            namespace: environment::value(VAULT_NAMESPACE)
                .map(|namespace| namespace.parse().context(VAULT_NAMESPACE))
                .transpose()?,
            ca: path(VAULT_CACERT)?,
            client_certificate: path(VAULT_CLIENT_CERT)?,
            client_key: path(VAULT_CLIENT_KEY)?,
            login: Logins(vec![Login::Token { file }]),
        };
        settings.check()?;
        Ok(Some(settings))
    }

    /// Fails for settings that contradict each other.
    ///
    /// # Errors
    /// The contradiction.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.client_certificate.is_some() == self.client_key.is_some(),
            "`client_certificate` and `client_key` belong together: give both, or none"
        );
        let needs_certificate = self.login.0.iter().any(|login| matches!(login, Login::Cert { .. }));
        ensure!(
            !needs_certificate || self.client_certificate.is_some(),
            "the login `cert` needs `client_certificate` and `client_key`"
        );
        Ok(())
    }

    /// Returns the files of its secrets: tokens, secret ids, and the client's key.
    pub fn secret_files(&self) -> impl Iterator<Item = &AbsPath> {
        self.login.0.iter().filter_map(Login::secret_file).chain(&self.client_key)
    }

    /// Returns whether no login works a second time: each one is a wrapped secret id.
    ///
    /// Such settings serve the first run of a machine only. A timer would run again without secrets.
    pub fn serves_one_login_only(&self) -> bool {
        self.login.0.iter().all(Login::is_wrapped)
    }
}

/// The address of Vault: `https`, or `http` on this machine. A token must not go over a network in plaintext.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct VaultAddress(#[schemars(with = "String")] Url);

impl VaultAddress {
    /// Returns the URL of a path of the API, which is encoded and may have a query: `sys/health`.
    pub(super) fn url(&self, path: &str) -> Result<Url> {
        let base = self.0.as_str().trim_end_matches('/');
        Ok(format!("{base}/v1/{path}").parse()?)
    }

    /// Returns whether the address is one of this machine.
    pub(super) fn is_on_this_machine(&self) -> bool {
        is_loopback(&self.0)
    }
}

/// Returns whether requests to a URL cannot be read on the way: TLS protects them, or they do not leave this machine.
pub(super) fn is_private(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    host == "localhost" || address.is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

impl FromStr for VaultAddress {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let hint = "write it as in https://vault.example.com:8200";
        let Ok(url) = text.parse::<Url>() else { bail!("`{text}` is not a URL: {hint}") };
        ensure!(
            url.username().is_empty() && url.password().is_none(),
            "an address has no user and no password: {hint}"
        );
        ensure!(url.query().is_none() && url.fragment().is_none(), "`{text}` has a query or a fragment: {hint}");
        ensure!(url.host_str().is_some_and(|host| !host.is_empty()), "`{text}` has no host: {hint}");
        if !is_private(&url) {
            let fault = Fault::new(format!("`{text}` would send the token in plaintext"));
            return Err(fault.hint("use https; http is for an address of this machine, such as 127.0.0.1").into());
        }
        Ok(Self(url))
    }
}

impl TryFrom<String> for VaultAddress {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl fmt::Display for VaultAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// The path of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct VaultNamespace(String);

impl VaultNamespace {
    /// Returns the value of its header.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

impl FromStr for VaultNamespace {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        printable(text)?;
        let path = text.trim_matches('/');
        ensure!(!path.is_empty(), "a namespace is a path, such as `team/app`; without it, leave the field out");
        ensure!(path.is_ascii(), "a namespace has only ASCII characters");
        Ok(Self(path.into()))
    }
}

impl TryFrom<String> for VaultNamespace {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl fmt::Display for VaultNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One way to log in.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "method", rename_all = "lowercase", deny_unknown_fields)]
pub enum Login {
    /// The identity in AWS, of the instance's role or of the caller. The machine sends Vault a signed request to STS.
    Aws {
        /// The role of the auth method.
        role: String,
        /// The mount of the auth method. Default: `aws`.
        #[serde(default)]
        mount: Option<String>,
        /// The value that Vault requires as `iam_server_id_header_value`. The signature covers it: so the request proves
        /// nothing to another server.
        #[serde(default)]
        server_id: Option<String>,
        /// The region whose STS Vault asks (`sts_region`). Default: the global STS, as in Vault.
        #[serde(default)]
        region: Option<String>,
    },
    /// A role id and a secret id.
    AppRole {
        /// The role id.
        role_id: String,
        /// The file of the secret id.
        #[serde(default)]
        secret_id_file: Option<AbsPath>,
        /// The file of the token that wraps the secret id. It is unwrapped once: so it serves one login.
        #[serde(default)]
        wrapped_secret_id_file: Option<AbsPath>,
        /// The mount of the auth method. Default: `approle`.
        #[serde(default)]
        mount: Option<String>,
    },
    /// A signed token of another issuer, such as Kubernetes or an OIDC provider.
    Jwt {
        /// The role of the auth method.
        role: String,
        /// The file of the token.
        file: AbsPath,
        /// The mount of the auth method. Default: `jwt`.
        #[serde(default)]
        mount: Option<String>,
    },
    /// The client's certificate.
    Cert {
        /// The name of the role. Default: Vault tries all roles.
        #[serde(default)]
        role: Option<String>,
        /// The mount of the auth method. Default: `cert`.
        #[serde(default)]
        mount: Option<String>,
    },
    /// A token of Vault in a file. It is not revoked at the end.
    Token {
        /// The file of the token.
        file: AbsPath,
    },
}

impl Login {
    /// Returns the file of its secret.
    fn secret_file(&self) -> Option<&AbsPath> {
        match self {
            Self::AppRole { secret_id_file, wrapped_secret_id_file, .. } => {
                secret_id_file.as_ref().or(wrapped_secret_id_file.as_ref())
            }
            Self::Jwt { file, .. } | Self::Token { file } => Some(file),
            Self::Aws { .. } | Self::Cert { .. } => None,
        }
    }

    /// Fails for a login that contradicts itself.
    fn check(&self) -> Result<()> {
        let mount = self.mount();
        let is_plain = mount.split('/').all(|part| !matches!(part, "" | "." | ".."));
        ensure!(is_plain && printable(mount).is_ok(), "`{mount}` is not the path of a mount, such as `approle`");
        match self {
            Self::AppRole { secret_id_file, wrapped_secret_id_file, .. } => ensure!(
                secret_id_file.is_some() != wrapped_secret_id_file.is_some(),
                "the login `approle` needs either `secret_id_file` or `wrapped_secret_id_file`"
            ),
            Self::Aws { server_id, region, .. } => {
                let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                if let Some(region) = region {
                    ensure!(!region.is_empty() && region.chars().all(is_name), "`{region}` is not a region");
                }
                let is_header = |value: &String| !value.is_empty() && HeaderValue::from_str(value).is_ok();
                ensure!(server_id.as_ref().is_none_or(is_header), "`server_id` is not the value of a header");
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the mount of its auth method.
    pub(super) fn mount(&self) -> &str {
        let (mount, usual) = match self {
            Self::Aws { mount, .. } => (mount, "aws"),
            Self::AppRole { mount, .. } => (mount, "approle"),
            Self::Jwt { mount, .. } => (mount, "jwt"),
            Self::Cert { mount, .. } => (mount, "cert"),
            Self::Token { .. } => (&None, "token"),
        };
        mount.as_deref().unwrap_or(usual)
    }

    /// Returns whether it works once only.
    pub fn is_wrapped(&self) -> bool {
        matches!(self, Self::AppRole { wrapped_secret_id_file: Some(_), .. })
    }
}

/// `approle with the wrapped secret id of /run/secret-id`
impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aws { role, .. } => write!(f, "aws as {role}"),
            Self::AppRole { secret_id_file: Some(file), .. } => write!(f, "approle with the secret id of {file}"),
            Self::AppRole { wrapped_secret_id_file: Some(file), .. } => {
                write!(f, "approle with the wrapped secret id of {file}")
            }
            Self::AppRole { .. } => f.write_str("approle"),
            Self::Jwt { role, file, .. } => write!(f, "jwt of {file} as {role}"),
            Self::Cert { role: Some(role), .. } => write!(f, "cert as {role}"),
            Self::Cert { role: None, .. } => f.write_str("cert"),
            Self::Token { file } => write!(f, "token of {file}"),
        }
    }
}

/// The logins, in the order in which they are tried; at least one.
#[derive(Debug, Clone)]
pub struct Logins(Vec<Login>);

impl Logins {
    /// Returns the logins.
    pub fn all(&self) -> &[Login] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Logins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMoreLogins;
        impl<'de> de::Visitor<'de> for OneOrMoreLogins {
            type Value = Vec<Login>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table with `method`, or a list of such tables")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Vec<Login>, A::Error> {
                Login::deserialize(de::value::MapAccessDeserializer::new(map)).map(|login| vec![login])
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<Vec<Login>, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(list))
            }
        }
        let logins = deserializer.deserialize_any(OneOrMoreLogins)?;
        if logins.is_empty() {
            return Err(de::Error::custom("a list of logins has at least one"));
        }
        logins.iter().try_for_each(Login::check).map_err(de::Error::custom)?;
        Ok(Self(logins))
    }
}

impl JsonSchema for Logins {
    fn schema_name() -> Cow<'static, str> {
        "Logins".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Login>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<VaultSettings> {
        let settings: VaultSettings = toml::from_str(text)?;
        settings.check()?;
        Ok(settings)
    }

    #[test]
    fn an_address_never_sends_a_token_in_plaintext() {
        for right in
            ["https://vault:8200", "http://127.0.0.1:8200", "http://[::1]:8200/", "http://localhost", "https://a/b"]
        {
            assert!(right.parse::<VaultAddress>().is_ok(), "{right}");
        }
        for wrong in [
            "http://vault:8200",
            "http://10.0.0.1",
            "vault:8200",
            "https://u:p@vault",
            "https://vault/?a",
            "ftp://127.0.0.1",
            "http://localhost.example.com",
            "http://[::ffff:10.0.0.1]",
        ] {
            assert!(wrong.parse::<VaultAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_login_is_a_table_and_several_are_a_list() {
        let one = "address = 'https://v'\nlogin = { method = 'jwt', role = 'app', file = '/run/jwt' }";
        assert_eq!(read(one).unwrap().login.all().len(), 1);
        let two =
            "address = 'https://v'\n[[login]]\nmethod = 'aws'\nrole = 'app'\n[[login]]\nmethod = 'token'\nfile = '/t'";
        let logins = read(two).unwrap().login;
        let shown: Vec<_> = logins.all().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["aws as app", "token of /t"]);
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let login = |fields: &str| read(&format!("address = 'https://v'\nlogin = {{ {fields} }}"));
        for (fields, words) in [
            ("method = 'approle', role_id = 'r'", "either `secret_id_file` or"),
            ("method = 'approle', role_id = 'r', secret_id_file = '/a', wrapped_secret_id_file = '/b'", "either"),
            ("method = 'cert'", "`client_certificate`"),
            ("method = 'aws', role = 'r', region = 'evil.example/'", "not a region"),
            ("method = 'aws', role = 'r', mount = '../x'", "not the path of a mount"),
            ("method = 'ec2', role = 'r'", "unknown variant `ec2`"),
            ("method = 'token', file = '/t', token = 's'", "unknown field `token`"),
        ] {
            let error = format!("{:#}", login(fields).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
        let half = "address = 'https://v'\nclient_key = '/k'\nlogin = { method = 'token', file = '/t' }";
        assert!(read(half).unwrap_err().to_string().contains("belong together"));
        assert!(read("address = 'https://v'\nlogin = []").unwrap_err().to_string().contains("at least one"));
        assert!(read("address = 'https://v'").unwrap_err().to_string().contains("missing field `login`"));
    }

    #[test]
    fn a_wrapped_secret_id_alone_serves_one_login() {
        let wrapped = "{ method = 'approle', role_id = 'r', wrapped_secret_id_file = '/w' }";
        let settings = |logins: &str| read(&format!("address = 'https://v'\nlogin = {logins}")).unwrap();
        assert!(settings(wrapped).serves_one_login_only());
        let second = format!("[{wrapped}, {{ method = 'jwt', role = 'r', file = '/j' }}]");
        assert!(!settings(&second).serves_one_login_only());
    }
}
