//! Moves network devices of the host into a container (config-linux.md, "Network Devices"), by
//! rtnetlink(7).
//!
//! A device loses its addresses and its state when it changes its namespace: those that were given
//! for good and are of global scope are given to it again, and it is set up. When the container
//! ends, the kernel gives a physical device back to the host, and removes a virtual one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use ponton_sys as sys;
use ponton_sys::namespace::{self, Kinds};
use ponton_sys::netlink::{CREATE, DUMP, EXCLUSIVE, Message, Reply, Socket, attributes, interface};
use rustix::io::Errno;

use crate::plan::NetDevicePlan;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_LOCAL: u16 = 2;
const IFA_ADDRESS: u16 = 1;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RT_SCOPE_UNIVERSE: u8 = 0;

/// Moves devices from our network namespace to that of a process. The calling process must have one
/// thread; it is in its own namespace again when this returns.
pub(crate) fn move_all(devices: &[NetDevicePlan], process: BorrowedFd<'_>) -> Result<(), sys::Error> {
    let mut host = Socket::open(None).map_err(sys::Error::of("open", "netlink socket"))?;
    let (netns, mut container) = enter(process)?;
    for device in devices {
        move_one(device, &mut host, &mut container, &netns).map_err(|error| {
            let what = format!("{} to {} of the container", device.host, device.name);
            sys::Error::new("move network device", what, error)
        })?;
    }
    Ok(())
}

/// The network namespace of a process, and a socket in it.
fn enter(process: BorrowedFd<'_>) -> Result<(OwnedFd, Socket), sys::Error> {
    let own = namespace::own("net")?;
    namespace::join(process, Kinds::NETWORK)?;
    let entered = namespace::own("net")
        .and_then(|netns| Ok((netns, Socket::open(None).map_err(sys::Error::of("open", "netlink socket"))?)));
    namespace::join(own.as_fd(), Kinds::NETWORK)?;
    entered
}

fn move_one(
    device: &NetDevicePlan,
    host: &mut Socket,
    container: &mut Socket,
    netns: &OwnedFd,
) -> io::Result<()> {
    let index = find(host, &device.host)?.ok_or(Errno::NODEV)?;
    let is_template = device.name.contains('%');
    // The kernel would find that out when the device has been moved already.
    if !is_template && find(container, &device.name)?.is_some() {
        return Err(Errno::EXIST.into());
    }
    let addresses = addresses(host, index)?;
    // No flag is changed: the kernel sets it down itself, if it can be moved.
    let moved = Message::new(RTM_NEWLINK, 0, &interface(index, 0))
        .attribute(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes())
        .string(IFLA_IFNAME, &device.name);
    // What a template has become is known by what was not there before.
    let there = if is_template { indexes(container)? } else { Vec::new() };
    host.request(vec![moved])?;
    let index = if is_template {
        let now = indexes(container)?;
        now.into_iter().find(|index| !there.contains(index)).ok_or(io::ErrorKind::NotFound)?
    } else {
        find(container, &device.name)?.ok_or(Errno::NODEV)?
    };
    for address in &addresses {
        container.request(vec![address.message(index)])?;
    }
    container.request(vec![Message::new(RTM_NEWLINK, 0, &interface(index, IFF_UP))])
}

fn index_of(reply: &Reply) -> Option<u32> {
    Some(u32::from_ne_bytes(reply.body.get(4..8)?.try_into().ok()?))
}

/// The index of the device of this name.
fn find(socket: &mut Socket, name: &str) -> io::Result<Option<u32>> {
    let message = Message::new(RTM_GETLINK, 0, &[0; 16]).string(IFLA_IFNAME, name);
    match socket.query(message) {
        Ok(replies) => Ok(replies.iter().find_map(index_of)),
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

fn indexes(socket: &mut Socket) -> io::Result<Vec<u32>> {
    Ok(socket.query(Message::new(RTM_GETLINK, DUMP, &[0; 16]))?.iter().filter_map(index_of).collect())
}

/// An address that a device was given.
#[derive(Debug)]
struct Address {
    family: u8,
    prefix: u8,
    peer: Vec<u8>,
    local: Option<Vec<u8>>,
    broadcast: Option<Vec<u8>>,
}

impl Address {
    /// From `struct ifaddrmsg` and its attributes: one given for good, of global scope.
    fn of(reply: &Reply, index: u32) -> Option<Self> {
        let &[family, prefix, _, scope, a, b, c, d] = reply.body.first_chunk::<8>()?;
        let rest = reply.body.get(8..)?;
        let find = |kind| attributes(rest).find(|(found, _)| *found == kind).map(|(_, value)| value.to_vec());
        let flags = find(IFA_FLAGS)?.try_into().map(u32::from_ne_bytes).ok()?;
        let is_wanted = u32::from_ne_bytes([a, b, c, d]) == index
            && scope == RT_SCOPE_UNIVERSE
            && flags & IFA_F_PERMANENT != 0
            && matches!(family, AF_INET | AF_INET6);
        let (local, broadcast) = (find(IFA_LOCAL), find(IFA_BROADCAST));
        let peer = find(IFA_ADDRESS).or_else(|| local.clone());
        is_wanted.then_some(Self { family, prefix, peer: peer?, local, broadcast })
    }

    fn message(&self, index: u32) -> Message {
        let mut header = [self.family, self.prefix, 0, RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        let mut message =
            Message::new(RTM_NEWADDR, CREATE | EXCLUSIVE, &header).attribute(IFA_ADDRESS, &self.peer);
        for (kind, value) in [(IFA_LOCAL, &self.local), (IFA_BROADCAST, &self.broadcast)] {
            if let Some(value) = value {
                message = message.attribute(kind, value);
            }
        }
        message
    }
}

fn addresses(socket: &mut Socket, index: u32) -> io::Result<Vec<Address>> {
    let replies = socket.query(Message::new(RTM_GETADDR, DUMP, &[0; 8]))?;
    Ok(replies.iter().filter_map(|reply| Address::of(reply, index)).collect())
}
