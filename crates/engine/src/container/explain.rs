//! How a container stands with the kernel: read from `/proc` of its first process, its control group, and the links
//! and rules of the host; what was asked for stands beside it.
//!
//! Nothing is looked up by a path inside the container, and no name that a process gives itself is followed.

mod cgroup;
mod mount;
mod process;

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ponton_api::explain::{
    ControlGroup, Explanation, Interface, Namespace, Network, Port, Restart, Root, Security,
};
use ponton_cgroup::{Cgroup, Layout};
use ponton_image::Image;
use ponton_network::{EndpointRecord, LinkInfo, NamespaceInfo};

use super::{Container, Settings, View};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::lifecycle::State;

/// Kinds of namespaces by their files in `/proc/PID/ns`.
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

impl Engine {
    /// How a container stands with the kernel. Of one that doesn't run, only what was asked for is told.
    pub async fn explain(self: &Arc<Self>, name: &str) -> Result<Explanation> {
        let container = self.find(name)?;
        let view = container.view();
        let image = self.images.get(&view.settings.image).ok();
        let mut explanation = known(&container, &view, image.as_ref());
        explanation.health = self.inspect(&container.id, false).await?.state.health;
        let Some(pid) = view.life.pid().and_then(|pid| u32::try_from(pid).ok()) else {
            return Ok(explanation);
        };
        let group = container.change(|task| Box::pin(async move { task.control_group() })).await?;
        let others: Vec<(String, i32)> = self
            .all()
            .iter()
            .filter(|other| other.id != container.id)
            .filter_map(|other| {
                let view = other.view();
                Some((view.name.clone(), view.life.pid()?))
            })
            .collect();
        let directory = self.container_directory(&container.id);
        let seen = Arc::clone(&view);
        let explanation = blocking(move || {
            explanation.pid = pid;
            look(&mut explanation, &seen.settings, &group, &others)?;
            let tmpfs = seen.settings.host_config.tmpfs.iter().flatten().map(|(path, _)| path.as_str());
            let points = seen.settings.mounts_shown();
            let asked = mount::Asked {
                image: &seen.settings.config.image,
                points: &points,
                tmpfs: tmpfs.collect(),
                directory: &directory,
            };
            mount::name(&mut explanation.mounts, &asked);
            explanation.network = network(pid, &seen)?;
            Ok(explanation)
        })
        .await?;
        // Had it ended meanwhile, its number might have been another process's.
        match container.view().life.pid() {
            now if now == view.life.pid() => Ok(explanation),
            _ => Err(Error::conflict(format!("container {} ended while it was looked at", container.id))),
        }
    }
}

/// What needs no look at the kernel.
fn known(container: &Container, view: &View, image: Option<&Image>) -> Explanation {
    let settings = &view.settings;
    let layers = image.map(|image| image.config.rootfs.diff_ids.iter().map(ToString::to_string).collect());
    Explanation {
        id: container.id.clone(),
        name: view.name.clone(),
        image: settings.config.image.clone(),
        status: view.life.status().to_owned(),
        root: Root {
            driver: settings.driver.clone(),
            layers: layers.unwrap_or_default(),
            read_only: settings.host_config.readonly_rootfs,
        },
        network: Network { mode: settings.network().to_owned(), ..Network::default() },
        restart: Restart {
            policy: settings.host_config.restart_policy.clone(),
            count: view.life.restarts,
            next_at: match &view.life.state {
                State::Restarting { next_at } => next_at.to_string(),
                _ => String::new(),
            },
        },
        ..Explanation::default()
    }
}

/// Reads what `/proc` and the control group tell.
fn look(
    explanation: &mut Explanation,
    settings: &Settings,
    group: &Cgroup,
    others: &[(String, i32)],
) -> Result<()> {
    let pid = explanation.pid;
    explanation.namespaces = namespaces(pid, others)?;
    let status = read(pid, "status")?;
    explanation.security = security(pid, &status, settings);
    explanation.rlimits = process::rlimits(&read(pid, "limits")?);
    explanation.mounts = mount::parse(&read(pid, "mountinfo")?);
    explanation.processes = process::tree(pid, &group.pids()?);
    let layout = Layout::detect()?;
    explanation.cgroup = ControlGroup {
        version: if layout.is_v2() { 2 } else { 1 },
        path: format!("/{}", group.path()),
        limits: cgroup::limits(&layout, group.path(), &settings.host_config),
    };
    Ok(())
}

/// A file of the process. The error says that it is gone.
fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(|error| Error::failed(format!("read {path}"), error))
}

/// The kernel's number of a namespace.
fn namespace_id(pid: impl std::fmt::Display, kind: &str) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
    let link = link.to_str()?;
    link.split_once('[')?.1.trim_end_matches(']').parse().ok()
}

