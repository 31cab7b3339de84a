//! All about one container, in Docker's shape.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use ponton_api::ZERO_TIME;
use ponton_api::container::{
    EndpointSettings, GraphDriver, HostConfig, Inspect, NetworkSettings, PortBinding, PortMap,
    State as ApiState,
};

use super::{Container, View};
use crate::engine::Engine;
use crate::error::Result;
use crate::lifecycle::State;
use crate::spec;

impl Engine {
    /// All about one container.
    pub async fn inspect(self: &Arc<Self>, name: &str, size: bool) -> Result<Inspect> {
        let container = self.find(name)?;
        let view = container.view();
        let mut inspect = self.describe(&container, &view);
        if size {
            let bytes = self.size_of(&container.id).await as i64;
            inspect.size_rw = Some(bytes);
            inspect.size_root_fs = Some(bytes + self.image_size(&view.settings.image));
        }
        Ok(inspect)
    }

    fn describe(&self, container: &Container, view: &View) -> Inspect {
        let settings = &view.settings;
        let directory = self.container_directory(&container.id);
        let file = |name: &str| directory.join(name).display().to_string();
        let log_path = crate::log::shown(&settings.host_config.log_config, &container.id, &directory);
        Inspect {
            id: container.id.clone(),
            created: settings.created.to_string(),
            path: settings.path.clone(),
            args: settings.args.clone(),
            state: state(view),
            image: settings.image.clone(),
            resolv_conf_path: file("resolv.conf"),
            hostname_path: file("hostname"),
            hosts_path: file("hosts"),
            log_path: log_path.map_or(String::new(), |path| path.display().to_string()),
            name: format!("/{}", view.name),
            restart_count: i64::from(view.life.restarts),
            driver: settings.driver.clone(),
            platform: "linux".into(),
            apparmor_profile: spec::apparmor_profile(&settings.host_config),
            exec_ids: container.execs.running(),
            host_config: HostConfig {
                links: self.shown_links(&view.name, settings),
                log_config: crate::log::seen(&settings.host_config.log_config),
                ..settings.host_config.clone()
            },
            graph_driver: GraphDriver { data: None, name: settings.driver.clone() },
            mounts: settings.mounts_shown(),
            config: settings.config.clone(),
            network_settings: network_settings(view),
            ..Inspect::default()
        }
    }
}

/// Docker's booleans, derived from the state.
fn state(view: &View) -> ApiState {
    let life = &view.life;
    let last = &life.last;
    let restarting = matches!(life.state, State::Restarting { .. });
    let cause = match &life.state {
        State::Dead { cause } => cause.clone(),
        _ => last.error.clone(),
    };
    ApiState {
        status: life.status().to_owned(),
        // A container between two runs counts as running, as in Docker.
        running: life.is_running() || restarting,
        paused: life.is_paused(),
        restarting,
        oom_killed: last.oom_killed,
        dead: matches!(life.state, State::Dead { .. }),
        pid: i64::from(life.pid().unwrap_or(0)),
        exit_code: i64::from(last.exit_code),
        error: cause,
        started_at: print(last.started_at),
        finished_at: print(last.finished_at),
        health: super::health::shown(view),
    }
}

fn print(time: Option<Timestamp>) -> String {
    time.map_or_else(|| ZERO_TIME.to_owned(), |time| time.to_string())
}

fn network_settings(view: &View) -> NetworkSettings {
    let networks = networks(view);
    let Some(endpoint) = view.endpoint.as_ref().filter(|_| view.life.is_running()) else {
        return NetworkSettings { networks, ..NetworkSettings::default() };
    };
    let settings = NetworkSettings {
        sandbox_id: endpoint.sandbox_id.clone(),
        sandbox_key: match view.life.pid() {
            Some(pid) if !endpoint.sandbox_id.is_empty() => format!("/proc/{pid}/ns/net"),
            _ => String::new(),
        },
        ports: ports(view),
        networks,
        ..NetworkSettings::default()
    };
    if endpoint.network != "bridge" {
        return settings;
    }
    // The address on the default bridge is shown at the top too.
    NetworkSettings {
        endpoint_id: endpoint.endpoint_id.clone(),
        gateway: endpoint.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        ip_address: endpoint.ipv4.map(|address| address.to_string()).unwrap_or_default(),
        ip_prefix_len: endpoint.prefix,
        mac_address: endpoint.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        ..settings
    }
}

/// The networks that the container is in, or will be.
pub(super) fn networks(view: &View) -> BTreeMap<String, EndpointSettings> {
    let network = view.settings.network();
    if network.starts_with("container:") || view.settings.config.network_disabled {
        return BTreeMap::new();
    }
    let mut settings = view.settings.networking.endpoints_config.get(network).cloned().unwrap_or_default();
    if let Some(endpoint) = view.endpoint.as_ref().filter(|_| view.life.is_running()) {
        settings.network_id = endpoint.network_id.clone();
        settings.endpoint_id = endpoint.endpoint_id.clone();
        settings.gateway = endpoint.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
        settings.ip_address = endpoint.ipv4.map(|address| address.to_string()).unwrap_or_default();
        settings.ip_prefix_len = endpoint.prefix;
        settings.mac_address = endpoint.mac.map(|mac| mac.to_string()).unwrap_or_default();
        // It has none of these, whatever the request said.
        settings.ipv6_gateway.clear();
        settings.global_ipv6_address.clear();
        settings.global_ipv6_prefix_len = 0;
        settings.dns_names = None;
    }
    BTreeMap::from([(network.to_owned(), settings)])
}

/// What is published, and what is exposed only.
fn ports(view: &View) -> PortMap {
    let Some(endpoint) = &view.endpoint else { return PortMap::new() };
    let mut ports = PortMap::new();
    if endpoint.ipv4.is_some() {
        for exposed in view.settings.config.exposed_ports.keys() {
            ports.insert(exposed.clone(), None);
        }
    }
    for port in &endpoint.ports {
        let binding =
            PortBinding { host_ip: port.host_ip.to_string(), host_port: port.host_port.to_string() };
        let key = format!("{}/{}", port.container_port, port.protocol);
        ports.entry(key).or_default().get_or_insert_default().push(binding);
    }
    ports
}
