//! The shim's own side: one thread that waits for everything at once.
//!
//! ```text
//!                      ┌───────── listener ── daemons: requests, answers, events
//!   epoll ── one loop ─┼───────── pidfds ──── processes that end
//!                      ├───────── pipes, terminals ──► log, attached clients
//!                      └───────── clients ──► pipes, terminals
//! ```
//!
//! Nothing here waits for one peer: what a daemon or a client doesn't take is kept for it, and a
//! process whose client is slow is not read until the client has caught up.
//!
//! *Invariant*: a descriptor is taken out of the epoll set before it is closed, because the daemon
//! has dups of many of them.

mod attached;
mod compress;
mod connection;
mod exit;
mod group;
mod launch;
mod process;
mod record;
mod request;
mod service;
mod stream;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ponton_oci::runtime::State;
use ponton_sys::event::{Epoll, Interest, Ready, Signals};
use ponton_sys::socket;
use rustix::process::{Resource, Rlimit, Signal};

use self::attached::Attached;
use self::compress::Compressor;
use self::connection::Connection;
use self::group::Removals;
use self::process::Process;
use self::record::Records;
use self::request::Parked;
use self::service::Services;
use crate::host::Host;
use crate::shim::foreign::Foreign;
use crate::shim::packet;
use crate::shim::protocol::{Body, Event, INLINE_MAX, Request, ToShim};
use crate::state::Later;

/// How long a shim that has nothing to do and no daemon stays.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How long removals are put off while there is something better to do.
const BUSY_TURNS_MAX: u32 = 64;
/// How many descriptors a container may need: streams, log, ports, clients, execs.
const FILES_PER_CONTAINER: u64 = 16;
/// One read of output or input, in bytes: what a pipe holds.
const READ_MAX: usize = 64 << 10;

/// What a shim is told when it is started.
#[derive(Debug)]
pub struct Options {
    /// The listening `SOCK_SEQPACKET` socket.
    pub listener: OwnedFd,
    /// The listener's path, to be removed at the end; none if somebody else does.
    pub socket: Option<PathBuf>,
    /// The directory with one directory for each container, where records are written.
    pub state_dir: PathBuf,
    /// The most containers.
    pub capacity: u32,
}

/// Why a shim cannot run.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {source}")]
pub struct Error {
    operation: String,
    source: io::Error,
}

impl Error {
    fn of(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { operation: operation.into(), source }
    }
}

/// Listens on a socket file, 0600. One that a dead shim left is replaced; a live one's is an error.
pub fn listen(path: &Path) -> Result<OwnedFd, Error> {
    let operation = || format!("listen on {}", path.display());
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let mut listener = socket::listen(path, 128);
    if matches!(&listener, Err(error) if error.kind() == io::ErrorKind::AddrInUse) {
        listener = match socket::connect(path) {
            Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another shim listens there")),
            Err(_) => std::fs::remove_file(path).and_then(|()| socket::listen(path, 128)),
        };
    }
    rustix::process::umask(umask);
    listener.map_err(Error::of(operation()))
}

/// Takes the listening socket that the parent process left open under the number `fd`.
pub fn inherited(fd: i32) -> Result<OwnedFd, Error> {
    socket::inherited(fd).map_err(Error::of(format!("take descriptor {fd}")))
}

/// Serves until the shim is retired and empty, or nobody needs it any more. The calling process must
/// have one thread.
pub fn serve(options: Options) -> Result<(), Error> {
    detach_from_parent()?;
    let socket = options.socket.clone();
    let result = Server::new(options)?.run();
    if let Some(socket) = socket {
        let _ = std::fs::remove_file(socket);
    }
    result
}

/// Leaves the daemon's session, and what would end us with it.
fn detach_from_parent() -> Result<(), Error> {
    // Fails only for the leader of a process group, which has no terminal to lose.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"ponton-shim");
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| Error { operation: "become a subreaper".into(), source: error.into() })
}

/// Raises the limit of open files as far as it goes; the answer: how many containers that is for.
fn raise_file_limit() -> u32 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let files = if raised.is_ok() { limit.maximum } else { limit.current };
    files.map_or(u32::MAX, |files| (files / FILES_PER_CONTAINER).try_into().unwrap_or(u32::MAX))
}

/// What an event belongs to; with a key it is an epoll token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Listener = 0,
    Signals = 1,
    Connection = 2,
    Pidfd = 3,
    Input = 4,
    Stdout = 5,
    Stderr = 6,
    Client = 7,
    Service = 8,
}

