//! Sandboxes: network namespaces ready for a container, made ahead by one thread.
//!
//! Making one costs the kernel about two milliseconds, most of it under its global lock for links;
//! a container that finds one ready waits for none of it. Spare ones are held by a descriptor and by
//! nothing else: with the last descriptor or process the kernel removes the namespace and the veth
//! pair with it, so a daemon that is killed leaves none behind.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use ponton_sys::namespace::{self, Kinds};
use ponton_sys::user_namespace::{self, Ids};
use rustix::io::Errno;

use crate::conntrack;
use crate::driver::{EndpointPlan, InterfacePlan, NetworkPlan};
use crate::error::kernel;
use crate::id;
use crate::link::{self, Veth};
use crate::state::{Shared, Task};
use crate::sysctl::Sysctls;
use crate::{Error, MacAddress};
use ponton_sys::netlink::Socket;

/// What every namespace of a container starts with, under `/proc/sys`. The two of IPv4 are
/// Docker's: no capability is needed for ports under 1024 or for ping, which harm no one outside.
const SYSCTLS: [(&str, &str); 3] = [
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
];

/// A network namespace that a container can join.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) netns: OwnedFd,
    /// The user namespace that owns it, if that is not the host's.
    pub(crate) user: Option<OwnedFd>,
    /// Its maps.
    pub(crate) ids: Option<Ids>,
    pub(crate) interface: Option<Interface>,
}

impl Sandbox {
    /// Whether it is what was planned.
    pub(crate) fn fits(&self, plan: &EndpointPlan) -> bool {
        if self.ids != plan.ids {
            return false;
        }
        match (&self.interface, plan.interface) {
            (None, None) => true,
            (Some(made), Some(plan)) => {
                plan.ipv4.is_none_or(|ipv4| ipv4 == made.ipv4) && plan.mac.is_none_or(|mac| mac == made.mac)
            }
            _ => false,
        }
    }
}

/// Its `eth0`.
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    /// The name of the host's end of the pair.
    pub(crate) host_name: String,
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) mac: MacAddress,
}

/// The thread's own things.
#[derive(Debug)]
pub(crate) struct Maker {
    shared: Arc<Shared>,
    route: Socket,
    host: OwnedFd,
    sysctls: Sysctls,
    /// The index of the bridge, once it is there.
    bridge: Option<u32>,
}

impl Maker {
    /// For the network namespace of the calling thread.
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, Error> {
        let route = Socket::open(None).map_err(kernel("open", "rtnetlink socket"))?;
        let host = namespace::own("net").map_err(|error| kernel("open", error.object)(error.source))?;
        Ok(Self { shared, route, host, sysctls: Sysctls::default(), bridge: None })
    }

    /// Makes what is asked for, and keeps the stock of spare ones full, until the daemon ends.
    pub(crate) fn run(mut self) {
        while let Some(task) = self.shared.next_task() {
            match task {
                Task::Make(job) => {
                    let made = self.make(&job.plan);
                    // Whoever asked may have gone; the sandbox goes with it.
                    if let Err(std::sync::mpsc::SendError(Ok(sandbox))) = job.reply.send(made) {
                        self.shared.discard(sandbox);
                    }
                }
                Task::Refill(plan) => {
                    let made = self.make(&plan);
                    self.shared.stock(&plan, made);
                }
                Task::Bury(dead) => drop(dead),
                Task::Forget(forwards, stale) => {
                    if let Err(error) = conntrack::forget(&forwards, stale) {
                        tracing::warn!(%error, "old UDP connections may miss a published port");
                    }
                }
                Task::Recover(reply) => drop(reply.send(self.recover())),
                Task::Leave(reply) => drop(reply.send(self.leave())),
            }
        }
    }

    /// Puts the bridge, if it is there or needed, and its rules and ports into the state that the
    /// living endpoints ask for.
    fn recover(&mut self) -> Result<(), Error> {
        let name = &self.shared.config().bridge;
        let found = link::find(&mut self.route, name).map_err(kernel("find", name))?;
        if found.is_some() || self.shared.has_interfaces() {
            self.bridge = None;
            self.bridge()?;
        }
        Ok(())
    }

    /// Removes the bridge and then its rules, unless an endpoint or somebody else's link is on it.
    fn leave(&mut self) -> Result<(), Error> {
        self.shared.drop_spare();
        let name = &self.shared.config().bridge;
        let Some(bridge) = link::find(&mut self.route, name).map_err(kernel("find", name))? else {
            return Ok(());
        };
        let ports = link::ports(&mut self.route, bridge.index).map_err(kernel("list ports of", name))?;
        if self.shared.has_interfaces() || ports.iter().any(|port| !is_ours(&port.name)) {
            return Ok(());
        }
        self.bridge = None;
        link::delete(&mut self.route, bridge.index).map_err(kernel("delete", name))?;
        self.shared.delete_firewall()
    }

    fn make(&mut self, plan: &EndpointPlan) -> Result<Sandbox, Error> {
        let ids = plan.ids.clone();
        let (netns, user, mut inside) = self.namespace(ids.as_ref())?;
        let Some(plan) = plan.interface else {
            link::set_loopback_up(&mut inside).map_err(kernel("set up", "lo"))?;
            return Ok(Sandbox { netns, user, ids, interface: None });
        };
        let bridge = self.bridge()?;
        let ipv4 = self.shared.allocate(plan.ipv4)?;
        match self.connect(bridge, &netns, &mut inside, plan, ipv4) {
            Ok(interface) => Ok(Sandbox { netns, user, ids, interface: Some(interface) }),
            Err(error) => {
                self.shared.release(ipv4);
                // The bridge may be gone: look for it the next time.
                self.bridge = None;
                Err(error)
            }
        }
    }

