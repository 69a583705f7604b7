//! Has a command on the operator's machine check a new build before it receives any traffic.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Health;
use crate::{
    deploy::{
        Deploy, cause,
        layout::Slot,
        parameters::{Output, SlotParameter},
        slots::{Slots, active},
        stack::Stack,
    },
    error::{self, Class, Fault},
    host::command::{Program, describe, with_tail},
    value::{quoted, spoken},
};

/// How long the command may run, by default.
const DEFAULT_TIME: Duration = Duration::from_mins(5);

/// The variables of its environment: the application's URL without a slash at its end, the host to connect to instead of the
/// URL's, a header that leads to the slot, and the number of the build. If there is no other host or no header, it is empty.
const VARIABLES: [&str; 4] = [
    "GLOVO_BOOTSTRAP_PROBE_URL",
    "GLOVO_BOOTSTRAP_PROBE_CONNECT_TO",
    "GLOVO_BOOTSTRAP_PROBE_HEADER",
    "GLOVO_BOOTSTRAP_PROBE_BUILD",
];

impl Deploy {
    /// Has the command check the machines of a slot without traffic.
    pub(super) fn command_at_idle(&self, slots: &Slots, slot: Slot) -> Result<Health> {
        let Some(stack) = slots.stack(slot) else { return Ok(Health::Well) };
        let connect_to = stack.outputs.get(Output::BalancerDns.name()).map_or("", String::as_str);
        let header = self.shape().probe_header(slots, slot);
        let header = header.map_or_else(String::new, |(name, value)| format!("{name}: {value}"));
        self.run_probe_command(stack, slots, slot, [connect_to, &header])
    }

    /// Has the command check the application at its public URL, where no slot was idle before: after the first build of a stack,
    /// or a change of a stack in place.
    ///
    /// # Errors
    /// If the command fails.
    pub(in crate::deploy) fn command_at_public(&self) -> Result<()> {
        if self.settings.probe_command()?.is_none() {
            return Ok(());
        }
        let slots = Slots::get(self)?;
        let serving = active(self.shape().shares(&self.system, &slots)?).unwrap_or(Slot::Blue);
        let Some(stack) = slots.stack(serving) else { return Ok(()) };
        match self.run_probe_command(stack, &slots, serving, ["", ""])? {
            Health::Well => Ok(()),
            Health::Sick(fault) => Err(fault.hint(self.command("status")).into()),
        }
    }

    /// Returns how long the command may run.
    pub(super) fn command_time(&self) -> Duration {
        self.settings.probe_time.map_or(DEFAULT_TIME, |time| time.0)
    }

    /// Runs the command once. Only an exit code of 0 is a success.
    fn run_probe_command(&self, stack: &Stack, slots: &Slots, slot: Slot, to: [&str; 2]) -> Result<Health> {
        let Some(words) = self.settings.probe_command()? else { return Ok(Health::Well) };
        let limit = self.command_time();
        let shown = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        let here = slots.described(slot);
        self.say(&format!("{here}: running the probe command {shown}, for at most {}", spoken(limit)));
        let url = stack.output(Output::Url)?.trim_end_matches('/');
        let values = [url, to[0], to[1], slots.parameter(slot, SlotParameter::Build)];
        let program =
            VARIABLES.iter().zip(values).fold(Program::new(words), |program, (name, value)| program.env(*name, value));
        let (host, began) = (&self.system.host, Instant::now());
        let what = format!("the probe command {shown}");
        let ended = host.stop.deadlines.within(Some(limit), &what, || host.run(&program.of_operator()));
        Ok(match ended {
            Ok(ended) if ended.status.success() => {
                self.say(&format!("{here}: the probe command passed in {}", spoken(began.elapsed())));
                Health::Well
            }
            Ok(ended) => {
                let failed = format!("{what} failed with {}", describe(ended.status));
                Health::Sick(Fault::new(with_tail(failed, &ended.tail)))
            }
            Err(error) if matches!(error::class(&error), Class::Interrupted(_)) => return Err(error),
            // It could not be started, or its time is over: that is no failure of AWS, which may pass.
            Err(error) => {
                let fault = Fault::new(format!("{what} did not pass"));
                Health::Sick(match cause::chain(error.chain().map(ToString::to_string)) {
                    Some(cause) => fault.caused_by(cause),
                    None => fault,
                })
            }
        })
    }
}
