//! The engine and its host, as `info`, `version` and `system df` show them.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use ponton_api::system::{
    Commit, Component, DiskUsage, ImageBudget, IndexInfo, Info, Platform, Plugins, RegistryConfig, Runtime,
    SwarmInfo, Version,
};
use ponton_api::version as api_version;
use ponton_cgroup::Version as CgroupVersion;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::event::Told;
use crate::lifecycle::State;
use crate::request::{DiskUsageOptions, EventsRequest, ImageListOptions, ListOptions, Stream};

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Engine {
    /// The engine and its host.
    pub async fn info(self: &Arc<Self>) -> Result<Info> {
        let begun = std::time::Instant::now();
        let info = self.describe_host();
        self.counts.system_info.since(begun);
        info
    }

    fn describe_host(&self) -> Result<Info> {
        let views: Vec<_> = self.all().iter().map(|container| container.view()).collect();
        let count =
            |wanted: fn(&State) -> bool| views.iter().filter(|view| wanted(&view.life.state)).count() as i64;
        let running =
            count(|state| matches!(state, State::Running { paused: false, .. } | State::Restarting { .. }));
        let paused = count(|state| matches!(state, State::Running { paused: true, .. }));
        let kernel = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        let defaults = &self.config().defaults;
        let mut runtimes: BTreeMap<String, Runtime> = defaults
            .runtimes
            .iter()
            .map(|(name, runtime)| (name.clone(), Runtime { path: runtime.program.display().to_string() }))
            .collect();
        let path = self.config().runtime_binary.display().to_string();
        runtimes.insert(crate::BUILT_IN.into(), Runtime { path });
        Ok(Info {
            id: self.instance_id()?,
            containers: views.len() as i64,
            containers_running: running,
            containers_paused: paused,
            containers_stopped: views.len() as i64 - running - paused,
            images: self.store.images().list_without_layers()?.len() as i64,
            driver: self.snapshotter.name().to_owned(),
            driver_status: vec![
                ["Backing Filesystem".into(), backing_file_system(&self.config().data_root)],
                ["Usable Drivers".into(), self.usable_drivers()],
            ],
            plugins: Plugins {
                volume: vec!["local".into()],
                network: vec!["bridge".into(), "host".into(), "null".into()],
                authorization: None,
                log: crate::log::DRIVERS.map(str::to_owned).to_vec(),
            },
            memory_limit: true,
            swap_limit: self.host()?.cgroup.swap_accounting,
            cpu_cfs_period: true,
            cpu_cfs_quota: true,
            cpu_shares: true,
            cpu_set: true,
            pids_limit: true,
            ipv4_forwarding: read("/proc/sys/net/ipv4/ip_forward") == "1",
            oom_kill_disable: !self.is_cgroup_2()?,
            n_fd: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as i64),
            system_time: Timestamp::now().to_string(),
            logging_driver: crate::log::driver_name(&self.config().log).to_owned(),
            cgroup_driver: "cgroupfs".into(),
            cgroup_version: if self.is_cgroup_2()? { "2" } else { "1" }.into(),
            n_events_listener: self.events.listeners() as i64,
            kernel_version: text(kernel.release()),
            operating_system: os_release("PRETTY_NAME"),
            os_version: os_release("VERSION_ID"),
            os_type: "linux".into(),
            architecture: text(kernel.machine()),
            index_server_address: "https://index.docker.io/v1/".into(),
            registry_config: registry_config(&self.config().registries),
            n_cpu: std::thread::available_parallelism().map_or(1, |count| count.get() as i64),
            mem_total: crate::container::memory_total() as i64,
            docker_root_dir: self.config().data_root.display().to_string(),
            name: text(kernel.nodename()),
            labels: self.config().labels.clone(),
            server_version: VERSION.into(),
            runtimes,
            default_runtime: defaults.runtime.clone(),
            swarm: SwarmInfo { local_node_state: "inactive".into(), ..SwarmInfo::default() },
            live_restore_enabled: true,
            init_binary: "docker-init".into(),
            experimental_build: self.config().experimental,
            cdi_spec_dirs: Some(
                self.config().cdi_spec_dirs.iter().map(|path| path.display().to_string()).collect(),
            ),
            runc_commit: Commit { id: VERSION.into() },
            security_options: security_options(defaults.remap.is_some()),
            ..Info::default()
        })
    }

    /// Versions.
    pub async fn version(self: &Arc<Self>) -> Result<Version> {
        let begun = std::time::Instant::now();
        let kernel = rustix::system::uname();
        let release = kernel.release().to_string_lossy().into_owned();
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let details = BTreeMap::from([
            ("ApiVersion".to_owned(), api_version::MAX.to_string()),
            ("MinAPIVersion".to_owned(), api_version::MIN.to_string()),
            ("Os".to_owned(), "linux".to_owned()),
            ("Arch".to_owned(), arch.to_owned()),
            ("KernelVersion".to_owned(), release.clone()),
            ("Experimental".to_owned(), self.config().experimental.to_string()),
        ]);
        let version = Version {
            platform: Platform { name: "Ponton".into() },
            components: vec![
                Component { name: "Engine".into(), version: VERSION.into(), details: Some(details) },
                Component { name: "ponton-runtime".into(), version: VERSION.into(), details: None },
            ],
            version: VERSION.into(),
            api_version: api_version::MAX.to_string(),
            min_api_version: api_version::MIN.to_string(),
            os: "linux".into(),
            arch: arch.into(),
            kernel_version: release,
            ..Version::default()
        };
        self.counts.system_version.since(begun);
        Ok(version)
    }

    /// Disk usage of the kinds that are asked for.
    pub async fn df(self: &Arc<Self>, wanted: DiskUsageOptions) -> Result<DiskUsage> {
        let mut usage = DiskUsage::default();
        if wanted.images {
            let options =
                ImageListOptions { shared_size: true, containers: true, ..ImageListOptions::default() };
            usage.images = Some(self.image_list(options).await?);
            usage.image_budget = self.image_budget();
            usage.layers_size = self.store.images().layers()?.iter().map(|layer| layer.size as i64).sum();
        }
        if wanted.containers {
            let options = ListOptions { all: true, size: true, ..ListOptions::default() };
            usage.containers = Some(self.list(&options)?.collect().await);
        }
        if wanted.volumes {
            usage.volumes = Some(self.volume_usage().await?);
        }
        usage.build_cache = wanted.build_cache.then(Vec::new);
        Ok(usage)
    }

    fn image_budget(&self) -> Option<ImageBudget> {
        let budget = self.config().budget?;
        let disk = rustix::fs::statvfs(&self.config().data_root).ok();
        Some(ImageBudget {
            max: Some(budget.images_max).filter(|max| *max != u64::MAX),
            free_min: budget.free_min,
            free: disk.map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            unused_min_seconds: budget.unused_min.as_secs(),
        })
    }

    /// What happens, and what happened lately.
    pub async fn events(self: &Arc<Self>, request: EventsRequest) -> Result<Stream<Arc<Told>>> {
        self.events.subscribe(request, Timestamp::now())
    }

    /// Whether control groups are those of version 2.
    pub(crate) fn is_cgroup_2(&self) -> Result<bool> {
        let layout = &self.host()?.cgroup;
        Ok(layout.with("memory").is_none_or(|hierarchy| hierarchy.version == CgroupVersion::V2))
    }

    /// A name of this engine that stays: kept in the data root.
    fn instance_id(&self) -> Result<String> {
        let path = self.config().data_root.join("engine-id");
        if let Ok(id) = fs::read_to_string(&path) {
            return Ok(id.trim().to_owned());
        }
        let random = crate::id::generate()?;
        // The form of a UUID.
        let id = format!(
            "{}-{}-{}-{}-{}",
            &random[..8],
            &random[8..12],
            &random[12..16],
            &random[16..20],
            &random[20..32]
        );
        fs::write(&path, &id).map_err(|error| Error::failed(format!("write {}", path.display()), error))?;
        Ok(id)
    }
}

