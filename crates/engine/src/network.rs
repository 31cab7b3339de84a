//! Networks, as the API shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ponton_api::ZERO_TIME;
use ponton_api::filters::Filters;
use ponton_api::network::{EndpointResource, Ipam, IpamConfig, Network};
use ponton_network::NetworkInfo;

use crate::engine::Engine;
use crate::error::{Error, Result};

const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

impl Engine {
    /// The networks.
    pub async fn network_list(self: &Arc<Self>, filters: Filters) -> Result<Vec<Network>> {
        filters.check_known(FILTERS).map_err(|error| Error::invalid(error.to_string()))?;
        let wanted = |network: &Network| {
            filters.matches("name", |name| network.name.contains(name))
                && filters.matches("id", |id| network.id.starts_with(id))
                && filters.matches("driver", |driver| network.driver == driver)
                && filters.matches("scope", |scope| network.scope == scope)
                && filters.matches("type", |kind| kind == "builtin")
                && filters.matches("dangling", |dangling| matches!(dangling, "false" | "0"))
                && filters.matches_labels("label", &network.labels)
        };
        // The list leaves the containers out, as Docker's does.
        Ok(self.network.networks().iter().map(describe).filter(wanted).collect())
    }

    /// All about one network, which has to be of `scope` if that is not empty.
    pub async fn network_inspect(self: &Arc<Self>, name: &str, scope: &str) -> Result<Network> {
        let networks = self.network.networks();
        let found = networks
            .iter()
            .find(|network| network.name == name || network.id == name)
            .or_else(|| networks.iter().find(|network| !name.is_empty() && network.id.starts_with(name)));
        let Some(info) = found else { return Err(Error::not_found(format!("network {name} not found"))) };
        let mut network = describe(info);
        if !scope.is_empty() && scope != network.scope {
            return Err(Error::not_found(format!("network {name} not found")));
        }
        for container in self.all() {
            let view = container.view();
            let Some(endpoint) = view.endpoint.as_ref().filter(|_| view.life.is_running()) else { continue };
            if endpoint.network_id != info.id {
                continue;
            }
            let resource = EndpointResource {
                name: view.name.clone(),
                endpoint_id: endpoint.endpoint_id.clone(),
                mac_address: endpoint.mac.map(|mac| mac.to_string()).unwrap_or_default(),
                ipv4_address: endpoint
                    .ipv4
                    .map(|address| format!("{address}/{}", endpoint.prefix))
                    .unwrap_or_default(),
                ipv6_address: String::new(),
            };
            network.containers.insert(container.id.clone(), resource);
        }
        Ok(network)
    }
}

fn describe(info: &NetworkInfo) -> Network {
    let config = info.subnet.map(|subnet| {
        vec![IpamConfig {
            subnet: subnet.to_string(),
            gateway: info.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
            ..IpamConfig::default()
        }]
    });
    Network {
        name: info.name.clone(),
        id: info.id.clone(),
        created: ZERO_TIME.into(),
        scope: "local".into(),
        driver: info.driver.clone(),
        enable_ipv4: true,
        ipam: Ipam { driver: "default".into(), options: None, config: Some(config.unwrap_or_default()) },
        options: info.options.iter().cloned().collect(),
        labels: BTreeMap::new(),
        ..Network::default()
    }
}
