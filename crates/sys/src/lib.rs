//! The kernel, spoken to directly: the only crate that has unsafe code.

pub mod event;
pub mod pty;
pub mod socket;
