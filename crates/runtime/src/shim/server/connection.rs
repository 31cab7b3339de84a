//! A control connection: a daemon.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::shim::packet::Packet;
use crate::shim::protocol::{Body, FdRole, FromShim};

/// How many messages may wait for a daemon that doesn't read.
const QUEUE_MAX: usize = 16 << 10;

/// Descriptors of a message, with what they are.
pub(super) type Fds = Vec<(FdRole, OwnedFd)>;

/// One daemon. It never blocks the shim: what it doesn't take at once waits here.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    waiting: VecDeque<(Packet, Vec<OwnedFd>)>,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Connection {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, waiting: VecDeque::new() }
    }

    /// Sends a message, now or later. An error means that the connection is of no more use.
    pub(super) fn send(&mut self, body: Body, fds: Fds) -> io::Result<()> {
        let (roles, fds): (Vec<_>, Vec<_>) = fds.into_iter().unzip();
        let packet = Packet::encode(&FromShim { fds: roles, body })?;
        if self.waiting.len() >= QUEUE_MAX {
            return Err(io::Error::other("daemon does not read"));
        }
        self.waiting.push_back((packet, fds));
        self.flush()
    }

    /// Sends what waits, as far as the daemon takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some((packet, fds)) = self.waiting.front() {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match packet.send(&self.socket, &fds) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether something waits to be sent.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}
