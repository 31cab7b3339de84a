//! Changing a container's limits, restart policy and name.

use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt;
use ponton_api::container::{HostConfig, RestartPolicy, UpdateRequest, UpdateResponse};
use ponton_cgroup::UpdateError;
use rustix::io::Errno;

use super::Task;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::lifecycle::State;
use crate::name;
use crate::spec::HostDevices;

impl Engine {
    /// Changes limits and restart policy.
    pub async fn update(self: &Arc<Self>, name: &str, request: UpdateRequest) -> Result<UpdateResponse> {
        let container = self.find(name)?;
        let warnings = container.change(move |task| task.update(request).boxed()).await?;
        Ok(UpdateResponse { warnings: (!warnings.is_empty()).then_some(warnings) })
    }

    /// Gives another name.
    pub async fn rename(self: &Arc<Self>, name: &str, to: &str) -> Result<()> {
        if to.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let to = name::parse(to)?.to_owned();
        let container = self.find(name)?;
        container.change(move |task| task.rename(to).boxed()).await
    }
}

impl Task {
    async fn rename(&mut self, to: String) -> Result<()> {
        let from = self.view.name.clone();
        if from == to {
            return Err(Error::invalid("Renaming a container with the same name as its current name"));
        }
        self.engine.reserve(&to, self.id())?;
        if let Err(error) = self.engine.store.containers().rename(self.id(), &to) {
            self.engine.release_name(&to, self.id());
            return Err(error.into());
        }
        self.engine.release_name(&from, self.id());
        self.view.name = to;
        self.show();
        self.emit("rename", &[("oldName", &format!("/{from}"))]);
        Ok(())
    }

    /// Answers what the user should be warned of.
    async fn update(&mut self, request: UpdateRequest) -> Result<Vec<String>> {
        if matches!(self.view.life.state, State::Removing | State::Dead { .. }) {
            return Err(Error::conflict("Container is marked for removal and cannot be \"update\"."));
        }
        fixed(&request)?;
        let mut asked = limits_of(&request);
        let mut warnings = crate::spec::discard(&mut asked, self.engine.support()?);
        let mut settings = (**self.settings()).clone();
        change(&mut settings.host_config, asked, request.restart_policy)?;
        super::create::check(&settings.config, &settings.host_config)?;
        warnings.extend(crate::spec::check_limits(&settings.host_config, self.engine.facts())?);
        // Device files do not change, and may be gone from the host.
        let limited = HostConfig { devices: None, privileged: false, ..settings.host_config.clone() };
        let devices = HostDevices::look_up(&limited)?;
        let resources = crate::spec::limits(&limited, &devices);
        if self.is_running() {
            let group = self.control_group()?;
            let engine = Arc::clone(&self.engine);
            let done = blocking(move || Ok(group.update(&engine.host()?.cgroup, &resources)?)).await;
            // Of one that ends just now it is as of one that has ended: what is asked holds from the next start on.
            if let Err(error) = done
                && !self.is_ending().await
            {
                return Err(blame(error));
            }
        }
        self.keep_settings(settings)?;
        self.emit("update", &[]);
        Ok(warnings)
    }
}

/// A value that the kernel takes for none is the client's, who is told which one it was.
fn blame(error: Error) -> Error {
    let Some(UpdateError::Kernel(refusal)) = error.source.as_deref().and_then(|cause| cause.downcast_ref())
    else {
        return error;
    };
    let is_value = matches!(refusal.errno().map(Errno::from_raw_os_error), Some(Errno::INVAL | Errno::RANGE));
    let file = Path::new(&refusal.object).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !is_value || file.is_empty() {
        return error;
    }
    let field = FIELDS.iter().find(|(start, _)| file.starts_with(start)).map_or(file, |(_, field)| field);
    Error::invalid(format!("{field}: the kernel does not take this value: {refusal}"))
}

