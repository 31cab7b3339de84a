//! `ponton-runtime restore`

use std::path::PathBuf;
use std::process::ExitCode;

use ponton_oci::runtime::Status;
use ponton_runtime::apply::Started;
use ponton_runtime::criu::{self, Labels};
use ponton_runtime::open::{self, Descriptors};
use ponton_runtime::state::{Later, Record};
use ponton_sys::signal;

use super::create::{self, Prepared};
use super::inherit::Inherited;
use super::{Context, Failure, delete, foreground, own_stdio, warn, write_pid_file};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    criu: super::criu::Options,
    /// The directory with config.json and the root file system.
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Send the master side of the terminal to whoever listens on this unix socket (not implemented).
    #[arg(long, value_name = "PATH")]
    console_socket: Option<PathBuf>,
    /// Do not wait for its end.
    #[arg(short, long)]
    detach: bool,
    /// Write the process id of the first process to this file.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Leave what the container's processes leave behind to process 1 of the host.
    #[arg(long)]
    no_subreaper: bool,
    /// Without effect: CRIU changes the root as it can.
    #[arg(long)]
    no_pivot: bool,
    /// The label of the processes.
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<String>,
    /// The label of the mounts.
    #[arg(long, value_name = "LABEL")]
    lsm_mount_context: Option<String>,
    /// The container's id.
    id: String,
}

/// Starts a container from its images.
pub(crate) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    let create = create::Args::of_restore(args.bundle.clone(), args.id.clone());
    let prepared = create::prepare(context, &create, Inherited::default())?;
    if args.console_socket.is_some() {
        return Err("restore of a container with a terminal: not implemented".into());
    }
    criu::refuse(&prepared.plan)?;
    let options = args.criu.of(&context.criu)?;
    let signals = if args.detach { None } else { Some(signal::block()?) };
    if !args.detach && !args.no_subreaper {
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own))
            .map_err(|errno| format!("become the reaper of what the container leaves: {errno}"))?;
    }
    let (directory, host) = (prepared.directory.clone(), prepared.host.clone());
    let lock = directory.create()?;
    let (record, started) = match build(args, prepared, &options) {
        Ok(built) => built,
        Err(error) => return Err(create::undo(&directory, lock, error)),
    };
    drop(lock);
    warn(context, directory.read_later()?.started(&record.state(Status::Running)));
    let Some(signals) = signals else { return Ok(ExitCode::SUCCESS) };
    let exit = foreground::attend(&started, None, None, &signals)?;
    delete::clean_up(context, &directory, &record, &host)?;
    Ok(ExitCode::from(u8::try_from(exit.code()).unwrap_or(u8::MAX)))
}

fn build(args: &Args, prepared: Prepared, options: &criu::Options) -> Result<(Record, Started), Failure> {
    let mut record = prepared.record();
    let Prepared { directory, json, spec, plan, host, .. } = prepared;
    directory.write_spec(&json)?;
    directory.write_later(&Later::of(&plan))?;
    let opened = open::open(plan, Descriptors::default(), &host)?;
    let labels = Labels { process: args.lsm_profile.as_deref(), mount: args.lsm_mount_context.as_deref() };
    let started = own_stdio(|stdio| criu::restore(options, labels, opened, stdio, &host, &directory.path()))?;
    record.begin(started.pid, &host, &spec.linux.map(|linux| linux.namespaces).unwrap_or_default());
    let told = directory
        .write(&record)
        .map_err(Failure::from)
        .and_then(|()| args.pid_file.as_deref().map_or(Ok(()), |path| write_pid_file(path, started.pid)));
    match told {
        Ok(()) => Ok((record, started)),
        Err(error) => Err(create::kill_again(&record, &started, &host, error)),
    }
}
