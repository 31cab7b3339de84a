//! Networks, endpoints, published ports.
//!
//! A [`Network`] gives each container an endpoint: a network namespace with an interface on the
//! daemon's bridge (`bridge`), with nothing but loopback (`none`), or the host's own (`host`). It
//! speaks to the kernel itself, by rtnetlink and nfnetlink; it forks nothing, and of the host's
//! firewall it touches only its own table.
//!
//! What changes on the host with the first container on `bridge`: the bridge, the table `ip ponton`,
//! and `net.ipv4.ip_forward=1`; bridge and table go again with [`Network::leave`]. A host whose own
//! firewall drops what it forwards (Docker's daemon sets the policy of iptables' FORWARD so) must accept
//! packets from and to the bridge itself; ports reached from the host's own addresses need no such rule.
//! Ports are published on IPv4 addresses.
//!
//! A new namespace has `net.ipv4.ip_unprivileged_port_start=0`, `net.ipv4.ping_group_range` open to
//! all groups, and IPv6 off.
//!
//! It is not for name resolution or for files such as `/etc/hosts`, and it knows no container
//! beyond its id.

mod addresses;
mod conntrack;
mod driver;
mod error;
mod firewall;
mod id;
mod link;
mod model;
mod port;
mod sandbox;
mod show;
mod state;
mod sysctl;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

pub use error::{Error, PortError};
pub use model::{
    Endpoint, EndpointRecord, EndpointRequest, MacAddress, NetworkConfig, NetworkInfo, PortBinding,
    PortRequest, Protocol, Subnet,
};

pub use show::{LinkInfo, NamespaceInfo, published, show, show_own};

use driver::EndpointPlan;
use error::kernel;
use sandbox::{Maker, Sandbox};
use state::Shared;

/// The names of the networks that there always are.
const NAMES: [&str; 3] = ["bridge", "host", "none"];

/// The networks of one daemon, in the network namespace of the thread that opened them. All methods
/// block, most of them for microseconds; share it in an `Arc`.
#[derive(Debug)]
pub struct Network {
    shared: Arc<Shared>,
    ids: BTreeMap<String, String>,
    maker: Option<JoinHandle<()>>,
}

impl Network {
    /// Reads or makes the networks' ids, and starts the thread that prepares namespaces. No link or
    /// rule is made before a container needs one, or [`recover`](Self::recover) is called.
    pub fn new(config: NetworkConfig) -> Result<Self, Error> {
        let ids = load_ids(&config)?;
        let bridge_id = ids.get("bridge").cloned().unwrap_or_default();
        let shared = Arc::new(Shared::new(config, bridge_id)?);
        let maker = Maker::new(Arc::clone(&shared))?;
        let maker = std::thread::Builder::new()
            .name("network".to_owned())
            .spawn(|| maker.run())
            .map_err(kernel("start", "the thread that makes network namespaces"))?;
        Ok(Self { shared, ids, maker: Some(maker) })
    }

    /// Makes the endpoint of a container. On error nothing of it stays behind.
    pub fn attach(&self, request: &EndpointRequest) -> Result<Endpoint, Error> {
        let (name, plan) = self.plan_endpoint(request)?;
        // A container has one endpoint. One that its caller forgot is not kept from starting again.
        if let Some(former) = self.shared.endpoint(&request.container_id) {
            self.detach(&former)?;
        }
        let endpoint_id = id::random();
        let publish_error = |source| Error::Publish {
            container: request.container_name.clone(),
            endpoint: endpoint_id.clone(),
            source,
        };
        let reserved = self.shared.ports(|ports| ports.reserve(&plan.ports)).map_err(publish_error)?;
        let (ports, reservations): (Vec<_>, Vec<_>) = reserved.into_iter().unzip();
        let sandbox = if plan.netns { self.shared.take(&plan).map(Some) } else { Ok(None) };
        let sandbox = sandbox.inspect_err(|_| {
            self.shared.ports(|book| ports.iter().for_each(|binding| book.release(binding)));
        })?;
        let (netns, user, interface) = sandbox
            .map_or((None, None, None), |Sandbox { netns, user, interface, .. }| {
                (Some(netns), user, interface)
            });
        let (subnet, gateway) = self.shared.subnet();
        let record = EndpointRecord {
            container_id: request.container_id.clone(),
            network: name.to_owned(),
            network_id: self.ids.get(name).cloned().unwrap_or_default(),
            sandbox_id: id::random(),
            host_interface: interface.as_ref().map(|i| i.host_name.clone()).unwrap_or_default(),
            ipv4: interface.as_ref().map(|interface| interface.ipv4),
            prefix: interface.as_ref().map_or(0, |_| subnet.prefix),
            gateway: interface.as_ref().map(|_| gateway),
            mac: interface.as_ref().map(|interface| interface.mac),
            ports,
            endpoint_id: endpoint_id.clone(),
        };
        // A second descriptor, so that `detach` decides when the kernel starts to remove it. Without
        // it the namespace goes with the container's last process.
        let held = netns.as_ref().and_then(|netns| netns.try_clone().ok());
        self.shared.insert(&record, held).map_err(publish_error)?;
        Ok(Endpoint { record, netns, user, reservations })
    }

