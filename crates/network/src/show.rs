//! What the kernel shows of links and rules, read only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};

use ponton_sys::namespace::{self, Kinds};
use ponton_sys::netlink::{DUMP, Message, Reply, Socket, attributes, interface};

use crate::firewall::{Firewall, Forward};
use crate::{EndpointRecord, PortBinding};

const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_GATEWAY: u16 = 5;

const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;

/// A link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkInfo {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Link-layer address, as text.
    pub mac: String,
    /// Most bytes of a packet.
    pub mtu: u32,
    /// It is set up.
    pub up: bool,
    /// The number of the other end of a pair, in the namespace of that end; 0 for none.
    pub peer: u32,
    /// The number of the bridge it is a port of; 0 for none.
    pub master: u32,
    /// Its addresses, each with the length of its prefix.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// What a network namespace has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Its links, by their numbers.
    pub links: Vec<LinkInfo>,
    /// The default gateway of IPv4.
    pub gateway: Option<Ipv4Addr>,
}

/// What the calling thread's network namespace has.
pub fn show_own() -> io::Result<NamespaceInfo> {
    let mut socket = Socket::open(None)?;
    let mut links: Vec<LinkInfo> =
        socket.query(Message::new(RTM_GETLINK, DUMP, &interface(0, 0)))?.iter().filter_map(link).collect();
    // struct ifaddrmsg and struct rtmsg, of any family and of IPv4.
    for reply in socket.query(Message::new(RTM_GETADDR, DUMP, &[0; 8]))? {
        if let Some((index, address)) = address(&reply)
            && let Some(link) = links.iter_mut().find(|link| link.index == index)
        {
            link.addresses.push(address);
        }
    }
    let routes =
        socket.query(Message::new(RTM_GETROUTE, DUMP, &[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))?;
    links.sort_by_key(|link| link.index);
    Ok(NamespaceInfo { links, gateway: routes.iter().find_map(default_gateway) })
}

/// What another network namespace has: seen by a thread that goes there, and ends there.
pub fn show(netns: OwnedFd) -> io::Result<NamespaceInfo> {
    let inside = std::thread::spawn(move || {
        namespace::join(netns.as_fd(), Kinds::NETWORK).map_err(|error| error.source)?;
        show_own()
    });
    inside.join().unwrap_or_else(|_| Err(io::Error::other("the thread that looks into a namespace ended")))
}

/// Which of an endpoint's published ports the firewall leads to it, in their order, and the rule of each as nft(8)
/// would write it.
pub fn published(record: &EndpointRecord) -> io::Result<Vec<(PortBinding, String, bool)>> {
    let Some(address) = record.ipv4 else { return Ok(Vec::new()) };
    let mut firewall = Firewall::open()?;
    record
        .ports
        .iter()
        .map(|binding| {
            let forward = Forward { binding: *binding, address };
            Ok((*binding, rule(&forward), firewall.leads(forward)?))
        })
        .collect()
}

fn rule(forward: &Forward) -> String {
    let PortBinding { protocol, container_port, host_ip, host_port } = &forward.binding;
    let destination = if host_ip.is_unspecified() {
        "fib daddr type local".to_owned()
    } else {
        format!("ip daddr {host_ip}")
    };
    format!("{destination} {protocol} dport {host_port} dnat to {}:{container_port}", forward.address)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn link(reply: &Reply) -> Option<LinkInfo> {
    let body = reply.body.get(16..)?;
    let find = |kind| attributes(body).find(|&(k, _)| k == kind).map(|(_, value)| value);
    let number = |kind| find(kind).and_then(|value| word(value, 0)).unwrap_or(0);
    let name = find(IFLA_IFNAME)?.split(|&byte| byte == 0).next()?;
    let mac: Vec<String> =
        find(IFLA_ADDRESS).unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(LinkInfo {
        index: word(&reply.body, 4)?,
        name: String::from_utf8_lossy(name).into_owned(),
        mac: mac.join(":"),
        mtu: number(IFLA_MTU),
        up: word(&reply.body, 8)? & IFF_UP != 0,
        peer: number(IFLA_LINK),
        master: number(IFLA_MASTER),
        addresses: Vec::new(),
    })
}

/// The number of a link, and an address of it.
fn address(reply: &Reply) -> Option<(u32, (IpAddr, u8))> {
    let body = reply.body.get(8..)?;
    let find = |kind| attributes(body).find(|&(k, _)| k == kind).map(|(_, value)| value);
    // Of a peer-to-peer link, IFA_ADDRESS is the other end's.
    let bytes = find(IFA_LOCAL).or_else(|| find(IFA_ADDRESS))?;
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    Some((word(&reply.body, 4)?, (address, *reply.body.get(1)?)))
}

fn default_gateway(reply: &Reply) -> Option<Ipv4Addr> {
    let is_default = reply.body.get(1) == Some(&0);
    let (_, gateway) = attributes(reply.body.get(12..)?).find(|&(kind, _)| kind == RTA_GATEWAY)?;
    is_default.then_some(Ipv4Addr::from(<[u8; 4]>::try_from(gateway).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_namespace_has_a_loopback_that_is_down() {
        let netns = std::thread::spawn(|| namespace::new_netns().unwrap()).join().unwrap();
        let seen = show(netns).unwrap();
        assert_eq!(seen.gateway, None);
        assert_eq!(seen.links.len(), 1);
        let lo = &seen.links[0];
        assert_eq!((lo.index, lo.name.as_str(), lo.up, lo.peer, lo.master), (1, "lo", false, 0, 0));
    }
}
