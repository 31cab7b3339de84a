//! The search of registries, version 1 of Docker's API.

use serde::{Deserialize, Serialize};

/// What is searched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Words.
    pub term: String,
    /// How many results at most; 1 to 100, 25 if none is given.
    pub limit: Option<u32>,
    /// Only official images, or only others.
    pub is_official: Option<bool>,
    /// Only images that were built automatically, or only others.
    pub is_automated: Option<bool>,
    /// Only images with as many stars.
    pub stars: Option<u64>,
}

/// A repository that was found, as Docker's API shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchResult {
    /// Number of stars.
    pub star_count: u64,
    /// Whether it is one of Docker's own.
    pub is_official: bool,
    /// Name.
    pub name: String,
    /// Whether it was built automatically.
    pub is_automated: bool,
    /// One line.
    pub description: String,
}
