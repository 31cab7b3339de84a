//! Mounts with all their options, seen from inside; and what is kept of a container's health and log.

use std::fs;
use std::path::Path;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Expected::{Ours, Same};
use super::Look::{Inside, Inspect, Refused};
use super::{Row, row};

/// A folder of the host: a shared mount with a file in it, and another mount below it.
pub(super) struct Tree(TempDir);

impl Tree {
    pub(super) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("ponton-mounts-").tempdir().expect("a temporary directory");
        let tree = Self(dir);
        let top = tree.0.path();
        mount_bind(top, top).expect("a mount of its own");
        mount_change(top, MountPropagationFlags::SHARED).expect("a shared mount");
        fs::write(top.join("file"), "content\n").expect("a file");
        fs::create_dir(top.join("below")).expect("a directory");
        mount("tmpfs", top.join("below"), "tmpfs", MountFlags::empty(), None).expect("a mount below");
        fs::write(top.join("below/deep"), "").expect("a file");
        tree
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = unmount(self.path().join("below"), UnmountFlags::DETACH);
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}

const SIZE: &str = "df -k /mnt | tail -1 | awk '{print $2}'";
const PROPAGATION: &str =
    "grep ' /mnt ' /proc/self/mountinfo | grep -o -e shared: -e master: || echo private";
const READ_ONLY: &str = "touch: /mnt/below/x: Read-only file system\n";

/// One mount at `/mnt`, of this kind.
fn of(kind: &str, more: Value) -> Value {
    let mut asked = json!({"Type": kind, "Target": "/mnt"});
    super::merge(&mut asked, &more);
    json!({"HostConfig": {"Mounts": [asked]}})
}

