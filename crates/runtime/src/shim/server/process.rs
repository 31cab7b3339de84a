//! A process and our ends of its standard streams.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use crate::shim::log::Log;
use crate::shim::protocol::{Exit, FdRole, Stdio};

use super::connection::Fds;

/// A started process, running or ended.
#[derive(Debug)]
pub(super) struct Process {
    /// The container's id.
    pub(super) container: String,
    /// The exec's id; none for the container's first process.
    pub(super) exec: Option<String>,
    pub(super) pid: u32,
    /// It is our own child, and not taken over from a dead shim.
    pub(super) is_child: bool,
    pub(super) started_at_ns: u64,
    pub(super) stdio: Stdio,
    /// None once it has ended.
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) input: Option<Input>,
    /// Standard output (or the terminal) and standard error, until their ends.
    pub(super) outputs: [Option<Output>; 2],
    pub(super) log: Option<Log>,
    /// The clients attached to it.
    pub(super) clients: Vec<u32>,
    /// Its outputs are not read, because a client is slow.
    pub(super) is_held: bool,
    pub(super) exit: Option<Exit>,
    /// The daemon's words about an exec.
    pub(super) note: String,
}

/// Our end of a standard output or terminal.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) fd: OwnedFd,
    /// It is in the set.
    pub(super) is_watched: bool,
}

/// Our end of a standard input.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) fd: OwnedFd,
    /// What the process has not taken yet. Clients' input is not read as long as there is some.
    pending: Vec<u8>,
    /// No more input comes: it is closed when everything is taken.
    pub(super) is_ending: bool,
    /// It is in the set.
    pub(super) is_watched: bool,
}

impl Input {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, pending: Vec::new(), is_ending: false, is_watched: false }
    }

    /// Writes input, now or later. False if nobody reads it any more.
    #[must_use]
    pub(super) fn write(&mut self, bytes: &[u8]) -> bool {
        if !self.pending.is_empty() {
            self.pending.extend_from_slice(bytes);
            return true;
        }
        match self.write_some(bytes) {
            Some(length) => {
                self.pending.extend_from_slice(&bytes[length..]);
                true
            }
            None => false,
        }
    }

    /// Writes what waits, as far as the process takes it. False if nobody reads it any more.
    #[must_use]
    pub(super) fn flush(&mut self) -> bool {
        let pending = std::mem::take(&mut self.pending);
        match self.write_some(&pending) {
            Some(length) => {
                self.pending = pending[length..].to_vec();
                true
            }
            None => false,
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// How much was written; none if nobody reads.
    fn write_some(&self, bytes: &[u8]) -> Option<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match rustix::io::write(&self.fd, &bytes[written..]) {
                Ok(length) => written += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return None,
            }
        }
        Some(written)
    }
}

impl Process {
    /// Whether clients' input has to wait.
    pub(super) fn input_is_blocked(&self) -> bool {
        self.input.as_ref().is_some_and(Input::is_pending)
    }

    /// Dups of everything that a successor of this shim needs; nothing once it has ended.
    pub(super) fn dups(&self) -> std::io::Result<Fds> {
        let mut fds = Fds::new();
        let mut add = |role, fd: Option<&OwnedFd>| -> std::io::Result<()> {
            if let Some(fd) = fd {
                fds.push((role, fd.as_fd().try_clone_to_owned()?));
            }
            Ok(())
        };
        add(FdRole::Pidfd, self.pidfd.as_ref())?;
        let [first, second] = &self.outputs;
        let first = first.as_ref().map(|output| &output.fd);
        if self.stdio.terminal {
            add(FdRole::Terminal, first)?;
        } else {
            if !self.stdio.stdin_once {
                add(FdRole::Stdin, self.input.as_ref().map(|input| &input.fd))?;
            }
            add(FdRole::Stdout, first)?;
            add(FdRole::Stderr, second.as_ref().map(|output| &output.fd))?;
        }
        Ok(fds)
    }
}
