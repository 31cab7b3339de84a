//! Clients that users have already: docker's command line with terminals and streams, docker-compose, and the libraries
//! of other languages.
#![allow(clippy::expect_used, reason = "a test program")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::channel;

use ponton_testkit::{Daemon, Terminal, daemon, image, wait};

/// A client's command on a terminal.
fn on_terminal(daemon: &Daemon, client: &str, args: &[&str]) -> Terminal {
    Terminal::spawn(&daemon.client(client, args))
}

/// Runs a client's script on a fresh daemon; nothing may be left when it is done.
fn tour(program: &Path, script: &[&str], says: &str) {
    let daemon = Daemon::start();
    let mut command = daemon.client(&program.to_string_lossy(), script);
    // What testcontainers would clean up with comes from a registry.
    command.env("TESTCONTAINERS_RYUK_DISABLED", "true");
    command.env("NODE_PATH", library("node").join("node_modules"));
    assert_eq!(daemon::run(&mut command, b"").ok(), says);
    assert_eq!(daemon.ponton(&["ps", "-aq"]).ok(), "");
    assert_eq!(daemon.ponton(&["volume", "ls", "-q"]).ok(), "");
}

fn script(name: &str) -> String {
    image::project().join("crates/testkit/tests/clients").join(name).to_string_lossy().into_owned()
}

fn library(name: &str) -> PathBuf {
    image::project().join(".cache/clients").join(name)
}

