//! Types of the Docker Engine API: what its requests and answers look like as JSON.
//!
//! Structs are named as in Docker's API reference, fields are the JSON names in snake case.
//! Nothing here does IO; nothing here decides anything.
//!
//! Requests are read by [`json::from_slice`], which is as lenient as Docker's own decoder
//! (names in any case, `null` for any field) and as strict (a wrong type is an error that names
//! the field). Answers keep Docker's difference between `null` and `[]`: a list that Docker may
//! print as `null` is an `Option<Vec<_>>`.

pub mod auth;
pub mod base64;
pub mod check;
pub mod container;
pub mod distribution;
pub mod error;
pub mod event;
pub mod exec;
pub mod explain;
pub mod explore;
pub mod filters;
pub mod image;
pub mod json;
pub mod network;
pub mod path;
pub mod stream;
pub mod system;
pub mod threshold;
pub mod unit;
pub mod version;
pub mod volume;

use serde::{Deserialize, Serialize};

/// Go's `struct{}`: the value of a set member, as in `"ExposedPorts": {"80/tcp": {}}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// The JSON of a Go time that was never set.
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// For `skip_serializing_if`: Go's `omitempty`.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
