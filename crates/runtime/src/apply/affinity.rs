//! The CPUs of a process (sched_setaffinity(2)).

use ponton_sys as sys;
use rustix::thread::CpuSet;

/// Puts the caller, and what it clones, on these CPUs; gives those that it had.
pub(super) fn narrow(cpus: &[u32]) -> Result<CpuSet, sys::Error> {
    let failed = sys::Error::of("sched_getaffinity", "own CPUs");
    let own = rustix::thread::sched_getaffinity(None).map_err(failed)?;
    set(cpus)?;
    Ok(own)
}

/// Gives the caller back the CPUs that it had.
pub(super) fn restore(own: &CpuSet) -> Result<(), sys::Error> {
    rustix::thread::sched_setaffinity(None, own).map_err(sys::Error::of("sched_setaffinity", "own CPUs"))
}

/// Puts the caller on these CPUs.
pub(super) fn set(cpus: &[u32]) -> Result<(), sys::Error> {
    let mut set = CpuSet::new();
    let known = cpus.iter().filter(|cpu| (**cpu as usize) < CpuSet::MAX_CPU);
    known.for_each(|cpu| set.set(*cpu as usize));
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(sys::Error::of("sched_setaffinity (process.execCPUAffinity)", format!("{cpus:?}")))
}

/// Puts the caller on all CPUs that its control group has.
pub(super) fn widen() -> Result<(), sys::Error> {
    let all: Vec<u32> = (0..CpuSet::MAX_CPU as u32).collect();
    set(&all)
}
