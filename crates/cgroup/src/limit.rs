//! The one table: resource → (file of v1, file of v2, conversion).

use ponton_oci::runtime::{BlockIo, Cpu, DeviceRule, DeviceType, Memory, Network, Resources, ThrottleDevice};

use crate::plan::PlanError;

/// One limit as each version has it.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its field below `linux.resources`.
    pub(crate) field: String,
    pub(crate) v1: Option<File>,
    pub(crate) v2: Option<File>,
}

/// A file of a group and what is written to it.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) controller: &'static str,
    pub(crate) name: String,
    pub(crate) value: String,
    /// It is there only where the kernel accounts swap.
    pub(crate) needs_swap_accounting: bool,
}

#[expect(clippy::needless_pass_by_value, reason = "numbers and strings are given alike")]
fn file(controller: &'static str, name: impl Into<String>, value: impl ToString) -> File {
    File { controller, name: name.into(), value: value.to_string(), needs_swap_accounting: false }
}

fn setting(field: &str, v1: impl Into<Option<File>>, v2: impl Into<Option<File>>) -> Setting {
    Setting { field: field.to_owned(), v1: v1.into(), v2: v2.into() }
}

/// -1 is no limit; v2 says `max`.
fn max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// The settings of `resources`, in the order in which they can be written.
pub(crate) fn settings(resources: &Resources) -> Result<Vec<Setting>, PlanError> {
    let mut out = Vec::new();
    if let Some(value) = &resources.memory {
        memory(&mut out, value)?;
    }
    if let Some(value) = &resources.cpu {
        cpu(&mut out, value);
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        let value = if limit <= 0 { "max".to_owned() } else { limit.to_string() };
        out.push(setting("pids.limit", file("pids", "pids.max", &value), file("pids", "pids.max", &value)));
    }
    if let Some(value) = &resources.block_io {
        block_io(&mut out, value);
    }
    for huge in &resources.hugepage_limits {
        let name = |end| format!("hugetlb.{}.{end}", huge.page_size);
        let v1 = file("hugetlb", name("limit_in_bytes"), huge.limit);
        out.push(setting("hugepageLimits", v1, file("hugetlb", name("max"), huge.limit)));
    }
    if let Some(value) = &resources.network {
        network(&mut out, value);
    }
    for (device, limit) in &resources.rdma {
        let max = |value: Option<u32>| value.map_or("max".to_owned(), |value| value.to_string());
        let (handles, objects) = (max(limit.hca_handles), max(limit.hca_objects));
        let value = format!("{device} hca_handle={handles} hca_object={objects}");
        out.push(setting("rdma", file("rdma", "rdma.max", &value), file("rdma", "rdma.max", &value)));
    }
    for (name, value) in &resources.unified {
        out.push(unified(name, value)?);
    }
    Ok(out)
}

fn memory(out: &mut Vec<Setting>, memory: &Memory) -> Result<(), PlanError> {
    if let Some(limit) = memory.limit {
        let v1 = file("memory", "memory.limit_in_bytes", limit);
        out.push(setting("memory.limit", v1, file("memory", "memory.max", max(limit))));
    }
    if let Some(swap) = memory.swap {
        let alone = swap_alone(memory.limit, swap)?;
        let v1 = file("memory", "memory.memsw.limit_in_bytes", swap);
        let v2 = file("memory", "memory.swap.max", max(alone));
        out.push(setting(
            "memory.swap",
            File { needs_swap_accounting: true, ..v1 },
            File { needs_swap_accounting: true, ..v2 },
        ));
    }
    if let Some(reservation) = memory.reservation {
        let v1 = file("memory", "memory.soft_limit_in_bytes", reservation);
        out.push(setting("memory.reservation", v1, file("memory", "memory.low", max(reservation))));
    }
    if let Some(swappiness) = memory.swappiness {
        let v1 = file("memory", "memory.swappiness", swappiness);
        out.push(setting("memory.swappiness", v1, None));
    }
    if memory.disable_oom_killer == Some(true) {
        out.push(setting("memory.disableOOMKiller", file("memory", "memory.oom_control", 1), None));
    }
    Ok(())
}

/// v1 limits memory and swap together, v2 swap alone.
fn swap_alone(limit: Option<i64>, swap: i64) -> Result<i64, PlanError> {
    match limit {
        _ if swap < 0 => Ok(-1),
        Some(limit) if limit >= 0 && swap >= limit => Ok(swap - limit),
        Some(limit) if limit >= 0 => {
            Err(PlanError::new("memory.swap", "memory and swap together are less than the memory limit"))
        }
        _ => Err(PlanError::new("memory.swap", "a swap limit needs a memory limit")),
    }
}

