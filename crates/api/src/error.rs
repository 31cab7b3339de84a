//! The body of every answer that is an error.

use serde::{Deserialize, Serialize};

/// `{"message": …}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorBody {
    /// What went wrong, for a person.
    pub message: String,
}
