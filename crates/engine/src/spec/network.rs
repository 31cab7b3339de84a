//! What Docker refuses of a request's network settings, in its words.

use std::net::IpAddr;

use ponton_api::container::{Config, EndpointSettings, HostConfig, NetworkingConfig};

use crate::error::{Error, Result};

/// Networks that are always there: no addresses and names can be chosen in them.
const PREDEFINED: [&str; 5] = ["", "default", "bridge", "host", "none"];

/// Checks what a request says about networks, before anything of the image is known.
pub fn check_network(config: &Config, host: &HostConfig, networking: &NetworkingConfig) -> Result<()> {
    conflicts(config, host)?;
    for server in host.dns.iter().flatten() {
        if server.parse::<IpAddr>().is_err() {
            return Err(Error::invalid(format!("invalid Dns: {server:?} is not an IP address")));
        }
    }
    for extra in host.extra_hosts.iter().flatten() {
        extra_host(extra)?;
    }
    for link in host.links.iter().flatten() {
        parse_link(link)?;
    }
    mac("MacAddress", &config.mac_address)?;
    endpoints(host, networking)
}

/// What cannot go with another container's network, or the host's.
fn conflicts(config: &Config, host: &HostConfig) -> Result<()> {
    let others = host.network_mode.strip_prefix("container:");
    if others == Some("") || host.network_mode == "container" {
        return Err(Error::invalid("invalid container format container:<name|id>"));
    }
    let (others, hosts) = (others.is_some(), host.network_mode == "host");
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let has_ports = host.publish_all_ports || host.port_bindings.as_ref().is_some_and(|map| !map.is_empty());
    let refused = [
        (others && !config.hostname.is_empty(), "hostname and the network mode"),
        (host.uts_mode == "host" && !config.hostname.is_empty(), "hostname and the UTS mode"),
        (
            hosts && given(&host.links),
            "host type networking can't be used with links. This would result in undefined behavior",
        ),
        (
            others && given(&host.links),
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (others && given(&host.dns), "dns and the network mode"),
        (others && given(&host.extra_hosts), "custom host-to-IP mapping and the network mode"),
        ((others || hosts) && !config.mac_address.is_empty(), "mac-address and the network mode"),
        (others && has_ports, "port publishing and the container type network mode"),
        (others && !config.exposed_ports.is_empty(), "port exposing and the container type network mode"),
    ];
    match refused.into_iter().find(|(is_refused, _)| *is_refused) {
        Some((_, what)) => Err(Error::invalid(format!("conflicting options: {what}"))),
        None => Ok(()),
    }
}

/// `name:address`, or `name=address`; the address may be `host-gateway`.
fn extra_host(text: &str) -> Result<()> {
    let (name, address) = text.split_once([':', '=']).unwrap_or((text, ""));
    if name.is_empty() || address.is_empty() {
        return Err(Error::invalid(format!("bad format for add-host: {text:?}")));
    }
    if address != "host-gateway" && bare_address(address).parse::<IpAddr>().is_err() {
        return Err(Error::invalid(format!("invalid IP address in add-host: {address:?}")));
    }
    Ok(())
}

/// An address without the brackets that may be around one of IPv6.
pub fn bare_address(text: &str) -> &str {
    text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text)
}

/// `container`, or `container:alias`: the container, and what it is called.
pub fn parse_link(text: &str) -> Result<(&str, &str)> {
    let invalid = || Error::invalid(format!("bad format for links: {text}"));
    let (name, alias) = match text.split_once(':') {
        None => (text, text.rsplit('/').next().unwrap_or(text)),
        // As inspect shows it: /container:/other/alias.
        Some((name, alias)) => (name, alias.rsplit('/').next().unwrap_or(alias)),
    };
    if name.is_empty() || alias.is_empty() || alias.contains(':') {
        return Err(invalid());
    }
    Ok((name, alias))
}

fn mac(field: &str, text: &str) -> Result<()> {
    let is_mac = || {
        let parts: Vec<&str> = text.split([':', '-']).collect();
        parts.len() == 6 && parts.iter().all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok())
    };
    if text.is_empty() || is_mac() {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid {field}: address {text}: invalid MAC address")))
}

/// A new container has one network; what can be chosen in a network of the user's own cannot be in the
/// predefined ones.
fn endpoints(host: &HostConfig, networking: &NetworkingConfig) -> Result<()> {
    let endpoints = &networking.endpoints_config;
    let mode = host.network_mode.as_str();
    let canonical = |name: &str| match name {
        "" | "default" => "bridge".to_owned(),
        name => name.to_owned(),
    };
    let is_own = |name: &str| canonical(name) == canonical(mode);
    for (name, endpoint) in endpoints {
        if !is_own(name) && (endpoints.len() > 1 || *endpoint != EndpointSettings::default()) {
            let what = format!("NetworkingConfig.EndpointsConfig: connecting a container to network {name}");
            return Err(Error::not_implemented(format!(
                "{what} beside its network mode {mode:?} is not implemented"
            )));
        }
        mac("EndpointsConfig.MacAddress", &endpoint.mac_address)?;
        let predefined = PREDEFINED.contains(&name.as_str());
        let ipam = endpoint.ipam_config.clone().unwrap_or_default();
        let addresses = !ipam.ipv4_address.is_empty() || !ipam.ipv6_address.is_empty();
        let aliases = endpoint.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty());
        if predefined && addresses {
            return Err(Error::invalid(
                "user specified IP address is supported on user defined networks only",
            ));
        }
        if predefined && aliases {
            return Err(Error::invalid(
                "network-scoped alias is supported only for containers in user defined networks",
            ));
        }
        let unbuilt = [
            ("IPAMConfig.LinkLocalIPs", ipam.link_local_ips.is_some_and(|list| !list.is_empty())),
            ("DriverOpts", endpoint.driver_opts.as_ref().is_some_and(|map| !map.is_empty())),
            ("Links", endpoint.links.as_ref().is_some_and(|list| !list.is_empty())),
        ];
        if let Some((field, _)) = unbuilt.into_iter().find(|(_, is_asked)| *is_asked) {
            return Err(Error::not_implemented(format!(
                "NetworkingConfig.EndpointsConfig.{name}.{field} is not implemented"
            )));
        }
    }
    Ok(())
}
