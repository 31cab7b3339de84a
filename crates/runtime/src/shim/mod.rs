//! The shim: the parent of the containers' first processes. It holds their standard streams and
//! terminals, writes their logs, serves attached clients, and records how they ended. The daemon
//! may come and go under it.
//!
//! [`protocol`] is what the two say to each other, [`client`] the daemon's end, [`server`] the shim's.

pub mod client;
mod detach;
pub mod foreign;
pub mod log;
mod packet;
pub mod protocol;
pub mod server;
