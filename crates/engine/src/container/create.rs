//! Making containers: everything that can be wrong is found here, and nothing is left behind when
//! something is.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use jiff::Timestamp;
use ponton_api::container::{Config, CreateRequest, CreateResponse, HostConfig};
use ponton_image::Image;
use ponton_network::PortRequest;
use ponton_oci::image_config::ImageConfig;
use ponton_oci::reference::{ParseError, Reference};
use ponton_store::ContainerRecord;

use super::{Saved, Settings, Task, files};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::name;

/// How often a name is made up before the last one's clash is the answer.
const NAME_ATTEMPTS: u32 = 8;

impl Engine {
    /// Makes a container. `name` without or with a leading slash.
    pub async fn create(
        self: &Arc<Self>,
        name: Option<&str>,
        platform: Option<&str>,
        request: CreateRequest,
    ) -> Result<CreateResponse> {
        let begun = std::time::Instant::now();
        let name = name.filter(|name| !name.is_empty()).map(name::parse).transpose()?;
        let (settings, image, warnings) = self.settle(platform, request).await?;
        let id = settings.id.clone();
        let name = self.reserve_name(name, &id)?;
        // Until the container is among those that use them.
        let holds = self.hold_volumes(&settings);
        let made = {
            let engine = Arc::clone(self);
            let (settings, name) = (Arc::clone(&settings), name.clone());
            blocking(move || engine.make(&name, &settings, &image)).await
        };
        if let Err(error) = made {
            self.forget(&id, &name);
            // What was made before the failure; what was not there is no failure.
            let _ = self.snapshotter.remove(&id);
            self.discard(&self.container_directory(&id));
            drop(holds);
            self.unmake_volumes(&settings);
            return Err(error);
        }
        let container = Task::spawn(self, name, settings, Saved::default());
        self.enter(Arc::clone(&container));
        drop(holds);
        super::emit(self, &id, &container.view(), "create", &[]);
        self.counts.create.since(begun);
        Ok(CreateResponse { id, warnings })
    }

