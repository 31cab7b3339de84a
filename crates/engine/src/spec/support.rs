//! What the kernel can limit. A limit that it cannot set is left out with a warning, in Docker's words.

use ponton_api::container::HostConfig;
use ponton_cgroup::{Hierarchy, Layout, Version};

/// What of a container's limits the kernel can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one file of the kernel")]
pub struct Support {
    /// `Memory`
    pub memory: bool,
    /// `MemorySwap`
    pub swap: bool,
    /// `MemoryReservation`
    pub reservation: bool,
    /// `MemorySwappiness`
    pub swappiness: bool,
    /// `KernelMemory`: no kernel of today counts it apart.
    pub kernel_memory: bool,
    /// `OomKillDisable`
    pub oom_kill_disable: bool,
    /// `PidsLimit`
    pub pids: bool,
    /// `CpuShares`
    pub cpu_shares: bool,
    /// `CpuPeriod`, `CpuQuota`, `NanoCpus`
    pub cpu_cfs: bool,
    /// `CpuRealtimePeriod`, `CpuRealtimeRuntime`
    pub cpu_realtime: bool,
    /// `CpusetCpus`, `CpusetMems`
    pub cpuset: bool,
    /// `BlkioWeight`, `BlkioWeightDevice`
    pub io_weight: bool,
    /// `BlkioDeviceReadBps` and the like.
    pub io_throttle: bool,
}

impl Support {
    /// All of it.
    pub const FULL: Self = Self {
        memory: true,
        swap: true,
        reservation: true,
        swappiness: true,
        kernel_memory: true,
        oom_kill_disable: true,
        pids: true,
        cpu_shares: true,
        cpu_cfs: true,
        cpu_realtime: true,
        cpuset: true,
        io_weight: true,
        io_throttle: true,
    };

    /// Looks at the control groups.
    pub fn probe(layout: &Layout) -> Self {
        // On v1 each limit has a file, on v2 the controller has them all.
        let has = |v1: &str, v2: &str, file: &str| match (layout.with(v1), layout.with(v2)) {
            (Some(Hierarchy { mount, version: Version::V1, .. }), _) => mount.join(file).exists(),
            (_, Some(Hierarchy { version: Version::V2, .. })) => true,
            _ => false,
        };
        let only_v1 = |controller: &str, file: &str| {
            layout
                .with(controller)
                .is_some_and(|found| found.version == Version::V1 && found.mount.join(file).exists())
        };
        Self {
            memory: has("memory", "memory", "memory.limit_in_bytes"),
            swap: layout.swap_accounting,
            reservation: has("memory", "memory", "memory.soft_limit_in_bytes"),
            swappiness: only_v1("memory", "memory.swappiness"),
            kernel_memory: false,
            oom_kill_disable: only_v1("memory", "memory.oom_control"),
            pids: layout.with("pids").is_some(),
            cpu_shares: has("cpu", "cpu", "cpu.shares"),
            cpu_cfs: has("cpu", "cpu", "cpu.cfs_quota_us"),
            cpu_realtime: only_v1("cpu", "cpu.rt_runtime_us"),
            cpuset: has("cpuset", "cpuset", "cpuset.cpus"),
            io_weight: has_io_weight(layout),
            io_throttle: has("blkio", "io", "blkio.throttle.read_bps_device"),
        }
    }
}

/// The weights belong to a scheduler: the root has none of BFQ's, and each group below has them.
fn has_io_weight(layout: &Layout) -> bool {
    let files = ["blkio.weight", "blkio.bfq.weight", "io.weight", "io.bfq.weight"];
    let Some(hierarchy) = layout.with("blkio").or_else(|| layout.with("io")) else { return false };
    let below = std::fs::read_dir(&hierarchy.mount).into_iter().flatten().flatten();
    let below = below.map(|entry| entry.path()).find(|path| path.is_dir());
    [Some(hierarchy.mount.clone()), below]
        .into_iter()
        .flatten()
        .any(|group| files.iter().any(|file| group.join(file).exists()))
}

/// Takes out the limits that this kernel cannot set; says which.
pub fn discard(host: &mut HostConfig, support: &Support) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |text: &str| warnings.push(text.to_owned());
    memory(host, support, &mut warn);
    if host.pids_limit.is_some() && !support.pids {
        if host.pids_limit.is_some_and(|limit| limit > 0) {
            warn(
                "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
            );
        }
        host.pids_limit = None;
    }
    cpu(host, support, &mut warn);
    block_io(host, support, &mut warn);
    warnings
}

