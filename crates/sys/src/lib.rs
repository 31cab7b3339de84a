//! The kernel, spoken to directly: the only crate that has unsafe code.
#![allow(unsafe_code)]

pub mod namespace;
