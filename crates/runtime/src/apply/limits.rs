//! What the kernel lets a process have: resource limits, scheduling, I/O priority, and how soon it is
//! killed when memory runs out.
//!
//! The process sets it itself; but to take more than its caller has needs rights in the host's user
//! namespace. A child that is in another has its parent do it, by its process id.

use ponton_sys as sys;
use ponton_sys::task::Scheduling;
use rustix::fs::{Mode, OFlags};

use crate::Error;
use crate::plan::{IoPriorityPlan, ProcessPlan, RlimitPlan, SchedulerPlan};

/// The calling process, for the kernel.
const SELF: u32 = 0;

/// Whether the plan has anything that needs rights.
pub(super) fn are_set(plan: &ProcessPlan) -> bool {
    let ProcessPlan { rlimits, scheduler, io_priority, oom_score_adj, .. } = plan;
    !rlimits.is_empty() || scheduler.is_some() || io_priority.is_some() || oom_score_adj.is_some()
}

/// Sets everything for a child that has no rights for it.
pub(super) fn set_of_child(plan: &ProcessPlan, pid: u32) -> Result<(), Error> {
    let step = |source| Error::Step { step: "set limits (process)".to_owned(), source };
    if let Some(value) = plan.oom_score_adj {
        // A directory of procfs stands for this process alone.
        let path = format!("/proc/{pid}");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, Mode::empty())
            .and_then(|process| {
                let flags = OFlags::WRONLY | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&process, "oom_score_adj", flags, Mode::empty())?;
                rustix::io::write(&file, value.to_string().as_bytes())
            })
            .map_err(sys::Error::of("process.oomScoreAdj: write", value))
            .map_err(step)?;
    }
    schedule(plan, pid).map_err(step)?;
    set_rlimits(&plan.rlimits, pid)
}

/// Sets the caller's own OOM score.
pub(super) fn set_own_oom_score(plan: &ProcessPlan) -> Result<(), sys::Error> {
    let Some(value) = plan.oom_score_adj else { return Ok(()) };
    let path = "/proc/self/oom_score_adj";
    std::fs::write(path, value.to_string()).map_err(sys::Error::of(format!("write {value} to"), path))
}

/// Sets how the kernel runs the caller.
pub(super) fn schedule_own(plan: &ProcessPlan) -> Result<(), sys::Error> {
    schedule(plan, SELF)
}

/// Sets the caller's own resource limits.
pub(super) fn set_own_rlimits(limits: &[RlimitPlan]) -> Result<(), Error> {
    set_rlimits(limits, SELF)
}

fn schedule(plan: &ProcessPlan, pid: u32) -> Result<(), sys::Error> {
    if let Some(scheduler) = plan.scheduler {
        sys::task::set_scheduling(pid, scheduler.into()).map_err(of_field("process.scheduler"))?;
    }
    if let Some(IoPriorityPlan { class, level }) = plan.io_priority {
        sys::task::set_io_priority(pid, class, level).map_err(of_field("process.ioPriority"))?;
    }
    Ok(())
}

fn set_rlimits(limits: &[RlimitPlan], pid: u32) -> Result<(), Error> {
    for limit in limits {
        let step = |source| Error::Step { step: format!("set {} (process.rlimits)", limit.name), source };
        sys::process::set_rlimit(pid, limit.resource, limit.soft, limit.hard).map_err(step)?;
    }
    Ok(())
}

pub(super) fn of_field(field: &'static str) -> impl FnOnce(sys::Error) -> sys::Error {
    move |error| sys::Error { operation: format!("{field}: {}", error.operation).into(), ..error }
}

impl From<SchedulerPlan> for Scheduling {
    fn from(plan: SchedulerPlan) -> Self {
        let SchedulerPlan { policy, flags, nice, priority, runtime_ns, deadline_ns, period_ns } = plan;
        let mut scheduling = Self::default();
        (scheduling.policy, scheduling.flags) = (policy, flags);
        (scheduling.nice, scheduling.priority) = (nice, priority);
        (scheduling.runtime_ns, scheduling.deadline_ns, scheduling.period_ns) =
            (runtime_ns, deadline_ns, period_ns);
        scheduling
    }
}
