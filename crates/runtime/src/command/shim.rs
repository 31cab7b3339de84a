//! `ponton-runtime shim`

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use ponton_runtime::shim::server::{self, Options};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Serve the listening SOCK_SEQPACKET socket with this descriptor number.
    #[arg(long, value_name = "N", required_unless_present = "socket", conflicts_with = "socket")]
    socket_fd: Option<i32>,
    /// Listen on this socket file.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Where the records of containers are written, in one directory each.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// The most containers.
    #[arg(long, value_name = "N", default_value_t = 512)]
    capacity: u32,
}

pub(crate) fn run(args: Args) -> Result<ExitCode, Box<dyn Error>> {
    let listener = match (&args.socket, args.socket_fd) {
        (Some(path), _) => server::listen(path)?,
        (None, Some(fd)) => server::inherited(fd)?,
        (None, None) => return Err("no socket".into()),
    };
    server::serve(Options {
        listener,
        socket: args.socket,
        state_dir: args.state_dir,
        capacity: args.capacity,
    })?;
    Ok(ExitCode::SUCCESS)
}
