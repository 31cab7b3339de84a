//! Links of the default bridge (`--link`): a container sees another by a name of its own, in its hosts file
//! and in its environment, as dockerd 20.10 has it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use futures_util::FutureExt;
use ponton_api::container::HostConfig;
use serde::{Deserialize, Serialize};

use super::{Container, Settings, Task};
use crate::engine::Engine;
use crate::error::{Error, Result, chain};
use crate::spec;

/// A link, as it is kept: by the id of the other container, which may change its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    /// The other container's id.
    pub(crate) container: String,
    /// What it is called here.
    pub(crate) alias: String,
}

/// What a running container tells of one that it is linked to.
pub(super) struct Linked {
    address: Ipv4Addr,
    /// Alias, host name and name: the line of the hosts file.
    names: String,
    variables: Vec<String>,
}

impl Linked {
    /// The line of the hosts file.
    pub(super) fn line(&self) -> String {
        format!("{}\t{}\n", self.address, self.names)
    }

    /// The variables of the environment.
    pub(super) fn into_variables(self) -> Vec<String> {
        self.variables
    }
}

impl Engine {
    /// The links of a request, with their containers looked up.
    pub(super) fn resolve_links(&self, host: &HostConfig) -> Result<Vec<Link>> {
        let mut links: Vec<Link> = Vec::new();
        for text in host.links.iter().flatten() {
            let (name, alias) = spec::parse_link(text)?;
            let other = self
                .find(name)
                .map_err(|error| Error::invalid(format!("could not get container for {name}: {error}")))?;
            if other.view().settings.network() == "host" {
                return Err(Error::invalid(
                    "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
                ));
            }
            links.retain(|known| known.alias != alias);
            links.push(Link { container: other.id.clone(), alias: alias.to_owned() });
        }
        Ok(links)
    }

    /// What a container's links come to now: all linked containers must run on the default bridge.
    pub(super) fn linked(&self, name: &str, settings: &Settings) -> Result<Vec<Linked>> {
        let linked = settings.links.iter().filter_map(|link| Some((link, self.by_id(&link.container)?)));
        linked.map(|(link, other)| describe(name, link, &other)).collect()
    }

    /// The links of a container as inspect shows them, `/other:/name/alias`; a container that is gone has
    /// none.
    pub(super) fn shown_links(&self, name: &str, settings: &Settings) -> Option<Vec<String>> {
        let shown: Vec<String> = settings
            .links
            .iter()
            .filter_map(|link| {
                let other = self.by_id(&link.container)?;
                Some(format!("/{}:/{name}/{}", other.view().name, link.alias))
            })
            .collect();
        (!shown.is_empty()).then_some(shown)
    }

    /// By what further names containers are known: `/other/alias`, by their ids.
    pub(super) fn link_names(&self) -> HashMap<String, Vec<String>> {
        let mut names: HashMap<String, Vec<String>> = HashMap::new();
        for container in self.all() {
            let view = container.view();
            for Link { container, alias } in &view.settings.links {
                names.entry(container.clone()).or_default().push(format!("/{}/{alias}", view.name));
            }
        }
        names
    }

    /// `rm --link other/alias`
    pub(super) async fn remove_link(&self, name: &str) -> Result<()> {
        let bare = name.strip_prefix('/').unwrap_or(name);
        let Some((parent, alias)) = bare.split_once('/') else {
            self.find(name)?;
            return Err(Error::conflict("Conflict, cannot remove the default link name of the container"));
        };
        let parent = self
            .find(parent)
            .map_err(|_| Error::not_found(format!("Cannot get parent /{parent} for link name /{bare}")))?;
        let (name, alias) = (name.to_owned(), alias.to_owned());
        parent.change(move |task| async move { task.unlink(&name, &alias) }.boxed()).await
    }
}

fn describe(name: &str, link: &Link, other: &Container) -> Result<Linked> {
    let view = other.view();
    if !view.life.is_running() {
        return Err(Error::invalid(format!(
            "Cannot link to a non running container: /{} AS /{name}/{}",
            view.name, link.alias
        )));
    }
    let address = view.endpoint.as_ref().filter(|endpoint| endpoint.network == "bridge");
    let Some(address) = address.and_then(|endpoint| endpoint.ipv4) else {
        return Err(Error::invalid(format!(
            "Cannot link to /{}, as it does not belong to the default network",
            view.name
        )));
    };
    let config = &view.settings.config;
    let mut names = format!("{} {}", link.alias, config.hostname);
    if link.alias != view.name {
        names = format!("{names} {}", view.name);
    }
    let ports: Vec<&str> = config.exposed_ports.keys().map(String::as_str).collect();
    let env = config.env.as_deref().unwrap_or_default();
    let variables = variables(&format!("/{name}/{}", link.alias), &link.alias, address, &ports, env);
    Ok(Linked { address, names, variables })
}

