//! Groups in the kernel: made, joined, read, frozen, killed, removed.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ponton_oci::runtime::Resources;
use ponton_sys::{Error, Result, pidfd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::layout::{Layout, Version};
use crate::make::{Making, enable_controllers, update_group, write};
use crate::plan::{CgroupPlan, GroupPlan, PlanError};
use crate::systemd::{self, Placeholder, Scope};

/// A control group, in every hierarchy that it may be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: String,
    pub(crate) directories: Vec<Directory>,
}

/// The group's directory in one hierarchy; it may not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) mount: PathBuf,
    pub(crate) version: Version,
    pub(crate) controllers: Vec<String>,
}

/// A control group that exists, with what a process needs to join it.
#[derive(Debug)]
pub struct Opened {
    cgroup: Cgroup,
    tasks: Vec<OwnedFd>,
    directory: Option<OwnedFd>,
    /// Keeps the group's scope until the first process has joined.
    _placeholder: Option<Placeholder>,
}

/// A limit could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// It cannot be.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The kernel refused it.
    #[error(transparent)]
    Kernel(#[from] Error),
}

impl Opened {
    /// For `CLONE_INTO_CGROUP`, where the group is in a v2 hierarchy.
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.directory.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling process, which must have one thread, into the v1 groups. A process that
    /// moves itself by `tasks` spares the kernel its global lock: microseconds instead of some 10 ms.
    pub fn join(&self) -> Result<()> {
        for tasks in &self.tasks {
            rustix::io::write(tasks, b"0").map_err(Error::of("join cgroup", &self.cgroup.path))?;
        }
        Ok(())
    }

    /// The group.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }
}

impl CgroupPlan {
    /// Makes the group and sets its limits. On an error nothing is left.
    pub fn create(&self) -> Result<Opened> {
        let cgroup = self.cgroup();
        let placeholder = self.scope.as_ref().map(Scope::start).transpose()?;
        let mut making = Making { path: self.path(), occupied: placeholder.is_some(), made: Vec::new() };
        let done = self.groups.iter().try_for_each(|group| making.make(group));
        let opened = done.and_then(|()| cgroup.open()).inspect_err(|_| {
            // What failed is told; that the rest could not be removed says nothing more.
            making.made.iter().rev().for_each(|directory| drop(fs::remove_dir(directory)));
        });
        let opened = opened.map(|opened| Opened { _placeholder: placeholder, ..opened });
        match opened {
            Err(error) if self.dispensable && is_forbidden(&error) => {
                let nowhere = Cgroup { directories: Vec::new(), ..cgroup };
                Ok(Opened { cgroup: nowhere, tasks: Vec::new(), directory: None, _placeholder: None })
            }
            opened => opened,
        }
    }

    /// The group that the plan is for.
    pub fn cgroup(&self) -> Cgroup {
        let directories = self.groups.iter().map(|group| Directory {
            path: group.mount.join(self.path()),
            mount: group.mount.clone(),
            version: group.version,
            controllers: group.controllers.clone(),
        });
        Cgroup { path: self.path().to_owned(), directories: directories.collect() }
    }
}

impl Cgroup {
    /// The group `path`, which may not exist.
    pub fn new(layout: &Layout, path: &str) -> Self {
        let path = path.trim_matches('/');
        let directories = layout.hierarchies.iter().map(|hierarchy| Directory {
            path: hierarchy.mount.join(path),
            mount: hierarchy.mount.clone(),
            version: hierarchy.version,
            controllers: hierarchy.controllers.clone(),
        });
        Self { path: path.to_owned(), directories: directories.collect() }
    }

    /// A group that is these directories.
    #[cfg(test)]
    pub(crate) fn in_directories(directories: Vec<Directory>) -> Self {
        Self { path: String::new(), directories }
    }

