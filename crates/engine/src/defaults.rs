//! What the daemon's configuration says for containers that do not say it themselves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ponton_api::container::{HostConfig, Ulimit};

use crate::spec::idmap::IdMaps;

/// The name of the runtime that is part of the engine.
pub const BUILT_IN: &str = "ponton-runtime";

/// A further OCI runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runtime {
    /// Its program: a path, or a name that is looked up in `PATH`.
    pub program: PathBuf,
    /// Arguments before all others.
    pub args: Vec<String>,
}

/// Defaults of containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// The further runtimes, by name.
    pub runtimes: BTreeMap<String, Runtime>,
    /// The runtime of containers that name none.
    pub runtime: String,
    /// Where control groups are made; empty for the engine's own place.
    pub cgroup_parent: String,
    /// `private` or `host`.
    pub cgroupns_mode: String,
    /// `private` or `shareable`.
    pub ipc_mode: String,
    /// Bytes of `/dev/shm`.
    pub shm_size: i64,
    /// Run the tiny init program.
    pub init: bool,
    /// No process gains rights by what it executes.
    pub no_new_privileges: bool,
    /// The seccomp policy: `unconfined`, or a profile's JSON; none for the built-in one.
    pub seccomp: Option<String>,
    /// Limits of processes.
    pub ulimits: Vec<Ulimit>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Options of the resolver.
    pub dns_options: Vec<String>,
    /// Domains in which names are looked up.
    pub dns_search: Vec<String>,
    /// What `host-gateway` means; none for the address of the default bridge.
    pub host_gateway: Option<IpAddr>,
    /// What ids mean in containers: `--userns-remap`. None for what they mean on the host.
    pub remap: Option<IdMaps>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            runtimes: BTreeMap::new(),
            runtime: BUILT_IN.to_owned(),
            cgroup_parent: String::new(),
            cgroupns_mode: "private".to_owned(),
            ipc_mode: "private".to_owned(),
            shm_size: 64 << 20,
            init: false,
            no_new_privileges: false,
            seccomp: None,
            ulimits: Vec::new(),
            dns: Vec::new(),
            dns_options: Vec::new(),
            dns_search: Vec::new(),
            host_gateway: None,
            remap: None,
        }
    }
}

impl Defaults {
    /// Fills in what stays with a container from its creation on, and is shown.
    pub(crate) fn fill(&self, host: &mut HostConfig) {
        let set = |field: &mut String, value: &str| {
            if field.is_empty() {
                value.clone_into(field);
            }
        };
        set(&mut host.ipc_mode, &self.ipc_mode);
        set(&mut host.cgroupns_mode, &self.cgroupns_mode);
        set(&mut host.runtime, &self.runtime);
        if host.shm_size == 0 {
            host.shm_size = self.shm_size;
        }
    }

    /// The settings of a start, with what a container is not shown to have.
    pub(crate) fn complete(&self, host: &HostConfig) -> HostConfig {
        let mut host = host.clone();
        if host.cgroup_parent.is_empty() {
            host.cgroup_parent.clone_from(&self.cgroup_parent);
        }
        host.init.get_or_insert(self.init);
        let mut ulimits = host.ulimits.take().unwrap_or_default();
        let missing = self.ulimits.iter().filter(|limit| ulimits.iter().all(|own| own.name != limit.name));
        let missing: Vec<Ulimit> = missing.cloned().collect();
        ulimits.extend(missing);
        host.ulimits = (!ulimits.is_empty()).then_some(ulimits);
        let mut options = host.security_opt.take().unwrap_or_default();
        let says = |key: &str| options.iter().any(|option| option.starts_with(key));
        let (says_privileges, says_seccomp) = (says("no-new-privileges"), says("seccomp"));
        if self.no_new_privileges && !says_privileges {
            options.push("no-new-privileges".to_owned());
        }
        if let Some(profile) = self.seccomp.as_ref().filter(|_| !says_seccomp && !host.privileged) {
            options.push(format!("seccomp={profile}"));
        }
        host.security_opt = (!options.is_empty()).then_some(options);
        host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ulimit(name: &str, soft: i64) -> Ulimit {
        Ulimit { name: name.to_owned(), hard: soft, soft }
    }

    #[test]
    fn a_containers_own_word_goes_first() {
        let defaults = Defaults {
            cgroup_parent: "/parent".to_owned(),
            init: true,
            no_new_privileges: true,
            seccomp: Some("unconfined".to_owned()),
            ulimits: vec![ulimit("nofile", 5), ulimit("core", 0)],
            ..Defaults::default()
        };
        let complete = defaults.complete(&HostConfig::default());
        assert_eq!((complete.cgroup_parent.as_str(), complete.init), ("/parent", Some(true)));
        assert_eq!(complete.security_opt.unwrap(), ["no-new-privileges", "seccomp=unconfined"]);
        assert_eq!(complete.ulimits.unwrap().len(), 2);
        let own = HostConfig {
            cgroup_parent: "/own".to_owned(),
            init: Some(false),
            security_opt: Some(vec!["no-new-privileges=false".to_owned(), "seccomp=builtin".to_owned()]),
            ulimits: Some(vec![ulimit("nofile", 9)]),
            ..HostConfig::default()
        };
        let complete = defaults.complete(&own);
        assert_eq!((complete.cgroup_parent.as_str(), complete.init), ("/own", Some(false)));
        assert_eq!(complete.security_opt, own.security_opt);
        assert_eq!(complete.ulimits.unwrap(), [ulimit("nofile", 9), ulimit("core", 0)]);
        assert_eq!(Defaults::default().complete(&HostConfig::default()).security_opt, None);
    }
}
