//! What daemons ask for.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use ponton_cgroup::Cgroup;
use ponton_oci::runtime::{State, Status as ContainerStatus};
use ponton_sys::event::Interest;
use ponton_sys::pty;

use super::attached::Attached;
use super::connection::Fds;
use super::launch::{self, Launched, Streams, failure};
use super::process::{Input, Output, Process};
use super::record::is_valid_id;
use super::{Container, Server, Source, now_ns};
use crate::hook;
use crate::open::Target;
use crate::plan::HookKind;
use crate::shim::log::Log;
use crate::shim::packet;
use crate::shim::protocol::{
    Adopt, AttachSpec, Body, Exec, ExecStatus, Failure, FailureKind, FdRole, LogTarget, Reply, Request, Size,
    Start, Status, Stdio, ToShim, VERSION,
};
use crate::state::Later;

type Answer = Result<(Reply, Fds), Failure>;

/// The answer to a message that is not of the protocol: none if not even its id can be read.
pub(super) fn refuse_unparsed(payload: &[u8], error: &serde_json::Error) -> Option<(Body, Fds)> {
    #[derive(serde::Deserialize)]
    struct OnlyId {
        id: u64,
    }
    let OnlyId { id } = serde_json::from_slice(payload).ok()?;
    Some((Body::Error { id, error: invalid(format!("request: {error}")) }, Fds::new()))
}

/// A start, or a wish to forget, that waits for the control group of the container's last run to go.
pub(super) struct Parked {
    /// Who asked; without it the request is dropped.
    pub(super) connection: u32,
    message: ToShim,
    fds: Vec<OwnedFd>,
}

impl Server {
    /// Carries a connection's request out and answers it, now or, while the kernel still takes the
    /// last run of a container down, when that is done.
    pub(super) fn serve_request(&mut self, connection: u32, message: ToShim, fds: Vec<OwnedFd>) {
        if let Request::Start(start) = &message.request
            && let Some(path) = start.plan.cgroup()
        {
            self.removals.hurry(path, &self.host.cgroup, Instant::now());
        }
        self.answer_or_park(Parked { connection, message, fds });
    }

    /// Whether somebody waits who is in a hurry.
    pub(super) fn is_start_parked(&self) -> bool {
        self.parked.iter().any(|parked| matches!(parked.message.request, Request::Start(_)))
    }

    /// Answers those who need not wait any more.
    pub(super) fn unpark(&mut self) {
        for parked in std::mem::take(&mut self.parked) {
            self.answer_or_park(parked);
        }
    }

    fn answer_or_park(&mut self, parked: Parked) {
        let group = match &parked.message.request {
            Request::Start(start) => start.plan.cgroup(),
            // What is forgotten is nobody's any more: the group would stay if this shim died.
            Request::Forget { container, exec: None } => {
                self.containers.get(container).and_then(|container| container.cgroup.as_deref())
            }
            _ => None,
        };
        if group.is_some_and(|path| self.removals.is_waiting(path)) {
            return self.parked.push(parked);
        }
        let (body, fds) = self.answer(parked.message, parked.fds);
        self.send(parked.connection, body, fds);
    }

    /// Carries one request out.
    fn answer(&mut self, message: ToShim, fds: Vec<OwnedFd>) -> (Body, Fds) {
        let id = message.id;
        let answer = packet::name_fds(&message.fds, fds)
            .map_err(|error| invalid(error.to_string()))
            .and_then(|fds| self.carry_out(message.request, fds));
        match answer {
            Ok((reply, fds)) => (Body::Reply { id, reply }, fds),
            Err(error) => (Body::Error { id, error }, Fds::new()),
        }
    }

