//! What can go wrong with a network, in Docker's words where Docker has words for it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::Protocol;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong in itself.
    #[error("{0}")]
    Invalid(String),
    /// There is no network of this name.
    #[error("network {0} not found")]
    NotFound(String),
    /// Asked for something that Ponton cannot do yet.
    #[error("{0}")]
    NotImplemented(String),
    /// Publishing a port failed.
    #[error("driver failed programming external connectivity on endpoint {container} ({endpoint}): {source}")]
    Publish {
        /// The container's name.
        container: String,
        /// The endpoint's id.
        endpoint: String,
        /// Why.
        #[source]
        source: PortError,
    },
    /// The pool of addresses is used up.
    #[error("no available IPv4 addresses on this network's address pools: {network} ({network_id})")]
    AddressesExhausted {
        /// The network's name.
        network: String,
        /// The network's id.
        network_id: String,
    },
    /// The bridge has as many interfaces as the kernel allows (`BR_MAX_PORTS`).
    #[error("bridge {0} is full: the kernel allows 1023 interfaces on one bridge")]
    BridgeFull(String),
    /// Another endpoint has the address.
    #[error("Address already in use: {0}")]
    AddressInUse(Ipv4Addr),
    /// Every range of the configured pools overlaps a route of the host.
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network {0}"
    )]
    PoolsExhausted(String),
    /// The kernel refused a request.
    #[error("{action} {object}: {source}")]
    Kernel {
        /// What was attempted, for example `create bridge`.
        action: &'static str,
        /// With which interface, address, table or file.
        object: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Why a port could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Another container publishes it.
    #[error("Bind for {host_ip}:{host_port} failed: port is already allocated")]
    Allocated {
        /// The host's address.
        host_ip: Ipv4Addr,
        /// The host's port.
        host_port: u16,
    },
    /// A program of the host uses it, or it may not be bound.
    #[error("listen {protocol}4 {host_ip}:{host_port}: bind: {}", words(source))]
    Bind {
        /// The host's address.
        host_ip: Ipv4Addr,
        /// The host's port.
        host_port: u16,
        /// The transport protocol.
        protocol: Protocol,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Asked for a port of an IPv6 address.
    #[error("publishing a port on the IPv6 address {0} is not implemented")]
    Ipv6(Ipv6Addr),
    /// No port of the asked range (or the ephemeral range) is free.
    #[error("all ports are allocated")]
    AllAllocated,
    /// The firewall refused the rule.
    #[error("publish ports by nftables: {0}")]
    Firewall(#[source] io::Error),
}

impl PortError {
    /// Whether another has the port, so that a different one may be free.
    pub(crate) fn is_taken(&self) -> bool {
        match self {
            Self::Allocated { .. } => true,
            Self::Bind { source, .. } => source.kind() == io::ErrorKind::AddrInUse,
            _ => false,
        }
    }
}

/// The kernel's answer as Docker's users know it.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Names the object of a kernel request that failed.
pub(crate) fn kernel(action: &'static str, object: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let object = object.into();
    move |source| Error::Kernel { action, object, source }
}
