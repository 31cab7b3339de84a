//! Runs hooks: programs that a spec names, at points of a container's life ([`HookKind`]).
//!
//! A hook gets the container's state as its standard input, its own environment and nothing of
//! ours, and a session of its own, so that one that takes too long is ended with all that it
//! started. What it writes is kept for the error only.
//!
//! Whoever runs a hook waits for its end. The shim does so between two turns of its loop for what
//! must be done before a container runs: whoever gives containers hooks gives them short timeouts.
//! Those behind the start it leaves to a process of their own ([`run_apart`]).

use std::ffi::CString;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ponton_oci::runtime::{Hook, State};
use ponton_sys as sys;
use ponton_sys::pidfd::Exit;
use ponton_sys::process::CStrings;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal};

use crate::Error;
use crate::plan::HookKind;

/// How much of what a hook writes is kept, from its start.
const OUTPUT_MAX: usize = 1024;

/// Runs the hooks of a kind one after another, and stops at the first that fails. They start in
/// `directory`. The calling process must have one thread.
pub(crate) fn run(
    kind: HookKind,
    hooks: &[Hook],
    state: &State,
    directory: Option<BorrowedFd<'_>>,
) -> Result<(), Error> {
    run_each(kind, hooks, state, directory, Err)
}

/// Runs the hooks of a kind one after another, in the directory of the bundle. Those that fail are
/// told and passed over. The calling process must have one thread.
pub fn run_all(kind: HookKind, hooks: &[Hook], state: &State) -> Vec<Error> {
    let mut failures = Vec::new();
    if hooks.is_empty() {
        return failures;
    }
    let directory = bundle_directory(&state.bundle);
    let directory = directory.as_ref().map(AsFd::as_fd);
    let ran = run_each(kind, hooks, state, directory, |error| {
        failures.push(error);
        Ok(())
    });
    failures.extend(ran.err());
    failures
}

/// As [`run_all`] in a process of its own, which nobody waits for; failures go to standard error.
pub(crate) fn run_apart(kind: HookKind, hooks: &[Hook], state: &State) -> Result<(), sys::Error> {
    if hooks.is_empty() || sys::clone::fork()?.is_some() {
        return Ok(());
    }
    for error in run_all(kind, hooks, state) {
        eprintln!("shim: container {}: {error}", state.id);
    }
    sys::process::exit_now(0)
}

/// The directory that hooks of the runtime start in.
pub(crate) fn bundle_directory(bundle: &str) -> Option<OwnedFd> {
    let path = if bundle.is_empty() { Path::new("/") } else { Path::new(bundle) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).ok()
}

fn run_each(
    kind: HookKind,
    hooks: &[Hook],
    state: &State,
    directory: Option<BorrowedFd<'_>>,
    mut failed: impl FnMut(Error) -> Result<(), Error>,
) -> Result<(), Error> {
    if hooks.is_empty() {
        return Ok(());
    }
    let error = |at: usize, hook: &Hook, message: String| Error::Hook {
        hook: format!("hooks.{kind}[{at}] {}", hook.path),
        message,
    };
    let mut input =
        state_file(state).map_err(|source| error(0, &hooks[0], format!("write the state: {source}")))?;
    for (at, hook) in hooks.iter().enumerate() {
        if let Err(message) = run_one(hook, &mut input, directory) {
            failed(error(at, hook, message))?;
        }
    }
    Ok(())
}

/// The state as a file that can be read again and again.
fn state_file(state: &State) -> std::io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("state", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(state)?)?;
    Ok(file)
}

/// A hook with everything that its execve will want laid out.
struct Prepared {
    path: CString,
    args: CStrings,
    env: CStrings,
}

impl Prepared {
    fn new(hook: &Hook) -> Option<Self> {
        let strings = |texts: &[String]| texts.iter().map(|text| CString::new(text.as_str()).ok()).collect();
        let path = CString::new(hook.path.as_str()).ok()?;
        let args: Option<Vec<CString>> = strings(&hook.args);
        let args = args.map(|args| if args.is_empty() { vec![path.clone()] } else { args });
        let env: Option<Vec<CString>> = strings(&hook.env);
        Some(Self { path, args: CStrings::new(args?), env: CStrings::new(env?) })
    }
}

