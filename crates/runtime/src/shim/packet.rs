//! Messages as packets: the encoding that both ends share.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ponton_sys::socket;
use rustix::fs::MemfdFlags;
use serde::Serialize;

use super::protocol::{IN_MEMFD, INLINE_MAX, PAYLOAD_MAX};

/// A message, ready to be sent.
#[derive(Debug)]
pub(super) struct Packet {
    payload: Vec<u8>,
    memfd: Option<OwnedFd>,
}

impl Packet {
    /// Encodes a message; a long one is put into a memfd.
    pub(super) fn encode(message: &impl Serialize) -> io::Result<Self> {
        let payload = serde_json::to_vec(message)?;
        if payload.len() <= INLINE_MAX {
            return Ok(Self { payload, memfd: None });
        }
        if payload.len() > PAYLOAD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "message is longer than 16 MiB"));
        }
        let memfd = rustix::fs::memfd_create("ponton-message", MemfdFlags::CLOEXEC)?;
        let mut rest = &payload[..];
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(&memfd, rest)?..];
        }
        Ok(Self { payload: IN_MEMFD.to_vec(), memfd: Some(memfd) })
    }

    /// Sends it with the descriptors that the message names.
    pub(super) fn send(&self, to: impl AsFd, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        match &self.memfd {
            None => socket::send_with_fds(to, &self.payload, fds),
            Some(memfd) => {
                let all: Vec<_> = std::iter::once(memfd.as_fd()).chain(fds.iter().copied()).collect();
                socket::send_with_fds(to, &self.payload, &all)
            }
        }
    }
}

/// Receives the payload of one message and the descriptors that it names; none when the other end
/// is closed. `buffer` holds more than [`INLINE_MAX`] bytes.
pub(super) fn receive(from: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let (length, mut fds) = socket::recv_with_fds(from, buffer)?;
    match &buffer[..length] {
        [] => Ok(None),
        IN_MEMFD if fds.is_empty() => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "packet without its memfd"))
        }
        IN_MEMFD => Ok(Some((read_memfd(&fds.remove(0))?, fds))),
        payload => Ok(Some((payload.to_vec(), fds))),
    }
}

fn read_memfd(memfd: &OwnedFd) -> io::Result<Vec<u8>> {
    let size = usize::try_from(rustix::fs::fstat(memfd)?.st_size).unwrap_or(usize::MAX);
    if size > PAYLOAD_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message is longer than 16 MiB"));
    }
    let mut payload = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match rustix::io::pread(memfd, &mut payload[filled..], filled as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => filled += length,
        }
    }
    Ok(payload)
}

/// Joins what a message's descriptors are with the descriptors.
pub(super) fn name_fds<R: Copy>(roles: &[R], fds: Vec<OwnedFd>) -> io::Result<Vec<(R, OwnedFd)>> {
    if roles.len() != fds.len() {
        let message = format!("message names {} descriptors and carries {}", roles.len(), fds.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(roles.iter().copied().zip(fds).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_messages_arrive_with_their_descriptors() {
        let (a, b) = socket::seqpacket_pair().unwrap();
        let mut buffer = vec![0; INLINE_MAX + 1];
        for length in [5, INLINE_MAX - 2, INLINE_MAX, 3 << 20] {
            let message = "x".repeat(length);
            Packet::encode(&message).unwrap().send(&a, &[a.as_fd()]).unwrap();
            let (payload, fds) = receive(&b, &mut buffer).unwrap().unwrap();
            assert_eq!(serde_json::from_slice::<String>(&payload).unwrap(), message);
            assert_eq!(fds.len(), 1);
        }
        assert!(Packet::encode(&"x".repeat(PAYLOAD_MAX)).is_err());
        drop(a);
        assert!(receive(&b, &mut buffer).unwrap().is_none());
    }

    #[test]
    fn a_memfd_packet_needs_its_memfd() {
        let (a, b) = socket::seqpacket_pair().unwrap();
        socket::send_with_fds(&a, IN_MEMFD, &[]).unwrap();
        let error = receive(&b, &mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
