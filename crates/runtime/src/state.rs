//! The containers of the OCI command: one directory each, below a root.
//!
//! ```text
//!   <root>/<id>/state.json    the Record
//!   <root>/<id>/gate          a fifo: there until the container is started
//!   <root>/seccomp/<key>.bpf  compiled filters
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ponton_cgroup::Cgroup;
use ponton_oci::runtime::{Spec, State, Status, VERSION};
use ponton_sys as sys;
use rustix::fs::{FileType, Mode};
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::plan::{self, Plan, PlanInput, ProcessInput};
use crate::{Error, seccomp};

/// What is kept about a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// The directory of its bundle.
    pub bundle: PathBuf,
    /// The process id of its first process.
    pub pid: u32,
    /// When that process began, in the kernel's clock ticks: with the id it is one process for good.
    pub pid_started_ticks: u64,
    /// The path of its control group.
    pub cgroup: Option<String>,
    /// The annotations of its spec.
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// A command on a container failed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is no such container.
    #[error("container {0:?} does not exist")]
    NotFound(String),
    /// There is one already.
    #[error("container {0:?} exists already")]
    Exists(String),
    /// The id would not be a name in a directory.
    #[error("{0:?} is not an id: letters, digits and _ + - . only")]
    InvalidId(String),
    /// The container is not in a state to do this.
    #[error("container {id:?} is {status:?}")]
    WrongStatus {
        /// Its id.
        id: String,
        /// What it is instead.
        status: Status,
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
        if id.is_empty() || id.len() > 1024 || id == "." || id == ".." || !id.chars().all(is_fine) {
            return Err(StateError::InvalidId(id.to_owned()));
        }
        Ok(Self { root: root.to_owned(), id: id.to_owned() })
    }

    fn path(&self) -> PathBuf {
        self.root.join(&self.id)
    }

    fn gate(&self) -> PathBuf {
        self.path().join("gate")
    }

    /// Makes the directory; it must not be there.
    pub fn create(&self) -> Result<(), StateError> {
        let path = self.path();
        let failed = |error| sys::Error::new("mkdir", path.display(), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root).map_err(failed)?;
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(StateError::Exists(self.id.clone()))
            }
            other => Ok(other.map_err(failed)?),
        }
    }

    /// Removes the directory.
    pub fn remove(&self) -> Result<(), StateError> {
        let path = self.path();
        Ok(fs::remove_dir_all(&path).map_err(sys::Error::of("remove", path.display()))?)
    }

    /// Writes the record: whole, or not at all.
    pub fn write(&self, record: &Record) -> Result<(), StateError> {
        let (path, temporary) = (self.path().join("state.json"), self.path().join(".state.json"));
        let failed = |error| sys::Error::new("write", path.display(), error);
        let json = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&temporary).map_err(failed)?;
        file.write_all(&json).map_err(failed)?;
        Ok(fs::rename(&temporary, &path).map_err(failed)?)
    }

    /// Reads the record.
    pub fn read(&self) -> Result<Record, StateError> {
        let path = self.path().join("state.json");
        match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json)
                .map_err(|error| StateError::Parse { path, message: error.to_string() }),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(StateError::NotFound(self.id.clone())),
            Err(error) => Err(sys::Error::new("read", path.display(), error).into()),
        }
    }

    /// Makes the gate that a created container waits at, and opens it.
    pub fn make_gate(&self) -> Result<OwnedFd, StateError> {
        let path = self.gate();
        let failed = |errno| sys::Error::new("mkfifo", path.display(), errno);
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .map_err(failed)?;
        let gate = OpenOptions::new().read(true).write(true).open(&path);
        Ok(gate.map_err(sys::Error::of("open", path.display()))?.into())
    }

    /// Lets a created container go.
    pub fn open_gate(&self) -> Result<(), StateError> {
        let path = self.gate();
        let failed = |error| sys::Error::new("open", path.display(), error);
        let mut gate = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        gate.write_all(b"0").map_err(failed)?;
        // The child reads what is in the fifo as long as it has it open.
        Ok(fs::remove_file(&path).map_err(failed)?)
    }

    /// The container's status, by its process, its gate and its control group.
    pub fn status(&self, record: &Record, host: &Host) -> Status {
        if started_ticks(record.pid) != Some(record.pid_started_ticks) {
            return Status::Stopped;
        }
        if self.gate().exists() {
            return Status::Created;
        }
        let cgroup = record.cgroup.as_deref().map(|path| Cgroup::new(&host.cgroup, path));
        if cgroup.is_some_and(|cgroup| cgroup.is_frozen().unwrap_or(false)) {
            return Status::Paused;
        }
        Status::Running
    }

    /// The container's state as the specification has it.
    pub fn state(&self, host: &Host) -> Result<State, StateError> {
        let record = self.read()?;
        let status = self.status(&record, host);
        Ok(State {
            oci_version: VERSION.to_owned(),
            id: record.id,
            status,
            pid: (status != Status::Stopped).then_some(record.pid as i32),
            bundle: record.bundle.display().to_string(),
            annotations: record.annotations,
        })
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

    /// The plan of a bundle.
    pub fn plan(&self, bundle: &Path, spec: &Spec, host: &Host) -> Result<Plan, StateError> {
        let policy = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
        let filter = policy.map(|policy| seccomp::cache(&self.root.join("seccomp"), policy)).transpose()?;
        let process = ProcessInput {
            user: None,
            seccomp: filter.as_deref(),
            seccomp_flags: policy.map_or(&[], |policy| &policy.flags),
        };
        let input = PlanInput { id: &self.id, bundle: Some(bundle), rootfs: &[], process, ..PlanInput::default() };
        Ok(plan::plan(spec, host, &input).map_err(Error::from)?)
    }
}

/// Reads the spec of a bundle.
pub fn read_spec(bundle: &Path) -> Result<Spec, StateError> {
    let path = bundle.join("config.json");
    let file = File::open(&path).map_err(sys::Error::of("open", path.display()))?;
    let mut deserializer = serde_json::Deserializer::from_reader(std::io::BufReader::new(file));
    serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| StateError::Parse { path, message: error.to_string() })
}

/// When a process began, in clock ticks since boot (proc_pid_stat(5), field 22).
pub fn started_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Sends a signal to the first process of a container.
pub fn kill(record: &Record, signal: i32) -> Result<(), StateError> {
    let pidfd = sys::pidfd::open(record.pid)?;
    if started_ticks(record.pid) != Some(record.pid_started_ticks) {
        return Err(StateError::WrongStatus { id: record.id.clone(), status: Status::Stopped });
    }
    Ok(sys::pidfd::send_signal(pidfd.as_fd(), signal)?)
}
