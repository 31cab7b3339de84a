//! A real shim, driven as the daemon drives it. Needs root.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, reason = "a test program")]

mod fixture;
mod logs;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Instant;

use fixture::{Fixture, Options, Shim, client_pair, demultiplex, log_text, read_all, read_until};
use ponton_cgroup::Layout;
use ponton_runtime::shim::client::Error;
use ponton_runtime::shim::protocol::{
    AttachSpec, Body, Event, FailureKind, FdRole, Reply, Request, Size, Start, Status, Stdio, VERSION,
};

const CTRL_P_CTRL_Q: &[u8] = &[0x10, 0x11];

fn sh(script: &str) -> [&str; 3] {
    ["/bin/sh", "-c", script]
}

fn everything() -> AttachSpec {
    AttachSpec { stdin: true, stdout: true, stderr: true, multiplexed: true, ..AttachSpec::default() }
}

#[test]
fn exit_codes_are_told_and_recorded() {
    let fixture = Fixture::new();
    let mut shim = fixture.shim("1");
    let Reply::Welcome { version, pid, .. } = shim.call(&Request::Hello { version: VERSION }) else {
        panic!("no welcome");
    };
    assert_eq!((version, pid), (VERSION, shim.child.id()));
    for (id, script, code) in [("a", "true", 0), ("b", "exit 42", 42), ("c", "kill -9 $$; sleep 9", 137)] {
        let running = shim.start(&fixture, id, &sh(script), Options::default()).unwrap();
        assert_eq!(running.roles(), [FdRole::Pidfd, FdRole::Stdout, FdRole::Stderr, FdRole::Root]);
        if code == 137 {
            // Process 1 of a pid namespace cannot kill itself.
            running.kill();
        }
        let exit = shim.exit_of(id);
        assert_eq!((exit.exit_code, exit.pid, exit.oom_killed), (Some(code), running.pid, false));
        assert_eq!(fixture.exit_record(id, "exit.json"), exit);
        let Reply::Status(status) = shim.call(&Request::Inspect { container: id.into() }) else { panic!() };
        assert_eq!(status.exited, Some(exit));
        shim.forget(id);
        assert!(!fixture.directory.path().join("containers").join(id).exists());
    }
    shim.retire();
}

#[test]
fn failures_have_their_class_and_leave_nothing() {
    let fixture = Fixture::new();
    let mut shim = fixture.shim("1");
    let before = shim.open_files();
    let refused = |error| match error {
        Error::Refused(failure) => failure.kind,
        error => panic!("{error}"),
    };
    let error = shim.start(&fixture, "a", &["nosuch"], Options::default()).err().unwrap();
    assert_eq!(refused(error), FailureKind::CommandNotFound);
    let error = shim.start(&fixture, ".a", &["true"], Options::default()).err().unwrap();
    assert_eq!(refused(error), FailureKind::Invalid);
    let missing = Request::Inspect { container: "a".into() };
    assert_eq!(refused(shim.client.call(&missing, &[]).unwrap_err()), FailureKind::NotFound);
    let (_own, other) = client_pair();
    let error = shim.attach("a", everything(), &other).unwrap_err();
    assert_eq!(refused(error), FailureKind::NotFound);
    let running = shim.start(&fixture, "a", &["/bin/sleep", "1000"], Options::default()).unwrap();
    let error = shim.start(&fixture, "a", &["/bin/true"], Options::default()).err().unwrap();
    assert_eq!(refused(error), FailureKind::Invalid);
    let forget = Request::Forget { container: "a".into(), exec: None };
    assert_eq!(refused(shim.client.call(&forget, &[]).unwrap_err()), FailureKind::Invalid);
    running.kill();
    shim.exit_of("a");
    shim.forget("a");
    assert_eq!(shim.open_files(), before);
    shim.retire();
}

