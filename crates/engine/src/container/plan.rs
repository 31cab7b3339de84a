//! From a container's settings to the runtime's plan.

use std::path::PathBuf;
use std::sync::Arc;

use ponton_api::container::CreateRequest;
use ponton_api::exec::ExecCreateRequest;
use ponton_oci::runtime::{Process, Seccomp, Spec};
use ponton_runtime::plan::{Plan, PlanInput, ProcessInput, ProcessPlan, RootMount, plan, plan_process};
use ponton_runtime::seccomp;
use ponton_runtime::shim::foreign::{Foreign, ForeignStart};
use ponton_snapshot::Mount;

use super::link::Linked;
use super::sources::Found;
use super::{Container, Settings, Task};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::spec::{self, Cdi, Files, HostDevices, Joined, SpecInput};

/// What a shim is told of a start.
pub(super) struct Planned {
    pub(super) plan: Plan,
    /// What another runtime is told, where the container is of one.
    pub(super) foreign: Option<ForeignStart>,
}

/// What a shim is told of a further process.
pub(crate) struct PlannedProcess {
    pub(crate) plan: ProcessPlan,
    /// What another runtime is told, where the container is of one.
    pub(crate) foreign: Option<Box<Process>>,
}

/// What the start of a container depends on beside its settings.
#[derive(Default)]
pub(super) struct Surroundings {
    pub(super) joined: Joined,
    /// Variables that tell of linked containers.
    links: Vec<String>,
    /// Where mounts come from.
    pub(super) mounts: Found,
}

impl Engine {
    /// A container's runtime plan as text.
    pub async fn plan(self: &Arc<Self>, name: &str) -> Result<String> {
        let container = self.find(name)?;
        let plan = container.change(|task| {
            Box::pin(async move {
                let mut around = task.surroundings()?;
                around.mounts = task.engine.find_sources(task.settings())?;
                task.plan(&around)
            })
        });
        let plan = plan.await?;
        Ok(plan.plan.to_string())
    }

    /// The runtime plan that a create and start would carry out, as text; nothing is made.
    pub async fn plan_create(
        self: &Arc<Self>,
        _name: Option<&str>,
        request: CreateRequest,
    ) -> Result<String> {
        let (settings, image, _) = self.settle(None, request).await?;
        let engine = Arc::clone(self);
        blocking(move || {
            let rootfs = match image.chain.last() {
                Some(top) => root_mounts(engine.snapshotter.layer_mounts(top)?),
                None => Vec::new(),
            };
            let planned = engine.plan_of(&settings, &engine.surroundings(&settings, "")?, &rootfs)?;
            Ok(planned.plan.to_string())
        })
        .await
    }

    /// The plan of a container with these settings on this root file system.
    fn plan_of(&self, settings: &Settings, around: &Surroundings, rootfs: &[RootMount]) -> Result<Planned> {
        let spec = self.spec(settings, around)?;
        let groups = spec::group_names(&settings.host_config);
        let policy = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
        let program = self.seccomp_program(policy)?;
        let mut mapped;
        let rootfs = if settings.ids.is_some() {
            mapped = rootfs.to_vec();
            for mount in &mut mapped {
                mount.options.push("idmap".to_owned());
            }
            &mapped
        } else {
            rootfs
        };
        let input = PlanInput {
            id: &settings.id,
            bundle: None,
            rootfs,
            netns: settings.network() != "host",
            process: process_input(&settings.config.user, &groups, policy, program.as_deref()),
            ..PlanInput::default()
        };
        let plan = plan(&spec, self.host()?, &input)?;
        let foreign = self.foreign(settings)?.map(|runtime| ForeignStart {
            runtime,
            spec: Box::new(spec.clone()),
            rootfs: rootfs.to_vec(),
        });
        Ok(Planned { plan, foreign })
    }

    /// The registered runtime of this name; none for the engine's own.
    pub(super) fn runtime(&self, name: &str) -> Result<Option<&crate::Runtime>> {
        match self.config().defaults.runtimes.get(name) {
            None if name == crate::BUILT_IN => Ok(None),
            Some(runtime) => Ok(Some(runtime)),
            None => Err(Error::invalid(format!("unknown or invalid runtime name: {name}"))),
        }
    }

