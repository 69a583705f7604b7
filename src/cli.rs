//! The command line: types only.

#![expect(missing_docs, reason = "a flattened group is documented by its type")]

mod deploy;
mod image;

use std::{ffi::OsString, path::PathBuf};

use clap::{
    Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, Resettable},
};
use clap_complete::Shell;

pub use self::{
    deploy::{DeployArguments, DeployVerb, RollbackArguments},
    image::{FirstBootVerb, Seal},
};
use crate::{
    aws::instance_object::InstanceObjects, environment, notify::verdict, resource::KINDS, system::Phase, value::Span,
    view::Colour,
};

/// Turns a fresh EC2 machine into a serving one: declared steps, each checked first and changed only where it differs.
#[derive(Debug, Parser)]
#[command(name = "glovo-bootstrap", version, max_term_width = 100, infer_subcommands = false)]
#[command(
    after_help = "Exit codes: 0 converged, 1 a step failed, 2 usage or invalid manifest, 3 plan --detailed-exitcode: changes \
pending, 4 another run holds the machine, 75 a temporary failure outlasted the retries, 77 deploy: no AWS credentials, 128+n \
ended by signal n.\n\n\
GLOVO_BOOTSTRAP_TRUST_METADATA=1 in the environment: use the instance metadata service even if the machine's firmware \
does not say that it is an EC2 instance."
)]
pub struct Cli {
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// The arguments of every subcommand.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Log details to standard error.
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// When output has colours. auto: on a terminal, unless the environment says `NO_COLOR` or `TERM=dumb`.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    pub color: Colour,
}

impl Cli {
    /// Reads the command line of this process.
    ///
    /// # Errors
    /// If it is invalid; also for `--help` and `--version`.
    pub fn read() -> Result<Self, clap::Error> {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        if let Some(run) = Self::read_run(&arguments) {
            return Ok(run);
        }
        let mut program = Self::with_all_flags();
        let arguments = deploy::verb_first(arguments, &program);
        // This parser refuses flags of other verbs. The other one reads the values of all verbs.
        if deploy::is_shown(&arguments, &program) {
            _ = Self::command_line().try_get_matches_from(&arguments)?;
        }
        let matches = program.try_get_matches_from_mut(arguments)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut program))
    }

    /// Reads a command line of `run`, without making the flags of all other subcommands: these took a third of the
    /// instructions of a run that has nothing to do. `None` if it is another one, or one that has a fault or asks for help.
    fn read_run(arguments: &[OsString]) -> Option<Self> {
        if !arguments.iter().any(|argument| argument == "run") {
            return None;
        }
        let RunLine { output, command: RunAlone::Run(run) } = RunLine::try_parse_from(arguments).ok()?;
        Some(Self { output, command: Command::Run(run) })
    }

    /// Returns the command line as help, completions and manual pages show it.
    pub fn command_line() -> clap::Command {
        Self::with_all_flags().mut_subcommand("deploy", |deploy| deploy::with_verbs(&deploy))
    }

    /// Returns the command line with all flags of `deploy` for each of its verbs. An empty environment variable is the
    /// same as none, as with `${NAME:-default}` in the script that `deploy` replaces.
    fn with_all_flags() -> clap::Command {
        let is_empty = |arg: &Arg| {
            arg.get_env().and_then(|name| environment::even_empty(name.to_str()?)).is_some_and(|value| value.is_empty())
        };
        let without_empty = |arg: Arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg };
        Self::command().mut_subcommand("deploy", |deploy| deploy::with_strategies(deploy.mut_args(without_empty)))
    }
}

/// A command line of `run`.
#[derive(Parser)]
struct RunLine {
    #[command(flatten)]
    output: OutputArgs,
    #[command(subcommand)]
    command: RunAlone,
}

