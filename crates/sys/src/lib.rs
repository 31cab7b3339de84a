//! The kernel, spoken to directly: the only crate that has unsafe code.
//!
//! What rustix wraps safely is used from there; here is the rest, one module for each thing of the
//! kernel. Nothing here knows what a container is.

pub mod allocator;
pub mod bpf;
pub mod btrfs;
pub mod clone;
mod error;
pub mod event;
pub mod executable;
pub mod file;
pub mod file_owner;
pub mod memfd;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod overlay;
pub mod path;
pub mod pidfd;
pub mod process;
pub mod pty;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod task;
pub mod user_namespace;
pub mod verity;

pub use error::{Error, Result};
