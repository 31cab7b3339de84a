//! A logging service: messages for it wait in a queue, and are sent as far as the service takes them.
//!
//! Nothing here blocks. The owner watches the socket and calls [`Remote::ready`], and
//! [`Remote::retry`] when [`Remote::retry_at`] has come.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use ponton_sys::event::Interest;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::message::{self, Line};
use crate::shim::protocol::{LogAddress, LogRemote};

/// How many messages are given to one system call.
const BATCH: usize = 64;

/// A connection to a logging service.
#[derive(Debug)]
pub(crate) struct Remote {
    target: LogRemote,
    socket: Option<OwnedFd>,
    /// The socket connects yet.
    is_connecting: bool,
    /// Vain tries since the last good one.
    tries: u32,
    retry_at: Option<Instant>,
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: u64,
    /// How much of the first message was sent.
    sent: usize,
    /// Messages that were not sent and are gone, since that was last told.
    lost: u64,
    /// What the socket is watched for; none when it is not in the owner's set.
    pub(crate) interest: Option<Interest>,
}

impl Remote {
    /// A service with the socket that is connected to it, or with none.
    pub(super) fn new(target: LogRemote, socket: Option<OwnedFd>) -> Self {
        let mut remote = Self {
            target,
            socket: None,
            is_connecting: false,
            tries: 0,
            retry_at: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            sent: 0,
            lost: 0,
            interest: None,
        };
        match socket {
            Some(socket) if rustix::io::ioctl_fionbio(&socket, true).is_ok() => remote.socket = Some(socket),
            _ => remote.connect(Instant::now()),
        }
        remote
    }

    /// The socket, while there is one.
    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// What the socket is to be watched for.
    pub(crate) fn wanted(&self) -> Interest {
        let out = self.is_connecting || !self.waiting.is_empty();
        if out { Interest::IN | Interest::OUT } else { Interest::IN }
    }

    /// When a new connection is to be tried.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Whether messages wait.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether the container has to wait until the service has taken more.
    pub(crate) fn is_full(&self) -> bool {
        !self.target.lossy
            && self.socket.is_some()
            && !self.is_connecting
            && self.waiting_bytes > self.target.buffer_max_bytes
    }

    /// Adds a line. What finds no room is lost, unless the container can be made to wait.
    pub(super) fn add(&mut self, line: &Line<'_>) {
        let can_wait = !self.target.lossy && self.socket.is_some() && !self.is_connecting;
        if !can_wait && self.waiting_bytes > self.target.buffer_max_bytes {
            self.lost += 1;
            return;
        }
        let mut messages = Vec::new();
        message::put(&self.target.message, line, self.is_datagram(), &mut messages);
        for message in messages {
            self.waiting_bytes += message.len() as u64;
            self.waiting.push_back(message);
        }
    }

    /// Sends what waits, as far as the service takes it.
    pub(crate) fn flush(&mut self) {
        while !self.waiting.is_empty() && !self.is_connecting && self.socket.is_some() {
            let sent = if self.is_datagram() { self.send_datagram() } else { self.send_stream() };
            match sent {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.disconnected(&error),
            }
        }
    }

    /// Something happened to the socket.
    pub(crate) fn ready(&mut self, events: Interest) {
        let Some(socket) = &self.socket else { return };
        if self.is_connecting {
            match rustix::net::sockopt::socket_error(socket) {
                Ok(Ok(())) if events.contains(Interest::OUT) => self.connected(),
                Ok(Ok(())) => return,
                Ok(Err(error)) | Err(error) => return self.disconnected(&error.into()),
            }
        }
        if events.intersects(Interest::IN | Interest::HUP | Interest::ERR)
            && let Err(error) = self.receive()
        {
            return self.disconnected(&error);
        }
        self.flush();
    }