pub(super) fn rows(tree: &Tree) -> Vec<Row> {
    let bind = |more: Value| {
        let mut body = of("bind", json!({"Source": tree.path()}));
        super::merge(&mut body["HostConfig"]["Mounts"][0], &more);
        body
    };
    let options = |options: Value| bind(json!({"BindOptions": options}));
    let read_only = |options: Value| bind(json!({"ReadOnly": true, "BindOptions": options}));
    let missing = tree.path().join("missing");
    let made = tree.path().join("made");
    vec![
        row("HostConfig.Mounts", bind(json!({})), Inside("cat /mnt/file; ls /mnt/below"), Same),
        row(
            "HostConfig.Mounts",
            json!({"HostConfig": {"Mounts": [{"Type": "nosuch", "Target": "/mnt"}]}}),
            Refused,
            Same,
        ),
        row(
            "HostConfig.Mounts[].Target",
            bind(json!({"Target": "/new/place"})),
            Inside("ls /new/place"),
            Same,
        ),
        row("HostConfig.Mounts[].Target", bind(json!({"Target": ""})), Refused, Same),
        row("HostConfig.Mounts[].Target", bind(json!({"Target": "relative"})), Refused, Same),
        row(
            "HostConfig.Mounts[].Source",
            bind(json!({"Source": tree.path().join("below")})),
            Inside("ls /mnt"),
            Same,
        ),
        row("HostConfig.Mounts[].Source", of("bind", json!({"Source": missing})), Refused, Same),
        row("HostConfig.Mounts[].Source", of("bind", json!({})), Refused, Same),
        row("HostConfig.Mounts[].Source", of("tmpfs", json!({"Source": "x"})), Refused, Same),
        row(
            "HostConfig.Mounts[].ReadOnly",
            bind(json!({"ReadOnly": true})),
            Inside("touch /mnt/x 2>&1"),
            Same,
        ),
        row("HostConfig.Mounts[].BindOptions", of("volume", json!({"BindOptions": {}})), Refused, Same),
        row("HostConfig.Mounts[].BindOptions", options(json!({})), Inside(PROPAGATION), Same),
        row(
            "HostConfig.Mounts[].BindOptions.Propagation",
            options(json!({"Propagation": "rslave"})),
            Inside(PROPAGATION),
            Same,
        ),
        row(
            "HostConfig.Mounts[].BindOptions.Propagation",
            options(json!({"Propagation": "shared"})),
            Inside(PROPAGATION),
            Same,
        ),
        row(
            "HostConfig.Mounts[].BindOptions.Propagation",
            options(json!({"Propagation": "private"})),
            Inside(PROPAGATION),
            Same,
        ),
        row(
            "HostConfig.Mounts[].BindOptions.Propagation",
            options(json!({"Propagation": "nosuch"})),
            Refused,
            Same,
        ),
        row(
            "HostConfig.Mounts[].BindOptions.NonRecursive",
            options(json!({"NonRecursive": true})),
            Inside("ls /mnt/below"),
            Same,
        ),
        row(
            "HostConfig.Mounts[].BindOptions.CreateMountpoint",
            of("bind", json!({"Source": made, "BindOptions": {"CreateMountpoint": true}})),
            Inside("ls /mnt | wc -l"),
            Ours("0\n"), // since 23.0, as the next two since 25.0
        ),
        row(
            "HostConfig.Mounts[].BindOptions.ReadOnlyNonRecursive",
            read_only(json!({"ReadOnlyNonRecursive": true})),
            Inside("touch /mnt/x 2>/dev/null || echo refused; touch /mnt/below/x && echo made"),
            Ours("refused\nmade\n"),
        ),
        row(
            "HostConfig.Mounts[].BindOptions.ReadOnlyForceRecursive",
            read_only(json!({"ReadOnlyForceRecursive": true, "Propagation": "rprivate"})),
            Inside("touch /mnt/below/x 2>&1"),
            Ours(READ_ONLY),
        ),
        row(
            "HostConfig.Mounts[].BindOptions.ReadOnlyForceRecursive",
            options(json!({"ReadOnlyForceRecursive": true})),
            Refused,
            Ours(
                "400 invalid mount config for type \"bind\": mount is not read-only, and cannot be read-only in one way or the other",
            ),
        ),
        row(
            "HostConfig.Mounts[].VolumeOptions",
            of("tmpfs", json!({"VolumeOptions": {}})),
            Refused,
            Ours("400 invalid mount config for type \"tmpfs\": field VolumeOptions must not be specified"),
        ),
        row(
            "HostConfig.Mounts[].VolumeOptions",
            of("volume", json!({"VolumeOptions": {}})),
            Inside("mount | grep -c ' on /mnt '"),
            Same,
        ),
        row(
            "HostConfig.Mounts[].VolumeOptions.NoCopy",
            of("volume", json!({"Target": "/etc", "VolumeOptions": {"NoCopy": false}})),
            Inside("ls /etc | grep -c -e passwd -e group"),
            Same,
        ),
        row(
            "HostConfig.Mounts[].VolumeOptions.NoCopy",
            of("volume", json!({"Target": "/etc", "VolumeOptions": {"NoCopy": true}})),
            Inside("ls /etc | grep -c -e passwd -e group"),
            Same,
        ),
        row(
            "HostConfig.Mounts[].VolumeOptions.DriverConfig",
            of("volume", json!({"VolumeOptions": {"DriverConfig": {"Name": "local"}}})),
            Inside("mount | grep -c ' on /mnt '"),
            Same,
        ),
        row(
            "HostConfig.Mounts[].VolumeOptions.DriverConfig.Name",
            of("volume", json!({"Source": "other", "VolumeOptions": {"DriverConfig": {"Name": "nosuch"}}})),
            Refused,
            Ours("404 create other: error looking up volume plugin nosuch: plugin \"nosuch\" not found"),
        ),
        row(
            "HostConfig.Mounts[].VolumeOptions.DriverConfig.Options",
            of(
                "volume",
                json!({"Source": "memory", "VolumeOptions": {"DriverConfig": {"Name": "local",
                "Options": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}}}}),
            ),
            Inside(SIZE),
            Same,
        ),
        row(
            "HostConfig.Mounts[].VolumeOptions.Subpath",
            of("volume", json!({"Source": "parts", "VolumeOptions": {"Subpath": "one/two"}})),
            Inside("ls /mnt"),
            Ours("three\n"), // since 26.0
        ),
        row(
            "HostConfig.Mounts[].VolumeOptions.Subpath",
            of("volume", json!({"Source": "parts", "VolumeOptions": {"Subpath": "../one"}})),
            Refused,
            Ours(
                "400 invalid mount config for type \"volume\": subpath must be a relative path within the volume",
            ),
        ),
        row(
            "HostConfig.Mounts[].ImageOptions",
            of("image", json!({"Source": "busybox", "ImageOptions": {}})),
            Inside(
                "cmp /mnt/bin/busybox /bin/busybox && echo same; touch /mnt/x 2>/dev/null || echo read-only",
            ),
            Ours("same\nread-only\n"), // since 28.0
        ),
        row(
            "HostConfig.Mounts[].ImageOptions.Subpath",
            of("image", json!({"Source": "busybox", "ImageOptions": {"Subpath": "etc"}})),
            Inside("ls /mnt | grep passwd"),
            Ours("passwd\n"),
        ),
        row(
            "HostConfig.Mounts[].TmpfsOptions",
            of("bind", json!({"Source": "/", "TmpfsOptions": {}})),
            Refused,
            Ours("400 invalid mount config for type \"bind\": field TmpfsOptions must not be specified"),
        ),
        row(
            "HostConfig.Mounts[].TmpfsOptions",
            of("tmpfs", json!({"TmpfsOptions": {}})),
            Inside("mount | grep ' on /mnt ' | grep -o -e nosuid -e nodev -e noexec"),
            Same,
        ),
        row(
            "HostConfig.Mounts[].TmpfsOptions.SizeBytes",
            of("tmpfs", json!({"TmpfsOptions": {"SizeBytes": 1 << 20}})),
            Inside(SIZE),
            Same,
        ),
        row(
            "HostConfig.Mounts[].TmpfsOptions.Mode",
            of("tmpfs", json!({"TmpfsOptions": {"Mode": 0o1700}})),
            Inside("stat -c %a /mnt"),
            Same,
        ),
        row(
            "HostConfig.Mounts[].TmpfsOptions.Options",
            of("tmpfs", json!({"TmpfsOptions": {"Options": [["exec"]]}})),
            Inside("mount | grep ' on /mnt ' | grep -c noexec"),
            Ours("0\n"), // since 28.0
        ),
        row(
            "HostConfig.Mounts[].TmpfsOptions.Options",
            of("tmpfs", json!({"TmpfsOptions": {"Options": [["suid"]]}})),
            Refused,
            Ours("400 invalid mount config for type \"tmpfs\": invalid option: suid"),
        ),
        row(
            "Config.Volumes",
            json!({"Volumes": {"/data": {}}}),
            Inside("mount | grep -c ' on /data '"),
            Same,
        ),
        row(
            "Config.Volumes",
            json!({"Volumes": {"/": {}}}),
            Refused,
            Ours("400 invalid volume specification: '/': invalid specification: destination can't be '/'"),
        ),
        row(
            "HostConfig.VolumeDriver",
            json!({"HostConfig": {"VolumeDriver": "local", "Binds": ["driven:/mnt"]}}),
            Inspect("/Mounts/0/Driver"),
            Same,
        ),
        row(
            "HostConfig.VolumeDriver",
            json!({"HostConfig": {"VolumeDriver": "nosuch", "Binds": ["undriven:/mnt"]}}),
            Refused,
            Ours("404 create undriven: error looking up volume plugin nosuch: plugin \"nosuch\" not found"),
        ),
    ]
}

