//! The command line of `deploy`: each verb is a subcommand, with the flags that have a meaning for it.

use std::{ffi::OsString, path::PathBuf};

use clap::{Arg, Args, Command, Subcommand, ValueEnum};

use crate::{
    deploy::{settings::DeploySettings, shape},
    value::Span,
};

const EXIT_CODES: &str = "\
Exit codes: 0 success (status: every serving target is healthy and runs one build), 1 failure, 2 invalid, nothing was \
changed, 3 drift was found, 4 another operation is running on the stack, 75 AWS cannot be reached, 77 log in to AWS \
first, 128+n after signal n; CloudFormation continues.";

/// Create, update and watch a stack of AWS CloudFormation; prove that it serves. For the operator's machine.
///
/// Each setting comes from the first of these that has it: flag, environment variable, deploy.toml, the stack, the default.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: SG_VALUE=sg-1 SUBNETS=subnet-1,subnet-2 BUILD_NUMBER=3 glovo-bootstrap deploy update-stack\n\n\
`deploy -t VERB`, as glovo-app-cf.sh has it, is the same as `deploy VERB`."
)]
pub struct DeployArguments {
    /// What to do.
    #[arg(value_enum)]
    pub verb: DeployVerb,
    /// Settings file. Default: deploy.toml in the current directory, if it exists.
    #[arg(long, value_name = "FILE")]
    pub settings_file: Option<PathBuf>,
    /// Answer yes to every question.
    #[arg(long, short)]
    pub yes: bool,
    /// Print one JSON document per line.
    #[arg(long)]
    pub json: bool,
    /// Time between two questions to AWS.
    #[arg(long, value_name = "TIME", default_value = "3s")]
    pub poll: Span,
    #[command(flatten)]
    pub way_back: RollbackArguments,
    /// Directory for the template and the user-data.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub output_dir: PathBuf,
    #[command(flatten)]
    pub settings: DeploySettings,
}

/// How `rollback` returns the traffic.
#[derive(Debug, Args)]
pub struct RollbackArguments {
    /// Build to return to: one of the two that `status` shows, by its `BUILD_NUMBER`. Default: the older one.
    #[arg(long, value_name = "N")]
    pub build: Option<u64>,
    /// Move all traffic at once, however few machines the previous build has.
    #[arg(long)]
    pub now: bool,
    /// Do not ask the previous build before it receives traffic again.
    #[arg(long)]
    pub no_probe: bool,
}

/// What to do with a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Subcommand)]
pub enum DeployVerb {
    /// Create the stack with the first build.
    CreateStack,
    /// Deploy a new build and move the traffic to it.
    UpdateStack,
    /// Show what create-stack or update-stack would change; change nothing.
    Plan,
    /// Follow the running operation until it ends.
    Watch,
    /// Show which build serves, on which machines.
    Status,
    /// Return traffic to the previous build.
    Rollback,
    /// Let the groups shrink that an interrupted deploy keeps from it; move no traffic.
    Release,
    /// Show the stack's state, what it means and the next safe command.
    Diagnose,
    /// Show where the stack differs from its template.
    Drift,
    /// Show the operations that the stack has been through.
    History,
    /// Write the template and the user-data to files; ask AWS nothing.
    Render,
    /// Delete the stack and everything in it.
    DeleteStack,
}

/// Flags of every verb, by their fields.
const COMMON: &[&str] = &["stack", "settings_file", "strategy"];
/// Flags of every verb that asks AWS.
const AWS: &[&str] = &["profile", "region", "json"];
/// What the machines run.
const CONTENT: &[&str] = &[
    "bucket",
    "bucket_owner",
    "service_role",
    "tag",
    "termination_protection",
    "prefix",
    "agent",
    "baked",
    "steps",
    "set",
    "variables",
    "converge",
    "file",
    "cloud_init_path",
];
/// The stack and its machines.
const STACK: &[&str] = &[
    "build_number",
    "ami",
    "instance_type",
    "key_pair",
    "subnets",
    "security_groups",
    "min_size",
    "desired_capacity",
    "max_size",
    "certificate",
    "dns_record",
    "parameter",
];
/// How the traffic moves.
const TRAFFIC: &[&str] = &[
    "shift",
    "pause",
    "watch",
    "alarm",
    "probe",
    "probe_status",
    "build_field",
    "probe_command",
    "probe_time",
    "keep_for",
    "health_timeout",
    "patience",
];

