//! What a caller asks of a network and what it gets back, as plain data.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;

use ponton_sys::user_namespace::Ids;
use serde::{Deserialize, Serialize};

use crate::Error;

/// A range of IPv4 addresses: the address given for the network, and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    /// The first address of the range (host bits are zero).
    pub address: Ipv4Addr,
    /// Length of the prefix in bits, 0 to 32.
    pub prefix: u8,
}

impl Subnet {
    /// The range of `prefix` bits in which `address` lies.
    pub fn of(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        let address = Ipv4Addr::from_bits(address.to_bits() & Self::mask_of(prefix));
        Self { address, prefix }
    }

    fn mask_of(prefix: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
    }

    /// The netmask, host order.
    pub fn mask(self) -> u32 {
        Self::mask_of(self.prefix)
    }

    /// Whether `address` lies in the range.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.address.to_bits()
    }

    /// Whether the two ranges share an address.
    pub fn overlaps(self, other: Self) -> bool {
        let mask = self.mask() & other.mask();
        self.address.to_bits() & mask == other.address.to_bits() & mask
    }

    /// The last address of the range (the broadcast address).
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !self.mask())
    }

    /// The gateway that a network of this range gets: its first usable address.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | 1)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.split_once('/')
            .and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)))
            .filter(|&(_, prefix): &(Ipv4Addr, u8)| prefix <= 32)
            .map(|(address, prefix)| Self::of(address, prefix))
            .ok_or_else(|| Error::Invalid(format!("invalid CIDR address: {text}")))
    }
}

impl TryFrom<String> for Subnet {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

/// A link-layer address, written `02:42:ac:11:00:02`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address that an endpoint with this IPv4 address gets: `02:42` and its four bytes.
    pub fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.map(|byte| format!("{byte:02x}")).join(":"))
    }
}

impl FromStr for MacAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::Invalid(format!("invalid MAC address: {text}"));
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(invalid)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        // A group address (lowest bit of the first byte) can be no interface's own.
        if parts.next().is_some() || bytes[0] & 1 == 1 {
            return Err(invalid());
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for MacAddress {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

/// A transport protocol whose ports can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// `tcp`, the default.
    Tcp,
    /// `udp`.
    Udp,
    /// `sctp`.
    Sctp,
}

impl Protocol {
    /// The number in the IP header (`IPPROTO_*`).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" | "" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(Error::Invalid(format!("invalid proto: {text}"))),
        }
    }
}

/// A port that is to be published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port inside the container, 1 to 65535.
    pub container_port: u16,
    /// The host's address to listen on; unspecified means all of its IPv4 addresses.
    pub host_ip: IpAddr,
    /// The port of the host; 0 means one from the kernel's ephemeral range.
    pub host_port: u16,
    /// The end of the range to choose a host port from; equal to `host_port` for one port.
    pub host_port_end: u16,
}

/// A port that is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortBinding {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port inside the container.
    pub container_port: u16,
    /// The host's address; `0.0.0.0` for all.
    pub host_ip: Ipv4Addr,
    /// The port of the host.
    pub host_port: u16,
}

/// What a container wants of its network.
#[derive(Clone, Debug)]
pub struct EndpointRequest {
    /// The network's name: `bridge` (also `default` or empty), `host`, `none`.
    pub network: String,
    /// The container's id.
    pub container_id: String,
    /// The container's name, for error messages.
    pub container_name: String,
    /// The link-layer address, where the user fixes it.
    pub mac: Option<MacAddress>,
    /// The IPv4 address, where the user fixes it.
    pub ipv4: Option<Ipv4Addr>,
    /// The ports to publish.
    pub ports: Vec<PortRequest>,
    /// What ids mean to the container, where it has a user namespace; that one owns its network then.
    pub ids: Option<Ids>,
}

/// All that must be remembered of an endpoint while its container runs: the caller stores it and
/// hands it back to `detach`, or to `recover` after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// The container's id.
    pub container_id: String,
    /// The network's name.
    pub network: String,
    /// The network's id.
    pub network_id: String,
    /// The endpoint's own id (64 hex digits).
    pub endpoint_id: String,
    /// The id of the network namespace.
    pub sandbox_id: String,
    /// The name of the host's end of the veth pair; empty where there is none.
    pub host_interface: String,
    /// The address, `None` on `host` and `none`.
    pub ipv4: Option<Ipv4Addr>,
    /// The length of the address's prefix.
    pub prefix: u8,
    /// The default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// The link-layer address.
    pub mac: Option<MacAddress>,
    /// The published ports.
    pub ports: Vec<PortBinding>,
}

/// An endpoint that was just made.
#[derive(Debug)]
pub struct Endpoint {
    /// What the caller stores.
    pub record: EndpointRecord,
    /// The network namespace the container joins; `None` on `host`.
    pub netns: Option<OwnedFd>,
    /// The user namespace that owns it and that the container joins; `None` for the host's. It goes with
    /// the container and this descriptor.
    pub user: Option<OwnedFd>,
    /// Bound sockets that keep the published ports from other programs of the host. They must stay
    /// open as long as the container runs: the shim gets them.
    pub reservations: Vec<OwnedFd>,
}

/// A network, as `inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkInfo {
    /// `bridge`, `host` or `none`.
    pub name: String,
    /// 64 hex digits, stable for the life of the data root.
    pub id: String,
    /// The driver's name: `bridge`, `host`, `null`.
    pub driver: String,
    /// The range of the network's addresses; `None` where it has none (yet).
    pub subnet: Option<Subnet>,
    /// The gateway's address.
    pub gateway: Option<Ipv4Addr>,
    /// The driver's options, sorted by name.
    pub options: Vec<(String, String)>,
}

/// How the networks of one daemon are set up.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Where the ids of the networks are kept: a directory of the data root, made at need.
    pub state_dir: PathBuf,
    /// The name of the default bridge (`ponton0`).
    pub bridge: String,
    /// The address ranges to choose from; the first that no route of the host overlaps is taken.
    pub pools: Vec<Subnet>,
    /// The interfaces' MTU in bytes.
    pub mtu: u32,
    /// How many network namespaces are kept prepared for coming containers.
    pub prepared: usize,
    /// What ids mean to most containers: the maps of the user namespaces that are prepared.
    pub ids: Option<Ids>,
}

impl NetworkConfig {
    /// The defaults: bridge `ponton0`, Docker's pools, MTU 1500.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        // 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 to 192.168.240.0/20.
        let wide = (17..=31).map(|n| Subnet::of(Ipv4Addr::new(172, n, 0, 0), 16));
        let narrow = (0..16).map(|n| Subnet::of(Ipv4Addr::new(192, 168, n * 16, 0), 20));
        Self {
            state_dir: state_dir.into(),
            bridge: "ponton0".to_owned(),
            pools: wide.chain(narrow).collect(),
            mtu: 1500,
            prepared: 8,
            ids: None,
        }
    }
}
