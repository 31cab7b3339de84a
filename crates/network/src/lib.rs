//! Networks, endpoints, published ports.
//!
//! A [`Network`] gives each container an endpoint: a network namespace with an interface on the
//! daemon's bridge (`bridge`), with nothing but loopback (`none`), or the host's own (`host`). It
//! speaks to the kernel itself, by rtnetlink and nfnetlink; it forks nothing, and of the host's
//! firewall it touches only its own table.
//!
//! It is not for name resolution or for files such as `/etc/hosts`, and it knows no container
//! beyond its id.

mod error;
mod model;

pub use error::{Error, PortError};
pub use model::{
    Endpoint, EndpointRecord, EndpointRequest, MacAddress, NetworkConfig, NetworkInfo, PortBinding,
    PortRequest, Protocol, Subnet,
};

/// The networks of one daemon. All methods are synchronous; share it in an `Arc`.
#[derive(Debug)]
pub struct Network {
    config: NetworkConfig,
}

impl Network {
    /// Reads or makes the networks' ids and starts to prepare namespaces in the background. No link
    /// or rule is made before a container needs one, or `recover` is called.
    pub fn new(config: NetworkConfig) -> Result<Self, Error> {
        Ok(Self { config })
    }

    /// Makes the endpoint of a container. On error nothing of it stays behind.
    pub fn attach(&self, request: &EndpointRequest) -> Result<Endpoint, Error> {
        Err(Error::NotImplemented(format!("network {} on {}", request.network, self.config.bridge)))
    }

    /// The steps that [`attach`](Self::attach) would take, one a line; changes nothing.
    pub fn plan(&self, request: &EndpointRequest) -> Result<Vec<String>, Error> {
        Err(Error::NotImplemented(format!("network {}", request.network)))
    }

    /// Takes an endpoint away: rules and address at once, namespace and links soon after, in the
    /// background. An endpoint that is not there is no error.
    pub fn detach(&self, record: &EndpointRecord) -> Result<(), Error> {
        Err(Error::NotImplemented(format!("network {}", record.network)))
    }

    /// After a restart of the daemon: takes over the endpoints of the containers that live, rebuilds
    /// the rules in one transaction, and removes what other endpoints left behind.
    pub fn recover(&self, living: &[EndpointRecord]) -> Result<(), Error> {
        Err(Error::NotImplemented(format!("recover {} endpoints", living.len())))
    }

    /// All networks, sorted by name.
    pub fn networks(&self) -> Vec<NetworkInfo> {
        Vec::new()
    }

    /// The endpoints on the network of this name or id, sorted by container.
    pub fn endpoints(&self, _network: &str) -> Vec<EndpointRecord> {
        Vec::new()
    }
}
