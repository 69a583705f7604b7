//! The command line: types only.

#![expect(missing_docs, reason = "a flattened group is documented by its type")]

mod deploy;

use std::path::PathBuf;

use clap::{
    Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, Resettable},
};
use clap_complete::Shell;

pub use self::deploy::{DeployArguments, DeployVerb};
use crate::{
    environment,
    image::seal::OnRequest,
    notify::verdict,
    resource::KINDS,
    system::Phase,
    value::{AbsPath, Span},
    view::Colour,
};

/// Turns a fresh EC2 machine into a serving one: declared steps, each checked first and changed only where it differs.
#[derive(Debug, Parser)]
#[command(name = "glovo-bootstrap", version, max_term_width = 100, infer_subcommands = false)]
#[command(
    after_help = "Exit codes: 0 converged, 1 a step failed, 2 usage or invalid manifest, 3 plan --detailed-exitcode: changes \
pending, 4 another run holds the machine, 75 a cause that may pass outlasted the retries, 128+n ended by signal n.\n\n\
GLOVO_BOOTSTRAP_TRUST_METADATA=1 in the environment: ask the instance metadata service also on a machine whose firmware \
does not say that it is an EC2 instance."
)]
pub struct Cli {
    /// Log what is done in detail, to standard error.
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// When output has colours. auto: on a terminal, unless the environment says `NO_COLOR` or `TERM=dumb`.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    pub color: Colour,
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Returns the command line of this process.
    ///
    /// # Errors
    /// If it is invalid; also for `--help` and `--version`.
    pub fn read() -> Result<Self, clap::Error> {
        let mut program = Self::with_all_flags();
        let arguments = deploy::verb_first(std::env::args_os().collect(), &program);
        // The first parser knows which flags belong to a verb, the second one reads the values of all verbs alike.
        _ = Self::command_line().try_get_matches_from(&arguments)?;
        let matches = program.try_get_matches_from_mut(arguments)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut program))
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

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the steps: check every resource, change what differs.
    Run {
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        manifest: Manifest,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        purpose: Purpose,
        #[command(flatten)]
        signal: Signal,
        /// Record which manifest this is, the values of --set and the paths of --variables, for runs without these arguments. User-data does.
        #[arg(long, hide = true, conflicts_with = "root")]
        record: bool,
    },
    /// Make an image ready: all that can be done before it boots.
    ///
    /// The same as `run --phase bake`, and then, with --seal, what only an image needs.
    Bake {
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        manifest: Manifest,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        seal: Seal,
    },
    /// Show what a run would change, with diffs; change nothing.
    Plan {
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        manifest: Manifest,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        purpose: Purpose,
        /// Exit with 3 if changes are pending.
        #[arg(long)]
        detailed_exitcode: bool,
        /// Print the plan as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check a manifest without looking at the machine: every fault at once, with its place.
    Validate {
        #[command(flatten)]
        manifest: Manifest,
    },
    /// List, show or export the steps, or read about the kinds of resources.
    #[command(subcommand)]
    Steps(Steps),
    /// Show how the last run ended, step by step.
    Status {
        #[command(flatten)]
        target: Target,
        /// Wait until the run that is going on has ended.
        #[arg(long)]
        wait: bool,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Download files in parallel: https, http, s3 and file URLs.
    ///
    /// Each file appears whole, and verified where its sha256 is given, or not at all: a file of the same name
    /// is replaced at the end of the download. Needs neither root nor a run: it changes nothing but the files.
    Fetch(Fetch),
    /// Print user-data: what makes a new machine fetch this program, check it, and run the steps.
    UserData(UserData),
    Deploy(Box<DeployArguments>),
    /// Print the JSON Schema of step files and of manifests in one file, for editors.
    Schema,
    /// Put units, manual pages and completions in place for a program that user-data has put into /usr/local/bin.
    ///
    /// What a package brings, below /usr/local. With --steps it also records that manifest and its variables for runs
    /// without arguments, as user-data does. A second time it changes nothing. `uninstall` takes it all away.
    Install {
        #[command(flatten)]
        manifest: Manifest,
    },
    /// Remove what `install` has put in place, and nothing else.
    Uninstall,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// What to download, and where to.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all arrived, 1 something did not (or a URL or argument was wrong, and nothing was fetched), \
128+n ended by signal n."
)]
pub struct Fetch {
    /// What to download: `https://…`, `http://…`, `s3://bucket/key` (optionally `?versionId=…`), `file:///absolute/path`.
    ///
    /// A file gets the name that its URL ends in, with %xx decoded in https and http. Where several end in the same
    /// name the last one wins, and the others are not fetched. #sha256=HEX at the end pins a file.
    #[arg(value_name = "URL", required_unless_present_any = ["urls", "input"])]
    pub named: Vec<String>,
    /// The same; may be repeated. These come before the URLs without -u.
    #[arg(long = "url", short, value_name = "URL", num_args = 1..)]
    pub urls: Vec<String>,
    /// Read URLs from a file, or `-` for standard input: one per line, each optionally followed by a space and
    /// sha256=HEX. Empty lines and those that begin with # are skipped. These come after the URLs of the command line.
    #[arg(long, short, value_name = "FILE")]
    pub input: Option<String>,
    /// Where to put the files; made if it is missing. Default: the current directory.
    #[arg(long, short, value_name = "DIR", default_value = ".", hide_default_value = true)]
    pub output_dir: PathBuf,
    /// SHA-256 that a file must have: HEX alone if there is one file, else NAME=HEX with the file's name; may be repeated.
    ///
    /// Other bytes never replace a file, and one that is there with this digest is not fetched again.
    #[arg(long, value_name = "[NAME=]HEX")]
    pub sha256: Vec<String>,
    /// Most downloads at once. Default: as many as make sense.
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub jobs: Option<u16>,
    /// The longest that all of it may take, such as 30s or 10m. What hasn't arrived by then has failed, and is taken up
    /// where it was by the next try. Default: as long as bytes arrive.
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

/// Where a new machine gets this program from, and what it is to do.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: glovo-bootstrap user-data s3://my-bucket/glovo-bootstrap --agent ./glovo-bootstrap -- --set jar_url=…"
)]
pub struct UserData {
    /// Where it is: `s3://bucket/key` (optionally `?versionId=…`), fetched with the instance's role, or `https://…`; pinned
    /// by #sha256=HEX at its end.
    #[arg(value_name = "URL", required_unless_present = "baked", conflicts_with = "baked")]
    pub url: Option<String>,
    /// Pin the digest of this file: the same program, on this machine.
    #[arg(long, value_name = "FILE", requires = "url")]
    pub agent: Option<String>,
    /// It is in the image already.
    #[arg(long)]
    pub baked: bool,
    /// A shell script, or the same as #cloud-config, to be merged with other configuration.
    #[arg(long, value_enum, default_value = "script")]
    pub format: UserDataFormat,
    /// Arguments of `run` on the machine.
    #[arg(last = true, value_name = "RUN ARGUMENTS")]
    pub run: Vec<String>,
}

