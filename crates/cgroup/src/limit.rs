//! The one table: resource → (file of v1, file of v2, conversion).

use ponton_oci::runtime::{
    BlockIo, Cpu, DeviceRule, DeviceType, HugepageLimit, Memory, Network, Resources, ThrottleDevice,
};

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
    /// Empty where it is always so.
    pub(crate) name: String,
    pub(crate) value: String,
    /// What is written to which file where the kernel has no file `name`.
    pub(crate) otherwise: Option<(String, String)>,
    /// Some kernels have nothing like it, and nothing is lost there.
    pub(crate) optional: bool,
    /// It is there only where the kernel accounts swap.
    pub(crate) needs_swap_accounting: bool,
}

#[expect(clippy::needless_pass_by_value, reason = "numbers and strings are given alike")]
fn file(controller: &'static str, name: impl Into<String>, value: impl ToString) -> File {
    let (name, value) = (name.into(), value.to_string());
    File { controller, name, value, otherwise: None, optional: false, needs_swap_accounting: false }
}

fn setting(field: &str, v1: impl Into<Option<File>>, v2: impl Into<Option<File>>) -> Setting {
    Setting { field: field.to_owned(), v1: v1.into(), v2: v2.into() }
}

/// -1 is no limit; v2 says `max`.
fn max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// The settings of `resources`, in the order in which they can be written. 0 is no setting where the
/// kernel has no use for it.
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
        block_io(&mut out, value)?;
    }
    for (index, huge) in resources.hugepage_limits.iter().enumerate() {
        huge_pages(&mut out, &format!("hugepageLimits[{index}]"), huge)?;
    }
    if let Some(value) = &resources.network {
        network(&mut out, value);
    }
    for (device, limit) in &resources.rdma {
        let limits = [("hca_handle", limit.hca_handles), ("hca_object", limit.hca_objects)];
        let words = limits.map(|(name, limit)| limit.map(|limit| format!(" {name}={limit}")));
        let value = format!("{device}{}", words.into_iter().flatten().collect::<String>());
        let field = format!("rdma[{device}]");
        out.push(setting(&field, file("rdma", "rdma.max", &value), file("rdma", "rdma.max", &value)));
    }
    for (name, value) in &resources.unified {
        unified(&mut out, name, value)?;
    }
    Ok(out)
}

