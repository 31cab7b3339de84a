//! The program's own file, out of reach of what it starts.
//!
//! Until its execve, the first process of a container is a process of this program; and for good, if
//! the container's program is `/proc/self/exe` or a script with that as interpreter. Whoever gets at
//! its `/proc/<pid>/exe` could open the host's file and write to it as root (CVE-2019-5736). So those
//! commands that start processes in containers begin by changing over to a read-only mount of the
//! file that is attached nowhere: the kernel takes that for the executed file once nothing is mapped
//! of the other any more. Where it does not, they execute themselves once more from the mount, and
//! without the right to mount, from a sealed copy in memory. What is opened through such an `exe`
//! cannot be written to by anybody.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use ponton_sys::mount::{Change, MOUNT_ATTR_RDONLY, change, clone_tree};
use ponton_sys::process::{CStrings, execute_descriptor};
use ponton_sys::{Error, Result, executable, memfd, path};
use rustix::fs::{OFlags, StatVfsMountFlags};
use rustix::io::Errno;

const OWN: &str = "/proc/self/exe";
/// The name of the process.
const NAME: &std::ffi::CStr = c"ponton-runtime";

/// Goes on in a process whose file is out of reach: returns where that is so or can be brought about,
/// and else executes the program again with `args`. The calling process must have one thread.
pub fn protect(args: Vec<OsString>) -> Result<()> {
    let own = File::open(OWN).map_err(Error::of("open", OWN))?;
    // The file may have another name, or as a descriptor none.
    let _ = rustix::thread::set_name(NAME);
    if is_out_of_reach(&own)? {
        return Ok(());
    }
    let mount = read_only_mount();
    if mount.as_ref().is_ok_and(|mount| change_over(mount).is_ok()) {
        return Ok(());
    }
    let protected = mount.or_else(|_| copy(own))?;
    let args = args.into_iter().map(|arg| CString::new(arg.into_vec()));
    let args = args.collect::<std::result::Result<Vec<_>, _>>();
    let args = args.map_err(|_| Error::new("execveat", "an argument", Errno::INVAL))?;
    let errno = execute_descriptor(protected.as_fd(), &CStrings::new(args));
    Err(Error::new("execveat", "a protected copy of the program", errno))
}

fn is_out_of_reach(own: &File) -> Result<bool> {
    let mount = rustix::fs::fstatvfs(own).map_err(Error::of("fstatvfs", OWN))?;
    if mount.f_flag.contains(StatVfsMountFlags::RDONLY) || memfd::is_sealed(own) {
        return Ok(true);
    }
    let user = rustix::process::geteuid();
    if user.is_root() {
        return Ok(false);
    }
    // Nobody in a container of a user can do more on the host than the user.
    let owner = rustix::fs::fstat(own).map_err(Error::of("fstat", OWN))?.st_uid;
    let is_writable = rustix::fs::access(OWN, rustix::fs::Access::WRITE_OK).is_ok();
    Ok(owner != user.as_raw() && !is_writable)
}

fn read_only_mount() -> Result<OwnedFd> {
    let mount = clone_tree(rustix::fs::CWD, c"/proc/self/exe", false)?;
    change(mount.as_fd(), Change { set: MOUNT_ATTR_RDONLY, ..Change::default() }, false)?;
    Ok(mount)
}

/// Makes the mount's file the one that is executed, as this process goes on.
fn change_over(mount: &OwnedFd) -> Result<()> {
    let file = path::reopen(mount, OFlags::RDONLY).map_err(Error::of("open", OWN))?;
    executable::exchange(file.as_fd())
}

fn copy(mut own: File) -> Result<OwnedFd> {
    memfd::sealed_copy(&mut own, "ponton-runtime")
}
