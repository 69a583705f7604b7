//! Another user of the machine, who exchanges files while the program works on them.

use std::process::{Child, Command, Stdio};

/// A process of an unprivileged user that repeats a line of shell until it is dropped, or its test is killed.
pub struct Racer(Child);

impl Racer {
    pub fn start(script: &str) -> Self {
        let script = format!("while :; do {script}; done 2>/dev/null");
        let user = ["--reuid=65534", "--regid=65534", "--clear-groups", "--pdeathsig=KILL", "sh", "-c", &script];
        Self(Command::new("setpriv").args(user).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}
