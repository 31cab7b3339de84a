//! The engine with real containers: a busybox image, real shims, the real kernel. Needs root.
#![allow(clippy::unwrap_used, reason = "a test program")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use ponton_api::container::{CreateRequest, RestartPolicy};
use ponton_api::exec::{ExecCreateRequest, ExecStartRequest};
use ponton_engine::ErrorKind;
use ponton_engine::request::{
    AttachConnection, AttachRequest, EventsRequest, PutOptions, RemoveOptions, StopOptions, WaitCondition,
};

mod lab;
use lab::{Lab, PATIENCE, body, request, shell, unframe, wait_for};

/// One end for the engine, the other for the test.
fn connection() -> (UnixStream, AttachConnection) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    (ours, AttachConnection { fd: theirs.into(), preamble: Vec::new() })
}

/// All that comes until the other side closes.
async fn read_all(mut stream: UnixStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_tell_exit_codes_and_output() {
    let lab = Lab::new().await;
    assert_eq!(lab.run("good", request(&["echo", "hello"])).await, (0, "hello\n".into()));
    assert_eq!(lab.run("bad", shell("echo oops >&2; exit 3")).await, (3, "oops\n".into()));
    let state = lab.engine.inspect("bad", false).await.unwrap().state;
    assert_eq!((state.status.as_str(), state.exit_code, state.running), ("exited", 3, false));
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_says_why() {
    let lab = Lab::new().await;
    for (name, command, code, text) in [
        ("missing", "nosuch", 127, "executable file not found in $PATH"),
        ("denied", "/etc", 126, "directory"),
    ] {
        lab.create(name, request(&[command])).await;
        let error = lab.engine.start(name, None).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{}", error.message);
        assert!(error.message.contains(text), "{}", error.message);
        let state = lab.engine.inspect(name, false).await.unwrap().state;
        assert_eq!((state.status.as_str(), state.exit_code), ("created", code));
    }
    let unknown = lab.engine.create(None, None, CreateRequest::default()).await;
    assert!(matches!(unknown.unwrap_err().kind, ErrorKind::NotFound | ErrorKind::Invalid));
    let clash = lab.engine.create(Some("missing"), None, request(&["true"])).await.unwrap_err();
    assert!(
        clash.message.starts_with("Conflict. The container name \"/missing\" is already in use by container")
    );
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attached_before_the_start_all_is_seen() {
    let lab = Lab::new().await;
    let mut wanted = shell("cat; echo done >&2");
    (wanted.config.open_stdin, wanted.config.stdin_once, wanted.config.attach_stdin) = (true, true, true);
    lab.create("cat", wanted).await;
    let (mut ours, theirs) = connection();
    let all =
        AttachRequest { stream: true, stdin: true, stdout: true, stderr: true, ..AttachRequest::default() };
    lab.engine.attach("cat", all, theirs).await.unwrap();
    lab.engine.start("cat", None).await.unwrap();
    ours.write_all(b"to and fro\n").unwrap();
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(unframe(&read_all(ours).await), "to and fro\ndone\n");
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn execs_run_beside_the_first_process() {
    let lab = Lab::new().await;
    lab.create("host", request(&["sleep", "1000"])).await;
    lab.engine.start("host", None).await.unwrap();
    let exec = |command: &str| ExecCreateRequest {
        cmd: Some(vec!["sh".into(), "-c".into(), command.into()]),
        attach_stdout: true,
        attach_stderr: true,
        ..ExecCreateRequest::default()
    };
    let id = lab.engine.exec_create("host", exec("hostname; exit 4")).await.unwrap();
    let (ours, theirs) = connection();
    lab.engine.exec_start(&id, ExecStartRequest::default(), Some(theirs)).await.unwrap();
    let hostname = lab.engine.inspect("host", false).await.unwrap().config.hostname;
    assert_eq!(unframe(&read_all(ours).await), format!("{hostname}\n"));
    let mut code = None;
    for _ in 0..1000 {
        code = lab.engine.exec_inspect(&id).await.unwrap().exit_code;
        if code.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(code, Some(4));
    let missing = ExecCreateRequest { cmd: Some(vec!["nosuch".into()]), ..exec("") };
    let id = lab.engine.exec_create("host", missing).await.unwrap();
    let (ours, theirs) = connection();
    lab.engine.exec_start(&id, ExecStartRequest::default(), Some(theirs)).await.unwrap();
    assert!(unframe(&read_all(ours).await).contains("executable file not found"));
    assert_eq!(lab.engine.exec_inspect(&id).await.unwrap().exit_code, Some(127));
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_politely_and_then_by_force() {
    let lab = Lab::new().await;
    lab.create("polite", shell("trap 'exit 5' TERM; while :; do sleep 0.05; done")).await;
    lab.create("deaf", shell("trap '' TERM; while :; do sleep 0.05; done")).await;
    for name in ["polite", "deaf"] {
        lab.engine.start(name, None).await.unwrap();
    }
    // The trap is set once the shell runs its loop.
    for name in ["polite", "deaf"] {
        let top = || lab.engine.top(name, "");
        while top().await.unwrap().processes.len() < 2 {}
    }
    let options = |seconds| StopOptions { timeout: Some(seconds), signal: None };
    lab.engine.stop("polite", options(60)).await.unwrap();
    lab.engine.stop("deaf", options(0)).await.unwrap();
    assert_eq!(lab.engine.inspect("polite", false).await.unwrap().state.exit_code, 5);
    assert_eq!(lab.engine.inspect("deaf", false).await.unwrap().state.exit_code, 137);
    let again = lab.engine.stop("deaf", options(0)).await.unwrap_err();
    assert_eq!(again.kind, ErrorKind::NotModified);
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_freezes_and_refuses() {
    let lab = Lab::new().await;
    lab.create("pp", request(&["sleep", "1000"])).await;
    lab.engine.start("pp", None).await.unwrap();
    lab.engine.pause("pp").await.unwrap();
    assert_eq!(lab.engine.inspect("pp", false).await.unwrap().state.status, "paused");
    assert_eq!(lab.engine.pause("pp").await.unwrap_err().kind, ErrorKind::Conflict);
    let refused = lab.engine.remove("pp", RemoveOptions::default()).await.unwrap_err();
    assert!(refused.message.starts_with("You cannot remove a paused container"));
    lab.engine.unpause("pp").await.unwrap();
    // A frozen container dies by force all the same.
    lab.engine.pause("pp").await.unwrap();
    tokio::time::timeout(PATIENCE, lab.remove("pp")).await.unwrap();
    lab.close().await;
}

/// Frozen by cgroup v1 before it has died, it never would.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_by_force_is_not_frozen() {
    let lab = Lab::new().await;
    for number in 0..20 {
        let name = format!("dying{number}");
        lab.create(&name, request(&["sleep", "1000"])).await;
        lab.engine.start(&name, None).await.unwrap();
        let both = async { tokio::join!(lab.remove(&name), lab.engine.pause(&name)) };
        let ((), paused) = tokio::time::timeout(PATIENCE, both).await.unwrap();
        assert!(paused.is_err(), "{number}");
    }
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_remove_leaves_nothing() {
    let lab = Lab::new().await;
    let mut wanted = request(&["true"]);
    wanted.host_config.auto_remove = true;
    let id = lab.create("once", wanted).await;
    let removed = lab.engine.wait("once", WaitCondition::Removed).await.unwrap();
    lab.engine.start("once", None).await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, removed).await.unwrap().unwrap().status_code, 0);
    assert_eq!(lab.engine.inspect(&id, false).await.unwrap_err().kind, ErrorKind::NotFound);
    let since = Some(jiff::Timestamp::UNIX_EPOCH);
    let request = EventsRequest { since, until: Some(jiff::Timestamp::now()), ..EventsRequest::default() };
    let events = lab.engine.events(request).await.unwrap();
    let actions: Vec<_> = events
        .map(|event| event.unwrap())
        .filter(|event| std::future::ready(event.r#type == "container"))
        .map(|event| event.action.clone())
        .collect()
        .await;
    assert_eq!(actions, ["create", "start", "die", "destroy"]);
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_start_again() {
    let lab = Lab::new().await;
    let mut wanted = shell("exit 1");
    wanted.host_config.restart_policy = RestartPolicy { name: "on-failure".into(), maximum_retry_count: 2 };
    lab.create("again", wanted).await;
    lab.engine.start("again", None).await.unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let state = lab.engine.inspect("again", false).await.unwrap();
        if state.state.status == "exited" {
            assert_eq!(state.restart_count, 2);
            break;
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_the_daemon() {
    let mut lab = Lab::new().await;
    lab.create("long", shell("echo before; sleep 1000")).await;
    lab.create("short", shell("while [ ! -e /tmp/end ]; do sleep 0.02; done; exit 7")).await;
    lab.create("never", request(&["true"])).await;
    for name in ["long", "short"] {
        lab.engine.start(name, None).await.unwrap();
    }
    let before = lab.engine.inspect("long", false).await.unwrap().state;
    let short = lab.engine.inspect("short", false).await.unwrap().state.pid;
    lab.engine.shutdown().await;
    // It ends while no daemon is there.
    std::fs::write(format!("/proc/{short}/root/tmp/end"), "").unwrap();
    let exit = lab.directory.path().join("exec/containers");
    wait_for(|| {
        std::fs::read_dir(&exit).unwrap().flatten().any(|entry| entry.path().join("exit.json").exists())
    })
    .await;
    lab.reopen().await;
    let after = lab.engine.inspect("long", false).await.unwrap().state;
    assert_eq!(
        (after.status.as_str(), after.pid, &after.started_at),
        ("running", before.pid, &before.started_at)
    );
    let ended = lab.engine.inspect("short", false).await.unwrap().state;
    assert_eq!((ended.status.as_str(), ended.exit_code), ("exited", 7));
    assert_eq!(lab.engine.inspect("never", false).await.unwrap().state.status, "created");
    assert_eq!(lab.logs("long").await, "before\n");
    lab.engine.stop("long", StopOptions { timeout: Some(0), signal: None }).await.unwrap();
    assert_eq!(lab.engine.inspect("long", false).await.unwrap().state.exit_code, 137);
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_costs_no_container_its_life() {
    let lab = Lab::new().await;
    lab.create("cc", shell("while [ ! -e /tmp/end ]; do sleep 0.02; done; echo late; exit 9")).await;
    lab.engine.start("cc", None).await.unwrap();
    let pid = lab.engine.inspect("cc", false).await.unwrap().state.pid;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let shim: i32 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap();
    let shim = rustix::process::Pid::from_raw(shim).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    let ended = lab.engine.wait("cc", WaitCondition::NextExit).await.unwrap();
    std::fs::write(format!("/proc/{pid}/root/tmp/end"), "").unwrap();
    let code = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().status_code;
    assert_eq!(code, 9);
    assert_eq!(lab.logs("cc").await, "late\n");
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_in_and_out() {
    let lab = Lab::new().await;
    lab.create("cp", request(&["sleep", "1000"])).await;
    lab.engine.start("cp", None).await.unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o640);
    header.set_size(3);
    tar.append_data(&mut header, "file", &b"abc"[..]).unwrap();
    let tar = body(tar.into_inner().unwrap());
    lab.engine.archive_put("cp", "/tmp", PutOptions::default(), tar).await.unwrap();
    let (stat, stream) = lab.engine.archive_get("cp", "/tmp/file").await.unwrap();
    assert_eq!((stat.name.as_str(), stat.size), ("file", 3));
    let bytes: Vec<Bytes> = stream.map(|chunk| chunk.unwrap()).collect().await;
    let bytes = bytes.concat();
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut content = String::new();
    archive.entries().unwrap().next().unwrap().unwrap().read_to_string(&mut content).unwrap();
    assert_eq!(content, "abc");
    let options = StopOptions { timeout: Some(0), signal: None };
    lab.engine.stop("cp", options).await.unwrap();
    assert_eq!(lab.engine.archive_stat("cp", "/tmp/file").await.unwrap().size, 3);
    let missing = lab.engine.archive_stat("cp", "/nosuch").await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound);
    lab.close().await;
}
