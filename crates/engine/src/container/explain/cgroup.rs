//! The limits that the kernel has for a control group, beside those that were asked for.

use std::fs;

use ponton_api::container::HostConfig;
use ponton_api::explain::Limit;
use ponton_cgroup::{Layout, Version};

/// A limit: docker's name, the controller, the files of v1 and v2 (empty: has none), what was asked for in terms of v1
/// and of v2 (empty: nothing), and the files that count its use.
struct Row {
    name: &'static str,
    controller: &'static str,
    files: [&'static str; 2],
    asked: [fn(&HostConfig) -> String; 2],
    used: [&'static str; 2],
}

/// A number that says nothing when it is zero.
fn number(value: i64) -> String {
    if value == 0 { String::new() } else { value.to_string() }
}

fn nothing(_: &HostConfig) -> String {
    String::new()
}

/// Memory and swap together, as v1 has it: twice the memory where only that was given.
fn swap(host: &HostConfig) -> Option<i64> {
    match (host.memory, host.memory_swap) {
        (_, -1) => Some(-1),
        (1.., 0) => host.memory.checked_mul(2),
        (_, 0) => None,
        (_, swap) => Some(swap),
    }
}

/// Quota and period in microseconds.
fn quota(host: &HostConfig) -> Option<(i64, i64)> {
    const PERIOD: i64 = 100_000;
    if host.nano_cpus > 0 {
        let quota = i128::from(host.nano_cpus) * i128::from(PERIOD) / 1_000_000_000;
        return Some((i64::try_from(quota).ok()?, PERIOD));
    }
    let period = if host.cpu_period > 0 { host.cpu_period } else { PERIOD };
    (host.cpu_quota != 0).then_some((host.cpu_quota, period))
}

const ROWS: &[Row] = &[
    Row {
        name: "memory",
        controller: "memory",
        files: ["memory.limit_in_bytes", "memory.max"],
        asked: [|host| number(host.memory), |host| number(host.memory)],
        used: ["memory.usage_in_bytes", "memory.current"],
    },
    Row {
        name: "memory-swap",
        controller: "memory",
        files: ["memory.memsw.limit_in_bytes", "memory.swap.max"],
        asked: [
            |host| swap(host).map(|bytes| bytes.to_string()).unwrap_or_default(),
            |host| match swap(host) {
                Some(-1) => "max".to_owned(),
                Some(bytes) => (bytes - host.memory).to_string(),
                None => String::new(),
            },
        ],
        used: ["memory.memsw.usage_in_bytes", "memory.swap.current"],
    },
    Row {
        name: "memory-reservation",
        controller: "memory",
        files: ["memory.soft_limit_in_bytes", "memory.low"],
        asked: [|host| number(host.memory_reservation), |host| number(host.memory_reservation)],
        used: ["", ""],
    },
    Row {
        name: "memory-swappiness",
        controller: "memory",
        files: ["memory.swappiness", ""],
        asked: [
            |host| {
                host.memory_swappiness.filter(|value| *value >= 0).map_or_else(String::new, |v| v.to_string())
            },
            nothing,
        ],
        used: ["", ""],
    },
    Row {
        name: "cpus",
        controller: "cpu",
        files: ["cpu.cfs_quota_us", "cpu.max"],
        asked: [
            |host| quota(host).map(|(quota, _)| quota.to_string()).unwrap_or_default(),
            |host| match quota(host) {
                Some((..0, period)) => format!("max {period}"),
                Some((quota, period)) => format!("{quota} {period}"),
                None => String::new(),
            },
        ],
        used: ["", ""],
    },
    Row {
        name: "cpu-period",
        controller: "cpu",
        files: ["cpu.cfs_period_us", ""],
        asked: [|host| quota(host).map(|(_, period)| period.to_string()).unwrap_or_default(), nothing],
        used: ["", ""],
    },
    Row {
        name: "cpu-shares",
        controller: "cpu",
        files: ["cpu.shares", "cpu.weight"],
        // The weight of v2 has another scale: it is shown, and not compared.
        asked: [|host| number(host.cpu_shares), nothing],
        used: ["", ""],
    },
    Row {
        name: "cpuset-cpus",
        controller: "cpuset",
        files: ["cpuset.cpus", "cpuset.cpus"],
        asked: [|host| host.cpuset_cpus.clone(), |host| host.cpuset_cpus.clone()],
        used: ["", ""],
    },
    Row {
        name: "cpuset-mems",
        controller: "cpuset",
        files: ["cpuset.mems", "cpuset.mems"],
        asked: [|host| host.cpuset_mems.clone(), |host| host.cpuset_mems.clone()],
        used: ["", ""],
    },
    Row {
        name: "pids-limit",
        controller: "pids",
        files: ["pids.max", "pids.max"],
        asked: [pids, pids],
        used: ["pids.current", "pids.current"],
    },
    Row {
        name: "blkio-weight",
        controller: "blkio",
        files: ["blkio.weight", ""],
        asked: [|host| number(i64::from(host.blkio_weight)), nothing],
        used: ["", ""],
    },
    Row {
        name: "blkio-weight",
        controller: "io",
        files: ["", "io.weight"],
        asked: [nothing, nothing],
        used: ["", ""],
    },
    Row {
        name: "device-read-bps",
        controller: "blkio",
        files: ["blkio.throttle.read_bps_device", ""],
        asked: [nothing, nothing],
        used: ["", ""],
    },
    Row {
        name: "device-write-bps",
        controller: "blkio",
        files: ["blkio.throttle.write_bps_device", ""],
        asked: [nothing, nothing],
        used: ["", ""],
    },
    Row {
        name: "device limits",
        controller: "io",
        files: ["", "io.max"],
        asked: [nothing, nothing],
        used: ["", ""],
    },
];

fn pids(host: &HostConfig) -> String {
    match host.pids_limit {
        None | Some(0) => String::new(),
        Some(..0) => "max".to_owned(),
        Some(limit) => limit.to_string(),
    }
}

/// The limits of a group. One whose file is not there, or says nothing, is left out.
pub(super) fn limits(layout: &Layout, path: &str, host: &HostConfig) -> Vec<Limit> {
    let mut limits = Vec::new();
    for row in ROWS {
        let Some(hierarchy) = layout.with(row.controller) else { continue };
        let version = usize::from(hierarchy.version == Version::V2);
        let directory = hierarchy.mount.join(path);
        let read = |file: &str| {
            if file.is_empty() { None } else { fs::read_to_string(directory.join(file)).ok() }
        };
        let Some(value) = read(row.files[version]) else { continue };
        let value = value.trim().to_owned();
        let asked = row.asked[version](host);
        if value.is_empty() && asked.is_empty() {
            continue;
        }
        limits.push(Limit {
            name: row.name.to_owned(),
            file: row.files[version].to_owned(),
            used: read(row.used[version]).map(|text| text.trim().to_owned()).unwrap_or_default(),
            agrees: asked.is_empty() || same(&value, &asked),
            value,
            asked,
        });
    }
    limits
}

/// Whether the kernel has what was asked for. It rounds sizes down to pages, and has a number for "no limit".
fn same(value: &str, asked: &str) -> bool {
    const PAGE: i64 = 4096;
    if value == asked {
        return true;
    }
    match (value.parse::<i64>(), asked.parse::<i64>()) {
        (Ok(value), Ok(-1)) => value == -1 || value >= i64::MAX - PAGE,
        (Ok(value), Ok(asked)) => asked > value && asked - value < PAGE && value % PAGE == 0,
        _ => cpus(value).is_some() && cpus(value) == cpus(asked),
    }
}

/// A list of numbers: `0-2,4`.
fn cpus(text: &str) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last < first || last > 10_000 {
            return None;
        }
        all.extend(first..=last);
    }
    all.sort_unstable();
    all.dedup();
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_compared_with_what_was_asked() {
        for (value, asked) in [
            ("67108864", "67108864"),
            ("67108864", "67108865"),
            ("9223372036854771712", "-1"),
            ("-1", "-1"),
            ("0-1", "0,1"),
            ("max 100000", "max 100000"),
        ] {
            assert!(same(value, asked), "{value} {asked}");
        }
        for (value, asked) in [("67108864", "134217728"), ("0", "0-1"), ("max", "5"), ("100", "101")] {
            assert!(!same(value, asked), "{value} {asked}");
        }
    }

    #[test]
    fn what_is_asked_is_in_the_kernels_terms() {
        let host = HostConfig {
            memory: 64 << 20,
            nano_cpus: 1_500_000_000,
            pids_limit: Some(-1),
            ..HostConfig::default()
        };
        let asked = |name: &str, version: usize| {
            let row = ROWS.iter().find(|row| row.name == name && !row.files[version].is_empty()).unwrap();
            row.asked[version](&host)
        };
        assert_eq!((asked("memory", 0), asked("memory-swap", 0)), ("67108864".into(), "134217728".into()));
        assert_eq!(asked("memory-swap", 1), "67108864");
        assert_eq!((asked("cpus", 0), asked("cpu-period", 0)), ("150000".into(), "100000".into()));
        assert_eq!((asked("cpus", 1), asked("pids-limit", 1)), ("150000 100000".into(), "max".into()));
        assert_eq!(asked("cpuset-cpus", 0), "");
    }
}