fn memory(out: &mut Vec<Setting>, memory: &Memory) -> Result<(), PlanError> {
    match memory.use_hierarchy {
        // v2 has it always, and so has v1 from Linux 5.11.
        Some(true) => {
            let v1 = File { optional: true, ..file("memory", "memory.use_hierarchy", 1) };
            out.push(setting("memory.useHierarchy", v1, file("memory", "", "")));
        }
        Some(false) => {
            out.push(setting("memory.useHierarchy", file("memory", "memory.use_hierarchy", 0), None));
        }
        None => {}
    }
    for (field, limit) in
        [("limit", memory.limit), ("swap", memory.swap), ("reservation", memory.reservation)]
    {
        if let Some(limit) = limit.filter(|&limit| limit < -1) {
            return Err(PlanError::new(
                format!("memory.{field}"),
                format!("{limit} is less than -1, which is no limit"),
            ));
        }
    }
    let limit = memory.limit.filter(|&limit| limit != 0);
    if let Some(limit) = limit {
        let v1 = file("memory", "memory.limit_in_bytes", limit);
        out.push(setting("memory.limit", v1, file("memory", "memory.max", max(limit))));
    }
    if let Some(swap) = memory.swap.filter(|&swap| swap != 0) {
        let alone = swap_alone(limit, swap)?;
        // Without accounting there is nothing to do where nothing is to be limited.
        let needs_swap_accounting = alone > 0;
        let optional = !needs_swap_accounting;
        let v1 = file("memory", "memory.memsw.limit_in_bytes", swap);
        let v2 = file("memory", "memory.swap.max", max(alone));
        out.push(setting(
            "memory.swap",
            File { optional, needs_swap_accounting, ..v1 },
            File { optional, needs_swap_accounting, ..v2 },
        ));
    }
    if let Some(reservation) = memory.reservation.filter(|&reservation| reservation != 0) {
        let v1 = file("memory", "memory.soft_limit_in_bytes", reservation);
        out.push(setting("memory.reservation", v1, file("memory", "memory.low", max(reservation))));
    }
    let kernel = [("kernel", "kmem", memory.kernel), ("kernelTCP", "kmem.tcp", memory.kernel_tcp)];
    for (field, name, limit) in kernel {
        if let Some(limit) = limit.filter(|&limit| limit > 0) {
            let v1 = file("memory", format!("memory.{name}.limit_in_bytes"), limit);
            out.push(setting(&format!("memory.{field}"), v1, None));
        }
    }
    if let Some(swappiness) = memory.swappiness {
        if swappiness > 100 {
            return Err(PlanError::new("memory.swappiness", format!("{swappiness} is not in 0..=100")));
        }
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
        (Some(quota), None) => Some(max(quota)),
        (quota, Some(period)) => Some(format!("{} {period}", max(quota.unwrap_or(-1)))),
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

/// 2..262144 of v1 to 1..10000 of v2: a curve through both ends and both defaults (1024 and 100), as
/// Kubernetes, runc (from 1.3) and crun (from 1.24) have it.
pub(crate) fn weight_from_shares(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // What is whole but for the last bits of the arithmetic is not rounded up.
    (10f64.powf(exponent) - 1e-6).ceil().clamp(1.0, 10_000.0) as u64
}

fn block_io(out: &mut Vec<Setting>, block_io: &BlockIo) -> Result<(), PlanError> {
    let leaf = |name: &str, value: String| file("blkio", format!("blkio.leaf_{name}"), value);
    if let Some(weight) = weight("blockIO.weight", block_io.weight)? {
        // BFQ's own file first: where that scheduler is, io.weight is of iocost.
        let v1 =
            either("blkio", ["blkio.weight", "blkio.bfq.weight"], [weight.to_string(), weight.to_string()]);
        let values = [weight.to_string(), weight_from_block_io(weight).to_string()];
        out.push(setting("blockIO.weight", v1, either("io", ["io.bfq.weight", "io.weight"], values)));
    }
    if let Some(weight) = weight("blockIO.leafWeight", block_io.leaf_weight)? {
        out.push(setting("blockIO.leafWeight", leaf("weight", weight.to_string()), None));
    }
    for (index, device) in block_io.weight_device.iter().enumerate() {
        let field = format!("blockIO.weightDevice[{index}]");
        let number = format!("{}:{}", device.major, device.minor);
        let line = |weight: u64| format!("{number} {weight}");
        if let Some(weight) = weight(&format!("{field}.weight"), device.weight)? {
            let same = || line(weight.into());
            let v1 = either("blkio", ["blkio.weight_device", "blkio.bfq.weight_device"], [same(), same()]);
            let values = [same(), line(weight_from_block_io(weight))];
            out.push(setting(&field, v1, either("io", ["io.bfq.weight", "io.weight"], values)));
        }
        if let Some(weight) = weight(&format!("{field}.leafWeight"), device.leaf_weight)? {
            out.push(setting(
                &format!("{field}.leafWeight"),
                leaf("weight_device", line(weight.into())),
                None,
            ));
        }
    }
    let mut throttle = |field: &str, devices: &[ThrottleDevice], v1: &str, v2: &str| {
        for (index, ThrottleDevice { major, minor, rate }) in devices.iter().enumerate() {
            // 0 takes a limit of v1 away.
            let most = if *rate == 0 { "max".to_owned() } else { rate.to_string() };
            let v2 = file("io", "io.max", format!("{major}:{minor} {v2}={most}"));
            let v1 = file("blkio", format!("blkio.throttle.{v1}_device"), format!("{major}:{minor} {rate}"));
            out.push(setting(&format!("blockIO.{field}[{index}]"), v1, v2));
        }
    };
    throttle("throttleReadBpsDevice", &block_io.throttle_read_bps_device, "read_bps", "rbps");
    throttle("throttleWriteBpsDevice", &block_io.throttle_write_bps_device, "write_bps", "wbps");
    throttle("throttleReadIOPSDevice", &block_io.throttle_read_iops_device, "read_iops", "riops");
    throttle("throttleWriteIOPSDevice", &block_io.throttle_write_iops_device, "write_iops", "wiops");
    Ok(())
}

/// The first of two files that the kernel has.
fn either(controller: &'static str, names: [&str; 2], values: [String; 2]) -> File {
    let [first, second] = values;
    File { otherwise: Some((names[1].to_owned(), second)), ..file(controller, names[0], first) }
}

fn weight(field: &str, weight: Option<u16>) -> Result<Option<u16>, PlanError> {
    match weight {
        None | Some(0) => Ok(None),
        Some(weight @ 10..=1000) => Ok(Some(weight)),
        Some(weight) => Err(PlanError::new(field, format!("{weight} is not in 10..=1000"))),
    }
}

/// 10..1000 of v1 to 1..10000 of v2, linearly.
pub(crate) fn weight_from_block_io(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9_999 / 990
}

fn huge_pages(out: &mut Vec<Setting>, field: &str, huge: &HugepageLimit) -> Result<(), PlanError> {
    // It becomes part of a file's name.
    let digits = huge.page_size.trim_end_matches('B').trim_end_matches(['K', 'M', 'G']);
    let unit = &huge.page_size[digits.len()..];
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty();
    if !number || !["KB", "MB", "GB"].contains(&unit) {
        let message = format!("{:?} is not a size like 2MB", huge.page_size);
        return Err(PlanError::new(format!("{field}.pageSize"), message));
    }
    let name = |end| format!("hugetlb.{}.{end}", huge.page_size);
    let v1 = file("hugetlb", name("limit_in_bytes"), huge.limit);
    out.push(setting(field, v1, file("hugetlb", name("max"), huge.limit)));
    // Reservations count from Linux 5.7.
    let v1 = File { optional: true, ..file("hugetlb", name("rsvd.limit_in_bytes"), huge.limit) };
    let v2 = File { optional: true, ..file("hugetlb", name("rsvd.max"), huge.limit) };
    out.push(setting(field, v1, v2));
    Ok(())
}

fn network(out: &mut Vec<Setting>, network: &Network) {
    if let Some(class) = network.class_id.filter(|&class| class != 0) {
        out.push(setting("network.classID", file("net_cls", "net_cls.classid", class), None));
    }
    for (index, priority) in network.priorities.iter().enumerate() {
        let value = format!("{} {}", priority.name, priority.priority);
        let field = format!("network.priorities[{index}]");
        out.push(setting(&field, file("net_prio", "net_prio.ifpriomap", value), None));
    }
}

/// A file of v2 as it is, a line at a time; its controller is the first word of its name. Of the
/// core's own files those that move or end processes are none of the specification's business.
fn unified(out: &mut Vec<Setting>, name: &str, value: &str) -> Result<(), PlanError> {
    let field = format!("unified[{name}]");
    let prefix = name.split('.').next().unwrap_or_default();
    let known = ["cpu", "cpuset", "memory", "io", "pids", "hugetlb", "rdma", "misc"];
    let core = ["cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"];
    let controller = known.into_iter().find(|&controller| controller == prefix && name.len() > prefix.len());
    let controller = controller.or_else(|| core.contains(&name).then_some("cgroup"));
    let Some(controller) = controller.filter(|_| !name.contains('/')) else {
        return Err(PlanError::new(field, "not a file of a controller"));
    };
    for line in value.lines().filter(|line| !line.is_empty()) {
        out.push(setting(&field, None, file(controller, name, line)));
    }
    Ok(())
}

/// A device rule as the kernel can decide it: for all devices, or for one type. An `a` rule with
/// numbers is one for block and one for character devices; v1 would not see its numbers.
pub(crate) fn device_rules(rules: &[DeviceRule]) -> Result<Vec<DeviceRule>, PlanError> {
    let mut plain = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let refuse =
            |field: &str, message: String| PlanError::new(format!("devices[{index}].{field}"), message);
        if let Some(unknown) = rule.access.chars().find(|letter| !"rwm".contains(*letter)) {
            return Err(refuse("access", format!("{unknown:?} is none of r, w and m")));
        }
        for (field, number) in [("major", rule.major), ("minor", rule.minor)] {
            if let Some(number) = number.filter(|&number| number < -1 || number > i64::from(u32::MAX)) {
                return Err(refuse(field, format!("{number} is not the number of a device")));
            }
        }
        let numbered =
            rule.major.is_some_and(|number| number >= 0) || rule.minor.is_some_and(|number| number >= 0);
        let some = !rule.access.is_empty() && !"rwm".chars().all(|letter| rule.access.contains(letter));
        match rule.r#type {
            DeviceType::P => return Err(refuse("type", "a FIFO is no device".to_owned())),
            DeviceType::A if numbered || some => {
                let kinds = [DeviceType::B, DeviceType::C];
                plain.extend(kinds.map(|r#type| DeviceRule { r#type, ..rule.clone() }));
            }
            DeviceType::U => plain.push(DeviceRule { r#type: DeviceType::C, ..rule.clone() }),
            DeviceType::A | DeviceType::B | DeviceType::C => plain.push(rule.clone()),
        }
    }
    Ok(plain)
}

/// A device rule as v1 writes it: `c 1:* rwm`.
pub(crate) fn device_rule(rule: &DeviceRule) -> String {
    let number = |number: Option<i64>| match number {
        Some(number) if number >= 0 => number.to_string(),
        _ => "*".to_owned(),
    };
    let access = if rule.access.is_empty() { "rwm" } else { &rule.access };
    format!("{} {}:{} {access}", rule.r#type, number(rule.major), number(rule.minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_map_onto_ranges() {
        assert_eq!([2, 512, 1024, 262_144].map(weight_from_shares), [1, 59, 100, 10_000]);
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
