//! Containers: `/containers/…`.
#![expect(missing_docs, reason = "fields are named and documented as in Docker's API reference")]

mod config;
mod host;
mod inspect;
mod network;
mod stats;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

pub use config::{Config, HealthConfig};
pub use host::{
    BindOptions, ClusterOptions, DeviceMapping, DeviceRequest, DriverConfig, HostConfig, ImageOptions,
    InvalidUlimit, LogConfig, Mount, RestartPolicy, ThrottleDevice, TmpfsOptions, Ulimit, VolumeOptions,
    WeightDevice,
};
pub use inspect::{
    GraphDriver, Health, HealthSummary, HealthcheckResult, Inspect, MountPoint, NetworkSettings, State,
    Summary, SummaryHostConfig, SummaryNetworkSettings, SummaryPort,
};
pub use network::{EndpointIpamConfig, EndpointSettings, NetworkingConfig, PortBinding, PortMap, PortSet};
pub use stats::{
    BlkioStatEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats,
    StorageStats, ThrottlingData,
};

use crate::{is_default, json};

/// `POST /containers/create`: a [`Config`] with two more members beside its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CreateRequest {
    #[serde(flatten)]
    pub config: Config,
    #[serde(rename = "HostConfig")]
    pub host_config: HostConfig,
    #[serde(rename = "NetworkingConfig")]
    pub networking_config: NetworkingConfig,
}

/// The members of a [`CreateRequest`] that aren't part of its [`Config`].
#[derive(Default, Deserialize)]
#[serde(rename = "CreateRequest", rename_all = "PascalCase", default)]
struct CreateRest {
    host_config: HostConfig,
    networking_config: NetworkingConfig,
}

impl<'de> Deserialize<'de> for CreateRequest {
    // Not `serde(flatten)`: that hides the names of the fields, which must be matched in any case.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let config = json::from_value(&value).map_err(serde::de::Error::custom)?;
        let rest: CreateRest = json::from_value(&value).map_err(serde::de::Error::custom)?;
        Ok(Self { config, host_config: rest.host_config, networking_config: rest.networking_config })
    }
}

/// The answer to `POST /containers/create`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateResponse {
    pub id: String,
    pub warnings: Vec<String>,
}

/// The answer to `POST /containers/{id}/wait`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WaitResponse {
    pub status_code: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<WaitError>,
}

/// Why a wait could not tell an exit code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WaitError {
    pub message: String,
}

/// The answer to `GET /containers/{id}/top`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TopResponse {
    pub titles: Vec<String>,
    pub processes: Vec<Vec<String>>,
}

/// `POST /containers/{id}/update`: only what is present is changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateRequest {
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_shares: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub memory: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub nano_cpus: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub blkio_weight: u16,
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_period: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_quota: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_realtime_period: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_realtime_runtime: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub cpuset_cpus: String,
    #[serde(skip_serializing_if = "is_default")]
    pub cpuset_mems: String,
    #[serde(skip_serializing_if = "is_default")]
    pub memory_reservation: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub memory_swap: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub kernel_memory: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub restart_policy: RestartPolicy,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blkio_weight_device: Option<Vec<WeightDevice>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
    #[serde(rename = "BlkioDeviceReadIOps", skip_serializing_if = "Option::is_none")]
    pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
    #[serde(rename = "BlkioDeviceWriteIOps", skip_serializing_if = "Option::is_none")]
    pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill_disable: Option<bool>,
    #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "is_default")]
    pub kernel_memory_tcp: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_count: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_percent: i64,
    // What a container has from its creation on.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup_parent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<DeviceMapping>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_cgroup_rules: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_requests: Option<Vec<DeviceRequest>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ulimits: Option<Vec<Ulimit>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    #[serde(rename = "IOMaximumIOps", skip_serializing_if = "is_default")]
    pub io_maximum_iops: u64,
    #[serde(rename = "IOMaximumBandwidth", skip_serializing_if = "is_default")]
    pub io_maximum_bandwidth: u64,
}

/// The answer to `POST /containers/{id}/update`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateResponse {
    pub warnings: Option<Vec<String>>,
}

