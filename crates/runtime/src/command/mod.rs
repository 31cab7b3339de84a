//! The subcommands: arguments, and the call into the library.

pub(crate) mod checkpoint;
mod console;
pub(crate) mod create;
mod criu;
pub(crate) mod delete;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod features;
mod foreground;
mod inherit;
pub(crate) mod init;
pub(crate) mod kill;
pub(crate) mod list;
mod notify;
pub(crate) mod pause;
pub(crate) mod ps;
pub(crate) mod restore;
pub(crate) mod run;
pub(crate) mod shim;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod update;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use ponton_runtime::apply::Stdio;
use ponton_runtime::state::{Directory, StateError};

use crate::log::Log;

/// What commands fail with; it is printed.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// What the options before the subcommand say.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// Where the records of containers are.
    pub(crate) root: PathBuf,
    /// Control groups are made by systemd.
    pub(crate) systemd_cgroup: bool,
    /// A control group that nobody asks for may be missing; none to find out.
    pub(crate) rootless: Option<bool>,
    /// The program that makes and restores checkpoints.
    pub(crate) criu: PathBuf,
    /// Where errors are told.
    pub(crate) log: Log,
}

impl Context {
    /// The directory of a container, which may not exist.
    pub(crate) fn directory(&self, id: &str) -> Result<Directory, StateError> {
        Directory::new(&self.root, id)
    }
}

/// Tells what went wrong and does not end the command.
fn warn<T: std::fmt::Display>(context: &Context, warnings: impl IntoIterator<Item = T>) {
    for warning in warnings {
        context.log.warning(&warning.to_string());
    }
}

/// Gives the container our own standard streams.
fn own_stdio<T>(with: impl FnOnce(&Stdio<'_>) -> T) -> T {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    with(&Stdio { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() })
}

/// Writes a process id, whole or not at all.
fn write_pid_file(path: &Path, pid: u32) -> Result<(), Failure> {
    let failed = |error| format!("write {}: {error}", path.display());
    let name = path.file_name().ok_or_else(|| format!("{} is no name of a file", path.display()))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    std::fs::write(&temporary, pid.to_string()).map_err(failed)?;
    Ok(std::fs::rename(&temporary, path).map_err(failed)?)
}