pub(super) fn health_and_log_rows() -> Vec<Row> {
    let health = |more: Value| {
        let mut check = json!({"Test": ["CMD", "true"]});
        super::merge(&mut check, &more);
        json!({"Healthcheck": check})
    };
    let logged =
        |kind: &str, options: Value| json!({"HostConfig": {"LogConfig": {"Type": kind, "Config": options}}});
    vec![
        row(
            "Config.Healthcheck.Test",
            health(json!({"Test": ["CMD-SHELL", "exit 1"]})),
            Inspect("/Config/Healthcheck/Test"),
            Same,
        ),
        row(
            "Config.Healthcheck.Test",
            health(json!({"Test": ["NOSUCH", "x"]})),
            Inspect("/Config/Healthcheck/Test"),
            Same,
        ),
        row(
            "Config.Healthcheck.Interval",
            health(json!({"Interval": 2_000_000_000})),
            Inspect("/Config/Healthcheck/Interval"),
            Same,
        ),
        row("Config.Healthcheck.Interval", health(json!({"Interval": 1})), Refused, Same),
        row(
            "Config.Healthcheck.Timeout",
            health(json!({"Timeout": 3_000_000_000_u64})),
            Inspect("/Config/Healthcheck/Timeout"),
            Same,
        ),
        row("Config.Healthcheck.Timeout", health(json!({"Timeout": 1})), Refused, Same),
        row(
            "Config.Healthcheck.Retries",
            health(json!({"Retries": 7})),
            Inspect("/Config/Healthcheck/Retries"),
            Same,
        ),
        row("Config.Healthcheck.Retries", health(json!({"Retries": -1})), Refused, Same),
        row(
            "Config.Healthcheck.StartPeriod",
            health(json!({"StartPeriod": 4_000_000_000_u64})),
            Inspect("/Config/Healthcheck/StartPeriod"),
            Same,
        ),
        row("Config.Healthcheck.StartPeriod", health(json!({"StartPeriod": 1})), Refused, Same),
        row(
            "Config.Healthcheck.StartInterval",
            health(json!({"StartInterval": 5_000_000})),
            Inspect("/Config/Healthcheck/StartInterval"),
            Ours("5000000"), // since 25.0
        ),
        row(
            "Config.Healthcheck.StartInterval",
            health(json!({"StartInterval": 1})),
            Refused,
            Ours("400 StartInterval in Healthcheck cannot be less than 1ms"),
        ),
        row(
            "HostConfig.LogConfig.Config",
            logged("json-file", json!({"max-size": "1k", "max-file": "2"})),
            Inspect("/HostConfig/LogConfig"),
            Same,
        ),
        row("HostConfig.LogConfig.Config", logged("json-file", json!({"nosuch": "x"})), Refused, Same),
        row(
            "HostConfig.LogConfig.Config",
            logged("json-file", json!({"max-size": "x"})),
            Refused,
            Ours("400 invalid size: 'x'"),
        ),
        row(
            "HostConfig.CpuRealtimePeriod",
            json!({"HostConfig": {"CpuRealtimePeriod": 1_000_000}}),
            Inspect("/HostConfig/CpuRealtimePeriod"),
            Same,
        ),
        row(
            "HostConfig.CpuRealtimeRuntime",
            json!({"HostConfig": {"CpuRealtimeRuntime": 950_000}}),
            Inspect("/HostConfig/CpuRealtimeRuntime"),
            Same,
        ),
    ]
}