#[derive(Subcommand)]
enum RunAlone {
    Run(RunArguments),
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the steps: check every resource, change what differs.
    Run(RunArguments),
    /// Prepare an image: make every change that does not need its boot.
    ///
    /// The same as `run --phase bake`; with --seal, it then removes this machine's data and searches for credentials.
    Bake {
        #[command(flatten)]
        selection: SelectionArgs,
        #[command(flatten)]
        manifest: ManifestArgs,
        #[command(flatten)]
        target: TargetArgs,
        #[command(flatten)]
        seal: Seal,
    },
    /// Show what a run would change, with diffs; change nothing.
    Plan(PlanArguments),
    /// Check a manifest without examining the machine: print every fault with its place.
    Validate {
        #[command(flatten)]
        manifest: ManifestArgs,
    },
    /// List, show or export the steps, or read about the kinds of resources.
    #[command(subcommand)]
    Steps(Steps),
    /// Show how the last run ended, step by step.
    Status(Status),
    /// Download files in parallel: https, http, s3 and file URLs.
    ///
    /// Each file appears complete, or not at all. If its sha256 is given, it is verified first. A file of the same name
    /// is replaced at the end of the download. Needs no root, and changes nothing but the files.
    Fetch(Fetch),
    /// Print user-data: a script with which a new machine downloads this program, checks it, and runs the steps.
    UserData(UserData),
    /// Print the JSON Schema of step files and of manifests in one file, for editors.
    Schema,
    /// Put units, manual pages and completions in place for a program that user-data has put into /usr/local/bin.
    ///
    /// What a package brings, below /usr/local. With --steps it also records that manifest and its variables for runs
    /// without arguments, as user-data does. A second time it changes nothing. `uninstall` takes it all away.
    Install {
        #[command(flatten)]
        manifest: ManifestArgs,
    },
    /// Remove what `install` has put in place, and nothing else.
    Uninstall,
    /// Do what cloud-init does at an instance's first boot. The units of an image call it: see `bake --first-boot`.
    #[command(subcommand)]
    FirstBoot(FirstBootVerb),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    Deploy(Box<DeployArguments>),
}

/// The arguments of `fetch`.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 all files complete, 1 a download failed (or a URL was invalid, and nothing was \
downloaded), 2 usage, 128+n ended by signal n.")]
pub struct Fetch {
    /// Source: `https://…`, `http://…`, `s3://bucket/key` (optionally `?versionId=…`), `file:///absolute/path`.
    ///
    /// A file gets the name that its URL ends in, with %xx decoded in https and http. If several end in the same
    /// name, only the last one is downloaded. #sha256=HEX at the end pins a file.
    #[arg(value_name = "URL", required_unless_present_any = ["urls", "input"])]
    pub named: Vec<String>,
    /// Source, like URL; may be repeated. These come before the URLs without -u.
    #[arg(long = "url", short, value_name = "URL", num_args = 1..)]
    pub urls: Vec<String>,
    /// Read URLs from a file, or `-` for standard input: one per line, each optionally followed by a space and
    /// sha256=HEX. Empty lines and lines that begin with # are skipped. These URLs come after those of the command
    /// line.
    #[arg(long, short, value_name = "FILE")]
    pub input: Option<String>,
    /// Directory for the files; created if it does not exist. Default: the current directory.
    #[arg(long, short, value_name = "DIR", default_value = ".", hide_default_value = true)]
    pub output_dir: PathBuf,
    /// SHA-256 that a file must have: HEX alone for a single file, else NAME=HEX with the file's name; may be repeated.
    ///
    /// Other bytes never replace a file. A file that already has this digest is not downloaded again.
    #[arg(long, value_name = "[NAME=]HEX")]
    pub sha256: Vec<String>,
    /// Most downloads at once. Default: chosen by the program.
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub jobs: Option<u16>,
    /// Deadline of the whole command, such as 30s or 10m. A download that is not complete by then fails; the next try
    /// resumes it. Default: none, as long as bytes arrive.
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,
    /// Profile in ~/.aws/config and ~/.aws/credentials whose credentials and region are used for s3. Default: the usual
    /// chain of environment, `AWS_PROFILE` or the profile `default`, and instance role.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Download everything below an s3 URL that ends in a slash, in subdirectories as in the keys.
    #[arg(long, short)]
    pub recursive: bool,
    /// Print the result as one JSON document: `files` with source, path, status (fetched, `already_there`, skipped,
    /// failed), size, sha256, seconds, resumed and error.
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    pub manifest: ManifestArgs,
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub purpose: Purpose,
    #[command(flatten)]
    pub signal: Signal,
    /// Record the values of --steps, --set and --variables for runs without these arguments, as user-data does. The
    /// unit's runs at boot have none.
    #[arg(long, conflicts_with = "root")]
    pub record: bool,
    /// Run the steps again at each boot and every hour: record as --record does, put the units in place as `install`
    /// does, and enable glovo-bootstrap.service and glovo-bootstrap-converge.timer.
    ///
    /// This comes before the first step. If the run then fails for the time being (exit code 75), the boot's unit
    /// tries again. These later runs do not signal.
    #[arg(long, conflicts_with_all = ["root", "phase"])]
    pub converge: bool,
}

