//! Compresses log files that are not written any more, in a process of its own, one at a time.
//!
//! A file has to lie a while before: of a container that writes much each is gone before it would have
//! been of use to compress it. Names are changed by the shim alone, so that no two ever get into each
//! other's way: the process has descriptors only.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ponton_sys as sys;
use rustix::process::Signal;

use crate::shim::log::{self, gzip};

/// How long a file lies before it is compressed.
const REST: Duration = Duration::from_secs(10);

/// What is compressed, and what will be.
#[derive(Debug, Default)]
pub(super) struct Compressor {
    waiting: Vec<Job>,
    running: Option<Running>,
}

/// The older files of a log.
#[derive(Debug)]
struct Job {
    path: PathBuf,
    max_files: u32,
    due: Instant,
}

/// A file that is being compressed.
#[derive(Debug)]
struct Running {
    job: Job,
    pid: u32,
    inode: u64,
}

impl Compressor {
    /// Compresses the older files of a log after a while.
    pub(super) fn add(&mut self, path: PathBuf, max_files: u32, now: Instant) {
        if self.waiting.iter().all(|job| job.path != path) {
            self.waiting.push(Job { path, max_files, due: now + REST });
        }
    }

    /// Whether nothing is to be done.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_none()
    }

    /// How long until something can be done.
    pub(super) fn next_due(&self, now: Instant) -> Option<Duration> {
        if self.running.is_some() {
            return None;
        }
        self.waiting.iter().map(|job| job.due.saturating_duration_since(now)).min()
    }

    /// Begins with what is due.
    pub(super) fn run(&mut self, now: Instant) {
        while self.running.is_none()
            && let Some(at) = self.waiting.iter().position(|job| job.due <= now)
        {
            let job = self.waiting.swap_remove(at);
            match start(&job) {
                Ok(Some((pid, inode))) => self.running = Some(Running { job, pid, inode }),
                Ok(None) => {}
                Err(error) => eprintln!("shim: compress log {}: {error}", job.path.display()),
            }
        }
    }

    /// A child has ended, perhaps ours.
    pub(super) fn ended(&mut self, pid: u32, is_success: bool, now: Instant) {
        let Some(Running { job, inode, .. }) = self.running.take_if(|running| running.pid == pid) else {
            return;
        };
        let done = if is_success { replace(&job, inode) } else { Err(io::Error::other("it failed")) };
        match done {
            // There may be more of them.
            Ok(()) => self.waiting.push(Job { due: now, ..job }),
            Err(error) => {
                let _ = std::fs::remove_file(temporary(&job.path));
                eprintln!("shim: compress log {}: {error}", job.path.display());
            }
        }
    }
}

/// Starts with the oldest file that is not compressed. The answer: the process, and the file's number.
fn start(job: &Job) -> io::Result<Option<(u32, u64)>> {
    let Some(source) = (1..job.max_files).rev().find_map(|number| open(&log::numbered(&job.path, number)))
    else {
        return Ok(None);
    };
    let inode = source.metadata()?.ino();
    let target =
        File::options().create(true).write(true).truncate(true).mode(0o640).open(temporary(&job.path));
    let target = match target {
        // The container is gone.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        target => target?,
    };
    match sys::clone::fork().map_err(io::Error::other)? {
        Some(pid) => Ok(Some((pid, inode))),
        None => run(&source, &target),
    }
}

/// The side of the new process. It has copies of all that the shim holds open, which must not stay so.
fn run(source: &File, target: &File) -> ! {
    let done = sys::process::close_all_but(3, &[source.as_fd(), target.as_fd()]).is_ok()
        && sys::process::reset_signals().is_ok()
        && rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_ok()
        // Everything else is more urgent.
        && rustix::process::nice(19).is_ok()
        && gzip::compress(source, target).is_ok();
    sys::process::exit_now(i32::from(!done))
}

/// Puts the compressed file in place of the one with this number, wherever that is now.
fn replace(job: &Job, inode: u64) -> io::Result<()> {
    let is_it = |path: &Path| std::fs::metadata(path).is_ok_and(|metadata| metadata.ino() == inode);
    let found = (1..job.max_files).find(|number| is_it(&log::numbered(&job.path, *number)));
    match found {
        Some(number) => {
            std::fs::rename(temporary(&job.path), log::compressed(&job.path, number))?;
            std::fs::remove_file(log::numbered(&job.path, number))
        }
        // It was too old meanwhile, or the container is gone.
        None => match std::fs::remove_file(temporary(&job.path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    }
}

fn open(path: &Path) -> Option<File> {
    File::open(path).ok()
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz.tmp");
    name.into()
}
