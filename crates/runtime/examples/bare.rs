//! The least that a container can cost: clone into new namespaces, mount, execute, wait.
//!
//! `bare ROOTFS PROGRAM`, as root: no configuration is read, no control group made, no state kept, no right given
//! away. `make bench` sets the runtimes beside it.

use std::error::Error;
use std::ffi::CString;
use std::os::fd::AsFd;
use std::process::ExitCode;

use ponton_sys::clone::{Clone, clone3};
use ponton_sys::process::{self, CStrings};
use ponton_sys::{mount, pidfd};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};

/// Mount, uts, ipc, pid, net and cgroup (linux/sched.h).
const NEW: u64 = 0x2_0000 | 0x400_0000 | 0x800_0000 | 0x2000_0000 | 0x4000_0000 | 0x200_0000;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(rootfs), Some(program)) = (args.next(), args.next()) else {
        return Err("usage: bare ROOTFS PROGRAM".into());
    };
    match clone3(NEW, None)? {
        Clone::Parent { pidfd, .. } => Ok(ExitCode::from(pidfd::wait(pidfd.as_fd())?.code() as u8)),
        Clone::Child => {
            if let Err(error) = become_program(&rootfs, &program) {
                eprintln!("bare: {error}");
            }
            process::exit_now(1)
        }
    }
}

fn become_program(rootfs: &str, program: &str) -> Result<(), Box<dyn Error>> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let root = mount::clone_tree(CWD, &CString::new(rootfs)?, true)?;
    mount::attach(&root, rustix::fs::open(rootfs, OFlags::PATH, Mode::empty())?)?;
    rustix::process::fchdir(&root)?;
    let file_systems: [(&str, &str, &[&str]); 6] = [
        ("proc", "proc", &[]),
        ("dev", "tmpfs", &["mode=755", "size=65536k"]),
        ("dev/pts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("dev/shm", "tmpfs", &["mode=1777", "size=65536k"]),
        ("dev/mqueue", "mqueue", &[]),
        ("sys", "sysfs", &[]),
    ];
    for (target, r#type, options) in file_systems {
        if target.starts_with("dev/") {
            rustix::fs::mkdir(target, Mode::from_raw_mode(0o755))?;
        }
        let context = mount::Context::new(r#type)?;
        options.iter().try_for_each(|option| context.set_option(option))?;
        let at = rustix::fs::open(target, OFlags::PATH, Mode::empty())?;
        mount::attach(context.mount(0)?, at)?;
        if target == "dev" {
            for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
                let device = rustix::fs::makedev(1, minor);
                let mode = Mode::from_raw_mode(0o666);
                rustix::fs::mknodat(CWD, format!("dev/{name}"), FileType::CharacterDevice, mode, device)?;
            }
        }
    }
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    let args = CStrings::new(vec![CString::new(program)?]);
    Err(process::execve(&CString::new(program)?, &args, &CStrings::new(Vec::new())).into())
}