/// The arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArguments {
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    pub manifest: ManifestArgs,
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub purpose: Purpose,
    /// Exit with 3 if changes are pending.
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// Print the plan as JSON.
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `status`.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Wait until the current run has ended.
    #[arg(long, conflicts_with_all = ["list", "run"])]
    pub wait: bool,
    /// List the earlier runs that changed something or did not succeed: the first run of the machine and the newest
    /// ones. The last run is in the list if it is one of them.
    #[arg(long, conflicts_with_all = ["run", "timeline"])]
    pub list: bool,
    /// Show an earlier run of the list instead of the last one.
    #[arg(long, value_name = "ID")]
    pub run: Option<String>,
    /// Draw the run and the boot before it: where the time went, and what ran side by side. Writes FILE, which ends in
    /// `.svg` or `.html`; `-` prints the SVG.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub timeline: Option<String>,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `user-data`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: glovo-bootstrap user-data s3://my-bucket/glovo-bootstrap --agent ./glovo-bootstrap -- --set jar_url=…"
)]
pub struct UserData {
    /// URL of this program: `s3://bucket/key` (optionally `?versionId=…`), downloaded with the instance's role, or
    /// `https://…`; pinned by #sha256=HEX at its end.
    #[arg(value_name = "URL", required_unless_present = "baked", conflicts_with = "baked")]
    pub url: Option<String>,
    /// Pin the digest of this file: a copy of the program on this machine.
    #[arg(long, value_name = "FILE", requires = "url")]
    pub agent: Option<String>,
    /// The image already holds the program.
    #[arg(long)]
    pub baked: bool,
    /// Format: a shell script, or the same as #cloud-config, to be merged with other configuration.
    #[arg(long, value_enum, default_value = "script")]
    pub format: UserDataFormat,
    /// Arguments of `run` on the machine.
    #[arg(last = true, value_name = "RUN ARGUMENTS")]
    pub run: Vec<String>,
}

/// The format of user-data.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum UserDataFormat {
    /// A shell script.
    Script,
    /// `#cloud-config`.
    CloudConfig,
}

impl Command {
    /// Returns whether this is a run of user-data, which no user watches.
    pub fn is_unattended(&self) -> bool {
        matches!(self, Self::Run(run) if run.record || run.converge || run.signal.signal.is_some())
    }
}

/// The arguments that select steps.
#[derive(Debug, Args)]
pub struct SelectionArgs {
    /// Only these steps, in their declared order.
    #[arg(value_name = "STEP")]
    pub only: Vec<String>,
    /// This step and those after it.
    #[arg(long, value_name = "STEP")]
    pub from: Option<String>,
    /// Leave out this step; may be repeated.
    #[arg(long, value_name = "STEP")]
    pub skip: Vec<String>,
}

/// The arguments that name the manifest and its variables.
#[derive(Debug, Clone, Default, Args)]
pub struct ManifestArgs {
    /// A directory of step files, a file, `-`, a URL with #sha256=HEX, or `built-in`. Default:
    /// /etc/glovo-bootstrap/steps if it exists, else the steps that this machine's user-data named, else the built-in
    /// steps.
    #[arg(long, value_name = "PATH", env = environment::STEPS)]
    pub steps: Option<String>,
    /// Set a variable; may be repeated. (Keep secrets in a file instead: other users can see a process's arguments. The
    /// arguments of user-data are recorded, readable by root only.)
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Set a variable to the content of a file, without one newline at its end; may be repeated. `-` is standard
    /// input. The value is never shown and not recorded.
    #[arg(long, value_name = "NAME=FILE")]
    pub set_secret_file: Vec<String>,
    /// Read variables from a TOML file: a path, `s3://bucket/key` (optionally `?versionId=…`), or an https URL with
    /// #sha256=HEX. `ssm:///path/` reads the parameters below a path of Parameter Store instead. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub variables: Vec<String>,
    /// Whether `variables` lacks a source that cannot be read here.
    #[arg(skip)]
    pub lacks_variables: bool,
}

impl ManifestArgs {
    /// Returns whether they give a variable.
    pub fn has_variables(&self) -> bool {
        !(self.set.is_empty() && self.set_secret_file.is_empty() && self.variables.is_empty())
    }
}

