//! The firewall: one nftables table of our own, spoken to by nfnetlink (nft(8), `nf_tables.h`).
//!
//! The host's tables are never read or changed. Every change is one transaction: the kernel takes
//! all of it or nothing. Published ports are elements of two maps, so that the rules are the same
//! for one container and for a thousand:
//!
//! ```text
//! table ip ponton {
//!   map ports     { type inet_proto . inet_service : ipv4_addr . inet_service }
//!   map addresses { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//!   chain raw         hook prerouting -300   from the bridge, to or from 127.0.0.0/8: drop
//!   chain prerouting  hook prerouting dstnat fib daddr type local: jump publish
//!   chain output      hook output dstnat     fib daddr type local: jump publish
//!   chain publish     dnat to: ip daddr . meta l4proto . th dport map @addresses
//!                     dnat to: meta l4proto . th dport map @ports
//!   chain forward     hook forward filter    into the bridge, neither established nor dnat: drop
//!   chain postrouting hook postrouting srcnat
//!                     from the subnet, out of any other interface: masquerade
//!                     from the subnet or 127.0.0.0/8, dnat, into the bridge: masquerade
//! }
//! ```
//!
//! The bridge accepts packets for 127.0.0.0/8 (`route_localnet`), which answers to connections from
//! the host's own localhost need; `raw` keeps containers from using that to reach services that
//! listen on the host's loopback only.

use std::io;
use std::net::Ipv4Addr;

use rustix::io::Errno;

use crate::{PortBinding, Subnet};
use ponton_sys::netlink::{CREATE, DUMP, Message, Socket, attributes};

const SUBSYSTEM: u16 = 10 << 8;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

const IPV4: u8 = 2;
const LIST_ELEM: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// The first 4-byte register (`NFT_REG32_00`), and the one behind the longest key.
const KEY: u32 = 8;
const DATA: u32 = 12;

const TYPE_IPV4_ADDR: u32 = 7;
const TYPE_INET_PROTO: u32 = 12;
const TYPE_INET_SERVICE: u32 = 13;

const HOOK_PREROUTING: u32 = 0;
const HOOK_FORWARD: u32 = 2;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;

const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_ESTABLISHED_RELATED: u32 = 2 | 4;
const CT_STATUS_DNAT: u32 = 1 << 5;
const ROUTE_LOCAL: u32 = 2;

/// Offsets in the IPv4 header.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;

const DROP: i32 = 0;
const JUMP: i32 = -3;

const LOOPBACK: Subnet = Subnet { address: Ipv4Addr::new(127, 0, 0, 0), prefix: 8 };

/// How many map elements go into one message; an attribute holds at most 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 500;

/// A published port and the address of the container that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    pub(crate) binding: PortBinding,
    pub(crate) address: Ipv4Addr,
}

/// The table `ip ponton` of the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Firewall {
    socket: Socket,
    table: &'static str,
}

