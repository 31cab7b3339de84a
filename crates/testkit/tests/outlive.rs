//! Containers outlive the daemon and its shims: their output, ports and exit codes too.
#![allow(clippy::expect_used, reason = "a test program")]

use std::fs;

use ponton_testkit::{Api, Daemon, leak, wait};
use serde_json::json;

#[test]
fn the_next_daemon_takes_up_logs_wait_and_exec() {
    let mut daemon = Daemon::start();
    daemon
        .ponton(&[
            "run",
            "-d",
            "--name",
            "ticker",
            "busybox",
            "sh",
            "-c",
            "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done",
        ])
        .ok();
    daemon
        .ponton(&[
            "run",
            "-d",
            "--name",
            "ends",
            "busybox",
            "sh",
            "-c",
            "while [ ! -e /go ]; do sleep 0.01; done; echo bye; exit 33",
        ])
        .ok();
    let pid: u32 = daemon.ponton(&["inspect", "-f", "{{.State.Pid}}", "ends"]).ok().parse().expect("a pid");
    daemon.kill();
    // It ends while no daemon lives.
    fs::write(format!("/proc/{pid}/root/go"), "").expect("touch /go");
    wait::until("its end", || (!fs::exists(format!("/proc/{pid}/root/go")).unwrap_or(false)).then_some(()));
    daemon.spawn();
    assert_eq!(daemon.ponton(&["wait", "ends"]).ok(), "33");
    assert_eq!(daemon.ponton(&["logs", "ends"]).ok(), "bye");
    assert_eq!(daemon.ponton(&["exec", "ticker", "echo", "here"]).ok(), "here");
    let logs = daemon.ponton(&["logs", "ticker"]).ok();
    let numbers: Vec<u64> = logs.lines().map(|line| line.parse().expect("a number")).collect();
    assert!(
        numbers.iter().enumerate().all(|(index, number)| index as u64 == *number),
        "no line is lost or doubled"
    );
    let before = numbers.len();
    wait::until("more lines", || {
        (daemon.ponton(&["logs", "ticker"]).ok().lines().count() > before).then_some(())
    });
}

#[test]
fn execs_are_found_again() {
    let mut daemon = Daemon::start();
    daemon.ponton(&["run", "-d", "--name", "host", "busybox", "sleep", "1000"]).ok();
    let exec = |api: &Api, script: &str| {
        let body = json!({"Cmd": ["sh", "-c", script]});
        let made = api.request("POST", "/containers/host/exec", Some(&body)).expect(201);
        let id = made.json()["Id"].as_str().expect("an id").to_owned();
        api.request("POST", &format!("/exec/{id}/start"), Some(&json!({"Detach": true}))).expect(200);
        id
    };
    let state = |api: &Api, id: &str| {
        let seen = api.get(&format!("/exec/{id}/json")).expect(200).json();
        (seen["Running"].as_bool(), seen["ExitCode"].as_i64())
    };
    let ended = |api: &Api, id: &str| {
        wait::until("the end of an exec", || (state(api, id).0 == Some(false)).then_some(()));
        state(api, id).1
    };
    let before = exec(&daemon.api(), "exit 3");
    assert_eq!(ended(&daemon.api(), &before), Some(3));
    let meanwhile = exec(&daemon.api(), "while [ ! -e /go ]; do sleep 0.01; done; exit 4");
    let after = exec(&daemon.api(), "while [ ! -e /on ]; do sleep 0.01; done; exit 5");
    let pid = daemon.ponton(&["inspect", "-f", "{{.State.Pid}}", "host"]).ok();
    let worker = daemon.api().get(&format!("/exec/{meanwhile}/json")).expect(200).json()["Pid"].clone();
    daemon.kill();
    fs::write(format!("/proc/{pid}/root/go"), "").expect("touch /go");
    wait::until("its end", || (!fs::exists(format!("/proc/{worker}")).unwrap_or(false)).then_some(()));
    daemon.spawn();
    assert_eq!(state(&daemon.api(), &before), (Some(false), Some(3)));
    assert_eq!(state(&daemon.api(), &meanwhile), (Some(false), Some(4)));
    assert_eq!(state(&daemon.api(), &after), (Some(true), None));
    daemon.kill_and_restart();
    fs::write(format!("/proc/{pid}/root/on"), "").expect("touch /on");
    assert_eq!(ended(&daemon.api(), &after), Some(5));
}