/// The arguments that name the machine.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Work on an image's tree instead of this machine: nothing is started, and changes that need the boot are
    /// deferred.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// The arguments that say whether a run makes an image or a serving machine.
#[derive(Debug, Args)]
pub struct Purpose {
    /// Result of the run: an image (bake), or a machine that serves (boot). Default: boot; with --root bake.
    #[arg(long, value_enum)]
    pub phase: Option<Phase>,
}

/// The arguments that name the receivers of the outcome.
#[derive(Debug, Args)]
pub struct Signal {
    /// Send the run's outcome to CloudFormation, to this resource of this stack (its name or id): SUCCESS when all
    /// steps have converged, FAILURE at once when a step fails or the run ends in any other way.
    ///
    /// The run is then a process of its own; this process returns its exit code. Only for a whole run on this machine:
    /// a part of the steps does not prove that the machine serves.
    #[arg(long, value_name = "STACK/RESOURCE", conflicts_with_all = ["only", "from", "skip", "root", "phase"])]
    pub signal: Option<verdict::SignalTarget>,
    /// Deadline of the run. After it, the run is stopped and FAILURE is signalled. Must be less than the stack's
    /// timeout.
    #[arg(long, value_name = "TIME", requires = "signal", default_value = "14m")]
    pub signal_within: Span,
    /// Also complete this launching lifecycle hook of the instance's Auto Scaling group, with the instance's role:
    /// CONTINUE before SUCCESS, ABANDON after FAILURE. A machine that enters a warm pool starts no services first, and
    /// completes the hook again when it leaves the pool.
    #[arg(long, value_name = "GROUP/HOOK", requires = "signal")]
    pub lifecycle_hook: Option<verdict::Hook>,
    /// Upload how each whole run ended, and the block of a failure before FAILURE is signalled, with the instance's role.
    /// --record and --converge record it for later runs. The object's key is this prefix, a slash and the instance's ARN.
    /// The role needs s3:PutObject on `BUCKET/PREFIX/${ec2:SourceInstanceARN}`.
    #[arg(long, value_name = "s3://BUCKET/PREFIX", conflicts_with_all = ["root", "phase"])]
    pub failures: Option<InstanceObjects>,
}

/// A subcommand of `steps`.
#[derive(Debug, Subcommand)]
pub enum Steps {
    /// List the steps of a manifest.
    List {
        #[command(flatten)]
        manifest: ManifestArgs,
    },
    /// Print the text of a step.
    Show {
        /// Name of the step.
        step: String,
        #[command(flatten)]
        manifest: ManifestArgs,
    },
    /// Write steps for a service of your own to a directory: a small web service that works, to be edited.
    New {
        /// A directory; made if it is missing, and must be empty.
        directory: PathBuf,
    },
    /// Write the built-in steps to a directory, to be edited.
    Export {
        /// A directory without step files; created if it does not exist.
        directory: PathBuf,
    },
    /// Print the reference manual of the kinds of resources.
    Kinds {
        /// Only this kind.
        #[arg(value_parser = PossibleValuesParser::new(KINDS.iter().map(|kind| kind.name)))]
        kind: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::with_all_flags().debug_assert();
        Cli::command_line().debug_assert();
    }

    #[test]
    fn a_run_is_read_alone_as_among_all_subcommands() {
        for line in [
            "run",
            "-v run a b --skip c --set d=e --set f=g --variables h --root /i --phase bake --color never",
            "--color always run --signal stack/resource --signal-within 5m --lifecycle-hook group/hook --record -v",
            "run --from plan --steps s --set-secret-file k=v --converge",
            "run -- --help",
        ] {
            let words: Vec<OsString> = ["glovo-bootstrap"].into_iter().chain(line.split(' ')).map(Into::into).collect();
            let alone = Cli::read_run(&words).unwrap_or_else(|| panic!("{line}"));
            let among_all = Cli::try_parse_from(words).unwrap();
            assert_eq!(format!("{alone:?}"), format!("{among_all:?}"), "{line}");
        }
        for line in
            ["plan", "fetch run", "run --help", "run --record --root /r", "run --nonsense", "help run", "-V run"]
        {
            let words: Vec<OsString> = ["glovo-bootstrap"].into_iter().chain(line.split(' ')).map(Into::into).collect();
            assert!(Cli::read_run(&words).is_none(), "{line}");
        }
    }
}
