//! The containers of the OCI command: one directory each, below a root.
//!
//! ```text
//!   <root>/<id>/               held by flock(2) while a command changes the container
//!   <root>/<id>/config.json    the spec, as it was when the container was made
//!   <root>/<id>/state.json     the Record; until it is there, the container is being made
//!   <root>/<id>/gate           a fifo: there until the container is started
//!   <root>/<id>/report         a fifo: why it could not be started then
//!   <root>/<id>/later.json     what is to be done at its start and its end, if anything
//!   <root>/seccomp/<key>.bpf   compiled filters
//! ```

mod later;
mod lock;
mod record;

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ponton_cgroup::Cgroup;
use ponton_oci::runtime::{Spec, Status};
use ponton_sys as sys;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::host::Host;
use crate::{Error, apply, seccomp};

pub use later::Later;
pub use lock::Lock;
pub use record::{Record, Summary};

/// A command on a container failed. The words are those of runc that engines look for.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is no such container.
    #[error("container {0:?} does not exist")]
    NotFound(String),
    /// There is one already.
    #[error("container with given ID already exists: {0:?}")]
    Exists(String),
    /// The id would not be a name in a directory.
    #[error("{0:?}: invalid container ID format: letters, digits and _ + - . only")]
    InvalidId(String),
    /// Another command holds the container for too long.
    #[error("container {0:?}: another command is at work on it")]
    Busy(String),
    /// The container is not in a state to do this.
    #[error("container {id:?}: {}", refusal(attempted, *status))]
    WrongStatus {
        /// Its id.
        id: String,
        /// What it is instead.
        status: Status,
        /// What was attempted, `start` say.
        attempted: &'static str,
    },
    /// A file that is not what it should be.
    #[error("{}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where, and what.
        message: String,
    },
    /// The policy could not be compiled.
    #[error(transparent)]
    Seccomp(#[from] seccomp::Error),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] sys::Error),
    /// The container could not be started.
    #[error(transparent)]
    Start(#[from] Error),
}

/// Why a container that is `status` cannot be `attempted`.
fn refusal(attempted: &str, status: Status) -> String {
    let is = format!("{status:?}").to_lowercase();
    match (attempted, status) {
        ("start", Status::Running) => "cannot start an already running container".to_owned(),
        ("start", Status::Stopped) => "cannot start a container that has stopped".to_owned(),
        ("exec", Status::Paused) => {
            "cannot exec in a paused container (use --ignore-paused to override)".to_owned()
        }
        ("exec", _) => format!("cannot exec in a {is} container"),
        ("delete", _) => format!("cannot delete container that is not stopped: {is}"),
        ("resume", _) => "container not paused".to_owned(),
        ("pause" | "kill" | "events" | "checkpoint" | "ps" | "update", _) => {
            format!("container not running: cannot {attempted} one that is {is}")
        }
        _ => format!("cannot {attempted} a container that is {is}"),
    }
}

/// The directory of one container.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
    id: String,
}

