//! User namespaces and the maps of their ids (user_namespaces(7)).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::DumpableBehavior;

use crate::clone::{Clone, clone3};
use crate::namespace::{self, Kinds};
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

/// What ids mean in a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Those of users.
    pub users: Vec<Range>,
    /// Those of groups.
    pub groups: Vec<Range>,
}

/// The kernel's user and group for who has no id (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65_534;

impl Ids {
    /// The user and group outside that these stand for, if they stand for any.
    pub fn outside(&self, (user, group): (u32, u32)) -> Option<(u32, u32)> {
        let find = |ranges: &[Range], id: u32| {
            let range = ranges.iter().find(|range| id >= range.inside && id - range.inside < range.size)?;
            Some(range.outside + (id - range.inside))
        };
        Some((find(&self.users, user)?, find(&self.groups, group)?))
    }

    /// What a user and group outside are called inside; nobody where they have no id there.
    pub fn inside(&self, (user, group): (u32, u32)) -> (u32, u32) {
        let find = |ranges: &[Range], id: u32| {
            let range = ranges.iter().find(|range| id >= range.outside && id - range.outside < range.size);
            range.map_or(NOBODY, |range| range.inside + (id - range.outside))
        };
        (find(&self.users, user), find(&self.groups, group))
    }
}

/// Who writes the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// We: with `CAP_SETUID` and `CAP_SETGID` any maps.
    Privileged,
    /// We can map only our own ids; what is more is written by newuidmap(1) and newgidmap(1).
    Unprivileged,
}

/// Whether the calling process is in the user namespace that the kernel begins with.
pub fn is_initial() -> Result<bool> {
    /// linux/proc_ns.h.
    const INODE: u64 = 0xEFFF_FFFD;
    let path = "/proc/self/ns/user";
    Ok(rustix::fs::stat(path).map_err(Error::of("stat", path))?.st_ino == INODE)
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
    // The kernel takes a map in one piece, and once; it is the kernel that refuses an empty one.
    rustix::io::write(&file, content.as_bytes())
        .map(drop)
        .map_err(|errno| Error::new("write", shown(), errno))
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
/// It is held by the descriptor alone.
pub fn new(writer: Writer, uids: &[Range], gids: &[Range]) -> Result<OwnedFd> {
    let [user] = make(Kinds::USER, ["user"], writer, uids, gids)?;
    Ok(user)
}

/// A user namespace with these maps, and a network namespace that it owns; nothing is in them.
pub fn new_with_network(ids: &Ids) -> Result<(OwnedFd, OwnedFd)> {
    let kinds = Kinds::USER | Kinds::NETWORK;
    let [user, network] = make(kinds, ["user", "net"], Writer::Privileged, &ids.users, &ids.groups)?;
    Ok((user, network))
}

/// Makes namespaces of these kinds, and opens those of these names.
///
/// The caller may have further threads: what [`clone3`] warns of concerns locks of this process's
/// memory, and between its clone and its end the child makes system calls alone.
fn make<const N: usize>(
    kinds: Kinds,
    names: [&str; N],
    writer: Writer,
    uids: &[Range],
    gids: &[Range],
) -> Result<[OwnedFd; N]> {
    let failed = |errno: Errno| Error::new("pipe2", "user namespace", errno);
    let (waiting, end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    match clone3(u64::from(kinds.bits()), None)? {
        Clone::Child => {
            drop(end);
            // Nothing is written: it ends with the other end.
            let _ = rustix::io::retry_on_intr(|| rustix::io::read(&waiting, &mut [0; 1]));
            process::exit_now(0)
        }
        Clone::Parent { pid, pidfd } => {
            let made = write_maps(pid, writer, uids, gids).and_then(|()| {
                let open = |name: &str| {
                    let path = format!("/proc/{pid}/ns/{name}");
                    File::open(&path).map(OwnedFd::from).map_err(Error::of("open", path))
                };
                names.into_iter().map(open).collect::<Result<Vec<_>>>()
            });
            drop(end);
            pidfd::wait(pidfd.as_fd())?;
            <[OwnedFd; N]>::try_from(made?).map_err(|_| Error::new("open", "namespaces", Errno::BADF))
        }
    }
}

/// The maps of user and group ids of a user namespace that is not the caller's, in the caller's ids.
/// The caller must have one thread ([`clone3`]).
pub fn maps_of(namespace: BorrowedFd<'_>) -> Result<(Vec<Range>, Vec<Range>)> {
    let failed = |errno: Errno| Error::new("pipe2", "user namespace", errno);
    let (ready, told) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let (waiting, end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    match clone3(0, None)? {
        Clone::Child => {
            drop((ready, end));
            let joined = namespace::join(namespace, Kinds::USER);
            let errno = joined.err().and_then(|error| error.errno()).unwrap_or(0);
            // The parent waits for one answer, and then nothing is written to us.
            let _ = rustix::io::write(&told, &errno.to_ne_bytes());
            let _ = rustix::io::retry_on_intr(|| rustix::io::read(&waiting, &mut [0; 1]));
            process::exit_now(0)
        }
        Clone::Parent { pid, pidfd } => {
            drop((told, waiting));
            let mut errno = [0; size_of::<i32>()];
            let read = rustix::io::retry_on_intr(|| rustix::io::read(&ready, &mut errno));
            let joined = match (read, i32::from_ne_bytes(errno)) {
                (Ok(4), 0) => Ok(()),
                (Ok(4), errno) => Err(Error::new("setns", "user", Errno::from_raw_os_error(errno))),
                _ => Err(Error::new("setns", "user", Errno::CHILD)),
            };
            let maps = joined.and_then(|()| Ok((read_map(pid, "uid_map")?, read_map(pid, "gid_map")?)));
            drop(end);
            pidfd::wait(pidfd.as_fd())?;
            maps
        }
    }
}

fn read_map(pid: u32, name: &str) -> Result<Vec<Range>> {
    let path = format!("/proc/{pid}/{name}");
    let text = std::fs::read_to_string(&path).map_err(Error::of("read", &path))?;
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Range { inside: next()?, outside: next()?, size: next()? })
    };
    let ranges: Option<Vec<_>> = text.lines().map(range).collect();
    ranges.ok_or_else(|| Error::new("read", path, Errno::INVAL))
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
        assert_eq!(maps_of(namespace.as_fd()).unwrap(), (ranges.to_vec(), ranges.to_vec()));
        let own = crate::namespace::own("user").unwrap();
        assert!(maps_of(own.as_fd()).is_err(), "nobody joins the namespace that he is in");
        assert!(new(Writer::Privileged, &[], &ranges).is_err(), "an empty map");
    }

    #[test]
    fn ids_have_two_sides() {
        let ids = Ids {
            users: vec![
                Range { inside: 0, outside: 100_000, size: 10 },
                Range { inside: 10, outside: 5, size: 1 },
            ],
            groups: vec![Range { inside: 0, outside: 200_000, size: 100 }],
        };
        assert_eq!(ids.outside((3, 4)), Some((100_003, 200_004)));
        assert_eq!(ids.outside((10, 99)), Some((5, 200_099)));
        assert_eq!((ids.outside((11, 0)), ids.outside((0, 100))), (None, None));
        assert_eq!(ids.inside((5, 200_001)), (10, 1));
        assert_eq!(ids.inside((0, 0)), (NOBODY, NOBODY));
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
