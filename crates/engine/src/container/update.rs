//! Changing a container's limits, restart policy and name.

use std::sync::Arc;

use futures_util::FutureExt;
use ponton_api::container::{HostConfig, UpdateRequest, UpdateResponse};

use super::Task;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::lifecycle::State;
use crate::name;
use crate::spec::HostDevices;

impl Engine {
    /// Changes limits and restart policy.
    pub async fn update(self: &Arc<Self>, name: &str, request: UpdateRequest) -> Result<UpdateResponse> {
        let container = self.find(name)?;
        container.change(move |task| task.update(request).boxed()).await?;
        Ok(UpdateResponse { warnings: None })
    }

    /// Gives another name.
    pub async fn rename(self: &Arc<Self>, name: &str, to: &str) -> Result<()> {
        if to.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let to = name::parse(to)?.to_owned();
        let container = self.find(name)?;
        container.change(move |task| task.rename(to).boxed()).await
    }
}

impl Task {
    async fn rename(&mut self, to: String) -> Result<()> {
        let from = self.view.name.clone();
        if from == to {
            return Err(Error::invalid("Renaming a container with the same name as its current name"));
        }
        self.engine.reserve(&to, self.id())?;
        if let Err(error) = self.engine.store.containers().rename(self.id(), &to) {
            self.engine.release_name(&to, self.id());
            return Err(error.into());
        }
        self.engine.release_name(&from, self.id());
        self.view.name = to;
        self.show();
        self.emit("rename", &[("oldName", &format!("/{from}"))]);
        Ok(())
    }

    async fn update(&mut self, request: UpdateRequest) -> Result<()> {
        if matches!(self.view.life.state, State::Removing | State::Dead { .. }) {
            return Err(Error::conflict("Container is marked for removal and cannot be \"update\"."));
        }
        let mut settings = (**self.settings()).clone();
        change(&mut settings.host_config, request)?;
        super::create::check(&settings.config, &settings.host_config)?;
        crate::spec::check_limits(&settings.host_config, self.engine.facts())?;
        let devices = HostDevices::look_up(&settings.host_config)?;
        let resources = crate::spec::limits(&settings.host_config, &devices);
        if self.is_running() {
            let group = self.control_group()?;
            let engine = Arc::clone(&self.engine);
            let done = blocking(move || Ok(group.update(&engine.host()?.cgroup, &resources)?)).await;
            if let Err(error) = done {
                return Err(self.or_not_running(error).await);
            }
        }
        self.keep_settings(settings)?;
        self.emit("update", &[]);
        Ok(())
    }
}

fn take_set<T: Default + PartialEq>(field: &mut T, value: T) {
    if value != T::default() {
        *field = value;
    }
}

/// Takes over what the request sets; 0 and empty mean no change.
fn change(host: &mut HostConfig, request: UpdateRequest) -> Result<()> {
    macro_rules! take {
        ($($field:ident),*) => {
            $(take_set(&mut host.$field, request.$field);)*
        };
    }
    if request.nano_cpus != 0 && (host.cpu_quota != 0 || host.cpu_period != 0) {
        return Err(Error::conflict(
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        ));
    }
    let memory_swap = if request.memory_swap != 0 { request.memory_swap } else { host.memory_swap };
    if request.memory > 0 && memory_swap > 0 && request.memory > memory_swap {
        return Err(Error::conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ));
    }
    take!(
        cpu_shares,
        memory,
        nano_cpus,
        blkio_weight,
        cpu_period,
        cpu_quota,
        cpu_realtime_period,
        cpu_realtime_runtime,
        cpuset_cpus,
        cpuset_mems,
        memory_reservation,
        memory_swap
    );
    if request.pids_limit.is_some() {
        host.pids_limit = request.pids_limit;
    }
    if !request.restart_policy.name.is_empty() {
        host.restart_policy = request.restart_policy;
    }
    Ok(())
}