impl Firewall {
    /// Opens the socket; makes no rule.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::open(Some(rustix::net::netlink::NETFILTER))?;
        Ok(Self { socket, table: "ponton" })
    }

    /// Replaces the whole table, in one transaction: the rules of a bridge and its subnet, and these
    /// published ports.
    pub(crate) fn reset(&mut self, bridge: &str, subnet: Subnet, forwards: &[Forward]) -> io::Result<()> {
        let create = self.message(NEWTABLE, CREATE);
        let delete = self.message(DELTABLE, 0);
        // Deleting needs a table that is there, hence made first.
        let mut messages = vec![create.clone(), delete, create];
        messages.push(self.map("ports", &[TYPE_INET_PROTO, TYPE_INET_SERVICE]));
        messages.push(self.map("addresses", &[TYPE_IPV4_ADDR, TYPE_INET_PROTO, TYPE_INET_SERVICE]));
        messages.push(self.chain("raw", Some(("filter", HOOK_PREROUTING, -300))));
        messages.push(self.chain("publish", None));
        messages.push(self.chain("prerouting", Some(("nat", HOOK_PREROUTING, -100))));
        messages.push(self.chain("output", Some(("nat", HOOK_OUTPUT, -100))));
        messages.push(self.chain("forward", Some(("filter", HOOK_FORWARD, 0))));
        messages.push(self.chain("postrouting", Some(("nat", HOOK_POSTROUTING, 100))));
        messages.extend(self.rules(bridge, subnet));
        messages.extend(self.elements(NEWSETELEM, forwards));
        self.transact(messages)
    }

    /// Leads these ports to their containers.
    pub(crate) fn publish(&mut self, forwards: &[Forward]) -> io::Result<()> {
        let messages = self.elements(NEWSETELEM, forwards);
        self.transact(messages)
    }

    /// Takes them away. Those that are gone already (with the whole table, say) are no error.
    pub(crate) fn unpublish(&mut self, forwards: &[Forward]) -> io::Result<()> {
        let messages = self.elements(DELSETELEM, forwards);
        match self.transact(messages) {
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(()),
            other => other,
        }
    }

    /// Whether the kernel leads this port there. Where there is no table, it doesn't.
    pub(crate) fn leads(&mut self, forward: Forward) -> io::Result<bool> {
        let map = if forward.binding.host_ip.is_unspecified() { "ports" } else { "addresses" };
        let message = self.message(GETSETELEM, DUMP).string(2, map);
        let replies = match self.socket.query(message) {
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => return Ok(false),
            other => other?,
        };
        let (key, data) = key_and_data(forward);
        let is_it = |element| {
            value_in(element, 1) == Some(key.as_slice()) && value_in(element, 2) == Some(data.as_slice())
        };
        // Behind the four bytes of nfnetlink's header; attribute 3 is the list of elements.
        Ok(replies.iter().filter_map(|reply| reply.body.get(4..)).any(|body| {
            attributes(body)
                .filter(|&(kind, _)| kind == 3)
                .any(|(_, list)| attributes(list).any(|(_, element)| is_it(element)))
        }))
    }

    /// Removes the whole table.
    pub(crate) fn delete(&mut self) -> io::Result<()> {
        let message = self.message(DELTABLE, 0);
        self.transact(vec![message])
    }

    fn transact(&mut self, messages: Vec<Message>) -> io::Result<()> {
        if messages.is_empty() {
            return Ok(());
        }
        let frame = |kind| Message::new(kind, 0, &[0, 0, 0, 10]);
        let count = messages.len();
        let mut batch = Vec::with_capacity(count + 2);
        batch.push(frame(BATCH_BEGIN));
        batch.extend(messages);
        batch.push(frame(BATCH_END));
        self.socket.reserve(batch.iter().map(Message::len).sum())?;
        self.socket.request_acknowledged_at(batch, count)
    }

    /// A message of nf_tables; in all of them attribute 1 is the table's name.
    fn message(&self, kind: u16, flags: u16) -> Message {
        Message::new(SUBSYSTEM | kind, flags, &[IPV4, 0, 0, 0]).string(1, self.table)
    }

    fn map(&self, name: &str, key: &[u32]) -> Message {
        let concatenated = |types: &[u32]| types.iter().fold(0, |all, kind| all << 6 | kind);
        let set_map: u32 = 0x8;
        self.message(NEWSET, CREATE)
            .string(2, name)
            .number_be(3, set_map)
            .number_be(4, concatenated(key))
            .number_be(5, 4 * key.len() as u32)
            .number_be(6, concatenated(&[TYPE_IPV4_ADDR, TYPE_INET_SERVICE]))
            .number_be(7, 8)
            // The id by which one transaction tells its new sets apart.
            .number_be(10, key.len() as u32)
    }

    fn chain(&self, name: &str, base: Option<(&str, u32, i32)>) -> Message {
        let message = self.message(NEWCHAIN, CREATE).string(3, name);
        match base {
            None => message,
            Some((kind, hook, priority)) => {
                message.nest(4, |m| m.number_be(1, hook).number_be(2, priority as u32)).string(7, kind)
            }
        }
    }

    fn rule(&self, chain: &str, expressions: Vec<Expression<'_>>) -> Message {
        self.message(NEWRULE, CREATE)
            .string(2, chain)
            .nest(4, |message| expressions.into_iter().fold(message, |m, expression| expression.encode(m)))
    }

    fn rules(&self, bridge: &str, subnet: Subnet) -> Vec<Message> {
        use Expression::{
            Ct, Dnat, Drop, Interface, Jump, Load, LocalDestination, Lookup, Masquerade, Network,
        };
        let from_bridge = || Interface { key: META_IIFNAME, name: bridge, equal: true };
        let out_of = |equal| Interface { key: META_OIFNAME, name: bridge, equal };
        let from = |subnet| Network { offset: SOURCE, subnet };
        let dnat = |set| Ct { key: CT_STATUS, bits: CT_STATUS_DNAT, set };
        vec![
            self.rule("raw", vec![from_bridge(), from(LOOPBACK), Drop]),
            self.rule("raw", vec![from_bridge(), Network { offset: DESTINATION, subnet: LOOPBACK }, Drop]),
            self.rule("prerouting", vec![LocalDestination, Jump("publish")]),
            self.rule("output", vec![LocalDestination, Jump("publish")]),
            self.rule(
                "publish",
                vec![
                    Load { meta: None, offset: DESTINATION, transport: false, length: 4, register: KEY },
                    Load {
                        meta: Some(META_L4PROTO),
                        offset: 0,
                        transport: true,
                        length: 1,
                        register: KEY + 1,
                    },
                    Load { meta: None, offset: 2, transport: true, length: 2, register: KEY + 2 },
                    Lookup("addresses"),
                    Dnat,
                ],
            ),
            self.rule(
                "publish",
                vec![
                    Load { meta: Some(META_L4PROTO), offset: 0, transport: true, length: 1, register: KEY },
                    Load { meta: None, offset: 2, transport: true, length: 2, register: KEY + 1 },
                    Lookup("ports"),
                    Dnat,
                ],
            ),
            self.rule(
                "forward",
                vec![
                    out_of(true),
                    Interface { key: META_IIFNAME, name: bridge, equal: false },
                    Ct { key: CT_STATE, bits: CT_ESTABLISHED_RELATED, set: false },
                    dnat(false),
                    Drop,
                ],
            ),
            self.rule("postrouting", vec![from(subnet), out_of(false), Masquerade]),
            self.rule("postrouting", vec![from(subnet), out_of(true), dnat(true), Masquerade]),
            self.rule("postrouting", vec![from(LOOPBACK), out_of(true), dnat(true), Masquerade]),
        ]
    }

    /// The messages that add or remove these ports, for both maps.
    fn elements(&self, kind: u16, forwards: &[Forward]) -> Vec<Message> {
        let (all, one): (Vec<Forward>, Vec<Forward>) =
            forwards.iter().partition(|forward| forward.binding.host_ip.is_unspecified());
        let of = |map: &'static str, forwards: Vec<Forward>| {
            let chunks: Vec<Message> = forwards
                .chunks(ELEMENTS_PER_MESSAGE)
                .map(|chunk| {
                    self.message(kind, CREATE).string(2, map).nest(3, |message| {
                        chunk.iter().fold(message, |m, f| m.nest(LIST_ELEM, |m| element(m, *f)))
                    })
                })
                .collect();
            chunks
        };
        let mut messages = of("ports", all);
        messages.extend(of("addresses", one));
        messages
    }
}

