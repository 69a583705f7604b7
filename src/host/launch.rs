//! The start of a program of a manifest: in a session of its own, with its user, its directory and its umask.
//!
//! The standard library can set most of this between fork and exec, but not without `unsafe`. So this program starts
//! itself with the word `launch`, which no help and no completion shows. That process has one thread. It sets everything
//! up, and then becomes the program.

mod read_only;

use std::{
    convert::Infallible,
    ffi::OsString,
    iter,
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::Parser;
use nix::{
    errno::Errno,
    sys::{
        prctl::{set_no_new_privs, set_pdeathsig},
        signal::Signal,
        stat::{FileStat, Mode, SFlag, umask},
    },
    unistd::{Gid, Uid, chdir, chroot, getpid, getppid, setgroups, setresgid, setresuid, setsid},
};

use super::{
    calls::{fchown, fstat},
    output::print,
    root::identity::UserIdentity,
};
use crate::{
    error::{Fault, hint},
    value::quoted,
};

/// The first argument of a process that is to become a program.
const NAME: &str = "launch";
/// The exit code of a process that could not become the program, as of chroot(1) and env(1).
pub(super) const FAILED_EXIT_CODE: i32 = 125;
/// The start of the message of such a process. The mark of the launch follows.
const FAILED: &str = "glovo-bootstrap launch: ";
/// The start of its hint.
const HINT: &str = "\nhint: ";

/// The error of a program that was not started, and so has changed nothing.
#[derive(Debug)]
pub struct NotStarted;

impl std::fmt::Display for NotStarted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the program was not started")
    }
}

/// The way to start a program of a manifest.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = NAME)]
pub struct Launch {
    /// The root directory.
    #[arg(long, default_value = "/")]
    root: PathBuf,
    /// The working directory.
    #[arg(long)]
    directory: PathBuf,
    /// The umask, as a decimal number.
    #[arg(long)]
    umask: u32,
    /// The numeric user id. Default: unchanged.
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    /// The numeric id of the primary group.
    #[arg(long, requires = "uid")]
    gid: Option<u32>,
    /// A supplementary group.
    #[arg(long)]
    group: Vec<u32>,
    /// Whether all file systems are read-only, as for a guard.
    #[arg(long)]
    read_only: bool,
    /// The process whose end ends the program.
    #[arg(long)]
    parent: i32,
    /// A random number in the message of a failure. The program does not know it, and so cannot print such a message.
    #[arg(long)]
    mark: u32,
    /// The program's path and its arguments.
    #[arg(last = true)]
    argv: Vec<OsString>,
}

impl Launch {
    /// Returns the start of a program in a directory, with the rights of a user; `None` for those of this process.
    pub fn new(directory: impl Into<PathBuf>, umask: u32, user: Option<&UserIdentity>) -> Self {
        Self {
            root: "/".into(),
            directory: directory.into(),
            umask,
            uid: user.map(|user| user.uid),
            gid: user.map(|user| user.gid),
            group: user.map(|user| user.groups().to_vec()).unwrap_or_default(),
            read_only: false,
            parent: getpid().as_raw(),
            mark: fastrand::u32(..),
            argv: vec![],
        }
    }

    /// Makes all file systems read-only for the program.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Returns whether all file systems are read-only for the program.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Returns the process that becomes the program, in this root.
    pub(super) fn process(&self, root: &Path, program: &str, arguments: &[String]) -> Command {
        let mut process = Command::new("/proc/self/exe");
        _ = process.arg(NAME).arg("--root").arg(root).arg("--directory").arg(&self.directory);
        let mut option = |name: &str, value: i64| _ = process.arg(format!("--{name}={value}"));
        option("umask", self.umask.into());
        option("parent", self.parent.into());
        option("mark", self.mark.into());
        for (name, id) in [("uid", self.uid), ("gid", self.gid)] {
            if let Some(id) = id {
                option(name, id.into());
            }
        }
        for group in &self.group {
            option("group", (*group).into());
        }
        if self.read_only {
            _ = process.arg("--read-only");
        }
        _ = process.arg("--").arg(program).args(arguments);
        process
    }

