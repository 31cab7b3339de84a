//! Configurations that make no sense: one error that names the field or path, and nothing left.
#![allow(clippy::unwrap_used, reason = "a test program")]

use std::fs;
use std::os::unix::fs::symlink;

use fixture::{Bundle, mount, stderr, without_namespace};
use serde_json::{Value, json};

mod fixture;

/// What is done to a good configuration, and what the error has to name.
type Case = (&'static str, fn(&mut Value));

const CASES: &[Case] = &[
    // Wrong types.
    ("process.args", |spec| spec["process"]["args"] = json!("sh")),
    ("process.user.uid", |spec| spec["process"]["user"]["uid"] = json!("root")),
    ("process.user.uid", |spec| spec["process"]["user"]["uid"] = json!(-1)),
    ("root", |spec| spec["root"] = json!([])),
    ("mounts", |spec| spec["mounts"] = json!({})),
    ("mounts[1].options", |spec| spec["mounts"][1]["options"] = json!("ro")),
    ("linux.namespaces[2].type", |spec| spec["linux"]["namespaces"][2]["type"] = json!(3)),
    ("linux.resources.pids.limit", |spec| spec["linux"]["resources"]["pids"] = json!({"limit": "many"})),
    ("linux.resources.memory.limit", |spec| spec["linux"]["resources"]["memory"] = json!({"limit": 1.5})),
    ("hooks.poststop[0].timeout", |spec| {
        spec["hooks"] = json!({"poststop": [{"path": "/x", "timeout": "1s"}]});
    }),
    // Versions.
    ("ociVersion", |spec| spec["ociVersion"] = json!("2.0.0")),
    ("ociVersion", |spec| spec["ociVersion"] = json!("latest")),
    ("ociVersion", |spec| spec["ociVersion"] = json!(1)),
    // What is not there.
    ("root.path", |spec| spec["root"]["path"] = json!("")),
    ("/nosuch/root", |spec| spec["root"]["path"] = json!("/nosuch/root")),
    ("/nosuch/source", |spec| mount(spec, "/srv", "bind", "/nosuch/source", &["bind"])),
    ("/nosuch/ns", |spec| spec["linux"]["namespaces"][1] = json!({"type": "network", "path": "/nosuch/ns"})),
    ("nosuch", |spec| spec["process"]["args"] = json!(["nosuch"])),
    ("process.args", |spec| spec["process"]["args"] = json!([])),
    ("hooks.createRuntime[0]", |spec| spec["hooks"] = json!({"createRuntime": [{"path": "/nosuch/hook"}]})),
    // Values that cannot be.
    ("process.cwd", |spec| spec["process"]["cwd"] = json!("relative")),
    ("process.args", |spec| spec["process"]["args"] = json!(["a\0b"])),
    ("process.env", |spec| spec["process"]["env"] = json!(["A=\0"])),
    ("process.oomScoreAdj", |spec| spec["process"]["oomScoreAdj"] = json!(5000)),
    ("process.rlimits[0]", |spec| {
        spec["process"]["rlimits"] = json!([{"type": "RLIMIT_X", "soft": 1, "hard": 1}]);
    }),
    ("mounts[7].destination", |spec| mount(spec, "", "tmpfs", "tmpfs", &[])),
    ("mounts[7].destination", |spec| mount(spec, "/a\0b", "tmpfs", "tmpfs", &[])),
    ("mounts[7].source", |spec| mount(spec, "/srv", "bind", "", &["bind"])),
    ("mounts[7].type", |spec| mount(spec, "/srv", "", "x", &[])),
    ("mounts[7]", |spec| mount(spec, "/srv", "tmpfs", "tmpfs", &["size=lots"])),
    ("mounts[7]", |spec| mount(spec, "/etc/passwd/below", "tmpfs", "tmpfs", &[])),
    ("linux.maskedPaths", |spec| spec["linux"]["maskedPaths"] = json!(["relative"])),
    ("linux.readonlyPaths", |spec| spec["linux"]["readonlyPaths"] = json!([""])),
    ("linux.rootfsPropagation", |spec| spec["linux"]["rootfsPropagation"] = json!("often")),
    ("linux.devices[0].path", |spec| spec["linux"]["devices"] = json!([{"path": "x", "type": "c"}])),
    ("linux.devices[0].major", |spec| {
        spec["linux"]["devices"] = json!([{"path": "/dev/x", "type": "c", "major": -1, "minor": 0}]);
    }),
    ("linux.sysctl[vm.swappiness]", |spec| spec["linux"]["sysctl"] = json!({"vm.swappiness": "1"})),
    ("linux.seccomp.syscalls[1].names", |spec| {
        let rule = |names: Value| json!({"names": names, "action": "SCMP_ACT_ERRNO"});
        let rules = [rule(json!(["mount"])), rule(json!([]))];
        spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    }),
    ("linux.seccomp", |spec| {
        spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]});
    }),
    ("linux.resources.memory.limit", |spec| spec["linux"]["resources"]["memory"] = json!({"limit": -2})),
    ("linux.resources", |spec| spec["linux"]["resources"]["cpu"] = json!({"cpus": "99999"})),
    ("linux.resources", |spec| {
        spec["linux"]["resources"]["hugepageLimits"] = json!([{"pageSize": "3MB", "limit": 1}]);
    }),
    // Combinations that cannot be.
    ("linux.uidMappings", |spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    }),
    ("linux.uidMappings", |spec| {
        spec["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
    }),
    ("linux.timeOffsets", |spec| {
        spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1, "nanosecs": 0}});
    }),
    ("linux.namespaces", |spec| without_namespace(spec, "mount")),
    ("linux.namespaces[6]", |spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "ipc"}));
    }),
    ("hostname", |spec| without_namespace(spec, "uts")),
    ("linux.sysctl[net.ipv4.ip_forward]", |spec| {
        without_namespace(spec, "network");
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    }),
    ("linux.cgroupsPath", |spec| spec["linux"]["cgroupsPath"] = json!("../../outside")),
    ("linux.cgroupsPath", |spec| spec["linux"]["cgroupsPath"] = json!("/a/../../outside")),
];

