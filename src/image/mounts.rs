//! An image's tree made ready for programs to run in it.

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};

use crate::{system::System, value::AbsPath};

impl System {
    /// Mounts `/proc`, `/sys` and `/dev` of the host into an image's tree, because maintainer scripts
    /// need them (Java's refuses to go on without `/proc`), and the host's resolver configuration over
    /// the tree's. In a mount namespace of our own: the host sees none of it, and the kernel takes it
    /// away when we end, however we end. Does nothing for the host's own root.
    ///
    /// Called before any thread is started, since a namespace belongs to a thread.
    pub fn prepare_image(&self) -> Result<()> {
        if self.root().is_host() || !geteuid().is_root() {
            return Ok(());
        }
        unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace for the image")?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("keeping mounts to ourselves")?;
        for directory in ["/proc", "/sys", "/dev"] {
            self.bind(directory, MsFlags::MS_BIND | MsFlags::MS_REC)?;
        }
        self.bind("/etc/resolv.conf", MsFlags::MS_BIND)
    }

    /// Binds a path of the host over the same path of the tree, if it is there.
    fn bind(&self, path: &'static str, flags: MsFlags) -> Result<()> {
        let resolved = self.root().resolve(&AbsPath::from(path))?;
        if self.root().status(&resolved)?.is_none() {
            return Ok(());
        }
        let target = self.root().path().join(resolved.as_str().trim_start_matches('/'));
        mount(Some(path), &target, None::<&str>, flags, None::<&str>)
            .with_context(|| format!("binding {path} into the image"))
    }
}
