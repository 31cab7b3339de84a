//! `ponton-runtime run` and `create`

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ponton_oci::runtime::Spec;
use ponton_runtime::apply::{self, Started};
use ponton_runtime::host::Host;
use ponton_runtime::open::{self, Descriptors};
use ponton_runtime::plan::Plan;
use ponton_runtime::state::{self, Directory, Record};
use ponton_sys::pidfd;
use ponton_sys::signal::{self, Blocked};
use rustix::process::Signal;

use super::{Failure, own_stdio};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory with config.json and the root file system.
    #[arg(short, long, default_value = ".")]
    bundle: PathBuf,
    /// Write the process id of the first process to this file.
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    plan: bool,
    /// The container's id.
    id: String,
}

/// A container that is made, and what is known of it.
struct Created {
    directory: Directory,
    record: Record,
    started: Started,
}

pub(crate) fn run(root: &Path, args: &Args) -> Result<ExitCode, Failure> {
    if args.plan {
        return print_plan(root, args);
    }
    // Before the program starts, so that no signal is lost.
    let signals = signal::block()?;
    let created = make(root, args, false)?;
    let exit = forward_until_exit(&created.started, &signals)?;
    super::delete::clean_up(&created.directory, &created.record, &Host::probe()?)?;
    Ok(ExitCode::from(u8::try_from(exit.code()).unwrap_or(u8::MAX)))
}

pub(crate) fn create(root: &Path, args: &Args) -> Result<ExitCode, Failure> {
    if args.plan {
        return print_plan(root, args);
    }
    make(root, args, true)?;
    Ok(ExitCode::SUCCESS)
}

fn load(root: &Path, args: &Args) -> Result<(Directory, PathBuf, Spec, Plan), Failure> {
    let bundle = std::fs::canonicalize(&args.bundle)
        .map_err(|error| format!("bundle {}: {error}", args.bundle.display()))?;
    let directory = Directory::new(root, &args.id)?;
    let spec = state::read_spec(&bundle)?;
    let plan = directory.plan(&bundle, &spec, &Host::probe()?)?;
    Ok((directory, bundle, spec, plan))
}

fn print_plan(root: &Path, args: &Args) -> Result<ExitCode, Failure> {
    let (.., plan) = load(root, args)?;
    print!("{plan}");
    Ok(ExitCode::SUCCESS)
}

fn make(root: &Path, args: &Args, gated: bool) -> Result<Created, Failure> {
    let (directory, bundle, spec, plan) = load(root, args)?;
    if plan.process().is_some_and(|process| process.terminal) {
        return Err("process.terminal: not implemented: a terminal for this command".into());
    }
    directory.create()?;
    let made = launch(&directory, plan, gated).and_then(|(started, cgroup)| {
        let record = Record {
            id: args.id.clone(),
            bundle,
            pid: started.pid,
            pid_started_ticks: state::started_ticks(started.pid).unwrap_or(0),
            cgroup,
            annotations: spec.annotations,
        };
        directory.write(&record)?;
        if let Some(path) = &args.pid_file {
            std::fs::write(path, started.pid.to_string())
                .map_err(|error| format!("write {}: {error}", path.display()))?;
        }
        Ok((record, started))
    });
    match made {
        Ok((record, started)) => Ok(Created { directory, record, started }),
        Err(error) => {
            directory.remove()?;
            Err(error)
        }
    }
}

fn launch(directory: &Directory, plan: Plan, gated: bool) -> Result<(Started, Option<String>), Failure> {
    let gate = gated.then(|| directory.make_gate()).transpose()?;
    let cgroup = plan.cgroup().map(String::from);
    let opened = open::open(plan, Descriptors::default(), &Host::probe()?)?;
    let gate: Option<BorrowedFd<'_>> = gate.as_ref().map(AsFd::as_fd);
    Ok((own_stdio(|stdio| apply::create(opened, stdio, gate))?, cgroup))
}

/// Hands signals on until the program has ended.
fn forward_until_exit(started: &Started, signals: &Blocked) -> Result<pidfd::Exit, Failure> {
    loop {
        if let Some(exit) = pidfd::try_wait(started.pidfd.as_fd())? {
            return Ok(exit);
        }
        let received = signals.wait();
        if received != Signal::CHILD.as_raw() {
            // It may be gone already; the next turn tells.
            let _ = pidfd::send_signal(started.pidfd.as_fd(), received);
        }
    }
}
