//! The daemon's end of a connection to a shim.
//!
//! It is synchronous. An event loop puts [`Client::as_fd`] into its poller after
//! [`Client::set_nonblocking`] and uses [`Client::send`] and [`Client::try_recv`]; anything else
//! uses [`Client::call`] and [`Client::next_event`].

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::protocol::{Event, Failure, FdRole, FromShim, Reply, Request};

/// What can go wrong between the daemon and a shim.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error("{operation} shim {path}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The shim's socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The other side is gone.
    #[error("shim {path} closed the connection")]
    Closed {
        /// The shim's socket.
        path: PathBuf,
    },
    /// The other side said something that is not the protocol.
    #[error("message from shim {path}: {message}")]
    Protocol {
        /// The shim's socket.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The shim refused the request.
    #[error(transparent)]
    Refused(#[from] Failure),
}

/// A message with its descriptors.
#[derive(Debug)]
pub struct Received {
    /// The message.
    pub message: FromShim,
    /// Its descriptors, with what they are.
    pub fds: Vec<(FdRole, OwnedFd)>,
}

/// A connection to a shim.
#[derive(Debug)]
pub struct Client {
    fd: OwnedFd,
    path: PathBuf,
    next_id: u64,
    events: VecDeque<Event>,
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Client {
    /// Connects to the shim that listens on `path` (blocking mode). No message is sent.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        Err(Error::Io {
            operation: "connect to",
            path: path.to_owned(),
            source: io::ErrorKind::Unsupported.into(),
        })
    }

    /// Takes a connected `SOCK_SEQPACKET` socket; `path` is its name in errors.
    pub fn from_fd(fd: OwnedFd, path: impl Into<PathBuf>) -> Self {
        Self { fd, path: path.into(), next_id: 1, events: VecDeque::new() }
    }

    /// The shim's socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets whether [`Client::send`] and [`Client::try_recv`] wait.
    pub fn set_nonblocking(&self, _nonblocking: bool) -> Result<(), Error> {
        Err(self.io("set up", io::ErrorKind::Unsupported.into()))
    }

    /// Sends one request under an id that the caller chooses. In nonblocking mode a full socket
    /// is [`Error::Io`] with [`io::ErrorKind::WouldBlock`]: nothing was sent.
    pub fn send(&self, _id: u64, _request: &Request, _fds: &[(FdRole, BorrowedFd<'_>)]) -> Result<(), Error> {
        Err(self.io("send to", io::ErrorKind::Unsupported.into()))
    }

    /// Waits for one message.
    pub fn recv(&self) -> Result<Received, Error> {
        Err(self.io("receive from", io::ErrorKind::Unsupported.into()))
    }

    /// Takes one message if there is one (in nonblocking mode; else as [`Client::recv`]).
    pub fn try_recv(&self) -> Result<Option<Received>, Error> {
        match self.recv() {
            Ok(received) => Ok(Some(received)),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a request and waits for its answer; events that come before it are kept for
    /// [`Client::next_event`].
    pub fn call(
        &mut self,
        request: &Request,
        fds: &[(FdRole, BorrowedFd<'_>)],
    ) -> Result<(Reply, Vec<(FdRole, OwnedFd)>), Error> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(id, request, fds)?;
        Err(self.io("receive from", io::ErrorKind::Unsupported.into()))
    }

    /// The next event, waited for.
    pub fn next_event(&mut self) -> Result<Event, Error> {
        match self.events.pop_front() {
            Some(event) => Ok(event),
            None => Err(self.io("receive from", io::ErrorKind::Unsupported.into())),
        }
    }

    fn io(&self, operation: &'static str, source: io::Error) -> Error {
        Error::Io { operation, path: self.path.clone(), source }
    }
}