/// The header `X-Docker-Container-Path-Stat` of the archive calls (base64 of this JSON).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathStat {
    pub name: String,
    pub size: i64,
    /// Go's `fs.FileMode`: permission bits, and the type in Go's own high bits.
    pub mode: u32,
    pub mtime: String,
    pub link_target: String,
}

impl PathStat {
    /// Go's `fs.FileMode` of a `st_mode`.
    pub fn go_mode(st_mode: u32) -> u32 {
        let kind = match st_mode & 0o170_000 {
            0o040_000 => 1 << 31,             // ModeDir
            0o120_000 => 1 << 27,             // ModeSymlink
            0o060_000 => 1 << 26,             // ModeDevice
            0o020_000 => (1 << 26) | 1 << 21, // ModeDevice | ModeCharDevice
            0o010_000 => 1 << 25,             // ModeNamedPipe
            0o140_000 => 1 << 24,             // ModeSocket
            _ => 0,
        };
        let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)]
            .iter()
            .filter(|(bit, _)| st_mode & bit != 0)
            .fold(0, |mode, (_, go)| mode | go);
        kind | special | (st_mode & 0o777)
    }
}

/// One line of `GET /containers/{id}/changes`; `kind` is 0 modified, 1 added, 2 deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Change {
    pub path: String,
    pub kind: u8,
}

/// `POST /containers/{id}/checkpoints`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointCreateRequest {
    #[serde(rename = "CheckpointID")]
    pub checkpoint_id: String,
    pub checkpoint_dir: String,
    /// The container ends with it.
    pub exit: bool,
}

/// One of `GET /containers/{id}/checkpoints`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Checkpoint {
    pub name: String,
}

/// The answer to `POST /containers/prune`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PruneResponse {
    pub containers_deleted: Option<Vec<String>>,
    pub space_reclaimed: u64,
}

/// Names to values, ordered so that what is printed is stable.
pub type StringMap = BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn create_request_reads_config_and_host_config_in_any_case() {
        let body = br#"{"image":"busybox","Cmd":"true","ENTRYPOINT":null,"ExposedPorts":{"80/tcp":null},
            "HostConfig":{"memory":64,"PortBindings":{"80/tcp":[{"HostPort":"8080"}],"81/tcp":null},"Binds":null},
            "NetworkingConfig":{"EndpointsConfig":{"bridge":null}},"Unknown":[1]}"#;
        let request: CreateRequest = json::from_slice(body).unwrap();
        assert_eq!(request.config.image, "busybox");
        assert_eq!(request.config.cmd, Some(vec!["true".into()]));
        assert_eq!(request.config.entrypoint, None);
        assert!(request.config.exposed_ports.contains_key("80/tcp"));
        assert_eq!(request.host_config.memory, 64);
        assert_eq!(
            request.host_config.port_bindings.as_ref().unwrap()["80/tcp"].as_ref().unwrap()[0].host_port,
            "8080"
        );
        assert_eq!(request.host_config.port_bindings.as_ref().unwrap()["81/tcp"], None);
        assert!(request.networking_config.endpoints_config.contains_key("bridge"));
    }

    #[test]
    fn a_wrong_type_is_named() {
        let error = json::from_slice::<CreateRequest>(br#"{"Image":3}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "json: cannot unmarshal number into Go struct field Config.Image of type string"
        );
        let error = json::from_slice::<CreateRequest>(br#"{"HostConfig":{"Memory":"x"}}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "json: cannot unmarshal string into Go struct field CreateRequest.HostConfig.Memory of type int64"
        );
    }

    #[test]
    fn create_request_survives_its_own_json() {
        let mut request = CreateRequest::default();
        request.config.env = Some(vec!["A=b".into()]);
        request.host_config.pids_limit = Some(7);
        let json = serde_json::to_vec(&request).unwrap();
        assert_eq!(serde_json::from_slice::<CreateRequest>(&json).unwrap(), request);
    }

    #[test]
    fn file_modes_are_gos() {
        assert_eq!(PathStat::go_mode(0o040_755), 0o20_000_000_755);
        assert_eq!(PathStat::go_mode(0o100_644), 0o644);
        assert_eq!(PathStat::go_mode(0o120_777), (1 << 27) | 0o777);
        assert_eq!(PathStat::go_mode(0o041_777), (1 << 31) | (1 << 20) | 0o777);
    }
}
