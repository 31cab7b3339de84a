//! Device rules on v2: a program that the kernel asks (BPF_PROG_TYPE_CGROUP_DEVICE).

use std::path::Path;

use ponton_oci::runtime::DeviceRule;
use ponton_sys::{Error, Result};

/// Lets only the devices that `rules` allow be used in the group `directory`.
pub(crate) fn attach(directory: &Path, rules: &[DeviceRule]) -> Result<()> {
    let _ = rules;
    Err(Error::new("attach device rules to", directory.display(), rustix::io::Errno::OPNOTSUPP))
}
