//! `ponton explain`: what it says is compared with what the kernel shows inside of the container.
#![allow(clippy::expect_used, reason = "a test program")]

use ponton_testkit::{Daemon, Terminal, wait};
use serde_json::Value;

fn explain(daemon: &Daemon, name: &str) -> Value {
    daemon.api().get(&format!("/ponton/containers/{name}/explain")).expect(200).json()
}

fn named<'a>(list: &'a Value, key: &str, name: &str) -> &'a Value {
    let list = list.as_array().expect("a list");
    list.iter().find(|item| item[key] == name).unwrap_or_else(|| panic!("no {name} in {list:?}"))
}

/// A word of the output of a command in a container.
fn inside(daemon: &Daemon, name: &str, script: &str) -> String {
    daemon.ponton(&["exec", name, "sh", "-c", script]).ok()
}

#[test]
fn what_it_says_is_what_the_container_sees() {
    let daemon = Daemon::start();
    daemon.ponton(&["volume", "create", "data"]).ok();
    daemon
        .ponton(&[
            "run",
            "-d",
            "--name",
            "web",
            "-m",
            "64m",
            "--cpus",
            "0.5",
            "--pids-limit",
            "50",
            "-p",
            "18080:80",
            "-v",
            "data:/data:ro",
            "--tmpfs",
            "/scratch",
            "--cap-drop",
            "ALL",
            "--cap-add",
            "NET_BIND_SERVICE",
            "--security-opt",
            "no-new-privileges",
            "--ulimit",
            "nofile=100:200",
            "--restart",
            "on-failure:3",
            "busybox",
            "sh",
            "-c",
            "sleep 1000; true",
        ])
        .ok();
    let web = explain(&daemon, "web");
    assert_eq!(
        (&web["Name"], &web["Status"], &web["Image"]),
        (&"web".into(), &"running".into(), &"busybox".into())
    );

    for kind in ["ipc", "mnt", "net", "pid", "uts", "cgroup"] {
        let link = inside(&daemon, "web", &format!("readlink /proc/1/ns/{kind}"));
        let namespace = named(&web["Namespaces"], "Kind", kind);
        assert_eq!(link, format!("{kind}:[{}]", namespace["Id"]));
        assert_eq!(namespace["Host"], false, "{kind}");
        assert_eq!(namespace["SharedWith"], Value::Array(vec![]), "{kind}");
    }
    assert_eq!(named(&web["Namespaces"], "Kind", "user")["Host"], true);

    let limits = &web["Cgroup"]["Limits"];
    let memory = named(limits, "Name", "memory");
    assert_eq!((&memory["Value"], &memory["Agrees"]), (&"67108864".into(), &true.into()));
    assert!(memory["Used"].as_str().and_then(|used| used.parse::<u64>().ok()).expect("a number") > 0);
    assert_eq!(named(limits, "Name", "pids-limit")["Value"], "50");
    assert!(limits.as_array().expect("limits").iter().all(|limit| limit["Agrees"] == true), "{limits}");

    let security = &web["Security"];
    let mask = inside(&daemon, "web", "grep CapEff /proc/1/status");
    assert_eq!(mask, "CapEff:\t0000000000000400");
    assert_eq!(security["Effective"], serde_json::json!(["CAP_NET_BIND_SERVICE"]));
    assert_eq!((&security["NoNewPrivileges"], &security["Seccomp"]), (&true.into(), &"filter".into()));
    assert_eq!(security["SeccompProfile"], "default");
    let files = named(&web["Rlimits"], "Name", "nofile");
    assert_eq!((&files["Soft"], &files["Hard"]), (&"100".into(), &"200".into()));

    let table = inside(&daemon, "web", "cut -d' ' -f5 /proc/self/mountinfo");
    let shown: Vec<&str> = web["Mounts"]
        .as_array()
        .expect("mounts")
        .iter()
        .filter_map(|mount| mount["Destination"].as_str())
        .collect();
    assert_eq!(shown, table.lines().collect::<Vec<_>>());
    let data = named(&web["Mounts"], "Destination", "/data");
    assert_eq!((&data["Origin"], &data["Source"]), (&"volume".into(), &"data".into()));
    assert!(data["Options"].as_str().expect("options").starts_with("ro"), "{data}");
    assert_eq!(named(&web["Mounts"], "Destination", "/scratch")["Origin"], "tmpfs");
    assert_eq!(named(&web["Mounts"], "Destination", "/etc/hosts")["Origin"], "engine");
    assert_eq!(named(&web["Mounts"], "Destination", "/")["Origin"], "image");

    let network = &web["Network"];
    let eth0 = named(&network["Interfaces"], "Name", "eth0");
    assert_eq!(eth0["Mac"], inside(&daemon, "web", "cat /sys/class/net/eth0/address").as_str());
    let address = inside(&daemon, "web", "ip -4 addr show eth0 | grep inet | awk '{print $2}'");
    assert_eq!(eth0["Addresses"][0], address.as_str());
    assert!(!eth0["Peer"].as_str().expect("a name").is_empty(), "{eth0}");
    assert!(!eth0["Bridge"].as_str().expect("a name").is_empty(), "{eth0}");
    let port = &network["Ports"][0];
    assert_eq!(
        (&port["HostPort"], &port["ContainerPort"], &port["InForce"]),
        (&18080.into(), &80.into(), &true.into())
    );

    // The shell may not have started its child yet.
    let web = wait::until("the shell's child", || {
        let web = explain(&daemon, "web");
        let processes = web["Processes"].as_array().expect("processes");
        let is_child = |process: &Value| process["Command"] == "sleep 1000" && process["Depth"] == 1;
        processes.iter().any(is_child).then_some(web)
    });
    let first = &web["Processes"][0];
    assert_eq!((&first["ContainerPid"], &first["Depth"]), (&1.into(), &0.into()));
    assert_eq!(web["Restart"]["Policy"]["Name"], "on-failure");
    assert!(!web["Root"]["Layers"].as_array().expect("layers").is_empty());
}

