//! A client that is attached to a process: the client's own socket, given to the shim.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ponton_sys::event::Interest;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

use crate::shim::detach::DetachKeys;
use crate::shim::log::Stream;
use crate::shim::protocol::AttachSpec;

/// How much output may wait for a client before the process has to wait too, in bytes.
pub(super) const BUFFER_MAX: usize = 1 << 20;

/// One attached client.
#[derive(Debug)]
pub(super) struct Attached {
    socket: OwnedFd,
    /// The process it is attached to.
    pub(super) process: u32,
    stdout: bool,
    stderr: bool,
    multiplexed: bool,
    /// It may send input, and has not ended its side.
    pub(super) has_input: bool,
    /// Looks for the detach keys in its input.
    pub(super) keys: DetachKeys,
    waiting: VecDeque<u8>,
    /// No more output comes: it is closed when it has everything.
    pub(super) is_ending: bool,
    /// It closed its socket; what it had sent before may still be unread.
    pub(super) is_gone: bool,
    /// What it is waited for; none when it is out of the set.
    pub(super) interest: Option<Interest>,
}

impl AsFd for Attached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Attached {
    /// A client of `process`; `has_stdin` says whether that one has an input at all.
    pub(super) fn new(socket: OwnedFd, process: u32, spec: &AttachSpec, has_stdin: bool) -> Self {
        Self {
            socket,
            process,
            stdout: spec.stdout,
            stderr: spec.stderr,
            multiplexed: spec.multiplexed,
            has_input: spec.stdin && has_stdin,
            keys: DetachKeys::new(&spec.detach_keys),
            waiting: VecDeque::new(),
            is_ending: false,
            is_gone: false,
            interest: None,
        }
    }

    /// Sends output, now or later. An error means that the client is gone.
    pub(super) fn send(&mut self, stream: Stream, chunk: &[u8]) -> io::Result<()> {
        let (wanted, number) = match stream {
            Stream::Stdout => (self.stdout, 1),
            Stream::Stderr => (self.stderr, 2),
        };
        if !wanted || self.is_ending || self.is_gone || chunk.is_empty() {
            return Ok(());
        }
        let [a, b, c, d] = (chunk.len() as u32).to_be_bytes();
        let frame = [number, 0, 0, 0, a, b, c, d];
        let header: &[u8] = if self.multiplexed { &frame } else { &[] };
        let mut sent = 0;
        if self.waiting.is_empty() {
            let both = [IoSlice::new(header), IoSlice::new(chunk)];
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::sendmsg(&self.socket, &both, &mut SendAncillaryBuffer::default(), flags) {
                Ok(length) => sent = length,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let header_sent = sent.min(header.len());
        self.waiting.extend(&header[header_sent..]);
        self.waiting.extend(&chunk[sent - header_sent..]);
        Ok(())
    }

    /// Sends what waits, as far as the client takes it. An error means that the client is gone.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            let (first, _) = self.waiting.as_slices();
            match rustix::net::send(&self.socket, first, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(length) => drop(self.waiting.drain(..length)),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.waiting = VecDeque::new();
        Ok(())
    }

    /// Forgets output that nobody will read; true if there may still be input of it.
    pub(super) fn has_left_input(&mut self) -> bool {
        self.is_gone = true;
        self.waiting = VecDeque::new();
        self.has_input && !self.is_ending
    }

    /// How many bytes of output wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Reads input: none when there is none now, 0 at its end.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> Option<usize> {
        match rustix::net::recv(&self.socket, buffer, RecvFlags::DONTWAIT) {
            Ok((length, _)) => Some(length),
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(_) => Some(0),
        }
    }

    /// Ends the connection, so that the client reads an end and no error: closing a unix socket
    /// with something unread in it would reset it.
    pub(super) fn close(self, buffer: &mut [u8]) {
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        while matches!(self.receive(buffer), Some(1..)) {}
    }
}
