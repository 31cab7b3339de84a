//! The drivers: what kinds of networks there are, and what each plans. Planning changes nothing;
//! `sandbox` and [`Network`](crate::Network) carry the plans out.

use std::fmt;
use std::net::Ipv4Addr;

use ponton_sys::user_namespace::Ids;

use crate::{EndpointRequest, Error, MacAddress, NetworkConfig, PortRequest, Subnet};

/// What a network needs on the host before its first endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkPlan {
    pub(crate) bridge: String,
    pub(crate) subnet: Subnet,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) mtu: u32,
    /// Files under `/proc/sys` and what is written to them. Those of IPv6 are left out where the
    /// kernel has none.
    pub(crate) sysctls: Vec<(String, &'static str)>,
}

/// What an endpoint consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EndpointPlan {
    /// Whether it has a network namespace of its own; without, the container uses the host's.
    pub(crate) netns: bool,
    /// The interface `eth0`.
    pub(crate) interface: Option<InterfacePlan>,
    pub(crate) ports: Vec<PortRequest>,
    /// The maps of a user namespace of its own, which owns that of its network.
    pub(crate) ids: Option<Ids>,
}

/// What the request fixes of an interface; the rest is chosen when it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InterfacePlan {
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) mac: Option<MacAddress>,
}

/// A kind of network.
pub(crate) trait Driver {
    /// Docker's name for it.
    fn name(&self) -> &'static str;

    /// Refuses what this kind of network cannot do.
    fn validate(&self, request: &EndpointRequest, subnet: Subnet) -> Result<(), Error>;

    /// What the network needs on the host; `None` for nothing.
    fn plan_network(&self, config: &NetworkConfig, subnet: Subnet, gateway: Ipv4Addr) -> Option<NetworkPlan>;

    /// What a container's endpoint consists of.
    fn plan_endpoint(&self, request: &EndpointRequest) -> EndpointPlan;
}

/// The driver of the network of this name.
pub(crate) fn of(network: &str) -> Result<&'static dyn Driver, Error> {
    match network {
        "bridge" | "default" | "" => Ok(&Bridge),
        "host" => Ok(&Host),
        "none" => Ok(&Null),
        other => Err(Error::NotFound(other.to_owned())),
    }
}

/// Interfaces on a bridge of the host, with addresses of their own behind the host's.
struct Bridge;

impl Driver for Bridge {
    fn name(&self) -> &'static str {
        "bridge"
    }

    fn validate(&self, request: &EndpointRequest, subnet: Subnet) -> Result<(), Error> {
        let usable = |address: Ipv4Addr| {
            subnet.contains(address) && ![subnet.address, subnet.broadcast()].contains(&address)
        };
        match request.ipv4 {
            Some(address) if !usable(address) => Err(Error::Invalid(format!(
                "invalid endpoint settings: no configured subnet contains IP address {address}"
            ))),
            _ => Ok(()),
        }?;
        match request.ports.iter().find(|port| port.container_port == 0) {
            Some(port) => Err(Error::Invalid(format!("invalid container port 0/{}", port.protocol))),
            None => Ok(()),
        }
    }

    fn plan_network(&self, config: &NetworkConfig, subnet: Subnet, gateway: Ipv4Addr) -> Option<NetworkPlan> {
        Some(plan_bridge(config, subnet, gateway))
    }

    fn plan_endpoint(&self, request: &EndpointRequest) -> EndpointPlan {
        EndpointPlan {
            netns: true,
            interface: Some(InterfacePlan { ipv4: request.ipv4, mac: request.mac }),
            ports: request.ports.clone(),
            ids: request.ids.clone(),
        }
    }
}

/// The bridge, and what the kernel must allow for it.
pub(crate) fn plan_bridge(config: &NetworkConfig, subnet: Subnet, gateway: Ipv4Addr) -> NetworkPlan {
    let bridge = &config.bridge;
    let sysctls = vec![
        ("net/ipv4/ip_forward".to_owned(), "1"),
        // Answers to connections from the host's own localhost come in here.
        (format!("net/ipv4/conf/{bridge}/route_localnet"), "1"),
        (format!("net/ipv6/conf/{bridge}/accept_ra"), "0"),
        (format!("net/ipv6/conf/{bridge}/disable_ipv6"), "1"),
    ];
    NetworkPlan { bridge: bridge.clone(), subnet, gateway, mtu: config.mtu, sysctls }
}

