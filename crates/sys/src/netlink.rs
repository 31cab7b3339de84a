//! Netlink: messages with nested attributes, and a blocking socket (netlink(7)).
//!
//! Only the frame is known here; who speaks a protocol over it gives it its content.
//!
//! Errors are plain [`io::Error`]s: the caller knows what was asked for.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Every request has it (`NLM_F_REQUEST`).
pub const REQUEST: u16 = 0x1;
/// An answer is wanted (`NLM_F_ACK`).
pub const ACK: u16 = 0x4;
/// All objects are asked for (`NLM_F_DUMP`).
pub const DUMP: u16 = 0x300;
/// The object must not exist (`NLM_F_EXCL`).
pub const EXCLUSIVE: u16 = 0x200;
/// The object is made where it does not exist (`NLM_F_CREATE`).
pub const CREATE: u16 = 0x400;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
/// The two highest bits of an attribute's type are flags.
const TYPE_MASK: u16 = 0x3fff;

/// The kernel answers a netlink request before `send` returns; a reply that is missing after this
/// long will never come.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// One request, built attribute by attribute.
#[derive(Clone, Debug)]
pub struct Message(Vec<u8>);

impl Message {
    /// A message of this type, with its family's fixed header as `body`.
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(body);
        Self(bytes)
    }

    /// Adds an attribute.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a NUL-terminated string.
    pub fn string(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds a number in the host's byte order, as rtnetlink has them.
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network byte order, as nfnetlink has them.
    pub fn number_be(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Adds an attribute that holds what `build` adds.
    pub fn nest(mut self, kind: u16, build: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        self = build(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        self
    }

    /// Adds bytes that are no attribute (the header in front of a veth peer's attributes).
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The number of bytes so far, the header's among them.
    #[expect(clippy::len_without_is_empty, reason = "a message has its header at least")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn seal(&mut self, sequence: u32, flags: u16) {
        let length = self.0.len() as u32;
        let flags = flags | u16::from_ne_bytes([self.0[6], self.0[7]]);
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// One message of the kernel's: its type, and its bytes behind the netlink header.
#[derive(Debug)]
pub struct Reply {
    /// Its type.
    pub kind: u16,
    /// What is behind the netlink header.
    pub body: Vec<u8>,
}

/// `struct ifinfomsg` of rtnetlink(7), to set these flags (`IFF_*`) of the interface.
pub fn interface(index: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

/// The attributes in `bytes`, as (type, value). What is malformed ends them.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & TYPE_MASK, value))
    })
}

/// A netlink socket of the network namespace in which it was opened, whichever thread uses it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens a socket of `protocol` (`None` is rtnetlink) in the calling thread's network namespace.
    pub fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        sockopt::set_socket_timeout(&fd, Timeout::Recv, Some(REPLY_TIMEOUT))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Makes room for a batch of this many bytes.
    pub fn reserve(&self, bytes: usize) -> io::Result<()> {
        // The kernel counts its own book-keeping too, hence twice the size.
        if bytes * 2 > sockopt::socket_send_buffer_size(&self.fd)? {
            sockopt::set_socket_send_buffer_size_force(&self.fd, bytes * 2)?;
        }
        Ok(())
    }

    /// Sends the messages at once and waits until the kernel has carried out all of them. The error
    /// is that of the first message that failed; rtnetlink carries out those behind it all the same.
    pub fn request(&mut self, messages: Vec<Message>) -> io::Result<()> {
        let last = messages.len().saturating_sub(1);
        self.request_acknowledged_at(messages, last)
    }

    /// As `request`, where the acknowledgement is to come for the message at this place: the end of
    /// an nfnetlink batch is not acknowledged before Linux 6.10.
    pub fn request_acknowledged_at(&mut self, messages: Vec<Message>, acknowledged: usize) -> io::Result<()> {
        let first = self.send(messages, acknowledged)?;
        loop {
            for (sequence, reply) in self.receive()? {
                let place = sequence.wrapping_sub(first) as usize;
                // A number outside the batch is a late answer to an earlier one that failed.
                if reply.kind != ERROR || place > acknowledged {
                    continue;
                }
                if let Some(error) = error_of(&reply) {
                    return Err(error);
                }
                if place == acknowledged {
                    return Ok(());
                }
            }
        }
    }

    /// Sends one message that asks for something, and returns the answers.
    pub fn query(&mut self, message: Message) -> io::Result<Vec<Reply>> {
        let first = self.send(vec![message], 0)?;
        let mut replies = Vec::new();
        loop {
            for (sequence, reply) in self.receive()? {
                match reply.kind {
                    _ if sequence != first => {}
                    DONE => return Ok(replies),
                    ERROR => return error_of(&reply).map_or(Ok(replies), Err),
                    _ => replies.push(reply),
                }
            }
        }
    }

    /// Sends the messages with consecutive numbers, the first of which is returned.
    fn send(&mut self, mut messages: Vec<Message>, acknowledged: usize) -> io::Result<u32> {
        let first = self.sequence.wrapping_add(1);
        for (place, message) in messages.iter_mut().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            message.seal(self.sequence, if place == acknowledged { ACK } else { 0 });
        }
        let bytes: Vec<u8> = messages.into_iter().flat_map(|message| message.0).collect();
        retry(|| net::sendto(&self.fd, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)))?;
        Ok(first)
    }

    fn receive(&self) -> io::Result<Vec<(u32, Reply)>> {
        let mut buffer = vec![0; 32 * 1024];
        let (_, length) = retry(|| net::recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC))?;
        let mut bytes = buffer.get(..length).ok_or_else(|| io::Error::other("netlink message truncated"))?;
        let mut replies = Vec::new();
        while let Some((header, _)) = bytes.split_at_checked(HEADER) {
            let word = |at: usize| header[at..at + 4].try_into().map_or(0, u32::from_ne_bytes);
            let length = word(0) as usize;
            let Some(body) = bytes.get(HEADER..length) else { break };
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            replies.push((word(8), Reply { kind, body: body.to_vec() }));
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(replies)
    }
}

fn error_of(reply: &Reply) -> Option<io::Error> {
    let code = reply.body.get(0..4)?.try_into().map(i32::from_ne_bytes).ok()?;
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            other => return other.map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let message =
            Message::new(16, 0, &[1, 2, 3, 4]).string(3, "lo").nest(18, |m| m.number_be(1, 0x0102_0304));
        let bytes = &message.0[HEADER + 4..];
        assert_eq!(bytes.len(), 8 + 12);
        let parsed: Vec<_> = attributes(bytes).collect();
        assert_eq!(parsed[0], (3, &b"lo\0"[..]));
        assert_eq!(parsed[1].0, 18);
        let inner: Vec<_> = attributes(parsed[1].1).collect();
        assert_eq!(inner, [(1, &[1, 2, 3, 4][..])]);
    }

    #[test]
    fn malformed_attributes_end_the_iteration() {
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0, 9]).count(), 0);
        assert_eq!(attributes(&[40, 0, 1, 0, 9, 9]).count(), 0);
        assert_eq!(attributes(&[1]).count(), 0);
    }
}
