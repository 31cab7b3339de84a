//! Control groups of containers: what is limited, and what is refused. As root.
#![allow(clippy::unwrap_used, reason = "a test program")]

mod fixture;

use std::path::Path;

use fixture::{Bundle, stderr, stdout};
use serde_json::json;

fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The name of a file in the container's own group, as it sees it.
fn inside(v1: &str, v2: &str) -> String {
    if is_v2() { format!("/sys/fs/cgroup/{v2}") } else { format!("/sys/fs/cgroup/{v1}") }
}

#[test]
fn limits_are_seen_from_inside() {
    let files = [
        inside("memory/memory.limit_in_bytes", "memory.max"),
        inside("memory/memory.soft_limit_in_bytes", "memory.low"),
        inside("pids/pids.max", "pids.max"),
        inside("cpu/cpu.shares", "cpu.weight"),
        inside("cpu/cpu.cfs_quota_us", "cpu.max"),
        inside("cpuset/cpuset.cpus", "cpuset.cpus"),
    ];
    let output = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["sh", "-c", format!("cat {}", files.join(" "))]);
        spec["linux"]["resources"] = json!({
            "memory": {"limit": 64 << 20, "reservation": 32 << 20},
            "pids": {"limit": 50},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0"},
        });
    })
    .run();
    let expected = if is_v2() {
        ["67108864", "33554432", "50", "59", "50000 100000", "0"]
    } else {
        ["67108864", "33554432", "50", "512", "50000", "0"]
    };
    assert_eq!(stdout(&output).lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_mebibyte_of_memory_is_enough_to_start() {
    let output = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["echo", "here"]);
        spec["linux"]["resources"] = json!({"memory": {"limit": 1 << 20, "swap": 1 << 20}});
    })
    .run();
    assert_eq!(stdout(&output), "here\n");
}

#[test]
fn files_of_v2_are_written_as_they_are() {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] =
            json!(["cat", "/sys/fs/cgroup/memory.high", "/sys/fs/cgroup/cgroup.max.depth"]);
        spec["linux"]["resources"] = json!({"unified": {"memory.high": "33554432", "cgroup.max.depth": "3"}});
    });
    let output = bundle.run();
    if is_v2() {
        assert_eq!(stdout(&output), "33554432\n3\n");
    } else {
        let text = stderr(&output);
        assert!(text.contains("linux.resources.unified["), "{text}");
    }
}

#[test]
fn a_path_outside_is_refused() {
    for path in ["../x", "/../x", "/ponton/../../x", "/"] {
        let output = Bundle::new(|spec| spec["linux"]["cgroupsPath"] = json!(path)).run();
        assert!(!output.status.success(), "{path}");
        assert!(stderr(&output).contains("linux.cgroupsPath"), "{path}: {output:?}");
    }
}

#[test]
fn what_the_kernel_refuses_is_named_and_leaves_nothing() {
    let cases = [
        (json!({"memory": {"limit": 64 << 20, "swap": 1 << 20}}), "memory.swap"),
        (json!({"cpu": {"cpus": "7000-7001"}}), "cpu.cpus"),
        (json!({"cpu": {"period": 1}}), "cpu.period"),
        (json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}), "hugepageLimits[0]"),
        (json!({"rdma": {"nosuch0": {"hcaHandles": 1}}}), "rdma[nosuch0]"),
        (
            json!({"blockIO": {"throttleReadBpsDevice": [{"major": 4095, "minor": 7, "rate": 1}]}}),
            "blockIO.throttleReadBpsDevice[0]",
        ),
    ];
    for (resources, field) in cases {
        let output = Bundle::new(|spec| spec["linux"]["resources"] = resources).run();
        assert!(!output.status.success(), "{field}");
        assert!(stderr(&output).contains(&format!("linux.resources.{field}")), "{field}: {output:?}");
    }
}

#[test]
fn a_group_in_use_is_not_taken() {
    let first = Bundle::new(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
    assert!(first.create().status.success());
    let path = format!("/ponton/{}", first.id);
    let second = Bundle::new(|spec| spec["linux"]["cgroupsPath"] = json!(path));
    let output = second.command(&["run", "--bundle", second.path_text(), &second.id]);
    assert!(stderr(&output).contains("has processes already"), "{output:?}");
    assert_eq!(first.state()["status"], "created");
    assert!(first.command(&["start", &first.id]).status.success());
    assert_eq!(first.state()["status"], "running", "its group was left alone");
    assert!(first.command(&["delete", "--force", &first.id]).status.success());
    first.assert_nothing_left();
}

#[test]
fn only_devices_that_a_rule_allows_can_be_used() {
    let script = "mknod /tmp/kmsg c 1 11 && mknod /tmp/full c 1 7 || exit 1
        head -c 1 /tmp/kmsg >/dev/null 2>&1 && exit 2
        head -c 1 /tmp/full >/dev/null || exit 3
        echo x >/dev/null";
    let output = Bundle::new(|spec| {
        spec["root"]["readonly"] = json!(false);
        spec["process"]["args"] = json!(["sh", "-c", script]);
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
        }
        spec["process"]["capabilities"].as_object_mut().unwrap().remove("inheritable");
        spec["process"]["capabilities"].as_object_mut().unwrap().remove("ambient");
        spec["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
    })
    .run();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_further_process_runs_in_the_groups_that_it_is_told() {
    let bundle = Bundle::new(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
    assert!(bundle.create().status.success());
    assert!(bundle.command(&["start", &bundle.id]).status.success());
    let own = |controller: &str| {
        let mount = if is_v2() { "/sys/fs/cgroup".into() } else { format!("/sys/fs/cgroup/{controller}") };
        std::path::PathBuf::from(mount).join("ponton").join(&bundle.id)
    };
    for controller in ["pids", "memory"] {
        std::fs::create_dir_all(own(controller).join("below")).unwrap();
    }
    let exec = |options: &[&str]| {
        let options = options.iter().flat_map(|option| ["--cgroup", option]);
        let args: Vec<&str> = ["exec"].into_iter().chain(options).collect();
        bundle.command(&[&args[..], &[&bundle.id, "cat", "/proc/self/cgroup"]].concat())
    };
    let all = exec(&["below"]);
    assert!(all.status.success(), "{all:?}");
    if is_v2() {
        // In a control group namespace, the container's own is the root.
        assert!(stdout(&all).contains("0::/below"), "{all:?}");
        assert!(!exec(&["pids:below"]).status.success());
    } else {
        let named = exec(&["pids,memory:below"]);
        for controller in ["pids", "memory"] {
            assert!(stdout(&named).contains(&format!(":{controller}:/below\n")), "{named:?}");
        }
        assert!(stdout(&named).contains(":freezer:/\n"), "{named:?}");
    }
    for wrong in [&["pids:nosuch"][..], &["nosuch:below"], &["below", "below"], &["pids:below", "pids:below"]]
    {
        let output = exec(wrong);
        assert!(stderr(&output).contains("--cgroup"), "{wrong:?}: {output:?}");
    }
    assert!(bundle.command(&["delete", "--force", &bundle.id]).status.success());
    bundle.assert_nothing_left();
}

#[test]
fn a_frozen_container_can_be_killed() {
    let bundle = Bundle::new(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
    assert!(bundle.create().status.success());
    assert!(bundle.command(&["start", &bundle.id]).status.success());
    assert!(bundle.command(&["pause", &bundle.id]).status.success());
    assert_eq!(bundle.state()["status"], "paused");
    assert!(bundle.command(&["delete", "--force", &bundle.id]).status.success());
    bundle.assert_nothing_left();
}
