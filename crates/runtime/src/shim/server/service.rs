//! Logging services: their sockets in the epoll set, new connections when their time has come, and
//! what is still to be sent of containers that have ended.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ponton_sys::event::Interest;

use super::process::Process;
use super::{Server, Source};
use crate::shim::log::{Log, Remote};

/// How long a service may take for what is left when a container has ended.
const LINGER: Duration = Duration::from_secs(10);

/// What is to be done for logging services, by the keys of the processes.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// Those of processes that have ended, and when they are given up.
    lingering: HashMap<u32, (Remote, Instant)>,
    /// When to look after which.
    due: Vec<(u32, Instant)>,
}

impl Services {
    /// Whether everything is sent.
    pub(super) fn is_idle(&self) -> bool {
        self.lingering.is_empty()
    }

    /// How long until something is to be done.
    pub(super) fn next_due(&self, now: Instant) -> Option<Duration> {
        self.due.iter().map(|(_, at)| at.saturating_duration_since(now)).min()
    }

    fn remote<'a>(
        &'a mut self,
        processes: &'a mut HashMap<u32, Process>,
        key: u32,
    ) -> Option<&'a mut Remote> {
        match self.lingering.get_mut(&key) {
            Some((remote, _)) => Some(remote),
            None => processes.get_mut(&key)?.log.as_mut().and_then(Log::remote),
        }
    }
}

impl Server {
    /// Something happened to the socket of a service.
    pub(super) fn service_ready(&mut self, key: u32, events: Interest) {
        if let Some(remote) = self.services.remote(&mut self.processes, key) {
            remote.ready(events);
        }
        self.settle_service(key);
        self.hold_or_resume(key);
    }

    /// Does what is due.
    pub(super) fn run_services(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.services.due).into_iter().partition(|(_, at)| *at <= now);
        self.services.due = later;
        let due: Vec<(u32, Instant)> = due;
        for (key, _) in due {
            if self.services.lingering.get(&key).is_some_and(|(_, end)| *end <= now) {
                eprintln!("shim: a logging service did not take all of an ended container's output");
                self.services.lingering.remove(&key);
                continue;
            }
            if let Some(remote) = self.services.remote(&mut self.processes, key) {
                remote.retry(now);
            }
            self.settle_service(key);
            self.hold_or_resume(key);
        }
    }

    /// Keeps what is left for a service of a process that has ended.
    pub(super) fn leave_service(&mut self, key: u32, log: Log) {
        let Some(remote) = log.into_remote().filter(Remote::is_waiting) else { return };
        let end = Instant::now() + LINGER;
        self.services.lingering.insert(key, (remote, end));
        self.services.due.push((key, end));
        self.settle_service(key);
    }

    /// Watches a service's socket for what it waits for.
    pub(super) fn settle_service(&mut self, key: u32) {
        let Some(remote) = self.services.remote(&mut self.processes, key) else { return };
        let (wanted, token) = (remote.wanted(), Source::Service.token(key));
        if let Some(socket) = remote.socket() {
            let armed = match remote.interest {
                Some(armed) if armed == wanted => Ok(()),
                Some(_) => self.epoll.modify(socket, token, wanted),
                None => self.epoll.add(socket, token, wanted),
            };
            remote.interest = armed.is_ok().then_some(wanted);
        }
        let lost = remote.take_lost();
        if lost > 0 {
            eprintln!("shim: {lost} log messages were not sent");
        }
        let (retry_at, is_waiting) = (remote.retry_at(), remote.is_waiting());
        if !is_waiting && self.services.lingering.remove(&key).is_some() {
            return;
        }
        if let Some(at) = retry_at
            && !self.services.due.contains(&(key, at))
        {
            self.services.due.push((key, at));
        }
    }
}
