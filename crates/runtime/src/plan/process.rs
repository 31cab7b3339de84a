//! The program: who it is and what it may do.

use std::path::{Path, PathBuf};

use ponton_oci::runtime::Process;
use serde::{Deserialize, Serialize};

use super::PlanError;
use crate::host::Host;

/// A process, ready to be executed in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessPlan {
    /// It gets a terminal as its controlling terminal.
    pub terminal: bool,
    /// Program and arguments; the program is looked up in the `PATH` of `env`, in the container.
    pub args: Vec<String>,
    /// The environment; `HOME` is added from the container's passwd file where it is missing.
    pub env: Vec<String>,
    /// The working directory; it is made where it is missing.
    pub cwd: String,
    /// Who it is.
    pub user: UserPlan,
    /// What it may do; none leaves everything.
    pub capabilities: Option<CapabilitySets>,
    /// Its resource limits.
    pub rlimits: Vec<RlimitPlan>,
    /// It cannot gain privileges by execve.
    pub no_new_privileges: bool,
    /// How likely the kernel is to kill it when memory is short, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Which system calls it may make.
    pub seccomp: Option<SeccompPlan>,
}

/// The user that a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserPlan {
    /// As Docker writes it, `name[:group]` or `uid[:gid]`: looked up in the container's passwd and
    /// group files, and the ids below don't count.
    pub name: Option<String>,
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// Further groups, also when a name is looked up.
    pub additional_gids: Vec<u32>,
    /// The file mode creation mask; 0o022 where none is given.
    pub umask: Option<u32>,
}

/// Capability sets, one bit for each capability (capabilities(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CapabilitySets {
    /// What can be gained at all.
    pub bounding: u64,
    /// What is in force.
    pub effective: u64,
    /// What can be put into force.
    pub permitted: u64,
    /// What executed files may keep.
    pub inheritable: u64,
    /// What is kept over an execve by a user that is not root.
    pub ambient: u64,
}

/// A resource limit (getrlimit(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RlimitPlan {
    /// Its name, `RLIMIT_NOFILE`.
    pub name: String,
    /// Its number.
    pub resource: u32,
    /// What is in force; `u64::MAX` is no limit.
    pub soft: u64,
    /// What it can be raised to.
    pub hard: u64,
}

/// A compiled seccomp filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompPlan {
    /// The file with its instructions.
    pub path: PathBuf,
    /// Flags of seccomp(2), `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
}

/// What a spec's process does not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessInput<'a> {
    /// The user as Docker writes it; it goes before the ids of the spec.
    pub user: Option<&'a str>,
    /// The file of the compiled seccomp filter; to be given where the spec has a policy.
    pub seccomp: Option<&'a Path>,
    /// Flags of the policy, `SECCOMP_FILTER_FLAG_LOG`.
    pub seccomp_flags: &'a [String],
}

/// Computes what has to be done for `process`.
pub fn plan_process(
    process: &Process,
    host: &Host,
    input: &ProcessInput<'_>,
) -> Result<ProcessPlan, PlanError> {
    let _ = (process, host, input);
    Err(PlanError::NotImplemented { field: "process".into(), message: "planning".into() })
}
