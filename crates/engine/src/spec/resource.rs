//! Limits: `--memory`, `--cpus` and the like to the cgroup's resources.

use ponton_api::container::{HostConfig, ThrottleDevice};
use ponton_oci::runtime::{
    BlockIo, Cpu, Memory, Pids, Resources, ThrottleDevice as OciThrottle, WeightDevice,
};

use super::device::{self, HostDevices};
use crate::error::Result;

/// Microseconds that a share of CPUs given by `--cpus` is measured over.
const CPU_PERIOD_US: u64 = 100_000;
const NANO: i64 = 1_000_000_000;

/// The cgroup's resources for these settings.
pub fn resources(host: &HostConfig, devices: &HostDevices) -> Result<Resources> {
    Ok(Resources { devices: device::rules(host, devices)?, ..limits(host, devices) })
}

/// The limits alone, without rules for devices: what `update` changes.
pub fn limits(host: &HostConfig, devices: &HostDevices) -> Resources {
    Resources {
        memory: Some(memory(host)).filter(|memory| *memory != Memory::default()),
        cpu: Some(cpu(host)).filter(|cpu| *cpu != Cpu::default()),
        pids: pids(host),
        block_io: Some(block_io(host, devices)).filter(|io| *io != BlockIo::default()),
        ..Resources::default()
    }
}

fn memory(host: &HostConfig) -> Memory {
    let set = |value: i64| (value != 0).then_some(value);
    // Memory alone may be swapped out once more; -1 is any amount.
    let swap = match (host.memory, host.memory_swap) {
        (1.., 0) => host.memory.checked_mul(2),
        (_, swap) => set(swap),
    };
    Memory {
        limit: set(host.memory),
        reservation: set(host.memory_reservation),
        swap,
        swappiness: host.memory_swappiness.and_then(|value| u64::try_from(value).ok()),
        disable_oom_killer: host.oom_kill_disable.filter(|disable| *disable),
        ..Memory::default()
    }
}

fn cpu(host: &HostConfig) -> Cpu {
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    let (period, quota) = if host.nano_cpus > 0 {
        let quota = i128::from(host.nano_cpus) * i128::from(CPU_PERIOD_US) / i128::from(NANO);
        (Some(CPU_PERIOD_US), i64::try_from(quota).ok())
    } else {
        (positive(host.cpu_period), Some(host.cpu_quota).filter(|quota| *quota != 0))
    };
    Cpu {
        shares: positive(host.cpu_shares),
        quota,
        period,
        realtime_period: positive(host.cpu_realtime_period),
        realtime_runtime: Some(host.cpu_realtime_runtime).filter(|runtime| *runtime != 0),
        cpus: host.cpuset_cpus.clone(),
        mems: host.cpuset_mems.clone(),
        ..Cpu::default()
    }
}

fn pids(host: &HostConfig) -> Option<Pids> {
    match host.pids_limit {
        None | Some(0) => None,
        Some(limit) => Some(Pids { limit: Some(limit.max(-1)) }),
    }
}

fn block_io(host: &HostConfig, devices: &HostDevices) -> BlockIo {
    let number = |path: &str| devices.numbers.get(path).copied();
    let throttle = |list: &Option<Vec<ThrottleDevice>>| -> Vec<OciThrottle> {
        list.iter()
            .flatten()
            .filter_map(|device| {
                let (major, minor) = number(&device.path)?;
                Some(OciThrottle { major, minor, rate: device.rate })
            })
            .collect()
    };
    let weights = host.blkio_weight_device.iter().flatten().filter_map(|device| {
        let (major, minor) = number(&device.path)?;
        Some(WeightDevice { major, minor, weight: Some(device.weight), leaf_weight: None })
    });
    BlockIo {
        weight: Some(host.blkio_weight).filter(|weight| *weight > 0),
        weight_device: weights.collect(),
        throttle_read_bps_device: throttle(&host.blkio_device_read_bps),
        throttle_write_bps_device: throttle(&host.blkio_device_write_bps),
        throttle_read_iops_device: throttle(&host.blkio_device_read_iops),
        throttle_write_iops_device: throttle(&host.blkio_device_write_iops),
        ..BlockIo::default()
    }
}
