//! Containers as Docker means them: what a client may ask for, carried out on images, snapshots,
//! networks and shims.
//!
//! Each container has one task with a queue, which makes all of its changes; what others see is the
//! value that the task published last. So there is no container lock, and a reader never waits.
//! Every change is in the database before a client hears of it.
//!
//! This crate does not speak HTTP: `server` turns requests into calls of [`Engine`].
#![allow(clippy::unused_async, reason = "the calls of an engine are of one kind: each may wait one day")]

mod budget;
mod config;
mod container;
mod count;
mod defaults;
mod engine;
pub mod error;
pub mod event;
mod exec;
mod filter;
pub mod health;
mod id;
mod image;
pub mod lifecycle;
mod log;
mod metrics;
mod name;
mod network;
mod poll;
mod recover;
pub mod remap;
pub mod request;
mod shim;
mod signal;
pub mod spec;
mod stream;
mod system;
mod volume;

pub use config::EngineConfig;
pub use defaults::{BUILT_IN, Defaults, Runtime};
pub use engine::Engine;
pub use error::{Error, ErrorKind, Result};
pub use log::{DRIVERS as LOG_DRIVERS, check as check_log_config};
