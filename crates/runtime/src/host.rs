//! What the host can do, probed once.

use ponton_cgroup::Layout;
use ponton_sys::{Error, file, user_namespace};
use rustix::thread::CapabilitySet;

/// Facts about the host that plans depend on.
#[derive(Clone, Debug)]
pub struct Host {
    /// The kernel's version.
    pub kernel: (u32, u32),
    /// Where the hierarchies of control groups are.
    pub cgroup: Layout,
    /// The kernel's highest capability.
    pub last_capability: u8,
    /// Whether the kernel shows its memory as `/proc/kcore`.
    pub has_kcore: bool,
    /// Whether we may mount (`CAP_SYS_ADMIN`). A caller who may not can start containers in user
    /// namespaces of their own only, and everything is mounted by the child.
    pub can_mount: bool,
    /// Whether we may make device files: with `CAP_MKNOD` in the host's user namespace.
    pub can_mknod: bool,
    /// Whether we may map any ids into a user namespace (`CAP_SETUID`, `CAP_SETGID`).
    pub can_map_ids: bool,
    /// Whether AppArmor is there, so that programs can have profiles.
    pub has_apparmor: bool,
    /// Whether SELinux is there, so that processes and mounts can have labels.
    pub has_selinux: bool,
}

impl Host {
    /// Asks the kernel.
    pub fn probe() -> Result<Self, Error> {
        let path = "/proc/sys/kernel/cap_last_cap";
        let text = file::read_text(path).map_err(Error::of("read", path))?;
        let last_capability = text
            .trim()
            .parse()
            .map_err(|_| Error::new("read", path, std::io::Error::from(std::io::ErrorKind::InvalidData)))?;
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
        let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let has_kcore = std::path::Path::new("/proc/kcore").exists();
        let capabilities =
            rustix::thread::capabilities(None).map_err(Error::of("capget", "own capabilities"))?.effective;
        let cgroup = Layout::detect()?;
        Ok(Self {
            kernel,
            cgroup,
            last_capability,
            has_kcore,
            can_mount: capabilities.contains(CapabilitySet::SYS_ADMIN),
            can_mknod: capabilities.contains(CapabilitySet::MKNOD) && user_namespace::is_initial()?,
            can_map_ids: capabilities.contains(CapabilitySet::SETUID | CapabilitySet::SETGID),
            has_selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
            has_apparmor: file::read("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|enabled| enabled.starts_with(b"Y")),
        })
    }
}
