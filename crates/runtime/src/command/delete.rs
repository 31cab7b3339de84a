//! `ponton-runtime delete`

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ponton_cgroup::Cgroup;
use ponton_oci::runtime::Status;
use ponton_runtime::host::Host;
use ponton_runtime::state::{self, Directory, Record, StateError};
use rustix::io::Errno;

use super::Failure;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kill it first if it runs.
    #[arg(short, long)]
    force: bool,
    /// The container's id.
    id: String,
}

pub(crate) fn run(root: &Path, args: &Args) -> Result<ExitCode, Failure> {
    let directory = Directory::new(root, &args.id)?;
    let record = match directory.read() {
        Err(StateError::NotFound(_)) if args.force => return Ok(ExitCode::SUCCESS),
        other => other?,
    };
    let host = Host::probe()?;
    let status = directory.status(&record, &host);
    if status != Status::Stopped {
        // One that was never started has nothing to lose.
        if !args.force && status != Status::Created {
            return Err(StateError::WrongStatus { id: args.id.clone(), status }.into());
        }
        kill_and_wait(&record, &host)?;
    }
    clean_up(&directory, &record, &host)?;
    Ok(ExitCode::SUCCESS)
}

fn kill_and_wait(record: &Record, host: &Host) -> Result<(), Failure> {
    match &record.cgroup {
        Some(path) => Cgroup::new(&host.cgroup, path).kill_all()?,
        None => state::kill(record, 9)?,
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while state::started_ticks(record.pid) == Some(record.pid_started_ticks) {
        if Instant::now() > deadline {
            return Err(format!("process {} does not end", record.pid).into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Removes what a container that has ended left: its control group and its directory.
pub(crate) fn clean_up(directory: &Directory, record: &Record, host: &Host) -> Result<(), Failure> {
    if let Some(path) = &record.cgroup {
        let cgroup = Cgroup::new(&host.cgroup, path);
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match cgroup.remove() {
                // Processes that were killed with their pid namespace are still going.
                Err(error)
                    if error.errno() == Some(Errno::BUSY.raw_os_error()) && Instant::now() < deadline =>
                {
                    cgroup.kill_all()?;
                    std::thread::sleep(Duration::from_millis(2));
                }
                other => break other?,
            }
        }
    }
    Ok(directory.remove()?)
}