    /// The steps that [`attach`](Self::attach) would take, one a line; changes nothing.
    pub fn plan(&self, request: &EndpointRequest) -> Result<Vec<String>, Error> {
        let (name, plan) = self.plan_endpoint(request)?;
        let (subnet, gateway) = self.shared.subnet();
        let network = driver::of(name)?.plan_network(self.shared.config(), subnet, gateway);
        let text = network.map(|plan| plan.to_string()).unwrap_or_default() + &plan.to_string();
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Takes an endpoint away: rules, ports and address at once. The namespace and its links go when
    /// the last holder of its descriptor and the last process in it are gone; they are removed in the
    /// background, many together. An endpoint that is not known is no error.
    pub fn detach(&self, record: &EndpointRecord) -> Result<(), Error> {
        self.shared.remove(record).map(drop)
    }

    /// After a restart of the daemon, before the first `attach`: takes over the endpoints of the
    /// containers that live, rebuilds the rules in one transaction, and removes what other
    /// endpoints left behind.
    pub fn recover(&self, living: &[EndpointRecord]) -> Result<(), Error> {
        self.shared.recover(living)
    }

    /// Before the daemon ends: removes the bridge and its rules if no endpoint is on the bridge. Else they
    /// stay, for the containers and the next daemon.
    pub fn leave(&self) -> Result<(), Error> {
        self.shared.leave()
    }

    /// All networks, sorted by name.
    pub fn networks(&self) -> Vec<NetworkInfo> {
        NAMES.iter().filter_map(|name| self.network(name)).collect()
    }

    /// The endpoints on the network of this name, sorted by container.
    pub fn endpoints(&self, network: &str) -> Vec<EndpointRecord> {
        let mut endpoints = self.shared.endpoints();
        endpoints.retain(|endpoint| endpoint.network == network);
        endpoints
    }

    fn network(&self, name: &str) -> Option<NetworkInfo> {
        let driver = driver::of(name).ok()?;
        let (subnet, gateway) = self.shared.subnet();
        let plan = driver.plan_network(self.shared.config(), subnet, gateway);
        let option = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let options = plan.as_ref().map(|plan| {
            vec![
                option("com.docker.network.bridge.default_bridge", "true"),
                option("com.docker.network.bridge.enable_icc", "true"),
                option("com.docker.network.bridge.enable_ip_masquerade", "true"),
                option("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
                option("com.docker.network.bridge.name", &plan.bridge),
                option("com.docker.network.driver.mtu", &plan.mtu.to_string()),
            ]
        });
        Some(NetworkInfo {
            name: name.to_owned(),
            id: self.ids.get(name)?.clone(),
            driver: driver.name().to_owned(),
            subnet: plan.as_ref().map(|plan| plan.subnet),
            gateway: plan.as_ref().map(|plan| plan.gateway),
            options: options.unwrap_or_default(),
        })
    }

    /// The network's own name, and what the endpoint consists of.
    fn plan_endpoint(&self, request: &EndpointRequest) -> Result<(&'static str, EndpointPlan), Error> {
        let driver = driver::of(&request.network)?;
        driver.validate(request, self.shared.subnet().0)?;
        let aliased = if matches!(&*request.network, "" | "default") { "bridge" } else { &request.network };
        let name = NAMES.into_iter().find(|name| *name == aliased);
        let name = name.ok_or_else(|| Error::NotFound(request.network.clone()))?;
        Ok((name, driver.plan_endpoint(request)))
    }
}

impl Drop for Network {
    /// Ends the thread; spare namespaces go with it, endpoints stay.
    fn drop(&mut self) {
        self.shared.close();
        if let Some(maker) = self.maker.take() {
            // A panic of the thread was reported when it happened.
            let _ = maker.join();
        }
    }
}

/// The networks' ids, from `<state_dir>/networks.json`; made the first time.
fn load_ids(config: &NetworkConfig) -> Result<BTreeMap<String, String>, Error> {
    let path = config.state_dir.join("networks.json");
    let at = |action| kernel(action, path.display().to_string());
    match fs::read(&path) {
        Ok(bytes) => return serde_json::from_slice(&bytes).map_err(|error| at("parse")(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(at("read")(error)),
    }
    let ids = NAMES.iter().map(|name| ((*name).to_owned(), id::random())).collect();
    let text = serde_json::to_vec_pretty(&ids).map_err(|error| at("write")(error.into()))?;
    let new = path.with_extension("json.new");
    fs::create_dir_all(&config.state_dir)
        .and_then(|()| fs::write(&new, text))
        .and_then(|()| fs::rename(&new, &path))
        .map_err(at("write"))?;
    Ok(ids)
}