#[test]
fn what_is_shared_is_named() {
    let daemon = Daemon::start();
    daemon.ponton(&["run", "-d", "--name", "first", "busybox", "sleep", "1000"]).ok();
    let join = ["--network", "container:first", "--pid", "host"];
    daemon
        .ponton(&[&["run", "-d", "--name", "second"], &join[..], &["busybox", "sleep", "1000"]].concat())
        .ok();
    let (first, second) = (explain(&daemon, "first"), explain(&daemon, "second"));
    assert_eq!(named(&first["Namespaces"], "Kind", "net")["SharedWith"], serde_json::json!(["second"]));
    assert_eq!(named(&second["Namespaces"], "Kind", "net")["SharedWith"], serde_json::json!(["first"]));
    assert_eq!(named(&second["Namespaces"], "Kind", "pid")["Host"], true);
    assert_eq!(named(&second["Namespaces"], "Kind", "mnt")["SharedWith"], Value::Array(vec![]));
}

#[test]
fn limits_that_somebody_changed_are_told() {
    let daemon = Daemon::start();
    let id = daemon.ponton(&["run", "-d", "--name", "box", "-m", "64m", "busybox", "sleep", "1000"]).ok();
    let path = explain(&daemon, "box")["Cgroup"]["Path"].as_str().expect("a path").to_owned();
    assert!(path.contains(&id), "{path}");
    let (v1, v2) = (
        format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"),
        format!("/sys/fs/cgroup{path}/memory.max"),
    );
    let file = if std::path::Path::new(&v1).exists() { v1 } else { v2 };
    std::fs::write(&file, "33554432").expect("write the limit");
    let memory = explain(&daemon, "box")["Cgroup"]["Limits"].clone();
    assert_eq!(named(&memory, "Name", "memory")["Agrees"], false);
    // A line may go on in the next.
    let page = daemon.ponton(&["explain", "box"]).ok().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(page.contains("32MiB") && page.contains("NOT what was asked for, 64MiB"), "{page}");
}

#[test]
fn the_page_fits_terminals_and_formats_are_obeyed() {
    let daemon = Daemon::start();
    daemon.ponton(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    assert_eq!(daemon.ponton(&["explain", "-f", "{{.Name}} {{.Root.Driver}}", "box"]).ok(), {
        let driver = daemon.ponton(&["inspect", "-f", "{{.Driver}}", "box"]).ok();
        format!("box {driver}")
    });
    let json = daemon.ponton(&["container", "explain", "--format", "json", "box"]).ok();
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["Name"], "box");
    let widest = |text: &str| text.lines().map(|line| line.trim_end().chars().count()).max().unwrap_or(0);
    assert!(widest(&daemon.ponton(&["explain", "box"]).ok()) <= 80);
    let mut terminal = Terminal::spawn(&daemon.client("ponton", &["explain", "box"]));
    terminal.expect("Restart and health");
    assert_eq!(terminal.end(), 0);

    daemon.ponton(&["kill", "box"]).ok();
    daemon.ponton(&["wait", "box"]).ok();
    let stopped = daemon.ponton(&["explain", "box"]).ok();
    assert!(stopped.contains("exited") && stopped.contains("It does not run"), "{stopped}");
    let missing = daemon.ponton(&["explain", "nosuch"]);
    assert_eq!(
        (missing.code, missing.stderr.as_str()),
        (1, "Error response from daemon: No such container: nosuch\n")
    );
}
