//! Every field of the bodies of update and commit: what the container's control group, its inspection or the new image
//! tells of it, on dockerd and on Ponton. And devices by their CDI names, which dockerd 20.10 has not.
//!
//! A row begins with the call's name and the field's in the API's reference, by which `docs/api.md` finds its test.
#![allow(clippy::expect_used, clippy::too_many_lines, reason = "a test program of tables")]

use std::fs;

use ponton_testkit::fields::Expected::{self, Ours, Same};
use ponton_testkit::fields::{self, row};
use ponton_testkit::{Api, Daemon, Peer, image};
use serde_json::{Value, json};

/// What is looked at beside the answer.
#[derive(Clone, Copy)]
enum Look {
    /// The first line of a file of the container's control group.
    Group(&'static str),
    /// The line of `/proc/<pid>/status` that begins so.
    Status(&'static str),
    /// This member of the inspection's `HostConfig`.
    Inspect,
    /// Nothing: the answer is an error.
    Refused,
}

use Look::{Group, Inspect, Refused, Status};

type Row = fields::Row<Look>;

/// The field alone.
fn only(field: &'static str, value: impl Into<Value>, look: Look, expected: Expected) -> Row {
    let name = field.rsplit('.').next().expect("a name");
    row(field, json!({name: value.into()}), look, expected)
}

fn update_rows() -> Vec<Row> {
    vec![
        only("Update.CpuShares", 77, Group("cpu/cpu.shares"), Same),
        only("Update.CpuPeriod", 50_000, Group("cpu/cpu.cfs_period_us"), Same),
        only("Update.CpuPeriod", 5, Refused, Same),
        only("Update.CpuQuota", 20_000, Group("cpu/cpu.cfs_quota_us"), Same),
        only("Update.CpuQuota", 5, Refused, Same),
        only("Update.NanoCpus", 250_000_000, Group("cpu/cpu.cfs_quota_us"), Same),
        only("Update.NanoCpus", -5, Refused, Same),
        only("Update.CpuRealtimePeriod", 1_000_000, Inspect, Same),
        row(
            "Update.CpuRealtimeRuntime",
            json!({"CpuRealtimePeriod": 1_000_000, "CpuRealtimeRuntime": 0}),
            Inspect,
            Same,
        ),
        only("Update.CpusetCpus", "0", Status("Cpus_allowed_list"), Same),
        only("Update.CpusetCpus", "x", Refused, Same),
        only("Update.CpusetMems", "0", Status("Mems_allowed_list"), Same),
        only("Update.CpusetMems", "77", Refused, Same),
        row(
            "Update.Memory",
            json!({"Memory": 64 << 20, "MemorySwap": 80 << 20}),
            Group("memory/memory.limit_in_bytes"),
            Same,
        ),
        row(
            "Update.MemorySwap",
            json!({"Memory": 64 << 20, "MemorySwap": 80 << 20}),
            Group("memory/memory.memsw.limit_in_bytes"),
            Same,
        ),
        only(
            "Update.MemorySwap",
            80 << 20,
            Refused,
            Ours("400 You should always set the Memory limit when using Memoryswap limit, see usage"),
        ),
        only("Update.MemoryReservation", 32 << 20, Group("memory/memory.soft_limit_in_bytes"), Same),
        only("Update.MemoryReservation", 32, Refused, Same),
        // These dockerd 20.10 takes and passes over.
        only("Update.MemorySwappiness", 7, Group("memory/memory.swappiness"), Ours("200 7")),
        only("Update.MemorySwappiness", 777, Refused, Same),
        only(
            "Update.OomKillDisable",
            true,
            Group("memory/memory.oom_control"),
            Ours("200 oom_kill_disable 1"),
        ),
        only("Update.BlkioWeight", 300, Group("blkio/blkio.bfq.weight"), Ours("200 300")),
        only("Update.BlkioWeight", 5, Refused, Ours("400 Range of blkio weight is from 10 to 1000")),
        only("Update.PidsLimit", 33, Group("pids/pids.max"), Same),
        only("Update.PidsLimit", -1, Group("pids/pids.max"), Same),
        only("Update.CpuPercent", 5, Inspect, Same),
        only("Update.CpuCount", 5, Inspect, Same),
        row(
            "Update.RestartPolicy.MaximumRetryCount",
            json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}),
            Inspect,
            Same,
        ),
        row(
            "Update.RestartPolicy.MaximumRetryCount",
            json!({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}),
            Refused,
            Same,
        ),
        // What a container has from its creation on; dockerd takes it and passes over it.
        only(
            "Update.CgroupParent",
            json!("/x"),
            Refused,
            Ours("400 invalid CgroupParent: it cannot be changed by an update"),
        ),
        only(
            "Update.Devices",
            json!([{"PathOnHost": "/dev/null", "PathInContainer": "/dev/own", "CgroupPermissions": "rwm"}]),
            Refused,
            Ours("400 invalid Devices: it cannot be changed by an update"),
        ),
        only(
            "Update.DeviceCgroupRules",
            json!(["c 10:* rw"]),
            Refused,
            Ours("400 invalid DeviceCgroupRules: it cannot be changed by an update"),
        ),
        only(
            "Update.DeviceRequests",
            json!([{"Driver": "cdi", "Count": 0, "DeviceIDs": ["a/b=c"], "Capabilities": [], "Options": {}}]),
            Refused,
            Ours("400 invalid DeviceRequests: it cannot be changed by an update"),
        ),
        only(
            "Update.Ulimits",
            json!([{"Name": "nofile", "Soft": 100, "Hard": 200}]),
            Refused,
            Ours("400 invalid Ulimits: it cannot be changed by an update"),
        ),
        only(
            "Update.Init",
            json!(true),
            Refused,
            Ours("400 invalid Init: it cannot be changed by an update"),
        ),
        only(
            "Update.IOMaximumIOps",
            json!(5),
            Refused,
            Ours("400 invalid IOMaximumIOps: it cannot be changed by an update"),
        ),
        only(
            "Update.IOMaximumBandwidth",
            json!(5),
            Refused,
            Ours("400 invalid IOMaximumBandwidth: it cannot be changed by an update"),
        ),
    ]
}