    /// It, but in the v1 hierarchy of `controller`, or in all hierarchies without one, the group `path`
    /// below it. None if there is no such group. The controllers of v2 have no places of their own.
    pub fn below(&self, controller: Option<&str>, path: &str) -> Option<Self> {
        let mut group = self.clone();
        let mut is_there = false;
        for directory in &mut group.directories {
            let has = |name| {
                directory.version == Version::V1 && directory.controllers.iter().any(|own| own == name)
            };
            if controller.is_none_or(has) {
                // Another controller of the hierarchy may have been named before.
                directory.path = directory.mount.join(&self.path).join(path);
                is_there |= directory.path.exists();
            }
        }
        is_there.then_some(group)
    }

    /// Its path below each hierarchy's root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Opens the directories that exist, so that a process can join.
    pub fn open(&self) -> Result<Opened> {
        let mut opened =
            Opened { cgroup: self.clone(), tasks: Vec::new(), directory: None, _placeholder: None };
        for directory in &self.directories {
            let (path, flags) = match directory.version {
                Version::V1 => (directory.path.join("tasks"), OFlags::WRONLY),
                Version::V2 => (directory.path.clone(), OFlags::PATH | OFlags::DIRECTORY),
            };
            match rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty()) {
                Ok(fd) if directory.version == Version::V1 => opened.tasks.push(fd),
                Ok(fd) => opened.directory = Some(fd),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(Error::new("open", path.display(), errno)),
            }
        }
        Ok(opened)
    }

    /// Whether it exists in any hierarchy.
    pub fn exists(&self) -> bool {
        self.directories.iter().any(|directory| directory.path.exists())
    }

    pub(crate) fn with(&self, controller: &str) -> Option<&Directory> {
        let has = |directory: &&Directory| directory.controllers.iter().any(|name| name == controller);
        // Every group of v2 can be frozen.
        let unified = || self.directories.iter().find(|directory| directory.version == Version::V2);
        self.directories.iter().find(has).or_else(|| unified().filter(|_| controller == "freezer"))
    }

    /// The processes in it, groups below it included.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let Some(directory) = self.directories.iter().find(|directory| directory.path.exists()) else {
            return Ok(Vec::new());
        };
        let mut pids = Vec::new();
        for path in tree(&directory.path)? {
            let file = path.join("cgroup.procs");
            match fs::read_to_string(&file) {
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(Error::new("read", file.display(), error)),
            }
        }
        Ok(pids)
    }

    /// The directory by which it is frozen.
    pub fn freezer(&self) -> Option<&Path> {
        self.with("freezer").map(|directory| directory.path.as_path())
    }

    /// Stops all its processes; returns when they are stopped.
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen(true)
    }

    /// Lets its processes go on.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let Some(directory) = self.with("freezer") else {
            return Err(Error::new("freeze", &self.path, Errno::OPNOTSUPP));
        };
        let (file, value) = match directory.version {
            Version::V1 => ("freezer.state", if frozen { "FROZEN" } else { "THAWED" }),
            Version::V2 => ("cgroup.freeze", if frozen { "1" } else { "0" }),
        };
        let path = directory.path.join(file);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            // v1 has to be told again while processes fork.
            write(&path, value)?;
            if self.is_frozen()? == frozen {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::new("freeze", path.display(), Errno::TIMEDOUT));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether all its processes are stopped.
    pub fn is_frozen(&self) -> Result<bool> {
        let Some(directory) = self.with("freezer") else { return Ok(false) };
        let (file, word) = match directory.version {
            Version::V1 => ("freezer.state", "FROZEN"),
            Version::V2 => ("cgroup.events", "frozen 1"),
        };
        let path = directory.path.join(file);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().any(|line| line == word)),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(Error::new("read", path.display(), error)),
        }
    }

    /// Kills all its processes, frozen ones too. They may still be ending when this returns.
    pub fn kill_all(&self) -> Result<()> {
        let v2 = self.directories.iter().find(|directory| directory.version == Version::V2);
        if let Some(directory) = v2 {
            let path = directory.path.join("cgroup.kill");
            if path.exists() {
                return write(&path, "1");
            }
        }
        // Nothing can fork away from the kill while the group is frozen.
        let frozen = self.freeze().is_ok();
        let killed = self.kill_each();
        if frozen {
            self.thaw()?;
        }
        killed
    }

    fn kill_each(&self) -> Result<()> {
        for pid in self.pids()? {
            let gone = |error: &Error| error.errno() == Some(Errno::SRCH.raw_os_error());
            match pidfd::open(pid).and_then(|fd| pidfd::send_signal(fd.as_fd(), KILL)) {
                Err(error) if !gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes it and the groups below it. `EBUSY` while there are processes in it; what does not
    /// exist is no error.
    pub fn remove(&self) -> Result<()> {
        let mut first_error = Ok(());
        for directory in &self.directories {
            let removed = remove_tree(&directory.path);
            first_error = first_error.and(removed);
        }
        first_error
    }

    /// How often the kernel killed one of its processes for the memory limit.
    pub fn oom_kills(&self) -> Result<u64> {
        let Some(directory) = self.with("memory") else { return Ok(0) };
        let path = directory.path.join(match directory.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        });
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text
                .lines()
                .find_map(|line| line.strip_prefix("oom_kill "))
                .and_then(|count| count.parse().ok())
                .unwrap_or(0)),
            Err(error) if is_gone(&error) => Ok(0),
            Err(error) => Err(Error::new("read", path.display(), error)),
        }
    }

    /// Changes limits of a group that exists; what `resources` does not name stays.
    pub fn update(&self, layout: &Layout, resources: &Resources) -> Result<(), UpdateError> {
        let plan = crate::plan(layout, &format!("/{}", self.path), &self.completed(resources))?;
        self.check_usage(resources)?;
        if let Some(scope) = systemd::scope_of(&self.path) {
            systemd::update(layout, scope, resources)?;
        }
        let opened_pids = self.pids()?;
        for group in &plan.groups {
            let directory = group.mount.join(&self.path);
            if group.devices.is_some() {
                return Err(
                    PlanError::new("devices", "rules of a running container cannot be changed").into()
                );
            }
            if group.writes.is_empty() {
                continue;
            }
            if !directory.exists() {
                self.enter(group, &directory, &opened_pids)?;
                continue;
            }
            if group.version == Version::V2 {
                enable_controllers(group, &self.path)?;
            }
            update_group(&directory, &group.writes)?;
        }
        Ok(())
    }

    /// Moves the group's processes to a controller that they were not in so far. Without processes the group is
    /// being removed, and nobody would remove this part of it.
    fn enter(&self, group: &GroupPlan, directory: &Path, pids: &[u32]) -> Result<()> {
        Making { path: &self.path, occupied: false, made: Vec::new() }.make(group)?;
        let mut moved = Err(Error::new("update", directory.display(), Errno::SRCH));
        for pid in pids {
            match write(&directory.join("cgroup.procs"), &pid.to_string()) {
                // It has ended meanwhile.
                Err(error) if error.errno() == Some(Errno::SRCH.raw_os_error()) => {}
                Err(error) => {
                    moved = Err(error);
                    break;
                }
                Ok(()) => moved = Ok(()),
            }
        }
        if moved.is_err() {
            // It stays where some were moved already.
            let _ = remove_tree(directory);
        }
        moved
    }

    /// `resources` with what they mean only beside limits that are there already: swap needs the
    /// memory limit, and on v2 a period stands in one file with the quota.
    fn completed(&self, resources: &Resources) -> Resources {
        let mut resources = resources.clone();
        let stats = self.stats();
        if let Some(memory) = &mut resources.memory {
            let limited = i64::try_from(stats.memory_limit).ok();
            if memory.swap.is_some_and(|swap| swap > 0) && memory.limit.is_none() {
                memory.limit = limited;
            }
        }
        let quota = self.with("cpu").and_then(|cpu| {
            let text = fs::read_to_string(cpu.path.join("cpu.max")).ok()?;
            text.split(' ').next()?.parse().ok()
        });
        if let Some(cpu) = &mut resources.cpu {
            cpu.quota = cpu.quota.or(quota.filter(|_| cpu.period.is_some()));
        }
        resources
    }

    /// `checkBeforeUpdate`: v2 would rather kill than refuse a limit below what is used.
    fn check_usage(&self, resources: &Resources) -> Result<(), PlanError> {
        let Some(memory) =
            resources.memory.as_ref().filter(|memory| memory.check_before_update == Some(true))
        else {
            return Ok(());
        };
        let used = self.stats().memory_usage;
        match memory.limit.and_then(|limit| u64::try_from(limit).ok()) {
            Some(limit) if limit > 0 && limit < used => {
                Err(PlanError::new("memory.limit", format!("{limit} is less than the {used} bytes in use")))
            }
            _ => Ok(()),
        }
    }
}

