//! Containers of a registered OCI runtime: Debian's runc does what our own runtime does.
#![allow(clippy::expect_used, reason = "a test program")]

use std::fs;
use std::path::PathBuf;

use ponton_testkit::{Daemon, image, wait};
use serde_json::{Value, json};

/// runc, which is installed with Debian's dockerd.
fn runc() -> PathBuf {
    let path = std::env::var_os("PATH").expect("PATH");
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = places.into_iter().map(|place| place.join("runc")).find(|path| path.exists());
    found.expect("runc is not installed: run scripts/install-deps.sh test")
}

fn daemon() -> Daemon {
    let flag = format!("--add-runtime=runc={}", runc().display());
    let daemon = Daemon::start_empty(&[&flag, "--default-runtime=runc"]);
    let tar = image::busybox();
    daemon.ponton(&["image", "import", "--change", "CMD [\"sh\"]", &tar.to_string_lossy(), "busybox"]).ok();
    daemon
}

#[test]
fn another_runtime_runs_containers() {
    let daemon = daemon();
    let run = |args: &[&str]| daemon.ponton(&[&["run", "--rm"], args].concat());
    assert_eq!(run(&["busybox", "echo", "out"]).ok(), "out");
    assert_eq!(run(&["busybox", "sh", "-c", "echo err >&2; exit 7"]).code, 7);
    let user = run(&[
        "-u",
        "daemon:1",
        "--group-add",
        "29",
        "busybox",
        "sh",
        "-c",
        "id -u; id -g; id -G; echo $HOME",
    ]);
    let user = user.ok();
    assert!(user.starts_with("1\n1\n"), "{user}");
    assert_eq!(run(&["-t", "busybox", "sh", "-c", "test -t 0 && echo tty"]).ok(), "tty");
    assert_eq!(run(&["--network", "none", "busybox", "ls", "/sys/class/net"]).ok(), "lo");
    assert_eq!(run(&["--init", "busybox", "sh", "-c", "cat /proc/1/comm"]).ok(), "docker-init");
    assert_eq!(run(&["busybox", "/nosuch"]).code, 127);
    assert_eq!(run(&["busybox", "/etc/passwd"]).code, 126);
    let refused = run(&["--runtime", "nosuch", "busybox", "true"]);
    assert!(
        refused.code == 125 && refused.stderr.contains("unknown or invalid runtime name: nosuch"),
        "{refused:?}"
    );
    assert_eq!(run(&["--runtime", "ponton-runtime", "busybox", "echo", "own"]).ok(), "own");
    let info = daemon.api().get("/info").json();
    assert_eq!(
        (&info["DefaultRuntime"], info["Runtimes"]["runc"]["path"].is_string()),
        (&json!("runc"), true)
    );
    // What is below the daemon's own directories is gone with the containers.
    wait::until("the bundles' removal", || is_empty(&daemon.path("run/bundles")).then_some(()));
    assert!(is_empty(&daemon.path("run/runtimes/runc")), "runc's state is left");
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", daemon.pid())).expect("mountinfo");
    assert!(!mounts.contains(&*daemon.path("run/bundles").to_string_lossy()), "{mounts}");
}

fn is_empty(directory: &std::path::Path) -> bool {
    fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}

#[test]
fn another_runtimes_containers_are_managed_as_our_own() {
    let mut daemon = daemon();
    daemon
        .ponton(&[
            "run",
            "-d",
            "--name",
            "box",
            "-m",
            "64m",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done",
        ])
        .ok();
    let state =
        |daemon: &Daemon| -> Value { daemon.api().get("/containers/box/json").json()["State"].clone() };
    assert_eq!(daemon.ponton(&["exec", "box", "sh", "-c", "echo $0 in; exit 5"]).code, 5);
    assert_eq!(
        daemon
            .ponton(&["exec", "-u", "1", "-w", "/tmp", "-e", "A=b", "box", "sh", "-c", "id -u; pwd; echo $A"])
            .ok(),
        "1\n/tmp\nb"
    );
    assert_eq!(daemon.ponton(&["exec", "-t", "box", "sh", "-c", "test -t 1 && echo tty"]).ok(), "tty");
    assert_eq!(daemon.ponton(&["exec", "box", "/nosuch"]).code, 127);
    daemon.ponton(&["pause", "box"]).ok();
    assert_eq!(state(&daemon)["Status"], "paused");
    daemon.ponton(&["unpause", "box"]).ok();
    daemon.ponton(&["update", "-m", "80m", "--memory-swap", "80m", "box"]).ok();
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true";
    assert_eq!(daemon.ponton(&["exec", "box", "sh", "-c", limit]).ok(), (80 << 20).to_string());
    let stats = daemon.api().get("/containers/box/stats?stream=0&one-shot=1").expect(200).json();
    assert!(stats["memory_stats"]["usage"].as_u64().is_some_and(|usage| usage > 0), "{stats}");
    assert!(daemon.ponton(&["top", "box"]).ok().contains("sleep"), "top");
    // The daemon may go and come, as with our own.
    daemon.kill_and_restart();
    assert_eq!(state(&daemon)["Running"], true);
    assert_eq!(daemon.ponton(&["exec", "box", "echo", "again"]).ok(), "again");
    daemon.ponton(&["stop", "box"]).ok();
    assert_eq!(state(&daemon)["ExitCode"], 3);
    assert_eq!(daemon.ponton(&["logs", "box"]).ok(), "up");
    daemon.ponton(&["start", "box"]).ok();
    assert_eq!(daemon.ponton(&["exec", "box", "echo", "twice"]).ok(), "twice");
    daemon.ponton(&["rm", "-f", "box"]).ok();
    wait::until("the bundle's removal", || is_empty(&daemon.path("run/bundles")).then_some(()));
}
