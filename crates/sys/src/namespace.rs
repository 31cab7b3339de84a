//! Namespaces of the calling thread (namespaces(7)).
#![allow(unsafe_code, reason = "unshare(2) is not wrapped safely")]

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces};

use crate::{Error, Result};

/// Kinds of namespaces, as the kernel's `CLONE_NEW*` bits.
pub use rustix::thread::ThreadNameSpaceType as Kinds;

/// Moves the calling thread into the namespaces of `fd`: one namespace's file, or a process
/// (kernel 5.8) with the `kinds` of it. A pid namespace counts for children only.
pub fn join(fd: BorrowedFd<'_>, kinds: Kinds) -> Result<()> {
    move_into_thread_name_spaces(fd, kinds).map_err(|errno| Error::new("setns", names(kinds), errno))
}

/// Moves the calling thread into new namespaces of these kinds.
pub fn unshare(kinds: Kinds) -> Result<()> {
    let flags = UnshareFlags::from_bits_retain(kinds.bits());
    // SAFETY: only CLONE_NEW* bits are passed; what unshare_unsafe warns of is CLONE_FILES.
    unsafe { rustix::thread::unshare_unsafe(flags) }
        .map_err(|errno| Error::new("unshare", names(kinds), errno))
}

/// The calling thread's own namespace, by its file's name in `/proc/thread-self/ns`.
pub fn own(name: &str) -> Result<OwnedFd> {
    let path = format!("/proc/thread-self/ns/{name}");
    File::open(&path).map(OwnedFd::from).map_err(Error::of("open", path))
}

/// A new network namespace that nothing is in yet. It is made by the calling thread, which is back
/// in its own when this returns; if it cannot get back, the error says so and the thread must not be
/// used for anything else.
pub fn new_netns() -> Result<OwnedFd> {
    let own_netns = own("net")?;
    unshare(Kinds::NETWORK)?;
    let made = own("net");
    join(std::os::fd::AsFd::as_fd(&own_netns), Kinds::NETWORK)?;
    made
}

fn names(kinds: ThreadNameSpaceType) -> String {
    kinds.iter_names().map(|(name, _)| name.to_lowercase()).collect::<Vec<_>>().join(",")
}