const KILL: i32 = 9;

/// The directory and all below it, parents first.
fn tree(top: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![top.to_path_buf()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(Error::new("read", directory.display(), error)),
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

fn remove_tree(top: &Path) -> Result<()> {
    match fs::remove_dir(top) {
        Ok(()) => return Ok(()),
        Err(error) if is_gone(&error) => return Ok(()),
        // Not empty shows as EBUSY too: look for groups below.
        Err(_) => {}
    }
    for directory in tree(top)?.iter().rev() {
        match fs::remove_dir(directory) {
            Ok(()) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(Error::new("rmdir", directory.display(), error)),
        }
    }
    Ok(())
}

/// The caller has no right to it.
fn is_forbidden(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// The group was removed meanwhile.
pub(crate) fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hierarchy;

    #[test]
    fn an_update_of_a_group_that_is_gone_makes_none() {
        let layout = Layout::detect().unwrap();
        let group = Cgroup::new(&layout, &format!("ponton-test-gone-{}", std::process::id()));
        let memory = ponton_oci::runtime::Memory { limit: Some(64 << 20), ..Default::default() };
        let resources = Resources { memory: Some(memory), ..Resources::default() };
        assert!(matches!(group.update(&layout, &resources), Err(UpdateError::Kernel(_))));
        assert!(!group.exists());
    }

    #[test]
    fn controllers_of_version_1_alone_have_places_of_their_own() {
        let root = tempfile::tempdir().unwrap();
        let hierarchy = |name: &str, version: Version, controllers: &[&str]| {
            let mount = root.path().join(name);
            fs::create_dir_all(mount.join("own/below")).unwrap();
            Hierarchy { mount, version, controllers: controllers.iter().map(ToString::to_string).collect() }
        };
        let both = hierarchy("both", Version::V1, &["cpu", "cpuacct"]);
        let unified = hierarchy("unified", Version::V2, &["memory"]);
        let group = Cgroup::new(&Layout { hierarchies: vec![both, unified], ..Layout::default() }, "own");
        let paths = |group: Option<Cgroup>| -> Option<Vec<String>> {
            let shown = |directory: &Directory| {
                directory.path.strip_prefix(root.path()).unwrap().display().to_string()
            };
            group.map(|group| group.directories.iter().map(shown).collect())
        };
        let named = group.below(Some("cpu"), "below").unwrap().below(Some("cpuacct"), "below");
        assert_eq!(paths(named).unwrap(), ["both/own/below", "unified/own"]);
        assert_eq!(paths(group.below(None, "below")).unwrap(), ["both/own/below", "unified/own/below"]);
        assert_eq!(paths(group.below(Some("memory"), "below")), None);
        assert_eq!(paths(group.below(Some("cpu"), "nosuch")), None);
    }
}
