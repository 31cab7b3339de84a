//! Mounts of a plan as detached mounts.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ponton_sys as sys;
use ponton_sys::mount::{Change, Context};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;

use crate::plan::{MountPlan, Propagation, Source};

/// Where the child gets a mount from.
#[derive(Debug)]
pub(crate) enum MountSource {
    /// It is there already.
    Detached(Detached),
    /// It depends on the child's namespaces, and is made by it.
    InChild,
}

/// A mount that is not attached anywhere.
#[derive(Debug)]
pub(crate) struct Detached {
    pub(crate) mount: OwnedFd,
    pub(crate) is_directory: bool,
}

impl MountSource {
    pub(super) fn detached(&self) -> Option<&Detached> {
        match self {
            Self::Detached(detached) => Some(detached),
            Self::InChild => None,
        }
    }
}

impl Source {
    pub(super) fn is_file_system(&self, name: &str) -> bool {
        matches!(self, Self::FileSystem { r#type, .. } if r#type == name)
    }
}

/// File systems whose content is that of a namespace of the process that makes them.
const OF_NAMESPACES: [&str; 5] = ["proc", "sysfs", "mqueue", "cgroup2", "cgroup"];

pub(super) fn open(plan: &MountPlan) -> Result<MountSource, sys::Error> {
    match &plan.source {
        Source::FileSystem { r#type, .. } if OF_NAMESPACES.contains(&r#type.as_str()) => {
            Ok(MountSource::InChild)
        }
        Source::FileSystem { .. } => {
            let mount = make_filesystem(plan)?;
            Ok(MountSource::Detached(Detached { mount, is_directory: true }))
        }
        Source::Bind { path, recursive } => {
            let mount = sys::mount::clone_tree(rustix::fs::CWD, &c_path(path)?, *recursive)?;
            let status = rustix::fs::fstat(&mount).map_err(sys::Error::of("fstat", path.display()))?;
            configure(&mount, plan)?;
            let is_directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
            Ok(MountSource::Detached(Detached { mount, is_directory }))
        }
    }
}

fn c_path(path: &Path) -> Result<CString, sys::Error> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| sys::Error::new("open", path.display(), Errno::INVAL))
}

/// Makes the file system of a plan, with its attributes.
pub(crate) fn make_filesystem(plan: &MountPlan) -> Result<OwnedFd, sys::Error> {
    let Source::FileSystem { r#type, source, options } = &plan.source else {
        return Err(sys::Error::new("mount", &plan.target, Errno::INVAL));
    };
    let attributes = plan.attributes.set | plan.attributes.set_recursive;
    let mount = if r#type == "overlay" {
        sys::overlay::mount(source, options, attributes)?
    } else {
        let context = Context::new(r#type)?;
        if !source.is_empty() {
            context.set("source", source)?;
        }
        options.iter().try_for_each(|option| context.set_option(option))?;
        context.mount(attributes)?
    };
    if let Some(propagation) = plan.propagation {
        change_propagation(&mount, propagation)?;
    }
    Ok(mount)
}

/// Gives a copy of a part of the host its attributes. It spreads nothing, unless the plan says so.
fn configure(mount: &OwnedFd, plan: &MountPlan) -> Result<(), sys::Error> {
    let attributes = &plan.attributes;
    let private = Propagation { flag: u64::from(MountPropagationFlags::PRIVATE.bits()), recursive: true };
    let recursive =
        Change { set: attributes.set_recursive, clear: attributes.clear_recursive, propagation: 0 };
    let own = Change { set: attributes.set, clear: attributes.clear, propagation: 0 };
    change_propagation(mount, plan.propagation.unwrap_or(private))?;
    sys::mount::change(mount.as_fd(), recursive, true)?;
    sys::mount::change(mount.as_fd(), own, false)
}

fn change_propagation(
    mount: &OwnedFd,
    Propagation { flag, recursive }: Propagation,
) -> Result<(), sys::Error> {
    sys::mount::change(mount.as_fd(), Change { propagation: flag, ..Change::default() }, recursive)
}
