//! Links, addresses and routes, by rtnetlink (rtnetlink(7)).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::{MacAddress, Subnet};
use ponton_sys::netlink::{CREATE, DUMP, EXCLUSIVE, Message, Reply, Socket, attributes, interface};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_HAIRPIN: u16 = 4;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const VETH_INFO_PEER: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_DST: u16 = 1;
const RTA_GATEWAY: u16 = 5;

const AF_INET: u8 = 2;
const AF_INET6: u16 = 10;
const IFF_UP: u32 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;

/// The interface `lo` is the first of every namespace.
const LOOPBACK_INDEX: u32 = 1;

/// A link, as `RTM_GETLINK` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// The bridge it is a port of; 0 for none.
    pub(crate) master: u32,
    pub(crate) up: bool,
}

fn link_of(reply: &Reply) -> Option<Link> {
    let body = reply.body.get(16..)?;
    let word = |at: usize| Some(u32::from_ne_bytes(reply.body.get(at..at + 4)?.try_into().ok()?));
    let find = |kind| attributes(body).find(|&(k, _)| k == kind).map(|(_, value)| value);
    let name = find(IFLA_IFNAME)?.split(|&byte| byte == 0).next()?;
    let master = find(IFLA_MASTER).and_then(|value| value.try_into().ok());
    Some(Link {
        index: word(4)?,
        name: String::from_utf8_lossy(name).into_owned(),
        master: master.map_or(0, u32::from_ne_bytes),
        up: word(8)? & IFF_UP != 0,
    })
}

/// The link of this name.
pub(crate) fn find(socket: &mut Socket, name: &str) -> io::Result<Option<Link>> {
    let message = Message::new(RTM_GETLINK, 0, &interface(0, 0))
        .string(IFLA_IFNAME, name)
        .number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    match socket.query(message) {
        Ok(replies) => Ok(replies.iter().find_map(link_of)),
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The ports of the bridge with this index.
pub(crate) fn ports(socket: &mut Socket, bridge: u32) -> io::Result<Vec<Link>> {
    let message = Message::new(RTM_GETLINK, DUMP, &interface(0, 0))
        .number(IFLA_MASTER, bridge)
        .number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    let replies = socket.query(message)?;
    // A kernel that does not filter lists all.
    Ok(replies.iter().filter_map(link_of).filter(|link| link.master == bridge).collect())
}

/// The destinations of all IPv4 routes but the default one.
pub(crate) fn routes(socket: &mut Socket) -> io::Result<Vec<Subnet>> {
    let mut body = [0; 12];
    body[0] = AF_INET;
    let replies = socket.query(Message::new(RTM_GETROUTE, DUMP, &body))?;
    Ok(replies
        .iter()
        .filter_map(|reply| {
            let prefix = *reply.body.get(1)?;
            let address = ipv4_attribute(reply.body.get(12..)?, RTA_DST)?;
            (prefix > 0).then(|| Subnet::of(address, prefix))
        })
        .collect())
}

/// The IPv4 addresses of a link, each with the length of its prefix.
pub(crate) fn addresses(socket: &mut Socket, index: u32) -> io::Result<Vec<(Ipv4Addr, u8)>> {
    let body = address_header(0, 0);
    let replies = socket.query(Message::new(RTM_GETADDR, DUMP, &body))?;
    Ok(replies
        .iter()
        .filter(|reply| reply.body.get(4..8) == Some(&index.to_ne_bytes()[..]))
        .filter_map(|reply| {
            let address = ipv4_attribute(reply.body.get(8..)?, IFA_LOCAL)?;
            Some((address, *reply.body.get(1)?))
        })
        .collect())
}

fn ipv4_attribute(bytes: &[u8], kind: u16) -> Option<Ipv4Addr> {
    let (_, value) = attributes(bytes).find(|&(k, _)| k == kind)?;
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?))
}

/// `struct ifaddrmsg`.
fn address_header(index: u32, prefix: u8) -> [u8; 8] {
    let mut bytes = [AF_INET, prefix, 0, 0, 0, 0, 0, 0];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes
}

fn add_address(index: u32, address: Ipv4Addr, prefix: u8) -> Message {
    let broadcast = Subnet::of(address, prefix).broadcast();
    Message::new(RTM_NEWADDR, CREATE | EXCLUSIVE, &address_header(index, prefix))
        .attribute(IFA_LOCAL, &address.octets())
        .attribute(IFA_ADDRESS, &address.octets())
        .attribute(IFA_BROADCAST, &broadcast.octets())
}

fn set_up(index: u32) -> Message {
    Message::new(RTM_NEWLINK, 0, &interface(index, IFF_UP))
}

