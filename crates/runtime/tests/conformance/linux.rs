//! config-linux.md, but for control groups.

use std::fs;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::fixture::{Bundle, mount, stderr, stdout, with_host_programs, without_namespace};
use crate::{Statement, inside, refused, running, skip};

const NAMESPACES: &str = "config-linux.md Namespaces";
const USER: &str = "config-linux.md User namespace mappings";
const TIME: &str = "config-linux.md Offset for Time Namespace";
const DEVICES: &str = "config-linux.md Devices";
const SYSCTL: &str = "config-linux.md Sysctl";
const SECCOMP: &str = "config-linux.md Seccomp";
const PROPAGATION: &str = "config-linux.md Rootfs Mount Propagation";
const MASKED: &str = "config-linux.md Masked Paths";
const READONLY: &str = "config-linux.md Readonly Paths";

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

fn with_device(spec: &mut Value, device: Value) {
    spec["linux"]["devices"] = json!([device]);
    spec["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
}

fn with_policy(policy: Value) -> impl FnOnce(&mut Value) {
    move |spec| spec["linux"]["seccomp"] = policy
}

/// A policy that lets everything through but `names`.
fn except(names: &[&str], rest: Value) -> Value {
    let mut rule = rest;
    rule["names"] = json!(names);
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
}

/// What perl's `syscall(39)`, getpid, comes to under a policy; with its arguments.
fn getpid(policy: Value, args: &str) -> String {
    inside(&format!("perl -e '$r = syscall(39, {args}); print $r > 0 ? \"pid\" : $! + 0'"), |spec| {
        with_host_programs(spec);
        spec["linux"]["seccomp"] = policy;
    })
}

fn compare(op: &str, value: u64, two: u64) -> Value {
    except(
        &["getpid"],
        json!({
            "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
            "args": [{"index": 0, "value": value, "valueTwo": two, "op": op}],
        }),
    )
}

fn propagation(word: &str) -> String {
    let line =
        inside("grep ' / / ' /proc/self/mountinfo || grep -E ' / (rw|ro)' /proc/self/mountinfo", |spec| {
            spec["linux"]["rootfsPropagation"] = json!(word);
        });
    line.split(" - ").next().unwrap().to_owned()
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
    Statement {
        part: DEVICES,
        says: "a character device, with mode and owner",
        check: || {
            let text = inside("stat -c %t:%T:%a:%u:%g:%F /dev/made", |spec| {
                with_device(
                    spec,
                    json!({
                        "path": "/dev/made", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4,
                    }),
                );
            });
            assert_eq!(text, "1:5:640:3:4:character special file");
        },
    },
    Statement {
        part: DEVICES,
        says: "a block device",
        check: || {
            let text = inside("stat -c %t:%T:%F /dev/made", |spec| {
                with_device(spec, json!({"path": "/dev/made", "type": "b", "major": 7, "minor": 0}));
            });
            assert_eq!(text, "7:0:block special file");
        },
    },
    Statement {
        part: DEVICES,
        says: "a fifo",
        check: || {
            let text = inside("stat -c %F /dev/made", |spec| {
                with_device(spec, json!({"path": "/dev/made", "type": "p"}));
            });
            assert_eq!(text, "fifo");
        },
    },
    Statement {
        part: DEVICES,
        says: "u stands for an unbuffered character device",
        check: || {
            let text = inside("stat -c %F /dev/made", |spec| {
                with_device(spec, json!({"path": "/dev/made", "type": "u", "major": 1, "minor": 3}));
            });
            assert_eq!(text, "character special file");
        },
    },
    Statement {
        part: DEVICES,
        says: "a device may be anywhere",
        check: || {
            let text = inside("stat -c %t:%T /srv/deep/made", |spec| {
                spec["root"]["readonly"] = json!(false);
                with_device(spec, json!({"path": "/srv/deep/made", "type": "c", "major": 1, "minor": 3}));
            });
            assert_eq!(text, "1:3");
        },
    },
    Statement {
        part: DEVICES,
        says: "another file at the path is an error",
        check: || {
            refused("/etc/passwd", |spec| {
                with_device(spec, json!({"path": "/etc/passwd", "type": "c", "major": 1, "minor": 3}));
            });
        },
    },
    Statement {
        part: DEVICES,
        says: "the same device at the path is none",
        check: || {
            inside("test -c /dev/null", |spec| {
                with_device(spec, json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3}));
            });
        },
    },
    Statement {
        part: DEVICES,
        says: "type, major and minor are required",
        check: || {
            refused("linux.devices[0].type", |spec| {
                with_device(spec, json!({"path": "/dev/x", "major": 1, "minor": 1}));
            });
            refused("linux.devices[0]", |spec| with_device(spec, json!({"path": "/dev/x", "type": "z"})));
            refused("linux.devices[0].path", |spec| {
                with_device(spec, json!({"type": "c", "major": 1, "minor": 1}));
            });
        },
    },
    Statement {
        part: "config-linux.md Default Devices",
        says: "null, zero, full, random, urandom, tty",
        check: || {
            let script =
                "for name in null zero full random urandom tty; do stat -c %t:%T:%a /dev/$name; done";
            let expected = "1:3:666\n1:5:666\n1:7:666\n1:8:666\n1:9:666\n5:0:666";
            assert_eq!(inside(script, |_| {}), expected);
        },
    },
    Statement {
        part: "config-linux.md Default Devices",
        says: "ptmx is that of the container's /dev/pts",
        check: || {
            assert_eq!(inside("readlink /dev/ptmx", |_| {}), "pts/ptmx");
        },
    },
    Statement {
        part: SYSCTL,
        says: "parameters of namespaces are set",
        check: || {
            let text = inside(
                "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax /proc/sys/net/core/somaxconn",
                |spec| {
                    spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096", "net/core/somaxconn": "99"});
                },
            );
            assert_eq!(text, "1\n4096\n99");
        },
    },
    Statement {
        part: SYSCTL,
        says: "an unknown parameter is an error",
        check: || {
            refused("net.nosuch", |spec| spec["linux"]["sysctl"] = json!({"net.nosuch": "1"}));
        },
    },
    Statement {
        part: SECCOMP,
        says: "defaultAction",
        check: || {
            let policy = json!({"defaultAction": "SCMP_ACT_ALLOW"});
            assert_eq!(getpid(policy, "0"), "pid");
            let bundle = Bundle::new(|spec| {
                spec["process"]["args"] = json!(["true"]);
                spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_KILL_PROCESS"});
            });
            assert!(!bundle.run().status.success());
        },
    },
    Statement {
        part: SECCOMP,
        says: "defaultErrnoRet",
        check: || {
            // Only what is listed works; the program cannot be executed.
            let bundle = Bundle::new(|spec| {
                spec["process"]["args"] = json!(["true"]);
                let names = json!(["exit_group", "write", "close", "exit"]);
                spec["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 99,
                    "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
                });
            });
            let output = bundle.run();
            assert!(
                stderr(&output).contains("99") || stderr(&output).contains("assign requested address"),
                "{output:?}"
            );
        },
    },
    Statement {
        part: SECCOMP,
        says: "syscalls.errnoRet",
        check: || {
            let policy = except(&["getpid"], json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 88}));
            assert_eq!(getpid(policy, "0"), "88");
            let policy = except(&["getpid"], json!({"action": "SCMP_ACT_ERRNO"}));
            assert_eq!(getpid(policy, "0"), "1", "EPERM where none is given");
        },
    },
    Statement {
        part: SECCOMP,
        says: "names that the kernel does not know are passed over",
        check: || {
            let policy = except(&["nosuchcall", "getpid"], json!({"action": "SCMP_ACT_ERRNO"}));
            assert_eq!(getpid(policy, "0"), "1");
        },
    },
    Statement {
        part: SECCOMP,
        says: "names is required and not empty",
        check: || {
            refused(
                "linux.seccomp",
                with_policy(json!({
                    "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}],
                })),
            );
        },
    },
    Statement {
        part: SECCOMP,
        says: "action KILL, KILL_THREAD, KILL_PROCESS",
        check: || {
            for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS"] {
                let bundle = Bundle::new(|spec| {
                    spec["process"]["args"] = json!(["sh", "-c", "hostname x; echo $?"]);
                    spec["linux"]["seccomp"] = except(&["sethostname"], json!({"action": action}));
                });
                let text = stdout(&bundle.run());
                assert_eq!(text, "159\n", "{action}: SIGSYS");
            }
        },
    },
    Statement {
        part: SECCOMP,
        says: "action TRAP",
        check: || {
            let text = inside("perl -e '$SIG{SYS} = sub { print qq(trapped) }; syscall(147)'", |spec| {
                with_host_programs(spec);
                spec["linux"]["seccomp"] =
                    except(&["sched_get_priority_min"], json!({"action": "SCMP_ACT_TRAP"}));
            });
            assert_eq!(text, "trapped");
        },
    },
    Statement {
        part: SECCOMP,
        says: "action TRACE: without a tracer it is ENOSYS",
        check: || {
            assert_eq!(getpid(except(&["getpid"], json!({"action": "SCMP_ACT_TRACE"})), "0"), "38");
        },
    },
    Statement {
        part: SECCOMP,
        says: "action LOG: it is let through",
        check: || {
            assert_eq!(getpid(except(&["getpid"], json!({"action": "SCMP_ACT_LOG"})), "0"), "pid");
        },
    },
    Statement {
        part: SECCOMP,
        says: "action NOTIFY: the listener gets a descriptor with the state",
        check: || {
            let bundle = Bundle::new(|spec| spec["process"]["args"] = json!(["hostname"]));
            let socket = bundle.path().join("listener");
            let listener = UnixListener::bind(&socket).unwrap();
            listener.set_nonblocking(true).unwrap();
            let mut spec = bundle.spec();
            let mut policy = except(&["sched_rr_get_interval"], json!({"action": "SCMP_ACT_NOTIFY"}));
            policy["listenerPath"] = json!(socket);
            policy["listenerMetadata"] = json!("some words");
            spec["linux"]["seccomp"] = policy;
            bundle.write_spec(&spec);
            assert!(bundle.run().status.success());
            // What was sent waits in the socket.
            let (mut stream, _) = listener.accept().unwrap();
            let mut received = Vec::new();
            std::io::Read::read_to_end(&mut stream, &mut received).unwrap();
            let state: Value = serde_json::from_slice(&received).unwrap();
            assert_eq!(state["metadata"], "some words");
            assert_eq!(state["fds"][0], "seccompFd");
            assert_eq!(state["state"]["id"], json!(bundle.id));
            assert!(state["pid"].as_u64().is_some());
        },
    },
    Statement {
        part: SECCOMP,
        says: "NOTIFY without listenerPath is an error",
        check: || {
            refused("linux.seccomp", with_policy(except(&["getpid"], json!({"action": "SCMP_ACT_NOTIFY"}))));
        },
    },
    Statement {
        part: SECCOMP,
        says: "an unknown action is an error",
        check: || {
            refused("linux.seccomp", with_policy(json!({"defaultAction": "SCMP_ACT_NOSUCH"})));
            refused("linux.seccomp", with_policy(except(&["getpid"], json!({"action": "SCMP_ACT_NOSUCH"}))));
        },
    },
    Statement {
        part: SECCOMP,
        says: "architectures are known ones",
        check: || {
            refused(
                "linux.seccomp",
                with_policy(
                    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOSUCH"]}),
                ),
            );
            let policy = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [{"names": ["getpid"], "action": "SCMP_ACT_ERRNO"}],
            });
            assert_eq!(getpid(policy, "0"), "1");
        },
    },
    Statement {
        part: SECCOMP,
        says: "flags are those of seccomp(2)",
        check: || {
            for flag in
                ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"]
            {
                inside(
                    "grep -q '^Seccomp:.2' /proc/self/status",
                    with_policy(json!({
                        "defaultAction": "SCMP_ACT_ALLOW", "flags": [flag],
                        "syscalls": [{"names": ["getpid"], "action": "SCMP_ACT_ERRNO"}],
                    })),
                );
            }
            refused(
                "linux.seccomp.flags",
                with_policy(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["NOSUCH"]})),
            );
        },
    },
    Statement {
        part: SECCOMP,
        says: "op NE",
        check: || {
            assert_eq!(getpid(compare("SCMP_CMP_NE", 5, 0), "4"), "77");
            assert_eq!(getpid(compare("SCMP_CMP_NE", 5, 0), "5"), "pid");
        },
    },
    Statement {
        part: SECCOMP,
        says: "op LT",
        check: || {
            assert_eq!(getpid(compare("SCMP_CMP_LT", 5, 0), "4"), "77");
            assert_eq!(getpid(compare("SCMP_CMP_LT", 5, 0), "5"), "pid");
        },
    },
    Statement {
        part: SECCOMP,
        says: "op LE",
        check: || {
            assert_eq!(getpid(compare("SCMP_CMP_LE", 5, 0), "5"), "77");
            assert_eq!(getpid(compare("SCMP_CMP_LE", 5, 0), "6"), "pid");
        },
    },
    Statement {
        part: SECCOMP,
        says: "op EQ, in all 64 bits",
        check: || {
            assert_eq!(getpid(compare("SCMP_CMP_EQ", 5, 0), "5"), "77");
            assert_eq!(getpid(compare("SCMP_CMP_EQ", 5, 0), "5 + (1 << 32)"), "pid");
        },
    },
    Statement {
        part: SECCOMP,
        says: "op GE",
        check: || {
            assert_eq!(getpid(compare("SCMP_CMP_GE", 1 << 33, 0), "1 << 33"), "77");
            assert_eq!(getpid(compare("SCMP_CMP_GE", 1 << 33, 0), "(1 << 33) - 1"), "pid");
        },
    },
    Statement {
        part: SECCOMP,
        says: "op GT",
        check: || {
            assert_eq!(getpid(compare("SCMP_CMP_GT", 5, 0), "6"), "77");
            assert_eq!(getpid(compare("SCMP_CMP_GT", 5, 0), "5"), "pid");
        },
    },
    Statement {
        part: SECCOMP,
        says: "op MASKED_EQ: value is the mask, valueTwo what is left",
        check: || {
            assert_eq!(getpid(compare("SCMP_CMP_MASKED_EQ", 0xf0, 0x30), "0x35"), "77");
            assert_eq!(getpid(compare("SCMP_CMP_MASKED_EQ", 0xf0, 0x30), "0x45"), "pid");
        },
    },
    Statement {
        part: SECCOMP,
        says: "args: all have to hold",
        check: || {
            let policy = || {
                except(
                    &["getpid"],
                    json!({
                        "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
                        "args": [
                            {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_EQ"},
                        ],
                    }),
                )
            };
            assert_eq!(getpid(policy(), "1, 2"), "77");
            assert_eq!(getpid(policy(), "1, 3"), "pid");
        },
    },
    Statement {
        part: SECCOMP,
        says: "args: an index over 5 or an unknown op is an error",
        check: || {
            let with = |arg: Value| {
                with_policy(except(&["getpid"], json!({"action": "SCMP_ACT_ERRNO", "args": [arg]})))
            };
            refused("linux.seccomp", with(json!({"index": 6, "value": 0, "op": "SCMP_CMP_EQ"})));
            refused("linux.seccomp", with(json!({"index": 0, "value": 0, "op": "SCMP_CMP_NOSUCH"})));
        },
    },
    Statement {
        part: PROPAGATION,
        says: "private",
        check: || {
            let tags = propagation("private");
            assert!(!tags.contains("shared:") && !tags.contains("master:"), "{tags}");
        },
    },
    Statement {
        part: PROPAGATION,
        says: "shared",
        check: || assert!(propagation("shared").contains("shared:")),
    },
    Statement {
        part: PROPAGATION,
        says: "slave, rslave, rprivate, rshared are taken",
        check: || {
            for word in ["slave", "rslave", "rprivate", "rshared"] {
                propagation(word);
            }
        },
    },
    Statement {
        part: PROPAGATION,
        says: "unbindable",
        check: || assert!(propagation("unbindable").contains("unbindable")),
    },
    Statement {
        part: PROPAGATION,
        says: "an unknown word is an error",
        check: || {
            refused("linux.rootfsPropagation", |spec| {
                spec["linux"]["rootfsPropagation"] = json!("sometimes");
            });
        },
    },
    Statement {
        part: MASKED,
        says: "they cannot be read",
        check: || {
            let script = "cat /etc/passwd; ls /srv; cat /etc/passwd | wc -c; ls -A /srv | wc -l";
            assert_eq!(
                inside(script, |spec| spec["linux"]["maskedPaths"] =
                    json!(["/etc/passwd", "/srv", "/nosuch"])),
                "0\n0"
            );
        },
    },
    Statement {
        part: MASKED,
        says: "they are absolute paths",
        check: || {
            refused("linux.maskedPaths", |spec| spec["linux"]["maskedPaths"] = json!(["etc/passwd"]));
        },
    },
    Statement {
        part: READONLY,
        says: "they cannot be written to, nor what is below",
        check: || {
            let script = "! touch /srv/x 2>/dev/null && ! touch /tmp/below/x 2>/dev/null && touch /tmp/x
            ! echo x 2>/dev/null > /etc/passwd";
            inside(script, |spec| {
                spec["root"]["readonly"] = json!(false);
                mount(spec, "/tmp/below", "tmpfs", "tmpfs", &[]);
                mount(spec, "/tmp/beside", "tmpfs", "tmpfs", &[]);
                spec["linux"]["readonlyPaths"] = json!(["/srv", "/tmp/below", "/etc/passwd", "/nosuch"]);
            });
        },
    },
    Statement {
        part: READONLY,
        says: "they are absolute paths",
        check: || {
            refused("linux.readonlyPaths", |spec| spec["linux"]["readonlyPaths"] = json!(["srv"]));
        },
    },
    Statement {
        part: "config-linux.md Mount Label",
        says: "it is set, or refused where the kernel has no SELinux",
        check: || {
            if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
                skip("this kernel has SELinux");
            }
            refused("linux.mountLabel", |spec| spec["linux"]["mountLabel"] = json!("system_u:object_r:x:s0"));
        },
    },
    Statement {
        part: "config-linux.md Personality",
        says: "domain LINUX32",
        check: || {
            assert_eq!(
                inside("uname -m", |spec| spec["linux"]["personality"] = json!({"domain": "LINUX32"})),
                "i686"
            );
        },
    },
    Statement {
        part: "config-linux.md Personality",
        says: "an unknown domain is an error",
        check: || {
            refused("linux.personality", |spec| spec["linux"]["personality"] = json!({"domain": "HURD"}));
        },
    },
    Statement {
        part: "config-linux.md Memory policy",
        says: "mode and nodes",
        check: || {
            let text = inside("head -1 /proc/self/numa_maps | cut -d' ' -f2", |spec| {
                spec["linux"]["memoryPolicy"] =
                    json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
            });
            assert!(text.starts_with("bind"), "{text}");
        },
    },
    Statement {
        part: "config-linux.md Memory policy",
        says: "an unknown mode is an error",
        check: || {
            refused("linux.memoryPolicy", |spec| {
                spec["linux"]["memoryPolicy"] = json!({"mode": "MPOL_NOSUCH", "nodes": "0"});
            });
        },
    },
    Statement {
        part: "config-linux.md IntelRdt",
        says: "it is refused where resctrl is not mounted",
        check: || {
            if std::path::Path::new("/sys/fs/resctrl/schemata").exists() {
                skip("this host has resctrl");
            }
            refused("linux.intelRdt", |spec| {
                spec["linux"]["intelRdt"] = json!({"closID": "x", "schemata": ["L3:0=f"]});
            });
        },
    },
    Statement {
        part: "config-linux.md Network Devices",
        says: "a device is moved and renamed",
        check: || {
            // In a network namespace of its own: the host's devices are left alone.
            let bundle = Bundle::new(|spec| {
                spec["process"]["args"] =
                    json!(["sh", "-c", "cat /sys/class/net/moved/mtu; ls /sys/class/net"]);
                spec["linux"]["netDevices"] = json!({"given0": {"name": "moved"}});
            });
            let run = bundle.prepare(&["run", "--bundle", bundle.path_text(), &bundle.id]);
            let mut command = std::process::Command::new("unshare");
            command.args([
                "--net",
                "sh",
                "-c",
                "ip link add given0 mtu 1234 type veth peer name other0 && exec \"$@\"",
                "sh",
            ]);
            command.arg(run.get_program()).args(run.get_args());
            assert_eq!(stdout(&bundle.finish(&mut command)), "1234\nlo\nmoved\n");
        },
    },
    Statement {
        part: "config-linux.md Network Devices",
        says: "a device that is not there is an error",
        check: || {
            refused("nosuch0", |spec| spec["linux"]["netDevices"] = json!({"nosuch0": {}}));
        },
    },
    Statement {
        part: "config-linux.md Network Devices",
        says: "without a network namespace it is an error",
        check: || {
            refused("linux.netDevices", |spec| {
                spec["linux"]["netDevices"] = json!({"given0": {}});
                without_namespace(spec, "network");
            });
        },
    },
];