#[test]
fn output_is_logged_and_multiplexed_from_the_first_byte() {
    let fixture = Fixture::new();
    let mut shim = fixture.shim("1");
    let (own, other) = client_pair();
    let options = Options {
        log: Some(fixture.log_target("a")),
        attach: vec![(everything(), &other)],
        ..Options::default()
    };
    shim.start(&fixture, "a", &sh("echo out; echo err >&2; printf end"), options).unwrap();
    drop(other);
    let [out, err] = demultiplex(&read_all(&own));
    assert_eq!((out.as_str(), err.as_str()), ("out\nend", "err\n"));
    assert_eq!(shim.exit_of("a").exit_code, Some(0));
    let mut lines: Vec<_> =
        std::fs::read_to_string(fixture.log("a")).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    assert!(lines[0].starts_with(r#"{"log":"end","stream":"stdout","time":"20"#), "{lines:?}");
    assert!(lines[1].starts_with(r#"{"log":"err\n","stream":"stderr","time":"20"#));
    assert!(lines[2].starts_with(r#"{"log":"out\n","stream":"stdout","time":"20"#));
}

#[test]
fn every_line_of_a_fast_writer_is_logged_in_order() {
    let fixture = Fixture::new();
    let mut shim = fixture.shim("1");
    let target = fixture.unlimited_log("a");
    let options = Options { log: Some(target), ..Options::default() };
    let began = Instant::now();
    shim.start(&fixture, "a", &["/bin/seq", "1000000"], options).unwrap();
    shim.exit_of("a");
    println!("1,000,000 lines: {:?}", began.elapsed());
    let text = log_text(&fixture.log("a"));
    assert!(text.lines().map(|line| line.parse::<u32>().unwrap()).eq(1..=1_000_000));
}

#[test]
fn a_live_attach_feeds_input_and_its_end_closes_it_once() {
    let fixture = Fixture::new();
    let mut shim = fixture.shim("1");
    let stdio = Stdio { stdin: true, stdin_once: true, ..Stdio::default() };
    let options = Options { stdio, ..Options::default() };
    let running = shim.start(&fixture, "a", &["/bin/cat"], options).unwrap();
    assert!(!running.roles().contains(&FdRole::Stdin));
    let (mut own, other) = client_pair();
    let spec = AttachSpec { preamble: b"first ".to_vec(), ..everything() };
    shim.attach("a", spec, &other).unwrap();
    drop(other);
    own.write_all(b"second\n").unwrap();
    own.shutdown(Shutdown::Write).unwrap();
    let [out, _] = demultiplex(&read_all(&own));
    assert_eq!(out, "first second\n");
    assert_eq!(shim.exit_of("a").exit_code, Some(0));
}

#[test]
fn much_input_of_a_client_that_vanishes_still_arrives() {
    let fixture = Fixture::new();
    let mut shim = fixture.shim("1");
    let stdio = Stdio { stdin: true, stdin_once: true, ..Stdio::default() };
    let options = Options { stdio, log: Some(fixture.log_target("a")), ..Options::default() };
    shim.start(&fixture, "a", &sh("sleep 0.3; wc -c"), options).unwrap();
    let (mut own, other) = client_pair();
    shim.attach("a", AttachSpec { stdin: true, ..AttachSpec::default() }, &other).unwrap();
    drop(other);
    own.write_all(&vec![b'x'; 300_000]).unwrap();
    drop(own);
    assert_eq!(shim.exit_of("a").exit_code, Some(0));
    assert_eq!(log_text(&fixture.log("a")).trim(), "300000");
}

#[test]
fn without_stdin_once_the_end_of_a_client_ends_only_the_client() {
    let fixture = Fixture::new();
    let mut shim = fixture.shim("1");
    let stdio = Stdio { stdin: true, ..Stdio::default() };
    let running = shim.start(&fixture, "a", &["/bin/cat"], Options { stdio, ..Options::default() }).unwrap();
    assert!(running.roles().contains(&FdRole::Stdin));
    for word in ["one", "two"] {
        let (mut own, other) = client_pair();
        shim.attach("a", AttachSpec { multiplexed: false, ..everything() }, &other).unwrap();
        drop(other);
        own.write_all(word.as_bytes()).unwrap();
        read_until(&own, word);
        own.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&own), b"");
    }
    running.kill();
    assert_eq!(shim.exit_of("a").exit_code, Some(137));
}

#[test]
fn a_terminal_has_a_size_and_detach_keys() {
    let fixture = Fixture::new();
    let mut shim = fixture.shim("1");
    let stdio =
        Stdio { terminal: true, stdin: true, stdin_once: true, size: Some(Size { rows: 24, cols: 80 }) };
    let (mut own, other) = client_pair();
    let spec = AttachSpec { multiplexed: false, detach_keys: CTRL_P_CTRL_Q.to_vec(), ..everything() };
    let options = Options { stdio, attach: vec![(spec.clone(), &other)], ..Options::default() };
    let running = shim.start(&fixture, "a", &["/bin/sh"], options).unwrap();
    drop(other);
    assert_eq!(running.roles(), [FdRole::Pidfd, FdRole::Terminal, FdRole::Root]);
    own.write_all(b"stty size; test -t 0 && echo is-a-$((1+1))-tty\n").unwrap();
    let text = read_until(&own, "is-a-2-tty");
    assert!(text.contains("24 80"), "{text}");
    let size = Size { rows: 50, cols: 132 };
    shim.call(&Request::Resize { container: "a".into(), exec: None, size });
    own.write_all(b"stty size\n").unwrap();
    read_until(&own, "50 132");
    // A lone ctrl-p is passed on late.
    own.write_all(b"\x10").unwrap();
    own.write_all(b"\x15echo still-$((2+2))-here\n").unwrap();
    read_until(&own, "still-4-here");
    own.write_all(CTRL_P_CTRL_Q).unwrap();
    read_all(&own);
    assert_eq!(shim.client.next_event().unwrap(), Event::Detached { container: "a".into(), exec: None });
    let (mut own, other) = client_pair();
    shim.attach("a", spec, &other).unwrap();
    drop(other);
    own.write_all(b"exit 7\n").unwrap();
    read_all(&own);
    assert_eq!(shim.exit_of("a").exit_code, Some(7));
}

#[test]
fn exec_runs_beside_and_has_a_record_of_its_own() {
    let fixture = Fixture::new();
    let mut shim = fixture.shim("1");
    let running = shim.start(&fixture, "a", &["/bin/sleep", "1000"], Options::default()).unwrap();
    let before = shim.open_files();
    let (mut own, other) = client_pair();
    let stdio = Stdio { stdin: true, stdin_once: true, ..Stdio::default() };
    let options = Options { stdio, attach: vec![(everything(), &other)], ..Options::default() };
    shim.exec(&fixture, "a", "e1", &sh("cat; echo error >&2; exit 3"), options).unwrap();
    drop(other);
    own.write_all(b"input").unwrap();
    own.shutdown(Shutdown::Write).unwrap();
    assert_eq!(demultiplex(&read_all(&own)), ["input".to_owned(), "error\n".to_owned()]);
    let exit = shim.end_of("a", Some("e1"));
    assert_eq!(exit.exit_code, Some(3));
    assert_eq!(fixture.exit_record("a", "exec-e1.exit.json"), exit);
    let Reply::Status(status) = shim.call(&Request::Inspect { container: "a".into() }) else { panic!() };
    assert_eq!(status.execs[0].exited, Some(exit));
    shim.call(&Request::Forget { container: "a".into(), exec: Some("e1".into()) });
    assert_eq!(shim.open_files(), before);
    // An exec ends with its container, and its end is told too.
    shim.exec(&fixture, "a", "e2", &["/bin/sleep", "0.2"], Options::default()).unwrap();
    running.kill();
    shim.end_of("a", Some("e2"));
    shim.exit_of("a");
    fixture.wait_for_removal("a");
}

#[test]
fn a_slow_client_holds_the_container_and_loses_nothing() {
    let fixture = Fixture::new();
    let mut shim = fixture.shim("1");
    let (own, other) = client_pair();
    let spec = AttachSpec { stdout: true, ..AttachSpec::default() };
    let options = Options { attach: vec![(spec, &other)], ..Options::default() };
    shim.start(&fixture, "a", &sh("seq 1000000"), options).unwrap();
    drop(other);
    // Other containers go on meanwhile, and the shim keeps no more than its bound.
    for number in 0..20 {
        let id = format!("b{number}");
        shim.start(&fixture, &id, &["/bin/true"], Options::default()).unwrap();
        shim.exit_of(&id);
    }
    assert!(shim.own_memory_kib() < 12 << 10, "{} KiB", shim.own_memory_kib());
    let Reply::Status(status) = shim.call(&Request::Inspect { container: "a".into() }) else { panic!() };
    assert_eq!(status.exited, None);
    let text = String::from_utf8(read_all(&own)).unwrap();
    assert!(text.lines().map(|line| line.parse::<u32>().unwrap()).eq(1..=1_000_000));
    assert_eq!(shim.exit_of("a").exit_code, Some(0));
}

#[test]
fn a_client_that_vanishes_is_dropped() {
    let fixture = Fixture::new();
    let mut shim = fixture.shim("1");
    let (own, other) = client_pair();
    let spec = AttachSpec { stdout: true, ..AttachSpec::default() };
    let options = Options { attach: vec![(spec, &other)], ..Options::default() };
    shim.start(&fixture, "a", &sh("seq 1000000; exit 5"), options).unwrap();
    drop(other);
    (&own).read_exact(&mut [0; 1000]).unwrap();
    drop(own);
    assert_eq!(shim.exit_of("a").exit_code, Some(5));
}

#[test]
fn a_lost_control_connection_disturbs_nothing() {
    let fixture = Fixture::new();
    let mut shim = fixture.shim("1");
    let (own, other) = client_pair();
    let spec = AttachSpec { stdout: true, ..AttachSpec::default() };
    let log = Some(fixture.unlimited_log("a"));
    let options = Options { attach: vec![(spec, &other)], log, ..Options::default() };
    shim.start(&fixture, "a", &sh("seq 300000; sleep 0.1; exit 9"), options).unwrap();
    drop(other);
    (&own).read_exact(&mut [0; 1000]).unwrap();
    shim.reconnect();
    read_all(&own);
    assert_eq!(shim.exit_of("a").exit_code, Some(9));
    assert_eq!(log_text(&fixture.log("a")).lines().count(), 300_000);
    let Reply::List(list) = shim.call(&Request::List) else { panic!() };
    assert_eq!(list[0].exited.unwrap().exit_code, Some(9));
}

#[test]
fn a_successor_takes_over_from_a_killed_shim() {
    let fixture = Fixture::new();
    let mut shim = fixture.shim("1");
    let stdio = Stdio { stdin: true, ..Stdio::default() };
    let log = Some(fixture.log_target("a"));
    let script = "echo before; read line; echo got $line; exit 21";
    let running =
        shim.start(&fixture, "a", &sh(script), Options { stdio, log, ..Options::default() }).unwrap();
    // What a shim has read and not yet written dies with it.
    fixture::wait_for_log(&fixture.log("a"), "before");
    shim.child.kill().unwrap();
    shim.child.wait().unwrap();
    let record = fixture.directory.path().join("containers/a/shim.json");
    let status: Status = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    assert_eq!(status.pid, running.pid);
    let mut successor = fixture.shim("2");
    successor.adopt(status, &running.fds);
    drop(running);
    let (mut own, other) = client_pair();
    successor.attach("a", AttachSpec { multiplexed: false, ..everything() }, &other).unwrap();
    drop(other);
    own.write_all(b"input\n").unwrap();
    read_until(&own, "got input");
    let exit = successor.exit_of("a");
    // Kernels before 6.15 cannot tell.
    assert!(matches!(exit.exit_code, Some(21) | None), "{exit:?}");
    assert_eq!(log_text(&fixture.log("a")), "before\ngot input\n");
    assert_eq!(fixture.exit_record("a", "exit.json"), exit);
    successor.forget("a");
    successor.retire();
}

#[test]
fn sixty_four_containers_leave_no_descriptor_and_cost_little() {
    let fixture = Fixture::new();
    let mut shim = fixture.shim("1");
    shim.start(&fixture, "warm", &["/bin/true"], Options::default()).unwrap();
    shim.exit_of("warm");
    shim.forget("warm");
    let (files, memory) = (shim.open_files(), shim.own_memory_kib());
    let began = Instant::now();
    let running: Vec<_> = (0..64)
        .map(|number| {
            let id = format!("c{number}");
            let log = Some(fixture.log_target(&id));
            shim.start(&fixture, &id, &["/bin/sleep", "1000"], Options { log, ..Options::default() }).unwrap()
        })
        .collect();
    println!("64 started: {:?}", began.elapsed());
    let growth = shim.own_memory_kib().saturating_sub(memory);
    println!("growth of the memory: {:.2} KiB each", growth as f64 / 64.0);
    assert!(growth < 64 * 20, "{growth} KiB");
    let Reply::List(list) = shim.call(&Request::List) else { panic!() };
    assert_eq!(list.len(), 64);
    for running in &running {
        running.kill();
    }
    for number in 0..64 {
        let id = format!("c{number}");
        let Reply::Status(status) = shim.call(&Request::Inspect { container: id.clone() }) else { panic!() };
        let exit = status.exited.unwrap_or_else(|| shim.exit_of(&id));
        assert_eq!(exit.exit_code, Some(137));
        shim.forget(&id);
    }
    assert_eq!(shim.open_files(), files);
    shim.retire();
}

#[test]
fn a_second_shim_on_one_socket_is_refused_and_a_dead_one_is_replaced() {
    let fixture = Fixture::new();
    let mut shim = fixture.shim("1");
    let mut second = std::process::Command::new(env!("CARGO_BIN_EXE_ponton-runtime"))
        .args(["shim", "--socket"])
        .arg(fixture.directory.path().join("1.sock"))
        .arg("--state-dir")
        .arg(fixture.directory.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    assert!(!second.wait().unwrap().success());
    shim.child.kill().unwrap();
    shim.child.wait().unwrap();
    let mut again = fixture.shim("1");
    assert!(matches!(again.call(&Request::List), Reply::List(list) if list.is_empty()));
}

/// A container that runs again while its last control group is busy waits for that, and nobody else does.
#[test]
fn a_start_waits_for_the_last_runs_group_alone() {
    let fixture = Fixture::new();
    let mut shim = fixture.shim("1");
    let group = format!("ponton-test-{}", std::process::id());
    let start = |args: &[&str]| {
        let plan = fixture.plan_in_group("a", args, &group);
        let start = Start {
            container: "a".into(),
            plan,
            stdio: Stdio::default(),
            log: None,
            attach: vec![],
            foreign: None,
            restore: None,
        };
        Request::Start(Box::new(start))
    };
    let Reply::Started { pid, .. } = shim.call(&start(&["/bin/sleep", "1000"])) else { panic!() };
    let mut stray = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
    let hierarchies = Layout::detect().unwrap().hierarchies;
    let made: Vec<_> = hierarchies
        .iter()
        .map(|hierarchy| hierarchy.mount.join(&group))
        .filter(|path| path.exists())
        .collect();
    assert!(!made.is_empty());
    for path in made {
        std::fs::write(path.join("cgroup.procs"), stray.id().to_string()).unwrap();
    }
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid as i32).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    shim.exit_of("a");

    // What is forgotten would be nobody's if this shim died, and so waits as well.
    let forget = Request::Forget { container: "a".into(), exec: None };
    shim.client.send(1000, &forget, &[]).unwrap();
    shim.client.send(1001, &start(&["/bin/true"]), &[]).unwrap();
    shim.client.send(1002, &Request::List, &[]).unwrap();
    let answer = |shim: &Shim| match shim.client.recv().unwrap().message.body {
        Body::Reply { id, reply } => (id, reply),
        other => panic!("{other:?}"),
    };
    assert!(matches!(answer(&shim), (1002, Reply::List(list)) if list.len() == 1));
    stray.kill().unwrap();
    stray.wait().unwrap();
    assert!(matches!(answer(&shim), (1000, Reply::Done)));
    assert!(matches!(answer(&shim), (1001, Reply::Started { .. })));
    assert_eq!(shim.exit_of("a").exit_code, Some(0));
    shim.forget("a");
    shim.retire();
}
