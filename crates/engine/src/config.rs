//! Where the engine keeps things and what it is told to use.

use std::net::Ipv4Addr;
use std::path::PathBuf;

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
        }
    }
}
