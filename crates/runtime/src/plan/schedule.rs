//! How a process is run by the kernel: scheduler, I/O priority, CPUs, memory policy, execution
//! domain. Names to numbers.

use ponton_oci::runtime::{ExecCpuAffinity, IoPriority, MemoryPolicy, Personality, Scheduler};
use serde::{Deserialize, Serialize};

use super::PlanError;

/// How a process is scheduled (sched_setattr(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerPlan {
    /// The number of the policy.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// -20 to 19.
    pub nice: i32,
    /// 1 to 99 for the real-time policies, else 0.
    pub priority: u32,
    /// For deadlines, as the two below.
    pub runtime_ns: u64,
    /// By when the runtime is to be had.
    pub deadline_ns: u64,
    /// How often.
    pub period_ns: u64,
}

/// The I/O priority of a process (ioprio_set(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoPriorityPlan {
    /// 1 real time, 2 best effort, 3 idle.
    pub class: u32,
    /// 0 (first) to 7.
    pub level: u32,
}

/// The CPUs of a process that is started in a running container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AffinityPlan {
    /// Until it is in the container's control group.
    pub initial: Option<Vec<u32>>,
    /// From then on.
    pub r#final: Option<Vec<u32>>,
}

/// From which nodes memory is taken (set_mempolicy(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicyPlan {
    /// The mode, with its flags.
    pub mode: u32,
    /// A bit for each node.
    pub nodes: Vec<u64>,
}

/// linux/sched.h. `SCHED_ISO` has a number and no code.
const POLICIES: [(&str, u32); 6] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

const SCHEDULER_FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

/// linux/ioprio.h.
const IO_CLASSES: [(&str, u32); 3] =
    [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// linux/mempolicy.h.
const MEMORY_MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

const MEMORY_FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_STATIC_NODES", 1 << 15),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
];

/// linux/personality.h.
const DOMAINS: [(&str, u64); 2] = [("LINUX", 0), ("LINUX32", 8)];

/// The most CPUs and nodes that lists may name: what the kernel's own masks hold.
const CPUS_MAX: u32 = 1024;

/// The names of the memory policies that are known.
pub fn memory_modes() -> Vec<&'static str> {
    MEMORY_MODES.iter().map(|(name, _)| *name).collect()
}

/// The names of the flags of memory policies that are known.
pub fn memory_flags() -> Vec<&'static str> {
    MEMORY_FLAGS.iter().map(|(name, _)| *name).collect()
}

fn number<T: Copy>(table: &[(&str, T)], name: &str, field: &str) -> Result<T, PlanError> {
    let found = table.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    found.ok_or_else(|| {
        let known: Vec<_> = table.iter().map(|(known, _)| *known).collect();
        PlanError::invalid(field, format!("{name:?} is none of {}", known.join(", ")))
    })
}

pub(super) fn scheduler(spec: &Scheduler) -> Result<SchedulerPlan, PlanError> {
    const FIELD: &str = "process.scheduler";
    let field = |name: &str| format!("{FIELD}.{name}");
    let policy = number(&POLICIES, &spec.policy, &field("policy"))?;
    let mut flags = 0;
    for flag in &spec.flags {
        flags |= number(&SCHEDULER_FLAGS, flag, &field("flags"))?;
    }
    let nice = spec.nice.unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(PlanError::invalid(field("nice"), format!("{nice} is not in -20 to 19")));
    }
    let is_real_time = matches!(policy, 1 | 2);
    let priority = spec.priority.unwrap_or(0);
    if priority != 0 && !is_real_time {
        return Err(PlanError::invalid(field("priority"), "is for SCHED_FIFO and SCHED_RR only"));
    }
    if is_real_time && !(1..=99).contains(&priority) {
        return Err(PlanError::invalid(field("priority"), format!("{priority} is not in 1 to 99")));
    }
    for (name, time) in [("runtime", spec.runtime), ("deadline", spec.deadline), ("period", spec.period)] {
        if time.is_some_and(|time| time > 0) && policy != 6 {
            return Err(PlanError::invalid(field(name), "is for SCHED_DEADLINE only"));
        }
    }
    Ok(SchedulerPlan {
        policy,
        flags,
        nice,
        priority: priority.unsigned_abs(),
        runtime_ns: spec.runtime.unwrap_or(0),
        deadline_ns: spec.deadline.unwrap_or(0),
        period_ns: spec.period.unwrap_or(0),
    })
}

pub(super) fn io_priority(spec: &IoPriority) -> Result<IoPriorityPlan, PlanError> {
    let class = number(&IO_CLASSES, &spec.class, "process.ioPriority.class")?;
    let level = u32::try_from(spec.priority).ok().filter(|level| *level <= 7);
    let level = level.ok_or_else(|| {
        PlanError::invalid("process.ioPriority.priority", format!("{} is not in 0 to 7", spec.priority))
    })?;
    Ok(IoPriorityPlan { class, level })
}