/// Whether `scripts/install-deps.sh clients` could install it. Where its registry can't be reached, that is said past
/// the test's captured output.
fn is_installed(name: &str) -> bool {
    let Ok(why) = fs::read_to_string(library(&format!("{name}.missing"))) else { return true };
    let line = format!("SKIPPED: the client library '{name}' could not be installed here: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("stderr");
    false
}

#[test]
fn debians_python_client() {
    tour(Path::new("/usr/bin/python3"), &[&script("docker_sdk.py")], "docker SDK: done");
}

#[test]
fn pypis_python_client() {
    if is_installed("python") {
        tour(&library("python/bin/python"), &[&script("docker_sdk.py")], "docker SDK: done");
    }
}

#[test]
fn testcontainers() {
    if is_installed("python") {
        tour(&library("python/bin/python"), &[&script("testcontainers_tour.py")], "testcontainers: done");
    }
}

#[test]
fn dockerode() {
    if is_installed("node") {
        tour(Path::new("node"), &[&script("dockerode.js")], "dockerode: done");
    }
}

#[test]
fn bollard() {
    if is_installed("bollard") {
        tour(&library("bollard/debug/tour"), &[], "bollard: done");
    }
}

#[test]
fn docker_compose_1_29() {
    let daemon = Daemon::start();
    let file = script("docker-compose.yml");
    let compose = |args: &[&str]| {
        let ran = daemon::run(
            &mut daemon.client("docker-compose", &[&["-f", &file, "-p", "tour"], args].concat()),
            b"",
        );
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran.stdout
    };
    let up = |service: &str| {
        let listed = compose(&["ps"]);
        listed.lines().filter(|line| line.contains(service) && line.contains(" Up ")).count()
    };
    assert!(compose(&["version"]).contains("docker-compose version 1.29"));
    compose(&["up", "-d"]);
    assert_eq!((up("store"), up("web")), (1, 1));
    compose(&["up", "-d", "--scale", "web=3"]);
    assert_eq!((up("store"), up("web")), (1, 3));
    let ports = (1..=3).map(|n| compose(&["port", "--index", &n.to_string(), "web", "80"]));
    assert_eq!(ports.collect::<BTreeSet<_>>().len(), 3, "each has a port of its own");
    let is_told = |logs: &str| (1..=3).all(|n| logs.contains(&format!("web_{n}    | web serves stored")));
    wait::until("all lines", || Some(compose(&["logs", "--no-color"])).filter(|logs| is_told(logs)));
    assert_eq!(
        compose(&["logs", "--no-color", "--tail", "1", "store"]).lines().last(),
        Some("store_1  | store ready")
    );
    assert_eq!(compose(&["exec", "-T", "web", "sh", "-c", "cat /data/page; ulimit -n"]), "stored\n128\n");
    assert!(compose(&["top", "store"]).contains("sleep 1000"));
    assert_eq!(compose(&["ps", "-q"]).lines().count(), 4);
    compose(&["pause", "store"]);
    assert!(compose(&["ps"]).contains("Paused"));
    compose(&["unpause", "store"]);
    compose(&["stop", "web"]);
    assert_eq!((up("store"), up("web")), (1, 0));
    compose(&["start", "web"]);
    compose(&["restart", "web"]);
    assert_eq!((up("store"), up("web")), (1, 3));
    compose(&["up", "-d", "--scale", "web=1"]);
    assert_eq!((up("store"), up("web")), (1, 1));
    compose(&["run", "--rm", "-T", "--no-deps", "store", "true"]);
    compose(&["down", "-v"]);
    assert_eq!(daemon.ponton(&["ps", "-aq"]).ok(), "");
    assert_eq!(daemon.ponton(&["volume", "ls", "-q"]).ok(), "");
}

#[test]
fn docker_cli_whole_tour() {
    let daemon = Daemon::start();
    for client in ["docker", "ponton"] {
        let run = |args: &[&str]| daemon::run(&mut daemon.client(client, args), b"");
        assert!(run(&["version"]).ok().contains("Server"), "{client}");
        assert!(run(&["info"]).ok().contains("Storage Driver"), "{client}");
        let tar = daemon.path(&format!("{client}.tar"));
        let tar = tar.to_string_lossy();
        run(&["save", "-o", &tar, "busybox"]).ok();
        assert!(run(&["load", "-i", &tar]).ok().contains("Loaded image: busybox:latest"), "{client}");
        assert!(run(&["images"]).ok().contains("busybox"), "{client}");
        assert_eq!(run(&["run", "--rm", "busybox", "echo", "hello"]).ok(), "hello");
        let name = format!("tour-{client}");
        let script = "test -t 0 && tty && stty size; read line; echo got $line; until [ \"$(stty size)\" = '30 100' ]; do sleep 0.01; done; echo resized; exit 4";
        let mut terminal =
            on_terminal(&daemon, client, &["run", "-it", "--rm", "busybox", "sh", "-c", script]);
        terminal.expect("/dev/");
        terminal.expect("24 80");
        terminal.send("typed\r");
        terminal.expect("got typed");
        terminal.resize_until(30, 100, "resized");
        assert_eq!(terminal.end(), 4, "{client}");
        run(&[
            "run",
            "-d",
            "--name",
            &name,
            "busybox",
            "sh",
            "-c",
            "while :; do echo tick; sleep 0.02; done",
        ])
        .ok();
        assert!(run(&["ps"]).ok().contains(&name), "{client}");
        assert!(run(&["inspect", &name]).ok().contains("\"Running\": true"), "{client}");
        follow_logs(&daemon, client, &name);
        let script = "test -t 1 && echo terminal; sleep 1000";
        let mut terminal = on_terminal(&daemon, client, &["exec", "-it", &name, "sh", "-c", script]);
        terminal.expect("terminal");
        terminal.send("\x03");
        assert_eq!(terminal.end(), 130, "{client}: Ctrl-C reaches the program");
        run(&["cp", &format!("{name}:/etc/passwd"), &daemon.path("passwd").to_string_lossy()]).ok();
        run(&["cp", &daemon.path("passwd").to_string_lossy(), &format!("{name}:/copied")]).ok();
        assert!(run(&["exec", &name, "cat", "/copied"]).ok().starts_with("root:"), "{client}");
        run(&["stop", "-t", "0", &name]).ok();
        run(&["start", &name]).ok();
        run(&["kill", &name]).ok();
        run(&["rm", "-f", &name]).ok();
        let events = run(&[
            "events",
            "--since",
            "10m",
            "--until",
            "0s",
            "--filter",
            &format!("container={name}"),
            "--format",
            "{{.Action}}",
        ]);
        assert_eq!(events.code, 0, "{client}: {events:?}");
    }
}

fn follow_logs(daemon: &Daemon, client: &str, name: &str) {
    let mut follower = daemon
        .client(client, &["logs", "-f", name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("logs -f");
    let mut lines = BufReader::new(follower.stdout.take().expect("stdout")).lines();
    for _ in 0..5 {
        assert_eq!(lines.next().expect("a line").expect("read"), "tick", "{client}");
    }
    follower.kill().expect("kill");
    follower.wait().expect("wait");
}

#[test]
fn events_are_told_once_and_in_order() {
    let daemon = Daemon::start();
    let mut listener = daemon
        .client("docker", &["events", "--format", "{{.Action}}"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("events");
    let mut lines = BufReader::new(listener.stdout.take().expect("stdout")).lines();
    let (is_there, listening) = channel();
    let heard = std::thread::spawn(move || {
        let mut heard: Vec<String> = Vec::new();
        while heard.last().is_none_or(|last| last != "destroy") {
            heard.push(lines.next().expect("a line").expect("read"));
            let _ = is_there.send(());
        }
        heard.retain(|action| action != "tag");
        heard
    });
    // The listener is there once it hears of an image's tag.
    wait::until("the listener", || {
        daemon.docker(&["tag", "busybox", "heard"]).ok();
        listening.try_recv().ok()
    });
    daemon.docker(&["run", "--rm", "--name", "told", "busybox", "true"]).ok();
    let heard = heard.join().expect("listener");
    listener.kill().expect("kill");
    listener.wait().expect("wait");
    assert_eq!(heard, ["create", "attach", "connect", "start", "die", "disconnect", "destroy"]);
}

#[test]
fn detach_keys_leave_the_container_running() {
    let daemon = Daemon::start();
    daemon.docker(&["run", "-dit", "--name", "shell", "busybox", "sh"]).ok();
    for client in ["docker", "ponton"] {
        let mut terminal = on_terminal(&daemon, client, &["attach", "shell"]);
        terminal.send("echo ty''ped\r");
        terminal.expect("typed");
        terminal.send("\x10\x11");
        // docker's own words, and its exit code for them.
        terminal.expect("read escape sequence");
        assert_eq!(terminal.end(), 1, "{client}");
        assert_eq!(daemon.docker(&["inspect", "-f", "{{.State.Running}}", "shell"]).ok(), "true", "{client}");
    }
    assert!(daemon.docker(&["logs", "shell"]).ok().contains("typed"));
}