impl Source {
    fn token(self, key: u32) -> u64 {
        (self as u64) << 32 | u64::from(key)
    }

    fn parse(token: u64) -> Option<(Self, u32)> {
        let source = match token >> 32 {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Connection,
            3 => Self::Pidfd,
            4 => Self::Input,
            5 => Self::Stdout,
            6 => Self::Stderr,
            7 => Self::Client,
            8 => Self::Service,
            _ => return None,
        };
        Some((source, token as u32))
    }
}

/// A container, running or ended.
#[derive(Debug)]
struct Container {
    /// Its first process.
    process: u32,
    /// Its further processes by their ids.
    execs: BTreeMap<String, u32>,
    log: Option<crate::shim::protocol::LogTarget>,
    cgroup: Option<String>,
    own_pid_namespace: bool,
    /// The runtime that started it, if it is another one.
    foreign: Option<Foreign>,
    /// Reserved host ports, until it has ended.
    ports: Vec<OwnedFd>,
    /// What is to be done at its end; nothing for one that was taken over from a dead shim.
    later: Later,
    /// Its state, as hooks are told it.
    state: Option<State>,
}

struct Server {
    epoll: Epoll,
    signals: Signals,
    listener: OwnedFd,
    capacity: u32,
    host: Host,
    records: Records,
    connections: HashMap<u32, Connection>,
    containers: BTreeMap<String, Container>,
    processes: HashMap<u32, Process>,
    clients: HashMap<u32, Attached>,
    removals: Removals,
    compressor: Compressor,
    services: Services,
    parked: Vec<Parked>,
    next_key: u32,
    is_retiring: bool,
    /// For one read.
    buffer: Vec<u8>,
    /// For the log entries of one read.
    scratch: Vec<u8>,
}

impl Server {
    fn new(options: Options) -> Result<Self, Error> {
        let epoll = Epoll::new().map_err(Error::of("epoll_create1"))?;
        let dropped = [Signal::PIPE, Signal::HUP, Signal::INT].map(Signal::as_raw);
        let signals =
            Signals::catch(&[Signal::CHILD.as_raw()], &dropped).map_err(Error::of("catch signals"))?;
        epoll.add(&signals, Source::Signals.token(0), Interest::IN).map_err(Error::of("epoll_ctl"))?;
        rustix::io::ioctl_fionbio(&options.listener, true)
            .and_then(|()| rustix::io::fcntl_setfd(&options.listener, rustix::io::FdFlags::CLOEXEC))
            .map_err(|error| Error { operation: "set up the listener".into(), source: error.into() })?;
        epoll
            .add(&options.listener, Source::Listener.token(0), Interest::IN)
            .map_err(Error::of("epoll_ctl"))?;
        let host = Host::probe()
            .map_err(|error| Error { operation: "probe the host".into(), source: io::Error::other(error) })?;
        Ok(Self {
            epoll,
            signals,
            listener: options.listener,
            capacity: options.capacity.min(raise_file_limit()),
            host,
            records: Records::new(options.state_dir),
            connections: HashMap::new(),
            containers: BTreeMap::new(),
            processes: HashMap::new(),
            clients: HashMap::new(),
            removals: Removals::default(),
            compressor: Compressor::default(),
            services: Services::default(),
            parked: Vec::new(),
            next_key: 1,
            is_retiring: false,
            buffer: vec![0; READ_MAX.max(INLINE_MAX + 1)],
            scratch: Vec::new(),
        })
    }

    fn run(mut self) -> Result<(), Error> {
        let mut ready: Vec<Ready> = Vec::with_capacity(64);
        let mut idle_since = Instant::now();
        let mut busy_turns = 0;
        loop {
            let now = Instant::now();
            if !self.is_idle() {
                idle_since = now;
            }
            let is_done = self.is_retiring
                && self.containers.is_empty()
                && self.clients.is_empty()
                && self.services.is_idle();
            let removal_due = self.removals.next_due(now);
            if removal_due.is_none() && (is_done || now.duration_since(idle_since) >= IDLE_MAX) {
                return Ok(());
            }
            let idle_left = self.is_idle().then_some(IDLE_MAX);
            let compress_due = self.compressor.next_due(now);
            let timeout = [removal_due, compress_due, self.services.next_due(now), idle_left]
                .into_iter()
                .flatten()
                .min();
            self.epoll.wait(&mut ready, timeout).map_err(Error::of("epoll_wait"))?;
            for event in &ready {
                self.dispatch(*event);
            }
            self.run_services(Instant::now());
            busy_turns = if ready.is_empty() { 0 } else { busy_turns + 1 };
            if ready.is_empty() || busy_turns >= BUSY_TURNS_MAX || self.is_start_parked() {
                busy_turns = 0;
                self.removals.run_one(&self.host.cgroup, Instant::now());
                self.compressor.run(Instant::now());
                self.unpark();
            }
        }
    }

