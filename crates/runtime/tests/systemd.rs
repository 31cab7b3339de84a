//! Containers whose control groups systemd makes. Where it does not run, that is what the error says.
#![allow(clippy::unwrap_used, reason = "a test program")]

mod fixture;

use std::path::Path;
use std::process::Command;

use fixture::{Bundle, stderr, stdout, without_namespace};
use serde_json::json;

fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").exists()
}

fn property(unit: &str, name: &str) -> String {
    let output = Command::new("systemctl").args(["show", unit, "--value", "-p", name]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_container_is_a_scope_of_systemd() {
    let bundle = Bundle::new(|spec| {
        without_namespace(spec, "cgroup");
        let script = "cat /proc/self/cgroup; while :; do sleep 1; done";
        spec["process"]["args"] = json!(["sh", "-c", script]);
        spec["linux"]["resources"] = json!({
            "memory": {"limit": 64 << 20},
            "pids": {"limit": 50},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0"},
            "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "access": "r"}],
        });
        spec["linux"]["cgroupsPath"] = json!("ponton-test.slice:ponton:systemd");
    });
    let created = bundle.command(&["--systemd-cgroup", "create", "--bundle", bundle.path_text(), &bundle.id]);
    if !systemd_runs() {
        assert!(stderr(&created).contains("ask systemd for the scope ponton-systemd.scope"), "{created:?}");
        bundle.assert_nothing_left();
        return;
    }
    assert!(created.status.success(), "{created:?}");
    let unit = "ponton-systemd.scope";
    let group = "/ponton.slice/ponton-test.slice/ponton-systemd.scope";
    assert_eq!(property(unit, "ControlGroup"), group);
    assert_eq!(property(unit, "Slice"), "ponton-test.slice");
    assert_eq!(property(unit, "Delegate"), "yes");
    assert_eq!(property(unit, "MemoryMax"), (64 << 20).to_string());
    assert_eq!(property(unit, "TasksMax"), "50");
    assert_eq!(property(unit, "CPUQuotaPerSecUSec"), "500ms");
    assert_eq!(property(unit, "AllowedCPUs"), "0");
    assert_eq!(property(unit, "DevicePolicy"), "strict");
    assert!(bundle.command(&["start", &bundle.id]).status.success());
    let read = |file: &str| std::fs::read_to_string(format!("/sys/fs/cgroup{group}/{file}")).unwrap();
    assert_eq!(read("memory.max").trim(), (64 << 20).to_string());
    assert_eq!(read("cgroup.procs").trim(), bundle.state()["pid"].to_string(), "the placeholder is gone");
    // What systemd does not undo when it reads its units again.
    assert!(Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
    assert_eq!(read("pids.max").trim(), "50");
    assert!(bundle.command(&["update", "--memory", "33554432", &bundle.id]).status.success());
    assert_eq!(read("memory.max").trim(), (32 << 20).to_string());
    assert_eq!(property(unit, "MemoryMax"), (32 << 20).to_string());
    assert!(bundle.command(&["delete", "--force", &bundle.id]).status.success());
    bundle.assert_nothing_left();
    assert!(!Path::new("/sys/fs/cgroup").join(&group[1..]).exists());
}

#[test]
fn scopes_of_one_name_follow_each_other() {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["echo", "here"]);
        spec["linux"]["cgroupsPath"] = json!(":ponton:again");
    });
    for _ in 0..3 {
        let output = bundle.command(&["--systemd-cgroup", "run", "--bundle", bundle.path_text(), &bundle.id]);
        if systemd_runs() {
            assert_eq!(stdout(&output), "here\n");
        } else {
            assert!(stderr(&output).contains("ask systemd for the scope ponton-again.scope"), "{output:?}");
        }
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_path_must_be_slice_prefix_and_name() {
    let bundle = Bundle::new(|spec| spec["linux"]["cgroupsPath"] = json!("/ponton/x"));
    let output = bundle.command(&["--systemd-cgroup", "run", "--bundle", bundle.path_text(), &bundle.id]);
    assert!(stderr(&output).contains("linux.cgroupsPath"), "{output:?}");
    assert!(stderr(&output).contains("slice:prefix:name"), "{output:?}");
    bundle.assert_nothing_left();
}
