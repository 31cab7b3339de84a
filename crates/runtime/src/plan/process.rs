//! The program: who it is and what it may do.

use std::path::{Path, PathBuf};

use ponton_oci::runtime::{Capabilities, Process, Rlimit, Seccomp, User};
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
    /// What it may do; none is nothing.
    pub capabilities: Option<CapabilitySets>,
    /// Its resource limits.
    pub rlimits: Vec<RlimitPlan>,
    /// It cannot gain privileges by execve.
    pub no_new_privileges: bool,
    /// How likely the kernel is to kill it when memory is short, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Which system calls it may make.
    pub seccomp: Option<SeccompPlan>,
    /// How many descriptors it inherits from the runtime, from 3 on.
    pub preserve_fds: u32,
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
    /// How many of the caller's descriptors it inherits, from 3 on.
    pub preserve_fds: u32,
}

/// Computes what has to be done for `process`.
pub fn plan_process(
    process: &Process,
    host: &Host,
    input: &ProcessInput<'_>,
) -> Result<ProcessPlan, PlanError> {
    refuse_unbuilt(process)?;
    let nul = |text: &String| text.contains('\0');
    if process.args.is_empty() {
        return Err(PlanError::invalid("process.args", "there is no program to run"));
    }
    if process.args.iter().any(nul) {
        return Err(PlanError::invalid("process.args", "an argument contains a null byte"));
    }
    if process.env.iter().any(nul) {
        return Err(PlanError::invalid("process.env", "a variable contains a null byte"));
    }
    if !process.cwd.starts_with('/') || nul(&process.cwd) {
        return Err(PlanError::invalid("process.cwd", format!("{:?} is not an absolute path", process.cwd)));
    }
    if let Some(adjustment) = process.oom_score_adj.filter(|value| !(-1000..=1000).contains(value)) {
        return Err(PlanError::invalid(
            "process.oomScoreAdj",
            format!("{adjustment} is not in -1000 to 1000"),
        ));
    }
    let user = &process.user;
    check_ids(user)?;
    Ok(ProcessPlan {
        terminal: process.terminal,
        args: process.args.clone(),
        env: process.env.clone(),
        cwd: process.cwd.clone(),
        user: UserPlan {
            name: input.user.map(String::from),
            uid: user.uid,
            gid: user.gid,
            additional_gids: user.additional_gids.clone(),
            umask: user.umask,
        },
        capabilities: process.capabilities.as_ref().map(|sets| capabilities(sets, host)).transpose()?,
        rlimits: process.rlimits.iter().enumerate().map(rlimit).collect::<Result<_, _>>()?,
        no_new_privileges: process.no_new_privileges,
        oom_score_adj: process.oom_score_adj,
        seccomp: input.seccomp.map(|path| seccomp_plan(path, input.seccomp_flags)).transpose()?,
        preserve_fds: input.preserve_fds,
    })
}

/// The highest number is none: to the kernel it means no change (setreuid(2), chown(2)).
fn check_ids(user: &User) -> Result<(), PlanError> {
    let groups = user.additional_gids.iter().enumerate();
    let groups = groups.map(|(index, gid)| (format!("process.user.additionalGids[{index}]"), *gid));
    let own = [("process.user.uid", user.uid), ("process.user.gid", user.gid)];
    let mut ids = own.map(|(field, id)| (field.to_owned(), id)).into_iter().chain(groups);
    match ids.find(|(_, id)| *id == u32::MAX) {
        Some((field, id)) => Err(PlanError::invalid(field, format!("{id} is no id"))),
        None => Ok(()),
    }
}

/// The names of the capabilities that are known.
pub fn capability_names() -> Vec<String> {
    CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect()
}

fn refuse_unbuilt(process: &Process) -> Result<(), PlanError> {
    let unconfined = |profile: &str| profile.is_empty() || profile == "unconfined";
    let unbuilt = [
        ("process.apparmorProfile", !unconfined(&process.apparmor_profile)),
        ("process.selinuxLabel", !process.selinux_label.is_empty()),
        ("process.scheduler", process.scheduler.is_some()),
        ("process.ioPriority", process.io_priority.is_some()),
        ("process.execCPUAffinity", process.exec_cpu_affinity.is_some()),
    ];
    match unbuilt.into_iter().find(|(_, is_asked)| *is_asked) {
        Some((field, _)) => Err(PlanError::not_implemented(field, "this field")),
        None => Ok(()),
    }
}

fn seccomp_plan(path: &Path, flags: &[String]) -> Result<SeccompPlan, PlanError> {
    let policy = Seccomp { flags: flags.to_vec(), ..Seccomp::default() };
    let flags = crate::seccomp::flags(&policy)
        .map_err(|error| PlanError::invalid("linux.seccomp.flags", error.to_string()))?;
    Ok(SeccompPlan { path: path.to_owned(), flags })
}

fn capabilities(sets: &Capabilities, host: &Host) -> Result<CapabilitySets, PlanError> {
    let set = |field: &str, names: &[String]| {
        let mut bits = 0;
        for name in names {
            let number = CAPABILITIES.iter().position(|known| name.strip_prefix("CAP_") == Some(known));
            let Some(number) = number else {
                let field = format!("process.capabilities.{field}");
                return Err(PlanError::invalid(field, format!("unknown capability {name:?}")));
            };
            // One that the kernel does not know yet cannot be given, nor misused.
            if number <= usize::from(host.last_capability) {
                bits |= 1 << number;
            }
        }
        Ok(bits)
    };
    let mut out = CapabilitySets {
        bounding: set("bounding", &sets.bounding)?,
        effective: set("effective", &sets.effective)?,
        permitted: set("permitted", &sets.permitted)?,
        inheritable: set("inheritable", &sets.inheritable)?,
        ambient: set("ambient", &sets.ambient)?,
    };
    // The kernel takes only these combinations (capabilities(7)).
    out.effective &= out.permitted;
    out.ambient &= out.permitted & out.inheritable;
    Ok(out)
}

/// The names of capabilities by number, without `CAP_` (linux/capability.h).
pub(super) const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn rlimit((index, limit): (usize, &Rlimit)) -> Result<RlimitPlan, PlanError> {
    let field = || format!("process.rlimits[{index}]");
    let Some(resource) = RLIMITS.iter().position(|name| limit.r#type.strip_prefix("RLIMIT_") == Some(name))
    else {
        return Err(PlanError::invalid(field(), format!("unknown limit {:?}", limit.r#type)));
    };
    if limit.soft > limit.hard {
        return Err(PlanError::invalid(
            field(),
            format!("soft limit {} is over the hard limit {}", limit.soft, limit.hard),
        ));
    }
    Ok(RlimitPlan {
        name: limit.r#type.clone(),
        resource: resource as u32,
        soft: limit.soft,
        hard: limit.hard,
    })
}

/// The names of resource limits by number, without `RLIMIT_` (asm-generic/resource.h).
const RLIMITS: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];
