//! What the callers and the thread that makes sandboxes share.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use rustix::io::Errno;

use crate::addresses::Addresses;
use crate::conntrack::Stale;
use crate::driver::{self, EndpointPlan, InterfacePlan, NetworkPlan};
use crate::error::kernel;
use crate::firewall::{Firewall, Forward};
use crate::port::Ports;
use crate::sandbox::Sandbox;
use crate::{EndpointRecord, Error, NetworkConfig, PortError, Protocol, Subnet, link};
use ponton_sys::netlink::Socket;

/// How many namespaces of dead endpoints are kept to be removed together, and how long without
/// anything else to do.
const DEAD_AT_MOST: usize = 16;
const DEAD_AT_LONGEST: Duration = Duration::from_millis(50);

/// What the thread is to do next.
#[derive(Debug)]
pub(crate) enum Task {
    /// Somebody waits for a sandbox.
    Make(Job),
    /// Somebody waits for the host to be put right after a restart.
    Recover(mpsc::Sender<Result<(), Error>>),
    /// Somebody waits for the host to be as it was, if no endpoint needs anything of it.
    Leave(mpsc::Sender<Result<(), Error>>),
    /// UDP connections to these ports must find their way anew.
    Forget(Vec<Forward>, Stale),
    /// These namespaces are to go. The kernel removes a namespace in about a millisecond, under its
    /// lock for links, and many together in hardly more.
    Bury(Vec<OwnedFd>),
    /// A spare one is missing.
    Refill(EndpointPlan),
}

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) plan: EndpointPlan,
    pub(crate) reply: mpsc::Sender<Result<Sandbox, Error>>,
}

/// Spare sandboxes of one kind.
#[derive(Debug)]
struct Stock {
    plan: EndpointPlan,
    spare: VecDeque<Sandbox>,
    /// How many there shall be: none until the first is asked for, or after making one failed.
    target: usize,
}

impl Stock {
    fn with_address(&mut self, address: Ipv4Addr) -> Option<Sandbox> {
        let has = |sandbox: &Sandbox| sandbox.interface.as_ref().is_some_and(|i| i.ipv4 == address);
        self.spare.iter().position(has).and_then(|place| self.spare.remove(place))
    }
}

#[derive(Debug)]
struct State {
    gateway: Ipv4Addr,
    addresses: Addresses,
    ports: Ports,
    /// By the container's id.
    endpoints: BTreeMap<String, EndpointRecord>,
    stocks: [Stock; 2],
    urgent: VecDeque<Task>,
    /// The namespaces of the endpoints that this daemon made, by the endpoint's id.
    netns: BTreeMap<String, OwnedFd>,
    /// Those of endpoints that are gone, to be let go together.
    dead: Vec<OwnedFd>,
    closing: bool,
}

/// Everything that is shared. Where both locks are needed, the firewall's comes first.
#[derive(Debug)]
pub(crate) struct Shared {
    config: NetworkConfig,
    network_id: String,
    state: Mutex<State>,
    wake: Condvar,
    firewall: Mutex<Firewall>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// For the network namespace of the calling thread. Reads routes, changes nothing.
    pub(crate) fn new(config: NetworkConfig, network_id: String) -> Result<Self, Error> {
        let mut route = Socket::open(None).map_err(kernel("open", "rtnetlink socket"))?;
        let firewall = Firewall::open().map_err(kernel("open", "nfnetlink socket"))?;
        let (subnet, gateway) = choose(&mut route, &config)?;
        let stock = |interface| Stock {
            plan: EndpointPlan { netns: true, interface, ports: Vec::new(), ids: config.ids.clone() },
            spare: VecDeque::new(),
            target: 0,
        };
        let state = State {
            gateway,
            addresses: Addresses::new(subnet, gateway),
            ports: Ports::new(),
            endpoints: BTreeMap::new(),
            stocks: [stock(Some(InterfacePlan::default())), stock(None)],
            urgent: VecDeque::new(),
            netns: BTreeMap::new(),
            dead: Vec::new(),
            closing: false,
        };
        Ok(Self {
            config,
            network_id,
            state: Mutex::new(state),
            wake: Condvar::new(),
            firewall: Mutex::new(firewall),
        })
    }