/// Makes a bridge with a link-layer address of its own, so that it doesn't change with its ports.
pub(crate) fn create_bridge(socket: &mut Socket, name: &str, mac: MacAddress, mtu: u32) -> io::Result<()> {
    let message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &interface(0, 0))
        .string(IFLA_IFNAME, name)
        .attribute(IFLA_ADDRESS, &mac.0)
        .number(IFLA_MTU, mtu)
        .nest(IFLA_LINKINFO, |m| m.attribute(IFLA_INFO_KIND, b"bridge"));
    socket.request(vec![message])
}

/// Gives a link an address and sets it up; what it already has is left as it is.
pub(crate) fn configure(socket: &mut Socket, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    if !addresses(socket, index)?.contains(&(address, prefix)) {
        socket.request(vec![add_address(index, address, prefix)])?;
    }
    socket.request(vec![set_up(index)])
}

/// A veth pair: one end is a port of a bridge, the other is `eth0` of another namespace.
#[derive(Debug)]
pub(crate) struct Veth<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) bridge: u32,
    pub(crate) netns: BorrowedFd<'a>,
    pub(crate) mac: MacAddress,
    pub(crate) mtu: u32,
    /// Whether the kernel has IPv6, which must be told to keep off.
    pub(crate) has_ipv6: bool,
}

/// Makes the pair, with the host's end up. `socket` is of the host's namespace.
pub(crate) fn create_veth(socket: &mut Socket, veth: &Veth<'_>) -> io::Result<()> {
    let create = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &interface(0, 0))
        .string(IFLA_IFNAME, veth.host_name)
        .number(IFLA_MTU, veth.mtu)
        .number(IFLA_MASTER, veth.bridge)
        .nest(IFLA_LINKINFO, |m| {
            m.attribute(IFLA_INFO_KIND, b"veth").nest(IFLA_INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    m.raw(&interface(0, 0))
                        .string(IFLA_IFNAME, "eth0")
                        .attribute(IFLA_ADDRESS, &veth.mac.0)
                        .number(IFLA_MTU, veth.mtu)
                        .attribute(IFLA_NET_NS_FD, &veth.netns.as_raw_fd().to_ne_bytes())
                })
            })
        });
    // The kernel takes these for a link that is there, not with its creation.
    let set_up = Message::new(RTM_NEWLINK, 0, &interface(0, IFF_UP))
        .string(IFLA_IFNAME, veth.host_name)
        // With br_netfilter a container's packet to a port that leads back to itself is turned
        // around inside the bridge.
        .nest(IFLA_LINKINFO, |m| {
            m.attribute(IFLA_INFO_SLAVE_KIND, b"bridge")
                .nest(IFLA_INFO_SLAVE_DATA, |m| m.attribute(IFLA_BRPORT_HAIRPIN, &[1]))
        });
    let set_up = if veth.has_ipv6 { no_ipv6_address(set_up) } else { set_up };
    socket.request(vec![create, set_up])
}

/// No link-local IPv6 address: nothing of the host's speaks or listens on this end.
fn no_ipv6_address(message: Message) -> Message {
    message.nest(IFLA_AF_SPEC, |m| {
        m.nest(AF_INET6, |m| m.attribute(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]))
    })
}

/// Sets up the loopback interface of the namespace of `socket`.
pub(crate) fn set_loopback_up(socket: &mut Socket) -> io::Result<()> {
    socket.request(vec![set_up(LOOPBACK_INDEX)])
}

/// Sets up the loopback interface of the namespace of `socket`, and `eth0` with its address and the
/// default route.
pub(crate) fn configure_peer(
    socket: &mut Socket,
    address: Ipv4Addr,
    prefix: u8,
    gateway: Ipv4Addr,
) -> io::Result<()> {
    let link = find(socket, "eth0")?.ok_or(io::ErrorKind::NotFound)?;
    // struct rtmsg: family, dst_len, src_len, tos, table main, protocol boot, scope, type unicast.
    let route = [AF_INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    let route =
        Message::new(RTM_NEWROUTE, CREATE | EXCLUSIVE, &route).attribute(RTA_GATEWAY, &gateway.octets());
    socket.request(vec![
        set_up(LOOPBACK_INDEX),
        add_address(link.index, address, prefix),
        set_up(link.index),
        route,
    ])
}

/// Makes a link a port of a bridge.
pub(crate) fn set_master(socket: &mut Socket, index: u32, bridge: u32) -> io::Result<()> {
    let message = Message::new(RTM_NEWLINK, 0, &interface(index, IFF_UP));
    socket.request(vec![message.number(IFLA_MASTER, bridge)])
}

/// Removes a link; one that is gone already is no error.
pub(crate) fn delete(socket: &mut Socket, index: u32) -> io::Result<()> {
    match socket.request(vec![Message::new(RTM_DELLINK, 0, &interface(index, 0))]) {
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(()),
        other => other,
    }
}