    fn carry_out(&mut self, request: Request, fds: Fds) -> Answer {
        match request {
            Request::Hello { .. } => Ok((self.welcome(), Fds::new())),
            Request::Start(start) => self.start(*start, fds),
            Request::Exec(exec) => self.exec(*exec, fds),
            Request::Attach { container, exec, attach } => {
                self.attach(&container, exec.as_deref(), &attach, fds)
            }
            Request::Resize { container, exec, size } => self.resize(&container, exec.as_deref(), size),
            Request::Inspect { container } => self.inspect(&container),
            Request::List => {
                let all = self.containers.keys().filter_map(|id| self.status(id).ok()).collect();
                Ok((Reply::List(all), Fds::new()))
            }
            Request::Forget { container, exec: None } => self.forget(&container),
            Request::Forget { container, exec: Some(exec) } => self.forget_exec(&container, &exec),
            Request::Adopt(adopt) => self.adopt(*adopt, fds),
            Request::Retire => {
                self.is_retiring = true;
                Ok((Reply::Done, Fds::new()))
            }
        }
    }

    fn welcome(&self) -> Reply {
        let used = self.containers.len() as u32;
        Reply::Welcome {
            version: VERSION,
            pid: std::process::id(),
            capacity: self.capacity.saturating_sub(used),
        }
    }

    fn start(&mut self, start: Start, fds: Fds) -> Answer {
        let Start { container: id, plan, stdio, log: target, attach, foreign, restore } = start;
        self.make_room(&id)?;
        let mut fds = Sorted::new(fds, &attach)?;
        let log = open_log(target.as_ref(), fds.log.take())?;
        let cgroup = plan.cgroup().map(str::to_owned);
        let own_pid_namespace = plan.own_pid_namespace();
        // Another runtime does what is to be done later itself.
        let later = if foreign.is_some() { Later::default() } else { Later::of(&plan) };
        let state = (later != Later::default()).then(|| plan.state(ContainerStatus::Running, None));
        let runtime = foreign.as_ref().map(|foreign| foreign.runtime.clone());
        let Launched { started, streams, root } = match (foreign, restore) {
            (Some(_), Some(_)) => return Err(invalid("restore: not implemented for other runtimes")),
            (Some(foreign), None) => {
                let netns = fds.netns.as_ref().map(AsFd::as_fd);
                launch::foreign_container(foreign, &plan, netns, &stdio)?
            }
            (None, None) => launch::container(plan, fds.netns.take(), &stdio, &self.host)?,
            (None, Some(options)) => {
                let (directory, netns) = (self.records.directory_of(&id), fds.netns.take());
                let restored = launch::restored(plan, netns, &stdio, &self.host, &options, &directory);
                if restored.is_err() {
                    // Only if nothing else is in it.
                    let _ = std::fs::remove_dir(&directory);
                    // What was killed in its group may keep that busy for a moment.
                    if let Some(path) = &cgroup {
                        self.removals.add(path.clone(), Instant::now());
                    }
                }
                restored?
            }
        };
        let mut process = new_process(&id, None, started.pid, stdio, streams);
        process.pidfd = Some(started.pidfd);
        process.log = log;
        let reply = Reply::Started { pid: process.pid, started_at_ns: process.started_at_ns };
        let ports = std::mem::take(&mut fds.ports);
        if let Some(state) = &state {
            let state = State { pid: Some(process.pid as i32), ..state.clone() };
            if let Err(error) = hook::run_apart(HookKind::Poststart, &later.poststart, &state) {
                eprintln!("shim: run the poststart hooks of container {id}: {error}");
            }
        }
        let container = Container {
            process: 0,
            execs: BTreeMap::new(),
            log: target,
            cgroup,
            own_pid_namespace,
            foreign: runtime,
            ports,
            later,
            state,
        };
        let dups = self.add_container(&id, container, process);
        fds.process = self.find_key(&id, None)?;
        self.add_clients(fds, &attach);
        let mut dups = dups?;
        dups.extend(root.map(|root| (FdRole::Root, root)));
        Ok((reply, dups))
    }

