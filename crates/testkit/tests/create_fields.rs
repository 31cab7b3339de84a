//! Every field of the create body whose effect can be seen: what a program in the container, an inspection or an
//! error tells of it, on dockerd and on Ponton.
//!
//! A row begins with the field's name in the API's reference, by which `docs/api.md` finds its test.
#![allow(
    clippy::expect_used,
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "a test program of tables"
)]

#[path = "create_fields/limits.rs"]
mod limits;
#[path = "create_fields/mounts.rs"]
mod mounts;
#[path = "create_fields/networks.rs"]
mod networks;

use std::fs;

use ponton_testkit::fields::Expected::{self, Ours, Same};
use ponton_testkit::fields::{self, row};
use ponton_testkit::{Api, Daemon, Peer};
use serde_json::{Value, json};

/// What is looked at.
enum Look {
    /// The output of a shell script that is the container's program. `HOST-x` stands for the host's namespace x.
    Inside(&'static str),
    /// A value of the inspection of the container that was created, as a JSON pointer.
    Inspect(&'static str),
    /// Whether the inspection of the container that runs has what the request says of its endpoint.
    Running(&'static str),
    /// The error of create, or else of start.
    Refused,
}

use Look::{Inside, Inspect, Refused, Running};

type Row = fields::Row<Look>;

/// A row for a field of `HostConfig`.
fn host(field: &'static str, value: impl Into<Value>, look: Look, expected: Expected) -> Row {
    let name = field.rsplit('.').next().expect("a name");
    row(field, json!({"HostConfig": {name: value.into()}}), look, expected)
}

fn config_rows() -> Vec<Row> {
    let of_config = |field: &'static str, value: Value, look, expected| {
        let name = field.rsplit('.').next().expect("a name");
        row(field, json!({name: value}), look, expected)
    };
    vec![
        of_config(
            "Config.Hostname",
            json!("own"),
            Inside("hostname; cat /etc/hostname; grep -c own /etc/hosts"),
            Same,
        ),
        of_config("Config.Domainname", json!("example.org"), Inside("cat /proc/sys/kernel/domainname"), Same),
        of_config("Config.User", json!("1000:7"), Inside("id"), Same),
        of_config("Config.User", json!("nosuch"), Refused, Same),
        of_config(
            "Config.Env",
            json!(["A=b=c", "HOSTNAME=x", "EMPTY="]),
            Inside("env | sort | grep -v SHLVL"),
            Same,
        ),
        of_config("Config.Tty", json!(true), Inside("test -t 1 && echo tty; echo $TERM"), Same),
        of_config("Config.OpenStdin", json!(true), Inspect("/Config/OpenStdin"), Same),
        of_config("Config.StdinOnce", json!(true), Inspect("/Config/StdinOnce"), Same),
        of_config("Config.AttachStdin", json!(true), Inspect("/Config/AttachStdin"), Same),
        of_config("Config.AttachStdout", json!(true), Inspect("/Config/AttachStdout"), Same),
        of_config("Config.AttachStderr", json!(true), Inspect("/Config/AttachStderr"), Same),
        of_config("Config.WorkingDir", json!("/new/place"), Inside("pwd; stat -c '%a %u' ."), Same),
        of_config("Config.WorkingDir", json!("place"), Refused, Same),
        of_config("Config.Entrypoint", json!(["echo", "entry"]), Inside("ignored"), Same),
        of_config("Config.Entrypoint", json!(""), Inside("echo reset"), Same),
        of_config("Config.Cmd", json!([]), Inspect("/Config/Cmd"), Same),
        of_config("Config.NetworkDisabled", json!(true), Inside("ls /sys/class/net"), Same),
        of_config(
            "Config.MacAddress",
            json!("02:42:ac:11:00:99"),
            Inside("cat /sys/class/net/eth0/address"),
            Same,
        ),
        of_config(
            "Config.ExposedPorts",
            json!({"80/tcp": {}, "53/udp": {}}),
            Inspect("/Config/ExposedPorts"),
            Same,
        ),
        of_config("Config.Labels", json!({"a": "b"}), Inspect("/Config/Labels"), Same),
        of_config("Config.OnBuild", json!(["RUN true"]), Inspect("/Config/OnBuild"), Same),
        of_config("Config.Shell", json!(["/bin/ash", "-c"]), Inspect("/Config/Shell"), Same),
        of_config("Config.StopSignal", json!("SIGUSR1"), Inspect("/Config/StopSignal"), Same),
        of_config("Config.StopTimeout", json!(3), Inspect("/Config/StopTimeout"), Same),
        of_config("Config.Image", json!("nosuch"), Refused, Ours("404 No such image: nosuch:latest")),
        row(
            "NetworkingConfig.EndpointsConfig",
            json!({"NetworkingConfig": {"EndpointsConfig": {"default": {"MacAddress": "02:42:ac:11:00:98"}}}}),
            Inside("cat /sys/class/net/eth0/address"),
            Ours("02:42:ac:11:00:98\n"), // in force since API 1.44
        ),
    ]
}

fn namespace_rows() -> Vec<Row> {
    const SAME: &str = "for n in ipc pid uts net user; do \
        echo $n $(readlink /proc/self/ns/$n | grep -c -e HOST-ipc -e HOST-pid -e HOST-uts -e HOST-net -e HOST-user); done";
    vec![
        host("HostConfig.IpcMode", json!("host"), Inside(SAME), Same),
        host(
            "HostConfig.IpcMode",
            json!("none"),
            Inside("mount | grep -c /dev/shm; ls -d /dev/shm 2>&1"),
            Same,
        ),
        host("HostConfig.IpcMode", json!("shareable"), Inside("mount | grep -c /dev/shm"), Same),
        host("HostConfig.IpcMode", json!("container:nosuch"), Refused, Same),
        host("HostConfig.IpcMode", json!("container:linked"), Inside("cat /dev/shm/mark"), Same),
        host("HostConfig.IpcMode", json!("container:unshared"), Refused, Same),
        host("HostConfig.PidMode", json!("host"), Inside(SAME), Same),
        host(
            "HostConfig.PidMode",
            json!("container:linked"),
            Inside("ps -o args | grep -c '^sleep 1000'"),
            Same,
        ),
        host("HostConfig.PidMode", json!("container:nosuch"), Refused, Same),
        host("HostConfig.UTSMode", json!("host"), Inside(SAME), Same),
        host("HostConfig.UsernsMode", json!("host"), Inside(SAME), Same),
        host(
            "HostConfig.UsernsMode",
            json!("other"),
            Refused,
            Ours("400 invalid user namespace mode: other"), // 20.10 looks only where users are remapped
        ),
        host(
            "HostConfig.CgroupnsMode",
            json!("private"),
            Inside("cut -d: -f3 /proc/self/cgroup | sort -u"),
            Same,
        ),
        host("HostConfig.CgroupnsMode", json!("other"), Refused, Same),
        host("HostConfig.NetworkMode", json!("host"), Inside(SAME), Same),
        host("HostConfig.NetworkMode", json!("none"), Inside("ls /sys/class/net"), Same),
        host(
            "HostConfig.NetworkMode",
            json!("container:linked"),
            Inside("hostname; grep -c linked-host /etc/hosts"),
            Same,
        ),
        host("HostConfig.NetworkMode", json!("nosuch"), Refused, Same),
        row(
            "HostConfig.CgroupParent",
            json!({"HostConfig": {"CgroupParent": "/fields", "CgroupnsMode": "host"}}),
            Inside("grep -o ':/fields/' /proc/self/cgroup | sort -u"),
            Same,
        ),
    ]
}

fn right_rows() -> Vec<Row> {
    const SETS: &str = "grep -e CapEff -e CapBnd /proc/self/status";
    const MASKED: &str = "mount | grep -c -e '^proc on /proc/' -e '^tmpfs on /proc/' -e '^tmpfs on /sys/'";
    let option = |text: &str| json!([text]);
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]});
    vec![
        host("HostConfig.CapAdd", json!(["SYS_PTRACE", "cap_net_admin"]), Inside(SETS), Same),
        host("HostConfig.CapDrop", json!(["ALL"]), Inside(SETS), Same),
        host("HostConfig.CapAdd", json!(["NOSUCH"]), Refused, Same),
        host(
            "HostConfig.Capabilities",
            json!(["CHOWN"]),
            Inside("grep CapEff /proc/self/status"),
            Ours(
                "CapEff:\t0000000000000001\n", // was in API 1.40 alone
            ),
        ),
        host("HostConfig.GroupAdd", json!(["29", "root", "1234"]), Inside("id -G"), Same),
        host("HostConfig.GroupAdd", json!(["nosuch"]), Refused, Same),
        host(
            "HostConfig.SecurityOpt",
            option("no-new-privileges"),
            Inside("grep NoNewPrivs /proc/self/status"),
            Same,
        ),
        host(
            "HostConfig.SecurityOpt",
            option("seccomp=unconfined"),
            Inside("grep Seccomp: /proc/self/status"),
            Same,
        ),
        host(
            "HostConfig.SecurityOpt",
            json!([format!("seccomp={profile}")]),
            Inside("mkdir /x 2>&1; grep Seccomp: /proc/self/status"),
            Same,
        ),
        host("HostConfig.SecurityOpt", option("seccomp={"), Refused, Ours(BAD_PROFILE)),
        host("HostConfig.SecurityOpt", option("label=disable"), Inside("echo runs"), Same),
        host("HostConfig.SecurityOpt", option("apparmor=unconfined"), Inside("echo runs"), Same),
        row(
            "HostConfig.SecurityOpt",
            json!({"HostConfig": {"SecurityOpt": ["systempaths=unconfined"], "MaskedPaths": [], "ReadonlyPaths": []}}),
            Inside(MASKED),
            Ours("0\n"), // the word is the client's; in the API it is the two lists
        ),
        host(
            "HostConfig.SecurityOpt",
            option("writable-cgroups=true"),
            Inside("mkdir /sys/fs/cgroup/pids/own && rmdir /sys/fs/cgroup/pids/own && echo made"),
            Ours("made\n"), // since 28.0
        ),
        host("HostConfig.SecurityOpt", option("nosuch"), Refused, Same),
        host("HostConfig.SecurityOpt", option("nosuch=x"), Refused, Same),
        host("HostConfig.MaskedPaths", json!(["/etc/passwd"]), Inside("wc -c < /etc/passwd"), Same),
        host("HostConfig.ReadonlyPaths", json!(["/tmp"]), Inside("touch /tmp/x 2>&1"), Same),
        host(
            "HostConfig.ReadonlyRootfs",
            json!(true),
            Inside("touch /x 2>&1; touch /dev/shm/x && echo made"),
            Same,
        ),
        host(
            "HostConfig.Sysctls",
            json!({"net.ipv4.ip_default_ttl": "42", "kernel.msgmax": "4096"}),
            Inside("cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax"),
            Same,
        ),
        host(
            "HostConfig.Sysctls",
            json!({"kernel.pid_max": "4096"}),
            Refused,
            Ours(
                "400 linux.sysctl[kernel.pid_max]: sysctl \"kernel.pid_max\" is not in a separate kernel namespace",
            ),
        ),
    ]
}

