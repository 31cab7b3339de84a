//! Ports of the host: which of ours has which, and the sockets that keep them from others.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::{PortBinding, PortError, PortRequest, Protocol};

/// Docker's ephemeral range, where the kernel's own cannot be read.
const EPHEMERAL: RangeInclusive<u16> = 32768..=60999;

/// The ports that containers publish.
#[derive(Debug)]
pub(crate) struct Ports {
    taken: BTreeSet<(Protocol, u16, Ipv4Addr)>,
    ephemeral: RangeInclusive<u16>,
    last: u16,
}

impl Ports {
    pub(crate) fn new() -> Self {
        let ephemeral = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
            .ok()
            .and_then(|text| {
                let mut numbers = text.split_whitespace().map_while(|word| word.parse().ok());
                Some(numbers.next()?..=numbers.next()?)
            })
            .filter(|range: &RangeInclusive<u16>| !range.is_empty())
            .unwrap_or(EPHEMERAL);
        Self { taken: BTreeSet::new(), last: *ephemeral.end(), ephemeral }
    }

    /// Takes the ports that are asked for, all or none of them.
    pub(crate) fn reserve(
        &mut self,
        requests: &[PortRequest],
    ) -> Result<Vec<(PortBinding, OwnedFd)>, PortError> {
        let mut reserved: Vec<(PortBinding, OwnedFd)> = Vec::with_capacity(requests.len());
        for request in requests {
            match self.reserve_one(request) {
                Ok(one) => reserved.push(one),
                Err(error) => {
                    for (binding, _) in &reserved {
                        self.release(binding);
                    }
                    return Err(error);
                }
            }
        }
        Ok(reserved)
    }

    /// Notes a port that a container of a former daemon holds.
    pub(crate) fn claim(&mut self, binding: &PortBinding) {
        self.taken.insert((binding.protocol, binding.host_port, binding.host_ip));
    }

    pub(crate) fn release(&mut self, binding: &PortBinding) {
        self.taken.remove(&(binding.protocol, binding.host_port, binding.host_ip));
    }

    fn reserve_one(&mut self, request: &PortRequest) -> Result<(PortBinding, OwnedFd), PortError> {
        let host_ip = match request.host_ip {
            IpAddr::V4(address) => address,
            IpAddr::V6(address) => return Err(PortError::Ipv6(address)),
        };
        let range = match request.host_port {
            0 => self.ephemeral.clone(),
            first => first..=request.host_port_end.max(first),
        };
        let single = range.start() == range.end();
        let count = u32::from(range.end() - range.start()) + 1;
        // Ephemeral ports go around, so that one just given back is not met again at once.
        let skip = if request.host_port == 0 { u32::from(self.last - range.start()) + 1 } else { 0 };
        for step in 0..count {
            let host_port = range.start() + ((skip + step) % count) as u16;
            let binding = PortBinding {
                protocol: request.protocol,
                container_port: request.container_port,
                host_ip,
                host_port,
            };
            match self.bind(&binding) {
                Ok(socket) => {
                    if request.host_port == 0 {
                        self.last = host_port;
                    }
                    self.claim(&binding);
                    return Ok((binding, socket));
                }
                // Another port of the range helps only where this one is taken.
                Err(error) if single || !error.is_taken() => return Err(error),
                Err(_) => {}
            }
        }
        Err(PortError::AllAllocated)
    }

    fn bind(&self, binding: &PortBinding) -> Result<OwnedFd, PortError> {
        let &PortBinding { protocol, host_ip, host_port, .. } = binding;
        let mut same_port = self
            .taken
            .range((protocol, host_port, Ipv4Addr::UNSPECIFIED)..=(protocol, host_port, Ipv4Addr::BROADCAST));
        let clash = |&(_, _, other): &(Protocol, u16, Ipv4Addr)| {
            other == host_ip || other.is_unspecified() || host_ip.is_unspecified()
        };
        if same_port.any(clash) {
            return Err(PortError::Allocated { host_ip, host_port });
        }
        bind_socket(protocol, SocketAddrV4::new(host_ip, host_port)).map_err(|source| PortError::Bind {
            host_ip,
            host_port,
            protocol,
            source,
        })
    }
}

/// A socket that holds the port. It is not listening: packets reach the container by the firewall,
/// and where its rules are gone a client is refused instead of left waiting.
fn bind_socket(protocol: Protocol, address: SocketAddrV4) -> io::Result<OwnedFd> {
    let socket = open_socket(protocol)?;
    match net::bind(&socket, &address) {
        Ok(()) => Ok(socket),
        // Connections of a server that ended a moment ago (TIME_WAIT) hold the port too. With
        // SO_REUSEADDR they don't count, but only listening tells whether another program holds it.
        Err(Errno::ADDRINUSE) if protocol == Protocol::Tcp => {
            let socket = open_socket(protocol)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            net::bind(&socket, &address)?;
            net::listen(&socket, 1)?;
            Ok(socket)
        }
        Err(error) => Err(error.into()),
    }
}

fn open_socket(protocol: Protocol) -> io::Result<OwnedFd> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    Ok(net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, Some(number))?)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn request(host_port: u16, host_port_end: u16) -> PortRequest {
        PortRequest {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ip: Ipv4Addr::LOCALHOST.into(),
            host_port,
            host_port_end,
        }
    }

    #[test]
    fn a_port_of_another_program_is_refused_in_dockers_words() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = Ports::new().reserve(&[request(port, port)]).unwrap_err();
        assert_eq!(error.to_string(), format!("listen tcp4 127.0.0.1:{port}: bind: address already in use"));
    }

    #[test]
    fn a_port_of_another_container_is_allocated() {
        let mut ports = Ports::new();
        let first = ports.reserve(&[request(0, 0)]).unwrap();
        let port = first[0].0.host_port;
        let mut all = request(port, port);
        all.host_ip = Ipv4Addr::UNSPECIFIED.into();
        let error = ports.reserve(&[request(0, 0), all]).unwrap_err();
        assert_eq!(error.to_string(), format!("Bind for 0.0.0.0:{port} failed: port is already allocated"));
        assert_eq!(ports.taken.len(), 1, "a request is granted whole or not at all");
        ports.release(&first[0].0);
        drop(first);
        ports.reserve(&[request(port, port)]).unwrap();
    }

    #[test]
    fn a_range_gives_its_first_free_port_and_ephemeral_ones_differ() {
        let mut ports = Ports::new();
        let first = ports.reserve(&[request(0, 0)]).unwrap();
        let second = ports.reserve(&[request(0, 0)]).unwrap();
        let (a, b) = (first[0].0.host_port, second[0].0.host_port);
        assert_ne!(a, b);
        let ranged = ports.reserve(&[request(a.min(b), a.max(b) + 20)]).unwrap();
        assert!(![a, b].contains(&ranged[0].0.host_port));
        let error = ports.reserve(&[request(a.min(b), a.min(b))]).unwrap_err();
        assert!(matches!(error, PortError::Allocated { .. }));
    }

    #[test]
    fn a_reserved_port_cannot_be_listened_on() {
        let mut ports = Ports::new();
        let reserved = ports.reserve(&[request(0, 0)]).unwrap();
        let port = reserved[0].0.host_port;
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err());
    }
}
