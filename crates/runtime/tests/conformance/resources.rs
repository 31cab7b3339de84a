//! config-linux.md, "Control groups", seen from the host.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::fixture::{Bundle, stderr};
use crate::{Statement, inside, refused, running, skip};

const CGROUPS: &str = "config-linux.md Control groups";
const DEVICES: &str = "config-linux.md Allowed Device list";
const MEMORY: &str = "config-linux.md Memory";
const CPU: &str = "config-linux.md CPU";
const BLOCK: &str = "config-linux.md Block IO";
const PIDS: &str = "config-linux.md PIDs";
const NETWORK: &str = "config-linux.md Network";

/// Where a hierarchy with this controller is mounted, and whether it is one of v1.
fn hierarchy(controller: &str) -> (PathBuf, bool) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in table.lines() {
        let (left, right) = line.split_once(" - ").unwrap();
        let mount = PathBuf::from(left.split(' ').nth(4).unwrap());
        let mut right = right.split(' ');
        match right.next().unwrap() {
            "cgroup" if right.nth(1).unwrap().split(',').any(|name| name == controller) => {
                return (mount, true);
            }
            "cgroup2" => {
                let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap();
                if controllers.split_whitespace().any(|name| name == controller) {
                    return (mount, false);
                }
            }
            _ => {}
        }
    }
    skip(format!("this host has no controller {controller}"))
}

/// A file of the group of a running container that asks for `resources`.
fn written(controller: &str, v1: &str, v2: &str, resources: Value) -> String {
    let (mount, is_v1) = hierarchy(controller);
    let name = if is_v1 { v1 } else { v2 };
    if name.is_empty() {
        skip(format!("this version of cgroups has nothing for it (controller {controller})"));
    }
    // A group of v2 has the files of those controllers that are on in the one above.
    let above = mount.join("ponton");
    let on = fs::read_to_string(above.join("cgroup.controllers")).unwrap_or_default();
    let has_files = if is_v1 { above.exists() } else { on.split_whitespace().any(|name| name == controller) };
    if has_files && !above.join(name).exists() {
        skip(format!("this kernel has no {name}"));
    }
    let bundle = running(|spec| {
        for (key, value) in resources.as_object().unwrap() {
            spec["linux"]["resources"][key] = value.clone();
        }
    });
    let file = mount.join("ponton").join(&bundle.id).join(name);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).trim().to_owned()
}

fn opens(device: &str, rules: Value) -> bool {
    let bundle = Bundle::new(|spec| {
        // What is opened is a node that the container has anyway, under another name.
        spec["process"]["args"] = json!(["sh", "-c", format!("exec 3< {device}")]);
        spec["linux"]["devices"] = json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]);
        spec["linux"]["resources"]["devices"] = rules;
        // The kernel's log asks for it.
        for set in ["bounding", "permitted", "effective"] {
            spec["process"]["capabilities"][set] = json!(["CAP_SYSLOG"]);
        }
    });
    bundle.run().status.success()
}