/// The host's own network. Published ports have no meaning there and are left out, as in Docker.
struct Host;

impl Driver for Host {
    fn name(&self) -> &'static str {
        "host"
    }

    fn validate(&self, _request: &EndpointRequest, _subnet: Subnet) -> Result<(), Error> {
        Ok(())
    }

    fn plan_network(&self, _: &NetworkConfig, _: Subnet, _: Ipv4Addr) -> Option<NetworkPlan> {
        None
    }

    fn plan_endpoint(&self, _request: &EndpointRequest) -> EndpointPlan {
        EndpointPlan::default()
    }
}

/// A namespace with nothing but loopback.
struct Null;

impl Driver for Null {
    fn name(&self) -> &'static str {
        "null"
    }

    fn validate(&self, _request: &EndpointRequest, _subnet: Subnet) -> Result<(), Error> {
        Ok(())
    }

    fn plan_network(&self, _: &NetworkConfig, _: Subnet, _: Ipv4Addr) -> Option<NetworkPlan> {
        None
    }

    fn plan_endpoint(&self, request: &EndpointRequest) -> EndpointPlan {
        EndpointPlan { netns: true, ids: request.ids.clone(), ..EndpointPlan::default() }
    }
}

impl fmt::Display for NetworkPlan {
    /// One step a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bridge, subnet, gateway, mtu, sysctls } = self;
        writeln!(f, "bridge  {bridge}  {gateway}/{}  mtu={mtu}", subnet.prefix)?;
        for (file, value) in sysctls {
            writeln!(f, "sysctl  {}={value}", file.replace('/', "."))?;
        }
        writeln!(f, "nft     table ip ponton  masquerade {subnet}")
    }
}

impl fmt::Display for EndpointPlan {
    /// One step a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = if self.ids.is_some() { "  of a new user namespace" } else { "" };
        writeln!(f, "netns   {}{owner}", if self.netns { "new  lo=up" } else { "host" })?;
        if let Some(InterfacePlan { ipv4, mac }) = self.interface {
            let ipv4 = ipv4.map_or("next free".to_owned(), |address| address.to_string());
            let mac = mac.map_or("by address".to_owned(), |mac| mac.to_string());
            writeln!(f, "veth    eth0  address={ipv4}  mac={mac}")?;
        }
        for port in &self.ports {
            let PortRequest { protocol, container_port, host_ip, host_port, host_port_end } = port;
            let host_port = match host_port {
                0 => "ephemeral".to_owned(),
                first if first < host_port_end => format!("{first}-{host_port_end}"),
                first => first.to_string(),
            };
            writeln!(f, "port    {host_ip}:{host_port}/{protocol} -> {container_port}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    fn request(network: &str) -> EndpointRequest {
        EndpointRequest {
            network: network.to_owned(),
            container_id: "c".to_owned(),
            container_name: "web".to_owned(),
            mac: None,
            ipv4: None,
            ports: vec![PortRequest {
                protocol: Protocol::Udp,
                container_port: 53,
                host_ip: Ipv4Addr::UNSPECIFIED.into(),
                host_port: 5300,
                host_port_end: 5310,
            }],
            ids: None,
        }
    }

    #[test]
    fn plans_are_printed_one_step_a_line() {
        let plan = |network| of(network).unwrap().plan_endpoint(&request(network)).to_string();
        assert_eq!(plan("host"), "netns   host\n");
        assert_eq!(plan("none"), "netns   new  lo=up\n");
        assert_eq!(
            plan("bridge"),
            "netns   new  lo=up\n\
             veth    eth0  address=next free  mac=by address\n\
             port    0.0.0.0:5300-5310/udp -> 53\n"
        );
    }

    #[test]
    fn an_address_outside_the_subnet_is_refused() {
        let subnet: Subnet = "172.17.0.0/16".parse().unwrap();
        let mut request = request("bridge");
        let driver = of("bridge").unwrap();
        driver.validate(&request, subnet).unwrap();
        for wrong in ["10.0.0.1", "172.17.255.255", "172.17.0.0"] {
            request.ipv4 = Some(wrong.parse().unwrap());
            assert!(driver.validate(&request, subnet).is_err(), "{wrong}");
        }
        assert!(matches!(of("nosuch"), Err(Error::NotFound(_))));
    }
}
