//! What is kept of a container in the database, as JSON.

use jiff::Timestamp;
use ponton_api::container::{Config, HostConfig, MountPoint, NetworkingConfig, RestartPolicy};
use ponton_network::EndpointRecord;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::health::Health;
use crate::lifecycle::{Life, Policy, Restart};
use crate::spec::idmap::IdMaps;
use crate::spec::point::Point;

/// What was decided at its creation. Only `update` changes any of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    pub(crate) created: Timestamp,
    /// `sha256:…`
    pub(crate) image: String,
    /// The program and its arguments.
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    /// With the image's part merged in.
    pub(crate) config: Config,
    pub(crate) host_config: HostConfig,
    pub(crate) networking: NetworkingConfig,
    /// Binds, volumes and other mount points, in order.
    pub(crate) mounts: Vec<Point>,
    /// What it is linked to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) links: Vec<super::link::Link>,
    /// What ids mean in its user namespace; none for one without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ids: Option<IdMaps>,
    /// The snapshotter that has its file system.
    pub(crate) driver: String,
}

impl Settings {
    /// The mount points as they are shown.
    pub(crate) fn mounts_shown(&self) -> Vec<MountPoint> {
        self.mounts.iter().map(|point| point.shown.clone()).collect()
    }

    /// What they say about its life.
    pub(crate) fn policy(&self) -> Policy {
        let auto_remove = self.host_config.auto_remove;
        // What is kept was checked when it came.
        let (restart, on_unhealthy) = restart(&self.host_config.restart_policy).unwrap_or_default();
        Policy { restart, on_unhealthy, auto_remove }
    }

    /// The MAC address that is asked for; empty for one that is made up.
    pub(crate) fn mac_address(&self) -> &str {
        let endpoint = self.networking.endpoints_config.get(self.network());
        match endpoint.map(|endpoint| endpoint.mac_address.as_str()) {
            Some(mac) if !mac.is_empty() => mac,
            _ => &self.config.mac_address,
        }
    }

    /// The network's name: `bridge`, `host`, `none`, or `container:<id>`.
    pub(crate) fn network(&self) -> &str {
        match self.host_config.network_mode.as_str() {
            _ if self.config.network_disabled => "none",
            "" | "default" => "bridge",
            network => network,
        }
    }
}

/// When a container is started again, and whether its health counts too. Docker's names, and three of
/// our own: `on-unhealthy` is `on-failure` with health, `always+unhealthy` and `unless-stopped+unhealthy`
/// are those two with health.
pub(super) fn restart(policy: &RestartPolicy) -> Result<(Restart, bool)> {
    let RestartPolicy { name, maximum_retry_count } = policy;
    let max = u32::try_from(*maximum_retry_count).unwrap_or(0);
    let (restart, on_unhealthy) = match name.as_str() {
        "" | "no" => (Restart::No, false),
        "always" => (Restart::Always, false),
        "unless-stopped" => (Restart::UnlessStopped, false),
        "on-failure" => (Restart::OnFailure { max }, false),
        "always+unhealthy" => (Restart::Always, true),
        "unless-stopped+unhealthy" => (Restart::UnlessStopped, true),
        "on-unhealthy" => (Restart::OnFailure { max }, true),
        other => return Err(Error::invalid(format!("invalid restart policy '{other}'"))),
    };
    match restart {
        Restart::OnFailure { .. } if *maximum_retry_count < 0 => {
            Err(Error::invalid("maximum retry count cannot be negative"))
        }
        Restart::OnFailure { .. } => Ok((restart, on_unhealthy)),
        _ if *maximum_retry_count != 0 => {
            Err(Error::invalid(format!("maximum retry count cannot be used with restart policy '{name}'")))
        }
        _ => Ok((restart, on_unhealthy)),
    }
}

/// What has become of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Saved {
    pub(crate) life: Life,
    /// `None` before its first start, and for a container whose health is not tested.
    pub(crate) health: Option<Health>,
    /// The endpoint of the present run; also one that is just being started.
    pub(crate) endpoint: Option<EndpointRecord>,
    /// The path of its control group.
    pub(crate) cgroup: Option<String>,
    /// It is being removed with its anonymous volumes.
    pub(crate) remove_volumes: bool,
}
