//! The plan of a container: everything that will be done to the kernel, in order, as data.
//!
//! [`plan`] computes it from an OCI spec without touching anything; [`open`](crate::open) and
//! [`apply`](crate::apply) carry it out, one [`Step`] after another. All that can be wrong for a
//! logical reason is found here, and the error names the field. Printed, it has one line a step:
//!
//! ```text
//! #1 cgroup  create   ponton/4f1c      memory.limit_in_bytes=536870912   resources
//! #2 clone   init     new=mnt,uts,ipc,pid,cgroup join=net                namespaces
//! #3 rootfs  overlay  lower=2 -> /                                       root
//! #4 mount   proc     -> /proc         nosuid,nodev,noexec               mounts[0]
//! ```

mod build;
mod device;
mod hook;
mod mount;
mod namespace;
mod node;
mod process;
mod schedule;
mod show;
mod version;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ponton_cgroup::CgroupPlan;
use ponton_oci::runtime::{DeviceType, Hook, NamespaceType, State, Status, TimeOffset, VERSION};
use serde::{Deserialize, Serialize};

pub use build::plan;
pub(crate) use build::sysctl_namespace;
pub use device::{NetDevicePlan, RdtPlan};
pub use hook::HookKind;
pub use mount::{Attributes, IdMapPlan, MountPlan, Propagation, RootMount, Source, mount_options};
pub use namespace::IdMaps;
pub(crate) use namespace::words;
pub use process::{
    CapabilitySets, ListenerPlan, ProcessInput, ProcessPlan, RlimitPlan, SeccompPlan, UserPlan,
    capability_names, plan_process,
};
pub use schedule::{
    AffinityPlan, IoPriorityPlan, MemoryPolicyPlan, SchedulerPlan, memory_flags, memory_modes,
};

/// Everything that will be done to start a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The container's id.
    pub id: String,
    /// The directory of its bundle; empty where there is none.
    #[serde(default)]
    pub bundle: String,
    /// The annotations of its spec.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// What is done, in order. Behind the one that executes the program are only hooks.
    pub steps: Vec<Step>,
}

/// One thing that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What.
    pub action: Action,
    /// The field of the spec that asks for it.
    pub cause: String,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "a plan has a few dozen steps")]
pub enum Action {
    /// Make the container's control group and set its limits.
    Cgroup(CgroupPlan),
    /// Make the first process, in these namespaces.
    Clone {
        /// Namespaces that are made.
        new: Vec<NamespaceType>,
        /// Namespaces that are joined.
        join: Vec<Join>,
        /// What ids mean in the user namespace that is made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ids: Option<IdMaps>,
        /// What they have to mean in the one that is joined; no ranges are any.
        #[serde(default, skip_serializing_if = "IdMaps::is_empty")]
        joined_ids: IdMaps,
        /// Offsets of the clocks of the time namespace that is made.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        clocks: BTreeMap<String, TimeOffset>,
    },
    /// Mount the root file system; its target is `/`.
    Rootfs(MountPlan),
    /// Mount onto a path of the container.
    Mount(MountPlan),
    /// Change the attributes of what is mounted at a path of the container.
    Attributes {
        /// The path in the container.
        target: String,
        /// The change.
        #[serde(default)]
        attributes: Attributes,
        /// How mounts below it spread; none leaves it.
        #[serde(default)]
        propagation: Option<Propagation>,
    },
    /// Make device files and links.
    Devices {
        /// The device files.
        nodes: Vec<DeviceNode>,
        /// Symbolic links, path to content.
        links: Vec<(String, String)>,
        /// The host's device files are bound, where none can be made.
        #[serde(default)]
        bound: bool,
    },
    /// Show the terminal as `/dev/console`.
    Console,
    /// Hide paths: directories behind an empty one, files behind `/dev/null`.
    Mask {
        /// The paths in the container; those that do not exist are passed over.
        paths: Vec<String>,
    },
    /// Make paths read-only.
    ReadOnly {
        /// The paths in the container; those that do not exist are passed over.
        paths: Vec<String>,
    },
    /// Make the root file system the root, and let the host's go.
    Pivot,
    /// The same without pivot_root(2): it is moved over the host's, which stays below.
    MoveRoot,
    /// Set names of the host.
    Hostname {
        /// The host name; empty leaves it.
        hostname: String,
        /// The NIS domain name; empty leaves it.
        domainname: String,
    },
    /// Set kernel parameters of the container's namespaces.
    Sysctl {
        /// Name with dots or slashes, to value.
        values: BTreeMap<String, String>,
    },
    /// Move network devices of the host into the container.
    NetDevices {
        /// The devices.
        devices: Vec<NetDevicePlan>,
    },
    /// Put the container in a class of cache and memory bandwidth.
    Rdt(RdtPlan),
    /// Run programs.
    Hooks {
        /// When and where.
        kind: HookKind,
        /// The programs.
        hooks: Vec<Hook>,
    },
    /// Become the container's program.
    Exec(ProcessPlan),
}