fn cpu(out: &mut Vec<Setting>, cpu: &Cpu) {
    if let Some(shares) = cpu.shares.filter(|&shares| shares != 0) {
        let v2 = file("cpu", "cpu.weight", weight_from_shares(shares));
        out.push(setting("cpu.shares", file("cpu", "cpu.shares", shares), v2));
    }
    // On v2 quota and period are one file, and quota is its first word.
    let (quota, period) = (cpu.quota.filter(|&quota| quota != 0), cpu.period.filter(|&period| period != 0));
    let both = match (quota, period) {
        (None, None) => None,
        (quota, period) => {
            Some(format!("{} {}", max(quota.unwrap_or(-1)), period.unwrap_or(DEFAULT_PERIOD_US)))
        }
    };
    if let Some(period) = period {
        let v2 = both.as_ref().map(|both| file("cpu", "cpu.max", both));
        out.push(setting("cpu.period", file("cpu", "cpu.cfs_period_us", period), v2));
    }
    if let Some(quota) = quota {
        let v2 = both.as_ref().map(|both| file("cpu", "cpu.max", both));
        out.push(setting("cpu.quota", file("cpu", "cpu.cfs_quota_us", quota), v2));
    }
    if let Some(burst) = cpu.burst {
        let v2 = file("cpu", "cpu.max.burst", burst);
        out.push(setting("cpu.burst", file("cpu", "cpu.cfs_burst_us", burst), v2));
    }
    if let Some(period) = cpu.realtime_period.filter(|&period| period != 0) {
        out.push(setting("cpu.realtimePeriod", file("cpu", "cpu.rt_period_us", period), None));
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|&runtime| runtime != 0) {
        out.push(setting("cpu.realtimeRuntime", file("cpu", "cpu.rt_runtime_us", runtime), None));
    }
    if let Some(idle) = cpu.idle {
        out.push(setting("cpu.idle", file("cpu", "cpu.idle", idle), file("cpu", "cpu.idle", idle)));
    }
    for (field, list) in [("cpu.cpus", &cpu.cpus), ("cpu.mems", &cpu.mems)] {
        if !list.is_empty() {
            let name = format!("cpuset.{}", &field[4..]);
            out.push(setting(field, file("cpuset", name.clone(), list), file("cpuset", name, list)));
        }
    }
}

/// The kernel's own default (sched-bwc.rst).
const DEFAULT_PERIOD_US: u64 = 100_000;

/// 2..262144 of v1 to 1..10000 of v2, linearly.
fn weight_from_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

fn block_io(out: &mut Vec<Setting>, block_io: &BlockIo) {
    if let Some(weight) = block_io.weight.filter(|&weight| weight != 0) {
        let v2 = file("io", "io.weight", weight_from_block_io(weight));
        out.push(setting("blockIO.weight", file("blkio", "blkio.weight", weight), v2));
    }
    for device in &block_io.weight_device {
        let Some(weight) = device.weight else { continue };
        let number = format!("{}:{}", device.major, device.minor);
        let v2 = file("io", "io.weight", format!("{number} {}", weight_from_block_io(weight)));
        let v1 = file("blkio", "blkio.weight_device", format!("{number} {weight}"));
        out.push(setting("blockIO.weightDevice", v1, v2));
    }
    let mut throttle = |field: &str, devices: &[ThrottleDevice], v1: &str, v2: &str| {
        for ThrottleDevice { major, minor, rate } in devices {
            let v2 = file("io", "io.max", format!("{major}:{minor} {v2}={rate}"));
            let v1 = file("blkio", format!("blkio.throttle.{v1}_device"), format!("{major}:{minor} {rate}"));
            out.push(setting(field, v1, v2));
        }
    };
    throttle("blockIO.throttleReadBpsDevice", &block_io.throttle_read_bps_device, "read_bps", "rbps");
    throttle("blockIO.throttleWriteBpsDevice", &block_io.throttle_write_bps_device, "write_bps", "wbps");
    throttle("blockIO.throttleReadIOPSDevice", &block_io.throttle_read_iops_device, "read_iops", "riops");
    throttle("blockIO.throttleWriteIOPSDevice", &block_io.throttle_write_iops_device, "write_iops", "wiops");
}

/// 10..1000 of v1 to 1..10000 of v2, linearly.
fn weight_from_block_io(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9_999 / 990
}

fn network(out: &mut Vec<Setting>, network: &Network) {
    if let Some(class) = network.class_id {
        out.push(setting("network.classID", file("net_cls", "net_cls.classid", class), None));
    }
    for priority in &network.priorities {
        let value = format!("{} {}", priority.name, priority.priority);
        out.push(setting("network.priorities", file("net_prio", "net_prio.ifpriomap", value), None));
    }
}

/// A file of v2 as it is; its controller is the first word of its name.
fn unified(name: &str, value: &str) -> Result<Setting, PlanError> {
    let field = format!("unified[{name}]");
    let prefix = name.split('.').next().unwrap_or_default();
    let known = ["cpu", "cpuset", "memory", "io", "pids", "hugetlb", "rdma"];
    match known.into_iter().find(|&controller| controller == prefix) {
        Some(controller) if !name.contains('/') => {
            Ok(Setting { field, v1: None, v2: Some(file(controller, name, value)) })
        }
        _ => Err(PlanError::new(field, "not a file of a controller")),
    }
}

/// A device rule as v1 writes it: `c 1:* rwm`.
pub(crate) fn device_rule(rule: &DeviceRule) -> String {
    let number = |number: Option<i64>| match number {
        Some(number) if number >= 0 => number.to_string(),
        _ => "*".to_owned(),
    };
    let access = if rule.access.is_empty() { "rwm" } else { &rule.access };
    let kind = if rule.r#type == DeviceType::U { DeviceType::C } else { rule.r#type };
    format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_map_onto_ranges() {
        assert_eq!([2, 1024, 262_144].map(weight_from_shares), [1, 39, 10_000]);
        assert_eq!([10, 500, 1000].map(weight_from_block_io), [1, 4950, 10_000]);
    }

    #[test]
    fn swap_of_v2_is_without_memory() {
        assert_eq!(swap_alone(Some(100), 150), Ok(50));
        assert_eq!(swap_alone(Some(100), -1), Ok(-1));
        assert!(swap_alone(Some(100), 50).is_err());
        assert!(swap_alone(None, 50).is_err());
    }
}
