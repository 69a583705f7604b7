//! Every environment variable that this program reads, in one place. `docs/reference/environment.md` says what they mean.

use std::env;

/// The manifest, as `--steps` names it.
pub const STEPS: &str = "GLOVO_BOOTSTRAP_STEPS";
/// Log levels.
pub const LOG: &str = "GLOVO_BOOTSTRAP_LOG";
/// Has the metadata service asked on any machine.
pub const TRUST_METADATA: &str = "GLOVO_BOOTSTRAP_TRUST_METADATA";
/// Has a run leave alone what a service has refused since the boot. The unit of the timer sets it.
pub const UNATTENDED: &str = "GLOVO_BOOTSTRAP_UNATTENDED";
/// The descriptor that a run's supervisor reads from. A run's supervisor sets it.
pub const SUPERVISOR: &str = "GLOVO_BOOTSTRAP_SUPERVISOR";

/// The stack of `deploy`.
pub const STACK_NAME: &str = "STACK_NAME";

/// No colours, if it is not empty: <https://no-color.org>.
pub const NO_COLOR: &str = "NO_COLOR";
/// The kind of terminal.
pub const TERM: &str = "TERM";

/// Another metadata service of EC2, as all AWS SDKs read it.
pub const METADATA_ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
/// Another endpoint of all AWS services, as all AWS SDKs read it. That of one service has `_` and its name behind it.
pub const ENDPOINT_URL: &str = "AWS_ENDPOINT_URL";
/// The profile of `~/.aws/config`, as all AWS SDKs read it.
pub const PROFILE: &str = "AWS_PROFILE";
/// Another file in place of `~/.aws/config`, as all AWS SDKs read it.
pub const CONFIG_FILE: &str = "AWS_CONFIG_FILE";
/// Another file in place of `~/.aws/credentials`, as all AWS SDKs read it.
pub const CREDENTIALS_FILE: &str = "AWS_SHARED_CREDENTIALS_FILE";
/// Half of the credentials of the environment, as all AWS SDKs read it.
pub const ACCESS_KEY_ID: &str = "AWS_ACCESS_KEY_ID";
/// The other half.
pub const SECRET_ACCESS_KEY: &str = "AWS_SECRET_ACCESS_KEY";
/// A file with the token of a web identity, as all AWS SDKs read it.
pub const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
/// The role that this token gives.
pub const ROLE_ARN: &str = "AWS_ROLE_ARN";
/// The name of a session of this role.
pub const ROLE_SESSION_NAME: &str = "AWS_ROLE_SESSION_NAME";
/// Another directory for the tokens of `aws login`, as all AWS SDKs read it.
pub const LOGIN_CACHE: &str = "AWS_LOGIN_CACHE_DIRECTORY";

/// systemd sets it to the device and the inode of the journal's stream, systemd.exec(5).
pub const JOURNAL_STREAM: &str = "JOURNAL_STREAM";
/// sudo sets it to the uid of its caller, sudo(8).
pub const SUDO_UID: &str = "SUDO_UID";
/// A web server sets it for a CGI program: a client then decides about `HTTP_PROXY`.
pub const REQUEST_METHOD: &str = "REQUEST_METHOD";

/// Another file with root certificates, as OpenSSL reads it.
pub const SSL_CERT_FILE: &str = "SSL_CERT_FILE";
/// Another directory with root certificates, as OpenSSL reads it.
pub const SSL_CERT_DIR: &str = "SSL_CERT_DIR";

/// The proxies, in lower case; curl(1) and this program read them in upper case too.
pub const HTTP_PROXY: &str = "http_proxy";
/// The proxy of https.
pub const HTTPS_PROXY: &str = "https_proxy";
/// The proxy of what has none of its own.
pub const ALL_PROXY: &str = "all_proxy";
/// Hosts that are asked without a proxy, comma-separated.
pub const NO_PROXY: &str = "no_proxy";

/// The address of Vault, as Vault's own programs read it.
pub const VAULT_ADDR: &str = "VAULT_ADDR";
/// The namespace of Vault.
pub const VAULT_NAMESPACE: &str = "VAULT_NAMESPACE";
/// The file of the certificates that vouch for Vault's.
pub const VAULT_CACERT: &str = "VAULT_CACERT";
/// The file of the certificate that Vault is shown.
pub const VAULT_CLIENT_CERT: &str = "VAULT_CLIENT_CERT";
/// The file of that certificate's key.
pub const VAULT_CLIENT_KEY: &str = "VAULT_CLIENT_KEY";
/// The user's directory, where `vault login` leaves its token.
pub const HOME: &str = "HOME";

/// Returns the value of a variable, which may be empty; `None` where it is not set or is not UTF-8.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn even_empty(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// Returns the endpoint that the environment names for one AWS service, such as `S3`.
pub fn endpoint_of(service: &str) -> Option<String> {
    value(&format!("{ENDPOINT_URL}_{service}"))
}

/// Returns the value of a variable; `None` where it is not set, is empty or is not UTF-8.
pub fn value(name: &str) -> Option<String> {
    even_empty(name).filter(|value| !value.is_empty())
}

/// Returns whether a variable is set to something that does not mean no: `0`, `false` and `no` do.
pub fn is_on(name: &str) -> bool {
    value(name).is_some_and(|value| !matches!(value.as_str(), "0" | "false" | "no"))
}
