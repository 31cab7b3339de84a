//! The command line, as the engines use it: each step beside runc's where that says what is right.
#![allow(clippy::unwrap_used, reason = "a test program")]

mod fixture;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use ponton_sys::{pty, socket};
use serde_json::{Value, json};

use fixture::{Bundle, PATIENCE, stdout, until, with_host_programs};

fn sleeper() -> Bundle {
    Bundle::new(|spec| spec["process"]["args"] = json!(["sleep", "1000"]))
}

/// A container that is started.
fn running() -> Bundle {
    let bundle = sleeper();
    assert!(bundle.create().status.success());
    assert_ok(&bundle.command(&["start", &bundle.id]));
    bundle
}

#[track_caller]
fn assert_ok(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

#[track_caller]
fn assert_fails(output: &Output, with: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains(with), "{output:?}");
    assert_eq!(text.lines().count(), 1, "one line: {text}");
}

/// One runtime of the two that are compared.
struct Runtime<'a> {
    program: PathBuf,
    root: PathBuf,
    bundle: &'a Bundle,
    id: String,
}

impl Runtime<'_> {
    /// How a step ends: well or not, what of its output can be compared, and which of the words that
    /// engines look for are in its error.
    fn step(&self, args: &[&str]) -> String {
        let args = args.iter().map(|arg| if *arg == "ID" { self.id.as_str() } else { arg });
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(args.clone()).current_dir(self.bundle.path());
        let output = self.bundle.finish(&mut command);
        let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
        let words: Vec<_> = WORDS.iter().filter(|word| text.contains(**word)).collect();
        let args: Vec<_> = args.map(|arg| arg.replace(&self.id, "ID")).collect();
        // A command that is refused may print how it is used.
        let is_told = output.status.success() || args[0] == "exec";
        let shown =
            if is_told { shown(&args, &String::from_utf8_lossy(&output.stdout)) } else { String::new() };
        let code = if text.is_empty() { output.status.code() } else { None };
        format!("{} -> {} {code:?} {words:?} {shown}", args.join(" "), output.status.success())
    }
}

/// What containerd, dockerd and podman look for in the text of an error.
const WORDS: [&str; 9] = [
    "does not exist",
    "already exists",
    "container not running",
    "executable file not found",
    "permission denied",
    "cannot start an already running container",
    "cannot start a container that has stopped",
    "cannot exec in a paused container",
    "container not paused",
];

/// The keys and the status of a state, the number of entries of a list; other output as it is.
fn shown(args: &[String], output: &str) -> String {
    match serde_json::from_str::<Value>(output) {
        Ok(Value::Object(state)) if args[0] == "state" => {
            let keys: Vec<_> = state.keys().map(String::as_str).collect();
            let status = state["status"].as_str().unwrap_or_default();
            format!("{keys:?} {status} {}", state["pid"] != 0)
        }
        Ok(Value::Array(list)) => format!("{} entries", list.len()),
        Ok(Value::Object(event)) => format!("{:?}", event.keys().collect::<Vec<_>>()),
        _ => output.trim_end().to_owned(),
    }
}