fn memory(host: &mut HostConfig, support: &Support, warn: &mut impl FnMut(&str)) {
    if host.memory > 0 && !support.memory {
        warn(
            "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
        );
        (host.memory, host.memory_swap) = (0, -1);
    }
    if host.memory > 0 && host.memory_swap != -1 && !support.swap {
        warn(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
        );
        host.memory_swap = -1;
    }
    // -1 is the host's own, which needs nothing.
    if host.memory_swappiness == Some(-1) {
        host.memory_swappiness = None;
    }
    if host.memory_swappiness.is_some() && !support.swappiness {
        warn(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
        );
        host.memory_swappiness = None;
    }
    if host.memory_reservation > 0 && !support.reservation {
        warn(
            "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
        );
        host.memory_reservation = 0;
    }
    if host.kernel_memory > 0 && !support.kernel_memory {
        warn(
            "Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
        );
        host.kernel_memory = 0;
    }
    if host.kernel_memory_tcp > 0 && !support.kernel_memory {
        warn(
            "Your kernel does not support kernel memory TCP limit capabilities or the cgroup is not mounted. Limitation discarded.",
        );
        host.kernel_memory_tcp = 0;
    }
    if !support.oom_kill_disable {
        // Who did not want it is not warned.
        if host.oom_kill_disable == Some(true) {
            warn("Your kernel does not support OomKillDisable. OomKillDisable discarded.");
        }
        host.oom_kill_disable = None;
    }
}

fn cpu(host: &mut HostConfig, support: &Support, warn: &mut impl FnMut(&str)) {
    if host.cpu_shares > 0 && !support.cpu_shares {
        warn("Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.");
        host.cpu_shares = 0;
    }
    if (host.cpu_period != 0 || host.cpu_quota != 0) && !support.cpu_cfs {
        warn("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.");
        (host.cpu_period, host.cpu_quota) = (0, 0);
    }
    if (host.cpu_realtime_period != 0 || host.cpu_realtime_runtime != 0) && !support.cpu_realtime {
        warn("Your kernel does not support CPU real-time scheduler. CPU real-time period/runtime discarded.");
        (host.cpu_realtime_period, host.cpu_realtime_runtime) = (0, 0);
    }
    if host.cpu_percent > 0 {
        warn("linux does not support CPU percent. Percent discarded.");
        host.cpu_percent = 0;
    }
    if host.cpu_count > 0 {
        warn("linux does not support CPU count. Count discarded.");
        host.cpu_count = 0;
    }
    if (!host.cpuset_cpus.is_empty() || !host.cpuset_mems.is_empty()) && !support.cpuset {
        warn("Your kernel does not support cpuset or the cgroup is not mounted. CPUset discarded.");
        host.cpuset_cpus.clear();
        host.cpuset_mems.clear();
    }
}

