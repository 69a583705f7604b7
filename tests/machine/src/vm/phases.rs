//! What a virtual machine's first boot spent its time on, as the machine itself remembers it.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Vm;

/// Shell: microseconds since the kernel's start at which something began or ended, one to a line.
const MOMENTS: &str = "
    unit() { systemctl show --value --property $2TimestampMonotonic $1; }
    systemctl show --value --property UserspaceTimestampMonotonic
    unit cloud-init-local ExecMainStart
    unit cloud-final ExecMainStart
    unit cloud-final ExecMainExit";

impl Vm {
    /// The phases of a first boot whose user-data was a script, from power on, each with its seconds: the kernel, systemd up to
    /// cloud-init, cloud-init up to user-data, the user-data.
    pub fn phases(&self) -> Result<Vec<(String, f64)>> {
        let moments = self.sh(MOMENTS)?;
        let moments: Vec<f64> = moments.lines().filter_map(|line| Some(line.parse::<f64>().ok()? / 1e6)).collect();
        let [kernel, cloud_init, user_data, end] = moments[..] else { anyhow::bail!("moments: {moments:?}") };
        let named = [
            ("kernel and initrd", 0.0, kernel),
            ("systemd, up to cloud-init", kernel, cloud_init),
            ("cloud-init, up to its last stage", cloud_init, user_data),
            ("the last stage: user-data", user_data, end),
        ];
        Ok(named.map(|(name, from, until)| (name.to_owned(), until - from)).into())
    }

    /// The agent's last run and each of its steps, with their seconds.
    pub fn steps_of_run(&self) -> Result<Vec<(String, f64)>> {
        let report: Value = serde_json::from_str(&self.agent(&["status", "--json"])?.success()?)?;
        let steps = report["steps"].as_array().context("steps")?;
        let steps = steps.iter().map(|step| {
            let name = step["name"].as_str().unwrap_or_default().to_owned();
            (name, step["milliseconds"].as_f64().unwrap_or_default() / 1e3)
        });
        let all = report["milliseconds"].as_f64().unwrap_or_default() / 1e3;
        Ok(std::iter::once(("the agent's run, of which:".to_owned(), all)).chain(steps).collect())
    }
}
