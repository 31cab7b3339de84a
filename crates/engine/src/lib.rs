//! Containers as Docker means them: what a client may ask for, carried out on images, snapshots,
//! networks and shims.
//!
//! Each container has one task with a queue, which makes all of its changes; what others see is the
//! value that the task published last. So there is no container lock, and a reader never waits.
//! Every change is in the database before a client hears of it.
//!
//! This crate does not speak HTTP: `server` turns requests into calls of [`Engine`].

mod config;
mod engine;
pub mod error;
pub mod event;
mod id;
pub mod lifecycle;
mod log;
mod name;
pub mod request;
pub mod spec;

pub use config::EngineConfig;
pub use engine::Engine;
pub use error::{Error, ErrorKind, Result};
