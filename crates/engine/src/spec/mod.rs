//! From a container's settings to its OCI runtime spec: a pure function, with Docker's defaults.
//!
//! ```text
//!   request ──check──► settings ─┐
//!   HostDevices::look_up ────────┼─► build ──► oci::runtime::Spec ──► runtime::plan
//!   HostFacts, paths, ids ───────┘
//! ```
//!
//! [`check`] refuses at creation what can be known to be wrong then, in Docker's words; [`build`]
//! computes the spec at each start; [`exec`] a further process. Nothing is looked up here but by
//! [`HostDevices::look_up`] and [`HostFacts::probe`].

mod capability;
mod cdi;
mod check;
mod device;
pub mod idmap;
mod mount;
mod network;
pub mod point;
mod process;
mod resource;
mod security;
mod support;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ponton_api::container::{Config, HostConfig};
use ponton_oci::runtime::{Linux, Namespace, NamespaceType, Root, Seccomp, Spec, VERSION};
use ponton_runtime::seccomp::{self, Profile, Target};

use crate::error::{Error, Result};
use idmap::IdMaps;
use point::Point;
use security::{SeccompChoice, Security};

pub(crate) use capability::names as capability_names;
pub use cdi::Registry as Cdi;
pub use check::{check, limits as check_limits, remapped as check_remapped};
pub use device::HostDevices;
pub use mount::{Source, Sources};
pub use network::{bare_address, check_network, parse_link};
pub use process::{exec, group_names};
pub use resource::{limits, resources};
pub use support::{Support, discard};

/// Paths that a container does not see, for what they tell about the host or let do to it.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that a container sees and cannot change.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where all control groups of containers are, unless `--cgroup-parent` says otherwise.
const CGROUP_PARENT: &str = "ponton";

/// Facts about the host that specs depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// The kernel's version.
    pub kernel: (u32, u32),
    /// The kernel's highest capability.
    pub last_capability: u8,
    /// Whether the kernel enforces AppArmor profiles.
    pub apparmor: bool,
    /// How many CPUs there are.
    pub cpus: u32,
    /// Which CPUs a container may be given, `0-3`.
    pub cpuset_cpus: String,
    /// Which memory nodes, `0`.
    pub cpuset_mems: String,
}

impl HostFacts {
    /// Asks the kernel. What it does not tell counts as not there.
    pub fn probe() -> Self {
        let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let cpus = std::thread::available_parallelism()
            .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX));
        let list = |path: &str| read(path).unwrap_or_else(|_| "0".to_owned());
        Self {
            kernel,
            last_capability: read("/proc/sys/kernel/cap_last_cap")
                .ok()
                .and_then(|text| text.parse().ok())
                .unwrap_or(40),
            apparmor: read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text == "Y"),
            cpus,
            cpuset_cpus: list("/sys/devices/system/cpu/online"),
            cpuset_mems: list("/sys/devices/system/node/online"),
        }
    }
}

/// The files on the host that a container sees as its own.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// `/etc/hostname`.
    pub hostname: &'a Path,
    /// `/etc/hosts`.
    pub hosts: &'a Path,
    /// `/etc/resolv.conf`.
    pub resolv_conf: &'a Path,
}

/// Namespaces of other containers that are joined, as files of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// For `--pid container:…`, `/proc/<pid>/ns/pid`.
    pub pid: Option<PathBuf>,
    /// For `--ipc container:…`, `/proc/<pid>/ns/ipc`.
    pub ipc: Option<PathBuf>,
    /// The other container's `/dev/shm`, `/proc/<pid>/root/dev/shm`.
    pub shm: Option<PathBuf>,
    /// The network namespace, where it is not passed as a descriptor.
    pub network: Option<PathBuf>,
    /// The user namespace that owns what is joined, for a container whose ids are mapped.
    pub user: Option<PathBuf>,
}

/// All that a spec is computed from.
#[derive(Clone, Copy, Debug)]
pub struct SpecInput<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The request with the image's part merged in and the host name filled in.
    pub config: &'a Config,
    /// The request's host part.
    pub host_config: &'a HostConfig,
    /// Binds, volumes and images.
    pub mounts: &'a [Point],
    /// What of them was looked up.
    pub sources: &'a Sources,
    /// The container's own files.
    pub files: Files<'a>,
    /// The init program on the host, where the container is to have one.
    pub init: Option<&'a Path>,
    /// What is joined.
    pub joined: &'a Joined,
    /// Variables that tell of linked containers.
    pub links: &'a [String],
    /// Devices of the host.
    pub devices: &'a HostDevices,
    /// The host.
    pub host: &'a HostFacts,
    /// What ids mean in the container's user namespace; it has none without.
    pub ids: Option<&'a IdMaps>,
}