impl DeployVerb {
    /// Returns the flags that have a meaning for it, in groups with their headings.
    fn flags(self) -> Vec<(&'static [&'static str], Option<&'static str>)> {
        let everything =
            [(CONTENT, Some("What the machines run")), (STACK, Some("The stack")), (TRAFFIC, Some("Traffic"))];
        let own: &'static [&'static str] = match self {
            Self::CreateStack | Self::UpdateStack | Self::DeleteStack => &["yes", "poll"],
            Self::Plan | Self::Drift => &["poll"],
            Self::Watch => &["poll", "health_timeout"],
            Self::Rollback => &[
                "build",
                "now",
                "no_probe",
                "yes",
                "poll",
                "pause",
                "health_timeout",
                "patience",
                "probe",
                "probe_status",
                "build_field",
            ],
            Self::Render => &["output_dir"],
            Self::Release => &["min_size", "patience"],
            Self::Status => &["probe", "probe_status", "build_field"],
            Self::Diagnose | Self::History => &[],
        };
        let mut flags = vec![(own, None), (COMMON, None)];
        match self {
            Self::CreateStack | Self::UpdateStack | Self::Plan => {
                flags.push((AWS, None));
                flags.extend(everything);
            }
            Self::Render => flags.push(everything[0]),
            _ => flags.push((AWS, None)),
        }
        flags
    }

    /// Adds its flags to its subcommand of `deploy`; `all` are the flags of all verbs.
    fn add_flags(self, deploy: Command, all: &[Arg]) -> Command {
        let Some(name) = self.to_possible_value() else { return deploy };
        deploy.mut_subcommand(name.get_name(), |mut verb| {
            for (flags, heading) in self.flags() {
                let flags = flags.iter().filter_map(|flag| all.iter().find(|argument| argument.get_id() == flag));
                verb = verb.args(flags.map(|flag| flag.clone().help_heading(heading)));
            }
            verb.after_help(EXIT_CODES)
        })
    }
}

/// Returns the command `deploy` with the strategies that there are.
pub(super) fn with_strategies(deploy: Command) -> Command {
    deploy.mut_arg("strategy", |argument| argument.value_parser(shape::strategies()))
}

/// Returns the command `deploy` with a subcommand for each verb in place of all flags at once.
pub(super) fn with_verbs(deploy: &Command) -> Command {
    let all: Vec<Arg> = deploy.get_arguments().cloned().collect();
    let command = Command::default().name("deploy").subcommand_required(true).subcommand_value_name("VERB");
    let command = DeployVerb::augment_subcommands(command);
    let verbs = DeployVerb::value_variants().iter();
    let command = verbs.fold(command, |command, verb| verb.add_flags(command, &all));
    let command = command.about(deploy.get_about().cloned().unwrap_or_default());
    let command = command.long_about(deploy.get_long_about().cloned().unwrap_or_default());
    command.after_help(deploy.get_after_help().cloned().unwrap_or_default())
}

/// Moves the verb of `deploy` to the front: `deploy -t VERB` and `deploy --stack NAME VERB` become `deploy VERB …`.
pub(super) fn verb_first(mut arguments: Vec<OsString>, program: &Command) -> Vec<OsString> {
    let Some(deploy) = program.find_subcommand("deploy") else { return arguments };
    let flags: Vec<&Arg> = program.get_arguments().chain(deploy.get_arguments()).collect();
    let Some(at) = skip_flags(&arguments, 1, &flags).filter(|at| arguments[*at] == "deploy") else { return arguments };
    let mut index = at + 1;
    while let Some(argument) = arguments.get(index) {
        let text = argument.to_string_lossy();
        let attached = text.strip_prefix("--task=").or_else(|| text.strip_prefix("-t"));
        if ["-t", "--task"].contains(&text.as_ref()) && index + 1 < arguments.len() {
            _ = arguments.remove(index);
        } else if let Some(verb) = attached.filter(|verb| !verb.is_empty()) {
            arguments[index] = verb.trim_start_matches('=').into();
        } else if skip_flags(&arguments, index, &flags) != Some(index) {
            index += length_of_flag(&text, &flags);
            continue;
        }
        let verb = arguments.remove(index);
        arguments.insert(at + 1, verb);
        break;
    }
    arguments
}

