//! The index (manifest list) of an image's platforms.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::descriptor::Descriptor;
use crate::manifest::{Members, ParseError};
use crate::media_type;

/// An image index, OCI's or Docker's manifest list (image-spec image-index.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Type of this document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Type of the artifact, where this is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests, one for each platform.
    #[serde(default, deserialize_with = "crate::null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Annotations.
    #[serde(default, deserialize_with = "crate::null_as_default")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// Parses an index, and refuses a document that could also be read as a manifest.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ParseError> {
        let members = Members::read(bytes)?;
        if members.is_manifest() || members.media_type.as_deref().is_some_and(media_type::is_manifest) {
            return Err(ParseError::Other("index"));
        }
        let index: Self = serde_json::from_slice(bytes)?;
        match index.schema_version {
            2 => Ok(index),
            version => Err(ParseError::SchemaVersion(version)),
        }
    }
}