/// Computes a container's spec. Its root's path is left empty: what is mounted there is the
/// snapshotter's to say.
///
/// A user that is given by name is in `process.user.username`, for the runtime to look up.
pub fn build(input: &SpecInput<'_>) -> Result<Spec> {
    let SpecInput { config, host_config: host, .. } = input;
    let security = Security::parse(host.security_opt.as_deref().unwrap_or_default())?;
    let own_uts = host.uts_mode != "host";
    let name = |name: &str| if own_uts { name.to_owned() } else { String::new() };
    let resources = resources(host, input.devices)?;
    let paths = |given: &Option<Vec<String>>, default: &[&str]| match given {
        _ if host.privileged || security.system_paths_unconfined => Vec::new(),
        Some(paths) => paths.clone(),
        None => default.iter().map(|path| (*path).to_owned()).collect(),
    };
    let linux = Linux {
        sysctl: sysctls(host, input.ids.is_some()),
        resources: Some(resources),
        cgroups_path: cgroups_path(&host.cgroup_parent, input.id),
        namespaces: namespaces(host, input.joined, input.ids.is_some()),
        uid_mappings: input.ids.map(|ids| ids.uids.clone()).unwrap_or_default(),
        gid_mappings: input.ids.map(|ids| ids.gids.clone()).unwrap_or_default(),
        devices: input.devices.files.iter().map(|(device, _)| device.clone()).collect(),
        seccomp: seccomp_policy(input, &security)?,
        masked_paths: paths(&host.masked_paths, &MASKED_PATHS),
        readonly_paths: paths(&host.readonly_paths, &READONLY_PATHS),
        ..Linux::default()
    };
    Ok(Spec {
        oci_version: VERSION.to_owned(),
        process: Some(process::process(input, &security)?),
        root: Some(Root { path: String::new(), readonly: host.readonly_rootfs }),
        hostname: name(&config.hostname),
        domainname: name(&config.domainname),
        mounts: mount::mounts(input, &security)?,
        annotations: host.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(linux),
        ..Spec::default()
    })
}

/// `<parent>/<id>`, below each hierarchy's root.
fn cgroups_path(parent: &str, id: &str) -> String {
    match parent.trim_matches('/') {
        "" => format!("{CGROUP_PARENT}/{id}"),
        parent => format!("{parent}/{id}"),
    }
}

/// The AppArmor profile that `--security-opt` names; empty where it names none.
pub fn apparmor_profile(host: &HostConfig) -> String {
    let options = host.security_opt.as_deref().unwrap_or_default();
    Security::parse(options).map(|security| security.apparmor).unwrap_or_default()
}

fn namespaces(host: &HostConfig, joined: &Joined, is_mapped: bool) -> Vec<Namespace> {
    let asked = [
        (NamespaceType::Mount, true, None),
        (NamespaceType::Network, host.network_mode != "host", joined.network.as_ref()),
        (NamespaceType::Uts, host.uts_mode != "host", None),
        (NamespaceType::Pid, host.pid_mode != "host", joined.pid.as_ref()),
        (NamespaceType::Ipc, host.ipc_mode != "host", joined.ipc.as_ref()),
        (NamespaceType::Cgroup, host.cgroupns_mode != "host", None),
        (NamespaceType::User, is_mapped, joined.user.as_ref()),
    ];
    asked
        .into_iter()
        .filter(|(_, is_own, _)| *is_own)
        .map(|(r#type, _, path)| Namespace { r#type, path: path.map(|path| path.display().to_string()) })
        .collect()
}

/// Kernel parameters: in a network of its own, a container's processes may bind any port and ping
/// without capabilities. All groups can be named by the host only: with a user namespace that is set where
/// the network is made.
fn sysctls(host: &HostConfig, is_mapped: bool) -> BTreeMap<String, String> {
    let mut sysctls = BTreeMap::new();
    if host.network_mode != "host" && !host.network_mode.starts_with("container:") {
        for (name, value) in
            [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")]
        {
            if !is_mapped || name != "net.ipv4.ping_group_range" {
                sysctls.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    for (name, value) in host.sysctls.iter().flatten() {
        sysctls.insert(name.clone(), value.clone());
    }
    sysctls
}

fn seccomp_policy(input: &SpecInput<'_>, security: &Security) -> Result<Option<Seccomp>> {
    let profile = match &security.seccomp {
        SeccompChoice::Unconfined => return Ok(None),
        SeccompChoice::Default if input.host_config.privileged => return Ok(None),
        SeccompChoice::Default | SeccompChoice::Builtin => seccomp::default::profile(),
        SeccompChoice::Profile(json) => {
            Profile::from_slice(json.as_bytes()).map_err(|error| Error::invalid(error.to_string()))?
        }
    };
    let capabilities = process::bounding(input.host_config, input.host)?;
    let target = Target { capabilities: &capabilities, kernel: input.host.kernel };
    profile.policy(target).map(Some).map_err(|error| Error::invalid(error.to_string()))
}
