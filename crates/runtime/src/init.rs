//! The tiny init of `--init`: process 1 of a container that starts the real program, hands signals
//! on to it, reaps what others leave behind, and ends as the program does.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use ponton_sys::clone::fork;
use ponton_sys::signal::{self, Blocked};
use ponton_sys::{Error, process};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

/// Runs `program` to its end; the answer is its exit status: 128 + n for signal n, 127 if there is
/// no such program, 126 if it cannot be executed (said on standard error). The calling process must
/// have one thread.
pub fn run(program: &OsStr, args: &[impl AsRef<OsStr>]) -> Result<i32, Error> {
    // Before the program starts, so that no signal is lost.
    let signals = signal::block().map_err(Error::of("block signals", "init"))?;
    // Not by clone3, which the container's own filter forbids.
    match fork()? {
        None => process::exit_now(execute(program, args)),
        Some(pid) => Ok(attend(pid, &signals)),
    }
}

/// The child's side; returns only when the program could not be executed.
fn execute(program: &OsStr, args: &[impl AsRef<OsStr>]) -> i32 {
    // A process group of its own, so that a signal from the terminal does not come twice; and it is
    // the one that the terminal talks to. Without a terminal there is nothing to give.
    let _ = rustix::process::setpgid(None, None);
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpgrp());
    let error = match process::reset_signals() {
        Ok(()) => Command::new(program).args(args).exec(),
        Err(error) => error.source,
    };
    eprintln!("exec {}: {error}", program.display());
    if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
}

/// Hands signals on and reaps until the program has ended.
fn attend(pid: u32, signals: &Blocked) -> i32 {
    loop {
        if let Some(code) = reap(pid) {
            return code;
        }
        let received = signals.wait();
        if received != Signal::CHILD.as_raw() {
            // It may be gone already; the next turn tells.
            let _ = signal::send(pid, received);
        }
    }
}

/// Reaps everything that has ended; the program's exit status if it was among it.
fn reap(program: u32) -> Option<i32> {
    let mut code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if Some(pid) == Pid::from_raw(program as i32) {
            code = exit_code(status);
        }
    }
    code
}

fn exit_code(status: WaitStatus) -> Option<i32> {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
}
