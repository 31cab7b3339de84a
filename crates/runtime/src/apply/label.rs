//! The label that a program is executed under: an AppArmor profile, an SELinux context.
//!
//! The kernel takes it from the process itself, through files of `/proc/thread-self/attr`. They are
//! opened before anything of the container is mounted and found to be of procfs, so that nothing
//! else is written to in their place; they are written to late, with what comes before the execve
//! still under the runtime's own label.

use std::os::fd::OwnedFd;

use ponton_sys as sys;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::plan::ProcessPlan;

/// linux/magic.h.
const PROC_MAGIC: i64 = 0x9fa0;
const APPARMOR: &str = "/proc/thread-self/attr/apparmor/exec";
/// The first of the two that were there; AppArmor's before it had its own directory (Linux 5.8).
const SHARED: &str = "/proc/thread-self/attr/exec";

/// What is to be written, and where.
#[derive(Debug)]
pub(super) struct Label {
    /// The file, what is set by it for errors, and what is written.
    files: Vec<(OwnedFd, &'static str, String)>,
}

impl Label {
    /// Opens what the plan's labels are written to. The host's `/proc` must be there.
    pub(super) fn open(plan: &ProcessPlan) -> Result<Option<Self>, sys::Error> {
        let mut files = Vec::new();
        if let Some(profile) = &plan.apparmor_profile {
            let file = match open_attribute(APPARMOR) {
                Err(error) if error.errno() == Some(Errno::NOENT.raw_os_error()) => open_attribute(SHARED),
                other => other,
            };
            files.push((file?, "set process.apparmorProfile", format!("exec {profile}")));
        }
        if let Some(label) = &plan.selinux_label {
            files.push((open_attribute(SHARED)?, "set process.selinuxLabel", label.clone()));
        }
        Ok((!files.is_empty()).then_some(Self { files }))
    }

    /// Sets the label of the next execve.
    pub(super) fn set(&self) -> Result<(), sys::Error> {
        for (file, operation, text) in &self.files {
            let failed = sys::Error::of(*operation, format!("{text:?}"));
            rustix::io::write(file, text.as_bytes()).map_err(failed)?;
        }
        Ok(())
    }
}

fn open_attribute(path: &str) -> Result<OwnedFd, sys::Error> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(sys::Error::of("open", path))?;
    let of = rustix::fs::fstatfs(&file).map_err(sys::Error::of("fstatfs", path))?;
    if of.f_type as i64 != PROC_MAGIC {
        return Err(sys::Error::new("open", format!("{path}: not of procfs"), Errno::XDEV));
    }
    Ok(file)
}
