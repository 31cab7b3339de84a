//! The namespaces of the calling thread.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Moves the calling thread into new namespaces (unshare(2)). A thread started later by this one
/// begins in them too.
///
/// `FILES` is refused: a thread with descriptors of its own breaks every owner of a descriptor.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the one precondition is that no descriptor is seen from an unshared table, and FILES
    // was refused above.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Moves the calling thread into the namespace that `namespace` refers to; `kind` is checked by the
/// kernel (setns(2)).
pub fn enter(namespace: BorrowedFd<'_>, kind: LinkNameSpaceType) -> io::Result<()> {
    rustix::thread::move_into_link_name_space(namespace, Some(kind)).map_err(io::Error::from)
}

/// The network namespace of the calling thread.
pub fn current_netns() -> io::Result<OwnedFd> {
    rustix::fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
}

/// Makes a network namespace, leaves the calling thread in it, and returns its descriptor. The
/// namespace lives as long as a descriptor, a process or a thread holds it.
pub fn new_netns() -> io::Result<OwnedFd> {
    unshare(UnshareFlags::NEWNET)?;
    current_netns()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsharing_descriptors_is_refused() {
        let error = unshare(UnshareFlags::FILES).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_new_netns_is_the_threads_own_until_it_goes_back() {
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        std::thread::spawn(move || {
            let host = current_netns().unwrap();
            let new = match new_netns() {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
                other => other.unwrap(),
            };
            assert_ne!(inode(&host), inode(&new));
            assert_eq!(inode(&current_netns().unwrap()), inode(&new));
            enter(std::os::fd::AsFd::as_fd(&host), LinkNameSpaceType::Network).unwrap();
            assert_eq!(inode(&current_netns().unwrap()), inode(&host));
        })
        .join()
        .unwrap();
    }
}
