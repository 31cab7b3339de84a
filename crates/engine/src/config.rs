//! Where the engine keeps things and what it is told to use.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::defaults::Defaults;
use ponton_api::container::LogConfig;

/// Settings of one engine; fixed while it runs.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// What lasts: `/var/lib/ponton`.
    pub data_root: PathBuf,
    /// What lasts until the next boot: `/run/ponton`.
    pub exec_root: PathBuf,
    /// The `ponton-runtime` program.
    pub runtime_binary: PathBuf,
    /// Name of the default bridge's interface.
    pub bridge: String,
    /// Address and prefix length of the default bridge; `None` for the first free pool.
    pub bridge_address: Option<(Ipv4Addr, u8)>,
    /// MTU of the default bridge; 0 for 1500.
    pub mtu: u32,
    /// Labels that `info` shows.
    pub labels: Vec<String>,
    /// How registries are reached.
    pub registries: ponton_registry::Config,
    /// Layers that are downloaded at once, by all pulls together; `None` for a few.
    pub max_concurrent_downloads: Option<usize>,
    /// Layers that are uploaded at once, by one push; `None` for a few.
    pub max_concurrent_uploads: Option<usize>,
    /// Bytes that a layer may unpack to, however small it is in a registry; `None` for very many.
    pub layer_bytes_max: Option<u64>,
    /// How layers are kept; `None` for what the kernel and the disk can do best.
    pub storage_driver: Option<String>,
    /// Defaults of containers.
    pub defaults: Defaults,
    /// Take part in what may change: checkpoints.
    pub experimental: bool,
    /// Where files of the Container Device Interface are; a later one goes before an earlier one.
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// The logging driver of containers that ask for none, and its options.
    pub log: LogConfig,
    /// Disk space that images may take; `None` for as much as they want.
    pub budget: Option<ponton_image::Budget>,
}

impl EngineConfig {
    /// The default settings with the given roots and runtime.
    pub fn new(
        data_root: impl Into<PathBuf>,
        exec_root: impl Into<PathBuf>,
        runtime_binary: impl Into<PathBuf>,
    ) -> Self {
        Self {
            data_root: data_root.into(),
            exec_root: exec_root.into(),
            runtime_binary: runtime_binary.into(),
            bridge: "ponton0".into(),
            bridge_address: None,
            mtu: 0,
            labels: Vec::new(),
            registries: ponton_registry::Config::default(),
            max_concurrent_downloads: None,
            max_concurrent_uploads: None,
            layer_bytes_max: None,
            storage_driver: None,
            defaults: Defaults::default(),
            experimental: false,
            cdi_spec_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
            log: LogConfig::default(),
            budget: None,
        }
    }
}
