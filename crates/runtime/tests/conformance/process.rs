//! config.md: the version, the root, the process, names, annotations, extensibility.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::fixture::{Bundle, stderr, stdout, without_namespace};
use crate::{Statement, created, inside, refused, skip};

const VERSION: &str = "config.md Specification version";
const ROOT: &str = "config.md Root";
const PROCESS: &str = "config.md Process";
const POSIX: &str = "config.md POSIX process";
const LINUX: &str = "config.md Linux process";
const USER: &str = "config.md User";
const EXTENSIBILITY: &str = "config.md Extensibility";

fn status(field: &str, change: impl FnOnce(&mut Value)) -> String {
    let line = inside(&format!("grep '^{field}:' /proc/self/status"), change);
    line.split_once('\t').unwrap().1.to_owned()
}

fn with_limit(name: &str, soft: u64, hard: u64) -> impl FnOnce(&mut Value) {
    let limit = json!([{"type": name, "soft": soft, "hard": hard}]);
    move |spec| spec["process"]["rlimits"] = limit
}

/// All five sets, empty but for one.
fn with_set(set: &'static str, names: &'static [&'static str]) -> impl FnOnce(&mut Value) {
    move |spec| {
        spec["process"]["capabilities"] = json!({});
        spec["process"]["capabilities"][set] = json!(names);
    }
}

pub(crate) const ALL: &[Statement] = &[
    Statement {
        part: VERSION,
        says: "versions 1.x are taken",
        check: || {
            for version in ["1.0.0", "1.0.2-dev", "1.1.0+dev", "1.2.1", "1.3.0"] {
                inside("true", |spec| spec["ociVersion"] = json!(version));
            }
        },
    },
    Statement {
        part: VERSION,
        says: "it is required, and a semantic version",
        check: || {
            for version in ["", "one", "1", "1.2.x"] {
                refused("ociVersion", |spec| spec["ociVersion"] = json!(version));
            }
            refused("ociVersion", |spec| drop(spec.as_object_mut().unwrap().remove("ociVersion")));
        },
    },
    Statement {
        part: VERSION,
        says: "another major version is refused",
        check: || {
            refused("ociVersion", |spec| spec["ociVersion"] = json!("2.0.0"));
            refused("ociVersion", |spec| spec["ociVersion"] = json!("99.0.0"));
        },
    },
    Statement {
        part: ROOT,
        says: "path may be absolute",
        check: || {
            let bundle = Bundle::script("echo ran");
            let mut spec = bundle.spec();
            spec["root"]["path"] = json!(bundle.root());
            bundle.write_spec(&spec);
            assert_eq!(stdout(&bundle.run()), "ran\n");
        },
    },
    Statement {
        part: ROOT,
        says: "a relative path is from the bundle",
        check: || {
            let bundle = Bundle::script("echo ran");
            let mut spec = bundle.spec();
            spec["root"]["path"] = json!("rootfs");
            bundle.write_spec(&spec);
            assert_eq!(stdout(&bundle.run()), "ran\n");
        },
    },
    Statement {
        part: ROOT,
        says: "a directory has to be at the path",
        check: || {
            refused("nosuch", |spec| spec["root"]["path"] = json!("nosuch"));
            refused("root", |spec| spec["root"] = json!({"path": "config.json"}));
            refused("root", |spec| drop(spec.as_object_mut().unwrap().remove("root")));
        },
    },
    Statement {
        part: ROOT,
        says: "readonly: it cannot be written to",
        check: || {
            inside("! touch /srv/x 2>/dev/null", |spec| spec["root"]["readonly"] = json!(true));
        },
    },
    Statement {
        part: ROOT,
        says: "readonly is false where it is not given",
        check: || {
            inside("touch /srv/x", |spec| drop(spec["root"].as_object_mut().unwrap().remove("readonly")));
        },
    },
    Statement {
        part: PROCESS,
        says: "cwd is the working directory",
        check: || {
            assert_eq!(inside("pwd", |spec| spec["process"]["cwd"] = json!("/srv")), "/srv");
        },
    },
    Statement {
        part: PROCESS,
        says: "cwd is an absolute path",
        check: || {
            for cwd in ["srv", "", "./srv", "../srv"] {
                refused("process.cwd", |spec| spec["process"]["cwd"] = json!(cwd));
            }
        },
    },
    Statement {
        part: PROCESS,
        says: "env is the environment",
        check: || {
            let env = inside("echo $A; echo \"$B\"; echo $PATH", |spec| {
                spec["process"]["env"] = json!(["PATH=/bin:/srv", "A=one", "B=two = 2"]);
            });
            assert_eq!(env, "one\ntwo = 2\n/bin:/srv");
        },
    },
    Statement {
        part: PROCESS,
        says: "args are those of the program",
        check: || {
            let bundle = Bundle::new(|spec| {
                spec["process"]["args"] =
                    json!(["sh", "-c", "for arg; do echo \"<$arg>\"; done", "0", "a b", "", "$c"]);
            });
            assert_eq!(stdout(&bundle.run()), "<a b>\n<>\n<$c>\n");
        },
    },
    Statement {
        part: PROCESS,
        says: "args are required",
        check: || {
            refused("process.args", |spec| spec["process"]["args"] = json!([]));
            refused("process.args", |spec| drop(spec["process"].as_object_mut().unwrap().remove("args")));
        },
    },
    Statement {
        part: PROCESS,
        says: "the program is looked up in the container's PATH",
        check: || {
            let bundle = Bundle::new(|spec| {
                spec["process"]["env"] = json!(["PATH=/nosuch:/srv"]);
                spec["process"]["args"] = json!(["found"]);
            });
            std::os::unix::fs::symlink("/bin/busybox", bundle.root().join("srv/found")).unwrap();
            let output = bundle.run();
            assert!(stderr(&output).contains("applet not found"), "{output:?}");
        },
    },
    Statement {
        part: PROCESS,
        says: "a program that is not there is an error",
        check: || {
            refused("nosuch", |spec| spec["process"]["args"] = json!(["nosuch"]));
            refused("/bin/nosuch", |spec| spec["process"]["args"] = json!(["/bin/nosuch"]));
        },
    },
    Statement {
        part: PROCESS,
        says: "terminal false: the streams are those of the caller",
        check: || {
            inside("! tty -s", |_| {});
        },
    },
    Statement {
        part: POSIX,
        says: "rlimits: soft and hard limits are set",
        check: || {
            let kinds = [
                ("CPU", "cpu time"),
                ("FSIZE", "file size"),
                ("DATA", "data size"),
                ("STACK", "stack size"),
                ("CORE", "core file size"),
                ("NPROC", "processes"),
                ("NOFILE", "open files"),
                ("MEMLOCK", "locked memory"),
                ("LOCKS", "file locks"),
                ("SIGPENDING", "pending signals"),
                ("MSGQUEUE", "msgqueue size"),
            ];
            for (name, shown) in kinds {
                let (soft, hard) =
                    if name == "STACK" || name == "DATA" { (1 << 22, 1 << 23) } else { (50, 60) };
                let line = inside(
                    &format!("grep -i 'max {shown}' /proc/self/limits"),
                    with_limit(&format!("RLIMIT_{name}"), soft, hard),
                );
                let numbers: Vec<u64> =
                    line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
                assert_eq!(numbers, [soft, hard], "{name}: {line}");
            }
        },
    },
    Statement {
        part: POSIX,
        says: "rlimits: an unknown type is an error",
        check: || {
            refused("process.rlimits[0]", with_limit("RLIMIT_NOSUCH", 1, 1));
            refused("process.rlimits[0]", with_limit("nofile", 1, 1));
        },
    },
    Statement {
        part: POSIX,
        says: "rlimits: two of one type are an error",
        check: || {
            refused("process.rlimits", |spec| {
                let limit = json!({"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100});
                spec["process"]["rlimits"] = json!([limit, limit]);
            });
        },
    },
    Statement {
        part: POSIX,
        says: "rlimits: a soft limit over the hard one is an error",
        check: || {
            refused("process.rlimits[0]", with_limit("RLIMIT_NOFILE", 2, 1));
        },
    },
    Statement {
        part: LINUX,
        says: "capabilities.bounding",
        check: || {
            assert_eq!(
                status("CapBnd", with_set("bounding", &["CAP_CHOWN", "CAP_KILL"])),
                "0000000000000021"
            );
        },
    },
    Statement {
        part: LINUX,
        says: "capabilities.permitted and effective",
        check: || {
            let change = |spec: &mut Value| {
                let sets = json!({"bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"]});
                spec["process"]["capabilities"] = sets;
            };
            assert_eq!(status("CapPrm", change), "0000000000000001");
            assert_eq!(status("CapEff", change), "0000000000000001");
        },
    },
    Statement {
        part: LINUX,
        says: "capabilities.inheritable",
        check: || {
            let change = |spec: &mut Value| {
                let sets =
                    json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "inheritable": ["CAP_KILL"]});
                spec["process"]["capabilities"] = sets;
            };
            assert_eq!(status("CapInh", change), "0000000000000020");
        },
    },
    Statement {
        part: LINUX,
        says: "capabilities.ambient: kept by a user that is not root",
        check: || {
            let change = |spec: &mut Value| {
                spec["process"]["user"] = json!({"uid": 33, "gid": 33});
                let kill = json!(["CAP_KILL"]);
                spec["process"]["capabilities"] = json!({
                    "bounding": kill, "permitted": kill, "effective": kill, "inheritable": kill, "ambient": kill,
                });
            };
            assert_eq!(status("CapAmb", change), "0000000000000020");
            assert_eq!(status("CapEff", change), "0000000000000020");
        },
    },
    Statement {
        part: LINUX,
        says: "capabilities that are not given are not there",
        check: || {
            let without =
                |spec: &mut Value| drop(spec["process"].as_object_mut().unwrap().remove("capabilities"));
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(status(set, without), "0000000000000000", "{set}");
            }
        },
    },
    Statement {
        part: LINUX,
        says: "a capability that is not known is a warning, not an error",
        check: || {
            let bundle = Bundle::new(|spec| {
                spec["process"]["args"] = json!(["true"]);
                spec["process"]["capabilities"]["bounding"] = json!(["CAP_NOSUCH", "CAP_KILL"]);
            });
            let output = bundle.run();
            assert!(output.status.success(), "{output:?}");
            assert!(stderr(&output).contains("CAP_NOSUCH"), "{output:?}");
        },
    },
    Statement {
        part: LINUX,
        says: "a capability that cannot be inheritable is a warning, not an error",
        check: || {
            let bundle = Bundle::new(|spec| {
                spec["process"]["args"] = json!(["grep", "CapInh", "/proc/self/status"]);
                spec["process"]["capabilities"] = json!({
                    "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "inheritable": ["CAP_KILL", "CAP_CHOWN"],
                });
            });
            let output = bundle.run();
            assert!(stdout(&output).contains("0000000000000020"), "{output:?}");
            assert!(stderr(&output).contains("CAP_CHOWN is not in the bounding set"), "{output:?}");
        },
    },
    Statement {
        part: LINUX,
        says: "noNewPrivileges",
        check: || {
            assert_eq!(status("NoNewPrivs", |spec| spec["process"]["noNewPrivileges"] = json!(true)), "1");
            assert_eq!(status("NoNewPrivs", |spec| spec["process"]["noNewPrivileges"] = json!(false)), "0");
        },
    },
    Statement {
        part: LINUX,
        says: "oomScoreAdj is set",
        check: || {
            let change = |spec: &mut Value| spec["process"]["oomScoreAdj"] = json!(321);
            assert_eq!(inside("cat /proc/self/oom_score_adj", change), "321");
        },
    },
    Statement {
        part: LINUX,
        says: "oomScoreAdj is not changed where it is not given",
        check: || {
            let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
            assert_eq!(inside("cat /proc/self/oom_score_adj", |_| {}), own.trim());
        },
    },
    Statement {
        part: LINUX,
        says: "oomScoreAdj is in -1000 to 1000",
        check: || {
            refused("process.oomScoreAdj", |spec| spec["process"]["oomScoreAdj"] = json!(1001));
        },
    },
    Statement {
        part: LINUX,
        says: "scheduler: policy and nice",
        check: || {
            let change = |spec: &mut Value| {
                spec["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7});
            };
            // proc_pid_stat(5): nice is field 19, policy is field 41.
            assert_eq!(inside("cut -d' ' -f19,41 /proc/self/stat", change), "7 3");
        },
    },
    Statement {
        part: LINUX,
        says: "scheduler: an unknown policy is an error",
        check: || {
            refused("process.scheduler", |spec| {
                spec["process"]["scheduler"] = json!({"policy": "SCHED_NOSUCH"});
            });
        },
    },
    Statement {
        part: LINUX,
        says: "ioPriority",
        check: || {
            let change = |spec: &mut Value| {
                spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
            };
            assert!(inside("ionice -p $$", change).contains("prio 6"));
        },
    },
    Statement {
        part: LINUX,
        says: "ioPriority: an unknown class is an error",
        check: || {
            refused("process.ioPriority", |spec| {
                spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_NOSUCH", "priority": 1});
            });
        },
    },
    Statement {
        part: LINUX,
        says: "execCPUAffinity.final: CPUs of a further process",
        check: || {
            let bundle = crate::running(|spec| {
                spec["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
            });
            let output =
                bundle.command(&["exec", &bundle.id, "grep", "Cpus_allowed_list", "/proc/self/status"]);
            assert_eq!(stdout(&output), "Cpus_allowed_list:\t0\n");
        },
    },
    Statement {
        part: LINUX,
        says: "apparmorProfile is set, or refused where the kernel has none",
        check: || {
            let change = |spec: &mut Value| spec["process"]["apparmorProfile"] = json!("ponton-nosuch");
            refused("process.apparmorProfile", change);
        },
    },
    Statement {
        part: LINUX,
        says: "selinuxLabel is set, or refused where the kernel has none",
        check: || {
            if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
                skip("this kernel has SELinux");
            }
            refused("process.selinuxLabel", |spec| {
                spec["process"]["selinuxLabel"] = json!("system_u:system_r:x:s0");
            });
        },
    },
    Statement {
        part: USER,
        says: "uid and gid",
        check: || {
            let change = |spec: &mut Value| spec["process"]["user"] = json!({"uid": 1234, "gid": 4321});
            assert_eq!(inside("id -u; id -g; id -G", change), "1234\n4321\n4321");
        },
    },
    Statement {
        part: USER,
        says: "additionalGids",
        check: || {
            let change = |spec: &mut Value| {
                spec["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [9, 8]});
            };
            assert_eq!(inside("grep Groups: /proc/self/status", change).trim_end(), "Groups:\t8 9");
        },
    },
    Statement {
        part: USER,
        says: "umask",
        check: || {
            let change = |spec: &mut Value| spec["process"]["user"]["umask"] = json!(0o027);
            assert_eq!(inside("umask", change), "0027");
        },
    },
    Statement {
        part: USER,
        says: "an id that does not fit is an error",
        check: || {
            refused("process.user.uid", |spec| spec["process"]["user"]["uid"] = json!(-1));
            refused("process.user.gid", |spec| spec["process"]["user"]["gid"] = json!(1_u64 << 32));
        },
    },
    Statement {
        part: "config.md Hostname",
        says: "it is that of the container",
        check: || {
            assert_eq!(inside("hostname", |spec| spec["hostname"] = json!("a-name")), "a-name");
        },
    },
    Statement {
        part: "config.md Hostname",
        says: "without a uts namespace it is an error",
        check: || {
            refused("hostname", |spec| {
                spec["hostname"] = json!("a-name");
                without_namespace(spec, "uts");
            });
        },
    },
    Statement {
        part: "config.md Domainname",
        says: "it is that of the container",
        check: || {
            let change = |spec: &mut Value| spec["domainname"] = json!("a-domain");
            assert_eq!(inside("cat /proc/sys/kernel/domainname", change), "a-domain");
        },
    },
    Statement {
        part: "config.md Annotations",
        says: "unknown keys are no error, and values may be empty",
        check: || {
            inside("true", |spec| spec["annotations"] = json!({"com.example.gpu-cores": "2", "x": ""}));
        },
    },
    Statement {
        part: "config.md Annotations",
        says: "values are strings",
        check: || {
            refused("annotations", |spec| spec["annotations"] = json!({"key": 1}));
        },
    },
    Statement {
        part: "config.md Annotations",
        says: "keys are not empty",
        check: || {
            refused("annotations", |spec| spec["annotations"] = json!({"": "value"}));
        },
    },
    Statement {
        part: EXTENSIBILITY,
        says: "unknown properties are no error",
        check: || {
            inside("true", |spec| {
                spec["unknown"] = json!({"a": [1]});
                spec["process"]["unknown"] = json!(true);
                spec["linux"]["unknown"] = json!("x");
                spec["linux"]["resources"]["unknown"] = json!(1);
                spec["windows"] = json!({"layerFolders": ["x"]});
            });
        },
    },
    Statement {
        part: "config.md Valid values",
        says: "wrong types are an error with their place",
        check: || {
            let wrong: [(&str, fn(&mut Value)); 6] = [
                ("process.args", |spec| spec["process"]["args"] = json!("sh")),
                ("process.terminal", |spec| spec["process"]["terminal"] = json!("yes")),
                ("mounts[0]", |spec| spec["mounts"][0]["destination"] = json!(1)),
                ("linux.namespaces[0].type", |spec| spec["linux"]["namespaces"][0]["type"] = json!("nosuch")),
                ("root.readonly", |spec| spec["root"]["readonly"] = json!(1)),
                ("linux.resources.memory.limit", |spec| {
                    spec["linux"]["resources"]["memory"] = json!({"limit": "1m"});
                }),
            ];
            for (field, change) in wrong {
                refused(field, change);
            }
        },
    },
    Statement {
        part: "config.md",
        says: "what is no JSON is an error with its place",
        check: || {
            for text in ["", "{", "[]", "null", "{\"ociVersion\": \"1.0.0\",}", "{} x"] {
                let bundle = Bundle::without_config();
                std::fs::write(bundle.path().join("config.json"), text).unwrap();
                let output = bundle.run();
                assert!(!output.status.success(), "{text:?}");
                assert!(
                    stderr(&output).contains("config.json") || ["null", "[]"].contains(&text),
                    "{text:?}: {output:?}"
                );
            }
        },
    },
    Statement {
        part: "runtime.md State",
        says: "the state can be read by its owner only",
        check: || {
            let bundle = created(|_| {});
            let mode = std::fs::metadata(bundle.state_root()).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0);
        },
    },
];
