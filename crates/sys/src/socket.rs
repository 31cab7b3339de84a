//! Unix sockets that keep message boundaries and carry descriptors (unix(7), `SOCK_SEQPACKET`).
//!
//! Errors are plain [`io::Error`]s: the caller knows the peer, and needs the kind (`WouldBlock`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::process::PidfdGetfdFlags;

/// The most descriptors in one message (the kernel's `SCM_MAX_FD`).
pub const FDS_MAX: usize = 253;

/// Who is at the other end of a unix socket, as of its connect or listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Process id, in the reader's pid namespace; 0 when it is not visible there.
    pub pid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// A connected pair, close-on-exec.
pub fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Listens on `path`, which must not exist. The file's mode follows the umask.
pub fn listen(path: &Path, backlog: u16) -> io::Result<OwnedFd> {
    let socket = seqpacket()?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, i32::from(backlog))?;
    Ok(socket)
}

/// Connects to the listener at `path`, in blocking mode.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = seqpacket()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Accepts one connection: nonblocking, close-on-exec.
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
}

fn seqpacket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Sends one packet with descriptors (at most [`FDS_MAX`]). All of it is sent, or nothing. Never
/// raises `SIGPIPE`.
pub fn send_with_fds(socket: impl AsFd, payload: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(fds.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && (fds.len() > FDS_MAX || !control.push(SendAncillaryMessage::ScmRights(fds))) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(payload)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one packet with its descriptors, close-on-exec. A length of 0 means that the other end
/// is closed. A packet longer than `buffer`, or with descriptors that did not fit (the process's
/// limit), is an error of kind `InvalidData`.
pub fn recv_with_fds(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "packet or its descriptors are truncated"));
    }
    Ok((received.bytes, fds))
}

/// Who is at the other end.
pub fn peer_credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let peer = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(Credentials {
        pid: peer.pid.as_raw_nonzero().get() as u32,
        uid: peer.uid.as_raw(),
        gid: peer.gid.as_raw(),
    })
}

/// Takes a dup of a descriptor that this process inherited under the number `number`. The inherited
/// one stays open.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
    Ok(rustix::process::pidfd_getfd(own, number, PidfdGetfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_packet_carries_descriptors() {
        let (a, b) = seqpacket_pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send_with_fds(&a, b"hello", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut buffer = [0; 16];
        let (length, fds) = recv_with_fds(&b, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"hello");
        let [fd] = <[OwnedFd; 1]>::try_from(fds).unwrap();
        assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        std::fs::File::from(fd).write_all(b"through").unwrap();
        let mut text = String::new();
        std::fs::File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn truncation_is_an_error_and_closing_is_an_empty_packet() {
        let (a, b) = seqpacket_pair().unwrap();
        send_with_fds(&a, b"hello", &[]).unwrap();
        let error = recv_with_fds(&b, &mut [0; 4]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(a);
        assert_eq!(recv_with_fds(&b, &mut [0; 4]).unwrap().0, 0);
    }

    #[test]
    fn the_peer_is_known() {
        let (a, _b) = seqpacket_pair().unwrap();
        let peer = peer_credentials(&a).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
    }

    #[test]
    fn a_listener_answers() {
        let directory = std::env::temp_dir().join(format!("ponton-socket-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("s");
        let listener = listen(&path, 4).unwrap();
        let client = connect(&path).unwrap();
        let served = accept(&listener).unwrap();
        send_with_fds(&client, b"x", &[]).unwrap();
        assert_eq!(recv_with_fds(&served, &mut [0; 4]).unwrap().0, 1);
        assert_eq!(listen(&path, 4).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
