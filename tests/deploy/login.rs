//! Logging in: `deploy` signs its calls with a profile's credentials, from each source that a profile can name.

mod identity_center;
mod moto;
mod precedence;
mod process;
mod provider;
mod roles;
mod session;

use std::process::Command;

use provider::Provider;

use crate::{
    operator::{Operator, SECRET, TOKEN},
    sandbox::Finished,
    tape::Call,
};

/// An operator with a stack and a home directory, without credentials in the environment.
pub struct Home {
    pub operator: Operator,
    pub provider: Provider,
}

impl Home {
    /// Returns an operator with this `~/.aws/config`.
    pub fn new(config: &str) -> Self {
        Self::with(Operator::serving(), config)
    }

    pub fn with(operator: Operator, config: &str) -> Self {
        let home = Self { operator, provider: Provider::start() };
        home.write("config", config);
        home
    }

    /// Writes a file below `~/.aws`.
    pub fn write(&self, name: &str, text: &str) {
        let _ = self.operator.sandbox.write(&format!(".aws/{name}"), text);
    }

    /// Returns the text of a file below `~/.aws`.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.operator.sandbox.at(&format!(".aws/{name}"))).unwrap()
    }

    pub fn command(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = self.operator.command(arguments, variables);
        for service in ["SSO", "SSO_OIDC", "SIGNIN", "STS"] {
            let _ = command.env(format!("AWS_ENDPOINT_URL_{service}"), self.provider.url());
        }
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            if !variables.iter().any(|(variable, _)| *variable == name) {
                let _ = command.env_remove(name);
            }
        }
        command
    }

    /// Runs the command to its end. Nothing that it prints is a secret.
    pub fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
        let finished = Finished::from(self.command(arguments, variables).output().expect("unshare, as root"));
        without_secrets(&finished);
        finished
    }

    /// Runs `status` with a profile to its end, and returns the access keys that signed its calls.
    pub fn status(&self, profile: &str) -> (Finished, Vec<String>) {
        let finished = self.run(&["status", "--profile", profile], &[("GLOVO_BOOTSTRAP_LOG", "debug")]);
        (finished, keys(&self.operator.calls()))
    }

    /// Checks that `status` with a profile succeeds, and that this key alone signs its calls.
    pub fn serves(&self, profile: &str, key: &str) {
        let (finished, keys) = self.status(profile);
        let _ = finished.expect(0);
        assert_eq!(keys, [key]);
    }

    /// Checks that `status` with a profile fails with this error, and asks AWS nothing.
    pub fn fails(&self, profile: &str, code: i32, error: &str) {
        let (finished, keys) = self.status(profile);
        let finished = finished.expect(code);
        let shown: Vec<&str> = finished.stderr.lines().filter(|line| !line.starts_with("DEBUG")).collect();
        let shown = shown.join("\n");
        assert!(shown.contains(error.trim()), "{shown}\nbut not:\n{error}");
        assert_eq!(keys, [""; 0]);
    }
}

/// Fails if a secret of a test is printed.
pub fn without_secrets(finished: &Finished) {
    for secret in [SECRET, TOKEN, "canary"] {
        let shown = format!("{}{}", finished.stdout, finished.stderr);
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}

/// Returns the access keys of calls, each once.
pub fn keys(calls: &[Call]) -> Vec<String> {
    let key = |call: &Call| call.authorization.split("Credential=").nth(1)?.split('/').next().map(str::to_owned);
    let mut keys: Vec<String> = calls.iter().filter_map(key).collect();
    keys.dedup();
    keys
}
