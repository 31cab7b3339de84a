//! Making a group in one hierarchy, and writing its limits.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ponton_sys::{Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::layout::Version;
use crate::plan::{GroupPlan, Write};

/// Writes in order; one that was refused is tried again after the others: of two limits that bound
/// each other (memory, and memory with swap) the right one has to go first.
pub(crate) fn update_group(directory: &Path, writes: &[Write]) -> Result<()> {
    let refused: Vec<&Write> = writes.iter().filter(|item| write_limit(directory, item).is_err()).collect();
    refused.into_iter().try_for_each(|item| write_limit(directory, item))
}

/// A group that is being made, in one hierarchy after the other.
#[derive(Debug)]
pub(crate) struct Making<'a> {
    pub(crate) path: &'a str,
    /// Somebody else makes it and has put a process in it already.
    pub(crate) occupied: bool,
    /// The directories that were not there before.
    pub(crate) made: Vec<PathBuf>,
}

impl Making<'_> {
    /// Makes the directory in one hierarchy, and its parents, and writes its limits.
    pub(crate) fn make(&mut self, group: &GroupPlan) -> Result<()> {
        let directory = group.mount.join(self.path);
        if !self.make_directory(group, self.path)? && !self.occupied {
            check_vacant(&directory)?;
        }
        match group.version {
            Version::V1 if group.controllers.iter().any(|name| name == "cpuset") => {
                fill_cpuset(&group.mount, self.path)?;
            }
            Version::V1 => {}
            Version::V2 => {
                enable_controllers(group, self.path)?;
                check_type(&directory)?;
            }
        }
        write_limits(&directory, &group.writes)?;
        if let Some(rules) = &group.devices {
            crate::device::attach(&directory, rules)?;
        }
        Ok(())
    }

    /// Whether it was not there before.
    fn make_directory(&mut self, group: &GroupPlan, path: &str) -> Result<bool> {
        let directory = group.mount.join(path);
        match fs::create_dir(&directory) {
            Ok(()) => {
                self.made.push(directory);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound && path.contains('/') => {
                self.make_directory(group, path.rsplit_once('/').map_or("", |(above, _)| above))?;
                self.make_directory(group, path)
            }
            Err(error) => Err(Error::new("mkdir", directory.display(), error)),
        }
    }
}

/// A group with processes is somebody else's, and in a frozen one nothing would ever start.
fn check_vacant(directory: &Path) -> Result<()> {
    let text = |file| fs::read_to_string(directory.join(file)).unwrap_or_default();
    let events = text("cgroup.events");
    let what = if !text("cgroup.procs").trim().is_empty() || events.contains("populated 1") {
        "use a control group that has processes already"
    } else if text("cgroup.freeze").trim() == "1" || text("freezer.state").trim() == "FROZEN" {
        "use a control group that is frozen"
    } else {
        return Ok(());
    };
    Err(Error::new(what, directory.display(), Errno::BUSY))
}

/// Below a threaded group, a group takes no process (cgroup-v2.rst, "Threads").
fn check_type(directory: &Path) -> Result<()> {
    let kind = fs::read_to_string(directory.join("cgroup.type")).unwrap_or_default();
    if matches!(kind.trim(), "threaded" | "domain invalid") {
        let what = format!("start a process in a control group of the type {:?},", kind.trim());
        return Err(Error::new(what, directory.display(), Errno::OPNOTSUPP));
    }
    Ok(())
}

/// v2: a controller is there for a group if each group above it passes it on. What is only counted
/// may be missing, what is to be limited may not.
pub(crate) fn enable_controllers(group: &GroupPlan, path: &str) -> Result<()> {
    // Devices and freezing are no controllers there.
    let known = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc"];
    let wanted: Vec<&str> =
        group.controllers.iter().map(String::as_str).filter(|name| known.contains(name)).collect();
    let words = |path: PathBuf| -> Vec<String> {
        fs::read_to_string(path).unwrap_or_default().split_whitespace().map(String::from).collect()
    };
    let there = words(group.mount.join(path).join("cgroup.controllers"));
    if wanted.iter().all(|name| there.iter().any(|have| have == name)) {
        return Ok(());
    }
    let mut directory = group.mount.clone();
    for part in path.split('/') {
        let there = words(directory.join("cgroup.controllers"));
        let passed = words(directory.join("cgroup.subtree_control"));
        for name in &wanted {
            let is_in = |list: &[String]| list.iter().any(|have| have == name);
            if is_in(&passed) {
                continue;
            }
            let needed = group.writes.iter().find(|item| item.file.split('.').next() == Some(name));
            let done = if is_in(&there) {
                write(&directory.join("cgroup.subtree_control"), &format!("+{name}"))
            } else {
                Err(Error::new("enable", name, Errno::NOENT))
            };
            if let (Err(error), Some(item)) = (done, needed) {
                let reason = match error.errno().map(Errno::from_raw_os_error) {
                    Some(Errno::BUSY) => " (which has processes of its own)",
                    Some(Errno::OPNOTSUPP) => " (which is threaded)",
                    Some(Errno::NOENT) => " (which was not given it)",
                    _ => "",
                };
                let what = format!("linux.resources.{}: pass the controller {name} on below", item.field);
                return Err(Error::new(what, format!("{}{reason}", directory.display()), error.source));
            }
        }
        directory.push(part);
    }
    Ok(())
}

/// v1: a cpuset without CPUs and memory nodes takes no process; new ones start empty.
fn fill_cpuset(mount: &Path, path: &str) -> Result<()> {
    let mut directory = mount.to_path_buf();
    for part in path.split('/') {
        let parent = directory.clone();
        directory.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = directory.join(file);
            let value = fs::read_to_string(&own).map_err(Error::of("read", own.display()))?;
            if value.trim().is_empty() {
                let above = parent.join(file);
                let value = fs::read_to_string(&above).map_err(Error::of("read", above.display()))?;
                write(&own, value.trim())?;
            }
        }
    }
    Ok(())
}

/// One after another; a file that has many values (v1's rules for devices) is opened once.
fn write_limits(directory: &Path, writes: &[Write]) -> Result<()> {
    for same in writes.chunk_by(|one, other| one.file == other.file && one.otherwise.is_none()) {
        let [first, rest @ ..] = same else { continue };
        if rest.is_empty() {
            write_limit(directory, first)?;
            continue;
        }
        let path = directory.join(&first.file);
        let fd = open_for_write(&path).map_err(|error| of_field(first, error))?;
        for item in same {
            let operation = || format!("write {:?} to", item.value);
            rustix::io::write(&fd, item.value.as_bytes())
                .map_err(|errno| of_field(item, Error::new(operation(), path.display(), errno)))?;
        }
    }
    Ok(())
}

fn of_field(item: &Write, error: Error) -> Error {
    let operation = format!("linux.resources.{}: {}", item.field, error.operation);
    Error::new(operation, error.object, error.source)
}

fn write_limit(directory: &Path, item: &Write) -> Result<()> {
    let mut done = write(&directory.join(&item.file), &item.value);
    let missing = |done: &Result<()>| done.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound);
    if let Some((file, value)) = item.otherwise.as_ref().filter(|_| missing(&done)) {
        done = write(&directory.join(file), value);
    }
    if item.optional && missing(&done) {
        return Ok(());
    }
    done.map_err(|error| of_field(item, error))
}

fn open_for_write(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::of("open", path.display()))
}

pub(crate) fn write(path: &Path, value: &str) -> Result<()> {
    let fd = open_for_write(path)?;
    rustix::io::write(&fd, value.as_bytes())
        .map(drop)
        .map_err(Error::of(format!("write {value:?} to"), path.display()))
}