impl Action {
    /// Whether the child waits while its parent does this.
    pub(crate) fn is_of_parent(&self) -> bool {
        match self {
            Self::NetDevices { .. } | Self::Rdt(_) => true,
            Self::Hooks { kind, .. } => matches!(kind, HookKind::Prestart | HookKind::CreateRuntime),
            _ => false,
        }
    }
}

/// A namespace that is joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Its kind.
    pub r#type: NamespaceType,
    /// Its file; none when its descriptor is passed to [`open`](crate::open::open).
    pub path: Option<PathBuf>,
}

/// A device file that is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// The path in the container.
    pub path: String,
    /// Character, block or fifo.
    pub r#type: DeviceType,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
    /// Its permissions.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// What the spec does not say.
#[derive(Clone, Debug, Default)]
pub struct PlanInput<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The directory that a relative `root.path` and relative bind sources start from.
    pub bundle: Option<&'a Path>,
    /// The root file system, as a snapshotter tells it; none stands for `root.path`.
    pub rootfs: &'a [RootMount],
    /// The network namespace to join is passed as a descriptor.
    pub netns: bool,
    /// The root is moved over the host's instead of pivot_root(2), which a host that runs from an
    /// initramfs has no other way for.
    pub no_pivot: bool,
    /// systemd makes the control group, and its path is `slice:prefix:name`.
    pub systemd_cgroup: bool,
    /// Whether a control group that nobody asks for may be missing; none where we have no privileges.
    pub rootless: Option<bool>,
    /// What the spec's process does not say.
    pub process: ProcessInput<'a>,
}

/// The spec asks for something that makes no sense, or that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A field has a value that it cannot have.
    #[error("{field}: {message}")]
    Invalid {
        /// Its path in the spec, `mounts[2].options`.
        field: String,
        /// Why not.
        message: String,
    },
}

impl Plan {
    /// The hooks of a kind.
    pub fn hooks(&self, kind: HookKind) -> &[Hook] {
        self.steps
            .iter()
            .find_map(|step| match &step.action {
                Action::Hooks { kind: other, hooks } if *other == kind => Some(hooks.as_slice()),
                _ => None,
            })
            .unwrap_or_default()
    }

    /// The class of cache and memory bandwidth.
    pub fn rdt(&self) -> Option<&RdtPlan> {
        self.steps.iter().find_map(|step| match &step.action {
            Action::Rdt(plan) => Some(plan),
            _ => None,
        })
    }

    /// The container's state, as hooks and listeners are told it.
    pub fn state(&self, status: Status, pid: Option<u32>) -> State {
        State {
            oci_version: VERSION.to_owned(),
            id: self.id.clone(),
            status,
            pid: pid.map(|pid| pid as i32),
            bundle: self.bundle.clone(),
            annotations: self.annotations.clone(),
        }
    }

    /// The path of the container's control group below each hierarchy's root, if it has one.
    pub fn cgroup(&self) -> Option<&str> {
        self.steps.iter().find_map(|step| match &step.action {
            Action::Cgroup(plan) => Some(plan.path()),
            _ => None,
        })
    }

    /// The maps of the user namespace that is made, if one is.
    pub fn ids(&self) -> Option<&IdMaps> {
        self.steps.iter().find_map(|step| match &step.action {
            Action::Clone { ids, .. } => ids.as_ref(),
            _ => None,
        })
    }

    /// The user and group outside that the root of the container's user namespace stands for, where it has
    /// one whose maps are known.
    pub(crate) fn root_outside(&self) -> Option<(u32, u32)> {
        self.steps.iter().find_map(|step| match &step.action {
            Action::Clone { ids: Some(ids), .. } => Some(ids.root_outside()),
            Action::Clone { joined_ids, .. } if !joined_ids.is_empty() => Some(joined_ids.root_outside()),
            _ => None,
        })
    }

    /// Whether the container is in a user namespace of its own, made or joined.
    pub fn in_user_namespace(&self) -> bool {
        self.steps.iter().any(|step| match &step.action {
            Action::Clone { new, join, .. } => {
                new.contains(&NamespaceType::User)
                    || join.iter().any(|join| join.r#type == NamespaceType::User)
            }
            _ => false,
        })
    }

    /// Whether a pid namespace is made, so that nothing in the container outlives its first process.
    pub fn own_pid_namespace(&self) -> bool {
        self.makes(NamespaceType::Pid)
    }

    /// The kinds of namespaces that are joined.
    pub fn joined(&self) -> Vec<NamespaceType> {
        let joined = self.steps.iter().filter_map(|step| match &step.action {
            Action::Clone { join, .. } => Some(join),
            _ => None,
        });
        joined.flatten().map(|join| join.r#type).collect()
    }

    /// Whether a mount namespace is made.
    pub(crate) fn own_mount_namespace(&self) -> bool {
        self.makes(NamespaceType::Mount)
    }

    fn makes(&self, kind: NamespaceType) -> bool {
        let made = |step: &Step| matches!(&step.action, Action::Clone { new, .. } if new.contains(&kind));
        self.steps.iter().any(made)
    }

    /// The program that is executed.
    pub fn process(&self) -> Option<&ProcessPlan> {
        self.steps.iter().find_map(|step| match &step.action {
            Action::Exec(process) => Some(process),
            _ => None,
        })
    }
}

impl PlanError {
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }
}