    fn exec(&mut self, exec: Exec, fds: Fds) -> Answer {
        let Exec { container: id, exec: exec_id, process: plan, stdio, attach, note, foreign } = exec;
        let mut fds = Sorted::new(fds, &attach)?;
        if !is_valid_id(&exec_id) {
            return Err(invalid(format!("exec id {exec_id:?}")));
        }
        let (container, first) = self.find(&id, None)?;
        if container.execs.contains_key(&exec_id) {
            return Err(invalid(format!("exec {exec_id} exists already")));
        }
        let Some(pidfd) = &first.pidfd else { return Err(not_running(&id)) };
        let cgroup = container.cgroup.as_deref().map(|path| Cgroup::new(&self.host.cgroup, path));
        let target = Target { pid: first.pid, pidfd: pidfd.as_fd(), cgroup: cgroup.as_ref() };
        let Launched { started, streams, root: _ } = match (&container.foreign, foreign) {
            (Some(runtime), Some(process)) => {
                launch::foreign_process(runtime, &id, first.pid, &process, &plan, &stdio)?
            }
            (Some(_), None) => return Err(invalid(format!("exec {exec_id}: no process for its runtime"))),
            (None, _) => launch::process(plan, target, &stdio, &self.host)?,
        };
        let mut process = new_process(&id, Some(exec_id.clone()), started.pid, stdio, streams);
        process.pidfd = Some(started.pidfd);
        process.note = note;
        let reply = Reply::Started { pid: process.pid, started_at_ns: process.started_at_ns };
        let dups = process.dups().map_err(|error| failure("dup the standard streams", &error));
        let key = self.add_process(process);
        if let Some(container) = self.containers.get_mut(&id) {
            container.execs.insert(exec_id, key);
        }
        fds.process = key;
        self.add_clients(fds, &attach);
        Ok((reply, dups?))
    }

    fn attach(&mut self, id: &str, exec: Option<&str>, attach: &AttachSpec, fds: Fds) -> Answer {
        let mut fds = Sorted::new(fds, std::slice::from_ref(attach))?;
        fds.process = self.find_key(id, exec)?;
        if self.processes.get(&fds.process).is_none_or(|process| process.exit.is_some()) {
            return Err(not_running(id));
        }
        self.add_clients(fds, std::slice::from_ref(attach));
        Ok((Reply::Attached, Fds::new()))
    }

    fn resize(&mut self, id: &str, exec: Option<&str>, size: Size) -> Answer {
        let (_, process) = self.find(id, exec)?;
        if process.exit.is_some() {
            return Err(invalid(format!("container {id} has ended")));
        }
        // As with other engines, there is no harm in asking where there is no terminal, or none any more.
        if let (true, Some(output)) = (process.stdio.terminal, &process.outputs[0]) {
            pty::set_size(&output.fd, size.rows, size.cols)
                .map_err(|error| failure("set the size of the terminal", &error))?;
        }
        Ok((Reply::Done, Fds::new()))
    }

    fn inspect(&self, id: &str) -> Answer {
        let status = self.status(id)?;
        let (_, process) = self.find(id, None)?;
        let dups = process.dups().map_err(|error| failure("dup the standard streams", &error))?;
        Ok((Reply::Status(Box::new(status)), dups))
    }

    fn forget(&mut self, id: &str) -> Answer {
        let (container, process) = self.find(id, None)?;
        if process.exit.is_none() {
            return Err(invalid(format!("container {id} is running")));
        }
        let execs: Vec<_> = container.execs.keys().cloned().collect();
        self.records
            .forget(id, execs.into_iter())
            .map_err(|error| failure("remove the exit record", &error))?;
        self.remove_container(id);
        Ok((Reply::Done, Fds::new()))
    }

    fn forget_exec(&mut self, id: &str, exec: &str) -> Answer {
        let key = self.find_key(id, Some(exec))?;
        if self.processes.get(&key).is_some_and(|process| process.exit.is_none()) {
            return Err(invalid(format!("exec {exec} is running")));
        }
        self.records.forget_exec(id, exec).map_err(|error| failure("remove the exit record", &error))?;
        self.processes.remove(&key);
        if let Some(container) = self.containers.get_mut(id) {
            container.execs.remove(exec);
        }
        Ok((Reply::Done, Fds::new()))
    }

