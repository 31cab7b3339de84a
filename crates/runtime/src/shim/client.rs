//! The daemon's end of a connection to a shim.
//!
//! It is synchronous. An event loop puts [`Client::as_fd`] into its poller after
//! [`Client::set_nonblocking`] and uses [`Client::send`] and [`Client::try_recv`]; anything else
//! uses [`Client::call`] and [`Client::next_event`].

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ponton_sys::socket;

use super::packet::{self, Packet};
use super::protocol::{Body, Event, FDS_MAX, Failure, FdRole, FromShim, INLINE_MAX, Reply, Request, ToShim};

/// What can go wrong between the daemon and a shim.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error("{operation} shim {path}: {source}")]
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

/// The descriptors of a message, with what they are.
pub type Fds = Vec<(FdRole, OwnedFd)>;

/// A message with its descriptors.
#[derive(Debug)]
pub struct Received {
    /// The message.
    pub message: FromShim,
    /// Its descriptors.
    pub fds: Fds,
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
    /// Connects to the shim that listens on `path`, in blocking mode. No message is sent.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        match socket::connect(path) {
            Ok(fd) => Ok(Self::from_fd(fd, path)),
            Err(source) => Err(Error::Io { operation: "connect to", path: path.to_owned(), source }),
        }
    }

    /// Takes a connected `SOCK_SEQPACKET` socket; `path` is its name in errors.
    pub fn from_fd(fd: OwnedFd, path: impl Into<PathBuf>) -> Self {
        Self { fd, path: path.into(), next_id: 1, events: VecDeque::new() }
    }

    /// The shim's socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets whether [`Client::send`] and [`Client::recv`] fail instead of waiting.
    pub fn set_nonblocking(&self, nonblocking: bool) -> Result<(), Error> {
        rustix::io::ioctl_fionbio(&self.fd, nonblocking).map_err(|source| self.io("set up", source.into()))
    }

    /// Sends one request under an id that the caller chooses. In nonblocking mode a full socket
    /// is [`Error::Io`] with [`io::ErrorKind::WouldBlock`]: nothing was sent.
    pub fn send(&self, id: u64, request: &Request, fds: &[(FdRole, BorrowedFd<'_>)]) -> Result<(), Error> {
        if fds.len() > FDS_MAX {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "more than 200 descriptors");
            return Err(self.io("send to", source));
        }
        let (roles, fds): (Vec<_>, Vec<_>) = fds.iter().copied().unzip();
        let message = ToShim { id, fds: roles, request };
        Packet::encode(&message)
            .and_then(|packet| packet.send(&self.fd, &fds))
            .map_err(|source| self.io("send to", source))
    }

    /// Waits for one message.
    pub fn recv(&self) -> Result<Received, Error> {
        let mut buffer = vec![0; INLINE_MAX + 1];
        let received = match packet::receive(&self.fd, &mut buffer) {
            Ok(received) => received,
            // The shim died with something unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            Err(source) => return Err(self.io("receive from", source)),
        };
        let Some((payload, fds)) = received else {
            return Err(Error::Closed { path: self.path.clone() });
        };
        let message: FromShim =
            serde_json::from_slice(&payload).map_err(|error| self.protocol(error.to_string()))?;
        let fds = packet::name_fds(&message.fds, fds).map_err(|error| self.protocol(error.to_string()))?;
        Ok(Received { message, fds })
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
    /// [`Client::next_event`]. For the blocking mode.
    pub fn call(
        &mut self,
        request: &Request,
        fds: &[(FdRole, BorrowedFd<'_>)],
    ) -> Result<(Reply, Fds), Error> {
        let own_id = self.next_id;
        self.next_id += 1;
        self.send(own_id, request, fds)?;
        loop {
            let received = self.recv()?;
            match received.message.body {
                Body::Event { event } => self.events.push_back(event),
                Body::Reply { id, reply } if id == own_id => return Ok((reply, received.fds)),
                Body::Error { id, error } if id == own_id => return Err(error.into()),
                Body::Reply { id, .. } | Body::Error { id, .. } => {
                    return Err(self.protocol(format!("answer to request {id}, which was not made")));
                }
            }
        }
    }

    /// The next event, waited for. For the blocking mode.
    pub fn next_event(&mut self) -> Result<Event, Error> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        match self.recv()?.message.body {
            Body::Event { event } => Ok(event),
            Body::Reply { id, .. } | Body::Error { id, .. } => {
                Err(self.protocol(format!("answer to request {id}, which was not made")))
            }
        }
    }

    fn io(&self, operation: &'static str, source: io::Error) -> Error {
        Error::Io { operation, path: self.path.clone(), source }
    }

    fn protocol(&self, message: String) -> Error {
        Error::Protocol { path: self.path.clone(), message }
    }
}