/// Limits of a block device of this machine, if it has one; dockerd takes them and passes over them.
fn device_update_rows() -> Vec<Row> {
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let disks = disks.map(|entry| format!("/dev/{}", entry.file_name().to_string_lossy()));
    let Some(disk) = disks.filter(|disk| fs::metadata(disk).is_ok()).min() else { return Vec::new() };
    let number = fs::read_to_string(format!("/sys/block/{}/dev", &disk["/dev/".len()..])).expect("a number");
    let shown: &'static str = Box::leak(format!("200 {} 1048576", number.trim()).into_boxed_str());
    let limit = json!([{"Path": disk, "Rate": 1_048_576}]);
    let missing = json!([{"Path": "/dev/nosuch", "Weight": 100}]);
    let no_device = "400 error gathering device information while adding custom device \"/dev/nosuch\": No such file \
                     or directory (os error 2)";
    vec![
        only(
            "Update.BlkioDeviceReadBps",
            limit.clone(),
            Group("blkio/blkio.throttle.read_bps_device"),
            Ours(shown),
        ),
        only(
            "Update.BlkioDeviceWriteBps",
            limit.clone(),
            Group("blkio/blkio.throttle.write_bps_device"),
            Ours(shown),
        ),
        only(
            "Update.BlkioDeviceReadIOps",
            limit.clone(),
            Group("blkio/blkio.throttle.read_iops_device"),
            Ours(shown),
        ),
        only(
            "Update.BlkioDeviceWriteIOps",
            limit,
            Group("blkio/blkio.throttle.write_iops_device"),
            Ours(shown),
        ),
        only("Update.BlkioWeightDevice", missing, Refused, Ours(no_device)),
    ]
}