impl Directory {
    /// The directory of `id` below `root`.
    pub fn new(root: &Path, id: &str) -> Result<Self, StateError> {
        let is_fine = |character: char| character.is_ascii_alphanumeric() || "_+-.".contains(character);
        let is_taken = id == "." || id == ".." || id == FILTERS;
        if id.is_empty() || id.len() > 1024 || is_taken || !id.chars().all(is_fine) {
            return Err(StateError::InvalidId(id.to_owned()));
        }
        Ok(Self { root: root.to_owned(), id: id.to_owned() })
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory's path.
    pub fn path(&self) -> PathBuf {
        self.root.join(&self.id)
    }

    fn gate(&self) -> PathBuf {
        self.path().join("gate")
    }

    fn record(&self) -> PathBuf {
        self.path().join("state.json")
    }

    /// Makes the directory and holds it. It must not be there, or left by a command that was killed
    /// before it had made the container.
    pub fn create(&self) -> Result<Lock, StateError> {
        let path = self.path();
        let failed = |error| sys::Error::new("mkdir", path.display(), error);
        let exists = || StateError::Exists(self.id.clone());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root).map_err(failed)?;
        let is_new = match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            other => other.map(|()| true).map_err(failed)?,
        };
        let lock = match Lock::take(&path, Duration::ZERO) {
            Err(error) if error.errno() == Some(Errno::WOULDBLOCK.raw_os_error()) => return Err(exists()),
            other => other?.ok_or_else(exists)?,
        };
        if self.record().exists() {
            return Err(exists());
        }
        if !is_new {
            self.empty()?;
        }
        Ok(lock)
    }

    /// Holds the container, once no other command does any more.
    pub fn lock(&self) -> Result<Lock, StateError> {
        match Lock::take(&self.path(), Duration::from_secs(10)) {
            Err(error) if error.errno() == Some(Errno::WOULDBLOCK.raw_os_error()) => {
                Err(StateError::Busy(self.id.clone()))
            }
            other => other?.ok_or_else(|| StateError::NotFound(self.id.clone())),
        }
    }

    /// Whether a command that was killed, or is still at work, has made the directory and no
    /// container yet.
    pub fn is_half_made(&self) -> bool {
        self.path().exists() && !self.record().exists()
    }

    /// Removes the directory. It is to be held.
    pub fn remove(&self) -> Result<(), StateError> {
        // First what says that there is a container.
        match fs::remove_file(self.record()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(sys::Error::new("remove", self.record().display(), error).into());
            }
            _ => {}
        }
        // Mostly that is all.
        let path = self.path();
        let _ = fs::remove_file(path.join("config.json"));
        if fs::remove_dir(&path).is_ok() {
            return Ok(());
        }
        Ok(fs::remove_dir_all(&path).map_err(sys::Error::of("remove", path.display()))?)
    }

    /// Removes what is in the directory.
    fn empty(&self) -> Result<(), StateError> {
        let path = self.path();
        let failed = |error| sys::Error::new("remove", path.display(), error);
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_directory = entry.file_type().map_err(failed)?.is_dir();
            let removed =
                if is_directory { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
            removed.map_err(failed)?;
        }
        Ok(())
    }

    /// Writes the record: whole, or not at all.
    pub fn write(&self, record: &Record) -> Result<(), StateError> {
        let (path, temporary) = (self.record(), self.path().join(".state.json"));
        let failed = |error| sys::Error::new("write", path.display(), error);
        let json = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
        write_file(&temporary, &json)?;
        Ok(fs::rename(&temporary, &path).map_err(failed)?)
    }

    /// Reads the record.
    pub fn read(&self) -> Result<Record, StateError> {
        let path = self.record();
        match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json)
                .map_err(|error| StateError::Parse { path, message: error.to_string() }),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(StateError::NotFound(self.id.clone())),
            Err(error) => Err(sys::Error::new("read", path.display(), error).into()),
        }
    }

    /// Keeps the spec: changes to the bundle's after this don't count (runtime.md, "Lifecycle").
    pub fn write_spec(&self, json: &[u8]) -> Result<(), StateError> {
        Ok(write_file(&self.path().join("config.json"), json)?)
    }

    /// The spec that the container was made from.
    pub fn read_spec(&self) -> Result<Spec, StateError> {
        let path = self.path().join("config.json");
        parse_spec(&path, &read_file(&path)?)
    }

    fn report(&self) -> PathBuf {
        self.path().join("report")
    }

    /// Makes the gate that a created container waits at, and the pipe on which it then tells why it
    /// cannot execute its program; opens both.
    pub fn make_gate(&self) -> Result<(OwnedFd, OwnedFd), StateError> {
        let gate = make_fifo(&self.gate(), OFlags::RDWR)?;
        // A fifo without a reader is not opened for writing.
        let reader = make_fifo(&self.report(), OFlags::RDONLY | OFlags::NONBLOCK)?;
        let report = open_fifo(&self.report(), OFlags::WRONLY)?;
        drop(reader);
        Ok((gate, report))
    }

    /// Lets a created container go. Blocks until it executes its program, or cannot.
    pub fn open_gate(&self) -> Result<(), StateError> {
        let path = self.gate();
        let report = open_fifo(&self.report(), OFlags::RDONLY | OFlags::NONBLOCK)?;
        rustix::io::ioctl_fionbio(&report, false).map_err(sys::Error::of("fcntl", "report"))?;
        let gate = open_fifo(&path, OFlags::RDWR)?;
        let failed = |error| sys::Error::new("write", path.display(), error);
        rustix::io::write(&gate, b"0").map_err(|errno| failed(errno.into()))?;
        // The child reads what is in the fifo as long as it has it open.
        fs::remove_file(&path).map_err(failed)?;
        Ok(apply::await_program(report)?)
    }

    /// Keeps what is to be done later, if anything.
    pub fn write_later(&self, later: &Later) -> Result<(), StateError> {
        later.write(&self.path())
    }

    /// What is to be done later.
    pub fn read_later(&self) -> Result<Later, StateError> {
        Later::read(&self.path())
    }

    /// The container's status, by its process, its gate and its control group.
    pub fn status(&self, record: &Record, host: &Host) -> Status {
        if started_ticks(record.pid) != Some(record.pid_started_ticks) {
            return Status::Stopped;
        }
        let cgroup = record.cgroup.as_deref().map(|path| Cgroup::new(&host.cgroup, path));
        if cgroup.is_some_and(|cgroup| cgroup.is_frozen().unwrap_or(false)) {
            return Status::Paused;
        }
        if self.gate().exists() { Status::Created } else { Status::Running }
    }

    /// The ids below `root`.
    pub fn list(root: &Path) -> Result<Vec<String>, StateError> {
        let entries = match fs::read_dir(root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(sys::Error::new("read", root.display(), error).into()),
        };
        let mut ids: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.path().join("state.json").exists())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        ids.sort();
        Ok(ids)
    }
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), sys::Error> {
    let failed = |error| sys::Error::new("write", path.display(), error);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(content).map_err(failed)
}

