//! The program: who it is and what it may do.

use std::path::{Path, PathBuf};

use ponton_oci::runtime::{
    Action, Capabilities, ConsoleSize, Linux, MemoryPolicy, Personality, Process, Rlimit, Seccomp,
    SeccompSyscall, State, User,
};
use serde::{Deserialize, Serialize};

use super::schedule::{AffinityPlan, IoPriorityPlan, MemoryPolicyPlan, SchedulerPlan};
use super::{PlanError, schedule};
use crate::host::Host;

/// A process, ready to be executed in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessPlan {
    /// It gets a terminal as its controlling terminal.
    pub terminal: bool,
    /// The size that its terminal is given, rows and columns.
    pub console_size: Option<(u16, u16)>,
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
    /// The AppArmor profile that its program runs under.
    pub apparmor_profile: Option<String>,
    /// The SELinux label that its program runs under.
    pub selinux_label: Option<String>,
    /// How it is scheduled.
    pub scheduler: Option<SchedulerPlan>,
    /// Its I/O priority.
    pub io_priority: Option<IoPriorityPlan>,
    /// Its CPUs, if it is started in a running container.
    pub affinity: Option<AffinityPlan>,
    /// From which nodes its memory is taken.
    pub memory_policy: Option<MemoryPolicyPlan>,
    /// Its execution domain (personality(2)).
    pub personality: Option<u64>,
    /// It stays in the session keyring of the caller.
    pub no_new_keyring: bool,
    /// What the spec asks for and cannot be had, which is told and passed over.
    pub warnings: Vec<String>,
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
    /// Further groups by their names in the container's group file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
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
    /// Who is told of system calls, if the filter notifies somebody.
    #[serde(default)]
    pub listener: Option<ListenerPlan>,
}

/// A seccomp agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerPlan {
    /// Its `SOCK_STREAM` socket.
    pub path: PathBuf,
    /// It is handed over by its number: what would send it is notified itself.
    pub by_number: bool,
    /// What it is told beside the state; empty is nothing.
    pub metadata: String,
    /// The container's state but for its process.
    pub state: State,
}

/// What a spec's process does not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessInput<'a> {
    /// The user as Docker writes it; it goes before the ids of the spec.
    pub user: Option<&'a str>,
    /// Further groups by name.
    pub groups: &'a [String],
    /// The file of the compiled seccomp filter; to be given where the spec has a policy.
    pub seccomp: Option<&'a Path>,
    /// How many of the caller's descriptors it inherits, from 3 on.
    pub preserve_fds: u32,
    /// The policy that it was compiled from.
    pub policy: Option<&'a Seccomp>,
    /// The execution domain.
    pub personality: Option<&'a Personality>,
    /// The memory policy.
    pub memory_policy: Option<&'a MemoryPolicy>,
    /// The container's state as far as it is known; to be given where the policy notifies somebody.
    pub state: Option<&'a State>,
    /// It stays in the session keyring of the caller.
    pub no_new_keyring: bool,
}

impl<'a> ProcessInput<'a> {
    /// With what the container's spec says for all of its processes.
    #[must_use]
    pub fn with_linux(self, linux: &'a Linux) -> Self {
        Self {
            policy: linux.seccomp.as_ref(),
            personality: linux.personality.as_ref(),
            memory_policy: linux.memory_policy.as_ref(),
            ..self
        }
    }
}

