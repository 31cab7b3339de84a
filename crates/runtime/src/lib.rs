//! The OCI runtime: spec, plan, open, apply; and the shim.

pub mod shim;