fn other_rows() -> Vec<Row> {
    vec![
        // What it opens only a machine that gives all rights can show: tests/rights.rs.
        host("HostConfig.Privileged", json!(true), Inspect("/HostConfig/Privileged"), Same),
        host(
            "HostConfig.Runtime",
            json!("nosuch"),
            Refused,
            Ours("400 unknown or invalid runtime name: nosuch"), // worded so since 23.0; tests/runtimes.rs has the rest
        ),
        host(
            "HostConfig.StorageOpt",
            json!({"size": "1G"}),
            Refused,
            Ours("501 StorageOpt: storage options (--storage-opt) are not implemented"),
        ),
        host(
            "HostConfig.RestartPolicy",
            json!({"Name": "always"}),
            Inspect("/HostConfig/RestartPolicy"),
            Same,
        ),
        host("HostConfig.RestartPolicy", json!({"Name": "nosuch"}), Refused, Same),
        host("HostConfig.KernelMemory", json!(64 << 20), Inspect("/HostConfig/KernelMemory"), Ours("0")), // no kernel has it
        host(
            "HostConfig.Init",
            json!(true),
            Inside("tr '\\0' ' ' < /proc/1/cmdline | cut -d' ' -f1"),
            Ours("/sbin/docker-init\n"),
        ),
        host("HostConfig.AutoRemove", json!(true), Inspect("/HostConfig/AutoRemove"), Same),
        host("HostConfig.ContainerIDFile", json!("/x"), Inspect("/HostConfig/ContainerIDFile"), Same),
        host(
            "HostConfig.Dns",
            json!(["192.0.2.1", "192.0.2.2"]),
            Inside("grep nameserver /etc/resolv.conf"),
            Same,
        ),
        host(
            "HostConfig.Dns",
            json!(["one"]),
            Refused,
            Ours("400 invalid Dns: \"one\" is not an IP address"),
        ),
        host(
            "HostConfig.DnsSearch",
            json!(["a.example", "b.example"]),
            Inside("grep search /etc/resolv.conf"),
            Same,
        ),
        host(
            "HostConfig.DnsOptions",
            json!(["ndots:3", "rotate"]),
            Inside("grep options /etc/resolv.conf"),
            Same,
        ),
        host(
            "HostConfig.ExtraHosts",
            json!(["one:192.0.2.1", "six:2001:db8::1"]),
            Inside("grep -e one -e six /etc/hosts"),
            Same,
        ),
        host(
            "HostConfig.ExtraHosts",
            json!(["gate:host-gateway"]),
            Inside(
                "test $(grep gate /etc/hosts | cut -f1) = $(ip route | grep default | cut -d' ' -f3) && echo gateway",
            ),
            Same,
        ),
        host("HostConfig.ExtraHosts", json!(["one:two"]), Refused, Same),
        host(
            "HostConfig.Links",
            json!(["linked:db"]),
            Inside(
                "(grep linked /etc/hosts; env | grep ^DB_ | grep -v ENV | sort) | sed 's/[0-9]*\\.[0-9.]*/IP/'",
            ),
            Same,
        ),
        host("HostConfig.Links", json!(["linked:db"]), Inspect("/HostConfig/Links"), Same),
        host("HostConfig.Links", json!(["nosuch:db"]), Refused, Same),
        host("HostConfig.Links", json!(["unstarted:db"]), Refused, Same),
        row(
            "HostConfig.ConsoleSize",
            json!({"Tty": true, "HostConfig": {"ConsoleSize": [40, 100]}}),
            Inside("stty size"),
            Ours("40 100\r\n"), // Windows alone until 23.0
        ),
        host(
            "HostConfig.Annotations",
            json!({"a": "b"}),
            Inspect("/HostConfig/Annotations"),
            Ours("{\"a\":\"b\"}"),
        ),
        host("HostConfig.PublishAllPorts", json!(true), Inspect("/HostConfig/PublishAllPorts"), Same),
        host("HostConfig.PortBindings", json!({"80/nosuch": []}), Refused, Ours(BAD_PROTOCOL)),
        host("HostConfig.Isolation", json!("hyperv"), Refused, Same),
        host(
            "HostConfig.Cgroup",
            json!("container:linked"),
            Refused,
            Ours("400 invalid Cgroup: the control group of another container cannot be used"),
        ),
        host(
            "HostConfig.DiskQuota",
            json!(5),
            Refused,
            Ours("400 invalid DiskQuota: StorageOpt has the size of a container's disk"),
        ),
    ]
}

