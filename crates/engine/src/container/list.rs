//! Listing containers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::vec;

use futures_util::{Stream, stream};
use jiff::Timestamp;
use ponton_api::container::{Summary, SummaryHostConfig, SummaryNetworkSettings, SummaryPort};
use ponton_api::filters::Filters;

use super::{Container, Settings, View};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::lifecycle::State;
use crate::request::ListOptions;

/// The filters that `ps` knows.
const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

const STATUSES: &[&str] = &["created", "running", "paused", "restarting", "removing", "exited", "dead"];

const HEALTHS: &[&str] = &["none", "starting", "healthy", "unhealthy"];

impl Engine {
    /// The containers as they are now, newest first. Each is described when it is asked for, so that a long list
    /// can be on its way to a client while the rest is made.
    pub fn list(
        self: &Arc<Self>,
        options: &ListOptions,
    ) -> Result<impl Stream<Item = Summary> + Send + use<>> {
        let filters = &options.filters;
        filters.check_known(FILTERS).map_err(|error| Error::invalid(error.to_string()))?;
        let wanted = Wanted::new(self, filters)?;
        let all =
            options.all || options.limit > 0 || filters.contains("status") || filters.contains("exited");
        let mut containers: Vec<_> = self
            .all()
            .into_iter()
            .map(|container| (container.view(), container))
            .filter(|(view, container)| {
                let visible =
                    all || matches!(view.life.state, State::Running { .. } | State::Restarting { .. });
                visible && !view.removed && wanted.matches(container, view)
            })
            .collect();
        containers.sort_by_key(|(view, _)| std::cmp::Reverse(view.settings.created));
        if let Some(limit) = usize::try_from(options.limit).ok().filter(|limit| *limit > 0) {
            containers.truncate(limit);
        }
        let listing = Listing {
            containers: containers.into_iter(),
            link_names: self.link_names(),
            images: Images { engine: Arc::clone(self), known: HashMap::new() },
            size: options.size,
            now: Timestamp::now(),
        };
        Ok(stream::unfold(listing, |mut listing| async move {
            listing.next().await.map(|summary| (summary, listing))
        }))
    }
}

/// What is still to be told of a list.
struct Listing {
    containers: vec::IntoIter<(Arc<View>, Arc<Container>)>,
    link_names: HashMap<String, Vec<String>>,
    images: Images,
    size: bool,
    now: Timestamp,
}

impl Listing {
    async fn next(&mut self) -> Option<Summary> {
        let (view, container) = self.containers.next()?;
        let mut summary = self.images.summary(&container, &view, self.now);
        summary.names.extend(self.link_names.remove(&container.id).unwrap_or_default());
        if self.size {
            let engine = &self.images.engine;
            let size = engine.size_of(&container.id).await as i64;
            summary.size_rw = Some(size);
            summary.size_root_fs = Some(size + engine.image_size(&view.settings.image));
        }
        Some(summary)
    }
}

/// The images that names mean; each is looked up once for a list.
struct Images {
    engine: Arc<Engine>,
    known: HashMap<String, Option<String>>,
}

impl Images {
    /// The name that a container was made with, or the image's id where that means another one now.
    fn shown(&mut self, settings: &Settings) -> String {
        let name = &settings.config.image;
        if !self.known.contains_key(name) {
            self.known.insert(name.clone(), self.engine.images_by_name(name));
        }
        match self.known.get(name) {
            Some(Some(id)) if *id != settings.image => settings.image.clone(),
            _ => name.clone(),
        }
    }

    fn summary(&mut self, container: &Container, view: &View, now: Timestamp) -> Summary {
        let settings = &view.settings;
        let image = self.shown(settings);
        let mut command = vec![settings.path.clone()];
        command.extend(settings.args.iter().map(|arg| match arg.contains(' ') {
            true => format!("'{arg}'"),
            false => arg.clone(),
        }));
        let networks = super::inspect::networks(view);
        Summary {
            id: container.id.clone(),
            names: vec![format!("/{}", view.name)],
            image,
            image_id: settings.image.clone(),
            command: command.join(" "),
            created: settings.created.as_second(),
            ports: ports(view),
            labels: settings.config.labels.clone().unwrap_or_default(),
            state: view.life.status().to_owned(),
            status: status(view, now),
            host_config: SummaryHostConfig {
                network_mode: settings.host_config.network_mode.clone(),
                annotations: settings.host_config.annotations.clone(),
            },
            network_settings: SummaryNetworkSettings { networks },
            mounts: settings.mounts_shown(),
            health: super::health::summary(view),
            ..Summary::default()
        }
    }
}

/// A list's filters, with the containers and images that they name looked up.
struct Wanted<'a> {
    filters: &'a Filters,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    exited: Vec<i32>,
    ancestors: Vec<String>,
}

impl<'a> Wanted<'a> {
    fn new(engine: &Engine, filters: &'a Filters) -> Result<Self> {
        if let Some(status) = filters.get("status").find(|status| !STATUSES.contains(status)) {
            return Err(Error::invalid(format!("invalid filter 'status={status}'")));
        }
        if let Some(health) = filters.get("health").find(|health| !HEALTHS.contains(health)) {
            return Err(Error::invalid(format!("Unrecognised filter value for health: {health}")));
        }
        let created = |name: &str| -> Result<Option<Timestamp>> {
            filters.get(name).next().map(|name| Ok(engine.find(name)?.view().settings.created)).transpose()
        };
        let exited = filters
            .get("exited")
            .map(|code| code.parse().map_err(|_| Error::invalid(format!("invalid filter 'exited={code}'"))))
            .collect::<Result<_>>()?;
        let ancestors = filters.get("ancestor").filter_map(|name| engine.images_by_name(name)).collect();
        Ok(Self { filters, before: created("before")?, since: created("since")?, exited, ancestors })
    }

