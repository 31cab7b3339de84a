//! `ponton-runtime spec`

use std::path::PathBuf;
use std::process::ExitCode;

use ponton_oci::runtime::VERSION;
use serde_json::{Value, json};

use super::Failure;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory to write config.json to; it must not have one.
    #[arg(short, long, default_value = ".")]
    bundle: PathBuf,
    /// For a user without root's rights: in a user namespace, in the host's network, without limits.
    #[arg(long)]
    rootless: bool,
}

/// Writes a spec to begin with: a shell in `rootfs`, with little rights and no network.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let path = args.bundle.join("config.json");
    let file = std::fs::File::create_new(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut spec = example();
    if args.rootless {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        make_rootless(&mut spec, uid, gid);
    }
    serde_json::to_writer_pretty(file, &spec)?;
    Ok(ExitCode::SUCCESS)
}

/// Leaves out what a user needs root for.
fn make_rootless(spec: &mut Value, uid: u32, gid: u32) {
    let mapping = |host_id: u32| json!([{"containerID": 0, "hostID": host_id, "size": 1}]);
    if let Some(linux) = spec["linux"].as_object_mut() {
        linux.remove("resources");
        linux.insert("uidMappings".into(), mapping(uid));
        linux.insert("gidMappings".into(), mapping(gid));
    }
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        // sysfs belongs to the network namespace, which is the host's.
        if mount["destination"] == "/sys" {
            let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
            *mount = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": options});
        }
        if let Some(options) = mount["options"].as_array_mut() {
            let is_id = |option: &str| option.starts_with("uid=") || option.starts_with("gid=");
            options.retain(|option| !option.as_str().is_some_and(is_id));
        }
    }
}

fn example() -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mount = |destination: &str, r#type: &str, options: &[&str]| json!({"destination": destination, "type": r#type, "source": r#type, "options": options});
    json!({
        "ociVersion": VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "ponton",
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "cgroup"},
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

#[cfg(test)]
mod tests {
    use ponton_oci::runtime::{NamespaceType, Spec};

    use super::*;

    #[test]
    fn a_rootless_spec_needs_no_rights() {
        let mut value = example();
        make_rootless(&mut value, 1000, 1001);
        let spec: Spec = serde_json::from_value(value).unwrap();
        let linux = spec.linux.unwrap();
        assert!(linux.resources.is_none());
        assert!(linux.namespaces.iter().any(|namespace| namespace.r#type == NamespaceType::User));
        assert!(!linux.namespaces.iter().any(|namespace| namespace.r#type == NamespaceType::Network));
        assert_eq!((linux.uid_mappings[0].host_id, linux.gid_mappings[0].host_id), (1000, 1001));
        assert!(!spec.mounts.iter().any(|mount| mount.options.iter().any(|option| option == "gid=5")));
        assert!(spec.mounts.iter().any(|mount| mount.destination == "/sys" && mount.r#type == "none"));
    }
}