fn element(message: Message, forward: Forward) -> Message {
    let (key, data) = key_and_data(forward);
    message.nest(1, |m| m.attribute(DATA_VALUE, &key)).nest(2, |m| m.attribute(DATA_VALUE, &data))
}

/// The value in an attribute of an element.
fn value_in(element: &[u8], kind: u16) -> Option<&[u8]> {
    let (_, nested) = attributes(element).find(|&(found, _)| found == kind)?;
    attributes(nested).find(|&(found, _)| found == DATA_VALUE).map(|(_, value)| value)
}

/// The bytes of an element of a map.
fn key_and_data(forward: Forward) -> (Vec<u8>, Vec<u8>) {
    let PortBinding { protocol, container_port, host_ip, host_port } = forward.binding;
    // Each field of a concatenation is padded to 4 bytes.
    let port = |port: u16| [port.to_be_bytes()[0], port.to_be_bytes()[1], 0, 0];
    let mut key = Vec::with_capacity(12);
    if !host_ip.is_unspecified() {
        key.extend(host_ip.octets());
    }
    key.extend([protocol.number(), 0, 0, 0]);
    key.extend(port(host_port));
    let mut data = forward.address.octets().to_vec();
    data.extend(port(container_port));
    (key, data)
}

/// What a rule is made of. Each tests something, and ends the rule where it does not hold, or acts.
#[derive(Clone, Copy, Debug)]
enum Expression<'a> {
    /// The packet comes from (or leaves by) an interface of this name, or not.
    Interface {
        key: u32,
        name: &'a str,
        equal: bool,
    },
    /// The source or destination address lies in a range.
    Network {
        offset: u32,
        subnet: Subnet,
    },
    /// The connection has one of these state or status bits, or none of them.
    Ct {
        key: u32,
        bits: u32,
        set: bool,
    },
    /// The destination is an address of the host.
    LocalDestination,
    /// Loads a field of the packet, or its transport protocol, into a register.
    Load {
        meta: Option<u32>,
        offset: u32,
        transport: bool,
        length: u32,
        register: u32,
    },
    /// Looks the key registers up in a map; the data registers get what it holds.
    Lookup(&'a str),
    /// To the address and port in the data registers.
    Dnat,
    Masquerade,
    Jump(&'a str),
    Drop,
}

impl Expression<'_> {
    /// Adds the kernel's expressions for this one.
    fn encode(self, message: Message) -> Message {
        match self {
            Self::Interface { key, name, equal } => {
                let mut padded = [0; 16];
                padded.iter_mut().zip(name.bytes()).for_each(|(to, byte)| *to = byte);
                compare(load_meta(message, key, KEY), equal, &padded)
            }
            Self::Network { offset, subnet } => {
                let message = load_payload(message, false, offset, 4, KEY);
                let message = mask(message, subnet.mask().to_be_bytes());
                compare(message, true, &subnet.address.octets())
            }
            Self::Ct { key, bits, set } => {
                let message = expression(message, "ct", |m| m.number_be(1, KEY).number_be(2, key));
                compare(mask(message, bits.to_ne_bytes()), !set, &[0; 4])
            }
            Self::LocalDestination => {
                // Result 3: the type of the address; flag 2: of the destination.
                let message =
                    expression(message, "fib", |m| m.number_be(1, KEY).number_be(2, 3).number_be(3, 2));
                compare(message, true, &ROUTE_LOCAL.to_ne_bytes())
            }
            Self::Load { meta: Some(key), register, .. } => load_meta(message, key, register),
            Self::Load { meta: None, offset, transport, length, register } => {
                load_payload(message, transport, offset, length, register)
            }
            Self::Lookup(map) => {
                expression(message, "lookup", |m| m.string(1, map).number_be(2, KEY).number_be(3, DATA))
            }
            Self::Dnat => expression(message, "nat", |m| {
                // Type 1: destination; then the family and the registers of address and port.
                m.number_be(1, 1).number_be(2, IPV4.into()).number_be(3, DATA).number_be(5, DATA + 1)
            }),
            Self::Masquerade => expression(message, "masq", |m| m),
            Self::Jump(chain) => verdict(message, JUMP, Some(chain)),
            Self::Drop => verdict(message, DROP, None),
        }
    }
}

