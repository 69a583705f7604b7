//! A disk with an image on which the agent has run already.

use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Result, ensure};

use crate::{Machine, Options, SweptDirectory, UserData, Vm, VmOptions};

const IMAGE: &str = "/image";

/// A root disk, and the variables of its steps.
pub struct Baked {
    pub disk: PathBuf,
    _directory: SweptDirectory,
    /// The arguments of `run` on its machines.
    pub run: String,
}

impl Baked {
    /// Bakes the built-in steps into a copy of a tree, with these options of `bake`, and makes a disk of it.
    pub fn new(tree: &Path, options: &[&str], make_disk: fn(&Path, &Path, &str) -> Result<()>) -> Result<Baked> {
        let baking = Machine::boot(Options::default())?;
        let copy = process::Command::new("cp")
            .args(["--archive", "--no-target-directory"])
            .args([tree, &baking.path(IMAGE)])
            .status()?;
        ensure!(copy.success(), "copying the tree: {copy}");
        baking.sh(&format!("cp /usr/local/bin/glovo-bootstrap {IMAGE}/usr/local/bin/"))?;
        baking.bootstrap(&[&["bake", "--seal", "--root", IMAGE], options].concat())?.success()?;
        let variables = baking.variables()?.into_iter().filter(|variable| !variable.starts_with("swap_path="));
        let run =
            variables.map(|variable| format!("--set {variable} ")).collect::<String>() + "--set swap_path=/swapfile";
        let directory = SweptDirectory::new()?;
        let baked = Baked { disk: directory.path.join("disk"), _directory: directory, run };
        make_disk(&baking.path(IMAGE), &baked.disk, "ext4")?;
        Ok(baked)
    }

    /// Returns user-data that runs the steps on a machine of the image.
    pub fn user_data(&self) -> Result<UserData> {
        let run = self.run.split(' ');
        let printed = process::Command::new(crate::agent()?).args(["user-data", "--baked", "--"]).args(run).output()?;
        ensure!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        Ok(UserData::Text(String::from_utf8(printed.stdout)?))
    }

    /// Returns a machine that is off, with this user-data and with the image in the first partition of its disk.
    pub fn vm(&self) -> Result<Vm> {
        Vm::new(VmOptions {
            disk: Some(self.disk.clone()),
            user_data: Some(self.user_data()?),
            kernel: "root=/dev/vda1",
            ..VmOptions::default()
        })
    }
}