/// Returns whether a command line is of `deploy`, or asks for a command's help: `deploy`'s shows its verbs.
pub(super) fn is_shown(arguments: &[OsString], program: &Command) -> bool {
    let flags: Vec<&Arg> = program.get_arguments().collect();
    skip_flags(arguments, 1, &flags).is_some_and(|at| arguments[at] == "deploy" || arguments[at] == "help")
}

/// Returns the index of the first argument that is neither a flag nor a flag's value.
fn skip_flags(arguments: &[OsString], from: usize, flags: &[&Arg]) -> Option<usize> {
    let mut index = from;
    while let Some(argument) = arguments.get(index) {
        match argument.to_string_lossy().as_ref() {
            "--" => return None,
            flag if flag.len() > 1 && flag.starts_with('-') => index += length_of_flag(flag, flags),
            _ => return Some(index),
        }
    }
    None
}

/// Returns the number of arguments that a flag takes, itself included.
fn length_of_flag(text: &str, flags: &[&Arg]) -> usize {
    let takes_value = |flag: &Arg| flag.get_action().takes_values();
    if let Some(name) = text.strip_prefix("--") {
        let is_it = |flag: &&&Arg| flag.get_long() == Some(name);
        return 1 + usize::from(flags.iter().find(is_it).is_some_and(|flag| takes_value(flag)));
    }
    // Of several short flags in one argument only the last one can have its value in the next argument.
    let mut letters = text.chars().skip(1);
    let is_valued = |letter: &char| flags.iter().any(|flag| flag.get_short() == Some(*letter) && takes_value(flag));
    let valued = letters.by_ref().find(is_valued);
    1 + usize::from(valued.is_some() && letters.next().is_none())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_verb_may_stand_anywhere() {
        for (given, wanted) in [
            ("deploy -t plan --stack a", "deploy plan --stack a"),
            ("deploy --stack a --task plan", "deploy plan --stack a"),
            ("deploy --task=plan", "deploy plan"),
            ("deploy -tplan", "deploy plan"),
            ("-v --color never deploy -y --stack=a plan -s b", "-v --color never deploy plan -y --stack=a -s b"),
            ("deploy -ys a update-stack", "deploy update-stack -ys a"),
            ("deploy plan -t status", "deploy plan -t status"),
            ("deploy --yes", "deploy --yes"),
            ("deploy -t", "deploy -t"),
            ("steps show -t deploy", "steps show -t deploy"),
        ] {
            let words = |text: &str| ["glovo-bootstrap"].into_iter().chain(text.split(' ')).map(Into::into).collect();
            let wanted: Vec<OsString> = words(wanted);
            assert_eq!(verb_first(words(given), &Cli::command()), wanted, "{given}");
        }
    }

    #[test]
    fn only_deploy_and_help_need_the_verbs() {
        for (line, wanted) in [
            ("-v deploy plan", true),
            ("help deploy", true),
            ("--help", false),
            ("--color never", false),
            ("run deploy", false),
            ("--color never plan", false),
        ] {
            let arguments: Vec<OsString> =
                ["glovo-bootstrap"].into_iter().chain(line.split(' ')).map(Into::into).collect();
            assert_eq!(is_shown(&arguments, &Cli::command()), wanted, "{line}");
        }
    }

    #[test]
    fn every_flag_belongs_to_a_verb() {
        let program = Cli::command();
        let arguments = program.find_subcommand("deploy").unwrap().get_arguments();
        let known: BTreeSet<String> = arguments.map(|flag| flag.get_id().to_string()).collect();
        let verbs = DeployVerb::value_variants().iter().flat_map(|verb| verb.flags());
        let mut used: BTreeSet<String> =
            verbs.flat_map(|(flags, _)| flags.iter().copied()).map(str::to_owned).collect();
        _ = used.insert("verb".into());
        assert_eq!(known, used);
    }
}