    /// Becomes the program that the arguments of this process name; `None` if they name none.
    ///
    /// Returns only if that fails, with the exit code, after it has printed the reason.
    pub fn execute_if_asked() -> Option<u8> {
        let mut arguments = std::env::args_os().skip(1).peekable();
        _ = arguments.next_if(|first| first == NAME)?;
        let (start, error) = match Self::try_parse_from(iter::once(NAME.into()).chain(arguments)) {
            Err(error) => (FAILED.to_owned(), error.into()),
            Ok(launch) => {
                let Err(error) = launch.become_program();
                (launch.start_of_message(), error)
            }
        };
        let hint = hint(&error).map(|hint| format!("{HINT}{hint}")).unwrap_or_default();
        print(std::io::stderr(), &format!("{start}{error:#}{hint}\n"), None);
        u8::try_from(FAILED_EXIT_CODE).ok()
    }

    fn start_of_message(&self) -> String {
        format!("{FAILED}{:08x}: ", self.mark)
    }

    /// Returns the fault of a process that could not become its program; `None` if the text is not its message.
    pub(super) fn failure(&self, text: &str) -> Option<Fault> {
        let message = text.trim().strip_prefix(&self.start_of_message())?;
        Some(match message.split_once(HINT) {
            Some((message, hint)) => Fault::new(message).hint(hint),
            None => Fault::new(message),
        })
    }

    fn become_program(&self) -> Result<Infallible> {
        // In the session of this process, a user's program could type on the terminal of root (TIOCSTI).
        _ = setsid().context("beginning a session")?;
        if self.read_only {
            read_only::protect()?;
        }
        if self.root != Path::new("/") {
            chroot(&self.root).with_context(|| format!("entering {}", self.root.display()))?;
            chdir("/").context("entering /")?;
        }
        if self.read_only {
            read_only::add_temporary_directories()?;
            read_only::drop_capabilities()?;
            set_no_new_privs().context("giving up new privileges")?;
        }
        _ = umask(Mode::from_bits_truncate(self.umask));
        self.take_identity()?;
        // A change of ids clears this signal, so it is set after them.
        set_pdeathsig(Signal::SIGKILL).context("asking to end with the run")?;
        if getppid().as_raw() != self.parent {
            return Err(Fault::new("the run has ended").into());
        }
        chdir(&self.directory).map_err(|errno| self.explain_directory(errno))?;
        let [program, arguments @ ..] = &self.argv[..] else { anyhow::bail!("no program is named") };
        let failed = Command::new(program).args(arguments).exec();
        Err(explain_program(&program.to_string_lossy(), failed))
    }

    fn take_identity(&self) -> Result<()> {
        let (Some(uid), Some(gid)) = (self.uid.map(Uid::from_raw), self.gid.map(Gid::from_raw)) else { return Ok(()) };
        // The program may open its output again, as `/dev/stderr`.
        for stream in [std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
            let is_pipe = |stat: FileStat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO;
            if fstat(stream).is_ok_and(is_pipe) {
                _ = fchown(stream, Some(uid), Some(gid));
            }
        }
        let groups: Vec<Gid> = self.group.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups).context("setting the groups")?;
        setresgid(gid, gid, gid).context("setting the group")?;
        setresuid(uid, uid, uid).context("setting the user")
    }

    fn explain_directory(&self, errno: Errno) -> anyhow::Error {
        let directory = self.directory.to_string_lossy();
        let hint = match errno {
            Errno::ENOENT => {
                format!("declare the directory in an earlier resource, or correct `cwd`: ls -ld {}", quoted(&directory))
            }
            _ => format!("see the rights of each directory on the way: namei -l {}", quoted(&directory)),
        };
        Fault::new(format!("cannot enter the directory {directory}")).caused_by(errno).hint(hint).into()
    }
}

/// Returns the error of a program that exists, but that the kernel does not start: execve(2).
fn explain_program(program: &str, failed: std::io::Error) -> anyhow::Error {
    let hint = match failed.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES) => {
            "check that it is executable, and that its user may enter each directory on the way: namei -l"
        }
        Some(Errno::ENOENT) => "check that the interpreter in its first line exists: head -n 1",
        Some(Errno::ENOEXEC) => {
            "check that it is a program of this architecture, or that its first line begins with #!: file"
        }
        _ => return anyhow::Error::from(failed).context(format!("cannot start {program}")),
    };
    Fault::new(format!("cannot start {program}")).caused_by(failed).hint(format!("{hint} {}", quoted(program))).into()
}