/// What a row shows on an engine.
fn updated(api: &Api, row: &Row, name: &str) -> String {
    let body = json!({"Image": "busybox", "Cmd": ["sleep", "1000"]});
    api.post(&format!("/v1.41/containers/create?name={name}"), &body).expect(201);
    api.request("POST", &format!("/v1.41/containers/{name}/start"), None).expect(204);
    let answer = api.post(&format!("/v1.41/containers/{name}/update"), &row.body);
    let inspected = api.get(&format!("/v1.41/containers/{name}/json")).expect(200).json();
    let shown = match row.look {
        _ if answer.status != 200 => answer.json()["message"].as_str().unwrap_or_default().to_owned(),
        Refused => "no error".to_owned(),
        Inspect => {
            let field = row.field.split('.').nth(1).expect("a name");
            inspected["HostConfig"][field].to_string()
        }
        Group(file) => {
            let path = format!("/proc/{}/root/sys/fs/cgroup/{file}", inspected["State"]["Pid"]);
            let text = fs::read_to_string(&path).unwrap_or_else(|error| format!("{file}: {error}"));
            text.lines().next().unwrap_or_default().to_owned()
        }
        Status(word) => {
            let status = fs::read_to_string(format!("/proc/{}/status", inspected["State"]["Pid"]));
            let status = status.expect("a running process");
            status.lines().find(|line| line.starts_with(word)).unwrap_or_default().to_owned()
        }
    };
    let shown = format!("{} {shown}", answer.status);
    api.request("DELETE", &format!("/v1.41/containers/{name}?force=1"), None).expect(204);
    shown
}

fn commit_rows() -> Vec<Row> {
    let check = json!({"Test": ["CMD", "true"], "Interval": 2_000_000_000, "Timeout": 3_000_000_000_u64,
        "Retries": 4, "StartPeriod": 5_000_000_000_u64});
    vec![
        only("Commit.User", "1000", Inspect, Same),
        only("Commit.ExposedPorts", json!({"80/tcp": {}}), Inspect, Same),
        only("Commit.Env", json!(["A=b"]), Inspect, Same),
        only("Commit.Cmd", json!(["one", "two"]), Inspect, Same),
        only("Commit.Healthcheck", check, Inspect, Same),
        row(
            "Commit.Healthcheck.StartInterval",
            json!({"Healthcheck": {"Test": ["CMD", "true"], "StartInterval": 6_000_000_000_u64}}),
            Inspect,
            Ours("201 {\"Test\":[\"CMD\",\"true\"],\"StartInterval\":6000000000}"), // since 25.0
        ),
        only("Commit.Volumes", json!({"/data": {}}), Inspect, Same),
        only("Commit.WorkingDir", "/place", Inspect, Same),
        only("Commit.Entrypoint", json!(["three"]), Inspect, Same),
        only("Commit.OnBuild", json!(["RUN true"]), Inspect, Same),
        only("Commit.Labels", json!({"a": "b"}), Inspect, Same),
        only("Commit.StopSignal", "SIGUSR1", Inspect, Same),
        only("Commit.StopTimeout", 7, Inspect, Same),
        only("Commit.Shell", json!(["/bin/ash", "-c"]), Inspect, Same),
    ]
}

/// What a row shows on an engine that has the container `changed`.
fn committed(api: &Api, row: &Row, name: &str) -> String {
    let answer = api.post(&format!("/v1.41/commit?container=changed&repo={name}&tag=1"), &row.body);
    if answer.status != 201 {
        return format!("{} {}", answer.status, answer.text());
    }
    let field = row.field.split('.').nth(1).expect("a name");
    let config = api.get(&format!("/v1.41/images/{name}:1/json")).expect(200).json()["Config"].take();
    api.request("DELETE", &format!("/v1.41/images/{name}:1"), None).expect(200);
    format!("{} {}", answer.status, config[field])
}

