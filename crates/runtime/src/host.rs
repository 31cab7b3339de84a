//! What the host can do, probed once.

use ponton_cgroup::Layout;
use ponton_sys::Error;

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
}

impl Host {
    /// Asks the kernel.
    pub fn probe() -> Result<Self, Error> {
        let path = "/proc/sys/kernel/cap_last_cap";
        let text = std::fs::read_to_string(path).map_err(Error::of("read", path))?;
        let last_capability = text
            .trim()
            .parse()
            .map_err(|_| Error::new("read", path, std::io::Error::from(std::io::ErrorKind::InvalidData)))?;
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
        let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let has_kcore = std::path::Path::new("/proc/kcore").exists();
        Ok(Self { kernel, cgroup: Layout::detect()?, last_capability, has_kcore })
    }
}