/// Computes what has to be done for `process`.
pub fn plan_process(
    process: &Process,
    host: &Host,
    input: &ProcessInput<'_>,
) -> Result<ProcessPlan, PlanError> {
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
    let mut warnings = Vec::new();
    let capabilities = process.capabilities.as_ref().map(|sets| capabilities(sets, host, &mut warnings));
    let console_size = process.console_size.filter(|_| process.terminal).map(console_size).transpose()?;
    Ok(ProcessPlan {
        terminal: process.terminal,
        console_size,
        args: process.args.clone(),
        env: process.env.clone(),
        cwd: process.cwd.clone(),
        user: UserPlan {
            name: input.user.map(String::from),
            uid: user.uid,
            gid: user.gid,
            additional_gids: user.additional_gids.clone(),
            groups: input.groups.to_vec(),
            umask: user.umask,
        },
        capabilities,
        rlimits: rlimits(&process.rlimits)?,
        no_new_privileges: process.no_new_privileges,
        oom_score_adj: process.oom_score_adj,
        seccomp: input.seccomp.map(|path| seccomp_plan(path, input)).transpose()?,
        apparmor_profile: apparmor_profile(&process.apparmor_profile, host)?,
        selinux_label: selinux_label(&process.selinux_label, host)?,
        scheduler: process.scheduler.as_ref().map(schedule::scheduler).transpose()?,
        io_priority: process.io_priority.as_ref().map(schedule::io_priority).transpose()?,
        affinity: process.exec_cpu_affinity.as_ref().map(schedule::affinity).transpose()?,
        memory_policy: input.memory_policy.map(schedule::memory_policy).transpose()?,
        personality: input.personality.map(schedule::personality).transpose()?,
        no_new_keyring: input.no_new_keyring,
        warnings,
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

fn console_size(size: ConsoleSize) -> Result<(u16, u16), PlanError> {
    match (u16::try_from(size.height), u16::try_from(size.width)) {
        (Ok(rows), Ok(columns)) => Ok((rows, columns)),
        _ => {
            let message = format!("{}x{} is no size of a terminal", size.width, size.height);
            Err(PlanError::invalid("process.consoleSize", message))
        }
    }
}

/// None where nothing has to be done: a process is unconfined on a host without AppArmor.
fn apparmor_profile(profile: &str, host: &Host) -> Result<Option<String>, PlanError> {
    const FIELD: &str = "process.apparmorProfile";
    if profile.is_empty() || (profile == "unconfined" && !host.has_apparmor) {
        return Ok(None);
    }
    if profile.contains(['\0', '\n']) {
        return Err(PlanError::invalid(FIELD, format!("{profile:?} is no name of a profile")));
    }
    if !host.has_apparmor {
        return Err(PlanError::invalid(FIELD, format!("{profile:?}: AppArmor is not enabled on this host")));
    }
    Ok(Some(profile.to_owned()))
}

fn selinux_label(label: &str, host: &Host) -> Result<Option<String>, PlanError> {
    const FIELD: &str = "process.selinuxLabel";
    if label.is_empty() {
        return Ok(None);
    }
    if label.contains(['\0', '\n']) {
        return Err(PlanError::invalid(FIELD, format!("{label:?} is no label")));
    }
    if !host.has_selinux {
        return Err(PlanError::invalid(FIELD, format!("{label:?}: SELinux is not enabled on this host")));
    }
    Ok(Some(label.to_owned()))
}

fn seccomp_plan(path: &Path, input: &ProcessInput<'_>) -> Result<SeccompPlan, PlanError> {
    let path = path.to_owned();
    let Some(policy) = input.policy else { return Ok(SeccompPlan { path, flags: 0, listener: None }) };
    let mut flags = crate::seccomp::flags(policy)
        .map_err(|error| PlanError::invalid("linux.seccomp.flags", error.to_string()))?;
    if policy.listener_path.is_empty() && !policy.listener_metadata.is_empty() {
        return Err(PlanError::invalid("linux.seccomp.listenerMetadata", "needs a listenerPath"));
    }
    let listener = listener(policy, input.state)?;
    // What these are about is not there: a second thread with a listener, and none without.
    flags &= if listener.is_some() { !crate::seccomp::TSYNC } else { !crate::seccomp::WAIT_KILLABLE_RECV };
    Ok(SeccompPlan { path, flags, listener })
}

/// Who is told, if the policy notifies at all.
fn listener(policy: &Seccomp, state: Option<&State>) -> Result<Option<ListenerPlan>, PlanError> {
    const FIELD: &str = "linux.seccomp.listenerPath";
    if policy.default_action == Action::Notify {
        let message = "SCMP_ACT_NOTIFY cannot be for all system calls";
        return Err(PlanError::invalid("linux.seccomp.defaultAction", message));
    }
    let notified = |name: &str| {
        let is_for =
            |rule: &SeccompSyscall| rule.action == Action::Notify && rule.names.iter().any(|own| own == name);
        policy.syscalls.iter().position(is_for)
    };
    if !policy.syscalls.iter().any(|rule| rule.action == Action::Notify) {
        return Ok(None);
    }
    // By these the listener itself is handed over, when the filter is in force already.
    let by_number = ["sendmsg", "recvmsg"].into_iter().any(|name| notified(name).is_some());
    for name in ["write", "read"] {
        if let Some(index) = notified(name).filter(|_| by_number) {
            let message = format!("SCMP_ACT_NOTIFY cannot be for {name} and for sendmsg or recvmsg");
            return Err(PlanError::invalid(format!("linux.seccomp.syscalls[{index}]"), message));
        }
    }
    if !policy.listener_path.starts_with('/') || policy.listener_path.contains('\0') {
        let message = format!("SCMP_ACT_NOTIFY needs an absolute path, not {:?}", policy.listener_path);
        return Err(PlanError::invalid(FIELD, message));
    }
    let state = state.ok_or_else(|| PlanError::invalid(FIELD, "the container's state is not known"))?;
    Ok(Some(ListenerPlan {
        path: PathBuf::from(&policy.listener_path),
        by_number,
        metadata: policy.listener_metadata.clone(),
        state: state.clone(),
    }))
}

/// The sets as bits. Names that nobody knows are warned of and passed over (config.md, "Linux
/// Process").
fn capabilities(sets: &Capabilities, host: &Host, warnings: &mut Vec<String>) -> CapabilitySets {
    let mut set = |field: &str, names: &[String]| {
        let mut bits = 0;
        for name in names {
            match CAPABILITIES.iter().position(|known| name.strip_prefix("CAP_") == Some(known)) {
                // One that the kernel does not know yet cannot be given, nor misused.
                Some(number) if number <= usize::from(host.last_capability) => bits |= 1 << number,
                _ => warnings.push(format!("process.capabilities.{field}: unknown capability {name:?}")),
            }
        }
        bits
    };
    let mut out = CapabilitySets {
        bounding: set("bounding", &sets.bounding),
        effective: set("effective", &sets.effective),
        permitted: set("permitted", &sets.permitted),
        inheritable: set("inheritable", &sets.inheritable),
        ambient: set("ambient", &sets.ambient),
    };
    // The kernel takes only these combinations (capabilities(7)).
    let lost = out.inheritable & !out.bounding;
    for (number, name) in CAPABILITIES.iter().enumerate().filter(|(number, _)| lost & 1 << number != 0) {
        out.inheritable &= !(1 << number);
        warnings.push(format!("process.capabilities.inheritable: CAP_{name} is not in the bounding set"));
    }
    out.effective &= out.permitted;
    out.ambient &= out.permitted & out.inheritable;
    out
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

fn rlimits(limits: &[Rlimit]) -> Result<Vec<RlimitPlan>, PlanError> {
    let mut plans: Vec<RlimitPlan> = Vec::with_capacity(limits.len());
    for (index, limit) in limits.iter().enumerate() {
        let plan = rlimit((index, limit))?;
        if plans.iter().any(|other| other.resource == plan.resource) {
            let message = format!("a second {}", plan.name);
            return Err(PlanError::invalid(format!("process.rlimits[{index}]"), message));
        }
        plans.push(plan);
    }
    Ok(plans)
}

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
