//! Starting: endpoint, files, plan, and a message to a shim.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ponton_network::{Endpoint, EndpointRecord, EndpointRequest};
use ponton_runtime::criu;
use ponton_runtime::shim::protocol::{Failure, FailureKind, FdRole, Reply, Request, Size, Start};

use super::plan::Planned;
use super::task::Run;
use super::{Container, Task};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::lifecycle::Event;
use crate::shim::Descriptors;
use crate::spec::idmap::IdMaps;

/// What every failure of the runtime begins with.
const CREATE_FAILED: &str = "failed to create task for container: failed to create shim task: OCI runtime \
                             create failed: unable to start container process";

/// The same of a start from a checkpoint.
const RESTORE_FAILED: &str =
    "failed to create task for container: failed to create shim task: OCI runtime restore failed";

/// A start that failed, and what the container's exit code becomes by it.
struct LaunchError {
    exit_code: i32,
    error: Error,
}

impl From<Error> for LaunchError {
    fn from(error: Error) -> Self {
        Self { exit_code: 128, error }
    }
}

/// A process that was started.
struct Launched {
    run: Run,
    pid: i32,
    started_at_ns: u64,
}

impl Engine {
    /// Starts a container. `detach_keys` is for the clients that are attached already.
    pub async fn start(self: &Arc<Self>, name: &str, detach_keys: Option<&str>) -> Result<()> {
        let container = self.find(name)?;
        start(&container, detach_keys, None).await
    }
}

/// Starts a container anew, or as it was saved.
pub(super) async fn start(
    container: &Container,
    detach_keys: Option<&str>,
    restore: Option<criu::Options>,
) -> Result<()> {
    let keys = detach_keys.map(super::attach::parse_detach_keys).transpose()?;
    container
        .change(move |task| {
            Box::pin(async move {
                if let Some(keys) = keys {
                    task.set_detach_keys(&keys);
                }
                task.restore = restore;
                let started = task.start().await;
                task.restore = None;
                started
            })
        })
        .await
}

impl Task {
    pub(super) async fn start(&mut self) -> Result<()> {
        self.save_end()?;
        self.apply(Event::Start).await
    }

    /// Starts the process, and lets the outcome happen.
    pub(super) async fn launch(&mut self) -> Result<()> {
        if let Some(forgetting) = self.forgetting.take() {
            // What is left of the last run; a panic in there was logged.
            let _ = forgetting.await;
        }
        if let Some(leaving) = self.leaving.take() {
            leaving.finish().await;
        }
        let begun = std::time::Instant::now();
        match Box::pin(self.run_process()).await {
            Ok(launched) => {
                self.engine.counts.start.since(begun);
                let at = super::exit::time(launched.started_at_ns);
                self.run = Some(launched.run);
                self.is_killed = false;
                self.apply(Event::Started { pid: launched.pid, at }).await
            }
            Err(LaunchError { exit_code, error }) => {
                let text = error.message.clone();
                self.apply(Event::StartFailed { exit_code, error: text }).await?;
                Err(error)
            }
        }
    }

