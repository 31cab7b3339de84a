//! Further processes in running containers. They are not in the database, as in Docker; those that
//! were started are known to the shim too, by which the next daemon finds them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use ponton_api::exec::{ExecCreateRequest, ExecInspect, ExecStartRequest, ProcessConfig};
use ponton_api::stream::{FrameHeader, StreamKind};
use ponton_runtime::shim::protocol::{
    AttachSpec, Exec as ExecMessage, Exit, Failure, FailureKind, FdRole, Reply, Request, Status, Stdio,
};
use ponton_sys::pidfd;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::container::{Container, Task, emit, is_of_directory};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::lifecycle::State as Life;
use crate::request::{AttachConnection, StreamInfo};

/// Ended execs of a container that are still remembered.
const ENDED_KEPT: usize = 64;

/// How long after a process's end its exit code may come; then it is said to run still.
const EXIT_TOLD: Duration = Duration::from_secs(5);

const EXEC_FAILED: &str = "OCI runtime exec failed: exec failed: unable to start container process";

#[derive(Clone, Debug)]
enum State {
    Created,
    /// The descriptor is the process's own.
    Running {
        pid: u32,
        pidfd: Option<Arc<OwnedFd>>,
    },
    Ended {
        pid: u32,
        exit_code: i32,
    },
}

#[derive(Clone, Debug)]
struct Exec {
    request: ExecCreateRequest,
    state: State,
    /// It tests the container's health: nobody asks for it when it has ended.
    is_probe: bool,
    /// Order of creation.
    sequence: u64,
}

impl Exec {
    /// Its process has ended, and its exit code is not known yet.
    fn process_has_ended(&self) -> bool {
        let State::Running { pidfd: Some(pidfd), .. } = &self.state else { return false };
        crate::poll::has_ended(pidfd)
    }
}

/// What the shim is asked to run, and keeps for the next daemon.
#[derive(Serialize, Deserialize)]
struct Note {
    #[serde(flatten)]
    request: ExecCreateRequest,
    #[serde(rename = "Probe", default, skip_serializing_if = "std::ops::Not::not")]
    is_probe: bool,
}

/// How an exec is started.
pub(crate) struct Launch {
    pub(crate) request: ExecCreateRequest,
    pub(crate) stdio: Stdio,
    /// Who gets its output.
    pub(crate) attach: Option<(AttachSpec, OwnedFd)>,
    pub(crate) is_probe: bool,
}

/// The execs of one container.
#[derive(Default)]
pub(crate) struct Execs {
    known: Mutex<BTreeMap<String, Exec>>,
    /// One of them has ended.
    ended: Notify,
}

impl Execs {
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Exec>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ids of those that run; `None` when none does.
    pub(crate) fn running(&self) -> Option<Vec<String>> {
        let running: Vec<_> = self
            .known()
            .iter()
            .filter(|(_, exec)| matches!(exec.state, State::Running { .. }))
            .map(|(id, _)| id.clone())
            .collect();
        (!running.is_empty()).then_some(running)
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.known().contains_key(id)
    }

    /// Enters a new one. The answer: an old one that is forgotten for it.
    fn insert(&self, id: String, request: ExecCreateRequest, state: State, is_probe: bool) -> Option<String> {
        let mut known = self.known();
        let mut forgotten = None;
        let ended: Vec<_> = known
            .iter()
            .filter(|(_, exec)| matches!(exec.state, State::Ended { .. }))
            .map(|(id, exec)| (exec.sequence, id.clone()))
            .collect();
        if ended.len() >= ENDED_KEPT
            && let Some((_, oldest)) = ended.into_iter().min()
        {
            known.remove(&oldest);
            forgotten = Some(oldest);
        }
        let sequence = known.values().map(|exec| exec.sequence + 1).max().unwrap_or(0);
        known.insert(id, Exec { request, state, is_probe, sequence });
        forgotten
    }

    fn get(&self, id: &str) -> Result<Exec> {
        self.known().get(id).cloned().ok_or_else(|| no_such_exec(id))
    }

