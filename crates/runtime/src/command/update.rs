//! `ponton-runtime update`

use std::io::Read;
use std::process::ExitCode;

use ponton_cgroup::Cgroup;
use ponton_oci::runtime::{BlockIo, Cpu, Memory, Pids, Resources, Status};
use ponton_runtime::rdt::Resctrl;
use ponton_runtime::state;

use super::{Context, Failure};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Take all limits from this file, or from the standard input where it is `-`: `resources` as in
    /// config.json. Other options don't count then.
    #[arg(short, long, value_name = "FILE")]
    resources: Option<String>,
    /// Weight of block IO, 10 to 1000.
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Period of the CPU quota, in microseconds.
    #[arg(long, value_name = "US")]
    cpu_period: Option<u64>,
    /// CPU time in each period, in microseconds; -1 for no limit.
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// How much of a quota that was not used may be used later, in microseconds.
    #[arg(long, value_name = "US")]
    cpu_burst: Option<u64>,
    /// Relative weight of CPU time.
    #[arg(long, value_name = "SHARES", alias = "cpu-shares")]
    cpu_share: Option<u64>,
    /// Period of real-time scheduling, in microseconds.
    #[arg(long, value_name = "US")]
    cpu_rt_period: Option<u64>,
    /// Real-time scheduling in each period, in microseconds.
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    cpu_rt_runtime: Option<i64>,
    /// Schedule it only where the CPU is idle: 1, or 0 for not.
    #[arg(long, value_name = "IDLE", allow_negative_numbers = true)]
    cpu_idle: Option<i64>,
    /// CPUs to use, `0-3,7`.
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use, `0,1`.
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Memory limit; -1 for none.
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    memory: Option<i64>,
    /// Memory that it is pushed back to when memory is short.
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    memory_reservation: Option<i64>,
    /// Limit of memory and swap together; -1 for none.
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    memory_swap: Option<i64>,
    /// The most tasks; -1 for no limit.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Schema of the L3 cache (Intel RDT).
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Schema of the memory bandwidth (Intel RDT).
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    /// The container's id.
    id: String,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    let alive = [Status::Creating, Status::Created, Status::Running, Status::Paused];
    let held = context.hold(&args.id, "update", &alive)?;
    let schemata: Vec<&str> =
        [&args.l3_cache_schema, &args.mem_bw_schema].into_iter().flatten().map(String::as_str).collect();
    if !schemata.is_empty() {
        let class = held.directory.read_later()?.rdt;
        let class = class.ok_or("--l3-cache-schema, --mem-bw-schema: the container has no linux.intelRdt")?;
        Resctrl::mounted()?.update(&class, &schemata)?;
    }
    let resources = match args.resources.as_deref() {
        Some(file) => read_resources(file)?,
        None => resources_of(args),
    };
    let path = held.record.cgroup.as_ref().ok_or("the container has no control group")?;
    let layout = &held.host.cgroup;
    Cgroup::new(layout, path).update(layout, &resources)?;
    Ok(ExitCode::SUCCESS)
}

fn read_resources(file: &str) -> Result<Resources, Failure> {
    let json = match file {
        "-" => {
            let mut json = Vec::new();
            std::io::stdin().read_to_end(&mut json).map_err(|error| format!("standard input: {error}"))?;
            json
        }
        path => state::read_file(path.as_ref())?,
    };
    let mut deserializer = serde_json::Deserializer::from_slice(&json);
    let mut resources: Resources = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| format!("resources of {file}: {error}"))?;
    // Engines send the whole of their limits, and 0 for what they do not limit.
    forget_zeros(&mut resources);
    // Devices are not among what is changed: a new list would first take all away.
    resources.devices.clear();
    Ok(resources)
}

fn forget_zeros(resources: &mut Resources) {
    let zero = |value: &mut Option<i64>| *value = value.filter(|value| *value != 0);
    let none = |value: &mut Option<u64>| *value = value.filter(|value| *value != 0);
    if let Some(memory) = &mut resources.memory {
        [&mut memory.limit, &mut memory.reservation, &mut memory.swap, &mut memory.kernel]
            .into_iter()
            .for_each(zero);
    }
    if let Some(cpu) = &mut resources.cpu {
        [&mut cpu.quota, &mut cpu.realtime_runtime].into_iter().for_each(zero);
        [&mut cpu.shares, &mut cpu.period, &mut cpu.realtime_period].into_iter().for_each(none);
    }
    if let Some(pids) = &mut resources.pids {
        zero(&mut pids.limit);
    }
    if let Some(block_io) = &mut resources.block_io {
        block_io.weight = block_io.weight.filter(|weight| *weight != 0);
    }
}

fn resources_of(args: &Args) -> Resources {
    let mut resources = Resources {
        memory: Some(Memory {
            limit: args.memory,
            reservation: args.memory_reservation,
            swap: args.memory_swap,
            ..Memory::default()
        }),
        cpu: Some(Cpu {
            shares: args.cpu_share,
            quota: args.cpu_quota,
            burst: args.cpu_burst,
            period: args.cpu_period,
            realtime_runtime: args.cpu_rt_runtime,
            realtime_period: args.cpu_rt_period,
            cpus: args.cpuset_cpus.clone().unwrap_or_default(),
            mems: args.cpuset_mems.clone().unwrap_or_default(),
            idle: args.cpu_idle,
        }),
        pids: args.pids_limit.map(|limit| Pids { limit: Some(limit) }),
        block_io: args.blkio_weight.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
        ..Resources::default()
    };
    forget_zeros(&mut resources);
    resources
}

/// A number of bytes, `64m`; -1 is no limit.
fn bytes(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_lowercase();
    let unit = lower.trim_end_matches("ib").trim_end_matches('b');
    let (digits, shift) = match unit.as_bytes().last() {
        Some(b'k') => (&unit[..unit.len() - 1], 10),
        Some(b'm') => (&unit[..unit.len() - 1], 20),
        Some(b'g') => (&unit[..unit.len() - 1], 30),
        Some(b't') => (&unit[..unit.len() - 1], 40),
        Some(b'p') => (&unit[..unit.len() - 1], 50),
        _ => (unit, 0),
    };
    let number: i64 = digits.trim().parse().map_err(|_| format!("{text:?} is no number of bytes"))?;
    if number < 0 {
        return Err(format!("{text:?} is no number of bytes"));
    }
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too much"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        assert_eq!(["1024", "1k", "1KB", "1KiB", "1024b"].map(bytes), [1024; 5].map(Ok));
        assert_eq!((bytes("64m"), bytes("-1"), bytes("0")), (Ok(64 << 20), Ok(-1), Ok(0)));
        for bad in ["", "x", "-2", "1x", "99999999999p"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zeros_of_engines_change_nothing() {
        let json = br#"{"memory":{"limit":0,"swap":5},"cpu":{"shares":0,"quota":-1},"blockIO":{"weight":0}}"#;
        let mut resources: Resources = serde_json::from_slice(json).unwrap();
        forget_zeros(&mut resources);
        let memory = resources.memory.unwrap();
        assert_eq!((memory.limit, memory.swap), (None, Some(5)));
        let cpu = resources.cpu.unwrap();
        assert_eq!((cpu.shares, cpu.quota), (None, Some(-1)));
        assert_eq!(resources.block_io.unwrap().weight, None);
    }
}
