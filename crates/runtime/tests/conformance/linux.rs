//! config-linux.md, but for namespaces, devices, seccomp and control groups.

use serde_json::json;

use crate::fixture::{Bundle, mount, stdout, without_namespace};
use crate::{Statement, inside, refused, skip};

const SYSCTL: &str = "config-linux.md Sysctl";
const PROPAGATION: &str = "config-linux.md Rootfs Mount Propagation";
const MASKED: &str = "config-linux.md Masked Paths";
const READONLY: &str = "config-linux.md Readonly Paths";

fn propagation(word: &str) -> String {
    let line =
        inside("grep ' / / ' /proc/self/mountinfo || grep -E ' / (rw|ro)' /proc/self/mountinfo", |spec| {
            spec["linux"]["rootfsPropagation"] = json!(word);
        });
    line.split(" - ").next().unwrap().to_owned()
}

pub(crate) const ALL: &[Statement] = &[
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