    /// The runtime of a container as its shim calls it, if it is not our own.
    pub(super) fn foreign(&self, settings: &Settings) -> Result<Option<Foreign>> {
        let name = settings.host_config.runtime.as_str();
        let exec_root = &self.config().exec_root;
        Ok(self.runtime(name)?.map(|runtime| Foreign {
            program: runtime.program.clone(),
            args: runtime.args.clone(),
            state: exec_root.join("runtimes").join(name),
            bundle: exec_root.join("bundles").join(&settings.id),
        }))
    }

    /// The OCI spec of a container.
    fn spec(&self, settings: &Settings, around: &Surroundings) -> Result<Spec> {
        // With another container's network come the files that tell of it.
        let owner = settings.network().strip_prefix("container:").unwrap_or(&settings.id);
        let directory = self.container_directory(owner);
        let (hostname, hosts, resolv_conf) =
            (directory.join("hostname"), directory.join("hosts"), directory.join("resolv.conf"));
        let host_config = &self.config().defaults.complete(&settings.host_config);
        let init = host_config.init.unwrap_or(false).then_some(self.config().runtime_binary.as_path());
        let mut spec = spec::build(&SpecInput {
            id: &settings.id,
            config: &settings.config,
            host_config,
            mounts: &settings.mounts,
            sources: &around.mounts.sources,
            files: Files { hostname: &hostname, hosts: &hosts, resolv_conf: &resolv_conf },
            init,
            joined: &around.joined,
            links: &around.links,
            devices: &HostDevices::look_up(&settings.host_config)?,
            host: self.facts(),
            ids: settings.ids.as_ref(),
        })?;
        let requests = settings.host_config.device_requests.as_deref().unwrap_or_default();
        if !requests.is_empty() {
            Cdi::read(&self.config().cdi_spec_dirs).carry_out(requests, &mut spec)?;
        }
        Ok(spec)
    }

    /// What a start of a container finds in others now.
    fn surroundings(&self, settings: &Settings, name: &str) -> Result<Surroundings> {
        let host = &settings.host_config;
        let linked = self.linked(name, settings)?;
        let links = linked.into_iter().flat_map(Linked::into_variables).collect();
        let mut around = Surroundings { links, ..Surroundings::default() };
        // Who shares a namespace that a user namespace owns has to be in that one too.
        let other = settings.network().strip_prefix("container:").filter(|_| settings.ids.is_some());
        let shares_network = other.map(|name| self.find(name)).transpose()?.map(|other| other.id.clone());
        let user_of = |other: &Container, pid: i32, what: &str| -> Result<Option<PathBuf>> {
            other.check_ids(settings, what)?;
            if settings.ids.is_some() && shares_network.as_deref() != Some(&other.id) {
                return Err(Error::not_implemented(format!(
                    "joining {what} of container {} but not its network is not implemented where ids are mapped \
                     (--network=container:{} or --userns=host is the way out)",
                    other.id,
                    other.view().name,
                )));
            }
            Ok(settings.ids.is_some().then(|| format!("/proc/{pid}/ns/user").into()))
        };
        if let Some((other, pid)) = self.other(&host.ipc_mode, "IPC")? {
            around.joined.ipc = Some(format!("/proc/{pid}/ns/ipc").into());
            around.joined.user = user_of(&other, pid, "IPC")?;
            around.joined.shm = Some(self.shared_memory(&other)?);
        } else if host.ipc_mode == "shareable" {
            around.joined.shm = Some(self.shm_path(&settings.id));
        }
        if let Some((other, pid)) = self.other(&host.pid_mode, "PID")? {
            around.joined.pid = Some(format!("/proc/{pid}/ns/pid").into());
            around.joined.user = user_of(&other, pid, "PID")?.or(around.joined.user);
        }
        Ok(around)
    }