fn registry_config(config: &ponton_registry::Config) -> RegistryConfig {
    let hub =
        IndexInfo { name: "docker.io".into(), mirrors: config.mirrors.clone(), secure: true, official: true };
    let mut cidrs = Vec::new();
    let mut index_configs = BTreeMap::from([("docker.io".to_owned(), hub)]);
    for insecure in &config.insecure {
        if insecure.contains('/') {
            cidrs.push(insecure.clone());
        } else {
            let info = IndexInfo { name: insecure.clone(), ..IndexInfo::default() };
            index_configs.insert(insecure.clone(), info);
        }
    }
    cidrs.push("127.0.0.0/8".to_owned());
    RegistryConfig { insecure_registry_cidrs: cidrs, index_configs, mirrors: config.mirrors.clone() }
}

/// How containers are kept apart where nothing else is asked for.
fn security_options(is_remapped: bool) -> Vec<String> {
    let mut options = vec!["name=seccomp,profile=builtin".to_owned()];
    if is_remapped {
        options.push("name=userns".to_owned());
    }
    options.push("name=cgroupns".to_owned());
    options
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// A value of `/etc/os-release`.
fn os_release(key: &str) -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .map(|value| value.trim_matches('"').to_owned())
        .unwrap_or_default()
}

impl Engine {
    /// Names of the storage drivers that can be used here.
    fn usable_drivers(&self) -> String {
        let usable = self.snapshotter.drivers().iter().filter(|status| status.unavailable.is_none());
        usable.map(|status| status.driver.name()).collect::<Vec<_>>().join(" ")
    }
}

/// The name of the file system that the data root is on.
fn backing_file_system(path: &std::path::Path) -> String {
    let Ok(status) = rustix::fs::statfs(path) else { return "unknown".into() };
    match status.f_type as u32 {
        0xEF53 => "extfs".into(),
        0x5846_5342 => "xfs".into(),
        0x9123_683E => "btrfs".into(),
        0x0102_1994 => "tmpfs".into(),
        0x794C_7630 => "overlayfs".into(),
        other => format!("{other:#x}"),
    }
}
