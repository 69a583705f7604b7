//! The kind `mount`.

mod options;
mod source;
pub(super) mod units;

use std::{cell::OnceCell, ffi::OsStr, path::Path, time::Duration};

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;

use self::{options::of_unit, source::MountSource, units::UnitFile};
use super::{
    Change, Finding, Kind, Resource,
    device::{DeviceName, is_of_syntax},
    filesystem::two_minutes,
    service::UnitName,
    wait::CheckDeadline,
};
use crate::{
    error::Fault,
    host::{
        command::Program, mountinfo::MountedFileSystem, mounts::options::MountOptions, root::FileType,
        root::way::Owner, systemd::escape::escape,
    },
    system::{Fact, System, places::Claim},
    value::{AbsPath, Span, quoted, spoken},
};

/// Limits the number of a directory's entries that a message names.
const MAX_NAMED_ENTRIES: usize = 5;
/// Limits the time of a mount whose device is there. systemd's own limit is 90 s.
const MOUNT_TIMEOUT: Duration = Duration::from_secs(100);
/// Limits the length of a unit's name, and so of a file's.
const MAX_UNIT_BYTES: usize = 255;
/// The directories of the kernel, in which nothing can be mounted.
const OF_KERNEL: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];

/// A mounted file system, now and after a reboot, by a systemd unit that is named after its path. If a boot cannot mount it,
/// the boot goes on, without the services of `required_by`. A `run` that cannot mount it fails. A mount point with content
/// is refused, because the content would be hidden. Options that differ are set by a remount. Another file system at the path
/// is an error. Resources below the path come after this one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MountPoint {
    /// The directory at which it is mounted, such as `/srv/data`. It is made if it does not exist.
    path: AbsPath,
    /// What is mounted. For ext4 and xfs a device, named as in the kind `filesystem`: `ebs:/dev/sdf`, `label:data`, a path. For
    /// nfs and nfs4 `HOST:/PATH`. For efs `fs-0123456789abcdef0:/`. For bind an absolute path.
    what: String,
    /// The type. `nfs` and `nfs4` need the program mount.nfs, `efs` needs amazon-efs-utils; EFS can also be mounted as nfs4.
    /// `bind` shows a directory at a second path.
    #[serde(rename = "type")]
    mount_type: MountType,
    /// Options of mount(8) with commas, such as `noatime,nosuid`. Options of `x-systemd` have no effect in units. Default: none.
    #[serde(default)]
    options: String,
    /// Services that must not run without it, such as `["postgresql.service"]`. systemd starts them after it is mounted, and
    /// not at all if it cannot be.
    #[serde(default)]
    required_by: Vec<UnitName>,
    /// How long the run, and each boot, waits for a device that is not attached yet. Default: 2m.
    #[serde(default = "two_minutes")]
    wait: Span,
    /// The name of its unit, once it was asked for.
    #[serde(skip)]
    unit: OnceCell<String>,
}

/// A type of mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum MountType {
    Ext4,
    Xfs,
    Nfs,
    Nfs4,
    Efs,
    Bind,
}

impl MountType {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Nfs => "nfs",
            Self::Nfs4 => "nfs4",
            Self::Efs => "efs",
            Self::Bind => "bind",
        }
    }

    fn is_of_device(self) -> bool {
        matches!(self, Self::Ext4 | Self::Xfs)
    }

    fn is_remote(self) -> bool {
        matches!(self, Self::Nfs | Self::Nfs4 | Self::Efs)
    }

    /// Returns the program that mounts it, if mount(8) alone cannot.
    fn helper(self) -> Option<&'static str> {
        match self {
            Self::Ext4 | Self::Xfs | Self::Bind => None,
            Self::Nfs => Some("mount.nfs"),
            Self::Nfs4 => Some("mount.nfs4"),
            Self::Efs => Some("mount.efs"),
        }
    }
}

impl Kind for MountPoint {
    const NAME: &'static str = "mount";
    const EXAMPLE: &'static str = r#"kind = "mount"
path = "/srv/data"
what = "ebs:/dev/sdf"
type = "ext4"
options = "noatime"
required_by = ["postgresql.service"]"#;
}

impl Resource for MountPoint {
    fn title(&self) -> String {
        self.path.to_string()
    }

    fn required_by(&self) -> &[UnitName] {
        &self.required_by
    }

