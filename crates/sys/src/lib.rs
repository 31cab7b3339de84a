//! The kernel, spoken to directly: the only crate that has unsafe code.
//!
//! What rustix wraps safely is used from there; here is the rest, one module for each thing of the
//! kernel. Nothing here knows what a container is.

mod error;

pub use error::{Error, Result};