    /// The request with the image's part and all defaults filled in, checked; with warnings.
    pub(super) async fn settle(
        self: &Arc<Self>,
        platform: Option<&str>,
        request: CreateRequest,
    ) -> Result<(Arc<Settings>, Image, Vec<String>)> {
        let CreateRequest { mut config, mut host_config, mut networking_config } = request;
        crate::spec::check_network(&config, &host_config, &networking_config)?;
        // Docker's client calls the default bridge so.
        if let Some(endpoint) = networking_config.endpoints_config.remove("default") {
            networking_config.endpoints_config.insert("bridge".to_owned(), endpoint);
        }
        let image = {
            let (engine, name) = (Arc::clone(self), config.image.clone());
            blocking(move || engine.images.get(&name).map_err(|error| no_image(&name, error))).await?
        };
        check_platform(platform, &image.config)?;
        self.image_used(&image.id);
        merge(&mut config, &image.config);
        crate::log::fill(&mut host_config.log_config, &self.config().log);
        fill(&mut host_config);
        self.config().defaults.fill(&mut host_config);
        self.runtime(&host_config.runtime)?;
        check(&config, &host_config)?;
        let mut warnings = crate::spec::discard(&mut host_config, self.support()?);
        warnings.extend(crate::spec::check(&config, &host_config, self.facts())?);
        let ids = self.config().defaults.remap.clone().filter(|_| host_config.userns_mode != "host");
        if ids.is_some()
            && let Some(runtime) = self.runtime(&host_config.runtime)?.map(|_| &host_config.runtime)
        {
            return Err(Error::not_implemented(format!(
                "userns-remap with the runtime {runtime} is not implemented (a container with --userns=host has it)"
            )));
        }
        let id = crate::id::generate()?;
        if config.hostname.is_empty() {
            config.hostname = match host_config.network_mode.as_str() {
                "host" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
                _ => crate::id::short(&id).to_owned(),
            };
        }
        if let Some(other) = host_config.network_mode.strip_prefix("container:") {
            let other = self.find(other)?;
            host_config.network_mode = format!("container:{}", other.id);
            let view = other.view();
            config.hostname.clone_from(&view.settings.config.hostname);
            config.domainname.clone_from(&view.settings.config.domainname);
        }
        let mut words = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten()).cloned();
        let Some(path) = words.next() else { return Err(Error::invalid("No command specified")) };
        let args = words.collect();
        let mounts = self.mount_points(&config, &host_config)?;
        if ids.is_some() {
            crate::spec::check_remapped(&host_config, &mounts)?;
        }
        let links = self.resolve_links(&host_config)?;
        let settings = Settings {
            id,
            created: Timestamp::now(),
            image: image.id.to_string(),
            path,
            args,
            config,
            host_config,
            networking: networking_config,
            mounts,
            links,
            ids,
            driver: self.snapshotter.name().to_owned(),
        };
        port_requests(&settings)?;
        Ok((Arc::new(settings), image, warnings))
    }

    /// Makes what a container has on disk; its record is the last of it.
    fn make(&self, name: &str, settings: &Settings, image: &Image) -> Result<()> {
        self.make_volumes(settings, image)?;
        self.snapshotter.prepare(&settings.id, image.chain.last())?;
        let directory = self.container_directory(&settings.id);
        crate::shim::make_private(&directory.join("log"))?;
        files::write_names(&directory, settings, &self.config().defaults)?;
        let config = serde_json::to_string(settings)
            .map_err(|error| Error::failed("print a container's settings", error))?;
        let state = serde_json::to_string(&Saved::default())
            .map_err(|error| Error::failed("print a container's state", error))?;
        let record = ContainerRecord {
            id: settings.id.clone(),
            name: name.to_owned(),
            created_at: i64::try_from(settings.created.as_nanosecond()).unwrap_or(i64::MAX),
            config,
            state,
        };
        self.store.containers().insert(&record)?;
        Ok(())
    }

    /// Takes a name for the container `id`: the given one, or one that is made up.
    fn reserve_name(&self, name: Option<&str>, id: &str) -> Result<String> {
        if let Some(name) = name {
            self.reserve(name, id)?;
            return Ok(name.to_owned());
        }
        let mut attempt = 0;
        loop {
            let random = crate::id::generate()?;
            let random = u64::from_str_radix(&random[..16], 16).unwrap_or_default();
            let name = name::generate(random, attempt);
            match self.reserve(&name, id) {
                Ok(()) => return Ok(name),
                Err(error) if attempt == NAME_ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }
}

fn check_platform(platform: Option<&str>, image: &ImageConfig) -> Result<()> {
    let Some(platform) = platform.filter(|platform| !platform.is_empty()) else { return Ok(()) };
    let mut parts = platform.split('/');
    let (os, architecture) = (parts.next().unwrap_or_default(), parts.next());
    let fits = os == image.os
        && architecture
            .is_none_or(|wanted| wanted == image.architecture || wanted == alias(&image.architecture));
    if fits || architecture.is_none() && os == image.architecture {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "image with reference was found but does not match the specified platform: wanted {platform}, actual: {}/{}",
        image.os, image.architecture
    )))
}

fn alias(architecture: &str) -> &str {
    match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
}

/// Adds what the image says where the request says nothing, by Docker's rules.
pub(super) fn merge(config: &mut Config, image: &ImageConfig) {
    let image = &image.config;
    let set = |ours: &mut String, theirs: &str| {
        if ours.is_empty() {
            theirs.clone_into(ours);
        }
    };
    set(&mut config.user, &image.user);
    set(&mut config.working_dir, &image.working_dir);
    set(&mut config.stop_signal, image.stop_signal.as_deref().unwrap_or_default());
    for port in image.exposed_ports.keys() {
        config.exposed_ports.entry(port.clone()).or_default();
    }
    if !image.env.is_empty() {
        let env = config.env.get_or_insert_default();
        let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
        let ours: Vec<_> = env.iter().map(|entry| key(entry)).collect();
        env.extend(image.env.iter().filter(|entry| !ours.contains(&key(entry))).cloned());
    }
    let labels = config.labels.get_or_insert_default();
    for (name, value) in &image.labels {
        labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd.clone_from(&image.cmd);
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&image.entrypoint);
        }
    }
    // How a client takes the image's entry point away without one of its own.
    if config.entrypoint.as_deref().is_some_and(|words| words == [""]) {
        config.entrypoint = None;
    }
    if let Some(image) = &image.healthcheck {
        let check = config.healthcheck.get_or_insert_default();
        let set = |ours: &mut i64, theirs: i64| {
            if *ours == 0 {
                *ours = theirs;
            }
        };
        if check.test.as_ref().is_none_or(Vec::is_empty) {
            check.test = Some(image.test.clone());
        }
        set(&mut check.interval, image.interval);
        set(&mut check.timeout, image.timeout);
        set(&mut check.start_period, image.start_period);
        set(&mut check.start_interval, image.start_interval);
        set(&mut check.retries, image.retries);
    }
    for volume in image.volumes.keys() {
        config.volumes.get_or_insert_default().entry(volume.clone()).or_default();
    }
}