fn make_fifo(path: &Path, flags: OFlags) -> Result<OwnedFd, StateError> {
    rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .map_err(sys::Error::of("mkfifo", path.display()))?;
    open_fifo(path, flags)
}

fn open_fifo(path: &Path, flags: OFlags) -> Result<OwnedFd, StateError> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| sys::Error::new("open", path.display(), errno).into())
}

/// The directory of compiled filters, which therefore is no container's.
const FILTERS: &str = "seccomp";

/// Where the compiled filters of the containers below `root` are.
pub fn filters(root: &Path) -> PathBuf {
    root.join(FILTERS)
}

/// Reads a file whole; the error names it.
pub fn read_file(path: &Path) -> Result<Vec<u8>, StateError> {
    Ok(fs::read(path).map_err(sys::Error::of("read", path.display()))?)
}

/// The spec that the file `path` holds.
pub fn parse_spec(path: &Path, json: &[u8]) -> Result<Spec, StateError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let refused = |message| StateError::Parse { path: path.to_owned(), message };
    let spec =
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| refused(error.to_string()))?;
    deserializer.end().map_err(|error| refused(error.to_string()))?;
    Ok(spec)
}

/// When a process began, in clock ticks since boot (proc_pid_stat(5), field 22). None for one that
/// has ended, reaped or not.
pub fn started_ticks(pid: u32) -> Option<u64> {
    let stat = sys::file::read_text(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Sends a signal to the first process of a container.
pub fn kill(record: &Record, signal: i32) -> Result<(), StateError> {
    let stopped =
        || StateError::WrongStatus { id: record.id.clone(), status: Status::Stopped, attempted: "kill" };
    let is_gone = |error: &sys::Error| error.errno() == Some(Errno::SRCH.raw_os_error());
    let gone_or = |error: sys::Error| if is_gone(&error) { stopped() } else { error.into() };
    let pidfd = sys::pidfd::open(record.pid).map_err(gone_or)?;
    if started_ticks(record.pid) != Some(record.pid_started_ticks) {
        return Err(stopped());
    }
    sys::pidfd::send_signal(pidfd.as_fd(), signal).map_err(gone_or)
}
