//! `ponton-runtime init`, as process 1 of a pid namespace. Needs root.
#![allow(clippy::unwrap_used, reason = "a test program")]

use std::process::{Command, Stdio};

/// Runs a script under the init in a pid namespace of its own.
fn init(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", env!("CARGO_BIN_EXE_ponton-runtime"), "init", "--"]);
    command.args(["/bin/sh", "-c", script]);
    command
}

#[test]
fn it_ends_as_the_program_does() {
    assert_eq!(init("exit 42").status().unwrap().code(), Some(42));
    assert_eq!(init("kill -TERM $$").status().unwrap().code(), Some(128 + 15));
    let output = Command::new(env!("CARGO_BIN_EXE_ponton-runtime"))
        .args(["init", "/nosuch/program"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8(output.stderr).unwrap().contains("exec /nosuch/program: No such file"));
    let status = Command::new(env!("CARGO_BIN_EXE_ponton-runtime"))
        .args(["init", "/etc"])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(126));
}

#[test]
fn it_hands_signals_on() {
    // The init is process 1 there: the program signals it, and gets the signal back.
    let script = "trap 'echo caught; exit 5' USR1; kill -USR1 1; while :; do sleep 0.01; done";
    let output = init(script).output().unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(5), b"caught\n".to_vec()));
}

#[test]
fn it_reaps_orphans() {
    // The subshell's child outlives it. A zombie would have its directory in /proc for ever.
    let script = "orphan=$( (sleep 0.05 >/dev/null & echo $!) ); tries=0
        while [ -e /proc/$orphan ] && [ $tries -lt 10000 ]; do sleep 0.01; tries=$((tries+1)); done
        test ! -e /proc/$orphan";
    assert_eq!(init(script).status().unwrap().code(), Some(0));
}