    fn matches(&self, container: &Container, view: &View) -> bool {
        let (settings, filters) = (&view.settings, self.filters);
        let labels = settings.config.labels.as_ref();
        let is_open = |wanted: &str, number: fn(&SummaryPort) -> u16| {
            ports(view).iter().any(|open| is_port(wanted, number(open), &open.r#type))
        };
        filters.matches("id", |id| container.id.starts_with(id))
            && filters.matches("name", |name| name_matches(&view.name, name))
            && filters.matches("status", |status| view.life.status() == status)
            && (self.exited.is_empty()
                || matches!(view.life.state, State::Exited)
                    && self.exited.contains(&view.life.last.exit_code))
            && (!filters.contains("ancestor") || self.ancestors.contains(&settings.image))
            && filters.matches_labels("label", labels.unwrap_or(&BTreeMap::new()))
            && self.before.is_none_or(|before| settings.created < before)
            && self.since.is_none_or(|since| settings.created > since)
            && filters.matches("network", |network| {
                settings.network() == network
                    || view.endpoint.as_ref().is_some_and(|endpoint| endpoint.network_id == network)
            })
            && filters.matches("volume", |volume| {
                settings.mounts.iter().map(|point| &point.shown).any(|mount| {
                    mount.name == volume || mount.destination == volume || mount.source == volume
                })
            })
            && filters.matches("publish", |port| is_open(port, |open| open.public_port))
            && filters.matches("expose", |port| is_open(port, |open| open.private_port))
            && filters.matches("health", |health| super::health::word(view) == health)
            && filters.matches("is-task", |task| matches!(task, "false" | "0"))
            && filters.matches("isolation", |isolation| isolation == "default")
    }
}

/// Docker takes a regular expression; names are made of few characters, so that the anchors are
/// what is used.
fn name_matches(name: &str, wanted: &str) -> bool {
    let (start, wanted) = match wanted.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, wanted),
    };
    let (end, wanted) = match wanted.strip_suffix('$') {
        Some(rest) => (true, rest),
        None => (false, wanted),
    };
    let (slashed, wanted) = (format!("/{name}"), wanted);
    let candidates = [name, slashed.as_str()];
    candidates.iter().any(|name| match (start, end) {
        (true, true) => *name == wanted,
        (true, false) => name.starts_with(wanted),
        (false, true) => name.ends_with(wanted),
        (false, false) => name.contains(wanted),
    })
}

/// Whether `wanted` (`80`, `80/udp`, `80-90/tcp`) has this port.
fn is_port(wanted: &str, port: u16, protocol: &str) -> bool {
    let (range, wanted_protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (Ok(first), Ok(last)) = (first.parse(), last.parse()) else { return false };
    port != 0 && protocol == wanted_protocol && (first..=last).contains(&port)
}

/// The ports of a container that runs: those published, and those only exposed.
fn ports(view: &View) -> Vec<SummaryPort> {
    let Some(endpoint) = view.endpoint.as_ref().filter(|_| view.life.is_running()) else {
        return Vec::new();
    };
    let mut ports: Vec<_> = endpoint
        .ports
        .iter()
        .map(|port| SummaryPort {
            ip: port.host_ip.to_string(),
            private_port: port.container_port,
            public_port: port.host_port,
            r#type: port.protocol.to_string(),
        })
        .collect();
    if endpoint.ipv4.is_some() {
        for exposed in view.settings.config.exposed_ports.keys() {
            let (number, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
            let Ok(private_port) = number.parse() else { continue };
            if !ports.iter().any(|port| port.private_port == private_port && port.r#type == protocol) {
                ports.push(SummaryPort {
                    private_port,
                    r#type: protocol.to_owned(),
                    ..SummaryPort::default()
                });
            }
        }
    }
    ports
}

/// `Up 3 minutes`, `Exited (0) 2 hours ago`.
fn status(view: &View, now: Timestamp) -> String {
    let ago = |time: Option<Timestamp>| time.map_or_else(String::new, |time| human(now, time));
    let last = &view.life.last;
    match &view.life.state {
        State::Created => "Created".into(),
        State::Running { started_at, paused: false, .. } => {
            let health = view.health.as_ref().map(|health| format!(" ({})", health.status.shown()));
            format!("Up {}{}", human(now, *started_at), health.unwrap_or_default())
        }
        State::Running { started_at, paused: true, .. } => format!("Up {} (Paused)", human(now, *started_at)),
        State::Restarting { .. } => format!("Restarting ({}) {} ago", last.exit_code, ago(last.finished_at)),
        State::Removing => "Removal In Progress".into(),
        State::Dead { .. } => "Dead".into(),
        State::Exited => format!("Exited ({}) {} ago", last.exit_code, ago(last.finished_at)),
    }
}

/// How long ago `time` was, in Docker's words.
fn human(now: Timestamp, time: Timestamp) -> String {
    ponton_api::unit::human_duration(now.duration_since(time).as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_with_anchors() {
        for (wanted, expected) in [
            ("we", true),
            ("^we", true),
            ("^eb", false),
            ("eb$", true),
            ("^web$", true),
            ("^/web$", true),
            ("^we$", false),
        ] {
            assert_eq!(name_matches("web", wanted), expected, "{wanted}");
        }
    }

    #[test]
    fn ports_match_by_number_range_and_protocol() {
        assert!(is_port("80", 80, "tcp"));
        assert!(is_port("70-90/udp", 80, "udp"));
        assert!(!is_port("80", 80, "udp"));
        assert!(!is_port("80", 0, "tcp"));
    }
}
