//! Limits and devices.

use std::fs;

use serde_json::json;

use super::Expected::{Ours, Same};
use super::Look::{Inside, Inspect, Refused};
use super::{Row, host, row};

pub(super) fn limit_rows() -> Vec<Row> {
    let group =
        |file: &str| -> &'static str { Box::leak(format!("cat /sys/fs/cgroup/{file}").into_boxed_str()) };
    vec![
        host("HostConfig.Memory", json!(64 << 20), Inside(group("memory/memory.limit_in_bytes")), Same),
        row(
            "HostConfig.MemorySwap",
            json!({"HostConfig": {"Memory": 64 << 20, "MemorySwap": 80 << 20}}),
            Inside(group("memory/memory.memsw.limit_in_bytes")),
            Same,
        ),
        host(
            "HostConfig.MemoryReservation",
            json!(32 << 20),
            Inside(group("memory/memory.soft_limit_in_bytes")),
            Same,
        ),
        host("HostConfig.MemorySwappiness", json!(7), Inside(group("memory/memory.swappiness")), Same),
        row(
            "HostConfig.OomKillDisable",
            json!({"HostConfig": {"Memory": 64 << 20, "OomKillDisable": true}}),
            Inside(group("memory/memory.oom_control | head -1")),
            Same,
        ),
        host("HostConfig.OomScoreAdj", json!(77), Inside("cat /proc/self/oom_score_adj"), Same),
        host("HostConfig.PidsLimit", json!(33), Inside(group("pids/pids.max")), Same),
        host("HostConfig.CpuShares", json!(123), Inside(group("cpu/cpu.shares")), Same),
        row(
            "HostConfig.CpuPeriod",
            json!({"HostConfig": {"CpuPeriod": 50_000, "CpuQuota": 20_000}}),
            Inside(group("cpu/cpu.cfs_period_us")),
            Same,
        ),
        host("HostConfig.CpuQuota", json!(20_000), Inside(group("cpu/cpu.cfs_quota_us")), Same),
        host("HostConfig.NanoCpus", json!(250_000_000), Inside(group("cpu/cpu.cfs_quota_us")), Same),
        host("HostConfig.CpusetCpus", json!("0"), Inside(group("cpuset/cpuset.cpus")), Same),
        host("HostConfig.CpusetMems", json!("0"), Inside(group("cpuset/cpuset.mems")), Same),
        // 20.10 looks for CFQ's file alone.
        host(
            "HostConfig.BlkioWeight",
            json!(300),
            Inside("cat /sys/fs/cgroup/blkio/blkio.weight /sys/fs/cgroup/blkio/blkio.bfq.weight 2>/dev/null"),
            Ours("300\n"),
        ),
        host(
            "HostConfig.Ulimits",
            json!([{"Name": "nofile", "Soft": 100, "Hard": 200}]),
            Inside("ulimit -Sn; ulimit -Hn"),
            Same,
        ),
        host("HostConfig.ShmSize", json!(8 << 20), Inside("df -k /dev/shm | tail -1"), Same),
        host("HostConfig.CpuPercent", json!(5), Inspect("/HostConfig/CpuPercent"), Same),
        host("HostConfig.CpuCount", json!(5), Inspect("/HostConfig/CpuCount"), Ours("0")), // 20.10 passes over it
        host("HostConfig.IOMaximumIOps", json!(5), Refused, Same),
        host("HostConfig.IOMaximumBandwidth", json!(5), Refused, Same),
    ]
}

/// Limits of a block device of this machine, if it has one.
pub(super) fn device_limit_rows() -> Vec<Row> {
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let disks = disks.map(|entry| format!("/dev/{}", entry.file_name().to_string_lossy()));
    let Some(disk) = disks.filter(|disk| fs::metadata(disk).is_ok()).min() else { return Vec::new() };
    let limit = json!([{"Path": disk, "Rate": 1_048_576}]);
    let throttle = |file: &str| -> &'static str {
        Box::leak(format!("cat /sys/fs/cgroup/blkio/{file}").into_boxed_str())
    };
    let mut rows = vec![
        host(
            "HostConfig.BlkioDeviceReadBps",
            limit.clone(),
            Inside(throttle("blkio.throttle.read_bps_device")),
            Same,
        ),
        host(
            "HostConfig.BlkioDeviceWriteBps",
            limit.clone(),
            Inside(throttle("blkio.throttle.write_bps_device")),
            Same,
        ),
        host(
            "HostConfig.BlkioDeviceReadIOps",
            limit.clone(),
            Inside(throttle("blkio.throttle.read_iops_device")),
            Same,
        ),
        host(
            "HostConfig.BlkioDeviceWriteIOps",
            limit.clone(),
            Inside(throttle("blkio.throttle.write_iops_device")),
            Same,
        ),
    ];
    let missing = json!([{"Path": "/dev/nosuch", "Weight": 100}]);
    let look = Inspect("/HostConfig/BlkioWeightDevice/0/Weight");
    rows.push(host("HostConfig.BlkioWeightDevice", missing, look, Ours("100"))); // 20.10 discards it
    rows
}

pub(super) fn device_rows() -> Vec<Row> {
    let mapping = |host: &str, inside: &str, access: &str| json!([{"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": access}]);
    vec![
        host(
            "HostConfig.Devices",
            mapping("/dev/null", "/dev/own", "rw"),
            Inside("stat -c '%F %t %T' /dev/own; echo x > /dev/own && echo written"),
            Same,
        ),
        host(
            "HostConfig.Devices",
            mapping("/dev/kmsg", "/dev/own", "r"),
            Inside("(echo x > /dev/own) 2>&1; cat /sys/fs/cgroup/devices/devices.list | grep '1:11'"),
            Same,
        ),
        host(
            "HostConfig.Devices",
            mapping("/dev/nosuch", "/dev/own", "rwm"),
            Refused,
            Ours(
                "400 error gathering device information while adding custom device \"/dev/nosuch\": No such file or directory (os error 2)",
            ),
        ),
        host(
            "HostConfig.DeviceCgroupRules",
            json!(["c 10:* rw"]),
            Inside("grep -c 'c 10:\\* rw' /sys/fs/cgroup/devices/devices.list"),
            Same,
        ),
        host("HostConfig.DeviceCgroupRules", json!(["x"]), Refused, Same),
        host(
            "HostConfig.DeviceRequests",
            json!([{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]),
            Refused,
            Same,
        ),
    ]
}
