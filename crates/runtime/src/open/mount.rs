//! Mounts of a plan as detached mounts.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ponton_sys as sys;
use ponton_sys::mount::{Change, Context};
use ponton_sys::user_namespace;
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;

use crate::host::Host;
use crate::plan::{Attributes, IdMapPlan, MountPlan, Propagation, Source};

/// Where the child gets a mount from.
#[derive(Debug)]
pub(crate) enum MountSource {
    /// It is there already.
    Detached(Detached),
    /// It depends on the child's namespaces, and is made by it.
    InChild,
    /// A part of the host that is copied once the child has its mount namespace, from there: what
    /// the host's mounts forbid is locked in a namespace of another owner (mount_namespaces(7)), and
    /// would not be on a copy from the host's.
    Copied,
}

/// A mount that is not attached anywhere.
#[derive(Debug)]
pub(crate) struct Detached {
    pub(crate) mount: OwnedFd,
    pub(crate) is_directory: bool,
}

impl Detached {
    /// A mount that was made elsewhere.
    pub(crate) fn of(mount: OwnedFd) -> Result<Self, sys::Error> {
        let status = rustix::fs::fstat(&mount).map_err(sys::Error::of("fstat", "a mount"))?;
        let is_directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
        Ok(Self { mount, is_directory })
    }
}

impl MountSource {
    pub(crate) fn detached(&self) -> Option<&Detached> {
        match self {
            Self::Detached(detached) => Some(detached),
            Self::InChild | Self::Copied => None,
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

/// What the parent makes; the rest is made by the child, with the rights that it has in its namespaces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Makes {
    pub(super) file_systems: bool,
    pub(super) binds: bool,
    /// Binds are copied from the child's mount namespace.
    pub(super) copies: bool,
}

pub(super) fn open(plan: &MountPlan, makes: Makes, host: &Host) -> Result<MountSource, sys::Error> {
    let by_parent = match &plan.source {
        // It is the layers' owner who can mount them.
        Source::FileSystem { r#type, .. } if r#type == "overlay" => makes.binds,
        Source::FileSystem { r#type, .. } => makes.file_systems && !OF_NAMESPACES.contains(&r#type.as_str()),
        Source::Bind { .. } => makes.binds,
        Source::Remount { .. } => false,
    };
    if !by_parent {
        return Ok(MountSource::InChild);
    }
    if makes.copies && matches!(plan.source, Source::Bind { .. }) {
        return Ok(MountSource::Copied);
    }
    make_mapped(plan, super::writer(host)).map(MountSource::Detached)
}

/// Makes the detached mount of a plan, with its attributes and the ids of its files mapped. An overlay's
/// are those of its layers.
pub(crate) fn make_mapped(plan: &MountPlan, writer: user_namespace::Writer) -> Result<Detached, sys::Error> {
    let Some(IdMapPlan { maps, recursive }) = &plan.id_map else { return make(plan) };
    let namespace = user_namespace::new(writer, &super::ranges(&maps.uid), &super::ranges(&maps.gid))?;
    if let Source::FileSystem { source, options, .. } = &plan.source {
        let attributes = plan.attributes.set | plan.attributes.set_recursive;
        let owner = maps.root_outside();
        let mount = sys::overlay::mount_mapped(source, options, attributes, namespace.as_fd(), owner)?;
        return Ok(Detached { mount, is_directory: true });
    }
    let made = make(plan)?;
    sys::mount::map_ids(made.mount.as_fd(), namespace.as_fd(), *recursive)?;
    Ok(made)
}

/// Makes the detached mount of a plan, with its attributes.
pub(crate) fn make(plan: &MountPlan) -> Result<Detached, sys::Error> {
    match &plan.source {
        Source::FileSystem { .. } => Ok(Detached { mount: make_filesystem(plan)?, is_directory: true }),
        Source::Bind { path, recursive } => clone_source(plan, path, *recursive),
        Source::Remount { .. } => Err(sys::Error::new("mount", &plan.target, Errno::INVAL)),
    }
}

/// A copy of a part of the host, with the attributes of the plan.
pub(crate) fn clone_source(plan: &MountPlan, path: &Path, recursive: bool) -> Result<Detached, sys::Error> {
    let mount = sys::mount::clone_tree(rustix::fs::CWD, &c_path(path)?, recursive)?;
    configure(&mount, plan, recursive)?;
    Detached::of(mount)
}

/// Where the host has procfs and sysfs (proc_pid_mountinfo(5)).
pub(super) fn of_kernel() -> Result<Vec<CString>, sys::Error> {
    let path = "/proc/self/mountinfo";
    let table = std::fs::read(path).map_err(sys::Error::of("read", path))?;
    let mut targets = Vec::new();
    for line in table.split(|byte| *byte == b'\n') {
        let mut words = line.split(|byte| *byte == b' ');
        let target = words.nth(4);
        let r#type = words.skip_while(|word| *word != b"-").nth(1);
        if let (Some(target), Some(b"proc" | b"sysfs")) = (target, r#type) {
            targets.extend(CString::new(unescape(target)));
        }
    }
    // Those above others last.
    targets.reverse();
    Ok(targets)
}

/// The kernel writes blanks and backslashes in octal.
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let octal = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal.filter(|_| *first == b'\\') {
            Some(byte) => {
                plain.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

pub(super) fn c_path(path: &Path) -> Result<CString, sys::Error> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| sys::Error::new("open", path.display(), Errno::INVAL))
}

/// Makes the file system of a plan, with its attributes.
fn make_filesystem(plan: &MountPlan) -> Result<OwnedFd, sys::Error> {
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
        // A device that cannot be written to can be mounted so only.
        if source.starts_with('/') && plan.attributes.is_read_only() {
            context.set_flag("ro")?;
        }
        context.mount(attributes)?
    };
    if let Some(propagation) = plan.propagation {
        change_propagation(&mount, propagation)?;
    }
    Ok(mount)
}

/// Gives a copy of a part of the host its attributes, with all below it where it was copied
/// `recursive`. It spreads nothing, unless the plan says so.
fn configure(mount: &OwnedFd, plan: &MountPlan, recursive: bool) -> Result<(), sys::Error> {
    let Attributes { set, clear, set_recursive, clear_recursive } = plan.attributes;
    let private = Propagation { flag: u64::from(MountPropagationFlags::PRIVATE.bits()), recursive: true };
    let propagation = plan.propagation.unwrap_or(private);
    if !recursive {
        // There is nothing below it: all at once, what is its own over what is for all.
        let (set, clear) = (set_recursive & !clear | set, clear_recursive | clear);
        return sys::mount::change(
            mount.as_fd(),
            Change { set, clear, propagation: propagation.flag },
            false,
        );
    }
    change_propagation(mount, propagation)?;
    let all = Change { set: set_recursive, clear: clear_recursive, propagation: 0 };
    sys::mount::change(mount.as_fd(), all, true)?;
    sys::mount::change(mount.as_fd(), Change { set, clear, propagation: 0 }, false)
}

fn change_propagation(
    mount: &OwnedFd,
    Propagation { flag, recursive }: Propagation,
) -> Result<(), sys::Error> {
    sys::mount::change(mount.as_fd(), Change { propagation: flag, ..Change::default() }, recursive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescape(br"/a\040b\134\04"), br"/a b\\04".to_vec());
        assert!(of_kernel().unwrap().contains(&c"/proc".to_owned()));
    }
}