/// How the kernel's files begin, and the fields that are written to them.
const FIELDS: [(&str, &str); 16] = [
    ("cpu.rt_runtime_us", "CpuRealtimeRuntime"),
    ("cpu.rt_period_us", "CpuRealtimePeriod"),
    ("cpu.cfs_period_us", "CpuPeriod"),
    ("cpu.cfs_quota_us", "CpuQuota"),
    ("cpu.max", "CpuQuota"),
    ("cpu.shares", "CpuShares"),
    ("cpu.weight", "CpuShares"),
    ("cpuset.cpus", "CpusetCpus"),
    ("cpuset.mems", "CpusetMems"),
    ("memory.limit_in_bytes", "Memory"),
    ("memory.max", "Memory"),
    ("memory.memsw", "MemorySwap"),
    ("memory.swap.max", "MemorySwap"),
    ("memory.soft_limit", "MemoryReservation"),
    ("memory.low", "MemoryReservation"),
    ("pids.max", "PidsLimit"),
];

/// Refuses to change what a container has from its creation on.
fn fixed(request: &UpdateRequest) -> Result<()> {
    let given = |list: usize| list > 0;
    let fixed = [
        ("CgroupParent", !request.cgroup_parent.is_empty()),
        ("Devices", given(request.devices.iter().flatten().count())),
        ("DeviceCgroupRules", given(request.device_cgroup_rules.iter().flatten().count())),
        ("DeviceRequests", given(request.device_requests.iter().flatten().count())),
        ("Ulimits", given(request.ulimits.iter().flatten().count())),
        ("Init", request.init.is_some()),
        ("IOMaximumIOps", request.io_maximum_iops != 0),
        ("IOMaximumBandwidth", request.io_maximum_bandwidth != 0),
    ];
    match fixed.into_iter().find(|(_, is_asked)| *is_asked) {
        Some((field, _)) => {
            Err(Error::invalid(format!("invalid {field}: it cannot be changed by an update")))
        }
        None => Ok(()),
    }
}

/// The limits of a request; 0, empty and none mean no change.
fn limits_of(request: &UpdateRequest) -> HostConfig {
    let request = request.clone();
    macro_rules! same {
        ($($field:ident),*) => {
            HostConfig { $($field: request.$field,)* ..HostConfig::default() }
        };
    }
    same!(
        cpu_shares,
        memory,
        nano_cpus,
        blkio_weight,
        blkio_weight_device,
        blkio_device_read_bps,
        blkio_device_write_bps,
        blkio_device_read_iops,
        blkio_device_write_iops,
        cpu_period,
        cpu_quota,
        cpu_realtime_period,
        cpu_realtime_runtime,
        cpu_count,
        cpu_percent,
        cpuset_cpus,
        cpuset_mems,
        memory_reservation,
        memory_swap,
        memory_swappiness,
        kernel_memory,
        kernel_memory_tcp,
        oom_kill_disable,
        pids_limit
    )
}

fn take_set<T: Default + PartialEq>(field: &mut T, value: T) {
    if value != T::default() {
        *field = value;
    }
}

