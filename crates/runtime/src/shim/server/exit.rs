//! The end of a process: its last output, its exit status, its record, its event.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use jiff::Timestamp;
use ponton_cgroup::Cgroup;
use ponton_oci::runtime::{State, Status as ContainerStatus};
use ponton_sys::event::Interest;
use ponton_sys::pidfd;
use rustix::process::{WaitOptions, WaitStatus};

use super::{Server, Source, now_ns};
use crate::hook;
use crate::plan::HookKind;
use crate::shim::protocol::{Event, Exit};

/// From this kernel on a pidfd keeps the exit status of a process that somebody else reaped.
const KEEPS_EXIT_STATUS: (u32, u32) = (6, 15);

/// What a pidfd tells.
enum Ended {
    /// The process has ended; the status is unknown if the kernel does not keep it.
    Yes(Option<i32>),
    /// It runs.
    No,
    /// It has ended, its parent (not us) has not reaped it yet, and we may not ask how: the status comes with that.
    Unreaped,
}

impl Server {
    /// Reaps children: ours by way of [`Server::process_ended`], and strays, whose parents in a
    /// container without a pid namespace of its own are gone.
    pub(super) fn reap(&mut self) {
        self.signals.clear();
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get() as u32;
            let key = self.processes.iter().find_map(|(&key, process)| {
                (process.pid == pid && process.is_child && process.exit.is_none()).then_some(key)
            });
            match key {
                Some(key) => self.process_ended(key, Some(status)),
                None => self.compressor.ended(pid, status.exit_status() == Some(0), Instant::now()),
            }
        }
    }

    /// A pidfd is readable, or the process was reaped already with this status.
    pub(super) fn process_ended(&mut self, key: u32, reaped: Option<WaitStatus>) {
        let Some(process) = self.processes.get(&key) else { return };
        let Some(pidfd) = &process.pidfd else { return };
        let ended = match reaped {
            Some(status) => Ended::Yes(exit_code(status)),
            None => ask(pidfd, process.pid, self.host.kernel >= KEEPS_EXIT_STATUS),
        };
        let exit_code = match ended {
            Ended::Yes(code) => code,
            Ended::No => return,
            Ended::Unreaped => {
                // A hang-up is told without being asked for.
                let _ = self.epoll.modify(pidfd, Source::Pidfd.token(key), Interest::empty());
                return;
            }
        };
        let is_first = process.exec.is_none();
        let (cgroup, oom_killed) =
            if is_first { self.end_container(&process.container.clone()) } else { (None, false) };
        self.drain_outputs(key);
        self.close_input(key);
        if is_first {
            let id = self.processes.get(&key).map(|process| process.container.clone());
            let id = id.unwrap_or_default();
            self.run_last_hooks(&id);
            if let Some(foreign) = self.containers.get(&id).and_then(|container| container.foreign.clone()) {
                foreign.clear(&id);
            }
        }
        self.record_exit(key, exit_code, oom_killed);
        if let Some(cgroup) = cgroup {
            self.removals.add(cgroup, Instant::now());
        }
    }

    /// What goes with a container's first process. The answer: the control group that is to be
    /// removed, and whether the kernel killed something in it for its memory limit.
    fn end_container(&mut self, id: &str) -> (Option<String>, bool) {
        let Some(container) = self.containers.get_mut(id) else { return (None, false) };
        container.ports.clear();
        let execs: Vec<u32> = container.execs.values().copied().collect();
        let cgroup = container.cgroup.clone();
        let own_pid_namespace = container.own_pid_namespace;
        let mut oom_killed = false;
        if let Some(path) = &cgroup {
            let group = Cgroup::new(&self.host.cgroup, path);
            if !own_pid_namespace && let Err(error) = group.kill_all() {
                eprintln!("shim: kill what is left of container {id}: {error}");
            }
            oom_killed = group.oom_kills().is_ok_and(|count| count > 0);
        }
        for exec in execs {
            self.process_ended(exec, None);
        }
        (cgroup, oom_killed)
    }

    /// Takes back what the container had of the host, and has its hooks for the end run.
    fn run_last_hooks(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(state) = container.state.take() else { return };
        let later = std::mem::take(&mut container.later);
        let state = State { status: ContainerStatus::Stopped, pid: None, ..state };
        if let Err(error) = later.leave() {
            eprintln!("shim: container {id}: {error}");
        }
        if let Err(error) = hook::run_apart(HookKind::Poststop, &later.poststop, &state) {
            eprintln!("shim: run the poststop hooks of container {id}: {error}");
        }
    }

    /// Writes the record, lets everything of the process go, and tells the daemons.
    fn record_exit(&mut self, key: u32, exit_code: Option<i32>, oom_killed: bool) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        let (container, exec) = (process.container.clone(), process.exec.clone());
        let log = process.log.take().map(|mut log| {
            if let Err(error) = log.end(Timestamp::now(), &mut self.scratch) {
                eprintln!("shim: write log of container {container}: {error}");
            }
            log
        });
        if let Some(pidfd) = process.pidfd.take() {
            let _ = self.epoll.remove(&pidfd);
        }
        let exit = Exit { pid: process.pid, exit_code, exited_at_ns: now_ns(), oom_killed };
        process.exit = Some(exit);
        for client in std::mem::take(&mut process.clients) {
            self.end_client(client);
        }
        if let Some(log) = log {
            self.leave_service(key, log);
        }
        if let Err(error) = self.records.write_exit(&container, exec.as_deref(), &exit) {
            eprintln!("shim: write exit record of container {container}: {error}");
        }
        self.tell(&Event::Exited { container, exec, exit });
    }
}

fn ask(pidfd: &OwnedFd, pid: u32, keeps_exit_status: bool) -> Ended {
    match pidfd::try_wait(pidfd.as_fd()) {
        Ok(Some(exit)) => Ended::Yes(Some(exit.code())),
        Ok(None) => Ended::No,
        // Not our child.
        Err(_) => match pidfd::exit_info(pidfd.as_fd(), pid) {
            Ok(Some(exit)) => Ended::Yes(Some(exit.code())),
            _ if keeps_exit_status && is_unreaped(pidfd) => Ended::Unreaped,
            _ => Ended::Yes(None),
        },
    }
}

fn is_unreaped(pidfd: &OwnedFd) -> bool {
    pidfd::send_signal(pidfd.as_fd(), 0).is_ok()
}

fn exit_code(status: WaitStatus) -> Option<i32> {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
}
