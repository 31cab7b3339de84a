//! The container's word that it is ready (sd_notify(3)): a socket of its own is mounted into it, and
//! what it says there is handed on to the caller's `NOTIFY_SOCKET`.

use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;

use ponton_oci::runtime::{Mount, Spec};
use ponton_runtime::state::{self, Directory, Record};
use rustix::event::{PollFd, PollFlags, poll};

use super::Failure;

/// Where the container sees its socket's directory.
const INSIDE: &str = "/run/notify";

/// The two sockets.
#[derive(Debug)]
pub(super) struct Notify {
    /// The directory on the host that is mounted.
    directory: PathBuf,
    /// The caller's socket; one that begins with `@` has no file.
    target: String,
    listener: OnceCell<UnixDatagram>,
}

impl Notify {
    /// None if the caller does not wait for a word.
    pub(super) fn from_environment(directory: &Directory) -> Option<Self> {
        let target = std::env::var("NOTIFY_SOCKET").ok().filter(|target| !target.is_empty())?;
        Some(Self { directory: directory.path().join("notify"), target, listener: OnceCell::new() })
    }

    /// Whether the container was made with it.
    pub(super) fn is_mounted(&self) -> bool {
        self.directory.exists()
    }

    /// Shows the container its socket.
    pub(super) fn add_to(&self, spec: &mut Spec) {
        let options = ["bind", "nosuid", "noexec", "nodev", "ro"];
        spec.mounts.push(Mount {
            destination: INSIDE.to_owned(),
            r#type: "bind".to_owned(),
            source: self.directory.display().to_string(),
            options: options.map(String::from).into(),
            ..Mount::default()
        });
        if let Some(process) = &mut spec.process {
            process.env.retain(|variable| !variable.starts_with("NOTIFY_SOCKET="));
            process.env.push(format!("NOTIFY_SOCKET={INSIDE}/notify.sock"));
        }
    }

    /// Listens. Once more replaces the socket of a command that has ended.
    pub(super) fn listen(&self) -> Result<(), Failure> {
        let path = self.directory.join("notify.sock");
        let failed = |error: io::Error| format!("listen on {}: {error}", path.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.directory).map_err(failed)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error).into()),
            _ => {}
        }
        let socket = UnixDatagram::bind(&path).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        // The container's user need not be root.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).map_err(failed)?;
        // There is one already only if it was listened twice.
        let _ = self.listener.set(socket);
        Ok(())
    }

    /// The socket that it listens on.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.listener.get().map(AsFd::as_fd)
    }

    /// Hands on what the container has said. True once it is ready: `pid` is told as the service's
    /// main process then.
    pub(super) fn hand_on(&self, pid: u32) -> Result<bool, Failure> {
        let mut buffer = [0; 4096];
        let mut is_ready = false;
        while let Some(Ok(length)) = self.listener.get().map(|socket| socket.recv(&mut buffer)) {
            // What else it says is about processes that have other numbers here.
            for line in buffer[..length].split(|byte| *byte == b'\n') {
                if line == b"READY=1" {
                    self.send(format!("READY=1\nMAINPID={pid}\n").as_bytes())?;
                    is_ready = true;
                } else if line.starts_with(b"STATUS=") {
                    self.send(line)?;
                }
            }
        }
        Ok(is_ready)
    }

    fn send(&self, message: &[u8]) -> Result<(), Failure> {
        let failed = |error: io::Error| format!("tell NOTIFY_SOCKET {}: {error}", self.target);
        let address = match self.target.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&self.target),
        };
        let socket = UnixDatagram::unbound().map_err(failed)?;
        Ok(socket.send_to_addr(message, &address.map_err(failed)?).map(drop).map_err(failed)?)
    }

    /// Waits until the container is ready, or has ended.
    pub(super) fn wait_until_ready(&self, record: &Record) -> Result<(), Failure> {
        let Ok(pidfd) = ponton_sys::pidfd::open(record.pid) else { return Ok(()) };
        while state::started_ticks(record.pid) == Some(record.pid_started_ticks) {
            let Some(socket) = self.socket() else { return Ok(()) };
            let mut fds =
                [PollFd::from_borrowed_fd(socket, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
            rustix::io::retry_on_intr(|| poll(&mut fds, None)).map_err(|errno| format!("poll: {errno}"))?;
            if self.hand_on(record.pid)? {
                break;
            }
        }
        Ok(())
    }
}
