//! Harness of the tests of the whole: real daemons, real clients, real kernels.
//!
//! A [`Daemon`] runs in a network namespace and directories of its own, so that tests run side by side and the
//! host is left alone. Dropping it stops it, removes its containers, and its files.
//! A [`Registry`] and a [`Peer`] may run beside it in its [`Namespace`].
//! A [`Peer`] is Debian's dockerd, started in the same way, for tests that compare.
//! [`leak`] counts what a test could leave behind.
//!
//! Everything panics on failure: this crate is for tests, and ships nowhere.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::missing_panics_doc)]

pub mod api;
pub mod cut;
pub mod daemon;
pub mod fields;
pub mod image;
pub mod leak;
pub mod namespace;
pub mod peer;
pub mod placeholder;
pub mod random;
pub mod registry;
pub mod tar;
pub mod terminal;
pub mod wait;

pub use api::{Answer, Api};
pub use cut::CuttingProxy;
pub use daemon::{Daemon, Ran};
pub use namespace::Namespace;
pub use peer::Peer;
pub use registry::Registry;
pub use terminal::Terminal;