pub(super) fn affinity(spec: &ExecCpuAffinity) -> Result<AffinityPlan, PlanError> {
    let cpus = |list: &Option<String>, name: &str| {
        let list = list.as_ref().filter(|list| !list.is_empty());
        list.map(|list| parse_list(list, &format!("process.execCPUAffinity.{name}"))).transpose()
    };
    Ok(AffinityPlan { initial: cpus(&spec.initial, "initial")?, r#final: cpus(&spec.r#final, "final")? })
}

pub(super) fn memory_policy(spec: &MemoryPolicy) -> Result<MemoryPolicyPlan, PlanError> {
    let mut mode = number(&MEMORY_MODES, &spec.mode, "linux.memoryPolicy.mode")?;
    for flag in &spec.flags {
        mode |= number(&MEMORY_FLAGS, flag, "linux.memoryPolicy.flags")?;
    }
    let takes_none = matches!(spec.mode.as_str(), "MPOL_DEFAULT" | "MPOL_LOCAL");
    if takes_none && !spec.nodes.is_empty() {
        return Err(PlanError::invalid("linux.memoryPolicy.nodes", format!("{} takes none", spec.mode)));
    }
    let is_needed = !takes_none && spec.mode != "MPOL_PREFERRED";
    if is_needed && spec.nodes.is_empty() {
        return Err(PlanError::invalid("linux.memoryPolicy.nodes", format!("{} needs some", spec.mode)));
    }
    let list =
        if spec.nodes.is_empty() { Vec::new() } else { parse_list(&spec.nodes, "linux.memoryPolicy.nodes")? };
    let words = list.iter().max().map_or(0, |last| *last as usize / 64 + 1);
    let mut nodes = vec![0_u64; words];
    for node in list {
        nodes[node as usize / 64] |= 1 << (node % 64);
    }
    Ok(MemoryPolicyPlan { mode, nodes })
}

pub(super) fn personality(spec: &Personality) -> Result<u64, PlanError> {
    if let Some(flag) = spec.flags.first() {
        let message = format!("{flag:?}: no flag is supported");
        return Err(PlanError::invalid("linux.personality.flags", message));
    }
    number(&DOMAINS, &spec.domain, "linux.personality.domain")
}

/// `0-3,7`, as the kernel writes lists of CPUs and nodes.
fn parse_list(text: &str, field: &str) -> Result<Vec<u32>, PlanError> {
    let invalid = || PlanError::invalid(field, format!("{text:?} is not a list like \"0-3,7\""));
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|number| *number < CPUS_MAX);
    let mut list = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Some(first), Some(last)) = (number(first), number(last)) else { return Err(invalid()) };
        if first > last {
            return Err(invalid());
        }
        list.extend(first..=last);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<T: std::fmt::Debug>(result: Result<T, PlanError>) -> String {
        let PlanError::Invalid { field, .. } = result.unwrap_err();
        field
    }

    #[test]
    fn lists_are_those_of_the_kernel() {
        assert_eq!(parse_list("0-3,7", "f").unwrap(), [0, 1, 2, 3, 7]);
        assert_eq!(parse_list("5", "f").unwrap(), [5]);
        for list in ["", "a", "3-1", "1-", "-1", "1,,2", "1024", "0-4294967295"] {
            assert_eq!(field(parse_list(list, "f")), "f", "{list}");
        }
    }

    #[test]
    fn a_scheduler_takes_what_its_policy_takes() {
        let spec = |policy: &str| Scheduler { policy: policy.to_owned(), ..Scheduler::default() };
        assert_eq!(scheduler(&Scheduler { nice: Some(-5), ..spec("SCHED_BATCH") }).unwrap().nice, -5);
        let fifo = Scheduler { priority: Some(10), ..spec("SCHED_FIFO") };
        assert_eq!(scheduler(&fifo).unwrap().priority, 10);
        assert_eq!(field(scheduler(&spec("SCHED_FIFO"))), "process.scheduler.priority");
        assert_eq!(field(scheduler(&spec("SCHED_ISO"))), "process.scheduler.policy");
        let idle = Scheduler { runtime: Some(1), ..spec("SCHED_IDLE") };
        assert_eq!(field(scheduler(&idle)), "process.scheduler.runtime");
        let nice = Scheduler { nice: Some(20), ..spec("SCHED_OTHER") };
        assert_eq!(field(scheduler(&nice)), "process.scheduler.nice");
        let flags = Scheduler { flags: vec!["SCHED_FLAG_X".into()], ..spec("SCHED_OTHER") };
        assert_eq!(field(scheduler(&flags)), "process.scheduler.flags");
    }

    #[test]
    fn memory_policies_name_their_nodes() {
        let spec = |mode: &str, nodes: &str| MemoryPolicy {
            mode: mode.to_owned(),
            nodes: nodes.to_owned(),
            flags: Vec::new(),
        };
        let bind = memory_policy(&spec("MPOL_BIND", "0,64-65")).unwrap();
        assert_eq!(bind, MemoryPolicyPlan { mode: 2, nodes: vec![1, 3] });
        assert_eq!(memory_policy(&spec("MPOL_DEFAULT", "")).unwrap().nodes, [0; 0]);
        assert_eq!(field(memory_policy(&spec("MPOL_DEFAULT", "0"))), "linux.memoryPolicy.nodes");
        assert_eq!(field(memory_policy(&spec("MPOL_BIND", ""))), "linux.memoryPolicy.nodes");
        assert_eq!(field(memory_policy(&spec("BIND", "0"))), "linux.memoryPolicy.mode");
    }

    #[test]
    fn io_priorities_have_eight_levels() {
        let spec = |class: &str, priority| IoPriority { class: class.to_owned(), priority };
        let idle = io_priority(&spec("IOPRIO_CLASS_IDLE", 0)).unwrap();
        assert_eq!(idle, IoPriorityPlan { class: 3, level: 0 });
        assert_eq!(field(io_priority(&spec("IOPRIO_CLASS_BE", 8))), "process.ioPriority.priority");
        assert_eq!(field(io_priority(&spec("IDLE", 0))), "process.ioPriority.class");
    }

    #[test]
    fn execution_domains_have_no_flags() {
        let spec = |domain: &str, flags: &[&str]| Personality {
            domain: domain.to_owned(),
            flags: flags.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(personality(&spec("LINUX32", &[])).unwrap(), 8);
        assert_eq!(field(personality(&spec("LINUX", &["X"]))), "linux.personality.flags");
        assert_eq!(field(personality(&spec("BSD", &[]))), "linux.personality.domain");
    }
}
