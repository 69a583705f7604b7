//! Manual pages and the shells' completions, made from the types of the command line. The packages carry them, and
//! `install` writes them.

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{cli::Cli, resource::KINDS};

const NAME: &str = "glovo-bootstrap";
/// What completes names of steps, which only the machine knows: the generated scripts know options and fixed values.
const STEPS_IN_BASH: &str = include_str!("manual/steps.bash");
const STEPS_IN_ZSH: &str = include_str!("manual/steps.zsh");
const STEPS_IN_FISH: &str = include_str!("manual/steps.fish");

/// The manual pages of the program and its subcommands: their files' names and their bytes.
///
/// # Errors
/// If one can't be rendered.
pub fn pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut command = Cli::command_line().disable_help_subcommand(true);
    command.build();
    let mut pages = vec![];
    add(&command, &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        add(subcommand, pages)?;
    }
    let man = Man::new(command.clone());
    let mut page = vec![];
    man.render(&mut page).with_context(|| format!("rendering {}", man.get_filename()))?;
    pages.push((man.get_filename(), page));
    Ok(())
}

/// A shell's completion script. In bash, zsh and fish it asks the program for the names of the steps.
pub fn completions(shell: Shell) -> String {
    let mut script = vec![];
    clap_complete::generate(shell, &mut Cli::command_line(), NAME, &mut script);
    let script = String::from_utf8_lossy(&script);
    match shell {
        // clap_complete 4.6 writes a name that holds a hyphen in two ways, so that no subcommand's branch is reached.
        Shell::Bash => script.replace("glovo__subcmd__bootstrap", "glovo__bootstrap") + STEPS_IN_BASH,
        Shell::Zsh => {
            let is_of_steps = |line: &str| {
                line.contains(":STEP:_default'") || line.contains(":only -- ") || line.contains(":step -- ")
            };
            let complete_steps = |line: &str| match line {
                line if is_of_steps(line) => line.replace("_default'", "_glovo_bootstrap_steps'"),
                line => line.to_owned(),
            };
            // Before the script's last lines, which run it.
            let script = script.lines().map(complete_steps).collect::<Vec<_>>().join("\n") + "\n";
            match script.rfind("\nif [ \"$funcstack[1]\"") {
                Some(end) => format!("{}\n{STEPS_IN_ZSH}{}", &script[..end], &script[end..]),
                None => script,
            }
        }
        Shell::Fish => {
            let kinds: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
            let condition = "__fish_glovo_bootstrap_using_subcommand steps; and __fish_seen_subcommand_from kinds";
            let kinds = format!("complete -c {NAME} -n \"{condition}\" -f -a \"{}\"\n", kinds.join(" "));
            script.into_owned() + STEPS_IN_FISH + &kinds
        }
        _ => script.into_owned(),
    }
}
