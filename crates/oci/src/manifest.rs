//! The manifest of one image.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::descriptor::Descriptor;
use crate::media_type;

/// Why bytes are not a manifest or index.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The bytes are not the JSON that is wanted.
    #[error("invalid JSON")]
    Json(#[from] serde_json::Error),
    /// One document with both `layers` and `manifests` (CVE-2021-41190).
    #[error("ambiguous document: it is both a manifest and an index")]
    Ambiguous,
    /// It is, or says that it is, the other of the two.
    #[error("the document is no {0}")]
    Other(&'static str),
    /// Only schema version 2 is known.
    #[error("unsupported schema version {0}")]
    SchemaVersion(u32),
}

/// An image manifest, OCI's or Docker's (image-spec manifest.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Type of this document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Type of the artifact, where this is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image's configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "crate::null_as_default")]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Annotations.
    #[serde(default, deserialize_with = "crate::null_as_default")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Parses a manifest, and refuses a document that could also be read as an index.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ParseError> {
        let media_type = Members::read(bytes)?.media_type.unwrap_or_default();
        if media_type::is_index(&media_type) {
            return Err(ParseError::Other("manifest"));
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        match manifest.schema_version {
            2 => Ok(manifest),
            version => Err(ParseError::SchemaVersion(version)),
        }
    }
}

/// What tells a manifest and an index apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Members {
    #[serde(default)]
    pub(crate) media_type: Option<String>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
}

impl Members {
    /// Reads them, and refuses a document that has a manifest's and an index's.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, ParseError> {
        let members: Self = serde_json::from_slice(bytes)?;
        if members.manifests.is_some() && members.is_manifest() {
            return Err(ParseError::Ambiguous);
        }
        Ok(members)
    }

    /// Whether a manifest's are there.
    pub(crate) fn is_manifest(&self) -> bool {
        self.config.is_some() || self.layers.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{digest::Digest, index::Index};

    #[test]
    fn refuses_a_document_that_is_two_things() {
        let config = Descriptor::new(media_type::OCI_CONFIG, Digest::sha256_of(b"{}"), 2);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers: Vec::new(),
            subject: None,
            annotations: BTreeMap::new(),
        };
        let mut json = serde_json::to_value(&manifest).unwrap();
        let read = Manifest::from_slice(json.to_string().as_bytes()).unwrap();
        assert_eq!(read, manifest);
        json["manifests"] = serde_json::json!([]);
        let bytes = json.to_string().into_bytes();
        assert!(matches!(Manifest::from_slice(&bytes), Err(ParseError::Ambiguous)));
        assert!(matches!(Index::from_slice(&bytes), Err(ParseError::Ambiguous)));
    }

    #[test]
    fn one_is_not_read_as_the_other() {
        let manifest = |media_type: &str| {
            let digest = Digest::sha256_of(b"{}");
            format!(
                r#"{{"schemaVersion":2,"mediaType":"{media_type}","layers":[],
                "config":{{"mediaType":"a","digest":"{digest}","size":2}}}}"#
            )
        };
        assert!(Manifest::from_slice(manifest("").as_bytes()).is_ok());
        assert!(Index::from_slice(manifest("").as_bytes()).is_err());
        assert!(Index::from_slice(br#"{"schemaVersion":2,"layers":[]}"#).is_err());
        assert!(Manifest::from_slice(manifest(media_type::OCI_INDEX).as_bytes()).is_err());
        let index =
            |media_type: &str| format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[]}}"#);
        assert!(Index::from_slice(index(media_type::OCI_INDEX).as_bytes()).is_ok());
        assert!(Index::from_slice(index(media_type::DOCKER_MANIFEST).as_bytes()).is_err());
        assert!(Manifest::from_slice(index("").as_bytes()).is_err());
    }
}
