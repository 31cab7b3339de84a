//! The OCI runtime: spec, plan, open, apply; and the shim.
//!
//! ```text
//!   oci::runtime::Spec ──plan──► Plan ──open──► Opened ──apply──► Started{pid, pidfd}
//!                        pure         parent:          parent and child:
//!                                     paths become     clone, then only descriptors
//!                                     descriptors      are moved into place
//! ```

pub mod apply;
mod child;
pub mod criu;
mod error;
pub mod hook;
pub mod host;
pub mod init;
mod netdevice;
pub mod open;
pub mod plan;
pub mod protect;
pub mod rdt;
pub mod seccomp;
pub mod shim;
pub mod state;
pub mod user;

pub use error::Error;
