//! The shims of one engine: groups of containers are given to them, and the next one is started
//! before it is needed.

mod connection;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use ponton_runtime::shim::client::Client;
use ponton_runtime::shim::protocol::{self, Reply, Request, Status};
use tokio::sync::mpsc;

pub(crate) use connection::{Descriptors, Notice, Shim};

use crate::config::EngineConfig;
use crate::error::{Error, Result};

/// When fewer places than this are left, another shim is started.
const SPARE_PLACES: u32 = 16;

/// All shims.
pub(crate) struct Shims {
    directory: PathBuf,
    state_directory: PathBuf,
    /// The program, opened once: a new version on disk does not mix with this daemon.
    program: File,
    running: Mutex<Vec<Arc<Shim>>>,
    /// Held while a shim is started, so that two requests don't start two.
    starting: tokio::sync::Mutex<u32>,
    notices: mpsc::UnboundedSender<Notice>,
}

impl Shims {
    /// Opens the program, and makes the directories. No shim is started.
    pub(crate) fn open(config: &EngineConfig, notices: mpsc::UnboundedSender<Notice>) -> Result<Self> {
        let directory = config.exec_root.join("shims");
        let state_directory = config.exec_root.join("containers");
        for path in [&directory, &state_directory] {
            make_private(path)?;
        }
        let program = File::open(&config.runtime_binary).map_err(|error| {
            Error::failed(format!("open runtime {}", config.runtime_binary.display()), error)
        })?;
        Ok(Self {
            directory,
            state_directory,
            program,
            running: Mutex::default(),
            starting: tokio::sync::Mutex::new(0),
            notices,
        })
    }

    /// Where shims keep what a successor needs: `<exec-root>/containers`.
    pub(crate) fn state_directory(&self) -> &Path {
        &self.state_directory
    }

