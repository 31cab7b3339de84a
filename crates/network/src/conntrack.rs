//! Tracked connections, by ctnetlink (conntrack(8)).
//!
//! The kernel decides where a connection leads with its first packet. UDP has no end that it could
//! see: a client that goes on sending from one port would reach a container that is gone, or miss
//! one that has come.

use std::io;
use std::net::Ipv4Addr;

use rustix::io::Errno;

use crate::Protocol;
use crate::firewall::Forward;
use ponton_sys::netlink::{DUMP, Message, Reply, Socket, attributes};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = 1;
const DELETE: u16 = 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;

/// `struct nfgenmsg` for IPv4.
const HEADER: [u8; 4] = [2, 0, 0, 0];

/// The sender and receiver of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    destination_port: u16,
}

impl Tuple {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let find = |outer: u16, inner: u16| {
            let (_, nested) = attributes(bytes).find(|&(kind, _)| kind == outer)?;
            attributes(nested).find(|&(kind, _)| kind == inner).map(|(_, value)| value)
        };
        let address = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(find(1, kind)?).ok()?));
        Some(Self {
            source: address(1)?,
            destination: address(2)?,
            protocol: *find(2, 1)?.first()?,
            destination_port: u16::from_be_bytes(find(2, 3)?.try_into().ok()?),
        })
    }
}

/// Which connections to a port find their way anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// Those to no container: the port has just been published. What leads to its container already is no
    /// older than that, and may wait for an answer.
    Untranslated,
    /// Those to its container, which is gone.
    Translated,
}

/// Whether a connection is to one of these ports, and stale.
fn concerns(original: Tuple, reply: Tuple, forwards: &[Forward], stale: Stale) -> bool {
    let untranslated = reply.source == original.destination && reply.destination == original.source;
    original.protocol == Protocol::Udp.number()
        && forwards.iter().any(|forward| {
            let binding = &forward.binding;
            binding.protocol == Protocol::Udp
                && binding.host_port == original.destination_port
                && (binding.host_ip.is_unspecified() || binding.host_ip == original.destination)
                && match stale {
                    Stale::Untranslated => untranslated,
                    Stale::Translated => reply.source == forward.address,
                }
        })
}

/// Makes the kernel forget the UDP connections that these ports concern, so that their next packet
/// goes by the rules of that moment. Lists all connections of the host: not for where time counts.
pub(crate) fn forget(forwards: &[Forward], stale: Stale) -> io::Result<()> {
    let mut socket = Socket::open(Some(rustix::net::netlink::NETFILTER))?;
    let listed = socket.query(Message::new(SUBSYSTEM | GET, DUMP, &HEADER))?;
    for message in listed.iter().filter_map(|reply| deletion(reply, forwards, stale)) {
        match socket.request(vec![message]) {
            // It ended by itself meanwhile.
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
            other => other?,
        }
    }
    Ok(())
}

fn deletion(listed: &Reply, forwards: &[Forward], stale: Stale) -> Option<Message> {
    let body = listed.body.get(HEADER.len()..)?;
    let find = |wanted: u16| attributes(body).find(|&(kind, _)| kind == wanted).map(|(_, v)| v);
    let original = find(TUPLE_ORIGINAL)?;
    let reply = Tuple::parse(find(TUPLE_REPLY)?)?;
    concerns(Tuple::parse(original)?, reply, forwards, stale).then_some(())?;
    let message =
        Message::new(SUBSYSTEM | DELETE, 0, &HEADER).nest(TUPLE_ORIGINAL, |message| message.raw(original));
    Some(find(ID).map_or(message.clone(), |id| message.attribute(ID, id)))
}