    fn mounted_device(&self) -> Option<&str> {
        Some(&self.what)
    }

    fn mount_point(&self) -> Option<&AbsPath> {
        Some(&self.path)
    }

    fn owned_things(&self) -> Vec<(&'static str, String)> {
        vec![("path", format!("the mount point {}", self.path))]
    }

    fn public_fields(&self) -> &'static [&'static str] {
        &["path", "what", "options"]
    }

    fn unit(&self) -> Option<&str> {
        Some(self.unit_name())
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = vec![];
        let text = self.path.as_str();
        let is_of_kernel =
            OF_KERNEL.iter().any(|path| text == *path || self.path.ancestors().any(|above| above == *path));
        if is_of_kernel || text == "/" {
            findings.push(Finding::new("path", format!("nothing can be mounted at {text}")));
        }
        if text.contains(is_of_syntax) {
            let message = "a mount point is written to unit files: it must not have a space, a quote, `\\` or `%`";
            findings.push(Finding::new("path", message));
        }
        if self.unit_name().len() > MAX_UNIT_BYTES {
            findings.push(Finding::new("path", "the path is too long for the name of a unit"));
        }
        if self.mount_type.is_of_device() && escape(&self.what).len() + ".device.d".len() > MAX_UNIT_BYTES {
            findings.push(Finding::new("what", "the path is too long for the name of a unit"));
        }
        findings.extend(self.fault_of_what());
        findings.extend(of_unit(&self.options));
        findings
    }

    fn plan(&self, system: &System) -> Result<Vec<Change>> {
        self.check_helper(system)?;
        if !system.is_live() {
            return self.plan_offline(system);
        }
        match self.source(system)? {
            MountSource::MissingDevice => self.plan_missing(system),
            source => self.plan_mount(system, &source),
        }
    }
}

impl MountPoint {
    /// Returns the name of its unit, which systemd derives from the path; systemd.unit(5).
    fn unit_name(&self) -> &str {
        self.unit.get_or_init(|| format!("{}.mount", escape(self.path.as_str())))
    }

    fn options(&self) -> MountOptions {
        let own: &[&str] = match self.mount_type {
            MountType::Bind => &["nofail", "bind"],
            // systemd does not know that this type needs the network.
            MountType::Efs => &["nofail", "_netdev"],
            _ => &["nofail"],
        };
        MountOptions::new(&self.options, own)
    }

    fn device(&self) -> Result<DeviceName> {
        DeviceName::try_from(self.what.clone())
    }

    fn check_helper(&self, system: &System) -> Result<()> {
        let Some(helper) = self.mount_type.helper() else { return Ok(()) };
        system.check_program(helper, 0).map_err(|error| {
            let hint = match self.mount_type {
                MountType::Efs => {
                    "declare the package amazon-efs-utils before it, or mount the EFS with type = \"nfs4\""
                }
                _ => "declare the package of NFS clients before it: nfs-common or nfs-utils",
            };
            Fault::new(format!("{} cannot be mounted", self.mount_type.name())).hint(hint).caused_by(error).into()
        })
    }

    /// Returns the unit files, if the source leads to this path.
    fn files(&self, what: &str) -> Vec<UnitFile> {
        let target = if self.mount_type.is_remote() { "remote-fs.target" } else { "local-fs.target" };
        let kind = if self.mount_type == MountType::Bind { "none" } else { self.mount_type.name() };
        let mut files = vec![UnitFile::of_mount(&self.path, what, kind, &self.options().to_string(), target)];
        if self.mount_type.is_of_device() {
            files.push(UnitFile::of_device(&self.path, what, self.wait.0));
        }
        files.extend(self.required_by.iter().map(|service| UnitFile::of_service(&self.path, service.as_str())));
        files
    }

