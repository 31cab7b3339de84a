//! The subcommands: arguments, and the call into the library.

pub(crate) mod delete;
pub(crate) mod exec;
pub(crate) mod init;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod run;
pub(crate) mod shim;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod state;

use std::os::fd::AsFd;

use ponton_runtime::apply::Stdio;

/// What commands fail with; it is printed.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Gives the container our own standard streams.
pub(crate) fn own_stdio<T>(with: impl FnOnce(&Stdio<'_>) -> T) -> T {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    with(&Stdio { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() })
}