fn block_io(host: &mut HostConfig, support: &Support, warn: &mut impl FnMut(&str)) {
    if host.blkio_weight > 0 && !support.io_weight {
        warn("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.");
        host.blkio_weight = 0;
    }
    let is_given = |list: usize| list > 0;
    if is_given(host.blkio_weight_device.iter().flatten().count()) && !support.io_weight {
        warn(
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
        );
        host.blkio_weight_device = None;
    }
    if support.io_throttle {
        return;
    }
    let limits = [
        (&mut host.blkio_device_read_bps, "BPS Block I/O read limit", "Block I/O BPS read limit"),
        (&mut host.blkio_device_write_bps, "BPS Block I/O write limit", "Block I/O BPS write limit"),
        (&mut host.blkio_device_read_iops, "IOPS Block read limit", "Block I/O IOPS read limit"),
        (&mut host.blkio_device_write_iops, "IOPS Block write limit", "Block I/O IOPS write limit"),
    ];
    for (list, what, discarded) in limits {
        if is_given(list.iter().flatten().count()) {
            warn(&format!(
                "Your kernel does not support {what} or the cgroup is not mounted. {discarded} discarded."
            ));
            *list = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use ponton_api::container::{ThrottleDevice, WeightDevice};

    use super::*;

    const NONE: Support = Support {
        memory: false,
        swap: false,
        reservation: false,
        swappiness: false,
        kernel_memory: false,
        oom_kill_disable: false,
        pids: false,
        cpu_shares: false,
        cpu_cfs: false,
        cpu_realtime: false,
        cpuset: false,
        io_weight: false,
        io_throttle: false,
    };

    #[test]
    fn what_the_kernel_cannot_limit_is_warned_of() {
        type Change = fn(&mut HostConfig);
        let throttle = || Some(vec![ThrottleDevice { path: "/dev/sda".into(), rate: 1 }]);
        let table: &[(&str, Change, &str)] = &[
            ("HostConfig.Memory", |h| h.memory = 8 << 20, "memory limit"),
            ("HostConfig.MemoryReservation", |h| h.memory_reservation = 8 << 20, "memory soft limit"),
            ("HostConfig.MemorySwappiness", |h| h.memory_swappiness = Some(60), "memory swappiness"),
            ("HostConfig.KernelMemory", |h| h.kernel_memory = 8 << 20, "kernel memory limit"),
            ("HostConfig.KernelMemoryTCP", |h| h.kernel_memory_tcp = 8 << 20, "kernel memory TCP limit"),
            ("HostConfig.OomKillDisable", |h| h.oom_kill_disable = Some(true), "OomKillDisable"),
            ("HostConfig.PidsLimit", |h| h.pids_limit = Some(4), "PIDs limit"),
            ("HostConfig.CpuShares", |h| h.cpu_shares = 4, "CPU shares"),
            ("HostConfig.CpuPeriod", |h| h.cpu_period = 4000, "CPU CFS"),
            ("HostConfig.CpuQuota", |h| h.cpu_quota = 4000, "CPU CFS"),
            ("HostConfig.CpuRealtimePeriod", |h| h.cpu_realtime_period = 4000, "real-time"),
            ("HostConfig.CpuRealtimeRuntime", |h| h.cpu_realtime_runtime = 4000, "real-time"),
            ("HostConfig.CpuPercent", |h| h.cpu_percent = 4, "CPU percent"),
            ("HostConfig.CpuCount", |h| h.cpu_count = 4, "CPU count"),
            ("HostConfig.CpusetCpus", |h| h.cpuset_cpus = "0".into(), "cpuset"),
            ("HostConfig.CpusetMems", |h| h.cpuset_mems = "0".into(), "cpuset"),
            ("HostConfig.BlkioWeight", |h| h.blkio_weight = 10, "I/O weight"),
            (
                "HostConfig.BlkioWeightDevice",
                |h| h.blkio_weight_device = Some(vec![WeightDevice::default()]),
                "weight_device",
            ),
        ];
        for (field, change, named) in table {
            let mut host = HostConfig::default();
            change(&mut host);
            let warnings = discard(&mut host, &NONE);
            assert!(warnings.len() == 1 && warnings[0].contains(named), "{field}: {warnings:?}");
            assert_eq!(discard(&mut host, &NONE), Vec::<String>::new(), "{field} is gone");
        }
        let mut host = HostConfig {
            blkio_device_read_bps: throttle(),
            blkio_device_write_bps: throttle(),
            blkio_device_read_iops: throttle(),
            blkio_device_write_iops: throttle(),
            ..HostConfig::default()
        };
        assert_eq!(discard(&mut host, &NONE).len(), 4);
        assert_eq!(host, HostConfig::default());
    }

    #[test]
    fn swap_that_is_not_accounted_is_not_limited() {
        let limits = |memory, memory_swap| HostConfig { memory, memory_swap, ..HostConfig::default() };
        let without_swap = Support { swap: false, ..Support::FULL };
        let mut host = limits(64 << 20, 128 << 20);
        assert_eq!(discard(&mut host, &Support::FULL), Vec::<String>::new());
        assert_eq!(host.memory_swap, 128 << 20);
        assert!(discard(&mut host, &without_swap)[0].contains("swap limit"));
        assert_eq!(host.memory_swap, -1);
        assert_eq!(discard(&mut host, &without_swap), Vec::<String>::new());
        assert_eq!(discard(&mut limits(0, 0), &without_swap), Vec::<String>::new());
    }
}