#[test]
fn each_step_ends_as_with_runc() {
    let bundle = sleeper();
    let runtimes = [("ponton", bundle.program()), ("runc", PathBuf::from("runc"))].map(|(name, program)| {
        let (root, id) = (bundle.path().join(format!("{name}-state")), format!("{}-{name}", bundle.id));
        Runtime { program, root, bundle: &bundle, id }
    });
    let steps: &[&[&str]] = &[
        &["state", "ID"],
        &["start", "ID"],
        &["kill", "ID"],
        &["delete", "ID"],
        &["delete", "--force", "ID"],
        &["list", "--quiet"],
        &["create", "a/b"],
        &["create", "--no-such-option", "ID"],
        &["create", "--bundle", "/nosuch", "ID"],
        &["create", "--console-socket", "/nosuch", "ID"],
        &["create", "ID"],
        &["create", "ID"],
        &["state", "ID"],
        &["exec", "ID", "true"],
        &["resume", "ID"],
        &["list", "--format", "json"],
        &["start", "ID"],
        &["start", "ID"],
        &["state", "ID"],
        &["delete", "ID"],
        &["exec", "ID", "sh", "-c", "echo hello; exit 3"],
        &["exec", "--env", "A=b", "--cwd", "/tmp", "ID", "sh", "-c", "echo $A; pwd"],
        &["exec", "--user", "5:6", "-g", "7", "ID", "id"],
        &["exec", "ID", "sh", "-c", "kill -9 $$"],
        &["exec", "ID", "nosuch"],
        &["exec", "ID", "/etc/passwd"],
        &["exec", "--cwd", "relative", "ID", "true"],
        &["exec", "--cap", "CAP_SYS_PTRACE", "ID", "grep", "CapEff", "/proc/self/status"],
        &["exec", "--no-new-privs", "ID", "grep", "NoNewPrivs", "/proc/self/status"],
        &["exec", "--cgroup", "nosuch", "ID", "true"],
        &["ps", "--format", "json", "ID"],
        &["events", "--stats", "ID"],
        &["update", "--memory", "64m", "--memory-swap", "-1", "ID"],
        &["update", "--cpu-share", "512", "--pids-limit", "40", "ID"],
        &["pause", "ID"],
        &["state", "ID"],
        &["pause", "ID"],
        &["exec", "ID", "true"],
        &["delete", "ID"],
        &["resume", "ID"],
        &["resume", "ID"],
        &["kill", "ID", "NOSUCH"],
        &["kill", "ID", "0"],
        &["kill", "--all", "ID", "CONT"],
        &["kill", "ID", "SIGUSR1"],
        &["kill", "ID", "9"],
        &["wait"],
        &["state", "ID"],
        &["kill", "ID", "TERM"],
        &["kill", "--all", "ID", "9"],
        &["pause", "ID"],
        &["exec", "ID", "true"],
        &["start", "ID"],
        &["delete", "ID"],
        &["delete", "ID"],
        &["run", "--detach", "--pid-file", "pid", "ID"],
        &["delete", "--force", "ID"],
        &["delete", "--force", "ID"],
    ];
    let mut different = Vec::new();
    for step in steps {
        if *step == ["wait"] {
            for runtime in &runtimes {
                until("the end", || runtime.step(&["state", "ID"]).contains("stopped").then_some(()));
            }
            continue;
        }
        let [own, runc] = [0, 1].map(|index: usize| runtimes[index].step(step));
        // runc takes signal 0 for a number that it sends.
        if *step == ["kill", "ID", "0"] {
            continue;
        }
        if own != runc {
            different.push(format!("{own}\n  runc: {runc}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// Takes the terminal that a runtime sends.
fn receive(listener: &UnixListener) -> File {
    let (connection, _) = listener.accept().unwrap();
    let (_, fds) = socket::recv_with_fds(&connection, &mut [0; 4096]).unwrap();
    let [master] = <[OwnedFd; 1]>::try_from(fds).unwrap();
    master.into()
}

/// What is shown until the programs' side is closed.
fn read_all(mut terminal: impl Read) -> String {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    // A terminal ends with an error.
    while let Ok(length @ 1..) = terminal.read(&mut buffer) {
        text.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_terminal_is_sent_to_the_console_socket() {
    let bundle = Bundle::new(|spec| {
        spec["process"]["terminal"] = json!(true);
        spec["process"]["consoleSize"] = json!({"height": 33, "width": 77});
        spec["process"]["args"] = json!(["sh", "-c", "tty; stty size; test -c /dev/console && cat /dev/tty"]);
    });
    assert_fails(&bundle.create(), "console socket");
    let path = bundle.path().join("console");
    let listener = UnixListener::bind(&path).unwrap();
    let socket = path.to_str().unwrap();
    let create = ["create", "--bundle", bundle.path_text(), "--console-socket", socket, &bundle.id];
    assert_ok(&bundle.command(&create));
    let mut master = receive(&listener);
    assert_ok(&bundle.command(&["start", &bundle.id]));
    master.write_all(b"typed\n\x04").unwrap();
    let text = read_all(master);
    for expected in ["/dev/pts/0\r\n", "33 77\r\n", "typed\r\n"] {
        assert!(text.contains(expected), "{text:?}");
    }
}

#[test]
fn an_exec_gets_a_terminal_and_a_process_file() {
    let bundle = running();
    let path = bundle.path().join("console");
    let listener = UnixListener::bind(&path).unwrap();
    let process = bundle.path().join("process.json");
    let args = ["sh", "-c", "tty; echo $A; id -u"];
    let json = json!({"terminal": true, "cwd": "/", "args": args, "env": ["PATH=/bin", "A=b"], "user": {"uid": 9, "gid": 9}});
    fs::write(&process, json.to_string()).unwrap();
    let pid_file = bundle.path().join("pid");
    let [socket, process, pid] = [&path, &process, &pid_file].map(|path| path.to_str().unwrap());
    let exec =
        ["exec", "--process", process, "--detach", "--console-socket", socket, "--pid-file", pid, &bundle.id];
    assert_ok(&bundle.command(&exec));
    assert!(fs::read_to_string(&pid_file).unwrap().parse::<u32>().unwrap() > 1);
    assert_eq!(read_all(receive(&listener)), "/dev/pts/0\r\nb\r\n9\r\n");
}

/// The command in a session whose terminal is ours.
fn on_terminal(bundle: &Bundle, args: &[&str]) -> (Child, File) {
    let terminal = pty::open().unwrap();
    rustix::io::ioctl_fionbio(&terminal.master, false).unwrap();
    pty::set_size(&terminal.master, 20, 60).unwrap();
    let mut command = Command::new("setsid");
    command
        .args(["--ctty", "--wait"])
        .arg(bundle.program())
        .arg("--root")
        .arg(bundle.state_root())
        .args(args);
    let peer = || Stdio::from(terminal.peer.try_clone().unwrap());
    let child = command.stdin(peer()).stdout(peer()).stderr(peer()).spawn().unwrap();
    (child, terminal.master.into())
}

/// Reads until a text is shown.
fn read_until(terminal: &mut File, expected: &str) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while !text.contains(expected) {
        let length = terminal.read(&mut buffer).unwrap_or_else(|error| panic!("{error} after {text:?}"));
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    text
}

#[test]
fn a_terminal_in_the_foreground_is_relayed_with_its_size() {
    let script =
        "stty size; trap 'stty size; exit 4' WINCH; read line; echo got $line; while :; do sleep 0.01; done";
    let bundle = Bundle::new(|spec| {
        spec["process"]["terminal"] = json!(true);
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    let (mut child, mut terminal) =
        on_terminal(&bundle, &["run", "--bundle", bundle.path_text(), &bundle.id]);
    read_until(&mut terminal, "20 60\r\n");
    terminal.write_all(b"a line\r").unwrap();
    let text = read_until(&mut terminal, "got a line\r\n");
    assert_eq!(text.matches("a line").count(), 2, "the echo is the container's alone: {text:?}");
    pty::set_size(&terminal, 30, 90).unwrap();
    read_until(&mut terminal, "30 90\r\n");
    assert_eq!(child.wait().unwrap().code(), Some(4));
    bundle.assert_nothing_left();
}

#[test]
fn descriptors_are_handed_on() {
    let bundle = Bundle::script("cat <&3; cat <&4; echo $LISTEN_FDS $LISTEN_PID; ls /proc/self/fd | wc -l");
    for (name, text) in [("3", "three\n"), ("4", "four\n")] {
        fs::write(bundle.path().join(name), text).unwrap();
    }
    let script = "exec 3<3 4<4 9<4; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(bundle.program()).arg("--root").arg(bundle.state_root());
    shell.args(["run", "--preserve-fds", "1", &bundle.id]).current_dir(bundle.path());
    // Standard streams, 3, 4 and the directory that is read.
    assert_eq!(stdout(&bundle.finish(&mut shell)), "three\nfour\n1 1\n6\n");
    let missing =
        bundle.command(&["run", "--preserve-fds", "70", "--bundle", bundle.path_text(), &bundle.id]);
    assert_fails(&missing, "--preserve-fds");
    bundle.assert_nothing_left();
}

#[test]
fn readiness_is_handed_on() {
    let perl = r#"use Socket; socket(S, AF_UNIX, SOCK_DGRAM, 0);
        send(S, "READY=1", 0, sockaddr_un($ENV{NOTIFY_SOCKET})) or die $!; sleep 1000"#;
    let bundle = Bundle::new(|spec| {
        with_host_programs(spec);
        spec["process"]["args"] = json!(["perl", "-e", perl]);
    });
    fs::create_dir(bundle.root().join("run")).unwrap();
    let path = bundle.path().join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let run = ["run", "--detach", "--bundle", bundle.path_text(), &bundle.id];
    assert_ok(&bundle.finish(bundle.prepare(&run).env("NOTIFY_SOCKET", &path)));
    let mut buffer = [0; 256];
    let length = socket.recv(&mut buffer).unwrap();
    let pid = bundle.state()["pid"].clone();
    assert_eq!(String::from_utf8_lossy(&buffer[..length]), format!("READY=1\nMAINPID={pid}\n"));
}

#[test]
fn of_many_that_make_one_container_one_does() {
    let bundle = sleeper();
    let mut children: Vec<Child> = (0..12)
        .map(|_| {
            let mut command = bundle.prepare(&["create", "--bundle", bundle.path_text(), &bundle.id]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let made =
        children.iter_mut().filter_map(|child| child.wait().ok().filter(std::process::ExitStatus::success));
    assert_eq!(made.count(), 1);
    assert_eq!(bundle.state()["status"], "created");
    // And of many that start, pause, resume and delete it at once, each sees it whole or not at all.
    let commands = ["start", "pause", "resume", "state", "delete", "state", "resume", "start", "pause"];
    let children: Vec<Child> = commands
        .iter()
        .map(|name| {
            let mut command = bundle.prepare(&[name, &bundle.id]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let text = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
        assert!(!text.contains("state.json") && !text.contains("panicked"), "{text}");
    }
    assert_ok(&bundle.command(&["delete", "--force", &bundle.id]));
    bundle.assert_nothing_left();
}

#[test]
fn a_command_that_is_killed_leaves_nothing_in_the_way() {
    for delay_us in (0..60_000).step_by(1500) {
        let bundle = sleeper();
        let mut command = bundle.prepare(&["create", "--bundle", bundle.path_text(), &bundle.id]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_micros(delay_us));
        child.kill().unwrap();
        child.wait().unwrap();
        // A half-made one is no container; another can be made in its place.
        if !bundle.state_root().join(&bundle.id).join("state.json").exists() {
            assert_fails(&bundle.command(&["state", &bundle.id]), "does not exist");
            if delay_us % 2000 == 0 {
                assert_ok(&bundle.create());
            }
        }
        assert_ok(&bundle.command(&["delete", "--force", &bundle.id]));
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_container_ends_with_the_command_that_makes_it() {
    let bundle = sleeper();
    // The command stops at the file of the process id, which nobody reads, with the container made.
    let (pid_file, hidden) = (bundle.path().join("pid"), bundle.path().join(".pid"));
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &hidden, fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let pid_file = pid_file.to_str().unwrap();
    let create = ["create", "--bundle", bundle.path_text(), "--pid-file", pid_file, &bundle.id];
    let mut child = bundle.prepare(&create).stdin(Stdio::null()).spawn().unwrap();
    until("a record", || bundle.state_root().join(&bundle.id).join("state.json").exists().then_some(()));
    assert_eq!(bundle.state()["status"], "created");
    child.kill().unwrap();
    child.wait().unwrap();
    until("the end", || (bundle.state()["status"] == "stopped").then_some(()));
    assert_ok(&bundle.command(&["delete", &bundle.id]));
    bundle.assert_nothing_left();
}

#[test]
fn the_spec_is_that_of_the_creation() {
    let bundle = running();
    let mut spec = bundle.spec();
    spec["process"]["env"] = json!(["PATH=/bin", "CHANGED=1"]);
    spec["process"]["user"] = json!({"uid": 7, "gid": 7});
    bundle.write_spec(&spec);
    assert_eq!(stdout(&bundle.command(&["exec", &bundle.id, "sh", "-c", "echo $CHANGED; id -u"])), "\n0\n");
}

#[test]
fn errors_go_to_the_log_as_engines_read_it() {
    let bundle = sleeper();
    let log = bundle.path().join("log.json");
    let run = |format: &str, args: &[&str]| {
        let mut command = Command::new(bundle.program());
        command.arg("--root").arg(bundle.state_root()).arg("--log").arg(&log);
        bundle.finish(command.args(["--log-format", format]).args(args))
    };
    assert_fails(&run("json", &["state", "nosuch"]), "does not exist");
    let line: Value = serde_json::from_slice(&fs::read(&log).unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], "container \"nosuch\" does not exist");
    assert_eq!(line["time"].as_str().unwrap().len(), "2026-01-01T00:00:00Z".len());
    fs::remove_file(&log).unwrap();
    assert_fails(&run("text", &["state", "nosuch"]), "does not exist");
    assert!(fs::read_to_string(&log).unwrap().contains("level=error msg=\"container"));
    assert_fails(&run("yaml", &["state", "nosuch"]), "yaml");
}

#[test]
fn limits_are_updated_from_options_and_from_json() {
    let bundle = running();
    // In version 2 all controllers are in one hierarchy, and the limit of memory has another name.
    let groups = Path::new("/sys/fs/cgroup");
    let is_v2 = groups.join("cgroup.controllers").exists();
    let memory = if is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
    let limit = |name: &str| {
        let hierarchy = if is_v2 { groups.to_owned() } else { groups.join(name.split('.').next().unwrap()) };
        fs::read_to_string(hierarchy.join("ponton").join(&bundle.id).join(name)).unwrap().trim().to_owned()
    };
    assert_ok(&bundle.command(&["update", "--memory", "64m", "--pids-limit", "40", &bundle.id]));
    assert_eq!((limit(memory), limit("pids.max")), ("67108864".into(), "40".into()));
    let file = bundle.path().join("resources.json");
    fs::write(&file, json!({"memory": {"limit": 33_554_432, "swap": 0}, "pids": {"limit": 0}}).to_string())
        .unwrap();
    assert_ok(&bundle.command(&["update", "--resources", file.to_str().unwrap(), &bundle.id]));
    assert_eq!((limit(memory), limit("pids.max")), ("33554432".into(), "40".into()));
    assert_fails(&bundle.command(&["update", "--mem-bw-schema", "MB:0=20", &bundle.id]), "linux.intelRdt");
    fs::write(&file, r#"{"memory": {"limit": "much"}}"#).unwrap();
    assert_fails(
        &bundle.command(&["update", "--resources", file.to_str().unwrap(), &bundle.id]),
        "memory.limit",
    );
}

#[test]
fn events_tell_of_usage_and_of_kills_for_memory() {
    let bundle = Bundle::new(|spec| {
        with_host_programs(spec);
        spec["process"]["args"] = json!(["sleep", "1000"]);
        spec["linux"]["resources"]["memory"] = json!({"limit": 33_554_432, "swap": 33_554_432});
    });
    assert_ok(&bundle.create());
    assert_ok(&bundle.command(&["start", &bundle.id]));
    let events = bundle.path().join("events");
    let mut command = bundle.prepare(&["events", "--interval", "100ms", &bundle.id]);
    let mut follower = command.stdin(Stdio::null()).stdout(File::create(&events).unwrap()).spawn().unwrap();
    let seen = |kind: &str| {
        let text = fs::read_to_string(&events).unwrap();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.into_iter().find(|event| event["type"] == kind)
    };
    let stats = until("usage", || seen("stats"));
    let memory = &stats["data"]["memory"];
    assert!(memory["usage"]["usage"].as_u64().unwrap() > 0, "{stats}");
    assert!(memory["swap"]["usage"].as_u64().unwrap() > 0, "{stats}");
    assert_eq!(memory["swap"]["limit"], 33_554_432, "{stats}");
    assert!(stats["data"]["hugetlb"].is_object() && stats["data"]["cpuset"]["cpus"].is_array(), "{stats}");
    let eat = ["exec", &bundle.id, "perl", "-e", "my $x = 'x' x 200_000_000; print length $x"];
    assert!(!bundle.command(&eat).status.success());
    until("a kill", || seen("oom"));
    assert_ok(&bundle.command(&["kill", &bundle.id, "KILL"]));
    assert!(until("the end of the events", || follower.try_wait().unwrap()).success());
}

#[test]
fn kept_containers_stay_and_others_go() {
    let bundle = Bundle::script("exit 5");
    let run = bundle.command(&["run", "--keep", "--bundle", bundle.path_text(), &bundle.id]);
    assert_eq!(run.status.code(), Some(5));
    assert_eq!(
        (bundle.state()["status"].clone(), bundle.state()["pid"].clone()),
        (json!("stopped"), json!(0))
    );
    assert_ok(&bundle.command(&["delete", &bundle.id]));
    bundle.assert_nothing_left();
}

#[test]
fn signals_in_the_foreground_go_to_the_container() {
    let bundle = Bundle::script("trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done");
    let mut command = bundle.prepare(&["run", "--bundle", bundle.path_text(), &bundle.id]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
    bundle.assert_nothing_left();
}

#[test]
fn checkpoints_are_refused_with_what_criu_says() {
    let bundle = running();
    let criu = bundle.path().join("criu");
    fs::write(&criu, "#!/bin/sh\necho 'Error (x.c:1): too new' >&2; exit 1\n").unwrap();
    fs::set_permissions(&criu, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let option = ["--criu", criu.to_str().unwrap()];
    let checkpoint = ["checkpoint", "--image-path", "/nosuch", &bundle.id];
    assert_fails(&bundle.command(&[&option[..], &checkpoint].concat()), "Error (x.c:1): too new");
    assert_fails(&bundle.command(&["checkpoint", "nosuch"]), "does not exist");
}
