//! What a spec says about the process and its surroundings, seen from inside of the container. As root.
#![allow(clippy::unwrap_used, reason = "a test program")]

#[path = "../fixture/mod.rs"]
mod fixture;

mod agent;
mod hooks;
mod label;
mod netdevice;
mod rights;
mod schedule;

use fixture::{Bundle, stderr};

/// The error of a spec that cannot be run; nothing of it is left.
#[track_caller]
fn refusal(bundle: &Bundle) -> String {
    let output = bundle.run();
    assert!(!output.status.success(), "{output:?}");
    stderr(&output)
}