    /// Tries a new connection, if it is time.
    pub(crate) fn retry(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.connect(now);
            self.flush();
        }
    }

    /// How many messages were lost since the last call.
    pub(crate) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    fn is_datagram(&self) -> bool {
        matches!(self.target.address, LogAddress::Udp(_) | LogAddress::UnixDatagram(_))
    }

    fn connect(&mut self, now: Instant) {
        match connect(&self.target.address) {
            Ok((socket, is_connecting)) => {
                self.socket = Some(socket);
                self.is_connecting = is_connecting;
                if !is_connecting {
                    self.connected();
                }
            }
            Err(error) => self.failed(&error, now),
        }
    }

    fn connected(&mut self) {
        self.is_connecting = false;
        self.tries = 0;
    }

    /// The service is gone: what it had of the first message is sent again to its successor.
    fn disconnected(&mut self, error: &io::Error) {
        // Closed by the owner, who has it in a set.
        self.failed(error, Instant::now());
    }

    fn failed(&mut self, error: &io::Error, now: Instant) {
        if self.tries == 0 {
            eprintln!("shim: logging service {:?}: {error}", self.target.address);
        }
        self.socket = None;
        self.interest = None;
        self.is_connecting = false;
        self.sent = 0;
        self.tries = self.tries.saturating_add(1);
        if self.target.retries_max > 0 && self.tries > self.target.retries_max {
            self.lost += self.waiting.len() as u64;
            self.waiting.clear();
            self.waiting_bytes = 0;
        }
        self.retry_at = Some(now + Duration::from_millis(self.target.retry_delay_ms.max(10)));
    }

    /// False when the service takes no more.
    fn send_datagram(&mut self) -> io::Result<bool> {
        let (Some(socket), Some(message)) = (&self.socket, self.waiting.front()) else { return Ok(false) };
        match rustix::net::send(socket, message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            // Nobody listened a moment ago; that is how datagrams are.
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::NOBUFS) => return Ok(false),
            Err(Errno::INTR) => return Ok(true),
            Err(Errno::CONNREFUSED) if matches!(self.target.address, LogAddress::Udp(_)) => self.lost += 1,
            Err(Errno::MSGSIZE) => self.lost += 1,
            Err(error) => return Err(error.into()),
        }
        self.pop();
        Ok(true)
    }

    fn send_stream(&mut self) -> io::Result<bool> {
        let Some(socket) = &self.socket else { return Ok(false) };
        let mut parts: Vec<IoSlice<'_>> =
            self.waiting.iter().take(BATCH).map(|message| IoSlice::new(message)).collect();
        if let (Some(first), Some(message)) = (parts.first_mut(), self.waiting.front()) {
            *first = IoSlice::new(&message[self.sent..]);
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut sent = match rustix::net::sendmsg(socket, &parts, &mut SendAncillaryBuffer::default(), flags)
        {
            Ok(sent) => self.sent + sent,
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        while let Some(message) = self.waiting.front() {
            if sent < message.len() {
                break;
            }
            sent -= message.len();
            self.pop();
        }
        self.sent = sent;
        Ok(true)
    }

    fn pop(&mut self) {
        if let Some(message) = self.waiting.pop_front() {
            self.waiting_bytes -= message.len() as u64;
        }
        self.sent = 0;
    }

    /// Reads away what the service says, to see when it closes the connection.
    fn receive(&self) -> io::Result<()> {
        let mut buffer = [0u8; 4096];
        let Some(socket) = &self.socket else { return Ok(()) };
        loop {
            match rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) if !self.is_datagram() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((0, _)) | Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::CONNREFUSED) if matches!(self.target.address, LogAddress::Udp(_)) => {}
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A socket that is connected, or on its way.
fn connect(address: &LogAddress) -> io::Result<(OwnedFd, bool)> {
    let (family, kind) = match address {
        LogAddress::Udp(address) => (family(address), SocketType::DGRAM),
        LogAddress::Tcp(address) => (family(address), SocketType::STREAM),
        LogAddress::UnixDatagram(_) => (AddressFamily::UNIX, SocketType::DGRAM),
        LogAddress::UnixStream(_) => (AddressFamily::UNIX, SocketType::STREAM),
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    let connected = match address {
        LogAddress::Udp(address) | LogAddress::Tcp(address) => rustix::net::connect(&socket, address),
        LogAddress::UnixDatagram(path) | LogAddress::UnixStream(path) => {
            rustix::net::connect(&socket, &SocketAddrUnix::new(path.as_path())?)
        }
    };
    match connected {
        Ok(()) => Ok((socket, false)),
        Err(Errno::INPROGRESS) => Ok((socket, true)),
        Err(error) => Err(error.into()),
    }
}

fn family(address: &std::net::SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

#[cfg(test)]
mod tests;
