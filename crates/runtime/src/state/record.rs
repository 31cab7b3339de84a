//! What is kept about a container.
//!
//! `state.json` has runc's names where runc has a field for it, so that tools that read runc's find
//! what they look for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ponton_oci::runtime::{Namespace, NamespaceType, State, Status, VERSION};
use serde::{Deserialize, Serialize};

use crate::host::Host;

/// What is kept about a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// The process id of its first process.
    #[serde(rename = "init_process_pid")]
    pub pid: u32,
    /// When that process began, in the kernel's clock ticks: with the id it is one process for good.
    #[serde(rename = "init_process_start")]
    pub pid_started_ticks: u64,
    /// When it was made, as RFC 3339.
    pub created: String,
    /// The directory of its bundle.
    pub bundle: PathBuf,
    /// Its root file system on the host.
    pub rootfs: PathBuf,
    /// The user who made it.
    pub uid: u32,
    /// The path of its control group.
    pub cgroup: Option<String>,
    /// It has a pid namespace of its own: nothing in it outlives its first process.
    pub own_pid_namespace: bool,
    /// The annotations of its spec.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Its control group's directory by controller; by the empty name on v2.
    #[serde(default)]
    pub cgroup_paths: BTreeMap<String, PathBuf>,
    /// The files of its namespaces, by the kernel's names (`NEWNS`).
    #[serde(default)]
    pub namespace_paths: BTreeMap<String, PathBuf>,
}

/// A container's state, as runc prints it: that of the specification (runtime.md, "State") and more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The version of the specification.
    #[serde(rename = "ociVersion")]
    pub oci_version: String,
    /// Its id.
    pub id: String,
    /// The process id of its first process; 0 once it has ended.
    pub pid: u32,
    /// Where it is in its life.
    pub status: Status,
    /// The directory of its bundle.
    pub bundle: PathBuf,
    /// Its root file system on the host.
    pub rootfs: PathBuf,
    /// When it was made, as RFC 3339.
    pub created: String,
    /// The annotations of its spec.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The name of the user who made it.
    pub owner: String,
}

impl Record {
    /// Fills in its first process, and where its control group and its namespaces are.
    pub fn begin(&mut self, pid: u32, host: &Host, namespaces: &[Namespace]) {
        self.pid = pid;
        self.pid_started_ticks = super::started_ticks(pid).unwrap_or(0);
        if let Some(path) = &self.cgroup {
            for hierarchy in &host.cgroup.hierarchies {
                let directory = hierarchy.mount.join(path.trim_matches('/'));
                if host.cgroup.is_v2() {
                    self.cgroup_paths.insert(String::new(), directory);
                    continue;
                }
                for controller in &hierarchy.controllers {
                    self.cgroup_paths.insert(controller.clone(), directory.clone());
                }
            }
        }
        for namespace in namespaces {
            let (name, file) = kernel_names(namespace.r#type);
            let path = Path::new("/proc").join(self.pid.to_string()).join("ns").join(file);
            self.namespace_paths.insert(name.to_owned(), path);
        }
    }

    /// Its state, as hooks and listeners are told it (runtime.md, "State").
    pub fn state(&self, status: Status) -> State {
        State {
            oci_version: VERSION.to_owned(),
            id: self.id.clone(),
            status,
            pid: (status != Status::Stopped).then_some(self.pid as i32),
            bundle: self.bundle.display().to_string(),
            annotations: self.annotations.clone(),
        }
    }

    /// Its state, with `owner` as the user's name.
    pub fn summary(self, status: Status, owner: String) -> Summary {
        Summary {
            oci_version: VERSION.to_owned(),
            id: self.id,
            pid: if status == Status::Stopped { 0 } else { self.pid },
            status,
            bundle: self.bundle,
            rootfs: self.rootfs,
            created: self.created,
            annotations: self.annotations,
            owner,
        }
    }
}

/// The name as a flag of clone(2), and as a file of `/proc/<pid>/ns`.
fn kernel_names(kind: NamespaceType) -> (&'static str, &'static str) {
    match kind {
        NamespaceType::Pid => ("NEWPID", "pid"),
        NamespaceType::Network => ("NEWNET", "net"),
        NamespaceType::Mount => ("NEWNS", "mnt"),
        NamespaceType::Ipc => ("NEWIPC", "ipc"),
        NamespaceType::Uts => ("NEWUTS", "uts"),
        NamespaceType::User => ("NEWUSER", "user"),
        NamespaceType::Cgroup => ("NEWCGROUP", "cgroup"),
        NamespaceType::Time => ("NEWTIME", "time"),
    }
}
