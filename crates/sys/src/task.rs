//! What the kernel keeps for each thread and hands on through execve: scheduling, I/O priority,
//! execution domain, memory policy. Process 0 is the calling thread.
#![allow(unsafe_code, reason = "system calls that no crate wraps safely")]

use std::io;

use crate::{Error, Result};

/// `struct sched_attr` (sched_setattr(2)), without the clamps of utilization.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduling {
    size: u32,
    /// `SCHED_OTHER` and so on.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`, -20 to 19.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`, 1 to 99.
    pub priority: u32,
    /// For `SCHED_DEADLINE`, in nanoseconds, as the two below.
    pub runtime_ns: u64,
    /// By when the runtime is to be had.
    pub deadline_ns: u64,
    /// How often.
    pub period_ns: u64,
}

/// Sets how a process of one thread is scheduled.
pub fn set_scheduling(pid: u32, scheduling: Scheduling) -> Result<()> {
    let attributes = Scheduling { size: size_of::<Scheduling>() as u32, ..scheduling };
    // SAFETY: the structure is the kernel's first version of sched_attr, with its size in it, and
    // lives during the call.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, pid, std::ptr::from_ref(&attributes), 0) };
    done(result, "sched_setattr", format_args!("policy {}", scheduling.policy))
}

/// Sets the I/O priority of a process of one thread: the class (1 real time, 2 best effort, 3 idle) and
/// the level in it (ioprio_set(2)).
pub fn set_io_priority(pid: u32, class: u32, level: u32) -> Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_SHIFT: u32 = 13;
    let priority = class << CLASS_SHIFT | level;
    // SAFETY: no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, pid, priority) };
    done(result, "ioprio_set", format_args!("class {class}, level {level}"))
}

/// Sets the execution domain of the calling thread (personality(2)).
pub fn set_personality(domain: u64) -> Result<()> {
    // SAFETY: no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_personality, domain) };
    done(result, "personality", format_args!("{domain:#x}"))
}

/// Sets the policy by which memory of the calling thread is taken from nodes, a bit for each (set_mempolicy(2)).
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<()> {
    // The kernel takes one bit less than it is told.
    let bits = nodes.len() * 64 + usize::from(!nodes.is_empty());
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the mask lives during the call and has the bits that are told; the kernel rounds the
    // number of bits less one up to whole words, which is the length of the slice.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
    done(result, "set_mempolicy", format_args!("mode {mode:#x}"))
}

fn done(result: libc::c_long, operation: &'static str, object: std::fmt::Arguments<'_>) -> Result<()> {
    if result >= 0 { Ok(()) } else { Err(Error::new(operation, object, io::Error::last_os_error())) }
}