/// The variables that tell of a linked container with these exposed ports and this environment.
fn variables(path: &str, alias: &str, address: Ipv4Addr, ports: &[&str], env: &[String]) -> Vec<String> {
    let prefix = alias.to_uppercase().replace('-', "_");
    let mut ports: Vec<(u16, &str)> = ports
        .iter()
        .filter_map(|port| {
            let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
            Some((number.parse().ok()?, protocol))
        })
        .collect();
    ports.sort_by_key(|(number, protocol)| (*number, *protocol != "tcp"));
    let mut variables = Vec::new();
    if let Some((number, protocol)) = ports.first() {
        variables.push(format!("{prefix}_PORT={protocol}://{address}:{number}"));
    }
    for (number, protocol) in ports {
        let port = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
        variables.push(format!("{port}={protocol}://{address}:{number}"));
        variables.push(format!("{port}_ADDR={address}"));
        variables.push(format!("{port}_PORT={number}"));
        variables.push(format!("{port}_PROTO={protocol}"));
    }
    variables.push(format!("{prefix}_NAME={path}"));
    for (name, value) in env.iter().filter_map(|variable| variable.split_once('=')) {
        // Of every image, and of no use elsewhere.
        if !matches!(name, "HOME" | "PATH") {
            variables.push(format!("{prefix}_ENV_{name}={value}"));
        }
    }
    variables
}

impl Task {
    /// The variables of the linked containers; of those that do not run any more there are none.
    pub(super) fn link_variables(&self) -> Vec<String> {
        let linked = self.engine.linked(&self.view.name, self.settings()).unwrap_or_default();
        linked.into_iter().flat_map(|linked| linked.variables).collect()
    }

    /// Has the containers that are linked to this one learn its new address.
    pub(super) fn tell_linked(&self) {
        for other in self.engine.all() {
            let view = other.view();
            if !view.life.is_running() || !view.settings.links.iter().any(|link| link.container == self.id())
            {
                continue;
            }
            other.tell(|task| async move { task.rewrite_hosts() }.boxed());
        }
    }

    fn rewrite_hosts(&mut self) {
        let Some(endpoint) = self.view.endpoint.clone() else { return };
        if let Err(error) = self.write_hosts(&endpoint) {
            tracing::warn!(error = chain(&error), container = self.id(), "write the hosts file");
        }
    }

    fn unlink(&mut self, name: &str, alias: &str) -> Result<()> {
        let mut settings = (**self.settings()).clone();
        let before = settings.links.len();
        settings.links.retain(|link| link.alias != alias);
        if settings.links.len() == before {
            return Err(Error::no_such_container(name));
        }
        self.keep_settings(settings)?;
        self.rewrite_hosts();
        Ok(())
    }

    /// Writes changed settings to the database, then shows them.
    pub(super) fn keep_settings(&mut self, settings: Settings) -> Result<()> {
        let config = serde_json::to_string(&settings)
            .map_err(|error| Error::failed("print a container's settings", error))?;
        self.engine.store.containers().update_config(self.id(), &config)?;
        self.view.settings = Arc::new(settings);
        self.show();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_dockers() {
        let env = ["PATH=/bin".to_owned(), "A=b=c".to_owned(), "broken".to_owned()];
        let address = Ipv4Addr::new(172, 17, 0, 2);
        assert_eq!(
            variables("/web/my-db", "my-db", address, &["53/udp", "5432/tcp", "53/tcp"], &env),
            [
                "MY_DB_PORT=tcp://172.17.0.2:53",
                "MY_DB_PORT_53_TCP=tcp://172.17.0.2:53",
                "MY_DB_PORT_53_TCP_ADDR=172.17.0.2",
                "MY_DB_PORT_53_TCP_PORT=53",
                "MY_DB_PORT_53_TCP_PROTO=tcp",
                "MY_DB_PORT_53_UDP=udp://172.17.0.2:53",
                "MY_DB_PORT_53_UDP_ADDR=172.17.0.2",
                "MY_DB_PORT_53_UDP_PORT=53",
                "MY_DB_PORT_53_UDP_PROTO=udp",
                "MY_DB_PORT_5432_TCP=tcp://172.17.0.2:5432",
                "MY_DB_PORT_5432_TCP_ADDR=172.17.0.2",
                "MY_DB_PORT_5432_TCP_PORT=5432",
                "MY_DB_PORT_5432_TCP_PROTO=tcp",
                "MY_DB_NAME=/web/my-db",
                "MY_DB_ENV_A=b=c",
            ]
        );
    }
}