    /// Fails if another user could move the mount point, or if something else mounts at it.
    fn check_place(&self, system: &System) -> Result<()> {
        let path = &self.path;
        let claim = Claim { path, owner: Some(&Owner::Id(0)), gid: None, makes_parents: true };
        let place = system.check_place(claim)?;
        // The status of a mounted NFS is not asked for: without its server, that would not return.
        let is_link = self.mounted(system)?.is_none() && system.root().read_link(path)?.is_some();
        if place.path != *path || is_link {
            let real = system.root().resolve(&place.path)?;
            let fault = Fault::new(format!("a symbolic link leads to the mount point {path}"));
            return Err(fault.hint(format!("declare the path without links: {real}")).into());
        }
        let fstab = system.root().read_text(&"/etc/fstab".into())?;
        // These ignore a slash at the end, as systemd and mount(8) do.
        let is_path = |field: &str| Path::new(field) == Path::new(path.as_str());
        let is_entry = |line: &str| !line.starts_with('#') && line.split_whitespace().nth(1).is_some_and(is_path);
        if fstab.lines().map(str::trim_start).any(is_entry) {
            let fault = Fault::new(format!("/etc/fstab also mounts a file system at {path}"));
            return Err(fault.hint("remove its line from /etc/fstab, or this resource").into());
        }
        Ok(())
    }

    /// Returns the file system that is mounted at the path.
    fn mounted(&self, system: &System) -> Result<Option<MountedFileSystem>> {
        if !system.root().is_host() {
            return Ok(None);
        }
        let is_here = |mounted: &MountedFileSystem| mounted.path == OsStr::new(self.path.as_str());
        Ok(system.host.mounts()?.into_iter().rfind(is_here))
    }

    fn plan_offline(&self, system: &System) -> Result<Vec<Change>> {
        self.check_place(system)?;
        let lasting = if self.mount_type.is_of_device() {
            self.device()?.lasting_path().map(|path| path.to_string())
        } else {
            Some(self.what.clone())
        };
        let Some(what) = lasting else {
            let why = system.why_not_live_or("only the booted machine knows this device");
            let summary = format!("mount {} (deferred: {why})", self.what);
            return Ok(self.bringing(vec![Change::deferred(summary)], true));
        };
        self.check_empty(system)?;
        let mut changes = self.plan_files(system, &what)?;
        changes.extend(self.plan_enable(system)?);
        changes.push(Change::deferred(format!("mount {} (deferred: {})", self.what, system.why_not_live())));
        Ok(self.bringing(changes, true))
    }

    fn plan_missing(&self, system: &System) -> Result<Vec<Change>> {
        self.check_place(system)?;
        if self.mounted(system)?.is_none() {
            self.check_empty(system)?;
        }
        let is_unknown = !self.is_coming(system, &self.what);
        let (mount, wait) = (self.clone(), CheckDeadline::begin(self.wait.0));
        let summary = format!("wait up to {} for the device {}, and mount it", spoken(self.wait.0), self.what);
        let change = Change::new(summary, move |system| {
            let found = mount.device()?.wait(system, wait, mount.wait.0)?;
            for change in mount.plan_mount(system, &MountSource::Device(found))? {
                if let Some(action) = change.action {
                    action(system)?;
                    system.forget();
                }
            }
            Ok(())
        });
        Ok(self.bringing(vec![change], is_unknown))
    }

    fn plan_mount(&self, system: &System, source: &MountSource) -> Result<Vec<Change>> {
        self.check_place(system)?;
        let what = match source {
            MountSource::Device(found) => found.lasting.to_string(),
            _ => self.what.clone(),
        };
        let mounted = self.mounted(system)?;
        let mut changes = vec![];
        self.check_writable(system, source)?;
        if let Some(mounted) = &mounted {
            self.check_source(system, source, mounted)?;
            changes.extend(self.plan_remount(system, mounted)?);
        } else {
            self.check_content(system, source)?;
            self.check_empty(system)?;
        }
        let unit = system.host.unit(self.unit_name())?;
        if unit.load_state() == "masked" {
            let unmask = format!("unmask it: systemctl unmask {}", quoted(self.unit_name()));
            return Err(Fault::new(format!("the unit {} is masked", self.unit_name())).hint(unmask).into());
        }
        let files = self.plan_files(system, &what)?;
        if !files.is_empty() || unit.needs_reload() {
            changes.extend(files);
            changes.push(Change::new("read unit files again (daemon-reload)", |system| system.host.daemon_reload()));
        }
        if mounted.is_none() {
            let failed =
                if unit.is_failed() { format!(" (it has failed: {})", unit.get("Result")) } else { String::new() };
            let mount = self.clone();
            changes.push(Change::new(format!("mount {}{failed}", self.what), move |system| mount.start(system)));
        }
        changes.extend(self.plan_enable(system)?);
        let is_new = matches!(source, MountSource::Device(found) if self.is_coming(system, found.device.node.as_str()));
        let is_unknown = mounted.is_none() && !is_new && !self.is_coming(system, &self.what);
        Ok(self.bringing(changes, is_unknown))
    }