    pub(crate) fn config(&self) -> &NetworkConfig {
        &self.config
    }

    pub(crate) fn subnet(&self) -> (Subnet, Ipv4Addr) {
        let state = lock(&self.state);
        (state.addresses.subnet(), state.gateway)
    }

    pub(crate) fn network_plan(&self) -> NetworkPlan {
        let (subnet, gateway) = self.subnet();
        driver::plan_bridge(&self.config, subnet, gateway)
    }

    pub(crate) fn endpoints(&self) -> Vec<EndpointRecord> {
        lock(&self.state).endpoints.values().cloned().collect()
    }

    pub(crate) fn endpoint(&self, container_id: &str) -> Option<EndpointRecord> {
        lock(&self.state).endpoints.get(container_id).cloned()
    }

    // The thread's side.

    /// Waits for the next thing to do; `None` when the daemon ends.
    pub(crate) fn next_task(&self) -> Option<Task> {
        let mut state = lock(&self.state);
        loop {
            if state.closing {
                return None;
            }
            if let Some(task) = state.urgent.pop_front() {
                return Some(task);
            }
            if state.dead.len() >= DEAD_AT_MOST {
                return Some(Task::Bury(std::mem::take(&mut state.dead)));
            }
            if let Some(stock) = state.stocks.iter().find(|stock| stock.spare.len() < stock.target) {
                return Some(Task::Refill(stock.plan.clone()));
            }
            if state.dead.is_empty() {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.wake.wait_timeout(state, DEAD_AT_LONGEST);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if timeout.timed_out() {
                return Some(Task::Bury(std::mem::take(&mut state.dead)));
            }
        }
    }

    /// Takes a spare one in. After a failure no more are made until somebody asks: who asks gets the
    /// error then.
    pub(crate) fn stock(&self, plan: &EndpointPlan, made: Result<Sandbox, Error>) {
        let mut state = lock(&self.state);
        let Some(stock) = state.stocks.iter_mut().find(|stock| stock.plan == *plan) else { return };
        match made {
            Ok(sandbox) => stock.spare.push_back(sandbox),
            Err(error) => {
                stock.target = 0;
                tracing::warn!(%error, "no network namespace could be prepared");
            }
        }
    }

    /// Takes `asked`, or the next free address.
    pub(crate) fn allocate(&self, asked: Option<Ipv4Addr>) -> Result<Ipv4Addr, Error> {
        let mut state = lock(&self.state);
        match asked {
            Some(address) if state.addresses.claim(address) => Ok(address),
            Some(address) => Err(Error::AddressInUse(address)),
            None => state.addresses.allocate().ok_or_else(|| Error::AddressesExhausted {
                network: "bridge".to_owned(),
                network_id: self.network_id.clone(),
            }),
        }
    }

    pub(crate) fn release(&self, address: Ipv4Addr) {
        lock(&self.state).addresses.release(address);
    }

    /// Lets a sandbox go that nobody used.
    pub(crate) fn discard(&self, sandbox: Sandbox) {
        if let Some(interface) = &sandbox.interface {
            self.release(interface.ipv4);
        }
        drop(sandbox);
    }

    /// Chooses the subnet again, before the bridge is made: routes may have come since the start.
    /// It is kept as long as endpoints live in it.
    pub(crate) fn choose_subnet(&self, route: &mut Socket) -> Result<(), Error> {
        let (subnet, gateway) = choose(route, &self.config)?;
        let mut state = lock(&self.state);
        let in_use = state.endpoints.values().any(|endpoint| endpoint.ipv4.is_some());
        if !in_use && (subnet, gateway) != (state.addresses.subnet(), state.gateway) {
            state.addresses = Addresses::new(subnet, gateway);
            state.gateway = gateway;
        }
        Ok(())
    }

    /// Builds the table of rules anew, with the ports of all endpoints.
    pub(crate) fn reset_firewall(&self) -> Result<(), Error> {
        let mut firewall = lock(&self.firewall);
        self.reset(&mut firewall).map_err(kernel("build nftables table", "ip ponton"))
    }

    fn reset(&self, firewall: &mut Firewall) -> io::Result<()> {
        let (subnet, _) = self.subnet();
        let all: Vec<_> = self.endpoints().iter().flat_map(forwards).collect();
        firewall.reset(&self.config.bridge, subnet, &all)
    }

    /// The names of the host's ends of the living endpoints' pairs, and of the spare ones'.
    pub(crate) fn host_interfaces(&self) -> (Vec<String>, Vec<String>) {
        let state = lock(&self.state);
        let living = state.endpoints.values().map(|endpoint| endpoint.host_interface.clone());
        let spare = state.stocks.iter().flat_map(|stock| &stock.spare);
        let spare = spare.filter_map(|sandbox| Some(sandbox.interface.as_ref()?.host_name.clone()));
        (living.filter(|name| !name.is_empty()).collect(), spare.collect())
    }

    /// Lets the spare namespaces and those of dead endpoints go; no more are made ahead.
    pub(crate) fn drop_spare(&self) {
        let mut state = lock(&self.state);
        let dead = std::mem::take(&mut state.dead);
        let spare = state.stocks.iter_mut().flat_map(|stock| {
            stock.target = 0;
            std::mem::take(&mut stock.spare)
        });
        let spare: Vec<_> = spare.collect();
        drop(state);
        drop(dead);
        for sandbox in spare {
            self.discard(sandbox);
        }
    }

    /// Removes the table of rules.
    pub(crate) fn delete_firewall(&self) -> Result<(), Error> {
        match lock(&self.firewall).delete() {
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(()),
            other => other.map_err(kernel("delete nftables table", "ip ponton")),
        }
    }

    pub(crate) fn has_interfaces(&self) -> bool {
        lock(&self.state).endpoints.values().any(|endpoint| endpoint.ipv4.is_some())
    }

    // The callers' side.

    /// A sandbox as planned: a spare one where one fits, else one made now.
    pub(crate) fn take(&self, plan: &EndpointPlan) -> Result<Sandbox, Error> {
        let mut state = lock(&self.state);
        let plan = EndpointPlan { ports: Vec::new(), ..plan.clone() };
        if let Some(stock) = state.stocks.iter_mut().find(|stock| stock.plan == plan) {
            stock.target = self.config.prepared;
            let spare = stock.spare.pop_front();
            self.wake.notify_one();
            if let Some(sandbox) = spare {
                return Ok(sandbox);
            }
        }
        // A spare one may have just the address that is asked for.
        let asked = plan.interface.and_then(|interface| interface.ipv4);
        let spare =
            asked.and_then(|address| state.stocks.iter_mut().find_map(|stock| stock.with_address(address)));
        drop(state);
        match spare {
            Some(sandbox) if sandbox.fits(&plan) => return Ok(sandbox),
            Some(sandbox) => self.discard(sandbox),
            None => {}
        }
        self.ask(|reply| Task::Make(Job { plan, reply }))?
    }

    /// Has the thread put the host right.
    pub(crate) fn recover(&self, living: &[EndpointRecord]) -> Result<(), Error> {
        let mut state = lock(&self.state);
        // Should the bridge be gone, its network goes on with the addresses that are in use.
        let in_use =
            living.iter().find_map(|record| Some((Subnet::of(record.ipv4?, record.prefix), record.gateway?)));
        if let Some((subnet, gateway)) = in_use {
            state.addresses = Addresses::new(subnet, gateway);
            state.gateway = gateway;
        }
        for record in living {
            record.ipv4.map(|address| state.addresses.claim(address));
            record.ports.iter().for_each(|binding| state.ports.claim(binding));
            state.endpoints.insert(record.container_id.clone(), record.clone());
        }
        drop(state);
        self.ask(Task::Recover)?
    }

    /// Has the thread take the host's bridge and rules away, if nobody needs them.
    pub(crate) fn leave(&self) -> Result<(), Error> {
        self.ask(Task::Leave)?
    }

    fn ask<T>(&self, task: impl FnOnce(mpsc::Sender<T>) -> Task) -> Result<T, Error> {
        let (reply, answer) = mpsc::channel();
        lock(&self.state).urgent.push_back(task(reply));
        self.wake.notify_one();
        answer.recv().map_err(|_| Error::Kernel {
            action: "ask",
            object: "the thread that makes network namespaces".to_owned(),
            source: io::ErrorKind::BrokenPipe.into(),
        })
    }

    /// Runs `change` on the ports' book.
    pub(crate) fn ports<T>(&self, change: impl FnOnce(&mut Ports) -> T) -> T {
        change(&mut lock(&self.state).ports)
    }

    /// Remembers the endpoint, then leads its ports to it. On error it is forgotten again.
    pub(crate) fn insert(&self, record: &EndpointRecord, netns: Option<OwnedFd>) -> Result<(), PortError> {
        let mut state = lock(&self.state);
        state.endpoints.insert(record.container_id.clone(), record.clone());
        if let Some(netns) = netns {
            state.netns.insert(record.endpoint_id.clone(), netns);
        }
        drop(state);
        let forwards = forwards(record);
        if forwards.is_empty() {
            return Ok(());
        }
        let mut firewall = lock(&self.firewall);
        let published = match firewall.publish(&forwards) {
            // Somebody flushed the host's rules, ours with them.
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {
                self.reset(&mut firewall)
            }
            other => other,
        };
        drop(firewall);
        published.map_err(|error| {
            self.forget(record);
            PortError::Firewall(error)
        })?;
        self.forget_connections(forwards, Stale::Untranslated);
        Ok(())
    }

    /// Takes the endpoint's rules away and forgets it. False where it was not known.
    pub(crate) fn remove(&self, record: &EndpointRecord) -> Result<bool, Error> {
        // Held over both, so that no reset in between brings the rules back.
        let mut firewall = lock(&self.firewall);
        let Some(known) = self.endpoint(&record.container_id) else { return Ok(false) };
        if known.endpoint_id != record.endpoint_id {
            return Ok(false);
        }
        let forwards = forwards(&known);
        let unpublished = firewall.unpublish(&forwards);
        self.forget(&known);
        self.forget_connections(forwards, Stale::Translated);
        unpublished.map_err(kernel("take ports away from nftables table", "ip ponton")).map(|()| true)
    }

    fn forget(&self, record: &EndpointRecord) {
        let mut state = lock(&self.state);
        state.endpoints.remove(&record.container_id);
        record.ports.iter().for_each(|binding| state.ports.release(binding));
        if let Some(address) = record.ipv4 {
            state.addresses.release(address);
        }
        if let Some(netns) = state.netns.remove(&record.endpoint_id) {
            state.dead.push(netns);
            self.wake.notify_one();
        }
    }

    /// Has the thread do it, where there is UDP.
    fn forget_connections(&self, forwards: Vec<Forward>, stale: Stale) {
        if forwards.iter().any(|forward| forward.binding.protocol == Protocol::Udp) {
            lock(&self.state).urgent.push_back(Task::Forget(forwards, stale));
            self.wake.notify_one();
        }
    }

    /// Lets the thread end.
    pub(crate) fn close(&self) {
        lock(&self.state).closing = true;
        self.wake.notify_all();
    }
}

fn forwards(record: &EndpointRecord) -> Vec<Forward> {
    let Some(address) = record.ipv4 else { return Vec::new() };
    record.ports.iter().map(|&binding| Forward { binding, address }).collect()
}

/// The bridge's subnet and gateway: those it has, or the first pool that no route overlaps.
fn choose(route: &mut Socket, config: &NetworkConfig) -> Result<(Subnet, Ipv4Addr), Error> {
    let name = &config.bridge;
    if let Some(bridge) = link::find(route, name).map_err(kernel("find", name))? {
        let addresses = link::addresses(route, bridge.index).map_err(kernel("list addresses of", name))?;
        if let Some(&(address, prefix)) = addresses.first() {
            return Ok((Subnet::of(address, prefix), address));
        }
    }
    let routes = link::routes(route).map_err(kernel("list", "routes"))?;
    let free = |pool: &&Subnet| !routes.iter().any(|taken| taken.overlaps(**pool));
    let subnet = *config.pools.iter().find(free).ok_or_else(|| Error::PoolsExhausted("bridge".to_owned()))?;
    Ok((subnet, subnet.gateway()))
}
