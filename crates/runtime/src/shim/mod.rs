//! The shim: the parent of the containers' first processes. It holds their standard streams and
//! terminals, writes their logs, serves attached clients, and records how they ended. The daemon
//! may come and go under it.
//!
//! [`protocol`] is what the two say to each other, [`client`] the daemon's end.

pub mod client;
pub mod protocol;