    /// One exec, with its exit code when its process has ended: a client may ask before the shim's
    /// word of the end has come.
    async fn settled(&self, id: &str) -> Result<Exec> {
        let deadline = tokio::time::Instant::now() + EXIT_TOLD;
        loop {
            // Before the look: an end after it is not missed.
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            let exec = self.get(id)?;
            if !exec.process_has_ended() || tokio::time::timeout_at(deadline, ended).await.is_err() {
                return Ok(exec);
            }
        }
    }

    fn set(&self, id: &str, state: State) {
        if let Some(exec) = self.known().get_mut(id) {
            exec.state = state;
        }
    }

    /// Forgets one.
    pub(crate) fn remove(&self, id: &str) {
        self.known().remove(id);
    }

    fn is_probe(&self, id: &str) -> bool {
        self.known().get(id).is_some_and(|exec| exec.is_probe)
    }

    /// Kills one with all that it has started, as far as that stayed in its session.
    pub(crate) fn kill(&self, id: &str) {
        let pidfd = match self.known().get(id).map(|exec| &exec.state) {
            Some(State::Running { pidfd: Some(pidfd), .. }) => Arc::clone(pidfd),
            _ => return,
        };
        if let Err(error) = pidfd::kill_group(pidfd.as_fd()) {
            tracing::debug!(error = crate::error::chain(&error), exec = id, "kill exec");
        }
    }

    /// False where it is known to have ended, or not known.
    fn end(&self, id: &str, exit_code: i32) -> bool {
        let mut known = self.known();
        let Some(exec) = known.get_mut(id) else { return false };
        let pid = match exec.state {
            State::Running { pid, .. } => pid,
            State::Created => 0,
            State::Ended { .. } => return false,
        };
        exec.state = State::Ended { pid, exit_code };
        self.ended.notify_waiters();
        true
    }

    /// Those that run, and their processes.
    fn running_pids(&self) -> Vec<(String, u32)> {
        let known = self.known();
        let running = known.iter().filter_map(|(id, exec)| match exec.state {
            State::Running { pid, .. } => Some((id.clone(), pid)),
            _ => None,
        });
        running.collect()
    }

    /// All of them have ended with their container.
    pub(crate) fn container_ended(&self) {
        let mut known = self.known();
        known.retain(|_, exec| !exec.is_probe);
        for exec in known.values_mut() {
            if let State::Running { pid, .. } = exec.state {
                exec.state = State::Ended { pid, exit_code: 137 };
            }
        }
        drop(known);
        self.ended.notify_waiters();
    }
}

/// The command as events have it: the program, a space, and what arguments there are.
fn command(request: &ExecCreateRequest) -> String {
    let words: Vec<_> = request.cmd.iter().flatten().map(String::as_str).collect();
    let (program, arguments) = words.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
    format!("{program} {}", arguments.join(" "))
}

fn no_such_exec(id: &str) -> Error {
    Error::not_found(format!("No such exec instance: {id}"))
}

