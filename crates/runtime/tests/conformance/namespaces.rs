//! config-linux.md, "Namespaces", "User namespace mappings" and "Offset for Time Namespace".

use std::fs;

use serde_json::{Value, json};

use crate::fixture::without_namespace;
use crate::{Statement, inside, refused, running};

const NAMESPACES: &str = "config-linux.md Namespaces";
const USER: &str = "config-linux.md User namespace mappings";
const TIME: &str = "config-linux.md Offset for Time Namespace";

/// The namespace of a kind that the container's process is in, and our own.
fn both(kind: &str, change: impl FnOnce(&mut Value)) -> (String, String) {
    let own = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_str().unwrap().to_owned();
    (inside(&format!("readlink /proc/self/ns/{kind}"), change), own)
}

fn is_new(kind: &str) {
    let (inner, own) = both(kind, |_| {});
    assert_ne!(inner, own);
}

fn is_inherited(kind: &str, name: &str) {
    let (inner, own) = both(kind, |spec| {
        without_namespace(spec, name);
        if name == "uts" {
            drop(spec.as_object_mut().unwrap().remove("hostname"));
        }
    });
    assert_eq!(inner, own);
}

fn is_joined(kind: &str, name: &str) {
    let other = running(|_| {});
    let path = format!("/proc/{}/ns/{kind}", other.state()["pid"]);
    let expected = fs::read_link(&path).unwrap().to_str().unwrap().to_owned();
    let (inner, own) = both(kind, |spec| {
        drop(spec.as_object_mut().unwrap().remove("hostname"));
        for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == name {
                namespace["path"] = json!(path);
            }
        }
    });
    assert_eq!(inner, expected);
    assert_ne!(inner, own);
}

/// Root in the container is 100000 outside, the second range begins at 5000.
fn with_user_namespace(spec: &mut Value) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    for mappings in ["uidMappings", "gidMappings"] {
        spec["linux"][mappings] = json!([
            {"containerID": 0, "hostID": 100_000, "size": 1000},
            {"containerID": 5000, "hostID": 300_000, "size": 10},
        ]);
    }
    let root = spec["root"]["path"].as_str().unwrap().to_owned();
    let status = std::process::Command::new("chmod").args(["-R", "a+rX", &root]).status().unwrap();
    assert!(status.success());
    let above = std::path::Path::new(&root).parent().unwrap();
    fs::set_permissions(above, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
}