    /// A new namespace, all of its links still down, the user namespace that owns it where ids are mapped,
    /// and a socket that works inside it.
    fn namespace(&mut self, ids: Option<&Ids>) -> Result<(OwnedFd, Option<OwnedFd>, Socket), Error> {
        let from_sys = |error: ponton_sys::Error| Error::Kernel {
            action: "create",
            object: "network namespace".to_owned(),
            source: error.source,
        };
        let sysctls = self.sysctls.for_namespace();
        let user = match ids {
            None => {
                namespace::unshare(Kinds::NETWORK).map_err(from_sys)?;
                None
            }
            Some(ids) => {
                let (user, netns) = user_namespace::new_with_network(ids).map_err(from_sys)?;
                namespace::join(netns.as_fd(), Kinds::NETWORK).map_err(from_sys)?;
                Some(user)
            }
        };
        let made = Self::furnish(sysctls);
        namespace::join(self.host.as_fd(), Kinds::NETWORK).map_err(from_sys)?;
        let (netns, inside) = made.map_err(kernel("set up", "network namespace"))?;
        Ok((netns, user, inside))
    }

    /// What must be done by a thread inside: /proc/sys/net shows its own namespace to each.
    fn furnish(sysctls: &Sysctls) -> io::Result<(OwnedFd, Socket)> {
        for (file, value) in SYSCTLS {
            sysctls.write(file, value)?;
        }
        let netns = namespace::own("net").map_err(|error| error.source)?;
        Ok((netns, Socket::open(None)?))
    }

    fn connect(
        &mut self,
        bridge: u32,
        netns: &OwnedFd,
        inside: &mut Socket,
        plan: InterfacePlan,
        ipv4: Ipv4Addr,
    ) -> Result<Interface, Error> {
        let NetworkPlan { subnet, gateway, mtu, .. } = self.shared.network_plan();
        let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        let host_name = format!("veth{}", &id::random()[..7]);
        let mac = plan.mac.unwrap_or(MacAddress::of(ipv4));
        let veth = Veth { host_name: &host_name, bridge, netns: netns.as_fd(), mac, mtu, has_ipv6 };
        link::create_veth(&mut self.route, &veth).map_err(|source| match source.raw_os_error() {
            Some(code) if code == Errno::XFULL.raw_os_error() => {
                Error::BridgeFull(self.shared.config().bridge.clone())
            }
            _ => kernel("create veth", &host_name)(source),
        })?;
        link::configure_peer(inside, ipv4, subnet.prefix, gateway)
            .map_err(kernel("configure eth0 with", ipv4.to_string()))?;
        Ok(Interface { host_name, ipv4, mac })
    }

    /// The index of the bridge; makes it, with all that its network needs, where it isn't there.
    fn bridge(&mut self) -> Result<u32, Error> {
        if let Some(index) = self.bridge {
            return Ok(index);
        }
        let index = self.make_bridge()?;
        self.bridge = Some(index);
        Ok(index)
    }

    fn make_bridge(&mut self) -> Result<u32, Error> {
        self.shared.choose_subnet(&mut self.route)?;
        let plan = self.shared.network_plan();
        let name = plan.bridge.as_str();
        let mut found = link::find(&mut self.route, name).map_err(kernel("find", name))?;
        if found.is_none() {
            // Of its own and not of the gateway's address, which other hosts' bridges have too.
            let mac = MacAddress([0x02, 0x42, id::byte(), id::byte(), id::byte(), id::byte()]);
            link::create_bridge(&mut self.route, name, mac, plan.mtu)
                .map_err(kernel("create bridge", name))?;
            found = link::find(&mut self.route, name).map_err(kernel("find", name))?;
        }
        let index =
            found.ok_or(io::ErrorKind::NotFound).map_err(|kind| kernel("find", name)(kind.into()))?.index;
        for (file, value) in &plan.sysctls {
            self.sysctls.write(file, value).map_err(kernel("write /proc/sys", file))?;
        }
        // Rules first: there is no moment at which the bridge carries packets without them.
        self.shared.reset_firewall()?;
        link::configure(&mut self.route, index, plan.gateway, plan.subnet.prefix)
            .map_err(kernel("configure bridge", name))?;
        self.adopt_ports(index)?;
        Ok(index)
    }

    /// Connects all endpoints to the bridge again if they lost it (with the bridge itself,
    /// say), and removes those of our pairs that belong to nobody.
    fn adopt_ports(&mut self, bridge: u32) -> Result<(), Error> {
        let (living, spare) = self.shared.host_interfaces();
        let name = &self.shared.config().bridge;
        let ports = link::ports(&mut self.route, bridge).map_err(kernel("list ports of", name))?;
        for interface in
            living.iter().chain(&spare).filter(|name| !ports.iter().any(|port| port.name == **name))
        {
            if let Some(lost) = link::find(&mut self.route, interface).map_err(kernel("find", interface))? {
                link::set_master(&mut self.route, lost.index, bridge)
                    .map_err(kernel("connect to the bridge", interface))?;
            }
        }
        let is_stale = |name: &String| is_ours(name) && !living.contains(name) && !spare.contains(name);
        for port in ports.iter().filter(|port| is_stale(&port.name)) {
            link::delete(&mut self.route, port.index).map_err(kernel("delete", &port.name))?;
        }
        Ok(())
    }
}

/// Whether a port of the bridge is the host's end of one of our pairs.
fn is_ours(name: &str) -> bool {
    name.starts_with("veth")
}
