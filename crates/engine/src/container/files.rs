//! The files that are made for a container: `hostname`, `hosts` and `resolv.conf`, as Docker makes
//! them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use ponton_network::EndpointRecord;

use super::{Settings, Task};
use crate::defaults::Defaults;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// The lines that every hosts file has.
const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
                     ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// Name servers where the host has only local ones.
const NAMESERVERS: &[&str] = &["8.8.8.8", "8.8.4.4"];

impl Engine {
    /// The address by which a container reaches the host: the default bridge's.
    fn host_gateway(&self) -> Option<String> {
        if let Some(address) = self.config().defaults.host_gateway {
            return Some(address.to_string());
        }
        let networks = self.network.networks();
        let bridge = networks.into_iter().find(|network| network.name == "bridge")?;
        bridge.gateway.map(|gateway| gateway.to_string())
    }
}

impl Task {
    /// Writes the hosts file, which names the address of the present run.
    pub(super) fn write_hosts(&self, endpoint: &EndpointRecord) -> Result<()> {
        if self.settings().network().starts_with("container:") {
            // It sees the other container's.
            return Ok(());
        }
        let path = self.engine.container_directory(self.id()).join("hosts");
        let links: String = self
            .engine
            .linked(&self.view.name, self.settings())?
            .iter()
            .map(super::link::Linked::line)
            .collect();
        write(&path, &hosts(self.settings(), endpoint, self.engine.host_gateway().as_deref(), &links)?)
    }
}

/// Writes the files that do not depend on a run.
pub(super) fn write_names(directory: &Path, settings: &Settings, defaults: &Defaults) -> Result<()> {
    write(&directory.join("hostname"), &format!("{}\n", settings.config.hostname))?;
    // Filled at each start; there already so that it can be mounted.
    write(&directory.join("hosts"), "")?;
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    write(&directory.join("resolv.conf"), &resolv_conf(settings, defaults, &host))
}

fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).map_err(|error| Error::failed(format!("write {}", path.display()), error))
}

/// `gateway` is what `host-gateway` means, `links` are lines.
fn hosts(
    settings: &Settings,
    endpoint: &EndpointRecord,
    gateway: Option<&str>,
    links: &str,
) -> Result<String> {
    let mut text = match settings.network() {
        "host" => fs::read_to_string("/etc/hosts").unwrap_or_else(|_| HOSTS.to_owned()),
        _ => HOSTS.to_owned(),
    };
    for extra in settings.host_config.extra_hosts.iter().flatten() {
        let Some((name, address)) = extra.split_once([':', '=']) else { continue };
        let address = match (address, gateway) {
            ("host-gateway", Some(gateway)) => gateway,
            ("host-gateway", None) => {
                return Err(Error::invalid("unable to derive the IP value for host-gateway"));
            }
            (address, _) => crate::spec::bare_address(address),
        };
        let _ = writeln!(text, "{address}\t{name}");
    }
    text.push_str(links);
    if let Some(address) = endpoint.ipv4 {
        let config = &settings.config;
        let _ = match config.domainname.as_str() {
            "" => writeln!(text, "{address}\t{}", config.hostname),
            domain => writeln!(text, "{address}\t{0}.{domain} {0}", config.hostname),
        };
    }
    Ok(text)
}

/// The host's resolver configuration without name servers that only the host can reach, and with
/// what the container's settings say.
fn resolv_conf(settings: &Settings, defaults: &Defaults, host: &str) -> String {
    let config = &settings.host_config;
    let given = |list: &Option<Vec<String>>, default: &Vec<String>| {
        let list = list.as_ref().filter(|list| !list.is_empty()).unwrap_or(default);
        (!list.is_empty()).then(|| list.clone())
    };
    let dns = given(&config.dns, &defaults.dns);
    let search = given(&config.dns_search, &defaults.dns_search);
    let options = given(&config.dns_options, &defaults.dns_options);
    if settings.network() == "host" && dns.is_none() && search.is_none() && options.is_none() {
        return host.to_owned();
    }
    let of_host = |keyword: &str| -> Vec<String> {
        host.lines()
            .filter_map(|line| line.trim().strip_prefix(keyword)?.strip_prefix([' ', '\t']))
            .flat_map(|rest| rest.split_whitespace().map(str::to_owned))
            .collect()
    };
    let reachable = |server: &String| !server.starts_with("127.") && server != "::1";
    let mut servers = dns.unwrap_or_else(|| {
        of_host("nameserver")
            .into_iter()
            .filter(|server| settings.network() == "host" || reachable(server))
            .collect()
    });
    if servers.is_empty() {
        servers = NAMESERVERS.iter().map(|&server| server.to_owned()).collect();
    }
    let search = search.unwrap_or_else(|| of_host("search"));
    let options = options.unwrap_or_else(|| of_host("options"));
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    // A search list of only "." means none.
    if !search.is_empty() && search != ["."] {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}