    fn adopt(&mut self, adopt: Adopt, fds: Fds) -> Answer {
        let Adopt { status, stdio, log: target } = adopt;
        self.make_room(&status.container)?;
        let Sorted { pidfd: Some(pidfd), stdin, stdout, stderr, terminal, ports, .. } =
            Sorted::new(fds, &[])?
        else {
            return Err(invalid("adopt: no pidfd"));
        };
        let log = open_log(target.as_ref(), None)?;
        let input = match &terminal {
            Some(master) if stdio.stdin => {
                Some(master.try_clone().map_err(|error| failure("dup the terminal", &error))?)
            }
            _ => stdin,
        };
        let streams = Streams { input, outputs: [terminal.or(stdout), stderr] };
        let id = status.container;
        let mut process = new_process(&id, None, status.pid, stdio, streams);
        process.pidfd = Some(pidfd);
        process.is_child = false;
        process.started_at_ns = status.started_at_ns;
        process.log = log;
        let container = Container {
            process: 0,
            execs: BTreeMap::new(),
            log: target,
            cgroup: status.cgroup,
            own_pid_namespace: status.own_pid_namespace,
            foreign: status.foreign,
            ports,
            later: Later::default(),
            state: None,
        };
        self.add_container(&id, container, process)?;
        Ok((Reply::Adopted, Fds::new()))
    }

    /// Checks that a container of this id can be added; the record of an ended one is dropped.
    fn make_room(&mut self, id: &str) -> Result<(), Failure> {
        if !is_valid_id(id) {
            return Err(invalid(format!("container id {id:?}")));
        }
        if let Ok((_, process)) = self.find(id, None) {
            if process.exit.is_none() {
                return Err(invalid(format!("container {id} is running")));
            }
            self.forget(id)?;
        }
        if self.containers.len() >= self.capacity as usize {
            return Err(invalid(format!("shim is full: {} containers", self.capacity)));
        }
        Ok(())
    }

    /// Adds a running container and its first process. The answer: dups of its descriptors.
    fn add_container(
        &mut self,
        id: &str,
        mut container: Container,
        process: Process,
    ) -> Result<Fds, Failure> {
        let dups = process.dups().map_err(|error| failure("dup the standard streams", &error));
        container.process = self.add_process(process);
        self.containers.insert(id.to_owned(), container);
        let written = self.status(id).map(|status| self.records.write_status(&status));
        if let Ok(Err(error)) = written {
            // The container runs; only a successor would miss it.
            eprintln!("shim: write record of container {id}: {error}");
        }
        dups
    }

    fn add_process(&mut self, process: Process) -> u32 {
        let key = self.new_key();
        if let Some(pidfd) = &process.pidfd
            && let Err(error) = self.epoll.add(pidfd, Source::Pidfd.token(key), Interest::IN)
        {
            eprintln!("shim: watch process {}: {error}", process.pid);
        }
        self.processes.insert(key, process);
        self.watch_outputs(key);
        key
    }

    fn add_clients(&mut self, fds: Sorted, attach: &[AttachSpec]) {
        let has_stdin = self.processes.get(&fds.process).is_some_and(|process| process.stdio.stdin);
        for (spec, socket) in attach.iter().zip(fds.attach) {
            let client = Attached::new(socket, fds.process, spec, has_stdin);
            self.add_client(fds.process, client, &spec.preamble);
        }
    }

    fn remove_container(&mut self, id: &str) {
        if let Some(container) = self.containers.remove(id) {
            self.processes.remove(&container.process);
            for exec in container.execs.values() {
                self.processes.remove(exec);
            }
        }
    }