    /// Where the shared memory of a container is that others may join.
    fn shared_memory(&self, other: &Container) -> Result<PathBuf> {
        let view = other.view();
        match view.settings.host_config.ipc_mode.as_str() {
            "shareable" => Ok(self.shm_path(&other.id)),
            "host" => Ok("/dev/shm".into()),
            mode => match self.other(mode, "IPC")? {
                Some((further, _)) => self.shared_memory(&further),
                None => Err(Error::invalid(format!(
                    "can't join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                    other.id
                ))),
            },
        }
    }

    /// The running container that a mode like `container:<id>` means, and its first process.
    fn other(&self, mode: &str, what: &str) -> Result<Option<(Arc<Container>, i32)>> {
        let Some(other) = mode.strip_prefix("container:") else { return Ok(None) };
        let other = self.find(other).map_err(|error| Error::invalid(error.message))?;
        match other.view().life.pid() {
            Some(pid) => Ok(Some((other, pid))),
            None => {
                Err(Error::conflict(format!("cannot join {what} of a non running container: {}", other.id)))
            }
        }
    }

    /// The file of a policy's program: compiled at the first need.
    fn seccomp_program(&self, policy: Option<&Seccomp>) -> Result<Option<PathBuf>> {
        let Some(policy) = policy else { return Ok(None) };
        let directory = self.config().exec_root.join("seccomp");
        let path = seccomp::cache(&directory, policy)
            .map_err(|error| Error::failed("compile the seccomp policy", error))?;
        Ok(Some(path))
    }
}

fn process_input<'a>(
    user: &'a str,
    groups: &'a [String],
    policy: Option<&'a Seccomp>,
    program: Option<&'a std::path::Path>,
) -> ProcessInput<'a> {
    ProcessInput { user: Some(user), groups, seccomp: program, policy, ..ProcessInput::default() }
}

/// The runtime's words for a snapshot's mounts.
pub(super) fn root_mounts(mounts: Vec<Mount>) -> Vec<RootMount> {
    mounts
        .into_iter()
        .map(|Mount { r#type, source, target, options }| RootMount { r#type, source, target, options })
        .collect()
}

impl Container {
    /// Refuses a container whose ids mean something else than this one's, which it wants to share `what` with.
    pub(super) fn check_ids(&self, settings: &Settings, what: &str) -> Result<()> {
        if settings.ids.is_none() || settings.ids == self.view().settings.ids {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "cannot join {what} of container {}: it is not in a user namespace with the same ids (--userns=host is the \
             way out)",
            self.id
        )))
    }
}

impl Task {
    /// What the next start finds in other containers.
    pub(super) fn surroundings(&self) -> Result<Surroundings> {
        self.engine.surroundings(self.settings(), &self.view.name)
    }

    /// The plan of the next start.
    pub(super) fn plan(&self, around: &Surroundings) -> Result<Planned> {
        let mut rootfs = root_mounts(self.engine.snapshotter.mounts(self.id())?);
        if self.settings().host_config.auto_remove {
            // Nobody will see what it wrote: none of it has to reach the disk.
            let overlays = rootfs.iter_mut().filter(|mount| mount.r#type == "overlay");
            overlays.for_each(|mount| mount.options.push("volatile".into()));
        }
        self.engine.plan_of(self.settings(), around, &rootfs)
    }

    /// The plan of a further process.
    pub(crate) fn process_plan(&self, request: &ExecCreateRequest) -> Result<PlannedProcess> {
        let settings = self.settings();
        // It enters the namespaces of the first process, whatever has become of those who share them.
        let around = Surroundings { links: self.link_variables(), ..Surroundings::default() };
        let spec = self.engine.spec(settings, &around)?;
        let Some(first) = &spec.process else { return Err(Error::internal("a spec without a process")) };
        let process = spec::exec(first, &settings.config, &around.links, self.engine.facts(), request);
        let policy =
            spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()).filter(|_| !request.privileged);
        let program = self.engine.seccomp_program(policy)?;
        let user = if request.user.is_empty() { &settings.config.user } else { &request.user };
        let groups = spec::group_names(&settings.host_config);
        let input = process_input(user, &groups, policy, program.as_deref());
        let plan = plan_process(&process, self.engine.host()?, &input)?;
        let foreign = self.engine.foreign(settings)?.map(|_| Box::new(process));
        Ok(PlannedProcess { plan, foreign })
    }
}