pub(crate) const ALL: &[Statement] = &[
    Statement {
        part: NAMESPACES,
        says: "pid: a new one",
        check: || {
            is_new("pid");
            assert_eq!(inside("echo $$", |_| {}), "1");
        },
    },
    Statement { part: NAMESPACES, says: "network: a new one", check: || is_new("net") },
    Statement { part: NAMESPACES, says: "mount: a new one", check: || is_new("mnt") },
    Statement { part: NAMESPACES, says: "ipc: a new one", check: || is_new("ipc") },
    Statement { part: NAMESPACES, says: "uts: a new one", check: || is_new("uts") },
    Statement {
        part: NAMESPACES,
        says: "cgroup: a new one, whose root is the container's group",
        check: || {
            is_new("cgroup");
            assert!(inside("cat /proc/self/cgroup", |_| {}).lines().all(|line| line.ends_with(":/")));
        },
    },
    Statement {
        part: NAMESPACES,
        says: "user: a new one",
        check: || {
            let (inner, own) = both("user", with_user_namespace);
            assert_ne!(inner, own);
        },
    },
    Statement {
        part: NAMESPACES,
        says: "time: a new one",
        check: || {
            let (inner, own) = both("time", |spec| {
                spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
            });
            assert_ne!(inner, own);
        },
    },
    Statement {
        part: NAMESPACES,
        says: "pid: that of the runtime where it is not given",
        check: || is_inherited("pid", "pid"),
    },
    Statement {
        part: NAMESPACES,
        says: "network: that of the runtime where it is not given",
        check: || is_inherited("net", "network"),
    },
    Statement {
        part: NAMESPACES,
        says: "ipc: that of the runtime where it is not given",
        check: || is_inherited("ipc", "ipc"),
    },
    Statement {
        part: NAMESPACES,
        says: "uts: that of the runtime where it is not given",
        check: || is_inherited("uts", "uts"),
    },
    Statement {
        part: NAMESPACES,
        says: "cgroup: that of the runtime where it is not given",
        check: || is_inherited("cgroup", "cgroup"),
    },
    Statement { part: NAMESPACES, says: "pid: joined by path", check: || is_joined("pid", "pid") },
    Statement { part: NAMESPACES, says: "network: joined by path", check: || is_joined("net", "network") },
    Statement { part: NAMESPACES, says: "ipc: joined by path", check: || is_joined("ipc", "ipc") },
    Statement { part: NAMESPACES, says: "uts: joined by path", check: || is_joined("uts", "uts") },
    Statement { part: NAMESPACES, says: "cgroup: joined by path", check: || is_joined("cgroup", "cgroup") },
    Statement {
        part: NAMESPACES,
        says: "user: joined by path",
        check: || {
            let other = running(with_user_namespace);
            let path = format!("/proc/{}/ns/user", other.state()["pid"]);
            let expected = fs::read_link(&path).unwrap().to_str().unwrap().to_owned();
            let (inner, _) = both("user", |spec| {
                with_user_namespace(spec);
                for mappings in ["uidMappings", "gidMappings"] {
                    drop(spec["linux"].as_object_mut().unwrap().remove(mappings));
                }
                let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
                namespaces.last_mut().unwrap()["path"] = json!(path);
            });
            assert_eq!(inner, expected);
        },
    },
    Statement {
        part: NAMESPACES,
        says: "path: of another kind of namespace it is an error",
        check: || {
            refused("namespaces", |spec| {
                spec["linux"]["namespaces"][0] = json!({"type": "pid", "path": "/proc/self/ns/net"});
            });
            refused("namespaces", |spec| {
                spec["linux"]["namespaces"][1] = json!({"type": "network", "path": "/etc/passwd"});
            });
        },
    },
    Statement {
        part: NAMESPACES,
        says: "path: is absolute",
        check: || {
            refused("linux.namespaces[1]", |spec| {
                spec["linux"]["namespaces"][1] = json!({"type": "network", "path": "self/ns/net"});
            });
        },
    },
    Statement {
        part: NAMESPACES,
        says: "path: of what is not there it is an error",
        check: || {
            refused("/nosuch/ns", |spec| {
                spec["linux"]["namespaces"][1] = json!({"type": "network", "path": "/nosuch/ns"});
            });
        },
    },
    Statement {
        part: NAMESPACES,
        says: "two of one type are an error",
        check: || {
            refused("linux.namespaces[6]", |spec| {
                spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "pid"}));
            });
        },
    },
    Statement {
        part: NAMESPACES,
        says: "an unknown type is an error",
        check: || {
            refused("linux.namespaces[0].type", |spec| {
                spec["linux"]["namespaces"][0]["type"] = json!("moon");
            });
        },
    },
    Statement {
        part: USER,
        says: "ids are mapped, in several ranges",
        check: || {
            let maps = inside("cat /proc/self/uid_map /proc/self/gid_map", with_user_namespace);
            let words: Vec<&str> = maps.split_whitespace().collect();
            let expected = ["0", "100000", "1000", "5000", "300000", "10"];
            assert_eq!(words, [expected, expected].concat());
        },
    },
    Statement {
        part: USER,
        says: "the process has its ids there",
        check: || {
            let bundle = running(|spec| {
                with_user_namespace(spec);
                spec["process"]["user"] = json!({"uid": 5001, "gid": 3, "additionalGids": [4]});
            });
            let status = fs::read_to_string(format!("/proc/{}/status", bundle.state()["pid"])).unwrap();
            assert!(status.contains("Uid:\t300001\t"), "{status}");
            assert!(status.contains("Gid:\t100003\t"), "{status}");
            assert!(status.contains("Groups:\t100004"), "{status}");
        },
    },
    Statement {
        part: USER,
        says: "mappings without a user namespace are an error",
        check: || {
            refused("linux.uidMappings", |spec| {
                spec["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
            });
        },
    },
    Statement {
        part: USER,
        says: "a user namespace without mappings is an error",
        check: || {
            refused("linux.uidMappings", |spec| {
                spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            });
        },
    },
    Statement {
        part: TIME,
        says: "monotonic and boottime are moved",
        check: || {
            let uptime = inside("cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets", |spec| {
                spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
                spec["linux"]["timeOffsets"] = json!({
                    "boottime": {"secs": 1_000_000, "nanosecs": 5}, "monotonic": {"secs": 77},
                });
            });
            let words: Vec<&str> = uptime.split_whitespace().collect();
            assert!(words[0].parse::<u64>().unwrap() >= 1_000_000, "{uptime}");
            assert_eq!(words[1..], ["monotonic", "77", "0", "boottime", "1000000", "5"]);
        },
    },
    Statement {
        part: TIME,
        says: "without a time namespace it is an error",
        check: || {
            refused("linux.timeOffsets", |spec| {
                spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1}});
            });
        },
    },
];