#[test]
fn each_is_one_error_that_names_the_field_and_leaves_nothing() {
    let mut complaints = String::new();
    for (index, (field, change)) in CASES.iter().enumerate() {
        let bundle = Bundle::new(|spec| {
            spec["process"]["args"] = json!(["true"]);
            change(spec);
        });
        // It also looks whether anything is left.
        let output = bundle.run();
        let told = stderr(&output);
        if output.status.success() || told.lines().count() != 1 || !told.contains(field) {
            complaints += &format!("case {index}, {field}: {:?}: {told}\n", output.status.code());
        }
    }
    assert!(complaints.is_empty(), "{complaints}");
}

#[test]
fn a_hook_that_hangs_is_ended_and_named() {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let bundle = Bundle::new(|spec| {
            spec["process"]["args"] = json!(["true"]);
            spec["hooks"] = json!({});
            let path = if kind == "startContainer" { "/bin/sleep" } else { "/usr/bin/sleep" };
            spec["hooks"][kind] = json!([{"path": path, "args": ["sleep", "1000"], "timeout": 1}]);
        });
        let output = bundle.run();
        assert!(!output.status.success(), "{kind}");
        assert!(stderr(&output).contains(&format!("hooks.{kind}[0]")), "{kind}: {output:?}");
    }
}

#[test]
fn text_that_is_no_configuration_is_told_with_its_place() {
    for text in [
        "",
        "{",
        "[1]",
        "\"\"",
        "{\"ociVersion\": \"1.2.0\",}",
        "{} {}",
        "\u{feff}{}",
        "{\"process\": {\"args\": [}}",
    ] {
        let bundle = Bundle::without_config();
        fs::write(bundle.path().join("config.json"), text).unwrap();
        let output = bundle.run();
        assert!(!output.status.success(), "{text:?}");
        assert_eq!(stderr(&output).lines().count(), 1, "{text:?}: {output:?}");
        assert!(stderr(&output).contains("config.json"), "{text:?}: {output:?}");
    }
    let bundle = Bundle::without_config();
    fs::write(bundle.path().join("config.json"), vec![b'['; 100_000]).unwrap();
    assert!(!bundle.run().status.success(), "too deep");
}

#[test]
fn a_mount_target_that_is_a_link_to_outside_is_mounted_inside() {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["grep", "-q", " /escape/target ", "/proc/self/mountinfo"]);
        mount(spec, "/srv/link/target", "tmpfs", "tmpfs", &[]);
    });
    symlink("../../../../escape", bundle.root().join("srv/link")).unwrap();
    let output = bundle.run();
    assert!(output.status.success(), "{output:?}");
    assert!(!bundle.path().join("escape").exists());
}

#[test]
fn commands_that_race_on_one_id_leave_one_container_or_none() {
    let bundle = Bundle::new(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
    let attempt = |args: &[&str]| {
        let mut command = bundle.prepare(args);
        let null = std::process::Stdio::null;
        command.stdin(null()).stdout(null()).stderr(null()).status().unwrap().success()
    };
    let create = ["create", "--bundle", bundle.path_text(), &bundle.id];
    for round in 0..10 {
        let made = std::thread::scope(|scope| {
            let creators: Vec<_> = (0..4).map(|_| scope.spawn(|| attempt(&create))).collect();
            creators.into_iter().map(|creator| creator.join().unwrap()).filter(|made| *made).count()
        });
        assert_eq!(made, 1, "round {round}");
        assert_eq!(bundle.state()["status"], "created");
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| attempt(&["delete", "--force", &bundle.id]));
                scope.spawn(|| attempt(&["start", &bundle.id]));
                scope.spawn(|| attempt(&["state", &bundle.id]));
            }
        });
        // Whoever came last, the next one finds all or nothing.
        assert!(attempt(&["delete", "--force", &bundle.id]), "round {round}");
        bundle.assert_nothing_left();
    }
}
