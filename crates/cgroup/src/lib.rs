//! Control groups v1, v2 and hybrid: limits, stats, freeze and kill.
//!
//! One table (`limit.rs`) says for every resource which file of v1 and which of v2 it is, and how its
//! value is converted; nothing else knows the difference.

mod dbus;
mod device;
mod group;
mod layout;
mod limit;
mod make;
mod meter;
mod oom;
mod plan;
mod stats;
mod systemd;
mod usage;

pub use dbus::read_message;
pub use group::{Cgroup, Opened, UpdateError};
pub use layout::{Hierarchy, Layout, Version};
pub use meter::Meter;
pub use plan::{CgroupPlan, PlanError, plan};
pub use stats::{BlockIoEntry, Stats};
pub use systemd::plan_scope;
pub use usage::{Cpuset, Usage};
