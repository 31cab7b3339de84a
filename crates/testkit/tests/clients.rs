//! Clients that users have already: docker's command line with terminals and streams, docker-compose, PyPI's docker.
#![allow(clippy::expect_used, reason = "a test program")]

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc::channel;

use ponton_testkit::{Daemon, Terminal, daemon, image, wait};

/// A client's command on a terminal.
fn on_terminal(daemon: &Daemon, client: &str, args: &[&str]) -> Terminal {
    Terminal::spawn(&daemon.client(client, args))
}

#[test]
fn dockers_python_client() {
    let daemon = Daemon::start();
    let script = image::project().join("crates/testkit/tests/clients/docker_sdk.py");
    let ran = daemon::run(&mut daemon.client("/usr/bin/python3", &[&script.to_string_lossy()]), b"");
    assert_eq!(ran.ok(), "docker SDK: done");
}

#[test]
fn docker_compose_1_29() {
    let daemon = Daemon::start();
    let file = daemon.path("docker-compose.yml");
    std::fs::write(&file, "version: '3'\nservices:\n  web:\n    image: busybox\n    command: sleep 1000\n")
        .expect("write");
    let compose = |args: &[&str]| {
        let file = file.to_string_lossy();
        daemon::run(&mut daemon.client("docker-compose", &[&["-f", &file], args].concat()), b"")
    };
    assert!(compose(&["version"]).ok().contains("docker-compose version 1.29"));
    let listed = compose(&["ps"]).ok();
    assert!(listed.contains("Name"), "{listed}");
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
