//! Writes to the kernel that are led elsewhere (CVE-2025-52881, CVE-2019-19921), and control groups.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::fixture::{Bundle, mount, stderr, stdout, without_namespace};
use crate::{assert_untouched, outside};

#[test]
fn kernel_parameters_are_written_to_procfs_only() {
    let outside = outside();
    let bundle = Bundle::new(|spec| {
        mount(spec, "/proc/sys/net/ipv4", "bind", outside.path().to_str().unwrap(), &["bind"]);
        spec["linux"]["sysctl"] = json!({"net.ipv4.file": "1"});
        spec["process"]["args"] = json!(["true"]);
    });
    let output = bundle.run();
    assert!(!output.status.success());
    assert!(stderr(&output).contains("sysctl"), "{output:?}");
    assert_untouched(outside.path());
}

#[test]
fn kernel_parameters_are_not_led_to_another_file_of_procfs() {
    let mut victim = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let file = format!("/proc/{}/oom_score_adj", victim.id());
    let before = fs::read_to_string(&file).unwrap();
    let bundle = Bundle::new(|spec| {
        mount(spec, "/proc/sys/net/ipv4/ip_forward", "bind", &file, &["bind"]);
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        spec["process"]["args"] = json!(["true"]);
    });
    let output = bundle.run();
    let after = fs::read_to_string(&file).unwrap();
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(before, after);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("sysctl"), "{output:?}");
}

#[test]
fn kernel_parameters_of_the_host_are_refused() {
    let refused = |name: &str, change: fn(&mut Value)| {
        let bundle = Bundle::new(|spec| {
            spec["linux"]["sysctl"] = json!({name: "1"});
            change(spec);
        });
        let output = bundle.run();
        assert!(!output.status.success(), "{name}");
        assert!(stderr(&output).contains(&format!("linux.sysctl[{name}]")), "{output:?}");
    };
    for name in ["kernel.core_pattern", "vm.overcommit_memory", "net", "fs.file-max", "", "."] {
        refused(name, |_| {});
    }
    refused("net.ipv4.ip_forward", |spec| without_namespace(spec, "network"));
    refused("kernel.shmmax", |spec| without_namespace(spec, "ipc"));
    refused("net.ipv4.../../../kernel/core_pattern", |_| {});
    refused("net/../kernel/core_pattern", |_| {});
}

#[test]
fn the_hosts_names_and_parameters_are_not_set_through_a_joined_namespace() {
    let asked: [(&str, &str, fn(&mut Value)); 3] = [
        ("uts", "uts", |_| {}),
        ("network", "net", |spec| spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"})),
        ("ipc", "ipc", |spec| spec["linux"]["sysctl"] = json!({"kernel.msgmax": "4096"})),
    ];
    for (kind, file, change) in asked {
        let bundle = Bundle::new(|spec| {
            change(spec);
            for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
                if namespace["type"] == kind {
                    namespace["path"] = json!(format!("/proc/self/ns/{file}"));
                }
            }
        });
        // The runtime is in namespaces that nobody misses.
        let run = bundle.prepare(&["run", "--bundle", bundle.path_text(), &bundle.id]);
        let mut command = Command::new("unshare");
        command.args(["--uts", "--net", "--ipc"]).arg(run.get_program()).args(run.get_args());
        let output = bundle.finish(&mut command);
        assert!(!output.status.success(), "{kind}");
        assert!(stderr(&output).contains("linux.namespaces"), "{kind}: {output:?}");
    }
}

#[test]
fn a_container_does_not_see_or_change_control_groups_above_its_own() {
    let script = "cat /proc/self/cgroup | grep -v ':/$'
        find /sys/fs/cgroup -name release_agent
        for file in $(find /sys/fs/cgroup -name cgroup.procs) /sys/fs/cgroup/x; do
            echo 0 2>/dev/null > $file && echo $file was written
        done
        mount -t cgroup -o memory cgroup /tmp 2>/dev/null && echo mounted
        true";
    assert_eq!(stdout(&Bundle::script(script).run()), "");
}

#[test]
fn a_control_group_cannot_be_outside_of_the_hierarchy() {
    for path in ["../outside", "/ponton/../../outside", "/"] {
        let bundle = Bundle::new(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        let output = bundle.run();
        assert!(!output.status.success(), "{path}");
        assert!(stderr(&output).contains("linux.cgroupsPath"), "{output:?}");
    }
}