/// Docker's defaults for what the request left open.
fn fill(host: &mut HostConfig) {
    let set = |field: &mut String, value: &str| {
        if field.is_empty() {
            value.clone_into(field);
        }
    };
    set(&mut host.network_mode, "default");
    // Memory alone may be swapped out once more.
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory.saturating_mul(2);
    }
    host.oom_kill_disable.get_or_insert(false);
    let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    if !host.privileged {
        host.masked_paths.get_or_insert_with(|| paths(&crate::spec::MASKED_PATHS));
        host.readonly_paths.get_or_insert_with(|| paths(&crate::spec::READONLY_PATHS));
    }
    if host.restart_policy.name.is_empty() {
        "no".clone_into(&mut host.restart_policy.name);
    }
}

pub(super) fn check(config: &Config, host: &HostConfig) -> Result<()> {
    super::settings::restart(&host.restart_policy)?;
    if host.auto_remove && host.restart_policy.name != "no" {
        return Err(Error::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    crate::log::check(&host.log_config)?;
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    if !config.stop_signal.is_empty() {
        crate::signal::parse(&config.stop_signal)?;
    }
    crate::health::check(config)
}

/// The ports that a container publishes.
pub(super) fn port_requests(settings: &Settings) -> Result<Vec<PortRequest>> {
    let mut requests = Vec::new();
    for (port, bindings) in settings.host_config.port_bindings.iter().flatten() {
        let (container_port, protocol) = parse_port(port)?;
        for binding in bindings.iter().flatten() {
            let host_ip = match binding.host_ip.as_str() {
                "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                text => text.parse().map_err(|_| Error::invalid(format!("invalid IP address: {text:?}")))?,
            };
            let (host_port, host_port_end) = parse_range(&binding.host_port)?;
            requests.push(PortRequest { protocol, container_port, host_ip, host_port, host_port_end });
        }
    }
    // What is not used must be right all the same.
    if !matches!(settings.network(), "bridge") {
        return Ok(Vec::new());
    }
    if settings.host_config.publish_all_ports {
        let published: BTreeMap<_, _> =
            requests.iter().map(|request| ((request.container_port, request.protocol), ())).collect();
        for port in settings.config.exposed_ports.keys() {
            let (container_port, protocol) = parse_port(port)?;
            if !published.contains_key(&(container_port, protocol)) {
                let host_ip = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                requests.push(PortRequest {
                    protocol,
                    container_port,
                    host_ip,
                    host_port: 0,
                    host_port_end: 0,
                });
            }
        }
    }
    Ok(requests)
}

fn parse_port(text: &str) -> Result<(u16, ponton_network::Protocol)> {
    let invalid = || Error::invalid(format!("invalid port specification: {text:?}"));
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(invalid)?;
    Ok((port, protocol.parse()?))
}

/// What is no name is no name of an image either.
fn no_image(name: &str, error: ponton_image::Error) -> Error {
    match (error, Reference::parse(name)) {
        (
            ponton_image::Error::NotFound(_),
            Err(error @ (ParseError::Format(_) | ParseError::Uppercase(_))),
        ) => Error::invalid(error.to_string()),
        (error, _) => error.into(),
    }
}

/// `8080`, `8000-8010`, or nothing for any port.
fn parse_range(text: &str) -> Result<(u16, u16)> {
    let invalid = || Error::invalid(format!("invalid port specification: {text:?}"));
    if text.is_empty() {
        return Ok((0, 0));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().map_err(|_| invalid())?, last.parse().map_err(|_| invalid())?);
    if first > last { Err(invalid()) } else { Ok((first, last)) }
}
