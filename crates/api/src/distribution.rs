//! What a registry has: `GET /distribution/{name}/json`, and what describes content elsewhere too.
#![expect(missing_docs, reason = "fields are named and documented as in Docker's API reference")]

use serde::{Deserialize, Serialize};

use crate::container::StringMap;
use crate::is_default;

/// Names content, as the OCI image specification does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub urls: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: StringMap,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(skip_serializing_if = "is_default")]
    pub artifact_type: String,
}

/// What an image runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(rename = "os.version", skip_serializing_if = "is_default")]
    pub os_version: String,
    #[serde(rename = "os.features", skip_serializing_if = "is_default")]
    pub os_features: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub variant: String,
}

/// The answer to `GET /distribution/{name}/json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Inspect {
    pub descriptor: Descriptor,
    pub platforms: Option<Vec<Platform>>,
}