#[test]
fn ports_stay_open_without_the_daemon() {
    let mut daemon = Daemon::start();
    daemon
        .ponton(&[
            "run",
            "-d",
            "--name",
            "web",
            "-p",
            "8080:80",
            "busybox",
            "sh",
            "-c",
            "mkdir /www; echo page > /www/index.html; exec httpd -f -h /www",
        ])
        .ok();
    let fetch = |daemon: &Daemon| {
        let mut command = daemon.in_namespace("/bin/busybox".as_ref());
        ponton_testkit::daemon::run(command.args(["wget", "-q", "-O", "-", "http://127.0.0.1:8080/"]), b"")
    };
    wait::until("the page", || (fetch(&daemon).stdout == "page\n").then_some(()));
    daemon.kill();
    assert_eq!(fetch(&daemon).ok(), "page");
    daemon.spawn();
    assert_eq!(fetch(&daemon).ok(), "page");
    // A daemon that is told to stop leaves the network too, as long as a container uses it.
    daemon.stop();
    assert_eq!(fetch(&daemon).ok(), "page");
    daemon.spawn();
    let taken = daemon.ponton(&["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    assert_eq!(taken.code, 125, "{taken:?}");
    daemon.ponton(&["rm", "-f", "web"]).ok();
    assert_ne!(fetch(&daemon).code, 0);
}

#[test]
fn a_killed_shim_costs_no_container_its_life() {
    let daemon = Daemon::start();
    daemon
        .ponton(&[
            "run",
            "-d",
            "--name",
            "ticker",
            "busybox",
            "sh",
            "-c",
            "while :; do echo tick; sleep 0.01; done",
        ])
        .ok();
    daemon.ponton(&["run", "-dit", "--name", "shell", "busybox", "sh"]).ok();
    daemon
        .ponton(&[
            "run",
            "-di",
            "--name",
            "reader",
            "busybox",
            "sh",
            "-c",
            "read line; echo got $line; exit 21",
        ])
        .ok();
    let pid = daemon.ponton(&["inspect", "-f", "{{.State.Pid}}", "ticker"]).ok();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("PPid").trim().to_owned();
    assert!(fs::read_to_string(format!("/proc/{shim}/cmdline")).expect("cmdline").contains("shim"));
    ponton_testkit::daemon::run(std::process::Command::new("kill").args(["-9", &shim]), b"").ok();
    let before = daemon.ponton(&["logs", "ticker"]).ok().lines().count();
    wait::until("output through the successor", || {
        (daemon.ponton(&["logs", "ticker"]).ok().lines().count() > before + 5).then_some(())
    });
    for name in ["ticker", "shell", "reader"] {
        assert_eq!(daemon.ponton(&["inspect", "-f", "{{.State.Running}}", name]).ok(), "true", "{name}");
    }
    // As in Docker, a client that ends its input is let go at once: what comes after is in the log.
    let mut attach = daemon.client("ponton", &["attach", "reader"]);
    let seen = ponton_testkit::daemon::run(&mut attach, b"typed\n");
    // Where the kernel does not tell, the client says so, and ends as at any other error of the engine.
    let (code, of_client) = if kernel_tells_exits() { (21, 21) } else { (255, 125) };
    assert_eq!(seen.code, of_client, "{seen:?}");
    assert_eq!(daemon.ponton(&["logs", "reader"]).ok(), "got typed");
    assert_eq!(daemon.ponton(&["wait", "reader"]).ok(), code.to_string());
    assert_eq!(daemon.ponton(&["exec", "shell", "echo", "alive"]).ok(), "alive");
}

/// Whether a process that is no child's exit code can be known: by a pidfd, since Linux 6.15.
fn kernel_tells_exits() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("osrelease");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

#[test]
fn nothing_is_left_behind() {
    let mut daemon = Daemon::start();
    let pid = daemon.namespace_pid();
    daemon.ponton(&["run", "--rm", "busybox", "true"]).ok();
    daemon.stop();
    // The kernel takes the prepared namespaces of a daemon down some time after its end.
    let before = wait::until("prepared links to be gone", || {
        Some(leak::Network::of(pid)).filter(|found| !found.links.iter().any(|link| link.starts_with("veth")))
    });
    daemon.spawn();
    for n in 0..10 {
        let port = format!("{}:80", 9000 + n);
        daemon
            .ponton(&[
                "run",
                "-d",
                "--name",
                &format!("c{n}"),
                "-p",
                &port,
                "-v",
                "/vol",
                "busybox",
                "sleep",
                "1000",
            ])
            .ok();
    }
    let ids: Vec<String> =
        daemon.ponton(&["ps", "-q", "--no-trunc"]).ok().lines().map(str::to_owned).collect();
    assert_eq!(ids.len(), 10);
    for n in 0..10 {
        daemon.ponton(&["rm", "-f", "-v", &format!("c{n}")]).ok();
    }
    daemon.stop();
    wait::until("cgroups to be gone", || leak::cgroups_of(&ids).is_empty().then_some(()));
    assert_eq!(leak::mounts_under(&daemon.path("")), Vec::<String>::new());
    wait::until("shims to be gone", || {
        let mut left = daemon.processes();
        left.retain(|p| *p != pid);
        left.is_empty().then_some(())
    });
    let veths_are_gone = || (leak::Network::of(pid).links == before.links).then_some(());
    wait::until("links as before", veths_are_gone);
    assert_eq!(leak::Network::of(pid).rules, before.rules);
    assert_eq!((before.links.contains("ponton0"), before.rules.as_str()), (false, ""), "the bridge is gone");
}

#[test]
fn a_second_daemon_is_refused() {
    let daemon = Daemon::start_empty(&[]);
    let mut second = daemon.in_namespace(&ponton_testkit::daemon::binaries().join("ponton"));
    second.args(["daemon", "-H", &format!("unix://{}", daemon.path("second.sock").display())]);
    second.args([
        "--data-root",
        &daemon.path("data").to_string_lossy(),
        "--exec-root",
        &daemon.path("run2").to_string_lossy(),
    ]);
    let ran = ponton_testkit::daemon::run(&mut second, b"");
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains(&daemon.pid().to_string()) && ran.stderr.contains("data"), "{}", ran.stderr);
}

#[test]
fn the_configuration_file_is_checked() {
    let daemon = Daemon::start_empty(&[]);
    let file = daemon.path("daemon.json");
    fs::write(&file, r#"{"log-level": "info", "nosuch": 1, "other": true}"#).expect("write");
    let mut second = daemon.in_namespace(&ponton_testkit::daemon::binaries().join("ponton"));
    second.args([
        "daemon",
        "--config-file",
        &file.to_string_lossy(),
        "--data-root",
        &daemon.path("data2").to_string_lossy(),
    ]);
    second.args([
        "--exec-root",
        &daemon.path("run2").to_string_lossy(),
        "-H",
        &format!("unix://{}", daemon.path("s.sock").display()),
    ]);
    let ran = ponton_testkit::daemon::run(&mut second, b"");
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("nosuch") && ran.stderr.contains("other"), "{}", ran.stderr);
}
