//! Pseudo-terminals (pty(7)).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

/// The two sides of a new terminal, both close-on-exec.
#[derive(Debug)]
pub struct Terminal {
    /// The side that shows what the programs write, and types what they read. Nonblocking.
    pub master: OwnedFd,
    /// The programs' side.
    pub peer: OwnedFd,
}

/// Opens a terminal in the caller's devpts. The peer is opened through the master (`TIOCGPTPEER`),
/// so that no path is followed.
pub fn open() -> io::Result<Terminal> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    from_master(rustix::pty::openpt(flags)?)
}

/// Opens the other side of a `ptmx` that was opened in some devpts, and makes the master nonblocking
/// and close-on-exec.
pub fn from_master(master: OwnedFd) -> io::Result<Terminal> {
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let peer = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    rustix::io::fcntl_setfd(&master, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&master, true)?;
    Ok(Terminal { master, peer })
}

/// Sets the size in characters; the foreground process group gets `SIGWINCH` when it changes.
pub fn set_size(terminal: impl AsFd, rows: u16, cols: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// The size in characters: rows, columns.
pub fn size(terminal: impl AsFd) -> io::Result<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(terminal)?;
    Ok((size.ws_row, size.ws_col))
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags};

    use super::*;

    #[test]
    fn a_terminal_has_two_sides_and_a_size() {
        let terminal = open().unwrap();
        set_size(&terminal.master, 24, 80).unwrap();
        assert_eq!(size(&terminal.peer).unwrap(), (24, 80));
        rustix::io::write(&terminal.peer, b"out\n").unwrap();
        let mut buffer = [0; 16];
        let mut text = Vec::new();
        // The kernel hands on what is written later, and in pieces.
        while !text.ends_with(b"\n") {
            let mut ready = [PollFd::new(&terminal.master, PollFlags::IN)];
            rustix::event::poll(&mut ready, None).unwrap();
            let length = rustix::io::read(&terminal.master, &mut buffer).unwrap();
            text.extend_from_slice(&buffer[..length]);
        }
        assert_eq!(text, b"out\r\n");
        let empty = rustix::io::read(&terminal.master, &mut buffer);
        assert_eq!(empty, Err(rustix::io::Errno::AGAIN));
    }
}
