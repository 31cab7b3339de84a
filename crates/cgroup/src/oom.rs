//! Being told when the kernel runs out of a group's memory.

use std::os::fd::{AsRawFd, OwnedFd};

use ponton_sys::{Error, Result};
use rustix::event::EventfdFlags;
use rustix::fs::inotify;
use rustix::fs::{Mode, OFlags};

use crate::group::Cgroup;
use crate::layout::Version;

impl Cgroup {
    /// A descriptor that is readable once there may have been another kill for the memory limit since
    /// it was read last: then [`oom_kills`](Self::oom_kills) tells. None without a memory controller.
    pub fn oom_events(&self) -> Result<Option<OwnedFd>> {
        let Some(directory) = self.with("memory") else { return Ok(None) };
        match directory.version {
            Version::V1 => {
                // cgroup-v1/memory.rst, "OOM Control"
                let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                    .map_err(Error::of("eventfd", "oom"))?;
                let path = directory.path.join("memory.oom_control");
                let source = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(Error::of("open", path.display()))?;
                let control = directory.path.join("cgroup.event_control");
                let line = format!("{} {}", event.as_raw_fd(), source.as_raw_fd());
                std::fs::write(&control, line).map_err(Error::of("write to", control.display()))?;
                Ok(Some(event))
            }
            Version::V2 => {
                // cgroup-v2.rst, "memory.events": a change generates a file modified event.
                let path = directory.path.join("memory.events");
                let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
                let watch = inotify::init(flags).map_err(Error::of("inotify_init", path.display()))?;
                inotify::add_watch(&watch, &path, inotify::WatchFlags::MODIFY)
                    .map_err(Error::of("inotify_add_watch", path.display()))?;
                Ok(Some(watch))
            }
        }
    }
}
