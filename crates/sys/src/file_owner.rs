//! As whom a thread makes files, where that is not as whom it runs.
#![allow(unsafe_code, reason = "system calls that no crate wraps safely")]

use rustix::thread::{CapabilitySets, capabilities, set_capabilities};

use crate::{Error, Result};

/// Until it is dropped, files that the calling thread makes belong to another user and group, while it
/// keeps all of its rights (setfsuid(2)). For file systems whose ids are mapped, in which the thread's
/// own user may have no id.
///
/// Threads that are started meanwhile are the same. It stays with its thread.
#[derive(Debug)]
pub struct FileOwner {
    former: (u32, u32),
    rights: CapabilitySets,
    /// Not to be sent to another thread.
    of_thread: std::marker::PhantomData<*const ()>,
}

impl FileOwner {
    /// Makes files of the calling thread belong to `uid` and `gid`.
    pub fn set(uid: u32, gid: u32) -> Result<Self> {
        let failed = |errno| Error::new("capget", "the calling thread", errno);
        let rights = capabilities(None).map_err(failed)?;
        let owner = Self { former: change(uid, gid), rights, of_thread: std::marker::PhantomData };
        // Leaving user 0 took those away that concern files.
        set_capabilities(None, owner.rights)
            .map_err(|errno| Error::new("capset", "the calling thread", errno))?;
        if change(uid, gid) != (uid, gid) {
            let object = format!("the owner {uid}:{gid}");
            return Err(Error::new("setfsuid", object, rustix::io::Errno::PERM));
        }
        Ok(owner)
    }
}

impl Drop for FileOwner {
    fn drop(&mut self) {
        change(self.former.0, self.former.1);
        // It had these rights, which nobody can keep a thread from having again.
        let _ = set_capabilities(None, self.rights);
    }
}

/// Sets the ids of the calling thread for files; gives those that it had.
fn change(uid: u32, gid: u32) -> (u32, u32) {
    // SAFETY: both take a number, and change the calling thread's credentials alone, not those of all
    // threads as the C library would.
    let former = unsafe { (libc::syscall(libc::SYS_setfsuid, uid), libc::syscall(libc::SYS_setfsgid, gid)) };
    (former.0 as u32, former.1 as u32)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn files_belong_to_another_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let made = |name: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, "").unwrap();
            let found = std::fs::metadata(path).unwrap();
            (found.uid(), found.gid())
        };
        let own = made("before");
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let owner = FileOwner::set(100_000, 100_007).unwrap();
        assert_eq!(
            made("meanwhile"),
            (100_000, 100_007),
            "and the directory is closed to it but for its rights"
        );
        let of_thread = std::thread::scope(|scope| scope.spawn(|| made("thread")).join().unwrap());
        assert_eq!(of_thread, (100_000, 100_007));
        drop(owner);
        assert_eq!(made("after"), own);
    }
}