/// Takes over what is asked for; Docker's words for what cannot go together.
fn change(host: &mut HostConfig, asked: HostConfig, policy: RestartPolicy) -> Result<()> {
    let conflicts = [
        (asked.nano_cpus > 0 && host.cpu_period > 0, "Nano CPUs", "CPU Period has"),
        (asked.nano_cpus > 0 && host.cpu_quota > 0, "Nano CPUs", "CPU Quota has"),
        (asked.cpu_period > 0 && host.nano_cpus > 0, "CPU Period", "NanoCPUs has"),
        (asked.cpu_quota > 0 && host.nano_cpus > 0, "CPU Quota", "NanoCPUs has"),
    ];
    if let Some((_, what, set)) = conflicts.into_iter().find(|(is_conflict, ..)| *is_conflict) {
        return Err(Error::conflict(format!(
            "Conflicting options: {what} cannot be updated as {set} already been set"
        )));
    }
    if asked.memory != 0 && asked.memory > host.memory_swap && asked.memory_swap == 0 {
        return Err(Error::conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ));
    }
    if !policy.name.is_empty() {
        if host.auto_remove && policy.name != "no" {
            return Err(Error::conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        host.restart_policy = policy;
    }
    macro_rules! take {
        ($($field:ident),*) => {
            $(take_set(&mut host.$field, asked.$field);)*
        };
    }
    take!(
        cpu_shares,
        memory,
        nano_cpus,
        blkio_weight,
        blkio_weight_device,
        blkio_device_read_bps,
        blkio_device_write_bps,
        blkio_device_read_iops,
        blkio_device_write_iops,
        cpu_period,
        cpu_quota,
        cpu_realtime_period,
        cpu_realtime_runtime,
        cpuset_cpus,
        cpuset_mems,
        memory_reservation,
        memory_swap,
        memory_swappiness,
        oom_kill_disable,
        pids_limit
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use ponton_api::container::{DeviceMapping, Ulimit};

    use super::*;

    fn updated(host: &HostConfig, request: &UpdateRequest) -> Result<HostConfig, String> {
        let mut host = host.clone();
        fixed(request)
            .and_then(|()| change(&mut host, limits_of(request), request.restart_policy.clone()))
            .map_err(|error| error.message)?;
        Ok(host)
    }

    #[test]
    fn only_what_is_given_changes() {
        let host =
            HostConfig { cpu_shares: 5, pids_limit: Some(7), memory_swap: 9 << 20, ..HostConfig::default() };
        let request =
            UpdateRequest { memory: 8 << 20, cpuset_cpus: "0".to_owned(), ..UpdateRequest::default() };
        let changed = updated(&host, &request).unwrap();
        assert_eq!(changed, HostConfig { memory: 8 << 20, cpuset_cpus: "0".to_owned(), ..host.clone() });
        let request = UpdateRequest { pids_limit: Some(0), ..UpdateRequest::default() };
        assert_eq!(updated(&host, &request).unwrap().pids_limit, Some(0));
    }

    #[test]
    fn what_cannot_go_together_is_refused_in_dockers_words() {
        let policy = RestartPolicy { name: "always".to_owned(), maximum_retry_count: 0 };
        let table: &[(&str, HostConfig, UpdateRequest, &str)] = &[
            (
                "NanoCpus",
                HostConfig { cpu_period: 1, ..HostConfig::default() },
                UpdateRequest { nano_cpus: 1, ..UpdateRequest::default() },
                "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
            ),
            (
                "NanoCpus",
                HostConfig { cpu_quota: 1, ..HostConfig::default() },
                UpdateRequest { nano_cpus: 1, ..UpdateRequest::default() },
                "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
            ),
            (
                "CpuPeriod",
                HostConfig { nano_cpus: 1, ..HostConfig::default() },
                UpdateRequest { cpu_period: 1, ..UpdateRequest::default() },
                "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
            ),
            (
                "CpuQuota",
                HostConfig { nano_cpus: 1, ..HostConfig::default() },
                UpdateRequest { cpu_quota: 1, ..UpdateRequest::default() },
                "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
            ),
            (
                "Memory",
                HostConfig::default(),
                UpdateRequest { memory: 8 << 20, ..UpdateRequest::default() },
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
            ),
            (
                "RestartPolicy",
                HostConfig { auto_remove: true, ..HostConfig::default() },
                UpdateRequest { restart_policy: policy, ..UpdateRequest::default() },
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ),
            (
                "Devices",
                HostConfig::default(),
                UpdateRequest { devices: Some(vec![DeviceMapping::default()]), ..UpdateRequest::default() },
                "invalid Devices: it cannot be changed by an update",
            ),
            (
                "Ulimits",
                HostConfig::default(),
                UpdateRequest { ulimits: Some(vec![Ulimit::default()]), ..UpdateRequest::default() },
                "invalid Ulimits: it cannot be changed by an update",
            ),
        ];
        for (field, host, request, message) in table {
            assert_eq!(updated(host, request).unwrap_err(), *message, "{field}");
        }
    }
}