fn namespaces(pid: u32, others: &[(String, i32)]) -> Result<Vec<Namespace>> {
    let mut found = Vec::new();
    for kind in NAMESPACES {
        // A kernel may be built without a kind.
        let Some(id) = namespace_id(pid, kind) else { continue };
        let host = namespace_id("self", kind) == Some(id);
        let shares = |other: &&(String, i32)| namespace_id(other.1, kind) == Some(id);
        let shared_with = match host {
            // All that have none of their own: it says nothing of them.
            true => Vec::new(),
            false => others.iter().filter(shares).map(|(name, _)| name.clone()).collect(),
        };
        found.push(Namespace { kind: kind.to_owned(), id, host, shared_with });
    }
    if found.is_empty() {
        return Err(Error::internal(format!("process {pid} shows no namespaces: it has ended")));
    }
    Ok(found)
}

fn security(pid: u32, status: &str, settings: &Settings) -> Security {
    let host = &settings.host_config;
    let chosen = host
        .security_opt
        .iter()
        .flatten()
        .rev()
        .find_map(|option| option.strip_prefix("seccomp=").or_else(|| option.strip_prefix("seccomp:")));
    let profile = match chosen {
        None | Some("") if host.privileged => "unconfined",
        None | Some("" | "builtin") => "default",
        Some("unconfined") => "unconfined",
        Some(_) => "custom",
    };
    // Not there without AppArmor, or without any security module.
    let apparmor =
        ["attr/apparmor/current", "attr/current"].into_iter().find_map(|file| read(pid, file).ok());
    Security {
        privileged: host.privileged,
        seccomp_profile: profile.to_owned(),
        apparmor: apparmor.unwrap_or_default().trim_end_matches(['\0', '\n']).to_owned(),
        oom_score_adj: read(pid, "oom_score_adj").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0),
        ..process::security(status)
    }
}

fn network(pid: u32, view: &View) -> Result<Network> {
    let path = format!("/proc/{pid}/ns/net");
    let failed = |error| Error::failed(format!("list links of {path}"), error);
    let file = File::open(&path).map_err(failed)?;
    let inside = ponton_network::show(OwnedFd::from(file)).map_err(failed)?;
    let outside = ponton_network::show_own().map_err(failed)?;
    let (ours, ports) = match &view.endpoint {
        Some(endpoint) => (endpoint.host_interface.as_str(), ports(endpoint)?),
        None => ("", Vec::new()),
    };
    Ok(Network {
        mode: view.settings.network().to_owned(),
        interfaces: inside.links.iter().map(|link| interface(link, &outside, ours)).collect(),
        gateway: inside.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        ports,
    })
}

/// A link of the container. Its other end has the name that we gave it, and points back to it.
fn interface(link: &LinkInfo, outside: &NamespaceInfo, ours: &str) -> Interface {
    let peer = outside.links.iter().find(|other| {
        !ours.is_empty() && other.name == ours && other.index == link.peer && other.peer == link.index
    });
    let bridge = peer.and_then(|peer| outside.links.iter().find(|other| other.index == peer.master));
    let name = |link: Option<&LinkInfo>| link.map(|link| link.name.clone()).unwrap_or_default();
    Interface {
        name: link.name.clone(),
        mac: link.mac.clone(),
        addresses: link.addresses.iter().map(|(address, prefix)| format!("{address}/{prefix}")).collect(),
        mtu: link.mtu,
        up: link.up,
        peer: name(peer),
        bridge: name(bridge),
    }
}

fn ports(endpoint: &EndpointRecord) -> Result<Vec<Port>> {
    let published = ponton_network::published(endpoint)
        .map_err(|error| Error::failed("list elements of nftables table ip ponton", error))?;
    let address = endpoint.ipv4.map(|address| address.to_string()).unwrap_or_default();
    let port = |(binding, rule, in_force): (ponton_network::PortBinding, String, bool)| Port {
        protocol: binding.protocol.to_string(),
        host_ip: binding.host_ip.to_string(),
        host_port: binding.host_port,
        container_ip: address.clone(),
        container_port: binding.container_port,
        rule,
        in_force,
    };
    Ok(published.into_iter().map(port).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_namespaces_are_the_hosts() {
        let all = namespaces(std::process::id(), &[("me".to_owned(), std::process::id() as i32)]).unwrap();
        assert!(all.len() >= 7 && all.iter().all(|namespace| namespace.host && namespace.id > 0));
        assert!(all.iter().all(|namespace| namespace.shared_with.is_empty()));
        assert!(namespaces(u32::MAX, &[]).is_err());
    }

    #[test]
    fn a_peer_must_point_back() {
        let link = |index, name: &str, peer, master| LinkInfo {
            index,
            name: name.to_owned(),
            peer,
            master,
            ..LinkInfo::default()
        };
        let outside = NamespaceInfo {
            links: vec![link(3, "bridge0", 0, 0), link(9, "veth9", 2, 3), link(10, "veth10", 7, 3)],
            gateway: None,
        };
        let shown = interface(&link(2, "eth0", 9, 0), &outside, "veth9");
        assert_eq!((shown.peer.as_str(), shown.bridge.as_str()), ("veth9", "bridge0"));
        assert_eq!(interface(&link(2, "eth0", 10, 0), &outside, "veth9").peer, "");
        assert_eq!(interface(&link(1, "lo", 0, 0), &outside, "veth9").peer, "");
    }
}