impl Engine {
    /// Makes an exec; answers its id.
    pub async fn exec_create(self: &Arc<Self>, name: &str, request: ExecCreateRequest) -> Result<String> {
        let container = self.find(name)?;
        check_running(&container, name)?;
        if request.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(Error::invalid("No exec command specified"));
        }
        crate::container::detach_keys(Some(&request.detach_keys))?;
        self.register_exec(&container, request, false)
    }

    /// Enters an exec, and tells the event stream of it.
    pub(crate) fn register_exec(
        &self,
        container: &Container,
        request: ExecCreateRequest,
        is_probe: bool,
    ) -> Result<String> {
        let id = crate::id::generate()?;
        let action = format!("exec_create: {}", command(&request));
        if let Some(oldest) = container.execs.insert(id.clone(), request, State::Created, is_probe) {
            container.tell(move |task| async move { task.forget_exec(oldest) }.boxed());
        }
        let attributes = [("execID", id.as_str())];
        crate::container::emit(self, &container.id, &container.view(), &action, &attributes);
        Ok(id)
    }

    /// What to know before the connection of an exec is taken out of HTTP; fails as the start would.
    pub async fn exec_info(self: &Arc<Self>, id: &str, request: &ExecStartRequest) -> Result<StreamInfo> {
        let container = self.find_exec(id)?;
        let exec = container.execs.get(id)?;
        match exec.state {
            State::Created => {}
            State::Running { .. } => {
                return Err(Error::conflict(format!("Error: Exec command {id} is already running")));
            }
            State::Ended { .. } => {
                return Err(Error::conflict(format!("Error: Exec command {id} has already run")));
            }
        }
        check_running(&container, &container.id)?;
        // As with Docker the start says whether the output has frames, and not what the exec was made with.
        Ok(StreamInfo { tty: request.tty, writes_at_once: true })
    }

    /// Starts an exec. With a connection a failure to start is written to it, and the answer is Ok.
    pub async fn exec_start(
        self: &Arc<Self>,
        id: &str,
        request: ExecStartRequest,
        connection: Option<AttachConnection>,
    ) -> Result<()> {
        let info = self.exec_info(id, &request).await?;
        let container = self.find_exec(id)?;
        let exec_id = id.to_owned();
        let told = match &connection {
            Some(connection) => connection.fd.try_clone().ok(),
            None => None,
        };
        let started = container.change(move |task| task.exec(exec_id, request, connection).boxed()).await;
        match (started, told) {
            (Err(error), Some(fd)) => tell_failure(fd, info.tty, &error).await,
            (started, _) => started,
        }
    }

    /// All about an exec.
    pub async fn exec_inspect(self: &Arc<Self>, id: &str) -> Result<ExecInspect> {
        let container = self.find_exec(id)?;
        let exec = container.execs.settled(id).await?;
        let running = matches!(exec.state, State::Running { .. });
        let request = exec.request;
        let mut command = request.cmd.unwrap_or_default().into_iter();
        let (pid, exit_code) = match exec.state {
            State::Created => (0, None),
            State::Running { pid, .. } => (pid, None),
            State::Ended { pid, exit_code } => (pid, Some(i64::from(exit_code))),
        };
        Ok(ExecInspect {
            id: id.to_owned(),
            running,
            exit_code,
            process_config: ProcessConfig {
                tty: request.tty,
                entrypoint: command.next().unwrap_or_default(),
                arguments: command.collect(),
                privileged: request.privileged,
                user: request.user,
            },
            open_stdin: request.attach_stdin,
            open_stderr: request.attach_stderr,
            open_stdout: request.attach_stdout,
            can_remove: false,
            container_id: container.id.clone(),
            detach_keys: String::new(),
            pid: i64::from(pid),
        })
    }

    /// Sets the size of an exec's terminal.
    pub async fn exec_resize(self: &Arc<Self>, id: &str, rows: u16, cols: u16) -> Result<()> {
        let container = self.find_exec(id)?;
        // An end that the client has seen is told here, too.
        container.execs.settled(id).await?;
        let id = id.to_owned();
        container.change(move |task| task.exec_resize(id, rows, cols).boxed()).await
    }

    fn find_exec(&self, id: &str) -> Result<Arc<Container>> {
        self.all().into_iter().find(|container| container.execs.contains(id)).ok_or_else(|| no_such_exec(id))
    }
}

fn check_running(container: &Container, name: &str) -> Result<()> {
    check_state(&container.view().life.state, &container.id, name)
}

fn check_state(state: &Life, id: &str, name: &str) -> Result<()> {
    match state {
        Life::Running { paused: false, .. } => Ok(()),
        Life::Running { .. } => {
            Err(Error::conflict(format!("Container {name} is paused, unpause the container before exec")))
        }
        Life::Restarting { .. } => {
            Err(Error::conflict(format!("Container {id} is restarting, wait until the container is running")))
        }
        _ => Err(Error::not_running(id)),
    }
}