pub(crate) const ALL: &[Statement] = &[
    Statement {
        part: CGROUPS,
        says: "cgroupsPath: an absolute path is below the mount point of each hierarchy",
        check: || {
            let (mount, _) = hierarchy("pids");
            let name = format!("ponton-conformance-{}", std::process::id());
            let bundle = running(|spec| spec["linux"]["cgroupsPath"] = json!(format!("/{name}/deep")));
            let procs = fs::read_to_string(mount.join(&name).join("deep/cgroup.procs")).unwrap();
            assert_eq!(procs.trim(), bundle.state()["pid"].to_string());
            assert!(bundle.command(&["delete", "--force", &bundle.id]).status.success());
            assert!(!mount.join(&name).join("deep").exists());
            for directory in fs::read_dir("/sys/fs/cgroup").unwrap() {
                let _ = fs::remove_dir(directory.unwrap().path().join(&name));
            }
            let _ = fs::remove_dir(mount.join(&name));
        },
    },
    Statement {
        part: CGROUPS,
        says: "cgroupsPath: the same path is the same group",
        check: || {
            let (mount, _) = hierarchy("pids");
            let path = format!("ponton/same-{}", std::process::id());
            for _ in 0..2 {
                let bundle = running(|spec| spec["linux"]["cgroupsPath"] = json!(path));
                assert!(mount.join(&path).exists());
                assert!(bundle.command(&["delete", "--force", &bundle.id]).status.success());
                assert!(!mount.join(&path).exists());
            }
        },
    },
    Statement {
        part: CGROUPS,
        says: "cgroupsPath: without one the runtime has its own place",
        check: || {
            let (mount, _) = hierarchy("pids");
            let bundle = running(|_| {});
            assert!(mount.join("ponton").join(&bundle.id).exists());
        },
    },
    Statement {
        part: CGROUPS,
        says: "what is not asked for is not changed",
        check: || {
            let (mount, _) = hierarchy("memory");
            let bundle = running(|_| {});
            let file = if mount.join("memory.limit_in_bytes").exists() {
                "memory.limit_in_bytes"
            } else {
                "memory.max"
            };
            let limit = fs::read_to_string(mount.join("ponton").join(&bundle.id).join(file)).unwrap();
            assert!(limit.trim() == "max" || limit.trim().parse::<u64>().unwrap() > 1 << 60, "{limit}");
        },
    },
    Statement {
        part: DEVICES,
        says: "what is denied cannot be opened",
        check: || {
            assert!(!opens("/dev/kmsg", json!([{"allow": false, "access": "rwm"}])));
        },
    },
    Statement {
        part: DEVICES,
        says: "what is allowed can be opened; the last rule counts",
        check: || {
            let allowed = json!([
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"},
            ]);
            assert!(opens("/dev/kmsg", allowed.clone()));
            let mut denied = allowed;
            denied
                .as_array_mut()
                .unwrap()
                .push(json!({"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm"}));
            assert!(!opens("/dev/kmsg", denied));
        },
    },
    Statement {
        part: DEVICES,
        says: "the default devices can be opened whatever is denied",
        check: || {
            let script = "for name in null zero full random urandom; do exec 3< /dev/$name || exit 1; done";
            inside(script, |_| {});
        },
    },
    Statement {
        part: MEMORY,
        says: "limit",
        check: || {
            let bytes = written(
                "memory",
                "memory.limit_in_bytes",
                "memory.max",
                json!({"memory": {"limit": 67_108_864}}),
            );
            assert_eq!(bytes, "67108864");
        },
    },
    Statement {
        part: MEMORY,
        says: "reservation",
        check: || {
            let bytes = written(
                "memory",
                "memory.soft_limit_in_bytes",
                "memory.low",
                json!({"memory": {"reservation": 33_554_432}}),
            );
            assert_eq!(bytes, "33554432");
        },
    },
    Statement {
        part: MEMORY,
        says: "swap: memory and swap together",
        check: || {
            let resources = json!({"memory": {"limit": 67_108_864, "swap": 134_217_728}});
            let bytes = written("memory", "memory.memsw.limit_in_bytes", "memory.swap.max", resources);
            assert!(bytes == "134217728" || bytes == "67108864", "{bytes}");
        },
    },
    Statement {
        part: MEMORY,
        says: "swappiness",
        check: || {
            assert_eq!(
                written("memory", "memory.swappiness", "", json!({"memory": {"swappiness": 13}})),
                "13"
            );
        },
    },
    Statement {
        part: MEMORY,
        says: "swappiness is 0 to 100",
        check: || {
            refused("linux.resources.memory.swappiness", |spec| {
                spec["linux"]["resources"]["memory"] = json!({"swappiness": 101});
            });
        },
    },
    Statement {
        part: MEMORY,
        says: "disableOOMKiller",
        check: || {
            let text = written(
                "memory",
                "memory.oom_control",
                "",
                json!({"memory": {"limit": 67_108_864, "disableOOMKiller": true}}),
            );
            assert!(text.contains("oom_kill_disable 1"), "{text}");
        },
    },
    Statement {
        part: MEMORY,
        says: "a limit is in force",
        check: || {
            let bundle = Bundle::new(|spec| {
                spec["process"]["args"] = json!(["sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1"]);
                spec["linux"]["resources"]["memory"] = json!({"limit": 8 << 20, "swap": 8 << 20});
            });
            assert_eq!(bundle.run().status.code(), Some(137));
        },
    },
    Statement {
        part: CPU,
        says: "shares",
        check: || {
            let text = written("cpu", "cpu.shares", "cpu.weight", json!({"cpu": {"shares": 2048}}));
            // On v2 as runc 1.3.2 and crun 1.23 convert it: 1024 is 100, the kernel's default on both.
            assert!(["2048", "174"].contains(&text.as_str()), "{text}");
        },
    },
    Statement {
        part: CPU,
        says: "quota and period",
        check: || {
            let resources = json!({"cpu": {"quota": 20_000, "period": 50_000}});
            let text = written("cpu", "cpu.cfs_quota_us", "cpu.max", resources.clone());
            assert!(text == "20000" || text == "20000 50000", "{text}");
            let text = written("cpu", "cpu.cfs_period_us", "cpu.max", resources);
            assert!(text == "50000" || text == "20000 50000", "{text}");
        },
    },
    Statement {
        part: CPU,
        says: "burst",
        check: || {
            let resources = json!({"cpu": {"quota": 20_000, "period": 50_000, "burst": 1000}});
            assert_eq!(written("cpu", "cpu.cfs_burst_us", "cpu.max.burst", resources), "1000");
        },
    },
    Statement {
        part: CPU,
        says: "idle",
        check: || {
            assert_eq!(written("cpu", "cpu.idle", "cpu.idle", json!({"cpu": {"idle": 1}})), "1");
        },
    },
    Statement {
        part: CPU,
        says: "cpus and mems",
        check: || {
            assert_eq!(written("cpuset", "cpuset.cpus", "cpuset.cpus", json!({"cpu": {"cpus": "0"}})), "0");
            assert_eq!(
                written("cpuset", "cpuset.mems", "cpuset.mems", json!({"cpu": {"cpus": "0", "mems": "0"}})),
                "0"
            );
            assert_eq!(
                inside("grep Cpus_allowed_list /proc/self/status | cut -f2", |spec| {
                    spec["linux"]["resources"]["cpu"] = json!({"cpus": "0"});
                }),
                "0"
            );
        },
    },
    Statement {
        part: CPU,
        says: "a value that the kernel refuses is an error",
        check: || {
            refused("cpu", |spec| spec["linux"]["resources"]["cpu"] = json!({"cpus": "4096"}));
            refused("cpu", |spec| spec["linux"]["resources"]["cpu"] = json!({"quota": 1, "period": 50_000}));
        },
    },
    Statement {
        part: PIDS,
        says: "limit",
        check: || {
            assert_eq!(written("pids", "pids.max", "pids.max", json!({"pids": {"limit": 77}})), "77");
        },
    },
    Statement {
        part: PIDS,
        says: "limit is in force",
        check: || {
            let bundle = Bundle::new(|spec| {
                spec["process"]["args"] = json!(["sh", "-c", "true; (true) & (true) & (true) & wait"]);
                spec["linux"]["resources"]["pids"] = json!({"limit": 1});
            });
            let output = bundle.run();
            assert!(stderr(&output).contains("fork"), "{output:?}");
        },
    },
    Statement {
        part: PIDS,
        says: "0 or less is no limit",
        check: || {
            assert_eq!(written("pids", "pids.max", "pids.max", json!({"pids": {"limit": -1}})), "max");
        },
    },
    Statement {
        part: BLOCK,
        says: "weight",
        check: || {
            let (mount, is_v1) =
                hierarchy(if Path::new("/sys/fs/cgroup/blkio").exists() { "blkio" } else { "io" });
            let file = if is_v1 { "blkio.bfq.weight" } else { "io.bfq.weight" };
            if !mount.join(file).exists()
                && !mount.join("blkio.weight").exists()
                && !mount.join("io.weight").exists()
            {
                skip("this kernel has no weights of block devices");
            }
            inside("true", |spec| spec["linux"]["resources"]["blockIO"] = json!({"weight": 500}));
        },
    },
    Statement {
        part: BLOCK,
        says: "throttleReadBpsDevice and its kin",
        check: || {
            let Some((major, minor)) = block_device() else { skip("this host has no block device") };
            let throttle = |field: &str| {
                let mut resources = json!({"blockIO": {}});
                resources["blockIO"][field] = json!([{"major": major, "minor": minor, "rate": 1_048_576}]);
                resources
            };
            let fields = [
                ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps=1048576"),
                ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps=1048576"),
                ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops=1048576"),
                ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops=1048576"),
            ];
            let controller = if Path::new("/sys/fs/cgroup/blkio").exists() { "blkio" } else { "io" };
            for (field, v1, v2) in fields {
                let text = written(controller, v1, "io.max", throttle(field));
                assert!(text == format!("{major}:{minor} 1048576") || text.contains(v2), "{field}: {text}");
            }
        },
    },
    Statement {
        part: "config-linux.md Huge page limits",
        says: "limit of a page size",
        check: || {
            let text = written(
                "hugetlb",
                "hugetlb.2MB.limit_in_bytes",
                "hugetlb.2MB.max",
                json!({
                    "hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}],
                }),
            );
            assert_eq!(text, "4194304");
        },
    },
    Statement {
        part: NETWORK,
        says: "classID",
        check: || {
            assert_eq!(
                written("net_cls", "net_cls.classid", "", json!({"network": {"classID": 1_048_577}})),
                "1048577"
            );
        },
    },
    Statement {
        part: NETWORK,
        says: "priorities",
        check: || {
            let resources = json!({"network": {"priorities": [{"name": "lo", "priority": 5}]}});
            let text = written("net_prio", "net_prio.ifpriomap", "", resources);
            assert!(text.lines().any(|line| line == "lo 5"), "{text}");
        },
    },
    Statement {
        part: "config-linux.md RDMA",
        says: "limits of a device",
        check: || {
            let (_, _) = hierarchy("rdma");
            if fs::read_dir("/sys/class/infiniband").map_or(0, Iterator::count) == 0 {
                skip("this host has no RDMA device");
            }
        },
    },
    Statement {
        part: "config-linux.md Unified",
        says: "files of cgroup v2 are written as they are",
        check: || {
            let (mount, is_v1) = hierarchy("memory");
            if is_v1 {
                refused("linux.resources.unified", |spec| {
                    spec["linux"]["resources"]["unified"] = json!({"memory.high": "67108864"});
                });
                return;
            }
            let bundle =
                running(|spec| spec["linux"]["resources"]["unified"] = json!({"memory.high": "67108864"}));
            let file = mount.join("ponton").join(&bundle.id).join("memory.high");
            assert_eq!(fs::read_to_string(file).unwrap().trim(), "67108864");
        },
    },
    Statement {
        part: "config-linux.md Unified",
        says: "a name that is no file of a controller is an error",
        check: || {
            refused("linux.resources.unified", |spec| {
                spec["linux"]["resources"]["unified"] = json!({"../cgroup.procs": "1"});
            });
        },
    },
];

/// The host's first whole block device.
fn block_device() -> Option<(u32, u32)> {
    let name = fs::read_dir("/sys/block").ok()?.flatten().map(|entry| entry.file_name()).find(|name| {
        name.to_str().is_some_and(|name| !name.starts_with("loop") && !name.starts_with("ram"))
    })?;
    let text = fs::read_to_string(Path::new("/sys/block").join(name).join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