    fn status(&self, id: &str) -> Result<Status, Failure> {
        let (container, process) = self.find(id, None)?;
        let exec_status = |(exec, key): (&String, &u32)| {
            let process = self.processes.get(key)?;
            Some(ExecStatus {
                exec: exec.clone(),
                pid: process.pid,
                started_at_ns: process.started_at_ns,
                terminal: process.stdio.terminal,
                exited: process.exit,
                note: process.note.clone(),
            })
        };
        Ok(Status {
            container: id.to_owned(),
            pid: process.pid,
            started_at_ns: process.started_at_ns,
            stdio: process.stdio.clone(),
            log: container.log.clone(),
            cgroup: container.cgroup.clone(),
            own_pid_namespace: container.own_pid_namespace,
            foreign: container.foreign.clone(),
            exited: process.exit,
            execs: container.execs.iter().filter_map(exec_status).collect(),
        })
    }

    fn find_key(&self, id: &str, exec: Option<&str>) -> Result<u32, Failure> {
        let container = self.containers.get(id).ok_or_else(|| not_found(format!("no container {id}")))?;
        match exec {
            None => Ok(container.process),
            Some(exec) => container
                .execs
                .get(exec)
                .copied()
                .ok_or_else(|| not_found(format!("no exec {exec} in container {id}"))),
        }
    }

    fn find(&self, id: &str, exec: Option<&str>) -> Result<(&Container, &Process), Failure> {
        let key = self.find_key(id, exec)?;
        match (self.containers.get(id), self.processes.get(&key)) {
            (Some(container), Some(process)) => Ok((container, process)),
            _ => Err(not_found(format!("no container {id}"))),
        }
    }
}

/// The descriptors of a request.
#[derive(Debug, Default)]
struct Sorted {
    netns: Option<OwnedFd>,
    log: Option<OwnedFd>,
    pidfd: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    ports: Vec<OwnedFd>,
    attach: Vec<OwnedFd>,
    /// The process that the clients are attached to.
    process: u32,
}

impl Sorted {
    fn new(fds: Fds, attach: &[AttachSpec]) -> Result<Self, Failure> {
        let mut sorted = Self::default();
        for (role, fd) in fds {
            match role {
                FdRole::Netns => sorted.netns = Some(fd),
                FdRole::Pidfd => sorted.pidfd = Some(fd),
                FdRole::Stdin => sorted.stdin = Some(fd),
                FdRole::Stdout => sorted.stdout = Some(fd),
                FdRole::Stderr => sorted.stderr = Some(fd),
                FdRole::Terminal => sorted.terminal = Some(fd),
                FdRole::Port => sorted.ports.push(fd),
                FdRole::Attach => sorted.attach.push(fd),
                FdRole::Log => sorted.log = Some(fd),
                // Only its holder's business.
                FdRole::Root => {}
            }
        }
        if sorted.attach.len() != attach.len() {
            let (fds, specs) = (sorted.attach.len(), attach.len());
            return Err(invalid(format!("{specs} clients to attach with {fds} descriptors")));
        }
        Ok(sorted)
    }
}

fn new_process(container: &str, exec: Option<String>, pid: u32, stdio: Stdio, streams: Streams) -> Process {
    Process {
        container: container.to_owned(),
        exec,
        pid,
        is_child: true,
        started_at_ns: now_ns(),
        stdio,
        pidfd: None,
        input: streams.input.map(Input::new),
        outputs: streams.outputs.map(|fd| fd.map(Output::new)),
        log: None,
        clients: Vec::new(),
        is_held: false,
        exit: None,
        note: String::new(),
    }
}

fn open_log(target: Option<&LogTarget>, socket: Option<OwnedFd>) -> Result<Option<Log>, Failure> {
    let opened = target.map(|target| Log::open(target, socket)).transpose();
    opened.map_err(|error| failure("open the log", &error))
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure { kind: FailureKind::Invalid, step: None, message: message.into() }
}

fn not_found(message: String) -> Failure {
    Failure { kind: FailureKind::NotFound, step: None, message }
}

fn not_running(id: &str) -> Failure {
    invalid(format!("container {id} is not running"))
}