/// What cloud-init gets.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum UserDataFormat {
    /// A shell script.
    Script,
    /// `#cloud-config`.
    CloudConfig,
}

/// Which steps.
#[derive(Debug, Args)]
pub struct Selection {
    /// Only these steps, in their declared order.
    #[arg(value_name = "STEP")]
    pub only: Vec<String>,
    /// This step and those after it.
    #[arg(long, value_name = "STEP")]
    pub from: Option<String>,
    /// Not this step; may be repeated.
    #[arg(long, value_name = "STEP")]
    pub skip: Vec<String>,
}

/// Which manifest, and its variables.
#[derive(Debug, Clone, Default, Args)]
pub struct Manifest {
    /// A directory of step files, a file, `-`, a URL with #sha256=HEX, or `built-in`. Default: /etc/glovo-bootstrap/steps if it exists, else what this machine's user-data named, else the steps built into the binary.
    #[arg(long, value_name = "PATH", env = environment::STEPS)]
    pub steps: Option<String>,
    /// Set a variable; may be repeated. (A secret is better kept in a file: others can see the arguments of a process, and those of user-data are recorded, readable by root only.)
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Read variables from a TOML file; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub variables: Vec<String>,
}

/// Which machine.
#[derive(Debug, Args)]
pub struct Target {
    /// Work on an image's tree instead of this machine: nothing is started, and what must wait is said to be deferred.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// What a run is to end with.
#[derive(Debug, Args)]
pub struct Purpose {
    /// What to end with: an image, or a machine that serves. Default: boot; with --root bake.
    #[arg(long, value_enum)]
    pub phase: Option<Phase>,
}

/// Who waits for this machine.
#[derive(Debug, Args)]
pub struct Signal {
    /// Tell CloudFormation what becomes of the run: SUCCESS to this resource of this stack (its name or id) when all steps
    /// have converged, FAILURE at once when one has not, or when the run ends in any other way.
    ///
    /// The run is a process of its own then, and its exit code ours. Only of a whole run on this machine: what is left
    /// out is not proven.
    #[arg(long, value_name = "STACK/RESOURCE", conflicts_with_all = ["only", "from", "skip", "root", "phase"])]
    pub signal: Option<verdict::SignalTarget>,
    /// The longest that the run may take before it is stopped and FAILURE is signalled: less than the stack waits.
    #[arg(long, value_name = "TIME", requires = "signal", default_value = "14m")]
    pub signal_within: Span,
    /// Also complete this launching lifecycle hook of the instance's Auto Scaling group, with the instance's role: CONTINUE
    /// before SUCCESS, ABANDON after FAILURE.
    #[arg(long, value_name = "GROUP/HOOK", requires = "signal")]
    pub lifecycle_hook: Option<verdict::Hook>,
}

/// What to do with an image that is ready.
#[derive(Debug, Args)]
pub struct Seal {
    /// If all converged, remove what is this machine's own (reports, machine-id, cloud-init's state, histories …) and
    /// look for credentials: exit with 1 if there are any. For a tree, or a build instance that is thrown away.
    #[arg(long)]
    pub seal: bool,
    #[command(flatten)]
    pub on_request: OnRequest,
    /// With --seal, don't look for credentials at this path or below it; may be repeated.
    #[arg(long, value_name = "PATH", requires = "seal")]
    pub allow: Vec<AbsPath>,
}

/// What to do with steps.
#[derive(Debug, Subcommand)]
pub enum Steps {
    /// List the steps of a manifest.
    List {
        #[command(flatten)]
        manifest: Manifest,
    },
    /// Print a step as it is written.
    Show {
        /// Its name.
        step: String,
        #[command(flatten)]
        manifest: Manifest,
    },
    /// Write steps for a service of your own to a directory: a small web service that works, to be edited.
    New {
        /// A directory; made if it is missing, and must be empty.
        directory: PathBuf,
    },
    /// Write the built-in steps to a directory, to be edited.
    Export {
        /// A directory; made if it is missing, and must be empty.
        directory: PathBuf,
    },
    /// The reference manual of the kinds of resources.
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
}