/// Writes to the client why its command does not run, as Docker does: the connection is not HTTP
/// any more.
async fn tell_failure(fd: std::os::fd::OwnedFd, tty: bool, error: &Error) -> Result<()> {
    let text = format!("{}\r\n", error.message);
    let mut bytes = Vec::new();
    if !tty {
        let header = FrameHeader { kind: StreamKind::Stdout, length: text.len() as u32 };
        bytes.extend_from_slice(&header.encode());
    }
    bytes.extend_from_slice(text.as_bytes());
    let failed = |error: std::io::Error| Error::failed("write to an attached client", error);
    let socket = crate::poll::register(fd, tokio::io::Interest::WRITABLE).map_err(failed)?;
    crate::container::write_all(&socket, &bytes).await.map_err(failed)?;
    // The client waits for the end; a dup may be open elsewhere still.
    let _ = rustix::net::shutdown(socket.get_ref(), rustix::net::Shutdown::Both);
    Ok(())
}

impl Task {
    async fn exec(
        &mut self,
        id: String,
        start: ExecStartRequest,
        connection: Option<AttachConnection>,
    ) -> Result<()> {
        let container = Arc::clone(&self.container);
        let request = container.execs.get(&id)?.request;
        let attached = connection.is_some();
        let size = start.console_size.or(request.console_size).unwrap_or_default();
        let stdio = Stdio {
            terminal: request.tty,
            size: crate::container::size(size),
            stdin: request.attach_stdin && attached,
            stdin_once: true,
        };
        let keys = match request.tty {
            true => crate::container::detach_keys(Some(&request.detach_keys))?,
            false => Vec::new(),
        };
        let attach = connection.map(|AttachConnection { fd, preamble }| {
            let spec = AttachSpec {
                stdin: request.attach_stdin,
                stdout: request.attach_stdout,
                stderr: request.attach_stderr,
                multiplexed: !start.tty,
                detach_keys: keys,
                preamble,
            };
            (spec, fd)
        });
        self.launch_exec(&id, Launch { request, stdio, attach, is_probe: false }).await
    }

    /// Starts a process that was registered under `id`.
    pub(crate) async fn launch_exec(&mut self, id: &str, launch: Launch) -> Result<()> {
        let Launch { request, stdio, attach, is_probe } = launch;
        let container = Arc::clone(&self.container);
        // It may have been frozen since its creation: a process that joins it now would not come to life.
        check_state(&self.view.life.state, &container.id, &container.id)?;
        let process = self.process_plan(&request)?;
        let Some(run) = &self.run else { return Err(Error::not_running(&container.id)) };
        let action = format!("exec_start: {}", command(&request));
        let (specs, socket) = attach.unzip();
        let fds: Vec<_> = socket.iter().map(|fd| (FdRole::Attach, fd.as_fd())).collect();
        let note = serde_json::to_string(&Note { request, is_probe })
            .map_err(|error| Error::failed("print what an exec was asked for", error))?;
        let message = ExecMessage {
            container: container.id.clone(),
            exec: id.to_owned(),
            process: process.plan,
            stdio,
            attach: specs.into_iter().collect(),
            note,
            foreign: process.foreign,
        };
        let asked = Request::Exec(Box::new(message));
        // As with dockerd, what is started is told before it turns out whether it can be.
        emit(&self.engine, &container.id, &self.view, &action, &[("execID", id)]);
        // An exit that comes before the answer was read waits in the queue behind this job.
        match run.shim.call(&asked, &fds).await {
            Ok((Reply::Started { pid, .. }, fds)) => {
                let pidfd =
                    fds.into_iter().find(|(role, _)| *role == FdRole::Pidfd).map(|(_, fd)| Arc::new(fd));
                container.execs.set(id, State::Running { pid, pidfd });
                Ok(())
            }
            Ok(_) => Err(Error::internal("unexpected answer to exec")),
            Err(failure) => {
                let (exit_code, error) = refused(&failure);
                let _ = container.execs.end(id, exit_code);
                match failure.kind {
                    FailureKind::CommandNotFound | FailureKind::CommandNotExecutable => Err(error),
                    _ => Err(self.or_not_running(error).await),
                }
            }
        }
    }

    async fn exec_resize(&mut self, id: String, rows: u16, cols: u16) -> Result<()> {
        let container = Arc::clone(&self.container);
        if !matches!(container.execs.get(&id)?.state, State::Running { .. }) {
            return Err(Error::conflict(format!("Exec {id} is not running")));
        }
        let Some(run) = &self.run else { return Err(Error::not_running(&container.id)) };
        crate::container::resize(&run.shim, &container.id, Some(id), rows, cols).await
    }

