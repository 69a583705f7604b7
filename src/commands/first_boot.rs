//! `first-boot`: what the units of an image do that was baked with `--first-boot agent`.

use std::path::Path;

use anyhow::Result;

use crate::{
    cli::FirstBootVerb,
    error::{self, Fault},
    first_boot::{self, image},
    host::console,
    redaction,
    system::Mode,
    user_data,
    view::{complain_of, say},
    visible,
};

pub(super) fn execute(verb: FirstBootVerb) -> Result<u8> {
    let system = super::open(Path::new("/"), Mode::Run, None)?;
    if !image::is_prepared(&system.host)? {
        let fault = Fault::new("the image of this machine was not baked with --first-boot agent");
        return Err(fault.hint("glovo-bootstrap bake --seal --first-boot agent").invalid().into());
    }
    let tell = |change: &str| say(format!("- {change}"));
    let made = match verb {
        FirstBootVerb::SetUp { login_user, kept } => {
            let faults = first_boot::set_up(&system, &login_user, kept, &tell);
            faults.iter().for_each(show_on_console);
            faults.iter().for_each(complain_of);
            return Ok(u8::from(!faults.is_empty()));
        }
        FirstBootVerb::HostKeys => first_boot::make_host_keys(&system, &tell),
        FirstBootVerb::Growth => first_boot::grow(&system, &tell),
        FirstBootVerb::UserData => first_boot::prepare_user_data(&system, user_data::own_script, &tell),
    };
    made.inspect_err(show_on_console).map(|()| 0)
}

/// Prints an error in one line on the console, where it can be read without a login. `deploy` finds it there, too.
fn show_on_console(error: &anyhow::Error) {
    let next = error::hint(error).map(|hint| format!("; next: {hint}")).unwrap_or_default();
    let line = redaction::shown(&format!("glovo-bootstrap: first boot: {error:#}{next}")).into_owned();
    console::print(&format!("\n{}\n", visible::line(&line)));
}