/// Compares what the two engines show.
fn compare(rows: &[Row], ponton: &Api, peer: &Api, shown: fn(&Api, &Row, &str) -> String) {
    let ours = |row: &Row, name: &str| shown(ponton, row, name);
    let theirs = |row: &Row, name: &str| shown(peer, row, name);
    // The words, and not which of them begin with a capital.
    fields::compare(rows, ours, theirs, |row, text| match row.look {
        Refused => text.to_lowercase(),
        _ => text.to_owned(),
    });
}

#[test]
fn updates_and_commits_do_what_they_do_on_dockerd() {
    let Some(peer) = Peer::dockerd() else {
        panic!("dockerd is not installed: run scripts/install-deps.sh test");
    };
    let ponton = Daemon::start();
    let (ours, theirs) = (ponton.api(), peer.api());
    compare(&[update_rows(), device_update_rows()].concat(), &ours, &theirs, updated);
    for api in [&ours, &theirs] {
        let body = json!({"Image": "busybox", "Cmd": ["true"]});
        api.post("/v1.41/containers/create?name=changed", &body).expect(201);
    }
    compare(&commit_rows(), &ours, &theirs, committed);
    // What is of a container alone no image is told of. dockerd kept it until 28.0, and never used it.
    let body = json!({"Hostname": "h", "Domainname": "d", "AttachStdin": true, "AttachStdout": true,
        "AttachStderr": true, "Tty": true, "OpenStdin": true, "StdinOnce": true, "Image": "other",
        "NetworkDisabled": true});
    ours.post("/v1.53/commit?container=changed&repo=plain", &body).expect(201);
    let config = ours.get("/v1.53/images/plain/json").expect(200).json()["Config"].take();
    for name in body.as_object().expect("an object").keys() {
        assert_eq!(config[name], Value::Null, "{name}: {config}");
    }
}

#[test]
fn devices_come_by_their_cdi_names() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let spec = json!({"cdiVersion": "0.6.0", "kind": "example.com/thing", "devices": [
        {"name": "one", "containerEdits": {"env": ["THING=one"], "deviceNodes": [{"path": "/dev/thing",
            "hostPath": "/dev/null"}]}}]});
    fs::write(path("thing.json"), spec.to_string()).expect("a specification");
    fs::write(path("daemon.json"), json!({"cdi-spec-dirs": [folder.path()]}).to_string())
        .expect("daemon.json");
    let daemon = Daemon::start_empty(&["--config-file", &path("daemon.json")]);
    daemon.ponton(&["image", "import", &image::busybox().to_string_lossy(), "busybox"]).ok();
    let api = daemon.api();
    let request = |ids: Value, options: Value| {
        json!({"Image": "busybox", "Cmd": ["sh", "-c", "echo $THING; stat -c '%F %t %T' /dev/thing"], "HostConfig":
            {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ids, "Options": options}]}})
    };
    for (ids, options, expected) in [
        (json!(["example.com/thing=one"]), json!({}), "one\ncharacter special file 1 3\n"),
        (json!(["example.com/thing=nosuch"]), json!({}), "example.com/thing=nosuch"),
        (json!(["example.com/thing=one"]), json!({"a": "b"}), "unexpected options in CDI device request"),
    ] {
        let created = api.post("/containers/create?name=cdi", &request(ids, options));
        let mut shown = created.text();
        if created.status == 201 {
            let started = api.request("POST", "/containers/cdi/start", None);
            shown = started.text();
            if started.status == 204 {
                api.request("POST", "/containers/cdi/wait", None).expect(200);
                shown = daemon.ponton(&["logs", "cdi"]).ok() + "\n";
            }
            api.request("DELETE", "/containers/cdi?force=1", None).expect(204);
        }
        assert!(shown.contains(expected), "{expected:?} is not in {shown:?}");
    }
}
