use super::*;

/// A specification as runc's `spec` writes it, in the parts where names are easily got wrong.
#[test]
fn reads_and_writes_the_specifications_names() {
    let json = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": true,
            "consoleSize": {"height": 24, "width": 80},
            "user": {"uid": 1, "gid": 2, "additionalGids": [3]},
            "args": ["sh"], "env": ["A=b"], "cwd": "/",
            "capabilities": {"bounding": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true, "oomScoreAdj": 5,
            "execCPUAffinity": {"initial": "0", "final": "0-1"}
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "h",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
            "resources": {
                "devices": [{"allow": false, "type": "a", "access": "rwm"}],
                "memory": {"limit": 1, "disableOOMKiller": true},
                "blockIO": {"throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 1}]},
                "network": {"classID": 1}
            },
            "namespaces": [{"type": "network", "path": "/run/ns"}, {"type": "mount"}],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}]
            },
            "timeOffsets": {"boottime": {"secs": -1, "nanosecs": 0}}
        }
    });
    let spec: Spec = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(spec.linux.as_ref().unwrap().namespaces[0].r#type, NamespaceType::Network);
    assert_eq!(serde_json::to_value(&spec).unwrap(), json);
}

#[test]
fn ignores_what_it_does_not_know_and_reads_null() {
    let spec: Spec =
        serde_json::from_str(r#"{"ociVersion":"1.9.0","vm":{},"mounts":null,"annotations":null}"#).unwrap();
    assert_eq!(spec, Spec { oci_version: "1.9.0".to_owned(), ..Spec::default() });
}
