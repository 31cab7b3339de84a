//! `ponton-runtime delete`

use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ponton_cgroup::Cgroup;
use ponton_oci::runtime::Status;
use ponton_runtime::host::Host;
use ponton_runtime::state::{self, Directory, Record, StateError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Context, Failure, warn};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kill it first if it runs; it is no error if there is no such container.
    #[arg(short, long)]
    force: bool,
    /// The container's id.
    id: String,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    let directory = context.directory(&args.id)?;
    let host = Host::probe()?;
    let held = directory.lock().and_then(|lock| Ok((directory.read()?, lock)));
    let (record, lock) = match held {
        Err(StateError::NotFound(_)) if args.force => {
            remove_remains(&directory, &host)?;
            // Whoever was at work on it has made it meanwhile.
            return if directory.path().exists() { run(context, args) } else { Ok(ExitCode::SUCCESS) };
        }
        other => other?,
    };
    let status = directory.status(&record, &host);
    if status != Status::Stopped {
        // One that was never started has nothing to lose.
        if !args.force && status != Status::Created {
            return Err(StateError::WrongStatus { id: args.id.clone(), status, attempted: "delete" }.into());
        }
        kill_and_wait(&record, &host)?;
    }
    clean_up(context, &directory, &record, &host)?;
    drop(lock);
    Ok(ExitCode::SUCCESS)
}

/// Removes what a command left that was killed before it had made the container. One that is still
/// at work on it is waited for.
pub(super) fn remove_remains(directory: &Directory, host: &Host) -> Result<(), Failure> {
    if !directory.is_half_made() {
        return Ok(());
    }
    let lock = match directory.lock() {
        Err(StateError::NotFound(_)) => return Ok(()),
        other => other?,
    };
    if !directory.is_half_made() {
        return Ok(());
    }
    // There may be no spec yet: then there is no control group either.
    if let Ok(spec) = directory.read_spec() {
        let path = spec.linux.map(|linux| linux.cgroups_path).filter(|path| !path.is_empty());
        let path = path.unwrap_or_else(|| format!("ponton/{}", directory.id()));
        end_abandoned(&Cgroup::new(&host.cgroup, &path))?;
    }
    directory.remove()?;
    drop(lock);
    Ok(())
}

/// Ends a first process that never became its program, and removes its control group.
fn end_abandoned(cgroup: &Cgroup) -> Result<(), Failure> {
    let mut ending = Vec::new();
    for pid in cgroup.pids()? {
        // A group that is shared with others has others' processes in it.
        let is_ours =
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == OWN_NAME);
        let process = ponton_sys::pidfd::open(pid).ok().filter(|_| is_ours);
        if let Some(process) = process {
            // It may have ended meanwhile.
            let _ = ponton_sys::pidfd::send_signal(process.as_fd(), KILL);
            ending.push(process);
        }
    }
    for process in &ending {
        wait_readable(process.as_fd(), Duration::from_secs(5))?;
    }
    // One that is not empty, or was not made, belongs to somebody else.
    let _ = cgroup.remove();
    Ok(())
}

/// The name of a process that is not its program yet, as the kernel keeps it.
const OWN_NAME: &str = "ponton-runtime";

/// Kills the container. Its processes may still be ending when this returns.
pub(super) fn kill(record: &Record, host: &Host) -> Result<(), Failure> {
    let cgroup = record.cgroup.as_deref().map(|path| Cgroup::new(&host.cgroup, path));
    match &cgroup {
        // Its first process takes all others with it; those of a shared pid namespace go on.
        Some(cgroup) if !record.own_pid_namespace => cgroup.kill_all()?,
        _ => {}
    }
    match state::kill(record, KILL) {
        Err(StateError::WrongStatus { .. }) | Ok(()) => {}
        Err(error) => return Err(error.into()),
    }
    if let Some(cgroup) = &cgroup
        && cgroup.is_frozen()?
    {
        cgroup.thaw()?;
    }
    Ok(())
}

const KILL: i32 = 9;

fn kill_and_wait(record: &Record, host: &Host) -> Result<(), Failure> {
    let pidfd = ponton_sys::pidfd::open(record.pid);
    kill(record, host)?;
    pidfd.map_or(Ok(()), |pidfd| wait_until_ended(record, pidfd.as_fd()))
}

/// Waits for the end of the container's first process.
pub(super) fn wait_until_ended(record: &Record, pidfd: BorrowedFd<'_>) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(10);
    // A zombie, whose parent is somebody else, counts as ended: its descriptor is readable.
    while state::started_ticks(record.pid) == Some(record.pid_started_ticks) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("process {} does not end", record.pid).into());
        }
        wait_readable(pidfd, left)?;
    }
    Ok(())
}

fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> Result<(), Failure> {
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(format!("poll: {errno}").into()),
    }
}

/// Removes what a container that has ended left: its control group and its directory.
pub(super) fn clean_up(
    context: &Context,
    directory: &Directory,
    record: &Record,
    host: &Host,
) -> Result<(), Failure> {
    remove_cgroup(record, host)?;
    let later = directory.read_later()?;
    directory.remove()?;
    warn(context, later.stopped(&record.state(Status::Stopped)));
    Ok(())
}

/// Waits until a process of the group has ended.
fn wait_for_one(cgroup: &Cgroup, deadline: Instant) -> Result<(), Failure> {
    let left = deadline.saturating_duration_since(Instant::now());
    match cgroup.pids()?.into_iter().find_map(|pid| ponton_sys::pidfd::open(pid).ok()) {
        Some(process) => wait_readable(process.as_fd(), left),
        // The last one is leaving, and is no longer shown.
        None => {
            std::thread::sleep(Duration::from_millis(1));
            Ok(())
        }
    }
}

/// Removes the control group of a container that has ended.
pub(super) fn remove_cgroup(record: &Record, host: &Host) -> Result<(), Failure> {
    let Some(path) = &record.cgroup else { return Ok(()) };
    let cgroup = Cgroup::new(&host.cgroup, path);
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match cgroup.remove() {
            Err(error) if error.errno() == Some(Errno::BUSY.raw_os_error()) && Instant::now() < deadline => {
                if !record.own_pid_namespace {
                    cgroup.kill_all()?;
                }
                // Processes that were killed with their pid namespace are still going.
                wait_for_one(&cgroup, deadline)?;
            }
            other => return Ok(other?),
        }
    }
}
