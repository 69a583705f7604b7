//! The arguments for images and for the first boot of their instances.

use clap::{Args, Subcommand};

use crate::{
    first_boot::{KeptSettings, image::FirstBootBy},
    image::seal::OnRequest,
    value::AbsPath,
};

/// The arguments of the seal.
#[derive(Debug, Args)]
pub struct Seal {
    /// If all steps converged, remove this machine's own data (reports, machine-id, cloud-init's state, histories …)
    /// and search for credentials; exit with 1 if any is found. For an image's tree, or a build instance that is
    /// terminated afterwards.
    #[arg(long)]
    pub seal: bool,
    /// With --seal, the program that sets an instance of the image up at its first boot. agent: this program, without
    /// cloud-init, which takes most of a boot's time. Its instances need the user-data of this program. Host keys are
    /// removed from the image, and cloud-init is disabled in it.
    #[arg(long, value_name = "PROGRAM", value_enum, default_value = "cloud-init", requires = "seal")]
    pub first_boot: FirstBootBy,
    /// With --first-boot agent, the user who gets the SSH key of the launch; made if missing. Default: the default user of
    /// the image's cloud-init.
    #[arg(long, value_name = "NAME", requires = "first_boot")]
    pub login_user: Option<String>,
    #[command(flatten)]
    pub on_request: OnRequest,
    /// With --seal, do not search this path, or below it, for credentials; may be repeated.
    #[arg(long, value_name = "PATH", requires = "seal")]
    pub allow: Vec<AbsPath>,
}

/// A subcommand of `first-boot`.
#[derive(Debug, Subcommand)]
pub enum FirstBootVerb {
    /// Set this instance up: the SSH key of the launch, host name, name servers.
    ///
    /// Key and host name are set once for an instance id. What fails is printed on the console, too.
    SetUp {
        /// The user who gets the SSH key of the launch.
        #[arg(long, value_name = "NAME")]
        login_user: String,
        #[command(flatten)]
        kept: KeptSettings,
    },
    /// Make new SSH host keys, once for an instance id, and print their fingerprints on the console.
    HostKeys,
    /// Grow the root partition and its file system to the size of the volume.
    Growth,
    /// Write the script of this instance's user-data for the unit that executes it, once for an instance id.
    UserData,
}
