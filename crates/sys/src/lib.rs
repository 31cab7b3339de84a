//! The kernel, spoken to directly: the only crate that has unsafe code.
