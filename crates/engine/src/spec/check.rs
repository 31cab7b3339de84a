//! What Docker refuses when a container is created, in its words.

use std::collections::BTreeSet;

use ponton_api::container::{Config, HostConfig};

use super::point::Point;
use super::security::Security;
use super::{HostFacts, capability, device, mount, process};
use crate::error::{Error, Result};

const MEMORY_MIN: i64 = 6 << 20;
const NANO: i64 = 1_000_000_000;

/// Checks the settings of a container that is to be created; says what the user should be warned
/// of. `config` is the request's, before the host name is filled in.
pub fn check(config: &Config, host: &HostConfig, facts: &HostFacts) -> Result<Vec<String>> {
    for variable in config.env.iter().flatten() {
        if variable.is_empty() || variable.starts_with('=') {
            return Err(Error::invalid(format!("invalid environment variable: {variable}")));
        }
    }
    modes(host)?;
    unbuilt(host)?;
    capability::normalize(host.cap_add.as_deref().unwrap_or_default(), "CapAdd")?;
    capability::normalize(host.cap_drop.as_deref().unwrap_or_default(), "CapDrop")?;
    capability::normalize(host.capabilities.as_deref().unwrap_or_default(), "Capabilities")?;
    for (field, list) in [("CapAdd", &host.cap_add), ("CapDrop", &host.cap_drop)] {
        if host.capabilities.is_some() && list.as_ref().is_some_and(|list| !list.is_empty()) {
            return Err(Error::invalid(format!("conflicting options: Capabilities and {field}")));
        }
    }
    Security::parse(host.security_opt.as_deref().unwrap_or_default())?;
    process::rlimits(host)?;
    mount::tmpfs(host)?;
    for rule in host.device_cgroup_rules.iter().flatten() {
        if device::parse_rule(rule).is_none() {
            return Err(Error::invalid(format!("invalid device cgroup rule format: '{rule}'")));
        }
    }
    if host.shm_size < 0 {
        return Err(Error::invalid("SHM size can not be less than 0"));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(Error::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if host.annotations.iter().flatten().any(|(key, _)| key.is_empty()) {
        return Err(Error::invalid(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ));
    }
    let mut warnings = limits(host, facts)?;
    if host.network_mode == "host" && host.port_bindings.as_ref().is_some_and(|map| !map.is_empty()) {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    Ok(warnings)
}

/// The limits alone: what `update` checks too.
pub fn limits(host: &HostConfig, facts: &HostFacts) -> Result<Vec<String>> {
    memory(host)?;
    cpu(host, facts)?;
    cpuset(&host.cpuset_cpus, "cpuset cpus", "CPUs", &facts.cpuset_cpus)?;
    cpuset(&host.cpuset_mems, "cpuset mems", "memory nodes", &facts.cpuset_mems)?;
    let weights = host.blkio_weight_device.iter().flatten().map(|device| device.weight);
    for weight in weights.chain([host.blkio_weight]) {
        if weight != 0 && !(10..=1000).contains(&weight) {
            return Err(Error::invalid("Range of blkio weight is from 10 to 1000"));
        }
    }
    let mut warnings = Vec::new();
    if host.oom_kill_disable == Some(true) && host.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result \
             in the system running out of resources."
                .to_owned(),
        );
    }
    Ok(warnings)
}

/// Refuses what a container with a user namespace cannot have, and what is not built for it.
pub fn remapped(host: &HostConfig, mounts: &[Point]) -> Result<()> {
    const HOST: &str = "where ids are mapped (a container with --userns=host has it)";
    let refused = if host.privileged {
        "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when \
         running privileged mode"
    } else if host.network_mode == "host" {
        "cannot share the host's network namespace when user namespaces are enabled"
    } else if host.pid_mode == "host" {
        "cannot share the host PID namespace when user namespaces are enabled"
    } else if host.ipc_mode == "host" {
        return Err(Error::not_implemented(format!("IpcMode host is not implemented {HOST}")));
    } else if let Some(point) = mounts.iter().find(|point| !point.details.subpath.is_empty()) {
        let target = &point.shown.destination;
        return Err(Error::not_implemented(format!(
            "a Subpath (mount at {target}) is not implemented {HOST}"
        )));
    } else {
        return Ok(());
    };
    Err(Error::invalid(refused))
}

fn modes(host: &HostConfig) -> Result<()> {
    let is_one_of = |mode: &str, known: &[&str]| {
        mode.is_empty()
            || known.contains(&mode)
            || mode
                .strip_prefix("container:")
                .is_some_and(|id| !id.is_empty() && known.contains(&"container:"))
    };
    let modes: [(&str, &str, &[&str]); 5] = [
        ("IPC mode", &host.ipc_mode, &["private", "shareable", "host", "none", "container:"]),
        ("PID mode", &host.pid_mode, &["host", "container:"]),
        ("UTS mode", &host.uts_mode, &["host"]),
        ("user namespace mode", &host.userns_mode, &["host"]),
        ("cgroup namespace mode", &host.cgroupns_mode, &["private", "host"]),
    ];
    for (what, mode, known) in modes {
        if !is_one_of(mode, known) {
            return Err(Error::invalid(format!("invalid {what}: {mode}")));
        }
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(Error::invalid(format!(
            "Invalid isolation: {:?} - linux only supports 'default'",
            host.isolation
        )));
    }
    Ok(())
}

fn unbuilt(host: &HostConfig) -> Result<()> {
    if host.storage_opt.as_ref().is_some_and(|map| !map.is_empty()) {
        return Err(Error::not_implemented(
            "StorageOpt: storage options (--storage-opt) are not implemented",
        ));
    }
    let windows = [("bandwidth", host.io_maximum_bandwidth), ("IOPs", host.io_maximum_iops)];
    if let Some((what, _)) = windows.into_iter().find(|(_, limit)| *limit != 0) {
        return Err(Error::invalid(format!(
            "Invalid QoS settings: linux does not support configuration of maximum {what}"
        )));
    }
    // Of other systems, or of versions of the API in which they did nothing.
    let refused = [
        ("DiskQuota", host.disk_quota != 0, "StorageOpt has the size of a container's disk"),
        ("Cgroup", !host.cgroup.is_empty(), "the control group of another container cannot be used"),
    ];
    match refused.into_iter().find(|(_, is_asked, _)| *is_asked) {
        Some((field, _, why)) => Err(Error::invalid(format!("invalid {field}: {why}"))),
        None => Ok(()),
    }
}

fn memory(host: &HostConfig) -> Result<()> {
    let HostConfig { memory, memory_swap: swap, memory_reservation: reservation, .. } = *host;
    let refused = if memory != 0 && memory < MEMORY_MIN {
        "Minimum memory limit allowed is 6MB"
    } else if memory > 0 && swap > 0 && swap < memory {
        "Minimum memoryswap limit should be larger than memory limit, see usage"
    } else if memory == 0 && swap > 0 {
        "You should always set the Memory limit when using Memoryswap limit, see usage"
    } else if reservation != 0 && reservation < MEMORY_MIN {
        "Minimum memory reservation allowed is 6MB"
    } else if memory > 0 && memory < reservation {
        "Minimum memory limit can not be less than memory reservation limit, see usage"
    } else if host.kernel_memory > 0 && host.kernel_memory < MEMORY_MIN {
        "Minimum kernel memory limit allowed is 6MB"
    } else {
        ""
    };
    if !refused.is_empty() {
        return Err(Error::invalid(refused));
    }
    match host.memory_swappiness {
        Some(value) if value != -1 && !(0..=100).contains(&value) => {
            Err(Error::invalid(format!("Invalid value: {value}, valid memory swappiness range is 0-100")))
        }
        _ => Ok(()),
    }
}

fn cpu(host: &HostConfig, facts: &HostFacts) -> Result<()> {
    let HostConfig { nano_cpus, cpu_period: period, cpu_quota: quota, .. } = *host;
    let refused = if nano_cpus > 0 && period > 0 {
        "Conflicting options: Nano CPUs and CPU Period cannot both be set"
    } else if nano_cpus > 0 && quota > 0 {
        "Conflicting options: Nano CPUs and CPU Quota cannot both be set"
    } else if period != 0 && !(1000..=1_000_000).contains(&period) {
        "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
    } else if quota > 0 && quota < 1000 {
        "CPU cfs quota can not be less than 1ms (i.e. 1000)"
    } else {
        ""
    };
    if !refused.is_empty() {
        return Err(Error::invalid(refused));
    }
    let cpus = facts.cpus;
    if nano_cpus < 0 || nano_cpus > i64::from(cpus).saturating_mul(NANO) {
        return Err(Error::invalid(format!(
            "Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    Ok(())
}

fn cpuset(asked: &str, field: &str, what: &str, available: &str) -> Result<()> {
    let Some(numbers) = parse_list(asked) else {
        return Err(Error::invalid(format!("Invalid value {asked} for {field}: invalid format: {asked}")));
    };
    let known = parse_list(available).unwrap_or_default();
    if numbers.is_subset(&known) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Requested {what} are not available - requested {asked}, available: {available}"
    )))
}

/// `0-2,7` (cpuset(7), "List format"); the kernel's own limit on numbers keeps this small.
fn parse_list(text: &str) -> Option<BTreeSet<u16>> {
    let mut numbers = BTreeSet::new();
    if text.is_empty() {
        return Some(numbers);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > 8191 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}