const BAD_PROFILE: &str =
    "400 decoding seccomp profile failed: EOF while parsing an object at line 1 column 1";
const BAD_PROTOCOL: &str = "400 invalid proto: nosuch";

/// What is there for the rows that name another container.
fn prepare(api: &Api) {
    let linked = json!({"Hostname": "linked-host", "ExposedPorts": {"5432/tcp": {}}, "Env": ["PASSWORD=x"],
        "Cmd": ["sh", "-c", "echo shared > /dev/shm/mark; exec sleep 1000"], "HostConfig": {"IpcMode": "shareable"}});
    let private = json!({"Cmd": ["sleep", "1000"], "HostConfig": {"IpcMode": "private"}});
    let parts =
        json!({"Cmd": ["mkdir", "-p", "/parts/one/two/three"], "HostConfig": {"Binds": ["parts:/parts"]}});
    let all = [("linked", &linked), ("unshared", &private), ("unstarted", &private), ("parts", &parts)];
    for (name, body) in all {
        let mut body = body.clone();
        merge(&mut body, &json!({"Image": "busybox"}));
        api.post(&format!("/v1.41/containers/create?name={name}"), &body).expect(201);
        if name != "unstarted" {
            api.request("POST", &format!("/v1.41/containers/{name}/start"), None).expect(204);
        }
    }
    api.request("POST", "/v1.41/containers/parts/wait", None).expect(200);
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

/// What a row shows on an engine, which is this process.
fn shown(api: &Api, engine: u32, row: &Row, name: &str) -> String {
    let script = match row.look {
        Inside(script) => {
            ["ipc", "pid", "uts", "net", "user"].iter().fold(script.to_owned(), |script, kind| {
                let own = fs::read_link(format!("/proc/{engine}/ns/{kind}")).expect("a namespace");
                script.replace(&format!("HOST-{kind}"), &own.display().to_string().replace(['[', ']'], "."))
            })
        }
        Running(_) => "sleep 1000".to_owned(),
        _ => "true".to_owned(),
    };
    let mut body = json!({"Image": "busybox", "Cmd": ["sh", "-c", script]});
    merge(&mut body, &row.body);
    let created = api.post(&format!("/v1.41/containers/create?name={name}"), &body);
    if created.status != 201 {
        return format!("{} {}", created.status, created.json()["message"].as_str().unwrap_or_default());
    }
    let id = created.json()["Id"].as_str().expect("an id").to_owned();
    let shown = look(api, &id, row);
    let _ = api.request("DELETE", &format!("/v1.41/containers/{id}?force=1&v=1"), None);
    // The id is another one each time.
    shown.replace(&id, "ID").replace(&id[..12], "ID")
}

fn look(api: &Api, id: &str, row: &Row) -> String {
    if let Inspect(pointer) = row.look {
        let inspected = api.get(&format!("/v1.41/containers/{id}/json")).expect(200).json();
        let name = inspected["Name"].as_str().unwrap_or_default().to_owned();
        let value = inspected.pointer(pointer).unwrap_or(&Value::Null).to_string();
        return value.replace(&name, "/NAME");
    }
    let started = api.request("POST", &format!("/v1.41/containers/{id}/start"), None);
    if started.status != 204 {
        return format!("{} {}", started.status, started.json()["message"].as_str().unwrap_or_default());
    }
    if let Running(member) = row.look {
        let running = api.get(&format!("/v1.41/containers/{id}/json")).expect(200).json();
        let asked = &row.body["NetworkingConfig"]["EndpointsConfig"]["bridge"][member];
        let is_asked = running["NetworkSettings"]["Networks"]["bridge"][member] == *asked;
        return if is_asked { "as asked" } else { "its own" }.to_owned();
    }
    api.request("POST", &format!("/v1.41/containers/{id}/wait"), None).expect(200);
    let tty = row.body["Tty"] == json!(true);
    let logs = api.get(&format!("/v1.41/containers/{id}/logs?stdout=1&stderr=1")).expect(200).body;
    if tty { String::from_utf8_lossy(&logs).into_owned() } else { without_frames(&logs) }
}

/// What is compared: of a refusal not whether the client's fault is 500, and whether the text begins with a
/// capital, as it was until 23.0.
fn told(row: &Row, shown: &str) -> String {
    match (&row.look, &row.expected) {
        (Refused, Same) => {
            let words = shown.split(' ').map(|word| if word.len() >= 64 { "ID" } else { word });
            words.collect::<Vec<_>>().join(" ").replacen("500 ", "400 ", 1).to_lowercase()
        }
        _ => shown.to_owned(),
    }
}

fn without_frames(mut logs: &[u8]) -> String {
    let mut text = String::new();
    while let [_, _, _, _, a, b, c, d, rest @ ..] = logs {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (frame, others) = rest.split_at(length.min(rest.len()));
        text.push_str(&String::from_utf8_lossy(frame));
        logs = others;
    }
    text
}

/// Compares what the two engines show.
fn compare(rows: &[Row]) {
    let Some(peer) = Peer::dockerd() else {
        panic!("dockerd is not installed: run scripts/install-deps.sh test");
    };
    let ponton = Daemon::start();
    prepare(&peer.api());
    prepare(&ponton.api());
    let ours = |row: &Row, name: &str| shown(&ponton.api(), ponton.pid(), row, name);
    let theirs = |row: &Row, name: &str| shown(&peer.api(), peer.pid(), row, name);
    fields::compare(rows, ours, theirs, told);
}

#[test]
fn every_field_does_what_it_does_on_dockerd() {
    let rows = [
        config_rows(),
        limits::limit_rows(),
        limits::device_limit_rows(),
        limits::device_rows(),
        namespace_rows(),
        right_rows(),
        other_rows(),
    ];
    compare(&rows.into_iter().flatten().collect::<Vec<_>>());
}

#[test]
fn mounts_and_networks_are_what_they_are_on_dockerd() {
    let tree = mounts::Tree::new();
    let rows = [mounts::rows(&tree), mounts::health_and_log_rows(), networks::rows()];
    compare(&rows.into_iter().flatten().collect::<Vec<_>>());
}
