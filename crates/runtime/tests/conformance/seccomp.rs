//! config-linux.md, "Seccomp".

use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::fixture::{Bundle, stderr, stdout, with_host_programs};
use crate::{Statement, inside, refused};

const SECCOMP: &str = "config-linux.md Seccomp";

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

pub(crate) const ALL: &[Statement] = &[
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
];