    /// Connects to the shims that an earlier daemon left, and tells which containers they hold.
    /// Sockets that nobody listens on are removed.
    pub(crate) async fn reconnect(&self) -> Result<Vec<(Arc<Shim>, Vec<Status>)>> {
        let mut found = Vec::new();
        let entries = fs::read_dir(&self.directory)
            .map_err(|error| Error::failed(format!("list {}", self.directory.display()), error))?;
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "sock") {
                continue;
            }
            let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u32>().ok()) else {
                continue;
            };
            {
                let mut last = self.starting.lock().await;
                *last = number.max(*last);
            }
            let Ok(client) = Client::connect(&path) else {
                self.clear(number);
                continue;
            };
            match self.greet(number, client).await {
                Ok((shim, _)) => match shim.call(&Request::List, &[]).await {
                    Ok((Reply::List(containers), _)) => found.push((shim, containers)),
                    Ok(_) | Err(_) => tracing::error!(shim = number, "list containers of shim"),
                },
                Err(error) => tracing::error!(%error, shim = number, "reconnect to shim"),
            }
        }
        Ok(found)
    }

    /// A place in a shim; one is started if need be.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Result<Arc<Shim>> {
        loop {
            if let Some(shim) = self.try_acquire() {
                if self.places() < SPARE_PLACES {
                    self.prepare();
                }
                return Ok(shim);
            }
            self.start_if(|shims| shims.places() == 0).await?;
        }
    }

    /// Starts a shim in the background if few places are left.
    pub(crate) fn prepare(self: &Arc<Self>) {
        let shims = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = shims.start_if(|shims| shims.places() < SPARE_PLACES).await {
                tracing::error!(%error, "prepare a shim");
            }
        });
    }

    /// Forgets a shim that is gone.
    pub(crate) fn remove(&self, number: u32) {
        self.running().retain(|shim| shim.number() != number);
        self.clear(number);
    }

    /// Lets the shims go that hold nothing; the others stay. `held` are the numbers of those.
    pub(crate) async fn retire_idle(&self, held: &[u32]) {
        let idle: Vec<_> =
            self.running().iter().filter(|shim| !held.contains(&shim.number())).cloned().collect();
        for shim in idle {
            if let Err(error) = shim.call(&Request::Retire, &[]).await {
                tracing::warn!(%error, shim = shim.number(), "retire shim");
            }
            self.remove(shim.number());
        }
    }

    fn try_acquire(&self) -> Option<Arc<Shim>> {
        // The fullest first, so that the others can empty.
        let running = self.running();
        let shim = running.iter().filter(|shim| shim.free() > 0).min_by_key(|shim| shim.free())?;
        shim.take_place().then(|| Arc::clone(shim))
    }

    fn places(&self) -> u32 {
        self.running().iter().map(|shim| shim.free()).sum()
    }

    async fn start_if(&self, wanted: impl Fn(&Self) -> bool) -> Result<()> {
        let mut last = self.starting.lock().await;
        if !wanted(self) {
            return Ok(());
        }
        *last += 1;
        let number = *last;
        let (client, child) = self.spawn(number)?;
        reap(child);
        self.greet(number, client).await?;
        Ok(())
    }

    /// Says hello; the shim is used from then on.
    async fn greet(&self, number: u32, client: Client) -> Result<(Arc<Shim>, u32)> {
        let attempted = || format!("greet shim {number}");
        let shim = Shim::adopt(number, client, self.notices.clone())
            .map_err(|error| Error::failed(attempted(), error))?;
        let hello = Request::Hello { version: protocol::VERSION };
        match shim.call(&hello, &[]).await {
            Ok((Reply::Welcome { pid, capacity, .. }, _)) => {
                shim.set_free(capacity);
                self.running().push(Arc::clone(&shim));
                Ok((shim, pid))
            }
            Ok(_) => Err(Error::internal(format!("{}: unexpected answer", attempted()))),
            Err(error) => Err(Error::failed(attempted(), error)),
        }
    }

    /// Starts the program with its listening socket as standard input, so that it can be connected
    /// to at once.
    fn spawn(&self, number: u32) -> Result<(Client, Child)> {
        let path = self.socket(number);
        let attempted = || format!("start shim {}", path.display());
        self.clear(number);
        let listener =
            ponton_sys::socket::listen(&path, 16).map_err(|error| Error::failed(attempted(), error))?;
        let log = File::create(self.log(number)).map_err(|error| Error::failed(attempted(), error))?;
        let child = Command::new(format!("/proc/self/fd/{}", self.program.as_raw_fd()))
            .arg0("ponton-runtime")
            .args(["shim", "--socket-fd", "0", "--state-dir"])
            .arg(&self.state_directory)
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::from(listener))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .process_group(0)
            .spawn()
            .map_err(|error| Error::failed(attempted(), error))?;
        let client = Client::connect(&path).map_err(|error| Error::failed(attempted(), error))?;
        Ok((client, child))
    }

    fn socket(&self, number: u32) -> PathBuf {
        self.directory.join(format!("{number}.sock"))
    }

    fn log(&self, number: u32) -> PathBuf {
        self.directory.join(format!("{number}.log"))
    }

    /// Removes the files of a shim that does not run.
    fn clear(&self, number: u32) {
        for path in [self.socket(number), self.log(number)] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, path = %path.display(), "remove");
            }
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Shim>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the shim's end, whenever that is, so that no zombie stays.
fn reap(mut child: Child) {
    let pid = child.id();
    let waited = rustix::process::Pid::from_raw(pid as i32)
        .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok())
        .and_then(|fd| crate::poll::register(fd, tokio::io::Interest::READABLE).ok());
    tokio::spawn(async move {
        if let Some(fd) = waited {
            // Readable means ended; an error leaves the zombie to the next wait.
            let _ = fd.readable().await;
        }
        match child.try_wait() {
            Ok(Some(status)) => tracing::debug!(pid, %status, "shim ended"),
            Ok(None) | Err(_) => tracing::warn!(pid, "shim could not be waited for"),
        }
    });
}

/// Makes a directory that only the daemon's user may enter.
pub(crate) fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Error::failed(format!("make directory {}", path.display()), error))
}