    /// Returns the changes with the facts that hold after them. A plan does not know what a mount shows, unless it is new.
    fn bringing(&self, changes: Vec<Change>, is_unknown: bool) -> Vec<Change> {
        let facts = || {
            let mounted = is_unknown.then(|| Fact::Mount(self.path.clone()));
            [Fact::Path(self.path.clone())].into_iter().chain(mounted)
        };
        changes.into_iter().map(|change| change.brings(facts())).collect()
    }

    fn plan_files(&self, system: &System, what: &str) -> Result<Vec<Change>> {
        let changes = self.files(what).into_iter().map(|file| file.plan(system));
        Ok(changes.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn plan_enable(&self, system: &System) -> Result<Option<Change>> {
        let name = self.unit_name().to_owned();
        if system.host.is_enabled_offline(&name)? {
            return Ok(None);
        }
        system.check_program_exists("systemctl")?;
        Ok(Some(Change::new("mount at boot", move |system| system.host.set_enabled(&name, true))))
    }

    /// Fails if the mount would hide something.
    fn check_empty(&self, system: &System) -> Result<()> {
        let path = &self.path;
        if system.root().status(path)?.is_some_and(|status| status.file_type != FileType::Directory) {
            let fault = Fault::new(format!("the mount point {path} is not a directory"));
            return Err(fault.hint("move it away, or declare another path").into());
        }
        let names = system.names_in(path)?;
        if names.is_empty() {
            return Ok(());
        }
        let mut shown = names.iter().take(MAX_NAMED_ENTRIES).map(String::as_str).collect::<Vec<_>>().join(", ");
        if let Some(more @ 1..) = names.len().checked_sub(MAX_NAMED_ENTRIES) {
            shown += &format!(" and {more} more");
        }
        Err(Fault::new(format!("the mount point {path} is not empty, and its content would be hidden: {shown}"))
            .hint("move the content away by hand; declare resources below the path after the mount")
            .into())
    }

    /// Returns the change that sets the options of the mounted file system, if they differ.
    fn plan_remount(&self, system: &System, mounted: &MountedFileSystem) -> Result<Option<Change>> {
        let (options, path) = (self.options(), self.path.as_str());
        let has = |list: &[String], name: &str| list.iter().any(|option| option == name);
        if has(&mounted.super_options, "ro") && !has(&mounted.options, "ro") && !options.has("ro") {
            let message =
                format!("the kernel has made the file system at {path} read-only, as after an error of its disk");
            let hint = "read the kernel's log: journalctl --dmesg --grep=error; then check it: fsck(8)";
            return Err(Fault::new(message).hint(hint).into());
        }
        let unit = UnitFile::path_of_mount(&self.path)?;
        let written = system.root().read_text(&unit)?;
        let written = written.lines().find_map(|line| line.strip_prefix("Options="));
        let are_new = written.is_some_and(|written| written != options.to_string());
        let wrong = options.differences(&mounted.options, self.mount_type == MountType::Bind);
        if wrong.is_empty() && !are_new {
            return Ok(None);
        }
        let now = mounted.options.join(",");
        if self.mount_type.is_remote() && wrong.is_empty() {
            let restart = format!("systemctl restart {}", quoted(self.unit_name()));
            system.warn(format!("the new options of {path} count from its next mount: {restart}"));
            return Ok(None);
        }
        let all = options.of_remount(self.mount_type == MountType::Bind);
        let command = Program::new(["mount", "-o", &format!("remount,{all}"), path]);
        let hint = format!("stop the services that use {path}, or declare its present options");
        Ok(Some(Change::new(format!("remount with {all} (now {now})"), move |system| {
            let made = system.host.run_checked(&command);
            made.map(drop)
                .map_err(|error| Fault::new("the options cannot be changed now").hint(hint).caused_by(error).into())
        })))
    }

    fn start(&self, system: &System) -> Result<()> {
        if system.root().status(&self.path)?.is_none() {
            system.root().make_directories(&self.path, 0o755)?;
        }
        // The unit waits for its device, and mount(8) for a server: both have their own limits.
        system.host.settle("start", self.unit_name(), Duration::ZERO, self.wait.0 + MOUNT_TIMEOUT)
    }
}