    /// An exec's process has ended.
    pub(crate) async fn exec_exited(&mut self, id: String, exit: Exit) {
        let container = Arc::clone(&self.container);
        let exit_code = code(exit);
        if !container.execs.end(&id, exit_code) {
            // Told already: by the shim's list, or by the end of the container.
            return;
        }
        let code = exit_code.to_string();
        self.emit("exec_die", &[("execID", &id), ("exitCode", &code)]);
        if container.execs.is_probe(&id) {
            container.execs.remove(&id);
            self.exec_ended(&id, exit_code).await;
            self.forget_exec(id);
        }
    }

    /// Has the shim drop its record of an exec that nobody can ask for any more.
    fn forget_exec(&self, id: String) {
        let Some(run) = &self.run else { return };
        let shim = Arc::clone(&run.shim);
        let request = Request::Forget { container: self.id().to_owned(), exec: Some(id) };
        tokio::spawn(async move {
            if let Err(error) = shim.call(&request, &[]).await {
                tracing::debug!(%error, "forget exec");
            }
        });
    }

    /// Enters the execs that an earlier daemon started.
    pub(crate) fn find_execs(&self, status: &Status) {
        let mut found: Vec<_> = status.execs.iter().collect();
        found.sort_by_key(|exec| exec.started_at_ns);
        for exec in found {
            let Ok(Note { request, is_probe }) = serde_json::from_str(&exec.note) else { continue };
            if is_probe && exec.exited.is_some() {
                self.forget_exec(exec.exec.clone());
                continue;
            }
            let pid = exec.pid;
            let state = match exec.exited {
                None => State::Running { pid, pidfd: pidfd::open(pid).ok().map(Arc::new) },
                Some(exit) => State::Ended { pid, exit_code: code(exit) },
            };
            // What is too much is forgotten with the container.
            let _ = self.container.execs.insert(exec.exec.clone(), request, state, is_probe);
            if is_probe {
                // Nobody hears its result; it is probed again.
                self.container.execs.kill(&exec.exec);
            }
        }
    }

    /// Their shim is gone. They run on, without streams; how they end is told by the kernel.
    pub(crate) fn follow_execs(&self) {
        for (id, pid) in self.container.execs.running_pids() {
            let container = Arc::clone(&self.container);
            tokio::spawn(async move {
                let exit_code = wait_for(pid).await;
                let exited_at_ns = u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0);
                let exit = Exit { pid, exit_code, exited_at_ns, oom_killed: false };
                container.tell(move |task| task.exec_exited(id, exit).boxed());
            });
        }
    }
}

/// The exit code of a process of a dead shim: the daemon is its parent now, or the kernel keeps it.
async fn wait_for(pid: u32) -> Option<i32> {
    let pidfd = crate::poll::register(pidfd::open(pid).ok()?, tokio::io::Interest::READABLE).ok()?;
    let _ended = pidfd.readable().await.ok()?;
    let waited = pidfd::try_wait(pidfd.get_ref().as_fd()).ok().flatten();
    let exit = waited.or_else(|| pidfd::exit_info(pidfd.get_ref().as_fd(), pid).ok().flatten());
    exit.map(pidfd::Exit::code)
}

fn code(exit: Exit) -> i32 {
    exit.exit_code.unwrap_or(crate::lifecycle::UNKNOWN_EXIT_CODE)
}

/// What a shim's refusal means for the client and for the exec's exit code.
fn refused(failure: &Failure) -> (i32, Error) {
    let message = format!("{EXEC_FAILED}: {failure}: unknown");
    match failure.kind {
        FailureKind::CommandNotFound => (127, Error::invalid(message)),
        FailureKind::CommandNotExecutable => (126, Error::invalid(message)),
        FailureKind::NotFound | FailureKind::Invalid => (126, Error::invalid(message)),
        FailureKind::StartFailed if is_of_directory(failure) => (126, Error::invalid(message)),
        FailureKind::StartFailed | FailureKind::Internal => (126, Error::internal(message)),
    }
}