fn expression(message: Message, name: &str, data: impl FnOnce(Message) -> Message) -> Message {
    message.nest(LIST_ELEM, |m| m.string(1, name).nest(2, data))
}

fn load_meta(message: Message, key: u32, register: u32) -> Message {
    expression(message, "meta", |m| m.number_be(1, register).number_be(2, key))
}

fn load_payload(message: Message, transport: bool, offset: u32, length: u32, register: u32) -> Message {
    let base = if transport { 2 } else { 1 };
    expression(message, "payload", |m| {
        m.number_be(1, register).number_be(2, base).number_be(3, offset).number_be(4, length)
    })
}

fn mask(message: Message, mask: [u8; 4]) -> Message {
    expression(message, "bitwise", |m| {
        m.number_be(1, KEY)
            .number_be(2, KEY)
            .number_be(3, 4)
            .nest(4, |m| m.attribute(DATA_VALUE, &mask))
            .nest(5, |m| m.attribute(DATA_VALUE, &[0; 4]))
    })
}

fn compare(message: Message, equal: bool, value: &[u8]) -> Message {
    expression(message, "cmp", |m| {
        m.number_be(1, KEY).number_be(2, u32::from(!equal)).nest(3, |m| m.attribute(DATA_VALUE, value))
    })
}

fn verdict(message: Message, code: i32, chain: Option<&str>) -> Message {
    expression(message, "immediate", |m| {
        m.number_be(1, 0).nest(2, |m| {
            m.nest(DATA_VERDICT, |m| {
                let m = m.number_be(1, code as u32);
                chain.map_or(m.clone(), |chain| m.string(2, chain))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    fn forward(host_ip: [u8; 4], host_port: u16) -> Forward {
        let binding =
            PortBinding { protocol: Protocol::Tcp, container_port: 80, host_ip: host_ip.into(), host_port };
        Forward { binding, address: Ipv4Addr::new(172, 17, 0, 2) }
    }

    /// Runs `test` in a network namespace of its own.
    fn isolated(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(move || {
            ponton_sys::namespace::unshare(ponton_sys::namespace::Kinds::NETWORK).unwrap();
            test();
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_port_is_published_once_and_taken_away_any_number_of_times() {
        isolated(|| {
            let mut firewall = Firewall::open().unwrap();
            let subnet = "172.17.0.0/16".parse().unwrap();
            firewall.reset("ponton0", subnet, &[]).unwrap();
            let (all, one) = (forward([0, 0, 0, 0], 8080), forward([127, 0, 0, 1], 8080));
            assert!(!firewall.leads(all).unwrap());
            firewall.publish(&[all, one]).unwrap();
            assert!(firewall.leads(all).unwrap() && firewall.leads(one).unwrap());
            let elsewhere = Forward { address: Ipv4Addr::new(172, 17, 0, 3), ..all };
            assert!(firewall.publish(&[elsewhere]).is_err());
            assert!(!firewall.leads(elsewhere).unwrap());
            firewall.unpublish(&[all, one]).unwrap();
            firewall.unpublish(&[all, one]).unwrap();
            firewall.publish(&[elsewhere]).unwrap();
        });
    }

    #[test]
    fn a_reset_replaces_everything_at_once() {
        isolated(|| {
            let mut firewall = Firewall::open().unwrap();
            let subnet = "172.17.0.0/16".parse().unwrap();
            assert!(firewall.publish(&[forward([0, 0, 0, 0], 1)]).is_err());
            assert!(!firewall.leads(forward([0, 0, 0, 0], 1)).unwrap());
            let many: Vec<_> = (1..=3000).map(|port| forward([0, 0, 0, 0], port)).collect();
            firewall.reset("ponton0", subnet, &many).unwrap();
            assert!(firewall.publish(&[forward([0, 0, 0, 0], 3000)]).is_ok(), "same again");
            firewall.reset("ponton0", subnet, &[]).unwrap();
            firewall.publish(&many[..1]).unwrap();
        });
    }
}