    async fn run_process(&mut self) -> Result<Launched, LaunchError> {
        let endpoint = self.connect().await?;
        self.write_hosts(&endpoint.record)?;
        let host = &self.settings().host_config;
        if host.ipc_mode == "shareable" {
            self.engine.make_shm(self.id(), host.shm_size)?;
        }
        let mut around = self.surroundings()?;
        if let Some(user) = &endpoint.user {
            let path = || format!("/proc/{}/fd/{}", std::process::id(), user.as_raw_fd()).into();
            around.joined.user.get_or_insert_with(path);
        }
        around.mounts = self.take_volumes().await?;
        let Planned { plan, foreign } = self.plan(&around)?;
        // If the daemon dies from here on, the next one finds what the container has got.
        self.view.cgroup = plan.cgroup().map(str::to_owned);
        self.save()?;
        self.tell_linked();
        let restore = self.restore.take();
        let is_restore = restore.is_some();
        let directory = self.engine.container_directory(self.id());
        let (log, socket) = crate::log::open(self.settings(), &self.view.name, &directory).await?.unzip();
        let socket = socket.flatten();
        let shim = self.engine.shims.acquire().await?;
        let attaches = std::mem::take(&mut self.attaches);
        let start = Start {
            container: self.id().to_owned(),
            plan,
            stdio: self.stdio(),
            log,
            attach: attaches.iter().map(|(spec, _)| spec.clone()).collect(),
            foreign,
            restore,
        };
        let mut fds: Vec<(FdRole, BorrowedFd<'_>)> = Vec::new();
        fds.extend(endpoint.netns.iter().map(|fd| (FdRole::Netns, fd.as_fd())));
        fds.extend(socket.iter().map(|fd| (FdRole::Log, fd.as_fd())));
        fds.extend(endpoint.reservations.iter().map(|fd| (FdRole::Port, fd.as_fd())));
        fds.extend(attaches.iter().map(|(_, fd)| (FdRole::Attach, fd.as_fd())));
        let started = shim.call(&Request::Start(Box::new(start)), &fds).await;
        match started {
            Ok((Reply::Started { pid, started_at_ns }, fds)) => {
                let (root, fds) = split_root(fds);
                let (pidfd, stdio) = split(fds, self.id())?;
                let pid = pid as i32;
                Ok(Launched { run: Run { shim, pidfd, stdio, root }, pid, started_at_ns })
            }
            Ok(_) => Err(Error::internal("unexpected answer to start").into()),
            Err(failure) => {
                shim.give_place();
                if shim.is_lost() {
                    // Nobody can tell how far it came: nothing of it may run on.
                    self.clear_after_shim().await;
                }
                Err(if is_restore { not_restored(&failure) } else { refused(&failure) })
            }
        }
    }

    /// Connects the container to its network.
    async fn connect(&mut self) -> Result<Endpoint> {
        let settings = Arc::clone(self.settings());
        if let Some(other) = settings.network().strip_prefix("container:") {
            return self.join(other);
        }
        let request = EndpointRequest {
            network: settings.network().to_owned(),
            container_id: settings.id.clone(),
            container_name: self.view.name.clone(),
            mac: parse_some(settings.mac_address())?,
            ipv4: None,
            ports: super::create::port_requests(&settings)?,
            ids: settings.ids.as_ref().map(IdMaps::to_ids),
        };
        let network = Arc::clone(&self.engine.network);
        let endpoint = blocking(move || Ok(network.attach(&request)?)).await?;
        self.view.endpoint = Some(endpoint.record.clone());
        self.emit_network("connect", &endpoint.record);
        Ok(endpoint)
    }

    /// Joins the network of another container that runs.
    fn join(&self, other: &str) -> Result<Endpoint> {
        let other = self.engine.find(other)?;
        let view = other.view();
        let Some(pid) = view.life.pid() else {
            return Err(Error::conflict(format!(
                "cannot join network of a non running container: {}",
                other.id
            )));
        };
        other.check_ids(self.settings(), "network")?;
        let open = |name: &str| {
            let path = format!("/proc/{pid}/ns/{name}");
            let file = std::fs::File::open(&path);
            file.map(OwnedFd::from).map_err(|error| Error::failed(format!("open namespace {path}"), error))
        };
        let netns = open("net")?;
        let user = self.settings().ids.is_some().then(|| open("user")).transpose()?;
        let record = view.endpoint.clone().unwrap_or_else(|| no_endpoint(&other.id));
        Ok(Endpoint { record, netns: Some(netns), user, reservations: Vec::new() })
    }

    /// Tells the event stream about the network.
    pub(super) fn emit_network(&self, action: &str, record: &EndpointRecord) {
        let attributes = [
            ("container".to_owned(), self.id().to_owned()),
            ("name".to_owned(), record.network.clone()),
            ("type".to_owned(), record.network.clone()),
        ];
        let now = jiff::Timestamp::now();
        self.engine.events.emit("network", action, &record.network_id, attributes.into(), now);
    }
}

/// An endpoint record that says nothing.
fn no_endpoint(container: &str) -> EndpointRecord {
    EndpointRecord {
        container_id: container.to_owned(),
        network: "none".into(),
        network_id: String::new(),
        endpoint_id: String::new(),
        sandbox_id: String::new(),
        host_interface: String::new(),
        ipv4: None,
        prefix: 0,
        gateway: None,
        mac: None,
        ports: Vec::new(),
    }
}

fn parse_some<T: std::str::FromStr<Err = ponton_network::Error>>(text: &str) -> Result<Option<T>> {
    if text.is_empty() { Ok(None) } else { Ok(Some(text.parse()?)) }
}

/// The terminal's first size, where it was given.
pub(crate) fn size([rows, cols]: [u32; 2]) -> Option<Size> {
    let size = Size { rows: u16::try_from(rows).ok()?, cols: u16::try_from(cols).ok()? };
    (size.rows > 0 && size.cols > 0).then_some(size)
}

/// The mount of the root, and the other descriptors.
fn split_root(fds: Descriptors) -> (Option<OwnedFd>, Descriptors) {
    let (root, others): (Vec<_>, Vec<_>) = fds.into_iter().partition(|(role, _)| *role == FdRole::Root);
    (root.into_iter().next().map(|(_, root)| root), others)
}

/// The process's own descriptor, and those of its streams.
pub(crate) fn split(fds: Descriptors, id: &str) -> Result<(OwnedFd, Descriptors)> {
    let (pidfd, stdio): (Vec<_>, Vec<_>) = fds.into_iter().partition(|(role, _)| *role == FdRole::Pidfd);
    match pidfd.into_iter().next() {
        Some((_, pidfd)) => Ok((pidfd, stdio)),
        None => Err(Error::internal(format!("the shim gave no process descriptor of container {id}"))),
    }
}

/// What a shim's refusal of a start from a checkpoint means.
fn not_restored(failure: &Failure) -> LaunchError {
    LaunchError { exit_code: 128, error: Error::internal(format!("{RESTORE_FAILED}: {failure}: unknown")) }
}

/// What a shim's refusal means for the client and for the container's exit code.
fn refused(failure: &Failure) -> LaunchError {
    // The user or a group that the image has not: Docker looks before it calls its runtime.
    if failure.kind == FailureKind::NotFound {
        return LaunchError { exit_code: 128, error: Error::invalid(failure.message.clone()) };
    }
    // A mount, or the working directory, where the image has a file: Docker has the same hint.
    if failure.kind == FailureKind::StartFailed && failure.message.to_lowercase().contains("not a directory")
    {
        let error = Error::invalid(format!(
            "{CREATE_FAILED}: {failure}: unknown: Are you trying to mount a directory onto a file (or vice-versa)? Check \
             if the specified host path exists and is the expected type"
        ));
        return LaunchError { exit_code: 127, error };
    }
    if is_of_directory(failure) || is_of_limits(failure) {
        let error = Error::invalid(format!("{CREATE_FAILED}: {failure}: unknown"));
        return LaunchError { exit_code: 128, error };
    }
    let (exit_code, kind) = match failure.kind {
        FailureKind::CommandNotFound => (127, Error::invalid as fn(String) -> Error),
        FailureKind::CommandNotExecutable => (126, Error::invalid as fn(String) -> Error),
        FailureKind::NotFound | FailureKind::Invalid => (128, Error::invalid as fn(String) -> Error),
        FailureKind::StartFailed | FailureKind::Internal => (128, Error::internal as fn(String) -> Error),
    };
    LaunchError { exit_code, error: kind(format!("{CREATE_FAILED}: {failure}: unknown")) }
}

/// Whether the kernel does not take the value of a limit for one; the message has its name.
fn is_of_limits(failure: &Failure) -> bool {
    let is_value = ["Invalid argument", "Numerical result out of range"];
    failure.kind == FailureKind::StartFailed
        && failure.step.as_deref().is_some_and(|step| step.ends_with("(linux.resources)"))
        && is_value.iter().any(|words| failure.message.contains(words))
}

/// Whether a process could not be started in the working directory that it was given.
pub(crate) fn is_of_directory(failure: &Failure) -> bool {
    failure.kind == FailureKind::StartFailed && failure.step.as_deref() == Some("exec (process.cwd)")
}
