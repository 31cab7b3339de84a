//! `--network` and what belongs to it.

use ponton_api::container::{EndpointIpamConfig, EndpointSettings, HostConfig, NetworkingConfig};

use crate::error::Error;
use crate::flag::Flags;

/// Puts the network mode into `host`; gives the endpoints back.
pub(super) fn networks(flags: &Flags, host: &mut HostConfig) -> Result<NetworkingConfig, Error> {
    let named = flags.all("network");
    let mut config = NetworkingConfig::default();
    let mut modes = Vec::new();
    for (index, text) in named.iter().enumerate() {
        let (name, mut endpoint) = parse(text)?;
        if index == 0 {
            add_flags(flags, &mut endpoint);
        }
        config.endpoints_config.insert(name.clone(), endpoint);
        modes.push(name);
    }
    if modes.is_empty() {
        let mut endpoint = EndpointSettings::default();
        add_flags(flags, &mut endpoint);
        config.endpoints_config.insert("default".to_owned(), endpoint);
    }
    host.network_mode = modes.first().map_or("default", String::as_str).to_owned();
    let aliases = !flags.all("network-alias").is_empty();
    if aliases && matches!(host.network_mode.as_str(), "default" | "bridge" | "host" | "none") {
        return Err(Error::invalid("network-scoped aliases are only supported for user-defined networks"));
    }
    Ok(config)
}

/// `name`, or `name=net,alias=a,ip=1.2.3.4`.
fn parse(text: &str) -> Result<(String, EndpointSettings), Error> {
    let mut endpoint = EndpointSettings::default();
    if !text.contains('=') {
        return Ok((text.to_owned(), endpoint));
    }
    let mut network = String::new();
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| Error::invalid(format!("invalid field {field}")))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => value.clone_into(&mut network),
            "alias" => endpoint.aliases.get_or_insert_default().push(value.to_owned()),
            "ip" => ipam(&mut endpoint).ipv4_address = value.to_owned(),
            "ip6" => ipam(&mut endpoint).ipv6_address = value.to_owned(),
            "mac-address" => value.clone_into(&mut endpoint.mac_address),
            "gw-priority" => {
                endpoint.gw_priority =
                    value.parse().map_err(|_| Error::invalid(format!("invalid gw-priority: {value}")))?;
            }
            "driver-opt" => {
                let (name, value) = value
                    .split_once('=')
                    .ok_or_else(|| Error::invalid("invalid key value pair format in driver options"))?;
                endpoint.driver_opts.get_or_insert_default().insert(name.to_owned(), value.to_owned());
            }
            key => return Err(Error::invalid(format!("invalid field key {key}"))),
        }
    }
    if network.is_empty() {
        return Err(Error::invalid("network name is required"));
    }
    Ok((network, endpoint))
}

fn ipam(endpoint: &mut EndpointSettings) -> &mut EndpointIpamConfig {
    endpoint.ipam_config.get_or_insert_with(EndpointIpamConfig::default)
}

fn add_flags(flags: &Flags, endpoint: &mut EndpointSettings) {
    if let Some(address) = flags.given("ip") {
        address.clone_into(&mut ipam(endpoint).ipv4_address);
    }
    if let Some(address) = flags.given("ip6") {
        address.clone_into(&mut ipam(endpoint).ipv6_address);
    }
    if !flags.all("link-local-ip").is_empty() {
        ipam(endpoint).link_local_ips = Some(flags.all("link-local-ip").to_vec());
    }
    if let Some(address) = flags.given("mac-address") {
        address.clone_into(&mut endpoint.mac_address);
    }
    if !flags.all("network-alias").is_empty() {
        endpoint.aliases.get_or_insert_default().extend_from_slice(flags.all("network-alias"));
    }
    if !flags.all("link").is_empty() {
        endpoint.links = Some(flags.all("link").to_vec());
    }
}
