//! `ponton-runtime checkpoint`

use std::path::PathBuf;
use std::process::ExitCode;

use ponton_oci::runtime::{NamespaceType, Status};
use ponton_runtime::criu::Dump;

use super::criu;
use super::{Context, Failure, Held, delete};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    criu: criu::Options,
    /// The images of the dump before, as a path from those of this one.
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Let the container go on.
    #[arg(short = 'R', long)]
    leave_running: bool,
    /// A descriptor that CRIU writes a zero to when it takes requests.
    #[arg(long, value_name = "FD")]
    status_fd: Option<u32>,
    /// The server that pages are sent to.
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// Save the memory only, and let the container go on: a dump that follows has less to do.
    #[arg(long)]
    pre_dump: bool,
    /// The container's id.
    id: String,
}

/// Saves the container's processes, and deletes it if it is not to go on.
pub(crate) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    let held = context.hold(&args.id, "checkpoint", &[Status::Running, Status::Paused])?;
    let Held { directory, record, host, .. } = &held;
    let spec = directory.read_spec()?;
    let options = args.criu.of(&context.criu)?;
    if spec.process.as_ref().is_some_and(|process| process.terminal) {
        return Err("checkpoint of a container with a terminal: not implemented".into());
    }
    let namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    let joined: Vec<NamespaceType> =
        namespaces.filter(|namespace| namespace.path.is_some()).map(|namespace| namespace.r#type).collect();
    let freezer = record.cgroup_paths.get("freezer").or_else(|| record.cgroup_paths.get(""));
    let server = args.page_server.as_deref();
    let server = server.map(|server| server.rsplit_once(':').ok_or("--page-server: ADDRESS:PORT is needed"));
    let dump = Dump {
        joined: &joined,
        freezer: freezer.map(PathBuf::as_path),
        leave_running: args.leave_running,
        pre_dump: args.pre_dump,
        parent: args.parent_path.as_deref(),
        status_fd: args.status_fd,
        page_server: server.transpose()?,
        ..Dump::new(&options, record.pid)
    };
    dump.run()?;
    if !args.leave_running && !args.pre_dump {
        delete::clean_up(context, directory, record, host)?;
    }
    Ok(ExitCode::SUCCESS)
}