    /// Whether nobody would miss the shim: no daemon, no client, and all that ended is on disk.
    fn is_idle(&self) -> bool {
        self.connections.is_empty()
            && self.compressor.is_idle()
            && self.services.is_idle()
            && self.clients.is_empty()
            && self.processes.values().all(|process| process.exit.is_some())
    }

    fn dispatch(&mut self, ready: Ready) {
        let Some((source, key)) = Source::parse(ready.token) else { return };
        match source {
            Source::Listener => self.accept(),
            Source::Signals => self.reap(),
            Source::Connection => self.connection_ready(key, ready.events),
            Source::Pidfd => self.process_ended(key, None),
            Source::Input => self.input_ready(key),
            Source::Stdout => self.output_ready(key, 0),
            Source::Stderr => self.output_ready(key, 1),
            Source::Client => self.client_ready(key, ready.events),
            Source::Service => self.service_ready(key, ready.events),
        }
    }

    fn new_key(&mut self) -> u32 {
        let key = self.next_key;
        self.next_key = self.next_key.wrapping_add(1).max(1);
        key
    }

    fn accept(&mut self) {
        let Ok(socket) = socket::accept(&self.listener) else { return };
        let own = rustix::process::geteuid().as_raw();
        if !socket::peer_credentials(&socket).is_ok_and(|peer| peer.uid == own) {
            return;
        }
        let key = self.new_key();
        if self.epoll.add(&socket, Source::Connection.token(key), Interest::IN).is_ok() {
            self.connections.insert(key, Connection::new(socket));
        }
    }

    fn connection_ready(&mut self, key: u32, events: Interest) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if events.contains(Interest::OUT) && connection.flush().is_err() {
            return self.drop_connection(key);
        }
        if !events.intersects(Interest::IN | Interest::HUP | Interest::ERR) {
            return self.rearm_connection(key);
        }
        self.receive(key);
    }

    /// Carries out one message of a connection; false when there is none.
    fn receive(&mut self, key: u32) -> bool {
        let Some(connection) = self.connections.get(&key) else { return false };
        match packet::receive(connection.as_fd(), &mut self.buffer) {
            Ok(Some((payload, fds))) => {
                match serde_json::from_slice::<ToShim>(&payload) {
                    Ok(message) => {
                        if matches!(message.request, Request::Hello { .. }) {
                            self.settle_others(key);
                        }
                        self.serve_request(key, message, fds);
                    }
                    Err(error) => match request::refuse_unparsed(&payload, &error) {
                        Some((body, fds)) => self.send(key, body, fds),
                        None => self.drop_connection(key),
                    },
                }
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Ok(None) | Err(_) => {
                self.drop_connection(key);
                false
            }
        }
    }

    /// Carries out what other daemons have asked for before this one came. They may be dead, with a
    /// container's start unread: it must not happen behind the back of their successor.
    fn settle_others(&mut self, key: u32) {
        let others: Vec<_> = self.connections.keys().copied().filter(|other| *other != key).collect();
        for other in others {
            while self.receive(other) {}
        }
    }

    fn send(&mut self, key: u32, body: Body, fds: connection::Fds) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        match connection.send(body, fds) {
            Ok(()) => self.rearm_connection(key),
            Err(_) => self.drop_connection(key),
        }
    }

    /// Tells every daemon.
    fn tell(&mut self, event: &Event) {
        let keys: Vec<_> = self.connections.keys().copied().collect();
        for key in keys {
            self.send(key, Body::Event { event: event.clone() }, Vec::new());
        }
    }

    fn rearm_connection(&mut self, key: u32) {
        let Some(connection) = self.connections.get(&key) else { return };
        let interest = if connection.is_waiting() { Interest::IN | Interest::OUT } else { Interest::IN };
        let _ = self.epoll.modify(connection, Source::Connection.token(key), interest);
    }

    fn drop_connection(&mut self, key: u32) {
        if let Some(connection) = self.connections.remove(&key) {
            let _ = self.epoll.remove(&connection);
            self.parked.retain(|parked| parked.connection != key);
        }
    }
}

/// The time, in nanoseconds since the epoch.
fn now_ns() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0)
}
