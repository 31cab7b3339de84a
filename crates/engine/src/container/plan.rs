//! From a container's settings to the runtime's plan.

use std::path::PathBuf;
use std::sync::Arc;

use ponton_api::container::CreateRequest;
use ponton_api::exec::ExecCreateRequest;
use ponton_oci::runtime::{Seccomp, Spec};
use ponton_runtime::plan::{Plan, PlanInput, ProcessInput, ProcessPlan, RootMount, plan, plan_process};
use ponton_runtime::seccomp;
use ponton_snapshot::Mount;

use super::{Settings, Task};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::spec::{self, Cdi, Files, HostDevices, Joined, SpecInput};

impl Engine {
    /// A container's runtime plan as text.
    pub async fn plan(self: &Arc<Self>, name: &str) -> Result<String> {
        let container = self.find(name)?;
        let plan =
            container.change(|task| Box::pin(async move { task.plan(&task.link_variables()) })).await?;
        Ok(plan.to_string())
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
            Ok(engine.plan_of(&settings, &[], &rootfs)?.to_string())
        })
        .await
    }

    /// The plan of a container with these settings on this root file system.
    fn plan_of(&self, settings: &Settings, links: &[String], rootfs: &[RootMount]) -> Result<Plan> {
        let spec = self.spec(settings, links)?;
        let groups = spec::group_names(&settings.host_config);
        let policy = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
        let program = self.seccomp_program(policy)?;
        let input = PlanInput {
            id: &settings.id,
            bundle: None,
            rootfs,
            netns: settings.network() != "host",
            process: process_input(&settings.config.user, &groups, policy, program.as_deref()),
            ..PlanInput::default()
        };
        Ok(plan(&spec, self.host()?, &input)?)
    }

    /// The OCI spec of a container; `links` are variables that tell of what it is linked to.
    fn spec(&self, settings: &Settings, links: &[String]) -> Result<Spec> {
        let directory = self.container_directory(&settings.id);
        let (hostname, hosts, resolv_conf) =
            (directory.join("hostname"), directory.join("hosts"), directory.join("resolv.conf"));
        let init =
            settings.host_config.init.unwrap_or(false).then_some(self.config().runtime_binary.as_path());
        let mut spec = spec::build(&SpecInput {
            id: &settings.id,
            config: &settings.config,
            host_config: &settings.host_config,
            mounts: &settings.mounts,
            files: Files { hostname: &hostname, hosts: &hosts, resolv_conf: &resolv_conf },
            init,
            joined: &self.joined(settings)?,
            links,
            devices: &HostDevices::look_up(&settings.host_config)?,
            host: self.facts(),
        })?;
        let requests = settings.host_config.device_requests.as_deref().unwrap_or_default();
        if !requests.is_empty() {
            Cdi::read(&self.config().cdi_spec_dirs).carry_out(requests, &mut spec)?;
        }
        Ok(spec)
    }

    /// The namespaces of other containers that this one joins.
    fn joined(&self, settings: &Settings) -> Result<Joined> {
        let host = &settings.host_config;
        let process = |mode: &str, what: &str| -> Result<Option<String>> {
            let Some(other) = mode.strip_prefix("container:") else { return Ok(None) };
            let other = self.find(other)?;
            match other.view().life.pid() {
                Some(pid) => Ok(Some(format!("/proc/{pid}"))),
                None => Err(Error::conflict(format!(
                    "cannot join {what} of a non running container: {}",
                    other.id
                ))),
            }
        };
        let pid = process(&host.pid_mode, "PID")?.map(|path| PathBuf::from(path).join("ns/pid"));
        let ipc = process(&host.ipc_mode, "IPC")?.map(PathBuf::from);
        Ok(Joined {
            pid,
            shm: ipc.as_ref().map(|path| path.join("root/dev/shm")),
            ipc: ipc.map(|path| path.join("ns/ipc")),
            network: None,
        })
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

impl Task {
    /// The plan of the next start.
    pub(super) fn plan(&self, links: &[String]) -> Result<Plan> {
        let mut rootfs = root_mounts(self.engine.snapshotter.mounts(self.id())?);
        if self.settings().host_config.auto_remove {
            // Nobody will see what it wrote: none of it has to reach the disk.
            let overlays = rootfs.iter_mut().filter(|mount| mount.r#type == "overlay");
            overlays.for_each(|mount| mount.options.push("volatile".into()));
        }
        self.engine.plan_of(self.settings(), links, &rootfs)
    }

    /// The plan of a further process.
    pub(crate) fn process_plan(&self, request: &ExecCreateRequest) -> Result<ProcessPlan> {
        let settings = self.settings();
        let links = self.link_variables();
        let spec = self.engine.spec(settings, &links)?;
        let Some(first) = &spec.process else { return Err(Error::internal("a spec without a process")) };
        let process = spec::exec(first, &settings.config, &links, self.engine.facts(), request);
        let policy =
            spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()).filter(|_| !request.privileged);
        let program = self.engine.seccomp_program(policy)?;
        let user = if request.user.is_empty() { &settings.config.user } else { &request.user };
        let groups = spec::group_names(&settings.host_config);
        let input = process_input(user, &groups, policy, program.as_deref());
        Ok(plan_process(&process, self.engine.host()?, &input)?)
    }
}
