//! Terminals of containers: one of the container's own devpts, whose master side is sent to whoever
//! listens on a socket, or kept to be relayed.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use ponton_oci::runtime::ConsoleSize;
use ponton_runtime::apply::Stdio;
use ponton_sys::pty::{self, Terminal};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};

use super::{Failure, own_stdio};

/// How a process is connected.
pub(super) enum Console {
    /// To our own standard streams.
    None,
    /// To a terminal whose master is sent away.
    Sent(Terminal, OwnedFd),
    /// To a terminal whose master stays with us.
    Kept(Terminal),
}

/// What the command line and the spec say about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// The process has a terminal.
    pub(super) terminal: bool,
    /// Its size.
    pub(super) size: Option<ConsoleSize>,
    /// The socket that waits for its master.
    pub(super) socket: Option<&'a Path>,
    /// We don't stay.
    pub(super) detach: bool,
}

impl Wanted<'_> {
    /// Says no to what cannot be, before anything is made.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match (self.terminal, self.detach, self.socket) {
            (true, true, None) => {
                Err("cannot allocate tty if the runtime will detach without setting console socket".into())
            }
            (false, _, Some(_)) | (_, false, Some(_)) => {
                Err("cannot use console socket if the runtime will not detach or allocate tty".into())
            }
            _ => Ok(()),
        }
    }

    /// Makes the terminal in the devpts of `master`, or in ours where the container has none.
    pub(super) fn open(
        &self,
        master: impl FnOnce() -> Result<Option<OwnedFd>, ponton_runtime::Error>,
    ) -> Result<Console, Failure> {
        if !self.terminal {
            return Ok(Console::None);
        }
        let socket = self.socket.map(connect).transpose()?;
        let terminal = match master()? {
            Some(master) => pty::from_master(master),
            None => pty::open(),
        };
        let terminal = terminal.map_err(|error| format!("open a terminal: {error}"))?;
        let side = |length: u32| u16::try_from(length).unwrap_or(u16::MAX);
        let size = self.size.map(|size| (side(size.height), side(size.width)));
        // One that stays is as large as our own before the program looks at it.
        let own = || pty::size(std::io::stdin()).ok().filter(|_| socket.is_none());
        if let Some((rows, columns)) = own().or(size) {
            pty::set_size(&terminal.master, rows, columns)?;
        }
        Ok(match socket {
            Some(socket) => Console::Sent(terminal, socket),
            None => Console::Kept(terminal),
        })
    }
}

impl Console {
    /// The process's standard streams.
    pub(super) fn stdio<T>(&self, with: impl FnOnce(&Stdio<'_>) -> T) -> T {
        match self {
            Self::None => own_stdio(with),
            Self::Sent(Terminal { peer, .. }, _) | Self::Kept(Terminal { peer, .. }) => {
                with(&Stdio { stdin: peer.as_fd(), stdout: peer.as_fd(), stderr: peer.as_fd() })
            }
        }
    }

    /// Sends the master away, or gives it back to be relayed. The programs' side is closed.
    pub(super) fn finish(self) -> Result<Option<OwnedFd>, Failure> {
        match self {
            Self::None => Ok(None),
            Self::Kept(terminal) => Ok(Some(terminal.master)),
            Self::Sent(terminal, socket) => {
                // Whoever gets it decides how it reads.
                rustix::io::ioctl_fionbio(&terminal.master, false)?;
                send(&socket, &terminal.master).map_err(|error| format!("send the terminal: {error}"))?;
                Ok(None)
            }
        }
    }
}

/// Connects to the listener at `path`, in blocking mode.
fn connect(path: &Path) -> Result<OwnedFd, Failure> {
    let failed = |error: io::Error| format!("connect to the console socket {}: {error}", path.display());
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|errno| failed(errno.into()))?;
    let connected = SocketAddrUnix::new(path).and_then(|address| rustix::net::connect(&socket, &address));
    connected.map_err(|errno| failed(errno.into()))?;
    Ok(socket)
}

/// Sends a descriptor; the bytes with it are a name that nobody reads.
fn send(socket: &OwnedFd, master: &OwnedFd) -> io::Result<()> {
    let fds = [master.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(b"/dev/ptmx")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
