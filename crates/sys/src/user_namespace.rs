//! User namespaces and the maps of their ids (user_namespaces(7)).

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::DumpableBehavior;

use crate::clone::{Clone, clone3};
use crate::namespace::Kinds;
use crate::{Error, Result, pidfd, process};

/// A range of ids: `inside` stands for `outside`, and so on for `size` ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first id in the namespace.
    pub inside: u32,
    /// The first id in the namespace of the one who writes the map.
    pub outside: u32,
    /// How many.
    pub size: u32,
}

/// Who writes the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// We: with `CAP_SETUID` and `CAP_SETGID` any maps.
    Privileged,
    /// We can map only our own ids; what is more is written by newuidmap(1) and newgidmap(1).
    Unprivileged,
}

/// Whether these are maps of one's own id alone, which everybody may write.
fn is_own(ranges: &[Range], own: u32) -> bool {
    matches!(ranges, [Range { outside, size: 1, .. }] if *outside == own)
}

/// Whether groups cannot be set in a namespace with this map of group ids: the price of writing it
/// without privilege.
pub fn denies_setgroups(writer: Writer, gids: &[Range]) -> bool {
    writer == Writer::Unprivileged && is_own(gids, rustix::process::getegid().as_raw())
}

/// Writes the maps of the user namespace of `pid`, which is a child of ours that was not reaped.
pub fn write_maps(pid: u32, writer: Writer, uids: &[Range], gids: &[Range]) -> Result<()> {
    let path = format!("/proc/{pid}");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(&path, flags, Mode::empty()).map_err(Error::of("open", &path))?;
    if denies_setgroups(writer, gids) {
        write(&directory, "setgroups", "deny")?;
    }
    let own = |ranges: &[Range], id: u32| writer == Writer::Privileged || is_own(ranges, id);
    if own(gids, rustix::process::getegid().as_raw()) {
        write(&directory, "gid_map", &text(gids))?;
    } else {
        run("newgidmap", pid, gids)?;
    }
    if own(uids, rustix::process::geteuid().as_raw()) {
        write(&directory, "uid_map", &text(uids))
    } else {
        run("newuidmap", pid, uids)
    }
}

fn text(ranges: &[Range]) -> String {
    ranges.iter().map(|Range { inside, outside, size }| format!("{inside} {outside} {size}\n")).collect()
}

fn write(directory: &OwnedFd, name: &str, content: &str) -> Result<()> {
    let shown = || format!("{name}: {}", content.trim_end().replace('\n', ", "));
    let file = rustix::fs::openat(directory, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::new("open", name, errno))?;
    // The kernel takes a map in one piece, and once.
    File::from(file).write_all(content.as_bytes()).map_err(|error| Error::new("write", shown(), error))
}

/// Has a map written by the program that checks it against `/etc/subuid` or `/etc/subgid`.
fn run(program: &str, pid: u32, ranges: &[Range]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(pid.to_string()).stdin(Stdio::null());
    for Range { inside, outside, size } in ranges {
        command.args([inside.to_string(), outside.to_string(), size.to_string()]);
    }
    let output = command.output().map_err(Error::of("run", program))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new("run", format_args!("{program}: {}", said.trim()), Errno::PERM))
}

/// A user namespace with these maps that nothing is in: for mounts whose ids are mapped.
///
/// It is held by the descriptor alone. The caller must have one thread ([`clone3`]).
pub fn new(writer: Writer, uids: &[Range], gids: &[Range]) -> Result<OwnedFd> {
    let failed = |errno: Errno| Error::new("pipe2", "user namespace", errno);
    let (waiting, end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    match clone3(u64::from(Kinds::USER.bits()), None)? {
        Clone::Child => {
            drop(end);
            // Nothing is written: it ends with the other end.
            let _ = rustix::io::retry_on_intr(|| rustix::io::read(&waiting, &mut [0; 1]));
            process::exit_now(0)
        }
        Clone::Parent { pid, pidfd } => {
            let made = write_maps(pid, writer, uids, gids).and_then(|()| {
                let path = format!("/proc/{pid}/ns/user");
                File::open(&path).map(OwnedFd::from).map_err(Error::of("open", path))
            });
            drop(end);
            pidfd::wait(pidfd.as_fd())?;
            made
        }
    }
}

/// Becomes user and group 0 of the user namespace that the calling thread is in, or the first of
/// `uids` and `gids` where 0 is not mapped. What the calling process is asked for by others
/// (ptrace(2), `/proc`) is closed to them.
pub fn become_root(uid: u32, gid: u32) -> Result<()> {
    let failed = |what: &'static str, id: u32| move |errno: Errno| Error::new(what, id, errno);
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(group, group, group).map_err(failed("setresgid", gid))?;
    rustix::thread::set_thread_res_uid(user, user, user).map_err(failed("setresuid", uid))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| Error::new("prctl", "PR_SET_DUMPABLE", errno))
}

/// Sets a clock of the time namespace that the calling thread's children will be in
/// (time_namespaces(7)): `monotonic` or `boottime`.
pub fn set_clock(clock: &str, seconds: i64, nanoseconds: u32) -> Result<()> {
    let path = Path::new("/proc/self/timens_offsets");
    let line = format!("{clock} {seconds} {nanoseconds}\n");
    std::fs::write(path, &line).map_err(Error::of("write timens_offsets", line.trim_end()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_namespace_without_processes_keeps_its_maps() {
        let ranges =
            [Range { inside: 0, outside: 100_000, size: 10 }, Range { inside: 10, outside: 5, size: 1 }];
        let namespace = new(Writer::Privileged, &ranges, &ranges).unwrap();
        let own = std::fs::read_link("/proc/self/ns/user").unwrap();
        let made = std::fs::read_link(format!("/proc/self/fd/{}", namespace.as_raw_fd())).unwrap();
        assert!(made.to_str().unwrap().starts_with("user:["));
        assert_ne!(own, made);
        assert!(new(Writer::Privileged, &[], &ranges).is_err(), "an empty map");
    }

    #[test]
    fn groups_are_denied_only_to_those_who_map_their_own_group() {
        let own = rustix::process::getegid().as_raw();
        let mine = [Range { inside: 0, outside: own, size: 1 }];
        assert!(denies_setgroups(Writer::Unprivileged, &mine));
        assert!(!denies_setgroups(Writer::Privileged, &mine));
        assert!(!denies_setgroups(Writer::Unprivileged, &[Range { size: 2, ..mine[0] }]));
    }
}