fn run_one(hook: &Hook, input: &mut File, directory: Option<BorrowedFd<'_>>) -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let prepared = Prepared::new(hook).ok_or("contains a null byte")?;
    input.seek(SeekFrom::Start(0)).map_err(|error| told(&error))?;
    let (output, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| told(&error))?;
    rustix::io::ioctl_fionbio(&output, true).map_err(|error| told(&error))?;
    let Some(pid) = sys::clone::fork().map_err(|error| told(&error))? else {
        become_hook(&prepared, input.as_fd(), writer.as_fd(), directory)
    };
    drop(writer);
    let pidfd = sys::pidfd::open(pid).map_err(|error| told(&error))?;
    let timeout = hook.timeout.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let mut running = Running { pid, pidfd, output, text: Vec::new() };
    running.wait(timeout)
}

/// The hook's side of the fork.
fn become_hook(
    hook: &Prepared,
    input: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
    directory: Option<BorrowedFd<'_>>,
) -> ! {
    let prepare = || -> Result<(), sys::Error> {
        sys::process::set_stdio([input, output, output])?;
        rustix::process::setsid().map_err(sys::Error::of("setsid", "hook"))?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        sys::process::reset_signals()?;
        if let Some(directory) = directory {
            rustix::process::fchdir(directory).map_err(sys::Error::of("fchdir", "hook"))?;
        }
        // Nothing that owns a descriptor may be dropped from here on.
        sys::process::close_all_but(3, &[])
    };
    let error = match prepare() {
        Ok(()) => format!("exec: {}", sys::process::execve(&hook.path, &hook.args, &hook.env)),
        Err(error) => error.to_string(),
    };
    // The reader may be gone: nobody to tell.
    let _ = rustix::io::write(rustix::stdio::stderr(), error.as_bytes());
    sys::process::exit_now(127)
}

/// A hook that runs.
struct Running {
    pid: u32,
    pidfd: OwnedFd,
    output: OwnedFd,
    text: Vec<u8>,
}

impl Running {
    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), String> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let has_ended = self.watch(deadline);
        if !has_ended {
            // It leads its group.
            if let Some(group) = Pid::from_raw(self.pid as i32) {
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
            let _ = sys::pidfd::send_signal(self.pidfd.as_fd(), Signal::KILL.as_raw());
        }
        let exit = sys::pidfd::wait(self.pidfd.as_fd()).map_err(|error| error.to_string())?;
        self.read();
        let text = String::from_utf8_lossy(&self.text);
        let text = match text.trim() {
            "" => String::new(),
            text => format!(": {text}"),
        };
        match (exit, timeout) {
            (_, Some(timeout)) if !has_ended => {
                Err(format!("killed: not done within {} s{text}", timeout.as_secs()))
            }
            (Exit::Code(0), _) => Ok(()),
            (Exit::Code(code), _) => Err(format!("exit status {code}{text}")),
            (Exit::Signal(signal), _) => Err(format!("killed by signal {signal}{text}")),
        }
    }

    /// Reads what the hook writes, until it has ended or the time is over. The answer: has it?
    fn watch(&mut self, deadline: Option<Instant>) -> bool {
        let mut is_open = true;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let wait = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
            if is_open {
                fds.push(PollFd::new(&self.output, PollFlags::IN));
            }
            let polled = rustix::event::poll(&mut fds, wait.as_ref());
            let is_ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
            let (has_ended, has_output) = (is_ready(0), is_ready(1));
            match polled {
                Ok(0) => return false,
                Ok(_) if has_ended => return true,
                Ok(_) if has_output => is_open = self.read(),
                Ok(_) | Err(Errno::INTR) => {}
                // What cannot be watched can be waited for.
                Err(_) => return true,
            }
        }
    }

    /// Reads what is there; false at the end of the file.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&self.output, &mut buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    let room = OUTPUT_MAX.saturating_sub(self.text.len()).min(length);
                    self.text.extend_from_slice(&buffer[..room]);
                }
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
    }
}
